// Command replay repeats runs of a comparison from their manifests, and says whether they come out the same.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/signal"
	"slices"
	"strings"
	"unicode"

	"github.com/espalier-ml/espalier/datasets/cifar10"
	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// tolerance is by how much accuracies may differ where bits do: a tenth of a point.
const tolerance = 0.001

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes, of which the highest of all manifests is returned.
const (
	same       = 0
	different  = 1
	impossible = 2 // it can't be repeated
)

// run repeats the run of each manifest, and returns the exit code.
func run(ctx context.Context, manifests []string, out, problems io.Writer) (code int) {
	if len(manifests) == 0 {
		fmt.Fprintln(problems, "usage: espalier replay MANIFEST…")
		return impossible
	}
	for _, path := range manifests {
		code = max(code, repeat(ctx, path, out, problems))
		if ctx.Err() != nil {
			break
		}
	}
	return code
}

// repeat repeats the run of a manifest.
func repeat(ctx context.Context, path string, out, problems io.Writer) (code int) {
	m, err := experiment.ReadManifest(path)
	if err != nil {
		fmt.Fprintln(problems, "espalier replay:", err)
		return impossible
	}
	if name, ok := printable(m); !ok {
		fmt.Fprintf(problems, "espalier replay: %s: expected names that can be printed, came %q; ask who made it\n", path, name)
		return impossible
	}
	c, err := comparison(m)
	if err != nil {
		fmt.Fprintln(problems, "espalier replay:", err)
		return impossible
	}
	fmt.Fprintf(out, "%s on %s: %s, %g%% removed, seed %d\n", m.Network, m.Data.Name, m.Contender, 100*m.Sparsity, m.Seed)
	again, err := experiment.Replay(ctx, c, m)
	if err != nil {
		fmt.Fprintln(problems, "espalier replay:", err)
		var changed *experiment.ChangedError
		if errors.As(err, &changed) {
			return different
		}
		return impossible
	}
	verdict, equal := judge(m, again)
	fmt.Fprintln(out, verdict)
	if !equal {
		return different
	}
	return same
}

// printable returns a text of a manifest that is shown as it is and would steer a terminal, if there is one: the file may be anybody's.
func printable(m experiment.Manifest) (text string, ok bool) {
	all := []string{m.Contender}
	for name, version := range m.Versions {
		all = append(all, name, version)
	}
	at := slices.IndexFunc(all, func(text string) bool {
		return strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
	})
	if at < 0 {
		return "", true
	}
	return all[at], false
}

// judge compares what came out with what is written down.
func judge(m, again experiment.Manifest) (verdict string, equal bool) {
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		v := m.Versions[name]
		if again.Versions[name] != v {
			verdict += fmt.Sprintf("made with %s %s, repeated with %s\n", name, v, again.Versions[name])
		}
	}
	if m.Code != "" && again.Code != m.Code {
		verdict += fmt.Sprintf("the recipe's parts compute otherwise than those of these names did: %s\n", again.Recipe)
	}
	a, b := m.Results["accuracy"], again.Results["accuracy"]
	near := math.Abs(a-b) <= tolerance+1e-9 // 0.981 − 0.980 is a little more than 0.001
	switch bits := m.Masks == again.Masks && m.Weights == again.Weights; {
	case bits && !near:
		return verdict + fmt.Sprintf("different: masks and weights are the same, and accuracy is %.4f, was %.4f", b, a), false
	case bits:
		return verdict + "bit-equal: masks and weights are the same", true
	case near:
		return verdict + fmt.Sprintf("equal within tolerance: accuracy %.4f, was %.4f; bits differ, first in %s", b, a, first(m, again)), true
	}
	return verdict + fmt.Sprintf("different: first in %s; accuracy %.4f, was %.4f", first(m, again), b, a), false
}

// first names what differs first: a mask, else a variable, in the order of the network's paths.
func first(m, again experiment.Manifest) string {
	if m.Masks == again.Masks && m.Weights == again.Weights {
		return "nothing"
	}
	var masks, variables []string
	for name := range again.Each {
		if m.Each[name] == "" || m.Each[name] == again.Each[name] {
			continue
		}
		if strings.HasPrefix(name, "mask of ") {
			masks = append(masks, name)
		} else {
			variables = append(variables, name)
		}
	}
	slices.Sort(masks)
	slices.Sort(variables)
	switch {
	case len(masks) > 0:
		return "the " + masks[0]
	case m.Masks != again.Masks:
		return "the masks"
	case len(variables) > 0:
		return variables[0]
	}
	return "the weights"
}

// comparison finds by name all that a manifest names.
func comparison(m experiment.Manifest) (experiment.Comparison, error) {
	unknown := func(what, name string) error {
		return fmt.Errorf("the %s %q is not one of this project's: run the notebook or program that made the manifest instead", what, name)
	}
	c := experiment.Comparison{Network: m.Network, Data: m.Data, Dense: m.Dense, Tune: m.Tune, Test: m.Test, Fast: true, Seeds: []int64{m.Seed}, Sparsities: []float64{m.Sparsity}}
	at := slices.IndexFunc(nets.All(), func(n nets.Network) bool { return n.Name == m.Network })
	if at < 0 {
		return c, unknown("network", m.Network)
	}
	c.Task.Model = nets.All()[at].Model
	var err error
	switch d := m.Data; d.Name {
	case "mnist":
		var data *mnist.Data
		if data, err = mnist.Open(mnist.Config{Batch: d.Batch, Seed: d.Seed}); err == nil {
			c.Task.Train, c.Task.Validation, c.Task.Test = data.Train, data.Validation, data.Test
			if d.Take > 0 {
				c.Task.Train = data.Train.Take(d.Take)
			}
		}
	case "cifar10":
		var data *cifar10.Data
		if data, err = cifar10.Open(cifar10.Config{Batch: d.Batch, Seed: d.Seed}); err == nil {
			c.Task.Train, c.Task.Validation, c.Task.Test = data.Train, data.Validation, data.Test
			if d.Take > 0 {
				c.Task.Train = data.Train.Take(d.Take)
			}
		}
	case "digits":
		var data *synth.Data
		if data, err = synth.Digits(synth.Config{Batch: d.Batch, Seed: d.Seed}); err == nil {
			c.Task.Train, c.Task.Validation, c.Task.Test = data.Train, data.Validation, data.Test
		}
	default:
		return c, unknown("data set", d.Name)
	}
	if err != nil {
		return c, err
	}
	var ok bool
	r := prune.Recipe{Revive: m.Parts.Revive, KeepMin: m.Parts.KeepMin, MinUnits: m.Parts.MinUnits, RoundTo: m.Parts.RoundTo}
	if r.Criterion, ok = criterion.ByName(m.Parts.Criterion); !ok {
		return c, unknown("criterion", m.Parts.Criterion)
	}
	if r.Budget, ok = budget.ByName(m.Parts.Budget); !ok {
		return c, unknown("budget", m.Parts.Budget)
	}
	if r.Unit, ok = unit.ByName(m.Parts.Unit); !ok {
		return c, unknown("unit", m.Parts.Unit)
	}
	for _, n := range []criterion.Normalize{criterion.ByL2, criterion.ByMean, criterion.ByLAMP, {}} {
		if n.Name == m.Parts.Normalize {
			r.Normalize = n
		}
	}
	if r.Normalize.Name != m.Parts.Normalize {
		return c, unknown("normalisation", m.Parts.Normalize)
	}
	one := experiment.Contender{Name: m.Contender, Recipe: r, Mode: m.Mode, Rounds: m.Rounds, Batches: m.Batches}
	if m.Mode == experiment.Gradual {
		at := slices.IndexFunc(schedule.All(), func(s schedule.Named) bool { return s.Name == m.Schedule })
		if at < 0 {
			return c, unknown("schedule", m.Schedule)
		}
		one.Schedule = schedule.All()[at]
	}
	c.Contenders = []experiment.Contender{one}
	return c, nil
}

// Command sparse repeats published figures of sparse training: Sparse Momentum, SET, DSR, RigL and their controls. Each run is saved, goes on where it was interrupted,
// and is never made twice; several of these programs may work at once, and share the runs.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"github.com/espalier-ml/espalier/datasets/cifar10"
	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/backend/home"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/sparsetrain"
)

func main() {
	bench.Main("sparse", func(ctx context.Context, args []string) error { return command(ctx, args, os.Stdout, os.Stderr) })
}

// program is one call of the command.
type program struct {
	dir        string // where runs lie
	masks      string // where final masks go; "": nowhere
	fast       bool
	validation bool // measure on validation data alone
	backend    compute.Backend
	log        io.Writer
}

func command(ctx context.Context, args []string, out, log io.Writer) error {
	flags := flag.NewFlagSet("bench sparse", flag.ContinueOnError)
	only := flags.String("study", "", "one study, or several with commas: "+strings.Join(names(), ", ")+"; all by default")
	methods := flags.String("method", "", "one method, or several with semicolons; all by default")
	densities := flags.String("density", "", "one density, or several with commas; all by default")
	seeds := flags.String("seed", "", "one seed, or several with commas; all by default")
	file := flags.String("json", "", "write the records to this file, one a line; what it holds of runs that are not found in -dir, or not selected, stays in it")
	markdown := flags.String("markdown", "", "write the tables to this file; with -json those of all that is in that file then")
	masks := flags.String("masks", "", "write the masks that each run with seed 1 ends with into this directory, one bit for each weight; give it from the start: a run that is finished has no masks any more")
	dir := flags.String("dir", "", "where runs are kept; default: bench/sparse in Espalier's directory")
	fast := flags.Bool("fast", false, "a few steps on synthetic digits, one seed and density of each method, to try out")
	validation := flags.Bool("validation", false, "do not read the test data: to choose settings")
	idle := flags.Bool("tables", false, "train nothing, print the tables of what is there")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		root, err := home.Dir()
		if err != nil {
			return err
		}
		*dir = filepath.Join(root, "bench", "sparse")
		if *fast {
			*dir += "-fast"
		}
	}
	b := program{dir: *dir, masks: *masks, fast: *fast, validation: *validation, log: log}
	var err error
	if b.backend, err = backend.Open(); err != nil {
		return err
	}
	var records []report.Record
	for _, s := range studies {
		if !among(*only, ",", s.name) {
			continue
		}
		if b.fast {
			s = quick(s)
		}
		var wanted []job
		for _, j := range s.jobs() {
			if among(*methods, ";", j.method.name) && amongNumbers(*densities, j.density) && amongNumbers(*seeds, float64(j.seed)) {
				wanted = append(wanted, j)
			}
		}
		if !*idle {
			if err := b.study(ctx, s, wanted); err != nil {
				return err
			}
		}
		for _, j := range s.jobs() {
			known, err := report.ReadRecords(b.file(s, j))
			if err != nil {
				return err
			}
			records = append(records, known...)
		}
	}
	if *file != "" {
		old, err := report.ReadRecords(*file)
		if err != nil {
			return err
		}
		records = merged(old, records)
		if err := report.WriteRecords(*file, records); err != nil {
			return err
		}
	}
	all := tables(records)
	if *markdown != "" {
		text, err := bench.Page(head, all)
		if err != nil {
			return err
		}
		if err := os.WriteFile(*markdown, text, 0o644); err != nil {
			return err
		}
	}
	return bench.Print(out, all)
}

// head is what the page of the tables begins with.
const head = "# Sparse training, held against what was published\n\nWritten by `espalier bench sparse` from sparse-training.jsonl, and not by hand.\n"

func names() []string {
	var all []string
	for _, s := range studies {
		all = append(all, s.name)
	}
	return all
}

// run tells runs apart. All records of one are made together: a result takes the place of one that ended at another step, as of a run that failed.
type run struct {
	study, method string
	density       float64
	seed          int64
}

func runOf(r report.Record) run { return run{r.Labels["study"], r.Recipe, r.Values["density"], r.Seed} }

// merged returns the records of both, of runs that are among both the fresh ones: in the order of the studies and their jobs, as a call with all studies has them. What is of none of these is last.
func merged(old, fresh []report.Record) []report.Record {
	known := map[run]bool{}
	for _, r := range fresh {
		known[runOf(r)] = true
	}
	all := slices.Concat(fresh, slices.DeleteFunc(slices.Clone(old), func(r report.Record) bool { return known[runOf(r)] }))
	place := map[run]int{}
	for _, s := range studies {
		for _, j := range s.jobs() {
			place[run{s.name, j.method.name, j.density, j.seed}] = len(place)
		}
	}
	at := func(r report.Record) int {
		if i, listed := place[runOf(r)]; listed {
			return i
		}
		return len(place)
	}
	slices.SortStableFunc(all, func(a, b report.Record) int { return at(a) - at(b) })
	return all
}

// among tells whether a list names something; an empty list names all.
func among(list, separator, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, separator), name)
}

func amongNumbers(list string, x float64) bool {
	if list == "" {
		return true
	}
	for _, text := range strings.Split(list, ",") {
		if y, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(x-y) < 1e-12 {
			return true
		}
	}
	return false
}

// quick makes a study a matter of seconds: one run of each method.
func quick(s study) study {
	s.epochs, s.batch = 10, 20
	var runs []series
	for i, one := range s.runs {
		if i+1 < len(s.runs) && s.runs[i+1].method.name == one.method.name {
			continue
		}
		one.seeds, one.densities = 1, one.densities[len(one.densities)-1:]
		runs = append(runs, one)
	}
	s.runs = runs
	return s
}

// job is one run.
type job struct {
	method  method
	density float64
	seed    int64
	train   recipe
}

// jobs lists the runs of a study, seed by seed, so that what is there early is of all methods.
func (s study) jobs() []job {
	var all []job
	most := 0
	for _, one := range s.runs {
		most = max(most, one.seeds)
	}
	for seed := 1; seed <= most; seed++ {
		for _, one := range s.runs {
			for _, density := range one.densities {
				if seed > one.seeds {
					continue
				}
				j := job{one.method, density, int64(seed), s.train}
				if one.method.train != nil {
					j.train = *one.method.train
				}
				all = append(all, j)
			}
		}
	}
	return all
}

// identity says all that a run is made of.
func (b program) identity(s study, j job) string {
	more := ""
	if s.start != nil {
		more = " start=uniform"
	}
	if s.variant != "" {
		more += " " + s.variant
	}
	if j.method.detail != "" {
		more += " " + j.method.detail
	}
	return fmt.Sprintf("%s %s batch=%d epochs=%d recipe=%q method=%q %s every=%d density=%v seed=%d fast=%v validation=%v%s",
		s.network, s.data, s.batch, s.epochs, j.train.name, j.method.name, j.method.update, j.method.every, j.density, j.seed, b.fast, b.validation, more)
}

func (b program) file(s study, j job) string {
	sum := sha256.Sum256([]byte(b.identity(s, j)))
	return filepath.Join(b.dir, "records", s.name, hex.EncodeToString(sum[:8])+".jsonl")
}

// open returns a study's data.
func (b program) open(s study) (*mnist.Data, error) {
	switch {
	case b.fast && s.data == "mnist":
		return synth.Digits(synth.Config{Train: 400, Validation: 100, Test: 100, Batch: s.batch})
	case s.data == "mnist":
		return mnist.Open(mnist.Config{Batch: s.batch})
	}
	d, err := cifar10.Open(cifar10.Config{Batch: s.batch})
	if err == nil && b.fast {
		return &cifar10.Data{Train: d.Train.Take(400), Validation: d.Validation.Take(100), Test: d.Test.Take(100)}, nil
	}
	return d, err
}

// study makes the runs that are not there yet.
func (b program) study(ctx context.Context, s study, jobs []job) error {
	var missing []job
	for _, j := range jobs {
		known, err := report.ReadRecords(b.file(s, j))
		if err != nil {
			return err
		}
		if len(known) == 0 {
			missing = append(missing, j)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	data, err := b.open(s)
	if errors.Is(err, cifar10.ErrMissing) {
		fmt.Fprintf(b.log, "%s is left out: %v\n", s.name, err)
		return nil
	}
	if err != nil {
		return err
	}
	task := experiment.Task{Backend: b.backend, Model: s.model, Start: s.start, Train: data.Train, Validation: data.Validation, Test: data.Test}
	start := time.Now()
	for i, j := range missing {
		label := fmt.Sprintf("%s: %s, %g%% of the weights, seed %d", s.name, j.method.name, 100*j.density, j.seed)
		records, err := b.run(ctx, s, task, j)
		var busy *experiment.BusyError
		if errors.As(err, &busy) {
			fmt.Fprintf(b.log, "%s is being made by another process\n", label)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", label, err)
		}
		if err := report.WriteRecords(b.file(s, j), records); err != nil {
			return err
		}
		last := records[len(records)-1]
		fmt.Fprintf(b.log, "%s: %d of %d after %s: validation %.4f, test %.4f\n", label, i+1, len(missing), time.Since(start).Round(time.Second),
			last.Values["validation"], last.Values["test"])
	}
	return nil
}

// run makes a run. Its records are how many weights each layer had after each update, of the first seed, and at last the result.
func (b program) run(ctx context.Context, s study, task experiment.Task, j job) ([]report.Record, error) {
	if known, err := report.ReadRecords(b.file(s, j)); err != nil || len(known) > 0 {
		return known, err // made by another process in the meantime
	}
	store, err := experiment.Init(task, j.seed)
	if err != nil {
		return nil, err
	}
	trainer, err := experiment.NewTrainer(task, store)
	if err != nil {
		return nil, err
	}
	defer trainer.Close()
	inputs, _ := task.Train.(experiment.Resident).Arrays()
	perEpoch := inputs.Shape().Dimensions[0] / s.batch
	steps := s.epochs * perEpoch
	set := params.Select(store, nil)
	labels := map[string]string{"study": s.name, "network": s.network, "method": j.method.name, "recipe": j.train.name}
	layers := []report.Record{}
	t := experiment.Training{
		Steps: steps, Seed: j.seed, Dir: filepath.Join(b.dir, "networks"), Name: b.identity(s, j),
		Optimizer: &experiment.SGD{LearningRate: j.train.rate, Momentum: 0.9, Nesterov: true, WeightDecay: j.train.weightDecay}, Rate: j.train.factor(steps),
		Watch: func(p report.Progress) {
			if p.Layers == nil || j.seed != 1 || p.Step%perEpoch != 0 && p.Step != 0 {
				return
			}
			r := report.Record{Recipe: j.method.name, Seed: j.seed, Step: p.Step, Labels: map[string]string{"study": s.name, "method": j.method.name, "kind": "layers"},
				Values: map[string]float64{"density": j.density}}
			for _, l := range p.Layers {
				r.Values[l.Name] = float64(l.Kept)
			}
			layers = append(layers, r)
		},
	}
	switch {
	case j.method.reference != nil:
		if t.Pruner, err = prune.New(b.backend, store, set, j.method.reference.Recipe); err != nil {
			return nil, err
		}
		if t.Schedule, t.When, err = j.method.reference.Over(steps, 100, j.density); err != nil {
			return nil, err
		}
	case j.density < 1:
		every := j.method.every
		if every == 0 {
			every = perEpoch
		}
		update := j.method.update
		if j.method.when != nil {
			update.When = j.method.when(perEpoch)
		}
		u, err := update.Over(steps, every)
		if err != nil {
			return nil, err
		}
		engine, err := sparsetrain.New(b.backend, store, set, u, sparsetrain.Config{Density: j.density, Seed: j.seed})
		if err != nil {
			return nil, err
		}
		t.Topology = engine
	}
	result := report.Record{Recipe: j.method.name, Seed: j.seed, Step: steps, Labels: labels, Values: map[string]float64{"density": j.density, "epochs": float64(s.epochs)}}
	done, err := trainer.Train(ctx, t)
	var diverged *experiment.DivergedError
	if errors.As(err, &diverged) {
		labels["failed"] = err.Error()
		result.Step = diverged.Step
		return []report.Record{result}, nil
	}
	if err != nil {
		return nil, err
	}
	result.Values["loss"] = done.Loss
	validation, err := trainer.Evaluate(ctx, task.Validation)
	if err != nil {
		return nil, err
	}
	result.Values["validation"] = validation.Accuracy
	if !b.validation {
		test, err := trainer.Evaluate(ctx, task.Test)
		if err != nil {
			return nil, err
		}
		result.Values["test"] = test.Accuracy
	}
	if j.density < 1 {
		stats, err := mask.Count(store, set)
		if err != nil {
			return nil, err
		}
		for _, l := range stats {
			result.Values["kept "+l.Path] = float64(l.Kept)
		}
		if b.masks != "" && j.seed == 1 {
			if err := b.saveMasks(s, j, func(w io.Writer) error { return mask.Save(w, store, set) }); err != nil {
				return nil, err
			}
		}
	}
	return append(layers, result), os.RemoveAll(done.Dir)
}

func (b program) saveMasks(s study, j job, save func(io.Writer) error) error {
	if err := os.MkdirAll(b.masks, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(b.masks, maskFile(s.name, j.method.name, j.density)))
	if err != nil {
		return err
	}
	return errors.Join(save(f), f.Close())
}

// maskFile names the file of the masks that a run ends with.
func maskFile(study, method string, density float64) string {
	return fmt.Sprintf("%s-%s-%g.masks", study, strings.NewReplacer(" ", "-", ",", "", "/", "").Replace(method), density)
}

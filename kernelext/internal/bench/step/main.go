// Command step measures training steps, data included, in one interleaved run: of LeNet-300-100 against JAX and against GoMLX's own loop, masked, with topology
// updates and from several seeds together; of LeNet-5 against PyTorch; and how long a first step takes. It compares with the project's goals.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/dataset"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/metric"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/sparsetrain"
)

var (
	//go:embed jax_step.py
	jaxScript string
	//go:embed torch_step.py
	torchScript string
)

const (
	batch    = 60
	rate     = 1e-3
	replicas = 4
	every    = 100 // steps between topology updates
	density  = 0.1
)

// Names of contenders that goals speak of.
const (
	jaxMLP, ourMLP, maskedMLP       = "JAX", "Espalier", "Espalier, 90% masked"
	rigl, riglAtRest                = "Espalier, RigL every 100 steps", "Espalier, RigL at rest"
	together                        = "Espalier, 4 seeds together"
	torchConv, torchLast, ourLeNet5 = "PyTorch, LeNet-5", "PyTorch, LeNet-5, channels last", "Espalier, LeNet-5"
	firstStep                       = "first step"
)

// spin is how long PyTorch's threads are left to themselves after a sample: they wait for more by turning round, at the cost of whoever comes next.
const spin = 300 * time.Millisecond

// contender does a number of training steps, of each of its replicas.
type contender struct {
	name     string
	sample   int // steps in a sample
	replicas int
	steps    func(n int) error
}

// measured is what -json writes.
type measured struct {
	Batch   int                  `json:"batch"`
	Go      string               `json:"go"`
	JAX     string               `json:"jax"`
	PyTorch string               `json:"pytorch,omitempty"`
	CPUs    int                  `json:"cpus"`
	Names   []string             `json:"contenders"`       // the first is the base
	Samples map[string]int       `json:"steps_per_sample"` // of each
	Seconds map[string][]float64 `json:"seconds_per_step"` // of a replica, in each round
	First   []float64            `json:"seconds_to_first_step"`
}

// goal is a limit of a ratio of times, or where there is nothing to compare with, of seconds.
type goal struct {
	what     string
	of       string
	over     []string // the fastest of them in each round; none: of is in seconds
	atMost   float64
	relative string // what the ratio is, in the table
}

// goals are those that the project has set itself, on two cores.
var goals = []goal{
	{"LeNet-300-100", ourMLP, []string{jaxMLP}, 0.80, "over JAX"},
	{"LeNet-5", ourLeNet5, []string{torchConv, torchLast}, 0.95, "over PyTorch, fused Adam, the better of two memory formats"},
	{"4 seeds together, each", together, []string{ourMLP}, 0.60, "over one alone"},
	{"90% masked", maskedMLP, []string{ourMLP}, 1.03, "over dense"},
	{"RigL's updates every 100 steps", rigl, []string{riglAtRest}, 1.05, "over the same trainer without updates"},
	{"first step, cold", firstStep, nil, 0.8, "seconds"},
}

func main() {
	bench.Main("step", run)
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench step", flag.ContinueOnError)
	python := flags.String("jax-python", "", "Python interpreter that has JAX")
	torchPython := flags.String("torch-python", "", "Python interpreter that has PyTorch; without it LeNet-5 is measured alone")
	rounds := flags.Int("rounds", 12, "rounds")
	jsonFile := flags.String("json", "", "also write the seconds of each step to this file")
	first := flags.Bool("first", false, "only take a first step and say how many seconds that took; the command calls itself so")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *first {
		return takeFirst()
	}
	if *python == "" {
		return errors.New("-jax-python is missing: run it by `espalier bench step`, which sets it up")
	}
	if *rounds < 1 {
		return fmt.Errorf("-rounds is %d: give at least 1, and 8 for an interval worth the name", *rounds)
	}
	choice, err := backend.Describe()
	if err != nil {
		return err
	}
	if choice.Name != "xla:cpu" {
		return fmt.Errorf("the backend is %s (%s): the peers compute with XLA on the CPU, and so must this; unset GOMLX_BACKEND, and run `espalier setup`", choice.Name, choice.Reason)
	}
	data, err := mnist.Open(mnist.Config{Batch: batch})
	if err != nil {
		return err
	}
	m := measured{Batch: batch, Go: runtime.Version(), CPUs: runtime.NumCPU(), Samples: map[string]int{}, Seconds: map[string][]float64{}}
	jax, err := bench.StartPeer(ctx, "JAX", *python, "-c", jaxScript, strconv.Itoa(batch), fmt.Sprint(rate))
	if err != nil {
		return err
	}
	defer jax.Stop()
	m.JAX = jax.Hello
	contenders := []contender{{jaxMLP, 200, 1, training(jax)}}
	if *torchPython != "" {
		for name, layout := range map[string]string{torchConv: "contiguous", torchLast: "channels_last"} {
			torch, err := bench.StartPeer(ctx, "PyTorch", *torchPython, "-c", torchScript, strconv.Itoa(batch), fmt.Sprint(rate), strconv.Itoa(runtime.NumCPU()), layout)
			if err != nil {
				return err
			}
			defer torch.Stop()
			m.PyTorch = torch.Hello
			contenders = append(contenders, contender{name, 20, 1, training(torch)})
		}
	}
	slices.SortStableFunc(contenders, func(a, b contender) int { return cmp.Compare(a.name, b.name) })
	for _, open := range []func(*mnist.Data) ([]contender, error){
		alone(ourMLP, nets.LeNet300, 200, asItIs), alone(maskedMLP, nets.LeNet300, 200, magnitude), sparse, seeds, gomlx, alone(ourLeNet5, nets.LeNet5, 20, asItIs),
	} {
		some, err := open(data)
		if err != nil {
			return err
		}
		contenders = append(contenders, some...)
	}
	for _, c := range contenders {
		m.Names, m.Samples[c.name] = append(m.Names, c.name), c.sample
		if err := c.steps(c.sample); err != nil { // compile and warm up
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range *rounds {
		for _, i := range rng.Perm(len(contenders)) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			c := contenders[i]
			start := time.Now()
			if err := c.steps(c.sample); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			m.Seconds[c.name] = append(m.Seconds[c.name], time.Since(start).Seconds()/float64(c.sample*c.replicas))
			if c.name == torchConv || c.name == torchLast {
				time.Sleep(spin)
			}
		}
		answer, err := exec.CommandContext(ctx, self, "-first").Output()
		if err != nil {
			return fmt.Errorf("first step: %w", err)
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(string(answer)), 64)
		if err != nil {
			return fmt.Errorf("first step: %w", err)
		}
		m.First = append(m.First, seconds)
	}
	if *jsonFile != "" {
		text, err := json.MarshalIndent(m, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*jsonFile, text, 0o644); err != nil {
			return err
		}
	}
	if err := table(m).Text(os.Stdout); err != nil {
		return err
	}
	fmt.Println()
	return reached(m).Text(os.Stdout)
}

// takeFirst says how long it takes, in a process that has compiled nothing yet, from a network's variables to the end of its first step. Opening the backend and the
// data is no part of it.
func takeFirst() error {
	data, err := mnist.Open(mnist.Config{Batch: batch})
	if err != nil {
		return err
	}
	b, err := backend.Open()
	if err != nil {
		return err
	}
	start := time.Now()
	task := experiment.Task{Backend: b, Model: nets.LeNet300, Train: data.Train}
	store, err := experiment.Init(task, 1)
	if err != nil {
		return err
	}
	if _, err := experiment.Train(context.Background(), task, store, experiment.Training{Steps: 1}); err != nil {
		return err
	}
	fmt.Println(time.Since(start).Seconds())
	return nil
}

// reached compares with the goals.
func reached(m measured) report.Table {
	t := report.Table{
		Title:   "Goals",
		Columns: []report.Column{{Name: "what"}, {Name: "measured", Format: "%.3f"}, {Name: "95% interval"}, {Name: "at most", Format: "%.2f"}, {Name: "which is"}, {Name: "reached"}},
		Caption: "Ratios are medians over the rounds of each round's own.",
	}
	for _, g := range goals {
		values := m.First
		if g.over != nil {
			values = nil
			for i, seconds := range m.Seconds[g.of] {
				least := math.Inf(1)
				for _, name := range g.over {
					if base := m.Seconds[name]; i < len(base) {
						least = min(least, base[i])
					}
				}
				if !math.IsInf(least, 1) {
					values = append(values, seconds/least)
				}
			}
		}
		if len(values) == 0 {
			t.Rows = append(t.Rows, []any{g.what, math.NaN(), "", g.atMost, g.relative, "not measured"})
			continue
		}
		low, high := profile.Bootstrap(values, 1)
		median := profile.Quantile(values, 0.5)
		t.Rows = append(t.Rows, []any{g.what, median, fmt.Sprintf("%.3f to %.3f", low, high), g.atMost, g.relative, map[bool]string{true: "yes", false: "no"}[median <= g.atMost]})
	}
	return t
}

// table compares each contender with the first.
func table(m measured) report.Table {
	base := m.Seconds[m.Names[0]]
	t := report.Table{
		Title: fmt.Sprintf("A training step, of LeNet-300-100 where nothing else is said, batch %d, Adam, data included", m.Batch),
		Columns: []report.Column{{Name: "contender"}, {Name: "least", Unit: "ms", Format: "%.3f"}, {Name: "median", Unit: "ms", Format: "%.3f"},
			{Name: "time over " + m.Names[0], Format: "%.2f"}, {Name: "95% interval"}, {Name: "least over least", Format: "%.2f"}},
		Caption: fmt.Sprintf("%d rounds of %d steps each (LeNet-5: %d), in shuffled order; the ratio is the median over the rounds of the round's own. %s, JAX %s, PyTorch %s, %d CPUs.",
			len(base), m.Samples[m.Names[0]], m.Samples[ourLeNet5], m.Go, m.JAX, cmp.Or(m.PyTorch, "not measured"), m.CPUs),
	}
	for _, name := range m.Names {
		seconds := m.Seconds[name]
		ratios := make([]float64, len(base))
		for i := range ratios {
			ratios[i] = seconds[i] / base[i]
		}
		low, high := profile.Bootstrap(ratios, 1)
		least := profile.Quantile(seconds, 0)
		t.Rows = append(t.Rows, []any{name, 1e3 * least, 1e3 * profile.Quantile(seconds, 0.5),
			profile.Quantile(ratios, 0.5), fmt.Sprintf("%.2f to %.2f", low, high), least / profile.Quantile(base, 0)})
	}
	return t
}

// alone is this project's trainer, of a network that prepare has made sparse or left as it is.
func alone(name string, network experiment.ModelFn, sample int, prepare func(compute.Backend, *model.Store) (experiment.Training, error)) func(*mnist.Data) ([]contender, error) {
	return func(data *mnist.Data) ([]contender, error) {
		trainer, training, err := trainerOf(network, data, 1, prepare)
		return []contender{{name, sample, 1, again(trainer, training)}}, err
	}
}

// again trains for another number of steps, on other examples.
func again(trainer *experiment.Trainer, training experiment.Training) func(n int) error {
	return func(n int) error {
		training.Steps = n
		training.Seed++
		_, err := trainer.Train(context.Background(), training)
		return err
	}
}

// seeds are several replicas that are trained together.
func seeds(data *mnist.Data) ([]contender, error) {
	var runs []experiment.Run
	for seed := range int64(replicas) {
		trainer, training, err := trainerOf(nets.LeNet300, data, 1+seed, asItIs)
		if err != nil {
			return nil, err
		}
		runs = append(runs, experiment.Run{Trainer: trainer, Training: training})
	}
	return []contender{{together, 200, replicas, func(n int) error {
		for i := range runs {
			runs[i].Training.Steps = n
			runs[i].Training.Seed += replicas
		}
		_, err := experiment.TrainTogether(context.Background(), runs...)
		return err
	}}}, nil
}

func trainerOf(network experiment.ModelFn, data *mnist.Data, seed int64, prepare func(compute.Backend, *model.Store) (experiment.Training, error)) (*experiment.Trainer, experiment.Training, error) {
	var training experiment.Training
	b, err := backend.Open()
	if err != nil {
		return nil, training, err
	}
	task := experiment.Task{Backend: b, Model: network, Train: data.Train}
	store, err := experiment.Init(task, seed)
	if err != nil {
		return nil, training, err
	}
	if training, err = prepare(b, store); err != nil {
		return nil, training, err
	}
	training.Seed = seed
	trainer, err := experiment.NewTrainer(task, store)
	return trainer, training, err
}

func asItIs(compute.Backend, *model.Store) (experiment.Training, error) {
	return experiment.Training{}, nil
}

// magnitude keeps the largest weights alive.
func magnitude(b compute.Backend, store *model.Store) (t experiment.Training, err error) {
	if t.Pruner, err = prune.New(b, store, params.Select(store, nil), prune.Recipe{}); err != nil {
		return t, err
	}
	_, err = t.Pruner.Prune(1-density, nil)
	return t, err
}

// sparse changes the topology as RigL does, two times in a sample, without an end; and the same trainer does without. Two trainers of the same network differ in time by a few percent, as their
// memory happens to lie, which is as much as the updates take.
func sparse(data *mnist.Data) ([]contender, error) {
	trainer, training, err := trainerOf(nets.LeNet300, data, 1, func(b compute.Backend, store *model.Store) (experiment.Training, error) {
		update := sparsetrain.RigL
		update.Fraction, update.When = schedule.Constant(update.Start), func(step int) bool { return step%every == 0 }
		engine, err := sparsetrain.New(b, store, params.Select(store, nil), update, sparsetrain.Config{Density: density})
		return experiment.Training{Topology: engine}, err
	})
	if err != nil {
		return nil, err
	}
	resting := training
	resting.Topology = atRest{training.Topology}
	return []contender{{rigl, 200, 1, again(trainer, training)}, {riglAtRest, 200, 1, again(trainer, resting)}}, nil
}

// atRest is a topology that stays.
type atRest struct{ experiment.Topology }

func (atRest) Due(int) bool { return false }

// gomlx is GoMLX's own trainer and loop with its in-memory data set, on XLA as GoMLX opens it, as its examples have it.
func gomlx(data *mnist.Data) ([]contender, error) {
	b, err := compute.NewWithConfig("xla:cpu")
	if err != nil {
		return nil, err
	}
	inputs, labels := data.Train.Arrays()
	x, err := inputs.LocalClone()
	if err != nil {
		return nil, err
	}
	y := tensors.MustCopyFlatData[int32](labels)
	ds, err := dataset.InMemoryFromData(b, "mnist", []any{x}, []any{tensors.FromFlatDataAndDimensions(y, len(y), 1)})
	if err != nil {
		return nil, err
	}
	ds.BatchSize(batch, true).Shuffle().Infinite(true)
	store := model.NewStore()
	fn := func(scope *model.Scope, x *graph.Node) *graph.Node { return nets.LeNet300(scope, data.Train.Decode(x)) }
	trainer := train.NewTrainer(b, store, fn, loss.SparseCategoricalCrossEntropyLogits, optimizer.Adam().LearningRate(rate).Done(),
		[]metric.Interface{metric.NewSparseCategoricalAccuracy("accuracy", "acc")}, nil)
	loop := train.NewLoop(trainer)
	return []contender{{"GoMLX's loop", 200, 1, func(n int) error {
		_, err := loop.RunSteps(ds, n)
		return err
	}}}, nil
}

// training makes a peer train for as many steps as it is told.
func training(p *bench.Peer) func(n int) error {
	return func(n int) error {
		line, err := p.Ask(strconv.Itoa(n))
		if err == nil && line != "done" {
			err = fmt.Errorf("it answered %q", line)
		}
		return err
	}
}

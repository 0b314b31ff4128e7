// Command step measures a training step of LeNet-300-100, data included, against JAX and against GoMLX's own loop, in one interleaved run.
package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
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
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
)

//go:embed jax_step.py
var jaxScript string

const (
	batch   = 60
	rate    = 1e-3
	samples = 200 // steps in a sample
)

// contender does a number of training steps.
type contender struct {
	name  string
	steps func(n int) error
}

// measured is what -json writes.
type measured struct {
	Batch   int                  `json:"batch"`
	Steps   int                  `json:"steps_per_sample"`
	Go      string               `json:"go"`
	JAX     string               `json:"jax"`
	CPUs    int                  `json:"cpus"`
	Names   []string             `json:"contenders"` // the first is the base
	Seconds map[string][]float64 `json:"seconds_per_step"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench step:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	python := flag.String("jax-python", "", "Python interpreter that has JAX")
	rounds := flag.Int("rounds", 12, "rounds")
	jsonFile := flag.String("json", "", "also write the seconds of each step to this file")
	flag.Parse()
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
	jax, err := startJAX(ctx, *python)
	if err != nil {
		return fmt.Errorf("JAX: %w", err)
	}
	defer jax.stop()
	ours, err := espalier("Espalier", data, 0)
	if err != nil {
		return err
	}
	masked, err := espalier("Espalier, 90% masked", data, 0.9)
	if err != nil {
		return err
	}
	stock, err := gomlx(data)
	if err != nil {
		return err
	}
	contenders := []contender{{"JAX", jax.steps}, ours, masked, stock}
	m := measured{Batch: batch, Steps: samples, Go: runtime.Version(), JAX: jax.version, CPUs: runtime.NumCPU(), Seconds: map[string][]float64{}}
	for _, c := range contenders {
		m.Names = append(m.Names, c.name)
		if err := c.steps(samples); err != nil { // compile and warm up
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range *rounds {
		for _, i := range rng.Perm(len(contenders)) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			c := contenders[i]
			start := time.Now()
			if err := c.steps(samples); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			m.Seconds[c.name] = append(m.Seconds[c.name], time.Since(start).Seconds()/samples)
		}
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
	return table(m).Text(os.Stdout)
}

// table compares each contender with the first.
func table(m measured) report.Table {
	base := m.Seconds[m.Names[0]]
	t := report.Table{
		Title: fmt.Sprintf("A training step of LeNet-300-100, batch %d, Adam, data included", m.Batch),
		Columns: []report.Column{{Name: "contender"}, {Name: "least", Unit: "ms", Format: "%.3f"}, {Name: "median", Unit: "ms", Format: "%.3f"},
			{Name: "time over " + m.Names[0], Format: "%.2f"}, {Name: "95% interval"}, {Name: "least over least", Format: "%.2f"}},
		Caption: fmt.Sprintf("%d rounds of %d steps each, in shuffled order; the ratio is the median over the rounds of the round's own. %s, JAX %s, %d CPUs.",
			len(base), m.Steps, m.Go, m.JAX, m.CPUs),
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

// espalier is this project's trainer, at a sparsity.
func espalier(name string, data *mnist.Data, sparsity float64) (contender, error) {
	b, err := backend.Open()
	if err != nil {
		return contender{}, err
	}
	task := experiment.Task{Backend: b, Model: nets.LeNet300, Train: data.Train}
	store, err := experiment.Init(task, 1)
	if err != nil {
		return contender{}, err
	}
	trainer, err := experiment.NewTrainer(task, store)
	if err != nil {
		return contender{}, err
	}
	var pruner *prune.Pruner
	if sparsity > 0 {
		if pruner, err = prune.New(b, store, params.Select(store, nil), prune.Recipe{}); err != nil {
			return contender{}, err
		}
		if _, err := pruner.Prune(sparsity, nil); err != nil {
			return contender{}, err
		}
	}
	seed := int64(0)
	return contender{name, func(n int) error {
		seed++
		_, err := trainer.Train(context.Background(), experiment.Training{Steps: n, Seed: seed, Pruner: pruner})
		return err
	}}, nil
}

// gomlx is GoMLX's own trainer and loop with its in-memory data set, on XLA as GoMLX opens it, as its examples have it.
func gomlx(data *mnist.Data) (contender, error) {
	b, err := compute.NewWithConfig("xla:cpu")
	if err != nil {
		return contender{}, err
	}
	inputs, labels := data.Train.Arrays()
	x, err := inputs.LocalClone()
	if err != nil {
		return contender{}, err
	}
	y := tensors.MustCopyFlatData[int32](labels)
	ds, err := dataset.InMemoryFromData(b, "mnist", []any{x}, []any{tensors.FromFlatDataAndDimensions(y, len(y), 1)})
	if err != nil {
		return contender{}, err
	}
	ds.BatchSize(batch, true).Shuffle().Infinite(true)
	store := model.NewStore()
	fn := func(scope *model.Scope, x *graph.Node) *graph.Node { return nets.LeNet300(scope, data.Train.Decode(x)) }
	trainer := train.NewTrainer(b, store, fn, loss.SparseCategoricalCrossEntropyLogits, optimizer.Adam().LearningRate(rate).Done(),
		[]metric.Interface{metric.NewSparseCategoricalAccuracy("accuracy", "acc")}, nil)
	loop := train.NewLoop(trainer)
	return contender{"GoMLX's loop", func(n int) error {
		_, err := loop.RunSteps(ds, n)
		return err
	}}, nil
}

// peer is a process that trains when it is told to.
type peer struct {
	version string
	in      io.WriteCloser
	out     *bufio.Reader
	cmd     *exec.Cmd
}

func startJAX(ctx context.Context, python string) (*peer, error) {
	cmd := exec.CommandContext(ctx, python, "-c", jaxScript, strconv.Itoa(batch), fmt.Sprint(rate))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peer{in: in, out: bufio.NewReader(out), cmd: cmd}
	if p.version, err = p.answer(); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// steps trains for n steps.
func (p *peer) steps(n int) error {
	if _, err := fmt.Fprintln(p.in, n); err != nil {
		return err
	}
	switch line, err := p.answer(); {
	case err != nil:
		return err
	case line != "done":
		return fmt.Errorf("it answered %q", line)
	}
	return nil
}

func (p *peer) answer() (string, error) {
	line, err := p.out.ReadString('\n')
	if errors.Is(err, io.EOF) {
		return "", errors.New("the process died; what it wrote to standard error says why")
	}
	return strings.TrimSpace(line), err
}

// stop ends the process, which ends with its input.
func (p *peer) stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/kernelext/figure"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/onnx"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/store"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// tolerance is by how much outputs that have to be equal may differ, as a share of the largest.
const tolerance = 1e-4

// job is one run of the command.
type job struct {
	options
	backend       compute.Backend
	out, progress io.Writer

	large  *onnx.Model
	inputs []shapes.Shape // for a batch of one, or of the only size that the model takes
	images *images        // nil: no data was given

	busy    bool   // others worked while the networks were timed
	trained string // where the training is saved, until the smaller model is written; "": nowhere
}

func (j *job) say(format string, args ...any) { fmt.Fprintf(j.progress, format+"\n", args...) }

// run does all of it. Files are written at the end.
func (j *job) run(ctx context.Context) error {
	if err := j.read(); err != nil {
		return err
	}
	j.say("finding what has to go together …")
	n, err := surgery.Trace(j.backend, j.large.Store, j.large.ModelFn, j.inputs...)
	if err != nil {
		return err
	}
	if before := n.Cost(); before.MACs == 0 || len(n.Groups()) == 0 {
		return fmt.Errorf("%s: expected layers of which channels can go, came a model of %d multiply-accumulates with %d groups of channels: there is nothing to make smaller", filepath.Base(j.model), before.MACs, len(n.Groups()))
	}
	fits := false
	if j.data != "" {
		if j.images, err = j.openImages(); err != nil {
			return err
		}
		if fits, err = j.compare(); err != nil {
			return err
		}
	}
	machines := j.roundTo == 0
	if machines {
		if err := j.measureRoundTo(ctx); err != nil {
			return err
		}
	}
	cfg := surgery.Config{Criterion: j.options.criterion, MACs: j.macs, Params: j.params, RoundTo: j.roundTo, Exclude: j.exclude, Seed: j.seed}
	signals, err := j.signals(n, cfg)
	if err != nil {
		return err
	}
	choose := n.Plan
	if machines {
		choose = func(cfg surgery.Config, signals *signal.Signals) (*surgery.Plan, error) {
			return j.planByMachine(n, cfg, signals)
		}
	}
	plan, err := choose(cfg, signals)
	if err != nil {
		return err
	}
	for _, note := range plan.Notes() {
		j.say("note: %s", note)
	}
	small, err := plan.Apply()
	if err != nil {
		return err
	}
	groups, err := plan.Table()
	if err != nil {
		return err
	}
	if err := short(groups).Text(j.out); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	j.say("comparing the smaller network with the masked one …")
	sample, r, err := j.verify(n, small)
	if err != nil {
		return err
	}
	if !(r.MaxDiff <= tolerance*math.Max(1, r.MaxOutput)) {
		return fmt.Errorf("the smaller network differs from the masked one by %g, where the largest output is %g: nothing was written", r.MaxDiff, r.MaxOutput)
	}
	accuracies, err := j.train(ctx, small, fits)
	if err != nil {
		return err
	}
	j.say("writing ONNX, and reading it again …")
	content, err := j.export(small, sample, tolerance*math.Max(1, r.MaxOutput))
	if err != nil {
		return err
	}
	j.say("timing both, in turn …")
	before := workSoFar()
	if err := r.Measure(ctx, n, small, profile.CompareConfig{}, sample...); err != nil {
		return err
	}
	share := workSoFar().share(before)
	if j.busy = share > busy*float64(runtime.NumCPU()); j.busy {
		j.say("note: other programs took %.0f%% of a processor meanwhile: the times are no result; run it again when the machine is quiet", 100*share)
	}
	if err := j.write(ctx, n, plan, content); err != nil {
		return err
	}
	if j.trained != "" {
		if err := os.RemoveAll(j.trained); err != nil { // it was there to go on from
			return err
		}
	}
	t, err := j.table(r, accuracies, len(content))
	if err != nil {
		return err
	}
	return t.Text(j.out)
}

// measureRoundTo finds out, once on each machine, which multiples of channels suit it.
func (j *job) measureRoundTo(ctx context.Context) error {
	w, err := profile.RoundTo(ctx, j.backend, profile.WidthsConfig{})
	var unsaved *store.SaveError
	if errors.As(err, &unsaved) {
		j.say("the widths that were timed could not be kept, and will be timed again: %v", err)
		err = nil
	}
	if err != nil {
		return err
	}
	j.roundTo = w.RoundTo
	what := fmt.Sprintf("multiples of %d", w.RoundTo)
	if w.RoundTo == 1 {
		what = "any number"
	}
	j.say("channels that stay: %s, which is what suits this machine, by the times of layers on it; --round-to N for others", what)
	return nil
}

// planByMachine chooses what goes, with the multiple that suits the machine. A budget that can't be met with it, as in a network of few channels, comes first: the multiple is halved.
func (j *job) planByMachine(n *surgery.Network, cfg surgery.Config, signals *signal.Signals) (*surgery.Plan, error) {
	suits := cfg.RoundTo
	for {
		plan, err := n.Plan(cfg, signals)
		var tooMuch *surgery.BudgetError
		if cfg.RoundTo > 1 && errors.As(err, &tooMuch) {
			cfg.RoundTo /= 2
			continue
		}
		if err == nil && cfg.RoundTo < suits {
			j.say("note: with multiples of %d the budget can't be met, since the network is narrow: multiples of %d stay", suits, cfg.RoundTo)
		}
		return plan, err
	}
}

// short is the table of groups without the places of each, which the plan's file has.
func short(t report.Table) report.Table {
	t.Columns = t.Columns[:4]
	for i, row := range t.Rows {
		t.Rows[i] = append([]any{strings.TrimPrefix(row[0].(string), "/ONNX/")}, row[1:4]...)
	}
	return t
}

// read reads the model.
func (j *job) read() error {
	var err error
	if j.large, err = onnx.Read(j.model); err != nil {
		return err
	}
	if free := j.large.FreeBatch(); free != "" {
		if _, given := j.sizes[free]; !given {
			j.sizes[free] = 1
		}
	}
	if j.inputs, err = j.large.Shapes(j.sizes); err != nil {
		return err
	}
	list := func(ports []onnx.Port) string {
		var all []string
		for _, p := range ports {
			all = append(all, p.String())
		}
		return strings.Join(all, ", ")
	}
	j.say("%s: %s -> %s", filepath.Base(j.model), list(j.large.Inputs), list(j.large.Outputs))
	return nil
}

// signals collects what the criterion needs.
func (j *job) signals(n *surgery.Network, cfg surgery.Config) (*signal.Signals, error) {
	if j.images == nil {
		return signal.Collect(signal.Source{Backend: j.backend, Store: j.large.Store, Model: trace1(j.large.ModelFn), Seed: j.seed}, n.Params(cfg), cfg.Criterion.Needs)
	}
	if cfg.Criterion.Needs&criterion.NeedData != 0 {
		j.say("running %s over examples for %s …", filepath.Base(j.model), cfg.Criterion.Name)
	}
	source := signal.Source{Backend: j.backend, Store: j.large.Store, Model: j.images.fed(j.large.ModelFn), Data: j.images.Train, Seed: j.seed}
	return signal.Collect(source, n.Params(cfg), cfg.Criterion.Needs)
}

// trace1 is a model function in the form for one input and one output.
func trace1(fn trace.ModelFn) func(*model.Scope, *graph.Node) *graph.Node {
	return func(scope *model.Scope, x *graph.Node) *graph.Node { return fn(scope, []*graph.Node{x})[0] }
}

// verify compares the smaller network with the masked one, for an image if there are any, else for several draws of random numbers, and returns the first inputs and the largest difference.
func (j *job) verify(n *surgery.Network, small *surgery.Small) (first []*tensors.Tensor, largest surgery.Report, err error) {
	draws := 4
	if j.images != nil {
		draws = 1
	}
	for draw := range draws {
		sample, err := j.sample(uint64(1 + draw))
		if err != nil {
			return nil, largest, err
		}
		r, err := surgery.Verify(n, small, sample...)
		if err != nil {
			return nil, largest, err
		}
		if first == nil {
			first, largest = sample, r
			continue
		}
		if !(r.MaxDiff <= largest.MaxDiff) { // NaN too
			largest.MaxDiff = r.MaxDiff
		}
		largest.MaxOutput = max(largest.MaxOutput, r.MaxOutput)
	}
	if largest.MaxOutput == 0 {
		j.say("note: all outputs are 0 for what was tried, so that the comparison with the masked network says nothing")
	}
	return first, largest, nil
}

// sample returns inputs to compare outputs for: an image, if there are any, else random numbers.
func (j *job) sample(draw uint64) ([]*tensors.Tensor, error) {
	if j.images != nil {
		x, err := j.images.first(j.backend, j.inputs[0].Dimensions[0])
		return []*tensors.Tensor{x}, err
	}
	random := rand.New(rand.NewPCG(uint64(j.seed), draw))
	var all []*tensors.Tensor
	for i, s := range j.inputs {
		if !s.DType.IsFloat() {
			return nil, fmt.Errorf("input %s: expected numbers with a point, such as float32, for which random ones can be drawn, came %s; give images with --data, if it takes those", j.large.Inputs[i].Name, s.DType)
		}
		values := make([]float32, s.Size())
		for k := range values {
			values[k] = float32(random.NormFloat64())
		}
		x := tensors.FromFlatDataAndDimensions(values, s.Dimensions...)
		if s.DType != dtypes.Float32 {
			var err error
			if x, err = graph.CallOnce(j.backend, func(x *graph.Node) *graph.Node { return graph.ConvertDType(x, s.DType) }, x); err != nil {
				return nil, err
			}
		}
		all = append(all, x)
	}
	return all, nil
}

// export writes the smaller network as ONNX, and checks that what was written computes the same when it is read, but for differences of most.
func (j *job) export(small *surgery.Small, sample []*tensors.Tensor, most float64) ([]byte, error) {
	cfg := onnx.Config{Name: j.large.Name, FixedBatch: j.large.FreeBatch() == "", FoldBatchNorm: j.fold}
	for _, p := range j.large.Inputs {
		cfg.Inputs = append(cfg.Inputs, p.Name)
	}
	for _, p := range j.large.Outputs {
		cfg.Outputs = append(cfg.Outputs, p.Name)
	}
	content, err := onnx.Marshal(j.backend, small.Store, small.ModelFn, cfg, j.inputs...)
	if err != nil {
		return nil, err
	}
	again, err := onnx.Parse(content)
	if err != nil {
		return nil, err
	}
	want, err := outputs(j.backend, small.Store, small.ModelFn, sample)
	if err != nil {
		return nil, err
	}
	got, err := outputs(j.backend, again.Store, again.ModelFn, sample)
	if err != nil {
		return nil, err
	}
	for i := range want {
		if !want[i].InDelta(got[i], most) {
			return nil, fmt.Errorf("output %s of the written model differs from the smaller network's by more than %g: nothing was kept", cfg.Outputs[i], most)
		}
	}
	return content, nil
}

// outputs runs a model function in inference.
func outputs(b compute.Backend, s *model.Store, fn trace.ModelFn, inputs []*tensors.Tensor) ([]*tensors.Tensor, error) {
	exec, err := model.NewExec(b, s, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		s.SetTraining(in[0].Graph(), false)
		return fn(s.RootScope(), in)
	})
	if err != nil {
		return nil, err
	}
	defer exec.Finalize()
	args := make([]any, len(inputs))
	for i, x := range inputs {
		args[i] = x
	}
	return exec.Call(args...)
}

// beside is a file beside the smaller model's: small.onnx -> small.plan.json.
func (j *job) beside(ending string) string {
	return strings.TrimSuffix(j.options.out, filepath.Ext(j.options.out)) + ending
}

// write writes the model and what belongs to it: all of it, or nothing.
func (j *job) write(ctx context.Context, n *surgery.Network, plan *surgery.Plan, content []byte) (err error) {
	var text bytes.Buffer
	if err := plan.WriteJSON(&text); err != nil {
		return err
	}
	d := n.Diagram(plan)
	forms, err := figure.Network{Title: "What goes together, and how much of it goes", Nodes: d.Nodes, Edges: d.Edges, Groups: d.Groups}.MIMEBundle()
	var undrawable *figure.InputError // a network of too many parts
	if errors.As(err, &undrawable) {
		j.say("note: no picture was drawn: %v", err)
		err = nil
	}
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	type file struct {
		path    string
		content []byte
	}
	files := []file{{j.beside(".plan.json"), text.Bytes()}}
	if image, drawn := forms["image/png"].([]byte); drawn {
		files = append(files, file{j.beside(".groups.png"), image})
	}
	files = append(files, file{j.options.out, content}) // the model last: what is beside it is there when it is
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				_ = os.Remove(path) // what was written before the failure, of which err tells
			}
		}
	}()
	for _, f := range files {
		_, before := os.Stat(f.path)
		if err := store.WriteFile(f.path, func(w io.Writer) error { _, err := w.Write(f.content); return err }); err != nil {
			return err
		}
		if os.IsNotExist(before) {
			made = append(made, f.path)
		}
	}
	for _, f := range files {
		j.say("written: %s", f.path)
	}
	return nil
}

// table is the outcome.
func (j *job) table(r surgery.Report, a *accuracies, size int) (report.Table, error) {
	info, err := os.Stat(j.model)
	if err != nil {
		return report.Table{}, err
	}
	t := r.Table()
	t.Title = fmt.Sprintf("%s -> %s", filepath.Base(j.model), filepath.Base(j.options.out))
	t.Rows = append(t.Rows, []any{"file", report.Count(info.Size()), report.Count(int64(size)), 100 * float64(size) / float64(info.Size())})
	if a != nil {
		percent := func(x float64) string { return fmt.Sprintf("%.2f%%", 100*x) }
		t.Rows = append(t.Rows, []any{"accuracy, cut", percent(a.large), percent(a.cut), nil})
		if j.epochs > 0 {
			t.Rows = append(t.Rows, []any{"accuracy, trained", percent(a.large), percent(a.trained), nil})
		}
		t.Caption += fmt.Sprintf(" Accuracy on %d images that were not trained on.", a.n)
	}
	t.Caption += fmt.Sprintf(" Latency of a batch of %d, computed by XLA in this program; ONNX files run in other programs at times of their own.", j.inputs[0].Dimensions[0])
	if j.busy {
		t.Caption += " Others kept the processor busy meanwhile: the times are no result."
	}
	return t, nil
}

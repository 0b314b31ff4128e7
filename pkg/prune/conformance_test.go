package prune

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/unit"
)

var update = flag.Bool("update", false, "write COMBINATIONS.md anew")

// convnet has a convolution [3, 3, 4, 8] and dense layers [64, 8] and [8, 8], each followed by batch normalisation but the last, which is the output.
func convnet(scope *model.Scope, x *graph.Node) *graph.Node {
	batch := x.Shape().Dimensions[0]
	x = layers.Convolution(scope.At("conv"), x).Channels(8).KernelSize(3).NoPadding().Done() // [batch, 5, 5, 4] -> [batch, 3, 3, 8]
	x = activation.Relu(norm.BatchNorm(scope.At("conv"), x, -1).UseBackendInference(false).Done())
	x = graph.Slice(x, graph.AxisRange(), graph.AxisRange(0, 2), graph.AxisRange(0, 2), graph.AxisRange()) // -> [batch, 2, 2, 8]
	x = layers.Dense(scope.At("fc"), graph.Reshape(x, batch, 32), true, 8)
	x = activation.Relu(norm.BatchNorm(scope.At("fc"), x, -1).UseBackendInference(false).Done())
	return layers.Dense(scope.At("output"), x, true, 8)
}

// examples is a calibration set of two batches.
type examples struct{}

func (examples) Name() string { return "examples" }
func (examples) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for b := range 2 {
			x, labels := make([]float32, 4*5*5*4), make([]int32, 4)
			for i := range x {
				x[i] = float32(math.Sin(float64(3*i*i + b)))
			}
			for i := range labels {
				labels[i] = int32((3*b + i) % 8)
			}
			batch := train.Batch{
				Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(x, 4, 5, 5, 4)}, Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(labels, 4, 1)},
			}
			if !yield(batch, nil) {
				return
			}
		}
	}
}

// laboratory is a store of convnet with fixed values and everything that criteria may ask for.
type laboratory struct {
	backend compute.Backend
	store   *model.Store
	set     params.Set
	all     *signal.Signals
	values  map[string][]float32
}

func newLaboratory(t *testing.T) *laboratory {
	t.Helper()
	b, err := gobackend.New("")
	if err != nil {
		t.Fatal(err)
	}
	l := &laboratory{backend: b, store: model.NewStore(), values: map[string][]float32{}}
	if _, err := model.MustNewExec(b, l.store, convnet).Call(tensors.FromScalarAndDimensions(float32(1), 1, 5, 5, 4)); err != nil {
		t.Fatal(err)
	}
	l.set = params.Select(l.store, nil)
	start := map[string]*tensors.Tensor{}
	for v := range l.store.IterVariables() {
		if strings.HasSuffix(v.Path(), "scale") {
			values := make([]float32, v.Shape().Size())
			for i := range values {
				values[i] = 1 + float32(i)/8
			}
			if err := v.SetValue(tensors.FromFlatDataAndDimensions(values, len(values))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range l.set {
		w, w0, moved := make([]float32, p.Size()), make([]float32, p.Size()), make([]float32, p.Size())
		for i := range w {
			w[i], w0[i], moved[i] = float32(math.Sin(float64(7*i+p.Size()))), float32(math.Cos(float64(5*i))), float32(math.Sin(float64(11*i)))
		}
		l.values[p.Path] = w
		start[p.Path] = tensors.FromFlatDataAndDimensions(w0, p.Shape.Dimensions...)
		for path, value := range map[string]*tensors.Tensor{
			trackScope + p.Path: tensors.FromFlatDataAndDimensions(moved, p.Shape.Dimensions...),
			gateScope + p.Path:  tensors.FromFlatDataAndDimensions(append([]float32{}, moved...), p.Shape.Dimensions...),
		} {
			v, err := l.store.CreateVariable(path, value)
			if err != nil {
				t.Fatal(err)
			}
			v.SetTrainable(false)
		}
	}
	l.reset(t, nil)
	inner := l.set[:2] // batch normalisation follows these
	l.all, err = signal.Collect(signal.Source{Backend: b, Store: l.store, Model: convnet, Data: examples{}, Start: start}, inner, criterion.NeedSignals)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// reset gives the weights their first values and removes the masks.
func (l *laboratory) reset(t *testing.T, set params.Set) {
	t.Helper()
	for _, p := range l.set {
		if err := l.store.GetVariable(p.Path).SetValue(tensors.FromFlatDataAndDimensions(append([]float32{}, l.values[p.Path]...), p.Shape.Dimensions...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range append([]string{roundPath}, maskPaths(set)...) {
		if l.store.GetVariable(path) != nil {
			if err := l.store.DeleteVariable(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func maskPaths(set params.Set) []string {
	var paths []string
	for _, p := range set {
		paths = append(paths, mask.Path(p))
	}
	return paths
}

// Every combination of criterion, unit, budget and schedule runs, or is refused with a reason before anything is changed. Where it runs it keeps exactly
// what its budget says, is the same for the same seed, only shrinks, leaves no layer empty and compiles its scores once.
func TestConformance(t *testing.T) {
	l := newLaboratory(t)
	set, err := l.set[:2].MarkOutput() // the output layer is not among them
	if err != nil {
		t.Fatal(err)
	}
	set = append(params.Set{}, set...)
	set = append(set, l.set[2])
	set[2].Output = true
	ladder := []float64{0.25, 0.5, 0.625}
	type cell struct{ runs, refused map[string]bool }
	table := map[string]map[string]*cell{}
	var kinds []string
	reasons := map[string]string{} // an example of each kind of refusal
	for _, c := range criterion.All() {
		table[c.Name] = map[string]*cell{}
		c.Rounds = min(c.Rounds, 3)
		for _, u := range unit.All() {
			table[c.Name][u.Name] = &cell{map[string]bool{}, map[string]bool{}}
			for _, d := range budget.All() {
				r := Recipe{Criterion: c, Unit: u, Budget: d, Seed: 5}
				scored := 0
				r.Criterion.Score = func(in criterion.Inputs) *graph.Node { scored++; return c.Score(in) }
				inner := set[:2]
				l.reset(t, inner)
				p, err := New(l.backend, l.store, set, r)
				if err == nil && !u.Structured { // signals are there for the inner layers
					p, err = New(l.backend, l.store, inner, r)
				}
				if err != nil {
					explained(t, r, err)
					kind := fmt.Sprintf("%T %d", err, r.Criterion.Granularity)
					if reasons[kind] == "" {
						kinds = append(kinds, kind)
						reasons[kind] = err.Error()
					}
					table[c.Name][u.Name].refused[d.Name] = true
					continue
				}
				table[c.Name][u.Name].runs[d.Name] = true
				for i, s := range schedule.All() {
					sch := s.Make(1, 3, ladder[0], ladder[2])
					var first [][]bool
					for attempt := range 2 {
						if attempt == 1 && i > 0 {
							break // the draw does not depend on the schedule
						}
						l.reset(t, inner)
						if err := p.remask(); err != nil {
							t.Fatal(err)
						}
						masks := l.prune(t, p, s, sch)
						if attempt == 0 {
							first = masks
						} else if diff := cmp.Diff(first, masks); diff != "" {
							t.Fatalf("%s, %s: the same seed gave other masks:\n%s", r, s.Name, diff)
						}
					}
				}
				if scored != len(p.Params()) {
					t.Errorf("%s: scores of %d parameters were built %d times", r, len(p.Params()), scored)
				}
			}
		}
	}
	var text bytes.Buffer
	fmt.Fprint(&text, "# What runs and what is refused\n\nWritten by the conformance test of this package (`go test ./pkg/prune -run Conformance -update`), which runs the whole product of "+
		"criteria, units, budgets and schedules; every schedule goes with every other part. **✓**: runs with every budget. **not …**: "+
		"with every other budget. **fixed**: the unit says how much is kept, so there is no budget to choose. **–**: refused. The reasons are below.\n\n| criterion |")
	for _, u := range unit.All() {
		fmt.Fprintf(&text, " %s |", u.Name)
	}
	fmt.Fprint(&text, "\n|---|"+strings.Repeat("---|", len(unit.All()))+"\n")
	for _, c := range criterion.All() {
		fmt.Fprintf(&text, "| %s |", c.Name)
		for _, u := range unit.All() {
			entry := table[c.Name][u.Name]
			switch {
			case len(entry.refused) == 0:
				fmt.Fprint(&text, " ✓ |")
			case len(entry.runs) == 0:
				fmt.Fprint(&text, " – |")
			case len(entry.runs) == 1:
				fmt.Fprint(&text, " fixed |")
			default:
				var names []string
				for _, d := range budget.All() {
					if entry.refused[d.Name] {
						names = append(names, d.Name)
					}
				}
				fmt.Fprintf(&text, " not %s |", strings.Join(names, ", "))
			}
		}
		fmt.Fprintln(&text)
	}
	fmt.Fprint(&text, "\n## Reasons\n\nOne error of each kind.\n\n")
	for _, kind := range kinds {
		fmt.Fprintf(&text, "- %s\n", reasons[kind])
	}
	if *update {
		if err := os.WriteFile("COMBINATIONS.md", text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile("COMBINATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(written), text.String()); diff != "" {
		t.Errorf("COMBINATIONS.md is not what runs; write it with -update (-written +runs):\n%s", diff)
	}
}

// remask makes the masks that New has made, after they were removed.
func (p *Pruner) remask() error {
	for _, param := range p.set {
		if _, err := mask.Variable(p.store, param); err != nil {
			return err
		}
	}
	return nil
}

// explained checks that a refusal says what to do.
func explained(t *testing.T, r Recipe, err error) {
	t.Helper()
	var recipe *RecipeError
	var tiles *unit.Error
	var kept *budget.Error
	var divided *budget.ConfigError
	switch {
	case errors.As(err, &recipe):
		if recipe.Problem == "" || recipe.Remedy == "" {
			t.Errorf("%s: refused without a reason: %v", r, err)
		}
	case errors.As(err, &tiles):
		if tiles.Problem == "" || tiles.Remedy == "" {
			t.Errorf("%s: refused without a reason: %v", r, err)
		}
	case errors.As(err, &divided):
		if divided.Problem == "" || divided.Remedy == "" {
			t.Errorf("%s: refused without a reason: %v", r, err)
		}
	case errors.As(err, &kept):
	default:
		t.Errorf("%s: refused with an error of type %T: %v", r, err, err)
	}
}

// prune goes up a schedule and checks the laws after each round. It returns the masks by weight.
func (l *laboratory) prune(t *testing.T, p *Pruner, s schedule.Named, sch schedule.Schedule) [][]bool {
	t.Helper()
	r := p.Recipe()
	var before, masks [][]bool
	for step := 1; step <= 3; step++ {
		sparsity := sch(step)
		if r.Unit.M != 0 {
			sparsity = 1 - float64(r.Unit.N)/float64(r.Unit.M)
		}
		if sparsity < 0.25 || len(before) > 0 && !s.Monotone {
			continue
		}
		if _, err := p.Prune(sparsity, l.all); err != nil {
			var few *budget.Error
			if errors.As(err, &few) && few.Remedy != "" {
				continue // this budget leaves a layer empty at this sparsity, and says so
			}
			t.Fatalf("%s, %s to %v: %v", r, s.Name, sparsity, err)
		}
		masks = nil
		units := make([][]bool, len(p.Params()))
		for i, param := range p.Params() {
			alive, err := mask.Bools(l.store, param)
			if err != nil {
				t.Fatal(err)
			}
			masks = append(masks, alive)
			units[i] = make([]bool, p.units[i])
			p.layouts[i].Each(func(w, k int) { units[i][k] = units[i][k] || alive[w] })
			p.layouts[i].Each(func(w, k int) {
				if units[i][k] != alive[w] {
					t.Fatalf("%s: a unit of %s is cut in two", r, param.Path)
				}
			})
			if count(units[i]) == 0 {
				t.Fatalf("%s to %v: %s died", r, sparsity, param.Path)
			}
			if r.Unit.M != 0 {
				r.Unit.Groups(param, p.layouts[i], func(group []int) {
					n := 0
					for _, k := range group {
						if units[i][k] {
							n++
						}
					}
					if n != r.Unit.N {
						t.Fatalf("%s: %d of %d units of %s kept", r, n, len(group), param.Path)
					}
				})
			}
		}
		if r.Unit.M == 0 {
			groups, err := r.Budget.Divide(p.Params(), p.units, sparsity)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range groups {
				kept := 0
				for j, i := range g.Members {
					cost := 1
					if g.Cost != nil {
						cost = int(g.Cost[j])
					}
					kept += cost * count(units[i])
				}
				if want := g.Keep * max(1, g.Rows); kept != want && g.Cost == nil || kept > want {
					t.Fatalf("%s to %v: %d units kept, want %d", r, sparsity, kept, want)
				}
			}
		}
		for i := range before {
			for w := range before[i] {
				if masks[i][w] && !before[i][w] {
					t.Fatalf("%s to %v: weight %d of %s came back", r, sparsity, w, p.Params()[i].Path)
				}
			}
		}
		before = masks
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
	}
	return masks
}

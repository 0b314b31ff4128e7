package sensitivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/dataset"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/unit"
)

func open(t testing.TB) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const parts = 6

// network is two dense layers with random weights, and an evaluation of how far its outputs are from those that it had at first, on several parts of random data.
func network(t testing.TB) (*model.Store, func() ([]float64, error)) {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 6))
	random := func(dims ...int) *tensors.Tensor {
		n := 1
		for _, d := range dims {
			n *= d
		}
		flat := make([]float32, n)
		for i := range flat {
			flat[i] = float32(rng.NormFloat64())
		}
		return tensors.FromFlatDataAndDimensions(flat, dims...)
	}
	store := model.NewStore()
	for _, v := range []struct {
		path string
		dims []int
	}{{"/fc/weights", []int{6, 10}}, {"/fc/biases", []int{10}}, {"/output/weights", []int{10, 3}}} {
		if _, err := store.CreateVariable(v.path, random(v.dims...)); err != nil {
			t.Fatal(err)
		}
	}
	exec, err := model.NewExec(open(t), store, forward)
	if err != nil {
		t.Fatal(err)
	}
	var xs []*tensors.Tensor
	var first [][]float32
	run := func(x *tensors.Tensor) ([]float32, error) {
		y, err := exec.Call1(x)
		if err != nil {
			return nil, err
		}
		return tensors.CopyFlatData[float32](y)
	}
	for range parts {
		x := random(16, 6)
		y, err := run(x)
		if err != nil {
			t.Fatal(err)
		}
		xs, first = append(xs, x), append(first, y)
	}
	return store, func() ([]float64, error) {
		var losses []float64
		for i, x := range xs {
			y, err := run(x)
			if err != nil {
				return nil, err
			}
			sum := 0.0
			for j := range y {
				sum += math.Pow(float64(y[j]-first[i][j]), 2)
			}
			losses = append(losses, sum/float64(len(y)))
		}
		return losses, nil
	}
}

// forward is the network.
func forward(scope *model.Scope, x *graph.Node) *graph.Node {
	value := func(path string) *graph.Node { return scope.Store().GetVariable(path).NodeValue(x.Graph()) }
	h := graph.Dot(x, value("/fc/weights")).Product() // [batch, 6] -> [batch, 10]
	h = activation.Relu(graph.Add(h, graph.ExpandLeftToRank(value("/fc/biases"), 2)))
	return graph.Dot(h, value("/output/weights")).Product() // -> [batch, 3]
}

// contents returns the bytes of all variables, with whether they are trained.
func contents(t testing.TB, store *model.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for v := range store.IterVariables() {
		value, err := v.Value()
		if err != nil {
			t.Fatal(err)
		}
		if err := value.ConstBytes(func(data []byte) { all[v.Path()] = fmt.Sprintf("%s %v %x", v.Shape(), v.Trainable, data) }); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func config(t testing.TB) Config {
	store, evaluate := network(t)
	return Config{Backend: open(t), Store: store, Set: params.Select(store, nil), Evaluate: evaluate}
}

func TestScan(t *testing.T) {
	cfg := config(t)
	cfg.Sparsities = []float64{0.9, 0.5, 0, 0.5, 0.99}
	before := contents(t, cfg.Store)
	var notes []string
	cfg.Progress = func(done, total int, note string) { notes = append(notes, fmt.Sprintf("%d/%d", done, total)) }
	c, err := Scan(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, contents(t, cfg.Store)); diff != "" {
		t.Errorf("the store has changed (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"}, notes); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]Layer{{"/fc/weights", 60, 1, 4, 60}, {"/output/weights", 30, 1, 4, 30}}, c.Layers); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	for i, curve := range c.Curves {
		for j, want := range []struct {
			asked float64
			kept  int
		}{{0, c.Layers[i].Units}, {0.5, c.Layers[i].Units / 2}, {0.9, c.Layers[i].Units / 10}, {0.99, 1}} { // one always stays
			p := curve.Points[j]
			removed := c.Layers[i].Units - want.kept
			if diff := cmp.Diff([]any{want.asked, []int{want.kept}, removed, removed}, []any{p.Asked, p.Kept, p.UnitsRemoved, p.WeightsRemoved}); diff != "" {
				t.Errorf("%s, point %d (-want +got):\n%s", curve.Group, j, diff)
			}
			// The same by pruning that layer alone.
			store, evaluate := network(t)
			only, err := params.Select(store, nil).Only(curve.Group)
			if err != nil {
				t.Fatal(err)
			}
			pruner, err := prune.New(open(t), store, only, prune.Recipe{KeepMin: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pruner.Prune(want.asked, nil); err != nil {
				t.Fatal(err)
			}
			losses, err := evaluate()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(losses, p.Losses); diff != "" {
				t.Errorf("%s at %v: losses (-want +got):\n%s", curve.Group, want.asked, diff)
			}
			if j > 0 && !(p.Low < p.Increase && p.Increase < p.High && p.Low > 0) {
				t.Errorf("%s at %v: increase %v, band %v to %v", curve.Group, want.asked, p.Increase, p.Low, p.High)
			}
		}
		if len(curve.Points) != 4 {
			t.Errorf("%s has %d points, want 4", curve.Group, len(curve.Points))
		}
	}
	if r := c.Records(); len(r) != 8 || r[1].Labels["group"] != "/fc/weights" || r[1].Values["sparsity"] != 0.5 || r[1].Recipe != "magnitude" {
		t.Errorf("records: %+v", r)
	}
}

func TestScanOfGroupsUnitsAndRandomScores(t *testing.T) {
	for _, recipe := range []prune.Recipe{
		{Criterion: criterion.Random, Seed: 3},
		{Unit: unit.Filter},
		{Unit: unit.InChannel, RoundTo: 4, MinUnits: 2},
		{Budget: budget.Layerwise, Revive: true, KeepMin: true, Normalize: criterion.ByMean},
	} {
		cfg := config(t)
		cfg.Recipe = recipe
		if !recipe.Unit.Structured {
			cfg.Groups = []Group{{"both", []string{"/output/weights", "/fc/weights"}}}
		}
		before := contents(t, cfg.Store)
		c, err := Scan(context.Background(), cfg)
		if err != nil {
			t.Errorf("%s: %v", recipe, err)
			continue
		}
		if diff := cmp.Diff(before, contents(t, cfg.Store)); diff != "" {
			t.Errorf("%s: the store has changed (-before +after):\n%s", recipe, diff)
		}
		if err := c.check(); err != nil {
			t.Errorf("%s: %v", recipe, err)
		}
		if len(c.Curves) != 1 {
			t.Fatalf("%s: %d curves, want 1", recipe, len(c.Curves))
		}
		for _, p := range c.Curves[0].Points { // what pruning kept is what the solver takes it to keep
			if diff := cmp.Diff(c.kept(c.Curves[0].Paths, p.Asked), p.Kept); diff != "" {
				t.Errorf("%s at %v: kept (-want +got):\n%s", recipe, p.Asked, diff)
			}
		}
		again, err := Scan(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Errorf("%s: a second scan differs (-first +second):\n%s", recipe, diff)
		}
	}
}

// Signals are those of the network as it is; criteria of several rounds collect them again, from the network as it is then.
func TestScanWithSignals(t *testing.T) {
	for _, c := range []criterion.Criterion{criterion.Taylor, criterion.SynFlow} {
		c.Rounds = min(c.Rounds, 5)
		cfg := config(t)
		cfg.Recipe.Criterion = c
		data, err := dataset.InMemoryFromData(cfg.Backend, "calibration", []any{[][]float32{{1, 2, 3, -1, 0, 2}, {0, -1, 2, 1, 1, -2}}}, []any{[][]int32{{0}, {2}}})
		if err != nil {
			t.Fatal(err)
		}
		data.BatchSize(2, true)
		if cfg.Signals, err = signal.Collect(signal.Source{Backend: cfg.Backend, Store: cfg.Store, Model: forward, Data: data}, cfg.Set, c.Needs); err != nil {
			t.Fatal(err)
		}
		before := contents(t, cfg.Store)
		curves, err := Scan(context.Background(), cfg)
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if diff := cmp.Diff(before, contents(t, cfg.Store)); diff != "" {
			t.Errorf("%s: the store has changed (-before +after):\n%s", c.Name, diff)
		}
		for _, curve := range curves.Curves {
			for _, p := range curve.Points {
				if diff := cmp.Diff(curves.kept(curve.Paths, p.Asked), p.Kept); diff != "" {
					t.Errorf("%s on %s at %v: kept (-want +got):\n%s", c.Name, curve.Group, p.Asked, diff)
				}
			}
		}
	}
}

// Whatever an allocation says, pruning reaches: also in a network that was pruned before.
func TestAllocationsAreReached(t *testing.T) {
	for _, test := range []struct {
		recipe prune.Recipe
		first  float64 // what was pruned before
		groups []Group
	}{
		{recipe: prune.Recipe{}},
		{recipe: prune.Recipe{}, first: 0.4},
		{recipe: prune.Recipe{}, first: 0.4, groups: []Group{{Paths: []string{"/fc/weights"}}}},
		{recipe: prune.Recipe{RoundTo: 7, MinUnits: 3}},
		{recipe: prune.Recipe{Unit: unit.Filter}},
		{recipe: prune.Recipe{Unit: unit.InChannel, RoundTo: 2}, groups: []Group{{"all", []string{"/fc/weights", "/output/weights"}}}},
	} {
		for _, sparsity := range []float64{0.45, 0.6, 0.7} {
			cfg := config(t)
			cfg.Recipe, cfg.Groups = test.recipe, test.groups
			if test.first > 0 {
				p, err := prune.New(cfg.Backend, cfg.Store, cfg.Set, prune.Recipe{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.Prune(test.first, nil); err != nil {
					t.Fatal(err)
				}
			}
			before := contents(t, cfg.Store)
			c, err := Scan(context.Background(), cfg)
			if err != nil {
				t.Fatalf("%+v: %v", test, err)
			}
			if diff := cmp.Diff(before, contents(t, cfg.Store)); diff != "" {
				t.Errorf("%+v: the store has changed (-before +after):\n%s", test, diff)
			}
			for _, solve := range []func(Target) (*Allocation, error){c.Solve, c.Uniform} {
				a, err := solve(Target{Sparsity: sparsity})
				if err != nil {
					t.Fatalf("%+v, %v: %v", test, sparsity, err)
				}
				recipe := test.recipe
				recipe.Budget = a.Budget()
				p, err := prune.New(cfg.Backend, cfg.Store, cfg.Set, recipe)
				if err != nil {
					t.Fatal(err)
				}
				m, err := remember(cfg.Store)
				if err != nil {
					t.Fatal(err)
				}
				stats, err := p.Prune(a.Overall, nil)
				if err != nil {
					t.Fatalf("%+v, %v: %v", test, sparsity, err)
				}
				if err := m.restore(); err != nil {
					t.Fatal(err)
				}
				for _, choice := range a.Choices {
					for i, path := range choice.Paths {
						s := stats[slices.IndexFunc(stats, func(s mask.Stats) bool { return s.Path == path })]
						if want := choice.Kept[i] * c.layer(path).UnitSize; s.Kept != want {
							t.Errorf("%+v, %v: %s keeps %d weights, want %d", test, sparsity, path, s.Kept, want)
						}
					}
				}
			}
		}
	}
}

func TestLossesThatAreNoNumbers(t *testing.T) {
	cfg := config(t)
	cfg.Sparsities = []float64{0.5, 0.9}
	calls := 0
	evaluate := cfg.Evaluate
	cfg.Evaluate = func() ([]float64, error) {
		losses, err := evaluate()
		if calls++; calls == 3 {
			losses[1] = math.NaN()
		}
		return losses, err
	}
	c, err := Scan(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Curves[0].Points[2]; !math.IsNaN(p.Loss) || !math.IsNaN(p.Increase) || !math.IsNaN(p.Low) {
		t.Errorf("got %+v, want NaN", p)
	}
	a, err := c.Solve(Target{Sparsity: 0.6})
	if err != nil {
		t.Fatal(err)
	}
	if s := a.Sparsity["/fc/weights"]; s > 0.5 || !finite(a.Predicted) || !finite(a.Low) || !finite(a.High) {
		t.Errorf("fc loses %v, predicted %v, %v to %v; what has no loss must not be chosen", s, a.Predicted, a.Low, a.High)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Curves
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*c, back, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("through JSON (-want +got):\n%s", diff)
	}
	calls = 2
	var bad *LossError
	if _, err := Scan(context.Background(), cfg); !errors.As(err, &bad) {
		t.Errorf("the network as it is has no loss: got %v, want a *LossError", err)
	}
}

func TestDamagedCurves(t *testing.T) {
	for _, damage := range []func(*Curves){
		func(c *Curves) { c.Dense = nil },
		func(c *Curves) { c.Dense[0] = math.Inf(1) },
		func(c *Curves) { c.RoundTo = 0 },
		func(c *Curves) { c.Curves = nil },
		func(c *Curves) { c.Layers[0].UnitSize = 0 },
		func(c *Curves) { c.Layers[1].Path = c.Layers[0].Path },
		func(c *Curves) { c.Curves[0].Paths = []string{"/x"} },
		func(c *Curves) { c.Curves[1].Paths = c.Curves[0].Paths },
		func(c *Curves) { c.Curves[1].Group = c.Curves[0].Group },
		func(c *Curves) { c.Curves[0].Points = nil },
		func(c *Curves) { c.Curves[0].Points = c.Curves[0].Points[1:] },
		func(c *Curves) { c.Curves[0].Points[1].Losses = nil },
		func(c *Curves) { c.Curves[0].Points[1].Kept = nil },
		func(c *Curves) { c.Curves[0].Points[1].Kept[0]++ },
		func(c *Curves) { c.Curves[0].Points[1].Sparsity = 0 },
	} {
		c := twoLayers()
		damage(c)
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var bad *CurvesError
		var back Curves
		if err := json.Unmarshal(text, &back); !errors.As(err, &bad) {
			t.Errorf("%s: got %v, want a *CurvesError", text, err)
		}
	}
}

// After any failure the store is as it was.
func TestScanFails(t *testing.T) {
	stopped := errors.New("stopped by hand")
	for _, test := range []struct {
		reason string
		spoil  func(cfg *Config, stop func(error))
		check  func(err error) bool
	}{
		{"an evaluation fails", func(cfg *Config, _ func(error)) { after(cfg, 3, func() ([]float64, error) { return nil, io.EOF }) },
			func(err error) bool { return errors.Is(err, io.EOF) }},
		{"an evaluation panics", func(cfg *Config, _ func(error)) { after(cfg, 3, func() ([]float64, error) { panic(io.EOF) }) },
			func(err error) bool { return errors.Is(err, io.EOF) }},
		{"a graph function panics", func(cfg *Config, _ func(error)) {
			cfg.Recipe.Criterion = criterion.Criterion{Name: "bad", Score: func(criterion.Inputs) *graph.Node { panic("no such axis") }}
		}, func(err error) bool { return err != nil }},
		{"progress panics", func(cfg *Config, _ func(error)) {
			cfg.Progress = func(done, _ int, _ string) {
				if done == 3 {
					panic(io.EOF)
				}
			}
		}, func(err error) bool { return errors.Is(err, io.EOF) }},
		{"interrupted", func(cfg *Config, stop func(error)) {
			cfg.Progress = func(done, _ int, _ string) {
				if done == 3 {
					stop(stopped)
				}
			}
		}, func(err error) bool { return errors.Is(err, stopped) }},
		{"interrupted at once", func(_ *Config, stop func(error)) { stop(stopped) }, func(err error) bool { return errors.Is(err, stopped) }},
		{"no losses", func(cfg *Config, _ func(error)) { after(cfg, 0, func() ([]float64, error) { return nil, nil }) }, isLossError},
		{"no losses later", func(cfg *Config, _ func(error)) { after(cfg, 2, func() ([]float64, error) { return nil, nil }) }, isLossError},
		{"fewer losses later", func(cfg *Config, _ func(error)) {
			after(cfg, 2, func() ([]float64, error) { return []float64{1}, nil })
		}, isLossError},
		{"too few units", func(cfg *Config, _ func(error)) { cfg.Recipe.MinUnits = 31 }, func(err error) bool {
			var bad *budget.Error
			return errors.As(err, &bad)
		}},
		{"no signals", func(cfg *Config, _ func(error)) { cfg.Recipe.Criterion = criterion.Taylor }, func(err error) bool {
			var bad *signal.MissingError
			return errors.As(err, &bad)
		}},
	} {
		cfg := config(t)
		ctx, stop := context.WithCancelCause(context.Background())
		defer stop(nil)
		test.spoil(&cfg, stop)
		before := contents(t, cfg.Store)
		c, err := Scan(ctx, cfg)
		if !test.check(err) || c != nil {
			t.Errorf("%s: got %v, %v", test.reason, c, err)
		}
		if diff := cmp.Diff(before, contents(t, cfg.Store)); diff != "" {
			t.Errorf("%s: the store has changed (-before +after):\n%s", test.reason, diff)
		}
	}
}

// after lets evaluation work n times, and then does something else.
func after(cfg *Config, n int, f func() ([]float64, error)) {
	evaluate := cfg.Evaluate
	cfg.Evaluate = func() ([]float64, error) {
		if n--; n < 0 {
			return f()
		}
		return evaluate()
	}
}

func isLossError(err error) bool {
	var bad *LossError
	return errors.As(err, &bad)
}

func TestConfigsAreChecked(t *testing.T) {
	for _, test := range []struct {
		field string
		spoil func(*Config)
	}{
		{"Backend", func(c *Config) { c.Backend = nil }},
		{"Store", func(c *Config) { c.Store = nil }},
		{"Evaluate", func(c *Config) { c.Evaluate = nil }},
		{"Set", func(c *Config) { c.Set = nil }},
		{"Recipe", func(c *Config) { c.Recipe.Budget = budget.ERK }},
		{"Recipe", func(c *Config) { c.Recipe.Unit = unit.NofM(2, 4, unit.In) }},
		{"Sparsities", func(c *Config) { c.Sparsities = []float64{0.5, 1} }},
		{"Sparsities", func(c *Config) { c.Sparsities = []float64{-0.5} }},
		{"Sparsities", func(c *Config) { c.Sparsities = []float64{math.NaN()} }},
		{"Groups", func(c *Config) { c.Groups = []Group{{Name: "empty"}} }},
		{"Groups", func(c *Config) {
			c.Groups = []Group{{"a", []string{"/fc/weights"}}, {"b", []string{"/output/weights", "/fc/weights"}}}
		}},
		{"Groups", func(c *Config) { c.Groups = []Group{{"a", []string{"/fc/weights", "/fc/weights"}}} }},
		{"Groups", func(c *Config) {
			c.Groups = []Group{{"a", []string{"/fc/weights"}}, {"a", []string{"/output/weights"}}}
		}},
		{"Groups", func(c *Config) {
			c.Recipe.Unit, c.Groups = unit.Filter, []Group{{"a", []string{"/output/weights"}}}
		}},
	} {
		cfg := config(t)
		test.spoil(&cfg)
		var bad *ConfigError
		if _, err := Scan(context.Background(), cfg); !errors.As(err, &bad) || bad.Field != test.field {
			t.Errorf("got %v, want a *ConfigError of %s", err, test.field)
		}
	}
	cfg := config(t)
	cfg.Groups = []Group{{"a", []string{"/fc/wieghts"}}}
	var unknown *params.UnknownPathError
	if _, err := Scan(context.Background(), cfg); !errors.As(err, &unknown) || unknown.Path != "/fc/wieghts" {
		t.Errorf("got %v, want a *params.UnknownPathError", err)
	}
	cfg = config(t)
	cfg.Recipe.Unit = unit.Filter
	cfg.Set, _ = cfg.Set.Only("/output/weights")
	var none *prune.RecipeError
	if _, err := Scan(context.Background(), cfg); !errors.As(err, &none) {
		t.Errorf("nothing but the output: got %v, want a *prune.RecipeError", err)
	}
}

// Numbers that are none are read as such, and what is missing is not read as 0.
func TestNumbersOfJSON(t *testing.T) {
	var got []number
	if err := json.Unmarshal([]byte(`[1.5, "NaN", "+Inf", "-Inf"]`), &got); err != nil || got[0] != 1.5 || !math.IsNaN(float64(got[1])) || !math.IsInf(float64(got[2]), 1) || !math.IsInf(float64(got[3]), -1) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{`[null]`, `["nan"]`, `[true]`} {
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s was read as %v", text, got)
		}
	}
}

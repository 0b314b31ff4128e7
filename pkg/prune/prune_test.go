package prune

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/dataset"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/schedule"
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

// storeOf makes a store of matrices, by path.
func storeOf(t testing.TB, matrices map[string][][]float32) *model.Store {
	t.Helper()
	store := model.NewStore()
	for path, m := range matrices {
		value, err := tensors.FromAnyValue(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.CreateVariable(path, value); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// small is two layers, of four weights each.
func small(t testing.TB) *model.Store {
	return storeOf(t, map[string][][]float32{
		"/fc/weights":     {{0.3, -0.9}, {0.05, 0.4}},
		"/output/weights": {{5, 6}, {-7, 8}},
	})
}

func values(t testing.TB, store *model.Store, path string) any {
	t.Helper()
	v, err := store.GetVariable(path).Value()
	if err != nil {
		t.Fatal(err)
	}
	return v.Value()
}

func TestPruneByHand(t *testing.T) {
	for _, test := range []struct {
		reason   string
		recipe   Recipe
		sparsity float64
		fc, out  [][]float32
	}{
		{"global magnitude: the three smallest of eight", Recipe{}, 3.0 / 8, [][]float32{{0, -0.9}, {0, 0}}, [][]float32{{5, 6}, {-7, 8}}},
		{"of a layer one weight always stays", Recipe{}, 0.5, [][]float32{{0, -0.9}, {0, 0}}, [][]float32{{0, 6}, {-7, 8}}},
		{"two stay", Recipe{MinUnits: 2}, 0.5, [][]float32{{0, -0.9}, {0, 0.4}}, [][]float32{{0, 0}, {-7, 8}}},
		{"layerwise", Recipe{Budget: budget.Layerwise}, 0.5, [][]float32{{0, -0.9}, {0, 0.4}}, [][]float32{{0, 0}, {-7, 8}}},
		{"over their means, 0.4 of 0.4125 comes before 6 of 6.5", Recipe{Normalize: criterion.ByMean}, 0.5, [][]float32{{0, -0.9}, {0, 0.4}}, [][]float32{{0, 0}, {-7, 8}}},
		{"filters: columns by the sum of magnitudes, the output spared", Recipe{Unit: unit.Filter}, 0.5, [][]float32{{0, -0.9}, {0, 0.4}}, [][]float32{{5, 6}, {-7, 8}}},
	} {
		store := small(t)
		p, err := New(open(t), store, params.Select(store, nil), test.recipe)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := p.Prune(test.sparsity, nil)
		if err != nil {
			t.Fatalf("%s: %v", test.reason, err)
		}
		if diff := cmp.Diff(test.fc, values(t, store, "/fc/weights")); diff != "" {
			t.Errorf("%s: fc (-want +got):\n%s", test.reason, diff)
		}
		if diff := cmp.Diff(test.out, values(t, store, "/output/weights")); diff != "" {
			t.Errorf("%s: output (-want +got):\n%s", test.reason, diff)
		}
		for _, s := range stats {
			alive := 0
			for _, row := range values(t, store, s.Path).([][]float32) {
				for _, w := range row {
					if w != 0 {
						alive++
					}
				}
			}
			if s.Kept != alive {
				t.Errorf("%s: %s: %d kept, %d are not zero", test.reason, s.Path, s.Kept, alive)
			}
		}
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", test.reason, err)
		}
	}
}

func TestSparsityIsChecked(t *testing.T) {
	store := small(t)
	p, err := New(open(t), store, params.Select(store, nil), Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	before := values(t, store, "/fc/weights")
	for _, s := range []float64{-0.1, 1, 1.5, math.NaN(), math.Inf(1)} {
		var bad *SparsityError
		if _, err := p.Prune(s, nil); !errors.As(err, &bad) {
			t.Errorf("sparsity %v: got %v, want a *SparsityError", s, err)
		}
	}
	var short *budget.Error
	if _, err := p.Prune(0.99, nil); !errors.As(err, &short) {
		t.Errorf("a sparsity that leaves no weight: got %v, want a *budget.Error", err)
	}
	if _, err := p.Prune(0, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, values(t, store, "/fc/weights")); diff != "" {
		t.Errorf("something changed (-before +after):\n%s", diff)
	}
}

// Feasible refuses what Prune refuses, and changes nothing.
func TestFeasible(t *testing.T) {
	store := small(t)
	p, err := New(open(t), store, params.Select(store, nil), Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prune(0.5, nil); err != nil {
		t.Fatal(err)
	}
	for _, sparsity := range []float64{-1, 0.4, 0.5, 0.6, 0.99, 1, math.NaN()} {
		before, err := mask.Count(store, p.Params())
		if err != nil {
			t.Fatal(err)
		}
		said := p.Feasible(sparsity)
		after, err := mask.Count(store, p.Params())
		if diff := cmp.Diff(before, after); diff != "" || err != nil {
			t.Errorf("%v changed masks (-before +after):\n%s%v", sparsity, diff, err)
		}
		if _, did := p.Prune(sparsity, nil); fmt.Sprint(said) != fmt.Sprint(did) {
			t.Errorf("%v: Feasible says %v and Prune %v", sparsity, said, did)
		}
	}
}

func TestMasksOnlyShrinkUnlessTheyRevive(t *testing.T) {
	store := small(t)
	p, err := New(open(t), store, params.Select(store, nil), Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prune(0.5, nil); err != nil {
		t.Fatal(err)
	}
	var bad *SparsityError
	if _, err := p.Prune(0.25, nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), "Revive") {
		t.Errorf("got %v, want a *SparsityError that names Revive", err)
	}
	reviving, err := New(open(t), store, params.Select(store, nil), Recipe{Revive: true})
	if err != nil {
		t.Fatal(err)
	}
	stats, err := reviving.Prune(0.25, nil)
	if err != nil || mask.Sparsity(stats) != 0.25 {
		t.Errorf("reviving: %+v, %v; want 6 of 8 alive", stats, err)
	}
}

func TestScoresAreChecked(t *testing.T) {
	nan := float32(math.NaN())
	store := storeOf(t, map[string][][]float32{"/a/weights": {{1, 2}}, "/b/weights": {{nan, 1}}})
	p, err := New(open(t), store, params.Select(store, nil), Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	var bad *ScoreError
	if _, err := p.Prune(0.25, nil); !errors.As(err, &bad) || bad.Path != "/b/weights" || bad.Criterion != "magnitude" {
		t.Errorf("got %v, want a *ScoreError of /b/weights", err)
	}
	if diff := cmp.Diff([][]float32{{1, 2}}, values(t, store, "/a/weights")); diff != "" {
		t.Errorf("something changed:\n%s", diff)
	}

	store = small(t)
	wrong := criterion.Criterion{Name: "wrong", Score: func(in criterion.Inputs) *graph.Node { return graph.ReduceAllSum(in.Weight) }}
	if p, err = New(open(t), store, params.Select(store, nil), Recipe{Criterion: wrong}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prune(0.25, nil); err == nil || !strings.Contains(err.Error(), "expected that of the weights") {
		t.Errorf("a score of the wrong shape: got %v", err)
	}
}

func TestRecipesAreChecked(t *testing.T) {
	store := small(t)
	set := params.Select(store, nil)
	noOutput, err := set.MarkOutput()
	if err != nil {
		t.Fatal(err)
	}
	var bad *RecipeError
	if _, err := New(open(t), store, noOutput, Recipe{Unit: unit.Filter}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "MarkOutput") {
		t.Errorf("filters without a marked output: got %v", err)
	}
	if _, err := New(open(t), store, nil, Recipe{}); !errors.As(err, &bad) {
		t.Errorf("no parameters: got %v", err)
	}
	if _, err := New(open(t), store, append(slices.Clone(set), set[0]), Recipe{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), set[0].Path) {
		t.Errorf("a parameter that is there twice: got %v", err)
	}
	if _, err := New(open(t), store, set, Recipe{MinUnits: -1}); !errors.As(err, &bad) {
		t.Errorf("negative MinUnits: got %v", err)
	}
	var short *budget.Error
	if _, err := New(open(t), store, set, Recipe{MinUnits: 5}); !errors.As(err, &short) {
		t.Errorf("more MinUnits than units: got %v", err)
	}
	var unknown *params.UnknownPathError
	if _, err := New(open(t), store, params.Set{{Path: "/nowhere/weights"}}, Recipe{}); !errors.As(err, &unknown) {
		t.Errorf("an unknown path: got %v", err)
	}
	p, err := New(open(t), store, set, Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Optimizer(nil); !errors.As(err, &bad) {
		t.Errorf("no optimizer: got %v", err)
	}
}

func TestRecipeString(t *testing.T) {
	for want, r := range map[string]Recipe{
		"magnitude": {},
		"magnitude budget=layerwise minunits=4 normalize=L2 revive seed=3 unit=filter": {
			Budget: budget.Layerwise, MinUnits: 4, Normalize: criterion.ByL2, Revive: true, Seed: 3, Unit: unit.Filter},
		"random seed=7": {Criterion: criterion.Random, Seed: 7, Budget: budget.Global, Unit: unit.Element, MinUnits: 1},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func model2(scope *model.Scope, x *graph.Node) *graph.Node {
	x = layers.Dense(scope.At("fc"), x, true, 6)
	return layers.Dense(scope.At("output"), x, true, 3)
}

// network is model2 with fixed weights.
func network(t testing.TB, b compute.Backend) *model.Store {
	t.Helper()
	store := model.NewStore()
	for path, dims := range map[string][2]int{"/fc/dense/weights": {4, 6}, "/output/dense/weights": {6, 3}} {
		w := make([]float32, dims[0]*dims[1])
		for i := range w {
			w[i] = float32(math.Sin(float64(7*i + dims[0])))
		}
		if _, err := store.CreateVariable(path, tensors.FromFlatDataAndDimensions(w, dims[0], dims[1])); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// GoMLX's own trainer and loop: zeros stay zero under each optimizer, with accumulated gradients too; without the wrapper they do not.
func TestZerosStayZeroInGoMLXsLoop(t *testing.T) {
	b := open(t)
	for name, inner := range map[string]optimizer.Interface{
		"sgd":     optimizer.StochasticGradientDescent().WithLearningRate(0.1).Done(),
		"adam":    optimizer.Adam().Done(),
		"adamw":   optimizer.Adam().WeightDecay(0.1).Done(),
		"adamax":  optimizer.Adam().Adamax().Done(),
		"rmsprop": optimizer.RMSProp().Done(),
	} {
		for _, accumulate := range []int{1, 2} {
			for _, wrapped := range []bool{true, false} {
				store := network(t, b)
				p, err := New(b, store, params.Select(store, nil), Recipe{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.Prune(0.5, nil); err != nil {
					t.Fatal(err)
				}
				opt := inner
				if wrapped {
					if opt, err = p.Optimizer(inner); err != nil {
						t.Fatal(err)
					}
				}
				store.RootScope().SetParam(optimizer.ParamClipStepByValue, 0.5)
				scaled := func(labels, predictions []*graph.Node) *graph.Node { // as for lower precision
					return graph.MulScalar(loss.SparseCategoricalCrossEntropyLogits(labels, predictions), 64)
				}
				trainer := train.NewTrainer(b, store, model2, scaled, opt, nil, nil)
				if accumulate > 1 {
					if err := trainer.AccumulateGradients(accumulate); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := train.NewLoop(trainer).RunSteps(data(t, b), 8); err != nil {
					t.Fatal(err)
				}
				err = p.Check()
				var leak *LeakError
				if wrapped && err != nil || !wrapped && !errors.As(err, &leak) {
					t.Errorf("%s, accumulating %d, wrapped %t: Check = %v", name, accumulate, wrapped, err)
				}
			}
		}
	}
}

func data(t testing.TB, b compute.Backend) train.Dataset {
	t.Helper()
	x := make([]float32, 32*4)
	y := make([]int32, 32)
	for i := range x {
		x[i] = float32(math.Cos(float64(i)))
		y[i/4] = int32(i / 4 % 3)
	}
	ds, err := dataset.InMemoryFromData(b, "points", []any{tensors.FromFlatDataAndDimensions(x, 32, 4)}, []any{tensors.FromFlatDataAndDimensions(y, 32, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return ds.BatchSize(8, true).Infinite(true)
}

func TestAttachPrunesBySchedule(t *testing.T) {
	b := open(t)
	store := network(t, b)
	p, err := New(b, store, params.Select(store, nil), Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	opt, err := p.Optimizer(optimizer.Adam().Done())
	if err != nil {
		t.Fatal(err)
	}
	trainer := train.NewTrainer(b, store, model2, loss.SparseCategoricalCrossEntropyLogits, opt, nil, nil)
	compiled := 0
	trainer.OnExecCreation(func(*model.Exec, train.GraphType) { compiled++ })
	loop := train.NewLoop(trainer)
	p.Attach(loop, schedule.Linear(0, 10, 0, 0.8), schedule.Every(2, 2, 10), nil)
	var kept []int
	loop.OnStep("look", 100, func(*train.Loop, []*tensors.Tensor) error {
		stats, err := mask.Count(store, p.Params())
		kept = append(kept, stats[0].Kept+stats[1].Kept)
		return err
	})
	if _, err := loop.RunSteps(data(t, b), 12); err != nil {
		t.Fatal(err)
	}
	// 42 weights: 0.16, 0.32, … of them are removed after steps 2, 4, …
	if diff := cmp.Diff([]int{42, 35, 35, 29, 29, 22, 22, 15, 15, 8, 8, 8}, kept); diff != "" {
		t.Errorf("weights kept after each step (-want +got):\n%s", diff)
	}
	if compiled != 1 {
		t.Errorf("the training step was compiled %d times", compiled)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
}

func ExamplePruner_Prune() {
	b, err := backend.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	store := model.NewStore()
	weights := tensors.FromFlatDataAndDimensions([]float32{0.3, -0.9, 0.05, 0.4}, 2, 2)
	if _, err := store.CreateVariable("/fc/weights", weights); err != nil {
		fmt.Println(err)
		return
	}
	p, err := New(b, store, params.Select(store, nil), Recipe{})
	if err != nil {
		fmt.Println(err)
		return
	}
	stats, err := p.Prune(0.5, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Recipe(), stats, store.GetVariable("/fc/weights").MustValue().Value())
	// Output: magnitude [{/fc/weights 2 4}] [[0 -0.9] [0 0.4]]
}

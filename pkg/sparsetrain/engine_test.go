package sparsetrain_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/sparsetrain"
)

// small has 784·20 + 20·10 weights.
func small(scope *model.Scope, x *graph.Node) *graph.Node {
	x = graph.Reshape(x, x.Shape().Dimensions[0], -1)               // -> [batch, pixels]
	x = activation.Relu(layers.Dense(scope.At("fc1"), x, true, 20)) // -> [batch, 20]
	return layers.Dense(scope.At("output"), x, true, 10)            // -> [batch, 10]
}

// digits is the task of these tests.
func digits(t testing.TB) experiment.Task {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	data, err := synth.Digits(synth.Config{Train: 400, Validation: 100, Test: 100, Batch: 20})
	if err != nil {
		t.Fatal(err)
	}
	return experiment.Task{Backend: b, Model: small, Train: data.Train, Validation: data.Validation}
}

// run trains with an update and returns the store.
func run(t testing.TB, task experiment.Task, u sparsetrain.Update, c sparsetrain.Config, training experiment.Training) (*model.Store, error) {
	t.Helper()
	store, err := experiment.Init(task, 1)
	if err != nil {
		t.Fatal(err)
	}
	engine, err := sparsetrain.New(task.Backend, store, params.Select(store, nil), u, c)
	if err != nil {
		return store, err
	}
	training.Topology = engine
	_, err = experiment.Train(context.Background(), task, store, training)
	return store, err
}

func sgd() experiment.Training {
	return experiment.Training{Steps: 60, Optimizer: &experiment.SGD{LearningRate: 0.05, Momentum: 0.9, Nesterov: true, WeightDecay: 5e-4}}
}

// Every update, with both optimizers: the number alive is the budget to the weight after each update, what is dead is zero, each layer lives, and the same seed gives the same
// network, bit for bit.
func TestConformance(t *testing.T) {
	task := digits(t)
	for _, preset := range sparsetrain.All() {
		for name, training := range map[string]experiment.Training{"sgd": sgd(), "adam": {Steps: 60, Optimizer: optimizer.Adam().LearningRate(2e-3).Done()}} {
			t.Run(preset.Name+" "+name, func(t *testing.T) {
				u, err := preset.Over(60, 10)
				if err != nil {
					t.Fatal(err)
				}
				const budget = 1588 // 10% of 15 880
				changes := 0
				config := sparsetrain.Config{Density: 0.1, Seed: 3, Observe: func(c sparsetrain.Change) {
					changes++
					living, moved := 0, 0
					for _, l := range c.Layers {
						living += l.Living
						moved += l.Dropped
						if l.Living != l.Before-l.Dropped+l.Grown || l.Living == 0 {
							t.Errorf("after step %d: %+v", c.Step, l)
						}
					}
					if off := living - budget; off != 0 && (preset.Name != sparsetrain.SparseMomentumCompatible.Name || math.Abs(float64(off)) > 0.05*budget) {
						t.Errorf("after step %d %d weights are alive, expected %d", c.Step, living, budget)
					}
					if moved == 0 && preset.Name != sparsetrain.DEEPR.Name && preset.Name != sparsetrain.DSR.Name {
						t.Errorf("after step %d nothing was dropped", c.Step)
					}
				}}
				store, err := run(t, task, u, config, training)
				if err != nil {
					t.Fatal(err)
				}
				if want := map[bool]int{true: 0, false: 5}[preset.Name == sparsetrain.Static.Name]; changes != want && preset.Until != 0.75 {
					t.Errorf("%d updates, expected %d", changes, want)
				}
				set := params.Select(store, nil)
				for _, p := range set {
					alive, err := mask.Bools(store, p)
					if err != nil {
						t.Fatal(err)
					}
					value, err := store.GetVariable(p.Path).Value()
					if err != nil {
						t.Fatal(err)
					}
					if err := value.ConstFlatData(func(flat any) {
						for i, w := range flat.([]float32) {
							if !alive[i] && math.Float32bits(w) != 0 {
								t.Fatalf("%s: weight %d is dead and %v", p.Path, i, w)
							}
						}
					}); err != nil {
						t.Fatal(err)
					}
				}
				config.Observe = nil
				again, err := run(t, task, u, config, training)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(values(t, store), values(t, again)); diff != "" {
					t.Errorf("the same seed gives another network (-first +second)\n%.500s", diff)
				}
			})
		}
	}
}

// The updates are what the papers say: rules, what becomes of moments, and which share of the weights is dropped when.
func TestPresets(t *testing.T) {
	type preset struct {
		Name, Budget, Drop, Share, Grow, Init string // an Init of "" is Zero
		Moments                               sparsetrain.Moments
		Fractions                             [4]float64 // after 0, 375, 750 and 1000 of 1000 steps
		Last                                  int        // update, of those after every tenth step
	}
	want := []preset{
		{"sparse-momentum", "layerwise", "magnitude-unless-growing", "momentum", "momentum", "", sparsetrain.KeepMoments, [4]float64{0.5, 0.347214, 0.077491, 0.005}, 990},
		{"sparse-momentum-compatible", "layerwise", "magnitude-unless-growing", "momentum-compatible", "momentum", "", sparsetrain.KeepMoments, [4]float64{0.5, 0.347214, 0.077491, 0.005}, 990},
		{"set", "erdos-renyi", "each-sign", "keep", "random", "", sparsetrain.ResetGrown, [4]float64{0.3, 0.3, 0.3, 0.3}, 990},
		{"dsr", "layerwise", "threshold", "survivors", "random", "", sparsetrain.ResetGrown, [4]float64{0.01, 0.01, 0.01, 0.01}, 990},
		{"rigl", "erk", "magnitude", "keep", "gradient", "", sparsetrain.ResetGrown, [4]float64{0.3, 0.15, 0, 0}, 750},
		{"snfs", "erk", "magnitude", "keep", "momentum", "", sparsetrain.ResetGrown, [4]float64{0.3, 0.15, 0, 0}, 750},
		{"static", "erk", "", "", "", "", sparsetrain.ResetGrown, [4]float64{}, 0},
		{"deep-r", "layerwise", "sign-flip", "room", "random", "random-sign", sparsetrain.ResetGrown, [4]float64{0.3, 0.3, 0.3, 0.3}, 990},
	}
	var got []preset
	for _, u := range sparsetrain.All() {
		u, err := u.Over(1000, 10)
		if err != nil {
			t.Fatal(err)
		}
		p := preset{Name: u.Name, Budget: u.Budget.Name, Drop: u.Drop.Name, Share: u.Redistribute.Name, Grow: u.Grow.Name, Init: u.Init.Name, Moments: u.Moments}
		for i, step := range []int{0, 375, 750, 1000} {
			p.Fractions[i] = math.Round(1e6*u.Fraction(step)) / 1e6
		}
		for step := range 1001 {
			if u.When(step) {
				p.Last = step
			}
		}
		got = append(got, p)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("updates (-want +got)\n%s", diff)
	}
}

// values are those of all variables, as text.
func values(t testing.TB, store *model.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for v := range store.IterVariables() {
		value, err := v.Value()
		if err != nil {
			t.Fatal(err)
		}
		if err := value.ConstBytes(func(data []byte) { all[v.Path()] = fmt.Sprintf("%x", data) }); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// A run that was interrupted between two updates ends as one that was not.
func TestResume(t *testing.T) {
	task := digits(t)
	u, err := sparsetrain.RigL.Over(60, 10)
	if err != nil {
		t.Fatal(err)
	}
	config := sparsetrain.Config{Density: 0.1, Seed: 3}
	whole, err := run(t, task, u, config, sgd())
	if err != nil {
		t.Fatal(err)
	}
	training := sgd()
	training.Dir, training.StepsPerDispatch = t.TempDir(), 5
	store, err := experiment.Init(task, 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	updates := 0
	config.Observe = func(sparsetrain.Change) {
		if updates++; updates == 2 {
			stop()
		}
	}
	if training.Topology, err = sparsetrain.New(task.Backend, store, params.Select(store, nil), u, config); err != nil {
		t.Fatal(err)
	}
	var interrupted *experiment.InterruptedError
	if _, err = experiment.Train(ctx, task, store, training); !errors.As(err, &interrupted) || interrupted.Step != 20 {
		t.Fatalf("interrupted: %v", err)
	}
	config.Observe = nil
	resumed, err := run(t, task, u, config, training)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(values(t, whole), values(t, resumed)); diff != "" {
		t.Errorf("resumed (-whole +resumed)\n%.500s", diff)
	}
}

// Replicas with topologies of their own, trained together, end as each does alone.
func TestTogether(t *testing.T) {
	task := digits(t)
	u, err := sparsetrain.RigL.Over(60, 20)
	if err != nil {
		t.Fatal(err)
	}
	var runs []experiment.Run
	var stores []*model.Store
	for seed := range int64(2) {
		store, err := experiment.Init(task, 1)
		if err != nil {
			t.Fatal(err)
		}
		engine, err := sparsetrain.New(task.Backend, store, params.Select(store, nil), u, sparsetrain.Config{Density: 0.1, Seed: 3 + seed})
		if err != nil {
			t.Fatal(err)
		}
		trainer, err := experiment.NewTrainer(task, store)
		if err != nil {
			t.Fatal(err)
		}
		training := sgd()
		training.Topology = engine
		runs, stores = append(runs, experiment.Run{Trainer: trainer, Training: training}), append(stores, store)
	}
	if _, err := experiment.TrainTogether(t.Context(), runs...); err != nil {
		t.Fatal(err)
	}
	for i, store := range stores {
		alone, err := run(t, task, u, sparsetrain.Config{Density: 0.1, Seed: 3 + int64(i)}, sgd())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(values(t, alone), values(t, store)); diff != "" {
			t.Errorf("run %d (-alone +together)\n%.500s", i, diff)
		}
	}
}

// byHand returns a store with eight weights, of which the first four live, and their velocity.
func byHand(t *testing.T) (*model.Store, params.Set) {
	t.Helper()
	store := model.NewStore()
	for path, x := range map[string][]float32{"/a/weights": {1, -2, 3, -4, 0, 0, 0, 0}, velocity: {1, 2, 3, 4, 5, 6, 7, 8}} {
		v, err := store.CreateVariable(path, tensors.FromFlatDataAndDimensions(x, 4, 2))
		if err != nil {
			t.Fatal(err)
		}
		v.SetTrainable(path != velocity)
	}
	set := params.Select(store, nil)
	if err := mask.Set(store, set[0], []bool{true, true, true, true, false, false, false, false}); err != nil {
		t.Fatal(err)
	}
	return store, set
}

const velocity = "/optimizers/velocity/a/weights"

// Two of four weights are dropped, and one of them is grown again at once, with another: it keeps its value and its velocity, unless the rule starts it anew. What becomes of velocities is what
// Moments says.
func TestUpdateByHand(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		moments           sparsetrain.Moments
		fresh             bool
		weights, velocity []float32
	}{
		{sparsetrain.ResetGrown, false, []float32{0, -2, 3, -4, 0, 0, 0.5, 0}, []float32{1, 2, 3, 4, 5, 6, 0, 8}},
		{sparsetrain.ResetGrown, true, []float32{0, 0.5, 3, -4, 0, 0, 0.5, 0}, []float32{1, 0, 3, 4, 5, 6, 0, 8}},
		{sparsetrain.KeepMoments, false, []float32{0, -2, 3, -4, 0, 0, 0.5, 0}, []float32{1, 2, 3, 4, 5, 6, 7, 8}},
		{sparsetrain.ResetChanged, false, []float32{0, -2, 3, -4, 0, 0, 0.5, 0}, []float32{0, 2, 3, 4, 5, 6, 0, 8}},
		{sparsetrain.ResetChanged, true, []float32{0, 0.5, 3, -4, 0, 0, 0.5, 0}, []float32{0, 0, 3, 4, 5, 6, 0, 8}},
	} {
		store, set := byHand(t)
		var rounds [][4]int // step, number, budget, and the first number of the memory
		grow := sparsetrain.GrowBy("mine", 0, func(_ *sparsetrain.Layer, scores []float32) { scores[1], scores[6] = 2, 1 })
		grow.Fresh = c.fresh
		u := sparsetrain.Update{Start: 0.5, Grow: grow, Moments: c.moments, Init: sparsetrain.Init{Name: "mine", Value: func(*sparsetrain.Layer, int) float32 { return 0.5 }},
			Drop: sparsetrain.Drop{Name: "mine", Mark: func(r *sparsetrain.Round) error {
				rounds = append(rounds, [4]int{r.Step, r.Number, r.Budget, int(r.Memory[0])})
				r.Memory[0] += 7
				return sparsetrain.Smallest.Mark(r)
			}}}
		var changes []sparsetrain.Change
		engine, err := sparsetrain.New(b, store, set, u, sparsetrain.Config{KeepMasks: true, Observe: func(c sparsetrain.Change) { changes = append(changes, c) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := engine.Apply(100, nil); err != nil {
			t.Fatal(err)
		}
		alive, err := mask.Bools(store, set[0])
		if err != nil {
			t.Fatal(err)
		}
		flat := func(path string) []float32 {
			return tensors.MustCopyFlatData[float32](store.GetVariable(path).MustValue())
		}
		got := []any{alive, flat("/a/weights"), flat(velocity), changes}
		want := []any{[]bool{false, true, true, true, false, false, true, false}, c.weights, c.velocity, []sparsetrain.Change{
			{Step: 100, Fraction: 0.5, Layers: []sparsetrain.LayerChange{{Path: "/a/weights", Before: 4, Dropped: 2, Grown: 2, Living: 4, Regrown: 1, Size: 8}}}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("moments %d, fresh %t: mask, weights, velocity and what was told (-want +got)\n%s", c.moments, c.fresh, diff)
		}
		if err := engine.Apply(200, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([][4]int{{100, 0, 4, 0}, {200, 1, 4, 7}}, rounds); diff != "" {
			t.Errorf("rounds (-want +got)\n%s", diff)
		}
	}
}

// Deep R drops what has another sign than it had at the start, or was given when it was grown, and nothing before that.
func TestSignsByHand(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	store, set := byHand(t)
	u, err := sparsetrain.DEEPR.Over(1000, 100)
	if err != nil {
		t.Fatal(err)
	}
	var change sparsetrain.Change
	engine, err := sparsetrain.New(b, store, set, u, sparsetrain.Config{KeepMasks: true, Observe: func(c sparsetrain.Change) { change = c }})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		weights []float32
		dropped int
	}{{[]float32{1, -2, 3, -4, 0, 0, 0, 0}, 0}, {[]float32{2, -1, 1, -9, 0, 0, 0, 0}, 0}, {[]float32{1, 2, 3, -4, 0, 0, 0, 0}, 1}} {
		if err := store.GetVariable("/a/weights").SetValue(tensors.FromFlatDataAndDimensions(c.weights, 4, 2)); err != nil {
			t.Fatal(err)
		}
		if err := engine.Apply(100*(i+1), nil); err != nil {
			t.Fatal(err)
		}
		if got := change.Layers[0]; got.Dropped != c.dropped || got.Living != 4 {
			t.Errorf("weights %v: %d dropped and %d alive, want %d and 4", c.weights, got.Dropped, got.Living, c.dropped)
		}
	}
	alive, err := mask.Bools(store, set[0])
	if err != nil {
		t.Fatal(err)
	}
	if !alive[0] || !alive[2] || !alive[3] {
		t.Errorf("alive are %v: a weight that kept its sign was dropped", alive)
	}
}

// A rule of one's own is one function: here weights are dropped that w·g calls useless.
func TestOwnRules(t *testing.T) {
	task := digits(t)
	for name, u := range map[string]sparsetrain.Update{
		"function":  {Name: "mine", Grow: sparsetrain.GrowBy("first", 0, func(l *sparsetrain.Layer, scores []float32) { scores[0] = 1 })},
		"criterion": {Name: "mine", Drop: sparsetrain.DropByCriterion(criterion.SNIP), Grow: sparsetrain.GrowByCriterion(criterion.GradMagnitude)},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := u.Over(60, 20)
			if err != nil {
				t.Fatal(err)
			}
			updates := 0
			if _, err := run(t, task, u, sparsetrain.Config{Density: 0.1, Observe: func(sparsetrain.Change) { updates++ }}, sgd()); err != nil || updates != 2 {
				t.Errorf("%d updates, error %v", updates, err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	task := digits(t)
	over := func(u sparsetrain.Update) sparsetrain.Update {
		u, err := u.Over(60, 10)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	var density *sparsetrain.DensityError
	var update *sparsetrain.UpdateError
	var moments *sparsetrain.MomentumError
	for name, c := range map[string]struct {
		u    sparsetrain.Update
		d    float64
		opt  optimizer.Interface
		want any
	}{
		"no density":            {over(sparsetrain.SET), 0, nil, &density},
		"a density of 2":        {over(sparsetrain.SET), 2, nil, &density},
		"an empty layer":        {over(sparsetrain.SparseMomentum), 0.0001, nil, &density},
		"no momentum":           {over(sparsetrain.SparseMomentum), 0.1, &experiment.SGD{LearningRate: 0.1}, &moments},
		"never due":             {sparsetrain.Update{When: func(int) bool { return false }}, 0.1, nil, &update},
		"decay over what steps": {sparsetrain.RigL, 0.1, nil, &update},
		"drops all":             {sparsetrain.Update{Fraction: func(int) float64 { return 1 }, When: func(s int) bool { return s == 10 }}, 0.1, nil, &update},
	} {
		t.Run(name, func(t *testing.T) {
			training := sgd()
			if c.opt != nil {
				training.Optimizer = c.opt
			}
			if _, err := run(t, task, c.u, sparsetrain.Config{Density: c.d}, training); !errors.As(err, c.want) {
				t.Errorf("error %v, expected a %T", err, c.want)
			}
		})
	}
	if _, err := sparsetrain.SET.Over(100, 0); !errors.As(err, &update) {
		t.Errorf("an interval of 0: %v", err)
	}
	if _, err := sparsetrain.RigL.Over(100, 76); !errors.As(err, &update) || !strings.Contains(err.Error(), "every 76 steps, and none after step 75 of 100") {
		t.Errorf("an interval longer than what is to be updated: %v", err)
	}
	if _, err := sparsetrain.RigL.Over(100, 75); err != nil {
		t.Errorf("an interval with one update: %v", err)
	}
	if _, err := sparsetrain.Static.Over(10, 100); err != nil {
		t.Errorf("a topology that stays needs no updates: %v", err)
	}
}

// started returns an engine before the first step, at 10% of the weights, with its store.
func started(t *testing.T, task experiment.Task, u sparsetrain.Update) (*sparsetrain.Engine, *model.Store) {
	t.Helper()
	store, err := experiment.Init(task, 1)
	if err != nil {
		t.Fatal(err)
	}
	engine, err := sparsetrain.New(task.Backend, store, params.Select(store, nil), u, sparsetrain.Config{Density: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	return engine, store
}

// A store that is sparse is not made sparse a second time: what would come to life is zero.
func TestSparseStoreIsRefused(t *testing.T) {
	task := digits(t)
	_, store := started(t, task, sparsetrain.Update{})
	set := params.Select(store, nil)
	before, err := mask.Count(store, set)
	if err != nil {
		t.Fatal(err)
	}
	var refused *sparsetrain.MaskError
	if _, err := sparsetrain.New(task.Backend, store, set, sparsetrain.Update{}, sparsetrain.Config{Density: 0.1, Seed: 2}); !errors.As(err, &refused) {
		t.Errorf("got %v, want a *MaskError", err)
	}
	after, err := mask.Count(store, set)
	if diff := cmp.Diff(before, after); diff != "" || err != nil {
		t.Errorf("masks (-before +after):\n%s%v", diff, err)
	}
	fresh, err := experiment.Init(task, 1)
	if err != nil {
		t.Fatal(err)
	}
	start, err := experiment.Snapshot(fresh)
	if err != nil {
		t.Fatal(err)
	}
	if err := experiment.Restore(store, start); err != nil {
		t.Fatal(err)
	}
	if _, err := sparsetrain.New(task.Backend, store, set, sparsetrain.Update{}, sparsetrain.Config{Density: 0.1, Seed: 2}); err != nil {
		t.Errorf("a store that was brought back: %v", err)
	}
}

// A rule's own error says whose it is.
func TestErrorOfARule(t *testing.T) {
	mine := errors.New("no idea")
	engine, _ := started(t, digits(t), sparsetrain.Update{Drop: sparsetrain.Drop{Name: "guess", Mark: func(*sparsetrain.Round) error { return mine }}})
	if err := engine.Apply(100, nil); !errors.Is(err, mine) || !strings.Contains(err.Error(), `rule "guess"`) {
		t.Errorf("got %v", err)
	}
}

// A rule that panics, as one that reads what it has not asked for, that gives no numbers, or that spoils what it sees, is an error, and the network stays as it was.
func TestRulesAtFault(t *testing.T) {
	task := digits(t)
	forgetful := func(l *sparsetrain.Layer, scores []float32) { scores[3] = l.Momentum[3] }
	marks := func(mark func(l *sparsetrain.Layer)) sparsetrain.Drop {
		return sparsetrain.Drop{Name: "mine", Mark: func(r *sparsetrain.Round) error {
			for _, l := range r.Layers {
				mark(l)
			}
			return nil
		}}
	}
	for name, c := range map[string]struct {
		u    sparsetrain.Update
		says string
	}{
		"drop":     {sparsetrain.Update{Drop: sparsetrain.DropBy("mine", 0, forgetful)}, "Needs"},
		"grow":     {sparsetrain.Update{Grow: sparsetrain.GrowBy("mine", 0, forgetful)}, "Needs"},
		"share":    {sparsetrain.Update{Redistribute: sparsetrain.Share{Name: "mine", Claim: func(r *sparsetrain.Round) []float64 { return []float64{float64(r.Layers[0].Gradient[0]), 1} }}}, "Needs"},
		"init":     {sparsetrain.Update{Init: sparsetrain.Init{Name: "mine", Value: func(*sparsetrain.Layer, int) float32 { panic("no value") }}}, "Needs"},
		"NaN":      {sparsetrain.Update{Init: sparsetrain.Init{Name: "mine", Value: func(*sparsetrain.Layer, int) float32 { return float32(math.NaN()) }}}, "no numbers"},
		"infinity": {sparsetrain.Update{Init: sparsetrain.Init{Name: "mine", Value: func(*sparsetrain.Layer, int) float32 { return float32(math.Inf(1)) }}}, "infinity"},
		"layers in another order": {sparsetrain.Update{Redistribute: sparsetrain.Share{Name: "mine", Claim: func(r *sparsetrain.Round) []float64 {
			slices.Reverse(r.Layers)
			return []float64{1, 2}
		}}}, "Round.Layers"},
		"fewer layers": {sparsetrain.Update{Drop: sparsetrain.Drop{Name: "mine", Mark: func(r *sparsetrain.Round) error {
			r.Layers = r.Layers[:1]
			return nil
		}}}, "Round.Layers"},
		"a Drop of its own": {sparsetrain.Update{Drop: marks(func(l *sparsetrain.Layer) { l.Drop = []bool{true} })}, "Drop of 1"},
		"the mask": {sparsetrain.Update{Name: "mine", Drop: marks(func(l *sparsetrain.Layer) { // says of all but one that they are dead, and drops this one
			kept := false
			for i, alive := range l.Alive {
				l.Alive[i], l.Drop[i], kept = alive && !kept, alive && !kept, kept || alive
			}
		}), Grow: sparsetrain.GrowBy("alive", 0, func(l *sparsetrain.Layer, scores []float32) {
			for i, w := range l.Weight {
				if w != 0 && !l.Drop[i] {
					scores[i] = 1
				}
			}
		})}, "changed Alive"},
	} {
		u := c.u
		engine, store := started(t, task, u)
		before, err := experiment.Snapshot(store)
		if err != nil {
			t.Fatal(err)
		}
		var rule *sparsetrain.RuleError
		if err := engine.Apply(100, nil); !errors.As(err, &rule) || rule.Rule != "mine" || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want a *RuleError that says %q", name, err, c.says)
		}
		after, err := experiment.Snapshot(store)
		if err != nil {
			t.Fatal(err)
		}
		for path, value := range before {
			if !value.Equal(after[path]) {
				t.Errorf("%s: %s is changed", name, path)
			}
		}
		if _, err := engine.Code(200); err != nil {
			t.Errorf("%s: what fails can be told from what does not: %v", name, err)
		}
	}
}

// watched notes how many examples the signals of each update are of.
type watched struct {
	*sparsetrain.Engine
	examples *[]int
}

func (w watched) Apply(step int, sig *signal.Signals) error {
	*w.examples = append(*w.examples, sig.Examples)
	return w.Engine.Apply(step, sig)
}

// A trainer that serves again collects signals of as many batches as it is told then.
func TestBatches(t *testing.T) {
	task := digits(t)
	u, err := sparsetrain.RigL.Over(20, 10)
	if err != nil {
		t.Fatal(err)
	}
	engine, store := started(t, task, u)
	trainer, err := experiment.NewTrainer(task, store)
	if err != nil {
		t.Fatal(err)
	}
	defer trainer.Close()
	batch := task.Train.(experiment.Resident).Batch()
	for _, batches := range []int{1, 3, 0} {
		var examples []int
		if _, err := trainer.Train(t.Context(), experiment.Training{Steps: 20, Batches: batches, Topology: watched{engine, &examples}}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{max(1, batches) * batch}, examples); diff != "" {
			t.Errorf("%d batches: examples of each update (-want +got)\n%s", batches, diff)
		}
	}
}

// What a rule writes over the numbers of a layer, which are copies, changes nothing.
func TestRulesThatMiscount(t *testing.T) {
	task := digits(t)
	miscount := func(r *sparsetrain.Round) {
		for _, l := range r.Layers {
			l.Living, l.Dropped = 1, 7
		}
	}
	u := sparsetrain.Update{
		Drop:         sparsetrain.Drop{Name: "drop", Mark: func(r *sparsetrain.Round) error { defer miscount(r); return sparsetrain.Smallest.Mark(r) }},
		Redistribute: sparsetrain.Share{Name: "share", Claim: func(r *sparsetrain.Round) []float64 { defer miscount(r); return sparsetrain.ByRoom.Claim(r) }},
		Grow: sparsetrain.GrowBy("grow", 0, func(l *sparsetrain.Layer, scores []float32) {
			l.Living, l.Dropped = 1, 7
			sparsetrain.AtRandom.Score(l, scores)
		}),
	}
	engine, _ := started(t, task, u)
	living := func() (n int) {
		stats, err := engine.Living()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stats {
			n += s.Kept
		}
		return n
	}
	before := living()
	if err := engine.Apply(100, nil); err != nil {
		t.Fatal(err)
	}
	if after := living(); after != before {
		t.Errorf("%d weights live after the update, %d before", after, before)
	}
}

// Two criteria that serve as rules are told apart by what they are for, and not by their names.
func TestCriteriaOfOneName(t *testing.T) {
	task := digits(t)
	of := func(sign float64) criterion.Criterion {
		return criterion.Criterion{Name: "mine", Pool: criterion.Sum, Score: func(in criterion.Inputs) *graph.Node { return graph.MulScalar(graph.Abs(in.Weight), sign) }}
	}
	u := sparsetrain.Update{Drop: sparsetrain.DropByCriterion(of(1)), Grow: sparsetrain.GrowByCriterion(of(-1))} // grows dead ones, of score 0, and what was dropped comes last
	engine, store := started(t, task, u)
	before, err := experiment.Snapshot(store)
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Apply(100, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range params.Select(store, nil) {
		was, err := tensors.CopyFlatData[float32](before[p.Path])
		if err != nil {
			t.Fatal(err)
		}
		value, err := store.GetVariable(p.Path).Value()
		if err != nil {
			t.Fatal(err)
		}
		is, err := tensors.CopyFlatData[float32](value)
		if err != nil {
			t.Fatal(err)
		}
		gone, stays := 0.0, math.Inf(1) // the largest that was dropped, the smallest that was not
		for i, w := range was {
			switch x := math.Abs(float64(w)); {
			case w != 0 && is[i] == 0:
				gone = max(gone, x)
			case w != 0:
				stays = min(stays, x)
			}
		}
		if gone == 0 || gone > stays {
			t.Errorf("%s: a weight of %g was dropped, one of %g was not: it should be the smallest", p.Path, gone, stays)
		}
	}
}

// Runs with rules of the same names and other code are told apart.
func TestCode(t *testing.T) {
	task := digits(t)
	code := func(u sparsetrain.Update) string {
		engine, _ := started(t, task, u)
		code, err := engine.Code(450)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	scored := func(by float32) sparsetrain.Score {
		return func(_ *sparsetrain.Layer, scores []float32) {
			for i := range scores {
				scores[i] = by * float32(i)
			}
		}
	}
	byCriterion := func(by float64) criterion.Criterion {
		return criterion.Criterion{Name: "mine", Score: func(in criterion.Inputs) *graph.Node { return graph.MulScalar(in.Weight, by) }}
	}
	claim := func(first float64) sparsetrain.Share {
		return sparsetrain.Share{Name: "mine", Claim: func(*sparsetrain.Round) []float64 { return []float64{first, 1} }}
	}
	late := func(x float32, when func(r *sparsetrain.Round) bool) sparsetrain.Drop {
		return sparsetrain.Drop{Name: "mine", Mark: func(r *sparsetrain.Round) error {
			for _, l := range r.Layers {
				for i := range l.Drop {
					l.Drop[i] = i%3 == 0 || when(r) && i%2 == int(x+1)/2
				}
			}
			return nil
		}}
	}
	value := func(x float32) sparsetrain.Init {
		return sparsetrain.Init{Name: "mine", Value: func(*sparsetrain.Layer, int) float32 { return x }}
	}
	for what, u := range map[string]func(x float32) sparsetrain.Update{
		"drop": func(x float32) sparsetrain.Update {
			return sparsetrain.Update{Drop: sparsetrain.DropBy("mine", 0, scored(x))}
		},
		"grow": func(x float32) sparsetrain.Update {
			return sparsetrain.Update{Grow: sparsetrain.GrowBy("mine", 0, scored(x))}
		},
		"drop by criterion": func(x float32) sparsetrain.Update {
			return sparsetrain.Update{Drop: sparsetrain.DropByCriterion(byCriterion(float64(x)))}
		},
		"share": func(x float32) sparsetrain.Update { return sparsetrain.Update{Redistribute: claim(float64(2 + x))} },
		"init":  func(x float32) sparsetrain.Update { return sparsetrain.Update{Init: value(x)} },
		"name":  func(x float32) sparsetrain.Update { return sparsetrain.Update{Name: fmt.Sprint(x)} },
		"what it does later": func(x float32) sparsetrain.Update {
			return sparsetrain.Update{Drop: late(x, func(r *sparsetrain.Round) bool { return r.Step > 100 })}
		},
		"what it does from the third time": func(x float32) sparsetrain.Update {
			return sparsetrain.Update{Drop: late(x, func(r *sparsetrain.Round) bool { return r.Number >= 2 })}
		},
		"what it does in the end": func(x float32) sparsetrain.Update {
			return sparsetrain.Update{Fraction: schedule.Linear(0, 400, 0.3, 0.1), Drop: late(x, func(r *sparsetrain.Round) bool { return r.Fraction < 0.11 })}
		},
	} {
		if one, again := code(u(1)), code(u(1)); one != again {
			t.Errorf("%s: the same code has two digests", what)
		}
		if code(u(1)) == code(u(-1)) {
			t.Errorf("%s: other code has the same digest", what)
		}
	}
	for _, u := range sparsetrain.All() {
		u, err := u.Over(60, 10)
		if err != nil {
			t.Fatal(err)
		}
		if one, again := code(u), code(u); one != again {
			t.Errorf("%s: two digests", u.Name)
		}
	}
}

// A run whose weights become NaN in the step right before an update has diverged, and no rule is at fault: the loss of that step is a number still.
func TestDivergence(t *testing.T) {
	u, err := sparsetrain.RigL.Over(60, 1)
	if err != nil {
		t.Fatal(err)
	}
	training := sgd()
	training.Optimizer = &experiment.SGD{LearningRate: math.MaxFloat64}
	_, err = run(t, digits(t), u, sparsetrain.Config{Density: 0.1}, training)
	var diverged *experiment.DivergedError
	if !errors.As(err, &diverged) || diverged.Step != 1 || diverged.Path == "" {
		t.Errorf("error %v, expected an *experiment.DivergedError that names a variable after step 1", err)
	}
}

// Updates build and compile nothing, also those that read gradients: a run builds the network's graph as often for ten updates as for one.
func TestUpdatesCompileOnce(t *testing.T) {
	train := func(every int) (built, updates int) {
		task := digits(t)
		task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
			built++
			return small(scope, x)
		}
		u := sparsetrain.RigL
		u.Until = 1
		u, err := u.Over(110, every)
		if err != nil {
			t.Fatal(err)
		}
		training := sgd()
		training.Steps = 110
		if _, err := run(t, task, u, sparsetrain.Config{Density: 0.1, Observe: func(sparsetrain.Change) { updates++ }}, training); err != nil {
			t.Fatal(err)
		}
		return built, updates
	}
	once, one := train(100)
	often, ten := train(10)
	if once == 0 || often != once || one != 1 || ten != 10 {
		t.Errorf("built %d times for %d updates, %d times for %d; expected as often, for 1 and 10", once, one, often, ten)
	}
}

func Example() {
	b, err := backend.Open()
	must(err)
	data, err := synth.Digits(synth.Config{Train: 400, Validation: 100, Test: 100, Batch: 20})
	must(err)
	task := experiment.Task{Backend: b, Model: small, Train: data.Train, Validation: data.Validation}
	store, err := experiment.Init(task, 1)
	must(err)

	rigl, err := sparsetrain.RigL.Over(100, 20) // of 100 steps, an update every 20
	must(err)
	engine, err := sparsetrain.New(b, store, params.Select(store, nil), rigl, sparsetrain.Config{Density: 0.05, Observe: func(c sparsetrain.Change) {
		fmt.Printf("step %d: %.0f%% dropped and grown elsewhere\n", c.Step, 100*c.Fraction)
	}})
	must(err)
	_, err = experiment.Train(context.Background(), task, store, experiment.Training{Steps: 100, Topology: engine})
	must(err)
	stats, err := engine.Living()
	must(err)
	fmt.Printf("%.0f%% of the weights are dead\n", 100*mask.Sparsity(stats))
	// Output:
	// step 20: 25% dropped and grown elsewhere
	// step 40: 13% dropped and grown elsewhere
	// step 60: 3% dropped and grown elsewhere
	// 95% of the weights are dead
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

package structured

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

var near = cmpopts.EquateApprox(1e-6, 1e-6)

// twoLayers is 4 hidden units between 2 inputs and 2 outputs.
func twoLayers(s *model.Scope, x *graph.Node) *graph.Node {
	return layers.Dense(s.At("out"), activation.Relu(layers.Dense(s.At("in"), x, false, 4)), false, 2)
}

// fixed makes a network of given values.
func fixed(t *testing.T, fn func(*model.Scope, *graph.Node) *graph.Node, in int, weights map[string]*tensors.Tensor) *surgery.Network {
	t.Helper()
	return fixedOn(t, open(t), fn, in, weights)
}

// pure is a backend that compiles nothing.
func pure(t *testing.T) compute.Backend {
	t.Helper()
	b, err := gobackend.New("")
	check(t, err)
	return b
}

// fixedOn is fixed on a backend.
func fixedOn(t *testing.T, b compute.Backend, fn func(*model.Scope, *graph.Node) *graph.Node, in int, weights map[string]*tensors.Tensor) *surgery.Network {
	t.Helper()
	store := model.NewStore()
	for path, w := range weights {
		_, err := store.CreateVariable(path, w)
		check(t, err)
	}
	n, err := surgery.Trace(b, store, trace.Single(fn), shapes.Make(dtypes.Float32, 1, in))
	check(t, err)
	return n
}

func byHand(t *testing.T) *surgery.Network { return byHandOn(t, open(t)) }

func byHandOn(t *testing.T, b compute.Backend) *surgery.Network {
	return fixedOn(t, b, twoLayers, 2, map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{1, 0, 1, -1}, {0, 1, 1, -1}}),
		"/out/dense/weights": tensors.FromValue([][]float32{{1, -1}, {3, 0}, {0, -3}, {5, 5}}),
	})
}

// points is a data set of one batch.
type points [][]float32

func (p points) Name() string { return "points" }
func (p points) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		yield(train.Batch{Inputs: []*tensors.Tensor{tensors.FromValue([][]float32(p))}, Labels: []*tensors.Tensor{tensors.FromScalarAndDimensions(int32(0), len(p), 1)}}, nil)
	}
}

// Of inputs (1, 1) the hidden units are 1, 1, 2 and 0. The first output is 1 + 3 of positive terms, so unit 0 is a quarter of it and unit 1 three; the second is −1 − 6 of negative ones, so unit 0
// is a seventh of it and unit 2 six. Of (2, 1) they are 2, 1, 3 and 0: 2 + 3, and −2 − 9, which gives unit 0 two fifths.
func TestSensitivityByHand(t *testing.T) {
	r, err := PFP{Budget: Budget{Rate: 0.5}}.Choose(ctx, byHand(t), points{{1, 1}, {2, 1}})
	check(t, err)
	want := map[string][]float32{"/in/dense/weights:1": {2. / 5, 3. / 4, 6. / 7, 0}}
	if diff := cmp.Diff(want, r.Sensitivity, near); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]int{"/in/dense/weights:1": {0, 3}}, r.Plan.Removed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// The same where all groups have to keep half of their units.
	same, err := PFP{Budget: Budget{Units: 0.5, Compete: WithinGroup}}.Choose(ctx, byHand(t), points{{1, 1}, {2, 1}})
	check(t, err)
	if diff := cmp.Diff(r.Plan.Removed, same.Plan.Removed); diff != "" {
		t.Errorf("(-rate +within groups)\n%s", diff)
	}
	var config *ConfigError
	if _, err := (PFP{Budget: Budget{Compete: Global}}).Choose(ctx, byHand(t), points{{1, 1}}); !errors.As(err, &config) || config.Field != "PFP.Budget.Compete" {
		t.Errorf("units of all groups compete: %v, want a *ConfigError", err)
	}
	// Without a number, 3·ln(8·4/10⁻⁹) = 72.6 are enough.
	all, err := PFP{Budget: Budget{Rate: 0.5}}.Choose(ctx, byHandOn(t, pure(t)), twice(slices.Repeat([]points{{{1, 1}}}, 80)))
	check(t, err)
	if all.Examples != 73 {
		t.Errorf("%d examples of 80 were looked at, want 73", all.Examples)
	}
	// No more is looked at than was asked for.
	two := twice{points{{1, 1}}, points{{2, 1}}}
	for examples, want := range map[int]float32{1: 1. / 4, 2: 2. / 5} {
		r, err := PFP{Budget: Budget{Rate: 0.5}, Examples: examples}.Choose(ctx, byHand(t), two)
		check(t, err)
		if got := r.Sensitivity["/in/dense/weights:1"][0]; !cmp.Equal(got, want, near) || r.Examples != examples {
			t.Errorf("after %d examples of %d the sensitivity is %v, want %v", r.Examples, examples, got, want)
		}
	}
}

// twice is a data set of several.
type twice []points

func (d twice) Name() string { return "twice" }
func (d twice) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for _, p := range d {
			for b, err := range p.Iter() {
				if !yield(b, err) {
					return
				}
			}
		}
	}
}

// Units 0 and 1 are each all of an output somewhere, so their sensitivities are 1; but unit 1 is so once, and unit 0 twice.
func TestEqualSensitivities(t *testing.T) {
	n := fixed(t, twoLayers, 2, map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{0, 1, 0, 0}, {1, 0, 0, 0}}),
		"/out/dense/weights": tensors.FromValue([][]float32{{1, 1}, {1, 1}, {0, 0}, {0, 0}}),
	})
	r, err := PFP{Budget: Budget{Rate: 0.75}}.Choose(ctx, n, points{{1, 0}, {0, 1}, {0, 1}})
	check(t, err)
	if diff := cmp.Diff([]float32{1, 1, 0, 0}, r.Sensitivity["/in/dense/weights:1"], near); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]int{1, 2, 3}, r.Plan.Removed["/in/dense/weights:1"]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A convolution's channel is what it adds in a patch, over all positions of the kernel; where the input has both signs, each counts by itself.
func TestSensitivityOfConvolutionByHand(t *testing.T) {
	conv := func(s *model.Scope, x *graph.Node) *graph.Node {
		x = graph.Reshape(x, x.Shape().Dim(0), 3, 1)
		x = layers.Convolution(s.At("a"), x).Channels(2).KernelSize(1).UseBias(false).Done()             // [batch, 3, 2]
		x = layers.Convolution(s.At("b"), x).Channels(1).KernelSize(2).NoPadding().UseBias(false).Done() // [batch, 2, 1]
		return graph.Reshape(x, x.Shape().Dim(0), 2)
	}
	n := fixed(t, conv, 3, map[string]*tensors.Tensor{
		"/a/conv/weights": tensors.FromValue([][][]float32{{{1, 2}}}),                // channels x and 2x
		"/b/conv/weights": tensors.FromValue([][][]float32{{{1}, {1}}, {{3}, {-1}}}), // at position 0: 1 and 1; at 1: 3 and −1
	})
	r, err := PFP{Budget: Budget{Rate: 0.5}}.Choose(ctx, n, points{{1, 2, -1}})
	check(t, err)
	// Channels are (1, 2, −1) and (2, 4, −2). Patches are (1, 2) and (2, −1).
	// Positive weights, positive inputs: patch 0 has 1 + 3·2 = 7 and 2; patch 1 has 2 and 4. Negative inputs: patch 1 has 3·1 and 0.
	// Negative weights: only the second channel.
	want := map[string][]float32{"/a/conv/weights:2": {1, 1}}
	if diff := cmp.Diff(want, r.Sensitivity, near); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	r, err = PFP{Budget: Budget{Rate: 0.5}}.Choose(ctx, n, points{{1, 2, 1}})
	check(t, err)
	// Now channels are (1, 2, 1) and (2, 4, 2): patch 0 has 7 and 2, patch 1 has 2 + 3 = 5 and 4. The second is all of the negative sum.
	if diff := cmp.Diff(map[string][]float32{"/a/conv/weights:2": {7. / 9, 1}}, r.Sensitivity, near); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestBoundByHand(t *testing.T) {
	k := coefficient(2, 1, 1, 16/math.E) // 2·2·3·ln(8·2·e/16)
	if math.Abs(k-12) > 1e-9 {
		t.Errorf("K is %v, want 12", k)
	}
	if m := draws(12, 1); m != 3*8*12 {
		t.Errorf("%v draws, want 288", m)
	}
	if e := epsilonOf(12, 288); math.Abs(e-1) > 1e-9 {
		t.Errorf("ε is %v, want 1", e)
	}
	// Two draws of halves are expected to have 1.5 different; of certainties one.
	for _, c := range []struct {
		p    []float64
		m    float64
		want int
	}{{[]float64{0.5, 0.5}, 2, 2}, {[]float64{0.5, 0.5, 0}, 1, 1}, {[]float64{1, 0}, 5, 1}, {[]float64{0.25, 0.25, 0.25, 0.25}, 1e9, 4}} {
		if got := distinct(c.p, c.m); got != c.want {
			t.Errorf("%v draws by %v have %d different units, want %d", c.m, c.p, got, c.want)
		}
	}
}

// Sensitivities are 2/5, 3/4, 6/7 and 0, so K = 2.0071·2·3·ln(8·2/1e-16) = 477.1 and probabilities are 0.199, 0.374, 0.427 and 0. At ε = 1000, 3·2006·K/10⁶ = 2.87, so three draws, which have
// 3 − 0.801³ − 0.626³ − 0.573³ = 2.05 different units; at 2000 it is 1.43, so two with 1.64; at 3000 0.96, so one.
func TestEpsilonByHand(t *testing.T) {
	const group = "/in/dense/weights:1"
	for _, c := range []struct {
		epsilon float64
		budget  Budget
		samples int
		want    []int
	}{
		{1000, Budget{}, 3, []int{3}},
		{2000, Budget{}, 2, []int{0, 3}},
		{3000, Budget{}, 1, []int{0, 1, 3}},
		{3000, Budget{MinUnits: 2}, 1, []int{0, 3}},
		{3000, Budget{MinShare: 0.6}, 1, []int{3}},
		{1000, Budget{RoundTo: 4}, 3, nil},
	} {
		r, err := PFP{Epsilon: c.epsilon, Budget: c.budget}.Choose(ctx, byHand(t), points{{1, 1}, {2, 1}})
		check(t, err)
		if diff := cmp.Diff(c.want, r.Plan.Removed[group], cmpopts.EquateEmpty()); diff != "" || r.Epsilon != c.epsilon || r.Samples[group] != c.samples {
			t.Errorf("ε %v, %+v: %v says %d draws, want %d (-want +got)\n%s", c.epsilon, c.budget, r.Epsilon, r.Samples[group], c.samples, diff)
		}
	}
	var config *ConfigError
	for _, c := range []PFP{
		{Epsilon: -1}, {Epsilon: math.NaN()}, {Epsilon: math.Inf(1)}, {Epsilon: 1e-200}, {Epsilon: 1, Budget: Budget{MACs: 0.5}}, {Epsilon: 1, Budget: Budget{Params: 0.5}}, {Epsilon: 1, Budget: Budget{Units: 0.5}},
		{Epsilon: 1, Budget: Budget{Rate: 0.5}}, {Epsilon: 1, Budget: Budget{Compete: WithinGroup}},
	} {
		if _, err := c.Choose(ctx, byHand(t), points{{1, 1}, {2, 1}}); !errors.As(err, &config) || config.Field != "PFP.Epsilon" {
			t.Errorf("ε %v, %+v: %v, want a *ConfigError of PFP.Epsilon", c.Epsilon, c.Budget, err)
		}
	}
	var none *NothingError
	if _, err := (PFP{Epsilon: 1, Budget: Budget{Exclude: []string{"/in"}}}).Choose(ctx, byHand(t), points{{1, 1}, {2, 1}}); !errors.As(err, &none) {
		t.Errorf("all excluded: %v, want a *NothingError", err)
	}
}

// The ε that meets a budget chooses the same plan as the budget.
func TestEpsilonOfBudget(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	data := stripes{64, size}
	b := Budget{MinUnits: 2, Exclude: []string{"/stem"}}
	with := b
	with.MACs = 0.6
	want, err := PFP{Budget: with}.Choose(ctx, n, data)
	check(t, err)
	got, err := PFP{Budget: b, Epsilon: want.Epsilon}.Choose(ctx, n, data)
	check(t, err)
	if len(want.Plan.Removed) == 0 || got.Epsilon != want.Epsilon {
		t.Errorf("ε %v, removed %v, want ε %v and some removed", got.Epsilon, want.Plan.Removed, want.Epsilon)
	}
	if diff := cmp.Diff([]any{want.Plan.Removed, want.Samples}, []any{got.Plan.Removed, got.Samples}); diff != "" {
		t.Errorf("(-by budget +by ε)\n%s", diff)
	}
}

// Errors stay below the bound, fall with the number of draws, and are not zero.
func TestCheckBound(t *testing.T) {
	n := byHand(t)
	r, err := PFP{Budget: Budget{Rate: 0.5}}.Choose(ctx, n, points{{1, 1}, {2, 1}})
	check(t, err)
	found, err := r.CheckBound(ctx, points{{1, 2}, {3, 1}, {1, 1}}, "/in/dense/weights:1", 1e-16, []int{100, 10000}, 200, 1)
	check(t, err)
	for _, p := range found {
		if !(0 < p.Mean && p.Mean < p.P99 && p.P99 <= p.Max && p.Max < p.Bound) {
			t.Errorf("%+v: want 0 < mean < 99%% ≤ max < bound", p)
		}
	}
	if ratio := found[0].Mean / found[1].Mean; ratio < 7 || ratio > 14 { // √100
		t.Errorf("a hundred times the draws make the error %.1f times smaller, want about 10", ratio)
	}
}

// Units are drawn until there are as many different ones as stay, and none that has no probability.
func TestDrawUnits(t *testing.T) {
	p := []float64{0.5, 0.3, 0.2, 0}
	counts, m := drawUnits(rand.New(rand.NewPCG(1, 1)), p, 2)
	different := 0
	for u, c := range counts {
		if c > 0 {
			different++
			if p[u] == 0 {
				t.Errorf("unit %d of probability 0 was drawn", u)
			}
		}
	}
	sum := 0
	for _, c := range counts {
		sum += c
	}
	if different != 2 || sum != m {
		t.Errorf("drawn %v in %d draws, want 2 different", counts, m)
	}
}

// What is drawn is reweighted so that it stands for all: the mean weight of a unit over many draws is 1, however probable it is.
func TestSampledStandsForAll(t *testing.T) {
	const times = 10000
	p := []float64{0.5, 0.3, 0.2, 0}
	mean := make([]float64, len(p))
	rng := seeded(1)
	for range times {
		for u, w := range sampled(rng, p, []float32{5, 3, 2, 0}, 2) {
			mean[u] += float64(w) / times
		}
	}
	if diff := cmp.Diff([]float64{1, 1, 1, 0}, mean, cmpopts.EquateApprox(0, 0.05)); diff != "" { // deviations are below 1.2: four standard errors
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// As many units stay as were asked for. Units 0, 1 and 3 are of equal probability, and two of them are drawn; where three or more are to stay, nothing is drawn, and those without a probability fill up,
// the highest ranked first. So does a unit of so small a probability that it is hardly ever drawn.
func TestSampledHasTheSize(t *testing.T) {
	third := []float64{1. / 3, 1. / 3, 0, 1. / 3, 0}
	ranked := []float32{1, 1, 0, 1, 0.1}
	for stay, want := range map[int][]float32{3: {1, 1, 0, 1, 0}, 4: {1, 1, 0, 1, 1}, 5: {1, 1, 1, 1, 1}} {
		if diff := cmp.Diff(want, sampled(seeded(1), third, ranked, stay)); diff != "" {
			t.Errorf("%d of 5 (-want +got)\n%s", stay, diff)
		}
	}
	for seed := range uint64(20) {
		weights := sampled(seeded(seed), third, ranked, 2)
		zeros := 0
		for _, w := range weights {
			if w == 0 {
				zeros++
			}
		}
		if zeros != 3 || weights[2] != 0 || weights[4] != 0 {
			t.Errorf("seed %d: %v, want two of units 0, 1 and 3", seed, weights)
		}
	}
	weights := sampled(seeded(1), []float64{1 - 2e-15, 1e-15, 1e-15}, []float32{1, 1e-15, 2e-15}, 2)
	if diff := cmp.Diff([]float32{1, 0, 1}, weights, near); diff != "" {
		t.Errorf("hardly ever drawn (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]float32{1, 0, 1}, sampled(seeded(1), []float64{0, 0, 0}, []float32{2, 0, 1}, 2)); diff != "" {
		t.Errorf("none has a sensitivity (-want +got)\n%s", diff)
	}
}

// Of units 0 to 3 only the first two are read, and 2 of 4, 3 of 4 and 4 of 4 stay where that was asked for, whatever says so.
func TestSampledWithDeadUnits(t *testing.T) {
	const group = "/in/dense/weights:1"
	weights := map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{1, 0, 1, 1}, {0, 1, 1, 1}}),
		"/out/dense/weights": tensors.FromValue([][]float32{{1, 1}, {2, 1}, {0, 0}, {0, 0}}),
	}
	for _, c := range []struct {
		budget Budget
		want   []int
	}{
		{Budget{Rate: 0.5}, []int{2, 3}}, {Budget{Rate: 0.25}, []int{3}}, {Budget{Rate: 0.75, MinUnits: 3}, []int{3}}, {Budget{Rate: 0.75, MinShare: 0.75}, []int{3}},
		{Budget{Rate: 0.75, RoundTo: 3}, []int{3}}, {Budget{Rate: 0.5, MinUnits: 4}, nil},
	} {
		n := fixed(t, twoLayers, 2, weights)
		r, err := PFP{Budget: c.budget, Sampled: true, Seed: 1}.Choose(ctx, n, points{{1, 1}, {2, 1}})
		check(t, err)
		if diff := cmp.Diff(c.want, r.Plan.Removed[group], cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%+v removes (-want +got)\n%s", c.budget, diff)
		}
		if diff := cmp.Diff(slices.Repeat([]float32{1}, 4-len(c.want)), r.Weights[group]); diff != "" && len(c.want) > 0 {
			t.Errorf("%+v weights (-want +got)\n%s", c.budget, diff)
		}
	}
}

// The kernel that reads a group is multiplied by 2 and 3 at the units that stay.
func TestReweight(t *testing.T) {
	n := byHand(t)
	r, err := PFP{Budget: Budget{Rate: 0.5}}.Choose(ctx, n, points{{1, 1}, {2, 1}})
	check(t, err)
	small, err := r.Plan.Apply()
	check(t, err)
	r.Weights["/in/dense/weights:1"] = []float32{2, 3} // units 1 and 2
	check(t, r.Reweight(small.Store))
	if diff := cmp.Diff([]float32{6, 0, 0, -9}, tensors.MustCopyFlatData[float32](small.Store.GetVariable("/out/dense/weights").MustValue())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A budget that can't be meant is an error that names what can't, before anything is trained for it; and where nothing may go, no budget that nobody gave is said to be missed.
func TestBudgetErrors(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	for _, c := range []struct {
		budget Budget
		want   string
	}{
		{Budget{Params: -1}, "Budget.Params:"}, {Budget{Params: 0.5, Units: 3}, "Budget.Units:"}, {Budget{MACs: math.NaN()}, "Budget.MACs:"}, {Budget{Compete: 7}, "Budget.Compete:"},
		{Budget{MACs: 0.5, Rate: 0.5}, "Budget:"}, {Budget{MACs: 0.7, Exclude: []string{"/none"}}, "Config.Exclude:"},
	} {
		for _, m := range methods() {
			if _, err := m.choose(n, nil, c.budget, 1); err == nil || !strings.HasPrefix(err.Error(), c.want) { // without data
				t.Errorf("%s with %+v: %v, want an error of %s", m.name, c.budget, err, c.want)
			}
		}
		if _, err := (GAL{Blocks: true, Budget: c.budget}).Choose(ctx, n, nil); err == nil || c.budget.Rate == 0 && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("GAL of blocks with %+v: %v, want an error of %s", c.budget, err, c.want)
		}
	}
	data, all := stripes{32, size}, []string{"/"}
	var none *NothingError
	for name, f := range map[string]func() error{
		"growing at a rate": func() error { _, err := Growing{Budget: Budget{Rate: 0.5, Exclude: all}}.Choose(n); return err },
		"PFP":               func() error { _, err := PFP{Budget: Budget{MACs: 0.7, Exclude: all}}.Choose(ctx, n, data); return err },
		"GAL without a share": func() error {
			_, err := GAL{Steps: 2, LearningRate: 1e-3, Budget: Budget{Exclude: all}}.Choose(ctx, n, data)
			return err
		},
	} {
		if err := f(); !errors.As(err, &none) {
			t.Errorf("%s, with all groups excluded: %v, want a *NothingError", name, err)
		}
	}
	// A scope is one with a separator at its end, too, also for branches.
	var missed *surgery.BudgetError
	for _, scope := range []string{"/b", "/b/"} {
		if _, err := (GAL{Blocks: true, Steps: 4, LearningRate: 1e-3, Mimic: 0.1, Budget: Budget{MACs: 0.9, Exclude: []string{scope}}}).Choose(ctx, n, data); !errors.As(err, &missed) {
			t.Errorf("the only branch is excluded by %s: %v, want a *surgery.BudgetError", scope, err)
		}
	}
}

// Plans and results that are not of the network at hand are errors, not panics.
func TestOfAnother(t *testing.T) {
	n := byHand(t)
	r, err := PFP{Budget: Budget{Rate: 0.5}}.Choose(ctx, n, points{{1, 1}, {2, 1}})
	check(t, err)
	r.Weights["/in/dense/weights:1"] = []float32{2, 3}
	r.Plan.Removed["/in/dense/weights:1"] = []int{0} // and three stay
	edited, err := r.Plan.Apply()
	check(t, err)
	before := snapshot(edited.Store)
	wide := fixed(t, func(s *model.Scope, x *graph.Node) *graph.Node {
		return layers.Dense(s.At("out"), layers.Dense(s.At("in"), x, false, 9), false, 2)
	}, 2, map[string]*tensors.Tensor{"/in/dense/weights": tensors.FromScalarAndDimensions(float32(1), 2, 9), "/out/dense/weights": tensors.FromScalarAndDimensions(float32(1), 9, 2)})
	foreign := wide.Empty()
	foreign.Removed["/in/dense/weights:1"] = []int{7}
	for name, f := range map[string]func() error{
		"Reweight after an edit":         func() error { return r.Reweight(edited.Store) },
		"Reweight without a store":       func() error { return r.Reweight(nil) },
		"Reweight without a result":      func() error { return new(PFPResult).Reweight(edited.Store) },
		"CheckBound without a result":    func() error { _, err := new(PFPResult).CheckBound(ctx, points{{1, 1}}, "x", 0, nil, 1, 1); return err },
		"growing by the plan of another": func() error { _, err := Growing{}.Model(n, foreign); return err },
		"growing by no network's plan":   func() error { _, err := Growing{}.Model(n, &surgery.Plan{}); return err },
	} {
		var config *ConfigError
		if err := f(); !errors.As(err, &config) {
			t.Errorf("%s: %v, want a *ConfigError", name, err)
		}
	}
	if diff := cmp.Diff(before, snapshot(edited.Store)); diff != "" {
		t.Errorf("the store was changed (-before +after)\n%s", diff)
	}
	var data *DataError
	if _, err := (PFP{}).Choose(ctx, n, empty{}); !errors.As(err, &data) {
		t.Errorf("a batch of nil: %v, want a *DataError", err)
	}
}

// empty is a data set of tensors that are nil.
type empty struct{ points }

func (empty) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) { yield(train.Batch{Inputs: make([]*tensors.Tensor, 1)}, nil) }
}

func TestSCOPByHand(t *testing.T) {
	if diff := cmp.Diff([]float32{0, -1, 1.2, -0.5}, scopScores([]float32{3, 1, -2, 0.5}, []float32{0.5, 0, 0.8, 0}), near); diff != "" {
		t.Errorf("|γ|·(2k − 1) (-want +got)\n%s", diff)
	}
	// Two examples and two knockoffs of two channels: k = 1 keeps the first channel, k = 0.25 mixes the second; knockoffs stay.
	got := graph.MustExecOnce(open(t), func(x, k *graph.Node) *graph.Node { return mix(x, 1, k) }, [][]float32{{1, 4}, {2, 8}, {10, 40}, {20, 80}}, []float32{1, 0.25})
	if diff := cmp.Diff([][]float32{{1, 31}, {2, 62}, {10, 40}, {20, 80}}, got.Value()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Two steps of each rule from w = 3, with gradients 2 and 1. SGD, with µ = 0.9, d = 0.1 and η = 0.5: v is 2 + 0.3 = 2.3, then 0.9·2.3 + 1 + 0.185 = 3.255. Adam, with β 0.5 and 0.75 and η = 0.1:
// both moments are 1 after each step, which is 1/0.5 and 1/0.25 without bias, then 1/0.75 and 1/0.4375; so it moves by η·2/√4, then by η·√7/3.
func TestRulesByHand(t *testing.T) {
	store := model.NewStore()
	w, err := store.CreateVariable("/w", tensors.FromValue([]float32{3}))
	check(t, err)
	for name, c := range map[string]struct {
		next func(value, grad, step *graph.Node) *graph.Node
		want []float32
	}{
		"SGD": {func(value, grad, _ *graph.Node) *graph.Node {
			return sgd(store, w, value, grad, graph.Scalar(value.Graph(), dtypes.Float32, 0.5), 0.9, 0.1)
		}, []float32{1.85, 0.2225}},
		"Adam": {func(value, grad, step *graph.Node) *graph.Node {
			return adam(store, w, value, grad, step, 0.1, 0.5, 0.75)
		}, []float32{2.9, float32(2.9 - 0.1*math.Sqrt(7)/3)}},
	} {
		exec, err := model.NewExec(pure(t), store, func(_ *model.Scope, in []*graph.Node) *graph.Node { return c.next(in[0], in[1], in[2]) })
		check(t, err)
		value, got := []float32{3}, []float32{}
		for step, grad := range []float32{2, 1} {
			r, err := exec.Call(value, []float32{grad}, float32(step+1))
			check(t, err)
			value = tensors.MustCopyFlatData[float32](r[0])
			got = append(got, value...)
		}
		exec.Finalize()
		if diff := cmp.Diff(c.want, got, near); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

// FISTA's proximal step: y = m + (a − 1)/a'·(m − before), less rate·gradient and rate·λ, and not below 0.
func TestProximalByHand(t *testing.T) {
	if a := momentum(1); math.Abs(a-(1+math.Sqrt(5))/2) > 1e-12 {
		t.Errorf("%v after 1, want the golden ratio", a)
	}
	// a = 1: no momentum. 1 − 0.1·2 − 0.1·3 = 0.5; 0.4 − 0.1·2 − 0.3 < 0 is 0; 0 + 0.1·5 − 0.3 = 0.2 comes back.
	if diff := cmp.Diff([]float32{0.5, 0, 0.2}, proximal([]float32{1, 0.4, 0}, []float32{7, 7, 7}, []float32{2, 2, -5}, 1, 0.1, 3), near); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// a = 2: (a − 1)/a' = 2/(1 + √17).
	want := float32(1 + 2/(1+math.Sqrt(17))*0.5)
	if diff := cmp.Diff([]float32{want}, proximal([]float32{1}, []float32{0.5}, []float32{0}, 2, 0.1, 0), near); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Masks grow to 1 and no further; those of the authors' code grow on.
func TestMasksAreBounded(t *testing.T) {
	for _, c := range []struct {
		bounded bool
		want    []float32
	}{{true, []float32{1, 0.4}}, {false, []float32{1.4, 0.4}}} {
		f := newFISTA([]galMask{{path: "m", size: 2}}, map[string][]float32{"m": {0.9, 0.9}})
		f.bounded = c.bounded
		f.add([][]float32{{-6, 4}})
		f.step(0.1, 1, true)
		if diff := cmp.Diff(c.want, f.m[0], near); diff != "" {
			t.Errorf("bounded %v (-want +got)\n%s", c.bounded, diff)
		}
	}
}

// Logits a thousand times as large, and shifted, are the same to the discriminator and to the mimicking.
func TestGALHasNoUnit(t *testing.T) {
	first := func(factor, shift float32) GALStep {
		out := tensors.FromValue([][]float32{{factor, -factor}, {3 * factor, 0}, {0, -3 * factor}, {5 * factor, 5 * factor}})
		n := fixed(t, func(s *model.Scope, x *graph.Node) *graph.Node {
			return graph.AddScalar(twoLayers(s, x), float64(shift))
		}, 2,
			map[string]*tensors.Tensor{"/in/dense/weights": tensors.FromValue([][]float32{{1, 0, 1, -1}, {0, 1, 1, -1}}), "/out/dense/weights": out})
		r, err := GAL{Steps: 1, MaskEvery: 1, Seed: 1}.Choose(ctx, n, points{{1, 1}, {2, 1}, {0, 3}})
		check(t, err)
		return r.Steps[0]
	}
	want := first(1, 0)
	if diff := cmp.Diff(want, first(1000, 500), cmpopts.EquateApprox(1e-3, 1e-4)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if want.Spread < blind {
		t.Errorf("the spread is %g: the discriminator saw nothing", want.Spread)
	}
}

// A step has the losses of discriminator and student, and the gradients of the masks, that are computed by hand: at a rate of 0, so that nothing moves, with a discriminator whose answer is the first
// logit, where it is positive, and a teacher whose logits have mean 0 and variance 1.
func TestGALStepByHand(t *testing.T) {
	n := fixedOn(t, pure(t), twoLayers, 2, map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{1, 0, 1, 0}, {0, 1, 0, 1}}),
		"/out/dense/weights": tensors.FromValue([][]float32{{1, 0}, {0, 1}, {0, 0}, {0, 0}}),
	})
	c, err := GAL{Mimic: 2}.complete(n)
	check(t, err)
	masks := c.masks(n)
	student, err := workspace(n)
	check(t, err)
	_, err = student.CreateVariable(masks[0].path, tensors.FromValue([]float32{0.5, 1, 1, 1}))
	check(t, err)
	check(t, c.discriminator(student, 2, seeded(1)))
	for i := range galWidths {
		v := student.GetVariable(fmt.Sprintf("%s/%d/weights", galScope, i))
		w := make([]float32, v.Shape().Size())
		w[0] = 1
		check(t, v.SetValue(tensors.FromFlatDataAndDimensions(w, v.Shape().Dimensions...)))
	}
	step, err := c.step(n, student, masked(n, masks), masks)
	check(t, err)
	defer step.Finalize()
	found, err := step.Call([][]float32{{1, -1}, {1, -1}}, float32(0), [][]float32{{2, 1}, {1, 3}})
	check(t, err)
	got, err := host(found)
	check(t, err)
	// The student's logits are (1, 1) and (0.5, 3): differences of 0 and 2, −0.5 and 4.
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	p, q := sigmoid(1), sigmoid(0.5)
	loss := func(p ...float64) (sum float64) { // the mean of −log p
		for _, x := range p {
			sum -= math.Log(x) / float64(len(p))
		}
		return sum
	}
	want := [][]float64{
		{20.25 / 4, loss(p, q), loss(p) + loss(1-p, 1-q) + loss(p, q), p, (p + q) / 2, math.Sqrt(3 * 0.0625 * 0.25)}, // answers 1, 1, 1 and 0.5
		// µ·2·Σ(difference · what the unit adds)/4, and to the discriminator −(1 − σ) of each example times that, over 2.
		{-0.5 - ((1-p)*2+(1-q)*1)/2, 2*1 + 4*3, 0, 0},
	}
	wide := make([][]float64, len(got))
	for i := range got {
		for _, x := range got[i] {
			wide[i] = append(wide[i], float64(x))
		}
	}
	if diff := cmp.Diff(want, wide, near); diff != "" {
		t.Errorf("what was seen, and gradients (-want +got)\n%s", diff)
	}
}

// Units that nothing reads are worth nothing, so their masks go to 0 and they are removed; those that make the logits stay.
func TestGALKeepsWhatIsRead(t *testing.T) {
	n := fixedOn(t, pure(t), twoLayers, 2, map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{1, 0, 1, 0}, {0, 1, 0, 1}}),
		"/out/dense/weights": tensors.FromValue([][]float32{{1, -1}, {0, 0}, {0, 0}, {-1, 1}}),
	})
	const group = "/in/dense/weights:1"
	data := points{{1, 2}, {2, 1}, {0, 3}, {3, 1}}
	c := GAL{Sparsity: 2, MaskRate: 0.05, MaskEvery: 1, Steps: 30, LearningRate: 1e-6, Seed: 1}
	r, err := c.Choose(ctx, n, data)
	check(t, err)
	if m := r.Masks[group]; m[1] != 0 || m[2] != 0 || m[0] < 0.5 || m[3] < 0.5 {
		t.Errorf("masks %v, want 0 of the second and the third, and more than 0.5 of the others", m)
	}
	if diff := cmp.Diff([]int{1, 2}, r.Plan.Removed[group]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// The price is 0.1, and a tenth of that after each third of the steps. FISTA's second step goes on by (a − 1)/a' = 0.618/2.194 = 0.28175 of the first, and its momentum starts anew with each third.
	c.Steps = 6
	r, err = c.Choose(ctx, n, data)
	check(t, err)
	want := float32(1 - 2.28175*(0.1+0.01+0.001))
	if diff := cmp.Diff([]float32{want, want}, r.Masks[group][1:3], cmpopts.EquateApprox(0, 1e-5)); diff != "" {
		t.Errorf("after two steps of each rate, what is not read has the masks (-want +got)\n%s", diff)
	}
}

// Where no step is one of the masks' nothing is trained; the defaults are 300 steps, and masks every 2 or, if Compatible, every 200.
func TestMasksMove(t *testing.T) {
	n := byHand(t)
	for _, c := range []struct {
		of    GAL
		moves bool
	}{
		{GAL{}, true}, {GAL{Compatible: true}, true}, {GAL{Steps: 2}, true}, {GAL{Steps: 5, MaskEvery: 5}, true}, {GAL{Steps: 200, Compatible: true}, true},
		{GAL{Steps: 1}, false}, {GAL{Steps: 4, MaskEvery: 5}, false}, {GAL{MaskEvery: 301}, false}, {GAL{Steps: 199, Compatible: true}, false}, {GAL{MaskEvery: 301, Compatible: true}, false},
	} {
		_, err := c.of.complete(n)
		var config *ConfigError
		if c.moves && err != nil || !c.moves && (!errors.As(err, &config) || config.Field != "GAL.MaskEvery") {
			t.Errorf("%+v: %v, want a *ConfigError of GAL.MaskEvery: %v", c.of, err, !c.moves)
		}
	}
	var config *ConfigError
	if _, err := (GAL{Steps: 1}).Choose(ctx, byHand(t), nil); !errors.As(err, &config) { // before it finds that there are no data
		t.Errorf("%v, want a *ConfigError before anything is trained", err)
	}
}

func TestCollapse(t *testing.T) {
	well, blinded := GALStep{Spread: 1}, GALStep{Spread: 1e-4}
	for _, c := range []struct {
		steps []GALStep
		since int // 0: it is not
	}{
		{slices.Repeat([]GALStep{well}, 8), 0},
		{append(slices.Repeat([]GALStep{well}, 6), blinded, blinded), 7},
		{append(slices.Repeat([]GALStep{well}, 7), blinded), 0},
		{append(slices.Repeat([]GALStep{blinded}, 7), well), 0},
		{slices.Repeat([]GALStep{blinded}, 4), 1},
	} {
		got := 0
		if e := collapsed(c.steps); e != nil {
			got = e.Step
		}
		if got != c.since {
			t.Errorf("%v: collapsed since %d, want %d", c.steps, got, c.since)
		}
	}
}

// The authors' discriminator is blind from the start, and the result says so; ours is not.
func TestDiscriminators(t *testing.T) {
	n := network(t, plain, size, side, side, 3)
	r, err := GAL{Compatible: true, Steps: 4, MaskEvery: 2, Seed: 1}.Choose(ctx, n, stripes{64, size})
	check(t, err)
	if r.Collapse == nil {
		t.Errorf("spreads are %v, want a collapse", r.Steps)
	}
	if r.Zeros == 0 || r.Zeros == r.All {
		t.Errorf("%d of %d masks drawn from N(0, 1) are 0, want about half", r.Zeros, r.All)
	}
	for name, m := range r.Masks {
		zeros := 0
		for _, x := range m {
			if x == 0 {
				zeros++
			}
		}
		if got := len(r.Plan.Removed[name]); got != min(zeros, len(m)-1) {
			t.Errorf("%d units of %s go, want those %d with a mask of 0", got, name, zeros)
		}
	}
}

// Gaussian knockoffs have the mean and the covariance of the data, also between features, and do not depend on them.
func TestSecondOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	const n, d = 400, 3
	examples := make([][]float32, n)
	for i := range examples {
		a, b := rng.NormFloat64(), rng.NormFloat64()
		examples[i] = []float32{float32(1 + 2*a), float32(-1 + a + 0.5*b), float32(b)}
	}
	for _, rank := range []int{1, 3} { // with one component the others' covariance is lost, not their variance
		draw, err := SecondOrder(rank).Fit(examples, rng)
		check(t, err)
		out := make([][]float32, 20000)
		for i := range out {
			out[i] = make([]float32, d)
		}
		draw(nil, out, rng)
		wantMean, want := moments(examples)
		gotMean, got := moments(out)
		for i := range d {
			if math.Abs(wantMean[i]-gotMean[i]) > 0.05 {
				t.Errorf("rank %d: mean of feature %d is %.3f, want %.3f", rank, i, gotMean[i], wantMean[i])
			}
			for j := range d {
				if (rank == 3 || i == j) && math.Abs(want[i][j]-got[i][j]) > 0.15 {
					t.Errorf("rank %d: covariance of %d and %d is %.3f, want %.3f", rank, i, j, got[i][j], want[i][j])
				}
			}
		}
	}
	if _, err := SecondOrder(3).Fit(examples[:1], rng); err == nil {
		t.Error("one example has a covariance")
	}
}

func moments(x [][]float32) (mean []float64, covariance [][]float64) {
	d := len(x[0])
	mean = make([]float64, d)
	for _, r := range x {
		for i := range d {
			mean[i] += float64(r[i]) / float64(len(x))
		}
	}
	for i := range d {
		covariance = append(covariance, make([]float64, d))
		for j := range d {
			for _, r := range x {
				covariance[i][j] += (float64(r[i]) - mean[i]) * (float64(r[j]) - mean[j]) / float64(len(x)-1)
			}
		}
	}
	return mean, covariance
}

// Shuffled images have all changed places, noise has the mean and the deviation of all features together, and zeros are zeros.
func TestControls(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	batch := [][]float32{{1, 1}, {2, 2}, {3, 3}, {4, 4}}
	out := [][]float32{{9, 9}, {9, 9}, {9, 9}, {9, 9}}
	for range 20 {
		draw, err := Shuffled.Fit(batch, rng)
		check(t, err)
		draw(batch, out, rng)
		seen := map[float32]bool{}
		for i := range out {
			if out[i][0] == batch[i][0] {
				t.Errorf("example %d has kept its place: %v", i, out)
			}
			seen[out[i][0]] = true
		}
		if len(seen) != 4 {
			t.Errorf("%v is no permutation", out)
		}
	}
	draw, err := Noise.Fit([][]float32{{0, 6}, {6, 0}}, rng) // of mean 3 and variance 9
	check(t, err)
	noise := blank(5000, 2)
	draw(nil, noise, rng)
	mean, covariance := moments(noise)
	got := [][]float64{mean, {math.Sqrt(covariance[0][0]), math.Sqrt(covariance[1][1])}}
	if diff := cmp.Diff([][]float64{{3, 3}, {3, 3}}, got, cmpopts.EquateApprox(0, 0.17)); diff != "" { // four standard errors
		t.Errorf("means and deviations of noise (-want +got)\n%s", diff)
	}
	draw, err = Zeros.Fit(batch, rng)
	check(t, err)
	draw(batch, out, rng)
	if diff := cmp.Diff([][]float32{{0, 0}, {0, 0}, {0, 0}, {0, 0}}, out); diff != "" {
		t.Errorf("zeros (-want +got)\n%s", diff)
	}
}

// penaltyOf returns a penalty in training, and its gradient by a variable.
func penaltyOf(t *testing.T, n *surgery.Network, fn trace.ModelFn, path string, in int) (float32, []float32) {
	t.Helper()
	store := n.Store()
	exec, err := model.NewExec(n.Backend(), store, func(_ *model.Scope, x *graph.Node) []*graph.Node {
		store.SetTraining(x.Graph(), true)
		fn(store.RootScope(), []*graph.Node{x})
		l := train.GetRegularizationLoss(x.Graph())
		return append([]*graph.Node{l}, graph.Gradient(l, store.GetVariable(path).NodeValue(x.Graph()))...)
	})
	check(t, err)
	defer exec.Finalize()
	r, err := exec.Call(tensors.FromScalarAndDimensions(float32(1), 1, in))
	check(t, err)
	return r[0].Value().(float32), tensors.MustCopyFlatData[float32](r[1])
}

// Of each unit all weights count: (1, 0 | 1, −1), (0, 1 | 3, 0), (1, 1 | 0, −3), (−1, −1 | 5, 5).
func TestGroupLassoByHand(t *testing.T) {
	n := byHand(t)
	fn, err := GroupLasso{Strength: 0.5}.Model(n)
	check(t, err)
	penalty, grad := penaltyOf(t, n, fn, "/in/dense/weights", 2)
	norms := []float64{math.Sqrt(3), math.Sqrt(10), math.Sqrt(11), math.Sqrt(52)}
	want := 0.0
	for _, x := range norms {
		want += 0.5 * 2 * x // λ·√4
	}
	if diff := cmp.Diff(float32(want), penalty, near); diff != "" {
		t.Errorf("penalty (-want +got)\n%s", diff)
	}
	wantGrad := []float32{float32(1 / norms[0]), 0, float32(1 / norms[2]), float32(-1 / norms[3]), 0, float32(1 / norms[1]), float32(1 / norms[2]), float32(-1 / norms[3])}
	if diff := cmp.Diff(wantGrad, grad, near); diff != "" {
		t.Errorf("gradient (-want +got)\n%s", diff)
	}
	p, err := GroupLasso{Budget: Budget{Units: 0.5}}.Choose(n)
	check(t, err)
	if diff := cmp.Diff([]int{0, 1}, p.Removed["/in/dense/weights:1"]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// λ is 0 at steps 0 and 1, 0.1 at 2 and 3, 0.15, the limit, from then on; the units that go are 0 and 1, whose kernels are (1, 0) and (0, 1), so the penalty is λ.
func TestGrowingByHand(t *testing.T) {
	n := byHand(t)
	c := Growing{Step: 0.1, Every: 2, Limit: 0.15, Budget: Budget{Units: 0.5}}
	p, err := c.Choose(n)
	check(t, err)
	if diff := cmp.Diff([]int{0, 1}, p.Removed["/in/dense/weights:1"]); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
	fn, err := c.Model(n, p)
	check(t, err)
	store := n.Store()
	exec, err := model.NewExec(n.Backend(), store, func(_ *model.Scope, x *graph.Node) *graph.Node {
		store.SetTraining(x.Graph(), true)
		fn(store.RootScope(), []*graph.Node{x})
		return train.GetRegularizationLoss(x.Graph())
	})
	check(t, err)
	defer exec.Finalize()
	var got []float32
	for range 6 {
		r, err := exec.Call(tensors.FromScalarAndDimensions(float32(1), 1, 2))
		check(t, err)
		got = append(got, r[0].Value().(float32))
	}
	if diff := cmp.Diff([]float32{0, 0, 0.1, 0.1, 0.15, 0.15}, got, near); diff != "" {
		t.Errorf("penalties (-want +got)\n%s", diff)
	}
}

// The gradient of λ·Σ|γ| is λ·sign(γ), and channels with the smallest |γ| go, of all groups together.
func TestSlimmingByHand(t *testing.T) {
	gained := func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(s.At("in"), x, false, 4)
		x = graph.Mul(x, graph.InsertAxes(s.At("g").VariableWithShape("scale", shapes.Make(dtypes.Float32, 4)).NodeValue(x), 0))
		return layers.Dense(s.At("out"), activation.Relu(x), false, 2)
	}
	n := fixed(t, gained, 2, map[string]*tensors.Tensor{
		"/in/dense/weights": tensors.FromScalarAndDimensions(float32(1), 2, 4), "/out/dense/weights": tensors.FromScalarAndDimensions(float32(1), 4, 2),
		"/g/scale": tensors.FromValue([]float32{2, -0.5, 0, 1}),
	})
	fn, err := Slimming{Strength: 0.1}.Model(n)
	check(t, err)
	penalty, grad := penaltyOf(t, n, fn, "/g/scale", 2)
	if diff := cmp.Diff(float32(0.35), penalty, near); diff != "" {
		t.Errorf("penalty (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]float32{0.1, -0.1, 0, 0.1}, grad, near); diff != "" {
		t.Errorf("gradient (-want +got)\n%s", diff)
	}
	p, err := Slimming{Budget: Budget{Units: 0.5}}.Choose(n)
	check(t, err)
	if diff := cmp.Diff(map[string][]int{"/in/dense/weights:1": {1, 2}}, p.Removed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A group that two kernels make is judged by the mean of what their gains say: by Slimming next to other groups, and by SCOP.
func TestMeansOfSumsByHand(t *testing.T) {
	gained := func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(s, x, false, 4)
		return graph.Mul(x, graph.InsertAxes(s.VariableWithShape("scale", shapes.Make(dtypes.Float32, 4)).NodeValue(x), 0))
	}
	n := fixed(t, func(s *model.Scope, x *graph.Node) *graph.Node {
		x = activation.Relu(graph.Add(gained(s.At("a"), x), gained(s.At("b"), x)))
		return layers.Dense(s.At("out"), activation.Relu(gained(s.At("c"), x)), false, 2)
	}, 2, map[string]*tensors.Tensor{
		"/a/dense/weights": tensors.FromScalarAndDimensions(float32(1), 2, 4), "/b/dense/weights": tensors.FromScalarAndDimensions(float32(1), 2, 4),
		"/c/dense/weights": tensors.FromScalarAndDimensions(float32(1), 4, 4), "/out/dense/weights": tensors.FromScalarAndDimensions(float32(1), 4, 2),
		"/a/scale": tensors.FromValue([]float32{1, -2, 3, 4}), "/b/scale": tensors.FromValue([]float32{3, 2, -1, 6}), "/c/scale": tensors.FromValue([]float32{2.5, 3, 4.5, 6}),
	})
	// The means are 2, 2, 2 and 5, so the smallest four of eight are these three and 2.5. The sums are 4, 4, 4 and 10, so that 3 would go before the last of them.
	p, err := Slimming{Budget: Budget{Units: 0.5}}.Choose(n)
	check(t, err)
	if diff := cmp.Diff(map[string][]int{"/a/dense/weights:1": {0, 1, 2}, "/c/dense/weights:1": {0}}, p.Removed); diff != "" {
		t.Errorf("slimming removes (-want +got)\n%s", diff)
	}
	r := &SCOPResult{Importance: map[string][]float32{}, Scales: map[string][]float32{"/a/dense/weights": {1, 0.75, 0.5, 0}, "/b/dense/weights": {0.5, 0.25, 1, 1}, "/c/dense/weights": {1, 1, 0, 0.5}}}
	check(t, r.score(SCOP{}, n, SCOP{}.mixed(n)))
	// |γ|·(2k − 1) of a is 1, 1, 0 and −4, that of b is 0, −1, 1 and 6.
	want := map[string][]float32{"/a/dense/weights:1": {0.5, 0, 0.5, 1}, "/c/dense/weights:1": {2.5, 3, -4.5, 0}}
	if diff := cmp.Diff(want, r.Importance, near); diff != "" {
		t.Errorf("SCOP's importance (-want +got)\n%s", diff)
	}
}

// A kernel that is used twice has a gain behind each use, and one scale.
func TestGainsOfAKernelThatIsUsedTwice(t *testing.T) {
	n := fixed(t, func(s *model.Scope, x *graph.Node) *graph.Node {
		use := func(x *graph.Node, gain string) *graph.Node {
			x = graph.Dot(x, s.At("a").VariableWithShape("weights", shapes.Make(dtypes.Float32, 2, 4)).NodeValue(x)).Product()
			return graph.Mul(x, graph.InsertAxes(s.At("a").VariableWithShape(gain, shapes.Make(dtypes.Float32, 4)).NodeValue(x), 0))
		}
		x = activation.Relu(graph.Add(use(x, "first"), use(graph.Neg(x), "second")))
		return layers.Dense(s.At("out"), x, false, 2)
	}, 2, map[string]*tensors.Tensor{
		"/a/weights": tensors.FromScalarAndDimensions(float32(1), 2, 4), "/out/dense/weights": tensors.FromScalarAndDimensions(float32(1), 4, 2),
		"/a/first": tensors.FromValue([]float32{1, -2, 0, 4}), "/a/second": tensors.FromValue([]float32{3, 2, -1, 0}),
	})
	r := &SCOPResult{Importance: map[string][]float32{}, Scales: map[string][]float32{"/a/weights": {1, 0.75, 0, 0.5}}}
	check(t, r.score(SCOP{}, n, SCOP{}.mixed(n)))
	// The means of |γ| are 2, 2, 1/2 and 2, and 2k − 1 is 1, 1/2, −1 and 0.
	if diff := cmp.Diff(map[string][]float32{"/a/weights:1": {2, 1, -0.5, 0}}, r.Importance, near); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Where all units compete, a layer of small gains is left with a single unit; MinShare keeps it from that, at the cost of the other layer.
func TestLeastShareByHand(t *testing.T) {
	gain := func(s *model.Scope, x *graph.Node) *graph.Node {
		return graph.Mul(x, graph.InsertAxes(s.VariableWithShape("scale", shapes.Make(dtypes.Float32, 4)).NodeValue(x), 0))
	}
	n := fixed(t, func(s *model.Scope, x *graph.Node) *graph.Node {
		x = activation.Relu(gain(s.At("g"), layers.Dense(s.At("first"), x, false, 4)))
		x = activation.Relu(gain(s.At("h"), layers.Dense(s.At("second"), x, false, 4)))
		return layers.Dense(s.At("out"), x, false, 2)
	}, 2, map[string]*tensors.Tensor{
		"/first/dense/weights": tensors.FromScalarAndDimensions(float32(1), 2, 4), "/second/dense/weights": tensors.FromScalarAndDimensions(float32(1), 4, 4),
		"/out/dense/weights": tensors.FromScalarAndDimensions(float32(1), 4, 2), "/g/scale": tensors.FromValue([]float32{0.2, -0.1, 0.4, 0.3}), "/h/scale": tensors.FromValue([]float32{4, 1, 2, -3}),
	})
	for share, want := range map[float64]map[string][]int{
		0:   {"/first/dense/weights:1": {0, 1, 3}, "/second/dense/weights:1": {1}},
		0.3: {"/first/dense/weights:1": {0, 1}, "/second/dense/weights:1": {1, 2}}, // 0.3 of 4 units are 2, rounded up
	} {
		p, err := Slimming{Budget: Budget{Units: 0.5, MinShare: share}}.Choose(n)
		check(t, err)
		if diff := cmp.Diff(want, p.Removed); diff != "" {
			t.Errorf("at least %v (-want +got)\n%s", share, diff)
		}
	}
	var config *ConfigError
	for _, share := range []float64{-0.1, 1, math.NaN()} {
		if _, err := (Slimming{Budget: Budget{MinShare: share}}).Choose(n); !errors.As(err, &config) || config.Field != "Budget.MinShare" {
			t.Errorf("at least %v: %v, want a *ConfigError", share, err)
		}
	}
}

// A training builds its network several times, for a step and for several in one dispatch, and each time the penalty is on the same gains: also where a kernel makes channels of several groups, as
// shortcuts that only add channels of zeros have it.
func TestSlimmingBuildsAgain(t *testing.T) {
	b := open(t)
	store := model.NewStore()
	g := graph.NewGraph(b, "variables")
	model.SetStore(g, store)
	nets.ResNet8Narrow(store.RootScope(), graph.Parameter(g, "x", shapes.Make(dtypes.Float32, 1, 32, 32, 3)))
	g.Finalize()
	n, err := surgery.Trace(b, store, trace.Single(nets.ResNet8Narrow), shapes.Make(dtypes.Float32, 1, 32, 32, 3))
	check(t, err)
	fn, err := Slimming{}.Model(n)
	check(t, err)
	var nodes []int
	for range 3 {
		g := graph.NewGraph(b, "training")
		model.SetStore(g, store)
		store.SetTraining(g, true)
		fn(store.RootScope(), []*graph.Node{graph.Parameter(g, "x", shapes.Make(dtypes.Float32, 2, 32, 32, 3))})
		nodes = append(nodes, len(g.Nodes()))
		g.Finalize()
	}
	if diff := cmp.Diff([]int{nodes[0], nodes[0], nodes[0]}, nodes); diff != "" {
		t.Errorf("operations of one graph after the other (-want +got)\n%s", diff)
	}
}

// Hidden units 0 and 1 are equal for these inputs, so one can do the work of both: what is left computes the same after the refit, and not without it.
func TestThiNetRefits(t *testing.T) {
	n := fixed(t, twoLayers, 2, map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{1, 1, 0, 1}, {0, 0, 1, 1}}),
		"/out/dense/weights": tensors.FromValue([][]float32{{1, 0}, {1, 1}, {5, 0}, {0, 7}}),
	})
	data := points{{1, 2}, {2, 1}, {1, 1}, {3, 1}}
	r, err := ThiNet{Budget: Budget{Rate: 0.25}, Damp: -1}.Choose(ctx, n, data)
	check(t, err)
	if diff := cmp.Diff(map[string][]int{"/in/dense/weights:1": {0}}, r.Plan.Removed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if e := r.Errors["/out/dense/weights"]; e > 1e-9 || r.Unfitted["/out/dense/weights"] < 1e-3 {
		t.Errorf("the error is %g after the refit and %g without, want 0 and more", e, r.Unfitted["/out/dense/weights"])
	}
	small, err := r.Plan.Apply()
	check(t, err)
	out := func(store *model.Store, fn trace.ModelFn) []float32 {
		exec, err := model.NewExec(n.Backend(), store, func(_ *model.Scope, x *graph.Node) *graph.Node { return fn(store.RootScope(), []*graph.Node{x})[0] })
		check(t, err)
		defer exec.Finalize()
		y, err := exec.Call([][]float32(data))
		check(t, err)
		return tensors.MustCopyFlatData[float32](y[0])
	}
	if diff := cmp.Diff(out(n.Store(), n.ModelFn()), out(small.Store, small.ModelFn), cmpopts.EquateApprox(1e-4, 1e-4)); diff != "" {
		t.Errorf("outputs (-want +got)\n%s", diff)
	}
}

// Every head's layers are looked at and refitted, not only those of the first. Units 0 and 3 are the same, so nothing is lost where one of them goes.
func TestThiNetOfTwoHeads(t *testing.T) {
	heads := func(s *model.Scope, in []*graph.Node) []*graph.Node {
		x := activation.Relu(layers.Dense(s.At("in"), in[0], false, 4))
		return []*graph.Node{layers.Dense(s.At("one"), x, false, 2), layers.Dense(s.At("two"), x, false, 1)}
	}
	both := fixed(t, func(s *model.Scope, x *graph.Node) *graph.Node {
		return graph.Concatenate(heads(s, []*graph.Node{x}), 1)
	}, 2, map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{1, 1, 0, 1}, {0, 1, 1, 0}}),
		"/one/dense/weights": tensors.FromValue([][]float32{{1, 0}, {9, 9}, {5, 0}, {2, 7}}),
		"/two/dense/weights": tensors.FromValue([][]float32{{1}, {9}, {9}, {4}}),
	})
	n, err := surgery.Trace(both.Backend(), both.Store(), heads, both.Inputs()...)
	check(t, err)
	r, err := ThiNet{Budget: Budget{Rate: 0.25}, Damp: -1}.Choose(ctx, n, points{{1, 2}, {2, 1}, {1, 1}, {3, 1}})
	check(t, err)
	for _, path := range []string{"/one/dense/weights", "/two/dense/weights"} {
		if e, refitted := r.Errors[path]; !refitted || e > 1e-6 {
			t.Errorf("%s has the error %g after the refit (%v), want 0", path, e, refitted)
		}
	}
}

// unlabelled is a data set without its labels.
type unlabelled struct{ points }

func (d unlabelled) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for b, err := range d.points.Iter() {
			b.Labels = nil
			if !yield(b, err) {
				return
			}
		}
	}
}

// Methods that need no labels choose the same without them.
func TestWithoutLabels(t *testing.T) {
	data := points{{1, 2}, {2, 1}, {1, 1}, {3, 1}}
	for name, choose := range map[string]func(data train.Dataset) (any, map[string][]int, error){
		"ThiNet": func(data train.Dataset) (any, map[string][]int, error) {
			r, err := ThiNet{Budget: Budget{Rate: 0.5}}.Choose(ctx, byHand(t), data)
			if err != nil {
				return nil, nil, err
			}
			return r.Errors, r.Plan.Removed, nil
		},
		"PFP": func(data train.Dataset) (any, map[string][]int, error) {
			r, err := PFP{Budget: Budget{Rate: 0.5}}.Choose(ctx, byHand(t), data)
			if err != nil {
				return nil, nil, err
			}
			return r.Sensitivity, r.Plan.Removed, nil
		},
		"GAL": func(data train.Dataset) (any, map[string][]int, error) {
			r, err := GAL{Budget: Budget{Rate: 0.5}, Steps: 2, Seed: 1}.Choose(ctx, byHand(t), data)
			if err != nil {
				return nil, nil, err
			}
			return r.Masks, r.Plan.Removed, nil
		},
	} {
		wantFound, want, err := choose(data)
		check(t, err)
		found, got, err := choose(unlabelled{data})
		if err != nil {
			t.Errorf("%s without labels: %v", name, err)
			continue
		}
		if diff := cmp.Diff([]any{wantFound, want}, []any{found, got}); diff != "" {
			t.Errorf("%s (-with labels +without)\n%s", name, diff)
		}
	}
}

// twoHeads is a network of four units and two heads: the first reads two of the units and the second the two others, in logits that are a hundred times as large.
func twoHeads(t *testing.T, normalised bool) *surgery.Network {
	t.Helper()
	heads := func(s *model.Scope, in []*graph.Node) []*graph.Node {
		x := layers.Dense(s.At("in"), in[0], false, 4) // [batch, 2] -> [batch, 4]
		if normalised {
			x = norm.BatchNorm(s.At("in"), x, -1).Done()
		}
		x = activation.Relu(x)
		return []*graph.Node{layers.Dense(s.At("one"), x, false, 2), layers.Dense(s.At("two"), x, false, 3)}
	}
	weights := map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{1, -1, 1, -1}, {1, -1, -1, 1}}),
		"/one/dense/weights": tensors.FromValue([][]float32{{2, -1}, {-1, 2}, {0, 0}, {0, 0}}),
		"/two/dense/weights": tensors.FromValue([][]float32{{0, 0, 0}, {0, 0, 0}, {200, -100, 0}, {-100, 200, 100}}),
	}
	if normalised {
		for name, x := range map[string]float32{"scale": 1, "offset": 0, "mean": 0, "variance": 1, "avg_weight": 1} {
			weights["/in/batch_normalization/"+name] = tensors.FromScalarAndDimensions(x, 4)
		}
	}
	joined := fixed(t, func(s *model.Scope, x *graph.Node) *graph.Node {
		return graph.Concatenate(heads(s, []*graph.Node{x}), 1)
	}, 2, weights)
	n, err := surgery.Trace(joined.Backend(), joined.Store(), heads, joined.Inputs()...)
	check(t, err)
	return n
}

// cross has two labels for each example: which diagonal it lies on, and on which side.
type cross int

func (d cross) Name() string { return "cross" }
func (d cross) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		rng := rand.New(rand.NewPCG(1, 1))
		for range 10 {
			x, sum, difference := make([]float32, 2*int(d)), make([]int32, d), make([]int32, d)
			for i := range int(d) {
				x[2*i], x[2*i+1] = float32(rng.NormFloat64()), float32(rng.NormFloat64())
				if x[2*i]+x[2*i+1] < 0 {
					sum[i] = 1
				}
				if x[2*i] < x[2*i+1] {
					difference[i] = 1
				}
			}
			b := train.Batch{Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(x, int(d), 2)},
				Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(sum, int(d), 1), tensors.FromFlatDataAndDimensions(difference, int(d), 1)}}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// What only the second head reads is needed as much as what the first reads. The student is to give the answers of both, whatever their size.
func TestGALOfTwoHeads(t *testing.T) {
	r, err := GAL{Steps: 600, Sparsity: 0.1, LearningRate: 1e-4, Seed: 1}.Choose(ctx, twoHeads(t, false), cross(32))
	check(t, err)
	if len(r.Masks) != 1 {
		t.Errorf("masks %v, want those of one group", r.Masks)
	}
	for name, m := range r.Masks {
		if slices.Min(m) < 0.2 || len(m) != 4 {
			t.Errorf("masks of %s are %v, want all of them well above 0", name, m)
		}
	}
	var config *ConfigError
	flat := fixed(t, func(s *model.Scope, x *graph.Node) *graph.Node {
		return graph.Reshape(layers.Dense(s.At("out"), activation.Relu(layers.Dense(s.At("in"), x, false, 4)), false, 1), x.Shape().Dimensions[0]) // [batch, 1] -> [batch]
	}, 2, map[string]*tensors.Tensor{
		"/in/dense/weights":  tensors.FromValue([][]float32{{1, -1, 1, -1}, {1, -1, -1, 1}}),
		"/out/dense/weights": tensors.FromValue([][]float32{{1}, {2}, {3}, {4}}),
	})
	if _, err := (GAL{}).Choose(ctx, flat, cross(32)); !errors.As(err, &config) || !strings.Contains(err.Error(), "[batch, classes]") {
		t.Errorf("error %v, want a *ConfigError that says what outputs have to be", err)
	}
}

// SCOP needs a loss that tells what each output is for: without it, what only the second head reads would have no gradient, and would go first.
func TestSCOPOfTwoHeads(t *testing.T) {
	n := twoHeads(t, true)
	var config *ConfigError
	if _, err := (SCOP{}).Choose(ctx, n, cross(32)); !errors.As(err, &config) || config.Field != "SCOP.Loss" {
		t.Errorf("error %v, want a *ConfigError of SCOP.Loss", err)
	}
	both := func(labels, logits []*graph.Node) *graph.Node {
		first := loss.SparseCategoricalCrossEntropyLogits(labels[:1], logits[:1])
		return graph.Add(graph.ReduceAllMean(first), graph.ReduceAllMean(loss.SparseCategoricalCrossEntropyLogits(labels[1:], logits[1:])))
	}
	r, err := SCOP{Steps: 100, LearningRate: 0.02, Knockoffs: Shuffled, Loss: both}.Choose(ctx, n, cross(32))
	check(t, err)
	if len(r.Scales) != 1 {
		t.Errorf("scales %v, want those of one kernel", r.Scales)
	}
	for name, k := range r.Scales {
		if slices.Min(k) < 0.9 || len(k) != 4 {
			t.Errorf("scales of %s are %v, want all of them near 1: no unit can be replaced", name, k)
		}
	}
}

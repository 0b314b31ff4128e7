package prune

import (
	"errors"
	"iter"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// one is a store of a single matrix.
func one(t *testing.T, m [][]float32) (*model.Store, params.Set) {
	store := storeOf(t, map[string][][]float32{"/fc/weights": m})
	return store, params.Select(store, nil)
}

func TestUnitsByHand(t *testing.T) {
	m := [][]float32{
		{1, -2, 3, 4},
		{5, 6, -0.5, 0.5},
	}
	for _, test := range []struct {
		reason   string
		recipe   Recipe
		sparsity float64
		want     [][]float32
	}{
		{"2:4 along the outputs", Recipe{Unit: unit.NofM(2, 4, unit.Out)}, 0.5, [][]float32{{0, 0, 3, 4}, {5, 6, 0, 0}}},
		{"1:2 along the inputs", Recipe{Unit: unit.NofM(1, 2, unit.In)}, 0.5, [][]float32{{0, 0, 3, 4}, {5, 6, 0, 0}}},
		{"1:2 along the outputs: of equal ones the earlier", Recipe{Unit: unit.NofM(1, 2, unit.Out)}, 0.5, [][]float32{{0, -2, 0, 4}, {0, 6, -0.5, 0}}},
		{"blocks of 1×2, by L1: 3, 7, 11 and 1", Recipe{Unit: unit.Block(1, 2)}, 0.5, [][]float32{{0, 0, 3, 4}, {5, 6, 0, 0}}},
		{"blocks of 2×1: 6, 8, 3.5 and 4.5", Recipe{Unit: unit.Block(2, 1)}, 0.5, [][]float32{{1, -2, 0, 0}, {5, 6, 0, 0}}},
		{"blocks of 2×2: 14 and 8", Recipe{Unit: unit.Block(2, 2)}, 0.5, [][]float32{{1, -2, 0, 0}, {5, 6, 0, 0}}},
		{"input channels: rows of 10 and 12", Recipe{Unit: unit.InChannel}, 0.5, [][]float32{{0, 0, 0, 0}, {5, 6, -0.5, 0.5}}},
		{"a kernel of a dense layer is a weight", Recipe{Unit: unit.Kernel}, 0.5, [][]float32{{0, 0, 3, 4}, {5, 6, 0, 0}}},
		{"per output one of two", Recipe{Budget: budget.PerOutput}, 0.5, [][]float32{{0, 0, 3, 4}, {5, 6, 0, 0}}},
		{"all go but what stays at least, by policy", Recipe{KeepMin: true}, 1, [][]float32{{0, 0, 0, 0}, {0, 6, 0, 0}}},
		{"three weights are rounded up to four", Recipe{RoundTo: 4}, 5.0 / 8, [][]float32{{0, 0, 3, 4}, {5, 6, 0, 0}}},
		{"four stay four", Recipe{RoundTo: 4}, 0.5, [][]float32{{0, 0, 3, 4}, {5, 6, 0, 0}}},
		{"rounding stops at what there is", Recipe{RoundTo: 3}, 1.0 / 8, [][]float32{{1, -2, 3, 4}, {5, 6, -0.5, 0.5}}},
		{"inverted", Recipe{Criterion: criterion.Invert(criterion.Magnitude)}, 0.5, [][]float32{{1, -2, 0, 0}, {0, 0, -0.5, 0.5}}},
	} {
		store, set := one(t, m)
		p, err := New(open(t), store, set, test.recipe)
		if err != nil {
			t.Fatalf("%s: %v", test.reason, err)
		}
		if _, err := p.Prune(test.sparsity, nil); err != nil {
			t.Fatalf("%s: %v", test.reason, err)
		}
		if diff := cmp.Diff(test.want, values(t, store, "/fc/weights")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
	}
}

func TestHeadsByHand(t *testing.T) {
	// Two heads of two outputs each: 2 + 2 and 4 + 4, and the second layer is the output, which is spared.
	store := storeOf(t, map[string][][]float32{"/query/weights": {{1, 1, 2, 2}, {1, 1, 2, 2}}, "/output/weights": {{1, 1}, {1, 1}}})
	p, err := New(open(t), store, params.Select(store, nil), Recipe{Unit: unit.Head(2)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prune(0.5, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]float32{{0, 0, 2, 2}, {0, 0, 2, 2}}, values(t, store, "/query/weights")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var tiles *unit.Error
	if _, err := New(open(t), store, params.Select(store, nil), Recipe{Unit: unit.Head(3)}); !errors.As(err, &tiles) || !strings.Contains(err.Error(), "3 heads") {
		t.Errorf("more heads than there are: %v", err)
	}
}

// What is removed under a budget of cost: the cheap unit of 1×2 weights costs 2, the dear one of 1×4 costs 4, in MACs of 1 and 10 a weight.
func TestCostsByHand(t *testing.T) {
	store := storeOf(t, map[string][][]float32{"/a/weights": {{1, 1}, {3, 3}, {5, 5}}, "/b/weights": {{2, 2, 2, 2}, {4, 4, 4, 4}, {1, 1, 0, 0}}})
	p, err := New(open(t), store, params.Select(store, nil), Recipe{
		Unit: unit.InChannel, Criterion: criterion.Criterion{Name: "mean", Pool: criterion.Mean, Score: criterion.Magnitude.Score},
		Budget: budget.ByMACs(map[string]int64{"/a/weights": 1, "/b/weights": 10}),
	})
	if err != nil {
		t.Fatal(err)
	}
	// All cost 3·2 + 3·40 = 126; 60% off leaves 50: first the best of each (2 + 40), then 3 (2), then 2 would cost 40.
	if _, err := p.Prune(0.6, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]float32{{0, 0}, {3, 3}, {5, 5}}, values(t, store, "/a/weights")); diff != "" {
		t.Errorf("a (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]float32{{0, 0, 0, 0}, {4, 4, 4, 4}, {0, 0, 0, 0}}, values(t, store, "/b/weights")); diff != "" {
		t.Errorf("b (-want +got):\n%s", diff)
	}
}

func TestBudgetsThatCanNotBeMetSaySoBeforeAnythingChanges(t *testing.T) {
	m := [][]float32{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}
	for name, r := range map[string]Recipe{
		"N:M on an axis that M does not divide": {Unit: unit.NofM(2, 4, unit.In)},
		"all of M":                              {Unit: unit.NofM(4, 4, unit.In)},
		"none of M":                             {Unit: unit.NofM(0, 3, unit.In)},
		"blocks that do not divide":             {Unit: unit.Block(2, 2)},
		"blocks of nothing":                     {Unit: unit.Block(0, 1)},
		"an unknown layer in a budget":          {Budget: budget.PerLayer(map[string]float64{"/no": 0.5})},
		"N:M with a budget":                     {Unit: unit.NofM(1, 3, unit.In), Budget: budget.ERK},
		"N:M that is rounded":                   {Unit: unit.NofM(1, 3, unit.In), RoundTo: 2},
		"a channel's criterion on weights":      {Criterion: criterion.FPGM},
		"an input channel's on filters":         {Criterion: criterion.ThiNet, Unit: unit.InChannel, Budget: budget.PerOutput},
		"a negative multiple":                   {RoundTo: -1},
	} {
		store, set := one(t, m)
		_, err := New(open(t), store, set, r)
		if err == nil || len(err.Error()) < 30 {
			t.Errorf("%s: got %v", name, err)
		}
		if store.GetVariable(mask.Path(set[0])) != nil {
			t.Errorf("%s: a mask was made", name)
		}
	}
	store, set := one(t, [][]float32{{1, 2}, {3, 4}})
	p, err := New(open(t), store, set, Recipe{Unit: unit.NofM(1, 2, unit.In)})
	if err != nil {
		t.Fatal(err)
	}
	var bad *SparsityError
	if _, err := p.Prune(0.6, nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), "0.5") {
		t.Errorf("1:2 to 60%%: %v", err)
	}
}

func TestSignalsThatAreMissingAreAskedForFirst(t *testing.T) {
	store := small(t)
	p, err := New(open(t), store, params.Select(store, nil), Recipe{Criterion: criterion.Taylor})
	if err != nil {
		t.Fatal(err)
	}
	var missing *signal.MissingError
	if _, err := p.Prune(0.5, nil); !errors.As(err, &missing) || missing.Needs != criterion.NeedGrad || !strings.Contains(err.Error(), "gradients") {
		t.Errorf("got %v", err)
	}
	tracked, err := New(open(t), store, params.Select(store, nil), Recipe{Criterion: criterion.Movement})
	if err != nil {
		t.Fatal(err)
	}
	var bad *ScoreError
	if _, err := tracked.Prune(0.5, nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), "Optimizer") {
		t.Errorf("nothing was tracked: %v", err)
	}
	if diff := cmp.Diff([][]float32{{0.3, -0.9}, {0.05, 0.4}}, values(t, store, "/fc/weights")); diff != "" {
		t.Errorf("the weights changed:\n%s", diff)
	}
}

// flow is two layers in a row.
func flow(scope *model.Scope, x *graph.Node) *graph.Node {
	s, g := scope.Store(), x.Graph()
	x = graph.Dot(x, s.GetVariable("/fc/weights").NodeValue(g)).Product()
	return graph.Dot(x, s.GetVariable("/output/weights").NodeValue(g)).Product()
}

// In rounds, what is removed changes the flow through what is left: after [[1, 0.1], [1, 0.1]]·[[1], [9]] has lost its weakest paths, the others gain.
func TestRounds(t *testing.T) {
	store := storeOf(t, map[string][][]float32{"/fc/weights": {{1, 0.2}, {1, 0.3}}, "/output/weights": {{1}, {3}}})
	set := params.Select(store, nil)
	scored := 0
	c := criterion.SynFlow
	score := c.Score
	c.Rounds = 10
	c.Score = func(in criterion.Inputs) *graph.Node { scored++; return score(in) }
	p, err := New(open(t), store, set, Recipe{Criterion: c})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signal.Collect(signal.Source{Backend: open(t), Store: store, Model: flow, Data: inputs{}}, set, criterion.NeedFlow)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := p.Prune(0.5, sig)
	if err != nil {
		t.Fatal(err)
	}
	if kept := stats[0].Kept + stats[1].Kept; kept != 3 {
		t.Errorf("%d of 6 weights kept, want 3", kept)
	}
	// No layer is cut through: an input still reaches the output.
	out := values(t, store, "/output/weights").([][]float32)
	fc := values(t, store, "/fc/weights").([][]float32)
	if out[0][0] == 0 || fc[0][0] == 0 || fc[1][0] == 0 {
		t.Errorf("the strongest path is cut: %v %v", fc, out)
	}
	if scored != len(set) {
		t.Errorf("ten rounds built the scores %d times for %d parameters", scored, len(set))
	}
}

// A round that fails leaves everything as it was before the first.
func TestRoundsAreAllOrNothing(t *testing.T) {
	store := small(t)
	set := params.Select(store, nil)
	calls := 0
	c := criterion.Criterion{Name: "fails in the third round", Rounds: 5, Score: func(in criterion.Inputs) *graph.Node { return in.Weight },
		Normalize: criterion.Normalize{Name: "fails", Apply: nil}}
	c.Normalize.Apply = failAfter(&calls, 4)
	p, err := New(open(t), store, set, Recipe{Criterion: c})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prune(0.7, nil); err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff([][]float32{{0.3, -0.9}, {0.05, 0.4}}, values(t, store, "/fc/weights")); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
	stats, err := mask.Count(store, set)
	if err != nil || mask.Sparsity(stats) != 0 {
		t.Errorf("masks are left: %v, %v", stats, err)
	}
}

// A criterion that tracks sees every step: the sum of −w·g over two steps of plain descent on L = w²/2·4, computed by hand.
func TestTrackingByHand(t *testing.T) {
	b := open(t)
	store, set := one(t, [][]float32{{1}, {-2}})
	p, err := New(b, store, set, Recipe{Criterion: criterion.Movement})
	if err != nil {
		t.Fatal(err)
	}
	opt, err := p.Optimizer(optimizer.StochasticGradientDescent().WithLearningRate(0.5).WithDecay(false).Done())
	if err != nil {
		t.Fatal(err)
	}
	w := store.GetVariable("/fc/weights")
	step, err := model.NewExec(b, store, func(scope *model.Scope, g *graph.Graph) *graph.Node {
		l := graph.MulScalar(graph.ReduceAllSum(graph.Square(w.NodeValue(g))), 0.5)
		opt.UpdateGraph(scope, g, l)
		if open := p.Unsealed(g); len(open) != 0 {
			t.Errorf("the step does not end in the mask of %v", open)
		}
		w.SetNodeValue(graph.AddScalar(w.NodeValue(g), 0))
		if open := p.Unsealed(g); len(open) != 1 {
			t.Errorf("something wrote to the weights after the mask, and it is not seen: %v", open)
		}
		return l
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // w halves
		if _, err := step.Call(); err != nil {
			t.Fatal(err)
		}
	}
	want := [][]float32{{-(1 + 0.25)}, {-(4 + 1)}} // −Σ w·g, g = w
	if diff := cmp.Diff(want, values(t, store, trackScope+"/fc/weights")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := p.Prune(0.5, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]float32{{0.25}, {0}}, values(t, store, "/fc/weights")); diff != "" {
		t.Errorf("the one that shrinks faster goes (-want +got):\n%s", diff)
	}
}

// The price of a gate is λ for each of its weights, times the probability that a draw opens it, which is σ(log α − β·ln(0.1/1.1)); in inference a gate is σ(log α), stretched to −0.1 and 1.1.
func TestGatesByHand(t *testing.T) {
	const n = 4000
	rows := make([][]float32, n)
	for i := range rows {
		rows[i] = []float32{1, 1, 1, 1}
	}
	store, set := one(t, rows)
	store.RootScope().SetParam(model.ParamInitialSeed, int64(1))
	net, err := Gates{Penalty: 0.01, Open: 0.5}.Model(store, set, func(_ *model.Scope, x *graph.Node) *graph.Node {
		return graph.Reshape(graph.Slice(store.GetVariable("/fc/weights").NodeValue(x), graph.AxisRange(), graph.AxisElem(0)), 1, n)
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := gobackend.New("")
	if err != nil {
		t.Fatal(err)
	}
	run := func(training bool) (gates []float32, price float64) {
		exec, err := model.NewExec(b, store, func(_ *model.Scope, x *graph.Node) []*graph.Node {
			store.SetTraining(x.Graph(), training)
			gates := net(store.RootScope(), x)
			if !training {
				return []*graph.Node{gates, graph.ScalarZero(x.Graph(), x.DType())}
			}
			return []*graph.Node{gates, train.GetRegularizationLoss(x.Graph())}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer exec.Finalize()
		r, err := exec.Call([]float32{1})
		if err != nil {
			t.Fatal(err)
		}
		return tensors.MustCopyFlatData[float32](r[0]), float64(r[1].Value().(float32))
	}
	for _, c := range []struct {
		logAlpha, open, gate float64
	}{
		{0, 0.831822, 0.5},                           // σ(2/3·ln 11)
		{-2.0 / 3 * math.Log(11), 0.5, 0.101813},     // σ(0), and 1.2·0.168178 − 0.1
		{2.0 / 3 * math.Log(11), 0.960729, 0.898187}, // σ(4/3·ln 11), and 1.2·0.831822 − 0.1
		{-3, 0.197594, 0},                            // 1.2·0.047426 − 0.1 is below 0
	} {
		if err := store.GetVariable(gateScope + "/fc/weights").SetValue(tensors.FromScalarAndDimensions(float32(c.logAlpha), n, 1)); err != nil {
			t.Fatal(err)
		}
		gates, price := run(true)
		open := 0.0
		for _, g := range gates {
			if g > 0 {
				open += 1.0 / n
			}
		}
		if want := 0.01 * 4 * n * c.open; math.Abs(price-want) > 1e-4*want || math.Abs(open-c.open) > 0.032 { // four standard errors
			t.Errorf("log α = %.3f: %d gates cost %v and %.3f of them are drawn open, want %v and %.3f", c.logAlpha, n, price, open, want, c.open)
		}
		if gates, _ := run(false); math.Abs(float64(gates[0])-c.gate) > 1e-5 {
			t.Errorf("log α = %.3f: the gate is %v in inference, want %v", c.logAlpha, gates[0], c.gate)
		}
	}
}

// Gates of inputs that the label does not depend on close; the network's weights are trained, not their products with the gates.
func TestGatesLearnWhatIsNeeded(t *testing.T) {
	b := open(t)
	store := network(t, b)
	set := params.Select(store, nil)
	first, err := set.Only("/fc/dense/weights")
	if err != nil {
		t.Fatal(err)
	}
	net, err := Gates{Penalty: 0.02}.Model(store, first, model2)
	if err != nil {
		t.Fatal(err)
	}
	trainer := train.NewTrainer(b, store, net, loss.SparseCategoricalCrossEntropyLogits, optimizer.Adam().LearningRate(0.03).Done(), nil, nil)
	if _, err := train.NewLoop(trainer).RunSteps(data(t, b), 300); err != nil {
		t.Fatal(err)
	}
	gates := values(t, store, gateScope+"/fc/dense/weights").([][]float32)
	if len(gates) != 4 || len(gates[0]) != 1 {
		t.Fatalf("gates of shape [%d, %d], want one for each of 4 inputs", len(gates), len(gates[0]))
	}
	moved := false
	for _, g := range gates {
		moved = moved || math.Abs(float64(g[0])-math.Log(9)) > 0.5
	}
	if !moved {
		t.Errorf("training did not move the gates: %v", gates)
	}
	p, err := New(b, store, first, Recipe{Criterion: criterion.L0, Unit: unit.InChannel})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prune(0.5, nil); err != nil {
		t.Fatal(err)
	}
	kept, lost := math.Inf(1), math.Inf(-1)
	for i, row := range values(t, store, "/fc/dense/weights").([][]float32) {
		if row[0] != 0 {
			kept = min(kept, float64(gates[i][0]))
		} else {
			lost = max(lost, float64(gates[i][0]))
		}
	}
	if kept < lost {
		t.Errorf("a gate at %v was closed and one at %v kept", lost, kept)
	}
	for name, g := range map[string]Gates{"a negative penalty": {Penalty: -1}, "all open": {Open: 1}, "blocks": {Unit: unit.Block(2, 2)}, "N:M": {Unit: unit.NofM(1, 2, unit.In)}} {
		if _, err := g.Model(store, first, model2); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// inputs is a data set for its shape.
type inputs struct{}

func (inputs) Name() string { return "inputs" }
func (inputs) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		yield(train.Batch{Inputs: []*tensors.Tensor{tensors.FromScalarAndDimensions(float32(1), 1, 2)}, Labels: []*tensors.Tensor{tensors.FromScalarAndDimensions(int32(0), 1, 1)}}, nil)
	}
}

// failAfter makes scores that can't be ranked after some calls.
func failAfter(calls *int, n int) func([]float32, params.Param, *rand.Rand) {
	return func(scores []float32, _ params.Param, _ *rand.Rand) {
		if *calls++; *calls > n {
			scores[0] = float32(math.NaN())
		}
	}
}

package surgery

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// Cuts by hand, of each width of element.
func TestCut(t *testing.T) {
	for name, c := range map[string]struct {
		t, cut, zero any
	}{
		"float32":  {[][]float32{{1, 2, 3}, {4, 5, 6}}, [][]float32{{1, 3}}, [][]float32{{1, 0, 3}, {0, 0, 0}}},
		"float64":  {[][]float64{{1, 2, 3}, {4, 5, 6}}, [][]float64{{1, 3}}, [][]float64{{1, 0, 3}, {0, 0, 0}}},
		"bool":     {[][]bool{{true, true, true}, {true, true, true}}, [][]bool{{true, true}}, [][]bool{{true, false, true}, {false, false, false}}},
		"int8":     {[][]int8{{1, 2, 3}, {4, 5, 6}}, [][]int8{{1, 3}}, [][]int8{{1, 0, 3}, {0, 0, 0}}},
		"int64":    {[][]int64{{1, 2, 3}, {4, 5, 6}}, [][]int64{{1, 3}}, [][]int64{{1, 0, 3}, {0, 0, 0}}},
		"bfloat16": {[][]bfloat16.BFloat16{{1, 2, 3}, {4, 5, 6}}, [][]bfloat16.BFloat16{{1, 3}}, [][]bfloat16.BFloat16{{1, 0, 3}, {0, 0, 0}}},
	} {
		whole, err := tensors.FromAnyValue(c.t)
		if err != nil {
			t.Fatal(err)
		}
		removed := cuts{0: {1}, 1: {1}}
		small, err := cut(whole, removed, false)
		if err != nil {
			t.Fatal(err)
		}
		zero, err := cut(whole, removed, true)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]any{c.cut, c.zero}, []any{small.Value(), zero.Value()}); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	x, err := cut(tensors.FromValue([][][]int32{{{1, 2}, {3, 4}, {5, 6}}, {{7, 8}, {9, 10}, {11, 12}}}), cuts{1: {0, 2}}, false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][][]int32{{{3, 4}}, {{9, 10}}}, x.Value()); diff != "" {
		t.Errorf("the middle axis (-want +got)\n%s", diff)
	}
}

func TestCompanions(t *testing.T) {
	known := []string{"/w", "/fc/w", "/fc/w_long"}
	dims := map[string][]int{"/w": {2, 3}, "/fc/w": {2, 3}, "/fc/w_long": {2, 3}}
	for path, want := range map[string]string{
		"/pruning/mask/fc/w": "/fc/w", "/AdamOptimizer/fc/w_1st_moment": "/fc/w", "/AdamOptimizer/fc/w_long_2nd_moment": "/fc/w_long", "/optimizers/velocity/w": "/w",
		"/teacher/fc/w": "", "/custom/fc/w_1st_moment": "/fc/w", "/window/weights": "", "/other": "", "/pruning/round": "",
	} {
		if got := companion(path, float(2, 3), known, dims); got != want {
			t.Errorf("%s belongs to %q, want %q", path, got, want)
		}
	}
	if got := companion("/pruning/gate/w", float(1, 3), known, dims); got != "/w" {
		t.Errorf("a gate for each column belongs to %q", got)
	}
	if got := companion("/pruning/mask/w", float(3, 3), known, dims); got != "" {
		t.Errorf("another shape belongs to %q", got)
	}
}

// What an optimizer keeps once for all columns of a kernel stays as it is when columns go.
func TestCompanionOfOneColumn(t *testing.T) {
	n := threeLayers(t)
	want := [][]float32{{1}, {2}, {3}}
	if _, err := n.Store().CreateVariable("/optimizers/velocity/a/dense/weights", tensors.FromValue(want)); err != nil {
		t.Fatal(err)
	}
	p := n.Empty()
	p.Removed["/a/dense/weights:1"] = []int{0, 4}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(any(want), small.Store.GetVariable("/optimizers/velocity/a/dense/weights").MustValue().Value()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What does not learn does not learn in the smaller network either, and hyperparameters come along.
func TestSmallStoreKeepsTheRest(t *testing.T) {
	n := threeLayers(t)
	n.Store().GetVariable("/b/dense/weights").SetTrainable(false)
	n.Store().RootScope().SetParam("learning_rate", 0.25)
	p := n.Empty()
	p.Removed["/a/dense/weights:1"] = []int{0}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	learns := map[string]bool{}
	for v := range small.Store.IterVariables() {
		if isParameter(v.Path()) {
			learns[v.Path()] = v.Trainable
		}
	}
	if diff := cmp.Diff(map[string]bool{"/a/dense/weights": true, "/b/dense/weights": false, "/c/dense/weights": true}, learns); diff != "" {
		t.Errorf("what learns (-want +got)\n%s", diff)
	}
	rate, _ := small.Store.RootScope().GetParam("learning_rate")
	if diff := cmp.Diff(any(0.25), rate); diff != "" {
		t.Errorf("the learning rate (-want +got)\n%s", diff)
	}
}

// A network in bfloat16, with masks and moments in other types.
func TestTypes(t *testing.T) {
	b := open(t)
	for _, dtype := range []dtypes.DType{dtypes.BFloat16, dtypes.Float64} {
		shape := shapes.Make(dtype, 3, 4)
		fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return layers.Dense(s.In("b"), relu(layers.Dense(s.In("a"), x, true, 8)), true, 2)
		})
		store := model.NewStore()
		x, err := graph.CallOnce(b, func(x *graph.Node) *graph.Node { return graph.ConvertDType(x, dtype) }, noise(1, float(3, 4)))
		if err != nil {
			t.Fatal(err)
		}
		call(t, b, store, fn, false, x)
		n, err := Trace(b, store, fn, shape)
		if err != nil {
			t.Fatal(err)
		}
		p, err := n.Plan(Config{Units: 0.5}, nil)
		if err != nil {
			t.Fatal(err)
		}
		small, err := p.Apply()
		if err != nil {
			t.Fatal(err)
		}
		r, err := Verify(n, small, x)
		if err != nil || r.MaxDiff > 1e-2 || r.MaxOutput == 0 || dtype == dtypes.Float64 && r.MaxDiff > 1e-12 {
			t.Errorf("%s: %s, %v", dtype, r, err)
		}
	}
}

// What has no rule stays, and is named.
func TestUnknownOperations(t *testing.T) {
	b := open(t)
	n, err := Trace(b, model.NewStore(), trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(s.In("a"), x, true, 8)
		x = graph.Real(graph.InverseFFT(graph.FFT(graph.ConvertDType(x, dtypes.Complex64))))
		x = relu(layers.Dense(s.In("b"), x, true, 6))
		return layers.Dense(s.In("c"), x, true, 2)
	}), float(1, 3))
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Groups()) != 1 || n.Groups()[0].Name != "/b/dense/weights:1" {
		t.Errorf("groups:\n%s", n)
	}
	notes := strings.Join(n.Notes(), "\n")
	if !strings.Contains(notes, "/a/dense/weights:1 stays: FFT") || !strings.Contains(notes, "FFT (4) has no rule") {
		t.Errorf("notes:\n%s", notes)
	}
	small, err := half(n, 1).Apply()
	if err == nil {
		err = small.Store.InitializeVariables(b, nil)
	}
	var missing *ValueError
	if !errors.As(err, &missing) {
		t.Errorf("a network without values: %v", err)
	}
}

// Loops can't be taken out of their graph: that is said by name, before anything is made.
func TestLoopsAreRefused(t *testing.T) {
	inGo, err := compute.NewWithConfig("go")
	if err != nil {
		t.Fatal(err)
	}
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(s.In("b"), relu(layers.Dense(s.In("a"), x, true, 8)), true, 2)
		more := graph.NewClosure(x.Graph(), func(g *graph.Graph) []*graph.Node {
			return []*graph.Node{graph.LessThan(graph.ReduceAllSum(graph.Parameter(g, "s", x.Shape())), graph.Scalar(g, dtypes.Float32, -10))}
		})
		body := graph.NewClosure(x.Graph(), func(g *graph.Graph) []*graph.Node {
			return []*graph.Node{graph.MulScalar(graph.Parameter(g, "t", x.Shape()), 2)}
		})
		return graph.While(more, body, x)[0]
	})
	n, err := Trace(inGo, network(t, inGo, fn, float(1, 3)), fn, float(1, 3))
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(n.Notes(), "\n"); !strings.Contains(notes, "While (2) has no rule: all that it reads and makes stays, and it can't be built again") {
		t.Errorf("notes:\n%s", notes)
	}
	var refused *ReplayError
	if _, err := half(n, 1).Apply(); !errors.As(err, &refused) || refused.Op != "While" {
		t.Errorf("%v", err)
	}
}

// A gradient that uses values of the network besides its arguments belongs to the graph that it was made in: training says so, and what to do.
func TestGradientsOfOtherGraphs(t *testing.T) {
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(s.In("a"), x, false, 4)
		gate := graph.Sigmoid(x)
		x = graph.IdentityWithCustomGradient(x, func(_, v *graph.Node) *graph.Node { return graph.Mul(v, gate) })
		return layers.Dense(s.In("b"), x, false, 2)
	})
	n, err := Trace(b, network(t, b, fn, float(2, 3)), fn, float(2, 3))
	if err != nil {
		t.Fatal(err)
	}
	small, err := half(n, 1).Apply()
	if err != nil {
		t.Fatal(err)
	}
	_, err = trace.Record(b, small.Store, func(s *model.Scope, in []*graph.Node) []*graph.Node {
		w := s.Store().GetVariable("/a/dense/weights").NodeValue(in[0].Graph())
		return graph.Gradient(graph.ReduceAllSum(small.ModelFn(s, in)[0]), w)
	}, trace.Config{Training: true}, float(2, 3))
	var failed *ReplayError
	if !errors.As(err, &failed) || failed.Op != "IdentityWithCustomGradient" {
		t.Errorf("%v", err)
	}
}

// A function that holds its variables reads the same values in every store: the masked network would not be masked.
func TestHeldVariablesAreRefused(t *testing.T) {
	b := open(t)
	store := model.NewStore()
	a := store.RootScope().VariableWithValue("a", [][]float32{{1, 2, 3}, {4, 5, 6}})
	c := store.RootScope().VariableWithValue("c", [][]float32{{1}, {2}, {3}})
	fn := trace.Single(func(_ *model.Scope, x *graph.Node) *graph.Node {
		return graph.MatMul(relu(graph.MatMul(x, a.NodeValue(x.Graph()))), c.NodeValue(x.Graph()))
	})
	var held *ReplayError
	n, err := Trace(b, store, fn, float(4, 2)) // it is the variables' store
	if err != nil {
		t.Fatal(err)
	}
	p := n.Empty()
	p.Removed["/a:1"] = []int{1}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(n, small, noise(1, float(4, 2))); !errors.As(err, &held) {
		t.Errorf("%s, %v", r, err)
	}
	if _, err := Trace(b, model.NewStore(), fn, float(4, 2)); !errors.As(err, &held) || held.Variable != "/a" {
		t.Errorf("in another store: %v", err)
	}
}

func TestUnstableFunctions(t *testing.T) {
	_, err := Trace(open(t), model.NewStore(), trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node { return graph.MulScalar(x, rand.Float64()) }), float(2))
	var unstable *UnstableError
	if !errors.As(err, &unstable) {
		t.Errorf("%v", err)
	}
	dynamic := float(2)
	dynamic.Dimensions[0] = -1
	var shape *ShapeError
	if _, err := Trace(open(t), model.NewStore(), trace.Single(func(_ *model.Scope, x *graph.Node) *graph.Node { return x }), dynamic); !errors.As(err, &shape) {
		t.Errorf("a shape that is not fixed: %v", err)
	}
	dense := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node { return layers.Dense(s, x, false, 2) }) // which takes no examples, too
	if _, err := Trace(open(t), model.NewStore(), dense, float(1, 2), float(0, 2)); !errors.As(err, &shape) || shape.Input != 1 {
		t.Errorf("a batch of 0: %v", err)
	}
}

// A few bytes of a model that ask for more labels than there is memory are an error, and not the end of the program.
func TestHugeAxesAreRefused(t *testing.T) {
	_, err := Trace(open(t), model.NewStore(), trace.Single(func(_ *model.Scope, x *graph.Node) *graph.Node {
		return graph.BroadcastToDims(graph.ReduceAllSum(x), 1<<40)
	}), float(2))
	if err == nil || !strings.Contains(err.Error(), "came one of 1099511627776") {
		t.Errorf("an axis of 2^40: %v", err)
	}
}

// Losses that a model adds, settings that it leaves, and what it asks to be done after each step are those of the smaller network too.
func TestSideEffects(t *testing.T) {
	b := open(t)
	fn := func(s *model.Scope, in []*graph.Node) []*graph.Node {
		g := in[0].Graph()
		h := relu(layers.Dense(s.In("a"), in[0], false, 4))
		train.AddRegularizationLoss(graph.ReduceAllSum(h))
		s.SetGraphParam(g, "width", h.Shape().Dim(-1))
		train.AddPerStepUpdateGraphFn(s.At("a"), g, func(scope *model.Scope, g *graph.Graph) { // weights stay below 1
			w := scope.Store().GetVariable("/a/dense/weights")
			w.SetNodeValue(graph.MinScalar(w.NodeValue(g), 1))
		})
		return []*graph.Node{layers.Dense(s.In("b"), h, false, 1)}
	}
	store := model.NewStore()
	for path, v := range map[string]*tensors.Tensor{
		"/a/dense/weights": tensors.FromValue([][]float32{{1, 2, 3, 4}, {5, 6, 7, 8}}),
		"/b/dense/weights": tensors.FromValue([][]float32{{1}, {1}, {1}, {1}}),
	} {
		if _, err := store.CreateVariable(path, v); err != nil {
			t.Fatal(err)
		}
	}
	n, err := Trace(b, store, fn, float(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	p := n.Empty()
	p.Removed["/a/dense/weights:1"] = []int{0, 3}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	var width any
	exec, err := model.NewExec(b, small.Store, func(scope *model.Scope, x *graph.Node) []*graph.Node {
		g := x.Graph()
		train.AddMainLoss(graph.Scalar(g, dtypes.Float32, 100))
		y := small.Single(small.Store.RootScope(), x)
		width, _ = model.GetGraphParam(g, "/width")
		loss := train.TotalLoss(g)
		w := small.Store.GetVariable("/a/dense/weights") // what an optimizer does
		w.SetNodeValue(graph.SubScalar(w.NodeValue(g), 5.5))
		train.ExecPerStepUpdateGraphFn(g)
		return []*graph.Node{y, loss}
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Call([][]float32{{1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{out[0].Value(), out[1].Value(), width, small.Store.GetVariable("/a/dense/weights").MustValue().Value()}
	want := []any{[][]float32{{2 + 6 + 3 + 7}}, float32(100 + 18), 4, [][]float32{{-3.5, -2.5}, {0.5, 1}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("output, loss, setting, weights (-want +got)\n%s", diff)
	}
}

// The random numbers are those of the masked network.
func TestRandomNumbersStay(t *testing.T) {
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.DropoutStatic(s.In("d"), relu(layers.Dense(s.In("a"), x, true, 32)), 0.5)
		return layers.Dense(s.In("b"), x, true, 3)
	})
	store := network(t, b, fn, float(2, 4))
	n, err := Trace(b, store, fn, float(2, 4))
	if err != nil {
		t.Fatal(err)
	}
	p := half(n, 1)
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	masked, err := p.Masked()
	if err != nil {
		t.Fatal(err)
	}
	x := noise(3, float(2, 4))
	for range 3 {
		near(t, "output in training", call(t, b, masked, fn, true, x)[0], call(t, b, small.Store, small.ModelFn, true, x)[0])
	}
}

// In a store that lacks them, the smaller network makes its variables as the original would, in their new shapes.
func TestFromScratch(t *testing.T) {
	b := open(t)
	scaled := func(g *graph.Graph, shape shapes.Shape) *graph.Node { // by the fan-in
		return graph.BroadcastToShape(graph.Scalar(g, shape.DType, 1/float64(shape.Dimensions[0])), shape)
	}
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		w := s.VariableWithValue("w", [][]float32{{1, 2, 3, 4}}).NodeValue(x.Graph())
		y := graph.Dot(x, w).Product() // [1, 1] · [1, 4]
		v := s.WithInitializer(scaled).VariableWithShape("v", float(4, 2)).SetTrainable(false)
		return graph.Dot(y, v.NodeValue(x.Graph())).Product()
	})
	store := model.NewStore()
	call(t, b, store, fn, false, noise(1, float(1, 1)))
	n, err := Trace(b, store, fn, float(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	p := n.Empty()
	p.Removed["/w:1"] = []int{0, 2}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	fresh := model.NewStore()
	y := call(t, b, fresh, small.ModelFn, false, tensors.FromValue([][]float32{{1}}))[0]
	got := []any{y.Value(), fresh.GetVariable("/w").MustValue().Value(), fresh.GetVariable("/v").MustValue().Value(), fresh.GetVariable("/w").Trainable, fresh.GetVariable("/v").Trainable}
	want := []any{[][]float32{{3, 3}}, [][]float32{{2, 4}}, [][]float32{{0.5, 0.5}, {0.5, 0.5}}, true, false}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A variable that is only written is cut with what is written to it.
func TestWrittenOnly(t *testing.T) {
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		h := relu(layers.Dense(s.In("a"), x, true, 6))
		s.VariableWithShape("last", float(6)).SetTrainable(false).SetNodeValue(graph.ReduceMax(h, 0))
		return layers.Dense(s.In("b"), h, true, 2)
	})
	store := network(t, b, fn, float(3, 4))
	n, err := Trace(b, store, fn, float(3, 4))
	if err != nil {
		t.Fatal(err)
	}
	p := half(n, 1)
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	masked, err := p.Masked()
	if err != nil {
		t.Fatal(err)
	}
	x := noise(3, float(3, 4))
	near(t, "output", call(t, b, masked, fn, false, x)[0], call(t, b, small.Store, small.ModelFn, false, x)[0])
	removed, err := p.Indices()
	if err != nil {
		t.Fatal(err)
	}
	want, err := cut(masked.GetVariable("/last").MustValue(), removed["/last"], false)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "what was written", want, small.Store.GetVariable("/last").MustValue())
	if small.Store.GetVariable("/last").Shape().Dimensions[0] != 3 {
		t.Errorf("it has the shape %s", small.Store.GetVariable("/last").Shape())
	}
}

// One zero before the channels and three behind them stay where they are when the first or the second channel goes.
func TestUnevenPaddingOfChannels(t *testing.T) {
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		y := layers.Dense(s.In("a"), x, false, 4)
		y = graph.Pad(y, graph.ScalarZero(y.Graph(), y.DType()), compute.PadAxis{}, compute.PadAxis{Start: 1, End: 3})
		return layers.Dense(s.In("c"), graph.Add(y, layers.Dense(s.In("b"), x, false, 8)), false, 2)
	})
	n, err := Trace(b, network(t, b, fn, float(4, 3)), fn, float(4, 3))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/a/dense/weights:1", "/b/dense/weights:1"} {
		for u := range 2 {
			p := n.Empty()
			p.Removed[name] = []int{u}
			small, err := p.Apply()
			if err != nil {
				t.Fatal(err)
			}
			if r, err := Verify(n, small, noise(3, float(4, 3))); err != nil || r.MaxDiff > 1e-4 {
				t.Errorf("%s without unit %d: %s, %v", name, u, r, err)
			}
		}
	}
}

// What a range counts are the channels of the whole network, also when one before them has gone.
func TestRangeKeepsItsValues(t *testing.T) {
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(s.In("a"), x, false, 6)
		return layers.Dense(s.In("b"), graph.Mul(x, graph.Iota(x.Graph(), x.Shape(), 1)), false, 2)
	})
	n, err := Trace(b, network(t, b, fn, float(4, 3)), fn, float(4, 3))
	if err != nil {
		t.Fatal(err)
	}
	p := n.Empty()
	p.Removed["/a/dense/weights:1"] = []int{1}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(n, small, noise(3, float(4, 3))); err != nil || r.MaxDiff > 1e-4 {
		t.Errorf("%s, %v", r, err)
	}
}

// The class that ArgMax names is a number of the whole network, so none of the channels that it looks at can go.
func TestArgMaxKeepsItsChannels(t *testing.T) {
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		return graph.ArgMax(layers.Dense(s.In("b"), layers.Dense(s.In("a"), x, false, 6), false, 5), -1)
	})
	n, err := Trace(b, network(t, b, fn, float(4, 3)), fn, float(4, 3))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range n.Groups() {
		names = append(names, g.Name)
	}
	if diff := cmp.Diff([]string{"/a/dense/weights:1"}, names); diff != "" {
		t.Errorf("groups (-want +got)\n%s", diff)
	}
}

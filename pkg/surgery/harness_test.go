package surgery

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func open(t testing.TB) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func float(dims ...int) shapes.Shape { return shapes.Make(dtypes.Float32, dims...) }

// noise returns a tensor of normal random numbers.
func noise(seed uint64, shape shapes.Shape) *tensors.Tensor {
	r := rand.New(rand.NewPCG(seed, 2))
	x := make([]float32, shape.Size())
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return tensors.FromFlatDataAndDimensions(x, shape.Dimensions...)
}

// call runs a model function once.
func call(t testing.TB, b compute.Backend, store *model.Store, fn trace.ModelFn, training bool, x ...*tensors.Tensor) []*tensors.Tensor {
	t.Helper()
	exec, err := model.NewExec(b, store, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		store.SetTraining(in[0].Graph(), training)
		return fn(store.RootScope(), in)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call(inputs(x)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// network makes a store with random values for a model function: gains and variances are positive, biases are not zero.
func network(t testing.TB, b compute.Backend, fn trace.ModelFn, in ...shapes.Shape) *model.Store {
	t.Helper()
	store := model.NewStore()
	store.RootScope().SetParam(model.ParamInitialSeed, int64(1))
	var x []*tensors.Tensor
	for i, s := range in {
		x = append(x, noise(uint64(i), s))
	}
	call(t, b, store, fn, true, x...)
	r := rand.New(rand.NewPCG(1, 2))
	for v := range store.IterVariables() {
		if v.DType() != dtypes.Float32 || v.Name() == "avg_weight" {
			continue
		}
		data := tensors.MustCopyFlatData[float32](v.MustValue())
		for i := range data {
			switch {
			case v.Name() == "variance" || v.Name() == "scale" || v.Name() == "gain":
				data[i] = 0.5 + r.Float32()
			case v.Shape().Rank() < 2:
				data[i] += 0.2 * float32(r.NormFloat64())
			}
		}
		setValue(t, v, tensors.FromFlatDataAndDimensions(data, v.Shape().Dimensions...))
	}
	return store
}

func setValue(t testing.TB, v *model.Variable, value *tensors.Tensor) {
	t.Helper()
	if err := v.SetValue(value); err != nil {
		t.Fatal(err)
	}
}

// half removes half of the units of each group at random.
func half(n *Network, seed uint64) *Plan {
	r := rand.New(rand.NewPCG(seed, 4))
	p := n.Empty()
	for _, g := range n.Groups() {
		if k := g.Size / 2; k > 0 {
			p.Removed[g.Name] = slices.Sorted(slices.Values(r.Perm(g.Size)[:k]))
		}
	}
	return p
}

// gradients returns ∂Σy²/∂w of every trainable variable in training, by path.
func gradients(t testing.TB, b compute.Backend, store *model.Store, fn trace.ModelFn, x ...*tensors.Tensor) map[string]*tensors.Tensor {
	t.Helper()
	var paths []string
	exec, err := model.NewExec(b, store, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		g := in[0].Graph()
		store.SetTraining(g, true)
		loss := graph.ReduceAllSum(graph.Square(fn(store.RootScope(), in)[0]))
		var variables []*graph.Node
		paths = nil
		for v := range store.IterVariables() {
			if v.Trainable && v.InUseByGraph(g) && v.DType().IsFloat() {
				variables, paths = append(variables, v.NodeValue(g)), append(paths, v.Path())
			}
		}
		return graph.Gradient(loss, variables...)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call(inputs(x)...)
	if err != nil {
		t.Fatal(err)
	}
	result := map[string]*tensors.Tensor{}
	for i, path := range paths {
		result[path] = out[i]
	}
	return result
}

// close tells whether two tensors are equal within what float32 allows.
func near(t *testing.T, what string, want, got *tensors.Tensor) {
	t.Helper()
	if !want.Shape().Equal(got.Shape()) {
		t.Errorf("%s: shape %s, want %s", what, got.Shape(), want.Shape())
		return
	}
	diff, largest, err := difference(want, got)
	if err != nil {
		t.Fatal(err)
	}
	if tolerance := 1e-4 * math.Max(1, largest); !(diff <= tolerance) {
		t.Errorf("%s: differs by %.3g, of values up to %.3g", what, diff, largest)
	}
}

// prove holds a smaller network against the masked one: outputs for two batch sizes, gradients, what is updated in training; and a plan that removes nothing against the original.
func prove(t *testing.T, b compute.Backend, fn trace.ModelFn, dims ...int) (*Network, *Small) {
	t.Helper()
	return proveGradient(t, b, fn, true, dims...)
}

// proveGradient does so for networks of which GoMLX has no gradient, too: the gradient of the smaller one is then held against that of the original one built again.
func proveGradient(t *testing.T, b compute.Backend, fn trace.ModelFn, differentiable bool, dims ...int) (*Network, *Small) {
	t.Helper()
	shape := func(batch int) shapes.Shape { return float(append([]int{batch}, dims...)...) }
	store := network(t, b, fn, shape(2))
	n, err := Trace(b, store, fn, shape(2))
	if err != nil {
		t.Fatal(err)
	}
	p := half(n, 3)
	small, err := p.Apply()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, n, strings.Join(n.Notes(), "\n"))
	}
	masked, err := p.Masked()
	if err != nil {
		t.Fatal(err)
	}
	cost, err := p.Cost()
	if err != nil {
		t.Fatal(err)
	}
	params := int64(0)
	for _, path := range n.analysis.order {
		if isParameter(path) {
			params += int64(small.Store.GetVariable(path).Shape().Size())
		}
	}
	if params != cost.Params {
		t.Errorf("%d parameters were planned, %d are left", cost.Params, params)
	}
	again, err := Trace(b, small.Store, small.ModelFn, shape(2))
	if err != nil {
		t.Fatal(err)
	}
	if again.Cost() != cost {
		t.Errorf("costs %+v were planned, it has %+v", cost, again.Cost())
	}
	t.Logf("%d groups, parameters %d -> %d, MACs %d -> %d", len(n.Groups()), n.Cost().Params, cost.Params, n.Cost().MACs, cost.MACs)
	for _, batch := range []int{2, 3} {
		x := noise(uint64(batch), shape(batch))
		want, got := call(t, b, masked, fn, false, x), call(t, b, small.Store, small.ModelFn, false, x)
		for i := range want {
			near(t, "output", want[i], got[i])
		}
	}
	removed, err := p.Indices()
	if err != nil {
		t.Fatal(err)
	}
	x := noise(7, shape(2))
	if !draws(n) {
		reference := fn
		if !differentiable {
			reference = whole(t, n).ModelFn
		}
		want, got := gradients(t, b, masked, reference, x), gradients(t, b, small.Store, small.ModelFn, x)
		if len(want) != len(got) {
			t.Errorf("%d gradients, want %d", len(got), len(want))
		}
		for path, g := range got {
			w, err := cut(want[path], removed[path], false)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "gradient of "+path, w, g)
		}
	}
	// The runs for the gradients have updated averages.
	for _, path := range n.analysis.order {
		v := small.Store.GetVariable(path)
		if v.Trainable || !v.DType().IsFloat() {
			continue
		}
		w, err := cut(masked.GetVariable(path).MustValue(), removed[path], false)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "update of "+path, w, v.MustValue())
	}
	same := whole(t, n)
	want, got := call(t, b, store, fn, false, x), call(t, b, same.Store, same.ModelFn, false, x)
	diff, _, err := difference(want[0], got[0])
	if err != nil || diff != 0 {
		t.Errorf("an empty plan changes the output by %v (%v)", diff, err)
	}
	second := half(again, 5)
	smaller, err := second.Apply()
	if err != nil {
		t.Fatalf("second surgery: %v", err)
	}
	if masked, err = second.Masked(); err != nil {
		t.Fatal(err)
	}
	want, got = call(t, b, masked, small.ModelFn, false, x), call(t, b, smaller.Store, smaller.ModelFn, false, x)
	near(t, "output after a second surgery", want[0], got[0])
	return n, small
}

// whole builds a network again without removing anything.
func whole(t *testing.T, n *Network) *Small {
	t.Helper()
	small, err := n.Empty().Apply()
	if err != nil {
		t.Fatal(err)
	}
	return small
}

// inUse yields the paths of the variables that the network reads.
func (n *Network) inUse() iter.Seq[string] { return slices.Values(n.analysis.order) }

// draws tells whether a network draws random numbers, so that two runs differ.
func draws(n *Network) bool {
	return slices.Contains(n.analysis.order, "/"+model.RNGStateVariableName)
}

type randSource = rand.Rand

func typeName(err error) string { return fmt.Sprintf("%T", err) }

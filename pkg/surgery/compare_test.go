package surgery_test

import (
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

func shapesOf(inputs []*tensors.Tensor) []shapes.Shape {
	all := make([]shapes.Shape, len(inputs))
	for i, x := range inputs {
		all[i] = x.Shape()
	}
	return all
}

// values of a store, byte by byte, to see that it is not touched.
func values(t *testing.T, store *model.Store) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for v := range store.IterVariables() {
		x, err := v.Value()
		if err != nil {
			t.Fatalf("%s: %v", v.Path(), err)
		}
		if err := x.ConstBytes(func(data []byte) { all[v.Path()] = slices.Clone(data) }); err != nil {
			t.Fatalf("%s: %v", v.Path(), err)
		}
	}
	return all
}

// floats returns the values of a tensor of either precision.
func floats(t *testing.T, x *tensors.Tensor) []float64 {
	t.Helper()
	var result []float64
	if err := x.ConstFlatData(func(flat any) {
		switch data := flat.(type) {
		case []float32:
			for _, v := range data {
				result = append(result, float64(v))
			}
		case []float64:
			result = slices.Clone(data)
		case []int32:
			for _, v := range data {
				result = append(result, float64(v))
			}
		case []uint64:
			for _, v := range data {
				result = append(result, float64(v))
			}
		default:
			t.Errorf("a tensor of %T", flat)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return result
}

// keeps tells which flat positions of a variable survive, one by one from their indices: not as the code under test does it.
func keeps(dims []int, removed map[int][]int) []bool {
	size := 1
	for _, d := range dims {
		size *= d
	}
	kept := make([]bool, size)
	for at := range kept {
		rest, stays := at, true
		for axis := len(dims) - 1; axis >= 0; axis-- {
			stays = stays && !slices.Contains(removed[axis], rest%dims[axis])
			rest /= dims[axis]
		}
		kept[at] = stays
	}
	return kept
}

func only(xs []float64, kept []bool) []float64 {
	var left []float64
	for i, x := range xs {
		if kept[i] {
			left = append(left, x)
		}
	}
	return left
}

// copied is a store of its own with the same values, those of removed indices zero.
func copied(t *testing.T, store *model.Store, removed map[string]map[int][]int) *model.Store {
	t.Helper()
	to := model.NewStore()
	for v := range store.IterVariables() {
		x, err := v.Value()
		if err != nil {
			t.Fatal(err)
		}
		if x, err = x.LocalClone(); err != nil {
			t.Fatal(err)
		}
		if cut := removed[v.Path()]; cut != nil {
			kept := keeps(x.Shape().Dimensions, cut)
			if err := x.MutableFlatData(func(flat any) {
				for i, stays := range kept {
					switch data := flat.(type) {
					case []float32:
						if !stays {
							data[i] = 0
						}
					case []float64:
						if !stays {
							data[i] = 0
						}
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		made, err := to.CreateVariable(v.Path(), x)
		if err != nil {
			t.Fatal(err)
		}
		made.SetTrainable(v.Trainable)
	}
	return to
}

// run calls a model function in inference, with the values of each of some stores of the same variables. It is compiled once.
func run(t *testing.T, b compute.Backend, fn trace.ModelFn, inputs []*tensors.Tensor, stores ...*model.Store) [][][]float64 {
	t.Helper()
	store := stores[0]
	if len(stores) > 1 {
		store = copied(t, store, nil)
	}
	exec, err := model.NewExec(b, store, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		store.SetTraining(in[0].Graph(), false)
		return fn(store.RootScope(), in)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	var results [][][]float64
	for i, from := range stores {
		if i > 0 {
			for v := range store.IterVariables() {
				value, err := from.GetVariable(v.Path()).MustValue().LocalClone()
				if err == nil {
					err = v.SetValue(value)
				}
				if err != nil {
					t.Fatalf("%s: %v", v.Path(), err)
				}
			}
		}
		outputs, err := call(t, exec, inputs)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, outputs)
	}
	return results
}

func call(t *testing.T, exec *model.Exec, inputs []*tensors.Tensor) ([][]float64, error) {
	t.Helper()
	arguments := make([]any, len(inputs))
	for i, x := range inputs {
		arguments[i] = x
	}
	outputs, err := exec.Call(arguments...)
	if err != nil {
		return nil, err
	}
	results := make([][]float64, len(outputs))
	for i, y := range outputs {
		results[i] = floats(t, y)
	}
	return results, nil
}

// learn calls a model function in training, and returns its outputs and, if wanted, the gradients of a function of them, by variable. It sets what training sets.
func learn(t *testing.T, b compute.Backend, fn trace.ModelFn, inputs []*tensors.Tensor, store *model.Store, gradient bool) (outputs [][]float64, gradients map[string][]float64, err error) {
	t.Helper()
	var paths []string
	count := 0
	exec, err := model.NewExec(b, store, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		g := in[0].Graph()
		store.SetTraining(g, true)
		y := fn(store.RootScope(), in)
		count = len(y)
		if !gradient {
			return y
		}
		var loss *graph.Node
		for _, x := range y { // weights of all signs, so that nothing cancels
			weight := graph.Cos(graph.Iota(g, shapes.Make(x.DType(), x.Shape().Size()), 0))
			term := graph.ReduceAllSum(graph.Mul(graph.Square(x), graph.Reshape(weight, x.Shape().Dimensions...)))
			if loss == nil {
				loss = term
			} else {
				loss = graph.Add(loss, term)
			}
		}
		var nodes []*graph.Node
		paths = nil
		for v := range store.IterVariables() {
			if v.Trainable && v.InUseByGraph(g) && v.DType().IsFloat() {
				paths = append(paths, v.Path())
				nodes = append(nodes, v.NodeValue(g))
			}
		}
		return append(y, graph.Gradient(loss, nodes...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	all, err := call(t, exec, inputs)
	if err != nil {
		return nil, nil, err
	}
	gradients = map[string][]float64{}
	for i, path := range paths {
		gradients[path] = all[count+i]
	}
	return all[:count], gradients, nil
}

// distance is the largest difference, relative to the largest value of either. It is infinite where anything is not a number.
func distance(want, got []float64) float64 {
	if len(want) != len(got) {
		return math.Inf(1)
	}
	difference, size := 0.0, 0.0
	for i := range want {
		if math.IsNaN(want[i]) || math.IsNaN(got[i]) || math.IsInf(want[i], 0) || math.IsInf(got[i], 0) {
			return math.Inf(1)
		}
		difference = max(difference, math.Abs(want[i]-got[i]))
		size = max(size, math.Abs(want[i]), math.Abs(got[i]))
	}
	return difference / max(size, 1e-3)
}

func furthest(want, got [][]float64) float64 {
	if len(want) != len(got) {
		return math.Inf(1)
	}
	worst := 0.0
	for i := range want {
		worst = max(worst, distance(want[i], got[i]))
	}
	return worst
}

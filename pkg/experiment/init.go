package experiment

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
)

// Init creates the model's variables and gives them their first values, deterministic by seed.
//
// Variables that the model leaves to GoMLX's default initialiser get their values from the host: kernels by Task.Start, which is GoMLX's own
// distribution unless it is set, and zeros for vectors. Each value depends on the seed and on the variable's
// path only, so it does not change when another layer is added. A model's own initialisers are left to GoMLX, which draws for one variable
// after the other, in the order in which the model makes them. Both give the same bits on every backend.
func Init(task Task, seed int64) (*model.Store, error) {
	task, err := task.complete()
	if err != nil {
		return nil, err
	}
	store := model.NewStore()
	store.RootScope().SetParam(model.ParamInitialSeed, seed)
	err = guard.Run("initialise", func() error {
		x, err := example(task)
		if err != nil {
			return err
		}
		// Variables with the default initialiser are found by the mark that this one leaves: no network starts from NaN.
		marked := store.RootScope().WithInitializer(func(g *graph.Graph, shape shapes.Shape) *graph.Node {
			if !shape.DType.IsFloat() {
				return graph.Zeros(g, shape)
			}
			return graph.BroadcastToShape(graph.ConstAsDType(g, shape.DType, math.NaN()), shape)
		})
		buildForward(task, store, marked, x)
		if err := initialise(store); err != nil {
			return err
		}
		for v := range store.IterVariables() {
			if err := replaceMark(v, task.Start, seed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return store, nil
}

// initialise gives first values to the variables that have none. GoMLX's initialisers run on its pure Go backend: XLA compiles a random number
// generator for as long as it does a training step, and draws other bits on other devices.
func initialise(store *model.Store) error {
	// A tensor can't be used by two backends; on the host it belongs to none.
	toHost := func() error {
		for v := range store.IterVariables() {
			if !v.HasValue() {
				continue
			}
			value, err := v.Value()
			if err != nil {
				return err
			}
			if err := value.ToLocal(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := toHost(); err != nil {
		return err
	}
	if err := store.InitializeVariables(gobackend.GetBackend(), nil); err != nil {
		return err
	}
	return toHost()
}

// example returns the shape of one batch as the model sees it.
func example(task Task) (func(g *graph.Graph) *graph.Node, error) {
	for _, ds := range []train.Dataset{task.Train, task.Validation, task.Test} {
		if r, ok := ds.(Resident); ok {
			inputs, _ := r.Arrays()
			shape := inputs.Shape().Clone()
			shape.Dimensions[0] = max(1, min(r.Batch(), shape.Dimensions[0]))
			return func(g *graph.Graph) *graph.Node { return r.Decode(graph.Parameter(g, "examples", shape)) }, nil
		}
	}
	for _, ds := range []train.Dataset{task.Train, task.Validation, task.Test} {
		if ds == nil {
			continue
		}
		for batch, err := range ds.Iter() {
			if err != nil {
				return nil, fmt.Errorf("data set %q: %w", ds.Name(), err)
			}
			if err := usable(ds, batch); err != nil {
				return nil, err
			}
			shape := batch.Inputs[0].Shape()
			if err := batch.Finalize(); err != nil {
				return nil, err
			}
			return func(g *graph.Graph) *graph.Node { return graph.Parameter(g, "examples", shape) }, nil
		}
	}
	return nil, ErrNoData
}

// buildForward builds the forward pass in a graph that is never compiled, which creates the model's variables.
func buildForward(task Task, store *model.Store, scope *model.Scope, input func(*graph.Graph) *graph.Node) {
	g := graph.NewGraph(task.Backend, "create variables")
	defer g.Finalize()
	model.SetStore(g, store)
	store.SetTraining(g, true)
	task.Model(scope, input(g))
}

// Initializer draws the first values of a kernel: it is given the number of inputs of each of its outputs (fan-in) and of outputs of each of its inputs (fan-out), and
// returns what draws a value.
type Initializer func(fanIn, fanOut int, rng *rand.Rand) (draw func() float64)

// HeNormal is normal with deviation √(2/fan-in). He et al. 2015, arXiv:1502.01852, equation 10; GoMLX's default.
func HeNormal(fanIn, _ int, rng *rand.Rand) func() float64 {
	return normal(math.Sqrt(2/float64(fanIn)), rng)
}

// GlorotNormal is normal with deviation √(2/(fan-in + fan-out)). Glorot & Bengio 2010, equation 12.
func GlorotNormal(fanIn, fanOut int, rng *rand.Rand) func() float64 {
	return normal(math.Sqrt(2/float64(fanIn+fanOut)), rng)
}

func normal(deviation float64, rng *rand.Rand) func() float64 {
	return func() float64 { return deviation * rng.NormFloat64() }
}

// replaceMark gives a variable that is all NaN its first values.
func replaceMark(v *model.Variable, start Initializer, seed int64) error {
	shape := v.Shape()
	if !shape.DType.IsFloat() || shape.Size() == 0 {
		return nil
	}
	value, err := v.Value()
	if err != nil {
		return err
	}
	isMarked := false
	if err := value.ConstFlatData(func(flat any) {
		switch data := flat.(type) {
		case []float32:
			isMarked = math.IsNaN(float64(data[0]))
		case []float64:
			isMarked = math.IsNaN(data[0])
		case []bfloat16.BFloat16:
			isMarked = math.IsNaN(float64(data[0].Float32()))
		case []float16.Float16:
			isMarked = math.IsNaN(float64(data[0].Float32()))
		}
	}); err != nil || !isMarked {
		return err
	}
	next := func() float64 { return 0 }
	if rank := shape.Rank(); rank > 1 {
		receptive := 1 // dense [in, out], convolution [spatial…, in, out]
		for _, d := range shape.Dimensions[:rank-2] {
			receptive *= d
		}
		rng := rand.New(rand.NewPCG(uint64(seed), pathHash(v.Path())))
		next = start(receptive*shape.Dimensions[rank-2], receptive*shape.Dimensions[rank-1], rng)
	}
	switch shape.DType {
	case dtypes.Float32:
		return v.SetValue(tensors.FromFlatDataAndDimensions(fill(shape.Size(), next, func(x float64) float32 { return float32(x) }), shape.Dimensions...))
	case dtypes.Float64:
		return v.SetValue(tensors.FromFlatDataAndDimensions(fill(shape.Size(), next, func(x float64) float64 { return x }), shape.Dimensions...))
	case dtypes.BFloat16:
		return v.SetValue(tensors.FromFlatDataAndDimensions(fill(shape.Size(), next, bfloat16.FromFloat64), shape.Dimensions...))
	case dtypes.Float16:
		return v.SetValue(tensors.FromFlatDataAndDimensions(fill(shape.Size(), next, float16.FromFloat64), shape.Dimensions...))
	}
	return fmt.Errorf("variable %q has type %s, which has no default initialiser here: give it one with Scope.WithInitializer, or use float32", v.Path(), shape.DType)
}

func fill[T gotype.Supported](n int, next func() float64, as func(float64) T) []T {
	values := make([]T, n)
	for i := range values {
		values[i] = as(next())
	}
	return values
}

func pathHash(path string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(path))
	return h.Sum64()
}

// sorted returns the store's variables by path: a store's own order is that of their making.
func sorted(store *model.Store) []*model.Variable {
	return slices.SortedFunc(store.IterVariables(), func(a, b *model.Variable) int { return strings.Compare(a.Path(), b.Path()) })
}

// Package fill gives networks values with which mistakes show: no variable is constant, zero or one, batch statistics neither.
package fill

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Normal returns normally distributed floats of a standard deviation.
func Normal(seed uint64, deviation float64, dims ...int) *tensors.Tensor {
	rng := rand.New(rand.NewPCG(seed, 1))
	values := make([]float32, size(dims))
	for i := range values {
		values[i] = float32(deviation * rng.NormFloat64())
	}
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

// Tokens returns integers below a limit.
func Tokens(seed uint64, limit int, dims ...int) *tensors.Tensor {
	rng := rand.New(rand.NewPCG(seed, 2))
	values := make([]int32, size(dims))
	for i := range values {
		values[i] = rng.Int32N(int32(limit))
	}
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

// Store returns a store with all variables that a model function uses in either phase, which depend on the seed and their paths only.
func Store(b compute.Backend, fn trace.ModelFn, seed uint64, inputs ...shapes.Shape) (*model.Store, error) {
	store := model.NewStore()
	for _, training := range []bool{false, true} {
		err := guard.Run("building the network", func() error {
			g := graph.NewGraph(b, "fill")
			defer g.Finalize()
			model.SetStore(g, store)
			store.SetTraining(g, training)
			var nodes []*graph.Node
			for i, s := range inputs {
				nodes = append(nodes, graph.Parameter(g, fmt.Sprint("input", i), s))
			}
			fn(store.RootScope(), nodes)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	paths := map[string]*model.Variable{}
	for v := range store.IterVariables() {
		paths[v.Path()] = v
	}
	for path, v := range paths {
		if v.DType() != dtypes.Float32 {
			continue // the state of the random number generator: it has a value
		}
		if err := v.SetValue(values(seed, path, v.Shape().Dimensions)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return store, nil
}

// values of a variable, of a range that its name suggests.
func values(seed uint64, path string, dims []int) *tensors.Tensor {
	h := fnv.New64a()
	h.Write([]byte(path))
	rng := rand.New(rand.NewPCG(seed, h.Sum64()))
	n := size(dims)
	name := path[strings.LastIndexByte(path, '/')+1:]
	deviation := 0.3
	if len(dims) > 1 {
		deviation = math.Sqrt(2 * float64(slices.Max(dims)) / float64(n)) // about the number of inputs of a unit
		deviation = min(deviation, 1)
	}
	data := make([]float32, n)
	for i := range data {
		switch name {
		case "scale", "gain", "variance", "alpha":
			data[i] = 0.5 + rng.Float32()
		case "avg_weight":
			data[i] = 3 // an average over as many batches
		default:
			data[i] = float32(deviation * rng.NormFloat64())
		}
	}
	if strings.Contains(name, "split_points") { // they have to rise along the last axis
		last := dims[len(dims)-1]
		for i := 0; i < n; i += last {
			slices.Sort(data[i : i+last])
		}
	}
	return tensors.FromFlatDataAndDimensions(data, dims...)
}

func size(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

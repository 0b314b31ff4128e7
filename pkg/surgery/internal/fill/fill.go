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

// Normal returns normally distributed floats, of single or double precision.
func Normal(seed uint64, shape shapes.Shape) *tensors.Tensor {
	rng := rand.New(rand.NewPCG(seed, 1))
	values := make([]float64, shape.Size())
	for i := range values {
		values[i] = rng.NormFloat64()
	}
	return tensor(values, shape)
}

// tensor of values that are rounded to single precision if that is what the shape says.
func tensor(values []float64, shape shapes.Shape) *tensors.Tensor {
	if shape.DType == dtypes.Float64 {
		return tensors.FromFlatDataAndDimensions(values, shape.Dimensions...)
	}
	rounded := make([]float32, len(values))
	for i, x := range values {
		rounded[i] = float32(x)
	}
	return tensors.FromFlatDataAndDimensions(rounded, shape.Dimensions...)
}

// Tokens returns integers below a limit.
func Tokens(seed uint64, limit int, dims ...int) *tensors.Tensor {
	rng := rand.New(rand.NewPCG(seed, 2))
	values := make([]int32, shapes.Make(dtypes.Int32, dims...).Size())
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
		if !v.DType().IsFloat() {
			continue // the state of the random number generator: it has a value
		}
		if err := v.SetValue(values(seed, path, v.Shape())); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return store, nil
}

// values of a variable, of a range that its name suggests.
func values(seed uint64, path string, shape shapes.Shape) *tensors.Tensor {
	h := fnv.New64a()
	h.Write([]byte(path))
	rng := rand.New(rand.NewPCG(seed, h.Sum64()))
	name := path[strings.LastIndexByte(path, '/')+1:]
	deviation := 0.3
	if shape.Rank() > 1 {
		outputs := slices.Max(shape.Dimensions) // about
		deviation = min(1, math.Sqrt(2*float64(outputs)/float64(shape.Size())))
	}
	data := make([]float64, shape.Size())
	for i := range data {
		switch name {
		case "scale", "gain", "variance", "alpha":
			data[i] = 0.5 + rng.Float64()
		case "avg_weight":
			data[i] = 3 // an average over as many batches
		default:
			data[i] = deviation * rng.NormFloat64()
		}
	}
	if strings.Contains(name, "split_points") { // they have to rise along the last axis
		last := shape.Dim(-1)
		for i := 0; i < len(data); i += last {
			slices.Sort(data[i : i+last])
		}
	}
	return tensor(data, shape)
}

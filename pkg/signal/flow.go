package signal

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/criterion"
)

// collectFlow collects ∂R/∂|w|, where R is the sum of the outputs for one input of ones, in the network whose variables all are absolute.
//
// R grows with every layer and leaves the range of float32 in deep networks. Where it does, all matrices are divided by what one input of ones makes of
// them on average, and vectors that are added are left out: then R is of first order in each layer, so that every product w·∂R/∂w is
// multiplied by the same factor.
func (s *Signals) collectFlow(criterion.Needs) error {
	for _, scaled := range []bool{false, true} {
		finite, err := s.flow(scaled)
		if err != nil || finite {
			return err
		}
	}
	return fmt.Errorf("the flow is not finite, even in scaled layers: a variable holds a NaN or an infinity, or the network grows otherwise than by its weights")
}

func (s *Signals) flow(scaled bool) (finite bool, err error) {
	example, err := s.example()
	if err != nil {
		return false, err
	}
	store := s.source.Store
	var used []*model.Variable // by the network: those of optimizers come and go
	s.probe(example.Shape(), func(g *graph.Graph) {
		for v := range store.IterVariables() {
			if v.DType().IsFloat() && v.HasValue() && v.InUseByGraph(g) {
				used = append(used, v)
			}
		}
	})
	exec, err := s.exec(fmt.Sprintf("flow, scaled %t", scaled), func(in []*graph.Node) []*graph.Node {
		g := in[0].Graph()
		store.SetTraining(g, false)
		// Variables are replaced before the network is built, and given back after: their values do not change.
		replaced, original := map[*model.Variable]*graph.Node{}, map[*model.Variable]*graph.Node{}
		for _, v := range used {
			original[v] = v.NodeValue(g)
			w := graph.Abs(original[v])
			if scaled {
				switch {
				case v.Shape().Rank() >= 2:
					d := v.Shape().Dimensions
					perOutput := graph.DivScalar(graph.ReduceAllSum(w), float64(d[len(d)-1])) // what an output gets from inputs of 1
					w = graph.Div(w, graph.Max(perOutput, graph.Scalar(g, w.DType(), 1e-30)))
				case v.Name() == "biases" || v.Name() == "offset" || v.Name() == "mean":
					w = graph.ZerosLike(w)
				}
			}
			v.SetNodeValue(w)
			replaced[v] = w
		}
		r := graph.ReduceAllSum(s.source.Model(store.RootScope(), graph.OnesLike(in[0])))
		var weights []*graph.Node
		for _, p := range s.set {
			weights = append(weights, replaced[store.GetVariable(p.Path)])
		}
		grads := graph.Gradient(r, weights...)
		for v, node := range original {
			v.SetNodeValue(node)
		}
		if scaled { // |w| is the scaled weight times a factor; so is the product with it
			for i, p := range s.set {
				w := original[store.GetVariable(p.Path)]
				d := p.Shape.Dimensions
				perOutput := graph.DivScalar(graph.ReduceAllSum(graph.Abs(w)), float64(d[len(d)-1]))
				grads[i] = graph.Div(grads[i], graph.Max(perOutput, graph.Scalar(g, w.DType(), 1e-30)))
			}
		}
		return grads
	})
	if err != nil {
		return false, err
	}
	results, err := exec.Call(example)
	if err != nil {
		return false, err
	}
	finite = true
	for i, r := range results {
		values, err := tensors.CopyFlatData[float32](r)
		if err != nil {
			return false, err
		}
		for _, x := range values {
			finite = finite && !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0)
		}
		s.put(criterion.NeedFlow, s.set[i].Path, values)
		if err := r.FinalizeAll(); err != nil {
			return false, err
		}
	}
	return finite, nil
}

// example returns one input of the network, for its shape: [1, …].
func (s *Signals) example() (*tensors.Tensor, error) {
	if len(s.batches) > 0 {
		return ones(s.batches[0].x.Shape()), nil
	}
	if s.source.Data == nil {
		return nil, fmt.Errorf("the flow needs the shape of an input: %w", ErrNoData)
	}
	first, err := read(s.source.Data, 1)
	if err != nil {
		return nil, err
	}
	return ones(first[0].x.Shape()), nil
}

func ones(batch shapes.Shape) *tensors.Tensor {
	dims := append([]int{1}, batch.Dimensions[1:]...)
	if batch.DType == dtypes.Float64 {
		return tensors.FromScalarAndDimensions(float64(1), dims...)
	}
	return tensors.FromScalarAndDimensions(float32(1), dims...)
}

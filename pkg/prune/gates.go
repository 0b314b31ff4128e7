package prune

import (
	"fmt"
	"math"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/internal/scoring"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// Gates puts a hard concrete gate on each unit of a network's parameters, so that training learns which to open: the criterion L0 reads them. Louizos et al. 2018,
// arXiv:1712.01312, equations 10 to 13, with their β = 2/3, γ = −0.1, ζ = 1.1.
//
// Train a store with the network that Model returns; its weights are multiplied by gates that are drawn anew in each step. Then prune it with
// criterion.L0 and go on with the network itself.
type Gates struct {
	Unit unit.Unit // what a gate is on. Default: unit.InChannel, as in the paper
	// Penalty is λ, the price of an open gate, over the number of training examples. Default: 1e-4
	Penalty float64
	// Open is the share of gates that are open at first. Default: 0.9
	Open float64
}

// gateScope is where the gates lie: log α, with an axis of extent 1 for each axis along which a unit extends.
const gateScope = scoring.GateScope

const (
	gateBeta        = 2.0 / 3
	gateLow, gateUp = -0.1, 1.1 // γ and ζ
)

// Model returns the network with gates on the parameters of a set. In inference each gate has its mean value. Units must be whole along the axes on
// which they extend at all: no blocks and heads; the error is a *RecipeError.
func (c Gates) Model(store *model.Store, set params.Set, fn func(*model.Scope, *graph.Node) *graph.Node) (func(*model.Scope, *graph.Node) *graph.Node, error) {
	if c.Unit.Name == "" {
		c.Unit = unit.InChannel
	}
	if c.Penalty == 0 {
		c.Penalty = 1e-4
	}
	if c.Open == 0 {
		c.Open = 0.9
	}
	if c.Penalty < 0 || math.IsNaN(c.Penalty) || !(c.Open > 0 && c.Open < 1) {
		return nil, &RecipeError{"gates", fmt.Sprintf("Penalty is %v and Open is %v", c.Penalty, c.Open), "give a positive penalty and a share between 0 and 1"}
	}
	dims := make([][]int, len(set)) // of each parameter's gates
	for i, p := range set {
		layout, err := c.Unit.Of(p)
		if err != nil {
			return nil, err
		}
		n := 1
		for axis, size := range p.Shape.Dimensions {
			if layout.Spans(axis) {
				size = 1
			}
			dims[i] = append(dims[i], size) // of log α
			n *= size
		}
		if n != layout.Count || c.Unit.M != 0 {
			return nil, &RecipeError{"gates", fmt.Sprintf("unit %q divides axes of %s", c.Unit.Name, p.Path), "use elements, filters, input channels or kernels"}
		}
		if store.GetVariable(p.Path) == nil {
			return nil, &params.UnknownPathError{Path: p.Path, Known: params.Select(store, nil).Paths()}
		}
	}
	for i, p := range set {
		if store.GetVariable(gateScope+p.Path) == nil {
			start := float32(math.Log(c.Open / (1 - c.Open)))
			if _, err := store.CreateVariable(gateScope+p.Path, tensors.FromScalarAndDimensions(start, dims[i]...)); err != nil {
				return nil, err
			}
		}
	}
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		g := x.Graph()
		training := store.IsTraining(g)
		weights := make([]*graph.Node, len(set))
		for i, p := range set {
			v := store.GetVariable(p.Path)
			weights[i] = v.NodeValue(g)
			logAlpha := store.GetVariable(gateScope + p.Path).NodeValue(g)
			if training {
				open := graph.Sigmoid(graph.AddScalar(logAlpha, -gateBeta*math.Log(-gateLow/gateUp)))
				train.AddRegularizationLoss(graph.MulScalar(graph.ReduceAllSum(open), c.Penalty*float64(p.Size()/logAlpha.Shape().Size())))
			}
			v.SetNodeValue(graph.Mul(weights[i], hardConcrete(scope, logAlpha, training))) // [units] spread over [p.Shape]
		}
		logits := fn(scope, x)
		for i, p := range set { // the optimizer changes the weights, not their products with the gates
			store.GetVariable(p.Path).SetNodeValue(weights[i])
		}
		return logits
	}, nil
}

// hardConcrete draws gates, or gives their mean values.
func hardConcrete(scope *model.Scope, logAlpha *graph.Node, training bool) *graph.Node {
	s := logAlpha
	if training {
		u := graph.ClipScalar(scope.RandomUniform(logAlpha.Graph(), logAlpha.Shape()), 1e-6, 1-1e-6)
		s = graph.DivScalar(graph.Add(graph.Sub(graph.Log(u), graph.Log(graph.OneMinus(u))), logAlpha), gateBeta)
	}
	return graph.ClipScalar(graph.AddScalar(graph.MulScalar(graph.Sigmoid(s), gateUp-gateLow), gateLow), 0, 1)
}

package prune

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
)

// masked is an optimizer after whose every step dead weights are zero.
//
// The inner optimizer sees the dense gradients, so that what grows weights back can look at its moments; the weights that it has made are masked,
// which costs less than masking weights and gradients on the way in and gives the same forward pass, weight decay and momentum included.
type masked struct {
	pruner *Pruner
	inner  optimizer.Interface
}

var (
	_ optimizer.Interface         = (*masked)(nil)
	_ train.OptimizeWithGradients = (*masked)(nil)
)

// Optimizer wraps an optimizer so that dead weights are exactly zero after every step. Several recipes may be wrapped around each other. It
// keeps all that it knows in the store's variables, so that it also works in the body of a loop.
func (p *Pruner) Optimizer(inner optimizer.Interface) (optimizer.Interface, error) {
	if inner == nil {
		return nil, &RecipeError{p.recipe.String(), "no optimizer to wrap", "give Pruner.Optimizer one, for instance optimizer.Adam().Done()"}
	}
	return &masked{p, inner}, nil
}

func (m *masked) UpdateGraph(scope *model.Scope, g *graph.Graph, loss *graph.Node) {
	m.inner.UpdateGraph(scope, g, loss)
	m.mask(g)
}

func (m *masked) UpdateGraphWithGradients(scope *model.Scope, grads []*graph.Node, lossDType dtypes.DType) {
	inner, ok := m.inner.(train.OptimizeWithGradients)
	if !ok {
		exceptions.Panicf("the optimizer %T that prune wraps can't take gradients, which gradient accumulation needs: use another, such as Adam", m.inner)
	}
	inner.UpdateGraphWithGradients(scope, grads, lossDType)
	if len(grads) > 0 {
		m.mask(grads[0].Graph())
	}
}

func (m *masked) Clear(scope *model.Scope) error { return m.inner.Clear(scope) }

func (m *masked) mask(g *graph.Graph) {
	for _, param := range m.pruner.set {
		v, alive := m.pruner.nodes(g, param)
		v.SetNodeValue(mask.Apply(v.NodeValue(g), alive))
	}
}

// nodes returns a parameter's variable and its mask in a graph.
func (p *Pruner) nodes(g *graph.Graph, param params.Param) (weights *model.Variable, alive *graph.Node) {
	m, err := mask.Variable(p.store, param)
	if err != nil {
		panic(err) // in graph building, as GoMLX does
	}
	return p.store.GetVariable(param.Path), m.NodeValue(g)
}

// Leaks counts, for each parameter, the dead weights that are not zero at this place of a graph: int32 [len(Params())]. A training step that
// ends with it costs next to nothing more. It is a graph building function.
func (p *Pruner) Leaks(g *graph.Graph) *graph.Node {
	counts := make([]*graph.Node, len(p.set))
	for i, param := range p.set {
		v, alive := p.nodes(g, param)
		w := v.NodeValue(g)
		leak := graph.LogicalAnd(graph.LogicalNot(alive), graph.NotEqual(w, graph.ZerosLike(w)))
		counts[i] = graph.Reshape(graph.ReduceAllSum(graph.ConvertDType(leak, dtypes.Int32)), 1)
	}
	if len(counts) == 1 {
		return counts[0]
	}
	return graph.Concatenate(counts, 0)
}

package prune

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/scoring"
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
	if m.pruner.recipe.Criterion.Track != nil {
		// The same gradients as those of the inner optimizer, which the compiler computes once.
		var weights []*graph.Node
		for _, param := range m.pruner.set {
			weights = append(weights, m.pruner.store.GetVariable(param.Path).NodeValue(g))
		}
		for i, grad := range graph.Gradient(loss, weights...) {
			m.track(m.pruner.set[i], grad)
		}
	}
	m.inner.UpdateGraph(scope, g, loss)
	m.mask(g)
}

func (m *masked) UpdateGraphWithGradients(scope *model.Scope, grads []*graph.Node, lossDType dtypes.DType) {
	inner, ok := m.inner.(train.OptimizeWithGradients)
	if !ok {
		exceptions.Panicf("the optimizer %T that prune wraps can't take gradients, which gradient accumulation needs: use another, such as Adam", m.inner)
	}
	if m.pruner.recipe.Criterion.Track != nil && len(grads) > 0 {
		i := 0 // gradients come in the order of the trainable variables of the graph
		for v := range scope.IterVariables() {
			if !v.Trainable || !v.InUseByGraph(grads[0].Graph()) {
				continue
			}
			for _, param := range m.pruner.set {
				if param.Path == v.Path() {
					m.track(param, grads[i])
				}
			}
			i++
		}
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

// trackScope is where lies what a criterion tracks.
const trackScope = scoring.TrackScope

// track lets the criterion see a step's gradient, before the weights change.
func (m *masked) track(param params.Param, grad *graph.Node) {
	p, g := m.pruner, grad.Graph()
	v := p.store.GetVariable(trackScope + param.Path)
	if v == nil {
		var err error
		if v, err = p.store.CreateVariable(trackScope+param.Path, tensors.FromShape(param.Shape)); err != nil {
			panic(err) // in graph building, as GoMLX does
		}
	}
	v.SetTrainable(false)
	next := p.recipe.Criterion.Track(criterion.Inputs{
		Param: param, Weight: p.store.GetVariable(param.Path).NodeValue(g), Grad: grad, Track: v.NodeValue(g),
	})
	if !next.Shape().Equal(param.Shape) {
		panic(&ScoreError{Criterion: p.recipe.Criterion.Name, Path: param.Path, Problem: fmt.Sprintf("what it tracks has shape %s, expected that of the weights, %s", next.Shape(), param.Shape)})
	}
	v.SetNodeValue(next)
}

// Unsealed returns the parameters whose last value in a graph is not what a mask of this pruner has let through: after a training step has been built with the
// optimizer that Optimizer returns there are none, unless something else has written to them since. A step without any can't leave a
// dead weight other than zero.
func (p *Pruner) Unsealed(g *graph.Graph) []string {
	var open []string
	for _, param := range p.set {
		v, alive := p.nodes(g, param)
		node := v.NodeValue(g)
		for node.Type() == graph.NodeTypeWhere && node.Inputs()[0] != alive {
			node = node.Inputs()[1] // the mask of a pruner around this one
		}
		if node.Type() != graph.NodeTypeWhere {
			open = append(open, param.Path)
		}
	}
	return open
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

package structured

import (
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/initializer"
)

// Methods train some variables of a copy by a rule of their own each, so the rules are written out here. What they keep lies in the copy.

// slot is what a rule keeps for a variable, 0 at first.
func slot(store *model.Store, v *model.Variable, name string) *model.Variable {
	return store.VariableWithShape("/structured/"+name+v.Path(), shapes.Make(v.DType(), v.Shape().Dimensions...), initializer.Zero).SetTrainable(false)
}

// adam returns the next value of a variable: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1, with ε = 1e-8. step counts from 1.
func adam(store *model.Store, v *model.Variable, value, grad, step *graph.Node, rate, beta1, beta2 float64) *graph.Node {
	g := value.Graph()
	first, second := slot(store, v, "first"), slot(store, v, "second")
	m := graph.Add(graph.MulScalar(first.NodeValue(g), beta1), graph.MulScalar(grad, 1-beta1))
	s := graph.Add(graph.MulScalar(second.NodeValue(g), beta2), graph.MulScalar(graph.Square(grad), 1-beta2))
	first.SetNodeValue(m)
	second.SetNodeValue(s)
	step = graph.ConvertDType(step, value.DType())
	unbiased := func(x *graph.Node, beta float64) *graph.Node {
		return graph.Div(x, graph.OneMinus(graph.Pow(graph.Scalar(g, x.DType(), beta), step)))
	}
	change := graph.Div(unbiased(m, beta1), graph.AddScalar(graph.Sqrt(unbiased(s, beta2)), 1e-8))
	return graph.Sub(value, graph.MulScalar(change, rate))
}

// sgd returns the next value of a variable: v ← µ·v + g + d·w, w ← w − η·v, as experiment.SGD does. rate is η.
func sgd(store *model.Store, v *model.Variable, value, grad, rate *graph.Node, momentum, decay float64) *graph.Node {
	velocity := slot(store, v, "velocity")
	next := graph.Add(graph.MulScalar(velocity.NodeValue(value), momentum), graph.Add(grad, graph.MulScalar(value, decay)))
	velocity.SetNodeValue(next)
	return graph.Sub(value, graph.Mul(graph.ConvertDType(rate, value.DType()), next))
}

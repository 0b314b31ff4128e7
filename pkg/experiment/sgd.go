package experiment

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/initializer"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"
)

// SGD is stochastic gradient descent with momentum, which GoMLX lacks: v ← µv + g + λw, w ← w − ηv, or with Nesterov w ← w − η(µv + g + λw), as in
// PyTorch (Sutskever et al. 2013, with the learning rate outside of v). Give Training.Optimizer a pointer to one.
type SGD struct {
	LearningRate float64 // η. Default: 0.1
	Momentum     float64 // µ. Default: 0, plain descent
	Nesterov     bool
	WeightDecay  float64 // λ, on all trainable variables. Default: 0
}

var (
	_ optimizer.Interface         = (*SGD)(nil)
	_ train.OptimizeWithGradients = (*SGD)(nil)
)

const velocityScope = "/optimizers/velocity"

// UpdateGraph implements optimizer.Interface.
func (o *SGD) UpdateGraph(scope *model.Scope, g *graph.Graph, loss *graph.Node) {
	o.UpdateGraphWithGradients(scope, scope.BuildTrainableVariablesGradientsGraph(loss), loss.DType())
}

// UpdateGraphWithGradients implements train.OptimizeWithGradients: the gradients are those of the graph's trainable variables, in the store's order.
func (o *SGD) UpdateGraphWithGradients(scope *model.Scope, grads []*graph.Node, lossDType dtypes.DType) {
	if len(grads) == 0 {
		return
	}
	g := grads[0].Graph()
	rate := o.LearningRate
	if rate == 0 {
		rate = 0.1
	}
	root := scope.Store().RootScope()
	optimizer.IncrementGlobalStep(g, dtypes.Int64)
	eta := optimizer.LearningRateVar(root, lossDType, rate).NodeValue(g)
	var trained []*model.Variable
	for v := range scope.Store().IterVariables() {
		if v.Trainable && v.InUseByGraph(g) {
			trained = append(trained, v)
		}
	}
	for i, v := range trained {
		w, step := v.NodeValue(g), grads[i]
		step = optimizer.ClipNaNsInGradients(scope, step)
		if o.WeightDecay != 0 {
			step = graph.Add(step, graph.MulScalar(w, o.WeightDecay))
		}
		if o.Momentum != 0 {
			velocity := o.velocity(scope.Store(), v)
			next := graph.Add(graph.MulScalar(velocity.NodeValue(g), o.Momentum), step)
			velocity.SetNodeValue(next)
			if o.Nesterov {
				step = graph.Add(graph.MulScalar(next, o.Momentum), step)
			} else {
				step = next
			}
		}
		step = optimizer.ClipStepByValue(scope, graph.Mul(step, graph.ConvertDType(eta, step.DType())))
		v.SetNodeValue(optimizer.ClipNaNsInUpdates(scope, w, graph.Sub(w, step)))
	}
}

func (o *SGD) velocity(store *model.Store, v *model.Variable) *model.Variable {
	return store.VariableWithShape(velocityScope+v.Path(), shapes.Make(v.DType(), v.Shape().Dimensions...), initializer.Zero).SetTrainable(false)
}

// Clear implements optimizer.Interface: it removes what the optimizer keeps in the store.
func (o *SGD) Clear(scope *model.Scope) error {
	store := scope.Store()
	if err := optimizer.DeleteGlobalStep(store); err != nil {
		return err
	}
	if err := store.DeleteVariablesInScope(velocityScope); err != nil {
		return fmt.Errorf("clear SGD: %w", err)
	}
	return nil
}

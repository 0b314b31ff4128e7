package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var lenet300 = Network{
	Name: "LeNet-300-100", Cite: "LeCun et al. 1998, doi:10.1109/5.726791", Input: []int{28, 28, 1}, Classes: 10, Params: 266_610, MACs: 266_200, Model: LeNet300,
}

// LeNet300 is LeNet-300-100 (LeCun et al. 1998, doi:10.1109/5.726791): two hidden layers of 300 and 100 units with ReLU (the original has tanh; the
// pruning literature has ReLU). It takes [batch, 28, 28, 1] or [batch, 784] and returns logits [batch, 10]. Scopes: fc1, fc2, output.
func LeNet300(scope *model.Scope, x *graph.Node) *graph.Node {
	x = flatten(images("LeNet300", x, 28, 28, 1)) // -> [batch, 784]
	x = relu(dense(scope, "fc1", x, 300))         // -> [batch, 300]
	x = relu(dense(scope, "fc2", x, 100))         // -> [batch, 100]
	return dense(scope, "output", x, 10)          // -> [batch, 10]
}

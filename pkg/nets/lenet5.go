package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var lenet5 = Network{
	Name: "LeNet-5", Cite: "the variant of Caffe; after LeCun et al. 1998, doi:10.1109/5.726791", Input: []int{28, 28, 1}, Classes: 10, Params: 431_080, MACs: 2_293_000, Model: LeNet5,
}

// LeNet5 is the LeNet-5 of Caffe, 20-50-500, which the pruning literature uses: no activation after the convolutions, ReLU after the
// first dense layer. It takes [batch, 28, 28, 1] or [batch, 784] and returns logits [batch, 10]. Scopes: conv1, conv2, fc1, output.
func LeNet5(scope *model.Scope, x *graph.Node) *graph.Node {
	return lenet5With(scope, x, func(x *graph.Node) *graph.Node { return x })
}

// LeNet5ReLU is LeNet5 with ReLU behind both convolutions. The code of many papers, such as that of Sparse Momentum, calls this the LeNet-5 of Caffe: their numbers are of this network.
// It takes [batch, 28, 28, 1] or [batch, 784] and returns logits [batch, 10]. Scopes: conv1, conv2, fc1, output.
func LeNet5ReLU(scope *model.Scope, x *graph.Node) *graph.Node { return lenet5With(scope, x, relu) }

func lenet5With(scope *model.Scope, x *graph.Node, activate func(*graph.Node) *graph.Node) *graph.Node {
	x = images("LeNet5", x, 28, 28, 1)
	x = activate(pool2x2(conv(scope, "conv1", x, 5, 20, false))) // -> [batch, 24, 24, 20] -> [batch, 12, 12, 20]; ReLU of the greatest of four is the greatest of their ReLUs
	x = activate(pool2x2(conv(scope, "conv2", x, 5, 50, false))) // -> [batch, 8, 8, 50] -> [batch, 4, 4, 50]
	x = relu(dense(scope, "fc1", flatten(x), 500))               // [batch, 800] -> [batch, 500]
	return dense(scope, "output", x, 10)                         // -> [batch, 10]
}

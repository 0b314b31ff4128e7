package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
)

var lenet5Norm = Network{
	Name: "LeNet-5-norm", Cite: "of this project: LeNet-5 of Caffe with batch normalisation, Ioffe & Szegedy 2015, arXiv:1502.03167, behind each hidden layer", Input: []int{28, 28, 1}, Classes: 10,
	Params: 431_650, MACs: 2_293_000, Model: LeNet5Norm,
}

// LeNet5Norm is LeNet5 with batch normalisation behind each hidden layer, which takes the place of its bias: for methods that read a channel's weight from the gain of a normalisation, as SCOP
// and network slimming. It takes [batch, 28, 28, 1] or [batch, 784] and returns logits [batch, 10]. Scopes: conv1, conv2, fc1, output.
func LeNet5Norm(scope *model.Scope, x *graph.Node) *graph.Node {
	x = images("LeNet5Norm", x, 28, 28, 1)
	hidden := func(name string, size, out int) *graph.Node {
		at := scope.At("%s", name)
		return batchNorm(at, layers.Convolution(at, x).Channels(out).KernelSize(size).NoPadding().UseBias(false).Done())
	}
	x = pool2x2(hidden("conv1", 5, 20)) // -> [batch, 24, 24, 20] -> [batch, 12, 12, 20]
	x = pool2x2(hidden("conv2", 5, 50)) // -> [batch, 8, 8, 50] -> [batch, 4, 4, 50]
	fc1 := scope.At("fc1")
	x = relu(batchNorm(fc1, layers.Dense(fc1, flatten(x), false, 500))) // [batch, 800] -> [batch, 500]
	return dense(scope, "output", x, 10)                                // -> [batch, 10]
}

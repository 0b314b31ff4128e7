package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var smallConv = Network{
	Name: "SmallConv", Cite: "of this project: the least that learns CIFAR-10 in minutes on two cores", Input: []int{32, 32, 3}, Classes: 10, Params: 47_818, MACs: 2_245_248, Model: SmallConv,
}

// SmallConv has three 3×3 convolutions with 16, 32 and 32 channels, each followed by ReLU and 2×2 pooling, and a dense layer of 64. It takes [batch, 32, 32, 3] and
// returns logits [batch, 10]. 2.2 million MACs an example. Scopes: conv1, conv2, conv3, fc1, output.
func SmallConv(scope *model.Scope, x *graph.Node) *graph.Node {
	x = images("SmallConv", x, 32, 32, 3)
	x = relu(pool2x2(conv(scope, "conv1", x, 3, 16, true))) // -> [batch, 16, 16, 16]
	x = relu(pool2x2(conv(scope, "conv2", x, 3, 32, true))) // -> [batch, 8, 8, 32]
	x = relu(pool2x2(conv(scope, "conv3", x, 3, 32, true))) // -> [batch, 4, 4, 32]
	x = relu(dense(scope, "fc1", flatten(x), 64))           // [batch, 512] -> [batch, 64]
	return dense(scope, "output", x, 10)                    // -> [batch, 10]
}

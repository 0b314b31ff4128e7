package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var smallVGG = Network{
	Name: "SmallVGG", Cite: "of this project, after Simonyan & Zisserman 2015, arXiv:1409.1556: convolutions with batch normalisation that learn CIFAR-10 in minutes on two cores",
	Input: []int{32, 32, 3}, Classes: 10, Params: 61_338, MACs: 3_392_128, Model: SmallVGG,
}

// SmallVGG has four 3×3 convolutions with 16, 32, 64 and 64 channels without bias, each followed by batch normalisation and ReLU, the first three by 2×2 pooling, too, then the mean over
// positions and a dense layer. It takes [batch, 32, 32, 3] and returns logits [batch, 10]. 3.4 million MACs an example. Scopes: conv1 to conv4, output.
func SmallVGG(scope *model.Scope, x *graph.Node) *graph.Node {
	x = images("SmallVGG", x, 32, 32, 3)
	block := func(name string, channels int) *graph.Node {
		return relu(convolution{size: 3, out: channels}.apply(scope, name, x))
	}
	x = pool2x2(block("conv1", 16)) // -> [batch, 32, 32, 16] -> [batch, 16, 16, 16]
	x = pool2x2(block("conv2", 32)) // -> [batch, 8, 8, 32]
	x = pool2x2(block("conv3", 64)) // -> [batch, 4, 4, 64]
	x = block("conv4", 64)          // -> [batch, 4, 4, 64]
	return dense(scope, "output", globalPool(x), 10)
}

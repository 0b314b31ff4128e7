package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet8Narrow = Network{
	Name: "ResNet-8-narrow", Cite: "He et al. 2016, arXiv:1512.03385, section 4.2, option A, with one block in a stage, half as wide", Input: []int{32, 32, 3}, Classes: 10, Params: 19_218, MACs: 3_170_624,
	Model: ResNet8Narrow,
}

// ResNet8Narrow is the least residual network for CIFAR-10: three stages of one block, with 8, 16 and 32 channels, so that two cores can train it dozens of times in an hour. It takes
// [batch, 32, 32, 3] or [batch, 3072] and returns logits [batch, 10]. Scopes: conv1, layer1_0, layer2_0, layer3_0, output.
func ResNet8Narrow(scope *model.Scope, x *graph.Node) *graph.Node {
	return cifarResNet{function: "ResNet8Narrow", blocks: 1, width: 8}.model(scope, x)
}

package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet20Narrow = Network{
	Name: "ResNet-20-narrow", Cite: "He et al. 2016, arXiv:1512.03385, section 4.2, option A, half as wide", Input: []int{32, 32, 3}, Classes: 10, Params: 68_050, MACs: 10_248_512, Model: ResNet20Narrow,
}

// ResNet20Narrow is ResNet-20 with half of its channels in each layer, which two cores train in minutes: stages of 8, 16 and 32. It takes [batch, 32, 32, 3] or [batch, 3072] and
// returns logits [batch, 10]. Scopes: conv1, layer1_0 to layer3_2, output.
func ResNet20Narrow(scope *model.Scope, x *graph.Node) *graph.Node {
	return cifarResNet{function: "ResNet20Narrow", blocks: 3, width: 8}.model(scope, x)
}

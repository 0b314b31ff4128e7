package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet56 = Network{
	Name: "ResNet-56", Cite: "He et al. 2016, arXiv:1512.03385, section 4.2, option A", Input: []int{32, 32, 3}, Classes: 10, Params: 853_018, MACs: 125_485_696, Model: ResNet56,
}

// ResNet56 is the residual network of 56 layers for CIFAR-10 with shortcuts without weights (option A). It takes [batch, 32, 32, 3] or [batch, 3072] and
// returns logits [batch, 10]. Scopes: conv1, layer1_0 to layer3_8, output.
func ResNet56(scope *model.Scope, x *graph.Node) *graph.Node {
	return cifarResNet{function: "ResNet56", blocks: 9}.model(scope, x)
}

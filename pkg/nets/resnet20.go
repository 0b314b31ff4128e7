package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet20 = Network{
	Name: "ResNet-20", Cite: "He et al. 2016, arXiv:1512.03385, section 4.2, option A", Input: []int{32, 32, 3}, Classes: 10, Params: 269_722, MACs: 40_551_040, Model: ResNet20,
}

// ResNet20 is the residual network of 20 layers for CIFAR-10 with shortcuts without weights (option A). It takes [batch, 32, 32, 3] or [batch, 3072] and
// returns logits [batch, 10]. Scopes: conv1, layer1_0 to layer3_2, output.
func ResNet20(scope *model.Scope, x *graph.Node) *graph.Node {
	return cifarResNet{function: "ResNet20", blocks: 3}.model(scope, x)
}

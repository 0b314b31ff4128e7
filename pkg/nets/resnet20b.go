package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet20b = Network{
	Name: "ResNet-20-B", Cite: "He et al. 2016, arXiv:1512.03385, section 4.2, option B", Input: []int{32, 32, 3}, Classes: 10, Params: 272_474, MACs: 40_813_184, Model: ResNet20B,
}

// ResNet20B is the residual network of 20 layers for CIFAR-10 with 1x1 convolutions as shortcuts where the shape changes (option B). It takes [batch, 32, 32, 3] or [batch, 3072] and
// returns logits [batch, 10]. Scopes: conv1, layer1_0 to layer3_2, output.
func ResNet20B(scope *model.Scope, x *graph.Node) *graph.Node {
	return cifarResNet{function: "ResNet20B", blocks: 3, projected: true}.model(scope, x)
}

package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet56b = Network{
	Name: "ResNet-56-B", Cite: "He et al. 2016, arXiv:1512.03385, section 4.2, option B", Input: []int{32, 32, 3}, Classes: 10, Params: 855_770, MACs: 125_747_840, Model: ResNet56B,
}

// ResNet56B is the residual network of 56 layers for CIFAR-10 with 1x1 convolutions as shortcuts where the shape changes (option B). It takes [batch, 32, 32, 3] or [batch, 3072] and
// returns logits [batch, 10]. Scopes: conv1, layer1_0 to layer3_8, output.
func ResNet56B(scope *model.Scope, x *graph.Node) *graph.Node {
	return cifarResNet{function: "ResNet56B", blocks: 9, projected: true}.model(scope, x)
}

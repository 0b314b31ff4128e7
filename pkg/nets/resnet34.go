package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet34 = Network{
	Name: "ResNet-34", Cite: "He et al. 2016, arXiv:1512.03385, as in torchvision", Input: []int{224, 224, 3}, Classes: 1000, Params: 21_797_672, MACs: 3_663_761_408, Model: ResNet34,
}

// ResNet34 is ResNet-34 for ImageNet in the form of torchvision's resnet34, whose weights fit. It takes [batch, 224, 224, 3] or [batch, 150528] and returns logits
// [batch, 1000]. Scopes: conv1, layer1_0 to layer4_2, output.
func ResNet34(scope *model.Scope, x *graph.Node) *graph.Node {
	return resnet{function: "ResNet34", blocks: [4]int{3, 4, 6, 3}}.model(scope, x)
}

package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet18 = Network{
	Name: "ResNet-18", Cite: "He et al. 2016, arXiv:1512.03385, as in torchvision", Input: []int{224, 224, 3}, Classes: 1000, Params: 11_689_512, MACs: 1_814_073_344, Model: ResNet18,
}

// ResNet18 is ResNet-18 for ImageNet in the form of torchvision's resnet18, whose weights fit. It takes [batch, 224, 224, 3] or [batch, 150528] and returns logits
// [batch, 1000]. Scopes: conv1, layer1_0 to layer4_1, output.
func ResNet18(scope *model.Scope, x *graph.Node) *graph.Node {
	return resnet{function: "ResNet18", blocks: [4]int{2, 2, 2, 2}}.model(scope, x)
}

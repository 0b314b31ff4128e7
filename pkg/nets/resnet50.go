package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var resnet50 = Network{
	Name: "ResNet-50", Cite: "He et al. 2016, arXiv:1512.03385, as in torchvision", Input: []int{224, 224, 3}, Classes: 1000, Params: 25_557_032, MACs: 4_089_184_256, Model: ResNet50,
}

// ResNet50 is ResNet-50 for ImageNet in the form of torchvision's resnet50, whose weights fit. It takes [batch, 224, 224, 3] or [batch, 150528] and returns logits
// [batch, 1000]. Scopes: conv1, layer1_0 to layer4_2, output.
func ResNet50(scope *model.Scope, x *graph.Node) *graph.Node {
	return resnet{function: "ResNet50", blocks: [4]int{3, 4, 6, 3}, bottleneck: true}.model(scope, x)
}

package nets

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var vgg16 = Network{
	Name: "VGG16", Cite: "Simonyan & Zisserman 2015, arXiv:1409.1556, configuration D", Input: []int{224, 224, 3}, Classes: 1000, Params: 138_357_544, MACs: 15_470_264_320, Model: VGG16,
}

// VGG16 is configuration D for ImageNet (Simonyan & Zisserman 2015, arXiv:1409.1556): thirteen 3x3 convolutions in five blocks, three dense layers. It takes
// [batch, 224, 224, 3] or [batch, 150528] and returns logits [batch, 1000]. Dropout is left out. Scopes: conv1_1 to conv5_3, fc1, fc2, output.
func VGG16(scope *model.Scope, x *graph.Node) *graph.Node {
	x = images("VGG16", x, 224, 224, 3)
	for block, widths := range [][]int{{64, 64}, {128, 128}, {256, 256, 256}, {512, 512, 512}, {512, 512, 512}} {
		for i, width := range widths {
			x = relu(conv(scope, fmt.Sprintf("conv%d_%d", block+1, i+1), x, 3, width, true)) // [batch, h, w, …] -> [batch, h, w, width]
		}
		x = pool2x2(x) // [batch, h, w, c] -> [batch, h/2, w/2, c]
	}
	x = relu(dense(scope, "fc1", flatten(x), 4096)) // [batch, 7, 7, 512] -> [batch, 25088] -> [batch, 4096]
	x = relu(dense(scope, "fc2", x, 4096))          // -> [batch, 4096]
	return dense(scope, "output", x, 1000)          // -> [batch, 1000]
}

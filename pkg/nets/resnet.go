package nets

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

// resnet is a residual network for ImageNet (He et al. 2016, arXiv:1512.03385) as torchvision builds it: in bottlenecks, the 3x3 convolution has the stride.
type resnet struct {
	function   string
	blocks     [4]int // in each stage
	bottleneck bool
}

// model has the scopes conv1, layer1_0 to layer4_n with conv1, conv2, conv3 and downsample in them, and output. [batch, 224, 224, 3] -> [batch, 1000]
func (r resnet) model(scope *model.Scope, x *graph.Node) *graph.Node {
	x = images(r.function, x, 224, 224, 3)
	x = relu(convolution{size: 7, out: 64, stride: 2}.apply(scope, "conv1", x))              // -> [batch, 112, 112, 64]
	x = graph.MaxPool(x).Window(3).Strides(2).PaddingPerDim([][2]int{{1, 1}, {1, 1}}).Done() // -> [batch, 56, 56, 64]
	for stage, blocks := range r.blocks {
		for block := range blocks {
			stride := 1
			if stage > 0 && block == 0 {
				stride = 2
			}
			x = r.block(scope.At("layer%d_%d", stage+1, block), x, 64<<stage, stride)
		}
	}
	return dense(scope, "output", globalPool(x), 1000) // [batch, 7, 7, c] -> [batch, c] -> [batch, 1000]
}

// block is a residual block. [batch, h, w, in] -> [batch, h/stride, w/stride, width, or four times that in a bottleneck]
func (r resnet) block(scope *model.Scope, x *graph.Node, width, stride int) *graph.Node {
	path := []convolution{{size: 3, out: width, stride: stride}, {size: 3, out: width}}
	if r.bottleneck {
		path = []convolution{{size: 1, out: width}, {size: 3, out: width, stride: stride}, {size: 1, out: 4 * width}}
	}
	shortcut, out := x, path[len(path)-1].out
	for i, c := range path {
		if x = c.apply(scope, fmt.Sprintf("conv%d", i+1), x); i < len(path)-1 {
			x = relu(x)
		}
	}
	if stride > 1 || shortcut.Shape().Dim(-1) != out {
		shortcut = convolution{size: 1, out: out, stride: stride}.apply(scope, "downsample", shortcut)
	}
	return relu(graph.Add(x, shortcut))
}

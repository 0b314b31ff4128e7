package nets

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

var mobileNetV2 = Network{
	Name: "MobileNetV2", Cite: "Sandler et al. 2018, arXiv:1801.04381, as in torchvision", Input: []int{224, 224, 3}, Classes: 1000, Params: 3_504_872, MACs: 300_774_272, Model: MobileNetV2,
}

// MobileNetV2 is the network of width 1 for ImageNet in the form of torchvision's mobilenet_v2: blocks that expand, convolve each channel for itself and project back,
// added to their input where the shape allows it. It takes [batch, 224, 224, 3] or [batch, 150528] and returns logits [batch, 1000]. Dropout is left out.
// Scopes: conv1, block0 to block16 with expand, depthwise and project in them, conv2, output.
func MobileNetV2(scope *model.Scope, x *graph.Node) *graph.Node {
	relu6 := func(x *graph.Node) *graph.Node { return graph.ClipScalar(x, 0, 6) }
	x = images("MobileNetV2", x, 224, 224, 3)
	x = relu6(convolution{size: 3, out: 32, stride: 2}.apply(scope, "conv1", x)) // -> [batch, 112, 112, 32]
	count := 0
	for _, stage := range []struct{ expansion, out, blocks, stride int }{
		{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1},
	} {
		for block := range stage.blocks {
			stride := 1
			if block == 0 {
				stride = stage.stride
			}
			scope, in := scope.At("%s", fmt.Sprintf("block%d", count)), x
			count++
			hidden := in.Shape().Dim(-1) * stage.expansion
			if stage.expansion > 1 {
				x = relu6(convolution{size: 1, out: hidden}.apply(scope, "expand", x)) // -> [batch, h, w, hidden]
			}
			x = relu6(convolution{size: 3, out: hidden, stride: stride, depthwise: true}.apply(scope, "depthwise", x)) // -> [batch, h/stride, w/stride, hidden]
			x = convolution{size: 1, out: stage.out}.apply(scope, "project", x)                                        // -> [batch, h/stride, w/stride, out]
			if x.Shape().Equal(in.Shape()) {
				x = graph.Add(x, in)
			}
		}
	}
	x = relu6(convolution{size: 1, out: 1280}.apply(scope, "conv2", x)) // -> [batch, 7, 7, 1280]
	return dense(scope, "output", globalPool(x), 1000)                  // -> [batch, 1280] -> [batch, 1000]
}

package nets

import (
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

// cifarResNet is a residual network for CIFAR-10 (He et al. 2016, arXiv:1512.03385, section 4.2): three stages of 16, 32 and 64 channels, or of width, twice and four times as many.
type cifarResNet struct {
	function  string
	blocks    int  // in each stage; there are 6 · blocks + 2 layers
	width     int  // 0 means 16
	projected bool // where the shape changes, the shortcut is a 1x1 convolution (option B of section 3.3); otherwise every second pixel, and zeros as new channels (A)
}

// model has the scopes conv1, layer1_0 to layer3_n with conv1, conv2 and (B) downsample in them, and output. [batch, 32, 32, 3] -> [batch, 10]
func (r cifarResNet) model(scope *model.Scope, x *graph.Node) *graph.Node {
	x = images(r.function, x, 32, 32, 3)
	width := r.width
	if width == 0 {
		width = 16
	}
	x = relu(convolution{size: 3, out: width}.apply(scope, "conv1", x)) // -> [batch, 32, 32, 16]
	for stage := range 3 {
		for block := range r.blocks {
			scope, in, c := scope.At("layer%d_%d", stage+1, block), x, convolution{size: 3, out: width << stage}
			first := c
			if stage > 0 && block == 0 {
				first.stride = 2
			}
			x = relu(first.apply(scope, "conv1", x))
			x = relu(graph.Add(c.apply(scope, "conv2", x), r.shortcut(scope, in, first)))
		}
	}
	return dense(scope, "output", globalPool(x), 10) // [batch, 8, 8, 64] -> [batch, 64] -> [batch, 10]
}

// shortcut is x in the shape that a convolution would give it. [batch, h, w, in] -> [batch, h/stride, w/stride, out]
func (r cifarResNet) shortcut(scope *model.Scope, x *graph.Node, c convolution) *graph.Node {
	in := x.Shape().Dim(-1)
	switch {
	case in == c.out:
		return x
	case r.projected:
		return convolution{size: 1, out: c.out, stride: c.stride}.apply(scope, "downsample", x)
	}
	all := graph.AxisRange()
	x = graph.Slice(x, all, all.Stride(c.stride), all.Stride(c.stride), all) // [batch, h, w, in] -> [batch, h/2, w/2, in]
	d := x.Shape().Dimensions
	return graph.Concatenate([]*graph.Node{x, graph.Zeros(x.Graph(), shapes.Make(x.DType(), d[0], d[1], d[2], c.out-in))}, -1) // -> [batch, h/2, w/2, out]
}

// CIFARResNet is the residual network for CIFAR-10 of a depth and a width: 6 · blocks + 2 layers, in stages of width, 2 · width and 4 · width channels. Where the shape changes, shortcuts have no
// weights (option A), or, if projected, a 1x1 convolution (option B). ResNet-20 is CIFARResNet(3, 16, false), ResNet-32 CIFARResNet(5, 16, false). It takes [batch, 32, 32, 3] or [batch, 3072] and
// returns logits [batch, 10].
func CIFARResNet(blocks, width int, projected bool) func(scope *model.Scope, x *graph.Node) *graph.Node {
	return cifarResNet{function: "CIFARResNet", blocks: blocks, width: width, projected: projected}.model
}

package zoo

import (
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

func convolutional() []Network {
	return []Network{
		{Name: "lenet5", Model: trace.Single(lenet5), Example: [][]int{{16, 16, 1}}, Groups: 3, Why: "c1, c2 (each channel is four inputs of fc1), fc1"},
		{Name: "resnet8 pad", Model: trace.Single(resnet(1, shortcutPad)), Example: [][]int{{8, 8, 3}}, Groups: 6,
			Why: "a stream a stage, of which the later ones are the channels that padding adds, and one group within each block", NoGradient: "Pad"},
		{Name: "resnet8 zeros", Model: trace.Single(resnet(1, shortcutZeros)), Example: [][]int{{8, 8, 3}}, Groups: 6, Why: "as with padding"},
		{Name: "resnet8 projection", Model: trace.Single(resnet(1, shortcutProjection)), Example: [][]int{{8, 8, 3}}, Groups: 6, Why: "a stream a stage, and one group within each block"},
		{Name: "resnet8 free branches", Model: trace.Single(freeBranches), Example: [][]int{{8, 8, 3}}, Groups: 9,
			Why: "a stream a stage, and two groups within each block: what a branch adds is brought to its places in the stream by a list of indices"},
		{Name: "resnet20 pad", Model: trace.Single(resnet(3, shortcutPad)), Example: [][]int{{16, 16, 3}}, Groups: 12, Why: "3 streams, 9 blocks", Large: true, NoGradient: "Pad"},
		{Name: "resnet20 zeros", Model: trace.Single(resnet(3, shortcutZeros)), Example: [][]int{{16, 16, 3}}, Groups: 12, Why: "3 streams, 9 blocks", Large: true},
		{Name: "resnet20 projection", Model: trace.Single(resnet(3, shortcutProjection)), Example: [][]int{{16, 16, 3}}, Groups: 12, Why: "3 streams, 9 blocks", Large: true},
		{Name: "densenet", Model: trace.Single(densenet), Example: [][]int{{8, 8, 3}}, Groups: 5, Why: "what c0 and the three blocks add, and the transition"},
		{Name: "inception", Model: trace.Single(inception), Example: [][]int{{8, 8, 3}}, Groups: 5,
			Why: "the stem, the reduction before the 3×3, and three branches, each with its slice of the residual that is added to their concatenation"},
		{Name: "mobilenet", Model: trace.Single(mobilenet), Example: [][]int{{8, 8, 3}}, Groups: 6,
			Why: "the stem; of each of two blocks the expansion, with its depthwise convolution and gate, and the squeeze; the stream of the second, which has a residual"},
		{Name: "grouped", Model: trace.Single(grouped), Example: [][]int{{6, 6, 3}}, Groups: 6,
			Why: "the stream; whole groups; the place within all groups, in and out; and of the depthwise convolution with two filters a channel channels, and the filters of all channels"},
		{Name: "shufflenet", Model: trace.Single(shufflenet), Example: [][]int{{6, 6, 3}}, Groups: 1,
			Why: "shuffle and residual tie groups and places to each other: only places within groups of all remain"},
		{Name: "split", Model: trace.Single(split), Example: [][]int{{6, 6, 3}}, Groups: 3, Why: "the half that passes, the half that is convolved, and what comes of it; each with its slice of the residual", Fragile: true},
		{Name: "groupnorm", Model: trace.Single(groupnorm), Example: [][]int{{6, 6, 3}}, Groups: 2, Why: "whole groups of c0, and c1: a group has its own mean"},
		{Name: "unet", Model: trace.Single(unet), Example: [][]int{{8, 8, 3}}, Groups: 5, Why: "the encoder's two levels, the decoder's, the merge, and pixel shuffle's channels, each in its four places"},
		{Name: "transposed convolution", Model: trace.Single(transposed), Example: [][]int{{4, 4, 3}}, Groups: 2, Why: "c0 and what goes up", NoGradient: "convolution with input dilation"},
		{Name: "dilated, shared", Model: trace.Single(shared), Example: [][]int{{8, 8, 3}}, Groups: 1, Why: "a convolution that is applied three times to its own output ties them all"},
		{Name: "channels first", Model: trace.Single(channelsFirst), Example: [][]int{{3, 6, 6}}, Groups: 2, Why: "c0 with its normalisation, c1"},
		{Name: "spatial order", Model: trace.Single(spatial), Example: [][]int{{6, 6, 3}}, Groups: 2, Why: "c0 through transposes and reversals, c1 in twelve places of the output layer", NoGradient: "Reverse"},
	}
}

func relu(x *graph.Node) *graph.Node { return activation.Relu(x) }

// conv is a convolution that keeps the size at stride 1. [batch, h, w, in] -> [batch, h, w, out]
func conv(scope *model.Scope, name string, x *graph.Node, out, size, stride int) *graph.Node {
	return layers.Convolution(scope.At("%s", name), x).Channels(out).KernelSize(size).Strides(stride).PadSame().UseBias(false).Done()
}

// groupConv is a convolution in groups: GoMLX's layer makes a kernel for undivided inputs, so it is written with the operation.
func groupConv(scope *model.Scope, name string, x *graph.Node, out, groups int) *graph.Node {
	w := scope.At("%s", name).VariableWithShape("weights", shapes.Make(f32, 3, 3, x.Shape().Dim(-1)/groups, out))
	return graph.Convolve(x, w.NodeValue(x.Graph())).PadSame().ChannelGroupCount(groups).Done()
}

func batchNorm(scope *model.Scope, name string, x *graph.Node) *graph.Node {
	return norm.BatchNorm(scope.At("%s", name), x, -1).Done()
}

func dense(scope *model.Scope, name string, x *graph.Node, out int) *graph.Node {
	return layers.Dense(scope.At("%s", name), x, true, out)
}

// classify is mean pooling and the output layer. [batch, h, w, channels] -> [batch, 5]
func classify(scope *model.Scope, x *graph.Node) *graph.Node {
	return dense(scope, "output", graph.ReduceMean(x, 1, 2), 5)
}

func lenet5(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(layers.Convolution(s.At("c1"), x).Channels(6).KernelSize(5).NoPadding().Done())  // -> [batch, 12, 12, 6]
	x = graph.MaxPool(x).Window(2).Done()                                                     // -> [batch, 6, 6, 6]
	x = relu(layers.Convolution(s.At("c2"), x).Channels(10).KernelSize(3).NoPadding().Done()) // -> [batch, 4, 4, 10]
	x = graph.MaxPool(x).Window(2).Done()                                                     // -> [batch, 2, 2, 10]
	x = graph.Reshape(x, x.Shape().Dim(0), -1)                                                // -> [batch, 40]
	x = relu(dense(s, "fc1", x, 16))
	return dense(s, "output", x, 5)
}

// freeBranches is a residual network in which a branch may lack channels that the stream has.
func freeBranches(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(batchNorm(s, "b0", conv(s, "c0", x, 8, 3, 1)))
	for i, c := range []int{8, 16, 32} {
		b := s.At("s%d", i)
		y := relu(batchNorm(b, "b1", conv(b, "c1", x, c, 3, min(2, i+1))))
		y = batchNorm(b, "b2", conv(b, "c2", y, c, 3, 1))
		if i > 0 {
			x = shortcutProjection(b, x, c)
		}
		list := make([][]int32, c)
		for k := range list {
			list[k] = []int32{int32(k)}
		}
		y = graph.TransposeAllAxes(graph.Gather(graph.TransposeAllAxes(y, 3, 0, 1, 2), graph.Const(y.Graph(), list)), 1, 2, 3, 0)
		x = relu(graph.Add(x, y))
	}
	return classify(s, x)
}

// shortcut brings a stream to a new stage: half as high and wide, with more channels.
type shortcut func(s *model.Scope, x *graph.Node, channels int) *graph.Node

func resnet(blocks int, widen shortcut) func(*model.Scope, *graph.Node) *graph.Node {
	return func(s *model.Scope, x *graph.Node) *graph.Node {
		x = relu(batchNorm(s, "b0", conv(s, "c0", x, 8, 3, 1)))
		for i, c := range []int{8, 16, 32} {
			for j := range blocks {
				b := s.At("s%d_%d", i, j)
				stride := 1
				if i > 0 && j == 0 {
					stride = 2
				}
				y := relu(batchNorm(b, "b1", conv(b, "c1", x, c, 3, stride)))
				y = batchNorm(b, "b2", conv(b, "c2", y, c, 3, 1))
				if stride == 2 {
					x = widen(b, x, c)
				}
				x = relu(graph.Add(x, y))
			}
		}
		return classify(s, x)
	}
}

// subsample takes every other pixel.
func subsample(x *graph.Node) *graph.Node {
	return graph.Slice(x, graph.AxisRange(), graph.AxisRange().Stride(2), graph.AxisRange().Stride(2), graph.AxisRange())
}

func shortcutPad(_ *model.Scope, x *graph.Node, channels int) *graph.Node {
	return graph.Pad(subsample(x), graph.ScalarZero(x.Graph(), f32), graph.PadAxis{}, graph.PadAxis{}, graph.PadAxis{}, graph.PadAxis{Start: channels / 4, End: channels / 4})
}

func shortcutZeros(_ *model.Scope, x *graph.Node, channels int) *graph.Node {
	x = subsample(x)
	zeros := x.Shape().Clone()
	zeros.Dimensions[3] = channels / 4
	return graph.Concatenate([]*graph.Node{graph.Zeros(x.Graph(), zeros), x, graph.Zeros(x.Graph(), zeros)}, -1)
}

func shortcutProjection(s *model.Scope, x *graph.Node, channels int) *graph.Node {
	return batchNorm(s, "bs", conv(s, "cs", x, channels, 1, 2))
}

func densenet(s *model.Scope, x *graph.Node) *graph.Node {
	x = conv(s, "c0", x, 6, 3, 1)
	for i := range 3 {
		b := s.At("d%d", i)
		x = graph.Concatenate([]*graph.Node{x, conv(b, "c", relu(batchNorm(b, "b", x)), 4, 3, 1)}, -1)
	}
	x = conv(s, "t", relu(batchNorm(s, "tb", x)), 8, 1, 1)
	return classify(s, graph.MeanPool(x).Window(2).Done())
}

func inception(s *model.Scope, x *graph.Node) *graph.Node {
	x = conv(s, "c0", x, 8, 3, 1)
	one := relu(conv(s, "i1", x, 6, 1, 1))
	three := relu(conv(s, "i3", relu(conv(s, "i3r", x, 4, 1, 1)), 8, 3, 1))
	pool := relu(conv(s, "ip", graph.MaxPool(x).Window(3).Strides(1).PadSame().Done(), 5, 1, 1))
	x = graph.Concatenate([]*graph.Node{one, three, pool}, -1) // -> [batch, 8, 8, 19]
	return classify(s, graph.Add(x, conv(s, "res", x, 19, 3, 1)))
}

func mobilenet(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(batchNorm(s, "b0", conv(s, "c0", x, 6, 3, 2)))
	for i, c := range []int{8, 8} {
		b := s.At("ir%d", i)
		in := x.Shape().Dim(-1)
		y := relu(batchNorm(b, "be", conv(b, "e", x, in*3, 1, 1)))
		y = relu(batchNorm(b, "bd", groupConv(b, "dw", y, in*3, in*3)))
		gate := graph.Sigmoid(dense(b, "se2", relu(dense(b, "se1", graph.ReduceMean(y, 1, 2), 4)), in*3))
		y = graph.Mul(y, graph.InsertAxes(gate, 1, 1))
		y = batchNorm(b, "bp", conv(b, "p", y, c, 1, 1))
		if c == in {
			y = graph.Add(y, x)
		}
		x = y
	}
	x = layers.DropoutStatic(s.At("drop"), graph.ReduceMean(x, 1, 2), 0.2)
	return dense(s, "output", x, 5)
}

func grouped(s *model.Scope, x *graph.Node) *graph.Node {
	x = conv(s, "c0", x, 12, 3, 1)
	y := relu(conv(s, "g1", x, 12, 1, 1))
	y = relu(groupConv(s, "gg", y, 24, 4)) // three inputs and six outputs a group
	x = graph.Add(x, conv(s, "g2", y, 12, 1, 1))
	x = relu(groupConv(s, "dw", conv(s, "e", x, 10, 1, 1), 20, 10))
	return classify(s, x)
}

func shufflenet(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(conv(s, "c0", x, 24, 3, 1))
	y := groupConv(s, "g1", x, 24, 3)
	d := y.Shape().Dimensions
	y = graph.Reshape(graph.TransposeAllAxes(graph.Reshape(y, d[0], d[1], d[2], 3, 8), 0, 1, 2, 4, 3), d...)
	y = groupConv(s, "dw", relu(y), 24, 24)
	y = groupConv(s, "g2", y, 24, 3)
	return classify(s, relu(graph.Add(x, y)))
}

func split(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(conv(s, "c0", x, 24, 3, 1))
	all := graph.AxisRange()
	pass, work := graph.Slice(x, all, all, all, graph.AxisRange(0, 10)), graph.Slice(x, all, all, all, graph.AxisRange(10, 24))
	work = relu(conv(s, "c1", work, 14, 3, 1))
	x = graph.Concatenate([]*graph.Node{work, pass}, -1)
	x = graph.Add(x, conv(s, "c2", x, 24, 1, 1))
	return dense(s, "output", graph.ReduceMax(x, 1, 2), 5)
}

func groupnorm(s *model.Scope, x *graph.Node) *graph.Node {
	x = conv(s, "c0", x, 24, 3, 1)
	d := x.Shape().Dimensions
	y := graph.Reshape(x, d[0], d[1]*d[2], 4, 6)
	y = graph.Sub(y, graph.ReduceAndKeep(y, graph.ReduceMean, 1, 3))
	variance := graph.ReduceAndKeep(graph.Square(y), graph.ReduceMean, 1, 3)
	x = relu(graph.Reshape(graph.Div(y, graph.Sqrt(graph.AddScalar(variance, 1e-5))), d...))
	return classify(s, relu(conv(s, "c1", x, 16, 3, 1)))
}

func unet(s *model.Scope, x *graph.Node) *graph.Node {
	a := relu(conv(s, "d0", x, 8, 3, 1))
	b := relu(conv(s, "d1", a, 16, 3, 2))
	d, e := a.Shape().Dimensions, b.Shape().Dimensions
	up := graph.BroadcastToDims(graph.InsertAxes(b, 2, 3), e[0], e[1], 2, e[2], 2, e[3])
	up = graph.Reshape(up, d[0], d[1], d[2], 16) // each pixel four times
	x = graph.Concatenate([]*graph.Node{a, conv(s, "u", up, 8, 3, 1)}, -1)
	x = relu(conv(s, "m", x, 12, 3, 1))
	x = conv(s, "ps", x, 16, 3, 1) // pixel shuffle: 16 channels become four of twice the height and width
	x = graph.TransposeAllAxes(graph.Reshape(x, d[0], d[1], d[2], 2, 2, 4), 0, 1, 3, 2, 4, 5)
	x = graph.Reshape(x, d[0], 2*d[1], 2*d[2], 4)
	return conv(s, "output", relu(x), 1, 3, 1)
}

func transposed(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(conv(s, "c0", x, 6, 3, 1))
	w := s.At("up").VariableWithShape("weights", shapes.Make(f32, 4, 4, 6, 8))
	x = graph.Convolve(x, w.NodeValue(x.Graph())).InputDilationPerAxis(2, 2).PaddingPerDim([][2]int{{2, 2}, {2, 2}}).Done() // -> [batch, 8, 8, 8]
	return conv(s, "output", relu(x), 2, 3, 1)
}

func shared(s *model.Scope, x *graph.Node) *graph.Node {
	x = conv(s, "c0", x, 10, 3, 1)
	for range 3 {
		x = graph.Tanh(layers.Convolution(s.At("again"), x).Channels(10).KernelSize(3).Dilations(2).PadSame().Done())
	}
	return classify(s, x)
}

func channelsFirst(s *model.Scope, x *graph.Node) *graph.Node {
	at := func(name string, x *graph.Node, out int) *graph.Node { // [batch, in, h, w] -> [batch, out, h, w]
		w := s.At("%s", name).VariableWithShape("weights", shapes.Make(f32, out, x.Shape().Dim(1), 3, 3))
		axes := graph.ConvolveAxesConfig{InputBatch: 0, InputChannels: 1, InputSpatial: []int{2, 3}, KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
			OutputBatch: 0, OutputChannels: 1, OutputSpatial: []int{2, 3}}
		return graph.Convolve(x, w.NodeValue(x.Graph())).AxesConfig(axes).PadSame().Done()
	}
	x = relu(norm.BatchNorm(s.At("b0"), at("c0", x, 8), 1).Done())
	x = relu(at("c1", x, 6))
	return dense(s, "output", graph.ReduceMean(x, 2, 3), 5)
}

func spatial(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(conv(s, "c0", x, 8, 3, 1))
	x = graph.TransposeAllAxes(x, 3, 2, 0, 1) // -> [8, w, batch, h]
	x = graph.Reverse(x, 0, 1)
	x = graph.TransposeAllAxes(x, 2, 3, 1, 0) // -> [batch, h, w, 8], the channels in reverse
	x = relu(conv(s, "c1", x, 7, 3, 1))
	x = graph.MaxPool(x).WindowPerAxis(2, 3).Strides(1).NoPadding().Done() // -> [batch, 5, 4, 7]
	x = graph.Slice(x, graph.AxisRange(), graph.AxisRange(1, 4), graph.AxisRange(), graph.AxisRange())
	return dense(s, "output", graph.Reshape(x, x.Shape().Dim(0), -1), 5)
}

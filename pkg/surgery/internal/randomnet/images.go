package randomnet

import (
	"fmt"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
)

// onImages are moves on [height, width, channels].
var onImages = []move{
	{22, (*generator).conv}, {7, (*generator).depthwise}, {7, (*generator).grouped}, {5, (*generator).pool}, {3, (*generator).squeezeExcite}, {3, (*generator).transposed},
	{6, (*generator).pixelShuffle}, {2, (*generator).spaceToDepth}, {2, (*generator).upsample}, {2, (*generator).again}, {2, (*generator).channelsFirst}, {2, (*generator).crop},
	{2, (*generator).places}, {2, (*generator).turn}, {3, (*generator).toVector},
}

func (g *generator) conv(x int) int {
	size := g.pick(1, 2, 3, 3, 3, 5)
	stride, dilation := 1, 1
	if g.chance(0.25) {
		stride = 2
	} else if size == 3 && g.chance(0.2) {
		dilation = 2
	}
	return g.convolve(x, g.between(3, 14), size, stride, g.chance(0.7), dilation)
}

// convolve is GoMLX's layer. It is -1 if nothing would be left.
func (g *generator) convolve(x, out, size, stride int, same bool, dilation int) int {
	d := g.dims(x)
	reach := (size-1)*dilation + 1
	if !same && (d[0] < reach || d[1] < reach) {
		same = true
	}
	after := func(n int) int {
		if same {
			return (n + stride - 1) / stride
		}
		return (n-reach)/stride + 1
	}
	name, bias := g.name(), g.chance(0.5)
	return g.add([]int{after(d[0]), after(d[1]), out}, func(s *model.Scope, v []*graph.Node) *graph.Node {
		c := layers.Convolution(s.At("%s", name), v[x]).Channels(out).KernelSize(size).UseBias(bias)
		if dilation > 1 {
			c = c.Dilations(dilation)
		} else {
			c = c.Strides(stride)
		}
		if same {
			return c.PadSame().Done()
		}
		return c.NoPadding().Done()
	}, "conv(v%d, %d, size %d, stride %d, dilation %d, same %t, bias %t)", x, out, size, stride, dilation, same, bias)
}

// groups is a convolution 3×3 in groups, padded.
func (g *generator) groups(x, groups, out, stride int) int {
	d := g.dims(x)
	name := g.name()
	return g.add([]int{(d[0] + stride - 1) / stride, (d[1] + stride - 1) / stride, out}, func(s *model.Scope, v []*graph.Node) *graph.Node {
		w := s.At("%s", name).VariableWithShape("weights", shapes.Make(g.net.DType, 3, 3, d[2]/groups, out)).NodeValue(v[x].Graph())
		return graph.Convolve(v[x], w).Strides(stride).PadSame().ChannelGroupCount(groups).Done()
	}, "groupConv(v%d, %d, groups %d, stride %d)", x, out, groups, stride)
}

func (g *generator) depthwise(x int) int {
	c := g.channels(x)
	if c < 2 || c > 16 {
		return -1
	}
	return g.groups(x, c, c*g.pick(1, 1, 2), g.pick(1, 1, 2))
}

func (g *generator) grouped(x int) int {
	n, c := g.pick(2, 3, 4), g.channels(x)
	if c%n != 0 || c == n {
		return -1
	}
	return g.groups(x, n, n*g.between(1, 4), g.pick(1, 1, 2))
}

func (g *generator) pool(x int) int {
	d := g.dims(x)
	window, stride, same, mean := g.pick(2, 3), g.pick(1, 2), g.chance(0.5), g.chance(0.5)
	if !same && (d[0] < window || d[1] < window) {
		return -1
	}
	after := func(n int) int {
		if same {
			return (n + stride - 1) / stride
		}
		return (n-window)/stride + 1
	}
	return g.add([]int{after(d[0]), after(d[1]), d[2]}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
		p := graph.MaxPool(v[x])
		if mean {
			p = graph.MeanPool(v[x])
		}
		p = p.Window(window).Strides(stride)
		if same {
			return p.PadSame().Done()
		}
		return p.NoPadding().Done()
	}, "pool(v%d, mean %t, window %d, stride %d, same %t)", x, mean, window, stride, same)
}

func (g *generator) squeezeExcite(x int) int {
	name, c, inner := g.name(), g.channels(x), g.between(2, 5)
	return g.add(g.dims(x), func(s *model.Scope, v []*graph.Node) *graph.Node {
		y := activation.Relu(layers.Dense(s.At("%s down", name), graph.ReduceMean(v[x], 1, 2), true, inner))
		gate := graph.Sigmoid(layers.Dense(s.At("%s up", name), y, true, c))
		return graph.Mul(v[x], graph.InsertAxes(gate, 1, 1))
	}, "squeezeExcite(v%d, %d)", x, inner)
}

// transposed is a transposed convolution, which doubles height and width.
func (g *generator) transposed(x int) int {
	d, name, out := g.dims(x), g.name(), g.between(3, 8)
	if d[0]*d[1] > 20 {
		return -1
	}
	g.net.NoGradient = "convolution with input dilation"
	return g.add([]int{2 * d[0], 2 * d[1], out}, func(s *model.Scope, v []*graph.Node) *graph.Node {
		w := s.At("%s", name).VariableWithShape("weights", shapes.Make(g.net.DType, 4, 4, d[2], out)).NodeValue(v[x].Graph())
		return graph.Convolve(v[x], w).InputDilationPerAxis(2, 2).PaddingPerDim([][2]int{{2, 2}, {2, 2}}).Done()
	}, "transposedConv(v%d, %d)", x, out)
}

func (g *generator) pixelShuffle(x int) int {
	d := g.dims(x)
	if d[2]%4 != 0 || d[0]*d[1] > 30 {
		return -1
	}
	return g.add([]int{2 * d[0], 2 * d[1], d[2] / 4}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
		batch := v[x].Shape().Dim(0)
		y := graph.Reshape(v[x], batch, d[0], d[1], 2, 2, d[2]/4)
		return graph.Reshape(graph.TransposeAllAxes(y, 0, 1, 3, 2, 4, 5), batch, 2*d[0], 2*d[1], d[2]/4)
	}, "pixelShuffle(v%d, 2)", x)
}

func (g *generator) spaceToDepth(x int) int {
	d := g.dims(x)
	if d[0]%2 != 0 || d[1]%2 != 0 || d[2] > 6 {
		return -1
	}
	return g.add([]int{d[0] / 2, d[1] / 2, 4 * d[2]}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
		batch := v[x].Shape().Dim(0)
		y := graph.Reshape(v[x], batch, d[0]/2, 2, d[1]/2, 2, d[2])
		return graph.Reshape(graph.TransposeAllAxes(y, 0, 1, 3, 2, 4, 5), batch, d[0]/2, d[1]/2, 4*d[2])
	}, "spaceToDepth(v%d, 2)", x)
}

func (g *generator) upsample(x int) int {
	d := g.dims(x)
	if d[0]*d[1] > 20 {
		return -1
	}
	return g.add([]int{2 * d[0], 2 * d[1], d[2]}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
		batch := v[x].Shape().Dim(0)
		y := graph.BroadcastToDims(graph.InsertAxes(v[x], 2, 3), batch, d[0], 2, d[1], 2, d[2])
		return graph.Reshape(y, batch, 2*d[0], 2*d[1], d[2])
	}, "upsample(v%d, 2)", x)
}

// again applies one convolution to its own output.
func (g *generator) again(x int) int {
	name, c := g.name(), g.channels(x)
	return g.add(g.dims(x), func(s *model.Scope, v []*graph.Node) *graph.Node {
		y := v[x]
		for range 2 {
			y = graph.Tanh(layers.Convolution(s.At("%s", name), y).Channels(c).KernelSize(3).PadSame().Done())
		}
		return y
	}, "again(tanh conv(v%d, %d, size 3), 2 times)", x, c)
}

// channelsFirst is a convolution with its channels on the second axis, before and after.
func (g *generator) channelsFirst(x int) int {
	d, name, out := g.dims(x), g.name(), g.between(3, 10)
	return g.add([]int{d[0], d[1], out}, func(s *model.Scope, v []*graph.Node) *graph.Node {
		w := s.At("%s", name).VariableWithShape("weights", shapes.Make(g.net.DType, out, d[2], 3, 3)).NodeValue(v[x].Graph())
		axes := graph.ConvolveAxesConfig{InputBatch: 0, InputChannels: 1, InputSpatial: []int{2, 3}, KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
			OutputBatch: 0, OutputChannels: 1, OutputSpatial: []int{2, 3}}
		y := graph.Convolve(graph.TransposeAllAxes(v[x], 0, 3, 1, 2), w).AxesConfig(axes).PadSame().Done()
		return graph.TransposeAllAxes(y, 0, 2, 3, 1)
	}, "channelsFirstConv(v%d, %d)", x, out)
}

func (g *generator) crop(x int) int {
	d := g.dims(x)
	if d[0] < 4 {
		return -1
	}
	return g.add([]int{d[0] - 2, d[1], d[2]}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
		return graph.Slice(v[x], graph.AxisRange(), graph.AxisRange(1, d[0]-1))
	}, "v%d[1:%d]", x, d[0]-1)
}

// places makes a sequence of an image.
func (g *generator) places(x int) int {
	d := g.dims(x)
	if d[0]*d[1] > 25 {
		return -1
	}
	return g.add([]int{d[0] * d[1], d[2]}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
		return graph.Reshape(v[x], v[x].Shape().Dim(0), d[0]*d[1], d[2])
	}, "reshape(v%d)", x)
}

// turn exchanges height and width.
func (g *generator) turn(x int) int {
	d := g.dims(x)
	return g.add([]int{d[1], d[0], d[2]}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
		return graph.Transpose(v[x], 1, 2)
	}, "turn(v%d)", x)
}

// toVector makes one vector of each example.
func (g *generator) toVector(x int) int {
	d := g.dims(x)
	if len(d) == 1 {
		return x
	}
	size := 1
	for _, n := range d {
		size *= n
	}
	if size <= 120 && g.chance(0.5) {
		return g.add([]int{size}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
			return graph.Reshape(v[x], v[x].Shape().Dim(0), size)
		}, "flatten(v%d)", x)
	}
	axes := []int{1, 2}[:len(d)-1]
	f, name := graph.ReduceMean, "reduceMean"
	switch g.IntN(6) {
	case 0:
		f, name = graph.ReduceMax, "reduceMax"
		g.net.Fragile = true
	case 1, 2:
		f, name = graph.ReduceSum, "reduceSum"
	case 3:
		if len(d) == 3 {
			return g.add([]int{d[2]}, func(_ *model.Scope, v []*graph.Node) *graph.Node {
				return graph.Squeeze(graph.MaxPool(v[x]).WindowPerAxis(d[0], d[1]).NoPadding().Done(), 1, 2)
			}, "globalMaxPool(v%d)", x)
		}
	}
	return g.add([]int{d[len(d)-1]}, func(_ *model.Scope, v []*graph.Node) *graph.Node { return f(v[x], axes...) }, "%s(v%d, %s)", name, x, fmt.Sprint(axes))
}

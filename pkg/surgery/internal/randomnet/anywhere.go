package randomnet

import (
	"slices"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
)

// anywhere are moves that look at the last axis only.
var anywhere = []move{
	{14, (*generator).activate}, {8, (*generator).normalize}, {7, (*generator).residual}, {5, (*generator).join}, {4, (*generator).combine}, {4, (*generator).gatedHalves},
	{4, (*generator).splitAndWork}, {3, (*generator).dropout}, {3, (*generator).shuffle}, {2, (*generator).reverse}, {2, (*generator).padChannels}, {1, (*generator).maxout},
	{2, (*generator).scale}, {2, (*generator).groupNorm}, {1, (*generator).softmax}, {1, (*generator).twice}, {1, (*generator).quotient}, {1, (*generator).stopped},
}

var functions = []struct {
	name string
	f    func(*graph.Node) *graph.Node
}{
	{"relu", activation.Relu}, {"relu", activation.Relu}, {"gelu", activation.Gelu}, {"tanh", graph.Tanh}, {"swish", activation.Swish}, {"sigmoid", graph.Sigmoid},
	{"softplus", graph.Softplus}, {"cos", graph.Cos}, {"abs", graph.Abs}, {"leakyRelu", activation.LeakyRelu}, {"hardSwish", activation.HardSwish}, {"square", graph.Square}, {"neg", graph.Neg},
}

func (g *generator) activate(x int) int {
	a := functions[g.IntN(len(functions))]
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node { return a.f(v[x]) }, "%s(v%d)", a.name, x)
}

// linear is a dense layer over the last axis.
func (g *generator) linear(x, out int) int {
	name, bias := g.name(), g.chance(0.7)
	return g.add(with(g.dims(x), out), func(s *model.Scope, v []*graph.Node) *graph.Node {
		return layers.Dense(s.At("%s", name), v[x], bias, out)
	}, "dense(v%d, %d, bias %t)", x, out, bias)
}

func (g *generator) dense(x int) int { return g.linear(x, g.between(3, 16)) }

// layer is a layer with weights that keeps all axes but the last.
func (g *generator) layer(x, out int) int {
	if len(g.dims(x)) == 3 {
		return g.convolve(x, out, g.pick(1, 3), 1, true, 1)
	}
	return g.linear(x, out)
}

func (g *generator) normalize(x int) int {
	if g.norms == 3 { // each amplifies rounding
		return -1
	}
	g.norms++
	name, rank := g.name(), len(g.dims(x))
	switch g.IntN(6) {
	case 0:
		return g.add(g.dims(x), func(s *model.Scope, v []*graph.Node) *graph.Node {
			return norm.LayerNorm(s.At("%s", name), v[x], -1).Epsilon(0.1).Done()
		}, "layerNorm(v%d, -1)", x)
	case 1:
		return g.add(g.dims(x), func(s *model.Scope, v []*graph.Node) *graph.Node {
			return norm.RMSNorm(s.At("%s", name), v[x]).WithEpsilon(0.1).Done()
		}, "rmsNorm(v%d)", x)
	case 2:
		if rank == 1 {
			break
		}
		return g.add(g.dims(x), func(s *model.Scope, v []*graph.Node) *graph.Node {
			return norm.LayerNorm(s.At("%s", name), v[x], 1).Epsilon(0.1).Done()
		}, "layerNorm(v%d, 1)", x)
	}
	backend, gain := g.chance(0.7), g.chance(0.8)
	return g.add(g.dims(x), func(s *model.Scope, v []*graph.Node) *graph.Node {
		return norm.BatchNorm(s.At("%s", name), v[x], -1).Epsilon(0.1).UseBackendInference(backend).Scale(gain).Done()
	}, "batchNorm(v%d, backend %t, gain %t)", x, backend, gain)
}

// groupNorm is written with reshapes, as there is no layer for it.
func (g *generator) groupNorm(x int) int {
	groups, c := g.pick(2, 3, 4), g.channels(x)
	if c%groups != 0 || c == groups || g.norms == 3 {
		return -1
	}
	g.norms++
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		y := graph.Reshape(v[x], v[x].Shape().Dim(0), -1, groups, c/groups)
		y = graph.Sub(y, graph.ReduceAndKeep(y, graph.ReduceMean, 1, 3))
		variance := graph.ReduceAndKeep(graph.Square(y), graph.ReduceMean, 1, 3)
		return graph.Reshape(graph.Div(y, graph.Sqrt(graph.AddScalar(variance, 0.1))), v[x].Shape().Dimensions...)
	}, "groupNorm(v%d, %d)", x, groups)
}

// residual adds a layer or two to what they are computed from.
func (g *generator) residual(x int) int {
	y := x
	if g.chance(0.5) {
		y = g.activate(g.layer(y, g.between(3, 12)))
	}
	y = g.layer(y, g.channels(x))
	return g.sum(x, y)
}

func (g *generator) sum(x, y int) int {
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node { return graph.Add(v[x], v[y]) }, "add(v%d, v%d)", x, y)
}

// older returns a value before x of the dimensions given, -1 where there is none.
func (g *generator) older(x int, fits func(dims []int) bool) int {
	var found []int
	for y := 1; y <= len(g.net.steps); y++ {
		if y != x && fits(g.dims(y)) {
			found = append(found, y)
		}
	}
	if len(found) == 0 {
		return -1
	}
	return g.pick(found...)
}

// combine adds, multiplies or takes the larger of two values of one shape.
func (g *generator) combine(x int) int {
	y := g.older(x, func(d []int) bool { return slices.Equal(d, g.dims(x)) })
	if y < 0 {
		return -1
	}
	f, name := graph.Add, "add"
	switch g.IntN(4) {
	case 0:
		f, name = graph.Mul, "mul"
	case 1:
		f, name = graph.Max, "max"
	case 2:
		f, name = graph.Sub, "sub"
	}
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node { return f(v[x], v[y]) }, "%s(v%d, v%d)", name, x, y)
}

// join concatenates a value with an older one, with itself, or with zeros.
func (g *generator) join(x int) int {
	c := g.channels(x)
	if c > 16 {
		return -1
	}
	if g.chance(0.15) {
		n := g.between(1, 4)
		return g.add(with(g.dims(x), c+n), func(_ *model.Scope, v []*graph.Node) *graph.Node {
			zeros := shapes.Make(g.net.DType, append([]int{v[x].Shape().Dim(0)}, with(g.dims(x), n)...)...)
			return graph.Concatenate([]*graph.Node{v[x], graph.Zeros(v[x].Graph(), zeros)}, -1)
		}, "concatenate(v%d, zeros(%d))", x, n)
	}
	y := g.older(x, func(d []int) bool {
		return len(d) == len(g.dims(x)) && slices.Equal(with(d, 0), with(g.dims(x), 0)) && d[len(d)-1] < 12
	})
	if y < 0 {
		y = x
	}
	return g.add(with(g.dims(x), c+g.channels(y)), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		return graph.Concatenate([]*graph.Node{v[x], v[y]}, -1)
	}, "concatenate(v%d, v%d)", x, y)
}

// part takes channels from and up to.
func (g *generator) part(x, from, to int) int {
	return g.add(with(g.dims(x), to-from), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		ranges := make([]graph.SliceAxisSpec, v[x].Rank())
		for i := range ranges {
			ranges[i] = graph.AxisRange()
		}
		ranges[len(ranges)-1] = graph.AxisRange(from, to)
		return graph.Slice(v[x], ranges...)
	}, "v%d[…, %d:%d]", x, from, to)
}

func (g *generator) gatedHalves(x int) int {
	c := g.channels(x)
	if c%2 != 0 {
		return -1
	}
	a, b := g.part(x, 0, c/2), g.part(x, c/2, c)
	return g.add(g.dims(a), func(_ *model.Scope, v []*graph.Node) *graph.Node { return graph.Mul(v[a], graph.Sigmoid(v[b])) }, "mul(v%d, sigmoid(v%d))", a, b)
}

// splitAndWork does a layer on some channels and lets others pass.
func (g *generator) splitAndWork(x int) int {
	c := g.channels(x)
	if c < 4 {
		return -1
	}
	at := g.between(2, c-2)
	a, b := g.part(x, 0, at), g.part(x, at, c)
	b = g.layer(b, g.between(2, 8))
	if g.chance(0.5) {
		a, b = b, a
	}
	return g.add(with(g.dims(x), g.channels(a)+g.channels(b)), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		return graph.Concatenate([]*graph.Node{v[a], v[b]}, -1)
	}, "concatenate(v%d, v%d)", a, b)
}

func (g *generator) dropout(x int) int {
	name := g.name()
	return g.add(g.dims(x), func(s *model.Scope, v []*graph.Node) *graph.Node {
		return layers.DropoutStatic(s.At("%s", name), v[x], 0.2)
	}, "dropout(v%d, 0.2)", x)
}

// shuffle exchanges groups with places within groups.
func (g *generator) shuffle(x int) int {
	groups, c := g.pick(2, 3), g.channels(x)
	if c%groups != 0 || c == groups {
		return -1
	}
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		d := v[x].Shape().Dimensions
		last := len(d) - 1
		y := graph.Reshape(v[x], append(slices.Clone(d[:last]), groups, c/groups)...)
		return graph.Reshape(graph.Transpose(y, last, last+1), d...)
	}, "shuffle(v%d, %d)", x, groups)
}

func (g *generator) reverse(x int) int {
	g.net.NoGradient = "Reverse"
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node { return graph.Reverse(v[x], -1) }, "reverse(v%d, -1)", x)
}

func (g *generator) padChannels(x int) int {
	before, after, value := g.between(0, 2), g.between(1, 3), g.pick(0, 0, 1)
	return g.add(with(g.dims(x), before+g.channels(x)+after), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		// Pad has no gradient, so by concatenation.
		fill := func(n int) *graph.Node {
			shape := shapes.Make(g.net.DType, append([]int{v[x].Shape().Dim(0)}, with(g.dims(x), n)...)...)
			return graph.BroadcastToDims(graph.Scalar(v[x].Graph(), g.net.DType, value), shape.Dimensions...)
		}
		parts := []*graph.Node{v[x], fill(after)}
		if before > 0 {
			parts = append([]*graph.Node{fill(before)}, parts...)
		}
		return graph.Concatenate(parts, -1)
	}, "pad(v%d, channels %d before, %d after, with %d)", x, before, after, value)
}

func (g *generator) maxout(x int) int {
	group, c := g.pick(2, 3), g.channels(x)
	if c%group != 0 || c == group {
		return -1
	}
	g.net.Fragile = true
	return g.add(with(g.dims(x), c/group), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		d := v[x].Shape().Dimensions
		return graph.ReduceMax(graph.Reshape(v[x], append(slices.Clone(d[:len(d)-1]), c/group, group)...), -1)
	}, "maxout(v%d, %d)", x, group)
}

// scale multiplies with a weight for each channel, and adds one.
func (g *generator) scale(x int) int {
	name, c := g.name(), g.channels(x)
	return g.add(g.dims(x), func(s *model.Scope, v []*graph.Node) *graph.Node {
		dims := make([]int, v[x].Rank())
		for i := range dims {
			dims[i] = 1
		}
		dims[len(dims)-1] = c
		w := func(what string) *graph.Node {
			return graph.Reshape(s.At("%s", name).VariableWithShape(what, shapes.Make(g.net.DType, c)).NodeValue(v[x].Graph()), dims...)
		}
		return graph.Add(graph.Mul(v[x], w("scale")), w("offset"))
	}, "scale(v%d)", x)
}

func (g *generator) softmax(x int) int {
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node { return graph.Softmax(v[x], -1) }, "softmax(v%d, -1)", x)
}

func (g *generator) twice(x int) int {
	if g.channels(x) > 8 {
		return -1
	}
	return g.add(with(g.dims(x), 2*g.channels(x)), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		return graph.Concatenate([]*graph.Node{v[x], graph.Neg(v[x])}, -1)
	}, "concatenate(v%d, neg(v%[1]d))", x)
}

func (g *generator) quotient(x int) int {
	y := g.layer(x, g.channels(x))
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		return graph.Div(v[x], graph.OnePlus(graph.Square(v[y])))
	}, "div(v%d, 1+square(v%d))", x, y)
}

// stopped has a gradient of its own and one that is stopped.
func (g *generator) stopped(x int) int {
	return g.add(g.dims(x), func(_ *model.Scope, v []*graph.Node) *graph.Node {
		y := graph.IdentityWithCustomGradient(v[x], func(_, d *graph.Node) *graph.Node { return graph.MulScalar(d, 0.5) })
		return graph.Add(graph.Tanh(y), graph.StopGradient(graph.MulScalar(v[x], 0.1)))
	}, "add(tanh(halfGradient(v%d)), stopGradient(0.1·v%[1]d))", x)
}

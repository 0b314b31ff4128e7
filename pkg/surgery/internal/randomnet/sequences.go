package randomnet

import (
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/attention"
	"github.com/gomlx/gomlx/ml/layers/attention/pos"
	"github.com/gomlx/gomlx/ml/layers/lstm"
	"github.com/gomlx/gomlx/ml/model"
)

// onSequences are moves on [places, features].
var onSequences = []move{
	{10, (*generator).dense}, {10, (*generator).attend}, {6, (*generator).flatAttention}, {4, (*generator).linearAttention}, {4, (*generator).convOverTime}, {3, (*generator).mixPlaces},
	{3, (*generator).positions}, {3, (*generator).swiGLU}, {4, (*generator).recur}, {3, (*generator).toVector},
}

// onVectors are moves on [features].
var onVectors = []move{
	{14, (*generator).dense}, {3, (*generator).layoutOut}, {6, (*generator).bilinear}, {3, (*generator).twoAxes}, {3, (*generator).swiGLU},
}

// attend is GoMLX's attention.
func (g *generator) attend(x int) int {
	name, heads, size, out := g.name(), g.pick(2, 3, 4), 2*g.between(1, 3), g.between(4, 10)
	kv, variant := heads, g.IntN(6)
	if variant == 0 && heads == 4 {
		kv = 2
	}
	causal, rope := g.chance(0.4), g.chance(0.3)
	if rope {
		size = max(size, 4)
	}
	return g.add(with(g.dims(x), out), func(s *model.Scope, v []*graph.Node) *graph.Node {
		b := attention.SelfAttention(s.At("%s", name), v[x], heads, size).WithNumKVHeads(kv).WithCausalMask(causal).WithOutputDim(out)
		if rope {
			b = b.WithPositionalEncoder(pos.NewRoPE(100))
		}
		switch variant {
		case 1:
			b = b.UseQKVProjection()
		case 2:
			b = b.UseTransposedWeights(true)
		case 3:
			b = b.WithValueHeadDim(5)
		case 4:
			b = b.WithScoreSoftCap(4).WithDropout(graph.Scalar(v[x].Graph(), g.net.DType, 0.1))
		}
		return b.Done()
	}, "attention(v%d, heads %d of %d, keys %d, causal %t, rope %t, out %d, variant %d)", x, heads, size, kv, causal, rope, out, variant)
}

// flatAttention splits flat projections into heads by itself.
func (g *generator) flatAttention(x int) int {
	name, heads, size, out := g.name(), g.pick(1, 2, 3), g.between(2, 5), g.between(4, 10)
	return g.add(with(g.dims(x), out), func(s *model.Scope, v []*graph.Node) *graph.Node {
		batch, length := v[x].Shape().Dim(0), v[x].Shape().Dim(1)
		split := func(what string) *graph.Node { // -> [batch, heads, length, size]
			y := layers.Dense(s.At("%s %s", name, what), v[x], true, heads*size)
			return graph.TransposeAllAxes(graph.Reshape(y, batch, length, heads, size), 0, 2, 1, 3)
		}
		weights := graph.Softmax(graph.MulScalar(graph.Einsum("bhqd,bhkd->bhqk", split("query"), split("key")), 1/math.Sqrt(float64(size))), -1)
		y := graph.TransposeAllAxes(graph.Einsum("bhqk,bhkd->bhqd", weights, split("value")), 0, 2, 1, 3)
		return layers.Dense(s.At("%s out", name), graph.Reshape(y, batch, length, heads*size), true, out)
	}, "flatAttention(v%d, heads %d of %d, out %d)", x, heads, size, out)
}

// linearAttention weighs by products of functions of queries and keys, of which some are not zero at zero.
func (g *generator) linearAttention(x int) int {
	name, size, values := g.name(), g.between(3, 6), g.between(3, 8)
	a := functions[g.IntN(len(functions))]
	return g.add(with(g.dims(x), values), func(s *model.Scope, v []*graph.Node) *graph.Node {
		project := func(what string, n int) *graph.Node { return layers.Dense(s.At("%s %s", name, what), v[x], true, n) }
		memory := graph.Einsum("bsd,bsv->bdv", a.f(project("key", size)), project("value", values))
		return graph.Einsum("bsd,bdv->bsv", a.f(project("query", size)), memory)
	}, "linearAttention(v%d, %s, size %d, values %d)", x, a.name, size, values)
}

func (g *generator) convOverTime(x int) int {
	name, out, size := g.name(), g.between(3, 10), g.pick(1, 2, 3)
	return g.add(with(g.dims(x), out), func(s *model.Scope, v []*graph.Node) *graph.Node {
		return layers.Convolution(s.At("%s", name), v[x]).Channels(out).KernelSize(size).PadSame().Done()
	}, "convOverTime(v%d, %d, size %d)", x, out, size)
}

// mixPlaces is a hidden layer over places, for each feature, with a residual.
func (g *generator) mixPlaces(x int) int {
	name, d, inner := g.name(), g.dims(x), g.between(3, 7)
	return g.add(d, func(s *model.Scope, v []*graph.Node) *graph.Node {
		y := graph.Tanh(layers.Dense(s.At("%s up", name), graph.Transpose(v[x], 1, 2), true, inner))
		return graph.Add(v[x], graph.Transpose(layers.Dense(s.At("%s down", name), y, true, d[0]), 1, 2))
	}, "add(v%d, mixPlaces(v%[1]d, %d))", x, inner)
}

// positions adds a vector for each place.
func (g *generator) positions(x int) int {
	name, d := g.name(), g.dims(x)
	return g.add(d, func(s *model.Scope, v []*graph.Node) *graph.Node {
		table := s.At("%s", name).VariableWithShape("table", shapes.Make(g.net.DType, d...)).NodeValue(v[x].Graph())
		return graph.Add(v[x], graph.InsertAxes(table, 0))
	}, "add(v%d, positions)", x)
}

func (g *generator) swiGLU(x int) int {
	name, inner, out := g.name(), g.between(4, 12), g.between(3, 10)
	return g.add(with(g.dims(x), out), func(s *model.Scope, v []*graph.Node) *graph.Node {
		gate := layers.DenseWithLayout(s.At("%s gate", name), v[x], compute.DenseLayoutOutputsInput, false, inner)
		y := graph.Mul(graph.Mul(gate, graph.Sigmoid(gate)), layers.Dense(s.At("%s up", name), v[x], true, inner))
		return layers.Dense(s.At("%s down", name), y, false, out)
	}, "swiGLU(v%d, %d, out %d)", x, inner, out)
}

// recur is an LSTM, which is unrolled, so rare.
func (g *generator) recur(x int) int {
	name, d, size := g.name(), g.dims(x), g.between(2, 5)
	if d[0] > 4 {
		return -1
	}
	return g.add([]int{d[0], size}, func(s *model.Scope, v []*graph.Node) *graph.Node {
		all, _, _ := lstm.New(s.At("%s", name), v[x], size).Done() // [places, 1, batch, size]
		return graph.TransposeAllAxes(graph.Squeeze(all, 1), 1, 0, 2)
	}, "lstm(v%d, %d)", x, size)
}

// layoutOut is a dense layer with weights [out, in].
func (g *generator) layoutOut(x int) int {
	name, out := g.name(), g.between(3, 12)
	return g.add([]int{out}, func(s *model.Scope, v []*graph.Node) *graph.Node {
		return layers.DenseWithLayout(s.At("%s", name), v[x], compute.DenseLayoutOutputsInput, true, out)
	}, "dense(v%d, %d, weights [out, in])", x, out)
}

// bilinear is all products of two projections.
func (g *generator) bilinear(x int) int {
	name, a, b := g.name(), g.between(2, 4), g.between(2, 5)
	return g.add([]int{a * b}, func(s *model.Scope, v []*graph.Node) *graph.Node {
		p, q := layers.Dense(s.At("%s a", name), v[x], true, a), layers.Dense(s.At("%s b", name), v[x], true, b)
		return graph.Reshape(graph.Einsum("bi,bj->bij", p, q), v[x].Shape().Dim(0), a*b)
	}, "bilinear(v%d, %d, %d)", x, a, b)
}

// twoAxes makes a sequence of a vector by a layer with two output axes.
func (g *generator) twoAxes(x int) int {
	name, a, b := g.name(), g.between(2, 4), g.between(3, 6)
	return g.add([]int{a, b}, func(s *model.Scope, v []*graph.Node) *graph.Node {
		return layers.Dense(s.At("%s", name), v[x], true, a, b)
	}, "dense(v%d, %d, %d)", x, a, b)
}

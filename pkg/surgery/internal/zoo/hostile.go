package zoo

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// hostile lists what tempts surgery to be wrong: functions that do not keep zero at zero, the same channels at several places, and operations that look at channels' order.
func hostile() []Network {
	vector, sequence := [][]int{{6}}, [][]int{{5, 8}}
	two := func(f func(s *model.Scope, x *graph.Node) *graph.Node) trace.ModelFn { // a hidden layer, something, the output layer
		return trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", f(s, dense(s, "fc", x, 12)), 5)
		})
	}
	weight := func(s *model.Scope, x *graph.Node, dims ...int) *graph.Node {
		return s.At("own").VariableWithShape("weights", shapes.Make(f32, dims...)).NodeValue(x.Graph())
	}
	return []Network{
		{Name: "softplus linear attention", Model: trace.Single(linearAttention(softplus)), Example: sequence, Groups: 1,
			Why: "values; softplus(0) = log 2 adds up over queries and keys that are masked", Pinned: []string{"DotGeneral"}},
		{Name: "positive weights", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = softplus(dense(s, "fc", x, 8))
			return graph.Einsum("bi,io->bo", x, graph.Exp(weight(s, x, 8, 5)))
		}), Example: vector, Groups: 0, Why: "a masked channel is log 2, its weight is 1", Pinned: []string{"DotGeneral"}},
		{Name: "positive weights after relu", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = relu(dense(s, "fc", x, 8))
			return graph.Einsum("bi,io->bo", x, graph.Exp(weight(s, x, 8, 5)))
		}), Example: vector, Groups: 1, Why: "a masked channel is 0, its weight is 1"},
		{Name: "division by a channel", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", graph.Div(dense(s, "a", x, 8), graph.Square(dense(s, "b", x, 8))), 5)
		}), Example: vector, Groups: 0, Why: "0/0 where both are masked", Pinned: []string{"Div"}},
		{Name: "division by one and more", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", graph.Div(dense(s, "a", x, 8), graph.OnePlus(graph.Square(dense(s, "b", x, 8)))), 5)
		}), Example: vector, Groups: 1, Why: "0/1 where both are masked"},
		{Name: "logarithm of a channel", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.Log(graph.Square(x)) }), Example: vector, Groups: 0,
			Why: "log 0 where it is masked", Pinned: []string{"Log"}},
		{Name: "negative power of a channel", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Mul(x, graph.Pow(graph.Square(x), graph.Scalar(x.Graph(), f32, -0.25)))
		}), Example: vector, Groups: 0, Why: "infinite where it is masked", Pinned: []string{"Pow"}},
		{Name: "sigmoid, cosine", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.Cos(graph.Sigmoid(x)) }), Example: vector, Groups: 1,
			Why: "fc: masked channels are constants, which the output layer's zeros take away"},
		{Name: "softmax over channels", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.Softmax(x, -1) }), Example: vector, Groups: 0, Why: "masked channels have e⁰ in its sum",
			Pinned: []string{"ReduceMax"}},
		{Name: "largest of all channels", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Sub(x, graph.ReduceAndKeep(x, graph.ReduceMax, -1))
		}), Example: vector,
			Groups: 0, Why: "0 may be the largest", Fragile: true, Pinned: []string{"ReduceMax"}},
		{Name: "maxout", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.ReduceMax(graph.Reshape(x, x.Shape().Dim(0), 4, 3), -1)
		}), Example: vector, Groups: 1, Why: "whole groups of three", Fragile: true},
		{Name: "cumulative sum", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.CumSum(x, -1) }), Example: vector, Groups: 0, Why: "each channel sums those before it"},
		{Name: "sorted channels", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.Sort(x, -1, true) }), Example: vector, Groups: 0, Why: "order is by value", Pinned: []string{"Sort"}, Refused: "Sort"},
		{Name: "a loop", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = relu(dense(s, "fc", x, 12))
			return looped(dense(s, "output", x, 5))
		}), Example: vector, Groups: 1, Why: "fc; the loop works on the outputs", Pinned: []string{"While"}, Refused: "While"},
		{Name: "a branch", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = relu(dense(s, "fc", x, 12))
			return branched(dense(s, "output", x, 5))
		}), Example: vector, Groups: 1, Why: "fc; the branches choose a factor of the outputs", Pinned: []string{"If"}, Refused: "If"},
		{Name: "channels by index", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			index := graph.Const(x.Graph(), []int32{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8})
			return graph.Transpose(graph.Gather(graph.Transpose(x, 0, 1), graph.InsertAxes(index, -1)), 0, 1)
		}), Example: vector, Groups: 2, Why: "fc, whose channels are read as zeros where they are gone; and which of them the output layer takes"},
		{Name: "channels by computed index", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			index := graph.AddScalar(graph.Iota(x.Graph(), shapes.Make(dtypes.Int32, 6, 1), 0), 3)
			return graph.Transpose(graph.Gather(graph.Transpose(x, 0, 1), index), 0, 1)
		}), Example: vector, Groups: 1, Why: "indices that are computed count the channels of fc; which of them the output layer takes can be cut", Pinned: []string{"Gather"}},
		{Name: "one-hot of the largest", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", graph.OneHot(graph.ArgMax(dense(s, "fc", x, 4), -1), 4, f32), 5)
		}), Example: [][]int{{20, 6}}, Groups: 1, Why: "an index is a value; the output layer's rows for some of them can be cut", Pinned: []string{"ArgMinMax"}},
		{Name: "scattered", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			index := graph.Const(x.Graph(), [][]int32{{2}, {0}})
			zeros := graph.Zeros(x.Graph(), shapes.Make(f32, 12, x.Shape().Dim(0)))
			rows := graph.Slice(graph.Transpose(x, 0, 1), graph.AxisRange(0, 2))
			return graph.Add(x, graph.Transpose(graph.ScatterSum(zeros, index, rows, false, true), 0, 1))
		}), Example: vector, Groups: 0, Why: "indices count the channels", Pinned: []string{"ScatterSum"}},
		{Name: "every other channel", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Slice(x, graph.AxisRange(), graph.AxisRange().Stride(2))
		}), Example: vector, Groups: 0, Why: "a stride counts the channels", Pinned: []string{"Slice"}},
		{Name: "spectrum", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Abs(graph.FFT(graph.ConvertDType(x, dtypes.Complex64)))
		}), Example: vector, Groups: 0, Why: "every channel is in every coefficient", Pinned: []string{"FFT"}},
		{Name: "straight-through", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			x = graph.IdentityWithCustomGradient(x, func(_, v *graph.Node) *graph.Node { return graph.MulScalar(v, 3) })
			return graph.Add(graph.Tanh(x), graph.StopGradient(graph.Sign(x)))
		}), Example: vector, Groups: 1, Why: "fc: own gradients and stops have to survive"},
		{Name: "twice the same", Model: two(func(s *model.Scope, x *graph.Node) *graph.Node {
			return graph.Add(graph.Concatenate([]*graph.Node{x, x}, -1), dense(s, "wide", x, 24))
		}), Example: vector, Groups: 1, Why: "a channel of fc is two of the wide layer"},
		{Name: "with its mirror image", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.Mul(x, graph.Tanh(graph.Reverse(x, -1))) }), Example: vector, Groups: 1,
			Why: "fc in pairs: the first with the last", NoGradient: "Reverse"},
		{Name: "tied autoencoder", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			w := weight(s, x, 6, 9)
			return graph.Einsum("bh,ih->bi", graph.Tanh(graph.Einsum("bi,ih->bh", x, w)), w)
		}), Example: vector, Groups: 1, Why: "the code"},
		{Name: "bilinear pooling", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			a, b := relu(dense(s, "a", x, 4)), relu(dense(s, "b", x, 6))
			return dense(s, "output", graph.Reshape(graph.Einsum("bi,bj->bij", a, b), x.Shape().Dim(0), 24), 5)
		}), Example: vector, Groups: 2, Why: "either factor"},
		{Name: "square weights", Model: two(func(s *model.Scope, x *graph.Node) *graph.Node {
			w := weight(s, x, 12, 12)
			return graph.Einsum("bi,ij->bj", x, graph.Add(w, graph.Transpose(w, 0, 1)))
		}), Example: vector, Groups: 1, Why: "a sum with its transpose ties inputs and outputs"},
		{Name: "constants of channels", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			index := graph.Iota(x.Graph(), shapes.Make(f32, 1, 12), 1)
			few := graph.Const(x.Graph(), []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
			long := make([]float32, 48)
			for i := range long {
				long[i] = float32(i*i%7) - 3
			}
			many := graph.Reshape(graph.Const(x.Graph(), long), 4, 12)
			x = graph.Mul(x, graph.Cos(index))
			x = graph.Where(graph.LessThan(graph.BroadcastToDims(index, x.Shape().Dimensions...), graph.Scalar(x.Graph(), f32, 5)), x, graph.Neg(x))
			return graph.Add(graph.Mul(x, graph.InsertAxes(few, 0)), graph.Slice(many, graph.AxisRange(1, 2)))
		}), Example: vector, Groups: 1, Why: "constants and counters are cut with the channels"},
		{Name: "dropout", Model: two(func(s *model.Scope, x *graph.Node) *graph.Node {
			return layers.DropoutStatic(s.At("drop"), activation.Gelu(x), 0.4)
		}), Example: vector, Groups: 1, Why: "fc: what is left drops out as it did"},
		{Name: "gated halves", Model: two(func(s *model.Scope, x *graph.Node) *graph.Node {
			half := func(from int) *graph.Node { return graph.Slice(x, graph.AxisRange(), graph.AxisRange(from, from+6)) }
			return graph.Mul(half(0), graph.Sigmoid(half(6)))
		}), Example: vector, Groups: 1, Why: "each channel with its gate"},
		{Name: "every elementwise operation", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node { return elementwise(x) }), Example: vector, Groups: 1,
			Why: "fc: what stands at the same index goes together", Fragile: true},
		{Name: "two outputs, two inputs", Model: func(s *model.Scope, in []*graph.Node) []*graph.Node {
			a, b := relu(dense(s, "a", in[0], 8)), relu(dense(s, "b", in[1], 7))
			both := graph.Concatenate([]*graph.Node{a, b}, -1)
			return []*graph.Node{dense(s, "first", both, 3), dense(s, "second", graph.Mul(b, b), 4)}
		}, Example: [][]int{{6}, {5}}, Groups: 2, Why: "either branch"},
		{Name: "an output of channels", Model: func(s *model.Scope, in []*graph.Node) []*graph.Node {
			x := relu(dense(s, "fc", in[0], 8))
			return []*graph.Node{dense(s, "output", x, 5), x}
		}, Example: vector, Groups: 0, Why: "they are an output themselves"},
		{Name: "padded channels", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Pad(x, graph.Scalar(x.Graph(), f32, 2), graph.PadAxis{}, graph.PadAxis{Start: 2, End: 1})
		}), Example: vector, Groups: 2, Why: "fc, and the output layer's rows for padding, of units that nothing computes", NoGradient: "Pad"},
		{Name: "less the first channel", Model: two(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Sub(x, graph.Slice(x, graph.AxisRange(), graph.AxisRange(0, 1)))
		}), Example: vector, Groups: 1, Why: "all but the first, which is in all others"},
		{Name: "weights normalised", Model: two(func(s *model.Scope, x *graph.Node) *graph.Node {
			w := weight(s, x, 12, 9)
			length := graph.Sqrt(graph.AddScalar(graph.ReduceAndKeep(graph.Square(w), graph.ReduceSum, 0), 1e-3))
			return graph.Einsum("bi,ij->bj", relu(x), graph.Div(w, length))
		}), Example: vector, Groups: 2, Why: "its inputs, which add nothing to the length, and its outputs"},
	}
}

func softplus(x *graph.Node) *graph.Node { return graph.Log1P(graph.Exp(x)) }

// elementwise uses all operations that compute each element from those at the same place.
func elementwise(x *graph.Node) *graph.Node {
	positive := graph.OnePlus(graph.Square(x))
	bounded := graph.Tanh(x)
	floats := []*graph.Node{
		graph.Abs(x), graph.Neg(x), graph.Sign(x), graph.Ceil(x), graph.Floor(x), graph.Round(x), graph.Exp(bounded), graph.Expm1(bounded), graph.Erf(x), graph.Log(positive), graph.Log1P(graph.Square(x)),
		graph.Sqrt(positive), graph.Rsqrt(positive), graph.Sin(x), graph.Cos(x), graph.Sigmoid(x), graph.Atan2(x, positive), graph.Pow(positive, bounded), graph.Rem(x, positive),
		graph.Min(x, bounded), graph.Max(x, bounded), graph.ClipScalar(x, -0.5, 0.5), graph.Clamp(graph.Neg(positive), x, positive), graph.Identity(x), graph.OptimizationBarrier(x),
		graph.SchedulingBarrier(x, bounded), graph.Bitcast(graph.Bitcast(x, dtypes.Int32), f32),
	}
	complex := graph.Complex(x, positive)
	complex = graph.Mul(complex, graph.Conj(graph.Complex(bounded, x)))
	floats = append(floats, graph.Real(complex), graph.Imag(complex))
	integer := graph.ConvertDType(graph.MulScalar(x, 100), dtypes.Int32)
	other := graph.ConvertDType(graph.MulScalar(bounded, 100), dtypes.Int32)
	for _, y := range []*graph.Node{
		graph.BitwiseAnd(integer, other), graph.BitwiseOr(integer, other), graph.BitwiseXor(integer, other), graph.BitwiseNot(integer), graph.BitCount(integer), graph.Clz(integer),
		graph.BitwiseShiftLeftScalar(integer, int32(2)), graph.BitwiseShiftRightArithmeticScalar(integer, int32(1)), graph.BitwiseShiftRightLogicalScalar(integer, int32(28)),
	} {
		floats = append(floats, graph.MulScalar(graph.ConvertDType(y, f32), 0.01))
	}
	less, equal := graph.LessThan(x, bounded), graph.Equal(integer, other)
	for _, y := range []*graph.Node{
		less, equal, graph.NotEqual(integer, other), graph.LessOrEqual(x, bounded), graph.GreaterThan(x, bounded), graph.GreaterOrEqual(x, bounded), graph.LogicalAnd(less, equal),
		graph.LogicalOr(less, equal), graph.LogicalXor(less, equal), graph.LogicalNot(less), graph.IsFinite(x), graph.IsNaN(x), graph.EqualTotalOrder(x, bounded), graph.NotEqualTotalOrder(x, bounded),
		graph.LessThanTotalOrder(x, bounded), graph.LessOrEqualTotalOrder(x, bounded), graph.GreaterThanTotalOrder(x, bounded), graph.GreaterOrEqualTotalOrder(x, bounded),
	} {
		floats = append(floats, graph.Where(y, x, positive))
	}
	sum := floats[0]
	for i, y := range floats[1:] {
		sum = graph.Add(sum, graph.MulScalar(y, 1/float64(i+2)))
	}
	return sum
}

// looped doubles a value three times.
func looped(x *graph.Node) *graph.Node {
	g, shape := x.Graph(), x.Shape()
	state := func(g *graph.Graph) (count, value *graph.Node) {
		return graph.Parameter(g, "count", shapes.Make(dtypes.Int32)), graph.Parameter(g, "value", shape)
	}
	condition := graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
		count, _ := state(g)
		return []*graph.Node{graph.LessThan(count, graph.Const(g, int32(3)))}
	})
	body := graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
		count, value := state(g)
		return []*graph.Node{graph.OnePlus(count), graph.Add(value, value)}
	})
	return graph.While(condition, body, graph.Const(g, int32(0)), x)[1]
}

// branched doubles values, or changes their sign where their sum is negative. XLA's branches can't use values from outside.
func branched(x *graph.Node) *graph.Node {
	factor := func(value float32) *graph.Function {
		return graph.NewClosure(x.Graph(), func(g *graph.Graph) []*graph.Node { return []*graph.Node{graph.Const(g, value)} })
	}
	return graph.Mul(x, graph.If(graph.IsNonNegative(graph.ReduceAllSum(x)), factor(2), factor(-1))[0])
}

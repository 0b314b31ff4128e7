package zoo

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/attention"
	"github.com/gomlx/gomlx/ml/layers/attention/pos"
	"github.com/gomlx/gomlx/ml/layers/fnn"
	"github.com/gomlx/gomlx/ml/layers/kan"
	"github.com/gomlx/gomlx/ml/layers/lstm"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/layers/rational"
	"github.com/gomlx/gomlx/ml/layers/vnn"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// gomlx lists GoMLX's own layers, with the options that change what they compute.
func gomlx() []Network {
	vector, sequence, image := [][]int{{6}}, [][]int{{5, 8}}, [][]int{{6, 6, 3}}
	// attend is an attention layer as a network, between layers whose channels it ties or holds.
	attend := func(configure func(x *graph.Node, b *attention.MultiHeadAttentionBuilder) *attention.MultiHeadAttentionBuilder) trace.ModelFn {
		return trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = relu(dense(s, "embed", x, 10))
			return dense(s, "output", configure(x, attention.SelfAttention(s.At("attend"), x, 4, 6)).Done(), 5)
		})
	}
	type builder = attention.MultiHeadAttentionBuilder
	usual := "embedding, heads, queries with keys, values, and the layer's output"
	// spline is a network of two layers of KAN.
	spline := func(configure func(*kan.Config) *kan.Config) trace.ModelFn {
		return trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return configure(kan.New(s.At("kan"), x, 5).NumHiddenLayers(1, 8)).Done()
		})
	}
	// normalized is a network with a normalisation between two dense layers.
	normalized := func(f func(s *model.Scope, x *graph.Node) *graph.Node) trace.ModelFn {
		return trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", relu(f(s.At("norm"), dense(s, "fc", x, 12))), 5)
		})
	}
	return []Network{
		{Name: "dense", Model: trace.Single(denseLayouts), Example: sequence, Groups: 3, Why: "outputs of two axes are two groups; weights [out, in] the third"},
		{Name: "fnn", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return fnn.New(s.At("fnn"), x, 5).NumHiddenLayers(2, 10).Activation(activation.TypeGelu).Normalization("batch").Residual(true).Dropout(0.2).Done()
		}), Example: vector, Groups: 1, Why: "the residual ties both hidden layers"},
		{Name: "convolution", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = relu(layers.Convolution(s.At("c0"), x).Channels(8).KernelSizePerAxis(3, 1).StridePerAxis(2, 1).PadSame().Done())
			x = relu(layers.Convolution(s.At("c1"), x).Channels(6).KernelSize(2).DilationPerAxis(1, 2).NoPadding().Done())
			return classify(s, x)
		}), Example: image, Groups: 2, Why: "both convolutions"},
		{Name: "convolution over time", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = activation.Swish(layers.Convolution(s.At("c0"), x).Channels(8).KernelSize(3).PadSame().Done())
			return dense(s, "output", graph.ReduceMean(x, 1), 5)
		}), Example: sequence, Groups: 1, Why: "the convolution"},
		{Name: "batch norm", Model: normalized(func(s *model.Scope, x *graph.Node) *graph.Node { return norm.BatchNorm(s, x, -1).Done() }), Example: vector, Groups: 1, Why: "fc"},
		{Name: "batch norm by hand", Model: normalized(func(s *model.Scope, x *graph.Node) *graph.Node {
			return norm.BatchNorm(s, x, -1).UseBackendInference(false).Momentum(0.9).Epsilon(1e-2).Done()
		}), Example: vector, Groups: 1, Why: "fc"},
		{Name: "batch norm without gain", Model: normalized(func(s *model.Scope, x *graph.Node) *graph.Node { return norm.BatchNorm(s, x, -1).Scale(false).Done() }),
			Example: vector, Groups: 1, Why: "fc: the gain is a constant"},
		{Name: "batch norm without offset, frozen", Model: normalized(func(s *model.Scope, x *graph.Node) *graph.Node {
			return norm.BatchNorm(s, x, -1).Center(false).FrozenAverages(true).Done()
		}), Example: vector, Groups: 1, Why: "fc"},
		{Name: "layer norm", Model: normalized(func(s *model.Scope, x *graph.Node) *graph.Node { return norm.LayerNorm(s, x, -1).Done() }),
			Example: sequence, Groups: 0, Why: "the mean over the channels that are left is another", Pinned: []string{"ReduceSum"}},
		{Name: "layer norm over places", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", norm.LayerNorm(s.At("norm"), dense(s, "fc", x, 12), 1).Done(), 5)
		}), Example: sequence, Groups: 1, Why: "fc: it is the places that are normalised"},
		{Name: "rms norm", Model: normalized(func(s *model.Scope, x *graph.Node) *graph.Node { return norm.RMSNorm(s, x).Done() }),
			Example: sequence, Groups: 1, Why: "fc: what is removed adds nothing to the sum of squares, and what it is divided by is a constant"},
		{Name: "dynamic tanh", Model: normalized(func(s *model.Scope, x *graph.Node) *graph.Node { return norm.DynamicTanh(s, x).Done() }), Example: sequence, Groups: 1, Why: "fc: it needs no mean"},
		{Name: "embedding", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", graph.ReduceMean(layers.Embedding(s.At("embed"), x, f32, 16, 10), 1), 5)
		}), Example: [][]int{{6}}, Tokens: 16, Groups: 1, Why: "the embedding's dimensions; its rows are the tokens", Pinned: []string{"Gather"}},
		{Name: "calibration", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			keys := graph.Const(x.Graph(), []float32{-1, -0.3, 0.2, 1})
			return dense(s, "output", layers.PieceWiseLinearCalibration(s.At("calibrate"), dense(s, "fc", x, 8), keys, true), 5)
		}), Example: vector, Groups: 1, Why: "fc with its calibrations"},
		{Name: "drop path", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = conv(s, "c0", x, 8, 3, 1)
			y := layers.DropPath(s.At("path"), conv(s, "c1", x, 8, 3, 1), graph.Scalar(x.Graph(), f32, 0.3))
			return classify(s, graph.Add(x, y))
		}), Example: image, Groups: 1, Why: "the residual ties both"},
		{Name: "drop block", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = layers.DropBlock(s.At("block"), conv(s, "c0", x, 8, 3, 1)).WithDropoutProbability(0.2).WithBlockSize(2).Done()
			return classify(s, x)
		}), Example: image, Groups: 0, Why: "it scales by how much is left of all channels", Pinned: []string{"ReduceWindow"}},
		{Name: "lstm", Model: trace.Single(recurrent(func(l *lstm.LSTM) *lstm.LSTM { return l })), Example: sequence, Groups: 2, Why: "the input's layer, the hidden state with its gates"},
		{Name: "lstm, both ways, peephole", Model: trace.Single(recurrent(func(l *lstm.LSTM) *lstm.LSTM { return l.Direction(lstm.DirBidirectional).UsePeephole(true) })),
			Example: [][]int{{3, 8}}, Groups: 2, Why: "as one way: both have their weights in one variable"},
		{Name: "kan, b-splines", Model: spline(func(c *kan.Config) *kan.Config { return c.NumControlPoints(6) }), Example: vector, Groups: 1, Why: "the hidden layer: it is summed over, and zero where it is removed", Pinned: []string{"LogicalAnd"}},
		{Name: "kan, piecewise linear", Model: spline(func(c *kan.Config) *kan.Config { return c.PiecewiseLinear().NumControlPoints(6).UseMean(false) }), Example: vector,
			Groups: 3, Why: "the hidden layer, and the control points of either layer but the last, which bounds the input", Pinned: []string{"Slice"}},
		{Name: "kan, discrete", Model: spline(func(c *kan.Config) *kan.Config { return c.Discrete().NumControlPoints(6) }), Example: vector, Groups: 0, Why: "control points are looked up",
			Pinned: []string{"Gather"}},
		{Name: "kan, rational", Model: spline(func(c *kan.Config) *kan.Config { return c.Rational() }), Example: vector, Groups: 1, Why: "the hidden layer"},
		{Name: "rational activation", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", rational.New(s.At("rational"), dense(s, "fc", x, 10)).Approximate("gelu").Done(), 5)
		}), Example: vector, Groups: 1, Why: "fc: the function is the same for all channels"},
		{Name: "vector neurons", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = vnn.New(s.At("vnn"), x, 6).NumHiddenLayers(1, 10).Activation("relu").Done()
			return dense(s, "output", graph.Reshape(x, x.Shape().Dim(0), -1), 5)
		}), Example: [][]int{{4, 3}}, Groups: 2, Why: "the hidden layer, and the vectors that it returns"},
		{Name: "attention, weights [out, in]", Model: attend(func(_ *graph.Node, b *builder) *builder { return b.UseTransposedWeights(true).UseProjectionBias(false) }), Example: sequence, Groups: 5, Why: usual},
		{Name: "attention, other dimensions", Model: attend(func(_ *graph.Node, b *builder) *builder {
			return b.WithKeyQueryDim(4).WithValueHeadDim(7).WithOutputDim(9)
		}), Example: sequence, Groups: 5, Why: usual},
		{Name: "attention, one head of keys", Model: attend(func(_ *graph.Node, b *builder) *builder { return b.WithNumKVHeads(1) }), Example: sequence, Groups: 5, Why: usual},
		{Name: "attention, dropout, soft cap", Model: attend(func(x *graph.Node, b *builder) *builder {
			return b.WithDropout(graph.Scalar(x.Graph(), f32, 0.2)).WithScoreSoftCap(5).WithQueryKeyScale(0.3)
		}), Example: sequence, Groups: 5, Why: usual},
		{Name: "attention, sliding window", Model: attend(func(_ *graph.Node, b *builder) *builder { return b.WithCausalMask(true).WithSlidingWindow(3) }), Example: sequence, Groups: 5, Why: usual},
		{Name: "attention, key mask", Model: attend(func(x *graph.Node, b *builder) *builder {
			return b.WithKeyMask(graph.GreaterThan(graph.ReduceSum(x, -1), graph.Scalar(x.Graph(), f32, -1e9)))
		}), Example: sequence, Groups: 5, Why: usual + "; the mask looks at the embedding's sum, which stays the same"},
		{Name: "attention, normalised queries", Model: attend(func(_ *graph.Node, b *builder) *builder { return b.WithQKRMSNorm(1e-6) }), Example: sequence, Groups: 5,
			Why: usual + "; what is removed adds nothing to the norm"},
		{Name: "attention, interleaved RoPE", Model: attend(func(_ *graph.Node, b *builder) *builder {
			return b.WithPositionalEncoder(pos.NewRoPE(100).WithInterleaved(true))
		}), Example: sequence,
			Groups: 4, Why: "as usual, but the way that pairs are taken apart and joined again holds queries and keys"},
		{Name: "attention over an image", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = conv(s, "c0", x, 8, 3, 2) // -> [batch, 3, 3, 8]
			return classify(s, attention.SelfAttention(s.At("attend"), x, 4, 6).Done())
		}), Example: image, Groups: 5, Why: usual},
		{Name: "attention with its weights", Model: func(s *model.Scope, in []*graph.Node) []*graph.Node {
			y, weights := attention.SelfAttention(s.At("attend"), in[0], 4, 6).DoneWithCoefficients()
			return []*graph.Node{y, weights}
		}, Example: sequence, Groups: 2, Why: "queries with keys, values: the weights of each head are an output"},
	}
}

func denseLayouts(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(layers.Dense(s.At("two"), x, true, 4, 6))                                          // [batch, 5, 8] -> [batch, 5, 4, 6]
	x = relu(layers.DenseWithLayout(s.At("back"), x, compute.DenseLayoutOutputsInput, true, 7)) // -> [batch, 5, 4, 7]
	return dense(s, "output", graph.Reshape(x, x.Shape().Dim(0), x.Shape().Dim(1), 28), 5)      // -> [batch, 5, 5]
}

// recurrent is an LSTM over an embedding, of which the last state goes on.
func recurrent(configure func(*lstm.LSTM) *lstm.LSTM) func(*model.Scope, *graph.Node) *graph.Node {
	return func(s *model.Scope, x *graph.Node) *graph.Node {
		_, last, _ := configure(lstm.New(s.At("lstm"), dense(s, "embed", x, 10), 8)).Done() // -> [directions, batch, 8]
		last = graph.TransposeAllAxes(last, 1, 0, 2)
		return dense(s, "output", graph.Reshape(last, x.Shape().Dim(0), -1), 5)
	}
}

package zoo

import (
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/attention"
	"github.com/gomlx/gomlx/ml/layers/attention/pos"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

func attentive() []Network {
	sequence := [][]int{{5, 8}}
	return []Network{
		{Name: "multi-head", Model: trace.Single(transformer(multiHead)), Example: sequence, Groups: 4, Pinned: []string{"ReduceSum"},
			Why: "heads, dimensions of queries and keys, dimensions of values, the hidden layer; layer normalisation holds the stream"},
		{Name: "grouped-query", Model: trace.Single(transformer(groupedQuery)), Example: sequence, Groups: 5, Pinned: []string{"ReduceSum"},
			Why: "as multi-head, with heads of keys and values, and queries of each such head"},
		{Name: "flat attention", Model: trace.Single(transformer(flatAttention)), Example: sequence, Groups: 4, Pinned: []string{"ReduceSum"}, Why: "as multi-head, found through reshapes"},
		{Name: "attention without normalisation", Model: trace.Single(bareAttention), Example: sequence, Groups: 5, Why: "as multi-head, and the stream"},
		{Name: "cross attention", Model: crossAttention, Example: [][]int{{5, 8}, {7, 6}}, Groups: 5, Why: "heads, queries and keys, values, and the streams of both inputs"},
		{Name: "language model", Model: trace.Single(languageModel), Example: [][]int{{6}}, Tokens: 16, Groups: 5, Pinned: []string{"Gather"},
			Why: "the stream, with the embedding that is the output layer too; heads, pairs of dimensions that RoPE turns, values, SwiGLU's hidden layer"},
		{Name: "vision transformer", Model: trace.Single(visionTransformer), Example: [][]int{{8, 8, 3}}, Groups: 4, Pinned: []string{"ReduceSum"}, Why: "as multi-head; patches, class token and positions are the stream"},
		{Name: "mlp-mixer", Model: trace.Single(mixer), Example: sequence, Groups: 3, Why: "the stream, which has no normalisation here, the hidden layer over places, the hidden layer over channels"},
		{Name: "relu linear attention", Model: trace.Single(linearAttention(relu)), Example: sequence, Groups: 2, Why: "queries with keys, values: relu keeps what is removed at zero"},
	}
}

// transformer is a block with layer normalisation before its parts.
func transformer(attend func(*model.Scope, *graph.Node) *graph.Node) func(*model.Scope, *graph.Node) *graph.Node {
	return func(s *model.Scope, x *graph.Node) *graph.Node {
		x = dense(s, "embed", x, 12)
		x = block(s.At("b0"), x, attend)
		return dense(s, "output", graph.ReduceMean(x, 1), 5)
	}
}

func block(s *model.Scope, x *graph.Node, attend func(*model.Scope, *graph.Node) *graph.Node) *graph.Node {
	x = graph.Add(x, attend(s, norm.LayerNorm(s.At("n1"), x, -1).Done()))
	h := norm.LayerNorm(s.At("n2"), x, -1).Done()
	return graph.Add(x, dense(s, "down", activation.Gelu(dense(s, "up", h, 20)), x.Shape().Dim(-1)))
}

func multiHead(s *model.Scope, x *graph.Node) *graph.Node {
	return attention.SelfAttention(s.At("attend"), x, 4, 6).WithCausalMask(true).Done()
}

func groupedQuery(s *model.Scope, x *graph.Node) *graph.Node {
	return attention.SelfAttention(s.At("attend"), x, 4, 6).WithNumKVHeads(2).Done()
}

// flatAttention projects to flat vectors and splits them into four heads afterwards, as PyTorch does.
func flatAttention(s *model.Scope, x *graph.Node) *graph.Node {
	batch, length := x.Shape().Dim(0), x.Shape().Dim(1)
	heads := func(name string) *graph.Node { // -> [batch, 4, length, 6]
		return graph.TransposeAllAxes(graph.Reshape(dense(s, name, x, 24), batch, length, 4, 6), 0, 2, 1, 3)
	}
	weights := graph.Softmax(graph.MulScalar(graph.Einsum("bhqd,bhkd->bhqk", heads("query"), heads("key")), 1/math.Sqrt(6)), -1)
	y := graph.TransposeAllAxes(graph.Einsum("bhqk,bhkd->bhqd", weights, heads("value")), 0, 2, 1, 3)
	return dense(s, "out", graph.Reshape(y, batch, length, 24), x.Shape().Dim(-1))
}

func bareAttention(s *model.Scope, x *graph.Node) *graph.Node {
	x = dense(s, "embed", x, 12)
	x = graph.Add(x, flatAttention(s, x))
	x = graph.Add(x, dense(s, "down", activation.Gelu(dense(s, "up", x, 20)), 12))
	return dense(s, "output", graph.ReduceMean(x, 1), 5)
}

func crossAttention(s *model.Scope, inputs []*graph.Node) []*graph.Node {
	x, y := relu(dense(s, "embed x", inputs[0], 10)), relu(dense(s, "embed y", inputs[1], 9))
	x = attention.MultiHeadAttention(s.At("cross"), x, y, y, 4, 6).WithOutputDim(5).Done()
	return []*graph.Node{x}
}

// languageModel has its embedding as the output layer too, one projection for queries, keys and values, RoPE, RMSNorm and SwiGLU.
func languageModel(s *model.Scope, tokens *graph.Node) *graph.Node {
	table := s.At("embedding").VariableWithShape("table", shapes.Make(f32, 16, 12)).NodeValue(tokens.Graph())
	x := graph.Gather(table, graph.InsertAxes(tokens, -1)) // -> [batch, length, 12]
	b := s.At("b0")
	h := norm.RMSNorm(b.At("n1"), x).Done()
	x = graph.Add(x, attention.SelfAttention(b.At("attend"), h, 4, 6).UseQKVProjection().WithPositionalEncoder(pos.NewRoPE(10000)).WithCausalMask(true).Done())
	h = norm.RMSNorm(b.At("n2"), x).Done()
	gate := activation.Swish(layers.DenseWithLayout(b.At("gate"), h, compute.DenseLayoutOutputsInput, false, 20))
	x = graph.Add(x, layers.Dense(b.At("down"), graph.Mul(gate, layers.Dense(b.At("up"), h, false, 20)), false, 12))
	return graph.Einsum("bsd,vd->bsv", norm.RMSNorm(s.At("n"), x).Done(), table)
}

func visionTransformer(s *model.Scope, x *graph.Node) *graph.Node {
	g, batch := x.Graph(), x.Shape().Dim(0)
	x = layers.Convolution(s.At("patches"), x).Channels(12).KernelSize(4).Strides(4).NoPadding().Done() // -> [batch, 2, 2, 12]
	x = graph.Reshape(x, batch, 4, 12)
	class := s.At("class").VariableWithShape("token", shapes.Make(f32, 1, 1, 12)).NodeValue(g)
	x = graph.Concatenate([]*graph.Node{graph.BroadcastToDims(class, batch, 1, 12), x}, 1) // -> [batch, 5, 12]
	x = graph.Add(x, s.At("position").VariableWithShape("table", shapes.Make(f32, 1, 5, 12)).NodeValue(g))
	x = norm.LayerNorm(s.At("n"), block(s.At("b0"), x, flatAttention), -1).Done()
	return dense(s, "output", graph.Squeeze(graph.Slice(x, graph.AxisRange(), graph.AxisElem(0)), 1), 5)
}

func mixer(s *model.Scope, x *graph.Node) *graph.Node {
	x = dense(s, "embed", x, 10) // [batch, 5, 8] -> [batch, 5, 10]
	y := graph.Transpose(x, 1, 2)
	y = dense(s, "place down", activation.Gelu(dense(s, "place up", y, 7)), 5)
	x = graph.Add(x, graph.Transpose(y, 1, 2))
	x = graph.Add(x, dense(s, "down", activation.Gelu(dense(s, "up", x, 9)), 10))
	return dense(s, "output", graph.ReduceMean(x, 1), 5)
}

// linearAttention weighs values by products of a feature map of queries and keys, without a softmax.
func linearAttention(feature func(*graph.Node) *graph.Node) func(*model.Scope, *graph.Node) *graph.Node {
	return func(s *model.Scope, x *graph.Node) *graph.Node {
		query, key := feature(dense(s, "query", x, 8)), feature(dense(s, "key", x, 8))
		memory := graph.Einsum("bsd,bsv->bdv", key, dense(s, "value", x, 6))
		x = graph.Einsum("bsd,bdv->bsv", query, memory)
		return dense(s, "output", x, 5)
	}
}

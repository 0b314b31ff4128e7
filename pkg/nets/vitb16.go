package nets

import (
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/attention"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/initializer"
)

var vitB16 = Network{
	Name: "ViT-B/16", Cite: "Dosovitskiy et al. 2021, arXiv:2010.11929, as in torchvision", Input: []int{224, 224, 3}, Classes: 1000, Params: 86_567_656, MACs: 17_563_828_224, Model: ViTB16,
}

// ViTB16 is the base Vision Transformer for ImageNet with patches of 16x16, in the form of torchvision's vit_b_16, on GoMLX's attention: query, key and value have
// a dense layer each. It takes [batch, 224, 224, 3] or [batch, 150528] and returns logits [batch, 1000]. Dropout, whose rate is 0 there, is left out.
// Scopes: patches, tokens, encoder0 to encoder11 with norm1, attention, norm2, fc1 and fc2 in them, norm, output.
func ViTB16(scope *model.Scope, x *graph.Node) *graph.Node {
	const width, heads, patch = 768, 12, 16
	x = images("ViTB16", x, 224, 224, 3)
	g, batch := x.Graph(), x.Shape().Dim(0)
	x = layers.Convolution(scope.At("patches"), x).Channels(width).KernelSize(patch).Strides(patch).Done() // -> [batch, 14, 14, 768]
	x = graph.Reshape(x, batch, -1, width)                                                                 // -> [batch, 196, 768]

	tokens := scope.At("tokens")
	class := tokens.WithInitializer(initializer.Zero).VariableWithShape("class", shapes.Make(x.DType(), 1, 1, width)).NodeValue(g)
	x = graph.Concatenate([]*graph.Node{graph.BroadcastToDims(class, batch, 1, width), x}, 1) // -> [batch, 197, 768]
	positions := tokens.WithInitializer(initializer.RandomNormalFn(tokens, 0.02)).VariableWithShape("positions", shapes.Make(x.DType(), 1, x.Shape().Dim(1), width))
	x = graph.Add(x, positions.NodeValue(g))

	normalize := func(scope *model.Scope, name string, x *graph.Node) *graph.Node {
		return norm.LayerNorm(scope.At("%s", name), x, -1).Epsilon(1e-6).Done()
	}
	for i := range 12 {
		scope := scope.At("encoder%d", i)
		x = graph.Add(x, attention.SelfAttention(scope.At("attention"), normalize(scope, "norm1", x), heads, width/heads).Done())
		hidden := activation.Gelu(dense(scope, "fc1", normalize(scope, "norm2", x), 4*width)) // -> [batch, 197, 3072]
		x = graph.Add(x, dense(scope, "fc2", hidden, width))                                  // -> [batch, 197, 768]
	}
	x = normalize(scope, "norm", x)
	x = graph.Slice(x, graph.AxisRange(), graph.AxisElem(0), graph.AxisRange()) // the class token: -> [batch, 1, 768]
	return dense(scope, "output", graph.Reshape(x, batch, width), 1000)         // -> [batch, 768] -> [batch, 1000]
}

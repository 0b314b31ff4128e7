package onnx

import "strings"

// operators are those that the importer has a rule for, and Dropout, which clean removes; a test holds them against its source.
var operators = map[string]bool{}

func init() {
	for _, name := range strings.Fields(`
	Abs Add And ArgMax ArgMin AveragePool BatchNormalization BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Clip Concat Constant ConstantOfShape
	Conv Cos CumSum DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Equal Erf Exp Expand FastGelu Flatten Floor Gather GatherElements GatherND Gelu
	Gemm GlobalAveragePool Greater GreaterOrEqual GroupQueryAttention HardSwish Identity If IsNaN LSTM LayerNormalization Less LessOrEqual Log MatMul
	MatMulInteger Max MaxPool Min Mod Mul MultiHeadAttention Neg NonZero Not Or Pad Pow QLinearMatMul QuantizeLinear Range Reciprocal ReduceL2 ReduceMax
	ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize RotaryEmbedding ScatterND Shape Sigmoid Sign SimplifiedLayerNormalization Sin Size
	Slice Softmax Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
`) {
		operators[name] = true
	}
}

package zoo

import (
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// sums lists functions that add channels up, by reductions and by products without weights of their own. What is masked must add nothing to a sum, or it can't be removed.
func sums() []Network {
	vector, sequence := [][]int{{6}}, [][]int{{5, 8}}
	// of is a hidden layer, something, and the output layer.
	of := func(f func(s *model.Scope, x *graph.Node) *graph.Node) trace.ModelFn {
		return trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return dense(s, "output", f(s, dense(s, "fc", x, 12)), 5)
		})
	}
	constant := func(x *graph.Node, dims ...int) *graph.Node {
		values := make([]float32, shapes.Make(f32, dims...).Size())
		for i := range values {
			values[i] = float32(i*i%11)/5 - 1
		}
		return graph.Reshape(graph.Const(x.Graph(), values), dims...)
	}
	variable := func(s *model.Scope, x *graph.Node, dims ...int) *graph.Node {
		return s.At("own").VariableWithShape("weights", shapes.Make(f32, dims...)).NodeValue(x.Graph())
	}
	total := func(x *graph.Node) *graph.Node { return graph.ReduceAndKeep(x, graph.ReduceSum, -1) }
	return []Network{
		{Name: "sum of channels", Model: of(func(_ *model.Scope, x *graph.Node) *graph.Node { return total(relu(x)) }), Example: vector, Groups: 1, Why: "fc: relu keeps zero"},
		{Name: "sum of sigmoids", Model: of(func(_ *model.Scope, x *graph.Node) *graph.Node { return total(graph.Sigmoid(x)) }), Example: vector, Groups: 0, Why: "sigmoid(0) = 1/2 adds up",
			Pinned: []string{"ReduceSum"}},
		{Name: "share of the sum", Model: of(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Div(x, graph.OnePlus(total(graph.Abs(x))))
		}), Example: vector, Groups: 1,
			Why: "fc: what is masked adds nothing to the sum, and has no share"},
		{Name: "less their mean", Model: of(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Sub(x, graph.ReduceAndKeep(x, graph.ReduceMean, -1))
		}), Example: vector, Groups: 1,
			Why: "fc: the mean is by a constant number of channels, and the output layer takes away what it makes of masked ones"},
		{Name: "sum of normalised channels", Model: of(func(s *model.Scope, x *graph.Node) *graph.Node {
			return total(norm.BatchNorm(s.At("norm"), x, -1).Done())
		}), Example: vector, Groups: 1,
			Why: "fc: gain and offset are masked, too"},
		{Name: "sum of noise in training", Model: of(func(s *model.Scope, x *graph.Node) *graph.Node {
			if s.IsTraining(x.Graph()) {
				x = graph.Add(x, s.RandomUniform(x.Graph(), x.Shape()))
			}
			return total(x)
		}), Example: vector, Groups: 0, Why: "noise adds up, if only in training", Pinned: []string{"ReduceSum"}},
		{Name: "another head in training", Model: of(func(s *model.Scope, x *graph.Node) *graph.Node {
			if s.IsTraining(x.Graph()) {
				return graph.Add(x, graph.Softmax(x, -1))
			}
			return x
		}), Example: vector, Groups: 0, Why: "what training needs stays in inference", Pinned: []string{"ReduceMax"}},
		{Name: "prototypes", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = graph.Sub(graph.InsertAxes(relu(dense(s, "fc", x, 12)), 1), graph.InsertAxes(variable(s, x, 5, 12), 0))
			return graph.Neg(graph.ReduceSum(graph.Square(x), -1))
		}), Example: vector, Groups: 1, Why: "fc: distances to weights, which are masked, too"},
		{Name: "distance to constants", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = graph.Sub(graph.InsertAxes(relu(dense(s, "fc", x, 12)), 1), graph.InsertAxes(constant(x, 5, 12), 0))
			return graph.Neg(graph.ReduceSum(graph.Square(x), -1))
		}), Example: vector, Groups: 0, Why: "constants are not masked", Pinned: []string{"ReduceSum"}},
		{Name: "constant projection", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return graph.Einsum("bi,io->bo", relu(dense(s, "fc", x, 12)), constant(x, 12, 5))
		}), Example: vector, Groups: 1, Why: "fc: what is masked is zero, whatever it is multiplied by"},
		{Name: "constant projection of shifted channels", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return graph.Einsum("bi,io->bo", graph.Add(dense(s, "fc", x, 12), constant(x, 1, 12)), constant(x, 12, 5))
		}), Example: vector, Groups: 0, Why: "what is masked is the shift", Pinned: []string{"DotGeneral"}},
		{Name: "sums of pairs", Model: of(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.ReduceSum(relu(graph.Add(graph.InsertAxes(x, 1), graph.InsertAxes(x, 2))), 2)
		}), Example: vector, Groups: 0, Why: "the pair of a channel with a masked one is the channel", Pinned: []string{"ReduceSum"}},
		{Name: "products of pairs", Model: of(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.ReduceSum(relu(graph.Mul(graph.InsertAxes(x, 1), graph.InsertAxes(x, 2))), 2)
		}), Example: vector, Groups: 1, Why: "fc: the pair of a channel with a masked one is zero"},
		{Name: "Gram matrix", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = graph.Tanh(dense(s, "fc", x, 6))
			x = graph.Einsum("bsc,bsd->bcd", x, x)
			return dense(s, "output", graph.Reshape(x, x.Shape().Dim(0), 36), 5)
		}), Example: sequence, Groups: 1, Why: "fc: each channel is a row and a column, eleven inputs of the output layer"},
		{Name: "similarity of places", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = graph.Tanh(dense(s, "fc", x, 6))
			return dense(s, "output", graph.Einsum("bsc,btc->bst", x, x), 5)
		}), Example: sequence, Groups: 1, Why: "fc", Pinned: []string{"Parameter"}},
		{Name: "weights from a network", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			w := graph.Reshape(dense(s, "hyper", x, 60), x.Shape().Dim(0), 12, 5)
			return graph.Einsum("bi,bio->bo", relu(dense(s, "fc", x, 12)), w)
		}), Example: vector, Groups: 1, Why: "fc, with five outputs of the other layer each"},
		{Name: "mixture of experts", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			gate := graph.Softmax(dense(s, "gate", x, 4), -1)
			h := relu(graph.Einsum("bi,eih->beh", x, variable(s, x, 4, 6, 7)))
			y := graph.Einsum("beh,eho->beo", h, s.At("down").VariableWithShape("weights", shapes.Make(f32, 4, 7, 5)).NodeValue(x.Graph()))
			return graph.Einsum("be,beo->bo", gate, y)
		}), Example: vector, Groups: 1, Why: "the hidden channels of all experts; softmax holds the experts", Pinned: []string{"ReduceMax"}},
		{Name: "embedding by product", Model: trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = graph.Einsum("bsv,vd->bsd", graph.OneHot(x, 16, f32), s.At("own").VariableWithShape("weights", shapes.Make(f32, 16, 10)).NodeValue(x.Graph()))
			return dense(s, "output", graph.ReduceMean(x, 1), 5)
		}), Example: [][]int{{6}}, Tokens: 16, Groups: 2, Why: "the vectors' dimensions; the tokens, whose vectors are zero where they are masked"},
		{Name: "overlapping parts", Model: of(func(_ *model.Scope, x *graph.Node) *graph.Node {
			part := func(from, to int) *graph.Node { return graph.Slice(x, graph.AxisRange(), graph.AxisRange(from, to)) }
			return graph.Mul(part(0, 8), graph.Tanh(part(4, 12)))
		}), Example: vector, Groups: 1, Why: "fc in threes: channel i with i+4 and i+8"},
		{Name: "two ways to split", Model: of(func(_ *model.Scope, x *graph.Node) *graph.Node {
			batch := x.Shape().Dim(0)
			threes := graph.ReduceMax(graph.Reshape(graph.Tanh(x), batch, 4, 3), -1) // [batch, 4]
			fours := graph.ReduceMax(graph.Reshape(graph.Sin(x), batch, 3, 4), -1)   // [batch, 3]
			return graph.Concatenate([]*graph.Node{threes, fours}, -1)
		}), Example: vector, Groups: 0, Why: "whole threes that are whole fours are all", Fragile: true},
	}
}

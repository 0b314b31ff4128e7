package main

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/experiment"
)

// padding is by how many pixels images are shifted at most: He et al. 2016, arXiv:1512.03385, section 4.2.
const padding = 4

// cropAndFlip is a network that sees each training image mirrored half of the time, and shifted. Without it residual networks learn CIFAR-10 by heart, and stay below what papers start from.
// Lots are drawn from the store's state of random numbers, as those of dropout are: they depend on the training's seed alone, and a run that was interrupted goes on with the next. In evaluation nothing is
// changed. It is for tasks: what is traced and cut is the network inside.
func cropAndFlip(fn experiment.ModelFn) experiment.ModelFn {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		if scope.IsTraining(x.Graph()) {
			mirror, down, right := moves(scope, x)
			x = moved(x, mirror, down, right)
		}
		return fn(scope, x)
	}
}

// moves draws for each image whether it is mirrored, and by how much its rows and columns are taken further down and right, −4 to 4. All of it is one draw: XLA compiles each for long. All [batch]
func moves(scope *model.Scope, x *graph.Node) (mirror, down, right *graph.Node) {
	batch := x.Shape().Dimensions[0]
	lots := scope.RandomUniform(x.Graph(), shapes.Make(dtypes.Float32, 3, batch)) // below 1
	lot := func(row int) *graph.Node { return graph.Reshape(graph.Slice(lots, graph.AxisElem(row)), batch) }
	shift := func(row int) *graph.Node {
		of := graph.Floor(graph.Mul(lot(row), same[float32](lots, 1, 2*padding+1))) // 0 to 8
		return graph.Sub(graph.ConvertDType(of, dtypes.Int32), same[int32](lots, 1, padding))
	}
	return graph.LessThan(lot(0), same[float32](lots, 1, 0.5)), shift(1), shift(2)
}

// same is a constant of which each element is a number, of rank 1 or more: GoMLX shares those of rank 0 within a graph, where they can't be used in the body of the loop over steps.
func same[T int32 | float32](like *graph.Node, rank int, x T) *graph.Node {
	return graph.ConstTensor(like.Graph(), tensors.FromScalarAndDimensions(x, slices.Repeat([]int{1}, rank)...))
}

// moved mirrors images from left to right where they are to be, and then takes each pixel from so far down and right; what lies outside is 0. A single Gather does both: it is exact, where a product
// with shifted unit matrices is rounded on a GPU, and takes half of its time on a CPU. x [batch, height, width, channels], mirror [batch] bool, down and right [batch] int32
func moved(x, mirror, down, right *graph.Node) *graph.Node {
	d := x.Shape().Dimensions
	row, inRow := from(down, d[1])        // [batch, height]
	column, inColumn := from(right, d[2]) // [batch, width], of the mirrored image
	other := graph.Sub(same(x, 2, int32(d[2]-1)), column)
	column = graph.Where(graph.BroadcastToDims(graph.InsertAxes(mirror, -1), d[0], d[2]), other, column)
	at := graph.Add(graph.InsertAxes(graph.Mul(row, same(x, 2, int32(d[2]))), -1), graph.InsertAxes(column, 1)) // [batch, height, width], in an image
	first := graph.Mul(graph.Iota(x.Graph(), at.Shape(), 0), same(x, 3, int32(d[1]*d[2])))                      // of each image, among the pixels of all
	pixels := graph.Gather(graph.Reshape(x, -1, d[3]), graph.InsertAxes(graph.Add(first, at), -1))              // [batch, height, width, channels]
	inside := graph.LogicalAnd(graph.InsertAxes(inRow, -1), graph.InsertAxes(inColumn, 1))
	return graph.Mul(pixels, graph.ConvertDType(graph.InsertAxes(inside, -1), x.DType()))
}

// from is where each of n rows or columns is taken from, and whether that is inside of the image; if it isn't, from the edge. shift [batch] -> [batch, n]
func from(shift *graph.Node, n int) (at, inside *graph.Node) {
	far := graph.Iota(shift.Graph(), shapes.Make(dtypes.Int32, shift.Shape().Dimensions[0], n), 1)
	far = graph.Add(far, graph.InsertAxes(shift, -1))
	at = graph.Max(graph.Min(far, same(shift, 2, int32(n-1))), same(shift, 2, int32(0)))
	return at, graph.Equal(at, far)
}

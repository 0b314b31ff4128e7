// Package nets holds reference networks as GoMLX model functions. A new network is one file and one line in All.
package nets

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Network describes a reference network.
type Network struct {
	Name    string
	Cite    string
	Input   []int // of one example: [height, width, channels]
	Classes int
	Params  int // weights and biases
	// Model takes a batch [batch, height, width, channels] and returns logits [batch, classes]. It panics on another shape, as graph
	// building functions do.
	Model func(scope *model.Scope, x *graph.Node) *graph.Node
}

// All lists the networks; the conformance test runs over it.
func All() []Network { return []Network{lenet300, lenet5, vgg16} }

// dense is a dense layer with bias in its own scope.
func dense(scope *model.Scope, name string, x *graph.Node, out int) *graph.Node {
	return layers.Dense(scope.At("%s", name), x, true, out)
}

// flatten makes [batch, …] into [batch, features].
func flatten(x *graph.Node) *graph.Node {
	batch := x.Shape().Dimensions[0]
	return graph.Reshape(x, batch, x.Shape().Size()/batch)
}

// conv is a convolution of stride 1 with bias in its own scope. x [batch, h, w, in]
func conv(scope *model.Scope, name string, x *graph.Node, size, out int, same bool) *graph.Node {
	c := layers.Convolution(scope.At("%s", name), x).Channels(out).KernelSize(size)
	if same {
		return c.PadSame().Done()
	}
	return c.NoPadding().Done()
}

// pool2x2 takes the largest of each square of 2x2. It is a Reshape and a ReduceMax instead of GoMLX's MaxPool, whose gradient takes a third of the
// training time of a small network on XLA's CPU. They differ in the gradient of exact ties, which here goes to all that are largest.
// [batch, h, w, c] -> [batch, h/2, w/2, c]
func pool2x2(x *graph.Node) *graph.Node {
	d := x.Shape().Dimensions
	return graph.ReduceMax(graph.Reshape(x, d[0], d[1]/2, 2, d[2]/2, 2, d[3]), 2, 4)
}

func relu(x *graph.Node) *graph.Node { return activation.Relu(x) }

// check panics unless the examples have the size of the network's input.
func (n Network) check(x *graph.Node) {
	want := 1
	for _, d := range n.Input {
		want *= d
	}
	d := x.Shape().Dimensions
	if len(d) < 2 || d[0] < 1 || x.Shape().Size() != d[0]*want {
		exceptions.Panicf("nets: %s takes [batch, %d, %d, %d], got %s: resize the images or choose another network", n.Name, n.Input[0], n.Input[1], n.Input[2], x.Shape())
	}
}

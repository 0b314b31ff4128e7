// Package nets holds reference networks as GoMLX model functions. A new network is one file and one line in All.
package nets

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

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
	Params  int   // that are trained: weights, biases, scales and offsets; not the statistics of batch normalisation
	MACs    int64 // multiply-accumulates for one example, those of products of activations (attention) too
	// Model takes a batch [batch, height, width, channels] and returns logits [batch, classes]. It panics on another shape, as graph
	// building functions do.
	Model func(scope *model.Scope, x *graph.Node) *graph.Node
}

// All lists the networks; the conformance test runs over it.
func All() []Network {
	return []Network{
		lenet300,
		lenet5,
		lenet5Norm,
		smallConv,
		smallVGG,
		resnet8Narrow,
		resnet20,
		resnet20Narrow,
		resnet20b,
		resnet56,
		resnet56b,
		vgg16,
		resnet18,
		resnet34,
		resnet50,
		mobileNetV2,
		vitB16,
	}
}

// UnknownError says that there is no network of a name.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string {
	var known []string
	for _, n := range All() {
		known = append(known, n.Name)
	}
	return fmt.Sprintf("there is no reference network %q; there are %s", e.Name, strings.Join(known, ", "))
}

// Find returns the network of a name. Case and punctuation do not matter: resnet18 is ResNet-18. The error is an *UnknownError.
func Find(name string) (Network, error) {
	plain := func(name string) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsLetter(r) || unicode.IsDigit(r) {
				return unicode.ToLower(r)
			}
			return -1
		}, name)
	}
	for _, n := range All() {
		if plain(n.Name) == plain(name) {
			return n, nil
		}
	}
	return Network{}, &UnknownError{name}
}

// images returns a batch of images as [batch, height, width, channels]. It panics unless x is that, or [batch, height·width·channels] with the
// pixels in the same order, and a float. function names the network's function.
func images(function string, x *graph.Node, height, width, channels int) *graph.Node {
	d := x.Shape().Dimensions
	flat := height * width * channels
	fits := len(d) > 0 && d[0] > 0 && (slices.Equal(d[1:], []int{height, width, channels}) || slices.Equal(d[1:], []int{flat}))
	if !fits {
		exceptions.Panicf("nets.%s: x has shape %s, expected [batch, %d, %d, %d] or [batch, %d]: resize the images, put their channels last, or choose another network",
			function, x.Shape(), height, width, channels, flat)
	}
	if !x.DType().IsFloat() {
		exceptions.Panicf("nets.%s: x has shape %s, expected floats: convert and scale the pixels first, as the data set's Decode does", function, x.Shape())
	}
	return graph.Reshape(x, d[0], height, width, channels)
}

// dense is a dense layer with bias in its own scope. [batch, in] -> [batch, out]
func dense(scope *model.Scope, name string, x *graph.Node, out int) *graph.Node {
	return layers.Dense(scope.At("%s", name), x, true, out)
}

// flatten is [batch, …] -> [batch, features].
func flatten(x *graph.Node) *graph.Node {
	batch := x.Shape().Dimensions[0]
	return graph.Reshape(x, batch, x.Shape().Size()/batch)
}

// conv is a convolution of stride 1 with bias in its own scope. [batch, h, w, in] -> [batch, h, w, out] if same, else smaller by size − 1
func conv(scope *model.Scope, name string, x *graph.Node, size, out int, same bool) *graph.Node {
	c := layers.Convolution(scope.At("%s", name), x).Channels(out).KernelSize(size)
	if same {
		return c.PadSame().Done()
	}
	return c.NoPadding().Done()
}

// pool2x2 takes the largest of each square of 2x2. It is a Reshape and a ReduceMax instead of GoMLX's MaxPool, whose gradient takes a third of the
// training time of a small network on XLA's CPU. They differ in the gradient of exact ties: here each of those that are largest gets all of it.
// [batch, h, w, c] -> [batch, h/2, w/2, c]
func pool2x2(x *graph.Node) *graph.Node {
	d := x.Shape().Dimensions
	return graph.ReduceMax(graph.Reshape(x, d[0], d[1]/2, 2, d[2]/2, 2, d[3]), 2, 4)
}

func relu(x *graph.Node) *graph.Node { return activation.Relu(x) }

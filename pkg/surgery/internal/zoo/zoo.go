// Package zoo holds small model functions over the architectures that surgery has to understand, each with what it must find in them. They are written as their
// authors would write them, with no regard for surgery, and small enough to be compiled in a second.
package zoo

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/pkg/surgery/internal/fill"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Network is a model function and what surgery must find in it.
type Network struct {
	Name  string
	Model trace.ModelFn
	// Example is the shape of one example of each input, without the batch.
	Example [][]int
	// Tokens is the size of the vocabulary if the inputs are tokens; else they are floats.
	Tokens int
	// Groups is how many groups of two units and more there are, and Why says which.
	Groups int
	Why    string
	// Pinned are the types of operations that must be named as the reason why something can't be removed; they need not be all.
	Pinned []string
	// Refused is the type of an operation for which surgery has to say that it can't build the network again; Groups are found all the same.
	Refused string
	// NoGradient is the type of an operation that GoMLX has no gradient for, so that the network can't be trained.
	NoGradient string
	// Fragile networks have gradients that are not compared: they have operations without any, or take the largest of values with ReduceMax, whose gradient GoMLX finds by comparing
	// the values with their maximum, and loses where XLA computes the values twice, rounded differently.
	Fragile bool
	// Large networks are for the full test only.
	Large bool
}

// Inputs returns a batch of inputs, the same for the same seed.
func (n Network) Inputs(seed uint64, batch int) []*tensors.Tensor {
	inputs := make([]*tensors.Tensor, len(n.Example))
	for i, example := range n.Example {
		dims := append([]int{batch}, example...)
		if n.Tokens > 0 {
			inputs[i] = fill.Tokens(seed+uint64(i), n.Tokens, dims...)
		} else {
			inputs[i] = fill.Normal(seed+uint64(i), shapes.Make(f32, dims...))
		}
	}
	return inputs
}

// All lists the networks.
func All() []Network {
	return slices.Concat(convolutional(), attentive(), gomlx(), hostile(), sums())
}

const f32 = dtypes.Float32

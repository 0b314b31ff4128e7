// Package randomnet makes random networks, the same for the same seed, of the operations and patterns that networks are made of. A network prints itself, so that a seed
// at which something fails can be read.
package randomnet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Net is a random network. Its one input and its outputs have the batch as their first axis.
type Net struct {
	Seed    uint64
	DType   dtypes.DType
	Example []int // the shape of one example
	// NoGradient is the type of an operation that GoMLX has no gradient for; "" if the network can be trained.
	NoGradient string
	// Fragile networks take the largest of values with ReduceMax, whose gradient GoMLX finds by comparing the values with their maximum: it is lost where XLA computes the values
	// twice, rounded differently.
	Fragile bool
	steps   []step
	outputs []int // positions among the values
}

// step computes a value from those before it. Value 0 is the input.
type step struct {
	text  string
	dims  []int // of the value, without the batch
	build build
}

type build func(s *model.Scope, v []*graph.Node) *graph.Node

// Input is the shape of the input for a batch size.
func (n *Net) Input(batch int) shapes.Shape {
	return shapes.Make(n.DType, append([]int{batch}, n.Example...)...)
}

// Model is the network as a model function.
func (n *Net) Model(scope *model.Scope, inputs []*graph.Node) []*graph.Node {
	v := []*graph.Node{inputs[0]}
	for i, s := range n.steps {
		x := s.build(scope, v)
		if got := x.Shape().Dimensions; !slices.Equal(got[1:], s.dims) || got[0] != inputs[0].Shape().Dim(0) {
			exceptions.Panicf("randomnet: seed %d, v%d is %v, not [batch %v]: the generator counts wrongly\n%s", n.Seed, i+1, got, s.dims, n)
		}
		v = append(v, x)
	}
	outputs := make([]*graph.Node, len(n.outputs))
	for i, o := range n.outputs {
		outputs[i] = v[o]
	}
	return outputs
}

// String is the network as text, a line for each value.
func (n *Net) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "// randomnet.New(%d), %s\nv0 := input // %v\n", n.Seed, n.DType, n.Example)
	for i, s := range n.steps {
		fmt.Fprintf(&b, "v%d := %s // %v\n", i+1, s.text, s.dims)
	}
	fmt.Fprint(&b, "return")
	for i, o := range n.outputs {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " v%d", o)
	}
	b.WriteByte('\n')
	return b.String()
}

// New makes the network of a seed.
func New(seed uint64) *Net {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 77)), net: &Net{Seed: seed, DType: dtypes.Float32}}
	if g.chance(0.2) {
		g.net.DType = dtypes.Float64
	}
	x := 0
	if g.chance(0.65) {
		size := g.between(5, 8)
		g.net.Example = []int{size, size + g.IntN(2), g.between(1, 4)}
		x = g.conv(x)
	} else {
		g.net.Example = []int{g.between(3, 6), g.between(4, 8)}
		x = g.dense(x)
	}
	for range g.between(3, 7) {
		x = g.next(x)
	}
	g.finish(x)
	return g.net
}

// generator makes a network step by step.
type generator struct {
	*rand.Rand
	net   *Net
	norms int
}

func (g *generator) chance(p float64) bool { return g.Float64() < p }

// between returns a number from low to high, both included.
func (g *generator) between(low, high int) int { return low + g.IntN(high-low+1) }

func (g *generator) pick(xs ...int) int { return xs[g.IntN(len(xs))] }

// dims of a value, without the batch.
func (g *generator) dims(x int) []int {
	if x == 0 {
		return g.net.Example
	}
	return g.net.steps[x-1].dims
}

// channels of a value: the size of its last axis.
func (g *generator) channels(x int) int { return g.dims(x)[len(g.dims(x))-1] }

// add appends a step and returns the position of its value.
func (g *generator) add(dims []int, f build, text string, args ...any) int {
	g.net.steps = append(g.net.steps, step{fmt.Sprintf(text, args...), slices.Clone(dims), f})
	return len(g.net.steps)
}

// name of the scope of the next step.
func (g *generator) name() string { return fmt.Sprintf("v%d", len(g.net.steps)+1) }

// with returns dims with another number of channels.
func with(dims []int, channels int) []int {
	return append(slices.Clone(dims[:len(dims)-1]), channels)
}

// move is something that can be done with a value; it returns the position of what comes of it, or -1 if it does not apply.
type move struct {
	weight int
	do     func(g *generator, x int) int
}

// next does something with a value, of what its rank allows.
func (g *generator) next(x int) int {
	moves := anywhere
	switch len(g.dims(x)) {
	case 1:
		moves = slices.Concat(moves, onVectors)
	case 2:
		moves = slices.Concat(moves, onSequences)
	case 3:
		moves = slices.Concat(moves, onImages)
	}
	total := 0
	for _, m := range moves {
		total += m.weight
	}
	for {
		at := g.IntN(total)
		for _, m := range moves {
			if at -= m.weight; at < 0 {
				if y := m.do(g, x); y >= 0 {
					return y
				}
				break
			}
		}
	}
}

// finish makes outputs of a value: a vector for each example, or one for each place.
func (g *generator) finish(x int) {
	if len(g.dims(x)) == 3 || g.chance(0.7) {
		x = g.toVector(x)
	}
	g.net.outputs = []int{g.linear(x, g.between(2, 5))}
	if g.chance(0.1) { // a second output, from wherever
		if y := g.IntN(len(g.net.steps)); len(g.dims(y)) < 3 {
			g.net.outputs = append(g.net.outputs, g.linear(y, 2))
		}
	}
}

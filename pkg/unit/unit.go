// Package unit says what is removed together: single weights, filters, blocks, and so on. A new unit is one value and one line in All.
package unit

import (
	"fmt"
	"slices"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Unit is a granularity: it tiles a parameter with equal blocks, each of which is removed or kept as a whole.
type Unit struct {
	Name string
	// Block returns the extent of a unit along each axis of the parameter. It must divide the parameter's shape. nil: 1 along each axis, so
	// that each weight is a unit. The error is an *Error.
	Block func(p params.Param) ([]int, error)
	// Structured says that removing a unit removes outputs of the layer, so that the network's own outputs must be spared.
	Structured bool
	// N of every M consecutive units along the axis Along are kept, in every place alike, where M is not 0. It leaves a budget nothing to divide.
	N, M  int
	Along Axis
}

// Axis is one of the two axes of a parameter that have names.
type Axis int

// The axes of a parameter.
const (
	In  Axis = iota // input channels
	Out             // output channels
)

func (a Axis) of(p params.Param) int {
	if a == Out {
		return p.Out
	}
	return p.In
}

// Error says that a parameter can't be divided into units. Nothing was changed.
type Error struct {
	Unit, Path, Problem, Remedy string
}

func (e *Error) Error() string {
	return fmt.Sprintf("unit %q on %s: %s; %s", e.Unit, e.Path, e.Problem, e.Remedy)
}

// All lists the units without arguments and an instance of each that has some; the conformance suite runs over it.
func All() []Unit {
	return []Unit{Element, Filter, InChannel, Kernel, Block(1, 4), Block(4, 1), Block(2, 2), NofM(2, 4, In), NofM(1, 4, Out), Head(2)}
}

// ByName returns the unit of that name among All, or the one with other numbers that a name such as "2:8" or "block 8x8" says.
func ByName(name string) (u Unit, found bool) {
	for _, u := range All() {
		if u.Name == name {
			return u, true
		}
	}
	var a, b int
	for _, u := range []Unit{
		scan(name, "block %dx%d", Block, &a, &b),
		scan(name, "%d:%d", func(n, m int) Unit { return NofM(n, m, In) }, &a, &b),
		scan(name, "%d:%d along out", func(n, m int) Unit { return NofM(n, m, Out) }, &a, &b),
		scan(name, "head of %d", func(n, _ int) Unit { return Head(n) }, &a),
	} {
		if u.Name == name && name != "" {
			return u, true
		}
	}
	return Unit{}, false
}

// scan makes a unit of the numbers in a name; the zero unit if the name has another form.
func scan(name, form string, of func(a, b int) Unit, numbers ...any) Unit {
	if n, err := fmt.Sscanf(name, form, numbers...); err != nil || n != len(numbers) {
		return Unit{}
	}
	values := [2]int{1, 1}
	for i, p := range numbers {
		values[i] = *p.(*int)
	}
	return of(values[0], values[1])
}

// Element is a single weight.
var Element = Unit{Name: "element"}

// Filter is all weights of one output channel: a convolution's filter, a dense layer's neuron. Li et al. 2017, arXiv:1608.08710.
var Filter = Unit{Name: "filter", Structured: true, Block: func(p params.Param) ([]int, error) { return whole(p, p.Out), nil }}

// Neuron is Filter, by the name that it has in dense layers.
var Neuron = Filter

// InChannel is all weights that one input channel feeds. He et al. 2017, arXiv:1707.06168.
var InChannel = Unit{Name: "in-channel", Block: func(p params.Param) ([]int, error) { return whole(p, p.In), nil }}

// Kernel is the weights between one input and one output channel: a k×k kernel of a convolution, a single weight of a dense layer. Mao et al. 2017,
// arXiv:1705.08922.
var Kernel = Unit{Name: "kernel", Block: func(p params.Param) ([]int, error) { return whole(p, p.In, p.Out), nil }}

// whole returns the block that spans all axes but those given.
func whole(p params.Param, single ...int) []int {
	block := slices.Clone(p.Shape.Dimensions)
	for _, axis := range single {
		block[axis] = 1
	}
	return block
}

// Block is a tile of in × out weights, at each position of a convolution's kernel for itself: Block(1, n), Block(n, 1) and Block(b, b) are the
// usual ones. Both numbers must divide the parameter's axes. Gray et al. 2017, GPU kernels for block-sparse weights.
func Block(in, out int) Unit {
	u := Unit{Name: fmt.Sprintf("block %dx%d", in, out)}
	u.Block = func(p params.Param) ([]int, error) {
		block := slices.Repeat([]int{1}, p.Shape.Rank())
		block[p.In], block[p.Out] = in, out
		return block, nil
	}
	return u
}

// NofM keeps n of every m consecutive weights along an axis. The sparsity is fixed by it: 1 − n/m. Mishra et al. 2021, arXiv:2104.08378, where
// n = 2, m = 4 and the axis is that of the inputs.
func NofM(n, m int, along Axis) Unit {
	name := fmt.Sprintf("%d:%d", n, m)
	if along == Out {
		name += " along out"
	}
	return Unit{Name: name, N: n, M: m, Along: along}
}

// Head is the share of one of n attention heads in the outputs of a projection [in, n·size]: consecutive output channels. Michel et al. 2019,
// arXiv:1905.10650. A parameter [in, n, size], which has the heads on an axis of its own, is understood too.
func Head(n int) Unit {
	u := Unit{Name: fmt.Sprintf("head of %d", n), Structured: true}
	u.Block = func(p params.Param) ([]int, error) {
		axis := p.Out
		if p.Shape.Rank() == 3 && p.Shape.Dimensions[1] == n {
			axis = 1
		}
		size := p.Shape.Dimensions[axis]
		if n < 1 || size%n != 0 {
			return nil, &Error{u.Name, p.Path, fmt.Sprintf("its %d outputs can't be divided among %d heads", size, n),
				"give the number of heads that the layer has, and leave other layers out with params.Set.Only"}
		}
		block := slices.Clone(p.Shape.Dimensions)
		block[axis] = size / n
		return block, nil
	}
	return u
}

// Layout is how a unit tiles one parameter.
type Layout struct {
	Count int // units
	dims  []int
	block []int
}

// Of divides a parameter into units. The error is an *Error that says what does not fit.
func (u Unit) Of(p params.Param) (Layout, error) {
	dims := p.Shape.Dimensions
	l := Layout{Count: 1, dims: dims, block: slices.Repeat([]int{1}, len(dims))}
	if n := len(dims); (u.Block != nil || u.M != 0) && (p.In < 0 || p.In >= n || p.Out < 0 || p.Out >= n) {
		return Layout{}, &Error{u.Name, p.Path, fmt.Sprintf("expected axes for In and Out among the %d of its shape %v, came %d and %d", n, dims, p.In, p.Out),
			"set them in params.Param as params.Select does, or leave the parameter out with params.Set.Without"}
	}
	if u.Block != nil {
		block, err := u.Block(p)
		if err != nil {
			return Layout{}, err
		}
		l.block = block
	}
	if len(l.block) != len(dims) {
		return Layout{}, &Error{u.Name, p.Path, fmt.Sprintf("its blocks %v have another rank than the shape %v", l.block, dims), "let Block return an extent for each axis"}
	}
	for axis, size := range dims {
		if b := l.block[axis]; b < 1 || size%b != 0 {
			return Layout{}, &Error{u.Name, p.Path, fmt.Sprintf("blocks of %v do not divide its shape %v", l.block, dims),
				"choose blocks that do, or leave the parameter out with params.Set.Without"}
		}
		l.Count *= size / l.block[axis]
	}
	if u.M != 0 {
		axis := u.Along.of(p)
		if u.N < 1 || u.N >= u.M {
			return Layout{}, &Error{u.Name, p.Path, fmt.Sprintf("%d of %d can't be kept", u.N, u.M), "keep at least one of every M, and fewer than M"}
		}
		if n := dims[axis] / l.block[axis]; n%u.M != 0 {
			return Layout{}, &Error{u.Name, p.Path, fmt.Sprintf("its %d units along axis %d are no multiple of %d", n, axis, u.M),
				"choose another M or axis, or leave the parameter out with params.Set.Without"}
		}
	}
	return l, nil
}

// Split returns the shape [n0, b0, n1, b1, …] in which units are indexed by the even axes, and the odd axes, over which a unit's weights lie. Axes
// along which a unit has extent 1 are not split, so that single weights cost nothing.
func (l Layout) Split() (shape, pooled []int) {
	for axis, size := range l.dims {
		switch b := l.block[axis]; {
		case b == 1:
			shape = append(shape, size)
		case b == size:
			pooled = append(pooled, len(shape))
			shape = append(shape, size)
		default:
			pooled = append(pooled, len(shape)+1)
			shape = append(shape, size/b, b)
		}
	}
	return shape, pooled
}

// Size returns the number of weights of a unit.
func (l Layout) Size() int {
	n := 1
	for _, b := range l.block {
		n *= b
	}
	return n
}

// Spans tells whether a unit has the parameter's whole extent along an axis.
func (l Layout) Spans(axis int) bool { return l.block[axis] == l.dims[axis] }

// Each calls f for every weight, in row-major order, with the index of the unit that it belongs to. Units are numbered in row-major order too.
func (l Layout) Each(f func(weight, unit int)) {
	size := 1
	for _, d := range l.dims {
		size *= d
	}
	if l.Count == size {
		for i := range size {
			f(i, i)
		}
		return
	}
	strides := make([]int, len(l.dims)) // by how much the unit's index grows along each axis
	stride := 1
	for axis := len(l.dims) - 1; axis >= 0; axis-- {
		strides[axis] = stride
		stride *= l.dims[axis] / l.block[axis]
	}
	at := make([]int, len(l.dims))
	for weight, unit := 0, 0; weight < size; weight++ {
		f(weight, unit)
		for axis := len(l.dims) - 1; axis >= 0; axis-- {
			unit -= at[axis] / l.block[axis] * strides[axis]
			if at[axis]++; at[axis] < l.dims[axis] {
				unit += at[axis] / l.block[axis] * strides[axis]
				break
			}
			at[axis] = 0
		}
	}
}

// Groups calls f with each set of M units of which N are to be kept, in the order of their first unit, for units with N and M. The slice is
// reused.
func (u Unit) Groups(p params.Param, l Layout, f func(units []int)) {
	axis := u.Along.of(p)
	inner, n := 1, 0 // units along the axes after it, and along it
	for a := len(l.dims) - 1; a > axis; a-- {
		inner *= l.dims[a] / l.block[a]
	}
	n = l.dims[axis] / l.block[axis]
	group := make([]int, u.M)
	for first := 0; first < l.Count; first += n * inner {
		for block := 0; block < n; block += u.M {
			for i := range inner {
				for j := range group {
					group[j] = first + (block+j)*inner + i
				}
				f(group)
			}
		}
	}
}

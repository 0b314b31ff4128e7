// Package unit says what is removed together: single weights, filters, and so on.
package unit

import (
	"slices"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Unit is a granularity. A parameter's units are indexed by some of its axes; the weights along all other axes belong together.
type Unit struct {
	Name string
	// Axes returns the axes that index the units of a parameter, ascending. nil: all axes, so that each weight is a unit.
	Axes func(p params.Param) []int
	// Structured says that removing a unit removes an output of the layer, so that the network's own outputs must be spared.
	Structured bool
}

// Element is a single weight.
var Element = Unit{Name: "element"}

// Filter is all weights of one output channel: a convolution's filter, a dense layer's neuron.
var Filter = Unit{Name: "filter", Structured: true, Axes: func(p params.Param) []int { return []int{p.Out} }}

// All lists the units; the conformance suite runs over it.
func All() []Unit { return []Unit{Element, Filter} }

func (u Unit) axes(p params.Param) []int {
	if u.Axes != nil {
		return u.Axes(p)
	}
	axes := make([]int, p.Shape.Rank())
	for i := range axes {
		axes[i] = i
	}
	return axes
}

// Pooled returns the axes over which the weights of a unit lie: those that do not index units.
func (u Unit) Pooled(p params.Param) []int {
	index := u.axes(p)
	var pooled []int
	for axis := range p.Shape.Rank() {
		if !slices.Contains(index, axis) {
			pooled = append(pooled, axis)
		}
	}
	return pooled
}

// Count returns the number of a parameter's units.
func (u Unit) Count(p params.Param) int {
	n := 1
	for _, axis := range u.axes(p) {
		n *= p.Shape.Dimensions[axis]
	}
	return n
}

// Each calls f for every weight of a parameter, in row-major order, with the index of the unit that it belongs to.
func (u Unit) Each(p params.Param, f func(weight, unit int)) {
	if u.Axes == nil {
		for i := range p.Size() {
			f(i, i)
		}
		return
	}
	dims := p.Shape.Dimensions
	strides := make([]int, len(dims)) // by how much the unit's index grows along each axis
	stride := 1
	index := u.axes(p)
	for i := len(index) - 1; i >= 0; i-- {
		strides[index[i]] = stride
		stride *= dims[index[i]]
	}
	at := make([]int, len(dims))
	for weight, unit := 0, 0; weight < p.Size(); weight++ {
		f(weight, unit)
		for axis := len(dims) - 1; axis >= 0; axis-- {
			at[axis]++
			unit += strides[axis]
			if at[axis] < dims[axis] {
				break
			}
			unit -= at[axis] * strides[axis]
			at[axis] = 0
		}
	}
}

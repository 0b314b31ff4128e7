package surgery

import (
	"math"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// costs counts parameters and multiply-accumulates of what a plan leaves, from the recorded shapes: nothing is recorded again.
type costs struct {
	a         *analysis
	axes      []axis // that can get shorter, each once
	products  []factors
	params    []factors
	uncounted int // convolutions that MACs leaves out
}

// factors is a product of a number and of the lengths that axes keep.
type factors struct {
	fixed int64
	axes  []int // in costs.axes
}

// newCosts reads the products of a trace of inference. A convolution counts as outputs × kernel area × inputs of its group, a product as outputs × what it sums over.
func newCosts(a *analysis, t *trace.Trace) *costs {
	c := &costs{a: a}
	known := map[*set]int{}
	of := func(axes ...axis) factors {
		f := factors{fixed: 1}
		for _, ax := range axes {
			if ax.sets == nil || !a.some(ax) {
				f.fixed *= int64(ax.n)
				continue
			}
			i, found := known[&ax.sets[0]]
			if !found || c.axes[i].n != ax.n {
				i = len(c.axes)
				known[&ax.sets[0]] = i
				c.axes = append(c.axes, ax)
			}
			f.axes = append(f.axes, i)
		}
		return f
	}
	for _, path := range a.order {
		if isParameter(path) {
			c.params = append(c.params, of(a.variables[path].axes...))
		}
	}
	for _, op := range t.Ops {
		axes := append([]axis{}, a.of(op.Outputs[0]).axes...)
		switch op.Type {
		case "ConvGeneral":
			at := op.Attributes.ConvolveAxes("axes")
			above1 := func(name string) bool {
				return slices.ContainsFunc(op.Attributes.Ints(name), func(d int) bool { return d > 1 })
			}
			dilated := above1("inputDilations")
			if dilated && above1("strides") || op.Attributes.Int("batchGroupCount") > 1 { // places differ in what they multiply: not counted, as in pkg/profile
				c.uncounted++
				continue
			}
			if dilated { // a transposed convolution: each place of the input with the whole kernel
				axes = append([]axis{}, a.of(op.Inputs[1]).axes...)
				for k, ax := range a.of(op.Inputs[0]).axes {
					if k != at.InputChannels {
						axes = append(axes, ax)
					}
				}
				break
			}
			for k, ax := range a.of(op.Inputs[1]).axes {
				if k != at.KernelOutputChannels {
					axes = append(axes, ax)
				}
			}
		case "DotGeneral":
			for _, k := range op.Attributes.Ints("lhsContractingAxes") {
				axes = append(axes, a.of(op.Inputs[0]).axes[k])
			}
		default:
			continue
		}
		c.products = append(c.products, of(axes...))
	}
	return c
}

// isParameter tells a network's parameters from the masks and the random state that lie beside them, as pkg/profile does.
func isParameter(path string) bool {
	return path != model.ScopeSeparator+model.RNGStateVariableName && !strings.HasPrefix(path, mask.Scope+model.ScopeSeparator)
}

// lengths returns how many indices of each axis stay.
func (c *costs) lengths(gone []bool) []int64 {
	lengths := make([]int64, len(c.axes))
	for i, ax := range c.axes {
		lengths[i] = int64(c.a.count(ax, gone))
	}
	return lengths
}

func sum(all []factors, lengths []int64) int64 {
	var total int64
	for _, f := range all {
		n := f.fixed
		for _, i := range f.axes {
			n *= lengths[i]
		}
		total += n
	}
	return total
}

// MACs returns the multiply-accumulates when some atoms are gone.
func (c *costs) MACs(gone []bool) int64 { return sum(c.products, c.lengths(gone)) }

// Params returns the elements of the variables that the network reads when some atoms are gone.
func (c *costs) Params(gone []bool) int64 { return sum(c.params, c.lengths(gone)) }

// goes tells whether an index disappears when some atoms are gone.
func (a *analysis) goes(s set, gone []bool) bool {
	for _, x := range a.atoms(s) {
		if gone[x] {
			return true
		}
	}
	return false
}

// count returns how many indices of an axis stay when some atoms are gone; nil is none.
func (a *analysis) count(ax axis, gone []bool) int {
	n := ax.n
	if gone == nil {
		return n
	}
	for _, s := range ax.sets {
		if a.goes(s, gone) {
			n--
		}
	}
	return n
}

// kept returns which indices of an axis stay; nil if all do.
func (a *analysis) kept(ax axis, gone []bool) []int {
	n := a.count(ax, gone)
	if n == ax.n {
		return nil
	}
	kept := make([]int, 0, n)
	for i, s := range ax.sets {
		if !a.goes(s, gone) {
			kept = append(kept, i)
		}
	}
	return kept
}

// share is part of whole, 1 where there is nothing.
func share(part, whole int64) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

// quota is the largest count that is at most a share of whole.
func quota(part float64, whole int64) int64 {
	return int64(math.Floor(part*float64(whole) + 1e-9*float64(whole)))
}

// distinct returns the axes of all values of which indices can go, each once.
func (a *analysis) distinct(traces ...*trace.Trace) []axis {
	type key struct {
		first *set
		n     int
	}
	seen := map[key]bool{}
	var all []axis
	look := func(ax axis) {
		if len(ax.sets) == 0 || seen[key{&ax.sets[0], ax.n}] {
			return
		}
		seen[key{&ax.sets[0], ax.n}] = true
		if !slices.Contains(ax.sets, stays) { // one that stays is enough
			all = append(all, ax)
		}
	}
	for _, t := range traces {
		for _, op := range t.Ops {
			for _, v := range op.Outputs {
				if x := a.of(v); x != nil {
					for _, ax := range x.axes {
						look(ax)
					}
				}
			}
		}
	}
	return all
}

package surgery

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// cuts are the indices that go, of each axis of a variable.
type cuts = map[int][]int

// smaller returns the shape that is left.
func smaller(s shapes.Shape, c cuts) shapes.Shape {
	s = s.Clone()
	for axis, removed := range c {
		s.Dimensions[axis] -= len(removed)
	}
	return s
}

// cut returns a copy of a tensor of any type, without the indices that go, or with zeros there.
func cut(t *tensors.Tensor, c cuts, zero bool) (*tensors.Tensor, error) {
	shape := t.Shape()
	if len(c) == 0 {
		return t.LocalClone()
	}
	size := shape.Size()
	var result *tensors.Tensor
	err := t.ConstBytes(func(data []byte) {
		if size == 0 || len(data)%size != 0 { // several elements in a byte
			return
		}
		removed := make([][]bool, shape.Rank())
		for axis, indices := range c {
			removed[axis] = make([]bool, shape.Dimensions[axis])
			for _, i := range indices {
				removed[axis][i] = true
			}
		}
		cutter := cutter{shape.Dimensions, removed, lastCut(c), zero}
		target := shape
		if !zero {
			target = smaller(shape, c)
		}
		result = tensors.FromShape(target)
		if err := result.MutableBytes(func(out []byte) { cutter.copy(out, data, 0) }); err != nil {
			result = nil
		}
	})
	if err == nil && result == nil {
		err = fmt.Errorf("a tensor of shape %s can't be cut: its elements are smaller than a byte", shape)
	}
	return result, err
}

func lastCut(c cuts) int {
	last := 0
	for axis := range c {
		last = max(last, axis)
	}
	return last
}

// cutter copies what stays, in whole runs behind the last axis of which something goes.
type cutter struct {
	dims    []int
	removed [][]bool
	last    int
	zero    bool
}

// copy copies from data, which holds the axes from this one on, to out, and returns what of out is left. Memory of new tensors is zero.
func (c cutter) copy(out, data []byte, axis int) []byte {
	block := len(data) / c.dims[axis]
	for i := range c.dims[axis] {
		part := data[i*block : (i+1)*block]
		switch {
		case c.removed[axis] != nil && c.removed[axis][i]:
			if c.zero {
				clear(out[:block])
				out = out[block:]
			}
		case axis == c.last:
			out = out[copy(out, part):]
		default:
			out = c.copy(out, part, axis+1)
		}
	}
	return out
}

// companion returns the path of the network's variable that another variable of the store belongs to, as masks and what optimizers keep do: it has the same dimensions,
// the path of the other in its own, and a scope of pruning or of an optimizer before it or an addition to the name behind it. "" if there is none.
//
// Such are "/pruning/mask/fc1/weights", "/optimizers/velocity/fc1/weights" and "/AdamOptimizer/fc1/weights_1st_moment"; "/teacher/fc1/weights" is another network's.
func companion(path string, shape shapes.Shape, known []string, dims map[string][]int) string {
	best := ""
	for _, v := range known {
		if len(v) <= len(best) {
			continue
		}
		i := strings.LastIndex(path, v)
		if i <= 0 {
			continue
		}
		rest := path[i+len(v):]
		if rest != "" && rest[0] != '_' && rest[0] != '/' {
			continue
		}
		scope, _, _ := strings.Cut(path[1:i+1], model.ScopeSeparator)
		if rest == "" && scope != "pruning" && !strings.Contains(strings.ToLower(scope), "optimizer") {
			continue
		}
		if fitsCompanion(shape.Dimensions, dims[v]) {
			best = v
		}
	}
	return best
}

// fitsCompanion tells whether dimensions are those of a variable, or 1 where it has one value for all indices.
func fitsCompanion(have, want []int) bool {
	return slices.EqualFunc(have, want, func(a, b int) bool { return a == b || a == 1 })
}

// cutsOf returns the cuts of every variable of the store of which something goes: those of the network, and what belongs to them.
func cutsOf(store *model.Store, known []string, dims map[string][]int, removed map[string]map[int][]int) map[string]cuts {
	all := map[string]cuts{}
	for v := range store.IterVariables() {
		path := v.Path()
		if dims[path] != nil {
			if removed[path] != nil {
				all[path] = removed[path]
			}
			continue
		}
		owner := companion(path, v.Shape(), known, dims)
		if owner == "" || removed[owner] == nil {
			continue
		}
		for axis, indices := range removed[owner] {
			if v.Shape().Dimensions[axis] == dims[owner][axis] {
				if all[path] == nil {
					all[path] = cuts{}
				}
				all[path][axis] = indices
			}
		}
	}
	return all
}

// copyStore returns a new store with the variables of another, each cut, or zeroed. Variables that have no value are left out: they are made when they are needed.
func copyStore(from *model.Store, all map[string]cuts, zero bool) (*model.Store, error) {
	to := model.NewStore()
	for path, value := range from.IterParams() {
		to.SetParam(path, value)
	}
	for v := range from.IterVariables() {
		if !v.HasValue() {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		c := all[v.Path()]
		small, err := cut(value, c, zero)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Path(), err)
		}
		if err := failpoint(v.Path()); err != nil {
			return nil, err
		}
		made, err := to.CreateVariable(v.Path(), small)
		if err != nil {
			return nil, err
		}
		made.SetTrainable(v.Trainable)
	}
	return to, nil
}

// failpoint is where tests make copying fail.
var failpoint = func(path string) error { return nil }

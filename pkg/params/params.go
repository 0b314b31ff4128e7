// Package params lists a network's prunable parameters: where they are, which of their axes are inputs and outputs, and in which order.
package params

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"
)

// Param is one weight tensor. In GoMLX a dense layer has [in, out], a convolution [spatial…, in, out].
type Param struct {
	Path    string       // absolute path of the variable in its store
	Shape   shapes.Shape // as stored
	In, Out int          // the axes of input and output channels
	// Output says that the Out axis is what the network returns: its units are the classes, which structured pruning must not remove.
	Output bool
}

// Size returns the number of weights.
func (p Param) Size() int { return p.Shape.Size() }

// Set is a list of parameters, sorted by path, so that its order survives checkpoints, which restore variables in random order.
type Set []Param

// UnknownPathError says that a set holds no parameter of that path.
type UnknownPathError struct {
	Path  string
	Known []string // the set's paths, those most like Path first
}

func (e *UnknownPathError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("no parameter %q; there are none at all", e.Path)
	}
	return fmt.Sprintf("no parameter %q; there are: %s", e.Path, strings.Join(e.Known, ", "))
}

// Kernels selects the weights of layers: trainable variables of two or more axes named "weights". Biases and the parameters of
// normalisations are left alone.
func Kernels(v *model.Variable) bool {
	return v.Trainable && v.Shape().Rank() >= 2 && v.Name() == "weights"
}

// Select returns the parameters of the store's variables that keep accepts; nil means Kernels. The last two axes are taken for In and Out.
//
// Output is set by the name of the layer that a variable belongs to: "output", "logits", "head" or "classifier", at any depth of its path.
// For a network that names it otherwise, say so with MarkOutput.
func Select(store *model.Store, keep func(*model.Variable) bool) Set {
	if keep == nil {
		keep = Kernels
	}
	var s Set
	for v := range store.IterVariables() {
		if !keep(v) {
			continue
		}
		rank := v.Shape().Rank()
		p := Param{Path: v.Path(), Shape: v.Shape(), In: max(rank-2, 0), Out: max(rank-1, 0)}
		for _, scope := range strings.Split(v.Scope(), model.ScopeSeparator) {
			p.Output = p.Output || slices.Contains([]string{"output", "logits", "head", "classifier"}, scope)
		}
		s = append(s, p)
	}
	slices.SortFunc(s, func(a, b Param) int { return cmp.Compare(a.Path, b.Path) })
	return s
}

// Without returns the set less the named parameters; an unknown path is an *UnknownPathError.
func (s Set) Without(paths ...string) (Set, error) {
	if err := s.check(paths); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(s), func(p Param) bool { return slices.Contains(paths, p.Path) }), nil
}

// Only returns the named parameters, in the set's order; an unknown path is an *UnknownPathError.
func (s Set) Only(paths ...string) (Set, error) {
	if err := s.check(paths); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(s), func(p Param) bool { return !slices.Contains(paths, p.Path) }), nil
}

// MarkOutput returns the set with Output set for the named parameters and for no others.
func (s Set) MarkOutput(paths ...string) (Set, error) {
	if err := s.check(paths); err != nil {
		return nil, err
	}
	marked := slices.Clone(s)
	for i := range marked {
		marked[i].Output = slices.Contains(paths, marked[i].Path)
	}
	return marked, nil
}

// Size returns the number of weights of all parameters.
func (s Set) Size() int {
	n := 0
	for _, p := range s {
		n += p.Size()
	}
	return n
}

// Paths returns the parameters' paths.
func (s Set) Paths() []string {
	paths := make([]string, len(s))
	for i, p := range s {
		paths[i] = p.Path
	}
	return paths
}

func (s Set) check(paths []string) error {
	known := s.Paths()
	for _, path := range paths {
		if slices.Contains(known, path) {
			continue
		}
		slices.SortStableFunc(known, func(a, b string) int { return cmp.Compare(likeness(b, path), likeness(a, path)) })
		return &UnknownPathError{Path: path, Known: known}
	}
	return nil
}

// likeness counts the path elements that two paths share.
func likeness(a, b string) int {
	n := 0
	elements := strings.Split(b, model.ScopeSeparator)
	for _, e := range strings.Split(a, model.ScopeSeparator) {
		if e != "" && slices.Contains(elements, e) {
			n++
		}
	}
	return n
}

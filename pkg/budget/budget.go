// Package budget says what competes with what, and how much is kept. It deals in host integers only.
package budget

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Group is a set of parameters whose units are ranked together.
type Group struct {
	Members []int   // indices into the set of parameters
	Keep    int     // how many of their units are kept; with Cost, how much the kept units may cost in all
	Cost    []int64 // what a unit of each member costs; nil: every unit counts as one
	Rows    int     // with 2 or more: units whose indices are congruent modulo Rows are ranked among themselves, and Keep is per row. For groups of one member
}

// Budget divides what may be kept. units[i] is the number of units of ps[i]; sparsity, the share of units to remove, lies in [0, 1).
type Budget struct {
	Name   string
	Divide func(ps params.Set, units []int, sparsity float64) ([]Group, error)
}

// Global ranks the units of all parameters together. A unit counts as one, whatever its size.
var Global = Budget{Name: "global", Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	all := Group{}
	total := 0
	for i := range ps {
		all.Members = append(all.Members, i)
		total += units[i]
	}
	all.Keep = Keep(total, sparsity)
	return []Group{all}, nil
}}

// Layerwise removes the same share of each parameter's units.
var Layerwise = Budget{Name: "layerwise", Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	groups := make([]Group, len(ps))
	for i := range ps {
		groups[i] = Group{Members: []int{i}, Keep: Keep(units[i], sparsity)}
	}
	return groups, nil
}}

// All lists the budgets; the conformance suite runs over it.
func All() []Budget { return []Budget{Global, Layerwise} }

// Keep returns how many of n units are left at a sparsity: n less the share, rounded to the nearest, halves away from zero.
func Keep(n int, sparsity float64) int { return n - int(math.Round(sparsity*float64(n))) }

// Error says that a budget can't be met. Nothing was changed.
type Error struct {
	Path          string // the parameter, or the first of a group
	Wanted, Least int
	Remedy        string
}

func (e *Error) Error() string {
	return fmt.Sprintf("the budget keeps %d units of %s, but at least %d have to stay; %s", e.Wanted, e.Path, e.Least, e.Remedy)
}

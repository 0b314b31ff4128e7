// Package budget says what competes with what, and how much is kept. It deals in host integers only. A new budget is one file and one line in All.
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

// Budget divides what may be kept. units[i] is the number of units of ps[i]; sparsity, the share of units to remove, lies in [0, 1]. The groups
// must be the same for every sparsity, and none may keep more at a higher one: masks only shrink. What does not fit the budget is a *ConfigError.
type Budget struct {
	Name   string
	Divide func(ps params.Set, units []int, sparsity float64) ([]Group, error)
}

// All lists the budgets that need no arguments; the conformance suite runs over it.
func All() []Budget { return []Budget{Global, Layerwise, ERK, ErdosRenyi, PerOutput, Bytes} }

// ByName returns the budget of that name among All.
func ByName(name string) (b Budget, found bool) {
	for _, b := range All() {
		if b.Name == name {
			return b, true
		}
	}
	return Budget{}, false
}

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

// ConfigError says that a budget does not fit what it is to divide. Nothing was changed.
type ConfigError struct{ Budget, Problem, Remedy string }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("budget %q: %s; %s", e.Budget, e.Problem, e.Remedy)
}

// checked makes a budget that refuses what no budget can divide.
func checked(name string, divide func(ps params.Set, units []int, sparsity float64) ([]Group, error)) Budget {
	return Budget{Name: name, Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
		if err := check(name, ps, units); err != nil {
			return nil, err
		}
		if !(sparsity >= 0 && sparsity <= 1) { // NaN too
			return nil, &ConfigError{name, fmt.Sprintf("the sparsity is %v", sparsity), "give the share of units to remove, from 0 to 1"}
		}
		return divide(ps, units, sparsity)
	}}
}

func check(name string, ps params.Set, units []int) error {
	if len(units) != len(ps) {
		return &ConfigError{name, fmt.Sprintf("there are %d numbers of units for %d parameters", len(units), len(ps)), "give one for each"}
	}
	for i, n := range units {
		if n < 1 {
			return &ConfigError{name, fmt.Sprintf("%s has %d units", ps[i].Path, n), "leave it out with params.Set.Without"}
		}
	}
	return nil
}

// each returns a group for each parameter.
func each(kept []int) []Group {
	groups := make([]Group, len(kept))
	for i, keep := range kept {
		groups[i] = Group{Members: []int{i}, Keep: keep}
	}
	return groups
}

// all returns one group of all parameters, with nothing kept yet.
func all(ps params.Set) Group {
	g := Group{}
	for i := range ps {
		g.Members = append(g.Members, i)
	}
	return g
}

func total(units []int) int {
	n := 0
	for _, u := range units {
		n += u
	}
	return n
}

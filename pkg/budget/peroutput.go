package budget

import (
	"fmt"

	"github.com/espalier-ml/espalier/pkg/params"
)

// PerOutput ranks the weights of each output among themselves, and keeps the same number of each. Sun et al. 2024, arXiv:2306.11695, section 3, where it matters more
// than the criterion. It is for single weights.
var PerOutput = Budget{Name: "per-output", Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	groups := make([]Group, len(ps))
	for i, p := range ps {
		out := p.Shape.Dimensions[p.Out]
		if units[i] != p.Size() || p.Out != p.Shape.Rank()-1 {
			return nil, &ConfigError{"per-output", fmt.Sprintf("%s has %d units for %d weights, with the outputs on axis %d of %d", p.Path, units[i], p.Size(), p.Out, p.Shape.Rank()),
				"use unit.Element, or another budget"}
		}
		groups[i] = Group{Members: []int{i}, Keep: Keep(p.Size()/out, sparsity), Rows: out}
		if out == 1 {
			groups[i].Rows = 0
		}
	}
	return groups, nil
}}

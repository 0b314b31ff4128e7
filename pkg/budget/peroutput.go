package budget

import (
	"fmt"

	"github.com/espalier-ml/espalier/pkg/params"
)

// PerOutput ranks the weights of each output among themselves, and keeps the same number of each. Sun et al. 2024, arXiv:2306.11695, section 3, where it
// matters more than the criterion. It is for single weights; anything else is a *ConfigError.
var PerOutput = checked("per-output", func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	groups := make([]Group, len(ps))
	for i, p := range ps {
		if units[i] != p.Size() || p.Out < 0 || p.Out != p.Shape.Rank()-1 {
			problem := fmt.Sprintf("%s has %d units for %d weights, with the outputs on axis %d of %d", p.Path, units[i], p.Size(), p.Out, p.Shape.Rank())
			return nil, &ConfigError{"per-output", problem, "use unit.Element, or another budget"}
		}
		out := p.Shape.Dimensions[p.Out]
		groups[i] = Group{Members: []int{i}, Keep: Keep(p.Size()/out, sparsity), Rows: out}
		if out == 1 {
			groups[i].Rows = 0
		}
	}
	return groups, nil
})

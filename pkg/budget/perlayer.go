package budget

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/params"
)

// PerLayer removes from each parameter a share of its own; parameters that are not named stay as they are. The shares are those at the overall sparsity that they
// make together, which Overall returns; on the way to it they grow in proportion. An unknown path is a *params.UnknownPathError, a share outside of
// [0, 1) a *ConfigError.
func PerLayer(sparsities map[string]float64) Budget {
	sparsities = maps.Clone(sparsities)
	var parts []string
	for _, path := range slices.Sorted(maps.Keys(sparsities)) {
		parts = append(parts, fmt.Sprintf("%s=%v", path, sparsities[path]))
	}
	name := "per-layer " + strings.Join(parts, ",")
	return Budget{Name: name, Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
		for path, s := range sparsities {
			if !slices.ContainsFunc(ps, func(p params.Param) bool { return p.Path == path }) {
				return nil, &params.UnknownPathError{Path: path, Known: ps.Paths()}
			}
			if math.IsNaN(s) || s < 0 || s >= 1 {
				return nil, &ConfigError{name, fmt.Sprintf("the sparsity of %s is %v", path, s), "give a share of at least 0 and less than 1"}
			}
		}
		overall := Overall(sparsities, ps, units)
		if overall == 0 && sparsity > 0 {
			return nil, &ConfigError{name, "it removes nothing", "give at least one layer a sparsity above 0"}
		}
		kept := make([]int, len(ps))
		for i, p := range ps {
			share := 0.0
			if sparsity > 0 {
				share = sparsities[p.Path] * sparsity / overall
			}
			if share >= 1 {
				return nil, &ConfigError{name, fmt.Sprintf("at an overall sparsity of %v nothing is left of %s", sparsity, p.Path),
					fmt.Sprintf("ask for %v, which these shares make together, or for less", overall)}
			}
			kept[i] = Keep(units[i], share)
		}
		return each(kept), nil
	}}
}

// Overall returns the share of all units that sparsities by path make together.
func Overall(sparsities map[string]float64, ps params.Set, units []int) float64 {
	removed, all := 0.0, 0.0
	for i, p := range ps {
		removed += sparsities[p.Path] * float64(units[i])
		all += float64(units[i])
	}
	if all == 0 {
		return 0
	}
	return removed / all
}

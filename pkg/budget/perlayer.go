package budget

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/params"
)

// PerLayer removes from each parameter a share of its own; parameters that are not named stay as they are. The shares are those at the overall sparsity
// that they make together, which Overall returns; on the way to it they grow in proportion. Sensitivity scans find such shares; Han et al. 2015,
// arXiv:1506.02626, chose theirs so.
//
// An unknown path is a *params.UnknownPathError; a share outside of [0, 1), or one that would reach 1, a *ConfigError.
func PerLayer(sparsities map[string]float64) Budget {
	sparsities = maps.Clone(sparsities)
	paths := slices.Sorted(maps.Keys(sparsities))
	var parts []string
	for _, path := range paths {
		parts = append(parts, fmt.Sprintf("%s=%v", path, sparsities[path]))
	}
	name := "per-layer " + strings.Join(parts, ",")
	return checked(name, func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
		if _, err := ps.Only(paths...); err != nil {
			return nil, err
		}
		for _, path := range paths {
			if s := sparsities[path]; !(s >= 0 && s < 1) { // NaN too
				return nil, &ConfigError{name, fmt.Sprintf("the sparsity of %s is %v", path, s), "give a share of at least 0 and less than 1"}
			}
		}
		overall := Overall(sparsities, ps, units)
		if overall == 0 && sparsity > 0 {
			return nil, &ConfigError{name, "it removes nothing", "give at least one layer a sparsity above 0"}
		}
		part := 0.0 // of the way to overall: exactly 1 at its end, so that the shares are what was given
		if sparsity > 0 {
			part = sparsity / overall
		}
		kept := make([]int, len(ps))
		for i, p := range ps {
			share := sparsities[p.Path] * part
			if !(share < 1) { // NaN too, where the shares are too small to divide by
				return nil, &ConfigError{name, fmt.Sprintf("at an overall sparsity of %v nothing is left of %s", sparsity, p.Path),
					fmt.Sprintf("ask for %v, which these shares make together, or for less", overall)}
			}
			kept[i] = Keep(units[i], share)
		}
		return each(kept), nil
	})
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

package budget

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Bytes ranks the units of all parameters together, as Global, but what the sparsity is a share of is their bytes: a large unit counts for more than a
// small one. What is kept takes at most (1 − sparsity) of all bytes; for single weights it is Global but for the rounding, which here is down.
var Bytes = checked("bytes", func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	return byCost(ps, units, sparsity, func(p params.Param) int64 { return int64(p.Shape.DType.Size()) }), nil
})

// ByMACs ranks the units of all parameters together, as Global, but what the sparsity is a share of is their multiply-accumulate operations. perWeight
// says in how many of those a weight of a parameter takes part: profile.Profile.MACsPerWeight. What is kept costs at most (1 − sparsity) of all, and
// the best unit that is not kept would be too much. A parameter that it lacks is a *ConfigError.
//
// A unit costs what its own weights do: what its removal spares in the next layer, whose inputs it feeds, is not counted. Scores are ranked as they are: a
// criterion that knows nothing of costs, such as magnitude, spends the budget on dear units first (the notebook 05-how-much-where shows it). The solver of
// pkg/sensitivity weighs losses against costs.
func ByMACs(perWeight map[string]int64) Budget {
	perWeight = maps.Clone(perWeight)
	h := fnv.New64a()
	for _, path := range slices.Sorted(maps.Keys(perWeight)) {
		fmt.Fprintln(h, path, perWeight[path])
	}
	name := fmt.Sprintf("macs %x", h.Sum64()) // two costs make two runs
	return checked(name, func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
		for _, p := range ps {
			if perWeight[p.Path] < 1 {
				return nil, &ConfigError{name, fmt.Sprintf("a weight of %s costs %d MACs", p.Path, perWeight[p.Path]),
					"profile the network that is pruned, and leave out what it does not use"}
			}
		}
		return byCost(ps, units, sparsity, func(p params.Param) int64 { return perWeight[p.Path] }), nil
	})
}

// byCost makes one group in which units cost what their weights do.
func byCost(ps params.Set, units []int, sparsity float64, perWeight func(p params.Param) int64) []Group {
	g := all(ps)
	sum := int64(0)
	for i, p := range ps {
		cost := perWeight(p) * int64(p.Size()/units[i])
		g.Cost = append(g.Cost, cost)
		sum += cost * int64(units[i])
	}
	// Down, but not because 0.55·100 is a little more than 55 in floating point.
	g.Keep = int(sum) - int(math.Ceil(sparsity*float64(sum)*(1-1e-14)))
	return []Group{g}
}

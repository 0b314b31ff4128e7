package budget

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Bytes ranks the units of all parameters together, as Global, but what the sparsity is a share of is their bytes: a large unit counts for more than a small one. For
// single weights it is Global.
var Bytes = Budget{Name: "bytes", Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	return byCost(ps, units, sparsity, func(p params.Param) int64 { return int64(p.Shape.DType.Size()) }), nil
}}

// ByMACs ranks the units of all parameters together, as Global, but what the sparsity is a share of is their multiply-accumulate operations. perWeight says in how many
// of those a weight of a parameter takes part: profile.Profile.MACsPerWeight. What is kept costs at most what is allowed, and less than the next
// unit more. A parameter that it lacks is a *ConfigError.
func ByMACs(perWeight map[string]int64) Budget {
	perWeight = maps.Clone(perWeight)
	h := fnv.New64a()
	for _, path := range slices.Sorted(maps.Keys(perWeight)) {
		fmt.Fprintln(h, path, perWeight[path])
	}
	name := fmt.Sprintf("MACs %x", h.Sum64())
	return Budget{Name: name, Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
		for _, p := range ps {
			if perWeight[p.Path] < 1 {
				return nil, &ConfigError{name, fmt.Sprintf("a weight of %s costs %d MACs", p.Path, perWeight[p.Path]), "profile the network that is pruned, and leave out what it does not use"}
			}
		}
		return byCost(ps, units, sparsity, func(p params.Param) int64 { return perWeight[p.Path] }), nil
	}}
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
	g.Keep = int(sum) - int(math.Round(sparsity*float64(sum)))
	return []Group{g}
}

package budget

import "github.com/espalier-ml/espalier/pkg/params"

// Global ranks the units of all parameters together. A unit counts as one, whatever its size.
var Global = checked("global", func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	g := all(ps)
	g.Keep = Keep(total(units), sparsity)
	return []Group{g}, nil
})

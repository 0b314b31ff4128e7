package budget

import "github.com/espalier-ml/espalier/pkg/params"

// Layerwise removes the same share of each parameter's units.
var Layerwise = checked("layerwise", func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	kept := make([]int, len(ps))
	for i := range ps {
		kept[i] = Keep(units[i], sparsity)
	}
	return each(kept), nil
})

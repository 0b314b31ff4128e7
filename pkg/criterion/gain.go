package criterion

import "github.com/gomlx/gomlx/core/graph"

// Gain is |γ|, the scale of the batch normalisation that follows a layer: network slimming. Liu et al. 2017, arXiv:1708.06519. It tells channels
// apart only if training has pushed γ towards zero (the paper adds λΣ|γ| to the loss); without that it is a weak criterion.
var Gain = Criterion{Name: "batch-norm gain", Cite: "Liu et al. 2017, arXiv:1708.06519", Needs: NeedGain, Granularity: PerOut, Pool: Mean, Score: func(in Inputs) *Node {
	return graph.Abs(in.AlongOut(in.Gain)) // [out] -> [in.Param.Shape]
}}

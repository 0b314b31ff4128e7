package criterion

import "github.com/gomlx/gomlx/core/graph"

// APoZ is the share of a channel's activations that are not zero: 1 − average percentage of zeros. Hu et al. 2016, arXiv:1607.03250, equation 1. It says
// nothing about layers without an activation that makes zeros, which all have 1.
var APoZ = Criterion{Name: "APoZ", Cite: "Hu et al. 2016, arXiv:1607.03250", Needs: NeedOutputZeros, Granularity: PerOut, Pool: Mean, Score: func(in Inputs) *Node {
	return graph.OneMinus(in.AlongOut(in.OutputZeros)) // [out] -> [in.Param.Shape]
}}

// ActivationNorm is the mean over examples of the L2 norm of a channel's activations. Molchanov et al. 2017, arXiv:1611.06440, section 2.2, with the
// norm in place of the mean.
var ActivationNorm = Criterion{Name: "activation norm", Cite: "Molchanov et al. 2017, arXiv:1611.06440", Needs: NeedOutputNorm, Granularity: PerOut, Pool: Mean,
	Score: func(in Inputs) *Node { return in.AlongOut(in.OutputNorm) }} // [out] -> [in.Param.Shape]

// HRank is the mean over examples of the rank of a channel's activation map. Lin et al. 2020, arXiv:2002.10179, equation 6. A dense layer has maps of
// 1×1: their mean rank is the share of examples for which the neuron is active.
var HRank = Criterion{Name: "HRank", Cite: "Lin et al. 2020, arXiv:2002.10179", Needs: NeedOutputRank, Granularity: PerOut, Pool: Mean, Score: func(in Inputs) *Node {
	return in.AlongOut(in.OutputRank) // [out] -> [in.Param.Shape]
}}

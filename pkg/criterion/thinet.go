package criterion

// ThiNet removes, one after the other, the input channel without which the layer's outputs change least, given those that went before. Luo et al. 2017,
// arXiv:1707.06342, algorithm 1: the error Σ(Σ_{j∈T} x̂_j)² is grown greedily over samples of outputs. The score of a channel is its place in that
// order; the refit of what is left is pkg/reconstruct's LeastSquares.
var ThiNet = Criterion{Name: "ThiNet", Cite: "Luo et al. 2017, arXiv:1707.06342", Needs: NeedResidual, Granularity: PerIn, Pool: Mean, Score: func(in Inputs) *Node {
	return in.AlongIn(in.Residual) // [in] -> [in.Param.Shape]
}}

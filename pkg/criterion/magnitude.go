package criterion

// Magnitude keeps the largest weights: the contribution of a weight is the weight itself, its importance |w|; a filter's is the L1 norm of its
// weights, or with Pool L2 the L2 norm. Janowsky 1989 (doi:10.1103/PhysRevA.39.6600); Han et al. 2015 (arXiv:1506.02626); for filters
// Li et al. 2017 (arXiv:1608.08710).
var Magnitude = Criterion{Name: "magnitude", Cite: "Han et al. 2015, arXiv:1506.02626", Pool: L1, Score: func(in Inputs) *Node {
	return in.Weight // [in.Param.Shape]
}}

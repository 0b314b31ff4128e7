package criterion

// LAMP is the squared weight over the sum of the squares of all weights of its layer that are not smaller: with a global budget it finds how much
// to keep of each layer without a parameter to choose. Lee et al. 2021, arXiv:2010.07611, equation 1. For units of several weights the paper
// says nothing; here the L2 norm of a unit stands for its weight.
var LAMP = Criterion{Name: "LAMP", Cite: "Lee et al. 2021, arXiv:2010.07611", Pool: L2, Normalize: ByLAMP, Score: func(in Inputs) *Node {
	return in.Weight // [in.Param.Shape]
}}

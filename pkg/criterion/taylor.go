package criterion

import "github.com/gomlx/gomlx/core/graph"

// Taylor scores w·∂L/∂w, the first-order change of the loss when w is set to zero. Pooled over a unit it is |Σ w·∂L/∂w|, the importance of a gate
// on the unit: Molchanov et al. 2019, arXiv:1906.10771, equation 8 without the square, which changes no ranking. The mean gradient over all of
// the calibration data is taken first, where the paper squares batch by batch and averages.
var Taylor = Criterion{Name: "taylor", Cite: "Molchanov et al. 2019, arXiv:1906.10771", Needs: NeedGrad, Pool: Net, Score: weightTimesGrad}

// TaylorWeight is the form of Taylor for weights: √Σ (w·∂L/∂w)² over a unit, so that weights of opposite effect do not cancel. Molchanov et al.
// 2019, arXiv:1906.10771, equation 7 summed over a filter.
var TaylorWeight = Criterion{Name: "taylor-weight", Cite: "Molchanov et al. 2019, arXiv:1906.10771", Needs: NeedGrad, Pool: L2, Score: weightTimesGrad}

// SignedTaylor is −Σ w·∂L/∂w with its sign: what is expected to lower the loss by its removal goes first. Mozer & Smolensky 1989, Skeletonization,
// with the loss itself in the place of their linear error.
var SignedTaylor = Criterion{Name: "w·g", Cite: "Mozer & Smolensky 1989, NIPS 1", Needs: NeedGrad, Pool: Sum, Score: func(in Inputs) *Node {
	return graph.Neg(weightTimesGrad(in)) // [in.Param.Shape]
}}

func weightTimesGrad(in Inputs) *Node { return graph.Mul(in.Weight, in.Grad) } // [in.Param.Shape]

package criterion

import "github.com/gomlx/gomlx/core/graph"

// Fisher is ½w²·E[(∂Lᵢ/∂w)²]: the second-order change of the loss with the diagonal of the empirical Fisher matrix in place of the Hessian. Theis
// et al. 2018, arXiv:1801.05787, equation 8. It supposes a network that has converged.
var Fisher = Criterion{Name: "fisher", Cite: "Theis et al. 2018, arXiv:1801.05787", Needs: NeedGradSquare, Pool: L1, Score: func(in Inputs) *Node {
	return half(in.GradSquare, in.Weight) // [in.Param.Shape]
}}

// half returns ½·h·w².
func half(h, w *Node) *Node { return graph.MulScalar(graph.Mul(h, graph.Square(w)), 0.5) }

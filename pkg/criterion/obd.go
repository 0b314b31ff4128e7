package criterion

// OBD is ½h·w², where h is the diagonal of the Hessian: optimal brain damage. LeCun et al. 1990, NIPS 2, equation 5. h is the diagonal of the Gauss-Newton
// matrix, as in the paper, but by drawing labels from what the network predicts instead of by a second pass backwards: both agree on
// average for cross-entropy. It supposes a network that has converged.
var OBD = Criterion{Name: "OBD", Cite: "LeCun et al. 1990, NIPS 2", Needs: NeedGaussNewton, Pool: L1, Score: func(in Inputs) *Node {
	return half(in.GaussNewton, in.Weight) // [in.Param.Shape]
}}

package criterion

import "github.com/gomlx/gomlx/core/graph"

// GraSP keeps the weights whose removal would lower the flow of gradients most: w·(H·∂L/∂w), of an untrained network. Wang et al. 2020,
// arXiv:2002.07376, equation 8, with the sign turned because here the largest are kept. The loss is that of the logits over a temperature
// (signal.Source.Temperature, 200 as in the authors' code). The authors draw a balanced batch of ten examples a class; here it is the calibration
// data as it comes.
var GraSP = Criterion{Name: "GraSP", Cite: "Wang et al. 2020, arXiv:2002.07376", Needs: NeedHessianGrad, Pool: Sum, Score: func(in Inputs) *Node {
	return graph.Mul(in.Weight, in.HessianGrad) // [in.Param.Shape]
}}

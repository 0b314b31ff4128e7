package criterion

import "github.com/gomlx/gomlx/core/graph"

// Wanda is |w|·‖x‖₂, the weight times the norm of the input that it is multiplied by. Sun et al. 2024, arXiv:2306.11695, equation 1. The paper ranks
// within each output: budget.PerOutput. Inputs of all layers are taken from the network as it is, where the paper goes layer by layer.
var Wanda = Criterion{Name: "Wanda", Cite: "Sun et al. 2024, arXiv:2306.11695", Needs: NeedInputNorm, Pool: L1, Score: func(in Inputs) *Node {
	return graph.Mul(in.Weight, in.AlongIn(in.InputNorm)) // [in.Param.Shape]
}}

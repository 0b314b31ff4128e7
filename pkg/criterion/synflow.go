package criterion

import "github.com/gomlx/gomlx/core/graph"

// SynFlow is |w·∂R/∂w|, where R is the sum of the outputs for an input of ones in the network of absolute weights: how much of all paths from input to output
// lead through the connection. It needs no data, and goes in a hundred rounds, so that no layer is cut through. Tanaka et al. 2020,
// arXiv:2006.05467, algorithm 1. In deep networks R overflows float32; the flow is measured in layers scaled to a mean of 1, which multiplies
// all scores by one factor and changes no ranking (pkg/signal).
var SynFlow = Criterion{Name: "SynFlow", Cite: "Tanaka et al. 2020, arXiv:2006.05467", Needs: NeedFlow, Pool: L1, Rounds: 100, Score: func(in Inputs) *Node {
	return graph.Mul(graph.Abs(in.Weight), in.Flow) // [in.Param.Shape]
}}

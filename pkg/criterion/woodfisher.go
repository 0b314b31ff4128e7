package criterion

import "github.com/gomlx/gomlx/core/graph"

// WoodFisher is w²/(2[F⁻¹]_qq), where F is the empirical Fisher matrix in blocks of consecutive weights, inverted by the Woodbury identity. Singh & Alistarh
// 2020, arXiv:2004.14340, equation 11. Here it only chooses; pkg/reconstruct has the update of the survivors.
var WoodFisher = Criterion{Name: "WoodFisher", Cite: "Singh & Alistarh 2020, arXiv:2004.14340", Needs: NeedInverseFisher, Pool: L1, Score: func(in Inputs) *Node {
	return graph.MulScalar(graph.Div(graph.Square(in.Weight), in.InverseFisher), 0.5) // [in.Param.Shape]
}}

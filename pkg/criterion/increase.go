package criterion

import "github.com/gomlx/gomlx/core/graph"

// MagnitudeIncrease is |w| − |w₀|: what training has made larger. Zhou et al. 2019, arXiv:1905.01067, table 1 (magnitude increase).
var MagnitudeIncrease = Criterion{Name: "magnitude increase", Cite: "Zhou et al. 2019, arXiv:1905.01067", Needs: NeedStart, Pool: Sum, Score: func(in Inputs) *Node {
	return graph.Sub(graph.Abs(in.Weight), graph.Abs(in.Start)) // [in.Param.Shape]
}}

// Distance is |w − w₀|: what training has moved. Zhou et al. 2019, arXiv:1905.01067, table 1 (movement).
var Distance = Criterion{Name: "distance from start", Cite: "Zhou et al. 2019, arXiv:1905.01067", Needs: NeedStart, Pool: L1, Score: func(in Inputs) *Node {
	return graph.Sub(in.Weight, in.Start) // [in.Param.Shape]
}}

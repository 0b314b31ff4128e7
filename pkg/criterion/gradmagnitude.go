package criterion

// GradMagnitude is |∂L/∂w|: where a weight would move most. It is a poor criterion for removing and a good one for growing: Evci et al. 2020 (RigL),
// arXiv:1911.11134.
var GradMagnitude = Criterion{Name: "gradient magnitude", Cite: "Evci et al. 2020, arXiv:1911.11134", Needs: NeedGrad, Pool: L1, Score: func(in Inputs) *Node {
	return in.Grad // [in.Param.Shape]
}}

package criterion

// L0 is log α of gates that were trained with a penalty on the number that is open: hard concrete gates. Louizos et al. 2018, arXiv:1712.01312. The
// gates are made and trained by prune.Gates; a gate is shut at log α ≤ −2.4. The paper closes gates by their value; here the budget says how
// many stay open.
var L0 = Criterion{Name: "L0 gates", Cite: "Louizos et al. 2018, arXiv:1712.01312", Needs: NeedGate, Pool: Mean, Score: func(in Inputs) *Node {
	return in.Gate // [in.Param.Shape]
}}

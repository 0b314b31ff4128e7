package criterion

import "github.com/gomlx/gomlx/core/graph"

// Movement is −Σ w·∂L/∂w over the training steps: weights that grow away from zero are kept, whatever their size. Sanh et al. 2020, arXiv:2005.07683,
// equation 4. The learning rate is left out, so with a schedule of rates late steps weigh more here than in the paper; and weights that are dead
// stay at zero, where the paper goes on training them behind the mask.
var Movement = Criterion{Name: "movement", Cite: "Sanh et al. 2020, arXiv:2005.07683", Needs: NeedTrack, Pool: Sum, Score: tracked, Track: func(in Inputs) *Node {
	return graph.Sub(in.Track, weightTimesGrad(in)) // [in.Param.Shape]
}}

// SoftMovement is Movement with the pull of the penalty λ·Σσ(S) on the scores S, λ = 1e-4, which the paper needs for its threshold: scores that training
// does not hold up sink, those near zero the fastest. Sanh et al. 2020, arXiv:2005.07683, section 4.3. The paper keeps what is above a
// threshold; here the budget says how many are kept.
var SoftMovement = Criterion{Name: "soft movement", Cite: "Sanh et al. 2020, arXiv:2005.07683", Needs: NeedTrack, Pool: Sum, Score: tracked, Track: func(in Inputs) *Node {
	s := graph.Sigmoid(in.Track)
	pull := graph.MulScalar(graph.Mul(s, graph.OneMinus(s)), 1e-4) // λσ'(S)
	return graph.Sub(graph.Sub(in.Track, weightTimesGrad(in)), pull)
}}

func tracked(in Inputs) *Node { return in.Track } // [in.Param.Shape]

package sparsetrain

import (
	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

// SparseMomentum drops by magnitude, hands what was dropped to layers in proportion to the momentum of their living weights, and grows where the momentum of dead
// ones is largest: 50% at first, falling to 0.5% on a cosine. The overview literature has it that it drops by momentum; it drops by weight magnitude.
//
// Departures from the authors' code: the number alive is exact, see ByMomentum, and so is the first mask, which is drawn weight by weight there. Their updates come at
// the end of each epoch but the last: Over(steps, steps of an epoch).
var SparseMomentum = Update{
	Name: "sparse-momentum", Cite: "Dettmers & Zettlemoyer 2019, arXiv:1907.04840", Budget: budget.Layerwise,
	Drop: SmallestUnlessGrowing, Redistribute: ByMomentum, Grow: GrowByMomentum, Moments: KeepMoments, Start: 0.5, End: 0.005, Decay: schedule.Cosine,
}

// SparseMomentumCompatible is Sparse Momentum with the authors' redistribution, which meets the budget on average only: to reproduce their numbers.
var SparseMomentumCompatible = Update{
	Name: "sparse-momentum-compatible", Cite: "Dettmers & Zettlemoyer 2019, arXiv:1907.04840", Budget: budget.Layerwise,
	Drop: SmallestUnlessGrowing, Redistribute: CompatibleShare, Grow: GrowByMomentum, Moments: KeepMoments, Start: 0.5, End: 0.005, Decay: schedule.Cosine,
}

// SET drops 30% of each layer's weights nearest to zero, of each sign, and grows as many at random, up to the end of training. Grown weights start at 0, as in RigL's code; for
// a draw like the layer's own set Init to HeNormal.
var SET = Update{
	Name: "set", Cite: "Mocanu et al. 2018, arXiv:1707.04780", Budget: budget.ErdosRenyi, Drop: SmallestOfEachSign, Redistribute: Keep, Grow: AtRandom, Start: 0.3,
}

// DSR drops all weights below a threshold that adapts so that about 1% of the living go, and grows as many at random, in layers in proportion to what they have left.
// The authors lengthen the interval between updates while training; set When for that.
var DSR = Update{
	Name: "dsr", Cite: "Mostafa & Wang 2019, arXiv:1902.05967", Budget: budget.Layerwise, Drop: BelowThreshold, Redistribute: BySurvivors, Grow: AtRandom, Start: 0.01,
}

// RigL drops 30% by magnitude, on a cosine that ends with the updates after three quarters of training, and grows as many in the same layer where the gradient is largest.
// Layers have densities by ERK; for uniform ones set Budget to budget.Layerwise. An update stands between two training steps and is no step itself: the gradient
// that it reads changes no weight, as in the paper. That gradient is of the network in inference mode (signal.Source), where the authors' is of a training step.
var RigL = Update{
	Name: "rigl", Cite: "Evci et al. 2020, arXiv:1911.11134", Budget: budget.ERK, Drop: Smallest, Redistribute: Keep, Grow: GrowByGradient,
	Start: 0.3, Decay: schedule.Cosine, Until: 0.75,
}

// SNFS is Sparse Momentum without redistribution, as RigL's code compares with it under that name: momentum decides only where each layer grows what it lost.
var SNFS = Update{
	Name: "snfs", Cite: "Dettmers & Zettlemoyer 2019, arXiv:1907.04840; Evci et al. 2020, arXiv:1911.11134", Budget: budget.ERK,
	Drop: Smallest, Redistribute: Keep, Grow: GrowByMomentum, Start: 0.3, Decay: schedule.Cosine, Until: 0.75,
}

// Static never changes its random topology: the control.
var Static = Update{Name: "static", Budget: budget.ERK, Fraction: schedule.Constant(0), When: func(int) bool { return false }}

// DEEPR drops weights that have changed sign and grows as many at random, anywhere in the network, each with a sign that it has to keep. The authors look after each
// step, and add noise and an L1 term to the step, which are the optimizer's business and left out here.
var DEEPR = Update{
	Name: "deep-r", Cite: "Bellec et al. 2018, arXiv:1711.05136", Budget: budget.Layerwise, Drop: SignFlipped, Redistribute: ByRoom, Grow: AtRandom, Init: RandomSign,
}

// All lists the updates; the conformance suite runs over it.
func All() []Update {
	return []Update{SparseMomentum, SparseMomentumCompatible, SET, DSR, RigL, SNFS, Static, DEEPR}
}

// ByName returns the update of that name among All.
func ByName(name string) (u Update, found bool) {
	for _, u := range All() {
		if u.Name == name {
			return u, true
		}
	}
	return Update{}, false
}

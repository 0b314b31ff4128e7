package sparsetrain

import "math"

// Share says how many weights each layer grows.
type Share struct {
	Name, Cite string
	Needs      Needs
	// Claim returns a number for each layer, none negative. Layers grow in proportion to them, rounded so that as many weights are grown as were dropped; what a
	// layer has no room for goes to the others in proportion, and no layer is left without a living weight.
	Claim func(r *Round) []float64
	// Count, instead of Claim, returns how many each layer grows, at most its Room.
	Count func(r *Round) ([]int, error)
}

// Keep grows in each layer as many as it lost: SET, RigL.
var Keep = Share{Name: "keep", Count: func(r *Round) ([]int, error) {
	counts := make([]int, len(r.Layers))
	for i, l := range r.Layers {
		counts[i] = l.Dropped
	}
	return counts, nil
}}

// ByMomentum gives layers shares in proportion to the mean magnitude of the momentum of their living weights, before the drop. Dettmers & Zettlemoyer 2019,
// arXiv:1907.04840. Where the authors spread what full layers have no room for over all layers equally, here it goes to those with room in
// proportion; see CompatibleShare for theirs.
var ByMomentum = Share{Name: "momentum", Cite: "Dettmers & Zettlemoyer 2019, arXiv:1907.04840", Needs: NeedMomentum, Claim: momentumShares}

// momentumShares returns the mean magnitudes of the momentum of the living weights, divided by their sum. A layer whose mean is no number is left out of the sum
// and has the share 0; where all are 0, they are equal.
func momentumShares(r *Round) []float64 {
	shares, sum := make([]float64, len(r.Layers)), 0.0
	for i, l := range r.Layers {
		for _, j := range l.living() {
			shares[i] += math.Abs(float64(l.Momentum[j]))
		}
		shares[i] /= float64(l.Living)
		if math.IsNaN(shares[i]) || math.IsInf(shares[i], 0) {
			shares[i] = 0
		}
		sum += shares[i]
	}
	for i := range shares {
		if sum > 0 {
			shares[i] /= sum
		} else {
			shares[i] = 1 / float64(len(shares))
		}
	}
	return shares
}

// BySurvivors gives layers shares in proportion to how many of their weights are left after the drop. Mostafa & Wang 2019, arXiv:1902.05967, algorithm 1.
var BySurvivors = Share{Name: "survivors", Cite: "Mostafa & Wang 2019, arXiv:1902.05967", Claim: func(r *Round) []float64 {
	claims := make([]float64, len(r.Layers))
	for i, l := range r.Layers {
		claims[i] = float64(l.Living - l.Dropped)
	}
	return claims
}}

// Where compatible Sparse Momentum keeps its feedback in Round.Memory.
const (
	compatAdjustment = iota // what is grown in addition
	compatMissing           // the sum of what was missing after each update
)

// CompatibleShare is the redistribution of Sparse Momentum as its authors' code has it (sparse_learning 1.0, core.py): layers in proportion to momentum, rounded
// up; full ones, at 99% of their room, hand the rest to all layers equally, again and again, up to 1000 times; each layer's result is rounded down; what
// is missing of the budget then is made good by later updates. So the number alive swings around the budget, which it meets exactly with ByMomentum.
var CompatibleShare = Share{Name: "momentum-compatible", Cite: "Dettmers & Zettlemoyer 2019, arXiv:1907.04840, sparse_learning 1.0", Needs: NeedMomentum, Count: func(r *Round) ([]int, error) {
	shares := momentumShares(r)
	removed, survivors := 0, 0
	for _, l := range r.Layers {
		removed += l.Dropped
		survivors += l.Living - l.Dropped
	}
	layers := float64(len(r.Layers))
	grow := make([]float64, len(r.Layers))
	for i := range grow {
		grow[i] = math.Ceil(shares[i] * (float64(removed) + r.Memory[compatAdjustment]))
	}
	each := 0.0
	for range 1000 {
		residual := 0.0
		for i, l := range r.Layers {
			grow[i] += each
			room := float64(l.Size() - l.Living + growingCount(r, l, shares[i]))
			if full := 0.99 * room; grow[i] > full {
				residual += grow[i] - full
				grow[i] = full
			}
		}
		if residual == 0 {
			break
		}
		each = residual / layers
	}
	counts, alive := make([]int, len(grow)), survivors
	for i := range grow {
		counts[i] = max(0, min(int(math.Floor(grow[i])), r.Layers[i].Room()))
		alive += counts[i]
	}
	missing := float64(r.Budget - alive)
	r.Memory[compatMissing] += missing
	r.Memory[compatAdjustment] = 0.25*r.Memory[compatAdjustment] + 0.75*missing + r.Memory[compatMissing]/float64(r.Number+1)
	return counts, nil
}}

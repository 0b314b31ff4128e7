package sparsetrain

import (
	"math"

	"github.com/espalier-ml/espalier/pkg/criterion"
)

// Drop says which living weights go. Mark sets Layer.Drop; what it marks of dead weights does not count.
type Drop struct {
	Name, Cite string
	Needs      Needs
	Mark       func(r *Round) error

	criterion *criterion.Criterion
}

// Smallest drops the weights of least magnitude, ⌊Fraction · living⌋ of each layer, as SET in RigL's code and RigL do, but for their random numbers of 10⁻⁵ that
// break ties. The zero value of Update has it.
var Smallest = DropBy("magnitude", 0, nil)

// DropBy returns a rule that drops the weights of least score, ⌊Fraction · living⌋ of each layer. Of equal ones the earlier stays. A nil score is the magnitude.
func DropBy(name string, needs Needs, score Score) Drop {
	return Drop{Name: name, Needs: needs, Mark: func(r *Round) error {
		for _, l := range r.Layers {
			// 0.29·100 is 28.999999999999996 in floating point.
			if err := dropLowest(name, l, int(r.Fraction*float64(l.Living)+1e-9), score); err != nil {
				return err
			}
		}
		return nil
	}}
}

// DropByCriterion returns DropBy with an importance criterion. It is given the signals that it needs by Engine.Update; criteria that track training or need gates
// are refused by New.
func DropByCriterion(c criterion.Criterion) Drop {
	d := DropBy(c.Name, 0, func(l *Layer, scores []float32) { copy(scores, l.criteria[toDrop]) })
	d.Cite, d.criterion = c.Cite, &c
	return d
}

// dropLowest marks the n living weights of least score; nil stands for the magnitude.
func dropLowest(rule string, l *Layer, n int, score Score) error {
	if n <= 0 {
		return nil
	}
	if score == nil {
		return dropSmallest(rule, l, n, l.living())
	}
	scores := scored(l, score)
	if err := numbers(rule, l, scores); err != nil {
		return err
	}
	few := l.rooms().few[:0]
	for _, i := range l.living() {
		few = append(few, scores[i])
	}
	l.room.few = few
	l.dropOf(l.living(), few, n)
	return nil
}

// dropSmallest marks the n weights of least magnitude among those at some places.
func dropSmallest(rule string, l *Layer, n int, places []int32) error {
	few := room(&l.rooms().few, len(places))
	for j, i := range places {
		few[j] = abs(l.Weight[i])
	}
	if err := numbers(rule, l, few); err != nil {
		return err
	}
	l.dropOf(places, few, n)
	return nil
}

// dropOf marks the n of least score among the weights at some places.
func (l *Layer) dropOf(places []int32, scores []float32, n int) {
	for j, kept := range l.top(len(places)-min(n, len(places)), scores) {
		i := places[j]
		l.Drop[i] = l.Drop[i] || !kept // without a branch on what is as good as random
	}
}

// scored returns a layer's scores, which hold until the next are asked for.
func scored(l *Layer, score Score) []float32 {
	scores := room(&l.rooms().scores, l.Size())
	clear(scores)
	score(l, scores)
	return scores
}

// numbers returns a *RuleError for NaN.
func numbers(rule string, l *Layer, scores []float32) error {
	for _, s := range scores {
		if s != s {
			return &RuleError{rule, l.Param.Path, "it gives scores that are no numbers: look at the weights and at the rule"}
		}
	}
	return nil
}

func absolute(to, from []float32) {
	to = to[:len(from)]
	for i, x := range from {
		to[i] = abs(x)
	}
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// SmallestOfEachSign drops, of each layer, ⌊Fraction · n⌋ of the n positive weights, those nearest to zero, as many in proportion of the negative ones, and all
// living weights that are zero. Mocanu et al. 2018, arXiv:1707.04780, and the authors' code. (The function of that name in Sparse Momentum's code clears
// nearly all positive weights; this one does not.)
var SmallestOfEachSign = Drop{Name: "each-sign", Cite: "Mocanu et al. 2018, arXiv:1707.04780", Mark: func(r *Round) error {
	for _, l := range r.Layers {
		var sides [2][]int32
		for _, i := range l.living() {
			switch w := l.Weight[i]; {
			case w > 0:
				sides[0] = append(sides[0], i)
			case w == 0:
				l.Drop[i] = true
			default: // NaN too, which dropSmallest refuses
				sides[1] = append(sides[1], i)
			}
		}
		for _, side := range sides {
			if err := dropSmallest("each-sign", l, int(r.Fraction*float64(len(side))+1e-9), side); err != nil {
				return err
			}
		}
	}
	return nil
}}

// SmallestUnlessGrowing is the drop rule of Sparse Momentum: of each layer the ⌈p · living⌉ weights of least magnitude, where p is Fraction; but for a layer of which
// less than a fifth is dead, and whose share of the momentum is above the average, p is at most its dead share. arXiv:1907.04840, and the authors' code.
var SmallestUnlessGrowing = Drop{Name: "magnitude-unless-growing", Cite: "Dettmers & Zettlemoyer 2019, arXiv:1907.04840", Needs: NeedMomentum, Mark: func(r *Round) error {
	shares := momentumShares(r)
	for i, l := range r.Layers {
		if err := dropLowest("magnitude-unless-growing", l, growingCount(r, l, shares[i]), nil); err != nil {
			return err
		}
	}
	return nil
}}

// growingCount is how many weights Sparse Momentum drops of a layer.
func growingCount(r *Round, l *Layer, share float64) int {
	p := r.Fraction
	dead := float64(l.Size()-l.Living) / float64(l.Size())
	if average := 1 / float64(len(r.Layers)); dead < 0.2 && average/share < 1 {
		p = min(p, dead)
	}
	return int(math.Ceil(p * float64(l.Living)))
}

// dsrThreshold is where a DSR keeps its threshold in Round.Memory.
const dsrThreshold = 2 // beside what CompatibleShare keeps

// BelowThreshold drops all weights of magnitude below a threshold that is the same for all layers, and makes that threshold find its way: after an update that
// drops more than 1.1 · Fraction · living weights it is halved, after one that drops fewer than 0.9 of that, doubled. It is 0.001 at first and lies in
// Round.Memory. Mostafa & Wang 2019, arXiv:1902.05967, algorithm 1 with δ = 0.1.
var BelowThreshold = Drop{Name: "threshold", Cite: "Mostafa & Wang 2019, arXiv:1902.05967", Mark: func(r *Round) error {
	const tolerance = 0.1
	threshold := r.Memory[dsrThreshold]
	if threshold == 0 {
		threshold = 0.001
	}
	dropped, living := 0, 0
	for _, l := range r.Layers {
		living += l.Living
		for _, i := range l.living() {
			if math.Abs(float64(l.Weight[i])) < threshold {
				l.Drop[i] = true
				dropped++
			}
		}
	}
	switch target := r.Fraction * float64(living); {
	case float64(dropped) > (1+tolerance)*target:
		threshold /= 2
	case float64(dropped) < (1-tolerance)*target:
		threshold *= 2
	}
	r.Memory[dsrThreshold] = threshold
	return nil
}}

// SignFlipped drops the weights that have crossed zero since they were grown, however many they are: Fraction is not asked. Bellec et al. 2018,
// arXiv:1711.05136, algorithm 1, where it is done in each step.
var SignFlipped = Drop{Name: "sign-flip", Cite: "Bellec et al. 2018, arXiv:1711.05136", Needs: NeedSigns, Mark: func(r *Round) error {
	for _, l := range r.Layers {
		for _, i := range l.living() {
			w := l.Weight[i]
			l.Drop[i] = w < 0 && l.Positive[i] || w > 0 && !l.Positive[i]
		}
	}
	return nil
}}

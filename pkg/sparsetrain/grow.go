package sparsetrain

import "github.com/espalier-ml/espalier/pkg/criterion"

// Grow says which weights come to life: those of highest score among the dead and the just dropped, of equal ones the earlier.
type Grow struct {
	Name, Cite string
	Needs      Needs
	Score      Score
	// Fresh makes dropped weights that are grown again by the same update start anew, as others do. By default they keep their value and their moments.
	Fresh bool

	criterion *criterion.Criterion
}

// AtRandom grows at random places.
var AtRandom = Grow{Name: "random", Fresh: true, Score: func(l *Layer, scores []float32) {
	for i := range scores {
		scores[i] = l.Random.Float32()
	}
}}

// GrowByMomentum grows where the momentum is largest. Dettmers & Zettlemoyer 2019, arXiv:1907.04840. Unlike the authors' code it never takes a weight that lives already
// for one that it grows, which there makes the density fall where too few dead weights have momentum.
var GrowByMomentum = Grow{Name: "momentum", Cite: "Dettmers & Zettlemoyer 2019, arXiv:1907.04840", Needs: NeedMomentum, Score: func(l *Layer, scores []float32) {
	absolute(scores, l.Momentum)
}}

// GrowByGradient grows where the gradient of the loss is largest. Evci et al. 2020, arXiv:1911.11134.
var GrowByGradient = Grow{Name: "gradient", Cite: "Evci et al. 2020, arXiv:1911.11134", Needs: NeedGradient, Score: func(l *Layer, scores []float32) {
	absolute(scores, l.Gradient)
}}

// GrowBy returns a rule of one's own.
func GrowBy(name string, needs Needs, score Score) Grow {
	return Grow{Name: name, Needs: needs, Score: score}
}

// GrowByCriterion returns a rule by an importance criterion, as DropByCriterion. It has to give dead weights, which are zero, scores that differ.
func GrowByCriterion(c criterion.Criterion) Grow {
	return Grow{Name: c.Name, Cite: c.Cite, criterion: &c, Score: func(l *Layer, scores []float32) { copy(scores, l.criteria[toGrow]) }}
}

package criterion

import (
	"math/rand/v2"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Invert returns the control that keeps what c would remove. A criterion that is not far better than its inverse says nothing.
func Invert(c Criterion) Criterion {
	c.Name += ", inverted"
	c.Normalize = c.Normalize.Then(Normalize{Name: "inverted", Apply: func(scores []float32, _ params.Param, _ *rand.Rand) {
		for i := range scores {
			scores[i] = -scores[i]
		}
	}})
	return c
}

// Shuffle returns the control that keeps as much of each layer as c would, but draws by lot what. Su et al. 2020, arXiv:2009.11094; Frankle et al. 2021,
// arXiv:2009.08576: where it is as good as c, c has only found how much of each layer to keep.
func Shuffle(c Criterion) Criterion {
	c.Name += ", shuffled"
	c.Normalize = c.Normalize.Then(Normalize{Name: "shuffled", Random: true, Apply: func(scores []float32, _ params.Param, random *rand.Rand) {
		random.Shuffle(len(scores), func(i, j int) { scores[i], scores[j] = scores[j], scores[i] })
	}})
	return c
}

package criterion

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Normalize makes the scores of different layers comparable before they are ranked together. It works on the host, in double precision where
// sums are long. The zero value leaves the scores as they are.
type Normalize struct {
	Name string
	// Apply changes the scores of a parameter's units in place. random is a source of its own for each parameter, from the recipe's seed.
	Apply func(scores []float32, p params.Param, random *rand.Rand)
	// Random says that Apply draws random numbers, so that each call of Prune is another draw.
	Random bool
}

// Then returns the normalisation that does n, then next.
func (n Normalize) Then(next Normalize) Normalize {
	switch {
	case n.Apply == nil:
		return next
	case next.Apply == nil:
		return n
	}
	return Normalize{Name: n.Name + ", " + next.Name, Random: n.Random || next.Random, Apply: func(scores []float32, p params.Param, random *rand.Rand) {
		n.Apply(scores, p, random)
		next.Apply(scores, p, random)
	}}
}

// ByL2 divides a layer's scores by their L2 norm.
var ByL2 = Normalize{Name: "L2", Apply: func(scores []float32, _ params.Param, _ *rand.Rand) {
	sum := 0.0
	for _, s := range scores {
		sum += float64(s) * float64(s)
	}
	divide(scores, math.Sqrt(sum))
}}

// ByMean divides a layer's scores by the mean of their magnitudes.
var ByMean = Normalize{Name: "mean", Apply: func(scores []float32, _ params.Param, _ *rand.Rand) {
	sum := 0.0
	for _, s := range scores {
		sum += math.Abs(float64(s))
	}
	divide(scores, sum/float64(len(scores)))
}}

// divide leaves a layer of zeros as it is.
func divide(scores []float32, by float64) {
	if by == 0 {
		return
	}
	for i, s := range scores {
		scores[i] = float32(float64(s) / by)
	}
}

// ByLAMP divides the square of each of a layer's scores by the sum of the squares of all that are not smaller: the largest score of each layer becomes 1, so
// that no layer dies before all others are down to one unit. Of equal scores the earlier counts as the larger. Lee et al. 2021,
// arXiv:2010.07611, equation 1.
var ByLAMP = Normalize{Name: "LAMP", Apply: func(scores []float32, _ params.Param, _ *rand.Rand) {
	order := make([]int32, len(scores))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { // descending
		if c := cmp.Compare(abs(scores[b]), abs(scores[a])); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	})
	sum := 0.0
	for _, i := range order {
		square := float64(scores[i]) * float64(scores[i])
		if sum += square; sum > 0 {
			scores[i] = float32(square / sum)
		}
	}
}}

func abs(x float32) float32 { return float32(math.Abs(float64(x))) }

package sensitivity

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/espalier-ml/espalier/pkg/profile"
)

// rounds is how often the bootstrap resamples.
const rounds = 2000

// resamples draws parts of the data with replacement, the same for all points, so that sums over points are resampled jointly; none of fewer than two.
// Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
func resamples(parts int, seed int64) [][]int {
	if parts < 2 {
		return nil
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 3))
	draws := make([][]int, rounds)
	for i := range draws {
		draws[i] = make([]int, parts)
		for j := range draws[i] {
			draws[i][j] = rng.IntN(parts)
		}
	}
	return draws
}

// replicates returns the mean of each resample.
func replicates(xs []float64, draws [][]int) []float64 {
	means := make([]float64, len(draws))
	for i, draw := range draws {
		for _, j := range draw {
			means[i] += xs[j]
		}
		means[i] /= float64(len(draw))
	}
	return means
}

// band returns the middle 95% of resampled values; NaN of none, and if one is no number or infinite.
func band(values []float64) (low, high float64) {
	if slices.ContainsFunc(values, func(x float64) bool { return !finite(x) }) {
		return math.NaN(), math.NaN()
	}
	return profile.Quantile(values, 0.025), profile.Quantile(values, 0.975)
}

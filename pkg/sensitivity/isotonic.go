package sensitivity

import (
	"math"
	"slices"
)

// nondecreasing returns the nondecreasing values nearest to those of a curve in the sense of least squares, by pooling adjacent violators (Barlow et al. 1972). The
// first point, that of the network as it is, is 0 and is known exactly, so it has all the weight: what would lie below 0 becomes 0. Values that are
// not finite stay, and have no part in it.
func nondecreasing(values []float64) []float64 {
	type pool struct {
		sum float64
		n   int
	}
	mean := func(p pool) float64 { return p.sum / float64(p.n) }
	var pools []pool
	for _, v := range values {
		if !finite(v) {
			continue
		}
		p := pool{v, 1}
		for len(pools) > 0 && mean(pools[len(pools)-1]) > mean(p) {
			last := pools[len(pools)-1]
			p = pool{last.sum + p.sum, last.n + p.n}
			pools = pools[:len(pools)-1]
		}
		pools = append(pools, p)
	}
	fitted := slices.Clone(values)
	at := 0
	for _, p := range pools {
		for range p.n {
			for !finite(fitted[at]) {
				at++
			}
			fitted[at] = max(0, mean(p))
			at++
		}
	}
	return fitted
}

// interpolate returns the value at x of the piecewise linear curve through points with ascending xs; NaN outside of them, and between two of which one
// is not finite.
func interpolate(xs, values []float64, x float64) float64 {
	i, found := slices.BinarySearch(xs, x)
	switch {
	case found && finite(values[i]):
		return values[i]
	case found || i == 0 || i == len(xs) || !finite(values[i-1]) || !finite(values[i]):
		return math.NaN()
	}
	return values[i-1] + (x-xs[i-1])/(xs[i]-xs[i-1])*(values[i]-values[i-1])
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// Package schedule says how sparse a network is to be after each step, and when to prune. Schedules are pure functions. Arguments that make no sense, as an
// end before the beginning, give a schedule that is NaN, which pruning refuses with a sentence; nothing here panics.
package schedule

import "math"

// Schedule returns the sparsity after a step, in [0, 1).
type Schedule func(step int) float64

// When says whether to prune after a step.
type When func(step int) bool

// Constant is one sparsity from the first step on: one-shot pruning.
func Constant(sparsity float64) Schedule { return func(int) float64 { return sparsity } }

// between is initial up to step from, final from step to on, and inner of the progress in between, which lies in (0, 1): the ends are what was
// given, without rounding. A schedule that ends before it begins is NaN everywhere, and so is one from or to NaN.
func between(from, to int, initial, final float64, inner func(progress float64) float64) Schedule {
	if to < from || math.IsNaN(initial) || math.IsNaN(final) {
		return Constant(math.NaN())
	}
	return func(step int) float64 {
		switch {
		case step >= to:
			return final
		case step <= from:
			return initial
		}
		return inner(float64(step-from) / float64(to-from))
	}
}

// Linear grows from initial at step from to final at step to.
func Linear(from, to int, initial, final float64) Schedule {
	return between(from, to, initial, final, func(p float64) float64 { return initial + (final-initial)*p })
}

// Cubic is s(t) = final + (initial − final)(1 − (t−from)/(to−from))³: fast at first, when there is much to remove, then slower.
// Zhu & Gupta 2017, arXiv:1710.01878, equation 1.
func Cubic(from, to int, initial, final float64) Schedule {
	return between(from, to, initial, final, func(p float64) float64 {
		left := 1 - p
		return final + (initial-final)*left*left*left
	})
}

// Geometric removes the share rate of what is left in each round of every steps, never beyond final: 1 − (1 − rate)^rounds. With rate 0.2 it
// is the ladder of Frankle & Carbin 2019 (arXiv:1803.03635). No round is complete before step every. It is NaN for every < 1 and for a rate outside of [0, 1].
func Geometric(every int, rate, final float64) Schedule {
	if every < 1 || !(rate >= 0 && rate <= 1) {
		return Constant(math.NaN())
	}
	return func(step int) float64 {
		return math.Min(final, 1-math.Pow(1-rate, float64(max(step, 0)/every)))
	}
}

// Cosine is s(t) = final + (initial − final)·(1 + cos(π·progress))/2: slow at both ends. Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, with
// sparsity in the place of a learning rate.
func Cosine(from, to int, initial, final float64) Schedule {
	return between(from, to, initial, final, func(p float64) float64 { return final + (initial-final)*(1+math.Cos(math.Pi*p))/2 })
}

// Exponential lets the share that is left fall geometrically: 1 − s(t) = (1 − initial)·((1 − final)/(1 − initial))^progress, so that each step removes
// the same share of what it finds. Tanaka et al. 2020, arXiv:2006.05467, algorithm 1, where it is the densities of SynFlow's rounds.
func Exponential(from, to int, initial, final float64) Schedule {
	return between(from, to, initial, final, func(p float64) float64 { return 1 - (1-initial)*math.Pow((1-final)/(1-initial), p) })
}

// OneCycle is s(t) = initial + (final − initial)·(1 + e^(−α+β)) / (1 + e^(−α·progress+β)) with α = 14 and β = 5: slow, then fast around progress 5/14,
// then slow. Hubens et al. 2021, One-Cycle Pruning, arXiv:2107.02086. The paper's function has gone (1 + e⁻⁹)/(1 + e⁵) = 0.7% of the way at step
// from; this one is initial there, as every schedule is. The library of the first author has since made β 6.
func OneCycle(from, to int, initial, final float64) Schedule {
	const alpha, beta = 14, 5
	return between(from, to, initial, final, func(p float64) float64 {
		return initial + (final-initial)*(1+math.Exp(-alpha+beta))/(1+math.Exp(-alpha*p+beta))
	})
}

// ACDC alternates between a sparse and a dense network: after the warm-up that ends at step from it is sparse for phase steps, then dense for as long, and
// so on, and sparse from step to on, which should be well before training ends. Peste et al. 2021, arXiv:2106.12379, algorithm 1, with phases of
// one length: from, to and phase of 10, 170 and 20 epochs are those of the authors' runs on CIFAR-100. On ImageNet (10, 85 and 5) they make the last
// dense phase twice as long, which this does not.
//
// Prune with the When that comes with it, which is true where phases begin; the recipe has to let weights come back (Recipe.Revive), or no phase is
// dense again. It is NaN for to < from, phase < 1 and a final of NaN.
func ACDC(from, to, phase int, final float64) (Schedule, When) {
	if to < from || phase < 1 || math.IsNaN(final) {
		return Constant(math.NaN()), Once(from)
	}
	sparse := func(step int) bool { return step >= to || step >= from && (step-from)/phase%2 == 0 }
	sch := func(step int) float64 {
		if sparse(step) {
			return final
		}
		return 0
	}
	return sch, func(step int) bool { return step == from || sparse(step) != sparse(step-1) }
}

// Every is true at from, from+n, from+2n, … up to and including to; never for n < 1.
func Every(n, from, to int) When {
	return func(step int) bool { return n > 0 && step >= from && step <= to && (step-from)%n == 0 }
}

// Once is true at one step.
func Once(at int) When { return func(step int) bool { return step == at } }

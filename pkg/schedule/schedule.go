// Package schedule says how sparse a network is to be after each step, and when to prune. Schedules are pure functions.
package schedule

import "math"

// Schedule returns the sparsity after a step, in [0, 1).
type Schedule func(step int) float64

// When says whether to prune after a step.
type When func(step int) bool

// Constant is one sparsity from the first step on: one-shot pruning.
func Constant(sparsity float64) Schedule { return func(int) float64 { return sparsity } }

// Linear grows from initial at step from to final at step to.
func Linear(from, to int, initial, final float64) Schedule {
	return func(step int) float64 { return initial + (final-initial)*progress(step, from, to) }
}

// Cubic is s(t) = final + (initial − final)(1 − (t−from)/(to−from))³: fast at first, when there is much to remove, then slower.
// Zhu & Gupta 2017, arXiv:1710.01878, equation 1.
func Cubic(from, to int, initial, final float64) Schedule {
	return func(step int) float64 {
		left := 1 - progress(step, from, to)
		return final + (initial-final)*left*left*left
	}
}

// Geometric removes the share rate of what is left in each round of every steps, never beyond final: 1 − (1 − rate)^rounds. With rate 0.2 it
// is the ladder of Frankle & Carbin 2019 (arXiv:1803.03635). No round is complete before step every.
func Geometric(every int, rate, final float64) Schedule {
	return func(step int) float64 {
		if every < 1 {
			return math.NaN() // refused, as any sparsity that is no number, when it is used
		}
		return math.Min(final, 1-math.Pow(1-rate, float64(max(step, 0)/every)))
	}
}

// Cosine is s(t) = final + (initial − final)·(1 + cos(π·progress))/2: slow at both ends. Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, for
// sparsity in the place of a learning rate.
func Cosine(from, to int, initial, final float64) Schedule {
	return func(step int) float64 {
		return final + (initial-final)*(1+math.Cos(math.Pi*progress(step, from, to)))/2
	}
}

// Exponential lets the share that is left fall geometrically: 1 − s(t) = (1 − initial)·((1 − final)/(1 − initial))^progress. Tanaka et al. 2020,
// arXiv:2006.05467, algorithm 1, line 3.
func Exponential(from, to int, initial, final float64) Schedule {
	return func(step int) float64 {
		p := progress(step, from, to)
		if p == 1 {
			return final // without rounding, and for a final of 1
		}
		return 1 - (1-initial)*math.Pow((1-final)/(1-initial), p)
	}
}

// OneCycle is s(t) = initial + (final − initial)·(1 + e^(−α+β)) / (1 + e^(−α·progress+β)) with α = 14 and β = 5: slow, then fast in the middle of the first
// half, then slow. Hubens et al. 2021, arXiv:2107.02086, equation 3. The paper's function starts e⁻⁵ above initial, and so does this one.
func OneCycle(from, to int, initial, final float64) Schedule {
	const alpha, beta = 14, 5
	return func(step int) float64 {
		if step <= from && step < to {
			return initial
		}
		return initial + (final-initial)*(1+math.Exp(-alpha+beta))/(1+math.Exp(-alpha*progress(step, from, to)+beta))
	}
}

// ACDC alternates between a sparse and a dense network: after the warm-up that ends at step from it is sparse for phase steps, then dense for as long, and so on, and
// sparse from step to on. Act on it with the When that comes with it, which is true at the beginning of each phase; the recipe has to allow
// weights to come back (Recipe.Revive). Peste et al. 2021, arXiv:2106.12379, algorithm 1. A phase < 1 gives NaN, which pruning refuses.
func ACDC(from, to, phase int, final float64) (Schedule, When) {
	if phase < 1 {
		return Constant(math.NaN()), Once(from)
	}
	sparse := func(step int) bool { return step >= to || step >= from && (step-from)/phase%2 == 0 }
	sch := func(step int) float64 {
		if sparse(step) {
			return final
		}
		return 0
	}
	return sch, func(step int) bool {
		return step >= from && step <= to && (step == from || sparse(step) != sparse(step-1))
	}
}

// progress is 0 up to from and 1 from to on. A schedule that ends before it begins has none, and neither has one between numbers that are none: they give NaN,
// which pruning refuses.
func progress(step, from, to int) float64 {
	switch {
	case to < from:
		return math.NaN()
	case step >= to:
		return 1
	case step <= from:
		return 0
	}
	return float64(step-from) / float64(to-from)
}

// Every is true at from, from+n, from+2n, … up to and including to; never for n < 1.
func Every(n, from, to int) When {
	return func(step int) bool { return n > 0 && step >= from && step <= to && (step-from)%n == 0 }
}

// Once is true at one step.
func Once(at int) When { return func(step int) bool { return step == at } }

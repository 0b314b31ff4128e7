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

func progress(step, from, to int) float64 {
	switch {
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

package schedule

import "math"

// Named is a schedule by its name.
type Named struct {
	Name string
	// Make returns the schedule from one sparsity to another between two steps: final from step to on, and, unless the schedule has no use for it,
	// initial up to step from.
	Make func(from, to int, initial, final float64) Schedule
	// Monotone says that the sparsity never falls where final is not below initial.
	Monotone bool
}

// All lists the schedules; the conformance suite runs over it. A new one is one line.
func All() []Named {
	return []Named{
		{"one-shot", func(_, _ int, _, final float64) Schedule { return Constant(final) }, true},
		{"linear", Linear, true},
		{"cubic", Cubic, true},
		{"cosine", Cosine, true},
		{"exponential", Exponential, true},
		{"one-cycle", OneCycle, true},
		{"geometric", func(from, to int, initial, final float64) Schedule {
			// A fifth in each step, and what is missing then in the last.
			ladder := Geometric(1, 0.2, final)
			return between(from, to, initial, final, func(p float64) float64 {
				return max(initial, ladder(int(math.Round(p*float64(to-from)))))
			})
		}, true},
		{"AC/DC", func(from, to int, _, final float64) Schedule {
			sch, _ := ACDC(from, to, max(1, (to-from)/4), final)
			return sch
		}, false},
	}
}

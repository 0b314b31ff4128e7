package schedule

// Named is a schedule by its name.
type Named struct {
	Name string
	// Make returns the schedule from one sparsity to another between two steps.
	Make func(from, to int, initial, final float64) Schedule
	// Monotone says that the sparsity never falls where final is not below initial.
	Monotone bool
}

// All lists the schedules; the conformance suite runs over it.
func All() []Named {
	return []Named{
		{"one-shot", func(_, _ int, _, final float64) Schedule { return Constant(final) }, true},
		{"linear", Linear, true},
		{"cubic", Cubic, true},
	}
}

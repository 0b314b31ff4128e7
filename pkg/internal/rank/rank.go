// Package rank selects the best of many scores, exactly as many as are wanted, ties broken by index.
package rank

import (
	"cmp"
	"math"
	"slices"
)

// Candidate lists the scores of one parameter's units and which of them may be kept.
type Candidate struct {
	Scores   []float32
	Eligible []bool // nil: all
	Keep     []bool // the result
	Cost     int    // of each unit; 0: 1
}

// Open tells whether a unit can still be marked.
func (c Candidate) Open(i int) bool { return !c.Keep[i] && (c.Eligible == nil || c.Eligible[i]) }

// Top marks the k eligible units of highest score that are not marked yet, over all candidates; of equal scores the earlier is kept. There must be
// k such units. The scores must be no NaN. Where units have a cost, it marks the best as long as they cost no more than k in all: it stops at the first that
// would.
//
// It is a radix selection on the bits of the scores in three passes over them, with a histogram and no copy: 10⁷ scores take a fraction
// of a second, where sorting takes seconds.
func Top(k int, candidates []Candidate) {
	if k <= 0 {
		return
	}
	// Find the k-th largest key: its leading 11 bits, then the next 11, then the last 10.
	var prefix, known uint32 // the bits of the key found so far, and which those are
	need := k                // how many are wanted among the keys that start with prefix
	for _, digit := range []struct {
		shift uint
		bits  uint
	}{{21, 11}, {10, 11}, {0, 10}} {
		var histogram [1 << 11]int
		for _, c := range candidates {
			cost, keep, eligible := max(1, c.Cost), c.Keep[:len(c.Scores)], c.Eligible
			for i, s := range c.Scores {
				// Few keys start with the prefix, so that the others are told at once.
				if key := sortable(s); key&known == prefix && !keep[i] && (eligible == nil || eligible[i]) {
					histogram[key>>digit.shift&(1<<digit.bits-1)] += cost
				}
			}
		}
		d := 1<<digit.bits - 1
		for ; d > 0 && histogram[d] < need; d-- {
			need -= histogram[d]
		}
		prefix |= uint32(d) << digit.shift
		known |= (1<<digit.bits - 1) << digit.shift
	}
	// Keep what is above it, and the first need of those that equal it.
	for _, c := range candidates {
		cost, keep, eligible := max(1, c.Cost), c.Keep[:len(c.Scores)], c.Eligible
		for i, s := range c.Scores {
			key := sortable(s)
			if key < prefix || keep[i] || eligible != nil && !eligible[i] {
				continue
			}
			if key > prefix {
				keep[i] = true
			} else if need > 0 {
				if need -= cost; need >= 0 {
					keep[i] = true
				}
			}
		}
	}
}

// Best marks the n best of a few units; of equal scores the earlier.
func Best(n int, c Candidate, units []int) {
	order := make([]int, 0, len(units))
	for _, u := range units {
		if c.Open(u) {
			order = append(order, u)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(sortable(c.Scores[b]), sortable(c.Scores[a])) })
	for _, u := range order[:min(n, len(order))] {
		c.Keep[u] = true
	}
}

// sortable maps floats to integers of the same order; −0 and 0 are equal.
func sortable(f float32) uint32 {
	bits := math.Float32bits(f + 0) // −0 + 0 is 0
	// All bits of negative numbers turn, and the sign of the others; without a branch, as scores of both signs come in no order.
	return bits ^ (uint32(int32(bits)>>31) | 1<<31)
}

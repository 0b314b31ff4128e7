// Package rank selects the best of many scores, exactly as many as are wanted, ties broken by index.
package rank

import (
	"cmp"
	"math"
	"math/bits"
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
// It is a radix selection on the bits of the scores, with a histogram and no copy: 10⁷ scores take a fraction of a second, where sorting takes seconds. The bits are those of
// the distance from the least score. Scores of like magnitude have their leading bits in common, which would make a first histogram of a few bars: that tells little, and
// a processor waits each time that it adds to the bar to which it has just added.
func Top(k int, candidates []Candidate) {
	if k <= 0 {
		return
	}
	least, most := uint32(math.MaxUint32), uint32(0) // keys that can be marked
	for _, c := range candidates {
		keep, eligible := c.Keep[:len(c.Scores)], c.Eligible
		for i, s := range c.Scores {
			if key := sortable(s); !keep[i] && (eligible == nil || eligible[i]) {
				least, most = min(least, key), max(most, key)
			}
		}
	}
	if least > most {
		return
	}
	// Find the k-th largest key, 12 bits at a time: it is at least edge and has a distance of a number of bits from it.
	edge, unknown := least, bits.Len32(most-least)
	need := k // how many are wanted of those keys
	for unknown > 0 {
		shift := max(0, unknown-12)
		span := uint32(1<<unknown - 1)
		var histogram [1 << 12]int
		for _, c := range candidates {
			cost, keep, eligible := max(1, c.Cost), c.Keep[:len(c.Scores)], c.Eligible
			for i, s := range c.Scores {
				// Few keys are there after the first time, so that the others are told at once; what is below edge is, in this arithmetic, further above it than numbers are.
				if distance := sortable(s) - edge; distance <= span && !keep[i] && (eligible == nil || eligible[i]) {
					histogram[distance>>shift] += cost
				}
			}
		}
		bar := span >> shift
		for ; bar > 0 && histogram[bar] < need; bar-- {
			need -= histogram[bar]
		}
		edge += bar << shift
		unknown = shift
	}
	// Keep what is above it, and the first need of those that equal it.
	for _, c := range candidates {
		cost, keep, eligible := max(1, c.Cost), c.Keep[:len(c.Scores)], c.Eligible
		for i, s := range c.Scores {
			switch key := sortable(s); {
			case key != edge && eligible == nil: // without a branch on what is as good as random
				keep[i] = keep[i] || key > edge
			case key < edge || keep[i] || eligible != nil && !eligible[i]:
			case key > edge:
				keep[i] = true
			case need > 0:
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

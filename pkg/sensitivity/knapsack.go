package sensitivity

import "math"

// choice is one way to treat a group: what it spares of the cost, and the loss that it is expected to add.
type choice struct {
	saving int64
	loss   float64
}

// knapsack picks one choice of each group so that the savings are at least need and the losses add up to the least: the multiple-choice knapsack problem, by dynamic
// programming over what has been spared so far. Of equal sums it takes the one that spares the least,
// and then the earlier choices. It returns nil if need can't be reached.
//
// What has been spared is told apart in buckets, of need/buckets each. Within a bucket only the least loss survives, but with its exact saving, so that need is
// never missed. With need ≤ buckets the result is optimal; otherwise it is no worse than the optimum for need·(1 + n/buckets), for n groups, as far as
// that can be reached. The largest saving of all is found in any case.
func knapsack(groups [][]choice, need int64, buckets int) []int {
	scale := int64(0) // savings are multiples of it
	for _, choices := range groups {
		for _, c := range choices {
			scale = gcd(scale, c.saving)
		}
	}
	if scale > 1 {
		need = (need + scale - 1) / scale
	}
	scale = max(1, scale)
	need = max(0, need)
	n := int(min(int64(buckets), need))
	bucket := func(saving int64) int {
		switch {
		case saving >= need:
			return n
		case int64(n) == need:
			return int(saving)
		}
		return min(n-1, int(float64(saving)/float64(need)*float64(n)))
	}
	type state struct {
		saving       int64
		loss         float64
		from, choice int32
	}
	empty := state{loss: math.Inf(1), from: -1}
	states := make([][]state, len(groups)+1) // states[g][bucket]: the best of the first g groups
	for g := range states {
		states[g] = make([]state, n+1)
		for b := range states[g] {
			states[g][b] = empty
		}
	}
	states[0][bucket(0)] = state{from: 0}
	for g, choices := range groups {
		for b, s := range states[g] {
			if s.from < 0 {
				continue
			}
			for i, c := range choices {
				next := state{s.saving + c.saving/scale, s.loss + c.loss, int32(b), int32(i)}
				to := &states[g+1][bucket(next.saving)]
				closer := next.saving > to.saving // to need
				if to.saving >= need {
					closer = next.saving < to.saving
				}
				if to.from < 0 || next.loss < to.loss || next.loss == to.loss && closer {
					*to = next
				}
			}
		}
	}
	picked := make([]int, len(groups))
	if states[len(groups)][n].from >= 0 {
		at := n
		for g := len(groups); g > 0; g-- {
			s := states[g][at]
			picked[g-1], at = int(s.choice), int(s.from)
		}
		return picked
	}
	// The buckets may have lost the few ways that reach a need close to the most.
	most := int64(0)
	for g, choices := range groups {
		if len(choices) == 0 {
			return nil
		}
		for i, c := range choices {
			if c.saving > choices[picked[g]].saving {
				picked[g] = i
			}
		}
		most += choices[picked[g]].saving / scale
	}
	if most < need {
		return nil
	}
	return picked
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

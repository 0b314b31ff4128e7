package budget

import "sort"

// capped scales raw densities so that Σ density·units is density·Σ units; those that would exceed 1 are 1, and the factor is found anew for the others.
func capped(raw []float64, units []int, density float64) []float64 {
	densities := make([]float64, len(raw))
	dense := make([]bool, len(raw))
	for {
		want, weight := density*float64(total(units)), 0.0
		for i, u := range units {
			if dense[i] {
				want -= float64(u)
			} else {
				weight += raw[i] * float64(u)
			}
		}
		again := false
		for i := range raw {
			switch {
			case dense[i]:
				densities[i] = 1
			case weight > 0:
				densities[i] = max(0, raw[i]*want/weight)
			}
			if !dense[i] && densities[i] > 1 {
				dense[i], again = true, true
			}
		}
		if !again {
			return densities
		}
	}
}

// allocate rounds the densities of capped to units so that exactly keep of all are kept: the method of Webster and Sainte-Laguë. All units stand in
// one line, the k-th of a layer at (k + ½)/(raw·units), of equal places the earlier layer first, and the first keep of them are kept.
//
// Largest remainders would be nearer to the densities by a fraction of a unit. But with them a layer may gain a unit while the whole loses
// one (the Alabama paradox), and masks that only shrink could not follow.
func allocate(units []int, raw []float64, keep int) []int {
	place := func(i, k int) float64 { return (float64(k) + 0.5) / (raw[i] * float64(units[i])) }
	// upTo returns how many units of each layer stand at a place or before it.
	upTo := func(line float64) (kept []int, n int) {
		kept = make([]int, len(units))
		for i, u := range units {
			kept[i] = sort.Search(u, func(k int) bool { return place(i, k) > line })
			n += kept[i]
		}
		return kept, n
	}
	low, high := 0.0, 0.0 // at most keep units up to low, more than keep up to high
	for i, u := range units {
		high = max(high, place(i, u-1))
	}
	kept, n := upTo(high)
	if n <= keep {
		return kept
	}
	kept, n = upTo(low)
	for n < keep {
		middle := low + (high-low)/2
		if middle <= low || middle >= high {
			break // only units at equal places are between them
		}
		if k, m := upTo(middle); m <= keep {
			low, kept, n = middle, k, m
		} else {
			high = middle
		}
	}
	for i := range units {
		if n < keep && kept[i] < units[i] && place(i, kept[i]) <= high {
			kept[i], n = kept[i]+1, n+1
		}
	}
	return kept
}

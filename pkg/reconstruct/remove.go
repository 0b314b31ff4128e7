package reconstruct

import (
	"cmp"
	"math"
	"slices"
)

// removeLeast makes the k of least score among some weights dead: those first that are dead already, and of equal scores the later, so that the earlier is
// kept as everywhere. Dead weights stay dead, also if they are more than k. It reorders among.
func removeLeast(alive []bool, among []int, score func(i int) float64, k int) {
	slices.SortFunc(among, func(a, b int) int {
		switch {
		case alive[a] != alive[b] && alive[b]:
			return -1
		case alive[a] != alive[b]:
			return 1
		}
		if c := cmp.Compare(score(a), score(b)); c != 0 {
			return c
		}
		return cmp.Compare(b, a)
	})
	for _, i := range among[:k] {
		alive[i] = false
	}
}

// indices returns start, start+step, …, n of them.
func indices(start, step, n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = start + i*step
	}
	return list
}

func countDead(alive []bool) int {
	n := 0
	for _, a := range alive {
		if !a {
			n++
		}
	}
	return n
}

// magnitude scores |w|.
func (l *layer) magnitude(i int) float64 { return math.Abs(float64(l.before[i])) }

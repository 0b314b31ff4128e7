package rank

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTopByHand(t *testing.T) {
	for _, test := range []struct {
		reason   string
		scores   []float32
		eligible []bool
		k        int
		want     []bool
	}{
		{"the two largest", []float32{0.3, 0.9, 0.05, 0.4}, nil, 2, []bool{false, true, false, true}},
		{"of equal ones the earlier", []float32{1, 1, 1, 1}, nil, 2, []bool{true, true, false, false}},
		{"negative scores are below positive ones", []float32{-1, -3, 2, -2}, nil, 2, []bool{true, false, true, false}},
		{"−0 equals 0", []float32{float32(math.Copysign(0, -1)), 0, 0, -1}, nil, 2, []bool{true, true, false, false}},
		{"only what is eligible", []float32{9, 8, 7, 6}, []bool{false, true, false, true}, 1, []bool{false, true, false, false}},
		{"none", []float32{1, 2, 3, 4}, nil, 0, []bool{false, false, false, false}},
		{"all", []float32{1, 2, 3, 4}, nil, 4, []bool{true, true, true, true}},
		{"extremes", []float32{math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, 0}, nil, 2, []bool{true, false, true, false}},
	} {
		keep := make([]bool, len(test.scores))
		Top(test.k, []Candidate{{Scores: test.scores, Eligible: test.eligible, Keep: keep}})
		if diff := cmp.Diff(test.want, keep); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
	}
}

// The reference sorts.
func TestTopAgainstSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	type unit struct {
		score     float32
		candidate int
		index     int
	}
	for trial := range 300 {
		var candidates []Candidate
		var open []unit
		for c := range 1 + rng.IntN(4) {
			n := 1 + rng.IntN(40)
			one := Candidate{Scores: make([]float32, n), Keep: make([]bool, n)}
			if trial%2 == 0 {
				one.Eligible = make([]bool, n)
			}
			for i := range n {
				one.Scores[i] = float32(rng.IntN(9)-4) / 4 // many ties
				switch trial % 5 {
				case 0, 3:
					one.Scores[i] = float32(rng.NormFloat64())
				case 1: // of all magnitudes, infinite ones among them
					one.Scores[i] = float32(math.Ldexp(rng.NormFloat64(), rng.IntN(300)-150))
				case 2: // that differ in the last bits
					one.Scores[i] = 1 + float32(rng.IntN(50))/(1<<23)
				}
				if one.Eligible != nil {
					one.Eligible[i] = rng.IntN(3) > 0
				}
				if one.Open(i) {
					open = append(open, unit{one.Scores[i], c, i})
				}
			}
			candidates = append(candidates, one)
		}
		k := rng.IntN(len(open) + 1)
		slices.SortStableFunc(open, func(a, b unit) int {
			switch {
			case a.score > b.score:
				return -1
			case a.score < b.score:
				return 1
			}
			return 0
		})
		want := make([][]bool, len(candidates))
		for c := range candidates {
			want[c] = make([]bool, len(candidates[c].Scores))
		}
		for _, u := range open[:k] {
			want[u.candidate][u.index] = true
		}
		Top(k, candidates)
		for c := range candidates {
			if diff := cmp.Diff(want[c], candidates[c].Keep); diff != "" {
				t.Fatalf("trial %d, k = %d, candidate %d (-want +got):\n%s", trial, k, c, diff)
			}
		}
	}
}

func BenchmarkTop(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	scores := make([]float32, 10_000_000)
	for i := range scores {
		scores[i] = float32(rng.NormFloat64())
	}
	keep := make([]bool, len(scores))
	b.ReportAllocs()
	for b.Loop() {
		clear(keep)
		Top(len(scores)/10, []Candidate{{Scores: scores, Keep: keep}})
	}
}

// Units of different cost: the best as long as they fit, and none after the first that does not.
func TestTopByCost(t *testing.T) {
	for _, test := range []struct {
		reason string
		k      int
		want   [2][]bool
	}{
		{"all", 100, [2][]bool{{true, true}, {true, true}}},
		{"the best two cost 3 + 1", 4, [2][]bool{{true, false}, {true, false}}},
		{"the third would cost 3", 6, [2][]bool{{true, false}, {true, false}}},
		{"the third just fits", 7, [2][]bool{{true, true}, {true, false}}},
		{"nothing fits", 0, [2][]bool{{false, false}, {false, false}}},
	} {
		a, b := make([]bool, 2), make([]bool, 2)
		Top(test.k, []Candidate{{Scores: []float32{9, 5}, Keep: a, Cost: 3}, {Scores: []float32{7, 1}, Keep: b, Cost: 1}})
		if diff := cmp.Diff(test.want, [2][]bool{a, b}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
	}
}

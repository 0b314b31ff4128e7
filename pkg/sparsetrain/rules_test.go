package sparsetrain

import (
	compare "cmp"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/params"
)

// layer is one by hand: weights that are zero are dead.
func layer(path string, weight, momentum []float32) *Layer {
	l := &Layer{Param: params.Param{Path: path, Shape: shapes.Make(dtypes.Float32, 1, len(weight)), Out: 1}, Weight: weight, Momentum: momentum, Drop: make([]bool, len(weight)), Random: random(1, 1, path)}
	for _, w := range weight {
		l.Alive = append(l.Alive, w != 0)
		if w != 0 {
			l.Living++
		}
	}
	return l
}

func dropped(t *testing.T, d Drop, r *Round) (all [][]bool) {
	t.Helper()
	if err := d.Mark(r); err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Layers {
		for i, drop := range l.Drop {
			if drop && l.Alive[i] {
				l.Dropped++
			}
		}
		all = append(all, l.Drop)
	}
	return all
}

func TestDropByHand(t *testing.T) {
	for name, c := range map[string]struct {
		drop   Drop
		layers []*Layer
		f      float64
		want   [][]bool
	}{
		"the smallest half, of equal ones the later": {Smallest, []*Layer{layer("a", []float32{3, -1, 0, 1}, nil)}, 0.5, [][]bool{{false, false, false, true}}},
		"rounded down":                           {Smallest, []*Layer{layer("a", []float32{3, -1, 2, 1}, nil)}, 0.49, [][]bool{{false, false, false, true}}},
		"of each sign the part nearest to zero":  {SmallestOfEachSign, []*Layer{layer("a", []float32{4, 1, -3, -2}, nil)}, 0.5, [][]bool{{false, true, false, true}}},
		"none of a side too small to be divided": {SmallestOfEachSign, []*Layer{layer("a", []float32{4, 1, 0, -2}, nil)}, 0.5, [][]bool{{false, true, false, false}}},
		// Layer a is full and has 0.9 of the momentum: it loses no more than its dead share, which is 0. Layer b loses ⌈0.5 · 3⌉.
		"a full layer that grows keeps what it has": {SmallestUnlessGrowing,
			[]*Layer{layer("a", []float32{1, 2, 3, 4}, []float32{9, 9, 9, 9}), layer("b", []float32{1, 2, 3, 0}, []float32{1, 1, 1, 0})}, 0.5,
			[][]bool{{false, false, false, false}, {true, true, false, false}}},
		"below 0.001 at first": {BelowThreshold, []*Layer{layer("a", []float32{0.0009, -0.0011, 0, 5}, nil)}, 0.25, [][]bool{{true, false, false, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Round{Fraction: c.f, Layers: c.layers, Memory: make([]float64, memorySize)}
			if diff := cmp.Diff(c.want, dropped(t, c.drop, r)); diff != "" {
				t.Errorf("dropped (-want +got)\n%s", diff)
			}
		})
	}
}

func TestThresholdFindsItsWay(t *testing.T) {
	r := &Round{Fraction: 0.5, Layers: []*Layer{layer("a", []float32{1, 2, 3, 4}, nil)}, Memory: make([]float64, memorySize)}
	dropped(t, BelowThreshold, r)
	if got := r.Memory[dsrThreshold]; got != 0.002 {
		t.Errorf("nothing dropped, 2 wanted: the threshold is %v, want 0.002", got)
	}
	r = &Round{Fraction: 0.25, Layers: []*Layer{layer("a", []float32{1e-4, 2e-4, 3e-4, 4}, nil)}, Memory: make([]float64, memorySize)}
	dropped(t, BelowThreshold, r)
	if got := r.Memory[dsrThreshold]; got != 0.0005 {
		t.Errorf("3 dropped, 1 wanted: the threshold is %v, want 0.0005", got)
	}
}

func TestSignFlipped(t *testing.T) {
	l := layer("a", []float32{1, -1, 1, -1}, nil)
	l.Positive = []bool{true, true, false, false}
	if diff := cmp.Diff([][]bool{{false, true, true, false}}, dropped(t, SignFlipped, &Round{Layers: []*Layer{l}})); diff != "" {
		t.Errorf("dropped (-want +got)\n%s", diff)
	}
}

func TestSpread(t *testing.T) {
	for name, c := range map[string]struct {
		total  int
		claims []float64
		rooms  []int
		least  []int
		want   []int
	}{
		"in proportion":                         {10, []float64{1, 4}, []int{99, 99}, []int{0, 0}, []int{2, 8}},
		"rest to the largest remainder":         {10, []float64{1, 1, 1}, []int{99, 99, 99}, []int{0, 0, 0}, []int{4, 3, 3}},
		"what overflows goes on in proportion":  {10, []float64{8, 1, 1}, []int{2, 99, 99}, []int{0, 0, 0}, []int{2, 4, 4}},
		"again and again":                       {12, []float64{8, 2, 1}, []int{2, 5, 99}, []int{0, 0, 0}, []int{2, 5, 5}},
		"claims that are full leave it by room": {6, []float64{1, 0, 0}, []int{2, 1, 3}, []int{0, 0, 0}, []int{2, 1, 3}},
		"nobody claims":                         {4, []float64{0, 0}, []int{6, 2}, []int{0, 0}, []int{3, 1}},
		"one at least":                          {4, []float64{1, 0}, []int{9, 9}, []int{0, 1}, []int{3, 1}},
		"nothing":                               {0, []float64{1, 1}, []int{9, 9}, []int{0, 0}, []int{0, 0}},
		"claims whose sum is infinite":          {10, []float64{1.5e308, 1.5e308}, []int{99, 99}, []int{0, 0}, []int{5, 5}},
		"a claim without bounds":                {10, []float64{1.5e308, 1}, []int{6, 99}, []int{0, 0}, []int{6, 4}},
		"all there is room for":                 {7, []float64{1, 1}, []int{3, 4}, []int{0, 0}, []int{3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, spread(c.total, c.claims, c.rooms, c.least)); diff != "" {
				t.Errorf("counts (-want +got)\n%s", diff)
			}
		})
	}
}

// Whatever the claims, the counts are exact and within bounds.
func TestSpreadIsExact(t *testing.T) {
	rng := random(3, 0, "spread")
	for range 5000 {
		n := 1 + rng.IntN(6)
		claims, rooms, least := make([]float64, n), make([]int, n), make([]int, n)
		all, atLeast := 0, 0
		for i := range n {
			claims[i] = math.Pow(10, 6*rng.Float64()-6)
			if rng.IntN(4) == 0 {
				claims[i] = 0
			}
			rooms[i] = rng.IntN(50)
			least[i] = min(rooms[i], rng.IntN(2))
			all, atLeast = all+rooms[i], atLeast+least[i]
		}
		total := atLeast + rng.IntN(all-atLeast+1)
		counts, sum := spread(total, claims, rooms, least), 0
		for i, c := range counts {
			sum += c
			if c < least[i] || c > rooms[i] {
				t.Fatalf("spread(%d, %v, %v, %v) = %v", total, claims, rooms, least, counts)
			}
		}
		if sum != total {
			t.Fatalf("spread(%d, %v, %v, %v) = %v, which is %d", total, claims, rooms, least, counts, sum)
		}
	}
}

// The dead weight of largest momentum comes to life, and the mean momentum of living weights decides where: shares 3/4 and 1/4 of two.
func TestMomentumByHand(t *testing.T) {
	a, b := layer("a", []float32{1, 2, 0, 0}, []float32{3, -3, 1, -2}), layer("b", []float32{1, 2, 0, 0}, []float32{1, -1, 9, 9})
	r := &Round{Layers: []*Layer{a, b}}
	if diff := cmp.Diff([]float64{0.75, 0.25}, momentumShares(r)); diff != "" {
		t.Errorf("shares (-want +got)\n%s", diff)
	}
	grown, err := a.bestOpen("momentum", 1, scored(a, GrowByMomentum.Score))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int32{3}, grown); diff != "" {
		t.Errorf("grown (-want +got)\n%s", diff)
	}
}

// Where a layer is large, most of its weights are told to be too low by a look at some: what is grown is what a sort of all would say, whether the sample is like the rest or not, and a
// score that is no number is found wherever it is.
func TestBestOpen(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const size, n = 20_000, 700
	sampled := make([]bool, size)
	for i := range 1024 {
		sampled[i*size/1024] = true
	}
	for name, draw := range map[string]func(i int) float32{
		"normal": func(int) float32 { return float32(rng.NormFloat64()) },
		"equal":  func(int) float32 { return 1 },
		"few":    func(int) float32 { return float32(rng.IntN(5)) },
		"lower":  func(i int) float32 { return map[bool]float32{true: 2, false: rng.Float32()}[sampled[i]] },
	} {
		l := layer("a", make([]float32, size), nil)
		scores := make([]float32, size)
		var open []int32
		for i := range scores {
			scores[i], l.Alive[i] = draw(i), i%10 == 3 || name == "lower" && sampled[i]
			l.Drop[i] = l.Alive[i] && i%20 == 3
			if l.Open(i) {
				open = append(open, int32(i))
			}
		}
		slices.SortStableFunc(open, func(a, b int32) int { return compare.Compare(scores[b], scores[a]) })
		want := slices.Sorted(slices.Values(open[:n]))
		got, err := l.bestOpen("mine", n, scores)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: error %v (-want +got)\n%.300s", name, err, diff)
		}
		for _, n := range []int{0, n} {
			at := rng.IntN(size)
			was := scores[at]
			scores[at] = float32(math.NaN())
			var e *RuleError
			if _, err := l.bestOpen("mine", n, scores); !errors.As(err, &e) {
				t.Errorf("%s: weight %d has no number as its score, and growing %d gives the error %v", name, at, n, err)
			}
			scores[at] = was
		}
	}
}

func TestRulesAreChecked(t *testing.T) {
	l := layer("a", []float32{1, 2, 3, 0}, nil)
	nan := DropBy("mine", 0, func(_ *Layer, scores []float32) { scores[1] = float32(math.NaN()) })
	var e *RuleError
	if err := nan.Mark(&Round{Fraction: 0.5, Layers: []*Layer{l}}); !errors.As(err, &e) {
		t.Errorf("scores that are no numbers: %v", err)
	}
	for name, s := range map[string]Share{
		"too few":   {Name: "mine", Count: func(*Round) ([]int, error) { return nil, nil }},
		"no room":   {Name: "mine", Count: func(*Round) ([]int, error) { return []int{2}, nil }},
		"negative":  {Name: "mine", Claim: func(*Round) []float64 { return []float64{-1} }},
		"no number": {Name: "mine", Claim: func(*Round) []float64 { return []float64{math.NaN()} }},
	} {
		if _, err := s.counts(&Round{Layers: []*Layer{l}}); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

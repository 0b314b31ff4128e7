package sparsetrain

import (
	compare "cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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
		// Of six weights one is dead: ⌈1/6 · 5⌉. Of five one is, which is a fifth and not less: ⌈0.5 · 4⌉.
		"a layer that grows loses its dead share where that is less than a fifth": {SmallestUnlessGrowing,
			[]*Layer{layer("a", []float32{1, 2, 3, 4, 5, 0}, []float32{9, 9, 9, 9, 9, 0}), layer("b", []float32{1, 2, 0, 0}, []float32{1, 1, 0, 0})}, 0.5,
			[][]bool{{true, false, false, false, false, false}, {true, false, false, false}}},
		"a layer that grows, and of which a fifth is dead, loses what others do": {SmallestUnlessGrowing,
			[]*Layer{layer("a", []float32{1, 2, 3, 4, 0}, []float32{9, 9, 9, 9, 0}), layer("b", []float32{1, 2, 0, 0}, []float32{1, 1, 0, 0})}, 0.5,
			[][]bool{{true, true, false, false, false}, {true, false, false, false}}},
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

// The threshold is doubled or halved where what was dropped is more than a tenth off what was wanted.
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
	for n, want := range map[int]float64{8: 0.002, 9: 0.001, 11: 0.001, 12: 0.0005} {
		w := slices.Repeat([]float32{1}, 40)
		copy(w, slices.Repeat([]float32{1e-4}, n))
		r = &Round{Fraction: 0.25, Layers: []*Layer{layer("a", w, nil)}, Memory: make([]float64, memorySize)}
		dropped(t, BelowThreshold, r)
		if got := r.Memory[dsrThreshold]; got != want {
			t.Errorf("%d dropped, 10 wanted: the threshold is %v, want %v", n, got, want)
		}
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

// The dead weight of largest momentum comes to life, or that of largest gradient, whatever its sign, and the mean momentum of living weights decides where: shares 3/4 and 1/4 of two.
func TestMomentumByHand(t *testing.T) {
	a, b := layer("a", []float32{1, 2, 0, 0}, []float32{3, -3, 1, -2}), layer("b", []float32{1, 2, 0, 0}, []float32{1, -1, 9, 9})
	r := &Round{Layers: []*Layer{a, b}}
	if diff := cmp.Diff([]float64{0.75, 0.25}, momentumShares(r)); diff != "" {
		t.Errorf("shares (-want +got)\n%s", diff)
	}
	a.Gradient = []float32{5, -5, -2, 1}
	for i, rule := range []Grow{GrowByGradient, GrowByMomentum} {
		grown, err := a.bestOpen(rule.Name, 1, scored(a, rule.Score))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int32{int32(2 + i)}, grown); diff != "" {
			t.Errorf("grown by %s (-want +got)\n%s", rule.Name, diff)
		}
	}
}

// Of eight weights of each layer four live, and one is dropped of the first, three of the second: so many are left, or have room, or were lost.
func TestSharesByHand(t *testing.T) {
	r := &Round{}
	for _, dropped := range []int{1, 3} {
		l := layer("a", []float32{1, 2, 3, 4, 0, 0, 0, 0}, nil)
		l.Dropped = dropped
		r.Layers = append(r.Layers, l)
	}
	lost, err := Keep.Count(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		share     Share
		want, got any
	}{{BySurvivors, []float64{3, 1}, BySurvivors.Claim(r)}, {ByRoom, []float64{5, 7}, ByRoom.Claim(r)}, {Keep, []int{1, 3}, lost}} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.share.Name, diff)
		}
	}
}

// Layers of which four weights live and two are dropped, with 3/4 and 1/4 of the momentum, grow as in the authors' code. It remembers what is missing of the budget, and grows in addition, the next
// time, a quarter of what it did, three quarters of what is missing now, and the mean of all that was.
func TestCompatibleShareByHand(t *testing.T) {
	for name, c := range map[string]struct {
		size, number, budget int
		memory               []float64 // what is grown in addition, and the sum
		counts               []int
		after                []float64
	}{
		"at first":                             {8, 0, 9, []float64{0, 0}, []int{3, 1}, []float64{0.75 + 1, 1}},
		"rounded up, with what was missing":    {8, 1, 9, []float64{1.75, 1}, []int{5, 2}, []float64{0.25*1.75 - 0.75*2 - 1.0/2, -1}},
		"full at 99% of 11, 1.11 to the other": {13, 3, 19, []float64{12, 0}, []int{10, 5}, []float64{3, 0}}, // of 12 and 4
	} {
		t.Run(name, func(t *testing.T) {
			first := make([]float32, c.size)
			copy(first, []float32{1, 2, 3, 4})
			second := []float32{1, 2, 3, 4, 0, 0, 0, 0}
			r := &Round{Budget: c.budget, Number: c.number, Fraction: 0.5, Memory: append(c.memory, make([]float64, memorySize-2)...), Layers: []*Layer{
				layer("a", first, slices.Repeat([]float32{3}, c.size)), layer("b", second, slices.Repeat([]float32{-1}, 8))}}
			dropped(t, SmallestUnlessGrowing, r)
			counts, err := CompatibleShare.counts(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.counts, counts); diff != "" {
				t.Errorf("counts (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(c.after, r.Memory[:2]); diff != "" {
				t.Errorf("memory (-want +got)\n%s", diff)
			}
		})
	}
}

// Of Adam the momentum is the first moment over the root of the second, of SGD the velocity.
func TestMomentsByHand(t *testing.T) {
	p := layer("/a/weights", []float32{1, 2}, nil).Param
	for _, c := range []struct {
		moments map[string][]float32
		want    []float32
	}{
		{map[string][]float32{firstPath(p): {3, -8}, secondPath(p): {4, 16}}, []float32{1.5, -2}},
		{map[string][]float32{velocityPath(p): {3, -8}}, []float32{3, -8}},
	} {
		store := model.NewStore()
		for path, x := range c.moments {
			if _, err := store.CreateVariable(path, tensors.FromFlatDataAndDimensions(x, 1, 2)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := momentum(store, "", p, nil)
		if diff := cmp.Diff(c.want, got, cmpopts.EquateApprox(1e-6, 0)); diff != "" || err != nil {
			t.Errorf("momentum (-want +got)\n%s%v", diff, err)
		}
	}
}

// Weights that start by He's rule have the deviation √(2/fan-in), within four standard errors; signs that are drawn are of both kinds, as often.
func TestInitByHand(t *testing.T) {
	const n = 10_000
	for _, p := range []params.Param{{Shape: shapes.Make(dtypes.Float32, 8, 2), Out: 1}, {Shape: shapes.Make(dtypes.Float32, 2, 2, 2, 3), Out: 3}} { // fan-in 8 both
		l := &Layer{Param: p, Weight: make([]float32, p.Size()), Random: random(1, 1, "he")}
		squares := 0.0
		for range n {
			w := float64(HeNormal.Value(l, 0))
			squares += w * w
		}
		if got, want := squares/n, 2.0/8; math.Abs(got-want) > 4*want*math.Sqrt(2.0/n) {
			t.Errorf("%s: weights of mean square %v, want about %v", p.Shape, got, want)
		}
	}
	l := &Layer{Positive: make([]bool, n), Random: random(1, 1, "sign")}
	positive := 0
	for i := range n {
		if w := RandomSign.Value(l, i); w != 0 {
			t.Fatalf("a weight starts at %v, want 0", w)
		}
		if l.Positive[i] {
			positive++
		}
	}
	if math.Abs(float64(positive)-n/2) > 4*math.Sqrt(n)/2 {
		t.Errorf("%d of %d signs are positive, want about half", positive, n)
	}
}

// What is drawn is a function of seed, step and path, and another one of each.
func TestRandom(t *testing.T) {
	drawn := map[uint64]string{}
	for _, seed := range []int64{1, 2} {
		for _, step := range []int{100, 200} {
			for _, path := range []string{"/a", "/b"} {
				x, of := random(seed, step, path).Uint64(), fmt.Sprint(seed, step, path)
				if drawn[x] != "" || x != random(seed, step, path).Uint64() {
					t.Errorf("%s draws what %q draws, or another number the second time", of, drawn[x])
				}
				drawn[x] = of
			}
		}
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

package sensitivity

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/params"
)

var nan, inf = math.NaN(), math.Inf(1)

// least returns the least loss among all ways to reach need; infinite if there is none.
func least(groups [][]choice, need int64) float64 {
	if len(groups) == 0 {
		if need <= 0 {
			return 0
		}
		return inf
	}
	best := inf
	for _, c := range groups[0] {
		best = min(best, c.loss+least(groups[1:], need-c.saving))
	}
	return best
}

func add(groups [][]choice, picked []int) (saving int64, loss float64) {
	for g, i := range picked {
		saving, loss = saving+groups[g][i].saving, loss+groups[g][i].loss
	}
	return saving, loss
}

func TestKnapsackAgainstBruteForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	impossible := 0
	for range 3000 {
		groups := make([][]choice, 1+rng.IntN(4))
		scale, most := int64(1+rng.IntN(3)), int64(0)
		for g := range groups {
			top := int64(0)
			for range 1 + rng.IntN(6) {
				c := choice{scale * int64(rng.IntN(60)), math.Round(40*rng.Float64()) / 8} // ties, and sums without rounding
				groups[g], top = append(groups[g], c), max(top, c.saving)
			}
			most += top
		}
		need := int64(rng.IntN(int(most) + 3))
		for _, buckets := range []int{1000, 17} {
			want := least(groups, need)
			picked := knapsack(groups, need, buckets)
			if picked == nil {
				if finite(want) {
					t.Fatalf("%v, need %d, %d buckets: nothing found, want %v", groups, need, buckets, want)
				}
				impossible++
				continue
			}
			saving, loss := add(groups, picked)
			if saving < need {
				t.Fatalf("%v, need %d, %d buckets: %v spares %d", groups, need, buckets, picked, saving)
			}
			// What buckets promise: the optimum of a need that is higher by one bucket a group.
			if buckets < 1000 {
				want = least(groups, need+int64(math.Ceil(float64(len(groups))*float64(need)/float64(buckets)))+scale)
			}
			if loss > want || buckets == 1000 && loss != want {
				t.Fatalf("%v, need %d, %d buckets: %v loses %v, want %v", groups, need, buckets, picked, loss, want)
			}
		}
	}
	if impossible == 0 {
		t.Error("no instance was impossible: the test does not see those")
	}
}

func TestKnapsackFindsTheMostWithFewBuckets(t *testing.T) {
	var groups [][]choice
	for range 50 {
		groups = append(groups, []choice{{0, 0}, {99, 1}, {101, 2}})
	}
	picked := knapsack(groups, 50*101, 10)
	if picked == nil {
		t.Fatal("nothing found")
	}
	if saving, _ := add(groups, picked); saving != 50*101 {
		t.Errorf("got a saving of %d, want %d", saving, 50*101)
	}
}

func TestNondecreasing(t *testing.T) {
	for _, test := range []struct{ in, want []float64 }{
		{[]float64{0, 1, 2}, []float64{0, 1, 2}},
		{[]float64{0, 2, 1, 3}, []float64{0, 1.5, 1.5, 3}},
		{[]float64{0, 3, 2, 1}, []float64{0, 2, 2, 2}},
		{[]float64{0, -1, -2, 1}, []float64{0, 0, 0, 1}},
		{[]float64{0, -1, 0.5, 0.25}, []float64{0, 0, 0.375, 0.375}},
		{[]float64{0, 2, nan, 1, inf}, []float64{0, 1.5, nan, 1.5, inf}},
	} {
		if diff := cmp.Diff(test.want, nondecreasing(test.in), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.in, diff)
		}
	}
}

func TestInterpolate(t *testing.T) {
	xs, values := []float64{0, 0.25, 0.5, 0.75}, []float64{0, 1, nan, 3}
	for _, test := range []struct{ x, want float64 }{{0, 0}, {0.125, 0.5}, {0.25, 1}, {0.3, nan}, {0.5, nan}, {0.6, nan}, {0.75, 3}, {0.8, nan}, {-0.1, nan}} {
		if got := interpolate(xs, values, test.x); got != test.want && !(math.IsNaN(got) && math.IsNaN(test.want)) {
			t.Errorf("at %v: got %v, want %v", test.x, got, test.want)
		}
	}
}

// curvesOf makes curves with one layer each, of given units, from losses at sparsities, the first of which is 0, on one part of the data.
func curvesOf(units int, sparsities []float64, losses ...[]float64) *Curves {
	c := &Curves{Recipe: "magnitude", Sparsities: sparsities[1:], MinUnits: 1, RoundTo: 1, Dense: []float64{0}}
	for i, ls := range losses {
		path := "/" + string(rune('a'+i)) + "/weights"
		c.Layers = append(c.Layers, Layer{path, units, 1, 4, units})
		curve := Curve{Group: path, Paths: []string{path}}
		for j, loss := range ls {
			kept := c.kept(curve.Paths, sparsities[j])
			curve.Points = append(curve.Points, Point{Asked: sparsities[j], Sparsity: c.sparsity(curve.Paths, kept), Kept: kept, Losses: []float64{loss}})
		}
		c.Curves = append(c.Curves, curve)
	}
	c.summarize()
	return c
}

// By hand: of b, a unit costs 0.02 up to 5 and 0.1 up to 9; of a, it costs 0.2 up to 5 and 1 up to 9.
func twoLayers() *Curves {
	return curvesOf(10, []float64{0, 0.5, 0.9}, []float64{0, 1, 5}, []float64{0, 0.1, 0.5})
}

func TestSolveByHand(t *testing.T) {
	near := cmpopts.EquateApprox(0, 1e-12)
	for _, test := range []struct {
		reason    string
		target    Target
		sparsity  map[string]float64
		predicted float64
		left      int64
	}{
		{"nothing", Target{}, map[string]float64{"/a/weights": 0, "/b/weights": 0}, 0, 20},
		{"all nine of b, and one of a", Target{Sparsity: 0.5}, map[string]float64{"/a/weights": 0.1, "/b/weights": 0.9}, 0.7, 10},
		{"half of a unit is a whole one", Target{Sparsity: 0.475}, map[string]float64{"/a/weights": 0.1, "/b/weights": 0.9}, 0.7, 10},
		{"a weighs three times as much: the cheap five of both", Target{Sparsity: 0.5, Cost: MACs(map[string]int64{"/a/weights": 3, "/b/weights": 1})},
			map[string]float64{"/a/weights": 0.5, "/b/weights": 0.5}, 1.1, 20},
		{"bytes are four times the weights", Target{Sparsity: 0.5, Cost: Bytes}, map[string]float64{"/a/weights": 0.1, "/b/weights": 0.9}, 0.7, 40},
		{"b is bounded", Target{Sparsity: 0.5, Max: map[string]float64{"/b/weights": 0.6}}, map[string]float64{"/a/weights": 0.4, "/b/weights": 0.6}, 1, 10},
		{"a is bounded", Target{Sparsity: 0.5, Min: map[string]float64{"/a/weights": 0.3}}, map[string]float64{"/a/weights": 0.3, "/b/weights": 0.7}, 0.9, 10},
		{"all that was scanned", Target{Sparsity: 0.9}, map[string]float64{"/a/weights": 0.9, "/b/weights": 0.9}, 5.5, 2},
	} {
		a, err := twoLayers().Solve(test.target)
		if err != nil {
			t.Errorf("%s: %v", test.reason, err)
			continue
		}
		if diff := cmp.Diff(test.sparsity, a.Sparsity, near); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
		if diff := cmp.Diff([]any{test.predicted, test.left}, []any{a.Predicted, a.Left}, near); diff != "" {
			t.Errorf("%s: loss and cost (-want +got):\n%s", test.reason, diff)
		}
		if a.Reached < test.target.Sparsity {
			t.Errorf("%s: reached %v, missed %v", test.reason, a.Reached, test.target.Sparsity)
		}
	}
	a, err := twoLayers().Uniform(Target{Sparsity: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	want := &Allocation{Choices: []Choice{{"/a/weights", []string{"/a/weights"}, 0.5, []int{5}, 1}, {"/b/weights", []string{"/b/weights"}, 0.5, []int{5}, 0.1}},
		Sparsity: map[string]float64{"/a/weights": 0.5, "/b/weights": 0.5},
		Overall:  0.5, Predicted: 1.1, Low: nan, High: nan, Cost: "weights", Target: 0.5, Reached: 0.5, Total: 20, Left: 10}
	if diff := cmp.Diff(want, a, near, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("uniform (-want +got):\n%s", diff)
	}
}

// The solver is optimal over all integer numbers of units.
func TestSolveAgainstBruteForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		losses := make([][]float64, 3)
		for g := range losses {
			losses[g] = []float64{0, 4*rng.Float64() - 1, 8*rng.Float64() - 1, 16 * rng.Float64()}
		}
		c := curvesOf(12, []float64{0, 0.25, 0.5, 0.75}, losses...)
		macs := map[string]int64{"/a/weights": 1 + rng.Int64N(9), "/b/weights": 1 + rng.Int64N(9), "/c/weights": 1 + rng.Int64N(9)}
		total := 12 * (macs["/a/weights"] + macs["/b/weights"] + macs["/c/weights"])
		target := Target{Sparsity: 0.75 * rng.Float64(), Cost: MACs(macs)}
		var groups [][]choice
		for _, curve := range c.Curves {
			xs, fitted := curve.fit()
			var choices []choice
			for removed := range 10 { // 0.75 of 12 are 9
				choices = append(choices, choice{macs[curve.Group] * int64(removed), interpolate(xs, fitted, share(12, 12-removed))})
			}
			groups = append(groups, choices)
		}
		want := least(groups, int64(math.Ceil(target.Sparsity*float64(total))))
		a, err := c.Solve(target)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(a.Predicted-want) > 1e-9 {
			t.Errorf("%+v: predicted %v, want %v", target, a.Predicted, want)
		}
		u, err := c.Uniform(target)
		if err != nil {
			t.Fatal(err)
		}
		if u.Predicted < a.Predicted-1e-9 {
			t.Errorf("%+v: uniform loses %v, the solution %v", target, u.Predicted, a.Predicted)
		}
		if a.Reached < target.Sparsity || u.Reached < target.Sparsity {
			t.Errorf("%+v: missed, with %v and %v", target, a.Reached, u.Reached)
		}
	}
}

func TestPointsWithoutALossAreNotChosen(t *testing.T) {
	// Of b, what lies between 0.2 and 0.8 is unknown, and 0.8 is cheap.
	c := curvesOf(10, []float64{0, 0.2, 0.5, 0.8}, []float64{0, 1, 2, 3}, []float64{0, 0.1, nan, 0.2})
	a, err := c.Solve(Target{Sparsity: 0.25})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{8}, []int{int(10 * a.Sparsity["/b/weights"])}); diff != "" || math.IsNaN(a.Predicted) {
		t.Errorf("units of b (-want +got):\n%s, predicted %v", diff, a.Predicted)
	}
	c = curvesOf(10, []float64{0, 0.2, 0.5, 0.8}, []float64{0, 1, 2, 3}, []float64{0, 0.1, inf, inf})
	a, err = c.Solve(Target{Sparsity: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{"/a/weights": 0.8, "/b/weights": 0.2}, a.Sparsity); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var impossible *InfeasibleError
	if _, err = c.Solve(Target{Sparsity: 0.55}); !errors.As(err, &impossible) || impossible.Largest != 0.5 {
		t.Errorf("got %v, want an *InfeasibleError with 0.5 as the largest", err)
	}
	u, err := c.Uniform(Target{Sparsity: 0.5})
	if err != nil || !math.IsNaN(u.Predicted) {
		t.Errorf("uniform, where the loss is infinite: got %+v, %v; want NaN", u, err)
	}
}

func TestTheLargestReachableIsReached(t *testing.T) {
	c := curvesOf(1000, []float64{0, 0.333, 0.777}, []float64{0, 1, 2}, []float64{0, 2, 3}, []float64{0, 1, 3})
	var impossible *InfeasibleError
	if _, err := c.Solve(Target{Sparsity: 0.99, Buckets: 7}); !errors.As(err, &impossible) {
		t.Fatalf("got %v, want an *InfeasibleError", err)
	}
	a, err := c.Solve(Target{Sparsity: impossible.Largest, Buckets: 7})
	if err != nil {
		t.Fatal(err)
	}
	if a.Reached != impossible.Largest {
		t.Errorf("reached %v, want %v", a.Reached, impossible.Largest)
	}
	if _, err := c.Uniform(Target{Sparsity: 0.9995}); !errors.As(err, &impossible) || impossible.Largest != 0.999 {
		t.Errorf("uniform: got %v, want an *InfeasibleError with 0.999: a unit of each layer stays", err)
	}
}

func TestTargetsAreChecked(t *testing.T) {
	for _, test := range []struct {
		field  string
		target Target
	}{
		{"Sparsity", Target{Sparsity: 1}},
		{"Sparsity", Target{Sparsity: -0.1}},
		{"Sparsity", Target{Sparsity: nan}},
		{"Buckets", Target{Buckets: -1}},
		{"Cost", Target{Cost: MACs(map[string]int64{"/a/weights": 2})}},
		{"Cost", Target{Cost: Cost{Name: "latency"}}},
		{"Min", Target{Min: map[string]float64{"/c/weights": 0.1}}},
		{"Max", Target{Max: map[string]float64{"/a/weights": nan}}},
		{"Min and Max", Target{Min: map[string]float64{"/a/weights": 0.95}}},
		{"Min and Max", Target{Min: map[string]float64{"/a/weights": 0.5}, Max: map[string]float64{"/a/weights": 0.4}}},
	} {
		var bad *TargetError
		if _, err := twoLayers().Solve(test.target); !errors.As(err, &bad) || bad.Field != test.field {
			t.Errorf("%+v: got %v, want a *TargetError of %s", test.target, err, test.field)
		}
	}
	var bad *CurvesError
	if _, err := new(Curves).Solve(Target{Sparsity: 0.5}); !errors.As(err, &bad) {
		t.Errorf("no curves: got %v, want a *CurvesError", err)
	}
	if _, err := new(Curves).Uniform(Target{Sparsity: 0.5}); !errors.As(err, &bad) {
		t.Errorf("no curves: got %v, want a *CurvesError", err)
	}
}

// By hand: the increases are 1 and 3 on two parts of the data, so that a quarter of the resamples each has the mean 1 and 3.
func TestBands(t *testing.T) {
	c := curvesOf(10, []float64{0, 0.5}, []float64{0, 0}, []float64{0, 0})
	c.Dense = []float64{5, 7}
	for i := range c.Curves {
		c.Curves[i].Points[0].Losses = []float64{5, 7}
	}
	c.Curves[0].Points[1].Losses = []float64{6, 10}
	c.Curves[1].Points[1].Losses = []float64{9, 9} // +4 and +2: together +5 on both parts
	c.summarize()
	p := c.Curves[0].Points[1]
	if diff := cmp.Diff([]float64{8, 2, 1, 3}, []float64{p.Loss, p.Increase, p.Low, p.High}); diff != "" {
		t.Errorf("loss, increase, band (-want +got):\n%s", diff)
	}
	a, err := c.Solve(Target{Sparsity: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{5, 5, 5}, []float64{a.Predicted, a.Low, a.High}); diff != "" {
		t.Errorf("parts are resampled for each group apart (-want +got):\n%s", diff)
	}
}

// The budget of the curves solves for the sparsity that it is asked for.
func TestBudgetOfCurvesByHand(t *testing.T) {
	b := twoLayers().Budget()
	if again := twoLayers().Budget(); again.Name != b.Name || b.Name == curvesOf(10, []float64{0, 0.5, 0.9}, []float64{0, 1, 5}, []float64{0, 0.2, 0.5}).Budget().Name {
		t.Errorf("the name %q does not tell curves apart", b.Name)
	}
	ps := params.Set{{Path: "/a/weights"}, {Path: "/b/weights"}}
	for sparsity, want := range map[float64][]int{0: {10, 10}, 0.5: {9, 1}, 0.9: {1, 1}} {
		groups, err := b.Divide(ps, []int{10, 10}, sparsity)
		if err != nil {
			t.Fatal(err)
		}
		if len(groups) != 2 || groups[0].Keep != want[0] || groups[1].Keep != want[1] {
			t.Errorf("to %v: %+v, want %v kept", sparsity, groups, want)
		}
	}
	var infeasible *InfeasibleError
	if _, err := b.Divide(ps, []int{10, 10}, 0.95); !errors.As(err, &infeasible) {
		t.Errorf("more than was scanned: %v", err)
	}
}

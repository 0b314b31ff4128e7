package criteriontest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/criterion"
)

func open(t testing.TB) compute.Backend {
	t.Helper()
	b, err := gobackend.New("")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAllCriteriaKeepTheLaws(t *testing.T) {
	b := open(t)
	names := map[string]bool{}
	for _, c := range criterion.All() {
		if err := Check(b, c); err != nil {
			t.Error(err)
		}
		if names[c.Name] || c.Cite == "" {
			t.Errorf("criterion %q: its name is taken, or it cites nothing", c.Name)
		}
		names[c.Name] = true
	}
}

// Each broken criterion breaks the law that it is made to break.
func TestBrokenCriteriaAreFound(t *testing.T) {
	b := open(t)
	for law, c := range map[string]criterion.Criterion{
		"has a score":                  {Name: "x"},
		"has a name":                   {Score: func(in criterion.Inputs) *graph.Node { return in.Weight }},
		"needs only what it asks for":  {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return graph.Mul(in.Weight, in.Grad) }},
		"has the shape of the weights": {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return graph.ReduceAllSum(in.Weight) }},
		"is finite":                    {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return graph.Log(in.Weight) }},
		"tells weights apart":          {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return graph.OnesLike(in.Weight) }},
		"is the same within a channel": {Name: "x", Granularity: criterion.PerOut, Score: func(in criterion.Inputs) *graph.Node { return in.Weight }},
		"does not depend on the unit of the weights": {Name: "x", Score: func(in criterion.Inputs) *graph.Node {
			return graph.Sin(graph.MulScalar(in.Weight, 3))
		}},
		"is finite for dead weights": {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return graph.Div(in.Weight, graph.Abs(in.Weight)) }},
		"tracks what it needs":       {Name: "x", Needs: criterion.NeedTrack, Score: func(in criterion.Inputs) *graph.Node { return in.Track }},
		"tracks in the shape of the weights": {Name: "x", Needs: criterion.NeedTrack, Score: func(in criterion.Inputs) *graph.Node { return in.Track },
			Track: func(in criterion.Inputs) *graph.Node { return graph.ReduceAllSum(in.Grad) }},
		"returns scores in Float32": {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return nil }},
		"can be computed":           {Name: "x", Score: func(in criterion.Inputs) *graph.Node { panic("unfinished") }},
		"pools over the axes that it is given": {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return in.Weight },
			Pool: func(c *graph.Node, axes ...int) *graph.Node { return graph.ReduceMax(c, axes...) }}, // without axes GoMLX reduces all
		"is deterministic": {Name: "x", Score: func(in criterion.Inputs) *graph.Node {
			return graph.MulScalar(in.Weight, math.Exp(rand.NormFloat64()))
		}},
	} {
		err := Check(b, c)
		var broken *LawError
		if !errors.As(err, &broken) {
			t.Errorf("%s: got %v", law, err)
			continue
		}
		if !strings.Contains(err.Error(), fmt.Sprintf("%q", law)) {
			t.Errorf("%s: got %v", law, err)
		}
		if broken.Reason == "" || broken.Got == "" {
			t.Errorf("%s: no reason in %v", law, err)
		}
	}
}

// Functions that return nil, or another type, are named as such: nothing waits for ever, and no need is blamed.
func TestResultsThatAreNoScores(t *testing.T) {
	b := open(t)
	score := func(in criterion.Inputs) *graph.Node { return in.Weight }
	for want, c := range map[string]criterion.Criterion{
		"got nil":                      {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return nil }},
		"got Bool":                     {Name: "x", Score: func(in criterion.Inputs) *graph.Node { return graph.GreaterThan(in.Weight, graph.ZerosLike(in.Weight)) }},
		"the pool makes 0 importances": {Name: "x", Score: score, Pool: func(*graph.Node, ...int) *graph.Node { return nil }},
		"tracks in the shape":          {Name: "x", Score: score, Track: func(criterion.Inputs) *graph.Node { return nil }},
	} {
		if err := Check(b, c); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "asks for") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// flat is what a flattened tensor is compared by.
func flat(t *testing.T, c criterion.Criterion, weight []float32, inputs map[criterion.Needs][]float32, dims ...int) []float32 {
	t.Helper()
	if len(dims) == 0 {
		dims = []int{2, 2}
	}
	scores, err := Scores(open(t), c, dims, weight, inputs)
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	return scores
}

// Four weights [[1, −2], [3, 0.5]] and what each criterion makes of them, computed by hand.
func TestByHand(t *testing.T) {
	w := []float32{1, -2, 3, 0.5}
	type inputs = map[criterion.Needs][]float32
	for _, test := range []struct {
		c    criterion.Criterion
		in   inputs
		want []float32
	}{
		{criterion.Magnitude, nil, []float32{1, -2, 3, 0.5}},
		{criterion.LAMP, nil, []float32{1, -2, 3, 0.5}}, // before normalisation
		{criterion.Random, inputs{criterion.NeedUniform: {0.1, 0.2, 0.3, 0.4}}, []float32{0.1, 0.2, 0.3, 0.4}},
		{criterion.Gain, inputs{criterion.NeedGain: {-0.5, 2}}, []float32{0.5, 2, 0.5, 2}},
		{criterion.SignedTaylor, inputs{criterion.NeedGrad: {0.5, 0.5, -1, 4}}, []float32{-0.5, 1, 3, -2}},
		{criterion.Taylor, inputs{criterion.NeedGrad: {0.5, 0.5, -1, 4}}, []float32{0.5, -1, -3, 2}},
		{criterion.TaylorWeight, inputs{criterion.NeedGrad: {0.5, 0.5, -1, 4}}, []float32{0.5, -1, -3, 2}},
		{criterion.GradMagnitude, inputs{criterion.NeedGrad: {0.5, 0.5, -1, 4}}, []float32{0.5, 0.5, -1, 4}},
		{criterion.SNIP, inputs{criterion.NeedGrad: {0.5, 0.5, -1, 4}}, []float32{0.5, -1, -3, 2}},
		{criterion.GraSP, inputs{criterion.NeedHessianGrad: {1, 2, 3, -4}}, []float32{1, -4, 9, -2}},
		{criterion.SynFlow, inputs{criterion.NeedFlow: {1, 2, 3, 4}}, []float32{1, 4, 9, 2}},
		{criterion.Fisher, inputs{criterion.NeedGradSquare: {2, 1, 1, 8}}, []float32{1, 2, 4.5, 1}},
		{criterion.OBD, inputs{criterion.NeedGaussNewton: {2, 1, 1, 8}}, []float32{1, 2, 4.5, 1}},
		{criterion.WoodFisher, inputs{criterion.NeedInverseFisher: {0.5, 1, 4.5, 0.125}}, []float32{1, 2, 1, 1}},
		{criterion.Movement, inputs{criterion.NeedTrack: {1, -1, 2, 0}}, []float32{1, -1, 2, 0}},
		{criterion.SoftMovement, inputs{criterion.NeedTrack: {1, -1, 2, 0}}, []float32{1, -1, 2, 0}},
		{criterion.MagnitudeIncrease, inputs{criterion.NeedStart: {-2, 1, 3, 0}}, []float32{-1, 1, 0, 0.5}},
		{criterion.Distance, inputs{criterion.NeedStart: {-2, 1, 3, 0}}, []float32{3, -3, 0, 0.5}},
		{criterion.FPGM, nil, []float32{3.905125, 3.905125, 3.905125, 3.905125}}, // √(3² + 2.5²)
		{criterion.APoZ, inputs{criterion.NeedOutputZeros: {0.25, 1}}, []float32{0.75, 0, 0.75, 0}},
		{criterion.ActivationNorm, inputs{criterion.NeedOutputNorm: {2, 3}}, []float32{2, 3, 2, 3}},
		{criterion.HRank, inputs{criterion.NeedOutputRank: {2, 3}}, []float32{2, 3, 2, 3}},
		{criterion.ThiNet, inputs{criterion.NeedResidual: {1, 2}}, []float32{1, 1, 2, 2}},
		{criterion.Wanda, inputs{criterion.NeedInputNorm: {10, 2}}, []float32{10, -20, 6, 1}},
		{criterion.L0, inputs{criterion.NeedGate: {1, -1, 2, 0}}, []float32{1, -1, 2, 0}},
	} {
		if got := flat(t, test.c, slices.Clone(w), test.in); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.c.Name, got, test.want)
		}
	}
	// All criteria but the controls are in the table.
	if n := len(criterion.All()); n != 25+2 {
		t.Errorf("there are %d criteria: add a case by hand for the new one", n)
	}
}

// What criteria that track make of a step, computed by hand: w·g is 2, −2, 0 and −1.
func TestTrackByHand(t *testing.T) {
	// σ'(0) = 1/4, σ'(±1) = e/(1 + e)² = 0.1966, σ'(100) = 0.
	for _, test := range []struct {
		c    criterion.Criterion
		want []float32
	}{
		{criterion.Movement, []float32{-2, 3, -1, 101}},
		{criterion.SoftMovement, []float32{-2 - 2.5e-5, 3 - 1.966e-5, -1 - 1.966e-5, 101}},
	} {
		step := trial{b: open(t), c: test.c, param: param([]int{2, 2})}
		args := []any{[][]float32{{1, -2}, {3, 0.5}}, [][]float32{{2, 1}, {0, -2}}, [][]float32{{0, 1}, {-1, 100}}}
		got, _, err := step.call(args, func(nodes []*graph.Node) *graph.Node {
			return test.c.Track(criterion.Inputs{Param: step.param, Weight: nodes[0], Grad: nodes[1], Track: nodes[2]})
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got, cmpopts.EquateApprox(0, 5e-7)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.c.Name, diff)
		}
	}
}

// What the pools make of the columns (1, −3) and (−2, 0.5), and without axes of each weight by itself.
func TestPoolsByHand(t *testing.T) {
	one := trial{b: open(t)}
	for name, test := range map[string]struct {
		pool         criterion.Pool
		units, alone []float32
	}{
		"L1":   {criterion.L1, []float32{4, 2.5}, []float32{1, 2, 3, 0.5}},
		"L2":   {criterion.L2, []float32{float32(math.Sqrt(10)), float32(math.Sqrt(4.25))}, []float32{1, 2, 3, 0.5}},
		"Net":  {criterion.Net, []float32{2, 1.5}, []float32{1, 2, 3, 0.5}},
		"Sum":  {criterion.Sum, []float32{-2, -1.5}, []float32{1, -2, -3, 0.5}},
		"Mean": {criterion.Mean, []float32{-1, -0.75}, []float32{1, -2, -3, 0.5}},
	} {
		for _, of := range []struct {
			axes []int
			want []float32
		}{{[]int{0}, test.units}, {nil, test.alone}} {
			got, _, err := one.call([]any{[][]float32{{1, -2}, {-3, 0.5}}}, func(c []*graph.Node) *graph.Node { return test.pool(c[0], of.axes...) })
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(of.want, got, cmpopts.EquateApprox(1e-6, 0)); diff != "" {
				t.Errorf("%s over axes %v (-want +got):\n%s", name, of.axes, diff)
			}
		}
	}
}

func TestFPGMOfThreeFilters(t *testing.T) {
	// Filters (0, 0), (3, 4), (0, 1): distances 5, 1 and √18.
	got := flat(t, criterion.FPGM, []float32{0, 3, 0, 0, 4, 1}, nil, 2, 3)
	want := []float32{6, 5 + float32(math.Sqrt(18)), 1 + float32(math.Sqrt(18))}
	for i := range want {
		if math.Abs(float64(got[i]-want[i])) > 1e-6 {
			t.Errorf("got %v, want %v twice", got, want)
			break
		}
	}
}

func TestScoresRefuse(t *testing.T) {
	b := open(t)
	for name, call := range map[string]func() error{
		"one axis": func() error { _, err := Scores(b, criterion.Magnitude, []int{4}, make([]float32, 4), nil); return err },
		"too few weights": func() error {
			_, err := Scores(b, criterion.Magnitude, []int{2, 2}, make([]float32, 3), nil)
			return err
		},
		"no gradient": func() error { _, err := Scores(b, criterion.SNIP, []int{2, 2}, make([]float32, 4), nil); return err },
	} {
		if call() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestNormalizeByHand(t *testing.T) {
	for _, test := range []struct {
		n    criterion.Normalize
		want []float32
	}{
		{criterion.ByL2, []float32{0.6, 0, -0.8, 0}},
		{criterion.ByMean, []float32{3 / 1.75, 0, -4 / 1.75, 0}},
		{criterion.ByLAMP, []float32{9.0 / 25, 0, 1, 0}},
		{criterion.Invert(criterion.Magnitude).Normalize, []float32{-3, 0, 4, 0}},
		{criterion.ByLAMP.Then(criterion.Invert(criterion.Magnitude).Normalize), []float32{-9.0 / 25, 0, -1, 0}},
	} {
		got := []float32{3, 0, -4, 0}
		test.n.Apply(got, param([]int{2, 2}), nil)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.n.Name, got, test.want)
		}
	}
	zeros := []float32{0, 0}
	for _, n := range []criterion.Normalize{criterion.ByL2, criterion.ByMean, criterion.ByLAMP} {
		if n.Apply(zeros, param([]int{2, 1}), nil); zeros[0] != 0 || zeros[1] != 0 {
			t.Errorf("%s makes %v of a layer of zeros", n.Name, zeros)
		}
	}
	ties := []float32{1, 1, 1, 1}
	criterion.ByLAMP.Apply(ties, param([]int{2, 2}), nil)
	if want := []float32{1, 0.5, 1.0 / 3, 0.25}; !slices.Equal(ties, want) {
		t.Errorf("LAMP of equal scores: got %v, want %v: the earlier counts as the larger", ties, want)
	}
}

// A criterion of one's own, as in a notebook: half of the laws come for free, the other half are what Check is for.
func ExampleCheck() {
	b, err := gobackend.New("")
	if err != nil {
		panic(err)
	}
	sensitive := criterion.Criterion{Name: "w²·|g|", Needs: criterion.NeedGrad, Score: func(in criterion.Inputs) *graph.Node {
		return graph.Mul(graph.Square(in.Weight), graph.Abs(in.Grad)) // [in.Param.Shape]
	}}
	fmt.Println(Check(b, sensitive))

	sensitive.Needs = 0
	fmt.Println(Check(b, sensitive) != nil)
	// Output:
	// <nil>
	// true
}

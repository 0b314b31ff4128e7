package distill_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/pkg/distill"
)

// once computes a function of constants, on GoMLX's own backend, which need not compile for long.
func once(t testing.TB, f func(in []*graph.Node) *graph.Node, inputs ...any) []float64 {
	t.Helper()
	y, err := graph.CallOnce(gobackend.GetBackend(), func(in []*graph.Node) *graph.Node {
		return graph.ConvertDType(graph.Reshape(f(in), -1), dtypes.Float64)
	}, inputs...)
	if err != nil {
		t.Fatal(err)
	}
	flat, err := tensors.CopyFlatData[float64](y)
	if err != nil {
		t.Fatal(err)
	}
	return flat
}

func near(t *testing.T, what string, got []float64, want ...float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= 1e-6*math.Max(1, math.Abs(want[i]))) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
}

// Each loss, by hand.
func TestLossesByHand(t *testing.T) {
	ln := math.Log
	// At T = 2 the teacher's probabilities are 0.1, 0.2, 0.3, 0.4 and the student's 0.4, 0.3, 0.2, 0.1: the divergence is 0.3·ln 4 + 0.1·ln 1.5, times T² = 4.
	teacher := [][]float64{{0, 2 * ln(2), 2 * ln(3), 2 * ln(4)}}
	student := [][]float64{{2 * ln(4), 2 * ln(3), 2 * ln(2), 0}}
	near(t, "KL at T=2", once(t, func(in []*graph.Node) *graph.Node { return distill.KL(in[0], in[1], 2) }, student, teacher), 4*(0.3*ln(4)+0.1*ln(1.5)))
	near(t, "KL of the same", once(t, func(in []*graph.Node) *graph.Node { return distill.KL(in[0], in[0], 3) }, student), 0)
	// (1 + 4 + 9 + 16)/4
	near(t, "MSE", once(t, func(in []*graph.Node) *graph.Node { return distill.MSE(in[0], in[1]) }, [][]float64{{1, 2, 3, 4}}, [][]float64{{0, 0, 0, 0}}), 7.5)
	near(t, "HintLoss", once(t, func(in []*graph.Node) *graph.Node { return distill.HintLoss(in[0], in[1]) }, [][]float64{{1, 2, 3, 4}}, [][]float64{{0, 0, 0, 0}}), 3.75)
	// One example of two positions with two channels: means of squares (1 + 5)/2 = 3 and 4, of length 5.
	one := [][][][]float64{{{{1, math.Sqrt(5)}, {2, 2}}}}
	near(t, "AttentionMap", once(t, func(in []*graph.Node) *graph.Node { return distill.AttentionMap(in[0]) }, one), 0.6, 0.8)
	near(t, "AttentionLoss", once(t, func(in []*graph.Node) *graph.Node { return distill.AttentionLoss(in[0], in[1]) }, [][]float64{{0.6, 0.8}}, [][]float64{{1, 0}}), (0.16+0.64)/2)
	// Three examples in a row at 0, 1, 2 have the distances 1, 1, 2 with mean 4/3; those at 0, 1, 0 have 1, 1, 0 with mean 2/3. Over the means 0.75, 0.75, 1.5 and 1.5, 1.5, 0: they differ
	// by 0.75, 0.75 and 1.5, whose Huber losses are 0.28125 twice and 1; six of the nine pairs, for each comes twice.
	near(t, "DistanceLoss", once(t, func(in []*graph.Node) *graph.Node { return distill.DistanceLoss(in[0], in[1]) },
		[][]float64{{0}, {1}, {2}}, [][]float64{{0}, {1}, {0}}), 2*(0.28125+0.28125+1)/9)
	// A right angle at the first example, against a straight line: cosines of the student at example 0 between 1 and 2: 0, at 1 and 2: 1/√2; of the teacher, who has 0 in the middle: −1, 1, 1.
	// Each comes twice; the angles between an example and itself are the same in both. Huber of 1 is ½.
	c := 1 - 1/math.Sqrt2
	near(t, "AngleLoss", once(t, func(in []*graph.Node) *graph.Node { return distill.AngleLoss(in[0], in[1]) },
		[][]float64{{0, 0}, {1, 0}, {0, 1}}, [][]float64{{0}, {1}, {-1}}), 2*(0.5+c*c/2+c*c/2)/27)
}

// losses are all of them as scalars, with the shape of what they take.
var losses = []struct {
	name string
	dims []int
	loss func(student, teacher *graph.Node) *graph.Node
}{
	{"KL T=1", []int{3, 4}, func(s, t *graph.Node) *graph.Node { return graph.ReduceAllMean(distill.KL(s, t, 1)) }},
	{"KL T=4", []int{3, 4}, func(s, t *graph.Node) *graph.Node { return graph.ReduceAllMean(distill.KL(s, t, 4)) }},
	{"MSE", []int{3, 4}, func(s, t *graph.Node) *graph.Node { return graph.ReduceAllMean(distill.MSE(s, t)) }},
	{"hint", []int{2, 2, 2, 3}, func(s, t *graph.Node) *graph.Node { return graph.ReduceAllMean(distill.HintLoss(s, t)) }},
	{"attention", []int{2, 2, 2, 3}, func(s, t *graph.Node) *graph.Node {
		return graph.ReduceAllMean(distill.AttentionLoss(distill.AttentionMap(s), distill.AttentionMap(t)))
	}},
	{"distance", []int{4, 3}, distill.DistanceLoss},
	{"angle", []int{4, 3}, distill.AngleLoss},
}

// Every gradient is what central differences say.
func TestGradients(t *testing.T) {
	for _, c := range losses {
		random := rand.New(rand.NewPCG(3, 4))
		size := 1
		for _, d := range c.dims {
			size *= d
		}
		draw := func() []float64 {
			x := make([]float64, size)
			for i := range x {
				x[i] = random.NormFloat64()
			}
			return x
		}
		student, teacher := draw(), draw()
		tensor := func(x []float64) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(x, c.dims...) }
		got := once(t, func(in []*graph.Node) *graph.Node { return graph.Gradient(c.loss(in[0], in[1]), in[0])[0] }, tensor(student), tensor(teacher))
		// All points of the differences in one program: [points, …].
		const h = 1e-5
		var points []any
		for i := range student {
			for _, sign := range []float64{1, -1} {
				moved := append([]float64(nil), student...)
				moved[i] += sign * h
				points = append(points, tensor(moved))
			}
		}
		values := once(t, func(in []*graph.Node) *graph.Node {
			last := len(in) - 1
			var all []*graph.Node
			for _, x := range in[:last] {
				all = append(all, graph.Reshape(c.loss(x, in[last]), 1))
			}
			return graph.Concatenate(all, 0)
		}, append(points, tensor(teacher))...)
		for i := range student {
			if want := (values[2*i] - values[2*i+1]) / (2 * h); math.Abs(got[i]-want) > 1e-7 || got[i] == 0 {
				t.Errorf("%s: ∂loss/∂x%d is %v, differences say %v", c.name, i, got[i], want)
			}
		}
	}
}

// Examples that are the same, zeros, and a batch of one have finite losses and gradients.
func TestDegenerate(t *testing.T) {
	for _, c := range losses {
		for _, batch := range []int{1, c.dims[0]} {
			dims := append([]int{batch}, c.dims[1:]...)
			zero := tensors.FromShape(tensors.FromScalarAndDimensions(0.0, dims...).Shape())
			ones := tensors.FromScalarAndDimensions(1.0, dims...)
			for name, x := range map[string][2]any{"zeros": {zero, ones}, "the same": {ones, zero}} {
				for _, v := range once(t, func(in []*graph.Node) *graph.Node {
					l := c.loss(in[0], in[1])
					return graph.Concatenate([]*graph.Node{graph.Reshape(l, 1), graph.Reshape(graph.Gradient(l, in[0])[0], -1)}, 0)
				}, x[0], x[1]) {
					if math.IsNaN(v) || math.IsInf(v, 0) {
						t.Errorf("%s, batch %d, %s: %v", c.name, batch, name, v)
						break
					}
				}
			}
		}
	}
}

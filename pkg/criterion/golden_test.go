package criterion_test

import (
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/gobackend"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/criterion/criteriontest"
	"github.com/espalier-ml/espalier/pkg/internal/golden"
)

// scores of a criterion, summed over each output as told by sum.
func scores(t *testing.T, c criterion.Criterion, w golden.Array, inputs map[criterion.Needs][]float32) []float32 {
	t.Helper()
	b, err := gobackend.New("")
	if err != nil {
		t.Fatal(err)
	}
	s, err := criteriontest.Scores(b, c, w.Shape, w.Float32(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// perOutput pools contributions over all that feeds an output, the last axis.
func perOutput(s []float32, out int, add func(sum, c float64) float64) []float64 {
	sums := make([]float64, out)
	for i, c := range s {
		sums[i%out] = add(sums[i%out], float64(c))
	}
	return sums
}

func near(t *testing.T, what string, got []float64, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if math.Abs(got[i]-want[i]) > 1e-5*math.Abs(want[i])+1e-12 {
			t.Errorf("%s: value %d is %v, want %v", what, i, got[i], want[i])
			return
		}
	}
}

// The importances of filters that Torch-Pruning computes.
func TestAgainstTorchPruning(t *testing.T) {
	var in map[string]struct{ Weight, Grad golden.Array }
	var want map[string]map[string]golden.Array
	if err := golden.Read("importances", &in, &want); err != nil {
		t.Fatal(err)
	}
	for kind, layer := range in {
		out := layer.Weight.Shape[len(layer.Weight.Shape)-1]
		grad := map[criterion.Needs][]float32{criterion.NeedGrad: layer.Grad.Float32()}
		square := make([]float32, len(layer.Grad.Data))
		for i, g := range layer.Grad.Float32() {
			square[i] = g * g
		}
		magnitude := scores(t, criterion.Magnitude, layer.Weight, nil)
		taylor := scores(t, criterion.Taylor, layer.Weight, grad)
		fisher := scores(t, criterion.Fisher, layer.Weight, map[criterion.Needs][]float32{criterion.NeedGradSquare: square})
		l1 := func(sum, c float64) float64 { return sum + math.Abs(c) }
		net := perOutput(taylor, out, func(sum, c float64) float64 { return sum + c })
		for i := range net {
			net[i] = math.Abs(net[i])
		}
		hessian := perOutput(fisher, out, l1)
		for i := range hessian {
			hessian[i] *= 2 // they leave out the half
		}
		for name, got := range map[string][]float64{
			"L1": perOutput(magnitude, out, l1), "L2 squared": perOutput(magnitude, out, func(sum, c float64) float64 { return sum + c*c }),
			"taylor": net, "taylor L1": perOutput(taylor, out, l1), "hessian": hessian,
		} {
			near(t, kind+" "+name, got, want[kind][name].Data)
		}
		// They take distances between the magnitudes of the weights, which the paper does not: so do we here.
		positive := layer.Weight
		positive.Data = slices.Clone(positive.Data)
		for i, x := range positive.Data {
			positive.Data[i] = math.Abs(x)
		}
		fpgm := scores(t, criterion.FPGM, positive, nil)
		wide := make([]float64, out)
		for i := range wide {
			wide[i] = float64(fpgm[i])
		}
		near(t, kind+" FPGM", wide, want[kind]["FPGM"].Data)
	}
}

func TestWandaAgainstItsFormula(t *testing.T) {
	var in struct{ Weights, X golden.Array }
	var want map[string]any
	if err := golden.Read("layer", &in, &want); err != nil {
		t.Fatal(err)
	}
	dim := in.X.Shape[1]
	norms := make([]float32, dim)
	sums := make([]float64, dim)
	for i, x := range in.X.Data {
		sums[i%dim] += x * x
	}
	for i, s := range sums {
		norms[i] = float32(math.Sqrt(s))
	}
	s := scores(t, criterion.Wanda, in.Weights, map[criterion.Needs][]float32{criterion.NeedInputNorm: norms})
	got := make([]float64, len(s))
	for i, x := range s {
		got[i] = math.Abs(float64(x))
	}
	var expected []float64
	for _, x := range want["wanda"].(map[string]any)["data"].([]any) {
		expected = append(expected, x.(float64))
	}
	near(t, "Wanda", got, expected)
}

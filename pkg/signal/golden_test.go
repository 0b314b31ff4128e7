package signal

import (
	"fmt"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/golden"
	"github.com/espalier-ml/espalier/pkg/params"
)

// Gradients, Hessian products, Fisher matrices and flows as PyTorch computes them in double precision.
func TestAgainstPyTorch(t *testing.T) {
	var in struct {
		Weights, Biases []golden.Array
		X, Labels       golden.Array
	}
	var want map[string][]golden.Array
	if err := golden.Read("initial", &in, &want); err != nil {
		t.Fatal(err)
	}
	values := map[string]*tensors.Tensor{}
	for l := range in.Weights {
		values[fmt.Sprintf("/%d/dense/weights", l)] = tensors.FromFlatDataAndDimensions(in.Weights[l].Float32(), in.Weights[l].Shape...)
		values[fmt.Sprintf("/%d/dense/biases", l)] = tensors.FromFlatDataAndDimensions(in.Biases[l].Float32(), in.Biases[l].Shape...)
	}
	s := store(t, values)
	net := func(scope *model.Scope, x *graph.Node) *graph.Node {
		return layers.Dense(scope.At("1"), activation.Relu(layers.Dense(scope.At("0"), x, true, 5)), true, 4)
	}
	labels := make([]int32, len(in.Labels.Data))
	for i, l := range in.Labels.Data {
		labels[i] = int32(l)
	}
	src := Source{Backend: open(t), Store: s, Model: net, Block: 7, Damp: 0.01, Data: &data{name: "x", dims: []int{6}, inputs: [][]float32{in.X.Float32()}, labels: [][]int32{labels}}}
	set := params.Select(s, nil)
	for _, temperature := range []float64{1, 200} {
		src.Temperature = temperature
		sig, err := Collect(src, set, criterion.NeedGrad|criterion.NeedHessianGrad|criterion.NeedGradSquare|criterion.NeedInverseFisher|criterion.NeedFlow)
		if err != nil {
			t.Fatal(err)
		}
		for name, need := range map[string]criterion.Needs{
			"gradient": criterion.NeedGrad, fmt.Sprintf("Hg at %g", temperature): criterion.NeedHessianGrad, "fisher": criterion.NeedGradSquare,
			"inverse Fisher": criterion.NeedInverseFisher, "flow": criterion.NeedFlow,
		} {
			for l, p := range set {
				// Single precision, relative to the largest of the layer: the Hessian's products are differences.
				largest := 0.0
				for _, x := range want[name][l].Data {
					largest = max(largest, x, -x)
				}
				got := value(t, sig, need, p.Path)
				for i, x := range want[name][l].Data {
					if d := float64(got[i]) - x; max(d, -d) > 1e-5*largest {
						t.Errorf("%s of layer %d: value %d is %v, want %v", name, l, i, got[i], x)
						break
					}
				}
			}
		}
	}
}

func TestActivationsAgainstPyTorch(t *testing.T) {
	var in struct{ X, Weight golden.Array }
	var want map[string]golden.Array
	if err := golden.Read("activations", &in, &want); err != nil {
		t.Fatal(err)
	}
	s := store(t, map[string]*tensors.Tensor{"/c/weights": tensors.FromFlatDataAndDimensions(in.Weight.Float32(), in.Weight.Shape...)})
	net := func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = activation.Relu(graph.Convolve(x, s.GetVariable("/c/weights").NodeValue(x.Graph())).NoPadding().Done())
		return graph.ReduceMean(x, 1, 2)
	}
	src := Source{Backend: open(t), Store: s, Model: net, Data: &data{name: "x", dims: in.X.Shape[1:], inputs: [][]float32{in.X.Float32()}, labels: [][]int32{{0, 1, 2, 0}}}}
	sig, err := Collect(src, params.Select(s, nil), criterion.NeedInputNorm|criterion.NeedOutputZeros|criterion.NeedOutputNorm|criterion.NeedOutputRank)
	if err != nil {
		t.Fatal(err)
	}
	for name, need := range map[string]criterion.Needs{
		"zeros": criterion.NeedOutputZeros, "norm": criterion.NeedOutputNorm, "rank": criterion.NeedOutputRank, "input norm": criterion.NeedInputNorm,
	} {
		near(t, name, value(t, sig, need, "/c/weights"), want[name].Data, 1e-5)
	}
}

package reconstruct

import (
	"math"
	"testing"

	"github.com/espalier-ml/espalier/pkg/internal/golden"
)

// SparseGPT's sweep over a layer of 128 inputs and 64 outputs, as algorithm 1 of the paper computes it in NumPy: the same mask, weights to 1e-5.
func TestSparseGPTAgainstItsAlgorithm(t *testing.T) {
	var in struct{ Weights, X golden.Array }
	var want map[string]any
	if err := golden.Read("layer", &in, &want); err != nil {
		t.Fatal(err)
	}
	g := &Gram{Dim: 128}
	if err := g.Add(in.X.Float32()); err != nil {
		t.Fatal(err)
	}
	numbers := func(a any) []float64 {
		var values []float64
		for _, x := range a.(map[string]any)["data"].([]any) {
			values = append(values, x.(float64))
		}
		return values
	}
	for name, cfg := range map[string]SparseGPTConfig{
		"sparsegpt 128": {Sparsity: 0.5, Block: 128}, "sparsegpt 32": {Sparsity: 0.5, Block: 32}, "sparsegpt 2:4": {N: 2, M: 4, Block: 128},
	} {
		r, err := SparseGPT(in.Weights.Float32(), 128, 64, g, cfg)
		if err != nil {
			t.Fatal(err)
		}
		expected := want[name].(map[string]any)
		alive, weights := numbers(expected["mask"]), numbers(expected["weights"])
		for i := range weights {
			if r.Alive[i] != (alive[i] == 1) {
				t.Errorf("%s: weight %d is alive: %t", name, i, r.Alive[i])
				break
			}
			if math.Abs(float64(r.Weights[i])-weights[i]) > 1e-5*max(1, math.Abs(weights[i])) {
				t.Errorf("%s: weight %d is %v, want %v", name, i, r.Weights[i], weights[i])
				break
			}
		}
	}
}

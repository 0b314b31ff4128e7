package reconstruct_test

import (
	"fmt"

	"github.com/espalier-ml/espalier/pkg/reconstruct"
)

// The second input is nearly twice the first: without it, the first can do the work of both.
func ExampleOBS() {
	g := &reconstruct.Gram{Dim: 3}
	if err := g.Add([]float32{
		1, 2.1, 1,
		2, 3.9, -1,
		-1, -2, 1,
		3, 6, 0.5,
	}); err != nil {
		panic(err)
	}
	w := []float32{0.5, 0.3, 2} // [in, out] = [3, 1]
	r, err := reconstruct.OBS(w, 3, 1, g, reconstruct.OBSConfig{Sparsity: 1. / 3, Damp: 1e-6})
	if err != nil {
		panic(err)
	}
	fmt.Printf("weights %.2f\n", r.Weights)
	fmt.Printf("the output changes by %.3f%%, by %.0f%% if the least weight is only set to 0\n", 100*r.Error, 100*r.MagnitudeError)
	// Output:
	// weights [0.00 0.55 1.98]
	// the output changes by 0.002%, by 18% if the least weight is only set to 0
}

package lower

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/pkg/backend"
)

func random(rng *rand.Rand, dims ...int) *tensors.Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.NormFloat64())
	}
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

// The products compute what the convolutions do, and so do their gradients.
func TestLoweredEqualsConvolution(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	lowered := On(b)
	if lowered == nil {
		t.Skip("the backend is not XLA on the CPU")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, test := range []struct {
		name      string
		x, k      []int
		same      bool
		strides   int
		wantLower bool
	}{
		{"first layer of LeNet-5", []int{3, 12, 12, 1}, []int{5, 5, 1, 4}, false, 1, true},
		{"second layer of LeNet-5", []int{3, 9, 10, 4}, []int{5, 5, 4, 6}, false, 1, true},
		{"padded", []int{2, 9, 8, 3}, []int{5, 5, 3, 2}, true, 1, true},
		{"a first layer of 3x3", []int{2, 9, 8, 3}, []int{3, 3, 3, 3}, true, 1, true},
		{"a kernel that is not square", []int{2, 11, 12, 2}, []int{5, 7, 2, 3}, false, 1, true},
		{"3x3 of many channels", []int{2, 9, 8, 16}, []int{3, 3, 16, 5}, true, 1, false},
		{"strides", []int{2, 11, 11, 3}, []int{5, 5, 3, 2}, false, 2, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			x, k := random(rng, test.x...), random(rng, test.k...)
			run := func(b compute.Backend) []*tensors.Tensor {
				exec, err := graph.NewExec(b, func(x, k *graph.Node) []*graph.Node {
					conv := graph.Convolve(x, k).Strides(test.strides)
					if test.same {
						conv = conv.PadSame()
					} else {
						conv = conv.NoPadding()
					}
					y := conv.Done()
					loss := graph.ReduceAllSum(graph.Mul(y, graph.Sin(y)))
					return append([]*graph.Node{y}, graph.Gradient(loss, x, k)...)
				})
				if err != nil {
					t.Fatal(err)
				}
				defer exec.Finalize()
				xs, _ := x.LocalClone()
				ks, _ := k.LocalClone()
				results, err := exec.Call(xs, ks)
				if err != nil {
					t.Fatal(err)
				}
				return results
			}
			lowered := On(b)
			want, got := run(b), run(lowered)
			for i, what := range []string{"value", "gradient of the input", "gradient of the kernel"} {
				if err := near(want[i], got[i]); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			if lowered.All() != test.wantLower {
				t.Errorf("all were lowered: %v, want %v", lowered.All(), test.wantLower)
			}
		})
	}
}

// near returns an error unless two tensors differ by no more than rounding, for sums of some hundred products.
func near(want, got *tensors.Tensor) error {
	if !want.Shape().Equal(got.Shape()) {
		return fmt.Errorf("shape %s, want %s", got.Shape(), want.Shape())
	}
	a, b := tensors.MustCopyFlatData[float32](want), tensors.MustCopyFlatData[float32](got)
	largest := 0.0
	for _, x := range a {
		largest = max(largest, math.Abs(float64(x)))
	}
	for i := range a {
		if d := math.Abs(float64(a[i] - b[i])); d > 1e-5*largest {
			return fmt.Errorf("[%d] is %v, want %v, where the largest is %v", i, b[i], a[i], largest)
		}
	}
	return nil
}

package nets

import (
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// Where all that the first convolution makes is negative, LeNet5ReLU answers the same whatever it sees; the LeNet-5 of Caffe does not.
func TestLeNet5ReLU(t *testing.T) {
	b := best(t)
	for _, c := range []struct {
		name  string
		of    func(*model.Scope, *graph.Node) *graph.Node
		blind bool
	}{{"LeNet5", LeNet5, false}, {"LeNet5ReLU", LeNet5ReLU, true}} {
		t.Run(c.name, func(t *testing.T) {
			store := model.NewStore()
			exec, err := model.NewExec(b, store, func(s *model.Scope, x *graph.Node) *graph.Node { return c.of(s, x) })
			if err != nil {
				t.Fatal(err)
			}
			defer exec.Finalize()
			answer := func(pixel float32) []float32 {
				x := make([]float32, 784)
				for i := range x {
					x[i] = pixel * float32(i%7)
				}
				y, err := exec.Call1(tensors.FromFlatDataAndDimensions(x, 1, 28, 28, 1))
				if err != nil {
					t.Fatal(err)
				}
				return tensors.MustCopyFlatData[float32](y)
			}
			answer(1) // makes the variables
			w := store.GetVariable("/conv1/conv/weights")
			negative := make([]float32, w.Shape().Size())
			for i := range negative {
				negative[i] = -0.01 * float32(1+i%3)
			}
			if err := w.SetValue(tensors.FromFlatDataAndDimensions(negative, w.Shape().Dimensions...)); err != nil {
				t.Fatal(err)
			}
			one, two := answer(1), answer(2)
			same := true
			for i := range one {
				same = same && one[i] == two[i]
			}
			if same != c.blind {
				t.Errorf("logits %v and %v: equal is %v, want %v", one, two, same, c.blind)
			}
		})
	}
}

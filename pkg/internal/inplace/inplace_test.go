package inplace_test

import (
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/internal/inplace"
)

// Wherever a tensor lies, what is changed in it is what the next execution and the host see, and nothing else has changed.
func TestChange(t *testing.T) {
	xla, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]compute.Backend{"the best backend": xla, "Go": gobackend.GetBackend()} {
		double := graph.MustNewExec(b, func(x *graph.Node) *graph.Node { return graph.Add(x, x) })
		for where, tensor := range map[string]func() *tensors.Tensor{
			"result": func() *tensors.Tensor { return double.MustCall([]float32{1, 2, 3, 4})[0] },
			"host":   func() *tensors.Tensor { return tensors.FromValue([]float32{2, 4, 6, 8}) },
			"shared": func() *tensors.Tensor {
				x := tensors.FromValue([]float32{2, 4, 6, 8})
				double.MustCall(x)
				return x
			},
			"result with a copy on the host": func() *tensors.Tensor {
				x := double.MustCall([]float32{1, 2, 3, 4})[0]
				x.MaterializeLocal()
				return x
			},
		} {
			t.Run(name+" "+where, func(t *testing.T) {
				x := tensor()
				if !inplace.Near(x) {
					t.Error("it is far away")
				}
				if err := inplace.Change(x, func(flat []float32) { flat[2] = 7 }); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]float32{2, 4, 7, 8}, tensors.MustCopyFlatData[float32](x)); diff != "" {
					t.Errorf("on the host (-want +got)\n%s", diff)
				}
				if diff := cmp.Diff([]float32{4, 8, 14, 16}, tensors.MustCopyFlatData[float32](double.MustCall(x)[0])); diff != "" {
					t.Errorf("twice that (-want +got)\n%s", diff)
				}
				if err := inplace.Copy(x, tensors.FromValue([]float32{5, 6, 7, 8})); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]float32{5, 6, 7, 8}, tensors.MustCopyFlatData[float32](x)); diff != "" {
					t.Errorf("copied, on the host (-want +got)\n%s", diff)
				}
				if diff := cmp.Diff([]float32{10, 12, 14, 16}, tensors.MustCopyFlatData[float32](double.MustCall(x)[0])); diff != "" {
					t.Errorf("copied, twice that (-want +got)\n%s", diff)
				}
				if err := inplace.Copy(x, tensors.FromValue([]float32{5, 6})); err == nil {
					t.Error("two elements are copied to four, and there is no error")
				}
			})
		}
	}
}

func TestOtherType(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	x := graph.MustNewExec(b, func(x *graph.Node) *graph.Node { return graph.Add(x, x) }).MustCall([]int32{1, 2})[0]
	if err := inplace.Change(x, func([]float32) { t.Error("int32 is given as float32") }); err == nil {
		t.Error("int32 is no float32, and there is no error")
	}
}

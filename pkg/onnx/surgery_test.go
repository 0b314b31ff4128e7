package onnx

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/pkg/surgery"
)

// In, smaller by half of its multiply-accumulates, out: ONNX Runtime computes what the smaller network computes, which is what the masked one does.
func TestSurgery(t *testing.T) {
	b := open(t)
	for _, network := range torchNetworks {
		for _, exporter := range []string{"legacy", "dynamo"} {
			if exporter == "dynamo" && network == "mobilenet_v2" && os.Getenv("ESPALIER_FULL") == "" {
				continue // what it has of its own, resnet18 of this exporter has, too
			}
			t.Run(network+" "+exporter, func(t *testing.T) {
				m := read(t, network+"_"+exporter)
				batch := 1
				if m.FreeBatch() == "" {
					batch = m.Inputs[0].Dims[0].Size
				}
				inputs, err := m.Shapes(map[string]int{m.FreeBatch(): batch})
				if err != nil {
					t.Fatal(err)
				}
				n, err := surgery.Trace(b, m.Store, m.ModelFn, inputs...)
				if err != nil {
					t.Fatal(err)
				}
				plan, err := n.Plan(surgery.Config{MACs: 0.5}, nil)
				if err != nil {
					t.Fatal(err)
				}
				small, err := plan.Apply()
				if err != nil {
					t.Fatal(err)
				}
				x := signal(inputs[0].Dimensions...)
				r, err := surgery.Verify(n, small, x)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(r)
				if r.MaxDiff > 1e-4*max(1, r.MaxOutput) || r.MaxOutput == 0 {
					t.Errorf("masked and smaller differ by %g of %g", r.MaxDiff, r.MaxOutput)
				}
				if share := float64(r.After.MACs) / float64(r.Before.MACs); share > 0.5 || share < 0.4 {
					t.Errorf("%.3f of the multiply-accumulates are left", share)
				}
				runs := [][]*tensors.Tensor{{x}}
				if m.FreeBatch() != "" {
					runs = images(example(m.Inputs[0])...)
				}
				a := written(t, b, small.Store, small.ModelFn, Config{FixedBatch: m.FreeBatch() == ""}, runs...)
				t.Logf("%v", a.Operators)
				if a.Operators["Transpose"]+a.Operators["Expand"]+a.Operators["Sub"] > 0 {
					t.Errorf("operators that the model read did not have: %v", a.Operators)
				}

				if network != "resnet18" {
					return
				}
				// And in again: a model that was written is read like any other.
				path := filepath.Join(t.TempDir(), "small.onnx")
				if err := Write(path, b, small.Store, small.ModelFn, Config{FixedBatch: m.FreeBatch() == ""}, inputs...); err != nil {
					t.Fatal(err)
				}
				again, err := Read(path)
				if err != nil {
					t.Fatal(err)
				}
				if d, magnitude := difference(a.Runs[0][0].floats(t), call(t, b, again.Store, again.ModelFn, x)[0]); d > 1e-4*max(1, magnitude) {
					t.Errorf("read again: max |Δ| %g of %g", d, magnitude)
				}
			})
		}
	}
}

package surgery_test

import (
	"runtime"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/surgery/internal/fill"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// expected are the groups of the reference networks, by reasoning: a stream for each stage of a residual network, of which it is one with the stem where no convolution lies between; one group
// within a block, two within a bottleneck; the expansion of each block of MobileNetV2; of a transformer's layer heads, queries with keys, values, and the hidden layer.
var expected = map[string]int{
	"LeNet-300-100": 2, "LeNet-5": 3, "LeNet-5-norm": 3, "SmallConv": 4, "VGG16": 13 + 2, "ResNet-18": 4 + 8, "ResNet-34": 4 + 16, "ResNet-50": 1 + 4 + 2*16,
	"ResNet-8-narrow": 3 + 3, "ResNet-20": 3 + 9, "ResNet-20-narrow": 3 + 9, "ResNet-56": 3 + 27, "ResNet-20-B": 3 + 9, "ResNet-56-B": 3 + 27, "MobileNetV2": 25, "ViT-B/16": 4 * 12, "SmallVGG": 4,
}

// The groups of every reference network are those that are there. Half of the multiply-accumulates of each can go, and what is left computes what masks compute; of those with more than
// 100 million MACs only if ESPALIER_FULL is set.
func TestReferenceNetworks(t *testing.T) {
	b := open(t)
	for _, net := range nets.All() {
		t.Run(net.Name, func(t *testing.T) {
			want, known := expected[net.Name]
			if !known {
				t.Fatal("how many groups it has is not in the table")
			}
			input, fn := shapes.Make(dtypes.Float32, append([]int{1}, net.Input...)...), trace.Single(net.Model)
			n, err := surgery.Trace(b, model.NewStore(), fn, input)
			if err != nil {
				t.Fatal(err)
			}
			if len(n.Groups()) != want {
				t.Errorf("%d groups, want %d:\n%s", len(n.Groups()), want, n)
			}
			if n.Cost().MACs != net.MACs {
				t.Errorf("%d MACs, want %d", n.Cost().MACs, net.MACs)
			}
			if net.MACs > 100e6 && !full() {
				return
			}
			store, err := fill.Store(b, fn, 1, input)
			if err != nil {
				t.Fatal(err)
			}
			if n, err = surgery.Trace(b, store, fn, input); err != nil {
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
			report, err := surgery.Verify(n, small, fill.Normal(2, input))
			if err != nil {
				t.Fatal(err)
			}
			if !(report.MaxDiff <= tolerance*max(1, report.MaxOutput)) || report.MaxOutput < 1e-3 {
				t.Errorf("masked and shrunk outputs differ by %g, the largest is %g", report.MaxDiff, report.MaxOutput)
			}
			p, err := profile.OfModel(b, small.Store, small.ModelFn, input)
			if err != nil {
				t.Fatal(err)
			}
			if p.MACs() != report.After.MACs || 2*p.MACs() > net.MACs || 3*p.MACs() < net.MACs {
				t.Errorf("%d MACs are left of %d, the plan said %d", p.MACs(), net.MACs, report.After.MACs)
			}
			t.Logf("largest difference %.2g of %.2g, %d of %d MACs, %d of %d parameters", report.MaxDiff, report.MaxOutput, p.MACs(), net.MACs, report.After.Params, report.Before.Params)
		})
	}
}

// Surgery on ResNet-50 allocates no more than four times the weights, all in all.
func TestAllocation(t *testing.T) {
	b, input := open(t), shapes.Make(dtypes.Float32, 1, 224, 224, 3)
	n, err := nets.Find("ResNet-50")
	if err != nil {
		t.Fatal(err)
	}
	fn := trace.Single(n.Model)
	store, weights := model.NewStore(), uint64(0)
	for _, training := range []bool{false, true} {
		recorded, err := trace.Record(b, model.NewStore(), fn, trace.Config{Training: training}, input)
		if err != nil {
			t.Fatal(err)
		}
		for path, v := range recorded.Variables() {
			if store.GetVariable(path) != nil {
				continue
			}
			if _, err := store.CreateVariable(path, tensors.FromShape(v.Shape)); err != nil {
				t.Fatal(err)
			}
			weights += uint64(v.Shape.ByteSize())
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	whole, err := surgery.Trace(b, store, fn, input)
	if err != nil {
		t.Fatal(err)
	}
	plan := whole.Empty()
	for _, g := range whole.Groups() {
		for unit := range g.Size / 4 {
			plan.Removed[g.Name] = append(plan.Removed[g.Name], unit)
		}
	}
	if _, err := plan.Apply(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 4*weights {
		t.Errorf("%d bytes were allocated for %d bytes of weights, want at most four times as many", taken, weights)
	} else {
		t.Logf("allocated %.2f times the weights", float64(taken)/float64(weights))
	}
}

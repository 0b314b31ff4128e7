package structured

import (
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/surgery"
)

// In a trained network in which nothing reads half of a layer's channels any more, every method that looks at data removes just these. (GAL trains the network's weights as well, and may
// learn to read them again.)
func TestUselessChannelsGo(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	data := stripes{256, 32}
	task := experiment.Task{Backend: n.Backend(), Model: residual, Train: data}
	if _, err := experiment.Train(ctx, task, n.Store(), experiment.Training{Steps: 80, Optimizer: &experiment.SGD{LearningRate: 0.05, Momentum: 0.9}}); err != nil {
		t.Fatal(err)
	}
	const group, reader, channels, outputs = "/a/conv/weights:3", "/b/conv/weights", 8, 6
	v := n.Store().GetVariable(reader)
	w := tensors.MustCopyFlatData[float32](v.MustValue()) // [3, 3, 8, 6]
	useless := []int{1, 2, 5, 6}
	for i := range w {
		if slices.Contains(useless, i/outputs%channels) {
			w[i] = 0
		}
	}
	check(t, v.SetValue(tensors.FromFlatDataAndDimensions(w, v.Shape().Dimensions...)))
	b := Budget{Rate: 0.5}
	for _, g := range n.Groups() {
		if g.Name != group {
			b.Exclude = append(b.Exclude, g.Name)
		}
	}
	for name, choose := range map[string]func() (*surgery.Plan, error){
		"PFP": func() (*surgery.Plan, error) {
			r, err := PFP{Budget: b}.Choose(ctx, n, data)
			if err != nil {
				return nil, err
			}
			return r.Plan, nil
		},
		"ThiNet": func() (*surgery.Plan, error) {
			r, err := ThiNet{Budget: b}.Choose(ctx, n, data)
			if err != nil {
				return nil, err
			}
			return r.Plan, nil
		},
		"SCOP": func() (*surgery.Plan, error) {
			r, err := SCOP{Budget: b, Steps: 60, LearningRate: 0.02}.Choose(ctx, n, data)
			if err != nil {
				return nil, err
			}
			for c, k := range r.Scales["/a/conv/weights"] {
				if slices.Contains(useless, c) && (k < 0.499 || k > 0.501) {
					t.Errorf("SCOP: the scale of useless channel %d is %v, want 0.5, where it started", c, k)
				}
			}
			return r.Plan, nil
		},
	} {
		p, err := choose()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(map[string][]int{group: useless}, p.Removed); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

package structured

import (
	"errors"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/attention"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/surgery"
)

// attentive is a layer of attention and one of two dense layers, with a stream around them.
func attentive(s *model.Scope, x *graph.Node) *graph.Node {
	d := x.Shape().Dimensions
	x = layers.Dense(s.At("embed"), graph.Reshape(x, d[0], side, side*3), true, 10)
	y := attention.MultiHeadAttention(s.At("attend"), x, x, x, 3, 4).Done()
	x = graph.Add(x, layers.Dense(s.At("merge"), y, true, 10))
	x = graph.Add(x, layers.Dense(s.At("down"), activation.Relu(layers.Dense(s.At("up"), x, true, 12)), true, 10))
	return layers.Dense(s.At("output"), graph.ReduceMean(x, 1), true, classes)
}

// Methods that need no normalisation take any network, such as one with attention: heads, queries with keys, values, streams. The others say what they lack.
func TestAttention(t *testing.T) {
	n := network(t, attentive, size, side, side, 3)
	data := stripes{64, size}
	for _, m := range methods() {
		if m.name == "GAL" || m.name == "PFP, sampled" || m.name == "ThiNet" { // they see no more of it than the others, and take longer
			continue
		}
		p, err := m.choose(n, data, Budget{MACs: 0.6}, 3)
		var none *NoGainError
		if m.gains {
			if !errors.As(err, &none) {
				t.Errorf("%s: %v, want a *NoGainError", m.name, err)
			}
			continue
		}
		check(t, err)
		small, err := p.Apply()
		check(t, err)
		for b := range data.Iter() {
			r, err := surgery.Verify(p.Network(), small, b.Inputs[0])
			check(t, err)
			if r.MaxDiff > 1e-5*r.MaxOutput || float64(r.After.MACs) > 0.6*float64(r.Before.MACs) {
				t.Errorf("%s: %v", m.name, r)
			}
			break
		}
	}
}

package surgery

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/dataset"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Every criterion ranks the units of groups, as far as what it needs is there.
func TestCriteria(t *testing.T) {
	b := open(t)
	fn := func(s *model.Scope, x *graph.Node) *graph.Node {
		x = relu(batchNorm(s.In("b1"), conv(s.In("c1"), x, 6, 3, 1)))
		x = relu(batchNorm(s.In("b2"), conv(s.In("c2"), x, 8, 3, 2)))
		x = relu(layers.Dense(s.In("fc"), graph.ReduceMean(x, 1, 2), true, 12))
		return layers.Dense(s.In("output"), x, true, 4)
	}
	in := float(8, 6, 6, 2)
	store := network(t, b, trace.Single(fn), in)
	n, err := Trace(b, store, trace.Single(fn), in)
	if err != nil {
		t.Fatal(err)
	}
	labels := make([]int32, 8)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range labels {
		labels[i] = int32(r.IntN(4))
	}
	data, err := dataset.InMemoryFromData(b, "noise", []any{noise(1, in)}, []any{tensors.FromFlatDataAndDimensions(labels, 8, 1)})
	if err != nil {
		t.Fatal(err)
	}
	data.BatchSize(4, true)
	start := map[string]*tensors.Tensor{}
	for v := range store.IterVariables() {
		value, err := v.MustValue().LocalClone()
		if err != nil {
			t.Fatal(err)
		}
		start[v.Path()] = value
	}
	before := store.NumVariables()
	for _, c := range criterion.All() {
		t.Run(c.Name, func(t *testing.T) {
			cfg := Config{Criterion: c, Units: 0.6, Seed: 1}
			if c.Needs&criterion.NeedSignals != 0 {
				if _, err := n.Plan(cfg, nil); !isMissing(err) {
					t.Errorf("without signals: %v", err)
				}
			}
			sig, err := signal.Collect(signal.Source{Backend: b, Store: store, Model: fn, Data: data, Start: start}, n.Params(cfg), c.Needs)
			if err != nil {
				t.Fatal(err)
			}
			p, err := n.Plan(cfg, sig)
			if c.Needs&(criterion.NeedTrack|criterion.NeedGate) != 0 {
				var lacks *criterion.ScoreError
				if !errors.As(err, &lacks) {
					t.Errorf("without what training leaves: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			again, err := n.Plan(cfg, sig)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p.Removed, again.Removed); diff != "" {
				t.Errorf("a second time (-want +got)\n%s", diff)
			}
			removed := 0
			for _, units := range p.Removed {
				removed += len(units)
			}
			if removed != 11 {
				t.Errorf("%d of 26 units go, want 11: %v %v", removed, p, p.Notes())
			}
		})
	}
	if store.NumVariables() != before {
		t.Errorf("planning made %d variables in the store", store.NumVariables()-before)
	}
}

func isMissing(err error) bool {
	var missing *signal.MissingError
	return errors.As(err, &missing)
}

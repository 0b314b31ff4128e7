package experiment

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
)

// Two steps on L = w², from w = 1, with η = 0.1, computed by hand.
func TestSGDByHand(t *testing.T) {
	for _, test := range []struct {
		name string
		o    SGD
		want [2]float64
	}{
		{"plain", SGD{}, [2]float64{0.8, 0.64}},
		{"momentum: v = 2, then 0.5·2 + 1.6", SGD{Momentum: 0.5}, [2]float64{0.8, 0.54}},
		{"Nesterov: 0.5·2 + 2 = 3, then v = 2.4 and 0.5·2.4 + 1.4", SGD{Momentum: 0.5, Nesterov: true}, [2]float64{0.7, 0.44}},
		{"weight decay: 2 + 0.5", SGD{WeightDecay: 0.5}, [2]float64{0.75, 0.5625}},
	} {
		b, err := backend.Open()
		if err != nil {
			t.Fatal(err)
		}
		store := model.NewStore()
		w, err := store.CreateVariable("/w", tensors.FromScalar(float32(1)))
		if err != nil {
			t.Fatal(err)
		}
		step, err := model.NewExec(b, store, func(scope *model.Scope, g *graph.Graph) *graph.Node {
			loss := graph.Square(w.NodeValue(g))
			test.o.UpdateGraph(scope, g, loss)
			return loss
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range test.want {
			if _, err := step.Call(); err != nil {
				t.Fatal(err)
			}
			value, err := w.Value()
			if err != nil {
				t.Fatal(err)
			}
			if got := float64(value.Value().(float32)); math.Abs(got-want) > 1e-6 {
				t.Errorf("%s: after step %d w = %v, want %v", test.name, i+1, got, want)
			}
		}
		if err := test.o.Clear(store.RootScope()); err != nil {
			t.Fatal(err)
		}
		if store.GetVariable("/optimizers/velocity/w") != nil {
			t.Errorf("%s: Clear left the velocity", test.name)
		}
	}
}

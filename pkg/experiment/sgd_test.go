package experiment

import (
	"errors"
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
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

// Zeros stay zero under momentum and weight decay, over a checkpoint and back too; without the mask the momentum would revive them.
func TestZerosStayZeroUnderMomentum(t *testing.T) {
	for _, o := range []SGD{{}, {Momentum: 0.9}, {Momentum: 0.9, Nesterov: true}, {Momentum: 0.9, WeightDecay: 0.01}} {
		task := newTask(t)
		store := newStore(t, task, 1)
		p, err := prune.New(task.Backend, store, params.Select(store, nil), prune.Recipe{})
		if err != nil {
			t.Fatal(err)
		}
		tr, err := NewTrainer(task, store)
		if err != nil {
			t.Fatal(err)
		}
		training := Training{Steps: 60, Optimizer: &o, Pruner: p}
		if _, err := tr.Train(t.Context(), training); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Prune(0.5, nil); err != nil {
			t.Fatal(err)
		}
		training.Dir = t.TempDir()
		if _, err := tr.Train(t.Context(), training); err != nil {
			t.Fatal(err)
		}
		again, err := tr.Train(t.Context(), training) // from where it stands, so another run
		if err != nil || again.Loaded {
			t.Fatal(err, again.Loaded)
		}
		if err := p.Check(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// A step that writes to the weights after the optimizer is not proved by its graph; it is counted after each step, and the run stops at the first.
func TestSomethingThatWritesAfterTheMaskIsFound(t *testing.T) {
	task := newTask(t)
	plain := task.Model
	task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		out := plain(scope, x)
		train.AddPerStepUpdateGraphFn(scope.In("leak"), x.Graph(), func(scope *model.Scope, g *graph.Graph) {
			for v := range scope.Store().IterVariables() {
				if v.Trainable && v.Shape().Rank() == 2 && v.InUseByGraph(g) {
					v.SetNodeValue(graph.AddScalar(v.NodeValue(g), 1e-3))
				}
			}
		})
		return out
	}
	store := newStore(t, task, 1)
	p, err := prune.New(task.Backend, store, params.Select(store, nil), prune.Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prune(0.5, nil); err != nil {
		t.Fatal(err)
	}
	_, err = Train(t.Context(), task, store, Training{Steps: 60, Pruner: p})
	var leak *LeakError
	if !errors.As(err, &leak) || leak.Step != 1 || leak.Path == "" {
		t.Errorf("got %v, want a *LeakError after step 1", err)
	}
}

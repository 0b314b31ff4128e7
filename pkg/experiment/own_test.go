package experiment

import (
	"errors"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
)

// An *SGD is taken as it is when a training starts, not as it was when the step was compiled.
func TestOptimizerChangedBetweenTrainings(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	tr, err := NewTrainer(task, store)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	sgd := &SGD{LearningRate: 0.1}
	start := weights(t, store)
	if _, err := tr.Train(t.Context(), Training{Steps: 2, Optimizer: sgd}); err != nil {
		t.Fatal(err)
	}
	far := distance(start, weights(t, store))
	sgd.LearningRate = 1e-6
	start = weights(t, store)
	if _, err := tr.Train(t.Context(), Training{Steps: 2, Optimizer: sgd}); err != nil {
		t.Fatal(err)
	}
	if near := distance(start, weights(t, store)); near > far/1000 {
		t.Errorf("weights moved by %v with a learning rate of 0.1 and by %v with one of 1e-6", far, near)
	}
}

// distance is the largest difference of two weights.
func distance(a, b map[string][]float32) float32 {
	most := float32(0)
	for path := range a {
		for i := range a[path] {
			most = max(most, a[path][i]-b[path][i], b[path][i]-a[path][i])
		}
	}
	return most
}

// scheduled is an optimizer that Go can't compare.
type scheduled struct {
	optimizer.Interface
	rates []float64
}

func TestOptimizerThatCannotBeCompared(t *testing.T) {
	task := newTask(t)
	tr, err := NewTrainer(task, newStore(t, task, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	for range 2 {
		if _, err := tr.Train(t.Context(), Training{Steps: 1, Optimizer: scheduled{&SGD{}, []float64{0.1}}}); err != nil {
			t.Error(err)
		}
	}
}

func TestPrunerOfAnotherStoreIsRefused(t *testing.T) {
	task := newTask(t)
	mine, other := newStore(t, task, 1), newStore(t, task, 2)
	p := newPruner(t, task, other, prune.Recipe{})
	for _, perDispatch := range []int{0, 1} {
		var bad *ConfigError
		if _, err := Train(t.Context(), task, mine, Training{Steps: 1, Pruner: p, StepsPerDispatch: perDispatch}); !errors.As(err, &bad) {
			t.Errorf("got %v, want a *ConfigError", err)
		}
	}
	for _, path := range params.Select(mine, nil).Paths() {
		for _, w := range tensors.MustCopyFlatData[float32](mine.GetVariable(path).MustValue()) {
			if w == 0 {
				t.Fatalf("a weight of %s is zero", path)
			}
		}
	}
}

package lottery

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// normalised is mlp with batch normalisation behind the hidden layer, which has 8 units.
func normalised(scope *model.Scope, x *graph.Node) *graph.Node {
	x = graph.Reshape(x, x.Shape().Dimensions[0], -1) // [batch, 1, 16, 1] -> [batch, 16]
	x = layers.Dense(scope.At("hidden"), x, false, 8)
	x = activation.Relu(norm.BatchNorm(scope.At("hidden"), x, -1).Done())
	return layers.Dense(scope.At("output"), x, true, 4)
}

func bird(t *testing.T) EarlyBird {
	t.Helper()
	cfg := tiny(t)
	cfg.Training.Steps, cfg.Training.Validate = 2000, 0
	return EarlyBird{Task: cfg.Task, Training: cfg.Training}
}

func TestDistances(t *testing.T) {
	got := distances([][]bool{{true, true, false, false}, {true, false, true, false}, {true, true, false, true}})
	if diff := cmp.Diff([][]float64{{0, 0.5, 0.25}, {0.5, 0, 0.75}, {0.25, 0.75, 0}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, test := range []struct {
		masks  int
		window int
		most   float64
		want   bool
	}{{3, 2, 0.75, true}, {3, 2, 0.7, false}, {3, 3, 0.75, true}, {3, 4, 1, false}, {2, 2, 0.5, true}, {1, 2, 1, false}} {
		d := make([][]float64, test.masks)
		for i := range d {
			d[i] = got[i][:test.masks]
		}
		if got := agree(d, test.window, test.most); got != test.want {
			t.Errorf("the last %d of %d masks agree to %v: %t, want %t", test.window, test.masks, test.most, got, test.want)
		}
	}
}

// A ticket is drawn when the last five masks agree, training ends there, and watching has changed nothing: a training of as many steps ends with the same bits.
func TestEarlyBird(t *testing.T) {
	e := bird(t)
	e.Training.Dir = t.TempDir()
	got, err := e.Draw(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got.Drawn == 0 || got.Drawn >= 2000 || got.Drawn != got.Result.Steps || got.Drawn%16 != 0 {
		t.Fatalf("drawn after step %d of %d, want the end of an epoch of 16 steps, at which training ends", got.Drawn, got.Result.Steps)
	}
	n := len(got.Steps)
	if n < 5 || got.Steps[0] != 16 || got.Steps[n-1] != got.Drawn {
		t.Errorf("masks of steps %v", got.Steps)
	}
	for i, row := range got.Distances {
		if want := i == n-1; agree(sub(got.Distances, i+1), 5, 0.1) != want {
			t.Errorf("the masks up to step %d agree: %t", got.Steps[i], !want)
		}
		for j, d := range row {
			if d != got.Distances[j][i] || (i == j) != (d == 0) && i == j || d < 0 || d > 1 {
				t.Errorf("distance of masks %d and %d: %v", i, j, d)
			}
		}
	}
	if kept := got.Masks.Kept(); kept != 80 {
		t.Errorf("%d weights of 160 are kept, want half", kept)
	}

	store, err := experiment.Init(e.Task, 1)
	if err != nil {
		t.Fatal(err)
	}
	plain := e.Training
	plain.Steps, plain.Dir = got.Drawn, ""
	if _, err := experiment.Train(t.Context(), e.Task, store, plain); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{hidden, output} {
		want := tensors.MustCopyFlatData[float32](store.GetVariable(path).MustValue())
		if diff := cmp.Diff(want, floats(t, got.Network, path)); diff != "" {
			t.Errorf("%s (-unwatched +watched):\n%s", path, diff)
		}
		pruned := tensors.MustCopyFlatData[float32](got.Store.GetVariable(path).MustValue())
		for i, alive := range got.Masks[path] {
			if !alive {
				want[i] = 0
			}
		}
		if diff := cmp.Diff(want, pruned); diff != "" {
			t.Errorf("%s pruned (-want +got):\n%s", path, diff)
		}
	}

	// What was drawn is not trained again.
	steps := 0
	e.Training.Progress = func(done, _ int, _ string) { steps = done }
	again, err := e.Draw(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if again.Resumed != got.Drawn || again.Drawn != got.Drawn || steps != 0 {
		t.Errorf("it was taken up at step %d and drawn after %d, training told of step %d; want %d, %d and none", again.Resumed, again.Drawn, steps, got.Drawn, got.Drawn)
	}
	if diff := cmp.Diff([]any{got.Steps, got.Distances, got.Masks}, []any{again.Steps, again.Distances, again.Masks}); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
	// What is left goes on training, and stays as sparse.
	if _, err := experiment.Train(t.Context(), e.Task, again.Store, experiment.Training{Steps: 20, Pruner: again.Pruner}); err != nil {
		t.Error(err)
	}
}

func sub(d [][]float64, n int) [][]float64 {
	part := make([][]float64, n)
	for i := range part {
		part[i] = d[i][:n]
	}
	return part
}

// A draw that is interrupted between two masks goes on with those from before.
func TestInterruptedEarlyBird(t *testing.T) {
	e := bird(t)
	e.Training.Steps, e.Distance, e.Every = 600, 1e-9, 150 // the masks never agree so well
	want, err := e.Draw(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if want.Drawn != 0 || want.Result.Steps != 600 {
		t.Fatalf("drawn after %d of %d steps, want never", want.Drawn, want.Result.Steps)
	}
	e.Training.Dir = t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	e.Training.Watch = func(now report.Progress) {
		if now.Step > 320 {
			cancel()
		}
	}
	var stopped *experiment.InterruptedError
	if _, err := e.Draw(ctx, 1); !errors.As(err, &stopped) {
		t.Fatalf("got %v, want an *experiment.InterruptedError", err)
	}
	e.Training.Watch = nil
	got, err := e.Draw(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got.Resumed != stopped.Step {
		t.Errorf("it went on from step %d, want %d", got.Resumed, stopped.Step)
	}
	if diff := cmp.Diff([]any{want.Steps, want.Distances, want.Masks}, []any{got.Steps, got.Distances, got.Masks}); diff != "" {
		t.Errorf("(-whole +interrupted):\n%s", diff)
	}
}

// Channels by the gain of batch normalisation, which an L1 term pushes towards zero.
func TestSlimming(t *testing.T) {
	gains := func(lambda float64) (sum float64, b *Bird) {
		t.Helper()
		e := bird(t)
		e.Task.Model, e.Training.Steps, e.Training.Epochs = Slimming(normalised, lambda), 200, 0
		e.Recipe = prune.Recipe{Criterion: criterion.Gain, Unit: unit.Filter}
		b, err := e.Draw(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		for v := range b.Store.IterVariables() {
			if v.Name() == "scale" {
				for _, x := range tensors.MustCopyFlatData[float32](v.MustValue()) {
					sum += math.Abs(float64(x))
				}
			}
		}
		return sum, b
	}
	free, _ := gains(0)
	pushed, b := gains(0.05)
	if !(pushed < 0.8*free) {
		t.Errorf("Σ|γ| is %v with the term and %v without", pushed, free)
	}
	if got := b.Masks[hidden]; count(got) != 64 || b.Masks[output] != nil {
		t.Errorf("%d weights of the hidden layer are left, want those of 4 units; of the output layer %v, want it left out", count(got), b.Masks[output])
	}
	for i, row := range b.Distances {
		for j, d := range row {
			if eighths := d * 8; eighths != math.Round(eighths) { // of 8 units
				t.Errorf("distance of masks %d and %d: %v", i, j, d)
			}
		}
	}
}

// Masks at random do not agree with each other, and what is kept on the way fits the network.
func TestRandomEarlyBird(t *testing.T) {
	e := bird(t)
	e.Training.Epochs, e.Training.Steps, e.Every, e.Recipe.Criterion = 0, 40, 5, criterion.Random
	e.Training.Validate, e.Training.KeepBest, e.Training.Keep = 10, true, []int{0, 20}
	b, err := e.Draw(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if b.Drawn != 0 {
		t.Errorf("a ticket is drawn at random after step %d; distances %v", b.Drawn, b.Distances)
	}
	if len(b.Kept) < 2 {
		t.Errorf("%d networks are kept, want those of steps 0 and 20 at least", len(b.Kept))
	}
	for step, kept := range b.Kept {
		if err := experiment.Restore(b.Store, kept); err != nil {
			t.Errorf("the network of step %d: %v", step, err)
		}
	}
}

func TestEarlyBirdRefusals(t *testing.T) {
	var config *experiment.ConfigError
	for what, change := range map[string]func(*EarlyBird){
		"a sparsity of 1":         func(e *EarlyBird) { e.Sparsity = 1 },
		"a negative interval":     func(e *EarlyBird) { e.Every = -1 },
		"a window of 1":           func(e *EarlyBird) { e.Window = 1 },
		"a negative distance":     func(e *EarlyBird) { e.Distance = -1 },
		"a pruner":                func(e *EarlyBird) { e.Training.Pruner = &prune.Pruner{} },
		"weights at the start":    func(e *EarlyBird) { e.Recipe.Criterion = SameSign },
		"too short for one mask":  func(e *EarlyBird) { e.Training.Steps = 10 },
		"two lengths of training": func(e *EarlyBird) { e.Training.Epochs = 1 },
	} {
		e := bird(t)
		change(&e)
		if _, err := e.Draw(t.Context(), 1); !errors.As(err, &config) {
			t.Errorf("%s: got %v, want an *experiment.ConfigError", what, err)
		}
	}
}

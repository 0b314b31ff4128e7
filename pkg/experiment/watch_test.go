package experiment

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

// told is what Watch was told of more than the step.
func told(all []report.Progress) []report.Progress {
	var out []report.Progress
	for _, p := range all {
		if !math.IsNaN(p.Loss) || !math.IsNaN(p.Accuracy) || p.Layers != nil {
			out = append(out, p)
		}
	}
	return out
}

// Who looks on sees the same of a run whether it was interrupted or not, and also when it was finished before.
func TestWatchTellsTheWholeRun(t *testing.T) {
	task := newTask(t)
	run := func(dir string, stopAt, validate int) (seen []report.Progress, w map[string][]float32, result Result, err error) {
		store := newStore(t, task, 1)
		p := newPruner(t, task, store, prune.Recipe{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		result, err = Train(ctx, task, store, Training{
			Steps: 120, Pruner: p, Dir: dir, StepsPerDispatch: 7, Validate: validate,
			Schedule: schedule.Cubic(0, 80, 0, 0.8), When: schedule.Every(20, 20, 90),
			Watch: func(p report.Progress) {
				seen = append(seen, p)
				if stopAt > 0 && p.Step >= stopAt {
					cancel()
				}
			},
		})
		return seen, weights(t, store), result, err
	}
	dir := t.TempDir()
	whole, _, result, err := run("", 0, 30)
	if err != nil {
		t.Fatal(err)
	}
	want := told(whole)
	var steps []int
	accuracies, layers := 0, 0
	for _, p := range want {
		steps = append(steps, p.Step)
		if !math.IsNaN(p.Accuracy) {
			accuracies++
		}
		if p.Layers != nil {
			layers++
		}
		if p.Total != 120 {
			t.Errorf("at step %d the total is %d, want 120", p.Step, p.Total)
		}
	}
	// Losses at 50, 100 and 120, accuracies every 30, pruning every 20 up to 80, and what is left at the start.
	if diff := cmp.Diff([]int{0, 20, 30, 40, 50, 60, 80, 90, 100, 120}, steps); diff != "" || accuracies != 4 || layers != 5 {
		t.Errorf("%d accuracies and %d times layers, want 4 and 5; steps (-want +got):\n%s", accuracies, layers, diff)
	}
	if len(result.Accuracies) != 4 {
		t.Errorf("the result has %d accuracies, want 4", len(result.Accuracies))
	}

	if _, _, _, err := run(dir, 70, 30); !errors.As(err, new(*InterruptedError)) {
		t.Fatalf("got %v, want an *InterruptedError", err)
	}
	near := cmp.Options{cmpopts.EquateApprox(1e-6, 0), cmpopts.EquateNaNs()}
	resumed, _, _, err := run(dir, 0, 30)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, told(resumed), near); diff != "" {
		t.Errorf("a resumed run tells other things (-uninterrupted +resumed):\n%s", diff)
	}
	loaded, measured, again, err := run(dir, 0, 30)
	if err != nil || !again.Loaded {
		t.Fatalf("it was not loaded: %v", err)
	}
	if diff := cmp.Diff(want, told(loaded), near); diff != "" {
		t.Errorf("a loaded run tells other things (-uninterrupted +loaded):\n%s", diff)
	}
	_, unmeasured, _, err := run("", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(unmeasured, measured); diff != "" {
		t.Errorf("measuring changes what is trained (-without +with):\n%s", diff)
	}
}

func TestValidateNeedsData(t *testing.T) {
	task := newTask(t)
	task.Validation = nil
	var bad *ConfigError
	if _, err := Train(t.Context(), task, newStore(t, task, 1), Training{Steps: 1, Validate: 1}); !errors.As(err, &bad) {
		t.Errorf("got %v, want a *ConfigError", err)
	}
}

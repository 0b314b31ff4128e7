package experiment

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"
)

// slow is a data set in batches; in the pass that it is told to, it cancels after the first.
type slow struct {
	of      *points
	pass    int // which is told, from 1; 0: none
	cancel  func()
	passes  int
	batches int // seen in all
}

func (s *slow) Name() string { return "slow" }

func (s *slow) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		s.passes++
		for batch, err := range s.of.batches(0) {
			s.batches++
			if !yield(batch, err) {
				return
			}
			if s.passes == s.pass {
				s.cancel()
			}
		}
	}
}

// TestEvaluateStops: a long evaluation ends with its context, whatever kind of data it is on.
func TestEvaluateStops(t *testing.T) {
	task := newTask(t)
	trainer, err := NewTrainer(task, newStore(t, task, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer trainer.Close()
	ctx, cancel := context.WithCancel(t.Context())
	data := &slow{of: newPoints(100, 16), pass: 1, cancel: cancel}
	if m, err := trainer.Evaluate(ctx, data); !errors.Is(err, context.Canceled) || m != (Metrics{}) {
		t.Errorf("got %v, %v; want nothing and context.Canceled", m, err)
	}
	if data.batches != 2 { // the second is not computed
		t.Errorf("it looked at %d batches after being cancelled in the first", data.batches)
	}
	if _, err := trainer.Evaluate(ctx, task.Validation); !errors.Is(err, context.Canceled) {
		t.Errorf("of data in memory: got %v, want context.Canceled", err)
	}
	if _, err := trainer.EvaluateFolds(ctx, task.Validation, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("of folds: got %v, want context.Canceled", err)
	}
}

// TestInterruptWhileValidating: what was trained is saved, and what the validation would have told, and kept, is told when the run goes on.
func TestInterruptWhileValidating(t *testing.T) {
	task := newTask(t)
	run := func(dir string, pass int) (map[string][]float32, Result, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		own := task
		own.Validation = &slow{of: newPoints(100, 16), pass: pass, cancel: cancel}
		store := newStore(t, own, 1)
		result, err := Train(ctx, own, store, Training{Steps: 50, Validate: 10, KeepBest: true, Keep: []int{10, 50}, Dir: dir})
		return weights(t, store), result, err
	}
	want, whole, err := run("", 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// After step 10; again there; after 30; and after the last step, 50, when nothing is left to train.
	for i, stop := range []struct{ pass, at int }{{1, 10}, {1, 10}, {3, 30}, {3, 50}} {
		_, result, err := run(dir, stop.pass)
		var stopped *InterruptedError
		if !errors.As(err, &stopped) || stopped.Step != stop.at || !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupt %d: got %v, want an *InterruptedError at step %d", i, err, stop.at)
		}
		if result.Loaded {
			t.Errorf("interrupt %d: it was taken for finished", i)
		}
	}
	got, result, err := run(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if result.Resumed != 50 || result.Loaded {
		t.Errorf("resumed at %d, loaded %t; want at 50, with the validation that was missing", result.Resumed, result.Loaded)
	}
	_, loaded, err := run(dir, 0)
	if err != nil || !loaded.Loaded {
		t.Fatalf("afterwards it is not finished: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("weights (-uninterrupted +resumed):\n%s", diff)
	}
	for name, r := range map[string]Result{"resumed": result, "loaded": loaded} {
		if diff := cmp.Diff(whole.Accuracies, r.Accuracies); diff != "" {
			t.Errorf("accuracies (-uninterrupted +%s):\n%s", name, diff)
		}
		if diff := cmp.Diff(whole.ValidationLosses, r.ValidationLosses); diff != "" {
			t.Errorf("validation losses (-uninterrupted +%s):\n%s", name, diff)
		}
		if diff := cmp.Diff(content(whole.Kept), content(r.Kept)); diff != "" || whole.Best != r.Best {
			t.Errorf("kept (-uninterrupted +%s), best %d and %d:\n%s", name, whole.Best, r.Best, diff)
		}
	}
}

package experiment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

// everything is the content of a store, what the optimizer keeps included.
func everything(t *testing.T, store *model.Store) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, v := range sorted(store) {
		if err := v.MustValue().ConstBytes(func(data []byte) { all[v.Path()] = slices.Clone(data) }); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// several are runs that differ in what runs of a task can differ in; each call makes them anew. Two share an optimizer.
func several(t *testing.T, task Task, dir string) []Run {
	t.Helper()
	adam := optimizer.Adam().LearningRate(0.01).Done()
	var runs []Run
	for seed := range int64(3) {
		store := newStore(t, task, seed)
		trainer, err := NewTrainer(task, store)
		if err != nil {
			t.Fatal(err)
		}
		training := Training{Steps: 130, Seed: seed, Optimizer: adam, Dir: dir}
		switch seed {
		case 1:
			training.Pruner = newPruner(t, task, store, prune.Recipe{Criterion: criterion.Taylor})
			training.Schedule, training.When, training.Batches = schedule.Cubic(0, 100, 0, 0.8), schedule.Every(50, 50, 100), 2
		case 2:
			training.Optimizer, training.Rate, training.Steps, training.Validate = &SGD{LearningRate: 0.1, Momentum: 0.9}, CosineDecay, 95, 40
		}
		runs = append(runs, Run{trainer, training})
	}
	return runs
}

// Sums of losses are rounded at the end of each dispatch, and how many steps those have is a matter of the machine's speed.
var rounded = cmpopts.EquateApprox(1e-6, 0)

// Runs that are trained together end with the bits of those that are trained alone, and are told the same on the way.
func TestTogetherIsAsAlone(t *testing.T) {
	task := newTask(t)
	task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node { // draws random numbers
		return mlp(scope, layers.DropoutStatic(scope, x, 0.1))
	}
	alone, together := several(t, task, ""), several(t, task, "")
	watched := map[string][]report.Progress{}
	for i := range alone {
		for kind, r := range map[string]*Run{"alone": &alone[i], "together": &together[i]} {
			key := fmt.Sprint(kind, i)
			r.Training.Watch = func(p report.Progress) { watched[key] = append(watched[key], p) } // no lock: functions are called one at a time
		}
	}
	var want []Result
	for _, r := range alone {
		result, err := r.Trainer.Train(t.Context(), r.Training)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, result)
	}
	got, err := TrainTogether(t.Context(), together...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, rounded); diff != "" {
		t.Errorf("results (-alone +together):\n%s", diff)
	}
	for i := range alone {
		if diff := cmp.Diff(everything(t, alone[i].Trainer.store), everything(t, together[i].Trainer.store)); diff != "" {
			t.Errorf("store %d (-alone +together):\n%.1000s", i, diff)
		}
		events := func(kind string) []report.Progress { return told(watched[fmt.Sprint(kind, i)]) }
		if diff := cmp.Diff(events("alone"), events("together"), cmpopts.EquateNaNs(), rounded); diff != "" {
			t.Errorf("run %d was told (-alone +together):\n%s", i, diff)
		}
	}
	// A trainer that was among others may go on alone.
	if _, err := together[0].Trainer.Train(t.Context(), together[0].Training); err != nil {
		t.Error(err)
	}
}

// A run that was begun among others goes on alone, and the other way round. One that fails does not stop the others.
func TestTogetherResumes(t *testing.T) {
	task := newTask(t)
	whole := several(t, task, "")
	diverging := several(t, task, "")[0]
	diverging.Training.Optimizer = &SGD{LearningRate: 1e30}
	_, err := TrainTogether(t.Context(), whole[0], diverging, whole[1], whole[2])
	var failed *RunsError
	var diverged *DivergedError
	if !errors.As(err, &failed) || failed.Interrupted() || !errors.As(failed.Errs[1], &diverged) || len(failed.Unwrap()) != 1 {
		t.Fatalf("%v, expected that run 1 diverges, and nothing else", err)
	}
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun := several(t, task, dir)
	for i := range begun {
		begun[i].Training.SaveEvery = time.Hour
		begun[i].Training.Progress = func(done, _ int, _ string) {
			if done >= 50 {
				stop()
			}
		}
	}
	results, err := TrainTogether(ctx, begun...)
	var runs *RunsError
	if !errors.As(err, &runs) || !runs.Interrupted() || !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	again := several(t, task, dir)
	resume := func(train func() ([]Result, error), which ...int) {
		t.Helper()
		resumed, err := train()
		if err != nil {
			t.Fatal(err)
		}
		for j, i := range which {
			if resumed[j].Resumed != results[i].Steps {
				t.Errorf("run %d went on from step %d, want %d, where it was interrupted", i, resumed[j].Resumed, results[i].Steps)
			}
			if diff := cmp.Diff(everything(t, whole[i].Trainer.store), everything(t, again[i].Trainer.store)); diff != "" {
				t.Errorf("store %d (-whole +in parts):\n%.1000s", i, diff)
			}
		}
	}
	resume(func() ([]Result, error) {
		r, err := again[1].Trainer.Train(t.Context(), again[1].Training)
		return []Result{r}, err
	}, 1)
	resume(func() ([]Result, error) { return TrainTogether(t.Context(), again[0], again[2]) }, 0, 2)
}

func TestTogetherRefuses(t *testing.T) {
	task := newTask(t)
	runs := several(t, task, "")
	var config *ConfigError
	if _, err := TrainTogether(t.Context(), runs[0], Run{}); !errors.As(err, &config) {
		t.Errorf("no trainer: %v", err)
	}
	other, err := NewTrainer(task, runs[0].Trainer.store)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TrainTogether(t.Context(), runs[0], runs[1], Run{Trainer: other, Training: Training{Steps: 1}}); !errors.As(err, &config) {
		t.Errorf("one store twice: %v", err)
	}
	if results, err := TrainTogether(t.Context()); err != nil || len(results) != 0 {
		t.Errorf("no runs: %v, %v", results, err)
	}
}

// A panic of a function of the caller's comes out where it can be caught, and the others have ended by then.
func TestTogetherPanics(t *testing.T) {
	task := newTask(t)
	runs := several(t, task, "")[:2]
	done := 0
	runs[0].Training.Progress = func(int, int, string) { panic("mine") }
	runs[1].Training.Progress = func(n, _ int, _ string) { done = n }
	defer func() {
		if p := recover(); p != "mine" || done != runs[1].Training.Steps {
			t.Errorf("recovered %v, when the other run had done %d steps", p, done)
		}
	}()
	_, _ = TrainTogether(t.Context(), runs...)
}

// A data set that hands out epochs to whoever asks hands them out in the order of the runs.
func TestTogetherOverStreams(t *testing.T) {
	task := newTask(t)
	task.Train, task.Validation = streamed{newPoints(64, 16)}.plain(), nil
	train := func(together bool) (all []map[string][]float32) {
		var runs []Run
		for seed := range int64(2) {
			trainer, err := NewTrainer(task, newStore(t, task, seed))
			if err != nil {
				t.Fatal(err)
			}
			runs = append(runs, Run{trainer, Training{Steps: 10, Seed: seed}})
		}
		if together {
			if _, err := TrainTogether(t.Context(), runs...); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range runs {
			if !together {
				if _, err := r.Trainer.Train(t.Context(), r.Training); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, weights(t, r.Trainer.store))
		}
		return all
	}
	if diff := cmp.Diff(train(false), train(true)); diff != "" {
		t.Errorf("(-alone +together):\n%s", diff)
	}
}

// Who gets the turn while another run computes finds its arguments on the device: GoMLX looks at a tensor without its lock, and one that is just being brought there is nowhere.
func TestArgumentsAreBroughtBeforeTheTurnIsGiven(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	if !b.HasSharedBuffers() {
		t.Skip("this backend has no buffers that it shares with the host, so tensors are never nowhere")
	}
	exec, err := model.NewExec(b, model.NewStore(), func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.ReduceAllSum(x) })
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	x := tensors.FromShape(shapes.Make(dtypes.Float32, 16<<20)) // it takes milliseconds to bring
	var mu sync.Mutex
	mu.Lock()
	there := make(chan bool, 1)
	go func() {
		mu.Lock()
		defer mu.Unlock()
		there <- x.IsShared()
	}()
	time.Sleep(time.Millisecond) // the other waits
	results, err := turn{&mu}.call(b, exec, x)
	if err != nil {
		t.Fatal(err)
	}
	if !<-there {
		t.Error("the turn was given away before the argument was on the device")
	}
	if got := results[0].Value().(float32); got != 0 {
		t.Errorf("the sum is %v, want 0", got)
	}
}

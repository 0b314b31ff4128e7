package experiment

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/store/checkpoint"
)

// childDir names the directory in which TestKilledChild trains.
const childDir = "ESPALIER_TEST_DIR"

// kills is how often TestKill kills.
func kills() int {
	if full() {
		return 200
	}
	return 4
}

func killableSteps() int { return max(3000, 400*kills()) }

// killable is a run that prunes as it goes, keeps networks, and saves as often as it can.
func killable(t *testing.T, dir string) (*model.Store, Result) {
	t.Helper()
	task := newTask(t)
	store := newStore(t, task, 1)
	p := newPruner(t, task, store, prune.Recipe{Criterion: criterion.Magnitude})
	result, err := Train(t.Context(), task, store, Training{
		Steps: killableSteps(), Dir: dir, SaveEvery: time.Nanosecond, Pruner: p, Rate: LinearDecay,
		Validate: 300, KeepBest: true, Keep: []int{0, 333},
		Schedule: schedule.Cubic(0, 2000, 0, 0.8), When: schedule.Every(100, 100, 2000),
	})
	if err != nil {
		t.Fatal(err)
	}
	return store, result
}

// TestKilledChild is no test of its own: TestKill runs it as another process.
func TestKilledChild(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		killable(t, dir)
	}
}

// A run that is killed again and again, at random places, goes on each time and ends with the same bits as one that is not.
func TestKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)) // other places each time
	newest := func() int {
		runs, _ := filepath.Glob(filepath.Join(dir, "*"))
		if len(runs) == 0 {
			return 0
		}
		if len(runs) > 1 {
			t.Fatalf("the same run under several names: %v", runs)
		}
		steps, err := checkpoint.Dir{Path: runs[0]}.Steps()
		if err != nil || len(steps) == 0 {
			return 0
		}
		return steps[0]
	}
	for kill := range kills() {
		before := newest()
		child := exec.Command(self, "-test.run=^TestKilledChild$")
		child.Env = append(os.Environ(), childDir+"="+dir)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- child.Wait() }()
		goal := before + 50*(1+rng.IntN(10))
	wait:
		for newest() < goal {
			select {
			case <-ended:
				break wait
			case <-time.After(time.Millisecond):
			}
		}
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
		_ = child.Process.Kill() // it may have ended
		<-ended
		if newest() <= before {
			t.Fatalf("after %d kills the run is at step %d, and was at %d before", kill+1, newest(), before)
		}
	}
	at := newest()
	store, result := killable(t, dir)
	if result.Resumed < at-50 || result.Resumed == 0 {
		t.Errorf("resumed at %d, want %d or the one before", result.Resumed, at)
	}
	want, whole := killable(t, "")
	if diff := cmp.Diff(weights(t, want), weights(t, store)); diff != "" {
		t.Errorf("the killed run differs (-whole +killed):\n%s", diff)
	}
	if diff := cmp.Diff(content(whole.Kept), content(result.Kept)); diff != "" || result.Best != whole.Best || len(whole.Kept) < 2 {
		t.Errorf("what it kept differs (-whole +killed):\n%s", diff)
	}
	if diff := cmp.Diff(whole.ValidationLosses, result.ValidationLosses); diff != "" {
		t.Errorf("its validation losses differ (-whole +killed):\n%s", diff)
	}
	if litter, _ := filepath.Glob(filepath.Join(dir, "*", ".saving-*")); len(litter) > 0 {
		t.Errorf("left behind: %v", litter)
	}
}

// No run can be saved below a file, and nothing is lost by the attempt.
func TestSaveFails(t *testing.T) {
	task := newTask(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Train(t.Context(), task, newStore(t, task, 1), Training{Steps: 1, Dir: file})
	var failed *SaveError
	if !errors.As(err, &failed) {
		t.Errorf("got %v, want a *SaveError", err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "mine" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}

func TestOneTrainsARunAtATime(t *testing.T) {
	task := newTask(t)
	dir := t.TempDir()
	var inner error
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Train(ctx, task, newStore(t, task, 1), Training{Steps: 200, Dir: dir, Progress: func(int, int, string) {
		if inner == nil {
			_, inner = Train(t.Context(), task, newStore(t, task, 1), Training{Steps: 200, Dir: dir})
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it interrupted", err)
	}
	var busy *BusyError
	if !errors.As(inner, &busy) {
		t.Errorf("the second got %v, want a *BusyError", inner)
	}
	if _, result := trained(t, task, Training{Steps: 200, Dir: dir}); result.Resumed == 0 {
		t.Error("the first run was not resumed")
	}
}

// A run is told from others by what it computes, on what and how; not by where it is saved or how it is dispatched.
func TestRunsAreToldApart(t *testing.T) {
	name := func(change func(task *Task, tr *Training)) string {
		t.Helper()
		task := newTask(t)
		task.Backend = gobackend.GetBackend() // which compiles nothing
		tr := Training{Steps: 4, Dir: t.TempDir(), Optimizer: optimizer.Adam().LearningRate(1e-3).Done()}
		change(&task, &tr)
		_, result := trained(t, task, tr)
		return filepath.Base(result.Dir)
	}
	same := name(func(*Task, *Training) {})
	for what, change := range map[string]func(task *Task, tr *Training){
		"nothing":                   func(*Task, *Training) {},
		"Training.StepsPerDispatch": func(_ *Task, tr *Training) { tr.StepsPerDispatch = 3 },
		"Training.SaveEvery":        func(_ *Task, tr *Training) { tr.SaveEvery = time.Nanosecond },
		"the default, written out":  func(_ *Task, tr *Training) { tr.Optimizer = nil },
	} {
		if got := name(change); got != same {
			t.Errorf("%s names another run", what)
		}
	}
	seen := map[string]string{same: "the run that is compared with"}
	for what, change := range map[string]func(task *Task, tr *Training){
		"Training.Steps":      func(_ *Task, tr *Training) { tr.Steps = 5 },
		"Training.Seed":       func(_ *Task, tr *Training) { tr.Seed = 1 },
		"Training.Name":       func(_ *Task, tr *Training) { tr.Name = "other" },
		"Training.Rate":       func(_ *Task, tr *Training) { tr.Rate = LinearDecay },
		"Training.Keep":       func(_ *Task, tr *Training) { tr.Keep = []int{2} },
		"Training.KeepBest":   func(_ *Task, tr *Training) { tr.KeepBest, tr.Validate = true, 2 },
		"Training.Validate":   func(_ *Task, tr *Training) { tr.Validate = 2 },
		"another Validate":    func(_ *Task, tr *Training) { tr.Validate = 1 },
		"the validation data": func(task *Task, tr *Training) { tr.Validate, task.Validation = 2, newPoints(240, 16) },
		"the learning rate":   func(_ *Task, tr *Training) { tr.Optimizer = optimizer.Adam().LearningRate(1e-2).Done() },
		"the weight decay": func(_ *Task, tr *Training) {
			tr.Optimizer = optimizer.Adam().LearningRate(1e-3).WeightDecay(0.1).Done()
		},
		"Adam's betas": func(_ *Task, tr *Training) {
			tr.Optimizer = optimizer.Adam().LearningRate(1e-3).Betas(0.8, 0.99).Done()
		},
		"the optimizer": func(_ *Task, tr *Training) { tr.Optimizer = optimizer.StochasticGradientDescent().Done() },
		"the data":      func(task *Task, _ *Training) { task.Train = newPoints(255, 16) },
		"the batch":     func(task *Task, _ *Training) { task.Train = newPoints(256, 8) },
		"the activation": func(task *Task, _ *Training) {
			task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
				x = activation.Gelu(layers.Dense(scope.At("fc1"), x, true, 16))
				return layers.Dense(scope.At("output"), x, true, 4)
			}
		},
		"the loss": func(task *Task, _ *Training) {
			task.Loss = func(labels, predictions []*graph.Node) *graph.Node {
				return graph.ReduceAllMean(graph.Square(graph.Sub(predictions[0], graph.ConvertDType(labels[0], predictions[0].DType()))))
			}
		},
	} {
		got := name(change)
		if other, found := seen[got]; found {
			t.Errorf("%s: the same name as %s", what, other)
		}
		seen[got] = what
	}
}

// A training that prunes by a criterion is told from one by another of the same name.
func TestCodeTellsTrainingsApart(t *testing.T) {
	task, dir := newTask(t), t.TempDir()
	loaded := func(sign float64) bool {
		store := newStore(t, task, 1)
		p := newPruner(t, task, store, prune.Recipe{Criterion: criterion.Criterion{Name: "mine", Score: func(in criterion.Inputs) *graph.Node {
			return graph.MulScalar(graph.Abs(in.Weight), sign)
		}}})
		result, err := Train(t.Context(), task, store, Training{Steps: 4, Dir: dir, Pruner: p, Schedule: func(int) float64 { return 0.5 }, When: func(step int) bool { return step == 2 }})
		if err != nil {
			t.Fatal(err)
		}
		return result.Loaded
	}
	for i, c := range []struct {
		sign float64
		want bool
	}{{1, false}, {1, true}, {-1, false}, {1, true}} {
		if got := loaded(c.sign); got != c.want {
			t.Errorf("training %d, by %+g times the magnitude: loaded is %t, want %t", i, c.sign, got, c.want)
		}
	}
}

// NaN and infinities are found wherever they are, and numbers of any size are none.
func TestFinite(t *testing.T) {
	for n := range 10 {
		values := make([]float32, n)
		for i := range values {
			values[i] = []float32{math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, 0}[i%4]
		}
		if !finite(values) {
			t.Errorf("%v are all numbers", values)
		}
		for i := range values {
			for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				was := values[i]
				values[i] = float32(bad)
				if finite(values) {
					t.Errorf("%v are not all numbers", values)
				}
				values[i] = was
			}
		}
	}
}

// A trainer's second training starts as one by a new trainer does, whose optimizer has never seen the network.
func TestSecondTrainingStartsAfresh(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	tr, err := NewTrainer(task, store)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	rate := func(done float64) float64 { return 1 - done }
	if _, err := tr.Train(t.Context(), Training{Steps: 60, Rate: rate}); err != nil {
		t.Fatal(err)
	}
	between, err := Snapshot(store)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Train(t.Context(), Training{Steps: 60, Rate: rate}); err != nil {
		t.Fatal(err)
	}
	other := newStore(t, task, 2)
	for path := range between {
		if other.GetVariable(path) == nil { // the optimizer's
			delete(between, path)
		}
	}
	if err := Restore(other, between); err != nil {
		t.Fatal(err)
	}
	if _, err := Train(t.Context(), task, other, Training{Steps: 60, Rate: rate}); err != nil {
		t.Fatal(err)
	}
	want, err := Snapshot(other)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Snapshot(store)
	if err != nil {
		t.Fatal(err)
	}
	for path, value := range want {
		if !value.Equal(got[path]) {
			t.Errorf("%s differs", path)
		}
	}
}

package experiment

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/prune"
)

// content is what networks that are kept hold.
func content(kept map[int]Values) map[int]map[string]any {
	all := map[int]map[string]any{}
	for step, values := range kept {
		all[step] = map[string]any{}
		for path, value := range values {
			all[step][path] = value.Value()
		}
	}
	return all
}

// The best network is that of the step of the least validation loss, and those that are asked for are what shorter runs end with.
func TestKeptNetworks(t *testing.T) {
	task := newTask(t)
	// The rate is so large that the loss goes up and down.
	fast := optimizer.Adam().LearningRate(0.3).Done()
	dir := t.TempDir()
	whole := Training{Steps: 137, Optimizer: fast, Validate: 7, KeepBest: true, Keep: []int{0, 20, 23}, Dir: dir}
	store, result := trained(t, task, whole)

	var steps []int
	least := Point{Value: math.Inf(1)}
	for i, p := range result.ValidationLosses {
		if p.Step != result.Accuracies[i].Step {
			t.Errorf("loss %d is of step %d, the accuracy of %d", i, p.Step, result.Accuracies[i].Step)
		}
		if steps = append(steps, p.Step); p.Value < least.Value {
			least = p
		}
	}
	if len(steps) != 20 || steps[0] != 7 || steps[18] != 133 || steps[19] != 137 {
		t.Errorf("measured after steps %v, want every 7 and 137", steps)
	}
	if result.Best != least.Step || least.Step == 137 {
		t.Errorf("the best step is %d, want %d, before the end", result.Best, least.Step)
	}
	want := []int{0, 20, 23, least.Step}
	slices.Sort(want)
	var got []int
	for step := range result.Kept {
		got = append(got, step)
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("kept steps (-want +got):\n%s", diff)
	}
	for _, step := range got {
		start := newStore(t, task, 1)
		if step > 0 {
			short := whole
			short.Steps, short.KeepBest, short.Keep, short.Dir = step, false, nil, ""
			start, _ = trained(t, task, short)
		}
		if err := Restore(store, result.Kept[step]); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(weights(t, start), weights(t, store)); diff != "" {
			t.Errorf("step %d (-a run of as many steps +kept):\n%s", step, diff)
		}
	}
	if err := Restore(store, result.Kept[result.Best]); err != nil {
		t.Fatal(err)
	}
	if m, err := Evaluate(t.Context(), task, store, task.Validation); err != nil || m.Loss != least.Value {
		t.Errorf("the best network has validation loss %v, want %v (%v)", m.Loss, least.Value, err)
	}

	again, loaded := trained(t, task, whole)
	if !loaded.Loaded || loaded.Best != result.Best {
		t.Errorf("loaded %t, best step %d, want %d", loaded.Loaded, loaded.Best, result.Best)
	}
	if diff := cmp.Diff(content(result.Kept), content(loaded.Kept)); diff != "" {
		t.Errorf("kept (-trained +loaded):\n%s", diff)
	}
	bare := newStore(t, task, 2)
	if _, err := Load(result.Dir, bare); err != nil {
		t.Fatal(err)
	}
	for _, s := range sorted(bare) {
		if s.Path()[:2] == "/k" {
			t.Errorf("the store holds %s after loading", s.Path())
		}
	}
	if diff := cmp.Diff(weights(t, again), weights(t, bare)); diff != "" {
		t.Errorf("(-loaded by Train +loaded by Load):\n%s", diff)
	}
}

// What is kept holds masks, and none of what the optimizer has.
func TestKeptNetworksAreWithoutOptimizer(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	p := newPruner(t, task, store, prune.Recipe{})
	if _, err := p.Prune(0.5, nil); err != nil {
		t.Fatal(err)
	}
	result, err := Train(t.Context(), task, store, Training{Steps: 3, Keep: []int{2}, Pruner: p})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for path := range result.Kept[2] {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	want := []string{"/fc1/dense/biases", "/fc1/dense/weights", "/output/dense/biases", "/output/dense/weights", "/pruning/mask/fc1/dense/weights", "/pruning/mask/output/dense/weights"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKeepingIsRefused(t *testing.T) {
	task := newTask(t)
	for what, tr := range map[string]Training{
		"a negative step":          {Steps: 5, Keep: []int{-1}},
		"a step after the end":     {Steps: 5, Keep: []int{6}},
		"the best of none":         {Steps: 5, KeepBest: true},
		"validation data, missing": {Steps: 5, KeepBest: true, Validate: 1},
	} {
		own := task
		own.Validation = nil
		var wrong *ConfigError
		if _, err := Train(t.Context(), own, newStore(t, task, 1), tr); !errors.As(err, &wrong) {
			t.Errorf("%s: got %v, want a *ConfigError", what, err)
		}
	}
}

func TestInitializers(t *testing.T) {
	for _, test := range []struct {
		name   string
		start  Initializer
		in, to int
		want   float64
	}{{"He", HeNormal, 200, 56, 0.1}, {"Glorot", GlorotNormal, 300, 100, math.Sqrt(2.0 / 400)}} {
		draw := test.start(test.in, test.to, rand.New(rand.NewPCG(1, 2)))
		const n = 20_000
		sum, squares := 0.0, 0.0
		for range n {
			x := draw()
			sum, squares = sum+x, squares+x*x
		}
		// Four standard errors.
		if mean := sum / n; math.Abs(mean) > 4*test.want/math.Sqrt(n) {
			t.Errorf("%s: mean %v", test.name, mean)
		}
		if got := math.Sqrt(squares / n); math.Abs(got-test.want) > 4*test.want/math.Sqrt(2*n) {
			t.Errorf("%s: deviation %v, want %v", test.name, got, test.want)
		}
	}
	task := newTask(t)
	he := weights(t, newStore(t, task, 1))
	task.Start = GlorotNormal
	glorot := weights(t, newStore(t, task, 1))
	for path, fans := range map[string][2]float64{"/fc1/dense/weights": {2, 16}, "/output/dense/weights": {16, 4}} {
		ratio := math.Sqrt(fans[0] / (fans[0] + fans[1])) // of the same draws
		if want := int(fans[0] * fans[1]); len(he[path]) != want {
			t.Fatalf("%s has %d values, want %d", path, len(he[path]), want)
		}
		for i, x := range he[path] {
			if got, want := float64(glorot[path][i]), ratio*float64(x); math.Abs(got-want) > 1e-6 {
				t.Fatalf("%s[%d] is %v, want %v", path, i, got, want)
			}
		}
	}
}

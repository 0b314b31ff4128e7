package main

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/report"
)

func open(t *testing.T) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// By hand: an image of two channels, 4x4, whose second channel is 100 more, as it is; mirrored; cut one further down and two further right; and mirrored, then cut one further up and one further left.
func TestMoved(t *testing.T) {
	image := []float32{
		1, 2, 3, 4,
		5, 6, 7, 8,
		9, 10, 11, 12,
		13, 14, 15, 16}
	want := [][]float32{
		image,
		{4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13},
		{7, 8, 0, 0, 11, 12, 0, 0, 15, 16, 0, 0, 0, 0, 0, 0},
		{0, 0, 0, 0, 0, 4, 3, 2, 0, 8, 7, 6, 0, 12, 11, 10},
	}
	channels := func(plane []float32) (both []float32) {
		for _, x := range plane {
			second := x + 100
			if x == 0 {
				second = 0
			}
			both = append(both, x, second)
		}
		return both
	}
	var batch []float32
	for range want {
		batch = append(batch, channels(image)...)
	}
	exec, err := graph.NewExec(open(t), moved)
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.Call(tensors.FromFlatDataAndDimensions(batch, 4, 4, 4, 2), []bool{false, true, false, true}, []int32{0, 0, 1, -1}, []int32{0, 0, 2, -1})
	if err != nil {
		t.Fatal(err)
	}
	flat, err := tensors.CopyFlatData[float32](got[0])
	if err != nil {
		t.Fatal(err)
	}
	for i, plane := range want {
		if diff := cmp.Diff(channels(plane), flat[32*i:32*(i+1)]); diff != "" {
			t.Errorf("image %d (-want +got)\n%s", i, diff)
		}
	}
}

// Of 9,000 images half are mirrored, and each shift from −4 to 4 comes a thousand times: within five standard deviations.
func TestMoves(t *testing.T) {
	store := model.NewStore()
	store.RootScope().SetParam(model.ParamInitialSeed, int64(1))
	exec, err := model.NewExec(open(t), store, func(scope *model.Scope, x *graph.Node) []*graph.Node {
		mirror, down, right := moves(scope, x)
		return []*graph.Node{graph.ConvertDType(mirror, dtypes.Int32), down, right}
	})
	if err != nil {
		t.Fatal(err)
	}
	drawn := func() (all [3][]int32) {
		results, err := exec.Call(tensors.FromShape(shapes.Make(dtypes.Float32, 9000, 1)))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if all[i], err = tensors.CopyFlatData[int32](r); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	first := drawn()
	for i, xs := range first {
		counts, low, n := map[int32]int{}, int32(-padding), 9
		if i == 0 {
			low, n = 0, 2
		}
		for _, x := range xs {
			counts[x]++
		}
		if len(counts) != n {
			t.Errorf("draw %d has %d values, want %d", i, len(counts), n)
		}
		for k := range n {
			p := 1 / float64(n)
			if count := counts[low+int32(k)]; math.Abs(float64(count)-9000*p) > 5*math.Sqrt(9000*p*(1-p)) {
				t.Errorf("draw %d: %d is there %d times of 9000, want about %.0f", i, low+int32(k), count, 9000*p)
			}
		}
	}
	if cmp.Equal(first, drawn()) {
		t.Error("the same is drawn twice")
	}
}

// linear is a network whose steps run many in a dispatch.
func linear(s *model.Scope, x *graph.Node) *graph.Node {
	return layers.Dense(s.At("output"), graph.Reshape(x, x.Shape().Dimensions[0], -1), true, 10)
}

// A training on moved images is another than on images as they are; it depends on its seed alone, not on how many steps run in a dispatch nor on whether it was interrupted. Evaluation is that of the
// network inside.
func TestCropAndFlip(t *testing.T) {
	data, err := synth.Digits(synth.Config{Train: 128, Validation: 16, Test: 16, Batch: 8})
	if err != nil {
		t.Fatal(err)
	}
	of := func(fn experiment.ModelFn) experiment.Task {
		return experiment.Task{Backend: open(t), Model: fn, Train: data.Train, Validation: data.Validation}
	}
	plain, task := of(linear), of(cropAndFlip(linear))
	p := plan{90, 0.05, 1e-4}
	optimizer := p.training(p.steps, 0, "").Optimizer // with one, a trainer compiles once
	// learner returns a function that trains a network and returns its weights. If it is to be interrupted, it is in the midst, and goes on.
	learner := func(task experiment.Task, perDispatch int) func(seed int64, interrupt bool) []float32 {
		store, err := experiment.Init(task, 1)
		if err != nil {
			t.Fatal(err)
		}
		start, err := experiment.Snapshot(store)
		if err != nil {
			t.Fatal(err)
		}
		trainer, err := experiment.NewTrainer(task, store)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(trainer.Close)
		return func(seed int64, interrupt bool) []float32 {
			t.Helper()
			training := p.training(p.steps, seed, t.TempDir())
			training.Optimizer, training.StepsPerDispatch = optimizer, perDispatch
			if interrupt {
				ctx, cancel := context.WithCancel(t.Context())
				training.Watch = func(now report.Progress) {
					if now.Step > 1 {
						cancel()
					}
				}
				if err := experiment.Restore(store, start); err != nil {
					t.Fatal(err)
				}
				var interrupted *experiment.InterruptedError
				if _, err := trainer.Train(ctx, training); !errors.As(err, &interrupted) || interrupted.Step < 2 || interrupted.Step >= p.steps {
					t.Fatalf("want an interruption in the midst: %v", err)
				}
				training.Watch = nil
			}
			if err := experiment.Restore(store, start); err != nil {
				t.Fatal(err)
			}
			result, err := trainer.Train(t.Context(), training)
			if err != nil || result.Steps != p.steps || (result.Resumed > 0) != interrupt {
				t.Fatalf("%+v, %v", result, err)
			}
			value, err := store.GetVariable("/output/dense/weights").Value()
			if err != nil {
				t.Fatal(err)
			}
			flat, err := tensors.CopyFlatData[float32](value)
			if err != nil {
				t.Fatal(err)
			}
			return flat
		}
	}
	loop, single := learner(task, 0), learner(task, 1)
	once := loop(7, false)
	for _, c := range []struct {
		name string
		got  []float32
		same bool
	}{
		{"again", loop(7, false), true},
		{"one step a dispatch", single(7, false), true},
		{"interrupted", loop(7, true), true},
		{"interrupted, one step a dispatch", single(7, true), true},
		{"another seed", loop(8, false), false},
		{"images as they are", learner(plain, 0)(7, false), false},
	} {
		far := 0.0
		for i, x := range c.got {
			far = math.Max(far, math.Abs(float64(x-once[i])))
		}
		if (far < 1e-6) != c.same {
			t.Errorf("%s: weights differ by up to %g", c.name, far)
		}
	}

	store, err := experiment.Init(task, 1)
	if err != nil {
		t.Fatal(err)
	}
	want, err := experiment.Evaluate(t.Context(), plain, store, data.Validation)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := experiment.Evaluate(t.Context(), task, store, data.Validation); err != nil || got != want {
		t.Errorf("evaluated to %+v, the network inside to %+v (%v)", got, want, err)
	}
}

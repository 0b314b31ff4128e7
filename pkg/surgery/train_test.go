package surgery_test

import (
	"bytes"
	"context"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/store/checkpoint"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// quadrants is a Resident data set: points in the plane, labelled by their quadrant.
type quadrants struct{ inputs, labels *tensors.Tensor }

const points, batch = 256, 16

func newQuadrants() *quadrants {
	rng := rand.New(rand.NewPCG(7, 7))
	x, y := make([]float32, 2*points), make([]int32, points)
	for i := range points {
		x[2*i], x[2*i+1] = 2*rng.Float32()-1, 2*rng.Float32()-1
		if x[2*i] > 0 {
			y[i]++
		}
		if x[2*i+1] > 0 {
			y[i] += 2
		}
	}
	return &quadrants{tensors.FromFlatDataAndDimensions(x, points, 2), tensors.FromFlatDataAndDimensions(y, points)}
}

func (q *quadrants) Name() string                             { return "quadrants" }
func (q *quadrants) Arrays() (inputs, labels *tensors.Tensor) { return q.inputs, q.labels }
func (q *quadrants) Batch() int                               { return batch }
func (q *quadrants) Decode(x *graph.Node) *graph.Node         { return x }
func (q *quadrants) Order(epoch int) []int32 {
	order := make([]int32, points)
	for i, j := range rand.New(rand.NewPCG(1, uint64(epoch))).Perm(points) {
		order[i] = int32(j)
	}
	return order
}
func (q *quadrants) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		x, y := tensors.MustCopyFlatData[float32](q.inputs), tensors.MustCopyFlatData[int32](q.labels)
		for at := 0; at < points; at += batch {
			b := train.Batch{Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(x[2*at:2*(at+batch)], batch, 2)},
				Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(y[at:at+batch], batch, 1)}}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// streamed hides that a data set is resident.
type streamed struct{ train.Dataset }

// perceptron has what training adds: averages that are updated, random numbers, a regulariser.
func perceptron(scope *model.Scope, x *graph.Node) *graph.Node {
	for _, name := range []string{"fc1", "fc2"} {
		x = activation.Relu(norm.BatchNorm(scope.At("%s", name), layers.Dense(scope.At("%s", name), x, true, 32), -1).Done())
		x = layers.DropoutStatic(scope.At("%s", name), x, 0.05)
	}
	train.AddRegularizationLoss(graph.MulScalar(graph.ReduceAllSum(graph.Square(x)), 1e-7))
	return layers.Dense(scope.At("output"), x, true, 4)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A network is trained, loses units by a criterion that needs data, goes on training in each of experiment's ways, is saved, and is built again from what was saved.
func TestTrainPlanApplyTrainRebuild(t *testing.T) {
	b, err := backend.Open()
	check(t, err)
	data := newQuadrants()
	task := experiment.Task{Backend: b, Model: perceptron, Train: data}
	store, err := experiment.Init(task, 1)
	check(t, err)
	trainer, err := experiment.NewTrainer(task, store)
	check(t, err)
	adam := optimizer.Adam().LearningRate(0.01).Done()
	_, err = trainer.Train(context.Background(), experiment.Training{Steps: 100, Optimizer: adam})
	check(t, err)

	input := shapes.Make(dtypes.Float32, batch, 2)
	n, err := surgery.Trace(b, store, trace.Single(perceptron), input)
	check(t, err)
	cfg := surgery.Config{Criterion: criterion.Taylor, Params: 0.4}
	signals, err := trainer.Signals(n.Params(cfg), cfg.Criterion.Needs, 4)
	check(t, err)
	plan, err := n.Plan(cfg, signals)
	check(t, err)
	small, err := plan.Apply()
	check(t, err)
	report, err := surgery.Verify(n, small, tensors.FromFlatDataAndDimensions(make([]float32, 6), 3, 2))
	check(t, err)
	if report.MaxDiff > 1e-5 {
		t.Errorf("%s", report)
	}
	removed, err := plan.Indices()
	check(t, err)
	for path, axes := range removed {
		for _, suffix := range []string{"_1st_moment", "_2nd_moment"} {
			moment := "/AdamOptimizer" + path + suffix
			before, after := store.GetVariable(moment), small.Store.GetVariable(moment)
			if before == nil {
				continue // of a variable that is not trained
			}
			want := append([]int{}, before.Shape().Dimensions...)
			for axis, indices := range axes {
				want[axis] -= len(indices)
			}
			if diff := cmp.Diff(want, after.Shape().Dimensions); diff != "" {
				t.Errorf("%s (-want +got)\n%s", moment, diff)
			}
		}
	}

	dir := t.TempDir()
	for name, task := range map[string]experiment.Task{
		"50 steps at a time": {Backend: b, Model: small.Single, Train: data},
		"fed":                {Backend: b, Model: small.Single, Train: streamed{data}},
	} {
		t.Run(name, func(t *testing.T) {
			trainer, err := experiment.NewTrainer(task, small.Store)
			check(t, err)
			defer trainer.Close()
			training := experiment.Training{Steps: 150, Optimizer: adam, Dir: dir, Name: name}
			result, err := trainer.Train(context.Background(), training)
			check(t, err)
			metrics, err := trainer.Evaluate(t.Context(), data)
			check(t, err)
			if result.Steps != 150 || metrics.Accuracy < 0.85 {
				t.Errorf("%d steps, accuracy %.2f", result.Steps, metrics.Accuracy)
			}
		})
	}

	saved := checkpoint.Dir{Path: t.TempDir()}
	check(t, saved.Save(small.Store, checkpoint.State{}))
	var file bytes.Buffer
	check(t, plan.WriteJSON(&file))
	rebuilt, err := surgery.Rebuild(b, model.NewStore(), trace.Single(perceptron), &file)
	check(t, err)
	_, err = saved.Load(rebuilt.Store)
	check(t, err)
	if diff := cmp.Diff(outputs(t, task, small.Store, small.Single), outputs(t, task, rebuilt.Store, rebuilt.Single)); diff != "" {
		t.Errorf("the rebuilt network (-want +got)\n%s", diff)
	}
	scratch, err := experiment.Init(experiment.Task{Backend: b, Model: small.Single, Train: data}, 2)
	check(t, err)
	for v := range scratch.IterVariables() {
		if w := small.Store.GetVariable(v.Path()); w == nil || !w.Shape().Equal(v.Shape()) {
			t.Errorf("from scratch, %s has the shape %s, not that of %v", v.Path(), v.Shape(), w)
		}
	}

	again, err := surgery.Trace(b, small.Store, small.ModelFn, input)
	check(t, err)
	second, err := again.Plan(surgery.Config{Units: 0.6}, nil)
	check(t, err)
	smaller, err := second.Apply()
	check(t, err)
	if report, err = surgery.Verify(again, smaller, tensors.FromFlatDataAndDimensions([]float32{1, 2, -1, 0.5}, 2, 2)); err != nil || report.MaxDiff > 1e-5 || report.After.Params >= report.Before.Params {
		t.Errorf("second surgery: %s, %v", report, err)
	}
}

func outputs(t *testing.T, task experiment.Task, store *model.Store, fn experiment.ModelFn) any {
	t.Helper()
	exec, err := model.NewExec(task.Backend, store, func(scope *model.Scope, x *graph.Node) *graph.Node { return fn(scope, x) })
	check(t, err)
	defer exec.Finalize()
	y, err := exec.Call1(tensors.FromFlatDataAndDimensions([]float32{1, 0.5, -1, 0.25, 0.1, -0.1}, 3, 2))
	check(t, err)
	return y.Value()
}

// The smaller network learns from the original one in one graph, whose variables lie under a scope of their own.
func TestBothInOneGraph(t *testing.T) {
	b, err := backend.Open()
	check(t, err)
	store, err := experiment.Init(experiment.Task{Backend: b, Model: perceptron, Train: newQuadrants()}, 1)
	check(t, err)
	n, err := surgery.Trace(b, store, trace.Single(perceptron), shapes.Make(dtypes.Float32, 1, 2))
	check(t, err)
	plan, err := n.Plan(surgery.Config{Params: 0.5}, nil)
	check(t, err)
	small, err := plan.Apply()
	check(t, err)
	both := model.NewStore()
	for prefix, from := range map[string]*model.Store{"/teacher": store, "/student": small.Store} {
		for v := range from.IterVariables() {
			value, err := v.MustValue().LocalClone()
			check(t, err)
			made, err := both.CreateVariable(prefix+v.Path(), value)
			check(t, err)
			made.SetTrainable(v.Trainable)
		}
	}
	exec, err := model.NewExec(b, both, func(scope *model.Scope, x *graph.Node) []*graph.Node {
		return []*graph.Node{perceptron(both.Scope("/teacher"), x), small.Single(both.Scope("/student"), x)}
	})
	check(t, err)
	x := []float32{1, 0.5, -1, 0.25, 0.1, -0.1}
	got, err := exec.Call(tensors.FromFlatDataAndDimensions(x, 3, 2))
	check(t, err)
	task := experiment.Task{Backend: b}
	if diff := cmp.Diff(outputs(t, task, store, perceptron), got[0].Value()); diff != "" {
		t.Errorf("teacher (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(outputs(t, task, small.Store, small.Single), got[1].Value()); diff != "" {
		t.Errorf("student (-want +got)\n%s", diff)
	}
}

// What pkg/prune masks filter by filter, surgery cuts.
func TestMasksOfPruner(t *testing.T) {
	b, err := backend.Open()
	check(t, err)
	store, err := experiment.Init(experiment.Task{Backend: b, Model: perceptron, Train: newQuadrants()}, 1)
	check(t, err)
	pruner, err := prune.New(b, store, params.Select(store, nil), prune.Recipe{Unit: unit.Filter, Budget: budget.Layerwise})
	check(t, err)
	_, err = pruner.Prune(0.75, nil)
	check(t, err)
	n, err := surgery.Trace(b, store, trace.Single(perceptron), shapes.Make(dtypes.Float32, 1, 2))
	check(t, err)
	plan, err := n.FromMasks()
	check(t, err)
	for _, g := range n.Groups() {
		if got := len(plan.Removed[g.Name]); got != 24 {
			t.Errorf("%d units of %s go, want 24", got, g.Name)
		}
	}
	small, err := plan.Apply()
	check(t, err)
	report, err := surgery.Verify(n, small, tensors.FromFlatDataAndDimensions([]float32{1, 2, -1, 0.5}, 2, 2))
	check(t, err)
	if report.MaxDiff > 1e-5 {
		t.Errorf("%s", report)
	}
	// The masks go on in the smaller network, where all that is left is alive.
	again, err := prune.New(b, small.Store, params.Select(small.Store, nil), prune.Recipe{Unit: unit.Filter})
	check(t, err)
	stats, err := again.Prune(0, nil)
	check(t, err)
	if mask.Sparsity(stats) != 0 {
		t.Errorf("a share of %v of the smaller network is dead", mask.Sparsity(stats))
	}
}

package experiment

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/initializer"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/lower"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

// points is a Resident data set: points in the plane, labelled by their quadrant.
type points struct {
	inputs, labels *tensors.Tensor
	n, batch       int
}

func newPoints(n, batch int) *points {
	rng := rand.New(rand.NewPCG(7, 7))
	x, y := make([]uint8, 2*n), make([]int32, n)
	for i := range n {
		a, b := rng.IntN(256), rng.IntN(256)
		x[2*i], x[2*i+1] = uint8(a), uint8(b)
		y[i] = int32(a/128 + 2*(b/128))
	}
	return &points{tensors.FromFlatDataAndDimensions(x, n, 2), tensors.FromFlatDataAndDimensions(y, n), n, batch}
}

func (p *points) Name() string                             { return "points" }
func (p *points) Arrays() (inputs, labels *tensors.Tensor) { return p.inputs, p.labels }
func (p *points) Batch() int                               { return p.batch }
func (p *points) Decode(x *graph.Node) *graph.Node {
	return graph.AddScalar(graph.DivScalar(graph.ConvertDType(x, dtypes.Float32), 128), -1)
}
func (p *points) Iter() iter.Seq2[train.Batch, error] { return p.batches(0) }
func (p *points) Order(epoch int) []int32 {
	order := make([]int32, p.n)
	for i, j := range rand.New(rand.NewPCG(1, uint64(epoch))).Perm(p.n) {
		order[i] = int32(j)
	}
	return order
}

func (p *points) batches(epoch int) iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		x := tensors.MustCopyFlatData[uint8](p.inputs)
		y := tensors.MustCopyFlatData[int32](p.labels)
		order := p.Order(epoch)
		for at := 0; at+p.batch <= p.n; at += p.batch {
			var xs []float32
			var ys []int32
			for _, i := range order[at : at+p.batch] {
				xs = append(xs, float32(x[2*i])/128-1, float32(x[2*i+1])/128-1)
				ys = append(ys, y[i])
			}
			b := train.Batch{Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(xs, p.batch, 2)},
				Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(ys, p.batch, 1)}}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// streamed hides that a data set is resident.
type streamed struct{ *points }

func (s streamed) plain() train.Dataset { return struct{ train.Dataset }{s.points} }

func mlp(scope *model.Scope, x *graph.Node) *graph.Node {
	x = activation.Relu(layers.Dense(scope.At("fc1"), x, true, 16))
	return layers.Dense(scope.At("output"), x, true, 4)
}

func newTask(t *testing.T) Task {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	data := newPoints(256, 16)
	return Task{Backend: b, Model: mlp, Train: data, Validation: newPoints(100, 16)}
}

func newStore(t *testing.T, task Task, seed int64) *model.Store {
	t.Helper()
	store, err := Init(task, seed)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func trained(t *testing.T, task Task, tr Training) (*model.Store, Result) {
	t.Helper()
	store := newStore(t, task, 1)
	result, err := Train(t.Context(), task, store, tr)
	if err != nil {
		t.Fatal(err)
	}
	return store, result
}

func weights(t *testing.T, store *model.Store) map[string][]float32 {
	t.Helper()
	values := map[string][]float32{}
	for _, v := range sorted(store) {
		if v.Trainable {
			values[v.Path()] = tensors.MustCopyFlatData[float32](v.MustValue())
		}
	}
	return values
}

func TestInitIsDeterministicAndHe(t *testing.T) {
	task := newTask(t)
	task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(scope.At("wide"), x, true, 4000)
		return layers.Dense(scope.At("output"), x, true, 4)
	}
	a, b, c := newStore(t, task, 1), newStore(t, task, 1), newStore(t, task, 2)
	if diff := cmp.Diff(weights(t, a), weights(t, b)); diff != "" {
		t.Errorf("same seed, other values (-first +second):\n%s", diff)
	}
	if cmp.Equal(weights(t, a), weights(t, c)) {
		t.Error("two seeds gave the same values")
	}
	sum, w := 0.0, weights(t, a)["/output/dense/weights"]
	for _, x := range w {
		sum += float64(x) * float64(x)
	}
	if got, want := math.Sqrt(sum/float64(len(w))), math.Sqrt(2.0/4000); math.Abs(got/want-1) > 0.05 {
		t.Errorf("deviation %v, want √(2/4000) = %v", got, want)
	}
	for _, x := range weights(t, a)["/output/dense/biases"] {
		if x != 0 {
			t.Fatalf("bias %v, want 0", x)
		}
	}
}

func TestModelsOwnInitialisersAreKept(t *testing.T) {
	task := newTask(t)
	task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		ones := func(g *graph.Graph, shape shapes.Shape) *graph.Node { return graph.Ones(g, shape) }
		return layers.Dense(scope.At("output").WithInitializer(ones), x, false, 4)
	}
	for _, x := range weights(t, newStore(t, task, 1))["/output/dense/weights"] {
		if x != 1 {
			t.Fatalf("weight %v, want 1", x)
		}
	}
}

// A model's own random initialisers draw by the seed, and the same on every backend.
func TestModelsOwnInitialisersAreSeeded(t *testing.T) {
	task := newTask(t)
	task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(scope.At("fc1").WithInitializer(initializer.RandomUniformFn(scope, -1, 1)), x, false, 16)
		return layers.Dense(scope.At("output").WithInitializer(initializer.GlorotUniformFn(scope)), x, false, 4)
	}
	want := weights(t, newStore(t, task, 1))
	if cmp.Equal(want, weights(t, newStore(t, task, 2))) {
		t.Error("two seeds gave the same values")
	}
	task.Backend = gobackend.GetBackend()
	if diff := cmp.Diff(want, weights(t, newStore(t, task, 1))); diff != "" {
		t.Errorf("same seed, other values (-first +on the Go backend):\n%s", diff)
	}
}

// The dispatch of many steps computes what single steps do, and what batches that are fed do.
func TestDispatchEqualsSingleSteps(t *testing.T) {
	task := newTask(t)
	many, manyResult := trained(t, task, Training{Steps: 40, StepsPerDispatch: 7})
	single, singleResult := trained(t, task, Training{Steps: 40, StepsPerDispatch: 1})
	closeTo(t, weights(t, single), weights(t, many), 1e-5)
	if one, seven := singleResult.Loss, manyResult.Loss; math.Abs(one-seven) > 1e-5 {
		t.Errorf("the mean loss is %v in single steps and %v in sevens", one, seven)
	}

	short := Training{Steps: 16, Seed: 0}
	resident, _ := trained(t, task, short)
	task.Train = streamed{task.Train.(*points)}.plain()
	fed, _ := trained(t, task, short)
	closeTo(t, weights(t, resident), weights(t, fed), 1e-5)
}

// Where dispatches end is a matter of time, and changes no bit of the losses.
func TestLossesDoNotDependOnDispatches(t *testing.T) {
	task := newTask(t)
	var want []Point
	for _, perDispatch := range []int{50, 13, 2} {
		_, result := trained(t, task, Training{Steps: 120, StepsPerDispatch: perDispatch})
		if want == nil {
			want = result.Losses
		}
		if diff := cmp.Diff(want, result.Losses); diff != "" || len(want) != 3 {
			t.Errorf("losses in dispatches of %d (-of 50 +of %d):\n%s", perDispatch, perDispatch, diff)
		}
	}
}

func closeTo(t *testing.T, want, got map[string][]float32, tolerance float64) {
	t.Helper()
	for path, w := range want {
		if len(got[path]) != len(w) {
			t.Fatalf("%s: %d values, want %d", path, len(got[path]), len(w))
		}
		for i := range w {
			if d := math.Abs(float64(w[i] - got[path][i])); !(d <= tolerance*math.Max(1, math.Abs(float64(w[i])))) {
				t.Fatalf("%s[%d] = %v, want %v", path, i, got[path][i], w[i])
			}
		}
	}
}

func TestTrainLearns(t *testing.T) {
	task := newTask(t)
	store, result := trained(t, task, Training{Epochs: 60, Optimizer: optimizer.Adam().LearningRate(0.01).Done()})
	m, err := Evaluate(t.Context(), task, store, task.Validation)
	if err != nil {
		t.Fatal(err)
	}
	if m.N != 100 || m.Accuracy < 0.9 || result.Steps != 60*16 {
		t.Errorf("metrics %+v after %d steps", m, result.Steps)
	}
}

func TestEvaluateCountsEveryExample(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	task.Validation = newPoints(1003, 16) // one whole evaluation batch and three examples
	m, err := Evaluate(t.Context(), task, store, task.Validation)
	if err != nil {
		t.Fatal(err)
	}
	// By hand, on the host.
	w := weights(t, store)
	x := tensors.MustCopyFlatData[uint8](task.Validation.(*points).inputs)
	y := tensors.MustCopyFlatData[int32](task.Validation.(*points).labels)
	right, loss := 0, 0.0
	for i := range y {
		in := []float64{float64(x[2*i])/128 - 1, float64(x[2*i+1])/128 - 1}
		hidden := affine(in, w["/fc1/dense/weights"], w["/fc1/dense/biases"])
		for j := range hidden {
			hidden[j] = max(0, hidden[j])
		}
		logits := affine(hidden, w["/output/dense/weights"], w["/output/dense/biases"])
		best, sum := 0, 0.0
		for j, l := range logits {
			if l > logits[best] {
				best = j
			}
			sum += math.Exp(l)
		}
		if best == int(y[i]) {
			right++
		}
		loss += math.Log(sum) - logits[y[i]]
	}
	if m.N != 1003 || m.Accuracy != float64(right)/1003 || math.Abs(m.Loss-loss/1003) > 1e-5 {
		t.Errorf("got %+v, want accuracy %v and loss %v of 1003", m, float64(right)/1003, loss/1003)
	}
}

// A network that drops and regularises while training is evaluated without either.
func TestEvaluateDoesNotTrain(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	want, err := Evaluate(t.Context(), task, store, task.Validation)
	if err != nil {
		t.Fatal(err)
	}
	task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		train.AddRegularizationLoss(graph.ReduceAllSum(graph.Square(x)))
		return mlp(scope, layers.DropoutStatic(scope, x, 0.5))
	}
	got, err := Evaluate(t.Context(), task, store, task.Validation)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("-without +with: %v\n%s", err, diff)
	}
	// Batches that are fed give the same means.
	task.Model = mlp
	whole := newPoints(96, 16)
	want, err = Evaluate(t.Context(), task, store, whole)
	if err != nil {
		t.Fatal(err)
	}
	fed, err := Evaluate(t.Context(), task, store, streamed{whole}.plain())
	if diff := cmp.Diff(want, fed, cmpopts.EquateApprox(1e-6, 0)); err != nil || diff != "" {
		t.Errorf("-resident +fed: %v\n%s", err, diff)
	}
}

func TestEvaluationBatch(t *testing.T) {
	for _, test := range []struct{ n, size, want int }{
		{10_000, 784, 1000}, {5_500, 784, 550}, {1_003, 784, 1000}, {10, 784, 1000}, {50_000, 3 * 224 * 224, 25}, {64, 1 << 30, 16}, {0, 784, 1000},
	} {
		if got := evaluationBatch(shapes.Make(dtypes.Uint8, test.n, test.size)); got != test.want {
			t.Errorf("%d examples of %d: %d at a time, want %d", test.n, test.size, got, test.want)
		}
	}
}

func affine(x []float64, w, b []float32) []float64 {
	out := make([]float64, len(b))
	for j := range out {
		out[j] = float64(b[j])
		for i := range x {
			out[j] += x[i] * float64(w[i*len(b)+j])
		}
	}
	return out
}

func newPruner(t *testing.T, task Task, store *model.Store, r prune.Recipe) *prune.Pruner {
	t.Helper()
	p, err := prune.New(task.Backend, store, params.Select(store, nil), r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestZerosStayZero(t *testing.T) {
	task := newTask(t)
	for name, opt := range map[string]optimizer.Interface{
		"sgd":   optimizer.StochasticGradientDescent(),
		"adam":  nil,
		"adamw": optimizer.Adam().WeightDecay(0.1).Done(),
	} {
		for _, perDispatch := range []int{1, 8} {
			store := newStore(t, task, 1)
			p := newPruner(t, task, store, prune.Recipe{})
			stats, err := p.Prune(0.5, nil)
			if err != nil {
				t.Fatal(err)
			}
			before := weights(t, store)
			if _, err := Train(t.Context(), task, store, Training{Steps: 20, Optimizer: opt, Pruner: p, StepsPerDispatch: perDispatch}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := p.Check(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if cmp.Equal(before, weights(t, store)) {
				t.Errorf("%s: nothing was trained", name)
			}
			after, err := mask.Count(store, p.Params())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(stats, after); diff != "" {
				t.Errorf("%s: the masks changed (-before +after):\n%s", name, diff)
			}
		}
	}
}

func TestLeakStopsTheRun(t *testing.T) {
	task := newTask(t)
	inner := task.Model
	for _, perDispatch := range []int{1, 8} {
		store := newStore(t, task, 1)
		p := newPruner(t, task, store, prune.Recipe{})
		if _, err := p.Prune(0.5, nil); err != nil {
			t.Fatal(err)
		}
		// A per-step update runs after the optimizer and makes all weights of fc1 one.
		task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
			train.AddPerStepUpdateGraphFn(scope.At("leak"), x.Graph(), func(_ *model.Scope, g *graph.Graph) {
				v := store.GetVariable("/fc1/dense/weights")
				v.SetNodeValue(graph.OnesLike(v.NodeValue(g)))
			})
			return inner(scope, x)
		}
		_, err := Train(t.Context(), task, store, Training{Steps: 20, Pruner: p, StepsPerDispatch: perDispatch})
		var leak *LeakError
		if !errors.As(err, &leak) || leak.Path != "/fc1/dense/weights" {
			t.Errorf("%d steps a dispatch: got %v, want a *LeakError of fc1", perDispatch, err)
		}
	}
}

// The host and the program on the device, which counts where the host can't, find the same dead weights that are not zero: NaN is one, and −0 is none.
func TestLeaksAreCounted(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	p := newPruner(t, task, store, prune.Recipe{})
	if _, err := p.Prune(0.5, nil); err != nil {
		t.Fatal(err)
	}
	tr, err := NewTrainer(task, store)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if _, err := tr.Train(t.Context(), Training{Steps: 2, Pruner: p}); err != nil {
		t.Fatal(err)
	}
	want := make([]int32, len(p.Params()))
	for i, param := range p.Params() {
		alive, err := mask.Bools(store, param)
		if err != nil {
			t.Fatal(err)
		}
		value, err := store.GetVariable(param.Path).Value()
		if err != nil {
			t.Fatal(err)
		}
		if err := tensors.MutableFlatData(value, func(weights []float32) {
			wrong := []float32{float32(math.Copysign(0, -1)), 1, float32(math.NaN())}[:2+i%2]
			for j := range weights {
				if !alive[j] && len(wrong) > 0 {
					weights[j], wrong = wrong[0], wrong[1:]
				}
			}
			want[i] = int32(1 + i%2)
		}); err != nil {
			t.Fatal(err)
		}
	}
	for name, count := range map[string]func() ([]int32, error){"host": tr.step.leaked, "device": tr.step.leakedThere} {
		got, err := count()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: error %v (-want +got)\n%s", name, err, diff)
		}
	}
}

// A run that is interrupted and resumed ends with the same bits as one that is not; so does one that another process has finished.
func TestResumeIsExact(t *testing.T) {
	task := newTask(t)
	run := func(dir string, stopAt int) (map[string][]float32, []mask.Stats, Result, error) {
		store := newStore(t, task, 1)
		p := newPruner(t, task, store, prune.Recipe{Criterion: criterion.Random}) // whose draws must go on too
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		every, started := schedule.Every(10, 10, 90), false
		result, err := Train(ctx, task, store, Training{
			Steps: 120, Pruner: p, Dir: dir, StepsPerDispatch: 7, Rate: CosineDecay,
			Schedule: schedule.Cubic(0, 80, 0, 0.8), When: func(step int) bool {
				if step == stopAt && started {
					cancel()
				}
				return every(step)
			},
			Progress: func(int, int, string) { started = true },
		})
		stats, countErr := mask.Count(store, p.Params())
		if countErr != nil {
			t.Fatal(countErr)
		}
		return weights(t, store), stats, result, err
	}
	want, wantStats, whole, err := run("", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := mask.Sparsity(wantStats); math.Abs(got-0.8) > 0.01 {
		t.Fatalf("sparsity %v, want 0.8", got)
	}
	dir := t.TempDir()
	at := 0
	for _, stopAt := range []int{33, 75} { // within the first and the second 50 steps
		_, _, result, err := run(dir, stopAt)
		var stopped *InterruptedError
		if !errors.As(err, &stopped) || !errors.Is(err, context.Canceled) || stopped.Step < stopAt || stopped.Step > stopAt+7 {
			t.Fatalf("got %v, want an *InterruptedError soon after step %d", err, stopAt)
		}
		if result.Resumed != at {
			t.Errorf("resumed at %d, want %d", result.Resumed, at)
		}
		at = stopped.Step
	}
	got, stats, result, err := run(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if result.Resumed != at {
		t.Errorf("resumed at %d, want %d", result.Resumed, at)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the resumed run differs (-uninterrupted +resumed):\n%s", diff)
	}
	if diff := cmp.Diff(wantStats, stats); diff != "" {
		t.Errorf("its masks differ (-uninterrupted +resumed):\n%s", diff)
	}
	if diff := cmp.Diff(whole.Losses, result.Losses, cmpopts.EquateApprox(1e-6, 0)); diff != "" || len(whole.Losses) != 3 {
		t.Errorf("its losses differ (-uninterrupted +resumed):\n%s", diff)
	}
	again, _, loaded, err := run(dir, 0)
	if err != nil || !loaded.Loaded {
		t.Fatalf("a finished run was not loaded: %+v, %v", loaded, err)
	}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("the loaded run differs (-uninterrupted +loaded):\n%s", diff)
	}
	if diff := cmp.Diff(result.Losses, loaded.Losses); diff != "" {
		t.Errorf("its losses differ (-trained +loaded):\n%s", diff)
	}
}

// A scheduled run builds the training graph as often for ten events, and dispatches of many sizes, as for one; and what is built is compiled.
func TestScheduleCompilesOnce(t *testing.T) {
	built := func(when schedule.When) (n int, sparsity float64) {
		task := newTask(t)
		task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
			n++
			return mlp(scope, x)
		}
		store := newStore(t, task, 1)
		p := newPruner(t, task, store, prune.Recipe{})
		if _, err := Train(t.Context(), task, store, Training{Steps: 120, Pruner: p, Schedule: schedule.Cubic(0, 90, 0, 0.8), When: when}); err != nil {
			t.Fatal(err)
		}
		stats, err := mask.Count(store, p.Params())
		if err != nil {
			t.Fatal(err)
		}
		return n, mask.Sparsity(stats)
	}
	once, _ := built(schedule.Once(90))
	often, sparsity := built(schedule.Every(9, 9, 90))
	if once == 0 || often != once || sparsity < 0.79 {
		t.Errorf("built %d times for one event, %d times for ten that lead to sparsity %v", once, often, sparsity)
	}
}

func TestCheckpointOfAnotherNetwork(t *testing.T) {
	task := newTask(t)
	_, result := trained(t, task, Training{Steps: 1, Dir: t.TempDir()})
	other := task
	other.Model = func(scope *model.Scope, x *graph.Node) *graph.Node { return layers.Dense(scope.At("fc1"), x, true, 4) }
	store := newStore(t, other, 1)
	before := weights(t, store)
	_, err := Load(result.Dir, store)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) || len(mismatch.Problems) == 0 {
		t.Fatalf("got %v, want a *MismatchError", err)
	}
	if diff := cmp.Diff(before, weights(t, store)); diff != "" {
		t.Errorf("it changed the store:\n%s", diff)
	}
}

func TestSnapshotRestore(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	start, err := Snapshot(store)
	if err != nil {
		t.Fatal(err)
	}
	before := weights(t, store)
	p := newPruner(t, task, store, prune.Recipe{})
	for range 2 { // twice: the snapshot must not be used up
		if _, err := p.Prune(0.5, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := Train(t.Context(), task, store, Training{Steps: 5, Pruner: p}); err != nil {
			t.Fatal(err)
		}
		if err := Restore(store, start); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, weights(t, store)); diff != "" {
			t.Fatalf("restored values differ:\n%s", diff)
		}
		stats, err := mask.Count(store, p.Params())
		if err != nil || mask.Sparsity(stats) != 0 {
			t.Fatalf("masks after Restore: %+v, %v; want all alive", stats, err)
		}
	}
	var mismatch *MismatchError
	if err := Restore(store, Values{"/nowhere": tensors.FromScalar(float32(1))}); !errors.As(err, &mismatch) {
		t.Errorf("got %v, want a *MismatchError", err)
	}
}

// With plain gradient descent a step is proportional to the rate: half the rate, half the step, and none at rate 0.
func TestRateScalesTheStep(t *testing.T) {
	task := newTask(t)
	moved := func(rate func(float64) float64) float64 {
		store := newStore(t, task, 1)
		before := weights(t, store)["/fc1/dense/weights"]
		opt := optimizer.StochasticGradientDescent().WithLearningRate(0.1).WithDecay(false).Done()
		if _, err := Train(t.Context(), task, store, Training{Steps: 1, Optimizer: opt, Rate: rate}); err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for i, w := range weights(t, store)["/fc1/dense/weights"] {
			sum += math.Abs(float64(w - before[i]))
		}
		return sum
	}
	full, half, none := moved(nil), moved(func(float64) float64 { return 0.5 }), moved(func(float64) float64 { return 0 })
	if full == 0 || math.Abs(half/full-0.5) > 1e-3 || none != 0 {
		t.Errorf("moved %v at rate 1, %v at 0.5, %v at 0", full, half, none)
	}
	if CosineDecay(0) != 1 || math.Abs(CosineDecay(0.5)-0.5) > 1e-15 || LinearDecay(0.25) != 0.75 {
		t.Error("the decays have wrong values")
	}
}

func TestDivergenceStops(t *testing.T) {
	task := newTask(t)
	sgd := optimizer.StochasticGradientDescent().WithDecay(false)
	// The loss of the first step is a number and its update is not.
	infinite := Training{Steps: 1, Optimizer: sgd.WithLearningRate(math.MaxFloat64).Done(), Dir: t.TempDir()}
	_, err := Train(t.Context(), task, newStore(t, task, 1), infinite)
	var diverged *DivergedError
	if !errors.As(err, &diverged) || diverged.Path == "" || diverged.Step != 1 {
		t.Errorf("got %v, want a *DivergedError that names a variable", err)
	}
	if saved, _ := filepath.Glob(filepath.Join(infinite.Dir, "*", "step-*")); len(saved) > 0 {
		t.Errorf("it saved %v", saved)
	}

	task.Loss = func(labels, predictions []*graph.Node) *graph.Node {
		return graph.ReduceAllMean(graph.Log(graph.Neg(graph.Abs(predictions[0])))) // NaN
	}
	_, err = Train(t.Context(), task, newStore(t, task, 1), Training{Steps: 100})
	if !errors.As(err, &diverged) || !math.IsNaN(diverged.Loss) || diverged.Step > block {
		t.Errorf("got %v, want a *DivergedError after the first dispatch", err)
	}
}

// The step right before weights are ranked makes them NaN, where its own loss is a number still. Scores that are NaN while all weights are numbers are no divergence.
func TestDivergenceBeforePruning(t *testing.T) {
	task := newTask(t)
	train := func(rate float64, r prune.Recipe) error {
		store := newStore(t, task, 1)
		opt := optimizer.StochasticGradientDescent().WithDecay(false).WithLearningRate(rate).Done()
		_, err := Train(t.Context(), task, store, Training{Steps: 10, Optimizer: opt, Pruner: newPruner(t, task, store, r), Schedule: schedule.Constant(0.5), When: schedule.Once(1)})
		return err
	}
	err := train(math.MaxFloat64, prune.Recipe{})
	var diverged *DivergedError
	if !errors.As(err, &diverged) || diverged.Path == "" || diverged.Step != 1 {
		t.Errorf("got %v, want a *DivergedError that names a variable after step 1", err)
	}
	nan := criterion.Criterion{Name: "nothing", Score: func(in criterion.Inputs) *graph.Node { return graph.Log(graph.Neg(graph.OnesLike(in.Weight))) }}
	err = train(0.1, prune.Recipe{Criterion: nan})
	var score *prune.ScoreError
	if !errors.As(err, &score) {
		t.Errorf("got %v, want a *prune.ScoreError", err)
	}
}

func TestBadConfigurations(t *testing.T) {
	task := newTask(t)
	for name, tr := range map[string]Training{
		"both":              {Epochs: 1, Steps: 1},
		"negative":          {Steps: -1},
		"schedule alone":    {Steps: 1, Schedule: schedule.Constant(0.5)},
		"without a pruner":  {Steps: 1, Schedule: schedule.Constant(0.5), When: schedule.Once(1)},
		"negative dispatch": {Steps: 1, StepsPerDispatch: -1},
		"negative validate": {Steps: 1, Validate: -1},
	} {
		var bad *ConfigError
		if _, err := Train(t.Context(), task, newStore(t, task, 1), tr); !errors.As(err, &bad) {
			t.Errorf("%s: got %v, want a *ConfigError", name, err)
		}
	}
	if _, err := Init(Task{Train: task.Train}, 1); !errors.Is(err, ErrNoModel) {
		t.Errorf("got %v, want ErrNoModel", err)
	}
	if _, err := Init(Task{Model: mlp}, 1); !errors.Is(err, ErrNoData) {
		t.Errorf("got %v, want ErrNoData", err)
	}
}

// disordered is a data set whose Order is wrong.
type disordered struct {
	*points
	order func(epoch int) []int32
}

func (d disordered) Order(epoch int) []int32 { return d.order(epoch) }

func TestWrongOrdersAreRefused(t *testing.T) {
	task := newTask(t)
	data := task.Train.(*points)
	for name, order := range map[string]func(epoch int) []int32{
		"no batch":         func(epoch int) []int32 { return data.Order(epoch)[:15] },
		"a shorter epoch":  func(epoch int) []int32 { return data.Order(epoch)[:256-16*epoch] },
		"past the end":     func(epoch int) []int32 { return append(data.Order(epoch)[:255], 256) },
		"before the start": func(epoch int) []int32 { return append(data.Order(epoch)[:255], -1) },
	} {
		task.Train = disordered{data, order}
		var bad *ConfigError
		if _, err := Train(t.Context(), task, newStore(t, task, 1), Training{Steps: 40}); !errors.As(err, &bad) {
			t.Errorf("%s: got %v, want a *ConfigError", name, err)
		}
	}
}

func TestSeveralInputsAreRefused(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	task.Train = twoInputs{streamed{task.Train.(*points)}.plain()}
	var bad *ConfigError
	if _, err := Train(t.Context(), task, store, Training{Steps: 1}); !errors.As(err, &bad) {
		t.Errorf("Train: got %v, want a *ConfigError", err)
	}
	if _, err := Evaluate(t.Context(), task, store, task.Train); !errors.As(err, &bad) {
		t.Errorf("Evaluate: got %v, want a *ConfigError", err)
	}
	task.Validation = nil
	if _, err := Init(task, 1); !errors.As(err, &bad) {
		t.Errorf("Init: got %v, want a *ConfigError", err)
	}
}

// twoInputs yields more inputs than a model takes.
type twoInputs struct{ train.Dataset }

func (d twoInputs) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for b, err := range d.Dataset.Iter() {
			if err == nil {
				b.Inputs = append(b.Inputs, tensors.FromScalar(float32(0)))
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// Progress is told at most every 200 ms, and of the end.
func TestProgressIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []int
		progress := throttled(func(done, _ int, _ string) { told = append(told, done) })
		for done := 1; done <= 75; done++ { // a step each 10 ms
			progress(done, 75, "")
			time.Sleep(10 * time.Millisecond)
		}
		if diff := cmp.Diff([]int{1, 21, 41, 61, 75}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

// The context's error and its cause can both be asked for.
func TestInterruptedErrorNamesTheCause(t *testing.T) {
	cause := errors.New("the bell rang")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	task := newTask(t)
	_, err := Train(ctx, task, newStore(t, task, 1), Training{Steps: 1})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

// Networks with convolutions are stepped one by one, others 50 steps at a time where the backend can loop, which XLA can.
func TestStepsPerDispatch(t *testing.T) {
	task := newTask(t)
	perDispatch := func() int {
		t.Helper()
		tr, err := NewTrainer(task, newStore(t, task, 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Train(t.Context(), Training{Steps: 2}); err != nil {
			t.Fatal(err)
		}
		return tr.step.perDispatch
	}
	choice, err := backend.Describe()
	if err != nil {
		t.Fatal(err)
	}
	want := 1
	if strings.HasPrefix(choice.Name, "xla") {
		want = block
	}
	if got := perDispatch(); got != want {
		t.Errorf("without convolutions on %s: %d steps a dispatch, want %d", choice.Name, got, want)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	x := make([]uint8, 32*28*28)
	for i := range x {
		x[i] = uint8(rng.IntN(256))
	}
	task.Train = &points{tensors.FromFlatDataAndDimensions(x, 32, 28, 28, 1), tensors.FromFlatDataAndDimensions(make([]int32, 32), 32), 32, 8}
	task.Model = nets.LeNet5
	if lower.On(task.Backend) == nil {
		want = 1
	}
	if got := perDispatch(); got != want {
		t.Errorf("LeNet-5: %d steps a dispatch, want %d", got, want)
	}
}

// The means over folds of equal size are the mean over all.
func TestEvaluateFolds(t *testing.T) {
	task := newTask(t)
	tr, err := NewTrainer(task, newStore(t, task, 1))
	if err != nil {
		t.Fatal(err)
	}
	all, err := tr.Evaluate(t.Context(), task.Validation)
	if err != nil {
		t.Fatal(err)
	}
	folds, err := tr.EvaluateFolds(t.Context(), task.Validation, 5)
	if err != nil {
		t.Fatal(err)
	}
	loss, accuracy := 0.0, 0.0
	for _, f := range folds {
		if f.N != 20 {
			t.Errorf("a fold of %d examples, want 20", f.N)
		}
		loss, accuracy = loss+f.Loss/5, accuracy+f.Accuracy/5
	}
	if math.Abs(loss-all.Loss) > 1e-6 || math.Abs(accuracy-all.Accuracy) > 1e-9 || folds[0].Loss == folds[1].Loss {
		t.Errorf("folds %v have the means %v and %v, all have %v", folds, loss, accuracy, all)
	}
	for _, n := range []int{0, 101} {
		var bad *ConfigError
		if _, err := tr.EvaluateFolds(t.Context(), task.Validation, n); !errors.As(err, &bad) {
			t.Errorf("%d folds of 100 examples: %v", n, err)
		}
	}
}

// relabelled is a data set of which one example has another label.
type relabelled struct {
	Resident
	label int32
}

func (r relabelled) Arrays() (inputs, labels *tensors.Tensor) {
	inputs, labels = r.Resident.Arrays()
	all := tensors.MustCopyFlatData[int32](labels)
	all[5] = r.label
	return inputs, tensors.FromFlatDataAndDimensions(all, len(all))
}

// A label that is the number of no logit is refused before the first step, unless the loss is one's own, to which it may mean something.
func TestLabelsWithoutALogit(t *testing.T) {
	for label, refused := range map[int32]bool{0: false, 3: false, 4: true, -1: true} {
		task := newTask(t)
		task.Train = relabelled{newPoints(64, 16), label}
		_, err := Train(t.Context(), task, newStore(t, task, 1), Training{Steps: 1})
		var bad *ConfigError
		if errors.As(err, &bad) != refused || refused && !strings.Contains(err.Error(), fmt.Sprintf("example 5 has the label %d, and the network has 4 logits", label)) {
			t.Errorf("label %d: %v", label, err)
		}
		task.Loss = func(labels, predictions []*graph.Node) *graph.Node {
			return graph.ReduceAllMean(graph.Square(graph.Sub(predictions[0], graph.ConvertDType(labels[0], predictions[0].DType()))))
		}
		if _, err := Train(t.Context(), task, newStore(t, task, 1), Training{Steps: 1}); err != nil {
			t.Errorf("label %d with a loss of one's own: %v", label, err)
		}
	}
}

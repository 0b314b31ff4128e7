package distill_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/distill"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/sparsetrain"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// mlp returns a network with a hidden layer and that many outputs.
func mlp(hidden, outputs int) distill.ModelFn {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = graph.Reshape(x, x.Shape().Dimensions[0], -1)
		x = activation.Relu(layers.Dense(scope.At("fc1"), x, true, hidden)) // [batch, pixels] -> [batch, hidden]
		return layers.Dense(scope.At("output"), x, true, outputs)           // -> [batch, outputs]
	}
}

// conv returns a network of two convolutions with batch normalisation, whose second reads [batch, 7, 7, channels] and whose last layer reads [batch, 2·channels].
func conv(channels int) distill.ModelFn {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Convolution(scope.At("conv1"), x).Channels(channels).KernelSize(4).Strides(4).NoPadding().Done() // [batch, 28, 28, 1] -> [batch, 7, 7, channels]
		x = activation.Relu(norm.BatchNorm(scope.At("conv1"), x, -1).Done())
		x = layers.Convolution(scope.At("conv2"), x).Channels(2 * channels).KernelSize(3).Strides(2).NoPadding().Done() // -> [batch, 3, 3, 2·channels]
		return layers.Dense(scope.At("output"), graph.ReduceMean(activation.Relu(x), 1, 2), true, 10)
	}
}

const (
	hidden = "/output/dense/weights"
	maps   = "/conv2/conv/weights"
)

// digits is the task of these tests, for a network.
func digits(t testing.TB, fn distill.ModelFn) experiment.Task {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	data, err := synth.Digits(synth.Config{Train: 200, Validation: 100, Test: 100, Batch: 20})
	if err != nil {
		t.Fatal(err)
	}
	return experiment.Task{Backend: b, Model: fn, Train: data.Train, Validation: data.Validation}
}

func started(t testing.TB, task experiment.Task, seed int64) *model.Store {
	t.Helper()
	store, err := experiment.Init(task, seed)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func trained(t testing.TB, task experiment.Task, store *model.Store, training experiment.Training) experiment.Result {
	t.Helper()
	r, err := experiment.Train(t.Context(), task, store, training)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// taught returns the task with a teacher.
func taught(t testing.TB, task experiment.Task, cfg distill.Config) experiment.Task {
	t.Helper()
	cfg.Backend, cfg.Student, cfg.Train = task.Backend, task.Model, task.Train
	lesson, err := distill.Teach(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	task.Model, task.Loss, task.Train = lesson.Model, lesson.Loss, lesson.Train
	return task
}

// bits are all values of a store, by path.
func bits(t testing.TB, store *model.Store) map[string][]float32 {
	t.Helper()
	all := map[string][]float32{}
	for v := range store.IterVariables() {
		if v.DType() == dtypes.Float32 {
			all[v.Path()] = tensors.MustCopyFlatData[float32](v.MustValue())
		}
	}
	return all
}

// terms are all of them, each with the network that it is tried on.
var terms = []struct {
	term  distill.Term
	fn    func(width int) distill.ModelFn
	plain bool // on GoMLX's own backend
}{
	{distill.Logits(4, 0.9), narrow, false}, {distill.LogitsMSE(0.5), narrow, true}, {distill.Logits(1, 1), narrow, true},
	{distill.Hint(1, distill.Between{Student: hidden, Teacher: hidden}), narrow, true},
	{distill.Hint(1, distill.Between{Student: maps, Teacher: maps}), conv, false},
	{distill.Attention(100, distill.Between{Student: maps, Teacher: maps}), conv, false},
	{distill.RelationalDistance(25, distill.Between{Student: hidden, Teacher: hidden}), narrow, true},
	{distill.RelationalAngle(50, distill.Between{}), narrow, true},
}

func narrow(width int) distill.ModelFn { return mlp(width, 10) }

// Every term: the student learns it, the teacher stays as it was, no variable of it gets to the student, and the same run gives the same network, bit for bit.
func TestConformance(t *testing.T) {
	for _, c := range terms {
		t.Run(c.term.String(), func(t *testing.T) {
			large, task := digits(t, c.fn(8)), digits(t, c.fn(4))
			if c.plain { // it compiles faster than XLA
				large.Backend, task.Backend = gobackend.GetBackend(), gobackend.GetBackend()
			}
			parent := started(t, large, 1)
			before := bits(t, parent)
			plain := started(t, task, 2)
			names := slices.Sorted(paths(plain))
			cfg := distill.Config{Teachers: []distill.Teacher{{Model: large.Model, Store: parent}}, Terms: []distill.Term{c.term}}
			learn := func() (*model.Store, experiment.Result) {
				store := started(t, task, 2)
				return store, trained(t, taught(t, task, cfg), store, experiment.Training{Steps: 100, Optimizer: &experiment.SGD{LearningRate: 0.05, Momentum: 0.9}})
			}
			store, result := learn()
			if first, last := result.Losses[0].Value, result.Losses[len(result.Losses)-1].Value; !(last < first) {
				t.Errorf("the loss goes from %v to %v", first, last)
			}
			if diff := cmp.Diff(before, bits(t, parent)); diff != "" {
				t.Errorf("the teacher changed (-want +got):\n%s", diff)
			}
			again, _ := learn()
			if diff := cmp.Diff(bits(t, store), bits(t, again)); diff != "" {
				t.Errorf("the same run gives another network (-first +second):\n%s", diff)
			}
			if err := distill.Dismiss(store); err != nil {
				t.Fatal(err)
			}
			left := slices.DeleteFunc(slices.Sorted(paths(store)), func(path string) bool { return strings.HasPrefix(path, "/optimizers/") || path == "/global_step" })
			if diff := cmp.Diff(names, left); diff != "" {
				t.Errorf("the student's variables after Dismiss (-want +got):\n%s", diff)
			}
		})
	}
}

func paths(store *model.Store) iter.Seq[string] {
	return func(yield func(string) bool) {
		for v := range store.IterVariables() {
			if !yield(v.Path()) {
				return
			}
		}
	}
}

// At alpha 0 the student is the one of plain training, to the bit; and the adapter of a hint is trained, away from its first values.
func TestAlphaZero(t *testing.T) {
	task := digits(t, narrow(4))
	teacher := distill.Teacher{Model: task.Model, Store: started(t, task, 9)}
	plain := started(t, task, 2)
	trained(t, task, plain, experiment.Training{Steps: 60})
	store := started(t, task, 2)
	lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{teacher}, Terms: []distill.Term{distill.Logits(4, 0)}})
	trained(t, lesson, store, experiment.Training{Steps: 60})
	if diff := cmp.Diff(bits(t, plain), bits(t, store)); diff != "" {
		t.Errorf("alpha 0 (-plain +distilled):\n%s", diff)
	}
	want, err := experiment.Evaluate(t.Context(), task, plain, task.Validation)
	if err != nil {
		t.Fatal(err)
	}
	got, err := experiment.Evaluate(t.Context(), lesson, store, task.Validation)
	if err != nil {
		t.Fatal(err)
	}
	if want != got {
		t.Errorf("on validation data %+v, want %+v", got, want)
	}
}

// Many steps in one dispatch give what single steps give.
func TestLoop(t *testing.T) {
	task := digits(t, narrow(4))
	teacher := distill.Teacher{Model: mlp(8, 10), Store: started(t, digits(t, mlp(8, 10)), 9)}
	lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{teacher}, Terms: []distill.Term{distill.Logits(4, 0.5), distill.Hint(1, distill.Between{Student: hidden, Teacher: hidden})}})
	var stores []map[string][]float32
	for _, per := range []int{1, 50} {
		store := started(t, task, 2)
		trained(t, lesson, store, experiment.Training{Steps: 30, StepsPerDispatch: per, Optimizer: &experiment.SGD{LearningRate: 0.05}})
		stores = append(stores, bits(t, store))
	}
	for path, one := range stores[0] {
		for i := range one {
			if many := stores[1][path][i]; math.Abs(float64(one[i]-many)) > 1e-5*math.Max(1, math.Abs(float64(one[i]))) {
				t.Fatalf("%s[%d] is %v after single steps, %v after a loop", path, i, one[i], many)
			}
		}
	}
	if _, found := stores[0]["/distill/1/adapter"]; !found {
		t.Errorf("there is no adapter among %v", slices.Sorted(func(yield func(string) bool) {
			for path := range stores[0] {
				if !yield(path) {
					return
				}
			}
		}))
	}
}

// A run is another run with another teacher, whatever else is the same; and one that was interrupted goes on to the same network. The network that is saved has no teacher in it.
func TestDigestAndResume(t *testing.T) {
	task := digits(t, narrow(4))
	dir := t.TempDir()
	lesson := func(seed int64) experiment.Task {
		return taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: task.Model, Store: started(t, task, seed)}}})
	}
	whole := started(t, task, 2)
	first := trained(t, lesson(9), whole, experiment.Training{Steps: 60, Dir: dir})
	again := trained(t, lesson(9), started(t, task, 2), experiment.Training{Steps: 60, Dir: dir})
	if again.Dir != first.Dir || !again.Loaded {
		t.Errorf("the same teacher: %q loaded %v, want %q", again.Dir, again.Loaded, first.Dir)
	}
	if other := trained(t, lesson(10), started(t, task, 2), experiment.Training{Steps: 60, Dir: dir}); other.Dir == first.Dir {
		t.Error("another teacher has the same digest")
	}
	ctx, stop := context.WithCancel(t.Context())
	store := started(t, task, 2)
	other := t.TempDir()
	_, err := experiment.Train(ctx, lesson(9), store, experiment.Training{Steps: 60, Dir: other, StepsPerDispatch: 10, Watch: func(p report.Progress) {
		if p.Step >= 20 {
			stop()
		}
	}})
	var interrupted *experiment.InterruptedError
	if !errors.As(err, &interrupted) {
		t.Fatalf("error %v, want *InterruptedError", err)
	}
	resumed := started(t, task, 2)
	if r := trained(t, lesson(9), resumed, experiment.Training{Steps: 60, Dir: other, StepsPerDispatch: 10}); r.Resumed == 0 || r.Dir[len(r.Dir)-16:] != first.Dir[len(first.Dir)-16:] {
		t.Errorf("resumed from %d in %q, want a step above 0 and the digest of %q", r.Resumed, r.Dir, first.Dir)
	}
	if diff := cmp.Diff(bits(t, whole), bits(t, resumed)); diff != "" {
		t.Errorf("after going on (-want +got):\n%s", diff)
	}
	saved := started(t, task, 3)
	if _, err := experiment.Load(first.Dir, saved); err != nil {
		t.Fatal(err)
	}
	for path := range paths(saved) {
		if strings.Contains(path, "teacher") {
			t.Errorf("the checkpoint has %s", path)
		}
	}
}

// A pruned network learns from what it was, and keeps its masks; so does one whose topology changes, with signals of the loss that it learns by.
func TestMasksAndTopologies(t *testing.T) {
	task := digits(t, narrow(8))
	store := started(t, task, 2)
	trained(t, task, store, experiment.Training{Steps: 60})
	before := bits(t, store)
	pruner, err := prune.New(task.Backend, store, params.Select(store, nil), prune.Recipe{Criterion: criterion.Taylor})
	if err != nil {
		t.Fatal(err)
	}
	lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: task.Model, Store: store}}}) // its dense parent
	trainer, err := experiment.NewTrainer(lesson, store)
	if err != nil {
		t.Fatal(err)
	}
	signals, err := trainer.Signals(pruner.Params(), criterion.Taylor.Needs, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pruner.Prune(0.9, signals); err != nil {
		t.Fatal(err)
	}
	if _, err := trainer.Train(t.Context(), experiment.Training{Steps: 100, Pruner: pruner}); err != nil {
		t.Fatal(err)
	}
	stats, err := mask.Count(store, pruner.Params())
	if err != nil {
		t.Fatal(err)
	}
	alive := 0
	for _, s := range stats {
		alive += s.Kept
	}
	if want := 635; alive != want { // 10% of 784·8 + 8·10 = 6352
		t.Errorf("%d weights are alive, want %d", alive, want)
	}
	if after := bits(t, store); cmp.Equal(before["/fc1/dense/weights"], after["/fc1/dense/weights"]) {
		t.Error("the student did not learn")
	}

	u, err := sparsetrain.RigL.Over(60, 10)
	if err != nil {
		t.Fatal(err)
	}
	sparse := started(t, task, 2)
	engine, err := sparsetrain.New(task.Backend, sparse, params.Select(sparse, nil), u, sparsetrain.Config{Density: 0.1, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	result := trained(t, taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: task.Model, Store: store}}}), sparse,
		experiment.Training{Steps: 60, Topology: engine, Optimizer: &experiment.SGD{LearningRate: 0.05, Momentum: 0.9}})
	if first, last := result.Losses[0].Value, result.Loss; !(last < first) {
		t.Errorf("sparse: the loss goes from %v to %v", first, last)
	}
}

// What surgery has made of a network learns from the whole one, features too, though the student's model function replays the teacher's with other widths.
func TestSurgery(t *testing.T) {
	task := digits(t, conv(8))
	store := started(t, task, 1)
	whole, err := surgery.Trace(task.Backend, store, trace.Single(task.Model), shapes.Make(dtypes.Float32, 1, 28, 28, 1))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := whole.Plan(surgery.Config{MACs: 0.4}, nil)
	if err != nil {
		t.Fatal(err)
	}
	small, err := plan.Apply()
	if err != nil {
		t.Fatal(err)
	}
	task.Model = small.Single
	lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: conv(8), Store: store}}, Terms: []distill.Term{
		distill.Logits(4, 0.5), distill.Hint(1, distill.Between{Student: maps, Teacher: maps}), distill.Attention(10, distill.Between{Student: maps, Teacher: maps})}})
	result := trained(t, lesson, small.Store, experiment.Training{Steps: 100, Optimizer: &experiment.SGD{LearningRate: 0.02}})
	if first, last := result.Losses[0].Value, result.Loss; !(last < first) {
		t.Errorf("the loss goes from %v to %v", first, last)
	}
}

// A teacher answers as in inference, whatever its network does in training; what a label says is kept.
func TestTeacherInfers(t *testing.T) {
	task := digits(t, narrow(4))
	task.Backend = gobackend.GetBackend()
	store := started(t, task, 9)
	moody := func(scope *model.Scope, x *graph.Node) *graph.Node {
		y := task.Model(scope, x)
		if scope.IsTraining(x.Graph()) {
			y = graph.AddScalar(y, 100)
		}
		return y
	}
	lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: moody, Store: store}}})
	for batch, err := range lesson.Train.Iter() {
		if err != nil {
			t.Fatal(err)
		}
		got := batch.Labels[0].Value().([][]float32)
		exec, err := model.NewExec(task.Backend, store, func(_ *model.Scope, x *graph.Node) *graph.Node { return task.Model(store.RootScope(), x) })
		if err != nil {
			t.Fatal(err)
		}
		y, err := exec.Call1(batch.Inputs[0])
		if err != nil {
			t.Fatal(err)
		}
		order := task.Train.(experiment.Resident).Order(0)
		for i, want := range y.Value().([][]float32) {
			if label := task.Train.(*synth.Dataset).Label(int(order[i])); int(got[i][0]) != label {
				t.Fatalf("example %d has the label %v, want %d", i, got[i][0], label)
			}
			for k := range want {
				if math.Abs(float64(got[i][1+k]-want[k])) > 1e-5 {
					t.Fatalf("example %d: the teacher says %v, in inference %v", i, got[i][1:], want)
				}
			}
		}
		break
	}
}

// firstLoss is the loss of a student that learns nothing, at a rate of next to nothing.
func firstLoss(t *testing.T, task experiment.Task, teachers []distill.Teacher, terms ...distill.Term) float64 {
	t.Helper()
	lesson := taught(t, task, distill.Config{Teachers: teachers, Terms: terms})
	return trained(t, lesson, started(t, task, 2), experiment.Training{Steps: 10, Optimizer: &experiment.SGD{LearningRate: 1e-12}}).Loss
}

// Of several teachers each has its share: with the same answers they teach as one does, and a single one of weight 3 against 1 pulls three quarters.
func TestSeveralTeachers(t *testing.T) {
	task := digits(t, narrow(4))
	task.Backend = gobackend.GetBackend()
	a, b := started(t, task, 8), started(t, task, 9)
	loss := func(term distill.Term, teachers ...distill.Teacher) float64 {
		return firstLoss(t, task, teachers, term)
	}
	of := func(store *model.Store, weight float64) distill.Teacher {
		return distill.Teacher{Model: task.Model, Store: store, Weight: weight}
	}
	for _, term := range []distill.Term{distill.Logits(2, 1), distill.LogitsMSE(1)} {
		la, lb := loss(term, of(a, 0)), loss(term, of(b, 0))
		if got, want := loss(term, of(a, 3), of(b, 1)), 0.75*la+0.25*lb; math.Abs(got-want) > 1e-4*want {
			t.Errorf("%v: the loss is %v, want %v of %v and %v", term, got, want, la, lb)
		}
	}
	at := distill.Between{Student: hidden, Teacher: hidden, Of: 1}
	second := loss(distill.RelationalDistance(1, at), of(a, 0), of(b, 0))
	at.Of = 0
	if first := loss(distill.RelationalDistance(1, at), of(b, 0)); math.Abs(first-second) > 1e-5*first {
		t.Errorf("the second teacher's features give the loss %v, want %v", second, first)
	}
}

// Terms on logits have their alphas as shares of the loss, and what they leave is the labels'; terms on layers come in addition, each with its weight. The default is Hinton's at T = 4 with 0.9.
func TestShares(t *testing.T) {
	task := digits(t, narrow(4))
	task.Backend = gobackend.GetBackend()
	teachers := []distill.Teacher{{Model: task.Model, Store: started(t, task, 8)}}
	loss := func(terms ...distill.Term) float64 { return firstLoss(t, task, teachers, terms...) }
	at := distill.Between{Student: hidden, Teacher: hidden}
	labels, soft, squares := loss(distill.Logits(4, 0)), loss(distill.Logits(4, 1)), loss(distill.LogitsMSE(1))
	distance, hint := loss(distill.RelationalDistance(1, at))-labels, loss(distill.Hint(1, at))-labels
	for _, c := range []struct {
		terms []distill.Term
		want  float64
	}{
		{nil, 0.9*soft + 0.1*labels},
		{[]distill.Term{distill.Logits(4, 0.9)}, 0.9*soft + 0.1*labels},
		{[]distill.Term{distill.Logits(4, 0.5), distill.LogitsMSE(0.25)}, 0.5*soft + 0.25*squares + 0.25*labels},
		{[]distill.Term{distill.LogitsMSE(0.75), distill.RelationalDistance(25, at)}, 0.75*squares + 0.25*labels + 25*distance},
		{[]distill.Term{distill.Hint(3, at)}, labels + 3*hint},
	} {
		if got := loss(c.terms...); math.Abs(got-c.want) > 1e-4*c.want {
			t.Errorf("%v: the loss is %v, want %v of labels %v, logits %v and %v, distance %v, hint %v", c.terms, got, c.want, labels, soft, squares, distance, hint)
		}
	}
	// Nine ninths are one, though their sum is more by a rounding error.
	if got := loss(slices.Repeat([]distill.Term{distill.LogitsMSE(1. / 9)}, 9)...); math.Abs(got-squares) > 1e-4*squares {
		t.Errorf("nine terms of a ninth: the loss is %v, want that of one, %v", got, squares)
	}
	// A student that is its own teacher agrees with it, and has the labels' share left.
	self := []distill.Teacher{{Model: task.Model, Store: started(t, task, 2)}}
	for _, alpha := range []float64{0.25, 1} {
		if got, want := firstLoss(t, task, self, distill.Logits(4, alpha)), (1-alpha)*labels; math.Abs(got-want) > 1e-4*labels {
			t.Errorf("alpha %v, no divergence: the loss is %v, want %v of labels %v", alpha, got, want, labels)
		}
	}
}

// rows is a network that takes an image for a sequence of its rows. Dense layers compute them all at once, as [batch·rows, channels].
func rows(scope *model.Scope, x *graph.Node) *graph.Node {
	x = graph.Reshape(x, x.Shape().Dimensions[0], 28, 28)                     // [batch, 28, 28, 1] -> [batch, rows, 28]
	x = activation.Relu(layers.Dense(scope.At("embed"), x, true, 6))          // -> [batch, rows, 6]
	x = activation.Relu(layers.Dense(scope.At("mix"), x, true, 5))            // -> [batch, rows, 5]
	return layers.Dense(scope.At("output"), graph.ReduceMean(x, 1), true, 10) // -> [batch, 10]
}

// A layer that reads sequences reads one for each example, whatever form the product takes them in.
func TestSequences(t *testing.T) {
	task := digits(t, rows)
	const mix = "/mix/dense/weights"
	at := distill.Between{Student: mix, Teacher: mix}
	other, self := started(t, task, 9), started(t, task, 2)
	for _, term := range []distill.Term{distill.RelationalDistance(1, at), distill.RelationalAngle(1, at), distill.Attention(100, at), distill.Hint(1, at)} {
		lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: rows, Store: other}}, Terms: []distill.Term{term}})
		width := 28 * 6
		if strings.HasPrefix(term.String(), "attention") {
			width = 28
		}
		_, labels := lesson.Train.(experiment.Resident).Arrays()
		if got := labels.Shape().Dimensions; !slices.Equal(got, []int{200, 1 + width}) {
			t.Errorf("%v: labels are %v, want one and %d answers for each of 200 examples", term, got, width)
		}
		if !strings.HasPrefix(term.String(), "hint") { // whose adapter starts anywhere
			labels := firstLoss(t, task, []distill.Teacher{{Model: rows, Store: self}}, distill.Logits(1, 0))
			if got := firstLoss(t, task, []distill.Teacher{{Model: rows, Store: self}}, term); math.Abs(got-labels) > 1e-5*labels {
				t.Errorf("%v: of itself the student learns a loss of %v, want that of the labels, %v", term, got, labels)
			}
			if got := firstLoss(t, task, []distill.Teacher{{Model: rows, Store: other}}, term); got <= labels*(1+1e-4) {
				t.Errorf("%v: of another network the student learns a loss of %v, want more than the labels', %v", term, got, labels)
			}
		}
	}
	// Where it can't be told which features are which example's, it is said.
	rolled := func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = graph.Reshape(x, -1, 28*7)                                               // [batch, 28, 28, 1] -> [4·batch, 196]
		x = layers.Dense(scope.At("mix"), activation.Relu(x), true, 5)               // -> [4·batch, 5]
		return layers.Dense(scope.At("output"), graph.Reshape(x, -1, 4*5), true, 10) // -> [batch, 10]
	}
	of := task
	of.Model = rolled
	var config *distill.ConfigError
	if _, err := distill.Teach(t.Context(), distill.Config{Backend: task.Backend, Student: rolled, Train: task.Train, Teachers: []distill.Teacher{{Model: rolled, Store: started(t, of, 1)}},
		Terms: []distill.Term{distill.RelationalDistance(1, at)}}); !errors.As(err, &config) || !strings.Contains(err.Error(), "first axis") {
		t.Errorf("examples rolled up: error %v, want a *ConfigError", err)
	}
}

// An adapter keeps the size of what it reads: its weights start with the variance 1/in, within four standard errors, and its bias at zero.
func TestAdapterStart(t *testing.T) {
	const in, out = 32, 64
	task := digits(t, narrow(in))
	task.Backend = gobackend.GetBackend()
	large := task
	large.Model = narrow(out)
	lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: large.Model, Store: started(t, large, 8)}},
		Terms: []distill.Term{distill.Hint(1, distill.Between{Student: hidden, Teacher: hidden})}})
	store := started(t, task, 2)
	trained(t, lesson, store, experiment.Training{Steps: 1, Optimizer: &experiment.SGD{LearningRate: 1e-12}})
	squares := 0.0
	all := bits(t, store)
	for _, w := range all["/distill/0/adapter"] {
		squares += float64(w) * float64(w)
	}
	if got := squares / (in * out); math.Abs(got-1.0/in) > 4.0/in*math.Sqrt(2.0/(in*out)) {
		t.Errorf("the weights have the mean square %v, want about %v", got, 1.0/in)
	}
	for _, b := range all["/distill/0/bias"] {
		if math.Abs(float64(b)) > 1e-9 {
			t.Errorf("a bias is %v, want 0", b)
		}
	}
}

// stream hides that a data set lies in memory.
type stream struct {
	train.Dataset
	digest string
}

func (s stream) Digest() string { return s.digest }

// Batches that are read one by one get the same answers.
func TestStream(t *testing.T) {
	task := digits(t, narrow(4))
	cfg := distill.Config{Teachers: []distill.Teacher{{Model: task.Model, Store: started(t, task, 9)}}}
	memory := taught(t, task, cfg)
	open := func() experiment.Task {
		streaming := digits(t, narrow(4))
		streaming.Train = stream{streaming.Train, "data"}
		return streaming
	}
	streamed := taught(t, open(), cfg)
	batches := 0
	for batch, err := range streamed.Train.Iter() {
		if err != nil {
			t.Fatal(err)
		}
		if got, want := batch.Labels[0].Shape().String(), "(Float32)[20, 11]"; got != want {
			t.Errorf("labels are %s, want %s", got, want)
		}
		batches++
	}
	if batches != 10 {
		t.Errorf("%d batches, want 10", batches)
	}
	a, b := started(t, task, 2), started(t, task, 2)
	first := trained(t, memory, a, experiment.Training{Steps: 10, Optimizer: &experiment.SGD{LearningRate: 1e-12}})
	second := trained(t, streamed, b, experiment.Training{Steps: 10, Optimizer: &experiment.SGD{LearningRate: 1e-12}})
	if math.Abs(first.Loss-second.Loss) > 1e-4*first.Loss { // ten batches are an epoch
		t.Errorf("the mean loss of an epoch is %v, want %v", second.Loss, first.Loss)
	}
	id := func(task experiment.Task) string { return task.Train.(interface{ Digest() string }).Digest() }
	cfg.Teachers[0].Store = started(t, task, 10)
	if same, other := taught(t, open(), distill.Config{Teachers: []distill.Teacher{{Model: task.Model, Store: started(t, task, 9)}}}), taught(t, open(), cfg); id(same) != id(streamed) || id(other) == id(streamed) {
		t.Errorf("digests: %s, with the same teacher %s, with another %s", id(streamed), id(same), id(other))
	}
}

// epochs is a data set that is read batch by batch, another way in each epoch.
type epochs struct {
	stream
	of func(epoch int) iter.Seq2[train.Batch, error]
}

func (e epochs) Epoch(epoch int) iter.Seq2[train.Batch, error] { return e.of(epoch) }

// An epoch of data that are read batch by batch is still that epoch with a teacher, and asking for it leaves those of the training alone.
func TestEpochs(t *testing.T) {
	task := digits(t, narrow(4))
	plain := task.Train.(interface {
		Epoch(int) iter.Seq2[train.Batch, error]
	})
	task.Train = epochs{stream{task.Train, "data"}, plain.Epoch}
	teachers := []distill.Teacher{{Model: task.Model, Store: started(t, task, 9)}}
	lesson, ok := taught(t, task, distill.Config{Teachers: teachers}).Train.(interface {
		Epoch(int) iter.Seq2[train.Batch, error]
	})
	if !ok {
		t.Fatal("with a teacher, the data set has no epochs")
	}
	next, stop := iter.Pull2(lesson.Epoch(3))
	defer stop()
	for want, err := range plain.Epoch(3) {
		got, failed, _ := next()
		if err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		x, y := tensors.MustCopyFlatData[float32](want.Inputs[0]), tensors.MustCopyFlatData[float32](got.Inputs[0])
		if !slices.Equal(x, y) || got.Labels[0].Shape().Dim(-1) != 11 {
			t.Fatalf("with labels %s, want the examples of the epoch and [20, 11]", got.Labels[0].Shape())
		}
	}
	bare := digits(t, narrow(4))
	bare.Train = stream{bare.Train, "data"}
	if _, ok := taught(t, bare, distill.Config{Teachers: teachers}).Train.(interface {
		Epoch(int) iter.Seq2[train.Batch, error]
	}); ok {
		t.Error("a data set without epochs has some with a teacher")
	}
}

// tokens is a data set of words by their numbers, of three classes, read batch by batch.
type tokens struct{ class int32 }

func (tokens) Name() string { return "tokens" }

func (k tokens) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		words := tensors.FromValue([][]int32{{0, 1, 2, 3}, {3, 3, 2, 1}})
		yield(train.Batch{Inputs: []*tensors.Tensor{words}, Labels: []*tensors.Tensor{tensors.FromValue([][]int32{{0}, {k.class}})}}, nil)
	}
}

// bag is a network that reads words.
func bag(width int) distill.ModelFn {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Embedding(scope.At("words"), x, dtypes.Float32, 4, width)     // [batch, 4] -> [batch, 4, width]
		return layers.Dense(scope.At("output"), graph.ReduceMean(x, 1), true, 3) // -> [batch, 3]
	}
}

// Examples need not be of float32.
func TestTokens(t *testing.T) {
	task := digits(t, bag(5))
	task.Train, task.Validation = tokens{2}, nil
	teacher := started(t, task, 1)
	digest := func(fn distill.ModelFn) string {
		lesson, err := distill.Teach(t.Context(), distill.Config{Backend: task.Backend, Student: bag(3), Train: tokens{2}, Teachers: []distill.Teacher{{Model: fn, Store: teacher}}})
		if err != nil {
			t.Fatal(err)
		}
		return lesson.Train.(interface{ Digest() string }).Digest()
	}
	// Teachers of the same values, of which one reads the words one place on.
	other := func(scope *model.Scope, x *graph.Node) *graph.Node {
		return bag(5)(scope, graph.AddScalar(x, 1))
	}
	if same, second := digest(bag(5)), digest(other); same != digest(bag(5)) || same == second {
		t.Errorf("the digest of a teacher is %s, of another %s", same, second)
	}
	lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: bag(5), Store: teacher}}})
	trained(t, lesson, started(t, lesson, 2), experiment.Training{Steps: 3})
	// A label without a logit is refused as for data in memory, when its batch comes.
	for _, class := range []int32{-1, 3} {
		task.Train = tokens{class}
		lesson := taught(t, task, distill.Config{Teachers: []distill.Teacher{{Model: bag(5), Store: teacher}}})
		var config *distill.ConfigError
		if _, err := experiment.Train(t.Context(), lesson, started(t, task, 2), experiment.Training{Steps: 1}); !errors.As(err, &config) || !strings.Contains(err.Error(), "example 1 of a batch of tokens") {
			t.Errorf("label %d: error %v, want a *ConfigError", class, err)
		}
	}
}

// mislabelled has a class too many, of its fourth example.
type mislabelled struct{ experiment.Resident }

func (m mislabelled) Arrays() (inputs, labels *tensors.Tensor) {
	inputs, all := m.Resident.Arrays()
	classes := tensors.MustCopyFlatData[int32](all)
	classes[3] = 10
	return inputs, tensors.FromFlatDataAndDimensions(classes, len(classes))
}

// Bad input is refused with a typed error that says what to do, before anything is computed.
func TestBadInput(t *testing.T) {
	task := digits(t, narrow(4))
	teacher := func(fn distill.ModelFn) []distill.Teacher {
		of := task
		of.Model = fn
		return []distill.Teacher{{Name: "big", Model: fn, Store: started(t, of, 1)}}
	}
	good := teacher(mlp(8, 10))
	ofConv := teacher(conv(4))
	spoiled := teacher(mlp(8, 10))
	weights, err := spoiled[0].Store.GetVariable(hidden).Value()
	if err != nil {
		t.Fatal(err)
	}
	if err := tensors.MutableFlatData(weights, func(flat []float32) { flat[0] = float32(math.NaN()) }); err != nil {
		t.Fatal(err)
	}
	at := distill.Between{Student: hidden, Teacher: hidden}
	one := func(term distill.Term) []distill.Term { return []distill.Term{term} }
	for _, c := range []struct {
		name string
		cfg  distill.Config
		want any
		says string
	}{
		{"temperature 0", distill.Config{Terms: one(distill.Logits(0, 0.5))}, new(*distill.ConfigError), "0.001 to 1000"},
		{"temperature below 0", distill.Config{Terms: one(distill.Logits(-1, 0.5))}, new(*distill.ConfigError), "0.001 to 1000"},
		{"temperature NaN", distill.Config{Terms: one(distill.Logits(math.NaN(), 0.5))}, new(*distill.ConfigError), "0.001 to 1000"},
		{"temperature infinite", distill.Config{Terms: one(distill.Logits(math.Inf(1), 0.5))}, new(*distill.ConfigError), "0.001 to 1000"},
		{"temperature that float32 can't divide by", distill.Config{Terms: one(distill.Logits(1e-30, 0.5))}, new(*distill.ConfigError), "0.001 to 1000"},
		{"a store without the teacher", distill.Config{Teachers: []distill.Teacher{{Model: good[0].Model, Store: model.NewStore()}}}, new(*distill.ConfigError), "Teachers[0].Store: it has no /fc1/dense/biases, /fc1/dense/weights"},
		{"the store of another teacher", distill.Config{Teachers: []distill.Teacher{{Model: good[0].Model, Store: ofConv[0].Store}}}, new(*distill.ConfigError), "Teachers[0].Store: it has no /fc1"},
		{"a store without the student", distill.Config{Store: model.NewStore()}, new(*distill.ConfigError), "Config.Store: it has no /"},
		{"a teacher that answers NaN", distill.Config{Teachers: spoiled}, new(*distill.ConfigError), "big answers NaN"},
		{"a label without a logit", distill.Config{Train: mislabelled{task.Train.(experiment.Resident)}}, new(*distill.ConfigError), "example 3 of"},
		{"alpha above 1", distill.Config{Terms: one(distill.Logits(1, 1.1))}, new(*distill.ConfigError), "from 0"},
		{"alpha below 0", distill.Config{Terms: one(distill.LogitsMSE(-0.1))}, new(*distill.ConfigError), "from 0"},
		{"alpha NaN", distill.Config{Terms: one(distill.LogitsMSE(math.NaN()))}, new(*distill.ConfigError), "from 0"},
		{"alphas above 1", distill.Config{Terms: []distill.Term{distill.Logits(1, 0.6), distill.LogitsMSE(0.6)}}, new(*distill.ConfigError), "at most 1"},
		{"weight 0", distill.Config{Terms: one(distill.Hint(0, at))}, new(*distill.ConfigError), "above 0"},
		{"empty term", distill.Config{Terms: []distill.Term{{}}}, new(*distill.ConfigError), "make terms with"},
		{"no such teacher", distill.Config{Terms: one(distill.Hint(1, distill.Between{Of: 1}))}, new(*distill.ConfigError), "there are 1"},
		{"negative teacher", distill.Config{Terms: one(distill.Hint(1, distill.Between{Of: -1}))}, new(*distill.ConfigError), "from 0"},
		{"negative share", distill.Config{Teachers: []distill.Teacher{{Model: good[0].Model, Store: good[0].Store, Weight: -1}}}, new(*distill.ConfigError), "above 0"},
		{"no store", distill.Config{Teachers: []distill.Teacher{{Model: good[0].Model}}}, new(*distill.ConfigError), "trained weights"},
		{"other classes", distill.Config{Teachers: teacher(mlp(8, 7))}, new(*distill.ClassesError), "compare layers"},
		{"no such layer", distill.Config{Terms: one(distill.Hint(1, distill.Between{Student: "/fc9/weights", Teacher: hidden}))}, new(*distill.LayerError), "/fc1/dense/weights, /output/dense/weights"},
		{"no such layer of the teacher", distill.Config{Terms: one(distill.Hint(1, distill.Between{Student: hidden, Teacher: "/fc9/weights"}))}, new(*distill.LayerError), "big has no layer"},
		{"vector and map", distill.Config{Teachers: ofConv, Terms: one(distill.Hint(1, distill.Between{Student: hidden, Teacher: maps}))}, new(*distill.ShapeError), "of the same kind"},
		{"attention of vectors", distill.Config{Terms: one(distill.Attention(1, at))}, new(*distill.ShapeError), "feature maps"},
		{"memory", distill.Config{Limit: 100}, new(*distill.TooLargeError), "raise Config.Limit"},
		{"negative memory", distill.Config{Limit: -1}, new(*distill.ConfigError), "positive"},
	} {
		c.cfg.Backend, c.cfg.Student = task.Backend, task.Model
		if c.cfg.Train == nil {
			c.cfg.Train = task.Train
		}
		if c.cfg.Teachers == nil {
			c.cfg.Teachers = good
		}
		_, err := distill.Teach(t.Context(), c.cfg)
		if err == nil || !errors.As(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v (%T), want %T that says %q", c.name, err, err, c.want, c.says)
		}
	}
	for _, cfg := range []distill.Config{{Teachers: good, Train: task.Train}, {Student: task.Model, Train: task.Train}, {Student: task.Model, Teachers: good}} {
		var wrong *distill.ConfigError
		if _, err := distill.Teach(t.Context(), cfg); !errors.As(err, &wrong) {
			t.Errorf("error %v, want *ConfigError", err)
		}
	}
	// A student whose maps are smaller than the teacher's has no adapter.
	larger := func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Convolution(scope.At("conv2"), x).Channels(2).KernelSize(3).NoPadding().Done() // reads [batch, 28, 28, 1]
		return layers.Dense(scope.At("output"), graph.Reshape(x, x.Shape().Dimensions[0], -1), true, 10)
	}
	var shape *distill.ShapeError
	between := distill.Between{Student: maps, Teacher: maps}
	if _, err := distill.Teach(t.Context(), distill.Config{Backend: task.Backend, Student: conv(4), Train: task.Train, Teachers: teacher(larger), Terms: one(distill.Hint(1, between))}); !errors.As(err, &shape) {
		t.Errorf("error %v, want *ShapeError", err)
	}
	// The other way round the adapter is a convolution.
	if _, err := distill.Teach(t.Context(), distill.Config{Backend: task.Backend, Student: larger, Train: task.Train, Teachers: ofConv, Terms: one(distill.Hint(1, between))}); err != nil {
		t.Error(err)
	}
}

// TestTeachStops: cancelling stops the teachers between two batches of examples, and progress counts the examples of those teachers that say something.
func TestTeachStops(t *testing.T) {
	task := digits(t, mlp(8, 10))
	of := digits(t, mlp(32, 10))
	var teachers []distill.Teacher
	for _, name := range []string{"first", "second"} {
		teachers = append(teachers, distill.Teacher{Name: name, Model: of.Model, Store: started(t, of, 1)})
	}
	var got []string
	cfg := distill.Config{Backend: task.Backend, Student: task.Model, Train: task.Train, Teachers: teachers,
		Progress: func(done, total int, note string) { got = append(got, fmt.Sprintf("%s %d/%d", note, done, total)) }}
	if _, err := distill.Teach(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"first 200/400", "second 400/400"}, got); diff != "" {
		t.Error("progress (-want +got):", diff)
	}

	ctx, cancel := context.WithCancel(t.Context())
	got = nil
	cfg.Progress = func(done, total int, note string) { got = append(got, note); cancel() }
	if lesson, err := distill.Teach(ctx, cfg); !errors.Is(err, context.Canceled) || lesson != nil {
		t.Errorf("lesson %v, error %v; want none, and context.Canceled", lesson, err)
	}
	if diff := cmp.Diff([]string{"first"}, got); diff != "" {
		t.Error("teachers asked (-want +got):", diff)
	}

	// A teacher without a say is not asked.
	cfg.Terms = []distill.Term{distill.Hint(1, distill.Between{Student: hidden, Teacher: hidden, Of: 1})}
	got = nil
	cfg.Progress = func(done, total int, note string) { got = append(got, fmt.Sprintf("%s %d/%d", note, done, total)) }
	if _, err := distill.Teach(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"second 200/200"}, got); diff != "" {
		t.Error("progress (-want +got):", diff)
	}
}

func ExampleTeach() {
	data, err := synth.Digits(synth.Config{Train: 1000})
	if err != nil {
		fmt.Println(err)
		return
	}
	large := experiment.Task{Model: mlp(64, 10), Train: data.Train, Validation: data.Validation}
	parent, err := experiment.Init(large, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := experiment.Train(context.Background(), large, parent, experiment.Training{Epochs: 5}); err != nil {
		fmt.Println(err)
		return
	}

	lesson, err := distill.Teach(context.Background(), distill.Config{
		Student: mlp(8, 10), Train: data.Train,
		Teachers: []distill.Teacher{{Model: large.Model, Store: parent}},
		Terms:    []distill.Term{distill.Logits(4, 0.9), distill.RelationalDistance(1, distill.Between{Student: hidden, Teacher: hidden})},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	task := experiment.Task{Model: lesson.Model, Loss: lesson.Loss, Train: lesson.Train, Validation: data.Validation}
	student, err := experiment.Init(task, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := experiment.Train(context.Background(), task, student, experiment.Training{Epochs: 5}); err != nil {
		fmt.Println(err)
		return
	}
	_, labels := lesson.Train.(experiment.Resident).Arrays()
	fmt.Println(lesson)
	fmt.Println("each example's label, the teacher's logits and what its last layer reads:", labels.Shape())
	// Output:
	// logits T=4 α=0.9 + relational distance 1 /output/dense/weights ~ /output/dense/weights
	// each example's label, the teacher's logits and what its last layer reads: (Float32)[1000, 75]
}

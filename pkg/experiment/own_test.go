package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

// An *SGD is taken as it is when a training starts, not as it was when the step was compiled.
func TestOptimizerChangedBetweenTrainings(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	tr, err := NewTrainer(task, store)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	sgd := &SGD{LearningRate: 0.1}
	start := weights(t, store)
	if _, err := tr.Train(t.Context(), Training{Steps: 2, Optimizer: sgd}); err != nil {
		t.Fatal(err)
	}
	far := distance(start, weights(t, store))
	sgd.LearningRate = 1e-6
	start = weights(t, store)
	if _, err := tr.Train(t.Context(), Training{Steps: 2, Optimizer: sgd}); err != nil {
		t.Fatal(err)
	}
	if near := distance(start, weights(t, store)); near > far/1000 {
		t.Errorf("weights moved by %v with a learning rate of 0.1 and by %v with one of 1e-6", far, near)
	}
}

// distance is the largest difference of two weights.
func distance(a, b map[string][]float32) float32 {
	most := float32(0)
	for path := range a {
		for i := range a[path] {
			most = max(most, a[path][i]-b[path][i], b[path][i]-a[path][i])
		}
	}
	return most
}

// scheduled is an optimizer that Go can't compare.
type scheduled struct {
	optimizer.Interface
	rates []float64
}

func TestOptimizerThatCannotBeCompared(t *testing.T) {
	task := newTask(t)
	tr, err := NewTrainer(task, newStore(t, task, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	for range 2 {
		if _, err := tr.Train(t.Context(), Training{Steps: 1, Optimizer: scheduled{&SGD{}, []float64{0.1}}}); err != nil {
			t.Error(err)
		}
	}
}

func TestPrunerOfAnotherStoreIsRefused(t *testing.T) {
	task := newTask(t)
	if _, err := NewTrainer(task, nil); !errors.As(err, new(*ConfigError)) {
		t.Errorf("no store: got %v, want a *ConfigError", err)
	}
	mine, other := newStore(t, task, 1), newStore(t, task, 2)
	p := newPruner(t, task, other, prune.Recipe{})
	for _, perDispatch := range []int{0, 1} {
		var bad *ConfigError
		if _, err := Train(t.Context(), task, mine, Training{Steps: 1, Pruner: p, StepsPerDispatch: perDispatch}); !errors.As(err, &bad) {
			t.Errorf("got %v, want a *ConfigError", err)
		}
	}
	for _, path := range params.Select(mine, nil).Paths() {
		for _, w := range tensors.MustCopyFlatData[float32](mine.GetVariable(path).MustValue()) {
			if w == 0 {
				t.Fatalf("a weight of %s is zero", path)
			}
		}
	}
}

// An interrupted run goes on when it is run again with the store that it had, whoever trains that.
func TestGoesOnFromWhatAnInterruptHasLeft(t *testing.T) {
	task := newTask(t)
	task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node { // with random numbers of its own
		x = activation.Relu(layers.Dense(scope.At("fc1"), x, true, 16))
		return layers.Dense(scope.At("output"), layers.Dropout(scope, x, graph.Scalar(x.Graph(), x.DType(), 0.2)), true, 4)
	}
	training := func(store *model.Store) Training {
		return Training{Steps: 120, StepsPerDispatch: 10, Rate: CosineDecay, Keep: []int{0, 70}, Pruner: newPruner(t, task, store, prune.Recipe{Criterion: criterion.Random}),
			Schedule: schedule.Cubic(0, 80, 0, 0.8), When: schedule.Every(10, 10, 90)}
	}
	whole := newStore(t, task, 1)
	want, err := Train(t.Context(), task, whole, training(whole))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, again := range []bool{false, true} { // with another trainer, and with the same
		store := newStore(t, task, 1)
		tr, err := NewTrainer(task, store)
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		run := training(store)
		run.Dir = filepath.Join(dir, fmt.Sprint(again))
		at := 0
		for _, stop := range []int{33, 71} {
			ctx, cancel := context.WithCancel(t.Context())
			run.Watch = func(now report.Progress) {
				if now.Step >= stop {
					cancel()
				}
			}
			result, err := tr.Train(ctx, run)
			cancel()
			var stopped *InterruptedError
			if !errors.As(err, &stopped) || result.Resumed != at {
				t.Fatalf("stopped by %v, having gone on from step %d, want an *InterruptedError and %d", err, result.Resumed, at)
			}
			at = stopped.Step
			if !again {
				if tr, err = NewTrainer(task, store); err != nil {
					t.Fatal(err)
				}
				defer tr.Close()
			}
		}
		run.Watch = nil
		got, err := tr.Train(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		if got.Resumed != at || len(got.Kept) != 2 {
			t.Errorf("it went on from step %d with %d networks kept in the end, want %d and 2", got.Resumed, len(got.Kept), at)
		}
		if diff := cmp.Diff(weights(t, whole), weights(t, store)); diff != "" {
			t.Errorf("same trainer: %t (-whole +interrupted):\n%s", again, diff)
		}
		if diff := cmp.Diff(want.Losses, got.Losses); diff != "" {
			t.Errorf("losses (-whole +interrupted):\n%s", diff)
		}
		// A run of another length starts from there anew.
		run.Steps, run.Keep, run.Schedule, run.When = 10, nil, nil, nil
		if got, err := tr.Train(t.Context(), run); err != nil || got.Resumed != 0 || got.Steps != 10 {
			t.Errorf("another run: %d steps from step %d, %v", got.Steps, got.Resumed, err)
		}
	}
}

// steep is a data set of one example that no network has a finite loss on.
func steep() *points {
	huge := tensors.FromFlatDataAndDimensions([]float32{3e38, 3e38}, 1, 2)
	return &points{huge, tensors.FromFlatDataAndDimensions([]int32{0}, 1), 1, 1}
}

// undecoded hands out a data set's numbers as they are.
type undecoded struct{ *points }

func (undecoded) Decode(x *graph.Node) *graph.Node { return x }

// A loss on validation data that is no number is told, saved and gone on from, and does not end the training.
func TestValidationLossThatIsNoNumber(t *testing.T) {
	task := newTask(t)
	task.Validation = undecoded{steep()}
	run := Training{Steps: 60, Validate: 20, KeepBest: true, Dir: t.TempDir()}
	first, err := Train(t.Context(), task, newStore(t, task, 1), run)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.ValidationLosses) != 3 || !math.IsNaN(first.ValidationLosses[0].Value) {
		t.Fatalf("validation losses %v: the test says nothing", first.ValidationLosses)
	}
	second, err := Train(t.Context(), task, newStore(t, task, 1), run)
	if err != nil || !second.Loaded {
		t.Fatalf("loaded: %t, %v", second.Loaded, err)
	}
	if diff := cmp.Diff(first, second, cmpopts.EquateNaNs(), cmpopts.IgnoreFields(Result{}, "Loaded", "Resumed")); diff != "" {
		t.Errorf("(-trained +loaded):\n%s", diff)
	}
}

func TestPointsAsJSON(t *testing.T) {
	points := []Point{{1, 0.5}, {2, math.NaN()}, {3, math.Inf(1)}, {4, math.Inf(-1)}}
	text, err := json.Marshal(points)
	if want := `[{"Step":1,"Value":0.5},{"Step":2,"Value":"NaN"},{"Step":3,"Value":"+Inf"},{"Step":4,"Value":"-Inf"}]`; string(text) != want || err != nil {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	var again []Point
	if err := json.Unmarshal(text, &again); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(points, again, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	if err := json.Unmarshal([]byte(`{"Step":1,"Value":"much"}`), &again[0]); err == nil {
		t.Error("a value of words is read")
	}
}

// relabel is a data set with other labels.
type relabel struct {
	*points
	labels *tensors.Tensor
}

func (r relabel) Arrays() (inputs, labels *tensors.Tensor) { return r.inputs, r.labels }

// classes returns the classes of a data set, each as one wants it.
func classes[T gotype.Supported](p *points, as func(class int32) []T) *tensors.Tensor {
	var flat []T
	for _, class := range tensors.MustCopyFlatData[int32](p.labels) {
		flat = append(flat, as(class)...)
	}
	return tensors.FromFlatDataAndDimensions(flat, p.n, len(flat)/p.n)
}

// What a loss of one's own makes of labels: accuracy means the same as with class numbers.
func TestAccuracyOfOwnLosses(t *testing.T) {
	data := newPoints(256, 16)
	outputs := func(n int) ModelFn {
		return func(scope *model.Scope, x *graph.Node) *graph.Node {
			x = activation.Relu(layers.Dense(scope.At("fc1"), x, true, 16))
			return layers.Dense(scope.At("output"), x, true, n)
		}
	}
	right := classes(data, func(class int32) []float32 { return []float32{float32(class & 1)} })
	oneHot := classes(data, func(class int32) []float32 {
		row := make([]float32, 4)
		row[class] = 1
		return row
	})
	for name, task := range map[string]Task{
		"one logit":           {Model: outputs(1), Loss: loss.BinaryCrossentropyLogits, Train: relabel{data, right}},
		"a column of each":    {Model: outputs(4), Loss: loss.MeanSquaredError, Train: relabel{data, oneHot}},
		"numbers, as always":  {Model: outputs(4), Train: data},
		"numbers of one byte": {Model: outputs(4), Train: relabel{data, classes(data, func(class int32) []int8 { return []int8{int8(class)} })}},
	} {
		store := newStore(t, task, 1)
		if _, err := Train(t.Context(), task, store, Training{Steps: 400, Optimizer: optimizer.Adam().LearningRate(0.02).Done()}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m, err := Evaluate(t.Context(), task, store, task.Train); err != nil || m.Accuracy < 0.9 {
			t.Errorf("%s: %+v, %v, want an accuracy above 0.9", name, m, err)
		}
	}
	for name, task := range map[string]Task{
		"a lost axis":   {Loss: loss.BinaryCrossentropyLogits, Train: relabel{data, right}, Model: func(s *model.Scope, x *graph.Node) *graph.Node { return graph.Squeeze(outputs(1)(s, x), -1) }},
		"too many axes": {Loss: func(_, logits []*graph.Node) *graph.Node { return graph.ReduceAllMean(logits[0]) }, Train: data, Model: func(s *model.Scope, x *graph.Node) *graph.Node { return graph.InsertAxes(outputs(4)(s, x), 1) }},
		"few labels":    {Model: outputs(4), Train: relabel{data, tensors.FromValue([]int32{1, 2, 3})}},
		"bad bytes":     {Model: outputs(4), Train: relabel{data, classes(data, func(class int32) []int8 { return []int8{int8(class) + 1} })}},
	} {
		store := newStore(t, task, 1)
		_, err := Train(t.Context(), task, store, Training{Steps: 1})
		if err == nil {
			_, err = Evaluate(t.Context(), task, store, task.Train)
		}
		if bad := (*ConfigError)(nil); !errors.As(err, &bad) {
			t.Errorf("%s: got %v, want a *ConfigError", name, err)
		}
	}
}

// Variables of 16 bits that are left to the default initialiser start from the numbers that those of 32 bits do, rounded.
func TestInitOfHalfPrecision(t *testing.T) {
	kernels := func(dtype dtypes.DType) (kernel, bias *tensors.Tensor) {
		task := newTask(t)
		task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
			w, b := scope.At("half").VariableWithShape("weights", shapes.Make(dtype, 2, 4)), scope.At("half").VariableWithShape("biases", shapes.Make(dtype, 4))
			y := graph.Dot(graph.ConvertDType(x, dtype), w.NodeValue(x.Graph())).Product()
			return graph.ConvertDType(graph.Add(y, graph.InsertAxes(b.NodeValue(x.Graph()), 0)), dtypes.Float32)
		}
		store := newStore(t, task, 1)
		return store.GetVariable("/half/weights").MustValue(), store.GetVariable("/half/biases").MustValue()
	}
	whole, _ := kernels(dtypes.Float32)
	want := tensors.MustCopyFlatData[float32](whole)
	for _, dtype := range []dtypes.DType{dtypes.BFloat16, dtypes.Float16} {
		kernel, bias := kernels(dtype)
		var got, zeros []float32
		for _, part := range []struct {
			from *tensors.Tensor
			to   *[]float32
		}{{kernel, &got}, {bias, &zeros}} {
			part.from.MustConstFlatData(func(flat any) {
				switch flat := flat.(type) {
				case []bfloat16.BFloat16:
					for _, x := range flat {
						*part.to = append(*part.to, x.Float32())
					}
				case []float16.Float16:
					for _, x := range flat {
						*part.to = append(*part.to, x.Float32())
					}
				}
			})
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0.01, 0)); diff != "" {
			t.Errorf("%s (-float32 +got):\n%s", dtype, diff)
		}
		if diff := cmp.Diff(make([]float32, 4), zeros); diff != "" {
			t.Errorf("biases of %s (-want +got):\n%s", dtype, diff)
		}
	}
}

// A network that gives no finite loss on the measured data is compared by its accuracy.
func TestCompareWithoutALoss(t *testing.T) {
	task := newTask(t)
	task.Validation = undecoded{steep()}
	outcome, err := Compare(t.Context(), Comparison{Task: task, Dense: Spec{Steps: 5}, Tune: Spec{Steps: 5}, Fast: true, Seeds: []int64{1}, Sparsities: []float64{0.5}, Contenders: []Contender{{}}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, measured := outcome.Records[0].Values["loss"]; measured || len(outcome.Records) != 4 {
		t.Errorf("records %v", outcome.Records)
	}
}

// A schedule whose criterion asks for weights that training does not keep is refused before the first step.
func TestScheduleByTheStartIsRefused(t *testing.T) {
	task := newTask(t)
	store := newStore(t, task, 1)
	before := weights(t, store)
	p := newPruner(t, task, store, prune.Recipe{Criterion: criterion.MagnitudeIncrease})
	_, err := Train(t.Context(), task, store, Training{Steps: 40, Pruner: p, Schedule: schedule.Constant(0.5), When: schedule.Once(10)})
	if bad := (*ConfigError)(nil); !errors.As(err, &bad) {
		t.Errorf("got %v, want a *ConfigError", err)
	}
	if diff := cmp.Diff(before, weights(t, store)); diff != "" {
		t.Errorf("it was trained (-before +after):\n%s", diff)
	}
}

func TestStreamedLabelsWithoutALogit(t *testing.T) {
	task := newTask(t)
	data := newPoints(64, 16)
	labels := tensors.MustCopyFlatData[int32](data.labels)
	labels[5] = 4
	data.labels = tensors.FromFlatDataAndDimensions(labels, 64)
	task.Train = streamed{data}.plain()
	_, err := Train(t.Context(), task, newStore(t, task, 1), Training{Steps: 4})
	if bad := (*ConfigError)(nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), "the label 4, and the network has 4 logits") {
		t.Errorf("got %v, want a *ConfigError", err)
	}
}

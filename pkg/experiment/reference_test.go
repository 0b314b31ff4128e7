package experiment

import (
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/layers/regularizer"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/pkg/internal/lower"
)

// reference trains with GoMLX's own trainer, a step at a time, on the batches that Train would use with seed 0.
func reference(t *testing.T, task Task, opt optimizer.Interface, steps int) map[string][]float32 {
	t.Helper()
	store := newStore(t, task, 1)
	if store.GetVariable("/"+model.RNGStateVariableName) != nil {
		if err := store.SetRNGStateFromSeed(0); err != nil {
			t.Fatal(err)
		}
	}
	trainer := train.NewTrainer(task.Backend, store, task.Model, loss.SparseCategoricalCrossEntropyLogits, opt, nil, nil)
	done := 0
	for epoch := 0; done < steps; epoch++ {
		for batch, err := range task.Train.(*points).batches(epoch) {
			if err != nil {
				t.Fatal(err)
			}
			if done == steps {
				break
			}
			metrics, err := trainer.TrainStep(batch)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range metrics {
				if err := m.FinalizeAll(); err != nil {
					t.Fatal(err)
				}
			}
			done++
		}
	}
	return floats(store)
}

// floats copies all variables of type float32, the optimizers' moments among them, but not those of GoMLX's metrics.
func floats(store *model.Store) map[string][]float32 {
	values := map[string][]float32{}
	for _, v := range sorted(store) {
		if v.DType() == dtypes.Float32 && !strings.HasPrefix(v.Path(), "/metrics/") {
			values[v.Path()] = tensors.MustCopyFlatData[float32](v.MustValue())
		}
	}
	return values
}

// 50 steps in one dispatch compute what GoMLX's trainer does in 50, whatever the network and the optimizer keep in variables.
func TestTrainEqualsGoMLXsTrainer(t *testing.T) {
	hidden := func(scope *model.Scope, x *graph.Node) *graph.Node {
		return activation.Relu(layers.Dense(scope.At("fc1"), x, true, 16))
	}
	out := func(scope *model.Scope, x *graph.Node) *graph.Node {
		return layers.Dense(scope.At("output"), x, true, 4)
	}
	for name, test := range map[string]struct {
		model ModelFn
		opt   func() optimizer.Interface
	}{
		"adam": {mlp, func() optimizer.Interface { return optimizer.Adam().LearningRate(1e-2).Done() }},
		"decaying sgd, dropout": {
			func(scope *model.Scope, x *graph.Node) *graph.Node {
				return out(scope, layers.DropoutStatic(scope, hidden(scope, x), 0.5))
			},
			func() optimizer.Interface { return optimizer.StochasticGradientDescent().WithLearningRate(0.1).Done() },
		},
		"adamw, batch normalisation": {
			func(scope *model.Scope, x *graph.Node) *graph.Node {
				return out(scope, norm.BatchNorm(scope.At("norm"), hidden(scope, x), -1).Done())
			},
			func() optimizer.Interface { return optimizer.Adam().WeightDecay(0.1).Done() },
		},
		"adam, convolutions": {func(scope *model.Scope, x *graph.Node) *graph.Node { return out(scope, convolved(scope, x, 1, 5, 4)) },
			func() optimizer.Interface { return optimizer.Adam().LearningRate(1e-2).Done() }},
		"rmsprop, regularised": {
			func(scope *model.Scope, x *graph.Node) *graph.Node {
				x = hidden(scope, x)
				regularizer.L2(0.01)(x.Graph(), scope.Store().GetVariable("/fc1/dense/weights"))
				return out(scope, x)
			},
			func() optimizer.Interface { return optimizer.RMSProp().Done() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := newTask(t)
			if strings.Contains(name, "batch") && !task.Backend.Capabilities().Operations[compute.OpTypeBatchNormForTraining] {
				t.Skipf("backend %s can't train batch normalisation", task.Backend.Name())
			}
			task.Model = test.model
			want := reference(t, task, test.opt(), 50)
			store, result := trained(t, task, Training{Steps: 50, Optimizer: test.opt()})
			if result.Steps != 50 {
				t.Fatalf("%d steps, want 50", result.Steps)
			}
			closeTo(t, want, floats(store), 1e-5)
		})
	}
}

// convolved makes images of points and convolves them twice.
func convolved(scope *model.Scope, x *graph.Node, channels, size, out int) *graph.Node {
	batch := x.Shape().Dimensions[0]
	x = layers.Dense(scope.At("image"), x, true, 144*channels)
	x = graph.Reshape(x, batch, 12, 12, channels)                                                  // [batch, 144·channels] -> [batch, 12, 12, channels]
	x = layers.Convolution(scope.At("conv1"), x).Channels(out).KernelSize(size).NoPadding().Done() // -> [batch, 8, 8, out]
	x = layers.Convolution(scope.At("conv2"), x).Channels(3).KernelSize(size).PadSame().Done()     // -> [batch, 8, 8, 3]
	return graph.Reshape(activation.Relu(x), batch, x.Shape().Size()/batch)
}

// Networks whose convolutions are products of matrices take many steps in one dispatch, and so do those without; others one.
func TestStepsOfConvolutions(t *testing.T) {
	task := newTask(t)
	if lower.On(task.Backend) == nil {
		t.Skip("the backend is not XLA on the CPU")
	}
	for name, test := range map[string]struct {
		model ModelFn
		want  int
	}{
		"5x5": {func(scope *model.Scope, x *graph.Node) *graph.Node {
			return layers.Dense(scope.At("output"), convolved(scope, x, 1, 5, 4), true, 4)
		}, block},
		"3x3 of many channels": {func(scope *model.Scope, x *graph.Node) *graph.Node {
			return layers.Dense(scope.At("output"), convolved(scope, x, 8, 3, 16), true, 4)
		}, 1},
		"none": {mlp, block},
	} {
		task.Model = test.model
		trainer, err := NewTrainer(task, newStore(t, task, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := trainer.compile(Training{}); err != nil {
			t.Fatal(err)
		}
		if got := trainer.step.perDispatch; got != test.want {
			t.Errorf("%s: %d steps in a dispatch, want %d", name, got, test.want)
		}
	}
}

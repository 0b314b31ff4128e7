package experiment_test

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/dataset"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A network learns exclusive or, loses half of its weights, and learns it again with the other half.
func Example() {
	b, err := backend.Open()
	must(err)
	xor, err := dataset.InMemoryFromData(b, "xor",
		[]any{[][]float32{{0, 0}, {0, 1}, {1, 0}, {1, 1}}}, []any{[][]int32{{0}, {1}, {1}, {0}}})
	must(err)
	xor.BatchSize(4, true)
	task := experiment.Task{Backend: b, Train: xor, Model: func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = activation.Relu(layers.Dense(scope.At("hidden"), x, true, 16)) // [batch, 2] -> [batch, 16]
		return layers.Dense(scope.At("output"), x, true, 2)                // -> [batch, 2]
	}}
	store, err := experiment.Init(task, 1)
	must(err)
	trainer, err := experiment.NewTrainer(task, store)
	must(err)
	training := experiment.Training{Steps: 200, Optimizer: optimizer.Adam().LearningRate(0.05).Done()}
	learn := func() {
		result, err := trainer.Train(context.Background(), training)
		must(err)
		m, err := trainer.Evaluate(context.Background(), xor)
		must(err)
		fmt.Printf("%d steps: %.0f%% of %d right\n", result.Steps, 100*m.Accuracy, m.N)
	}
	learn()

	training.Pruner, err = prune.New(b, store, params.Select(store, nil), prune.Recipe{})
	must(err)
	stats, err := training.Pruner.Prune(0.5, nil)
	must(err)
	fmt.Printf("%.0f%% of the weights removed\n", 100*mask.Sparsity(stats))
	learn()
	// Output:
	// 200 steps: 100% of 4 right
	// 50% of the weights removed
	// 200 steps: 100% of 4 right
}

// A small network leaves a core waiting, so that several seeds are trained at once; each with the result that it has alone.
func ExampleTrainTogether() {
	data, err := synth.Digits(synth.Config{Train: 400, Validation: 200, Test: 100, Batch: 20})
	must(err)
	task := experiment.Task{Train: data.Train, Validation: data.Validation, Model: func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = graph.Reshape(x, x.Shape().Dimensions[0], -1)                  // -> [batch, pixels]
		x = activation.Relu(layers.Dense(scope.At("hidden"), x, true, 30)) // -> [batch, 30]
		return layers.Dense(scope.At("output"), x, true, 10)               // -> [batch, 10]
	}}
	var runs []experiment.Run
	for seed := range int64(3) {
		store, err := experiment.Init(task, seed)
		must(err)
		trainer, err := experiment.NewTrainer(task, store)
		must(err)
		runs = append(runs, experiment.Run{Trainer: trainer, Training: experiment.Training{Epochs: 10, Seed: seed}})
	}
	results, err := experiment.TrainTogether(context.Background(), runs...)
	must(err)
	for seed, run := range runs {
		m, err := run.Trainer.Evaluate(context.Background(), data.Validation)
		must(err)
		fmt.Printf("seed %d: %d steps, more than 80%% right: %v\n", seed, results[seed].Steps, m.Accuracy > 0.8)
	}
	// Output:
	// seed 0: 200 steps, more than 80% right: true
	// seed 1: 200 steps, more than 80% right: true
	// seed 2: 200 steps, more than 80% right: true
}

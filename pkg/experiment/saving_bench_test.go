package experiment

import (
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
)

// BenchmarkTrainingAndSaving compares training a network whose checkpoints have 51 MB, saved as often as by default, with training that is not saved, in turns.
func BenchmarkTrainingAndSaving(b *testing.B) {
	open, err := backend.Open()
	if err != nil {
		b.Fatal(err)
	}
	task := Task{Backend: open, Train: newPoints(2048, 64), Model: func(scope *model.Scope, x *graph.Node) *graph.Node {
		for i := range 2 {
			x = activation.Relu(layers.Dense(scope.At("fc%d", i), x, true, 2048))
		}
		return layers.Dense(scope.At("output"), x, true, 4)
	}}
	store, err := Init(task, 1)
	if err != nil {
		b.Fatal(err)
	}
	tr, err := NewTrainer(task, store)
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Close()
	train := func(t Training) time.Duration {
		start := time.Now()
		if _, err := tr.Train(b.Context(), t); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	// As many steps as take somewhat more than two saves.
	train(Training{Steps: 100})
	perStep := train(Training{Steps: 100}) / 100
	steps := int(50 * time.Second / perStep)
	var with, without time.Duration
	seed := int64(0)
	for b.Loop() {
		seed++
		without += train(Training{Steps: steps, Seed: seed})
		with += train(Training{Steps: steps, Seed: seed, Dir: b.TempDir()})
	}
	b.ReportMetric(float64(with)/float64(without), "×unsaved")
}

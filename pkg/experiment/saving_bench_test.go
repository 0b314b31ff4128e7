package experiment

import (
	"slices"
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
)

// BenchmarkTrainingAndSaving compares training a network whose checkpoints have 51 MB, saved as often as by default, with training that is not saved, in turns,
// each somewhat longer than it takes until a save is due. Medians of the ratios, with their quartiles.
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
	train(Training{Steps: 100})
	perStep := train(Training{Steps: 100}) / 100
	steps := int(22 * time.Second / perStep)
	var ratios []float64
	seed := int64(0)
	for b.Loop() {
		seed++
		without := func() time.Duration { return train(Training{Steps: steps, Seed: seed}) }
		with := func() time.Duration { return train(Training{Steps: steps, Seed: seed, Dir: b.TempDir()}) }
		var saved, unsaved time.Duration
		if seed%2 == 0 {
			saved, unsaved = with(), without()
		} else {
			unsaved, saved = without(), with()
		}
		ratios = append(ratios, float64(saved)/float64(unsaved))
	}
	slices.Sort(ratios)
	for name, q := range map[string]float64{"×unsaved": 0.5, "×unsaved-q25": 0.25, "×unsaved-q75": 0.75} {
		b.ReportMetric(ratios[int(q*float64(len(ratios)-1))], name)
	}
}

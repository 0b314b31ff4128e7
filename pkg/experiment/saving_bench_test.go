package experiment

import (
	"slices"
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"golang.org/x/sys/unix"

	"github.com/espalier-ml/espalier/pkg/backend"
)

// BenchmarkTrainingAndSaving compares training a network whose checkpoints have 51 MB, saved as often as by default, with training that is not saved, in turns,
// each somewhat longer than it takes until a save is due. Medians of the ratios of time, with their quartiles, and of processor time, which others who are at
// work on the machine change less.
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
	cpu := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	train := func(t Training) (took, used time.Duration) {
		start, before := time.Now(), cpu()
		if _, err := tr.Train(b.Context(), t); err != nil {
			b.Fatal(err)
		}
		return time.Since(start), cpu() - before
	}
	train(Training{Steps: 100})
	hundred, _ := train(Training{Steps: 100})
	steps := int(22 * time.Second / (hundred / 100))
	var ratios, cpuRatios []float64
	seed := int64(0)
	for b.Loop() {
		seed++
		saved, unsaved := Training{Steps: steps, Seed: seed, Dir: b.TempDir()}, Training{Steps: steps, Seed: seed}
		var with, without, cpuWith, cpuWithout time.Duration
		if seed%2 == 0 {
			with, cpuWith = train(saved)
			without, cpuWithout = train(unsaved)
		} else {
			without, cpuWithout = train(unsaved)
			with, cpuWith = train(saved)
		}
		ratios, cpuRatios = append(ratios, float64(with)/float64(without)), append(cpuRatios, float64(cpuWith)/float64(cpuWithout))
	}
	slices.Sort(ratios)
	slices.Sort(cpuRatios)
	for name, q := range map[string]float64{"×unsaved": 0.5, "×unsaved-q25": 0.25, "×unsaved-q75": 0.75} {
		b.ReportMetric(ratios[int(q*float64(len(ratios)-1))], name)
		b.ReportMetric(cpuRatios[int(q*float64(len(ratios)-1))], "cpu"+name)
	}
}

package sparsetrain_test

import (
	"testing"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/sparsetrain"
)

// BenchmarkApply is what an update of LeNet-300-100 costs on the host, its signals aside.
func BenchmarkApply(b *testing.B) {
	opened, err := backend.Open()
	if err != nil {
		b.Fatal(err)
	}
	data, err := synth.Digits(synth.Config{Train: 400, Validation: 100, Test: 100, Batch: 20})
	if err != nil {
		b.Fatal(err)
	}
	task := experiment.Task{Backend: opened, Model: nets.LeNet300, Train: data.Train}
	for _, preset := range sparsetrain.All() {
		if preset.Name == sparsetrain.Static.Name {
			continue
		}
		b.Run(preset.Name, func(b *testing.B) {
			store, err := experiment.Init(task, 1)
			if err != nil {
				b.Fatal(err)
			}
			set := params.Select(store, nil)
			u, err := preset.Over(1_000_000, 100)
			if err != nil {
				b.Fatal(err)
			}
			engine, err := sparsetrain.New(opened, store, set, u, sparsetrain.Config{Density: 0.05})
			if err != nil {
				b.Fatal(err)
			}
			trainer, err := experiment.NewTrainer(task, store)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := trainer.Train(b.Context(), experiment.Training{Steps: 20, Topology: engine, Optimizer: &experiment.SGD{Momentum: 0.9}}); err != nil {
				b.Fatal(err)
			}
			sig, err := trainer.Signals(set, engine.Needs(), 1)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := engine.Apply(100, sig); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package lottery_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/lottery"
	"github.com/espalier-ml/espalier/pkg/nets"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// A ladder of three rounds, and at its top a control: the same masks on weights that are drawn afresh. A real one has 50,000 steps and five trials.
func Example() {
	data := must(synth.Digits(synth.Config{Train: 500, Validation: 100, Test: 100, Batch: 60}))
	config := lottery.Config{
		Task:     experiment.Task{Model: nets.LeNet300, Train: data.Train, Validation: data.Validation, Test: data.Test},
		Training: experiment.Training{Steps: 20, Validate: 10},
	}
	trial := must(lottery.New(config, 1))
	defer trial.Close()
	ctx := context.Background()
	for n := range 4 {
		rung := must(trial.Rung(ctx, n))
		fmt.Printf("%s: %.1f%% of the weights\n", rung.Name, 100*rung.Record.Values["density"])
	}
	control := must(trial.Branch(ctx, 3, lottery.Reinit))
	fmt.Printf("%s: %.1f%% of the weights\n", control.Name, 100*control.Record.Values["density"])
	// Output:
	// seed-1/00-ticket: 100.0% of the weights
	// seed-1/01-ticket: 80.0% of the weights
	// seed-1/02-ticket: 64.1% of the weights
	// seed-1/03-ticket: 51.3% of the weights
	// seed-1/03-reinit: 51.3% of the weights
}

// A control of one's own is a literal: the ticket's masks on weights that have nothing of where they started but the sign.
func ExampleBranch() {
	signs := lottery.Branch{Name: "signs", Weights: func(t *lottery.Trial, ticket *lottery.Run, _ *rand.Rand) (lottery.From, error) {
		weights := maps.Clone(ticket.Start)
		for _, p := range t.Params() {
			constant := must(tensors.CopyFlatData[float32](weights[p.Path]))
			for i, w := range constant {
				constant[i] = float32(math.Copysign(0.05, float64(w)))
			}
			weights[p.Path] = tensors.FromFlatDataAndDimensions(constant, p.Shape.Dimensions...)
		}
		return lottery.From{Weights: weights}, nil
	}}
	data := must(synth.Digits(synth.Config{Train: 500, Validation: 100, Batch: 60}))
	trial := must(lottery.New(lottery.Config{
		Task:     experiment.Task{Model: nets.LeNet300, Train: data.Train, Validation: data.Validation},
		Training: experiment.Training{Steps: 20, Validate: 10},
	}, 1))
	defer trial.Close()
	run := must(trial.Branch(context.Background(), 1, signs))
	fmt.Printf("%s: %d weights, as many as the ticket's %d\n", run.Name, run.Masks.Kept(), must(trial.Rung(context.Background(), 1)).Masks.Kept())
	// Output:
	// seed-1/01-signs: 213060 weights, as many as the ticket's 213060
}

// A ticket is drawn once the masks of five epochs agree; training the rest of the way is what it saves.
func ExampleEarlyBird() {
	data := must(synth.Digits(synth.Config{Train: 500, Batch: 60}))
	bird := must(lottery.EarlyBird{
		Task:     experiment.Task{Model: nets.LeNet300, Train: data.Train},
		Training: experiment.Training{Epochs: 100},
	}.Draw(context.Background(), 1))
	fmt.Printf("drawn before the end: %t\n", 0 < bird.Drawn && bird.Drawn < 800)
	fmt.Printf("%d of %d weights\n", bird.Masks.Kept(), bird.Pruner.Params().Size())
	// Output:
	// drawn before the end: true
	// 133100 of 266200 weights
}

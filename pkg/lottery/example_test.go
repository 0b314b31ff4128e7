package lottery_test

import (
	"context"
	"fmt"

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

package sensitivity_test

import (
	"context"
	"fmt"
	"math"
	"os"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/sensitivity"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Of two layers one is needed four times as much. The loss is given here by a formula; of a network it would be that of experiment.Trainer's Evaluate, on
// each part of the validation data.
func Example() {
	b, err := backend.Open()
	must(err)
	store := model.NewStore()
	weights := func(path string) *model.Variable { return store.GetVariable(path) }
	for _, path := range []string{"/fc/weights", "/output/weights"} {
		flat := make([]float32, 100)
		for i := range flat {
			flat[i] = float32(i+1) / 100
		}
		_, err := store.CreateVariable(path, tensors.FromFlatDataAndDimensions(flat, 10, 10))
		must(err)
	}
	removed := func(path string) (sum float64) { // the squares of the weights that are gone
		value, err := weights(path).Value()
		must(err)
		flat, err := tensors.CopyFlatData[float32](value)
		must(err)
		for i, w := range flat {
			sum += math.Pow(float64(i+1)/100-float64(w), 2)
		}
		return sum
	}
	evaluate := func() ([]float64, error) {
		a, b := removed("/fc/weights"), removed("/output/weights")
		return []float64{0.5 + 0.01*a + 0.05*b, 0.6 + 0.01*a + 0.04*b, 0.4 + 0.01*a + 0.03*b}, nil
	}
	curves, err := sensitivity.Scan(context.Background(), sensitivity.Config{Backend: b, Store: store, Set: params.Select(store, nil),
		Evaluate: evaluate, Sparsities: []float64{0.3, 0.5, 0.7, 0.9}})
	must(err)
	must(curves.Table().Text(os.Stdout))
	fmt.Println()

	target := sensitivity.Target{Sparsity: 0.5}
	best, err := curves.Solve(target)
	must(err)
	must(best.Table().Text(os.Stdout))
	uniform, err := curves.Uniform(target)
	must(err)
	fmt.Printf("The same share of both would add %+.4f.\n", uniform.Predicted)
	// Output:
	// Loss added by pruning one group alone, by magnitude; without pruning it is 0.5000
	// group            weights      30%      50%      70%      90%
	// ---------------  -------  -------  -------  -------  -------
	// /fc/weights          100  +0.0095  +0.0429  +0.1168  +0.2471
	// /output/weights      100  +0.0378  +0.1717  +0.4672  +0.9883
	// Means over 3 parts of the validation data. Empty: nothing more to remove than in the column before.
	//
	// group            removed (%)  units kept  loss added
	// ---------------  -----------  ----------  ----------
	// /fc/weights            70.00          30     +0.1168
	// /output/weights        30.00          70     +0.0378
	// 50.00% of the weights removed, target 50%. Predicted loss added: +0.1546, 95% interval +0.1452 to +0.1641. It is the sum of what each group adds alone.
	// The same share of both would add +0.2146.
}

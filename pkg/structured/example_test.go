package structured_test

import (
	"context"
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/dataset"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/structured"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Four hidden units, of which the outputs are made in very different parts: PFP tells from two examples, without labels and without training, which can go.
func ExamplePFP() {
	b, err := backend.Open()
	must(err)
	store := model.NewStore()
	for path, weights := range map[string][][]float32{
		"/in/dense/weights":  {{1, 0, 1, -1}, {0, 1, 1, -1}},
		"/out/dense/weights": {{1, -1}, {3, 0}, {0, -3}, {5, 5}},
	} {
		_, err := store.CreateVariable(path, tensors.FromValue(weights))
		must(err)
	}
	network, err := surgery.Trace(b, store, trace.Single(func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = activation.Relu(layers.Dense(scope.At("in"), x, false, 4)) // [batch, 2] -> [batch, 4]
		return layers.Dense(scope.At("out"), x, false, 2)              // -> [batch, 2]
	}), shapes.Make(dtypes.Float32, 1, 2))
	must(err)
	data, err := dataset.InMemoryFromData(b, "examples", []any{[][]float32{{1, 1}, {2, 1}}}, nil)
	must(err)
	data.BatchSize(2, true)

	result, err := structured.PFP{Budget: structured.Budget{Units: 0.5}}.Choose(context.Background(), network, data)
	must(err)
	for name, sensitivity := range result.Sensitivity {
		fmt.Printf("%s: %.2f\n", name, sensitivity)
	}
	fmt.Print(result.Plan)
	fmt.Println("removed:", result.Plan.Removed["/in/dense/weights:1"])
	small, err := result.Plan.Apply()
	must(err)
	fmt.Println(small.Store.GetVariable("/out/dense/weights").Shape())
	// Output:
	// /in/dense/weights:1: [0.40 0.75 0.86 0.00]
	// /in/dense/weights:1: 2 of 4 stay
	// removed: [0 3]
	// (Float32)[2, 2]
}

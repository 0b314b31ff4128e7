package surgery_test

import (
	"fmt"
	"os"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

// residual adds what a layer computes to its input.
func residual(scope *model.Scope, x *graph.Node) *graph.Node {
	x = layers.Dense(scope.In("in"), x, true, 6)                          // [batch, 3] -> [batch, 6]
	h := activation.Relu(layers.Dense(scope.In("up"), x, false, 12))      // -> [batch, 12]
	x = graph.Add(x, layers.Dense(scope.In("down"), h, false, 6))         // -> [batch, 6]
	return layers.Dense(scope.In("output"), activation.Relu(x), false, 2) // -> [batch, 2]
}

// A network with a residual connection loses a third of its units. Those on both sides of the addition go together.
func Example() {
	b := must(backend.Open())
	store := model.NewStore()
	weights := func(path string, dims ...int) { // falling from the first unit to the last
		shape := shapes.Make(dtypes.Float32, dims...)
		data := make([]float32, shape.Size())
		for i := range data {
			data[i] = 1 / float32(2+i%dims[len(dims)-1])
		}
		must(store.CreateVariable(path, tensors.FromFlatDataAndDimensions(data, dims...)))
	}
	weights("/in/dense/weights", 3, 6)
	weights("/in/dense/biases", 6)
	weights("/up/dense/weights", 6, 12)
	weights("/down/dense/weights", 12, 6)
	weights("/output/dense/weights", 6, 2)

	n := must(surgery.Trace(b, store, trace.Single(residual), shapes.Make(dtypes.Float32, 1, 3)))
	for _, g := range n.Groups() {
		fmt.Println(n.Explain(g))
	}
	plan := must(n.Plan(surgery.Config{Units: 0.67, Uniform: true}, nil))
	fmt.Print(plan)
	small := must(plan.Apply())
	report := must(surgery.Verify(n, small, tensors.FromValue([][]float32{{1, 2, 3}, {-1, 0, 1}})))
	fmt.Printf("%d of %d parameters, equal to the masked network: %v\n", report.After.Params, report.Before.Params, report.MaxDiff < 1e-5)
	// Output:
	// These are 6 channels: /in/dense/weights:1 and /down/dense/weights:1 make them; /up/dense/weights:0 and /output/dense/weights:0 read them; /in/dense/biases:0 has a value for each. Those of different kernels go together one by one because of Add (1×).
	// These are 12 channels: /up/dense/weights:1 makes them; /down/dense/weights:0 reads them.
	// /in/dense/weights:1: 4 of 6 stay
	// /up/dense/weights:1: 8 of 12 stay
	// 88 of 180 parameters, equal to the masked network: true
}

// A plan is JSON: it can be looked at and edited before anything is cut.
func ExamplePlan_WriteJSON() {
	b := must(backend.Open())
	fn := func(scope *model.Scope, x *graph.Node) *graph.Node {
		return layers.Dense(scope.In("b"), layers.Dense(scope.In("a"), x, false, 3), false, 1)
	}
	n := must(surgery.Trace(b, model.NewStore(), trace.Single(fn), shapes.Make(dtypes.Float32, 1, 2)))
	plan := n.Empty()
	plan.Removed["/a/dense/weights:1"] = []int{1}
	if err := plan.WriteJSON(os.Stdout); err != nil {
		panic(err)
	}
	// Output:
	// {
	//  "format": "espalier surgery plan",
	//  "version": 1,
	//  "network": "c20182683c48588eb9d513b6f543e1e853288b85a437a94e01615f8586d7308d",
	//  "inputs": [
	//   {
	//    "type": "Float32",
	//    "shape": [1, 2]
	//   }
	//  ],
	//  "groups": [
	//   {
	//    "name": "/a/dense/weights:1",
	//    "units": 3,
	//    "removed": [1],
	//    "places": [
	//     "/a/dense/weights:1",
	//     "/b/dense/weights:0"
	//    ]
	//   }
	//  ],
	//  "variables": [
	//   {
	//    "path": "/a/dense/weights",
	//    "shape": [2, 3],
	//    "removed": [
	//     {
	//      "axis": 1,
	//      "indices": [1]
	//     }
	//    ]
	//   },
	//   {
	//    "path": "/b/dense/weights",
	//    "shape": [3, 1],
	//    "removed": [
	//     {
	//      "axis": 0,
	//      "indices": [1]
	//     }
	//    ]
	//   }
	//  ]
	// }
}

package onnx_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/onnx"
	"github.com/espalier-ml/espalier/pkg/surgery"
)

// A model comes in as ONNX, loses half of its work, and goes out as ONNX.
func Example() {
	b, err := backend.Open()
	check(err)
	m, err := onnx.Read("testdata/torch/resnet18_legacy.onnx")
	check(err)
	fmt.Println(m.Producer, m.Inputs, "->", m.Outputs)

	inputs, err := m.Shapes(map[string]int{"batch": 1})
	check(err)
	n, err := surgery.Trace(b, m.Store, m.ModelFn, inputs...)
	check(err)
	plan, err := n.Plan(surgery.Config{MACs: 0.5}, nil)
	check(err)
	small, err := plan.Apply()
	check(err)

	dir, err := os.MkdirTemp("", "onnx")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "small.onnx")
	check(onnx.Write(path, b, small.Store, small.ModelFn, onnx.Config{Inputs: []string{"x"}, Outputs: []string{"y"}}, inputs...))
	again, err := onnx.Read(path)
	check(err)
	fmt.Println(again.Producer, again.Inputs, "->", again.Outputs)
	fmt.Println(len(n.Groups()), "groups; smaller:", again.Store.NumParameters() < m.Store.NumParameters()*2/3)
	// Output:
	// pytorch [x Float32[batch, 3, 64, 64]] -> [y Float32[batch, 10]]
	// espalier [x Float32[batch, 3, 64, 64]] -> [y Float32[batch, 10]]
	// 12 groups; smaller: true
}

// Any GoMLX model function can be written.
func ExampleMarshal() {
	b, err := backend.Open()
	check(err)
	network := func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		x := activation.Relu(layers.Dense(scope.At("hidden"), in[0], true, 8)) // [batch, 4] -> [batch, 8]
		return []*graph.Node{layers.Dense(scope.At("output"), x, true, 2)}     // -> [batch, 2]
	}
	store := model.NewStore()
	exec, err := model.NewExec(b, store, network) // trained, or loaded, or as here just initialised
	check(err)
	_, err = exec.Call([][]float32{{1, 2, 3, 4}})
	check(err)

	content, err := onnx.Marshal(b, store, network, onnx.Config{}, shapes.Make(dtypes.Float32, 1, 4))
	check(err)
	m, err := onnx.Parse(content)
	check(err)
	fmt.Println(m.Inputs, "->", m.Outputs)
	fmt.Println(m.Store.GetVariable("/ONNX/hidden|dense|weights").Shape())
	// Output:
	// [x Float32[batch, 4]] -> [y Float32[batch, 2]]
	// (Float32)[4, 8]
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

package onnx

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/pkg/backend/home"
)

// runtime is ONNX Runtime in a Python process, one for all tests of the package.
var runtime struct {
	sync.Mutex
	input  io.Writer
	output *bufio.Reader
}

// array is a tensor on its way to the runtime or back.
type array struct {
	Dims  []int  `json:"dims"`
	DType string `json:"dtype,omitempty"`
	Data  []byte `json:"data"` // in base64
}

// answer is what the runtime says of a file.
type answer struct {
	Error     string
	Runs      [][]array
	Operators map[string]int
	Constants []string
	Inputs    []string
	Shapes    [][]string
	Opset, IR int
}

func arrayOf(t testing.TB, x *tensors.Tensor) array {
	t.Helper()
	a := array{Dims: x.Shape().Dimensions, DType: map[string]string{"Float32": "<f4", "Float64": "<f8", "Int32": "<i4", "Int64": "<i8"}[x.DType().String()]}
	if err := x.ConstBytes(func(data []byte) { a.Data = append(a.Data, data...) }); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a array) floats(t testing.TB) []float32 {
	t.Helper()
	x := make([]float32, len(a.Data)/4)
	for i := range x {
		x[i] = float32At(a.Data[4*i:])
	}
	return x
}

// inRuntime checks a file with onnx.checker and runs it for each list of inputs, by their names.
func inRuntime(t testing.TB, path string, runs ...map[string]*tensors.Tensor) answer {
	t.Helper()
	runtime.Lock()
	defer runtime.Unlock()
	if runtime.input == nil {
		dir, err := home.Dir()
		if err != nil {
			t.Fatal(err)
		}
		python := filepath.Join(dir, "peers", "onnxruntime", "bin", "python")
		if _, err := os.Stat(python); err != nil {
			t.Skip("ONNX Runtime is not installed: `go run ./kernelext/cmd/espalier test` installs it, and runs this test")
		}
		cmd := exec.Command(python, "-I", filepath.Join("testdata", "ort.py")) // it ends with this process, which closes its input
		cmd.Stderr = os.Stderr
		input, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		output, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		runtime.input, runtime.output = input, bufio.NewReader(output)
	}
	request := struct {
		Model string             `json:"model"`
		Runs  []map[string]array `json:"runs"`
	}{Model: path}
	for _, run := range runs {
		inputs := map[string]array{}
		for name, x := range run {
			inputs[name] = arrayOf(t, x)
		}
		request.Runs = append(request.Runs, inputs)
	}
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runtime.input.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
	line, err := runtime.output.ReadBytes('\n')
	if err != nil {
		t.Fatalf("ONNX Runtime ended: %v", err)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		t.Fatal(err)
	}
	if a.Error != "" {
		t.Fatalf("%s: %s", filepath.Base(path), a.Error)
	}
	return a
}

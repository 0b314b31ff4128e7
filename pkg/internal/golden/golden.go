// Package golden reads the reference numbers that pkg/criterion/testdata/golden/golden.py has written from the original implementations.
package golden

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// Array is an array in row-major order.
type Array struct {
	Shape []int     `json:"shape"`
	Data  []float64 `json:"data"`
}

// Float32 returns the values, which inputs were rounded to.
func (a Array) Float32() []float32 {
	values := make([]float32, len(a.Data))
	for i, x := range a.Data {
		values[i] = float32(x)
	}
	return values
}

// Case is one file: Inputs and Expected as golden.py describes them.
type Case struct {
	Source   string          `json:"source"`
	Inputs   json.RawMessage `json:"inputs"`
	Expected json.RawMessage `json:"expected"`
}

// Read reads a file by its name without the ending, and decodes its inputs and what is expected.
func Read(name string, inputs, expected any) error {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return fmt.Errorf("golden: where is the source?")
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../criterion/testdata/golden", name+".json"))
	if err != nil {
		return err
	}
	var c Case
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	if err := json.Unmarshal(c.Inputs, inputs); err != nil {
		return err
	}
	return json.Unmarshal(c.Expected, expected)
}

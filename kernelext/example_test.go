package kernelext_test

import (
	"errors"
	"fmt"

	"github.com/espalier-ml/espalier/kernelext"
	"github.com/espalier-ml/espalier/pkg/report"
)

// Outside a notebook, values are shown as text.
func ExampleShow() {
	kernelext.Show(
		report.Table{
			Columns: []report.Column{{Name: "layer"}, {Name: "weights"}, {Name: "kept", Unit: "%", Format: "%.1f"}},
			Rows:    [][]any{{"fc1", 235200, 8.0}, {"fc2", 30000, 20.4}},
		},
		errors.New("a value can also be an error"),
	)
	// Output:
	// layer  weights  kept (%)
	// -----  -------  --------
	// fc1     235200       8.0
	// fc2      30000      20.4
	// a value can also be an error
}

func ExamplePick() {
	epochs := kernelext.Pick(20, 1)
	fmt.Println(epochs, "epochs")
	// Output: 20 epochs
}

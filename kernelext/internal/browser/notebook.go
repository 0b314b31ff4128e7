package browser

import (
	"encoding/json"
	"strings"
)

// steps of the test's training: enough to be seen moving, and to be stopped, on any machine.
const steps = 12_000

// training is a cell as a reader would write it.
const training = `import (
	"fmt"
	"path/filepath"

	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/kernelext"
	"github.com/espalier-ml/espalier/kernelext/figure"
	"github.com/espalier-ml/espalier/kernelext/live"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

%%
data, err := mnist.Open(mnist.Config{Batch: 128})
kernelext.Must(err)
b, err := backend.Open()
kernelext.Must(err)
task := experiment.Task{Backend: b, Model: nets.LeNet300, Train: data.Train, Validation: data.Validation}
store, err := experiment.Init(task, 1)
kernelext.Must(err)
trainer, err := experiment.NewTrainer(task, store)
kernelext.Must(err)
pruner, err := prune.New(b, store, params.Select(store, nil), prune.Recipe{})
kernelext.Must(err)

chart := live.New("LeNet-300-100, pruned while it trains")
defer chart.Done()
result, err := trainer.Train(kernelext.Context(), experiment.Training{
	Steps: 12000, Pruner: pruner, Schedule: schedule.Cubic(500, 8000, 0, 0.95), When: schedule.Every(500, 500, 8000),
	Dir: filepath.Join(kernelext.Dir("browser-test"), "live"), Validate: 1000, Watch: chart.Watch,
})
kernelext.Must(err)
chart.Done()
fmt.Printf("went on from step %d of %d\n", result.Resumed, result.Steps)
`

// sweep is a second cell.
const sweep = `%%
sweep := figure.Sweep{Title: "Loss over steps", Name: "power"}
for _, power := range []int{1, 2, 3} {
	var y []float64
	for x := 1; x <= 10; x++ {
		v := 1.0
		for range power {
			v /= float64(x)
		}
		y = append(y, v)
	}
	sweep.Stops = append(sweep.Stops, figure.Stop{Label: fmt.Sprintf("%d.", power), Figure: figure.Line{Title: fmt.Sprintf("1 / x to the power of %d", power), Series: []figure.Series{{Y: y}}}})
}
kernelext.Show(sweep)
`

// notebook returns a notebook of these code cells, for our kernel.
func notebook(kernel string, sources ...string) ([]byte, error) {
	var cells []map[string]any
	for i, source := range sources {
		cells = append(cells, map[string]any{"cell_type": "code", "id": string(rune('a' + i)), "metadata": map[string]any{}, "execution_count": nil,
			"outputs": []any{}, "source": strings.TrimSpace(source)})
	}
	return json.Marshal(map[string]any{"nbformat": 4, "nbformat_minor": 5, "cells": cells,
		"metadata": map[string]any{"kernelspec": map[string]string{"name": kernel, "display_name": "Go (Espalier)", "language": "go"}}})
}

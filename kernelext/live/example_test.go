package live_test

import (
	"math"

	"github.com/espalier-ml/espalier/kernelext/live"
	"github.com/espalier-ml/espalier/pkg/report"
)

// In a notebook the chart moves while this runs; in the end it is a figure. In a cell, experiment.Training{…, Watch: chart.Watch} takes the loop's place.
func Example() {
	chart := live.New("LeNet-5")
	defer chart.Done()
	for step := 50; step <= 200; step += 50 {
		chart.Watch(report.Progress{Step: step, Total: 400, Loss: 100 / float64(step), Accuracy: math.NaN()})
	}
	// Output:
	// LeNet-5: stopped at step 200 of 400
	// [line chart]
	// x: step
	// y: training loss
	//   x       y
	// ---  ------
	//  50  2.0000
	// 100  1.0000
	// 150  0.6667
	// 200  0.5000
}

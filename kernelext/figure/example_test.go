package figure_test

import (
	"errors"
	"fmt"

	"github.com/espalier-ml/espalier/kernelext"
	"github.com/espalier-ml/espalier/kernelext/figure"
)

// In a notebook this is a picture; elsewhere, and to a screen reader, the same data is text.
func ExampleLine() {
	kernelext.Show(figure.Line{
		Title:  "Accuracy over sparsity",
		XLabel: "sparsity", YLabel: "test accuracy",
		XPercent: true, YPercent: true,
		Series: []figure.Series{
			{Name: "iterative", X: []float64{0, 0.5, 0.9}, Y: []float64{0.983, 0.983, 0.981}, Low: []float64{0.982, 0.982, 0.979}, High: []float64{0.984, 0.984, 0.982}},
			{Name: "random", X: []float64{0, 0.5, 0.9}, Y: []float64{0.983, 0.954, 0.412}, Dashed: true},
		},
		HLines:  []figure.HLine{{Name: "dense", Y: 0.983}},
		Caption: "Mean of 3 seeds; the band reaches from the worst to the best.",
	})
	// Output:
	// Accuracy over sparsity
	// [line chart]
	// x: sparsity
	// y: test accuracy
	// level dense: 98.3%
	// in brackets: from the lower to the upper end of the error band
	// x (%)  iterative (%)         random (%)
	// -----  --------------------  ----------
	//  0.00  98.30 [98.20, 98.40]       98.30
	// 50.00  98.30 [98.20, 98.40]       95.40
	// 90.00  98.10 [97.90, 98.20]       41.20
	// Mean of 3 seeds; the band reaches from the worst to the best.
}

func ExampleBar() {
	kernelext.Show(figure.Bar{
		YLabel: "multiply-accumulates",
		Labels: []string{"fc1", "fc2", "output"},
		Series: []figure.Series{{Name: "dense", Y: []float64{235200, 30000, 1000}}, {Name: "pruned", Y: []float64{18816, 6000, 510}}},
	})
	// Output:
	// [bar chart]
	// y: multiply-accumulates
	//          dense  pruned
	// ------  ------  ------
	// fc1     235200   18816
	// fc2      30000    6000
	// output    1000     510
}

func ExampleHistogram() {
	kernelext.Show(figure.Histogram{
		XLabel:  "weight",
		Bins:    3,
		Samples: []figure.Sample{{Name: "dense", Values: []float64{-1, -0.5, 0.25, 1}}, {Name: "pruned", Values: []float64{-1, 0, 0, 1}}},
	})
	// Output:
	// [histogram]
	// x: weight
	// y: count
	// sample  values  exactly 0  outside     mean     std  min  max
	// ------  ------  ---------  -------  -------  ------  ---  ---
	// dense        4          0        0  -0.0625   0.875   -1    1
	// pruned       4          2        0        0  0.8165   -1    1
	//    from       to  dense  pruned
	// -------  -------  -----  ------
	// -1.5000  -0.5000      1       1
	// -0.5000   0.5000      2       2
	//  0.5000   1.5000      1       1
}

func ExampleHeatMap() {
	kernelext.Show(figure.HeatMap{
		Title: "Confusion matrix", XLabel: "predicted", YLabel: "actual", ValueLabel: "share of row", Percent: true,
		XNames: []string{"3", "8"}, YNames: []string{"3", "8"},
		Values: []float64{0.97, 0.03, 0.05, 0.95},
	})
	kernelext.Show(figure.HeatMap{Title: "Mask", Values: []float64{1, 0, 0, 0, 0, 1}, Cols: 3, Mask: true})
	// Output:
	// Confusion matrix
	// [heat map]
	// 2 rows × 2 columns
	// rows: actual
	// columns: predicted
	// values: share of row
	// actual  3 (%)  8 (%)
	// ------  -----  -----
	// 3       97.00   3.00
	// 8        5.00  95.00
	// Mask
	// [mask]
	// 2 rows × 3 columns
	// kept: 2 of 6 (33.33%)
	// pruned: 4 of 6 (66.67%)
	// rows  kept  kept (%)
	// ----  ----  --------
	// 0        1     33.33
	// 1        1     33.33
}

func ExampleImageGrid() {
	kernelext.Show(figure.ImageGrid{
		Title:  "Two digits",
		Images: []figure.Image{{Title: "7", Image: figure.Pixels(make([]uint8, 784), 28, 28)}, {Title: "1", Image: figure.Pixels(make([]float32, 784), 28, 28)}},
	})
	// Output:
	// Two digits
	// [images]
	// 2 images in 1 rows of 2
	// image  title  pixels
	// -----  -----  -------
	//     0  7      28 × 28
	//     1  1      28 × 28
}

// Where a training that redistributes weights puts them: stacked, with names beside where they end.
func ExampleArea() {
	kernelext.Show(figure.Area{
		Title: "Weights move to the first layer", XLabel: "epoch", YLabel: "share of the weights that are left", Share: true,
		Series: []figure.Series{{Name: "conv1", Y: []float64{100, 150, 200}}, {Name: "fc1", Y: []float64{300, 250, 200}}},
	})
	// Output:
	// Weights move to the first layer
	// [stacked areas]
	// y: share of the weights that are left
	// shares of the sum
	// epoch  conv1 (%)  fc1 (%)
	// -----  ---------  -------
	//     0      25.00    75.00
	//     1      37.50    62.50
	//     2      50.00    50.00
}

// What accuracy costs. Options that another beats are grey.
func ExamplePareto() {
	kernelext.Show(figure.Pareto{
		Title: "What a millisecond buys", XLabel: "latency (ms)", YLabel: "test accuracy", YPercent: true,
		Options: []figure.Option{
			{Method: "dense", X: 8, Y: 0.93, YLow: 0.926, YHigh: 0.934},
			{Method: "Taylor", Name: "50%", X: 4, Y: 0.925, YLow: 0.92, YHigh: 0.93},
			{Method: "random", Name: "50%", X: 4, Y: 0.9, YLow: 0.89, YHigh: 0.91},
		},
		Caption: "Mean of 3 seeds; the bars are 95% confidence intervals.",
	})
	// Output:
	// What a millisecond buys
	// [Pareto chart]
	// x: latency (ms)
	// y: test accuracy
	// better: less x, more y
	// in brackets: from the lower to the upper end of the error bar
	// option      latency (ms)  test accuracy (%)     front
	// ----------  ------------  --------------------  ---------------------
	// Taylor 50%             4  92.50 [92.00, 93.00]  best for its cost
	// random 50%             4  90.00 [89.00, 91.00]  worse than Taylor 50%
	// dense                  8  93.00 [92.60, 93.40]  best for its cost
	// Mean of 3 seeds; the bars are 95% confidence intervals.
}

func ExampleFilters() {
	kernelext.Show(figure.Filters{
		Title: "Two filters of one weight", Rows: 1, Columns: 1, In: 1, Out: 2, Weights: []float64{0.5, -0.01}, Removed: []bool{false, true},
	})
	// Output:
	// Two filters of one weight
	// [filters]
	// 2 filters of 1 × 1 weights on 1 input channels; 1 removed
	// filter     norm  largest weight
	// ------  -------  --------------  -------
	//      0  0.50000         0.50000  kept
	//      1  0.01000         0.01000  removed
}

// A residual block: what is added must have the same channels, so that both are one group.
func ExampleNetwork() {
	kernelext.Show(figure.Network{
		Title: "Why the residual stream shrinks together",
		Nodes: []figure.Node{
			{Name: "conv0", Text: "3×3, 16", Groups: []string{"stream"}},
			{Name: "conv1", Text: "3×3, 16", Groups: []string{"inner"}},
			{Name: "conv2", Text: "3×3, 16", Groups: []string{"stream"}},
			{Name: "add", Groups: []string{"stream"}},
		},
		Edges:  []figure.Edge{{From: "conv0", To: "conv1"}, {From: "conv1", To: "conv2"}, {From: "conv2", To: "add"}, {From: "conv0", To: "add"}},
		Groups: []figure.Group{{Name: "stream", Channels: 16, Removed: 4, Text: "the addition needs the same channels on both sides"}, {Name: "inner", Channels: 16}},
	})
	// Output:
	// Why the residual stream shrinks together
	// [network]
	// 4 nodes, 4 edges, 2 groups
	// node            from          groups
	// -----  -------  ------------  ------
	// conv0  3×3, 16                stream
	// conv1  3×3, 16  conv0         inner
	// conv2  3×3, 16  conv1         stream
	// add             conv2, conv0  stream
	// group   channels  removed  nodes
	// ------  --------  -------  -----------------
	// stream        16        4  conv0, conv2, add
	// inner         16        0  conv1
	// stream: the addition needs the same channels on both sides
}

// A slider in a notebook, and all figures side by side where no scripts run.
func ExampleSweep() {
	sweep := figure.Sweep{Title: "The loss while it is pruned", Name: "sparsity"}
	for _, sparsity := range []string{"50%", "90%"} {
		sweep.Stops = append(sweep.Stops, figure.Stop{Label: sparsity, Figure: figure.Line{Series: []figure.Series{{Y: []float64{1, 0.5}}}}})
	}
	kernelext.Show(sweep)
	// Output:
	// The loss while it is pruned
	// [sweep over 2 figures]
	//
	// sparsity 50%
	// [line chart]
	// x       y
	// -  ------
	// 0  1.0000
	// 1  0.5000
	//
	// sparsity 90%
	// [line chart]
	// x       y
	// -  ------
	// 0  1.0000
	// 1  0.5000
}

func ExampleGrid() {
	kernelext.Show(figure.Grid{
		Title: "Before and after",
		Figures: []figure.Figure{
			figure.Line{Title: "before", Series: []figure.Series{{Y: []float64{1, 2}}}},
			figure.Line{Title: "after", Series: []figure.Series{{Y: []float64{2, 4}}}},
		},
	})
	// Output:
	// Before and after
	// [grid of figures]
	// before
	// [line chart]
	// x  y
	// -  -
	// 0  1
	// 1  2
	//
	// after
	// [line chart]
	// x  y
	// -  -
	// 0  2
	// 1  4
}

func ExampleInputError() {
	_, err := figure.Line{Series: []figure.Series{{Name: "iterative", X: []float64{0, 0.5}, Y: []float64{0.98}}}}.MIMEBundle()
	var wrong *figure.InputError
	fmt.Println(errors.As(err, &wrong), wrong.Series)
	fmt.Println(err)
	// Output:
	// true series "iterative"
	// line chart, series "iterative": X has 2 values and Y has 1; expected as many (or X nil)
}

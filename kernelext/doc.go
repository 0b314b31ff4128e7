// Package kernelext is what a notebook's cells import: it shows values, follows long work with a progress bar, stops it when
// the reader presses the stop button, and keeps what must survive from one cell to the next.
//
//	bar := kernelext.Progress("training")
//	result, err := experiment.Train(kernelext.Context(), task, store, experiment.Training{Epochs: kernelext.Pick(20, 1), Progress: bar.Update})
//	kernelext.Must(err)
//	bar.Done()
//	kernelext.Show(figure.Line{…})
//
// The same program runs outside a notebook, where all of it becomes text. Package kernelext imports little on purpose, since every
// cell that uses it is linked anew; figures are in the package figure, charts that move while a network trains in the package live, and networks and data in pkg and datasets.
//
// # Limits
//
// A cell's program talks to the kernel through one pipe that only one writer can use: a program uses this package or GoNB's
// gonbui package (and what is built on it, such as gonbui/widgets and GoMLX's ui/gonb), not both. Show says so if it sees the other one.
package kernelext

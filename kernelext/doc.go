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
// cell that uses it is linked anew; figures are in the package figure, and networks and data in pkg and datasets.
//
// # Variables survive
//
// In this project's kernel a variable keeps its value from one cell to the next: after var counter = 0, counter++ in a later cell counts. Its declaration is
// evaluated when the cell that holds it is run, and not again until that cell is. Two variables that point to one object do so in later cells too, and what a
// cell did before it failed, or was stopped, is kept. A cell restores what it uses, and compiles no more of the notebook than that.
//
// What can't be copied is evaluated again by each cell that uses it, and the kernel says so once: channels, functions, open files, structs of other packages
// that hide fields. Networks (*model.Store), tensors, pruners and data sets present themselves, and so can your own types: see Keeper. When code that a value
// came from has changed since, the next use says so and names the cell; a value whose type has changed starts afresh.
//
// What a program does when it ends by itself is its own affair: os.Exit, log.Fatal and panics in the notebook's code and Must save first; a panic in another
// goroutine, and a package that calls os.Exit, leave the variables as they were before the cell. Goroutines end with their cell. Cells of tests (%test) and
// for the browser (%wasm) start with fresh variables.
//
// # Limits
//
// A cell's program talks to the kernel through one pipe that only one writer can use: a program uses this package or GoNB's
// gonbui package (and what is built on it, such as gonbui/widgets and GoMLX's ui/gonb), not both. Show says so if it sees the other one.
package kernelext

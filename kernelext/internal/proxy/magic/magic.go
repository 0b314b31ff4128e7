// Package magic holds the commands of our own that cells can give, such as %who: each a value in a file of its own, and a line in All.
package magic

import (
	"context"
	"slices"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
)

// All are the commands of our own, as %help lists them.
var All = []Magic{Help, Who, Reset, Rerun, Restore, Time, Prune, Backend, Theme, Store, Export}

// Magic is a command. It runs where it stands among the commands of a cell, before the cell's Go; or, if it has Around, around all of the cell.
type Magic struct {
	Name     string // without the %
	Usage    string // its arguments
	Short    string // one line, without a full stop
	Doc      string // what else there is to know
	Examples []string

	Run    func(ctx context.Context, k Kernel, c Call) error
	Around func(ctx context.Context, k Kernel, c Call, run func() error) error
	Here   func(c Call) bool // of a command that has Around: whether it is to be Run all the same

	// Complete lists what can stand as the argument after those given; nil: nothing is offered.
	Complete func(all []Magic, state string, before []string) []string
}

// Wraps says whether a call goes around its cell.
func (m Magic) Wraps(c Call) bool { return m.Around != nil && (m.Here == nil || !m.Here(c)) }

// Call is one use of a command.
type Call struct {
	Args []string
	Text string // the arguments as they were written
	Cell *cell.Cell
}

// Kernel is what commands can do.
type Kernel interface {
	// Print writes to the cell's standard output.
	Print(text string)
	// Show displays something in several forms, by MIME type.
	Show(data map[string]any)
	// Go runs a program of our own, with what the notebook has declared. What it declares itself is not evaluated again.
	Go(ctx context.Context, code string) error
	// Gonb runs one of GoNB's commands, such as "%env A b".
	Gonb(ctx context.Context, command string) error
	// Forget forgets declarations.
	Forget(ctx context.Context, names []string) error
	// State is the directory of the notebook's variables.
	State() string
	// Magics are all commands of our own.
	Magics() []Magic
	// Number is the cell's execution count.
	Number() int
	// Built is when the program of a cell was last compiled; zero: never.
	Built() time.Time
}

// Find returns the command of a name.
func Find(all []Magic, name string) (Magic, bool) {
	if i := slices.IndexFunc(all, func(m Magic) bool { return m.Name == name }); i >= 0 {
		return all[i], true
	}
	return Magic{}, false
}

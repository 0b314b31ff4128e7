// Package keep is what the parts of the kernel agree on so that variables survive cells: the protocol proxy says which cell is about to be run
// (Cell) and which directory its notebook's variables lie in; the toolchain shim builds the cell's program so that it takes its variables from there and
// leaves them there; the magics look at them and change what happens to them.
//
// # What the proxy does
//
// When the kernel starts: n, err := Open(home, notebook), and GoNB's environment gets StateEnv=n.Dir and CellEnv=a file of the proxy's. The state
// begins empty; what the notebook's last kernel left is set aside for Restore. Before each execute that reaches GoNB: WriteCell. At the end: n.Close().
//
// The directory has a variable of its own, and not ESPALIER_STATE: under that name programs keep checkpoints (kernelext.Dir), which have to outlive a
// restart and must not be removed because they are old.
//
// Without StateEnv, in GoNB without a proxy, variables lie in GoNB's temporary directory and are gone with the kernel. Without CellEnv a declaration
// is taken to be in the current cell if its text differs from that in the program before, so that running an unchanged declaration again does not set it back.
package keep

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// The environment variables of GoNB, and so of the go command and the programs that it runs.
const (
	CellEnv  = "ESPALIER_CELL" // the file that WriteCell writes
	StateEnv = "ESPALIER_KEEP" // the directory of the notebook's variables: Notebook.Dir
)

// Cell is what the proxy knows of the cell that is about to run.
type Cell struct {
	Number int    `json:"number"`       // its execution count
	ID     string `json:"id,omitempty"` // the front end's name of it, if it says

	// Declares lists the package-level declarations in the cell's source: the names of variables, constants, types and functions, and "Type~Method" for
	// methods. The variables among them are evaluated; all others keep their values.
	Declares []string `json:"declares"`
	// Statements says that the cell has statements at top level, which the proxy put into main: variables that these declare by := survive.
	Statements bool `json:"statements,omitempty"`
	// Show is the function that is to be given the value of the last expression among main's statements, where that has values, and is not made for what it writes (fmt.Println): an import path, a dot
	// and a name, as in "github.com/espalier-ml/espalier/kernelext.Result". "": none.
	Show string `json:"show,omitempty"`
	// Digest of the cell's text, for whoever wants to know whether it is the same.
	Digest string `json:"digest,omitempty"`
}

// maxCell bounds a Cell's file.
const maxCell = 1 << 20

// WriteCell writes what is known of a cell, whole or not at all.
func WriteCell(path string, c Cell) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return manifest.Replace(path, data)
}

// ErrCell says that the file with what is known of the cell can't be read.
var ErrCell = errors.New("what the kernel says of the current cell can't be read: restart the kernel")

// ReadCell reads what WriteCell wrote.
func ReadCell(path string) (Cell, error) {
	var c Cell
	f, err := os.Open(path)
	if err != nil {
		return c, fmt.Errorf("%w (%v)", ErrCell, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCell+1))
	if err == nil && len(data) > maxCell {
		err = fmt.Errorf("it has more than %d bytes", maxCell)
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return Cell{}, fmt.Errorf("%w (%v)", ErrCell, err)
	}
	return c, nil
}

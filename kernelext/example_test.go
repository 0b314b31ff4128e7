package kernelext_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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

// corpus is a text that is kept open: neither the file nor its place can be copied to another program.
type corpus struct {
	path string
	file *os.File
}

func (c *corpus) KeepDigest() (string, error) { return c.path, nil }

func (c *corpus) KeepSave(dir string) error {
	return os.WriteFile(filepath.Join(dir, "path"), []byte(c.path), 0o600)
}

func (c *corpus) KeepLoad(dir string) error {
	path, err := os.ReadFile(filepath.Join(dir, "path"))
	if err != nil {
		return err
	}
	c.path = string(path)
	c.file, err = os.Open(c.path)
	return err
}

// A value that can't be copied says itself how it gets from one cell to the next. The kernel does what this example does.
func ExampleKeeper() {
	dir, err := os.MkdirTemp("", "example-")
	kernelext.Must(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "corpus.txt")
	kernelext.Must(os.WriteFile(path, []byte("to be or not to be"), 0o600))

	var before kernelext.Keeper = &corpus{path: path}
	kernelext.Must(before.KeepSave(dir))

	var after corpus
	kernelext.Must(after.KeepLoad(dir))
	defer after.file.Close()
	words := make([]byte, 18)
	_, err = after.file.Read(words)
	kernelext.Must(err)
	fmt.Println(len(strings.Fields(string(words))), "words")
	// Output:
	// 6 words
}

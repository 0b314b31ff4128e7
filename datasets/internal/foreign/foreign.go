// Package foreign recognises files that are never read: pickles of Python, and the formats that may hold one. A pickle is a program, and opening it
// runs it; what it holds can be had as plain data.
package foreign

import (
	"bytes"
	"io"
	"os"
	"path"
	"strings"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// Remedy is for everyone who comes with such a file.
const Remedy = "opening a pickle runs what is in it, so none is read here: convert it where it comes from, images to PNG files in class folders and " +
	"arrays to safetensors"

// suffixes are what such files are called. A pickle of protocol 0 is text and can't be told otherwise.
var suffixes = map[string]string{
	".pkl": "a pickle of Python", ".pickle": "a pickle of Python", ".pt": "a file of PyTorch, which holds a pickle", ".pth": "a file of PyTorch, which holds a pickle",
	".npy": "an array of NumPy, which may hold a pickle", ".npz": "arrays of NumPy, which may hold pickles",
}

// Named says what a file of this name is, or "".
func Named(name string) string { return suffixes[strings.ToLower(path.Ext(name))] }

// Started says what a file with this name and these first bytes is, or "".
func Started(name string, start []byte) string {
	switch {
	case len(start) > 1 && start[0] == 0x80 && start[1] >= 2 && start[1] <= 5: // opcode PROTO and its version
		return "a pickle of Python"
	case bytes.HasPrefix(start, []byte("\x93NUMPY")):
		return suffixes[".npy"]
	case bytes.HasPrefix(start, []byte("PK\x03\x04")):
		if named := Named(name); named != "" {
			return named
		}
		return "a zip archive, as the files of PyTorch and NumPy are"
	}
	return Named(name)
}

// Refuse returns a *fault.Error of kind ErrFormat when the regular file at path is such a file; other failures are for who reads it.
func Refuse(path, expected, remedy string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	start := make([]byte, 8)
	n, _ := io.ReadFull(f, start)
	if came := Started(path, start[:n]); came != "" {
		return &fault.Error{Kind: fault.ErrFormat, File: path, Expected: expected, Came: came, Remedy: remedy}
	}
	return nil
}

package cifar10

import (
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/datasets/internal/foreign"
)

// The version for Python has its files in this folder; each is a pickle.
const (
	pythonDir   = "cifar-10-batches-py"
	pythonBatch = "data_batch_1"
)

const expected = "the binary version of CIFAR-10, or images in class folders"

const remedy = "get cifar-10-binary.tar.gz, by Config.Download or by other means, which has the same images; " + foreign.Remedy

// refusePickles returns an error when path is the version for Python, or another file that may hold a pickle.
func refusePickles(path string, dir bool) error {
	pickles := &Error{Kind: ErrFormat, File: path, Expected: expected, Came: "the version for Python, whose files are pickles", Remedy: remedy}
	if dir {
		for _, place := range []string{path, filepath.Join(path, pythonDir)} {
			if info, err := os.Stat(filepath.Join(place, pythonBatch)); err == nil && !info.IsDir() {
				return pickles
			}
		}
		return nil
	}
	if starts(path) == ofPickles {
		return pickles
	}
	return foreign.Refuse(path, expected, remedy)
}

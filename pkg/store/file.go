package store

import (
	"io"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// WriteFile writes a file in place of the one that has the name, if any: whole or not at all, and on the disk when it returns. Its directory is made.
//
// Errors: that of write; of the file system.
func WriteFile(path string, write func(io.Writer) error) error {
	return durable.FS{}.Replace(path, write)
}

package keep

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// Declaration is a declaration as the last program had it.
type Declaration struct {
	Kind   string `json:"kind"`   // "func", "type", "var", "const"
	Digest string `json:"digest"` // of its text
	Cell   int    `json:"cell"`   // where it got this text
}

// Code holds the declarations of the last program, by name ("Type.Method" for methods).
type Code map[string]Declaration

// ReadCode returns the declarations of the last program that was built; none where there was none.
func ReadCode(dir string) (Code, error) {
	code := Code{}
	data, err := os.ReadFile(filepath.Join(dir, CodeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return code, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(data, &code) != nil {
		return nil, manifest.ErrDamaged
	}
	return code, nil
}

// Write writes the declarations.
func (c Code) Write(dir string) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return manifest.Replace(filepath.Join(dir, CodeFile), data)
}

// Stale compares what a value came from ("name=digest name=digest …") with the present declarations, and says the first that differs, in words.
func (c Code) Stale(from string) string {
	for _, dependency := range strings.Fields(from) {
		name, digest, _ := strings.Cut(dependency, "=")
		now, there := c[name]
		switch {
		case !there:
			return name + ", which it came from, is gone"
		case now.Digest != digest:
			return now.Kind + " " + name + ", which it came from, changed in cell " + strconv.Itoa(now.Cell)
		}
	}
	return ""
}

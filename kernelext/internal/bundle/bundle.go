// Package bundle makes one file of a notebook and what its runs left, for another machine to verify and open. Nothing in it is executed by opening it,
// and no pickle is ever packed or unpacked.
//
// A bundle is a tar.gz as pkg/store/archive writes it. Its first entry, bundle.json, is an Index; the others are notebooks/NAME.ipynb and
// runs/RUN/…, with the layout that experiment.Comparison.Dir has. The digests in the index show damage; who made a bundle they do not show.
package bundle

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/espalier-ml/espalier/pkg/store/archive"
)

const (
	indexName   = "bundle.json"
	notebooks   = "notebooks/"
	runs        = "runs/"
	version     = 1
	maxIndex    = 8 << 20
	maxNotebook = 64 << 20 // it is parsed in memory
)

// limits are what is put up with in a bundle, by those who make it too.
var limits = archive.Limits{Files: 10_000, Bytes: 2 << 30}

// Role is what a file in a bundle is.
type Role string

// The roles.
const (
	Notebook Role = "notebook"
	Manifest Role = "manifest"
	Masks    Role = "masks"
	Records  Role = "records"
	Result   Role = "result"
)

var roles = []Role{Notebook, Manifest, Masks, Records, Result}

// Index says what a bundle holds.
type Index struct {
	Version  int               `json:"version"`  // of the format: 1
	Notebook string            `json:"notebook"` // its name, without directory
	Files    []File            `json:"files"`    // all but the index, sorted by name
	Versions map[string]string `json:"versions"` // what it was made with: go, platform, modules by path
}

// File is an entry of the index.
type File struct {
	Name   string `json:"name"`
	Role   Role   `json:"role"`
	Size   int64  `json:"size"`   // in bytes
	SHA256 string `json:"sha256"` // of the content, in hexadecimal
}

// Error says why a bundle is not made or not opened.
type Error struct {
	Path    string // of the file or directory; with a colon, of an entry in a bundle
	Problem string
	Remedy  string
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s; %s", e.Path, e.Problem, e.Remedy) }

const getAgain = "get the bundle again, or ask who made it"

// encode returns the index as it is written.
func (x Index) encode() ([]byte, error) {
	text, err := json.MarshalIndent(x, "", "  ")
	return append(text, '\n'), err
}

// decode reads an index. It is not compared with any file yet.
func decode(text []byte) (Index, error) {
	var x Index
	bad := func(format string, args ...any) (Index, error) {
		return Index{}, &Error{indexName, fmt.Sprintf(format, args...), getAgain}
	}
	var first struct{ Version int }
	if err := json.Unmarshal(text, &first); err != nil {
		return bad("is no index of a bundle (%v)", err)
	}
	if first.Version > version {
		return Index{}, &Error{indexName, fmt.Sprintf("is of version %d, this program reads version %d", first.Version, version), "open it with a newer Espalier"}
	}
	if first.Version != version {
		return Index{}, &Error{indexName, fmt.Sprintf("is of version %d, expected %d", first.Version, version), "export it again"}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&x); err != nil {
		return bad("is no index of a bundle (%v)", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad("goes on after the index")
	}
	for i, f := range x.Files {
		sum, err := hex.DecodeString(f.SHA256)
		switch {
		case i > 0 && x.Files[i-1].Name >= f.Name:
			return bad("does not have its files in order: %q follows %q", f.Name, x.Files[i-1].Name)
		case !printable(f.Name):
			return bad("has the name %q, which can't be printed", f.Name)
		case !slices.Contains(roles, f.Role):
			return bad("gives %q the unknown role %q", f.Name, f.Role)
		case f.Size < 0 || err != nil || len(sum) != 32 || f.SHA256 != strings.ToLower(f.SHA256):
			return bad("has a size or digest for %q that is none", f.Name)
		case f.Role == Notebook && f.Name != notebooks+x.Notebook:
			return bad("has a second notebook, or under another name: %q", f.Name)
		case f.Role != Notebook && !strings.HasPrefix(f.Name, runs):
			return bad("has %q, which is not below %s", f.Name, runs)
		}
	}
	_, found := slices.BinarySearchFunc(x.Files, notebooks+x.Notebook, func(f File, name string) int { return cmp.Compare(f.Name, name) })
	if !found || path.Base(x.Notebook) != x.Notebook {
		return bad("has no notebook %q among its files", x.Notebook)
	}
	for name, v := range x.Versions {
		if !printable(name) || !printable(v) {
			return bad("has a version that can't be printed: %q %q", name, v)
		}
	}
	return x, nil
}

// printable tells whether text can be shown without steering a terminal.
func printable(s string) bool {
	return len(s) <= 256 && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0
}

// bytesText is a size for people.
func bytesText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

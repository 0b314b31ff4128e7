// Package fault is the error of the data sets: where the data is wrong, what was expected, what came, and what to do about it.
package fault

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// The kinds of an Error, for errors.Is.
var (
	ErrConfig   = errors.New("wrong configuration")   // a field of a Config has no meaning
	ErrMissing  = errors.New("data not found")        // there is no such file or directory
	ErrFormat   = errors.New("malformed data")        // the content is not what its format says
	ErrDigest   = errors.New("wrong digest")          // the content is not the published one
	ErrUnsafe   = errors.New("unsafe entry")          // a name or link that leaves its root, a device, a duplicate
	ErrLimit    = errors.New("limit exceeded")        // more entries, bytes or pixels than are allowed
	ErrDownload = errors.New("download not finished") // the network, the server or the disk failed
	ErrCache    = errors.New("cache not written")     // the data is there, but will have to be decoded again; only ever a warning
)

// Error says what is wrong with data, in one sentence, and the remedy.
type Error struct {
	Kind     error  // one of the Err… values of this package
	File     string // path or address; "" where there is none
	Entry    string // member of File, when File is an archive or a directory
	Offset   int64  // first wrong byte, counted in the uncompressed content; 0 also stands for the whole
	Expected string
	Came     string
	Remedy   string
	Err      error // the cause, may be nil
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Entry != "" {
			fmt.Fprintf(&b, ": %q", e.Entry)
		}
		if e.Offset > 0 {
			fmt.Fprintf(&b, " at byte %d", e.Offset)
		}
		b.WriteString(": ")
	}
	fmt.Fprintf(&b, "%v: expected %s, came %s", e.Kind, e.Expected, e.Came)
	if e.Err != nil {
		fmt.Fprintf(&b, " (%v)", e.Err)
	}
	if e.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(e.Remedy)
	}
	return b.String()
}

// Unwrap makes errors.Is and errors.As see the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Warn is what a nil Config.Warn stands for: one line on standard error.
func Warn(err error) { fmt.Fprintln(os.Stderr, "espalier:", err) }

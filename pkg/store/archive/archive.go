// Package archive writes tar archives that are a function of what they hold, and reads archives that nobody trusts.
//
// Both sides know one format only, POSIX.1-1988 ustar (IEEE Std 1003.1, pax, "ustar Interchange Format"), with regular files and directories. All
// that later formats added to headers, names and sizes in a second place, sparse files, is what attacks on readers are made of, and none of it is
// needed here: whoever packs by hand uses `tar --format=ustar`. The reader takes one spelling of everything: the same bytes can't mean one thing to
// it and another to the next program.
package archive

import (
	"fmt"
	"io"
	"math"
)

// File is a file to be written.
type File struct {
	Name string // with slashes: at most 100 bytes after a slash that has at most 155 before it
	Size int64  // in bytes, at most 8 GiB - 1
	Open func() (io.ReadCloser, error)
}

// Limits are what Extract puts up with. The zero value has the defaults.
type Limits struct {
	Files     int   // files and directories, those included that a name implies. Default: 10 000
	Bytes     int64 // of all files, unpacked. Default: 2 GiB
	FileBytes int64 // of one file, unpacked. Default: Bytes
	// Ratio of unpacked bytes to those read, beyond the first MiB, where the archive is compressed. Default: 200; deflate can reach 1032.
	Ratio int64
}

func (l Limits) complete() (Limits, error) {
	for _, one := range []struct {
		name  string
		value int64
	}{{"Files", int64(l.Files)}, {"Bytes", l.Bytes}, {"FileBytes", l.FileBytes}, {"Ratio", l.Ratio}} {
		if one.value < 0 {
			return l, &Error{Problem: fmt.Sprintf("Limits.%s is %d", one.name, one.value), Remedy: "give a positive number, or 0 for the default"}
		}
	}
	if l.Files == 0 {
		l.Files = 10_000
	}
	if l.Bytes == 0 {
		l.Bytes = 2 << 30
	}
	if l.FileBytes == 0 {
		l.FileBytes = l.Bytes
	}
	if l.Ratio == 0 {
		l.Ratio = 200
	}
	return l, nil
}

// unlimited is for trees of names that the caller vouches for.
const unlimited = math.MaxInt

// Error says why an archive is not written or not unpacked.
type Error struct {
	Name    string // of the entry; empty where it is about the whole archive
	Problem string
	Remedy  string
}

func (e *Error) Error() string {
	at := "the archive"
	if e.Name != "" {
		at = fmt.Sprintf("%q in the archive", e.Name) // quoted: a name may hold what steers a terminal
	}
	if e.Remedy == "" {
		return at + " " + e.Problem
	}
	return fmt.Sprintf("%s %s; %s", at, e.Problem, e.Remedy)
}

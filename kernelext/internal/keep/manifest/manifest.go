// Package manifest is the record of a notebook's kept variables: which there are, what they came from, and the files that their values lie in.
//
// It is read and written by each cell's program, which is linked anew each time, so it imports next to nothing and has a format of its own:
// a line a variable, its fields quoted.
package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ValueSuffix ends the names of the files that hold values.
const ValueSuffix = ".value"

// Name is the manifest's file name in a directory of kept variables.
const Name = "manifest"

const (
	header  = "espalier-variables 1"
	maxSize = 16 << 20 // of a manifest that is read
)

// ErrDamaged says that a manifest can't be read.
var ErrDamaged = errors.New("the record of the kept variables is damaged: `%reset` without names forgets them all")

// ErrForeign says that kept variables are not read since others could have written them.
var ErrForeign = errors.New("kept variables are read only from a directory that belongs to you and that nobody else can write or read")

// Var is one variable of a notebook.
type Var struct {
	Name string
	Type string // as Go writes it

	// Layout is the digest of all that the variable's type consists of. Dynamic lists the notebook's own types that the value holds in interfaces, as
	// "name=layout", separated by blanks.
	Layout, Dynamic string
	// Code lists the declarations that the value came from, as "name=digest", separated by blanks. Noted is the Code of which the reader was told last.
	Code, Noted string

	Cell    int // the cell in which its declaration was evaluated
	Changed int // the cell that gave it its present value

	File    string // holds the value, with those of the variables that share memory with it; "" where it is not kept
	Objects string // the directories of the values in it that present themselves, separated by blanks
	Size    int64  // bytes of the value alone, as far as that can be told
	Reason  string // why it can't be kept; "" where it is
	Same    bool   // evaluating it again gives what it held
	Rerun   bool   // its declaration is to be evaluated in the next cell
	Local   bool   // it was declared by := among a cell's statements
}

// Manifest holds the variables by name.
type Manifest struct {
	Vars map[string]Var
}

// Files returns the names of the files that hold values, each once.
func (m Manifest) Files() map[string]bool {
	files := map[string]bool{}
	for _, v := range m.Vars {
		if v.File != "" {
			files[v.File] = true
		}
		for _, object := range strings.Fields(v.Objects) {
			files[object] = true
		}
	}
	return files
}

// Sharing returns the names of the variables whose values lie in one file with that of v, v among them.
func (m Manifest) Sharing(v Var) []string {
	var names []string
	for name, other := range m.Vars {
		if v.File != "" && other.File == v.File {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Read returns the manifest of a directory; one without variables where there is none yet.
func Read(dir string) (Manifest, error) {
	m := Manifest{Vars: map[string]Var{}}
	if err := Own(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return m, nil
		}
		return m, err
	}
	f, err := os.Open(filepath.Join(dir, Name))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return m, err
	}
	if len(data) > maxSize {
		return m, fmt.Errorf("%w (it has more than %d bytes)", ErrDamaged, maxSize)
	}
	lines := strings.Split(string(data), "\n")
	// The last line says how many there are, so that a torn file is found.
	if len(lines) < 3 || lines[0] != header || lines[len(lines)-2] != "end "+strconv.Itoa(len(lines)-3) || lines[len(lines)-1] != "" {
		return m, ErrDamaged
	}
	for _, line := range lines[1 : len(lines)-2] {
		v, err := parse(line)
		if err != nil {
			return Manifest{Vars: map[string]Var{}}, fmt.Errorf("%w (%v)", ErrDamaged, err)
		}
		m.Vars[v.Name] = v
	}
	return m, nil
}

// Write replaces the manifest of a directory: a kill at any moment leaves the old or the new one.
//
// It is not forced to the disk: that would cost each cell more than the rest of saving, and what a machine loses with its power is a state that
// the next kernel does not start from. A file that came to be torn then is found, since its name has its digest.
func (m Manifest) Write(dir string) error {
	var b strings.Builder
	b.WriteString(header + "\n")
	names := make([]string, 0, len(m.Vars))
	for name := range m.Vars {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteString(format(m.Vars[name]) + "\n")
	}
	b.WriteString("end " + strconv.Itoa(len(names)) + "\n")
	return Replace(filepath.Join(dir, Name), []byte(b.String()))
}

// Replace writes a file in place of the one that has the name, whole or not at all, readable by its owner alone.
func Replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), TemporaryPattern)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// TemporaryPattern begins the names of files that are being written.
const TemporaryPattern = ".writing-"

// Temporary tells whether a file's name is of one that was being written. What a kill leaves under such a name is litter.
func Temporary(name string) bool { return strings.HasPrefix(name, TemporaryPattern) }

// Own checks that a directory is the user's own and nobody else's.
func Own(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !mine(info) {
		return fmt.Errorf("%s: %w", dir, ErrForeign)
	}
	return nil
}

func format(v Var) string {
	fields := []string{v.Name, v.Type, v.Layout, v.Dynamic, v.Code, v.Noted, strconv.Itoa(v.Cell), strconv.Itoa(v.Changed), v.File,
		strconv.FormatInt(v.Size, 10), v.Objects, v.Reason, strconv.FormatBool(v.Same), strconv.FormatBool(v.Rerun), strconv.FormatBool(v.Local)}
	for i, f := range fields {
		fields[i] = strconv.Quote(f)
	}
	return strings.Join(fields, " ")
}

func parse(line string) (v Var, err error) {
	var fields []string
	for line != "" {
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return v, err
		}
		field, err := strconv.Unquote(quoted)
		if err != nil {
			return v, err
		}
		fields = append(fields, field)
		line = strings.TrimPrefix(line[len(quoted):], " ")
	}
	if len(fields) != 15 {
		return v, fmt.Errorf("a variable with %d fields, want 15", len(fields))
	}
	v = Var{Name: fields[0], Type: fields[1], Layout: fields[2], Dynamic: fields[3], Code: fields[4], Noted: fields[5], File: fields[8], Objects: fields[10], Reason: fields[11]}
	for _, file := range append(strings.Fields(v.Objects), v.File) {
		if file != "" && (!filepath.IsLocal(file) || filepath.Base(file) != file) {
			return v, fmt.Errorf("file %q leads elsewhere", file)
		}
	}
	for _, number := range []struct {
		to   *int
		from string
	}{{&v.Cell, fields[6]}, {&v.Changed, fields[7]}} {
		if *number.to, err = strconv.Atoi(number.from); err != nil {
			return v, err
		}
	}
	if v.Size, err = strconv.ParseInt(fields[9], 10, 64); err != nil {
		return v, err
	}
	for _, flag := range []struct {
		to   *bool
		from string
	}{{&v.Same, fields[12]}, {&v.Rerun, fields[13]}, {&v.Local, fields[14]}} {
		if *flag.to, err = strconv.ParseBool(flag.from); err != nil {
			return v, err
		}
	}
	return v, nil
}

// Sweep removes the values that a manifest does not name, and what killed programs left half-written.
func Sweep(dir string, m Manifest) error {
	files := m.Files()
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if Temporary(e.Name()) || strings.HasSuffix(e.Name(), ValueSuffix) && !files[e.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

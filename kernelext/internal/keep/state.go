package keep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// The files beside the manifest and the values.
const (
	CodeFile         = "code"            // the declarations as the last program had them: written by the shim after each build
	DeclarationsFile = "declarations.go" // the last program without main: what Restore returns
)

// Variable is what %who shows of a variable.
type Variable struct {
	Name, Type string
	Size       int64  // bytes
	Cell       int    // the cell in which its declaration was evaluated
	Changed    int    // the cell that gave it its present value
	Stale      string // why its value may not be what its code gives now, in words; "" where it is
	Unkept     string // why it is evaluated again in each cell that uses it; "" where it is kept
	Rerun      bool   // it will be evaluated in the next cell, as MarkRerun asked
}

// ErrNoVariable says that a name is not of a variable.
var ErrNoVariable = errors.New("no such variable: %who lists those there are")

// List returns the variables, by name.
func List(dir string) ([]Variable, error) {
	m, err := manifest.Read(dir)
	if err != nil {
		return nil, err
	}
	code, err := ReadCode(dir)
	if err != nil {
		return nil, err
	}
	var list []Variable
	for _, v := range m.Vars {
		list = append(list, Variable{Name: v.Name, Type: v.Type, Size: v.Size, Cell: v.Cell, Changed: v.Changed,
			Stale: code.Stale(v.Code), Unkept: v.Reason, Rerun: v.Rerun})
	}
	slices.SortFunc(list, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// ErrNotDeclared says that nothing has a name.
var ErrNotDeclared = errors.New("nothing of that name is declared: %who lists the variables")

// Reset forgets the values of variables, of all where no name is given. Their declarations are GoNB's to forget (%rm), as are functions, types and constants, which have nothing else; a
// variable that it still has is evaluated when it is next used. With an unknown name nothing is forgotten.
func Reset(dir string, names ...string) error {
	if len(names) == 0 {
		// Without reading the manifest, so that a damaged one can be got rid of.
		if err := manifest.Own(dir); err != nil {
			return err
		}
		return clear(dir)
	}
	m, err := manifest.Read(dir)
	if err != nil {
		return err
	}
	code, err := ReadCode(dir)
	if err != nil {
		return err
	}
	var vars []string
	for _, name := range names {
		_, isVar := m.Vars[name]
		_, declared := code[name]
		switch {
		case isVar:
			vars = append(vars, name)
		case !declared:
			return fmt.Errorf("%s: %w", name, ErrNotDeclared)
		}
	}
	return change(dir, vars, func(m manifest.Manifest, name string) { delete(m.Vars, name) })
}

// WithMethods returns names of declarations and, in GoNB's spelling (Type~Method), the methods of those that are types: a type can't be forgotten without them.
func WithMethods(dir string, names []string) ([]string, error) {
	code, err := ReadCode(dir)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(names)
	for declared := range code {
		if t, method, ok := strings.Cut(declared, "."); ok && slices.Contains(names, t) {
			all = append(all, t+"~"+method)
		}
	}
	slices.Sort(all[len(names):])
	return all, nil
}

// ErrLocal says that a variable has no declaration that could be evaluated again.
var ErrLocal = errors.New("it was declared by := among a cell's statements")

// MarkRerun has a variable's declaration evaluated in the next cell that is run, used or not.
func MarkRerun(dir, name string) error {
	m, err := manifest.Read(dir)
	if err != nil {
		return err
	}
	if v := m.Vars[name]; v.Local {
		return fmt.Errorf("%s: %w: run cell %d again", name, ErrLocal, v.Cell)
	}
	return change(dir, []string{name}, func(m manifest.Manifest, name string) {
		v := m.Vars[name]
		v.Rerun = true
		m.Vars[name] = v
	})
}

func change(dir string, names []string, do func(m manifest.Manifest, name string)) error {
	m, err := manifest.Read(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := m.Vars[name]; !ok {
			return fmt.Errorf("%s: %w", name, ErrNoVariable)
		}
	}
	for _, name := range names {
		do(m, name)
	}
	if err := m.Write(dir); err != nil {
		return err
	}
	return manifest.Sweep(dir, m)
}

// clear removes all that is in a directory.
func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

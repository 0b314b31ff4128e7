// Package rewrite makes a cell's program, as GoNB wrote it, one whose variables start from the values that the last program left.
//
// GoNB renders all declarations of a notebook into one main.go, in which every variable is initialised again. Rewrite type-checks it and decides for each
// variable: one whose declaration stands in the current cell is initialised; one that an earlier cell declared loses its initialiser, and, if the program
// reaches it, package survive gives it its value before anything else is initialised. What could not be kept keeps its initialiser, and the reader is told.
// The result goes to the compiler as an overlay (go build -overlay), so that no file of GoNB's changes, and no line moves.
package rewrite

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// Config says where things are.
type Config struct {
	Go    string   // the real Go command
	Flags []string // the build's flags that decide which files and packages it has
	Dir   string   // where GoNB wrote the program
	State string   // the notebook's kept variables
	Cell  string   // the file that keep.WriteCell wrote; "": there is none
	Cache string   // for what the Go command said of packages
}

// Build is a program that is ready to be compiled.
type Build struct {
	Overlay string       // for go build -overlay
	Commit  func() error // to be called once it was compiled
}

// local is a variable that a cell declared by :=.
type local struct {
	Type    string            `json:"type"`
	Imports map[string]string `json:"imports,omitempty"` // by alias
}

const localsRecord = "locals"

// Rewrite makes a cell's program one whose variables survive. The errors: *CompileError, where it does not compile, and *ImportError, where the Go
// command has to say what is wrong; any other is a failure of ours.
func (c Config) Rewrite() (b Build, err error) {
	defer func() {
		// A fault of ours is no reason not to run the cell.
		if r := recover(); r != nil {
			b, err = Build{}, fmt.Errorf("rewriting it failed (%v); please report that", r)
		}
	}()
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return Build{}, err
	}
	kept, err := manifest.Read(c.State)
	if err != nil {
		return Build{}, err
	}
	before, err := keep.ReadCode(c.State)
	if err != nil {
		return Build{}, err
	}
	cell, known, err := c.cell()
	if err != nil {
		return Build{}, err
	}
	p, err := c.parse()
	if err != nil {
		return Build{}, err
	}
	locals, err := c.locals(kept, p.declared())
	if err != nil {
		return Build{}, err
	}
	paths := append(p.imports(), survivePath)
	if slices.Contains(paths, "C") {
		return Build{}, errors.New("it uses cgo")
	}
	if p.locals, err = parser.ParseFile(p.fset, localsFile, localsSource(usedLocals(locals, kept, p.file)), parser.SkipObjectResolution); err != nil {
		return Build{}, err
	}
	for _, l := range usedLocals(locals, kept, p.file) {
		for _, path := range l.Imports {
			paths = append(paths, path)
		}
	}
	for _, v := range kept.Vars {
		for _, entry := range strings.Fields(v.Dynamic) {
			name, _, _ := strings.Cut(entry, "=")
			if path := name[:max(0, strings.LastIndexByte(name, '.'))]; path != "" && path != "main" {
				paths = append(paths, path)
			}
		}
	}
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == "unsafe" })
	e, err := c.findExports(paths)
	var missing *ImportError
	if errors.As(err, &missing) && strings.Contains(missing.Output, survivePath) {
		return Build{}, fmt.Errorf("the Go command does not find %s; start the kernel with this project as workspace (-go_work), as the set-up does", survivePath)
	}
	if err != nil {
		return Build{}, err
	}
	if err := p.check(e, cell.Statements, cell.Show != ""); err != nil {
		return Build{}, explain(err, kept, before)
	}
	if p.main == nil {
		return Build{}, &CompileError{[]string{"function main is undeclared in the main package"}}
	}
	pl, err := c.plan(p, cell, known, before, kept)
	if err != nil {
		return Build{}, err
	}
	overlay, err := c.overlay(map[string][]byte{
		mainFile:  apply(p.src, pl.edits()),
		generated: []byte(pl.file(c.State, pl.gomlx(e))),
		// Its variables are in the generated file.
		localsFile: nil,
	})
	if err != nil {
		return Build{}, err
	}
	return Build{overlay, func() error { return c.commit(pl, locals) }}, nil
}

// Notice makes a program that is compiled as it is, and says first that its variables are not kept, and why.
func (c Config) Notice(why error) (Build, error) {
	text := fmt.Sprintf("package main\n\nimport %[1]sos \"os\"\n\nfunc init() { %[1]sos.Stderr.WriteString(%[2]q) }\n", prefix,
		"espalier: this cell's program starts with fresh variables, and leaves none: "+strings.ReplaceAll(why.Error(), "\n", "; ")+"\n")
	overlay, err := c.overlay(map[string][]byte{generated: []byte(text), localsFile: nil})
	return Build{overlay, func() error { return nil }}, err
}

// Bare makes a program that is compiled as it is, and does not find the variables that cells declared by :=. They are declared for gopls alone: without
// the values that they have in the notebook.
func (c Config) Bare() (Build, error) {
	overlay, err := c.overlay(map[string][]byte{localsFile: nil})
	return Build{overlay, func() error { return nil }}, err
}

// cell returns what the proxy says of the cell, if there is a proxy; else a number of our own.
func (c Config) cell() (cell keep.Cell, known bool, err error) {
	if c.Cell != "" {
		cell, err = keep.ReadCell(c.Cell)
		return cell, true, err
	}
	data, err := os.ReadFile(c.scratch("cells"))
	if err == nil {
		_, err = fmt.Sscan(string(data), &cell.Number)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	cell.Number++
	return cell, false, err
}

func (c Config) scratch(name string) string { return filepath.Join(c.Dir, ".espalier", name) }

// overlay writes the files that take the place of the program's; nil: the file is not there.
func (c Config) overlay(files map[string][]byte) (string, error) {
	if err := os.MkdirAll(c.scratch(""), 0o700); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, content := range files {
		replace[filepath.Join(c.Dir, name)] = ""
		if content == nil {
			continue
		}
		replace[filepath.Join(c.Dir, name)] = c.scratch(name)
		if err := os.WriteFile(c.scratch(name), content, 0o600); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	return c.scratch("overlay.json"), os.WriteFile(c.scratch("overlay.json"), data, 0o600)
}

// locals returns the variables that earlier cells declared by := and that were kept, less those that the program declares otherwise.
func (c Config) locals(kept manifest.Manifest, declared map[string]bool) (map[string]local, error) {
	all := map[string]local{}
	data, err := os.ReadFile(filepath.Join(c.State, localsRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil && json.Unmarshal(data, &all) != nil {
		err = manifest.ErrDamaged
	}
	for name := range all {
		if v := kept.Vars[name]; v.File == "" || !v.Local || declared[name] {
			delete(all, name)
		}
	}
	return all, err
}

// usedLocals returns those that the program names, and those that share memory with a variable that it names.
func usedLocals(locals map[string]local, kept manifest.Manifest, f *ast.File) map[string]local {
	names := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && !names[id.Name] {
			names[id.Name] = true
			for _, other := range kept.Sharing(kept.Vars[id.Name]) {
				names[other] = true
			}
		}
		return true
	})
	used := map[string]local{}
	for name, l := range locals {
		if names[name] {
			used[name] = l
		}
	}
	return used
}

// localsSource declares variables as a file of Go.
func localsSource(locals map[string]local) string {
	imports := map[string]string{}
	var vars strings.Builder
	for _, name := range sorted(locals) {
		for alias, path := range locals[name].Imports {
			imports[alias] = path
		}
		fmt.Fprintf(&vars, "var %s %s\n", name, locals[name].Type)
	}
	var b strings.Builder
	b.WriteString("package main\n\n")
	for _, alias := range sorted(imports) {
		fmt.Fprintf(&b, "import %s %q\n", alias, imports[alias])
	}
	return b.String() + "\n" + vars.String()
}

// explain says why variables that a cell declared by := are not there, and what to do about a name that an earlier cell gave to something of another kind.
func explain(err error, kept manifest.Manifest, before keep.Code) error {
	var compile *CompileError
	if !errors.As(err, &compile) {
		return err
	}
	for _, name := range sorted(kept.Vars) {
		if v := kept.Vars[name]; v.Local && v.Reason != "" && slices.ContainsFunc(compile.Problems, func(p string) bool { return strings.HasSuffix(p, "undefined: "+name) }) {
			compile.Problems = append(compile.Problems, fmt.Sprintf("espalier: %s, declared by := in cell %d, is not kept: %s; declare it with var, and each cell that uses it evaluates it again", name, v.Cell, v.Reason))
		}
	}
	for _, problem := range slices.Clone(compile.Problems) {
		name, twice := strings.CutSuffix(problem, " redeclared in this block")
		name = name[strings.LastIndexByte(name, ' ')+1:]
		if d, earlier := before[name]; twice && earlier {
			compile.Problems = append(compile.Problems, fmt.Sprintf("espalier: %s, a %s of cell %d, is declared once more as something else: %%reset %s forgets it", name, d.Kind, d.Cell, name))
		}
	}
	return err
}

// commit records the program that was compiled: only then GoNB keeps its declarations.
func (c Config) commit(pl *plan, locals map[string]local) error {
	changed := len(pl.code) != len(pl.before)
	for name, d := range pl.code {
		changed = changed || pl.before[name] != d
	}
	if changed {
		if err := pl.code.Write(c.State); err != nil {
			return err
		}
		if err := manifest.Replace(filepath.Join(c.State, keep.DeclarationsFile), pl.declarations()); err != nil {
			return err
		}
	}
	if c.Cell == "" {
		if err := os.WriteFile(c.scratch("cells"), fmt.Append(nil, pl.cell.Number), 0o600); err != nil {
			return err
		}
	}
	if len(pl.p.hoist) == 0 && len(locals) == 0 {
		return nil
	}
	for _, name := range sorted(pl.vars) {
		if v := pl.vars[name]; v.local {
			imports := map[string]string{}
			text, _ := pl.p.typeText(v.object.Type(), imports)
			locals[name] = local{text, imports}
		}
	}
	data, err := json.Marshal(locals)
	if err != nil {
		return err
	}
	if err := manifest.Replace(filepath.Join(c.State, localsRecord), data); err != nil {
		return err
	}
	// For gopls and goimports, which look at what lies beside main.go.
	return manifest.Replace(filepath.Join(c.Dir, localsFile), []byte(localsSource(locals)))
}

// declarations returns main.go without its main function.
func (pl *plan) declarations() []byte {
	p := pl.p
	from, to := p.offset(p.main.Pos()), p.offset(p.main.End())
	return slices.Concat(p.src[:from], p.src[to:])
}

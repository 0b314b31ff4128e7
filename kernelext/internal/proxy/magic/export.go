package magic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Export makes a package of cells.
var Export = Magic{
	Name: "export", Usage: "FILE.go", Short: "after the cell has run, writes its declarations to a file of a package; statements stay in the notebook",
	Doc: "Several cells can go to one file. A declaration that is there is replaced by the one of its name, another is added at the end. " +
		"A relative name begins at the notebook's directory. A file that was not begun by %export is left alone.",
	Examples: []string{"%export ../pkg/criterion/mine.go"},
	Around: func(ctx context.Context, k Kernel, c Call, run func() error) error {
		if len(c.Args) != 1 || !strings.HasSuffix(c.Args[0], ".go") {
			return errors.New("%export: one Go file is expected, such as `%export mine/criterion.go`")
		}
		if err := run(); err != nil {
			return err // what does not run is not exported
		}
		n, err := exportTo(ctx, c.Args[0], c.Cell.Declarations())
		if err != nil {
			return fmt.Errorf("%%export: %w", err)
		}
		what := "declarations"
		if n == 1 {
			what = "declaration"
		}
		k.Print(fmt.Sprintf("%d %s written to %s\n", n, what, c.Args[0]))
		return nil
	},
}

const exportHeader = "// Exported from a notebook by %export, which replaces declarations by name."

// exportTo merges declarations into a file, and returns how many.
func exportTo(ctx context.Context, path string, declarations []string) (int, error) {
	if len(declarations) == 0 {
		return 0, errors.New("the cell declares nothing")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if err == nil && !bytes.HasPrefix(old, []byte(exportHeader)) {
		return 0, fmt.Errorf("%s is there, and %%export did not begin it: choose another name, or move it away", path)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return 0, err
	}
	text, n, err := merge(string(old), packageName(filepath.Base(filepath.Dir(absolute))), declarations)
	if err != nil {
		return 0, err
	}
	tidied, err := tidy(ctx, absolute, text)
	if err != nil {
		return 0, err
	}
	f, err := os.CreateTemp(filepath.Dir(absolute), ".export-")
	if err != nil {
		return 0, err
	}
	_, err = f.Write(tidied)
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), absolute)
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(f.Name()))
	}
	return n, nil
}

var notInName = regexp.MustCompile(`[^a-z0-9]`)

func packageName(directory string) string {
	name := notInName.ReplaceAllString(strings.ToLower(directory), "")
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "p" + name
	}
	return name
}

// block is a declaration's text and what it declares.
type block struct {
	text  string
	names []string
}

// merge puts declarations into a file's text, which may be empty.
func merge(old, pkg string, declarations []string) (string, int, error) {
	have, err := blocks(old)
	if err != nil {
		return "", 0, fmt.Errorf("the file as it is does not parse (%w): mend it, or remove it", err)
	}
	if old != "" {
		if file, err := parser.ParseFile(token.NewFileSet(), "", old, parser.PackageClauseOnly); err == nil {
			pkg = file.Name.Name
		}
	}
	n := 0
	for _, d := range declarations {
		fresh, err := blocks("package p\n" + d)
		if err != nil {
			return "", 0, err
		}
		for _, f := range fresh {
			if len(f.names) > 0 {
				n++
			}
			at := slices.IndexFunc(have, func(b block) bool {
				return slices.ContainsFunc(b.names, func(name string) bool { return slices.Contains(f.names, name) }) || len(f.names) == 0 && b.text == f.text
			})
			if at < 0 {
				have = append(have, f)
			} else {
				have[at] = f
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\npackage %s\n", exportHeader, pkg)
	for _, imports := range []bool{true, false} { // imports come first
		for _, h := range have {
			if (len(h.names) == 0) == imports {
				fmt.Fprintf(&b, "\n%s\n", h.text)
			}
		}
	}
	return b.String(), n, nil
}

// blocks reads the declarations of a file; imports have no names.
func blocks(text string) ([]block, error) {
	if text == "" {
		return nil, nil
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var list []block
	for _, d := range file.Decls {
		from, to := d.Pos(), d.End()
		var b block
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc != nil {
				from = d.Doc.Pos()
			}
			name := d.Name.Name
			if d.Recv != nil && len(d.Recv.List) == 1 {
				name = strings.TrimLeft(text[files.Position(d.Recv.List[0].Type.Pos()).Offset:files.Position(d.Recv.List[0].Type.End()).Offset], "*") + "." + name
			}
			b.names = []string{name}
		case *ast.GenDecl:
			if d.Doc != nil {
				from = d.Doc.Pos()
			}
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					for _, n := range s.Names {
						b.names = append(b.names, n.Name)
					}
				case *ast.TypeSpec:
					b.names = append(b.names, s.Name.Name)
				}
			}
		}
		b.text = text[files.Position(from).Offset:files.Position(to).Offset]
		list = append(list, b)
	}
	return list, nil
}

// tidy formats a file, and mends its imports where goimports is at hand.
func tidy(ctx context.Context, path, text string) ([]byte, error) {
	formatted, err := format.Source([]byte(text))
	if err != nil {
		return nil, err
	}
	tool, err := exec.LookPath("goimports")
	if err != nil {
		return formatted, nil
	}
	cmd := exec.CommandContext(ctx, tool, "-srcdir", path)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(formatted), &out, &complaint
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("goimports: %w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return out.Bytes(), nil
}

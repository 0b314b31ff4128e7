package rewrite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

// notebook stands for GoNB: it merges the declarations of cells, renders main.go as GoNB does, has it rewritten and built, and runs it.
type notebook struct {
	t       *testing.T
	c       Config
	cell    int
	imports map[string]bool
	decls   map[string]string // by kind and name
	keys    []string
	binary  string
	stderr  string // of the last cell
	proxy   bool   // whether there is a proxy that says what each cell declares
}

func project(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var sharedCache string // exports that one test asked for serve the others

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "espalier-exports-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	sharedCache = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newNotebook(t *testing.T) *notebook {
	t.Helper()
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := &notebook{t: t, imports: map[string]bool{}, decls: map[string]string{}, binary: filepath.Join(dir, "program"), proxy: true}
	n.c = Config{Go: goCommand, Dir: dir, State: filepath.Join(dir, "state"), Cell: filepath.Join(dir, "cell.json"), Cache: sharedCache}
	n.write("go.mod", "module gonb_test\n\ngo "+strings.TrimPrefix(runtime.Version(), "go")+"\n")
	n.write("go.work", "go "+strings.TrimPrefix(runtime.Version(), "go")+"\n\nuse (\n\t.\n\t"+project(t)+"\n)\n")
	return n
}

func (n *notebook) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.c.Dir, name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

var declaration = regexp.MustCompile(`^(import|var|const|type|func)\s+(?:\(\w+ \*?(\w+)(?:\[\w+\])?\)\s*)?([\w", ./(]+)`)

// source is a cell: declarations, each of which begins in the first column and is not grouped, and after a line "%%" statements.
type source struct {
	text       string
	statements bool   // main's statements are the cell's own
	show       string // see keep.Cell
}

// build merges a cell and builds the program.
func (n *notebook) build(s source) error {
	n.t.Helper()
	decls, body, _ := strings.Cut(s.text, "%%\n")
	n.cell++
	cell := keep.Cell{Number: n.cell, Statements: s.statements, Show: s.show}
	merged := map[string]string{}
	for k, v := range n.decls {
		merged[k] = v
	}
	keys := slices.Clone(n.keys)
	for _, d := range regexp.MustCompile(`(?m)^(?:import|var|const|type|func)\b`).FindAllStringIndex(decls, -1) {
		text := decls[d[0]:]
		if next := regexp.MustCompile(`(?m)\n(?:import|var|const|type|func)\b`).FindStringIndex(text); next != nil {
			text = text[:next[0]]
		}
		text = strings.TrimSpace(text)
		m := declaration.FindStringSubmatch(text)
		if m == nil {
			n.t.Fatalf("no declaration: %q", text)
		}
		names := strings.Split(strings.TrimSpace(strings.Split(m[3], "=")[0]), ",")
		name := strings.Fields(names[0])[0]
		if m[1] == "import" {
			n.imports[strings.TrimPrefix(text, "import ")] = true
			continue
		}
		if m[2] != "" {
			name = m[2] + "~" + name
		}
		for _, more := range names[1:] {
			cell.Declares = append(cell.Declares, strings.Fields(more)[0])
		}
		cell.Declares = append(cell.Declares, name)
		key := m[1] + " " + name
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
		merged[key] = text
	}
	var b strings.Builder
	b.WriteString("package main\n\nimport (\n")
	used := body
	for _, text := range merged {
		used += text
	}
	for _, path := range sorted(n.imports) {
		name := strings.Trim(path[strings.LastIndex(path, "/")+1:], `"`)
		if strings.HasPrefix(path, "_ ") || strings.HasPrefix(path, ". ") || strings.Contains(used, name+".") { // goimports drops the others
			b.WriteString("\t" + path + "\n")
		}
	}
	b.WriteString(")\n\nvar (\n")
	for _, k := range keys {
		if text, ok := strings.CutPrefix(merged[k], "var "); ok {
			b.WriteString("\t" + text + "\n")
		}
	}
	b.WriteString(")\n\n")
	for _, k := range keys {
		if !strings.HasPrefix(k, "var ") {
			b.WriteString(merged[k] + "\n\n")
		}
	}
	b.WriteString("func main() {\n" + body + "\n}\n")
	n.write(mainFile, b.String())
	if n.proxy {
		if err := keep.WriteCell(n.c.Cell, cell); err != nil {
			n.t.Fatal(err)
		}
	} else {
		n.c.Cell = ""
	}
	build, err := n.c.Rewrite()
	if err != nil {
		return err
	}
	cmd := exec.Command(n.c.Go, "build", "-ldflags=-s -w", "-buildvcs=false", "-overlay="+build.Overlay, "-o", n.binary)
	cmd.Dir = n.c.Dir
	if output, err := cmd.CombinedOutput(); err != nil {
		rewritten, _ := os.ReadFile(n.c.scratch(mainFile))
		added, _ := os.ReadFile(n.c.scratch(generated))
		n.t.Fatalf("what was rewritten does not compile: %v\n%s\n%s\n%s", err, output, rewritten, added)
	}
	n.decls, n.keys = merged, keys
	return build.Commit()
}

// start returns the program of the cell that was built last.
func (n *notebook) start() *exec.Cmd {
	cmd := exec.Command(n.binary)
	cmd.Dir = n.c.Dir
	return cmd
}

// run builds and runs a cell and returns what it printed.
func (n *notebook) run(s source) (string, error) {
	n.t.Helper()
	if err := n.build(s); err != nil {
		return "", err
	}
	cmd := n.start()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	n.stderr = errs.String()
	return strings.TrimSuffix(out.String(), "\n"), err
}

// want runs a cell that has to print something and to be told something, both whole.
func (n *notebook) want(text, printed string, told ...string) {
	n.t.Helper()
	n.wants(source{text: text}, printed, told...)
}

// statements is want for a cell of plain statements.
func (n *notebook) statements(text, printed string, told ...string) {
	n.t.Helper()
	n.wants(source{text: "%%\n" + text, statements: true}, printed, told...)
}

func (n *notebook) wants(s source, printed string, told ...string) {
	n.t.Helper()
	out, err := n.run(s)
	if err != nil {
		n.t.Fatalf("cell %d: %v\n%s", n.cell, err, n.stderr)
	}
	if out != printed {
		n.t.Errorf("cell %d printed %q, want %q", n.cell, out, printed)
	}
	var notes []string
	for line := range strings.Lines(n.stderr) {
		if note, ok := strings.CutPrefix(line, "espalier: "); ok {
			notes = append(notes, strings.TrimSuffix(note, "\n"))
		}
	}
	if len(notes) != len(told) {
		n.t.Errorf("cell %d told %q, want %q", n.cell, notes, told)
		return
	}
	for i := range told {
		if !strings.Contains(notes[i], told[i]) {
			n.t.Errorf("cell %d told %q, want %q", n.cell, notes[i], told[i])
		}
	}
}

// fails runs a cell that does not compile, and returns why.
func (n *notebook) fails(s source) string {
	n.t.Helper()
	_, err := n.run(s)
	var compile *CompileError
	if !errors.As(err, &compile) {
		n.t.Fatalf("cell %d: error %v, want a *CompileError", n.cell, err)
	}
	return err.Error()
}

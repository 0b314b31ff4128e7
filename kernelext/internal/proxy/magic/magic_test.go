package magic

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
	"github.com/google/go-cmp/cmp"
)

// recorder is a kernel that notes what is asked of it.
type recorder struct {
	state   string
	printed strings.Builder
	shown   []map[string]any
	asked   []string // of GoNB
	code    []string
	built   time.Time
	failing error // of programs
}

func (r *recorder) Print(text string)        { r.printed.WriteString(text) }
func (r *recorder) Show(data map[string]any) { r.shown = append(r.shown, data) }
func (r *recorder) Go(_ context.Context, code string) error {
	r.code = append(r.code, code)
	return r.failing
}
func (r *recorder) Gonb(_ context.Context, command string) error {
	r.asked = append(r.asked, command)
	return nil
}
func (r *recorder) Forget(_ context.Context, names []string) error {
	r.asked = append(r.asked, "forget "+strings.Join(names, " "))
	return nil
}
func (r *recorder) State() string    { return r.state }
func (r *recorder) Magics() []Magic  { return All }
func (r *recorder) Number() int      { return 3 }
func (r *recorder) Built() time.Time { return r.built }

// newRecorder has two variables, one of which is out of date.
func newRecorder(t *testing.T) *recorder {
	t.Helper()
	n, err := keep.Open(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	m := manifest.Manifest{Vars: map[string]manifest.Var{
		"counter": {Name: "counter", Type: "int", Cell: 1, Changed: 2, Size: 8, File: "a" + manifest.ValueSuffix},
		"model":   {Name: "model", Type: "*net", Cell: 2, Changed: 2, Size: 12_345_678, Code: "train=old", File: "b" + manifest.ValueSuffix},
	}}
	if err := m.Write(n.Dir); err != nil {
		t.Fatal(err)
	}
	if err := (keep.Code{"train": {Kind: "func", Digest: "new", Cell: 4}}).Write(n.Dir); err != nil {
		t.Fatal(err)
	}
	return &recorder{state: n.Dir}
}

func run(r *recorder, line string) error {
	l := cell.Line{Kind: cell.Magic, Text: strings.TrimPrefix(line, "%")}
	m, ok := Find(All, l.Name())
	if !ok {
		return errors.New("no such command")
	}
	return m.Run(context.Background(), r, Call{Args: l.Args(), Text: strings.TrimSpace(strings.TrimPrefix(l.Text, l.Name()))})
}

func TestWho(t *testing.T) {
	r := newRecorder(t)
	if err := run(r, "%who"); err != nil {
		t.Fatal(err)
	}
	want := `name     type  size     made in cell  changed in cell  note
counter  int   8 B      1             2
model    *net  12.3 MB  2             2                out of date: func train, which it came from, changed in cell 4`
	if diff := cmp.Diff(want, r.shown[0]["text/plain"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := run(r, "%who nobody"); !errors.Is(err, keep.ErrNoVariable) {
		t.Errorf("a name that is not there: error %v", err)
	}
}

func TestResetAndRerun(t *testing.T) {
	r := newRecorder(t)
	if err := run(r, "%rerun model"); err != nil {
		t.Fatal(err)
	}
	list, err := keep.List(r.state)
	if err != nil || !list[1].Rerun || len(r.code) != 1 {
		t.Errorf("after %%rerun: %+v (error %v), programs %q", list, err, r.code)
	}
	if err := run(r, "%reset counter nobody"); err == nil {
		t.Error("a name that is not there was taken")
	}
	if err := run(r, "%reset counter"); err != nil {
		t.Fatal(err)
	}
	if list, err = keep.List(r.state); err != nil || len(list) != 1 || list[0].Name != "model" {
		t.Errorf("after %%reset counter: %+v (error %v)", list, err)
	}
	if err := (keep.Code{"train": {Kind: "func"}, "net": {Kind: "type"}, "net.Run": {Kind: "func"}, "net.Name": {Kind: "func"}}).Write(r.state); err != nil {
		t.Fatal(err)
	}
	if err := run(r, "%reset train net"); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"%reset go.mod", "%reset"} {
		if err := run(r, line); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"forget counter", "forget train net net~Name net~Run", "%reset go.mod", "%reset"}, r.asked); diff != "" {
		t.Errorf("of GoNB (-want +got):\n%s", diff)
	}
	if err := run(r, "%restore"); !errors.Is(err, keep.ErrNothingToRestore) {
		t.Errorf("%%restore: error %v, want that there is nothing", err)
	}
}

func TestSettings(t *testing.T) {
	r := newRecorder(t)
	for _, line := range []string{"%theme dark", "%backend go", "%backend auto", "%backend"} {
		if err := run(r, line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	want := []string{"%env ESPALIER_THEME dark", "%env GOMLX_BACKEND go", `%env GOMLX_BACKEND ""`}
	if diff := cmp.Diff(want, r.asked); diff != "" || len(r.code) != 3 {
		t.Errorf("of GoNB (-want +got):\n%s\n%d programs, want 3", diff, len(r.code))
	}
	r.failing = errors.New("there is no such backend")
	if err := run(r, "%backend nosuch"); err != r.failing || len(r.asked) != 3 {
		t.Errorf("%%backend nosuch: error %v; of GoNB %q", err, r.asked)
	}
	for _, line := range []string{"%theme", "%theme pink", "%backend a b", "%backend x;rm", "%rerun", "%prune", "%prune net", "%prune net 2", "%prune net 0.5 color=red", "%prune a;b 0.5", "%prune net 0.5 seed=x", "%help nosuch"} {
		if err := run(r, line); err == nil {
			t.Errorf("%s was taken", line)
		}
	}
}

// What is run for a command has to be a Go program.
func TestProgramsParse(t *testing.T) {
	programs := map[string]string{"backend": backendCode(""), "backend go": backendCode("f()")}
	for _, args := range []string{"net 0.9", "net 50% criterion=magnitude unit=filter budget=layerwise seed=7", `net 0.1 criterion="x`} {
		code, err := pruneCode(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		programs["prune "+args] = code
	}
	for name, code := range programs {
		if _, err := parser.ParseFile(token.NewFileSet(), "", "package main\n"+code, parser.AllErrors); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTime(t *testing.T) {
	r := newRecorder(t)
	if err := Time.Around(context.Background(), r, Call{Args: []string{"f()"}}, func() error { return nil }); err == nil {
		t.Errorf("%%time f() was taken, and f would not run")
	}
	failure := errors.New("x")
	err := Time.Around(context.Background(), r, Call{}, func() error { r.built = time.Now(); return failure })
	if err != failure || !strings.HasPrefix(r.printed.String(), "compiled in ") {
		t.Errorf("error %v, printed %q", err, r.printed.String())
	}
}

func TestExport(t *testing.T) {
	r := newRecorder(t)
	path := filepath.Join(t.TempDir(), "my pkg-2", "mine.go")
	export := func(source string, result error) error {
		c, err := cell.Read(source)
		if err != nil {
			t.Fatal(err)
		}
		return Export.Around(context.Background(), r, Call{Args: []string{path}, Cell: c}, func() error { return result })
	}
	for _, source := range []string{
		"import \"fmt\"\n\n// Hello greets.\nfunc Hello() { fmt.Println(\"a\") }\n\ntype T struct{ n int }\n",
		"func (t *T) N() int { return t.n }\n\nx := 1",
		"import \"fmt\"\n\n// Hello greets again.\nfunc Hello() { fmt.Println(\"b\") }",
	} {
		if err := export(source, nil); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := exportHeader + `

package mypkg2

import "fmt"

// Hello greets again.
func Hello() { fmt.Println("b") }

type T struct{ n int }

func (t *T) N() int { return t.n }
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("the file (-want +got):\n%s", diff)
	}
	// What did not run is not exported, what declares nothing neither.
	failure := errors.New("x")
	if err := export("func Hello() {}", failure); err != failure {
		t.Errorf("a cell that failed: error %v", err)
	}
	if err := export("x := 1", nil); err == nil {
		t.Error("a cell without declarations was exported")
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != want {
		t.Errorf("the file changed: %s (error %v)", after, err)
	}
	if err := os.WriteFile(path, []byte("package own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := export("func F() {}", nil); err == nil || !strings.Contains(err.Error(), "did not begin it") {
		t.Errorf("the reader's own file: error %v", err)
	}
}

func TestComplete(t *testing.T) {
	r := newRecorder(t)
	for _, c := range []struct {
		line   string
		want   []string
		length int
	}{
		{"%re", []string{"%reset", "%rerun", "%restore", "%remove"}, 3},
		{"//gonb:%rer", []string{"%rerun"}, 4},
		{"%%ba", []string{"%%bash"}, 4},
		{"%reset ", []string{"counter", "model"}, 0},
		{"%reset counter m", []string{"model"}, 1},
		{"%prune model 0.5 criterion=x u", []string{"unit="}, 1},
		{"%theme d", []string{"dark"}, 1},
		{"%theme dark l", nil, 1},
		{"%env A", nil, 0},
		{"!ls", nil, 0},
	} {
		got, length := Complete(All, r.state, c.line)
		if diff := cmp.Diff(c.want, got); diff != "" || len(got) > 0 && length != c.length {
			t.Errorf("%q replaces %d characters, want %d (-want +got):\n%s", c.line, length, c.length, diff)
		}
	}
}

// Every command says what it does, and %help lists it.
func TestEveryCommandIsDocumented(t *testing.T) {
	help := HelpText(All)
	seen := map[string]bool{}
	for _, m := range append(slices.Clone(All), gonbs...) {
		if m.Name == "" || m.Short == "" || strings.HasSuffix(m.Short, ".") || seen[m.Name] {
			t.Errorf("%+v: a name of its own and a line without a full stop are needed", m.Name)
		}
		seen[m.Name] = true
		if doc := Document(All, "%"+m.Name+" x"); !strings.Contains(doc, m.form()) {
			t.Errorf("%%%s is documented as %q", m.Name, doc)
		}
		if !strings.Contains(help, m.form()) {
			t.Errorf("%%help lacks %%%s", m.Name)
		}
	}
	for _, m := range All {
		if m.Run == nil && m.Around == nil {
			t.Errorf("%%%s does nothing", m.Name)
		}
	}
}

func TestUnknown(t *testing.T) {
	for name, want := range map[string]string{"%whoo": "did you mean %who?", "%zzzzzz": "%help lists those there are", "%%bsh": "did you mean %%bash?"} {
		if got := Unknown(All, name); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func Example() {
	fmt.Println(Document(All, "%theme"))
	// Output:
	// %theme light|dark
	//
	// Draws the figures of the cells that follow on a light or a dark ground.
}

package cell

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, source, code string
		declares           []string
		statements, shows  bool
		lines              []int // of the source, for each line of the code
	}{
		{"declarations", "var x = 1\nfunc f() {}", "var x = 1\nfunc f() {}", []string{"x", "f"}, false, false, []int{1, 2}},
		{"a statement", "x := 1", "func main() { x := 1\n}", []string{}, true, false, []int{1, 0}},
		{"an expression", "1 + 1", "func main() { 1 + 1\n}", []string{}, true, true, []int{1, 0}},
		{"a silenced expression", "f();", "func main() { f();\n}", []string{}, true, false, []int{1, 0}},
		{"import before", "import \"fmt\"\n\nfmt.Println(1) // one", "import \"fmt\"\n\nfunc main() { fmt.Println(1) // one\n}", []string{}, true, true, []int{1, 2, 3, 0}},
		{"declarations between", "a := 1\ntype T struct {\n\tx int\n}\nb := 2\nfunc (t *T) M() {}",
			"func main() { a := 1\n               \n      \n \nb := 2\n}\ntype T struct {\n\tx int\n}\nfunc (t *T) M() {}", []string{"T", "T~M"}, true, false, []int{1, 2, 3, 4, 5, 0, 2, 3, 4, 6}},
		{"a variable made from a statement's", "a := 1\nvar b = a", "func main() { a := 1\nb := a\n}", []string{}, true, false, []int{1, 2, 0}},
		{"a variable of its own", "a()\nvar b = 2\nc()", "func main() { a()\n         \nc()\n}\nvar b = 2", []string{"b"}, true, true, []int{1, 2, 3, 0, 2}},
		{"a function that is called at once", "func() { a() }()", "func main() { func() { a() }()\n}", []string{}, true, true, []int{1, 0}},
		{"commands", "%env A b\n!ls\nf()\n%ls\ng()", "%env A b\n!ls\nfunc main() { f()\n%ls\ng()\n}", []string{}, true, true, []int{1, 2, 3, 4, 5, 0}},
		{"explicit main", "var x = 1\n%%\nf(x)", "var x = 1\n%%\nf(x)", []string{"x"}, false, false, []int{1, 2, 3}},
		{"explicit main that ends in an expression", "%%\nx", "%%\nx", []string{}, false, true, []int{1, 2}},
		{"behind a comment sign", "//gonb:%%\nx := 1", "//gonb:%%\nx := 1", []string{}, false, false, []int{1, 2}},
		{"exec", "func f() {}\n%exec f", "func f() {}\n%exec f", []string{"f"}, false, false, []int{1, 2}},
		{"main of its own", "func main() { f() }", "func main() { f() }", []string{}, false, false, []int{1}},
		{"generic method", "func (l *List[T]) Len() int { return 0 }", "func (l *List[T]) Len() int { return 0 }", []string{"List~Len"}, false, false, []int{1}},
		{"statements over lines", "for i := range 3 {\n\tf(i)\n}\nx", "func main() { for i := range 3 {\n\tf(i)\n}\nx\n}", []string{}, true, true, []int{1, 2, 3, 4, 0}},
		{"what looks like a command in a raw string", "s := `a\n!ls\n%who`[1:]\ns", "func main() { s := (`a` + \"\\n\" +\n`!ls` + \"\\n\" +\n`%who`)[1:]\ns\n}", []string{}, true, true, []int{1, 2, 3, 4, 0}},
		{"what looks like a command in a comment", "/*\n!ls\n%%\n//gonb:%who\n*/\nvar x = 1", "/*\n !ls\n %%\n //gonb:%who\n*/\nvar x = 1", []string{"x"}, false, false, []int{1, 2, 3, 4, 5, 6}},
		{"a quote in a command, a string and a rune", "!echo `\nvar q, r = \"`\", '`'\n!ls", "!echo `\nvar q, r = \"`\", '`'\n!ls", []string{"q", "r"}, false, false, []int{1, 2, 3}},
		{"package in a raw string", "var s = `\npackage main\n`", "var s = (`` + \"\\n\" +\n`package main\n`)", []string{"s"}, false, false, []int{1, 2, 3}},
		{"names that begin with package", "packages := 1\npackages++\npackages", "func main() { packages := 1\n packages++\n packages\n}", []string{}, true, true, []int{1, 2, 3, 0}},
		{"a package clause", "package main // as in a file\nvar x = 1", "package main // as in a file\nvar x = 1", []string{"x"}, false, false, []int{1, 2}},
		{"lines that end as on Windows", "!ls\r\nx := 1\r\n", "!ls\nfunc main() { x := 1\n}\n", []string{}, true, false, []int{1, 2, 0, 3}},
		{"arguments of statements", "%args -x=3 y\nf()", "%args -x=3 y\nfunc main() { flag.Parse(); f()\n}", []string{}, true, true, []int{1, 2, 0}},
		{"arguments of an explicit main", "var x = 1\n%args -x=3 y\n%%\nf()", "var x = 1\n%args -x=3 y\n%% -x=3 y\nf()", []string{"x"}, false, false, []int{1, 2, 3, 4}},
		{"other arguments of an explicit main", "%args 1\n%main 2\nf()", "%args 1\n%main 2\nf()", []string{}, false, false, []int{1, 2, 3}},
		{"what may be declared twice", "var _ = 1\nvar _ = 2\nfunc init() {}\nfunc init() {}", "var _ = 1\nvar _ = 2\nfunc init() {}\nfunc init() {}", []string{"_", "_", "init", "init"}, false, false, []int{1, 2, 3, 4}},
		{"empty", "", "", []string{}, false, false, []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Read(c.source)
			if err != nil {
				t.Fatal(err)
			}
			code := got.Code(func(int) bool { return false })
			if diff := cmp.Diff(c.code, code); diff != "" {
				t.Errorf("code (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.declares, got.Declares); diff != "" {
				t.Errorf("declarations (-want +got):\n%s", diff)
			}
			if got.Statements != c.statements || got.Shows != c.shows {
				t.Errorf("statements %v, shows %v; want %v, %v", got.Statements, got.Shows, c.statements, c.shows)
			}
			var lines []int
			for i := range strings.Count(code, "\n") + 1 {
				lines = append(lines, got.Line(i+1))
			}
			if diff := cmp.Diff(c.lines, lines); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, c := range []struct {
		source       string
		line, column int
	}{
		{"x := ", 1, 5},
		{"a := 1\nb := )", 2, 6},
		{"var x = 1\n%%\nf(", 3, 3},
		{"func f() {\n\tx := }\n}", 2, 7},
		{"x := 1\nfunc main() {}", 1, 1},
		{"const c = 1\nconst c = 2", 2, 7},
		{"x := 1\nfunc f() {}\n_ = x\nfunc f() {}", 4, 6},
		{"func (T) M() {}\nfunc (*T) M() {}\n%%\nf()", 2, 11},
	} {
		_, err := Read(c.source)
		var e *SyntaxError
		if !errors.As(err, &e) {
			t.Errorf("%q: error %v, want a SyntaxError", c.source, err)
			continue
		}
		if e.Line != c.line || e.Column != c.column {
			t.Errorf("%q: %q at %d:%d, want %d:%d", c.source, e.Message, e.Line, e.Column, c.line, c.column)
		}
	}
}

func TestCommands(t *testing.T) {
	c, err := Read("%env A \"b c\"\n!ls \\\n  -l\n//gonb:%ls\nx := 1")
	if err != nil {
		t.Fatal(err)
	}
	want := []Line{{Magic, 0, 0, `env A "b c"`}, {Shell, 1, 2, "ls    -l"}, {Magic, 3, 3, "ls"}}
	if diff := cmp.Diff(want, c.Commands); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"A", "b c"}, c.Commands[0].Args()); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}

func TestOtherCells(t *testing.T) {
	for source, gonbs := range map[string]bool{"%%bash\necho \"x": true, "%%writefile a.go\npackage a": true, "%%nosuch\nx": false} {
		c, err := Read(source)
		if err != nil || c.Other == nil || c.IsOtherOfGonb() != gonbs {
			t.Errorf("%q: other %v, GoNB's %v (error %v), want a cell that is not Go, GoNB's %v", source, c.Other, c.IsOtherOfGonb(), err, gonbs)
		}
		if code := c.Code(func(int) bool { return false }); code != source {
			t.Errorf("%q: it became %q", source, code)
		}
	}
}

func TestIsComplete(t *testing.T) {
	for source, want := range map[string]Completeness{
		"x := 1":               Complete,
		"%%\nx := 1":           Complete,
		"":                     Complete,
		"!ls":                  Complete,
		"%who":                 Complete,
		"func f() {":           Incomplete,
		"x := `a":              Incomplete,
		"/* a":                 Incomplete,
		"a +":                  Incomplete,
		"if x {\n\tf(":         Incomplete,
		"!ls \\":               Incomplete,
		"import (":             Incomplete,
		"x := )":               Invalid,
		"f(]":                  Invalid,
		"x := \"a":             Invalid,
		"func (t T) M() { } }": Invalid,
	} {
		if got, _ := IsComplete(source); got != want {
			t.Errorf("%q is %s, want %s", source, got, want)
		}
	}
	if _, indent := IsComplete("if x {\n\tfor {"); indent != "\t\t" {
		t.Errorf("indent %q, want two tabs", indent)
	}
}

func TestAt(t *testing.T) {
	for _, c := range []struct {
		source      string
		cursor      int
		text        string
		row, column int
		line        string
	}{
		{"fmt.Pri", 7, "func main() { fmt.Pri\n}", 0, 21, "fmt.Pri"},
		{"import \"fmt\"\nfmt.Pri", 3, "import \"fmt\"\nfunc main() { fmt.Pri\n}", 0, 3, "imp"},
		{"func f() { fmt.Pri", 18, "func f() { fmt.Pri", 0, 18, "func f() { fmt.Pri"},
		{"%env A b\n%%\nfmt.Pri", 19, "\nfunc main() {\nfmt.Pri\n}", 2, 7, "fmt.Pri"},
		{"s := \"😀\"; s.", 12, "func main() { s := \"😀\"; s.\n}", 0, 27, "s := \"😀\"; s."},
		{"a()\n\nb", 4, "func main() { a()\n\nb\n}", 1, 0, ""},
		{"%who", 4, "", 0, 0, "%who"},
		{"%%bash\nls", 9, "", 1, 0, "ls"},
	} {
		got := At(c.source, c.cursor)
		if got.Go != c.text || got.Row != c.row || got.Column != c.column || got.Line != c.line {
			t.Errorf("At(%q, %d) = %q, %d:%d, line %q; want %q, %d:%d, %q", c.source, c.cursor, got.Go, got.Row, got.Column, got.Line, c.text, c.row, c.column, c.line)
		}
	}
	typing := At("s := \"😀\"; s.", 12)
	if n := typing.Back(typing.Column - 7); n != 6 { // the face has two units
		t.Errorf("seven units back are %d characters, want 6", n)
	}
}

func TestImports(t *testing.T) {
	c, err := Read("import (\n\t\"fmt\"\n\tg \"github.com/x/y\"\n)\nimport _ \"embed\"\nx := 1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`"fmt"`, `g "github.com/x/y"`, `_ "embed"`}, c.Imports()); diff != "" {
		t.Errorf("imports (-want +got):\n%s", diff)
	}
}

func TestDeclarations(t *testing.T) {
	if _, err := Read("x := 1\n%%\nf()"); err == nil {
		t.Fatal("statements and an explicit main: want an error")
	}
	c, err := Read("import \"fmt\"\n\n// T is a type.\ntype T int\n\nfunc f() {} // of f\n%%\nf()")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"import \"fmt\"", "// T is a type.\ntype T int", "func f() {} // of f"}, c.Declarations()); diff != "" {
		t.Errorf("declarations (-want +got):\n%s", diff)
	}
}

func TestWithout(t *testing.T) {
	got := Without("package main\n\nvar (\n\ta = 1\n\tb = 2\n)\n\nfunc f() {\n}\n\nfunc (t T) M() {}", []string{"a", "f", "T~M"})
	want := "package main\n\nvar (\n\t     \n\tb = 2\n)\n\n          \n \n\n                 "
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"x := 1", "var x = 1\n%%\nf(", "%%bash\nls", "a\ntype T struct {\n}\nb", "!", "%", "\\", "%\\\n\\", "//gonb:%%", "func() {}()\nfunc f() {}", "a; var b = a", "s := `a\n!b\n%c`[1:]", "/*\n!a\n*/ x", "packages++\npackages", "x\r\n!y\r\n", "%args a\n%%\nf()"} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, source string, cursor int) {
		c, _ := Read(source)
		code := c.Code(func(int) bool { return false })
		for i := range strings.Count(code, "\n") + 1 {
			if line := c.Line(i + 1); line < 0 || line > len(c.Lines) {
				t.Errorf("line %d of the code is line %d of %d", i+1, line, len(c.Lines))
			}
		}
		for _, l := range c.Commands {
			if l.First < 0 || l.Last < l.First || l.Last >= len(c.Lines) {
				t.Errorf("a command in the lines %d to %d of %d", l.First, l.Last, len(c.Lines))
			}
		}
		c.Declarations()
		IsComplete(source)
		typing := At(source, cursor)
		if n := typing.Back(0); n < 0 || n > typing.Column {
			t.Errorf("%d characters in %d units", n, typing.Column)
		}
	})
}

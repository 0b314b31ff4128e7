package rewrite

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

func TestCounter(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar counter = 0", "")
	n.want("%%\ncounter++\nfmt.Println(counter)", "1")
	n.want("%%\ncounter++\nfmt.Println(counter)", "2")
	n.want("var counter = 0\n%%\nfmt.Println(counter)", "0") // its declaration again, unchanged
	n.want("%%\ncounter++\nfmt.Println(counter)", "1")
}

func TestEvaluatedOnce(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nfunc slow() []int { fmt.Println(\"evaluated\"); return make([]int, 1<<20) }\nvar big = slow()", "evaluated")
	n.want("%%\nbig[7] = 3", "")
	n.want("%%\nfmt.Println(len(big), big[7])", "1048576 3")
	n.want("%%\nfmt.Println(1)", "1")
}

// What a cell's program has no use for is neither restored nor linked.
func TestLazy(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nimport \"time\"\nvar a = []int{1}\nvar b = []int{2}\nfunc use() time.Time { return time.Now().Add(time.Duration(b[0])) }", "")
	n.want("%%\nfmt.Println(a)", "[1]")
	added, err := os.ReadFile(n.c.scratch(generated))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(added); !strings.Contains(text, `Of("a", &a)`) || strings.Contains(text, `Of("b", &b)`) {
		t.Errorf("the program restores other variables than a:\n%s", text)
	}
	rewritten, err := os.ReadFile(n.c.scratch(mainFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(rewritten), "func use") {
		t.Errorf("the program still has the function that it does not call:\n%s", rewritten)
	}
	original, err := os.ReadFile(filepath.Join(n.c.Dir, mainFile))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Count(string(original), "\n"), strings.Count(string(rewritten), "\n"); a != b {
		t.Errorf("%d lines became %d", a, b)
	}
}

// A value whose file is unreachable is not needed by a cell that does not use it.
func TestUnusedIsNotRead(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar a = []int{1}\nvar b = []int{2}", "")
	list, err := keep.List(n.c.State)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	files, err := filepath.Glob(filepath.Join(n.c.State, "*.value"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if data, err := os.ReadFile(f); err != nil {
			t.Fatal(err)
		} else if err := os.WriteFile(f, append(data, 'x'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.want("%%\nfmt.Println(1)", "1")
	_, err = n.run(source{text: "%%\nfmt.Println(a)"})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(n.stderr, "the kept value of a can't be read: it does not match its digest; `%reset a` forgets it") {
		t.Fatalf("a damaged value: %v, %s", err, n.stderr)
	}
	if err := keep.Reset(n.c.State, "a"); err != nil {
		t.Fatal(err)
	}
	n.want("%%\nfmt.Println(a)", "[1]")
}

func TestAliasesCrossCells(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\ntype P struct{ A int; b string }\nvar m = map[string]*P{\"x\": {1, \"q\"}}\nvar p = m[\"x\"]\nvar n = 5\nvar q = &n\nvar w = []int{1, 2, 3, 4}\nvar sub = w[1:3]", "")
	n.want("%%\np.A = 42\n*q = 6\nsub[0] = 22", "")
	n.want("%%\nfmt.Println(m[\"x\"].A, m[\"x\"].b, p == m[\"x\"], n, q == &n, w)", "42 q true 6 true [1 22 3 4]")
	// The variable that q points to is set back, and q still points to it.
	n.want("var n = 1\n%%\nfmt.Println(*q, q == &n)", "1 true", "q is kept from cell 1, but var n, which it came from, changed in cell 4")
	n.want("%%\n*q = 9\nfmt.Println(n)", "9")
}

func TestFreshSeesRestored(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar x = 3", "")
	n.want("%%\nx = 10", "")
	n.want("var y = x\nvar z = x * 2\nvar f = func() int { return x }\n%%\nfmt.Println(y, z, f())", "10 20 10")
}

func TestWhatCannotBeKept(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nimport \"os\"\nvar ch = make(chan int, 1)\nvar f = func() int { return 1 }\nvar out, err = os.Open(\"go.mod\")", "")
	n.want("%%\nch <- 1\nfmt.Println(len(ch), f())", "1 1", "ch is evaluated again in each cell that uses it: a channel")
	n.want("%%\nfmt.Println(len(ch), out != nil, err)", "0 true <nil>", "out, err are evaluated again in each cell that uses them: a value of os.File can't be kept, since it hides its field file")
	n.want("%%\nfmt.Println(len(ch))", "0") // it is said once
}

// Of a literal that nobody changes nobody can tell whether it was kept or evaluated again.
func TestLiteralsOfFunctions(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\ntype rule struct { name string; apply func(int) int }\nvar factor = 3\nvar triple = rule{\"triple\", func(x int) int { return factor * x }}\nvar made = func() func() { return func() {} }()", "")
	n.want("%%\nfmt.Println(triple.name, triple.apply(2))", "triple 6")
	n.want("%%\ntriple.name = \"other\"\nfmt.Println(triple.name)", "other")
	n.want("%%\nfmt.Println(triple.name)", "triple", "triple is evaluated again in each cell that uses it: a function can't be kept")
	n.want("%%\nmade()", "", "made is evaluated again")
}

// What came from something that is evaluated again would be tied to one that is gone.
// A loop in the initialiser of a variable that a later cell has no use for, or takes from the cell before.
func TestLoopsInInitialisers(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar sum = func() (s int) {\n\tfor i := range 4 {\n\t\ts += i\n\t}\n\treturn s\n}()\nvar count = 1", "")
	n.want("%%\ncount++\nfmt.Println(count)", "2")
	n.want("%%\nsum++\nfmt.Println(sum, count)", "7 2")
	n.want("%%\nfmt.Println(sum)", "7")
}

func TestTiedToWhatCannotBeKept(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\ntype server struct { jobs chan int; config *int }\nvar config = new(int)\nvar s = &server{make(chan int), config}\nvar c = s.config\nvar into = &s.jobs", "")
	n.want("%%\n*config = 7\nfmt.Println(*s.config, s.config == config, into == &s.jobs)", "7 true true", "into is evaluated again", "s is evaluated again")
	n.want("%%\nfmt.Println(*s.config)", "7")
}

func TestStaleness(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nconst k = 2\nfunc load() int { return k }\nvar w = load()\nvar v = w", "")
	n.want("%%\nfmt.Println(w, v)", "2 2")
	n.want("func load() int {\n\t// another comment\n\treturn k\n}\n%%\nfmt.Println(w)", "2") // no other code
	n.want("const k = 3", "")
	n.want("%%\nfmt.Println(w, v)", "2 2", "v is kept from cell 1, but const k, which it came from, changed in cell 4", "w is kept from cell 1, but const k, which it came from, changed in cell 4")
	n.want("%%\nfmt.Println(w)", "2") // the reader was told
	list, err := keep.List(n.c.State)
	if err != nil {
		t.Fatal(err)
	}
	want := []keep.Variable{
		{Name: "v", Type: "int", Size: 8, Cell: 1, Changed: 1, Stale: "const k, which it came from, changed in cell 4"},
		{Name: "w", Type: "int", Size: 8, Cell: 1, Changed: 1, Stale: "const k, which it came from, changed in cell 4"},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("%%who (-want +got):\n%s", diff)
	}
	if err := keep.MarkRerun(n.c.State, "w"); err != nil {
		t.Fatal(err)
	}
	n.want("%%\nfmt.Println(w, v)", "3 2")
	if list, err = keep.List(n.c.State); err != nil || list[1].Stale != "" || list[1].Rerun {
		t.Errorf("after %%rerun: %+v, %v", list, err)
	}
}

func TestTypeChanged(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\ntype P struct{ A int }\nvar p = &P{A: 1}\nvar held any = P{A: 2}\nvar counter = 1", "")
	n.want("%%\np.A = 5\ncounter = 2", "")
	n.want("type P struct{ A int; B string }\n%%\nfmt.Println(p.A, p.B, held.(P).A, counter)", "1  2 2",
		"held starts afresh: type main.P, of which it holds values, has changed since cell 1", "p starts afresh: its type has changed since cell 1")
	n.want("%%\nfmt.Println(p.A)", "1")
}

// An initialiser that no longer compiles is no matter to a cell that does not need it.
func TestBrokenInitialiser(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\ntype P struct{ A int }\nvar p = P{1}\nvar x = 1", "")
	n.want("type P struct{ A int; B string }\n%%\nfmt.Println(x)", "1")
	if why := n.fails(source{text: "%%\nfmt.Println(p)"}); !strings.Contains(why, "too few values") {
		t.Errorf("error %q, want the compiler's", why)
	}
	n.want("var p = P{2, \"b\"}\n%%\nfmt.Println(p)", "{2 b}")
}

func TestStatements(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar declared = 1", "")
	n.statements("x := 3\ny, z := \"s\", []int{1, 2}", "")
	n.statements("fmt.Println(x, y, z)\nz[1] = 7", "3 s [1 2]")
	n.statements("x := x + 1\nfmt.Println(x, z)", "4 [1 7]")
	n.statements("x := \"another type\"", "")
	n.statements("fmt.Println(x)", "another type")
	n.statements("declared := 5\nfmt.Println(declared)", "5")
	n.statements("fmt.Println(declared)", "5")
	n.statements("for i := range 2 { inner := i; _ = inner }", "")
	if why := n.fails(source{text: "%%\nfmt.Println(inner)", statements: true}); !strings.Contains(why, "undefined: inner") {
		t.Errorf("error %q", why)
	}
	n.statements("ch := make(chan int)", "")
	if why := n.fails(source{text: "%%\nfmt.Println(ch)", statements: true}); !strings.Contains(why, "ch, declared by := in cell 11, is not kept: a channel can't be kept") {
		t.Errorf("error %q, want one that says why ch is not there", why)
	}
	n.statements("x := len(x)\nfmt.Println(x)", "12")
	n.statements("fmt.Println(x + 1)", "13")
	n.statements("alias := z[:1]", "")
	n.statements("z := fmt.Sprint(len(z), z)\nfmt.Println(z, alias)", "2 [1 7] [1]")
	n.statements("fmt.Println(z, alias)", "2 [1 7] [1]")
	n.statements("type local struct{}\nv := local{}\n_ = v", "", "v ends with this cell: its type")
}

func TestLocalSharesMemory(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nimport \"strings\"\nvar w = []int{1, 2}\nvar r = strings.NewReplacer()", "")
	n.statements("sub := w[:1]", "")
	n.statements("w[0] = 9", "")
	n.statements("fmt.Println(sub)", "[9]")
}

func TestShow(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar x = 3\nfunc two() (int, int) { return 1, 2 }\nfunc none() {}", "")
	for _, c := range []struct{ text, want string }{
		{"1+1", "2"}, {"x", "3"}, {"fmt.Sprint(x)", "3"}, {"two()", "1 2"}, {"(two())", "1 2"}, {"none()", ""}, {"[]int{1}", "[1]"}, {"fmt.Println(x)", "3"}, {"x++", ""},
	} {
		n.wants(source{text: "%%\n" + c.text, statements: true, show: "fmt.Println"}, c.want)
		if c.text == "x++" {
			n.want("%%\nx--", "")
		}
	}
}

// Tables and pictures show as such, whether the cell imports what shows them or not.
func TestShowBringsForms(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want(`import "image"
import "github.com/espalier-ml/espalier/pkg/report"
func table() (*report.Table, error) { return &report.Table{}, nil }
var img image.Image = image.NewGray(image.Rect(0, 0, 1, 1))
var x = 3`, "")
	for text, want := range map[string]bool{"table()": true, "report.Table{}": true, "img": true, "image.NewGray(image.Rect(0, 0, 1, 1))": true, "x": false, "img.Bounds()": false} {
		if err := n.build(source{text: "%%\n" + text, statements: true, show: showFunction}); err != nil {
			t.Fatal(err)
		}
		added, err := os.ReadFile(n.c.scratch(generated))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(added), `_ "`+kernelextPath+`"`); got != want {
			t.Errorf("%s: the program has the forms: %v, want %v", text, got, want)
		}
	}
}

// showFunction is what the kernel names.
const showFunction = module + "kernelext/result.Show"

func TestGenericsAndMethods(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want(`import "fmt"
type stack[T any] struct{ items []T }
func (s *stack[T]) push(v T) { s.items = append(s.items, v) }
type shape interface{ area() float64 }
type square struct{ side float64 }
var scale = 1.0
func (q square) area() float64 { return scale * q.side * q.side }
var s = &stack[shape]{}
var numbers stack[int]`, "")
	n.want("%%\ns.push(square{3})\nnumbers.push(4)\nscale = 10", "")
	n.want("%%\nfmt.Println(s.items[0].area(), numbers.items)", "90 [4]")
}

// A variable of a statement does not get into the way of the package whose name it has.
func TestNamesOfPackages(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nfunc f() { fmt.Println(1) }", "")
	n.statements("fmt := 3\n_ = fmt", "", "fmt ends with this cell: the notebook imports a package of its name")
	n.statements("f()", "1")
	n.statements("strings := 4", "")
	n.statements("fmt.Println(strings)", "4")
	n.want("import \"strings\"\nfunc upper(s string) string { return strings.ToUpper(s) }", "")
	n.statements("fmt.Println(upper(\"a\"))", "A")
	n.statements("fmt.Println(strings.ToLower(\"A\"))", "a")
}

// A variable's type names types that nothing else in the cell does.
func TestTypesThatOnlyATypeNames(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want(`import "fmt"
type number = int
type size struct{ n int }
type list[T any] = []T
type box struct{}
func (box) Size() size { return size{7} }
var a number = 3
var b map[string]*number
var c interface{ Size() size } = box{}
var d list[number]`, "")
	n.want("%%\na++\nd = append(d, 1)", "")
	n.want("%%\nfmt.Println(a, b == nil, d)", "4 true [1]")
	n.want("%%\nfmt.Println(c)", "{}")
	n.statements("e := d\nf := number(1)", "")
	n.statements("fmt.Println(e, f)", "[1] 1")
}

func TestConstantsOfOwnTypes(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\ntype color int\nfunc (c color) String() string { return names[c] }\nvar names = []string{\"red\", \"green\"}\nconst (\n\tred color = iota\n\tgreen\n)\nconst size = len(\"abc\")\ntype grid [size]int", "")
	n.want("%%\nfmt.Println(1)", "1")
	n.want("%%\nfmt.Println(green)\nvar g grid\nfmt.Println(g)", "green\n[0 0 0]")
	n.want("var c = green\nvar held = map[string]any{\"c\": red}", "")
	n.want("%%\nfmt.Println(c, held)", "green map[c:red]")
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar counter = 1", "")
	for text, want := range map[string]string{
		"%%\nundefined()":            "./main.go:11:1: undefined: undefined",
		"%%\nvar unused = 3":         "./main.go:11:5: declared and not used: unused",
		"%%\nfmt.Println(":           "./main.go:13:1: expected operand",
		"var counter = \"a\" + 1":    "./main.go:7:12: invalid operation",
		"%%\n1+1":                    "./main.go:11:1: 1 + 1 (untyped int constant 2) is not used",
		"%%\nfmt.Println(counter.x)": "./main.go:12:21: counter.x undefined",
	} {
		if why := n.fails(source{text: text}); !strings.Contains(why, want) {
			t.Errorf("%q: error %q, want %q", text, why, want)
		}
	}
	n.want("%%\nfmt.Println(counter)", "1")
	if why := n.fails(source{text: "func counter() {}"}); !strings.HasSuffix(why, "espalier: counter, a var of cell 1, is declared once more as something else: %reset counter forgets it") {
		t.Errorf("error %q, want how to go on", why)
	}
	if why := n.fails(source{text: "const twice = 1\ntype twice int"}); strings.Contains(why, "%reset") {
		t.Errorf("error %q about what one cell declares twice", why)
	}
}

func TestDotImports(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.imports[`. "strings"`] = true
	n.imports[`. "github.com/google/go-cmp/cmp"`] = true
	n.want("import \"fmt\"\nvar x = ToUpper(\"a\")\nfunc diff() string { return Diff(1, 2) }\n%%\nfmt.Println(diff() != \"\")", "true")
	n.want("%%\nfmt.Println(x)", "A")
	n.want("%%\nfmt.Println(ToLower(x), diff() != \"\")", "a true")
	n.want("%%\nfmt.Println(1)", "1") // with no use for either
}

// A name of Go's own that a cell gives to something else.
func TestHiddenNames(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"", "")
	n.statements("string := \"a\"\nmax := 2\nfmt.Println(string, max)", "a 2", "string ends with this cell: a variable of its name would hide Go's own type string")
	n.statements("fmt.Println(max)", "2")
	if why := n.fails(source{text: "var any = 3\n%%\nfmt.Println(any)"}); !strings.Contains(why, "any hides Go's own type any from all cells: give it another name") {
		t.Errorf("error %q, want that there is a better name", why)
	}
}

func TestWithoutWorkspace(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	if err := os.Remove(filepath.Join(n.c.Dir, "go.work")); err != nil {
		t.Fatal(err)
	}
	n.c.Cache = t.TempDir()
	_, err := n.run(source{text: "import \"fmt\"\nvar x = 1\n%%\nfmt.Println(x)"})
	if err == nil || !strings.Contains(err.Error(), "with this project as workspace") {
		t.Fatalf("error %v, want one that says what is missing", err)
	}
	// The cell is run all the same, and says what it does without.
	build, err := n.c.Notice(err)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(n.c.Go, "build", "-overlay="+build.Overlay, "-o", n.binary)
	cmd.Dir = n.c.Dir
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	output, err := n.start().CombinedOutput()
	if err != nil || !strings.HasPrefix(string(output), "espalier: this cell's program starts with fresh variables, and leaves none: ") || !strings.HasSuffix(string(output), "\n1\n") {
		t.Errorf("it printed %q (%v)", output, err)
	}
}

// What a kernel left is brought back in the next: its values, without evaluating anything.
func TestRestore(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	first, err := keep.Open(home, "notebook.ipynb")
	if err != nil {
		t.Fatal(err)
	}
	n := newNotebook(t)
	n.c.State = first.Dir
	n.want("import \"fmt\"\nfunc slow() int { fmt.Println(\"evaluated\"); return 1 }\nvar x = slow()", "evaluated")
	n.want("%%\nx = 5", "")
	n.statements("y := x + 1", "")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second, err := keep.Open(home, "notebook.ipynb")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	text, err := keep.Restore(second.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "x = slow()") || strings.Contains(text, "func main") {
		t.Errorf("declarations:\n%s", text)
	}
	m := newNotebook(t)
	m.c.State = second.Dir
	// GoNB knows the declarations once it ran them as a cell that declares nothing.
	m.imports, m.decls, m.keys = n.imports, n.decls, n.keys
	m.want("%%\n", "")
	m.want("%%\nfmt.Println(x, y)", "5 6")
}

func TestUnknownImport(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	var imports *ImportError
	if _, err := n.run(source{text: "import \"example.org/nothing\"\n%%\nnothing.F()"}); !errors.As(err, &imports) {
		t.Errorf("error %v, want an *ImportError", err)
	}
}

func TestWithoutProxy(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.proxy = false
	n.want("import \"fmt\"\nvar counter = 0", "")
	n.want("%%\ncounter++\nfmt.Println(counter)", "1")
	n.want("var counter = 0\n%%\nfmt.Println(counter)", "1") // nothing tells that the cell holds it
	n.want("var counter = 00\n%%\nfmt.Println(counter)", "0")
}

// A flag is there in each program, or its arguments could not be parsed.
func TestFlags(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nimport \"flag\"\nvar n = flag.Int(\"n\", 3, \"a number\")", "")
	n.want("%%\nflag.Parse()\nfmt.Println(*n, flag.Lookup(\"n\") != nil)", "3 true")
	n.want("%%\nfmt.Println(flag.Lookup(\"n\") != nil)", "true")
}

// Standard input of a cell's program is a pipe that nobody writes to.
func TestStandardInputIsEmpty(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	if err := n.build(source{text: "import \"fmt\"\nvar line string\n%%\n_, err := fmt.Scanln(&line)\nfmt.Println(err)"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.binary)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.Output(); err != nil || string(out) != "EOF\n" {
		t.Errorf("%q (error %v), want that there is nothing to read", out, err)
	}
}

func TestRemovedVariable(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\ntype P struct{ a int }\nvar a = &P{1}\nvar b = a\nvar c = 3", "")
	delete(n.decls, "var b")
	n.want("%%\na.a = 2\nfmt.Println(a.a)", "2")
	n.want("%%\nfmt.Println(a.a)", "2")
	list, err := keep.List(n.c.State)
	if err != nil || len(list) != 2 {
		t.Errorf("variables %+v (%v), want a and c", list, err)
	}
}

func TestUserFileBesideMain(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.write("extra.go", "package main\n\nvar extra = helper() + 1\n\nfunc twice(x int) int { return 2 * x }\n")
	n.want("import \"fmt\"\nfunc helper() int { return 1 }\nvar x = 4", "")
	n.want("%%\nx = 5\nfmt.Println(twice(x), extra)", "10 2")
	n.want("%%\nfmt.Println(twice(x), extra)", "10 2")
}

func TestOthersCannotRead(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar x = 1", "")
	if err := os.Chmod(n.c.State, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := n.run(source{text: "%%\nfmt.Println(x)"}); err == nil || !strings.Contains(err.Error(), "only from a directory that belongs to you") {
		t.Errorf("error %v, want a refusal to read a directory that others can write", err)
	}
}

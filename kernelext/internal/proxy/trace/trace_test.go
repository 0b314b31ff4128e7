package trace

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
	"github.com/google/go-cmp/cmp"
)

// known are cells as GoNB counts them; to the reader each has the number ten higher.
type known map[int]*cell.Cell

func (k known) Cell(n int) (*cell.Cell, int) { return k[n], n + 10 }

func read(t *testing.T, source string) *cell.Cell {
	t.Helper()
	c, err := cell.Read(source)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var color = regexp.MustCompile(`\x1b\[\d*m`)

func text(e Error) string { return color.ReplaceAllString(strings.Join(e.Traceback, "\n"), "") }

func TestFromCompiler(t *testing.T) {
	cells := known{1: read(t, "func f() int {\n\treturn y\n}"), 2: read(t, "x := 1\nz(x)")}
	output := "# gonb_1234abcd\n./main.go:7:9: undefined: y\n./main.go:10:1: undefined: z\n/tmp/gonb_1234abcd/main.go:30:2: no place\nexit status 1\n"
	accounts := []string{
		"# gonb_1234abcd",
		"Cell[1]: Line 2\nfunc f() int {\n\treturn y\n        ^\n}\nundefined: y",
		"Cell[2]: Line 2\nfunc main() { x := 1\nz(x)\n^\n}\nundefined: z",
		"no place", "exit status 1", "",
	}
	e, ok := FromCompiler(cells, output, accounts)
	if !ok || e.Name != Compile || e.Value != "undefined: y" {
		t.Fatalf("error %+v, want a CompileError: undefined: y", e)
	}
	want := `CompileError: undefined: y
Cell [11], line 2
       1 | func f() int {
--->   2 |     return y
         |            ^
       3 | }
undefined: z
Cell [12], line 2
       1 | x := 1
--->   2 | z(x)
         | ^
no place`
	if diff := cmp.Diff(want, text(e)); diff != "" {
		t.Errorf("traceback (-want +got):\n%s", diff)
	}
}

func TestCompilerWithoutAPlace(t *testing.T) {
	e, ok := FromCompiler(known{}, "no required module provides package github.com/a/b; to add it:\n\tgo get github.com/a/b", nil)
	if !ok || e.Value != "no required module provides package github.com/a/b; to add it:" {
		t.Errorf("error %+v", e)
	}
	if _, ok := FromCompiler(known{}, "exit status 1\n", nil); ok {
		t.Error("an exit status alone is no compiler's error")
	}
}

func TestFromDeath(t *testing.T) {
	cells := known{1: read(t, "func f(a []int) int {\n\treturn a[5]\n}"), 2: read(t, "a := []int{1}\nf(a)")}
	words := `panic: runtime error: index out of range [5] with length 1 [recovered]
	panic: runtime error: index out of range [5] with length 1

goroutine 1 [running]:
runtime.gopanic({0x1, 0x2})
	/usr/local/go/src/runtime/panic.go:783 +0x132
main.espalierRun.func1()
	/tmp/gonb_1/a_espalier.go:12 +0x1d
main.f(...)
	 ` + "\x1b[7m[[ Cell [1] Line 2 ]]\x1b[0m" + ` /tmp/gonb_1/main.go:7
github.com/x/y.Call(0xc000012345, {0x1, 0x2})
	/home/ada/go/pkg/mod/github.com/x/y@v1.0.0/call.go:33 +0x45
main.main()
	 ` + "\x1b[7m[[ Cell [2] Line 2 ]]\x1b[0m" + ` /tmp/gonb_1/main.go:12 +0x1d

goroutine 18 [chan receive]:
main.other()
	/tmp/gonb_1/main.go:99 +0x1d
exit status 2
`
	e := FromDeath(cells, words)
	want := `panic: runtime error: index out of range [5] with length 1
Cell [11], line 2, in f
       1 | func f(a []int) int {
--->   2 |     return a[5]
       3 | }
  github.com/x/y.Call, call.go:33
Cell [12], line 2
       1 | a := []int{1}
--->   2 | f(a)
(2 frames of the runtime and the kernel not shown)`
	if diff := cmp.Diff(want, text(e)); diff != "" {
		t.Errorf("traceback (-want +got):\n%s", diff)
	}
	if e.Name != Panic || e.Value != "runtime error: index out of range [5] with length 1" {
		t.Errorf("%s: %s", e.Name, e.Value)
	}
}

func TestStackOverflow(t *testing.T) {
	cells := known{1: read(t, "func f() { g() }\nfunc g() { f() }"), 2: read(t, "f()")}
	at := func(function string, cell, line int) string {
		return fmt.Sprintf("main.%s()\n\t \x1b[7m[[ Cell [%d] Line %d ]]\x1b[0m /tmp/gonb_1/main.go:7 +0x1\n", function, cell, line)
	}
	words := "runtime: goroutine stack exceeds 1000000000-byte limit\nfatal error: stack overflow\n\nruntime stack:\nruntime.throw({0x1?, 0x2?})\n\t/usr/local/go/src/runtime/panic.go:1229 +0x48\n\n" +
		"goroutine 1 gp=0x1 m=0 mp=0x2 [running]:\n" + strings.Repeat(at("g", 1, 2)+at("f", 1, 1), 50) + at("main", 2, 1)
	want := `fatal error: stack overflow
runtime: goroutine stack exceeds 1000000000-byte limit
Cell [11], line 2, in g
       1 | func f() { g() }
--->   2 | func g() { f() }
Cell [11], line 1, in f
--->   1 | func f() { g() }
       2 | func g() { f() }
Cell [12], line 1
--->   1 | f()
(98 frames that repeat those above not shown)`
	if diff := cmp.Diff(want, text(FromDeath(cells, words))); diff != "" {
		t.Errorf("traceback (-want +got):\n%s", diff)
	}
}

func TestLastExpressionThatIsNoValue(t *testing.T) {
	if e, _ := FromCompiler(known{}, "./main.go:3:1: cannot use 1 << 64 as int value in argument to esp_Show (overflows)", nil); e.Value != "cannot use 1 << 64 as int value (overflows)" {
		t.Errorf("value %q", e.Value)
	}
}

func TestPanicThatBeginsWithAnEmptyLine(t *testing.T) {
	e := FromDeath(known{}, "panic: \n\tthe reason\n\ngoroutine 1 [running]:\n")
	if e.Name != Panic || e.Value != "the reason" {
		t.Errorf("%s: %s", e.Name, e.Value)
	}
}

func TestDeath(t *testing.T) {
	for said, want := range map[string]int{
		"panic: x\n": 0, "a\nfatal error: y": 2, "no panic: x": -1, "SIGSEGV: segmentation violation": 0, "goroutine 1 [running]:": -1, "": -1,
	} {
		if got := Death(said); got != want {
			t.Errorf("Death(%q) = %d, want %d", said, got, want)
		}
	}
}

func TestWithPlaces(t *testing.T) {
	cells := known{1: read(t, "a\nb")}
	got := WithPlaces(cells, "at \x1b[7m[[ Cell [1] Line 2 ]]\x1b[0m /tmp/gonb_1/main.go:9 +0x1\nand at \x1b[7m[[ Cell [7] Line 2 ]]\x1b[0m /tmp/gonb_1/main.go:9")
	if diff := cmp.Diff("at Cell [11], line 2 +0x1\nand at /tmp/gonb_1/main.go:9", got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOneLine(t *testing.T) {
	if e := FromExit("exit status 1", "bad\nworse"); e.Value != "exit status 1: bad" {
		t.Errorf("value %q", e.Value)
	}
	if e := Plain(Kernel, "a\nb"); e.Value != "a" || len(e.Traceback) != 1 {
		t.Errorf("error %+v", e)
	}
}

func FuzzDeath(f *testing.F) {
	f.Add("panic: x\n\ngoroutine 1 [running]:\nmain.f()\n\t [[ Cell [1] Line 2 ]] main.go:3\n")
	f.Add("fatal error: \xff\n\tpanic: ")
	f.Fuzz(func(t *testing.T, words string) {
		c, _ := cell.Read("a\nb")
		e := FromDeath(known{1: c}, words)
		if strings.ContainsAny(e.Value, "\n") {
			t.Errorf("the value %q has several lines", e.Value)
		}
		_, _ = FromCompiler(known{1: c}, words, strings.Split(words, "\n"))
		WithPlaces(known{1: c}, words)
	})
}

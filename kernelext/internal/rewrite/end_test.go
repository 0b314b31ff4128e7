package rewrite

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("error %v, want an exit", err)
	}
	return exit.ExitCode()
}

// A cell that fails keeps what its variables held then.
func TestFailuresKeep(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nimport \"os\"\nimport \"log\"\nvar x = 1", "")
	for _, c := range []struct {
		text string
		code int
		said string
	}{
		{"x = 2\npanic(\"boom\")", 2, "panic: boom"},
		{"x = 3\nvar s []int\nfmt.Println(s[x])", 2, "main.go:14"},
		{"x = 4\nos.Exit(3)", 3, ""},
		{"x = 5\nlog.Fatal(\"fatal\")", 1, "fatal"},
		{"defer fmt.Println(x)\nx = 6\nfunc() { defer func() { x = 7 }(); panic(fmt.Sprint(x)) }()", 2, "panic: 6"},
	} {
		_, err := n.run(source{text: "%%\n" + c.text})
		if code := exitCode(t, err); code != c.code || !strings.Contains(n.stderr, c.said) || strings.Contains(n.stderr, "espalier") {
			t.Errorf("%q: exit code %d and %q, want %d and %q", c.text, code, n.stderr, c.code, c.said)
		}
		want := map[string]string{"2": "2", "3": "3", "4": "4", "5": "5", "6": "7"}[c.text[strings.Index(c.text, "x = ")+4:][:1]]
		n.want("%%\nfmt.Println(x)", want)
	}
}

// interrupt runs a cell that prints "started", sends it SIGINT then, and returns its exit code and how long it took to end.
func (n *notebook) interrupt(text string) (code int, took time.Duration) {
	n.t.Helper()
	if err := n.build(source{text: text}); err != nil {
		n.t.Fatal(err)
	}
	cmd := n.start()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "started" {
		n.t.Fatalf("it printed %q", lines.Text())
	}
	start := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		n.t.Fatal(err)
	}
	for lines.Scan() {
	}
	err = cmd.Wait()
	n.stderr = errs.String()
	if err == nil {
		return 0, time.Since(start)
	}
	return exitCode(n.t, err), time.Since(start)
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nimport \"time\"\nimport \"sync\"\nimport \"math/big\"\nimport \"os\"\nimport \"os/signal\"\nimport \"runtime\"\nvar x = 0", "")
	for _, c := range []struct{ name, text, said, x string }{
		{"a tight loop", "for i := 0; ; i++ { if i == 0 { x = 1; fmt.Println(\"started\") } }", "interrupted; what the variables held then is kept", "1"},
		{"a nested loop", "x = 2; fmt.Println(\"started\")\nfor { for i := range 1000 { _ = i } }", "interrupted; what", "2"},
		{"a sleep", "x = 3; fmt.Println(\"started\")\ntime.Sleep(time.Minute)", "while it was waiting", "3"},
		{"busy workers", "x = 4; var wg sync.WaitGroup\nfor range 2 { wg.Go(func() { for { _ = x } }) }\nfmt.Println(\"started\")\nwg.Wait()", "while it was waiting", "4"},
		{"a deferred call", "defer func() { x = 5 }()\nfmt.Println(\"started\")\nfor { x = -1 }", "interrupted; what", "5"},
		{"a library that computes", "x = 6; fmt.Println(\"started\")\nnew(big.Int).Exp(big.NewInt(3), big.NewInt(1<<40), nil)", "as they were before this cell", "5"},
		{"a main that is gone", "x = 6; go func() { fmt.Println(\"started\"); for { time.Sleep(time.Second) } }()\nruntime.Goexit()", "", "6"},
		{"a program that deals with it", "c := make(chan os.Signal, 1)\nsignal.Notify(c, os.Interrupt)\nfmt.Println(\"started\")\n<-c\ntime.Sleep(time.Second / 2)\nx = 7", "", "7"},
	} {
		code, took := n.interrupt("%%\n" + c.text)
		if !strings.Contains(n.stderr, c.said) || (code == 0) != (c.said == "" && c.x == "7") {
			t.Errorf("%s: exit code %d and %q, want %q", c.name, code, n.stderr, c.said)
		}
		t.Logf("%s: %v", c.name, took.Round(time.Millisecond))
		n.want("%%\nfmt.Println(x)", c.x)
	}
}

// A second interrupt ends what takes its time after the first, and keeps what can be kept.
func TestSecondInterrupt(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nimport \"os\"\nimport \"os/signal\"\nvar x = 0", "")
	if err := n.build(source{text: "%%\nc := make(chan os.Signal, 1)\nsignal.Notify(c, os.Interrupt)\nx = 1\nfmt.Println(\"started\")\n<-c\nx = 2\nfmt.Println(\"noticed\")\nfor { }"}); err != nil {
		t.Fatal(err)
	}
	cmd := n.start()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"started", "noticed"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it printed %q, want %q", lines.Text(), want)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	if code := exitCode(t, cmd.Wait()); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	n.want("%%\nfmt.Println(x)", "2")
}

// An interrupt while the variables are being saved changes nothing about that.
func TestInterruptWhileSaving(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want(`import "fmt"
import "os"
import "time"
type album struct { title string; open chan int }
func (a *album) KeepDigest() (string, error) { return a.title, nil }
func (a *album) KeepSave(dir string) error {
	if slow {
		fmt.Println("started")
		time.Sleep(time.Second)
	}
	return os.WriteFile(dir+"/title", []byte(a.title), 0o600)
}
func (a *album) KeepLoad(dir string) error {
	title, err := os.ReadFile(dir + "/title")
	a.title, a.open = string(title), make(chan int)
	return err
}
var slow = false
var a = &album{"first", nil}
var same = a
var counter = 1`, "")
	n.want("%%\nfmt.Println(a.title, a.open != nil, same == a, counter)", "first true true 1")
	code, _ := n.interrupt("%%\nslow = true\na.title = \"second\"\ncounter = 2")
	if code != 0 || n.stderr != "" {
		t.Errorf("exit code %d and %q", code, n.stderr)
	}
	n.want("%%\nslow = false\nfmt.Println(a.title, same == a, counter)", "second true 2")
}

// A kill at any moment, also in the middle of saving, leaves the variables of this cell or those of the cell before.
func TestKill(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar a = make([]int, 1<<20)\nvar b = make([]int, 1<<18)", "")
	if err := n.build(source{text: "%%\nfor i := range a { a[i]++ }\nfor i := range b { b[i]++ }\nfmt.Println(a[0], a[len(a)-1], b[0], b[len(b)-1])"}); err != nil {
		t.Fatal(err)
	}
	// How long one takes to its end.
	start := time.Now()
	if err := n.start().Run(); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	last, killed := 1, 0
	for range 40 {
		cmd := n.start()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(rand.N(whole), func() { _ = cmd.Process.Kill() }) // it may have ended
		var a0, a1, b0, b1 int
		count, _ := fmt.Fscan(out, &a0, &a1, &b0, &b1)
		if cmd.Wait() != nil {
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
				t.Fatalf("the program ended with %v", cmd.ProcessState)
			}
			killed++
		}
		kill.Stop()
		if count == 4 && (a0 != a1 || b0 != b1 || a0 != b0 || a0 != last+1) {
			t.Fatalf("read %d %d %d %d, want %d four times", a0, a1, b0, b1, last+1)
		}
		m, err := manifest.Read(n.c.State)
		if err != nil {
			t.Fatal(err)
		}
		// The next cell sees one state, whole.
		if m.Vars["a"].File == "" || m.Vars["b"].File == "" {
			t.Fatalf("variables are gone: %+v", m)
		}
		text, err := n.start().Output()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Sscan(string(text), &a0, &a1, &b0, &b1)
		if a0 != a1 || b0 != b1 || a0 != b0 || a0 != last+1 && a0 != last+2 {
			t.Fatalf("after a kill: %s, want %d or %d four times", text, last+1, last+2)
		}
		last = a0
	}
	if killed == 0 {
		t.Error("no program was killed: the test shows nothing")
	}
	entries, err := os.ReadDir(n.c.State)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if manifest.Temporary(e.Name()) {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// A goroutine that goes on while the variables are saved can't leave half of its work: either all is saved, or nothing and the cell fails.
func TestGoroutineThatGoesOn(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\ntype node struct { next *node; value int }\nvar list *node\nvar count int\nvar started chan bool", "")
	for range 5 {
		_, err := n.run(source{text: "%%\ngo func() { for i := 1; ; i++ { list = &node{list, i}; if i % 1000 == 0 { list = nil } } }()\nfor range 1000000 { count++ }"})
		if err != nil && !strings.Contains(n.stderr, "as they were before this cell") {
			t.Fatalf("%v: %s", err, n.stderr)
		}
		out, err := n.run(source{text: "%%\nfor at := list; at != nil && at.next != nil; at = at.next { if at.value != at.next.value + 1 { fmt.Println(at.value) } }"})
		if err != nil || out != "" {
			t.Fatalf("a torn list: %s (%v, %s)", out, err, n.stderr)
		}
	}
}

// What can't be written is an error of the cell, and the variables are as they were.
func TestUnwritable(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	n.want("import \"fmt\"\nvar x = 1", "")
	if err := n.build(source{text: "%%\nx = 2"}); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		// Permissions don't stop root: a directory in the way of the manifest does.
		if err := os.Rename(filepath.Join(n.c.State, manifest.Name), filepath.Join(n.c.State, "aside")); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(n.c.State, manifest.Name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Chmod(n.c.State, 0o500); err != nil {
		t.Fatal(err)
	}
	cmd := n.start()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err == nil || !strings.Contains(errs.String(), "espalier: ") {
		t.Errorf("it ended with %v and said %q", err, errs.String())
	}
}

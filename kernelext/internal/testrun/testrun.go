// Package testrun is `espalier test`: all that has to pass before a change is good.
package testrun

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/browser"
	"github.com/espalier-ml/espalier/kernelext/internal/conformance"
	"github.com/espalier-ml/espalier/kernelext/internal/interop"
	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/kernelext/internal/setup"
	"github.com/espalier-ml/espalier/kernelext/internal/soak"
)

// ErrFailed says that tests failed; which ones has been printed.
var ErrFailed = errors.New("tests failed: see above")

// suite is a run of the tests.
type suite struct {
	p                       setup.Paths
	full                    bool
	out                     io.Writer
	passed, failed, skipped int
	failures                []string
}

// part is one kind of tests.
type part struct {
	name  string
	run   func(*suite, context.Context) error
	heavy bool // only in full mode, or where it is named
}

var parts = []part{
	{"static", (*suite).static, false},
	{"unit", (*suite).unit, false}, // the test of import directions among them
	{"fuzz", (*suite).fuzz, true},
	{"variables", (*suite).variables, false},
	{"notebooks", (*suite).notebooks, false},
	{"conformance", (*suite).conformance, false},
	{"interop", (*suite).interop, true},
	{"soak", (*suite).soak, true},
	{"browser", (*suite).browser, true},
}

// Run runs all tests, or the parts named by -only, and ends with a line that counts them.
func Run(ctx context.Context, p setup.Paths, args []string) error {
	s := &suite{p: p, out: os.Stdout}
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&s.full, "full", false, "also run the race detector, the heavy tests, fuzzing and the browser")
	only := flags.String("only", "", "parts, separated by commas")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return &nbrun.UsageError{Problem: fmt.Sprintf("usage: test [--full] [--only %s]", strings.Join(names(), ","))}
	}
	var chosen []string
	for _, part := range parts {
		if s.full || !part.heavy {
			chosen = append(chosen, part.name)
		}
	}
	if *only != "" {
		chosen = strings.Split(*only, ",")
		for _, name := range chosen {
			if !slices.Contains(names(), name) {
				return &nbrun.UsageError{Problem: fmt.Sprintf("there is no part %q of the tests; there are %s", name, strings.Join(names(), ", "))}
			}
		}
	}
	for _, part := range parts {
		if !slices.Contains(chosen, part.name) {
			continue
		}
		fmt.Fprintf(s.out, "== %s\n", part.name)
		start := time.Now()
		err := part.run(s, ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			s.fail(part.name, err.Error())
		}
		fmt.Fprintf(s.out, "== %s: %.0f s\n", part.name, time.Since(start).Seconds())
	}
	return s.close()
}

func names() []string {
	var n []string
	for _, p := range parts {
		n = append(n, p.name)
	}
	return n
}

// close prints what failed and the count.
func (s *suite) close() error {
	for _, f := range s.failures {
		fmt.Fprintln(s.out, "FAILED", f)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	if s.failed > 0 || s.passed+s.skipped == 0 {
		return ErrFailed
	}
	return nil
}

func (s *suite) pass(name string) {
	s.passed++
	fmt.Fprintln(s.out, "ok  ", name)
}

func (s *suite) fail(name, why string) {
	s.failed++
	s.failures = append(s.failures, name+": "+why)
	fmt.Fprintf(s.out, "FAIL %s: %s\n", name, why)
}

// check counts a command: it passes if it exits with 0 and, where it has to be silent, prints nothing.
func (s *suite) check(ctx context.Context, name string, silent bool, command string, args ...string) {
	output, err := s.command(ctx, command, args...)
	output = strings.TrimSpace(output)
	switch {
	case err != nil:
		s.fail(name, fmt.Sprintf("%v\n%s", err, output))
	case silent && output != "":
		s.fail(name, output)
	default:
		s.pass(name)
	}
}

func (s *suite) command(ctx context.Context, command string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Dir, cmd.Env = s.p.Project, s.env()
	setup.OwnGroup(cmd)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	return output.String(), err
}

// env is that of the notebooks; in full mode it also asks for the heavy tests.
func (s *suite) env() []string {
	env := s.p.Env()
	if s.full {
		env = append(env, "ESPALIER_FULL=1")
	}
	return env
}

func (s *suite) static(ctx context.Context) error {
	files, err := s.command(ctx, s.p.Go, "list", "-f", `{{range .GoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}{{range .TestGoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}`, "./...")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, files)
	}
	gofmt := filepath.Join(filepath.Dir(s.p.Go), "gofmt")
	if _, err := os.Stat(gofmt); err != nil {
		root, err := s.command(ctx, s.p.Go, "env", "GOROOT")
		if err != nil {
			return err
		}
		gofmt = filepath.Join(strings.TrimSpace(root), "bin", "gofmt")
	}
	s.check(ctx, "gofmt", true, gofmt, append([]string{"-l"}, strings.Fields(files)...)...)
	s.check(ctx, "go vet", false, s.p.Go, "vet", "./...")
	s.check(ctx, "staticcheck", false, s.p.Staticcheck, "./...")
	return nil
}

// event is one of `go test -json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func (s *suite) unit(ctx context.Context) error {
	// What is written as ONNX is run in ONNX Runtime.
	if _, err := setup.EnsurePeer(ctx, s.out, "onnxruntime"); err != nil {
		return err
	}
	args := []string{"test", "-json", "-timeout=30m"}
	if s.full {
		// checkptr, which comes with -race, ends a program at the pointers of GoMLX's matrix products in pure Go.
		args = append(args, "-race", "-gcflags=all=-d=checkptr=0", "-timeout=120m")
	}
	cmd := exec.CommandContext(ctx, s.p.Go, append(args, "./...")...)
	cmd.Dir, cmd.Env = s.p.Project, s.env()
	setup.OwnGroup(cmd)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failedBefore := s.failed
	if err := s.count(stdout); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	if err := cmd.Wait(); err != nil && s.failed == failedBefore {
		return fmt.Errorf("go test: %w\n%s", err, stderr.String()) // it failed and no test did
	}
	return nil
}

// fuzzTime is how long each target is fuzzed. What was found before is among the unit tests.
const fuzzTime = 20 * time.Second

// fuzz looks for input on which a reader of files panics, or takes what it would not write.
func (s *suite) fuzz(ctx context.Context) error {
	list, err := s.command(ctx, s.p.Go, "test", "-list=^Fuzz", "./...")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, list)
	}
	for _, t := range targets(list) {
		s.check(ctx, "fuzz "+strings.TrimPrefix(t.pkg, setup.Module+"/")+" "+t.name, false,
			s.p.Go, "test", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+fuzzTime.String(), t.pkg)
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

type target struct{ pkg, name string }

// targets reads what `go test -list` prints: the names of a package, a line each, then a line with ok and the package.
func targets(list string) (all []target) {
	var names []string
	for line := range strings.Lines(list) {
		words := strings.Fields(line)
		switch {
		case len(words) == 1 && strings.HasPrefix(words[0], "Fuzz"):
			names = append(names, words[0])
		case len(words) > 1 && words[0] == "ok":
			for _, name := range names {
				all = append(all, target{words[1], name})
			}
			names = nil
		}
	}
	return all
}

// count reads the events of go test: each test that has no subtests of its own, and each subtest, is one.
func (s *suite) count(events io.Reader) error {
	outputs := map[string]string{} // of tests, and of packages under ""
	parents := map[string]bool{}
	results := map[string][3]int{}
	lines := bufio.NewReader(events)
	for {
		line, readErr := lines.ReadBytes('\n')
		var e event
		if len(bytes.TrimSpace(line)) > 0 {
			if err := json.Unmarshal(line, &e); err != nil {
				outputs[""] += string(line) // build output comes as it is
				e = event{}
			}
		}
		name := strings.TrimPrefix(e.Package, setup.Module+"/")
		key := name + " " + e.Test
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			parents[name+" "+e.Test[:i]] = true
		}
		switch e.Action {
		case "output", "build-output":
			outputs[key] += e.Output
		case "pass", "fail", "skip":
			r := results[name]
			switch {
			case e.Test != "" && parents[key]:
				// its subtests are counted
			case e.Test != "" && e.Action == "pass":
				s.passed++
				r[0]++
			case e.Test != "" && e.Action == "skip":
				s.skipped++
				r[2]++
				fmt.Fprintf(s.out, "skip %s: %s\n", key, lastLine(outputs[key]))
			case e.Test != "":
				r[1]++
				s.fail(key, strings.TrimSpace(outputs[key]))
			case e.Action == "fail" && r[1] == 0:
				// The package did not build, or died: what tests printed that did not end may say why.
				text := ""
				for _, unfinished := range slices.Sorted(maps.Keys(outputs)) {
					if strings.HasPrefix(unfinished, name+" ") && unfinished != key {
						text += outputs[unfinished]
						delete(outputs, unfinished)
					}
				}
				s.fail(name, strings.TrimSpace(text+outputs[key]))
			case r[0]+r[1]+r[2] > 0:
				fmt.Fprintf(s.out, "%-4s %s: %d passed, %d failed, %d skipped in %.1f s\n", map[string]string{"pass": "ok", "fail": "FAIL", "skip": "skip"}[e.Action], name, r[0], r[1], r[2], e.Elapsed)
			}
			results[name] = r
			delete(outputs, key)
		}
		if readErr != nil {
			if errors.Is(readErr, io.EOF) {
				return nil
			}
			return readErr
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if line := strings.TrimSpace(lines[i]); line != "" && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return ""
}

// notebooks runs each notebook in fast mode, and looks at what is committed: full mode, executed in order, with all its output.
func (s *suite) notebooks(ctx context.Context) error {
	paths, err := filepath.Glob(filepath.Join(s.p.Project, "notebooks", "*.ipynb"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return errors.New("there are no notebooks")
	}
	dir, err := os.MkdirTemp("", "espalier-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, path := range paths {
		name := filepath.Base(path)
		failures, err := nbrun.Inspect(s.p, path)
		if err != nil {
			return err
		}
		s.notebook(name+" as committed", failures)
		r, err := nbrun.Execute(ctx, s.p, path, nbrun.Options{Fast: true, Output: filepath.Join(dir, name), Timeout: 10 * time.Minute}, s.out)
		if err != nil {
			return err
		}
		s.notebook(name+" in fast mode", r.Failures)
	}
	return nil
}

func (s *suite) notebook(name string, failures []nbrun.Failure) {
	if len(failures) == 0 {
		s.pass(name)
		return
	}
	var lines []string
	for _, f := range failures {
		lines = append(lines, f.String())
	}
	s.fail(name, strings.Join(lines, "; "))
}

func (s *suite) conformance(ctx context.Context) error {
	results, err := conformance.Run(ctx, s.p, setup.KernelName, func(r conformance.Result) {
		if r.Met() {
			s.passed++
		} else {
			s.fail("jupyter_kernel_test "+r.Test, fmt.Sprintf("expected %s, got %s: %s", r.Want, r.Got, r.Detail))
		}
	})
	if err != nil {
		return err
	}
	return conformance.Table(results).Text(s.out)
}

// browser looks at a notebook in a real browser, which a machine need not have.
func (s *suite) browser(ctx context.Context) error {
	lab, err := os.Executable()
	if err != nil {
		return err
	}
	err = browser.Run(ctx, s.p, lab, func(c browser.Check) {
		if c.Err == nil {
			s.pass("in the browser: " + c.Name)
		} else {
			s.fail("in the browser: "+c.Name, c.Err.Error())
		}
	})
	var missing *browser.MissingError
	switch {
	case errors.As(err, &missing):
		s.skipped++
		fmt.Fprintln(s.out, "skip browser:", err)
		return nil
	case err != nil && s.failed == 0:
		return err
	}
	return nil // what failed has been counted
}

// interop tries the kernel with other programs that run notebooks, which are installed for it.
func (s *suite) interop(ctx context.Context) error {
	return interop.Run(ctx, s.p, filepath.Join(s.p.Project, "notebooks", "00-start-here.ipynb"), s.out, func(r interop.Result) {
		if r.OK {
			s.pass(r.Check)
		} else {
			s.fail(r.Check, r.Detail)
		}
	})
}

// soakCells is enough for a leak of a kilobyte a cell to show.
const soakCells = 1000

// soak runs many cells in one kernel, which takes minutes.
func (s *suite) soak(ctx context.Context) error {
	samples, err := soak.Run(ctx, s.p, soakCells)
	if err != nil {
		return err
	}
	for _, m := range samples {
		var held []string
		for _, name := range slices.Sorted(maps.Keys(m.Of)) {
			held = append(held, fmt.Sprintf("%s %d MB, %d files", name, m.Of[name].RSS>>20, m.Of[name].Files))
		}
		if !m.End {
			fmt.Fprintf(s.out, "%5d cells: %s\n", m.Cells, strings.Join(held, "; "))
		}
	}
	name := fmt.Sprintf("%d cells in one kernel", soakCells)
	if problems := soak.Judge(samples); len(problems) > 0 {
		s.fail(name, strings.Join(problems, "; "))
	} else {
		s.pass(name)
	}
	return nil
}

// Package nbrun executes notebooks in a clean kernel and says the truth about what came of it.
package nbrun

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

//go:embed execute.py
var driver string

// UsageError says that a command line can't be used.
type UsageError struct{ Problem string }

func (e *UsageError) Error() string { return e.Problem }

// FailedError says which notebooks failed; what failed in them has been printed.
type FailedError struct{ Notebooks []string }

func (e *FailedError) Error() string { return "failed: " + strings.Join(e.Notebooks, ", ") }

// Options says how to execute a notebook.
type Options struct {
	Output  string        // the file to write. "": nothing is written
	Fast    bool          // fast mode
	HTML    bool          // also write HTML next to Output
	Kernel  string        // default: setup.KernelName
	Timeout time.Duration // for one cell. Default: 30 minutes
	State   string        // where cells find and leave what survives them (kernelext.Dir). Default: a new directory, which is removed afterwards
	Same    bool          // output that is not what the notebook held is a failure, but for cells with the tag measured
}

const runUsage = "; usage: run NOTEBOOK… [-o DIR] [--html] [--fast] [--state DIR] [--same]"

// Result is what came of a notebook.
type Result struct {
	Summary
	Failures []Failure
	Seconds  float64
	// Compared is how many cells had output before, in full mode, and Differences are those that have another now.
	Compared    int
	Differences []Difference
	// Redrawn are the cells, from 1, whose figures look otherwise though their text is the same: the code that draws has changed.
	Redrawn []int
}

// Run is `espalier run`. In full mode a notebook is written in place, unless -o names a directory; in fast mode it goes to runs below the
// home directory, so that results of fast mode never replace those of full mode.
//
// A notebook finds nothing of an earlier run, unless --state names a directory: then one that was interrupted or killed goes on, and checkpoints, records and
// manifests stay.
//
// In full mode it says which cells put out something else than the notebook held; with --same that is a failure, and nothing is written in place.
func Run(ctx context.Context, p setup.Paths, args []string) error {
	var o Options
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	dir := flags.String("o", "", "directory for the executed notebooks")
	flags.BoolVar(&o.Fast, "fast", false, "fast mode")
	flags.BoolVar(&o.HTML, "html", false, "also write HTML")
	flags.StringVar(&o.State, "state", "", "directory for what survives a run")
	flags.BoolVar(&o.Same, "same", false, "fail where an output is not what the notebook held")
	var notebooks []string
	for rest := args; ; {
		if err := flags.Parse(rest); err != nil {
			return &UsageError{err.Error() + runUsage}
		}
		if flags.NArg() == 0 {
			break
		}
		// Flags may stand after the notebooks.
		notebooks = append(notebooks, flags.Arg(0))
		rest = flags.Args()[1:]
	}
	if len(notebooks) == 0 {
		return &UsageError{"no notebook given" + runUsage}
	}
	if o.Fast && o.Same {
		return &UsageError{"--same compares with what the notebook holds, which is of full mode: leave --fast out" + runUsage}
	}
	if *dir == "" && o.Fast {
		*dir = filepath.Join(p.Home, "runs")
	}
	// A mistake in the last name should not show after an hour.
	for _, path := range notebooks {
		if _, err := load(path); err != nil {
			return err
		}
	}
	outputs, err := destinations(notebooks, *dir, o.Same)
	if err != nil {
		return err
	}
	if o.State != "" {
		if err := writable(o.State); err != nil {
			return &OutputError{"what survives a run", o.State, err, "--state"}
		}
	}
	var failed []string
	for i, path := range notebooks {
		o.Output = outputs[i]
		r, err := Execute(ctx, p, path, o, os.Stdout)
		if err != nil {
			return err
		}
		if len(r.Failures) > 0 {
			failed = append(failed, path)
		}
	}
	if len(failed) > 0 {
		return &FailedError{failed}
	}
	return nil
}

// destinations returns where the executed notebooks are to be written, "" for nowhere: to dir if one is named, else in place, unless that is what they are compared with. What can't be written there,
// or would replace what an earlier one left, should not show after an hour.
func destinations(notebooks []string, dir string, same bool) ([]string, error) {
	outputs := make([]string, len(notebooks))
	from := map[string]string{}
	for i, path := range notebooks {
		switch {
		case dir != "":
			outputs[i] = filepath.Join(dir, filepath.Base(path))
		case same:
			continue
		default:
			outputs[i] = path
		}
		if other, taken := from[outputs[i]]; taken {
			return nil, &UsageError{fmt.Sprintf("%s and %s would both be written to %s: run them one by one, each with a directory of its own (-o)", other, path, outputs[i])}
		}
		from[outputs[i]] = path
		if err := writable(filepath.Dir(outputs[i])); err != nil {
			return nil, &OutputError{path, filepath.Dir(outputs[i]), err, "-o"}
		}
	}
	return outputs, nil
}

// OutputError says that what a run leaves can't be written.
type OutputError struct {
	What, Dir string
	Err       error
	Flag      string // that names another directory
}

func (e *OutputError) Error() string {
	return fmt.Sprintf("%s can't be written to the directory %s: %v; name one that you can write with %s", e.What, e.Dir, e.Err, e.Flag)
}

func (e *OutputError) Unwrap() error { return e.Err }

// writable makes a directory and sees whether files can be made in it.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".espalier-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func load(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, &FormatError{path, "it is a directory"}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, fmt.Errorf("there is no notebook %s; notebooks/ holds the course", path)
		}
		return nil, err
	}
	if _, err := read(path, data); err != nil {
		return nil, err
	}
	return data, nil
}

// Execute runs a notebook and reports progress. What went wrong in the notebook is in Result.Failures; the error is for what kept it
// from being executed. A notebook that is interrupted is written as far as it came, and the error is the context's.
func Execute(ctx context.Context, p setup.Paths, path string, o Options, progress io.Writer) (Result, error) {
	data, err := load(path)
	if err != nil {
		return Result{}, err
	}
	source, err := read(path, data)
	if err != nil {
		return Result{}, err
	}
	if o.Kernel == "" {
		o.Kernel = setup.KernelName
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Minute
	}
	directory, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Result{}, err
	}
	scratch, err := os.MkdirTemp("", "espalier-run-") // a clean kernel finds no state of an earlier run
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(scratch)
	state := filepath.Join(scratch, "state")
	if o.State != "" {
		if state, err = filepath.Abs(o.State); err != nil { // the kernel runs elsewhere
			return Result{}, err
		}
	}
	request, err := json.Marshal(map[string]any{
		"notebook": string(data), "kernel": o.Kernel, "directory": directory, "timeout": int(o.Timeout.Seconds()),
		"log": filepath.Join(scratch, "displays"), "parent": os.Getpid(),
	})
	if err != nil {
		return Result{}, err
	}
	fast := "0"
	if o.Fast {
		fast = "1"
	}
	cmd := exec.CommandContext(ctx, p.Python, "-c", driver)
	cmd.Env = append(p.Env(), "ESPALIER_FAST="+fast, "ESPALIER_STATE="+state,
		"ESPALIER_DISPLAY_LOG="+filepath.Join(scratch, "displays"))
	setup.OwnGroup(cmd)
	cmd.WaitDelay = 15 * time.Second // a cell that is interrupted has five to save what it has
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	fmt.Fprintf(progress, "%s\n", path)
	var (
		runs      = map[int]ran{}
		executed  []byte
		problem   string
		cellStart time.Time
		started   int
		cells     int // with code
	)
	for _, c := range source.Cells {
		if c.runs() {
			cells++
		}
	}
	lines := bufio.NewReader(stdout)
	for {
		line, readErr := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var e struct {
				Event, Status, Content, Problem string
				Index, Sent                     int
				Interrupted                     bool
			}
			if err := json.Unmarshal(line, &e); err != nil {
				return Result{}, errors.Join(fmt.Errorf("the notebook's driver printed %q", line), cmd.Wait())
			}
			switch e.Event {
			case "start":
				if !source.Cells[e.Index].runs() {
					break // it is not run, and has no end
				}
				cellStart = time.Now()
				started++
				fmt.Fprintf(progress, "  [%d/%d] %s … ", started, cells, title(source.Cells[e.Index]))
			case "end":
				runs[e.Index] = ran{e.Status, e.Sent}
				mark := ""
				switch {
				case e.Status != "ok" && source.Cells[e.Index].mayFail():
					mark = ", failed as it should"
				case e.Status != "ok":
					mark = " FAILED"
				}
				fmt.Fprintf(progress, "%.1f s%s\n", time.Since(cellStart).Seconds(), mark)
			case "notebook":
				executed, problem = []byte(e.Content), e.Problem
			}
		}
		if readErr != nil {
			break
		}
	}
	waitErr := cmd.Wait()
	if executed == nil {
		if ctx.Err() != nil {
			return Result{}, context.Cause(ctx)
		}
		return Result{}, fmt.Errorf("%s could not be executed: %w: %s", path, waitErr, lastLine(stderr.String()))
	}
	nb, err := read(path, executed)
	if err != nil {
		return Result{}, err
	}
	out, err := nb.normalized()
	if err != nil {
		return Result{}, err
	}
	user, _ := os.UserHomeDir() // without one there is none to hide
	r := Result{Seconds: time.Since(start).Seconds()}
	r.Summary, r.Failures = judge(nb, runs, len(out), []string{p.Project, p.Home, user, scratch, state, os.TempDir() + "/"})
	if problem != "" {
		r.Failures = append(r.Failures, Failure{Problem: problem})
	}
	if !o.Fast && ctx.Err() == nil {
		r.Compared, r.Differences = compare(source, nb)
		r.Redrawn = redrawn(source, nb)
		if o.Same {
			r.Failures = append(r.Failures, others(r.Compared, r.Differences)...)
		}
	}
	if o.Output != "" {
		if err := writeFile(o.Output, out); err != nil {
			return r, err
		}
		if o.HTML {
			if err := html(ctx, p, o.Output); err != nil {
				return r, err
			}
		}
	}
	if ctx.Err() != nil {
		fmt.Fprint(progress, "\n  interrupted")
		if o.Output != "" {
			fmt.Fprintf(progress, "; %s holds what was done", o.Output)
		}
		fmt.Fprintln(progress)
		return r, context.Cause(ctx)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(progress, "  FAILED %s\n", f)
	}
	fmt.Fprintf(progress, "  %d cells, %d figures, %d tables in %.0f s", r.Cells, r.Figures, r.Tables, r.Seconds)
	if o.Output != "" {
		fmt.Fprintf(progress, "; written to %s", o.Output)
	}
	fmt.Fprintln(progress)
	tell(progress, r, o.Same)
	return r, nil
}

// tell says which outputs are others than before. Those that are failures have been told.
func tell(progress io.Writer, r Result, failures bool) {
	if r.Compared == 0 {
		return
	}
	fmt.Fprintf(progress, "  %d of %d outputs are what the notebook held\n", r.Compared-len(r.Differences), r.Compared)
	for _, d := range r.Differences {
		switch {
		case d.Measured:
			fmt.Fprintf(progress, "  cell %d measures times or the machine, and has others now\n", d.Cell)
		case !failures:
			fmt.Fprintf(progress, "  %s\n", d)
		}
	}
	for _, cell := range r.Redrawn {
		fmt.Fprintf(progress, "  cell %d draws the same numbers otherwise\n", cell)
	}
}

// title is the first telling line of a cell.
func title(c *Cell) string {
	for line := range strings.Lines(c.Source) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "%%") || strings.HasPrefix(line, "import") {
			continue
		}
		if runes := []rune(line); len(runes) > 60 {
			line = string(runes[:59]) + "…"
		}
		return line
	}
	return firstLine(c.Source)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// html converts an executed notebook. Formulas are drawn by MathJax, which a reader's browser fetches; all else is in the file.
func html(ctx context.Context, p setup.Paths, notebook string) error {
	cmd := exec.CommandContext(ctx, p.Python, "-m", "nbconvert", "--to", "html", "--log-level=ERROR", notebook)
	cmd.Env = p.Env()
	setup.OwnGroup(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("HTML of %s: %w: %s", notebook, err, lastLine(string(out)))
	}
	return nil
}

// Inspect looks at a notebook as it is stored, without running it: what it must have been to be published.
func Inspect(p setup.Paths, path string) ([]Failure, error) {
	data, err := load(path)
	if err != nil {
		return nil, err
	}
	nb, err := read(path, data)
	if err != nil {
		return nil, err
	}
	runs := map[int]ran{}
	count := 0
	for i, c := range nb.Cells {
		if !c.runs() {
			continue
		}
		count++
		if n, ok := c.raw["execution_count"].(float64); ok && int(n) == count {
			runs[i] = ran{status: "ok"}
		}
	}
	user, _ := os.UserHomeDir() // without one there is none to hide
	_, failures := judge(nb, runs, len(data), []string{p.Project, p.Home, user})
	return failures, nil
}

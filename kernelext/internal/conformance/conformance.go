// Package conformance runs Jupyter's public kernel tests (jupyter_kernel_test) against our kernel and compares with what is expected of each.
package conformance

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
	"github.com/espalier-ml/espalier/pkg/report"
)

//go:embed suite.py
var suite string

// Outcome of a test.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Hang Outcome = "hang" // no answer within the limit
	Skip Outcome = "skip"
)

// limit is ample for a test that answers: each takes a few seconds.
const limit = 40 * time.Second

// expectation says what is expected of a test, and why.
type expectation struct {
	test   string
	want   Outcome
	reason string
}

// expectations are those of our kernel. GoNB alone passes four of them, and does not answer two.
var expectations = []expectation{
	{"test_kernel_info", Pass, ""},
	{"test_execute_stdout", Pass, ""},
	{"test_execute_stderr", Pass, ""},
	{"test_execute_result", Pass, ""},
	{"test_display_data", Pass, ""},
	{"test_error", Pass, ""},
	{"test_completion", Pass, ""},
	{"test_inspect", Pass, ""},
	{"test_is_complete", Pass, ""},
	{"test_history", Pass, ""},
	{"test_pager", Pass, ""},
	{"test_recv_iopub_welcome_msg", Pass, ""},
	{"test_clear_output", Skip, "what it runs has to send clear_output, which no Go package does: displays are updated in place"},
}

// Result of a test.
type Result struct {
	Test      string
	Want, Got Outcome
	Reason    string // why Want is not Pass
	Detail    string // the suite's last words if it failed
}

// Met tells whether the test did what is expected: better is unexpected too, so that the table stays true.
func (r Result) Met() bool { return r.Want == r.Got }

// Run runs each test in a process of its own, so that one that hangs is a result.
func Run(ctx context.Context, p setup.Paths, kernel string, each func(Result)) ([]Result, error) {
	var results []Result
	for _, e := range expectations {
		got, detail, err := one(ctx, p, kernel, e.test)
		if err != nil {
			return results, err
		}
		r := Result{e.test, e.want, got, e.reason, detail}
		results = append(results, r)
		each(r)
	}
	return results, nil
}

func one(ctx context.Context, p setup.Paths, kernel, test string) (Outcome, string, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, p.Python, "-c", suite, kernel, test)
	cmd.Env = p.Env()
	setup.OwnGroup(cmd)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", "", context.Cause(ctx)
	}
	if errors.Is(limited.Err(), context.DeadlineExceeded) {
		return Hang, fmt.Sprintf("no answer within %s", limit), nil
	}
	return classify(output.String(), err)
}

// classify reads the outcome from the suite's last line.
func classify(output string, err error) (Outcome, string, error) {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	last := Outcome(strings.TrimSpace(lines[len(lines)-1]))
	if err != nil || (last != Pass && last != Fail && last != Skip) {
		return "", "", fmt.Errorf("the kernel tests did not run: %v: %s", err, last)
	}
	detail := ""
	if len(lines) > 1 {
		detail = strings.TrimSpace(lines[len(lines)-2])
	}
	// The suite gives up by itself on a kernel that does not answer.
	if last == Fail && (strings.Contains(detail, "Empty") || strings.Contains(detail, "Timeout")) {
		return Hang, detail, nil
	}
	return last, detail, nil
}

// Table of results.
func Table(results []Result) report.Table {
	t := report.Table{Title: "jupyter_kernel_test", Columns: []report.Column{{Name: "test"}, {Name: "expected"}, {Name: "got"}, {Name: "why it is not expected to pass"}}}
	for _, r := range results {
		got := string(r.Got)
		if !r.Met() {
			got = strings.ToUpper(got) + " — " + r.Detail
		}
		t.Rows = append(t.Rows, []any{strings.TrimPrefix(r.Test, "test_"), string(r.Want), got, r.Reason})
	}
	return t
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

// What can't be understood is refused before anything is set up.
func TestUsage(t *testing.T) {
	t.Setenv("ESPALIER_HOME", "/") // which set-up refuses, were it reached
	for _, args := range [][]string{
		{}, {"no-such-verb"}, {"setup", "--no-such-flag"}, {"setup", "--user", "more"}, {"doctor", "more"}, {"uninstall", "more"},
		{"bench"}, {"bench", "no-such-bench"}, {"profile"},
	} {
		if err := dispatch(t.Context(), args); !errors.Is(err, errUsage) {
			t.Errorf("espalier %q: error = %v, want the usage", args, err)
		}
	}
}

func TestUsageSaysWhatIsWrong(t *testing.T) {
	for command, want := range map[string]string{"no-such-verb": `there is no command "no-such-verb"`, "doctor more": `doctor can't be used with the arguments ["more"]`} {
		if err := dispatch(t.Context(), strings.Fields(command)); err == nil || err.Error() != want {
			t.Errorf("espalier %s: error %v, want %s", command, err, want)
		}
	}
	if err := dispatch(t.Context(), []string{"--help"}); err != nil {
		t.Errorf("--help: error %v", err)
	}
}

func TestExitCode(t *testing.T) {
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"success", t.Context(), nil, 0},
		{"failure", t.Context(), errors.New("x"), 1},
		{"failed notebooks", t.Context(), &nbrun.FailedError{Notebooks: []string{"a.ipynb"}}, 1},
		{"usage", t.Context(), errUsage, 2},
		{"usage of run", t.Context(), &nbrun.UsageError{Problem: "no notebook given"}, 2},
		{"a program that says 2", t.Context(), fmt.Errorf("replay: %w", programError(2)), 2},
		{"interrupt", t.Context(), fmt.Errorf("step: %w", context.Canceled), 130},
		{"killed child of an interrupt", interrupted, errors.New("signal: terminated"), 130},
	} {
		if got := exitCode(test.ctx, test.err); got != test.want {
			t.Errorf("%s: exit code %d, want %d", test.name, got, test.want)
		}
	}
}

// The verbs of sharing are reached without set-up, and say themselves what they expect.
func TestSharingNeedsNoSetup(t *testing.T) {
	t.Setenv("ESPALIER_HOME", "/")
	for _, args := range [][]string{{"export"}, {"open"}, {"store", "no-such-command"}} {
		var usage *nbrun.UsageError
		if err := dispatch(t.Context(), args); !errors.As(err, &usage) {
			t.Errorf("espalier %q: error = %v, want a *UsageError", args, err)
		}
	}
}

// `go run` makes every exit code 1; build keeps what the program says.
func TestBuildKeepsTheExitCode(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":          "module x\n\ngo 1.26\n",
		"says/main.go":    "package main\n\nimport \"os\"\n\nfunc main() { os.Exit(len(os.Args)) }\n",
		"broken/main.go":  "package main\n\nfunc main() { x }\n",
		"content/main.go": "package main\n\nfunc main() {}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	p := setup.Paths{Go: goCommand, Project: dir}
	for _, test := range []struct {
		program string
		args    []string
		want    int
	}{{"./says", []string{"a"}, 2}, {"./says", []string{"a", "b"}, 3}, {"./broken", nil, 1}, {"./content", nil, 0}} {
		if got := exitCode(t.Context(), build(t.Context(), p, test.program, test.args)); got != test.want {
			t.Errorf("%s %q: exit code %d, want %d", test.program, test.args, got, test.want)
		}
	}
}

func TestLabOptionsAreGivenOnce(t *testing.T) {
	count := func(args ...string) (root, ip int) {
		for _, o := range labOptions(setup.Paths{Project: "/p"}, args) {
			switch {
			case strings.HasPrefix(o, "--ServerApp.root_dir="):
				root++
			case strings.HasPrefix(o, "--ServerApp.ip="):
				ip++
			}
		}
		return root, ip
	}
	for _, args := range [][]string{nil, {"--no-browser"}, {"--ServerApp.root_dir=/elsewhere", "--ServerApp.port=0"}} {
		if root, ip := count(args...); root != 1 || ip != 1 {
			t.Errorf("%q: the directory is given %d times, the address %d times; want once each", args, root, ip)
		}
	}
}

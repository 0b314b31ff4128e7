package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
)

// What can't be understood is refused before anything is set up.
func TestUsage(t *testing.T) {
	t.Setenv("ESPALIER_HOME", "/") // which set-up refuses, were it reached
	for _, args := range [][]string{
		{}, {"no-such-verb"}, {"setup", "--no-such-flag"}, {"setup", "--user", "more"}, {"doctor", "more"}, {"uninstall", "more"},
		{"bench"}, {"bench", "no-such-bench"},
	} {
		if err := dispatch(t.Context(), args); !errors.Is(err, errUsage) {
			t.Errorf("espalier %q: error = %v, want the usage", args, err)
		}
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
		{"interrupt", t.Context(), fmt.Errorf("step: %w", context.Canceled), 130},
		{"killed child of an interrupt", interrupted, errors.New("signal: terminated"), 130},
	} {
		if got := exitCode(test.ctx, test.err); got != test.want {
			t.Errorf("%s: exit code %d, want %d", test.name, got, test.want)
		}
	}
}

package kernelext

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"

	"github.com/espalier-ml/espalier/kernelext/survive"
)

// FastMode reports whether the notebook is being run to see that it works (ESPALIER_FAST=1), not for its results.
// Use Pick for everything that differs then.
func FastMode() bool { return os.Getenv("ESPALIER_FAST") == "1" }

// Pick returns full, or fast in fast mode: with it a notebook says in one place what a quick trial run leaves out.
//
//	epochs := kernelext.Pick(20, 1)
func Pick[T any](full, fast T) T {
	if FastMode() {
		return fast
	}
	return full
}

// Context returns a context that is cancelled when the reader presses the stop button (or Ctrl-C in a terminal). Pass it to whatever takes
// long: it ends at the next good moment, having saved what it has. A second Ctrl-C ends the program at once.
// Every call returns the same context.
func Context() context.Context { return interruptible() }

var interruptible = sync.OnceValue(func() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // gives the second signal back its usual effect
	survive.Graceful()
	return ctx
})

// Dir returns a directory for what must survive from one cell, or one run of the notebook, to the next: checkpoints, for instance. The same
// name gives the same directory; it is made if it is not there, readable by you alone. A name may have parts, as in "lenet300/seed-1".
//
// It lies in the directory that the environment variable ESPALIER_STATE names, else in espalier/state in your cache directory.
//
// Like Must, it ends the program with one line on standard error if the directory can't be had.
func Dir(name string) string {
	dir, err := stateDir(name)
	Must(err)
	return dir
}

func stateDir(name string) (string, error) {
	if !filepath.IsLocal(name) || filepath.Clean(name) == "." {
		return "", fmt.Errorf("kernelext.Dir(%q): a name like \"lenet300\" or \"lenet300/seed-1\" is needed, relative and without \"..\"", name)
	}
	root := os.Getenv("ESPALIER_STATE")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("kernelext.Dir(%q): %w; set ESPALIER_STATE to a directory of your own", name, err)
		}
		root = filepath.Join(cache, "espalier", "state")
	}
	root, err := filepath.Abs(root)
	if err == nil {
		err = os.MkdirAll(root, 0o700)
	}
	var r *os.Root
	if err == nil {
		r, err = os.OpenRoot(root) // so that a symbolic link in the way can't lead out of it
	}
	if err == nil {
		err = errors.Join(r.MkdirAll(name, 0o700), r.Close())
	}
	if err != nil {
		return "", fmt.Errorf("kernelext.Dir(%q): %w", name, err)
	}
	return filepath.Join(root, name), nil
}

// exitInterrupted is what shells report for a program that SIGINT ended.
const exitInterrupted = 130

// Must does nothing if err is nil. Otherwise it ends the cell's program with one line on standard error that says what went wrong, and exit
// code 1; or, if the work was interrupted (err wraps context.Canceled, or has a method Interrupted() bool that returns true), a line that says
// how to go on, and exit code 130. Progress bars are left with where they stopped, and the notebook's variables keep what they hold.
func Must(err error) {
	if err == nil {
		return
	}
	stopBars()
	// Joined errors have a line each.
	fmt.Fprintln(os.Stderr, strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
	if interrupted(err) {
		fmt.Fprintln(os.Stderr, "Run the cell again to go on: work that keeps checkpoints continues where it stopped.")
		os.Exit(survive.Exit(exitInterrupted))
	}
	os.Exit(survive.Exit(1))
}

func interrupted(err error) bool {
	var i interface{ Interrupted() bool }
	return errors.Is(err, context.Canceled) || errors.As(err, &i) && i.Interrupted()
}

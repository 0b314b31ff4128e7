// Command shim is what GoNB takes for the Go command: it stands first in the kernel's PATH and hands everything on to the real one, except
// that it downloads nothing, links faster, and builds cells so that their variables survive (package rewrite).
//
// GoNB runs `go get` on every cell, which ignores the workspace and takes the newest version of whatever is missing, so that a notebook would change
// with the day. Here what the project does not pin can't be imported, and the build's error says how to pin it.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/rewrite"
	"github.com/espalier-ml/espalier/pkg/backend/home"
)

// realGo is the environment variable that names the real Go command.
const realGo = "ESPALIER_GO"

func main() {
	path := os.Getenv(realGo)
	if path == "" {
		fmt.Fprintf(os.Stderr, "espalier: %s is not set; run `go run ./kernelext/cmd/espalier setup` to write the kernel anew\n", realGo)
		os.Exit(1)
	}
	args := arguments(os.Args[1:])
	if args == nil {
		return
	}
	commit := func() error { return nil }
	if dir, ok := cell(os.Args[1:]); ok {
		var err error
		if args, commit, err = overlaid(dir, path, args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	cmd := exec.Command(path, args...)
	var output bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, io.MultiWriter(os.Stdout, &output), io.MultiWriter(os.Stderr, &output)
	err := cmd.Run()
	fmt.Fprint(os.Stderr, remedy(output.String()))
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "espalier:", err)
		os.Exit(1)
	}
	if err := commit(); err != nil {
		fmt.Fprintln(os.Stderr, "espalier: the notebook's variables can't be recorded:", err)
		os.Exit(1)
	}
}

// cell tells whether a command builds a cell's program, and where that is.
func cell(args []string) (dir string, ok bool) {
	dir = os.Getenv("GONB_TMP_DIR")
	if dir == "" || len(args) == 0 || args[0] != "build" && args[0] != "test" {
		return "", false
	}
	if slices.ContainsFunc(args, func(a string) bool {
		return !strings.HasPrefix(a, "-") && strings.HasSuffix(a, ".go") || strings.Contains(a, "-overlay")
	}) {
		return "", false
	}
	here, err := os.Getwd()
	return dir, err == nil && here == dir
}

// overlaid returns the arguments that build a cell so that its variables survive, and what is to be done once it is built. The error is what is wrong with
// a program that does not compile, as the Go command would say it.
func overlaid(dir, path string, args []string) ([]string, func() error, error) {
	c := rewrite.Config{Go: path, Dir: dir, State: os.Getenv(keep.StateEnv), Cell: os.Getenv(keep.CellEnv)}
	if c.State == "" {
		c.State = filepath.Join(dir, ".espalier", "variables")
	}
	c.Cache = filepath.Join(dir, ".espalier", "exports")
	if dir, err := home.Dir(); err == nil {
		c.Cache = filepath.Join(dir, "shim", "exports")
	}
	for i, a := range args {
		if flag := strings.TrimLeft(a, "-"); a != flag && (strings.HasPrefix(flag, "tags=") || strings.HasPrefix(flag, "mod") || flag == "race") {
			c.Flags = append(c.Flags, a)
		} else if a != flag && flag == "tags" && i+1 < len(args) {
			c.Flags = append(c.Flags, a, args[i+1])
		}
	}
	rewritten := c.Rewrite
	if args[0] == "test" || os.Getenv("GOOS") == "js" {
		rewritten = c.Bare // tests, and programs for the browser, have no variables that survive
	}
	build, err := rewritten()
	var compile *rewrite.CompileError
	var imports *rewrite.ImportError
	switch {
	case errors.As(err, &compile):
		return nil, nil, fmt.Errorf("# %s\n%w", filepath.Base(dir), err)
	case errors.As(err, &imports):
		build, err = c.Bare() // the real command says what is wrong
	case err != nil:
		build, err = c.Notice(err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("espalier: %w", err)
	}
	return append([]string{args[0], "-overlay=" + build.Overlay}, args[1:]...), build.Commit, nil
}

// arguments returns the arguments for the real command; nil: there is nothing to do.
func arguments(args []string) []string {
	if len(args) == 0 {
		return []string{}
	}
	switch args[0] {
	case "get":
		return nil
	case "build", "test":
		// Stripping halves the time to link a cell. Line numbers in panics stay: they are not in what -s and -w leave out.
		flags := []string{args[0]}
		if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(strings.TrimLeft(a, "-"), "ldflags") }) {
			flags = append(flags, "-ldflags=-s -w")
		}
		return append(append(flags, "-buildvcs=false"), args[1:]...)
	}
	return args
}

var missing = regexp.MustCompile(`(?:no required module provides package|cannot find module providing package) ([^\s;:]+)`)

// remedy explains the errors of imports that the project does not pin, one line each.
func remedy(output string) string {
	var lines []string
	for _, m := range missing.FindAllStringSubmatch(output, -1) {
		line := fmt.Sprintf("%s is not pinned by the project: add it with `go get %s@VERSION` in the project's directory, and import it from a package there\n", m[1], m[1])
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

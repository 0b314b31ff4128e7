// Command shim is what GoNB takes for the Go command: it stands first in the kernel's PATH and hands everything on to the real one, except
// that it downloads nothing and links faster.
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
	"regexp"
	"slices"
	"strings"
)

// realGo is the environment variable that names the real Go command.
const realGo = "ESPALIER_GO"

func main() {
	path := os.Getenv(realGo)
	if path == "" {
		fmt.Fprintf(os.Stderr, "espalier: %s is not set; run `go run ./kernelext/cmd/espalier setup` to write the kernel anew\n", realGo)
		os.Exit(1)
	}
	args := rewrite(os.Args[1:])
	if args == nil {
		return
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
}

// rewrite returns the arguments for the real command; nil: there is nothing to do.
func rewrite(args []string) []string {
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

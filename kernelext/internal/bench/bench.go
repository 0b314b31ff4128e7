// Package bench has what the programs under it have in common: how they start and end, lists on their command lines, peers in other processes, pages of tables.
package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Main runs the program of `espalier bench NAME` with its arguments and ends the process. Ctrl-C ends the context.
func Main(name string, run func(ctx context.Context, args []string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err == nil || errors.Is(err, flag.ErrHelp) { // which has been printed
		return
	}
	fmt.Fprintf(os.Stderr, "bench %s: %v\n", name, err)
	os.Exit(1)
}

// List returns the parts of a text with commas between them, less empty ones.
func List(text string) []string { return Split(text, ",") }

// Split returns the parts of a text with something between them, less empty ones and without the space around them.
func Split(text, between string) []string {
	var all []string
	for part := range strings.SplitSeq(text, between) {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, part)
		}
	}
	return all
}

// Seeds returns the numbers of a list that an option has: at least one, and each once.
func Seeds(option, text string) ([]int64, error) {
	var seeds []int64
	for _, part := range List(text) {
		seed, err := strconv.ParseInt(part, 10, 64)
		if err != nil || slices.Contains(seeds, seed) {
			return nil, fmt.Errorf("%s has %q: give numbers, whole and different, with commas between them, such as 1,3,5", option, part)
		}
		seeds = append(seeds, seed)
	}
	if len(seeds) == 0 {
		return nil, fmt.Errorf("%s is empty: give at least one number", option)
	}
	return seeds, nil
}

// Page is tables in Markdown under a head.
func Page(head string, tables []report.Table) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(head)
	for _, t := range tables {
		b.WriteString("\n")
		if err := t.Markdown(&b); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// Print writes tables as text, with an empty line after each.
func Print(w io.Writer, tables []report.Table) error {
	for _, t := range tables {
		if err := t.Text(w); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

// Peer is a process that is measured against: it says a line, then answers each line with one.
type Peer struct {
	Hello string // its first line

	name string
	in   io.WriteCloser
	out  *bufio.Reader
	cmd  *exec.Cmd
}

// StartPeer starts a program of Python. Its standard error is this process's.
func StartPeer(ctx context.Context, name, python string, args ...string) (*Peer, error) {
	cmd := exec.CommandContext(ctx, python, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &Peer{name: name, in: in, out: bufio.NewReader(out), cmd: cmd}
	if p.Hello, err = p.answer(); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// Ask writes a line and returns the answer, without the end of its line.
func (p *Peer) Ask(line string) (string, error) {
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return "", fmt.Errorf("%s: %w", p.name, err)
	}
	return p.answer()
}

func (p *Peer) answer() (string, error) {
	line, err := p.out.ReadString('\n')
	switch {
	case errors.Is(err, io.EOF):
		return "", fmt.Errorf("%s: the process died; what it wrote to standard error says why", p.name)
	case err != nil:
		return "", fmt.Errorf("%s: %w", p.name, err)
	}
	return strings.TrimSpace(line), nil
}

// Stop ends the process, which ends with its input.
func (p *Peer) Stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

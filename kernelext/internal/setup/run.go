package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// run runs a command in its own process group, which is killed with the context, and returns its standard output. On failure the error holds the
// gist of all that it printed.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	var stdout bytes.Buffer
	var output lockedBuffer // both streams: what a command prints besides its result, such as its downloads, is on the other
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, &output), &output
	OwnGroup(cmd)
	err := cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what did not heed SIGTERM; there may be nothing left
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args[:min(2, len(args))], " "), err)
		if said := gist(output.String()); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return stdout.String(), err
	}
	return stdout.String(), nil
}

// lockedBuffer is a buffer that two streams can be written to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// OwnGroup makes a command the leader of a process group, all of which gets SIGTERM when its context ends, so that no child of it is left. If
// the leader does not end within ten seconds, which is time to stop kernels, it is killed.
func OwnGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
}

// gist returns what a failed command said about it: its last line that is marked as an error, without the warnings and retries around it, or
// else its last lines.
func gist(output string) string {
	said := tail(output, 3)
	for line := range strings.Lines(output) {
		if text, marked := strings.CutPrefix(strings.TrimSpace(line), "ERROR: "); marked {
			said = text
		}
	}
	const most = 400
	if len(said) > most {
		said = strings.ToValidUTF8(said[:most], "") + " …"
	}
	return said
}

// tail returns the last n lines that are not empty, joined.
func tail(text string, n int) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// wrap adds a remedy to an error, by what it says.
func wrap(step string, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	text := strings.ToLower(err.Error())
	contains := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	remedy := "run `go run ./kernelext/cmd/espalier doctor` to see what is wrong, and then the same command again"
	switch {
	case errors.Is(err, syscall.ENOSPC) || contains("no space left on device"):
		remedy = "free some disk space and run the same command again"
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS) || contains("permission denied", "read-only file system"):
		remedy = "choose a directory that you can write with ESPALIER_HOME"
	case contains("do not match the hashes", "hash mismatch", "checksum mismatch", "does not match its digest"):
		remedy = "what came is not what the project pins: check your proxy or mirror, and run the same command again"
	case contains("dial tcp", "no such host", "name resolution", "connection", "network is unreachable", "no matching distribution", "could not find a version", "tls", "timeout"):
		remedy = "the first set-up needs the network: check it, and run the same command again"
	}
	return &Error{step, err, remedy}
}

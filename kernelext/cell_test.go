package kernelext

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What ends a program is tested in one of its own: this test binary, started again with the name of a child.
const childVariable = "KERNELEXT_TEST_CHILD"

type interruptedError struct{}

func (interruptedError) Error() string {
	return "interrupted at step 120; its checkpoint is in state/lenet"
}
func (interruptedError) Interrupted() bool { return true }

var children = map[string]func(){
	"no error": func() { Must(nil) },
	"error":    func() { Must(errors.New("sparsity is 1.5; expected 0 to 1")) },
	"joined":   func() { Must(errors.Join(errors.New("first"), errors.New("second"))) },
	"canceled": func() { Must(fmt.Errorf("training: %w", context.Canceled)) },
	"interrupted": func() {
		Progress("training").Update(120, 200, "") // left open
		Must(fmt.Errorf("training: %w", interruptedError{}))
	},
	"closing": func() {
		BeforeExit(func() { fmt.Fprintln(os.Stderr, "first") })
		BeforeExit(func() { fmt.Fprintln(os.Stderr, "never") })()
		BeforeExit(func() { fmt.Fprintln(os.Stderr, "second") })
		Must(errors.New("failed"))
	},
	"bad dir": func() { Dir("../outside") },
	"context": func() {
		ctx := Context()
		fmt.Println("started")
		<-ctx.Done()
		fmt.Println("cancelled")
		time.Sleep(time.Minute)
		fmt.Println("not reached")
	},
}

func TestMain(m *testing.M) {
	if child := os.Getenv(childVariable); child != "" {
		children[child]()
		return
	}
	os.Exit(m.Run())
}

func childCommand(name string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childVariable+"="+name), env...)
	return cmd
}

func TestMust(t *testing.T) {
	const again = "Run the cell again to go on: work that keeps checkpoints continues where it stopped.\n"
	for _, c := range []struct {
		child string
		code  int
		want  string // on standard error
	}{
		{"no error", 0, ""},
		{"error", 1, "sparsity is 1.5; expected 0 to 1\n"},
		{"joined", 1, "first; second\n"},
		{"canceled", 130, "training: context canceled\n" + again},
		{"interrupted", 130, "training: 120 of 200 steps (60%)\ntraining: stopped at 120 of 200 steps\n" +
			"training: interrupted at step 120; its checkpoint is in state/lenet\n" + again},
		{"closing", 1, "first\nsecond\nfailed\n"},
		{"bad dir", 1, `kernelext.Dir("../outside"): a name like "lenet300" or "lenet300/seed-1" is needed, relative and without ".."` + "\n"},
	} {
		t.Run(c.child, func(t *testing.T) {
			cmd := childCommand(c.child)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit code %d (%v), want %d", code, err, c.code)
			}
			if diff := cmp.Diff(c.want, stderr.String()); diff != "" {
				t.Errorf("standard error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestContext(t *testing.T) {
	cmd := childCommand("context")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			cmd.Process.Kill()
			t.Fatalf("printed %q, want %q", lines.Text(), want)
		}
	}
	expect("started")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	expect("cancelled")
	// The handler goes right after the context is cancelled, so that one of the next signals ends the program.
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case <-ended:
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
				t.Errorf("ended with %v, want to be ended by the second interrupt", cmd.ProcessState)
			}
			return
		case <-time.After(20 * time.Millisecond):
			cmd.Process.Signal(os.Interrupt)
		}
	}
}

func TestContextIsOne(t *testing.T) {
	if Context() != Context() {
		t.Error("two calls give two contexts")
	}
}

func TestFastMode(t *testing.T) {
	for value, want := range map[string]bool{"": false, "0": false, "1": true, "true": false} {
		t.Setenv("ESPALIER_FAST", value)
		if got := FastMode(); got != want {
			t.Errorf("with ESPALIER_FAST=%q FastMode is %v, want %v", value, got, want)
		}
		wantPick := "full"
		if want {
			wantPick = "fast"
		}
		if got := Pick("full", "fast"); got != wantPick {
			t.Errorf("with ESPALIER_FAST=%q Pick gives %q, want %q", value, got, wantPick)
		}
	}
}

func TestDir(t *testing.T) {
	root := filepath.Join(t.TempDir(), "state")
	t.Setenv("ESPALIER_STATE", root)
	got := Dir("lenet/seed-1")
	if want := filepath.Join(root, "lenet", "seed-1"); got != want {
		t.Errorf("Dir = %q, want %q", got, want)
	}
	if again := Dir("lenet/seed-1"); again != got {
		t.Errorf("the second call gives %q, the first %q", again, got)
	}
	for _, dir := range []string{root, got} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has the permissions %v, want 0700", dir, info.Mode().Perm())
		}
	}
}

func TestDirInTheCache(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("ESPALIER_STATE", "")
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache)
	got := Dir("x")
	if user, err := os.UserCacheDir(); err != nil || got != filepath.Join(user, "espalier", "state", "x") {
		t.Errorf("Dir = %q, want it in %q (error %v)", got, user, err)
	}
}

func TestDirStaysInItsRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	t.Setenv("ESPALIER_STATE", root)
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "../x", "a/../../x", "/tmp/x", "link/x"} {
		if dir, err := stateDir(name); err == nil {
			t.Errorf("stateDir(%q) = %q, want an error", name, dir)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("kernelext.Dir(%q)", name)) {
			t.Errorf("stateDir(%q): the error does not say which name: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("something was made outside the root: %v (error %v)", entries, err)
	}
}

package setup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/go-cmp/cmp"
)

// fileStep is a step that writes a file and counts how often it does.
func fileStep(dir, name, digest string, count *int) step {
	path := filepath.Join(dir, name)
	return step{
		name: "make " + name, made: []string{name},
		from:  func() (string, error) { return digest, nil },
		there: func() bool { data, err := os.ReadFile(path); return err == nil && string(data) == "whole" },
		do:    func(context.Context) error { *count++; return writeFile(path, []byte("whole"), 0o644) },
	}
}

func TestEnsureDoesNothingTwice(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	var a, b int
	steps := []step{fileStep(dir, "a", "1", &a), fileStep(dir, "bin/b", "1", &b)}
	for range 2 {
		if err := ensure(t.Context(), io.Discard, dir, steps); err != nil {
			t.Fatal(err)
		}
	}
	if a != 1 || b != 1 {
		t.Errorf("after two set-ups the steps were done %d and %d times, want once each", a, b)
	}
	// Another digest, and a corrupt file: each is made again, and only that.
	steps[0] = fileStep(dir, "a", "2", &a)
	if err := ensure(t.Context(), io.Discard, dir, steps); err != nil {
		t.Fatal(err)
	}
	if a != 2 || b != 1 {
		t.Errorf("after a new pin the steps were done %d and %d times, want 2 and 1", a, b)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/b"), []byte("wh"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ensure(t.Context(), io.Discard, dir, steps); err != nil {
		t.Fatal(err)
	}
	if a != 2 || b != 2 {
		t.Errorf("after a file was truncated the steps were done %d and %d times, want 2 and 2", a, b)
	}
}

func TestEnsureGoesOnAfterInterrupt(t *testing.T) {
	dir := t.TempDir()
	var a, b int
	ctx, cancel := context.WithCancel(t.Context())
	first := fileStep(dir, "a", "1", &a)
	do := first.do
	first.do = func(c context.Context) error { cancel(); return do(c) }
	steps := []step{first, fileStep(dir, "b", "1", &b)}
	if err := ensure(ctx, io.Discard, dir, steps); !errors.Is(err, context.Canceled) {
		t.Fatalf("error = %v, want context.Canceled", err)
	}
	if a != 1 || b != 0 {
		t.Errorf("interrupted after the first step: done %d and %d times, want 1 and 0", a, b)
	}
	if err := ensure(t.Context(), io.Discard, dir, steps); err != nil {
		t.Fatal(err)
	}
	if a != 1 || b != 1 {
		t.Errorf("after the second try: done %d and %d times, want 1 and 1", a, b)
	}
}

func TestEnsureGoesOnAfterKill(t *testing.T) {
	dir := t.TempDir()
	var a int
	broken := fileStep(dir, "a", "1", &a)
	broken.do = func(context.Context) error { // as if killed halfway
		if err := os.WriteFile(filepath.Join(dir, "a"), []byte("wh"), 0o644); err != nil {
			return err
		}
		return errors.Join(os.Mkdir(filepath.Join(dir, scratchPrefix+"1"), 0o755), errors.New("killed"))
	}
	if err := ensure(t.Context(), io.Discard, dir, []step{broken}); err == nil {
		t.Fatal("a failed step gave no error")
	}
	if err := ensure(t.Context(), io.Discard, dir, []step{fileStep(dir, "a", "1", &a)}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", lockFile, stateFile}, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestEnsureDamagedState(t *testing.T) {
	dir := t.TempDir()
	var a int
	steps := []step{fileStep(dir, "a", "1", &a)}
	if err := ensure(t.Context(), io.Discard, dir, steps); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(`{"Done": `), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := uninstall(t.Context(), io.Discard, dir); !errors.Is(err, ErrState) {
		t.Errorf("uninstall: error = %v, want ErrState", err)
	}
	if err := ensure(t.Context(), io.Discard, dir, steps); err != nil {
		t.Fatal(err)
	}
	if a != 2 {
		t.Errorf("the step was done %d times, want 2", a)
	}
}

// Who only computes sets up what that takes and leaves the rest as it is, also where nothing is known of what was done; the whole set-up finds its way from there.
func TestEnsureSome(t *testing.T) {
	dir := t.TempDir()
	var a, b int
	kernel := func(from string) []step {
		steps := []step{fileStep(dir, "a", "1", &a), fileStep(dir, "b", from, &b)}
		steps[0].computes = true
		return steps
	}
	computes := func(s step) bool { return s.computes }
	for _, from := range []string{"1", "2"} { // another checkout's kernel
		if err := ensureSome(t.Context(), io.Discard, dir, kernel(from), computes); err != nil {
			t.Fatal(err)
		}
		if a != 1 || b != 0 {
			t.Errorf("the steps were done %d and %d times, want 1 and 0", a, b)
		}
	}
	if err := ensure(t.Context(), io.Discard, dir, kernel("1")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(`{"Done": `), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ensureSome(t.Context(), io.Discard, dir, kernel("2"), computes); err != nil {
		t.Fatal(err)
	}
	if a != 2 || b != 1 {
		t.Errorf("after the state was lost the steps were done %d and %d times, want 2 and 1", a, b)
	}
	if err := ensure(t.Context(), io.Discard, dir, kernel("2")); err != nil {
		t.Fatal(err)
	}
	if a != 2 || b != 2 {
		t.Errorf("after the whole set-up the steps were done %d and %d times, want 2 each", a, b)
	}
}

func TestEnsureWaitsForTheLock(t *testing.T) {
	dir := t.TempDir()
	other := flock.New(filepath.Join(dir, lockFile))
	if err := other.Lock(); err != nil {
		t.Fatal(err)
	}
	var a int
	progress := &notify{told: make(chan string, 10)}
	done := make(chan error)
	go func() { done <- ensure(t.Context(), progress, dir, []step{fileStep(dir, "a", "1", &a)}) }()
	if line := <-progress.told; !strings.Contains(line, "waiting") {
		t.Errorf("said %q, want that it waits", line)
	}
	if a != 0 {
		t.Error("a step was done without the lock")
	}
	if err := other.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || a != 1 {
		t.Errorf("after the lock was free: error %v, step done %d times, want nil and 1", err, a)
	}
}

func TestLockGivesWayToInterrupt(t *testing.T) {
	dir := t.TempDir()
	other := flock.New(filepath.Join(dir, lockFile))
	if err := other.Lock(); err != nil {
		t.Fatal(err)
	}
	defer other.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	progress := &notify{told: make(chan string, 10)}
	done := make(chan error)
	go func() { done <- ensure(ctx, progress, dir, nil) }()
	<-progress.told
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

type notify struct{ told chan string }

func (n *notify) Write(p []byte) (int, error) { n.told <- string(p); return len(p), nil }

func TestEnsureRefuses(t *testing.T) {
	user := t.TempDir()
	t.Setenv("HOME", user)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "a"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"root": "/", "the user's home": user + "/", "below a file": filepath.Join(file, "home"), "what is there is not ours": foreign,
	} {
		t.Run(name, func(t *testing.T) {
			var a int
			err := ensure(t.Context(), io.Discard, dir, []step{fileStep(dir, "a", "1", &a)})
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Remedy, "ESPALIER_HOME") {
				t.Errorf("error = %v, want one with the remedy ESPALIER_HOME", err)
			}
			if a != 0 {
				t.Error("the step was done")
			}
		})
	}
	if data, err := os.ReadFile(filepath.Join(foreign, "a")); err != nil || string(data) != "mine" {
		t.Errorf("the user's file is now %q (%v)", data, err)
	}
}

func TestUninstall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	var n int
	steps := []step{fileStep(dir, "a", "1", &n), fileStep(dir, "bin/b", "1", &n), fileStep(dir, "shim/go", "1", &n)}
	if err := ensure(t.Context(), io.Discard, dir, steps); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(filepath.Dir(dir), "outside")
	for _, path := range []string{filepath.Join(dir, "bin", "mine"), filepath.Join(dir, "notes"), outside} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A state that somebody wrote leads nowhere else.
	s, err := readState(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Made = append(s.Made, "../outside", outside, ".", "")
	if err := writeState(dir, s); err != nil {
		t.Fatal(err)
	}
	r, err := uninstall(t.Context(), io.Discard, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := UninstallReport{
		Removed: []string{filepath.Join(dir, "a"), filepath.Join(dir, "bin/b"), filepath.Join(dir, "shim/go")},
		Left:    []string{filepath.Join(dir, "bin"), filepath.Join(dir, "notes")},
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"mine"}, names(t, filepath.Join(dir, "bin"))); diff != "" {
		t.Errorf("left in bin (-want +got):\n%s", diff)
	}
	if !exists(outside) {
		t.Error("a file outside of the directory was removed")
	}
	// There is nothing to do the second time; and with nothing foreign in it, the directory goes as well.
	if r, err := uninstall(t.Context(), io.Discard, dir); err != nil || len(r.Removed) != 0 {
		t.Errorf("second uninstall: %v, %v", r, err)
	}
	clean := filepath.Join(t.TempDir(), "clean")
	if err := ensure(t.Context(), io.Discard, clean, []step{fileStep(clean, "bin/b", "1", &n)}); err != nil {
		t.Fatal(err)
	}
	if _, err := uninstall(t.Context(), io.Discard, clean); err != nil || exists(clean) {
		t.Errorf("error %v; directory still there: %v", err, exists(clean))
	}
}

func TestRunEndsItsChildren(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	started := filepath.Join(t.TempDir(), "started")
	late := filepath.Join(t.TempDir(), "late")
	go func() {
		for !exists(started) {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	// The child of the command holds its output open: were it not ended too, run would wait for it.
	_, err := run(ctx, "", os.Environ(), "sh", "-c", `(trap "" HUP; touch "$0"; sleep 60; touch "$1") & wait`, started, late)
	if err == nil {
		t.Error("an interrupted command gave no error")
	}
	if exists(late) {
		t.Error("the child ran on")
	}
}

func TestWriteFileLeavesTheOldOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o755); err != nil { // can't be replaced by a file
		t.Fatal(err)
	}
	if err := writeFile(path, bytes.Repeat([]byte("x"), 10), 0o644); err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff([]string{"f"}, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestWrapRemedy(t *testing.T) {
	for text, want := range map[string]string{
		"write x: no space left on device":                  "disk space",
		"mkdir x: permission denied":                        "ESPALIER_HOME",
		"ERROR: THESE PACKAGES DO NOT MATCH THE HASHES":     "mirror",
		"x.so does not match its digest: expected a, got b": "mirror",
		"dial tcp: lookup host: no such host":               "network",
		"Could not find a version that satisfies":           "network",
		"go: verifying module: checksum mismatch":           "mirror",
		"something else":                                    "doctor",
	} {
		var e *Error
		if err := wrap("step", errors.New(text)); !errors.As(err, &e) || !strings.Contains(e.Remedy, want) {
			t.Errorf("wrap(%q) = %v, want a remedy about %q", text, err, want)
		}
	}
	inner := &Error{"a", errors.New("b"), "c"}
	if got := wrap("outer", inner); got != error(inner) {
		t.Errorf("an error with a remedy was wrapped again: %v", got)
	}
}

func TestGist(t *testing.T) {
	for _, test := range []struct{ output, want string }{
		{"", ""},
		{"a\n\n b \nc\nd\n", "b | c | d"},
		{"WARNING: retrying\nERROR: first\nERROR: the cause\nExpected 1\n", "the cause"},
		{strings.Repeat("é", 300), strings.Repeat("é", 200) + " …"},
	} {
		if got := gist(test.output); got != test.want {
			t.Errorf("gist(%q) = %q, want %q", test.output, got, test.want)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	return got
}

package store

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The test binary is its own child: what it does then stands in this variable, the store and the file for its results in the next.
const childEnv, childDirEnv, childFileEnv = "ESPALIER_STORE_TEST_CHILD", "ESPALIER_STORE_TEST_DIR", "ESPALIER_STORE_TEST_FILE"

// memory is where files are in memory, so that the thousands of syncs of these tests cost nothing.
const memory = "/dev/shm"

func TestMain(m *testing.M) {
	child := map[string]func(*Store) error{"keys": childKeys, "hang": childHangs}[os.Getenv(childEnv)]
	if child == nil {
		if info, err := os.Stat(memory); err == nil && info.IsDir() && os.Getenv("TMPDIR") == "" {
			os.Setenv("TMPDIR", memory)
		}
		os.Exit(m.Run())
	}
	s, err := Open(os.Getenv(childDirEnv))
	if err == nil {
		err = child(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, what, dir, file string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(os.Environ(), childEnv+"="+what, childDirEnv+"="+dir, childFileEnv+"="+file)
	return c
}

const childCount, keyCount = 16, 20

// childKeys asks for the keys, and writes a line to the ledger for each that it computes.
func childKeys(s *Store) error {
	for i := range int64(keyCount) {
		got, err := Do(context.Background(), "n", Inputs{Seed: i, Store: s}, func(context.Context, *Run) (int64, error) {
			ledger, err := os.OpenFile(os.Getenv(childFileEnv), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return 0, err
			}
			fmt.Fprintf(ledger, "key %d\n", i)
			return i * i, ledger.Close()
		})
		if err != nil || got != i*i {
			return fmt.Errorf("key %d: %d, %w", i, got, err)
		}
	}
	return nil
}

func TestProcessesComputeOnce(t *testing.T) {
	// The store is not there yet: making it is a race too.
	dir, ledger := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "ledger")
	var children []*exec.Cmd
	var outputs []*bytes.Buffer
	for range childCount {
		c, output := child(t, "keys", dir, ledger), new(bytes.Buffer)
		c.Stdout, c.Stderr = output, output
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		children, outputs = append(children, c), append(outputs, output)
	}
	for i, c := range children {
		if err := c.Wait(); err != nil {
			t.Errorf("process %d: %v\n%s", i, err, outputs[i])
		}
	}
	data, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keyCount {
		if n := strings.Count(string(data), fmt.Sprintf("key %d\n", i)); n != 1 {
			t.Errorf("key %d was computed %d times, want 1", i, n)
		}
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := s.Refs()
	if err != nil || len(refs) != keyCount {
		t.Errorf("%d references, %v; want %d", len(refs), err, keyCount)
	}
	for i, r := range refs {
		if r.Sequence != uint64(keyCount-i) {
			t.Errorf("reference %d has sequence %d: a number was given twice or lost", i, r.Sequence)
		}
	}
	for _, dir := range []string{tmpDir, workDir} {
		if entries, _ := os.ReadDir(s.path(dir)); len(entries) != 0 {
			t.Errorf("left in %s: %v", dir, entries)
		}
	}
}

func hanging(ctx context.Context, run *Run) (string, error) {
	state := filepath.Join(run.Dir, "state")
	if run.Resumed {
		data, err := os.ReadFile(state)
		return fmt.Sprintf("attempt %d after %s", run.Attempt, data), err
	}
	if err := os.WriteFile(state, []byte("work"), 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(os.Getenv(childFileEnv), nil, 0o644); err != nil {
		return "", err
	}
	<-ctx.Done()
	return "", ctx.Err()
}

func childHangs(s *Store) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // should nobody kill it
	defer cancel()
	_, err := Do(ctx, "n", Inputs{Store: s}, hanging)
	return err
}

func TestKilledHolder(t *testing.T) {
	s, ready := fresh(t), filepath.Join(t.TempDir(), "ready")
	c := child(t, "hang", s.Dir(), ready)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for !exists(ready) {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Do(ctx, "n", Inputs{Store: s}, hanging); err == nil || !strings.Contains(err.Error(), "waiting for another run") {
		t.Errorf("while the other process computes: %v", err)
	}
	if got, err := s.GC(t.Context(), 0); err != nil || got.Runs != 0 {
		t.Errorf("GC while the other process computes: %+v, %v", got, err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if got, err := Do(t.Context(), "n", Inputs{Store: s}, hanging); err != nil || got != "attempt 2 after work" {
		t.Errorf("after the kill: %q, %v", got, err)
	}
	if entries, _ := os.ReadDir(s.path(workDir)); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

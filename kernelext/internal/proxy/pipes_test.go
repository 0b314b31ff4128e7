package proxy

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestSweepPipes(t *testing.T) {
	if len(processes()) == 0 {
		t.Skip("this system does not list its processes")
	}
	t.Setenv("TMPDIR", t.TempDir())
	long := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct{ pipe, old, used, stays bool }{
		"gonb_pipe_1": {pipe: true, old: true, stays: false},
		"gonb_pipe_2": {pipe: true, stays: true},
		"gonb_pipe_3": {old: true, stays: true}, // a file
		"gonb_pipe_4": {pipe: true, old: true, used: true, stays: true},
		"other":       {pipe: true, old: true, stays: true},
	} {
		path := filepath.Join(os.TempDir(), name)
		var err error
		if c.pipe {
			err = syscall.Mkfifo(path, 0o600)
		} else {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err == nil && c.old {
			err = os.Chtimes(path, long, long)
		}
		if err != nil {
			t.Fatal(err)
		}
		if c.used {
			program := fakeChild("30")
			program.Env = append(os.Environ(), "GONB_PIPE="+path)
			if err := program.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = program.Process.Kill(); _ = program.Wait() }()
		}
		sweepPipes()
		if _, err := os.Lstat(path); (err == nil) != c.stays {
			t.Errorf("%s: stays %v, want %v", name, err == nil, c.stays)
		}
	}
}

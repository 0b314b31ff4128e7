package checkpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"
)

// disk mounts a small file system of its own.
func disk(t *testing.T) (dir string, remount func(flags uintptr)) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("a file system can't be mounted here: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir, func(flags uintptr) {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=256k"); err != nil {
			t.Fatal(err)
		}
	}
}

// A disk that is full, or that has become read-only, is an error; what was saved before is loaded, and saving works again once there is room.
func TestRealDisk(t *testing.T) {
	dir, remount := disk(t)
	d := Dir{Path: filepath.Join(dir, "run")}
	mustSave(t, d, 1)
	check := func(what string, cause error) {
		t.Helper()
		var failed *SaveError
		store := network(t, 2)
		if err := d.Save(store, State{Step: 2}); !errors.As(err, &failed) || !errors.Is(err, cause) {
			t.Errorf("%s: got %v, want a *SaveError of %v", what, err, cause)
		}
		if diff := cmp.Diff(words(t, network(t, 2)), words(t, store)); diff != "" {
			t.Errorf("%s: it changed the store\n%s", what, diff)
		}
		if s, err := d.Load(store); err != nil || s.Step != 1 {
			t.Errorf("%s: step %d, %v; want 1", what, s.Step, err)
		}
	}
	remount(syscall.MS_RDONLY)
	check("read-only", syscall.EROFS)
	remount(0)

	big := network(t, 3)
	if _, err := big.CreateVariable("/big", tensors.FromFlatDataAndDimensions(make([]float32, 100_000), 100_000)); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(big, State{Step: 3}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("400 KB on a disk of 256: %v, want ENOSPC", err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 512<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	check("full", syscall.ENOSPC)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustSave(t, d, 2)
	if s, err := d.Load(network(t, 1)); err != nil || s.Step != 2 {
		t.Errorf("after there was room: step %d, %v; want 2", s.Step, err)
	}
	if entries, err := os.ReadDir(d.Path); err != nil || len(entries) != 2 {
		t.Errorf("%d entries are left, %v; want 2", len(entries), err)
	}
}

// The limit of a file's size, which another process has, is an error too.
func TestFileSizeLimit(t *testing.T) {
	const env = "ESPALIER_TEST_LIMITED"
	if dir := os.Getenv(env); dir != "" {
		limit := syscall.Rlimit{Cur: 64, Max: 64}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		if err := (Dir{Path: dir}).Save(network(t, 2), State{Step: 2}); !errors.Is(err, syscall.EFBIG) {
			os.Exit(3)
		}
		os.Exit(0) // the test's own output would be too large
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := Dir{Path: t.TempDir()}
	mustSave(t, d, 1)
	cmd := exec.Command(self, "-test.run=^TestFileSizeLimit$")
	cmd.Env = append(os.Environ(), env+"="+d.Path)
	if err := cmd.Run(); err != nil {
		t.Errorf("the limited process: %v", err)
	}
	if s, err := d.Load(network(t, 1)); err != nil || s.Step != 1 {
		t.Errorf("step %d, %v; want 1", s.Step, err)
	}
}

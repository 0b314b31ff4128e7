package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// from fails everything from step n on, or, once, step n alone. steps counts.
func from(n int, once bool, steps *int) FS {
	return FS{Before: func(Op, string) error {
		*steps++
		if *steps-1 == n || !once && *steps > n {
			return syscall.EIO
		}
		return nil
	}}
}

// Wherever a replacement stops or fails, the file is the old one or the new one, and beside it there is nothing but what Temporary names.
func TestReplace(t *testing.T) {
	for _, once := range []bool{true, false} {
		for n := 0; ; n++ {
			dir := t.TempDir()
			path := filepath.Join(dir, "sub", "file")
			if err := (FS{}).Replace(path, text("old")); err != nil {
				t.Fatal(err)
			}
			steps := 0
			err := from(n, once, &steps).Replace(path, text("new, and longer"))
			if steps <= n {
				if err != nil || content(t, path) != "new, and longer" {
					t.Fatal(err, content(t, path))
				}
				if n < 7 {
					t.Errorf("only %d steps", n)
				}
				break
			}
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("step %d failed: %v, want EIO", n, err)
			}
			if got := content(t, path); got != "old" && got != "new, and longer" {
				t.Errorf("step %d failed: the file holds %q", n, got)
			}
			if err := (FS{}).Replace(path, text("newest")); err != nil || content(t, path) != "newest" {
				t.Errorf("step %d failed: replaced again: %v, %q", n, err, content(t, path))
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() != "file" && !Temporary(e.Name()) {
					t.Errorf("step %d failed: it left %s", n, e.Name())
				}
			}
		}
	}
}

// What the writer says is the error, and the file is the old one.
func TestReplaceKeepsTheFileWhereTheWriterFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := (FS{}).Replace(path, text("old")); err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	err := FS{}.Replace(path, func(w io.Writer) error {
		if _, err := io.WriteString(w, strings.Repeat("x", 1<<21)); err != nil {
			return err
		}
		return mine
	})
	if !errors.Is(err, mine) || content(t, path) != "old" {
		t.Errorf("%v, the file holds %d bytes", err, len(content(t, path)))
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}

// Lines before one that was torn stay, and one that comes after begins a new line.
func TestAppend(t *testing.T) {
	for _, once := range []bool{true, false} {
		for n := 0; ; n++ {
			path := filepath.Join(t.TempDir(), "sub", "log")
			if err := (FS{}).Append(path, []byte("first\n")); err != nil {
				t.Fatal(err)
			}
			steps := 0
			err := from(n, once, &steps).Append(path, []byte("second\n"))
			if steps <= n {
				if err != nil || content(t, path) != "first\nsecond\n" {
					t.Fatal(err, content(t, path))
				}
				break
			}
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("step %d failed: %v, want EIO", n, err)
			}
			if err := (FS{}).Append(path, []byte("third\n")); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(content(t, path), "\n")
			if lines[0] != "first" || lines[len(lines)-2] != "third" || len(lines) > 4 || len(lines) == 4 && !strings.HasPrefix("second", lines[1]) {
				t.Errorf("step %d failed: %q", n, lines)
			}
		}
	}
}

// A file that is made is new, and its content may be torn by a fault.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	steps := 0
	if err := from(1, false, &steps).Write(path, text("12345678")); !errors.Is(err, syscall.EIO) || content(t, path) != "1234" {
		t.Errorf("%v %q, want half of it", err, content(t, path))
	}
	if err := (FS{}).Write(path, text("again")); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file: %v, want that it exists", err)
	}
}

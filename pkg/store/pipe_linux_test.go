package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A pipe in place of a file is damage, and nobody waits for what is written to it.
func TestPipes(t *testing.T) {
	pipe := func(path string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.RemoveAll(path), syscall.Mkfifo(path, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	inTime := func(what string, do func() error, want func(error) bool) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- do() }()
		select {
		case err := <-done:
			if !want(err) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: it waits", what)
		}
	}
	damaged := func(err error) bool { _, ok := errors.AsType[*DamagedError](err); return ok }
	s := fresh(t)
	d := bound(t, s, "a", "k", "content").Object
	pipe(s.path(d.rel()))
	inTime("Export", func() error { return s.Export(io.Discard) }, damaged)
	pipe(s.path(d.rel())) // again, since it was moved aside
	inTime("Get", func() error { _, err := s.Get(d); return err }, damaged)
	pipe(s.path("refs/a/@k.json"))
	inTime("a reference", func() error { _, err := s.Refs(); return err }, damaged)
	pipe(s.path(formatFile))
	inTime("a store", func() error { _, err := Open(s.Dir()); return err }, func(err error) bool { _, ok := errors.AsType[*FormatError](err); return ok })
}

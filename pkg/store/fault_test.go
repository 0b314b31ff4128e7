package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// operation is something that may be stopped at each of its steps.
type operation struct {
	name    string
	prepare func(t *testing.T, s *Store) // what there is before
	do      func(s *Store) error         // may be done again
	after   map[string]string            // what is visible when it is done
	removes bool                         // what was visible before need not stay; what is visible is whole all the same
	allOf   []string                     // visible together or not at all
}

func operations(t *testing.T) []operation {
	other := fresh(t)
	for i := range 3 {
		bound(t, other, fmt.Sprint("in/", i), "k", fmt.Sprint("imported ", i%2))
	}
	var export bytes.Buffer
	if err := other.Export(&export); err != nil {
		t.Fatal(err)
	}
	keep := func(t *testing.T, s *Store) { bound(t, s, "before", "k", "kept") }
	put := func(t *testing.T, s *Store, content string) {
		if _, _, err := s.Put(text(content)); err != nil {
			t.Fatal(err)
		}
	}
	return []operation{
		{name: "Put", prepare: keep, after: map[string]string{"before@k": "kept"}, do: func(s *Store) error {
			_, _, err := s.Put(text("new"))
			return err
		}},
		{name: "Put over a damaged one", prepare: func(t *testing.T, s *Store) {
			keep(t, s)
			put(t, s, "new")
			d, _, _ := s.Put(text("new"))
			if err := os.WriteFile(s.path(d.rel()), []byte("bad"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, after: map[string]string{"before@k": "kept"}, do: func(s *Store) error {
			d, _, err := s.Put(text("new"))
			if err == nil {
				_, err = s.Get(d)
			}
			return err
		}},
		{name: "Bind", prepare: func(t *testing.T, s *Store) { keep(t, s); put(t, s, "new") }, after: map[string]string{"before@k": "kept", "a/b@k": "new"},
			do: func(s *Store) error {
				return s.Bind(Ref{Name: "a/b", Key: "k", Object: "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437", Size: 3})
			}},
		{name: "Bind in place of another", prepare: func(t *testing.T, s *Store) { keep(t, s); put(t, s, "new") }, after: map[string]string{"before@k": "new"}, removes: true,
			do: func(s *Store) error {
				return s.Bind(Ref{Name: "before", Key: "k", Object: "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437", Size: 3})
			}},
		{name: "Do", prepare: keep, after: map[string]string{"before@k": "kept", "n@" + doKey(t): `"computed"`}, do: func(s *Store) error {
			v, err := Do(context.Background(), "n", Inputs{Code: "c", Store: s}, func(context.Context, *Run) (string, error) { return "computed", nil })
			if _, save := errors.AsType[*SaveError](err); (err == nil || save) && v != "computed" {
				return fmt.Errorf("the result was lost: %q, %v", v, err)
			}
			return err
		}},
		{name: "GC", prepare: func(t *testing.T, s *Store) {
			for i := range 3 {
				bound(t, s, fmt.Sprint("old/", i), "k", fmt.Sprint("old ", i%2))
			}
			put(t, s, "nobody's")
			for _, dir := range []string{"tmp/litter", "work/0123", "quarantine/damaged"} {
				if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(s.path("work/0123/run.json"), []byte(`{"name":"dead","key":"k","attempt":1}`), 0o644); err != nil {
				t.Fatal(err)
			}
		}, after: map[string]string{}, removes: true, do: func(s *Store) error { _, err := s.GC(context.Background(), 0); return err }},
		{name: "Import", prepare: keep, after: map[string]string{"before@k": "kept", "in/0@k": "imported 0", "in/1@k": "imported 1", "in/2@k": "imported 0"},
			allOf: []string{"in/0@k", "in/1@k", "in/2@k"},
			do:    func(s *Store) error { _, err := s.Import(bytes.NewReader(export.Bytes())); return err }},
	}
}

func doKey(t *testing.T) string {
	t.Helper()
	in, err := Inputs{Code: "c", Store: &Store{}}.resolve()
	if err != nil {
		t.Fatal(err)
	}
	return in.key
}

// checkVisible compares what is visible after an operation was stopped with what was there before and what will be.
func (o operation) checkVisible(t *testing.T, s *Store, before map[string]string) {
	t.Helper()
	now := contents(t, s)
	for name, content := range before {
		if got, there := now[name]; !o.removes && got != content || o.removes && there && got != content && got != o.after[name] {
			t.Errorf("%s is %q, was %q", name, got, content)
		}
	}
	for name, content := range now {
		if content != before[name] && content != o.after[name] {
			t.Errorf("%s is %q", name, content)
		}
	}
	n := 0
	for _, name := range o.allOf {
		if _, there := now[name]; there {
			n++
		}
	}
	if n != 0 && n != len(o.allOf) {
		t.Errorf("%d of %v are visible, want all or none", n, o.allOf)
	}
}

// checkDone looks at a store in which the operation was done at last: all is there, and no litter.
func (o operation) checkDone(t *testing.T, s *Store) {
	t.Helper()
	if got := contents(t, s); len(got) != len(o.after) {
		t.Errorf("visible is %v, want %v", got, o.after)
	} else {
		for name, content := range o.after {
			if got[name] != content {
				t.Errorf("%s is %q, want %q", name, got[name], content)
			}
		}
	}
	for _, dir := range []string{tmpDir, workDir} {
		if entries, _ := os.ReadDir(s.path(dir)); len(entries) != 0 {
			t.Errorf("litter in %s: %v", dir, entries)
		}
	}
	entries, err := os.ReadDir(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.Contains(" FORMAT SEQUENCE lock writers objects refs work quarantine tmp ", " "+e.Name()+" ") {
			t.Errorf("litter: %s", e.Name())
		}
	}
}

// stopping returns files that fail from step n on, or at it only, and the count of steps.
func stopping(n int, only bool, err error) (durable.FS, *int, *durable.Op) {
	step, at := new(int), new(durable.Op)
	return durable.FS{Before: func(op durable.Op, _ string) error {
		*step++
		if *step == n {
			*at = op
		}
		if *step == n || *step > n && !only {
			return err
		}
		return nil
	}}, step, at
}

func quiet(s *Store) *Store { s.stderr = new(bytes.Buffer); return s }

func TestKilledAtEachStep(t *testing.T) {
	for _, o := range operations(t) {
		t.Run(o.name, func(t *testing.T) {
			for n := 1; ; n++ {
				s := fresh(t)
				o.prepare(t, s)
				before := contents(t, s)
				files, step, at := stopping(n, false, errors.New("killed"))
				err := o.do(quiet(&Store{dir: s.dir, root: s.root, fs: files}))
				if *step < n {
					if n < 4 || err != nil {
						t.Fatalf("only %d steps, and %v", *step, err)
					}
					o.checkDone(t, s)
					return
				}
				again, err := Open(s.Dir())
				if err != nil {
					t.Fatalf("opened after step %d (%s): %v", n, *at, err)
				}
				o.checkVisible(t, again, before)
				if err := o.do(quiet(again)); err != nil {
					t.Errorf("again after step %d (%s): %v", n, *at, err)
				}
				o.checkDone(t, again)
				if t.Failed() {
					t.Fatalf("killed at step %d, %s", n, *at)
				}
			}
		})
	}
}

func TestFailingAtEachStep(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for _, o := range operations(t) {
			t.Run(fmt.Sprintf("%s %v", o.name, cause), func(t *testing.T) {
				for n := 1; ; n++ {
					s := fresh(t)
					o.prepare(t, s)
					before := contents(t, s)
					files, step, at := stopping(n, true, cause)
					err := o.do(quiet(&Store{dir: s.dir, root: s.root, fs: files}))
					if *step < n {
						if err != nil {
							t.Fatal(err)
						}
						return
					}
					var write *WriteError
					switch {
					case err == nil && (*at == durable.OpRemove || strings.Contains(o.name, "damaged")): // what is left is litter, or was moved aside less well
					case !errors.As(err, &write) || !errors.Is(err, cause) || write.Remedy == "":
						t.Errorf("step %d (%s): %v; want a *WriteError of %v", n, *at, err, cause)
					case cause == syscall.ENOSPC && write.Missing != "no space is left":
						t.Errorf("step %d (%s): missing is %q", n, *at, write.Missing)
					}
					o.checkVisible(t, s, before)
					if err := o.do(quiet(s)); err != nil {
						t.Errorf("again after step %d (%s): %v", n, *at, err)
					}
					s.GC(t.Context(), -1) // in this process nothing was opened again: what could not be removed waits for it
					o.checkDone(t, s)
					if t.Failed() {
						t.Fatalf("failed at step %d, %s", n, *at)
					}
				}
			})
		}
	}
}

func TestMakingAStoreKilledAtEachStep(t *testing.T) {
	for n := 1; ; n++ {
		root := t.TempDir()
		dir := filepath.Join(root, "a", "store")
		files, step, _ := stopping(n, false, syscall.EROFS)
		_, err := open(dir, files)
		if *step < n {
			if err != nil || n < 5 {
				t.Fatalf("%d steps, %v", *step, err)
			}
			return
		}
		var write *WriteError
		if err != nil && (!errors.As(err, &write) || write.Missing != "the file system is read-only" || !strings.HasPrefix(write.Path, root)) {
			t.Errorf("step %d: %v; want a *WriteError of what is missing", n, err)
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("after step %d: %v", n, err)
		}
		bound(t, s, "n", "k", "x")
		operation{after: map[string]string{"n@k": "x"}}.checkDone(t, s)
	}
}

// A store that can't be written can be read.
func TestReadOnly(t *testing.T) {
	s := fresh(t)
	r := bound(t, s, "n", "k", "x")
	files, _, _ := stopping(1, false, syscall.EROFS)
	if _, err := open(s.Dir(), files); err != nil {
		t.Fatal(err)
	}
	s.fs = files
	if data, err := s.Get(r.Object); err != nil || string(data) != "x" {
		t.Errorf("Get = %q, %v", data, err)
	}
	var write *WriteError
	if _, _, err := s.Put(text("y")); !errors.As(err, &write) || write.Missing != "the file system is read-only" {
		t.Errorf("Put: %v", err)
	}
	if err := os.WriteFile(s.path(r.Object.rel()), []byte("z"), 0o644); err != nil {
		t.Fatal(err)
	}
	var damage *DamagedError
	if data, err := s.Get(r.Object); !errors.As(err, &damage) || data != nil || damage.MovedTo != "" {
		t.Errorf("a damaged object that can't be moved: %q, %v", data, err)
	}
}

// The disk is full when the result is there: it is returned, the work is kept, and the next Do goes on.
func TestSaveErrorLosesNothing(t *testing.T) {
	s := fresh(t)
	var runs []Run
	fn := func(_ context.Context, run *Run) (string, error) {
		runs = append(runs, *run)
		if len(runs) == 1 {
			s.fs, _, _ = stopping(1, false, syscall.ENOSPC)
		}
		return "result", nil
	}
	var save *SaveError
	var write *WriteError
	v, err := Do(t.Context(), "n", Inputs{Store: s}, fn)
	if !errors.As(err, &save) || !errors.As(err, &write) || v != "result" {
		t.Errorf("got %q, %v; want the result and a *SaveError", v, err)
	}
	s.fs = durable.FS{}
	if v, err := Do(t.Context(), "n", Inputs{Store: s}, fn); v != "result" || err != nil {
		t.Errorf("then: %q, %v", v, err)
	}
	if len(runs) != 2 || !runs[1].Resumed || runs[1].Dir != save.Dir {
		t.Errorf("runs %+v; want the second to resume in %s", runs, save.Dir)
	}
}

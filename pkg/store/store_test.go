package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func fresh(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func text(content string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, content); return err }
}

// bound puts and binds a text.
func bound(t testing.TB, s *Store, name, key, content string) Ref {
	t.Helper()
	d, size, err := s.Put(text(content))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(Ref{Name: name, Key: key, Object: d, Size: size}); err != nil {
		t.Fatal(err)
	}
	r, found, err := s.Lookup(name, key)
	if err != nil || !found {
		t.Fatalf("Lookup(%q, %q) = %v, %v after Bind", name, key, found, err)
	}
	return r
}

// contents are the references that can be read, whole.
func contents(t testing.TB, s *Store) map[string]string {
	t.Helper()
	refs, err := s.Refs()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, r := range refs {
		data, err := s.Get(r.Object)
		if err != nil {
			t.Fatalf("the object of %s: %v", r.Name, err)
		}
		all[r.Name+"@"+r.Key] = string(data)
	}
	return all
}

func TestPutGet(t *testing.T) {
	s := fresh(t)
	d, size, err := s.Put(text("abc"))
	const want = Digest("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") // FIPS 180-2, appendix B.1
	if err != nil || d != want || size != 3 {
		t.Fatalf("Put = %s, %d, %v; want %s, 3", d, size, err, want)
	}
	if again, _, err := s.Put(text("abc")); err != nil || again != d {
		t.Errorf("the same again: %s, %v", again, err)
	}
	if u, err := s.Usage(); err != nil || u.Objects != 1 || u.ObjectBytes != 3 {
		t.Errorf("usage %+v, %v; want 1 object of 3 bytes", u, err)
	}
	if data, err := s.Get(d); err != nil || string(data) != "abc" {
		t.Errorf("Get = %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), "objects", "ba", string(want[2:]))); err != nil {
		t.Error(err)
	}
	var missing *MissingError
	if _, err := s.Get(Digest(strings.Repeat("0", 64))); !errors.As(err, &missing) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an object that is not there: %v", err)
	}
	own := errors.New("own")
	if _, _, err := s.Put(func(io.Writer) error { return own }); err != own {
		t.Errorf("the error of write: got %v", err)
	}
	var argument *ArgumentError
	for _, d := range []Digest{"", "../../etc/passwd", Digest(strings.Repeat("A", 64)), want + "\n"} {
		if _, err := s.Get(d); !errors.As(err, &argument) {
			t.Errorf("digest %q: %v", d, err)
		}
	}
}

func TestNames(t *testing.T) {
	s := fresh(t)
	d, size, err := s.Put(text("x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "/", "a/", "/a", "a//b", ".", "..", "../a", "a/../b", "a/.b", "a.", "@a", "a\\b", "a\x00", "a\nb", "é", strings.Repeat("a", 151)} {
		var argument *ArgumentError
		if err := s.Bind(Ref{Name: name, Key: "k", Object: d, Size: size}); !errors.As(err, &argument) {
			t.Errorf("Bind of name %q: %v; want *ArgumentError", name, err)
		}
		if _, _, err := s.Lookup(name, "k"); !errors.As(err, &argument) {
			t.Errorf("Lookup of name %q: %v; want *ArgumentError", name, err)
		}
		if name != "" {
			if _, _, err := s.Lookup("a", name); !errors.As(err, &argument) {
				t.Errorf("Lookup of key %q: %v; want *ArgumentError", name, err)
			}
		}
	}
	// A name may continue another, and look like a file of one.
	for _, name := range []string{"a", "a/b", "a/b.json", "a/k.json", "A b/c=1,2", strings.Repeat("n", 150)} {
		bound(t, s, name, "k", name)
	}
	if got := len(contents(t, s)); got != 6 {
		t.Errorf("%d references, want 6", got)
	}
	var argument *ArgumentError
	if err := s.Bind(Ref{Name: "a", Key: "k", Object: d, Size: 7}); !errors.As(err, &argument) {
		t.Errorf("a wrong size: %v", err)
	}
	if err := s.Bind(Ref{Name: "a", Key: "k", Object: d, Size: size, Inputs: []byte("{")}); !errors.As(err, &argument) {
		t.Errorf("inputs that are no JSON: %v", err)
	}
	var missing *MissingError
	if err := s.Bind(Ref{Name: "a", Key: "k", Object: Digest(strings.Repeat("0", 64))}); !errors.As(err, &missing) {
		t.Errorf("an object that is not there: %v", err)
	}
	if data := contents(t, s)["a@k"]; data != "a" {
		t.Errorf("after errors a@k is %q", data)
	}
}

func TestLinksOutOfTheStore(t *testing.T) {
	s, outside := fresh(t), t.TempDir()
	bound(t, s, "a", "k", "x")
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(s.path("tmp"))
	for _, name := range []string{"refs/out", "tmp", "quarantine"} {
		if err := os.Symlink(outside, s.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	d, _ := Open(s.Dir())
	if _, _, err := d.Put(text("y")); err == nil {
		t.Error("Put wrote through a link")
	}
	os.Remove(s.path("tmp"))
	r, _, _ := s.Lookup("a", "k")
	if err := s.Bind(Ref{Name: "out", Key: "k", Object: r.Object, Size: r.Size}); err == nil {
		t.Error("Bind wrote through a link")
	}
	s.GC(t.Context(), 0)
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside the store there is now %v", entries)
	}
}

func TestOrderIsNotByTheClock(t *testing.T) {
	s := fresh(t)
	for i, content := range []string{"first", "second", "third"} {
		r := bound(t, s, "n", "k"+content, content)
		if r.Sequence != uint64(i)+1 {
			t.Errorf("%s has sequence %d, want %d", content, r.Sequence, i+1)
		}
		when := time.Unix(0, 0)
		if i == 0 {
			when = time.Now().AddDate(50, 0, 0)
		}
		filepath.WalkDir(s.Dir(), func(path string, _ os.DirEntry, _ error) error { return os.Chtimes(path, when, when) })
	}
	order := func() (names []string) {
		refs, err := s.Refs()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range refs {
			names = append(names, r.Key)
		}
		return names
	}
	want := []string{"kthird", "ksecond", "kfirst"}
	if diff := cmp.Diff(want, order()); diff != "" {
		t.Errorf("order, -want +got:\n%s", diff)
	}
	if r, _, _ := s.Lookup("n", ""); r.Key != "kthird" {
		t.Errorf("the last bound is %s, want kthird", r.Key)
	}
	// Without its counter, the store goes on from the references.
	for _, damage := range []func(string) error{os.Remove, func(p string) error { return os.WriteFile(p, []byte("1 \n"), 0o644) }} {
		if err := damage(s.path(sequenceFile)); err != nil {
			t.Fatal(err)
		}
		last, _, _ := s.Lookup("n", "")
		if r := bound(t, s, "n", "kfirst", "first"); r.Sequence != last.Sequence+1 {
			t.Errorf("after the counter was lost the sequence is %d, want %d", r.Sequence, last.Sequence+1)
		}
	}
	usage, _ := s.Usage()
	c, err := s.GC(t.Context(), usage.Bytes-1)
	if err != nil || len(c.Refs) != 1 || c.Refs[0].Key != "ksecond" {
		t.Errorf("GC removed %+v, %v; want ksecond, bound longest ago", c.Refs, err)
	}
}

func TestGC(t *testing.T) {
	s := fresh(t)
	bound(t, s, "a", "1", "shared")
	bound(t, s, "a", "2", "two")
	bound(t, s, "b/c", "1", "shared")
	if _, _, err := s.Put(text("nobody's")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.path("tmp/killed"), 0o755); err != nil {
		t.Fatal(err)
	}
	// An interrupted run with 1000 bytes of work, and one that is running.
	stop, cancel := context.WithCancel(t.Context())
	work := func(ctx context.Context, run *Run) (int, error) {
		cancel()
		return 0, errors.Join(ctx.Err(), os.WriteFile(filepath.Join(run.Dir, "w"), make([]byte, 1000), 0o644))
	}
	if _, err := Do(stop, "dead", Inputs{Store: s}, work); !errors.Is(err, context.Canceled) {
		t.Fatalf("an interrupted run: %v", err)
	}
	_, err := Do(t.Context(), "live", Inputs{Store: s}, func(_ context.Context, run *Run) (int, error) {
		if err := os.WriteFile(filepath.Join(run.Dir, "w"), nil, 0o644); err != nil {
			return 0, err
		}
		c, err := s.GC(t.Context(), -1)
		if err != nil || c.Objects != 1 || c.Litter != 1 || c.Runs != 0 || len(c.Refs) != 0 || c.Bytes != 8 {
			t.Errorf("without a limit GC removed %+v, %v; want one object of 8 bytes and one piece of litter", c, err)
		}
		if u, _ := s.Usage(); u.Runs != 2 || u.RunBytes < 1000 {
			t.Errorf("usage %+v; want 2 runs", u)
		}
		u, _ := s.Usage()
		c, err = s.GC(t.Context(), u.Bytes-1)
		if err != nil || c.Runs != 1 || len(c.Refs) != 0 || c.Left != u.Bytes-c.Bytes {
			t.Errorf("one byte less: GC removed %+v, %v; want the dead run only", c, err)
		}
		if c, err = s.GC(t.Context(), 0); err != nil || len(c.Refs) != 3 || c.Objects != 2 || c.Refs[0].Key != "1" || c.Refs[2].Name != "b/c" {
			t.Errorf("with no room GC removed %+v, %v; want 3 references, the first bound first, and 2 objects", c, err)
		}
		_, err = os.Stat(filepath.Join(run.Dir, "w"))
		return 7, err
	})
	if err != nil {
		t.Errorf("a run during which all was collected: %v", err)
	}
	if got := contents(t, s); len(got) != 1 {
		t.Errorf("left: %v; want the run's result", got)
	}
	if _, err := os.Stat(s.path("refs/b")); !os.IsNotExist(err) {
		t.Errorf("the directory of a removed name: %v", err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.GC(done, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled GC: %v", err)
	}
}

// Of two dead runs the one goes first that began when less had been bound, whatever their names.
func TestGCTakesTheOlderRunFirst(t *testing.T) {
	for _, names := range [][]string{{"a", "b"}, {"b", "a"}} {
		s := fresh(t)
		dead := errors.New("dead")
		for i, name := range names {
			bound(t, s, fmt.Sprint("between/", i), "k", "")
			_, err := Do(t.Context(), name, Inputs{Code: "c", Store: s}, func(_ context.Context, run *Run) (int, error) {
				return 0, errors.Join(dead, os.WriteFile(filepath.Join(run.Dir, "w"), make([]byte, 1000), 0o644))
			})
			if !errors.Is(err, dead) {
				t.Fatal(err)
			}
		}
		u, err := s.Usage()
		if err != nil {
			t.Fatal(err)
		}
		if c, err := s.GC(t.Context(), u.Bytes-1); err != nil || c.Runs != 1 {
			t.Fatalf("GC removed %+v, %v; want one run", c, err)
		}
		for i, name := range names {
			_, err := Do(t.Context(), name, Inputs{Code: "c", Store: s}, func(_ context.Context, run *Run) (int, error) {
				if run.Resumed != (i == 1) {
					t.Errorf("of %q, %s is there: %v; want the last one's work alone", names, name, run.Resumed)
				}
				return 0, dead
			})
			if !errors.Is(err, dead) {
				t.Fatal(err)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	foreign := t.TempDir()
	newer := fresh(t)
	for path, content := range map[string]string{file: "", filepath.Join(foreign, "thesis.tex"): "", newer.path(formatFile): "espalier store 2\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ path, want string }{
		{file, "this is a file"},
		{foreign, "thesis.tex"},
		{newer.Dir(), "version 2, and this program knows 1"},
	} {
		var e *FormatError
		if _, err := Open(test.path); !errors.As(err, &e) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.path) {
			t.Errorf("Open(%s): %v; want a *FormatError with %q", test.path, err, test.want)
		}
	}
	if entries, _ := os.ReadDir(foreign); len(entries) != 1 {
		t.Errorf("the foreign directory has %v now", entries)
	}
	var e *WriteError
	if _, err := Open(filepath.Join(file, "below")); !errors.As(err, &e) || e.Missing != "a directory is needed where a file is" {
		t.Errorf("below a file: %v", err)
	}
}

func TestDefault(t *testing.T) {
	t.Setenv("ESPALIER_HOME", t.TempDir())
	t.Setenv(Env, "")
	s, err := Default()
	if err != nil || s.Dir() != filepath.Join(os.Getenv("ESPALIER_HOME"), "store") {
		t.Errorf("Default = %v, %v", s, err)
	}
	own := filepath.Join(t.TempDir(), "own")
	t.Setenv(Env, own)
	if s, err = Default(); err != nil || s.Dir() != own {
		t.Errorf("with %s: %v, %v", Env, s, err)
	}
}

// offsets are 64 places in n bytes, the first and the last among them.
func offsets(n int) (at []int) {
	for i := range 64 {
		at = append(at, i*(n-1)/63)
	}
	return at
}

// damaged are a file's content with a bit flipped, and cut off, at 64 places each.
func damaged(data []byte) (variants [][]byte) {
	for i, at := range offsets(len(data)) {
		flipped := bytes.Clone(data)
		flipped[at] ^= 1 << (i % 8)
		variants = append(variants, flipped, data[:at])
	}
	return variants
}

func TestDamageIsNeverSilent(t *testing.T) {
	s := fresh(t)
	content := strings.Repeat("0123456789abcdef", 20)
	r := bound(t, s, "n", "k", content)
	undo, err := undoText([]string{r.rel()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(undoFile), undo, 0o644); err != nil {
		t.Fatal(err)
	}
	for i, bad := range damaged(undo) {
		os.WriteFile(s.path(undoFile), bad, 0o644)
		var damage *DamagedError
		if _, err := s.Refs(); !errors.As(err, &damage) || !exists(s.path(r.rel())) {
			t.Errorf("variant %d of %s: %v; want a *DamagedError, and nothing undone", i, undoFile, err)
		}
	}
	os.Remove(s.path(undoFile))
	for _, test := range []struct {
		rel string
		use func() error
	}{
		{r.Object.rel(), func() error { _, err := s.Get(r.Object); return err }},
		{r.rel(), func() error { _, _, err := s.Lookup("n", "k"); return err }},
		{r.rel(), func() error { _, err := s.Refs(); return err }},
		{formatFile, func() error { _, err := Open(s.Dir()); return err }},
	} {
		good, err := os.ReadFile(s.path(test.rel))
		if err != nil {
			t.Fatal(err)
		}
		for i, bad := range damaged(good) {
			if err := os.WriteFile(s.path(test.rel), bad, 0o644); err != nil {
				t.Fatal(err)
			}
			err := test.use()
			var damage *DamagedError
			var format *FormatError
			if !errors.As(err, &damage) && !errors.As(err, &format) {
				t.Errorf("%s, variant %d: got %v; want an error of damage", test.rel, i, err)
			}
			if damage != nil && damage.MovedTo != "" {
				if aside, err := os.ReadFile(damage.MovedTo); err != nil || !bytes.Equal(aside, bad) {
					t.Errorf("%s was not moved to %s: %v", test.rel, damage.MovedTo, err)
				}
				if _, err := os.Lstat(s.path(test.rel)); !os.IsNotExist(err) {
					t.Errorf("%s is still there", test.rel)
				}
			} else if strings.HasPrefix(test.rel, objectsDir) {
				t.Errorf("variant %d of the object was not moved aside: %v", i, err)
			}
		}
		if err := os.WriteFile(s.path(test.rel), good, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := test.use(); err != nil {
			t.Errorf("%s as it was: %v", test.rel, err)
		}
	}
	// One that is put again replaces a damaged one, which is there but not given out.
	if err := os.WriteFile(s.path(r.Object.rel()), []byte("bad"), 0o644); err != nil {
		t.Fatal(err)
	}
	bound(t, s, "n", "k", content)
	if got := contents(t, s)["n@k"]; got != content {
		t.Errorf("after Put: %q", got)
	}
}

// A reference that lies where that of another key belongs is damaged, and not given out.
func TestReferenceAtAnotherPlace(t *testing.T) {
	s := fresh(t)
	data, err := os.ReadFile(s.path(bound(t, s, "a", "k1", "x").rel()))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(Ref{Name: "a", Key: "k2"}.rel()), data, 0o644); err != nil {
		t.Fatal(err)
	}
	var damage *DamagedError
	if r, found, err := s.Lookup("a", "k2"); !errors.As(err, &damage) || found {
		t.Errorf("got %+v, %v, %v; want a *DamagedError", r, found, err)
	}
}

func TestVerify(t *testing.T) {
	s := fresh(t)
	bound(t, s, "a", "1", "one")
	two := bound(t, s, "a", "2", "two")
	three := bound(t, s, "a", "3", "three")
	s.Put(text("nobody's"))
	if r, err := s.Verify(t.Context()); err != nil || r.Refs != 3 || r.Objects != 4 || r.Bytes != 19 || r.Unreferenced != 1 || len(r.Damaged)+len(r.Dangling)+len(r.Strange) != 0 {
		t.Errorf("a whole store: %+v, %v", r, err)
	}
	for path, content := range map[string]string{s.path(two.Object.rel()): "tvo", s.path(three.rel()): "{}", s.path("objects/strange"): ""} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var damage *DamagedError
	if c, err := s.GC(t.Context(), 0); !errors.As(err, &damage) || c.Objects != 0 || !strings.Contains(err.Error(), "verified") {
		t.Errorf("GC beside a damaged reference: %+v, %v", c, err)
	}
	r, err := s.Verify(t.Context())
	if err != nil || r.Refs != 2 || r.Objects != 3 || len(r.Damaged) != 2 || len(r.Dangling) != 1 || r.Dangling[0].Key != "2" || len(r.Strange) != 1 || r.Unreferenced != 2 {
		t.Errorf("a damaged store: %+v, %v", r, err)
	}
	for _, e := range r.Damaged {
		if e.MovedTo == "" {
			t.Errorf("not moved aside: %v", e)
		}
	}
	if u, err := s.Usage(); err != nil || u.Quarantined != 2 {
		t.Errorf("usage %+v, %v; want 2 in quarantine", u, err)
	}
	if c, err := s.GC(t.Context(), 0); err != nil || c.Aside != 2 || c.Objects != 3 && c.Objects != 4 {
		t.Errorf("GC afterwards: %+v, %v", c, err)
	}
}

package keep

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

func TestCell(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cell.json")
	want := Cell{Number: 3, ID: "id", Declares: []string{"x", "T~m"}, Statements: true, Show: "fmt.Println", Digest: "d"}
	if err := WriteCell(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadCell(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, content := range map[string]string{"no JSON": "{", "too large": `{"id":"` + strings.Repeat("x", maxCell) + `"}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadCell(path); !errors.Is(err, ErrCell) {
			t.Errorf("%s: error %v, want ErrCell", name, err)
		}
	}
	if _, err := ReadCell(path + "x"); !errors.Is(err, ErrCell) {
		t.Errorf("no file: error %v, want ErrCell", err)
	}
}

// leave writes variables as a cell's program would.
func leave(t *testing.T, dir string, vars ...manifest.Var) {
	t.Helper()
	m := manifest.Manifest{Vars: map[string]manifest.Var{}}
	for _, v := range vars {
		m.Vars[v.Name] = v
		if v.File != "" {
			if err := os.WriteFile(filepath.Join(dir, v.File), []byte(v.Name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names
}

func open1(t *testing.T, home string) *Notebook {
	t.Helper()
	n, err := Open(home, "/home/me/my notebook.ipynb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func TestNotebook(t *testing.T) {
	home := t.TempDir()
	n := open1(t, home)
	if rel, err := filepath.Rel(home, n.Dir); err != nil || !strings.HasPrefix(rel, "state/my-notebook-") {
		t.Errorf("directory %s", n.Dir)
	}
	if err := manifest.Own(n.Dir); err != nil {
		t.Error(err)
	}
	if _, err := Restore(n.Dir); !errors.Is(err, ErrNothingToRestore) {
		t.Errorf("error %v, want ErrNothingToRestore", err)
	}
	leave(t, n.Dir, manifest.Var{Name: "x", Type: "int", Cell: 1, Changed: 2, File: "1.value", Size: 8, Code: "f=1 x=2"},
		manifest.Var{Name: "ch", Type: "chan int", Cell: 3, Changed: 3, Reason: "a channel can't be kept"})
	if err := (Code{"x": {"var", "2", 1}, "f": {"func", "9", 4}}).Write(n.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, DeclarationsFile), []byte("package main\n\nvar x = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := List(n.Dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []Variable{
		{Name: "ch", Type: "chan int", Cell: 3, Changed: 3, Unkept: "a channel can't be kept"},
		{Name: "x", Type: "int", Cell: 1, Changed: 2, Size: 8, Stale: "func f, which it came from, changed in cell 4"},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}

	// A second kernel of the notebook has variables of its own.
	second := open1(t, home)
	if second.Dir == n.Dir {
		t.Error("two kernels share their variables")
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	// The next kernel starts clean, and brings back what the last one left if asked. One that left nothing takes nothing away.
	for range 2 {
		n = open1(t, home)
		if got := names(t, n.Dir); len(got) > 0 {
			t.Errorf("a new kernel starts with %v", got)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n = open1(t, home)
	text, err := Restore(n.Dir)
	if err != nil || text != "package main\n\nvar x = 1\n" {
		t.Errorf("restored %q, %v", text, err)
	}
	if diff := cmp.Diff([]string{"ch", "x"}, names(t, n.Dir)); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}

	// What there was meanwhile is not lost.
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = open1(t, home)
	leave(t, n.Dir, manifest.Var{Name: "meanwhile", File: "m.value"})
	if err := os.WriteFile(filepath.Join(n.Dir, DeclarationsFile), []byte("package main\n\nvar meanwhile = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{{"ch", "x"}, {"meanwhile"}, {"ch", "x"}} {
		if _, err := Restore(n.Dir); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, names(t, n.Dir)); diff != "" {
			t.Errorf("restored once more (-want +got):\n%s", diff)
		}
	}
}

func TestReset(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	leave(t, dir, manifest.Var{Name: "a", File: "a.value"}, manifest.Var{Name: "b", File: "b.value"}, manifest.Var{Name: "c", File: "b.value"},
		manifest.Var{Name: "local", Local: true, Cell: 7})
	if err := Reset(dir, "a", "nothing"); !errors.Is(err, ErrNotDeclared) || !strings.HasPrefix(err.Error(), "nothing: ") {
		t.Errorf("error %v, want ErrNotDeclared", err)
	}
	if err := MarkRerun(dir, "nothing"); !errors.Is(err, ErrNoVariable) {
		t.Errorf("error %v, want ErrNoVariable", err)
	}
	if err := MarkRerun(dir, "local"); !errors.Is(err, ErrLocal) || !strings.HasSuffix(err.Error(), "run cell 7 again") {
		t.Errorf("error %v, want ErrLocal", err)
	}
	if err := MarkRerun(dir, "b"); err != nil {
		t.Fatal(err)
	}
	if err := Reset(dir, "a", "c", "local"); err != nil {
		t.Fatal(err)
	}
	list, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Variable{{Name: "b", Rerun: true}}, list); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(dir, "a.value")); !os.IsNotExist(err) {
		t.Errorf("the value of a is still there (%v)", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "b.value")); err != nil {
		t.Error(err)
	}
	// All of them, also where the record is damaged.
	if err := os.WriteFile(filepath.Join(dir, manifest.Name), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := List(dir); !errors.Is(err, manifest.ErrDamaged) {
		t.Errorf("error %v, want ErrDamaged", err)
	}
	if err := Reset(dir); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("%v are left", got)
	}
}

func TestBound(t *testing.T) {
	state := t.TempDir()
	for i, name := range []string{"oldest", "old", "mine", "used"} {
		dir := filepath.Join(state, name)
		if err := os.MkdirAll(filepath.Join(dir, current), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, current, "x.value"), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(time.Duration(i-10) * time.Hour)
		if name == "used" {
			then = then.Add(-100 * time.Hour)
			n, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if err := os.WriteFile(filepath.Join(n.Dir, "x.value"), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir, then, then); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		limit int64
		want  []string
	}{{400, []string{"mine", "old", "oldest", "used"}}, {350, []string{"mine", "old", "used"}}, {0, []string{"mine", "used"}}} {
		if err := bound(state, filepath.Join(state, "mine"), c.limit); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(state)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("at most %d bytes (-want +got):\n%s", c.limit, diff)
		}
	}
}

// What another user could have written is not read.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	leave(t, dir, manifest.Var{Name: "a"})
	for _, mode := range []os.FileMode{0o755, 0o770, 0o707} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := List(dir); !errors.Is(err, manifest.ErrForeign) {
			t.Errorf("mode %v: error %v, want ErrForeign", mode, err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if _, err := List(link); !errors.Is(err, manifest.ErrForeign) {
		t.Errorf("a link: error %v, want ErrForeign", err)
	}
}

package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func private(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

var sample = Manifest{Vars: map[string]Var{
	"a": {Name: "a", Type: "map[string]struct{ X int \"tag\\n\" }", Layout: "1", Dynamic: "main.T=2", Code: "a=1 f=2", Noted: "said\nso", Cell: 3, Changed: 4,
		File: "x.value", Objects: "o.value p.value", Size: 1 << 40, Reason: "", Same: true, Rerun: true, Local: true},
	"ä": {Name: "ä", Reason: "a \"channel\"", Cell: -1},
}}

func TestWriteRead(t *testing.T) {
	dir := private(t)
	if m, err := Read(filepath.Join(dir, "nothing")); err != nil || len(m.Vars) != 0 {
		t.Errorf("no directory: %v, %v", m, err)
	}
	if err := sample.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := map[string]bool{"x.value": true, "o.value": true, "p.value": true}
	if diff := cmp.Diff(want, got.Files()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// A file that was cut off anywhere is found to be damaged.
func TestTorn(t *testing.T) {
	dir := private(t)
	if err := sample.Write(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, Name)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d of %d bytes: error %v, want ErrDamaged", n, len(whole), err)
		}
	}
	for _, bad := range []string{"../x.value", "/etc/passwd", "a/b.value"} {
		text := strings.Replace(string(whole), `"x.value"`, `"`+bad+`"`, 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("a file %q: error %v, want ErrDamaged", bad, err)
		}
	}
}

func TestSweep(t *testing.T) {
	dir := private(t)
	for _, name := range []string{"x.value", "old.value", TemporaryPattern + "1", "code"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"o.value", "gone.value"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "inside"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir, sample); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{"code", "o.value", "x.value"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func FuzzRead(f *testing.F) {
	dir := private(f)
	if err := sample.Write(dir); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, Name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(header + "\nend 0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := private(t)
		if err := os.WriteFile(filepath.Join(dir, Name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Read(dir)
		if err != nil {
			return
		}
		for file := range m.Files() {
			if filepath.Base(file) != file {
				t.Errorf("file %q leads elsewhere", file)
			}
		}
	})
}

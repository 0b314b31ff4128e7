package nbrun

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDestinations(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a", "n.ipynb"), filepath.Join(dir, "b", "n.ipynb")
	for _, path := range []string{a, b} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "out")
	for _, c := range []struct {
		name string
		dir  string
		same bool
		want []string
	}{
		{"in place", "", false, []string{a, b}},
		{"compared", "", true, []string{"", ""}},
	} {
		got, err := destinations([]string{a, b}, c.dir, c.same)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s (-want +got), error %v:\n%s", c.name, err, diff)
		}
	}
	var usage *UsageError
	if _, err := destinations([]string{a, b}, out, false); !errors.As(err, &usage) {
		t.Errorf("two of one name: error %v, want a *UsageError", err)
	}
	got, err := destinations([]string{a}, out, true)
	if diff := cmp.Diff([]string{filepath.Join(out, "n.ipynb")}, got); diff != "" || err != nil {
		t.Errorf("to a directory (-want +got), error %v:\n%s", err, diff)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
		t.Errorf("%v is left in the directory (error %v)", left, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var output *OutputError
	if _, err := destinations([]string{a}, filepath.Join(file, "sub"), false); !errors.As(err, &output) {
		t.Errorf("below a file: error %v, want an *OutputError", err)
	}
	var format *FormatError
	if _, err := load(dir); !errors.As(err, &format) {
		t.Errorf("a directory: error %v, want a *FormatError", err)
	}
}

package foreign

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

func TestRefuse(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"data_batch_1", "\x80\x02}q\x01(U\x0bbatch_label", "a pickle of Python"},
		{"x", "\x80\x05\x95", "a pickle of Python"},
		{"model.pkl", "(dp0\n", "a pickle of Python"}, // protocol 0
		{"a.npy", "\x93NUMPY\x01\x00v\x00{'descr': '|O'", "an array of NumPy"},
		{"named.otherwise", "\x93NUMPY\x01\x00v\x00{'descr': '|O'", "an array of NumPy"},
		{"a.npz", "PK\x03\x04", "arrays of NumPy"},
		{"m.PT", "PK\x03\x04", "a file of PyTorch"},
		{"m.pth", "", "a file of PyTorch"},
		{"x.zip", "PK\x03\x04", "a zip archive"},
		{"x.tar", "a/00.png", ""},
		{"x.tar.gz", "\x1f\x8b\x08", ""},
		{"batch.bin", "\x06\x3b\x2b", ""},
		{"later", "\x80\x06", ""}, // no such protocol
		{"x.safetensors", "\x80\x00\x00\x00\x00\x00\x00\x00{", ""},
		{"short", "\x80", ""},
	} {
		path := filepath.Join(t.TempDir(), c.name)
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		err := Refuse(path, "images", Remedy)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if !errors.Is(err, fault.ErrFormat) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) ||
			!strings.Contains(err.Error(), "safetensors") {
			t.Errorf("%s: %v, expected %q", c.name, err, c.want)
		}
	}
	if err := Refuse(filepath.Join(t.TempDir(), "none"), "images", Remedy); err != nil {
		t.Errorf("nothing there: %v", err)
	}
}

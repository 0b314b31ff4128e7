package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

func TestImageIsWholeOrRefused(t *testing.T) {
	store := plain(t, 1)
	dir := t.TempDir()
	if err := WriteImage(dir, store); err != nil {
		t.Fatal(err)
	}
	want, err := ImageDigest(store)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ReadImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ImageDigest(read); err != nil || got != want {
		t.Errorf("digest %s (%v), want %s", got, err, want)
	}
	for _, name := range []string{tensorsFile, stateFile} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, damage := range []func([]byte) []byte{
			func(b []byte) []byte { return b[:len(b)/2] },
			func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			func([]byte) []byte { return nil },
		} {
			if err := os.WriteFile(path, damage(append([]byte(nil), whole...)), 0o600); err != nil {
				t.Fatal(err)
			}
			var file *FileError
			if _, err := ReadImage(dir); !errors.As(err, &file) {
				t.Errorf("%s damaged: error %v, want a *FileError", name, err)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImageOfWhatCannotBeKept(t *testing.T) {
	store := model.NewStore()
	store.VariableWithShape("/w", shapes.Make(dtypes.Float32, 2), func(g *graph.Graph, shape shapes.Shape) *graph.Node { return graph.Zeros(g, shape) })
	if _, err := ImageDigest(store); !errors.Is(err, ErrImage) {
		t.Errorf("error %v of a variable without a value, want ErrImage", err)
	}
	store = plain(t, 1)
	store.SetParam("/callback", struct{}{})
	if err := WriteImage(t.TempDir(), store); !errors.Is(err, ErrImage) {
		t.Errorf("error %v of a hyperparameter of an odd type, want ErrImage", err)
	}
}

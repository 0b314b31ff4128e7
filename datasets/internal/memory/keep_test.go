package memory

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

func TestKept(t *testing.T) {
	contents := Contents{Name: "n", Part: "train", Height: 2, Width: 1, Channels: 1, Inputs: []uint8{1, 2, 3, 4, 5, 6}, Labels: []int32{0, 1, 0}, ClassNames: []string{"a", "b"}}
	d, err := New(contents, true, 2, 9)
	if err != nil {
		t.Fatal(err)
	}
	for range d.Iter() {
	}
	examples, view := t.TempDir(), t.TempDir()
	if err := errors.Join(d.data.KeepSave(examples), d.KeepSave(view)); err != nil {
		t.Fatal(err)
	}
	var got Dataset
	*got.KeepRefs()[0].(**shared) = new(shared)
	if err := errors.Join(got.data.KeepLoad(examples), got.KeepLoad(view)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents, got.data.Contents); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
	before, _ := d.KeepDigest()
	after, _ := got.KeepDigest()
	if before != after || got.Digest() != digest(&contents) {
		t.Errorf("digest %q before and %q after", before, after)
	}
	if diff := cmp.Diff(d.Order(1), got.Order(1)); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	for range d.Iter() {
	}
	if next, _ := d.KeepDigest(); next == before {
		t.Error("the digest does not tell one epoch from the next")
	}

	if err := os.WriteFile(filepath.Join(examples, inputsFile), []byte{1, 2, 3}, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := new(shared).KeepLoad(examples); !errors.Is(err, fault.ErrFormat) {
		t.Errorf("error %v of a file that is too short, want ErrFormat", err)
	}
}

package mask

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/params"
)

func store(t testing.TB, dims ...int) (*model.Store, params.Set) {
	t.Helper()
	s := model.NewStore()
	if _, err := s.CreateVariable("/fc/weights", tensors.FromScalarAndDimensions(float32(1), dims...)); err != nil {
		t.Fatal(err)
	}
	return s, params.Select(s, nil)
}

func TestMaskIsNeverTrainable(t *testing.T) {
	s, set := store(t, 2, 2)
	for range 2 {
		v, err := Variable(s, set[0])
		if err != nil {
			t.Fatal(err)
		}
		if v.Trainable || v.Path() != "/pruning/mask/fc/weights" {
			t.Errorf("%s is trainable: %t", v.Path(), v.Trainable)
		}
		v.SetTrainable(true) // as GoMLX's checkpoints leave it
	}
}

func TestSetCountBools(t *testing.T) {
	s, set := store(t, 2, 2)
	stats, err := Count(s, set)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Stats{{"/fc/weights", 4, 4}}, stats); diff != "" {
		t.Errorf("without a mask all is alive (-want +got):\n%s", diff)
	}
	want := []bool{true, false, false, false}
	if err := Set(s, set[0], want); err != nil {
		t.Fatal(err)
	}
	got, err := Bools(s, set[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if stats, err = Count(s, set); err != nil || Sparsity(stats) != 0.75 {
		t.Errorf("%+v, %v; want 1 of 4 alive", stats, err)
	}
	if Sparsity(nil) != 0 {
		t.Error("nothing is not sparse")
	}
	var shape *ShapeError
	if err := Set(s, set[0], want[:3]); !errors.As(err, &shape) {
		t.Errorf("a mask that is too short: %v", err)
	}
	other := set[0]
	other.Shape.Dimensions = []int{4, 1}
	if _, err := Variable(s, other); !errors.As(err, &shape) {
		t.Errorf("a mask of another shape: %v", err)
	}
}

func TestDiff(t *testing.T) {
	a, b := []bool{true, true, false, false}, []bool{true, false, true, false}
	if got, want := Diff(a, b), (Difference{Hamming: 2, Jaccard: 1.0 / 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := Diff([]bool{false}, []bool{false}); got.Jaccard != 1 {
		t.Errorf("two dead masks: %+v", got)
	}
}

// A dead NaN does not survive, as it would in w·mask.
func TestApply(t *testing.T) {
	b, _, err := backend.OpenWith(func(key string) string { return map[string]string{"GOMLX_BACKEND": "go"}[key] })
	if err != nil {
		t.Fatal(err)
	}
	nan := float32(math.NaN())
	got := graph.MustExecOnce(b, Apply, []float32{1, nan, -3, 4}, []bool{true, false, false, true}).Value()
	if diff := cmp.Diff([]float32{1, 0, 0, 4}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func saved(t testing.TB, s *model.Store, set params.Set) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Save(&b, s, set); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFileRoundTrip(t *testing.T) {
	s, set := store(t, 3, 7) // 21 bits: not whole bytes
	want := make([]bool, 21)
	for i := range want {
		want[i] = i%3 == 0
	}
	if err := Set(s, set[0], want); err != nil {
		t.Fatal(err)
	}
	data := saved(t, s, set)
	fresh, freshSet := store(t, 3, 7)
	if err := Load(bytes.NewReader(data), fresh, freshSet); err != nil {
		t.Fatal(err)
	}
	got, err := Bools(fresh, freshSet[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !bytes.Equal(data, saved(t, fresh, freshSet)) {
		t.Error("the same masks gave other bytes")
	}
}

func TestDamagedFilesAreRefused(t *testing.T) {
	s, set := store(t, 8, 8)
	data := saved(t, s, set)
	for i := range 64 {
		at := i * len(data) / 64
		flipped := bytes.Clone(data)
		flipped[at] ^= 0x10
		for what, damaged := range map[string][]byte{"truncated": data[:at], "flipped": flipped} {
			if err := Load(bytes.NewReader(damaged), s, set); !errors.Is(err, ErrFormat) {
				t.Errorf("%s at %d: got %v, want ErrFormat", what, at, err)
			}
		}
	}
}

func TestMasksOfAnotherNetworkAreRefused(t *testing.T) {
	s, set := store(t, 2, 3)
	data := saved(t, s, set)
	other, otherSet := store(t, 3, 2)
	var mismatch *MismatchError
	if err := Load(bytes.NewReader(data), other, otherSet); !errors.As(err, &mismatch) || len(mismatch.Problems) != 1 {
		t.Errorf("got %v, want a *MismatchError with one problem", err)
	}
	if other.GetVariable(Path(otherSet[0])) != nil {
		t.Error("something was changed")
	}
	large, largeSet := store(t, 4000, 4000)
	if err := Load(bytes.NewReader(saved(t, large, largeSet)), s, set); !errors.As(err, &mismatch) {
		t.Errorf("a file that is too large: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	s, set := store(f, 2, 3)
	f.Add(saved(f, s, set))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, set := store(t, 2, 3)
		_ = Load(bytes.NewReader(data), s, set) // must not panic
	})
}

package mask

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/params"
)

// sealed returns a file with any header and bits, and the digest of them: what somebody writes who knows the format.
func sealed(header string, bits ...byte) []byte {
	return digested(binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(header))), []byte(header), bits)
}

func digested(parts ...[]byte) []byte {
	data := bytes.Join(parts, nil)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// two returns a network of two parameters, 2x3 and 2.
func two(t testing.TB) (*model.Store, params.Set) {
	t.Helper()
	s := model.NewStore()
	for path, dims := range map[string][]int{"/a/weights": {2, 3}, "/b/weights": {2, 1}} {
		if _, err := s.CreateVariable(path, tensors.FromScalarAndDimensions(float32(1), dims...)); err != nil {
			t.Fatal(err)
		}
	}
	return s, params.Select(s, nil)
}

const (
	headerA = `{"path":"/a/weights","shape":[2,3],"kept":3}`
	headerB = `{"path":"/b/weights","shape":[2,1],"kept":1}`
)

// A right digest is no proof that a file is right: anyone can write one. What it says twice, or not quite, is refused, nothing is set, and little allocated.
func TestFilesThatLie(t *testing.T) {
	store, set := two(t)
	good := sealed("["+headerA+","+headerB+"]", 0b10101, 0b10)
	if err := Load(bytes.NewReader(good), store, set); err != nil {
		t.Fatal(err)
	}
	got, err := Bools(store, set[0])
	if diff := cmp.Diff([]bool{true, false, true, false, true, false}, got); diff != "" || err != nil {
		t.Fatalf("%v, -want +got\n%s", err, diff)
	}
	many := func(one string, n int) []byte {
		return sealed("[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]")
	}
	for _, c := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"a mask twice", sealed("["+headerA+","+headerA+","+headerB+"]", 0b10101, 0b10101, 0b10), "at byte 149: not a whole mask file: it has two masks of /a/weights"},
		{"2^31 weights", sealed(`[{"path":"/a/weights","shape":[2147483648],"kept":1}]`, 1), "has shape [2147483648] in the 1 bytes left"},
		{"a product above 2^64", sealed(`[{"path":"/a/weights","shape":[4294967296,4294967296,2],"kept":1}]`, 1), "has shape"},
		{"a dimension of 0", sealed(`[{"path":"/a/weights","shape":[0,3],"kept":0}]`), "has shape [0 3]"},
		{"a dimension below 0", sealed(`[{"path":"/a/weights","shape":[-2,-3],"kept":3}]`, 0b10101), "has shape [-2 -3]"},
		{"a dimension of half", sealed(`[{"path":"/a/weights","shape":[2.5],"kept":3}]`, 0b10101), "cannot unmarshal"},
		{"more alive than it says", sealed("["+headerA+","+headerB+"]", 0b11101, 0b10), "/a/weights has 4 living weights, its header says 3"},
		{"bits behind the end", sealed("["+headerA+","+headerB+"]", 0b1000011, 0b10), "at byte 103: not a whole mask file: /a/weights has bits behind its end"},
		{"bytes behind the end", sealed("["+headerA+","+headerB+"]", 0b10101, 0b10, 0), "1 bytes behind the last mask"},
		{"bits missing", sealed("["+headerA+","+headerB+"]", 0b10101), "/b/weights has shape [2 1] in the 0 bytes left"},
		{"a header beyond the file", digested([]byte(magic), []byte{255, 255, 255, 255}, []byte("[]")), "at byte 8: not a whole mask file: a header of 4294967295 bytes"},
		{"no header", digested([]byte(magic), []byte{0, 0, 0, 0}), "unexpected end of JSON input"},
		{"another version", digested([]byte("ESPMASK2"), []byte{2, 0, 0, 0}, []byte("[]")), `no "ESPMASK1" at the start`},
		{"a short rest", []byte("ESPMASK1\x02\x00\x00\x00"), "it was cut off"},
		{"a pickle", append([]byte("\x80\x02}q\x01."), make([]byte, 64)...), `no "ESPMASK1" at the start`},
		{"many nothings", many("{}", 80_000), "it ends within"},
		{"many axes", many(`{"shape":[`+strings.TrimSuffix(strings.Repeat("1,", 120_000), ",")+"]}", 1), "has shape"},
		{"deep", sealed(strings.Repeat("[", 200_000)), "exceeded max depth"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "masks")
			if err := os.WriteFile(path, c.content, 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err = Load(f, store, set)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > uint64(2*len(c.content)+64<<20) {
				t.Errorf("a file of %d bytes made %d bytes be allocated", len(c.content), n)
			}
			var typed *FormatError
			if !errors.Is(err, ErrFormat) || !errors.As(err, &typed) || typed.File != path || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 1000 {
				t.Errorf("%v, expected a *FormatError of %s with %q", err, path, c.want)
			}
			if now := saved(t, store, set); !bytes.Equal(now, good) {
				t.Error("something was changed")
			}
		})
	}
}

// Masks of other networks are told apart, whatever their number, and always in the same words.
func TestMasksOfOtherParameters(t *testing.T) {
	store, set := two(t)
	for name, c := range map[string]struct {
		content []byte
		want    []string
	}{
		"one missing": {sealed("["+headerA+"]", 0b10101), []string{"/b/weights: expected [2 1], not in the file"}},
		"others": {sealed(`[{"path":"/z","shape":[1],"kept":1},{"path":"/a/weights","shape":[3,2],"kept":3},`+headerB+`,{"path":"/y","shape":[1],"kept":0}]`, 1, 0b10101, 0b10, 0),
			[]string{"/a/weights: expected [2 3], found [3 2]", "/y: found [1], the network has no such parameter", "/z: found [1], the network has no such parameter"}},
		"none": {sealed("null"), []string{"/a/weights: expected [2 3], not in the file", "/b/weights: expected [2 1], not in the file"}},
	} {
		err := Load(bytes.NewReader(c.content), store, set)
		var mismatch *MismatchError
		if !errors.As(err, &mismatch) {
			t.Errorf("%s: %v, expected a *MismatchError", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, mismatch.Problems); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
		for _, p := range set {
			if store.GetVariable(Path(p)) != nil {
				t.Errorf("%s: %s was changed", name, p.Path)
			}
		}
	}
}

// FuzzSealed seals what the fuzzer makes, so that it reaches behind the digest. Whatever is read is written as the same bits.
func FuzzSealed(f *testing.F) {
	f.Add("["+headerA+","+headerB+"]", []byte{0b10101, 0b10})
	f.Add("["+headerA+","+headerA+"]", []byte{0b10101, 0b10101})
	f.Add(`[{"path":"/a/weights","shape":[4294967296,4294967296],"kept":3}]`, []byte{0b10101})
	f.Add(`[{"path":"/a/weights","shape":[],"kept":1}]`, []byte{1})
	f.Add(`null`, []byte{})
	store, set := two(f)
	f.Fuzz(func(t *testing.T, header string, bits []byte) {
		err := Load(bytes.NewReader(sealed(header, bits...)), store, set)
		var mismatch *MismatchError
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.As(err, &mismatch) {
				t.Errorf("%v is neither a *FormatError nor a *MismatchError", err)
			}
			return
		}
		again := saved(t, store, set)
		if kept := again[len(again)-sha256.Size-2 : len(again)-sha256.Size]; !bytes.Equal(kept, bits) && !bytes.Equal(kept, []byte{bits[1], bits[0]}) {
			t.Errorf("bits %v came back as %v", bits, kept)
		}
	})
}

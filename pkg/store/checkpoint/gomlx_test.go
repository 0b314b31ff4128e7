package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"
	gomlx "github.com/gomlx/gomlx/ml/model/checkpoint"
	"github.com/google/go-cmp/cmp"
)

var bigShape = shapes.Make(dtypes.Float32, 1000, 2500) // 10 MB

// saveTheirs writes two checkpoints with GoMLX's own package.
func saveTheirs(t *testing.T, dir string, format gomlx.BinFormat) {
	t.Helper()
	handler, err := gomlx.Build(model.NewStore()).Dir(dir).WithCompression(format).Keep(5).Done()
	if err != nil {
		t.Fatal(err)
	}
	_ = handler
	for seed := 1; seed <= 2; seed++ {
		handler, err := gomlx.Build(plain(t, seed)).Dir(filepath.Join(dir, "one")).WithCompression(format).Keep(5).Done()
		if err != nil {
			t.Fatal(err)
		}
		// A handler that found a checkpoint would load it over the values of this seed.
		if err := handler.Save(); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "one", "checkpoint-*"))
		if err != nil || len(files) != 2 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			if err := os.Rename(f, filepath.Join(dir, strings.Replace(filepath.Base(f), "n0000000", "n000000"+string(rune('0'+seed)), 1))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// plain is network without the variable of no elements, which GoMLX's reader takes for the end of the file.
func plain(t testing.TB, seed int) *model.Store {
	store := network(t, seed)
	if err := store.DeleteVariable("/empty"); err != nil {
		t.Fatal(err)
	}
	return store
}

func TestLoadGoMLX(t *testing.T) {
	for _, format := range []gomlx.BinFormat{gomlx.BinGZIP, gomlx.BinUncompressed} {
		dir := t.TempDir()
		if err := LoadGoMLX(dir, plain(t, 1), nil); !errors.Is(err, ErrNone) {
			t.Errorf("%s: nothing there: %v, want ErrNone", format, err)
		}
		saveTheirs(t, dir, format)
		store := plain(t, 9)
		if err := LoadGoMLX(dir, store, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(words(t, plain(t, 2)), words(t, store)); diff != "" {
			t.Errorf("%s: -want +got\n%s", format, diff)
		}
		var mismatch *MismatchError
		if err := LoadGoMLX(dir, network(t, 1), nil); !errors.As(err, &mismatch) || len(mismatch.Problems) != 1 {
			t.Errorf("%s: another network: %v, want a *MismatchError of one variable", format, err)
		}
	}
}

func TestSaveGoMLX(t *testing.T) {
	dir := t.TempDir()
	if err := SaveGoMLX(dir, plain(t, 3)); err != nil {
		t.Fatal(err)
	}
	store := model.NewStore()
	if _, err := gomlx.Build(store).Dir(dir).Immediate().Done(); err != nil {
		t.Fatal(err)
	}
	got, want := words(t, store), words(t, plain(t, 3))
	for path := range want { // GoMLX makes all variables trainable
		want[path] = strings.Replace(want[path], " false", " true", 1)
	}
	for path := range got {
		got[path] = strings.Replace(got[path], " false", " true", 1)
	}
	want["/fc/mask"], got["/fc/mask"] = "", ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("GoMLX reads: -want +got\n%s", diff)
	}
	again := plain(t, 9)
	if err := LoadGoMLX(dir, again, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(words(t, plain(t, 3)), words(t, again)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	var failed *SaveError
	if err := SaveGoMLX(dir, plain(t, 4)); !errors.As(err, &failed) {
		t.Errorf("over another checkpoint: %v, want a *SaveError", err)
	}
}

// What makes GoMLX's reader panic or die is an error here, or the checkpoint before is loaded.
func TestDamagedGoMLX(t *testing.T) {
	dir := t.TempDir()
	saveTheirs(t, dir, gomlx.BinUncompressed)
	lists, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	newest := lists[1]
	whole, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	change := func(edit func(l *theirs)) []byte {
		var l theirs
		if err := json.Unmarshal(whole, &l); err != nil {
			t.Fatal(err)
		}
		edit(&l)
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for what, text := range map[string][]byte{
		"empty":               nil,
		"null":                []byte("null"),
		"a list":              []byte("[]"),
		"nothing in it":       []byte("{}"),
		"cut off":             whole[:len(whole)/2],
		"negative dimension":  change(func(l *theirs) { l.Variables[0].Dimensions = []int{-1} }),
		"huge dimension":      change(func(l *theirs) { l.Variables[0].Dimensions = []int{1 << 40}; l.Variables[0].Length = 1 << 42 }),
		"overflow":            change(func(l *theirs) { l.Variables[0].Dimensions = []int{1 << 32, 1 << 32, 1 << 32} }),
		"no type":             change(func(l *theirs) { l.Variables[0].DType = dtypes.InvalidDType }),
		"out of order":        change(func(l *theirs) { l.Variables[0], l.Variables[1] = l.Variables[1], l.Variables[0] }),
		"another length":      change(func(l *theirs) { l.Variables[0].Length++ }),
		"one missing":         change(func(l *theirs) { l.Variables = l.Variables[:len(l.Variables)-1] }),
		"a strange name":      change(func(l *theirs) { l.Variables[0].ParameterName = "x" }),
		"the same name twice": change(func(l *theirs) { l.Variables[1].ParameterName = l.Variables[0].ParameterName }),
	} {
		if err := os.WriteFile(newest, text, 0o600); err != nil {
			t.Fatal(err)
		}
		store, warned := plain(t, 9), 0
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := LoadGoMLX(dir, store, func(error) { warned++ })
		runtime.ReadMemStats(&after)
		if err != nil || warned != 1 {
			t.Errorf("%s: %v, %d warnings; want the one before, and one", what, err, warned)
			continue
		}
		if diff := cmp.Diff(words(t, plain(t, 1)), words(t, store)); diff != "" {
			t.Errorf("%s: -want +got\n%s", what, diff)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%s: %d bytes allocated", what, used)
		}
	}
	if err := os.Remove(lists[0]); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if err := LoadGoMLX(dir, plain(t, 1), nil); !errors.As(err, &damaged) {
		t.Errorf("none is whole: %v, want a *DamagedError", err)
	}
}

// Wherever a file of GoMLX's newest checkpoint is cut off or changed, what is loaded is that one or the one before, or nothing.
func TestGoMLXCutAndFlipped(t *testing.T) {
	for _, format := range []gomlx.BinFormat{gomlx.BinGZIP, gomlx.BinUncompressed} {
		dir := t.TempDir()
		saveTheirs(t, dir, format)
		files, err := filepath.Glob(filepath.Join(dir, "checkpoint-n0000002*"))
		if err != nil || len(files) != 2 {
			t.Fatal(files, err)
		}
		for _, path := range files {
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 64 {
				at := i * len(whole) / 64
				for what, damaged := range map[string][]byte{
					"cut off": whole[:at],
					"flipped": append(append(bytes.Clone(whole[:at]), whole[at]^1<<(i%8)), whole[at+1:]...),
				} {
					if what == "flipped" && format == gomlx.BinUncompressed && filepath.Ext(path) == ".bin" {
						continue // has no checksum
					}
					if err := os.WriteFile(path, damaged, 0o600); err != nil {
						t.Fatal(err)
					}
					store, warned := plain(t, 9), 0
					err := LoadGoMLX(dir, store, func(error) { warned++ })
					want := plain(t, 2-warned)
					var mismatch *MismatchError
					if errors.As(err, &mismatch) { // of a name or a type
						want, err = plain(t, 9), nil
					}
					if err != nil {
						t.Errorf("%s, %s %s at %d: %v", format, filepath.Ext(path), what, at, err)
					}
					if diff := cmp.Diff(words(t, want), words(t, store)); diff != "" {
						t.Errorf("%s, %s %s at %d: -want +got\n%s", format, filepath.Ext(path), what, at, diff)
					}
				}
			}
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Whatever its bytes, a list of GoMLX's is read or refused.
func FuzzGoMLX(f *testing.F) {
	f.Add([]byte(`{"Variables":[{"ParameterName":"var:/a","Dimensions":[2],"DType":2,"Pos":0,"Length":8}]}`), []byte("12345678"))
	f.Add([]byte(`null`), []byte(theirMagic))
	f.Add([]byte(`{"Variables":[{"ParameterName":"var:/a","Dimensions":[-2],"DType":99,"Pos":0,"Length":-8}]}`), []byte{})
	f.Fuzz(func(t *testing.T, list, body []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "checkpoint-n1.json")
		if err := os.WriteFile(path, list, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(strings.TrimSuffix(path, ".json")+".bin", body, 0o600); err != nil {
			t.Fatal(err)
		}
		content, err := readTheirs(path)
		if err != nil {
			return
		}
		size := 0
		for _, v := range content {
			size += int(v.Shape().ByteSize())
		}
		if !bytes.HasPrefix(body, []byte(theirMagic)) && size != len(body) {
			t.Errorf("%d bytes of values from %d", size, len(body))
		}
	})
}

// Whatever its bytes, a checkpoint is read or refused.
func FuzzRead(f *testing.F) {
	d := Dir{Path: f.TempDir()}
	mustSave(f, d, 1)
	dir := filepath.Join(d.Path, "step-000000001")
	state, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		f.Fatal(err)
	}
	tensors, err := os.ReadFile(filepath.Join(dir, tensorsFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(state, tensors)
	f.Add([]byte(`{"version":2,"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","state":{}}`), tensors)
	f.Fuzz(func(t *testing.T, state, tensors []byte) {
		dir := t.TempDir()
		if os.WriteFile(filepath.Join(dir, stateFile), state, 0o600) != nil || os.WriteFile(filepath.Join(dir, tensorsFile), tensors, 0o600) != nil {
			t.Fatal("could not be written")
		}
		s, content, err := read(dir)
		if err != nil {
			return
		}
		if len(content) < len(s.Masks) {
			t.Error("masks are missing")
		}
	})
}

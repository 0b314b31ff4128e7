package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// network returns a store with a variable of each kind; the values are a function of seed.
func network(t testing.TB, seed int) *model.Store {
	t.Helper()
	store := model.NewStore()
	for path, value := range map[string]any{
		"/fc/weights":      [][]float32{{float32(seed), 1, 2}, {3, 4, 5}},
		"/fc/mask":         [][]bool{{seed%2 == 0, false, true}, {true, true, true}},
		"/fc/biases":       []float64{float64(seed)},
		"/global_step":     int64(seed),
		"/rngState":        []uint64{uint64(seed), 7, 8},
		"/batch_norm/mean": []float32{0.5},
	} {
		v, err := store.CreateVariable(path, tensors.MustFromAnyValue(value))
		if err != nil {
			t.Fatal(err)
		}
		v.SetTrainable(strings.HasPrefix(path, "/fc/") && path != "/fc/mask")
	}
	v, err := store.CreateVariable("/empty", tensors.FromShape(shapes.Make(dtypes.Float32, 0)))
	if err != nil {
		t.Fatal(err)
	}
	v.SetTrainable(false)
	return store
}

// words is a store's values by path, in words.
func words(t testing.TB, store *model.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for v := range store.IterVariables() {
		value, err := v.Value()
		if err != nil {
			t.Fatal(err)
		}
		all[v.Path()] = fmt.Sprint(value.Value(), v.Trainable)
	}
	return all
}

func mustSave(t testing.TB, d Dir, seed int) {
	t.Helper()
	if err := d.Save(network(t, seed), State{Step: seed}); err != nil {
		t.Fatal(err)
	}
}

func quiet(dir string) Dir { return Dir{Path: dir, Warn: func(error) {}} }

func TestSaveAndLoad(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "deep", "run")}
	if _, err := d.Load(network(t, 1)); !errors.Is(err, ErrNone) {
		t.Errorf("before anything was saved: %v, want ErrNone", err)
	}
	want := State{Step: 3, Recipe: "magnitude", Seed: 5, Position: 17, Extra: json.RawMessage(`{"losses":[1.5]}`)}
	if err := d.Save(network(t, 3), want); err != nil {
		t.Fatal(err)
	}
	store := network(t, 1)
	for v := range store.IterVariables() {
		v.SetTrainable(!v.Trainable)
	}
	got, err := d.Load(store)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state: -want +got\n%s", diff)
	}
	if diff := cmp.Diff(words(t, network(t, 3)), words(t, store)); diff != "" {
		t.Errorf("variables: -want +got\n%s", diff)
	}
	// The digests are those of the parts of the file, one after the other, and the mask is one bit a weight: 1 0 1 1 1 1 from the lowest bit on, if the seed is even.
	text, err := os.ReadFile(filepath.Join(d.Path, "step-000000003", stateFile))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ State saved }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(d.Path, "step-000000003", tensorsFile))
	if err != nil {
		t.Fatal(err)
	}
	body := 8 + binary.LittleEndian.Uint64(data)
	wantSums := digests{headerKey: sumOf(data[:body])}
	for _, part := range []struct {
		path string
		size uint64
	}{{"/batch_norm/mean", 4}, {"/empty", 0}, {"/fc/biases", 8}, {"/fc/weights", 24}, {"/global_step", 8}, {"/rngState", 24}} {
		wantSums[part.path] = sumOf(data[body : body+part.size])
		body += part.size
	}
	if diff := cmp.Diff(wantSums, file.State.Tensors); diff != "" || body != uint64(len(data)) {
		t.Errorf("digests, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(bits{[]int{2, 3}, []byte{0b111100}}, file.State.Masks["/fc/mask"]); diff != "" {
		t.Errorf("mask: -want +got\n%s", diff)
	}
}

func TestVariablesThatTheStoreLacks(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	mustSave(t, d, 2)
	store := network(t, 1)
	for _, path := range []string{"/global_step", "/fc/mask"} {
		if err := store.DeleteVariable(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Load(store); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(words(t, network(t, 2)), words(t, store)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestAnotherNetworkIsNotTouched(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	mustSave(t, d, 2)
	store := network(t, 1)
	for path, value := range map[string]any{"/fc/weights": []float32{1}, "/fc/biases": nil, "/new": []int32{1, 2}} {
		if store.GetVariable(path) != nil {
			if err := store.DeleteVariable(path); err != nil {
				t.Fatal(err)
			}
		}
		if value == nil {
			continue
		}
		if _, err := store.CreateVariable(path, tensors.MustFromAnyValue(value)); err != nil {
			t.Fatal(err)
		}
	}
	before := words(t, store)
	_, err := d.Load(store)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) {
		t.Fatalf("got %v, want a *MismatchError", err)
	}
	want := []string{
		"/fc/weights: expected (Float32)[1], found (Float32)[2, 3]",
		"/new: expected (Int32)[2], not in the checkpoint",
		"/fc/biases: not in the network, found (Float64)[1]",
	}
	if diff := cmp.Diff(want, mismatch.Problems); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(before, words(t, store)); diff != "" {
		t.Errorf("it changed the store:\n%s", diff)
	}
}

// Wherever a file of the newest checkpoint is cut off or changed, the one before is loaded, and one is told; or, where the change says nothing else, the newest itself.
func TestDamage(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	warned := 0
	d.Warn = func(err error) {
		warned++
		if !strings.Contains(err.Error(), d.Path) {
			t.Errorf("the warning names no file: %v", err)
		}
	}
	mustSave(t, d, 1)
	mustSave(t, d, 2)
	for _, name := range []string{tensorsFile, stateFile} {
		path := filepath.Join(d.Path, "step-000000002", name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			at := i * len(whole) / 64
			for what, damaged := range map[string][]byte{
				"cut off": whole[:at],
				"flipped": append(append(bytes.Clone(whole[:at]), whole[at]^0x20), whole[at+1:]...),
				"zeroed":  append(append(bytes.Clone(whole[:at]), 0), whole[at+1:]...),
			} {
				if bytes.Equal(whole, damaged) {
					continue
				}
				if err := os.WriteFile(path, damaged, 0o600); err != nil {
					t.Fatal(err)
				}
				warned = 0
				store := network(t, 9)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				s, err := d.Load(store)
				runtime.ReadMemStats(&after)
				if err != nil {
					t.Fatalf("%s %s at %d: %v", name, what, at, err)
				}
				// A key in other letters is the same key to encoding/json, and then nothing is damaged.
				if s.Step != 2-warned {
					t.Errorf("%s %s at %d: step %d after %d warnings", name, what, at, s.Step, warned)
				}
				if diff := cmp.Diff(words(t, network(t, s.Step)), words(t, store)); diff != "" {
					t.Errorf("%s %s at %d: -want +got\n%s", name, what, at, diff)
				}
				if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
					t.Errorf("%s %s at %d: %d bytes allocated", name, what, at, used)
				}
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A header that gives a tensor another shape of as many bytes is damage, as its digest tells.
func TestDamagedHeader(t *testing.T) {
	d := quiet(t.TempDir())
	mustSave(t, d, 1)
	path := filepath.Join(d.Path, "step-000000001", tensorsFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(whole, []byte(`"shape":[2,3]`), []byte(`"shape":[3,2]`), 1)
	if bytes.Equal(whole, other) {
		t.Fatal("the header has no shape [2,3]")
	}
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if _, err := d.Load(model.NewStore()); !errors.As(err, &damaged) {
		t.Errorf("got %v, want a *DamagedError", err)
	}
}

// A small file can't take much memory, and what could not be loaded is not saved.
func TestMoreMasksThanANetworkHas(t *testing.T) {
	const n = maxMasks + 4096
	for size, want := range map[int]bool{n - maxMasks - 8: false, n - maxMasks: true} {
		masks := map[string]bits{"/a": {Shape: []int{8}, Bits: make([]byte, 1)}, "/b": {Shape: []int{n - 8}, Bits: make([]byte, n/8-1)}}
		if err := checkMasks(masks, size); (err == nil) != want {
			t.Errorf("%d elements next to %d bytes: %v", n, size, err)
		}
	}
	d := Dir{Path: t.TempDir()}
	mustSave(t, d, 1)
	store := model.NewStore()
	if _, err := store.CreateVariable("/masks", tensors.FromFlatDataAndDimensions(make([]bool, maxMasks+8), maxMasks+8)); err != nil {
		t.Fatal(err)
	}
	var failed *SaveError
	if err := d.Save(store, State{Step: 2}); !errors.As(err, &failed) || !strings.Contains(err.Error(), "Boolean") {
		t.Errorf("got %v, want a *SaveError", err)
	}
	if steps, err := d.Steps(); err != nil || len(steps) != 1 {
		t.Errorf("checkpoints of %v, %v; want the first alone", steps, err)
	}
}

func TestNoneIsWhole(t *testing.T) {
	d := quiet(t.TempDir())
	mustSave(t, d, 1)
	if err := os.Remove(filepath.Join(d.Path, "step-000000001", tensorsFile)); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if _, err := d.Load(network(t, 1)); !errors.As(err, &damaged) || len(damaged.Errs) != 1 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want a *DamagedError with one cause, that a file is missing", err)
	}
}

func TestOtherVersionsAreRefusedByName(t *testing.T) {
	for _, state := range []string{`{"version":4,"something":[]}`, `{"Version":1,"Step":4,"Digest":"x"}`} {
		d := quiet(t.TempDir())
		dir := filepath.Join(d.Path, "step-000000004")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
		var refused *VersionError
		if _, err := d.Load(network(t, 1)); !errors.As(err, &refused) || refused.Got == version {
			t.Errorf("%s: got %v, want a *VersionError", state, err)
		}
	}
}

// Version 2 had one digest, of the file of tensors.
func TestVersion2IsRead(t *testing.T) {
	d := quiet(t.TempDir())
	mustSave(t, d, 1)
	mustSave(t, d, 2)
	dir := filepath.Join(d.Path, "step-000000002")
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, tensorsFile))
	if err != nil {
		t.Fatal(err)
	}
	for sum, want := range map[string]int{sumOf(data): 2, sumOf(nil): 1, "": 1} {
		var outer envelope
		var inner map[string]any
		if err := errors.Join(json.Unmarshal(text, &outer), json.Unmarshal(outer.State, &inner)); err != nil {
			t.Fatal(err)
		}
		inner["tensors"] = sum
		state, err := json.Marshal(inner)
		if err != nil {
			t.Fatal(err)
		}
		older, err := json.Marshal(envelope{2, sumOf(state), state})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, older, 0o600); err != nil {
			t.Fatal(err)
		}
		store := network(t, 9)
		if s, err := d.Load(store); err != nil || s.Step != want {
			t.Errorf("digest %.8q: step %d, %v; want %d", sum, s.Step, err, want)
		}
		if diff := cmp.Diff(words(t, network(t, want)), words(t, store)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}

// The newest is that of the highest step, whatever the clock said when it was written; of the same step, the one that was saved last.
func TestOrder(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	for _, step := range []int{9, 10} {
		mustSave(t, d, step)
	}
	for name, year := range map[string]int{"step-000000009": 2100, "step-000000010": 1970} {
		at := time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(filepath.Join(d.Path, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	load := func(wantStep, wantSeed int) {
		t.Helper()
		store := network(t, 1)
		s, err := d.Load(store)
		if err != nil || s.Step != wantStep {
			t.Fatalf("step %d, %v; want %d", s.Step, err, wantStep)
		}
		if diff := cmp.Diff(words(t, network(t, wantSeed)), words(t, store)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	load(10, 10)
	for seed := 20; seed < 32; seed++ { // past edition 9, whose name sorts after that of 10
		if err := d.Save(network(t, seed), State{Step: 10}); err != nil {
			t.Fatal(err)
		}
		load(10, seed)
	}
	if entries, err := os.ReadDir(d.Path); err != nil || len(entries) != 2 {
		t.Errorf("%d kept, %v; want 2", len(entries), err)
	}
	steps, err := d.Steps()
	if diff := cmp.Diff([]int{10}, steps); diff != "" || err != nil {
		t.Errorf("%v -want +got\n%s", err, diff)
	}
}

func TestKeep(t *testing.T) {
	for keep, want := range map[int][]int{0: {5, 4}, 1: {5, 4}, 4: {5, 4, 3, 2}} {
		d := Dir{Path: t.TempDir(), Keep: keep}
		for step := 1; step <= 5; step++ {
			mustSave(t, d, step)
		}
		got, err := d.Steps()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("keep %d: %v -want +got\n%s", keep, err, diff)
		}
	}
}

var errFault = errors.New("fault")

// A program that is killed before any one of the steps of a save leaves a run that can be loaded, at the old step or the new; and the next save clears up.
func TestKilledAtEachStep(t *testing.T) {
	for n := 0; ; n++ {
		d := Dir{Path: t.TempDir(), Warn: func(err error) { t.Errorf("killed before step %d: damaged: %v", n, err) }}
		mustSave(t, d, 1)
		mustSave(t, d, 2)
		left := n
		killed := d
		killed.files.Before = func(durable.Op, string) error {
			if left == 0 {
				return errFault // and so does everything after it
			}
			left--
			return nil
		}
		err := killed.Save(network(t, 3), State{Step: 3})
		if err == nil {
			if n < 12 {
				t.Fatalf("a save has only %d steps", n)
			}
			break
		}
		store := network(t, 9)
		s, loadErr := d.Load(store)
		if loadErr != nil || s.Step != 2 && s.Step != 3 {
			t.Fatalf("killed before step %d (%v): step %d, %v", n, err, s.Step, loadErr)
		}
		if diff := cmp.Diff(words(t, network(t, s.Step)), words(t, store)); diff != "" {
			t.Errorf("killed before step %d: -want +got\n%s", n, diff)
		}
		mustSave(t, d, 4)
		entries, err := os.ReadDir(d.Path)
		if err != nil || len(entries) != 2 {
			t.Errorf("killed before step %d: %d entries after the next save, %v; want 2", n, len(entries), err)
		}
		if s, err := d.Load(store); err != nil || s.Step != 4 {
			t.Errorf("killed before step %d: then saved, step %d, %v", n, s.Step, err)
		}
	}
}

// Whichever step of a save fails, the error says so, what was saved before is whole, what is in memory is untouched, and saving again works.
func TestEachStepFails(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		for n := 0; ; n++ {
			d := Dir{Path: t.TempDir(), Warn: func(err error) { t.Errorf("%v at step %d: damaged: %v", fault, n, err) }}
			mustSave(t, d, 1)
			failing, left := d, n
			failing.files.Before = func(durable.Op, string) error {
				left--
				if left == -1 {
					return fault
				}
				return nil
			}
			store := network(t, 2)
			err := failing.Save(store, State{Step: 2})
			if left >= 0 {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			var failed *SaveError
			if !errors.As(err, &failed) || !errors.Is(err, fault) {
				t.Fatalf("%v at step %d: got %v, want a *SaveError of it", fault, n, err)
			}
			if diff := cmp.Diff(words(t, network(t, 2)), words(t, store)); diff != "" {
				t.Errorf("%v at step %d: it changed the store\n%s", fault, n, diff)
			}
			if s, err := d.Load(network(t, 1)); err != nil || s.Step < 1 {
				t.Errorf("%v at step %d: step %d, %v", fault, n, s.Step, err)
			}
			if err := d.Save(store, State{Step: 2}); err != nil {
				t.Fatal(err)
			}
			if s, err := d.Load(store); err != nil || s.Step != 2 {
				t.Errorf("%v at step %d: saved again, step %d, %v", fault, n, s.Step, err)
			}
		}
	}
}

// A mask of nothing is saved and loaded, wherever the zero stands among its dimensions.
func TestEmptyMasks(t *testing.T) {
	d, store := quiet(t.TempDir()), model.NewStore()
	for i, dims := range [][]int{{0}, {3, 0}, {0, 3}, {2, 0, 3}} {
		if _, err := store.CreateVariable(fmt.Sprint("/mask", i), tensors.FromShape(shapes.Make(dtypes.Bool, dims...))); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Save(store, State{Step: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(store); err != nil {
		t.Error(err)
	}
	for _, b := range []bits{{[]int{0, -1}, nil}, {[]int{3, 0}, []byte{0}}} {
		if _, err := b.tensor(); err == nil {
			t.Errorf("%v of %d bytes is taken", b.Shape, len(b.Bits))
		}
	}
}

// What another's hand leaves in the directory is no obstacle.
func TestStrangeNames(t *testing.T) {
	d := quiet(t.TempDir())
	mustSave(t, d, 2)
	for _, name := range []string{"step-000000003", "step-3", "step--00000004", "step-000000005.0", "step-x", ".saving-1", "mine"} {
		if err := os.MkdirAll(filepath.Join(d.Path, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.Path, "step-000000009"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Load(network(t, 1)); err != nil || s.Step != 2 {
		t.Errorf("step %d, %v; want 2", s.Step, err)
	}
	if _, err := os.Stat(filepath.Join(d.Path, "mine")); err != nil {
		t.Error(err)
	}
}

// What is saved in the background is what the variables were when Save was called.
func TestBackground(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	b := d.Background()
	store := network(t, 0)
	for step := 1; step <= 20; step++ {
		if err := store.GetVariable("/fc/biases").SetValue(tensors.MustFromAnyValue([]float64{float64(step)})); err != nil {
			t.Fatal(err)
		}
		if err := b.Save(store, State{Step: step}); err != nil {
			t.Fatal(err)
		}
		if err := store.GetVariable("/fc/biases").SetValue(tensors.MustFromAnyValue([]float64{-1})); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	s, err := d.Load(store)
	if err != nil || s.Step != 20 {
		t.Fatalf("step %d, %v; want 20", s.Step, err)
	}
	if got := words(t, store)["/fc/biases"]; got != "[20] true" {
		t.Errorf("biases %s, want [20] true", got)
	}
}

// What changes in place after Save has returned, while nothing is written yet, is not in the checkpoint.
func TestBackgroundCopies(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	slow, begin := d, make(chan struct{})
	slow.files.Before = func(durable.Op, string) error { <-begin; return nil }
	store, value := network(t, 0), tensors.MustFromAnyValue([]float64{7})
	if err := store.GetVariable("/fc/biases").SetValue(value); err != nil {
		t.Fatal(err)
	}
	b := slow.Background()
	if err := b.Save(store, State{Step: 1}); err != nil {
		t.Fatal(err)
	}
	err := value.MutableFlatData(func(flat any) { flat.([]float64)[0] = -1 })
	close(begin)
	if err = errors.Join(err, b.Finish()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(store); err != nil {
		t.Fatal(err)
	}
	if got := words(t, store)["/fc/biases"]; got != "[7] true" {
		t.Errorf("biases %s, want [7] true", got)
	}
}

func TestBackgroundFails(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	d.files.Before = func(durable.Op, string) error { return syscall.ENOSPC }
	b := d.Background()
	if err := b.Save(network(t, 1), State{Step: 1}); err != nil {
		t.Fatal(err)
	}
	var failed *SaveError
	if err := b.Finish(); !errors.As(err, &failed) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want a *SaveError of a full disk", err)
	}
	if err := b.Finish(); err != nil {
		t.Errorf("told twice: %v", err)
	}
}

// BenchmarkSave compares saving 100 MB with writing the same bytes to a file and syncing it, in turns, in either order: next to older checkpoints that stay, and
// in place of the oldest, where the file is removed too. Medians, with the quartiles of the single ratios.
func BenchmarkSave(b *testing.B) {
	store := model.NewStore()
	for i := range 10 {
		if _, err := store.CreateVariable(fmt.Sprintf("/layer%d/weights", i), tensors.FromShape(bigShape)); err != nil {
			b.Fatal(err)
		}
	}
	dir := b.TempDir()
	raw := make([]byte, bigShape.ByteSize())
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	path := filepath.Join(dir, "raw")
	timed := func(do func() error) float64 {
		start := time.Now()
		if err := do(); err != nil {
			b.Fatal(err)
		}
		return 1000 * time.Since(start).Seconds()
	}
	write := func() error {
		return durable.FS{}.Write(path, func(w io.Writer) error {
			for range 10 {
				if _, err := w.Write(raw); err != nil {
					return err
				}
			}
			return nil
		})
	}
	step := 0
	save := func(d Dir) func() error {
		return func() error { step++; return d.Save(store, State{Step: step}) }
	}
	stay, replace := Dir{Path: filepath.Join(dir, "stay"), Keep: 1 << 20}, Dir{Path: filepath.Join(dir, "replace")}
	quantile := func(xs []float64, q float64) float64 {
		return slices.Sorted(slices.Values(xs))[int(q*float64(len(xs)-1))]
	}
	var staying, writing, replacing, rewriting, ratio, ratioReplacing []float64
	for b.Loop() {
		pair := func(d Dir, other func() error, to, otherTo, ratios *[]float64) {
			var x, y float64
			if step%2 == 0 {
				x, y = timed(save(d)), timed(other)
			} else {
				y, x = timed(other), timed(save(d))
			}
			*to, *otherTo, *ratios = append(*to, x), append(*otherTo, y), append(*ratios, x/y)
		}
		pair(stay, write, &staying, &writing, &ratio)
		if err := errors.Join(os.Remove(path), os.RemoveAll(stay.Path), write()); err != nil {
			b.Fatal(err)
		}
		pair(replace, func() error { return errors.Join(os.Remove(path), write()) }, &replacing, &rewriting, &ratioReplacing)
		if err := os.Remove(path); err != nil {
			b.Fatal(err)
		}
	}
	for name, x := range map[string][3][]float64{"": {staying, writing, ratio}, "-replacing": {replacing, rewriting, ratioReplacing}} {
		b.ReportMetric(quantile(x[0], 0.5), "ms/save"+name)
		b.ReportMetric(quantile(x[1], 0.5), "ms/write"+name)
		b.ReportMetric(quantile(x[0], 0)/quantile(x[1], 0), "×write-fastest"+name) // of both, where others are at work on the machine
		b.ReportMetric(quantile(x[2], 0.5), "×write"+name)
		b.ReportMetric(quantile(x[2], 0.25), "×write-q25"+name)
		b.ReportMetric(quantile(x[2], 0.75), "×write-q75"+name)
	}
}

// A run that went back, behind damaged checkpoints, keeps what it saves, and two whole ones at least.
func TestRunThatWentBack(t *testing.T) {
	for _, keep := range []int{0, 3} {
		d := Dir{Path: t.TempDir(), Keep: 3, Warn: func(error) {}}
		damage := func(step int) {
			t.Helper()
			path := filepath.Join(d.Path, place{step: step}.String(), tensorsFile)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)-1] ^= 1
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		loads := func(want int) {
			t.Helper()
			if s, err := d.Load(network(t, 0)); err != nil || s.Step != want {
				t.Errorf("keep %d: step %d, %v; want %d", keep, s.Step, err, want)
			}
		}
		for _, step := range []int{10, 20, 30} {
			mustSave(t, d, step)
		}
		damage(20)
		damage(30)
		d.Keep = keep
		loads(10)
		mustSave(t, d, 15)
		loads(15)
		mustSave(t, d, 17)
		damage(17)
		loads(15)
	}
}

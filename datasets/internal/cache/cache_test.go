package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
	"github.com/espalier-ml/espalier/datasets/internal/memory"
)

func sample() memory.Parts {
	part := func(name string, first uint8) memory.Contents {
		return memory.Contents{Name: "s", Part: name, Height: 1, Width: 2, Channels: 1, Inputs: []uint8{first, 2, 3, 4}, Labels: []int32{1, 0},
			ClassNames: []string{"a", "b"}}
	}
	return memory.Parts{Train: part("train", 1), Validation: part("validation", 9), Test: part("test", 8)}
}

// kept calls Keep and counts builds and warnings.
func kept(t *testing.T, dir string) (parts memory.Parts, builds int, warnings []error) {
	t.Helper()
	parts, err := Keep(dir, "k", func() (memory.Parts, error) { builds++; return sample(), nil },
		func(err error) { warnings = append(warnings, err) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), parts); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	return parts, builds, warnings
}

func TestKeepBuildsOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "directory")
	for pass, want := range []int{1, 0, 0} {
		if _, builds, warnings := kept(t, dir); builds != want || warnings != nil {
			t.Errorf("pass %d: %d builds, expected %d; warnings %v", pass, builds, want, warnings)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if strings.HasSuffix(e.Name(), ".tmp") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestKeepBuildsOnceForAllThatAskAtOnce(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	builds := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			parts, err := Keep(dir, "k", func() (memory.Parts, error) {
				mu.Lock()
				defer mu.Unlock()
				builds++
				return sample(), nil
			}, func(err error) { t.Error(err) })
			if err != nil || !cmp.Equal(sample(), parts) {
				t.Errorf("%v, %v", parts, err)
			}
		})
	}
	wg.Wait()
	if builds != 1 {
		t.Errorf("%d builds, expected 1", builds)
	}
}

func TestErrorOfBuildIsReturnedAndNothingStored(t *testing.T) {
	dir := t.TempDir()
	sentinel := errors.New("no data")
	_, err := Keep(dir, "k", func() (memory.Parts, error) { return memory.Parts{}, sentinel }, func(err error) { t.Error(err) })
	if !errors.Is(err, sentinel) {
		t.Errorf("%v, expected %v", err, sentinel)
	}
	if _, err := os.Stat(filepath.Join(dir, "k.decoded")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was stored: %v", err)
	}
}

// Whatever happens to a stored file is found, reported and mended.
func TestBrokenFilesAreReportedAndMadeAgain(t *testing.T) {
	dir := t.TempDir()
	kept(t, dir)
	path := filepath.Join(dir, "k.decoded")
	intact, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var broken [][]byte
	for k := range 64 {
		at := k * len(intact) / 64
		flipped := bytes.Clone(intact)
		flipped[at] ^= 0x20
		broken = append(broken, intact[:at], flipped)
	}
	broken = append(broken, append(bytes.Clone(intact), 0))
	for i, content := range broken {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		_, builds, warnings := kept(t, dir)
		if builds != 1 || len(warnings) != 1 || !errors.Is(warnings[0], fault.ErrFormat) || !strings.Contains(warnings[0].Error(), path) {
			t.Errorf("case %d: %d builds, warnings %v; expected one of each, of kind ErrFormat", i, builds, warnings)
		}
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, intact) {
			t.Fatalf("case %d: the file was not mended: %v", i, err)
		}
	}
}

func TestACacheThatCannotBeWrittenIsReported(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, builds, warnings := kept(t, filepath.Join(file, "below")); builds != 1 || len(warnings) != 1 || !errors.Is(warnings[0], fault.ErrCache) {
		t.Errorf("%d builds, warnings %v; expected one of each", builds, warnings)
	}
	// A directory where the temporary file should be: storing fails, reading goes on.
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "k.decoded.tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, builds, warnings := kept(t, dir); builds != 1 || len(warnings) != 1 || !errors.Is(warnings[0], fault.ErrCache) {
		t.Errorf("%d builds, warnings %v; expected one of each", builds, warnings)
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := write(&b, sample()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	header := []byte(`[{"Count":1000000000,"Height":1000000000,"Width":1000000000,"Channels":1000000000},{},{}]`)
	f.Add(append(binary.LittleEndian.AppendUint64([]byte(magic), uint64(len(header))), append(header, make([]byte, 64)...)...))
	f.Add(binary.LittleEndian.AppendUint64([]byte(magic), 1<<63))
	f.Fuzz(func(t *testing.T, data []byte) {
		parts, err := read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := write(&again, parts); err != nil {
			t.Fatal(err)
		}
		if back, err := read(&again, int64(again.Len())); err != nil || !cmp.Equal(parts, back) {
			t.Errorf("what was read can't be written and read again: %v", err)
		}
	})
}

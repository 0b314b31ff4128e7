package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// failing makes the steps of writing fail with cause: the step of that number, and with crash all after it too, as when the program was killed.
// It returns how many steps there were.
func failing(step int, crash bool, cause error, write func() error) (steps int, err error) {
	files = durable.FS{Before: func(durable.Op, string) error {
		steps++
		if steps-1 == step || crash && steps-1 > step {
			return cause
		}
		return nil
	}}
	defer func() { files = durable.FS{} }()
	return steps, write()
}

var never = -1

// numbered returns records 0 to n-1.
func numbered(n int) []Record {
	var records []Record
	for i := range n {
		records = append(records, Record{Recipe: fmt.Sprint("r", i), Seed: int64(i), Values: map[string]float64{"accuracy": float64(i) / 7}})
	}
	return records
}

var equal = cmp.Options{cmpopts.EquateNaNs(), cmpopts.EquateEmpty()}

// Whichever step of writing fails, once or for good, what was read before is read afterwards, or what was written; and what is tried again succeeds.
func TestEveryStepOfWriteRecordsMayFail(t *testing.T) {
	before, after := numbered(2), numbered(3)[1:]
	for _, crash := range []bool{false, true} {
		for _, cause := range []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
			steps, err := failing(never, false, nil, func() error { return WriteRecords(filepath.Join(t.TempDir(), "new", "r.jsonl"), after) })
			if err != nil || steps < 8 { // mkdir twice, create, write, sync, close, rename, sync, remove
				t.Fatalf("%d steps, %v", steps, err)
			}
			for step := range steps {
				for _, existed := range []bool{true, false} {
					dir := filepath.Join(t.TempDir(), "new")
					path := filepath.Join(dir, "r.jsonl")
					var want []Record
					if existed {
						if want = before; WriteRecords(path, before) != nil {
							t.Fatal("the records before")
						}
					}
					n, err := failing(step, crash, cause, func() error { return WriteRecords(path, after) })
					if n <= step {
						continue // the directory exists, so there is a step less
					}
					if !errors.Is(err, cause) || !strings.Contains(err.Error(), dir) {
						t.Errorf("step %d: %v, expected %v and a path", step, err, cause)
					}
					got, err := ReadRecords(path)
					if err != nil || !cmp.Equal(want, got, equal) && !cmp.Equal(after, got, equal) {
						t.Errorf("step %d, crash %t: read %v, %v", step, crash, got, err)
					}
					if err := WriteRecords(path, after); err != nil {
						t.Fatal(err)
					}
					got, err = ReadRecords(path)
					if diff := cmp.Diff(after, got, equal); diff != "" || err != nil {
						t.Errorf("step %d, crash %t: written again: %v, -want +got\n%s", step, crash, err, diff)
					}
					left, err := os.ReadDir(dir)
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range left { // only what a killed program could not remove, and it shows as such
						if e.Name() != "r.jsonl" && !(durable.Temporary(e.Name()) && (crash || step == n-1)) {
							t.Errorf("step %d, crash %t: %s is left", step, crash, e.Name())
						}
					}
				}
			}
		}
	}
}

func TestEveryStepOfAppendRecordMayFail(t *testing.T) {
	before, added, next := numbered(2), numbered(3)[2], numbered(4)[3]
	for _, crash := range []bool{false, true} {
		for _, existed := range []bool{true, false} {
			for _, torn := range []bool{false, existed} {
				for step := 0; ; step++ {
					path := filepath.Join(t.TempDir(), "new", "r.jsonl")
					var old []Record
					if existed {
						if old = before[:2:2]; WriteRecords(path, old) != nil {
							t.Fatal("the records before")
						}
					}
					if torn {
						f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
						if err != nil {
							t.Fatal(err)
						}
						f.WriteString(`{"recipe": "to`)
						f.Close()
					}
					n, err := failing(step, crash, syscall.ENOSPC, func() error { return AppendRecord(path, added) })
					if n <= step {
						if err != nil || step < 3 { // write, sync, close at least
							t.Errorf("%d steps, %v", step, err)
						}
						break
					}
					if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), filepath.Dir(path)) {
						t.Errorf("step %d: %v, expected %v and a path", step, err, syscall.ENOSPC)
					}
					check := func(when string, withOr []Record, without []Record) {
						t.Helper()
						got, err := ReadRecords(path)
						var lines *TornError
						if err != nil && !errors.As(err, &lines) {
							t.Fatal(err)
						}
						if !cmp.Equal(without, got, equal) && !cmp.Equal(withOr, got, equal) {
							t.Errorf("step %d, crash %t, existed %t, torn %t: %s: read %+v, %v", step, crash, existed, torn, when, got, err)
						}
					}
					check("failed", append(old, added), old)
					if err := AppendRecord(path, next); err != nil {
						t.Fatal(err)
					}
					check("appended", append(append(old, added), next), append(old, next))
				}
			}
		}
	}
}

func TestAFullDisk(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); errors.Is(err, fs.ErrNotExist) {
		t.Skip("there is no " + full)
	}
	err := AppendRecord(full, numbered(1)[0])
	var typed *fs.PathError
	if !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &typed) || typed.Path != full {
		t.Errorf("%v, expected ENOSPC and the path", err)
	}
}

// damaged returns content cut and with a byte changed, at each of 64 offsets.
func damaged(content []byte) (cut, flipped [][]byte) {
	for k := range 64 {
		at := k * len(content) / 64
		cut = append(cut, content[:at])
		changed := bytes.Clone(content)
		changed[at] ^= 0x80
		flipped = append(flipped, changed)
	}
	return cut, flipped
}

// Of a file that is cut, all records before the cut are read, and none that was not written; the line is named.
func TestTruncatedRecords(t *testing.T) {
	all := numbered(9)
	all[4].Values["loss"] = math.NaN()
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if err := WriteRecords(path, all); err != nil {
		t.Fatal(err)
	}
	intact, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cuts, flips := damaged(intact)
	for k, content := range cuts {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		whole := bytes.Count(content, []byte("\n"))
		isTorn := len(content) > 0 && content[len(content)-1] != '\n'
		if isTorn && json.Valid(content[bytes.LastIndexByte(content, '\n')+1:]) { // only the line break is missing
			whole, isTorn = whole+1, false
		}
		got, err := ReadRecords(path)
		var torn *TornError
		if isTorn != errors.As(err, &torn) || !isTorn && err != nil || isTorn && !cmp.Equal(torn.Lines, []int{whole + 1}) || isTorn && !strings.Contains(err.Error(), path) {
			t.Errorf("cut %d: %v", k, err)
		}
		if diff := cmp.Diff(all[:whole], got, equal); diff != "" {
			t.Errorf("cut %d: -want +got\n%s", k, diff)
		}
	}
	// A changed byte that is no longer ASCII costs its line, and no other; a line break that is gone costs both.
	for k, content := range flips {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		at := k * len(intact) / 64
		line := bytes.Count(intact[:at], []byte("\n"))
		want := append(all[:line:line], all[line+1:]...)
		if intact[at] == '\n' {
			want = append(all[:line:line], all[min(line+2, len(all)):]...)
		}
		got, err := ReadRecords(path)
		var torn *TornError
		if !errors.As(err, &torn) || !cmp.Equal(torn.Lines, []int{line + 1}) {
			t.Errorf("flip %d: %v, expected line %d", k, err, line+1)
		}
		if diff := cmp.Diff(want, got, equal); diff != "" {
			t.Errorf("flip %d: -want +got\n%s", k, diff)
		}
	}
}

// No bit that changes makes another record of one: it is read as it was, or its line is named.
func TestEveryBitOfARecord(t *testing.T) {
	want := Record{Recipe: "magnitude <b>", Seed: -7, Step: 120, Labels: map[string]string{"net": "n\xff"}, Values: map[string]float64{"accuracy": 0.9812, "loss": math.NaN()}}
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if err := WriteRecords(path, []Record{want}); err != nil {
		t.Fatal(err)
	}
	intact, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want.Labels["net"] = "n\uFFFD"
	if got, err := ReadRecords(path); err != nil || !cmp.Equal([]Record{want}, got, equal) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range 8 * (len(intact) - 1) { // without the line break
		changed := bytes.Clone(intact)
		changed[i/8] ^= 1 << (i % 8)
		if err := os.WriteFile(path, changed, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := ReadRecords(path)
		var torn *TornError
		if err == nil && !cmp.Equal([]Record{want}, got, equal) || err != nil && (!errors.As(err, &torn) || len(got) > 0 && !cmp.Equal([]Record{want}, got, equal)) {
			t.Errorf("bit %d of byte %d: %+v, %v", i%8, i/8, got, err)
		}
	}
}

// A name of a field that was damaged is no field left out.
func TestDamagedNamesOfFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	good := `{"recipe":"r","seed":7,"step":3,"labels":{"net":"n"},"values":{"a":1}}`
	for _, field := range []string{"recipe", "seed", "step", "labels", "values"} {
		for i := range field {
			letters := []byte(field)
			letters[i] ^= 1
			if err := os.WriteFile(path, []byte(strings.Replace(good, `"`+field+`"`, `"`+string(letters)+`"`, 1)), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := ReadRecords(path)
			var torn *TornError
			if !errors.As(err, &torn) || len(got) > 0 {
				t.Errorf("%s for %s: %+v, %v", letters, field, got, err)
			}
		}
	}
}

// spent returns the bytes that f allocates.
func spent(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestHostileRecords(t *testing.T) {
	const size = 128 << 10
	for name, content := range map[string]string{
		"empty lines":     strings.Repeat("\n", size),
		"no records":      strings.Repeat("x\n", size/2),
		"zeros":           string(make([]byte, size)),
		"empty objects":   strings.Repeat("{}\n", size/3),
		"deep":            strings.Repeat("[", size),
		"deep in a value": `{"values":` + strings.Repeat(`{"a":`, size/5),
		"out of range":    strings.Repeat("{\"values\":{\"a\":1e999}}\n", size/23),
		"a large seed":    strings.Repeat("{\"seed\":1e30,\"values\":{}}\n", size/26),
		"half a seed":     strings.Repeat("{\"seed\":0.5,\"values\":{}}\n", size/26),
		"null values":     strings.Repeat("{\"values\":null}\n", size/16),
		"other finite":    strings.Repeat("{\"values\":{\"a\":\"Infinity\"}}\n", size/28),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "r.jsonl")
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			var got []Record
			var err error
			if n := spent(func() { got, err = ReadRecords(path) }); n > uint64(2*len(content)+64<<20) {
				t.Errorf("a file of %d bytes made %d bytes be allocated", len(content), n)
			}
			var torn *TornError
			if name != "empty lines" && !errors.As(err, &torn) || len(got) > 0 {
				t.Errorf("%d records, %v; expected a *TornError", len(got), err)
			}
			if err != nil && len(err.Error()) > len(path)+300 {
				t.Errorf("a message of %d bytes", len(err.Error()))
			}
		})
	}
}

// What is read can be written, and is then read again as it is.
func FuzzReadRecords(f *testing.F) {
	path := filepath.Join(f.TempDir(), "r.jsonl")
	if err := WriteRecords(path, sample()); err != nil {
		f.Fatal(err)
	}
	intact, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(intact)
	f.Add(intact[:len(intact)-9])
	f.Add([]byte("{\"values\":{\"a\":\"-Inf\",\"b\":\"NaN\",\"c\":1e-400}}\nx\n\n"))
	f.Add([]byte("{\"values\":{},\"VALUES\":{\"a\":1},\"labels\":{\"\":\"\xff\"}}"))
	again := filepath.Join(f.TempDir(), "again.jsonl")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := ReadRecords(path)
		var torn *TornError
		if err != nil && !errors.As(err, &torn) {
			t.Fatalf("%v is no *TornError", err)
		}
		if err := os.Remove(again); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		var text bytes.Buffer
		for _, r := range got {
			if err := json.NewEncoder(&text).Encode(r); err != nil {
				t.Fatalf("what was read can't be written: %v", err)
			}
		}
		if err := os.WriteFile(again, text.Bytes(), 0o644); err != nil { // not synced: this runs a thousand times a second
			t.Fatal(err)
		}
		back, err := ReadRecords(again)
		if diff := cmp.Diff(got, back, equal); diff != "" || err != nil {
			t.Errorf("%v, -first +second\n%s", err, diff)
		}
	})
}

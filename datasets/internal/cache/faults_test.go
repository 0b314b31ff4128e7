package cache

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

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
	"github.com/espalier-ml/espalier/datasets/internal/memory"
)

// sealed returns a file with any header and content, and the digest of them.
func sealed(header string, content ...byte) []byte {
	data := binary.LittleEndian.AppendUint64([]byte(magic), uint64(len(header)))
	data = append(append(data, header...), content...)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// A right digest is no proof that a file is right. Its lies are told to warn, cost no memory, and the data is what build makes.
func TestFilesThatLie(t *testing.T) {
	const one = `{"Name":"s","Part":"p","Count":1,"Height":1,"Width":1,"Channels":1,"ClassNames":["a"]}`
	with := func(old, new string) string {
		return "[" + one + "," + strings.Replace(one, old, new, 1) + "," + one + "]"
	}
	examples := []byte{0, 0, 0, 0, 7, 0, 0, 0, 0, 8, 0, 0, 0, 0, 9}
	good, err := read(bytes.NewReader(sealed(with("", ""), examples...)), int64(len(sealed(with("", ""), examples...))))
	if err != nil || good.Test.Inputs[0] != 9 {
		t.Fatalf("%+v, %v", good, err)
	}
	for _, c := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"2^31 examples", sealed(with(`"Count":1`, `"Count":2147483648`), examples...), "a part of 2147483648x1x1x1"},
		{"a product above 2^64", sealed(with(`"Count":1,"Height":1`, `"Count":4294967296,"Height":4294967296`), examples...), "a part of"},
		{"no width", sealed(with(`"Width":1`, `"Width":0`), examples...), "a part of 1x1x0x1"},
		{"a height below 0", sealed(with(`"Height":1`, `"Height":-1`), examples...), "a part of 1x-1x1x1"},
		{"an example too few", sealed(with("", ""), examples[:10]...), "a part of"},
		{"an example too many", sealed(with("", ""), append(examples, examples...)...), "15 bytes too many"},
		{"two parts", sealed("["+one+","+one+"]", examples[:10]...), "the header"},
		{"four parts", sealed("["+one+","+one+","+one+","+one+"]", examples...), "more than 3 parts"},
		{"a hundred thousand parts", sealed("[" + strings.Repeat("{},", 300_000) + "{}]"), "more than 3 parts"},
		{"names without end", sealed(with(`["a"]`, `[`+strings.Repeat(`"",`, 300_000)+`""]`), examples[:14]...), "a part of"},
		{"something else", sealed(`{"parts":3}`, examples...), "no list of parts"},
		{"no JSON", sealed("[" + strings.Repeat("[", 20_000)), "no JSON"},
		{"a header beyond the file", binary.LittleEndian.AppendUint64([]byte(magic), 1<<63), "a header of"},
		{"another version", bytes.Replace(sealed(with("", ""), examples...), []byte("data 1"), []byte("data 2"), 1), "other magic bytes"},
		{"a pickle", append([]byte("\x80\x02}q\x01."), make([]byte, 100)...), "other magic bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "k.decoded")
			if err := os.WriteFile(path, c.content, 0o644); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := load(path)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > uint64(2*len(c.content)+64<<20) {
				t.Errorf("a file of %d bytes made %d bytes be allocated", len(c.content), n)
			}
			if !errors.Is(err, fault.ErrFormat) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, expected ErrFormat with %q", err, c.want)
			}
			if _, builds, warnings := kept(t, dir); builds != 1 || len(warnings) != 1 {
				t.Errorf("%d builds, warnings %v; expected one of each", builds, warnings)
			}
		})
	}
}

// Labels are not looked at here: those that a class is missing for are found where all data sets are opened.
func TestLabelsWithoutAClassAreFound(t *testing.T) {
	dir := t.TempDir()
	bad := sample()
	bad.Test.Labels = []int32{1, 255}
	parts, err := Keep(dir, "k", func() (memory.Parts, error) { return bad, nil }, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // built, and read
		if _, err := parts.Open(1, 0); !errors.Is(err, fault.ErrFormat) || !strings.Contains(err.Error(), "label 255 of example 1") {
			t.Errorf("%v, expected ErrFormat", err)
		}
		if parts, err = load(filepath.Join(dir, "k.decoded")); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzSealed seals what the fuzzer makes, so that it reaches behind the digest.
func FuzzSealed(f *testing.F) {
	var b bytes.Buffer
	if err := write(&b, sample()); err != nil {
		f.Fatal(err)
	}
	at := len(magic) + 8
	length := int(binary.LittleEndian.Uint64(b.Bytes()[len(magic):]))
	f.Add(string(b.Bytes()[at:at+length]), b.Bytes()[at+length:b.Len()-sha256.Size])
	f.Add(`[{"Count":2147483648,"Height":1,"Width":1,"Channels":1},{},{}]`, []byte{1})
	f.Add(`[{},{},{},{}]`, []byte{})
	f.Fuzz(func(t *testing.T, header string, content []byte) {
		data := sealed(header, content...)
		parts, err := read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		n := 0
		for _, c := range []memory.Contents{parts.Train, parts.Validation, parts.Test} {
			if len(c.Inputs) != len(c.Labels)*c.Height*c.Width*c.Channels {
				t.Errorf("%d bytes for %d examples of %dx%dx%d", len(c.Inputs), len(c.Labels), c.Height, c.Width, c.Channels)
			}
			n += len(c.Inputs) + 4*len(c.Labels)
		}
		if n != len(content) {
			t.Errorf("%d bytes of %d were read", n, len(content))
		}
		parts.Open(1, 0) // must not panic
		var again bytes.Buffer
		if err := write(&again, parts); err != nil {
			t.Fatal(err)
		}
		if back, err := read(&again, int64(again.Len())); err != nil || !cmp.Equal(parts, back) {
			t.Errorf("what was read can't be written and read again: %v", err)
		}
	})
}

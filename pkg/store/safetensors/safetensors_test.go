package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func of(name string, dtype DType, shape []int, raw []byte) Tensor {
	return Tensor{name, dtype, shape, func(use func([]byte) error) error { return use(raw) }}
}

func written(t testing.TB, metadata map[string]string, tensors ...Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, metadata, tensors); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(data []byte) (*File, error) { return Open(bytes.NewReader(data), int64(len(data))) }

// file is a file with the given header and a body of n zeros.
func file(header string, n int) []byte {
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), make([]byte, n)...)
}

func TestBytesByHand(t *testing.T) {
	got := written(t, map[string]string{"by": "hand"}, of("b", "U8", []int{2}, []byte{7, 8}), of("a", "I16", nil, []byte{1, 0}))
	header := `{"__metadata__":{"by":"hand"},"a":{"dtype":"I16","shape":[],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}`
	header += strings.Repeat(" ", (8-len(header)%8)%8)
	want := append(file(header, 0), 1, 0, 7, 8)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestRoundTrip(t *testing.T) {
	var tensors []Tensor
	want := map[string][]byte{}
	for dtype, size := range sizes {
		for i, shape := range [][]int{nil, {3}, {2, 0, 5}, {2, 1, 2}} {
			n, _ := byteSize(dtype, shape)
			raw := make([]byte, n)
			for j := range raw {
				raw[j] = byte(7*j + i + size)
			}
			name := fmt.Sprintf("%s %d \"é\"", dtype, i)
			tensors, want[name] = append(tensors, of(name, dtype, shape, raw)), raw
		}
	}
	data := written(t, nil, tensors...)
	f, err := open(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Entries) != len(tensors) || f.Metadata != nil {
		t.Errorf("%d entries, want %d; metadata %v", len(f.Entries), len(tensors), f.Metadata)
	}
	for name, raw := range want {
		e, ok := f.Find(name)
		got := make([]byte, len(raw))
		if err := f.Read(e, got); !ok || err != nil || !bytes.Equal(raw, got) {
			t.Errorf("%s: %v %v, %v, want %v", name, ok, err, got, raw)
		}
	}
	if !bytes.Equal(rewritten(t, f), data) {
		t.Error("written again, the bytes differ")
	}
	var misuse *TensorError
	if err := f.Read(Entry{Name: "none"}, nil); !errors.As(err, &misuse) {
		t.Errorf("another file's tensor: %v, want a *TensorError", err)
	}
	if err := f.Read(f.Entries[len(f.Entries)-1], nil); !errors.As(err, &misuse) {
		t.Errorf("too small a place: %v, want a *TensorError", err)
	}
}

func rewritten(t testing.TB, f *File) []byte {
	var tensors []Tensor
	for _, e := range f.Entries {
		raw := make([]byte, e.End-e.Start)
		if err := f.Read(e, raw); err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, of(e.Name, e.DType, e.Shape, raw))
	}
	return written(t, f.Metadata, tensors...)
}

// Python's safetensors 0.6.2 wrote this file: testdata/golden.py.
func TestPythonsFile(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "python.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"made": "by Python"}, got.Metadata); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for name, want := range map[string]struct {
		dtype DType
		shape []int
		raw   []byte
	}{
		"weights": {"F32", []int{2, 2}, []byte{0, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64}},
		"mask":    {"BOOL", []int{3}, []byte{1, 0, 1}},
		"step":    {"I64", []int{}, []byte{7, 0, 0, 0, 0, 0, 0, 0}},
		"none":    {"F16", []int{0, 4}, []byte{}},
	} {
		e, ok := got.Find(name)
		raw := make([]byte, e.End-e.Start)
		if err := got.Read(e, raw); !ok || err != nil {
			t.Fatal(name, ok, err)
		}
		if diff := cmp.Diff([]any{want.dtype, want.shape, want.raw}, []any{e.DType, e.Shape, raw}); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// Each rule that a file can break, and what is said then.
var broken = map[string]struct {
	data []byte
	want string
}{
	"empty":                     {nil, "too few"},
	"7 bytes":                   {make([]byte, 7), "too few"},
	"header longer than file":   {file(`{}`, 0)[:9], "a header of 2 bytes in a file of 9"},
	"header of 2^64-1 bytes":    {binary.LittleEndian.AppendUint64(nil, math.MaxUint64), "a header of"},
	"header above the limit":    {append(binary.LittleEndian.AppendUint64(nil, maxHeader+1), make([]byte, 9)...), "a header of"},
	"no header":                 {file(``, 0), "does not begin"},
	"a blank first":             {file(` {}`, 0), "does not begin"},
	"a list":                    {file(`[]`, 0), "does not begin"},
	"no JSON":                   {file(`{"a"`, 0), "EOF"},
	"not closed":                {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}`, 1), "no JSON"},
	"more after it":             {file(`{}{}`, 0), "after the header"},
	"no UTF-8":                  {file("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "UTF-8"},
	"a name twice":              {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "twice"},
	"metadata twice":            {file(`{"__metadata__":{},"__metadata__":{}}`, 0), "twice"},
	"a metadata key twice":      {file(`{"__metadata__":{"a":"b","a":"c"}}`, 0), "twice"},
	"metadata of numbers":       {file(`{"__metadata__":{"a":1}}`, 0), "expected text"},
	"metadata of objects":       {file(`{"__metadata__":{"a":{}}}`, 0), "expected text"},
	"metadata is text":          {file(`{"__metadata__":"a"}`, 0), "expected an object"},
	"a tensor is null":          {file(`{"a":null}`, 0), "expected an object"},
	"a key twice":               {file(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "twice"},
	"a key too many":            {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}`, 1), `the key "x"`},
	"a key in capitals":         {file(`{"a":{"DTYPE":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), `the key "DTYPE"`},
	"no shape":                  {file(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1), "expected dtype, shape"},
	"shape null":                {file(`{"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}}`, 1), "expected a list"},
	"a shape of text":           {file(`{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}`, 1), "cannot unmarshal string"},
	"a fraction":                {file(`{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}`, 1), "1.5"},
	"three offsets":             {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}`, 1), "3 data_offsets"},
	"unknown type":              {file(`{"a":{"dtype":"X","shape":[1],"data_offsets":[0,1]}}`, 1), "unknown type"},
	"negative dimension":        {file(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1), "shape"},
	"negative among zeros":      {file(`{"a":{"dtype":"U8","shape":[0,-1],"data_offsets":[0,0]}}`, 0), "shape"},
	"overflow":                  {file(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, 0), "shape"},
	"2^62 elements":             {file(`{"a":{"dtype":"U8","shape":[4611686018427387904],"data_offsets":[0,4611686018427387904]}}`, 4), "shape"},
	"offsets do not fit":        {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}}`, 3), "the body 3 bytes"},
	"offsets do not fit shape":  {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,3]}}`, 3), "expected from 0 to 1"},
	"offsets backwards":         {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1), "expected from"},
	"a hole at the start":       {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "expected from"},
	"a hole":                    {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3), "expected from"},
	"an overlap":                {file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), "expected from"},
	"more body than tensors":    {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2), "cover 1 of 2"},
	"body and no tensors":       {file(`{}`, 1), "cover 0 of 1"},
	"less body than tensors":    {file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 1), "the body 1 bytes"},
	"nested a million times":    {file(`{"a":`+strings.Repeat("[", 1_000_000), 0), ""},
	"metadata that never ends":  {file(`{"__metadata__":{"a":"b"`, 0), ""},
	"a number no int can hold":  {file(`{"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}}`, 1), ""},
	"an offset below zero":      {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}`, 0), ""},
	"a tensor of a type's name": {file(`{"dtype":"U8"}`, 0), "expected an object"},
}

func TestRules(t *testing.T) {
	for what, test := range broken {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := open(test.data)
		runtime.ReadMemStats(&after)
		var format *FormatError
		if !errors.As(err, &format) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want a *FormatError with %q", what, err, test.want)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(4*len(test.data)+1<<16) {
			t.Errorf("%s: %d bytes allocated for %d", what, used, len(test.data))
		}
	}
	if f, err := open(file(`{}`, 0)); err != nil || len(f.Entries) != 0 {
		t.Errorf("an empty file: %v", err)
	}
}

// A file that is cut off or changed anywhere is refused, or says of itself what fits together. Whether its numbers are the right ones is for digests to say.
func TestDamage(t *testing.T) {
	whole := written(t, map[string]string{"k": "v"}, of("weights", "F32", []int{4, 4}, make([]byte, 64)), of("mask", "BOOL", []int{5}, make([]byte, 5)))
	for i := range 64 {
		at := i * len(whole) / 64
		if _, err := open(whole[:at]); err == nil {
			t.Errorf("cut off at %d: opened", at)
		}
		for bit := range 8 {
			changed := bytes.Clone(whole)
			changed[at] ^= 1 << bit
			if f, err := open(changed); err == nil {
				rewritten(t, f)
			}
		}
	}
}

func TestMisuse(t *testing.T) {
	fine := of("a", "U8", []int{1}, []byte{1})
	for what, tensors := range map[string][]Tensor{
		"two of a name":      {fine, fine},
		"a reserved name":    {of(metadataKey, "U8", []int{1}, []byte{1})},
		"no UTF-8":           {of("\xff", "U8", []int{1}, []byte{1})},
		"too few bytes":      {of("a", "F32", []int{1}, []byte{1})},
		"too many bytes":     {of("a", "U8", nil, []byte{1, 2})},
		"a strange type":     {of("a", "X", nil, []byte{1})},
		"a strange shape":    {of("a", "U8", []int{-1}, nil)},
		"shows nothing":      {{"a", "U8", []int{1}, func(func([]byte) error) error { return nil }}},
		"shows twice":        {{"a", "U8", []int{1}, func(use func([]byte) error) error { return errors.Join(use([]byte{1}), use([]byte{1})) }}},
		"more than can be":   {of("a", "F64", []int{1 << 60, 2}, nil)},
		"together too large": {of("a", "U8", []int{math.MaxInt64}, nil), of("b", "U8", []int{1}, nil)},
	} {
		var misuse *TensorError
		if err := Write(io.Discard, nil, tensors); !errors.As(err, &misuse) {
			t.Errorf("%s: %v, want a *TensorError", what, err)
		}
	}
	mine := errors.New("mine")
	if err := Write(io.Discard, nil, []Tensor{{"a", "U8", []int{1}, func(func([]byte) error) error { return mine }}}); !errors.Is(err, mine) {
		t.Errorf("got %v, want the tensor's own error", err)
	}
}

func TestManyTensors(t *testing.T) {
	var tensors []Tensor
	for i := range 100_000 {
		tensors = append(tensors, of(fmt.Sprintf("/layer%d/weights", i), "U8", []int{1}, []byte{byte(i)}))
	}
	f, err := open(written(t, nil, tensors...))
	if err != nil || len(f.Entries) != len(tensors) {
		t.Fatal(err)
	}
	raw := []byte{0}
	if e, ok := f.Find("/layer77777/weights"); !ok || f.Read(e, raw) != nil || raw[0] != byte(77777%256) {
		t.Errorf("%v %v", ok, raw)
	}
}

// Whatever its bytes, a file is refused, or written again it is the same file.
func FuzzOpen(f *testing.F) {
	f.Add(written(f, map[string]string{"k": "v"}, of("weights", "F32", []int{2, 2}, make([]byte, 16)), of("", "BOOL", nil, []byte{1})))
	for _, b := range broken {
		if len(b.data) < 1000 {
			f.Add(b.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := open(data)
		if err != nil {
			return
		}
		again, err := open(rewritten(t, got))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range got.Entries {
			a, ok := again.Find(e.Name)
			x, y := make([]byte, e.End-e.Start), make([]byte, e.End-e.Start)
			if !ok || a.DType != e.DType || got.Read(e, x) != nil || again.Read(a, y) != nil || !bytes.Equal(x, y) {
				t.Errorf("%q differs", e.Name)
			}
		}
		if len(again.Entries) != len(got.Entries) || len(got.Metadata) > 0 && !cmp.Equal(got.Metadata, again.Metadata) {
			t.Errorf("%d tensors, were %d", len(again.Entries), len(got.Entries))
		}
	})
}

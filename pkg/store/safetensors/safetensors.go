// Package safetensors reads and writes the safetensors format: tensors by name, with their types and shapes, that any tool of the field can read and that
// nothing is executed by reading.
//
// A file is the length of the header (8 bytes, little-endian), the header, and the body. The header is a JSON object that gives each tensor's type, shape and place in
// the body; the tensors cover the body without holes or overlaps. The rules are those of the reference implementation (huggingface/safetensors, in Rust), and Open
// holds a file to all of them. Whether the body is what was written is for a digest to say.
package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"
)

// DType is the type of a tensor's elements.
type DType string

var sizes = map[DType]int{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}

// Size is the number of bytes of an element; 0 for a type that is not known.
func (d DType) Size() int { return sizes[d] }

// maxHeader is the reference implementation's limit.
const maxHeader = 100_000_000

const metadataKey = "__metadata__"

// Tensor is one to be written.
type Tensor struct {
	Name  string
	DType DType
	Shape []int // nil: a scalar
	// Bytes shows the elements, in order and little-endian, once; they are not kept.
	Bytes func(use func(raw []byte) error) error
}

// Entry is a tensor of a file.
type Entry struct {
	Name       string
	DType      DType
	Shape      []int
	Start, End int64 // of the body
}

// File is a file that is open for reading. Several goroutines may read from it.
type File struct {
	Metadata map[string]string
	Entries  []Entry // in the order of their bytes

	r      io.ReaderAt
	body   int64
	byName map[string]int
}

// FormatError says what is wrong with a file, and near which byte.
type FormatError struct {
	Offset  int64
	Problem string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("no safetensors file: %s (at byte %d)", e.Problem, e.Offset)
}

// TensorError says that a tensor can't be written or read as asked.
type TensorError struct{ Name, Problem string }

func (e *TensorError) Error() string { return fmt.Sprintf("tensor %q: %s", e.Name, e.Problem) }

// info is an entry of the header.
type info struct {
	DType   DType    `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// byteSize returns the number of bytes, or false where it is no number that a file can have.
func byteSize(dtype DType, shape []int) (int64, bool) {
	size := int64(dtype.Size())
	if size == 0 {
		return 0, false
	}
	empty := false
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		empty = empty || d == 0
	}
	if empty {
		return 0, true
	}
	for _, d := range shape {
		if size > math.MaxInt64/int64(d) {
			return 0, false
		}
		size *= int64(d)
	}
	return size, true
}

// Write writes tensors, in the order of their names: the same tensors and metadata give the same bytes. metadata may be nil.
//
// Errors: *TensorError; those of w and of Tensor.Bytes. What was written until then is no file.
func Write(w io.Writer, metadata map[string]string, tensors []Tensor) error {
	tensors = slices.SortedFunc(slices.Values(tensors), func(a, b Tensor) int { return cmp.Compare(a.Name, b.Name) })
	header := map[string]any{} // whose keys encoding/json sorts
	if len(metadata) > 0 {
		header[metadataKey] = metadata
	}
	ends := make([]int64, len(tensors))
	at := int64(0)
	for i, t := range tensors {
		size, ok := byteSize(t.DType, t.Shape)
		switch {
		case t.Name == metadataKey || !utf8.ValidString(t.Name):
			return &TensorError{t.Name, "no tensor can have this name"}
		case i > 0 && tensors[i-1].Name == t.Name:
			return &TensorError{t.Name, "two have this name"}
		case !ok || size > math.MaxInt64-at:
			return &TensorError{t.Name, fmt.Sprintf("type %q and shape %v are not possible", t.DType, t.Shape)}
		}
		ends[i] = at + size
		header[t.Name] = info{t.DType, append([]int{}, t.Shape...), [2]int64{at, ends[i]}}
		at = ends[i]
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 { // the body is aligned, by blanks
		text = append(text, ' ')
	}
	if len(text) > maxHeader {
		return &TensorError{tensors[0].Name, fmt.Sprintf("with all others it makes a header of %d bytes, at most %d are possible", len(text), maxHeader)}
	}
	if _, err := w.Write(append(binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(text)), uint64(len(text))), text...)); err != nil {
		return err
	}
	at = 0
	for i, t := range tensors {
		shown := false
		err := t.Bytes(func(raw []byte) error {
			if shown || int64(len(raw)) != ends[i]-at {
				return &TensorError{t.Name, fmt.Sprintf("%d bytes, expected %d, once: shape %v of %s", len(raw), ends[i]-at, t.Shape, t.DType)}
			}
			shown = true
			_, err := w.Write(raw)
			return err
		})
		if err == nil && !shown {
			err = &TensorError{t.Name, "it showed no bytes"}
		}
		if err != nil {
			return err
		}
		at = ends[i]
	}
	return nil
}

// Open reads and checks the header of a file of size bytes. No more memory is used than a few times that of the header, whatever it says.
//
// Errors: *FormatError; those of r.
func Open(r io.ReaderAt, size int64) (*File, error) {
	prefix := make([]byte, 8)
	if size < 8 {
		return nil, &FormatError{size, fmt.Sprintf("%d bytes are too few for the length of a header", size)}
	}
	if err := readFull(r, prefix, 0); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint64(prefix)
	if length > maxHeader || length > uint64(size-8) {
		return nil, &FormatError{0, fmt.Sprintf("a header of %d bytes in a file of %d; at most %d are possible", length, size, maxHeader)}
	}
	text := make([]byte, length)
	if err := readFull(r, text, 8); err != nil {
		return nil, err
	}
	f := &File{r: r, body: 8 + int64(length), byName: map[string]int{}}
	if err := f.parse(text); err != nil {
		return nil, err
	}
	return f, f.check(size - f.body)
}

func readFull(r io.ReaderAt, into []byte, at int64) error {
	n, err := r.ReadAt(into, at)
	if n == len(into) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return &FormatError{at + int64(n), "the file ends here"}
	}
	return err
}

// parse reads the header. Keys are read one by one, since encoding/json lets a second of the same name pass.
func (f *File) parse(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	bad := func(format string, args ...any) error {
		return &FormatError{8 + d.InputOffset(), fmt.Sprintf(format, args...)}
	}
	if len(text) == 0 || text[0] != '{' {
		return bad("the header does not begin with {")
	}
	if !utf8.Valid(text) {
		return bad("the header is no UTF-8")
	}
	if _, err := d.Token(); err != nil {
		return bad("the header is no JSON: %v", err)
	}
	seenMetadata := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return bad("the header is no JSON: %v", err)
		}
		name, ok := key.(string)
		if !ok {
			return bad("the header has the key %v", key)
		}
		if name == metadataKey {
			if seenMetadata {
				return bad("%s is there twice", name)
			}
			seenMetadata = true
			if f.Metadata, err = metadata(d); err != nil {
				return bad("%s: %v", name, err)
			}
			continue
		}
		if _, twice := f.byName[name]; twice {
			return bad("%q is there twice", name)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return bad("%q: %v", name, err)
		}
		i, err := entry(raw)
		if err != nil {
			return bad("%q: %v", name, err)
		}
		f.byName[name] = 0
		f.Entries = append(f.Entries, Entry{name, i.DType, i.Shape, i.Offsets[0], i.Offsets[1]})
	}
	if _, err := d.Token(); err != nil {
		return bad("the header is no JSON: %v", err)
	}
	if rest := bytes.TrimLeft(text[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return bad("%q after the header", rest[:min(16, len(rest))])
	}
	return nil
}

// metadata reads an object of strings, in which no key is there twice.
func metadata(d *json.Decoder) (map[string]string, error) {
	m := map[string]string{}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("expected an object, got %v %v", t, err)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := d.Token()
		if err != nil {
			return nil, err
		}
		k, v := fmt.Sprint(key), ""
		var ok bool
		if v, ok = value.(string); !ok {
			return nil, fmt.Errorf("%q has the value %v, expected text", k, value)
		}
		if _, twice := m[k]; twice {
			return nil, fmt.Errorf("%q is there twice", k)
		}
		m[k] = v
	}
	_, err := d.Token()
	return m, err
}

// entry reads a tensor's part of the header: these three keys, in small letters, once each.
func entry(raw json.RawMessage) (info, error) {
	var i info
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return i, fmt.Errorf("expected an object, got %.20s", raw)
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return i, err
		}
		name := fmt.Sprint(key)
		if seen[name] {
			return i, fmt.Errorf("%q is there twice", name)
		}
		seen[name] = true
		switch name {
		case "dtype":
			err = d.Decode(&i.DType)
		case "shape":
			err = d.Decode(&i.Shape)
			if err == nil && i.Shape == nil {
				err = errors.New("expected a list")
			}
		case "data_offsets":
			var offsets []int64
			if err = d.Decode(&offsets); err == nil && len(offsets) != 2 {
				err = fmt.Errorf("%d data_offsets, expected 2", len(offsets))
			} else if err == nil {
				i.Offsets = [2]int64(offsets)
			}
		default:
			err = fmt.Errorf("the key %q", name)
		}
		if err != nil {
			return i, err
		}
	}
	if len(seen) != 3 {
		return i, errors.New("expected dtype, shape and data_offsets")
	}
	return i, nil
}

// check compares types, shapes and offsets with each other and with the size of the body.
func (f *File) check(body int64) error {
	slices.SortFunc(f.Entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
	covered := int64(0)
	for i, e := range f.Entries {
		size, ok := byteSize(e.DType, e.Shape)
		switch {
		case e.DType.Size() == 0:
			return &FormatError{f.body, fmt.Sprintf("%q has the unknown type %q", e.Name, e.DType)}
		case !ok || size > body:
			return &FormatError{f.body, fmt.Sprintf("%q has the shape %v of %s, and the body %d bytes", e.Name, e.Shape, e.DType, body)}
		case e.Start != covered || e.End < e.Start || e.End-e.Start != size || e.End > body:
			return &FormatError{f.body, fmt.Sprintf("%q lies from %d to %d, expected from %d to %d in a body of %d bytes", e.Name, e.Start, e.End, covered, covered+size, body)}
		}
		covered = e.End
		f.byName[e.Name] = i
	}
	if covered != body {
		return &FormatError{f.body + covered, fmt.Sprintf("the tensors cover %d of %d bytes", covered, body)}
	}
	return nil
}

// Find returns the tensor of a name.
func (f *File) Find(name string) (Entry, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Entry{}, false
	}
	return f.Entries[i], true
}

// Read reads a tensor's bytes. into must have their number.
//
// Errors: *TensorError; *FormatError, where the file has become shorter; those of the reader.
func (f *File) Read(e Entry, into []byte) error {
	if have, ok := f.Find(e.Name); !ok || have.Start != e.Start || have.End != e.End {
		return &TensorError{e.Name, "it is not of this file"}
	}
	if int64(len(into)) != e.End-e.Start {
		return &TensorError{e.Name, fmt.Sprintf("%d bytes to read into, expected %d", len(into), e.End-e.Start)}
	}
	return readFull(f.r, into, f.body+e.Start)
}

package checkpoint

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/store/safetensors"
)

// values are a checkpoint's tensors by the path of their variable.
type values map[string]*tensors.Tensor

// MismatchError says that values belong to another network. Nothing was changed.
type MismatchError struct {
	Problems []string // one for each variable: what the network has, what was given
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("these values are for another network; nothing was changed:\n  %s", strings.Join(e.Problems, "\n  "))
}

var typeNames = map[dtypes.DType]safetensors.DType{
	dtypes.Bool: "BOOL", dtypes.Uint8: "U8", dtypes.Int8: "I8", dtypes.Int16: "I16", dtypes.Uint16: "U16", dtypes.Int32: "I32", dtypes.Uint32: "U32",
	dtypes.Int64: "I64", dtypes.Uint64: "U64", dtypes.Float16: "F16", dtypes.BFloat16: "BF16", dtypes.Float32: "F32", dtypes.Float64: "F64",
}

func dtypeOf(name safetensors.DType) (dtypes.DType, bool) {
	for dtype, n := range typeNames {
		if n == name {
			return dtype, true
		}
	}
	return dtypes.InvalidDType, false
}

// content is what a checkpoint saves of a store.
type content struct {
	tensors   []safetensors.Tensor
	masks     map[string]bits
	trainable []string
}

func (c *content) write(w io.Writer) error { return safetensors.Write(w, nil, c.tensors) }

// digests are the SHA-256 of the parts of a file of tensors: of each variable by its path, which begins with a slash, and of the header.
type digests map[string]string

const (
	headerKey = "header"
	wholeKey  = "whole" // of the file, instead of its parts, in version 2
)

// UnmarshalJSON implements json.Unmarshaler. Version 2 had one digest, of the file.
func (d *digests) UnmarshalJSON(text []byte) error {
	var whole string
	if json.Unmarshal(text, &whole) == nil {
		*d = digests{wholeKey: whole}
		return nil
	}
	return json.Unmarshal(text, (*map[string]string)(d))
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// hasher takes the digests of variables, from the last to the first: a variable can be read by one at a time, and who writes them begins at the other end.
type hasher struct {
	tensors []safetensors.Tensor
	next    atomic.Int64 // before it are those that are to be done
	work    sync.WaitGroup

	lock sync.Mutex
	sums digests
	errs []error
}

func (c *content) hasher() *hasher {
	h := &hasher{tensors: c.tensors, sums: digests{}}
	h.next.Store(int64(len(c.tensors)))
	return h
}

// join begins to work, next to those who joined before.
func (h *hasher) join() {
	h.work.Go(func() {
		for i := h.next.Add(-1); i >= 0; i = h.next.Add(-1) {
			t, sum := h.tensors[i], ""
			err := t.Bytes(func(raw []byte) error {
				sum = sumOf(raw)
				return nil
			})
			h.lock.Lock()
			h.sums[t.Name], h.errs = sum, append(h.errs, err)
			h.lock.Unlock()
		}
	})
}

// wait returns the digests when all are there.
func (h *hasher) wait() (digests, error) {
	h.work.Wait()
	return h.sums, errors.Join(h.errs...)
}

// borrow describes a store's variables; their bytes are read when they are written.
func borrow(store *model.Store) (*content, error) {
	return describe(store, func(_ string, value *tensors.Tensor) (func(func([]byte) error) error, error) {
		return func(use func([]byte) error) error {
			var inner error
			return errors.Join(value.ConstBytes(func(raw []byte) { inner = use(raw) }), inner)
		}, nil
	})
}

// describe lists the variables that have a value; access returns how the bytes of one that is no mask will be had.
func describe(store *model.Store, access func(path string, value *tensors.Tensor) (func(func([]byte) error) error, error)) (*content, error) {
	c := &content{masks: map[string]bits{}, trainable: []string{}}
	size := 0
	for _, v := range sorted(store) {
		if !v.HasValue() {
			continue
		}
		if v.Trainable {
			c.trainable = append(c.trainable, v.Path())
		}
		name, ok := typeNames[v.DType()]
		if !ok {
			return nil, fmt.Errorf("variable %q has type %s, which can't be saved", v.Path(), v.DType())
		}
		value, err := v.Value()
		if err != nil {
			return nil, fmt.Errorf("variable %q: %w", v.Path(), err)
		}
		if v.DType() == dtypes.Bool {
			packed, err := pack(value)
			if err != nil {
				return nil, fmt.Errorf("variable %q: %w", v.Path(), err)
			}
			c.masks[v.Path()] = packed
			continue
		}
		read, err := access(v.Path(), value)
		if err != nil {
			return nil, fmt.Errorf("variable %q: %w", v.Path(), err)
		}
		c.tensors = append(c.tensors, safetensors.Tensor{Name: v.Path(), DType: name, Shape: v.Shape().Dimensions, Bytes: read})
		size += int(v.Shape().ByteSize())
	}
	return c, checkMasks(c.masks, size)
}

// sorted returns a store's variables by path.
func sorted(store *model.Store) []*model.Variable {
	return slices.SortedFunc(store.IterVariables(), func(a, b *model.Variable) int { return cmp.Compare(a.Path(), b.Path()) })
}

// readTensors reads a file of tensors, once: the digests are taken of what is read. Nothing is allocated before its size is known to lie within the file.
func readTensors(path string, want digests) (values, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &FileError{path, "it can't be read", err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, &FileError{path, "it can't be read", err}
	}
	file, err := safetensors.Open(f, info.Size())
	if err != nil {
		return nil, &FileError{path, "it is no file of tensors", err}
	}
	body := info.Size() // where the tensors begin
	if n := len(file.Entries); n > 0 {
		body -= file.Entries[n-1].End
	}
	first := make([]byte, body) // the header, which has been read once and is that small
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, body), first); err != nil {
		return nil, &FileError{path, "it can't be read", err}
	}
	whole := sha256.New()
	whole.Write(first)
	sums, content := digests{headerKey: sumOf(first)}, values{}
	for _, e := range file.Entries {
		dtype, ok := dtypeOf(e.DType)
		if !ok {
			return nil, &FileError{path, fmt.Sprintf("%q has type %s, which no variable can have", e.Name, e.DType), nil}
		}
		t := tensors.FromShape(shapes.Make(dtype, e.Shape...))
		var inner error
		err := t.MutableBytes(func(raw []byte) {
			switch inner = file.Read(e, raw); {
			case inner != nil:
			case want[wholeKey] != "":
				whole.Write(raw)
			default:
				sums[e.Name] = sumOf(raw)
			}
		})
		if err := errors.Join(err, inner); err != nil {
			return nil, &FileError{path, fmt.Sprintf("%q can't be read", e.Name), err}
		}
		content[e.Name] = t
	}
	if want[wholeKey] != "" {
		sums = digests{wholeKey: hex.EncodeToString(whole.Sum(nil))}
	}
	if !maps.Equal(sums, want) {
		return nil, &FileError{path, "it does not match its digest", nil}
	}
	return content, nil
}

// put sets the variables, all or none. Those that only the checkpoint has are made, unless they are trainable.
func put(store *model.Store, content values, trainable []string) error {
	var problems []string
	for _, v := range sorted(store) {
		value, found := content[v.Path()]
		switch {
		case !found:
			problems = append(problems, fmt.Sprintf("%s: expected %s, not in the checkpoint", v.Path(), v.Shape()))
		case !v.Shape().Equal(value.Shape()):
			problems = append(problems, fmt.Sprintf("%s: expected %s, found %s", v.Path(), v.Shape(), value.Shape()))
		}
	}
	learns := map[string]bool{}
	for _, path := range trainable {
		learns[path] = true
	}
	paths := slices.Sorted(maps.Keys(content))
	for _, path := range paths {
		if store.GetVariable(path) == nil && learns[path] {
			problems = append(problems, fmt.Sprintf("%s: not in the network, found %s", path, content[path].Shape()))
		}
	}
	if len(problems) > 0 {
		return &MismatchError{problems}
	}
	for _, path := range paths {
		v, value := store.GetVariable(path), content[path]
		var err error
		if v == nil {
			if v, err = store.CreateVariable(path, value); err != nil {
				return err
			}
		} else if err = v.SetValue(value); err != nil {
			return err
		}
		v.SetTrainable(learns[path])
	}
	return nil
}

// bits is a Boolean tensor of one bit for each element.
type bits struct {
	Shape []int  `json:"shape"`
	Bits  []byte `json:"bits"` // the first element is the lowest bit of the first byte
}

// maxMasks is how many elements masks may have, besides one for each byte of the other variables: those of a network have fewer.
const maxMasks = 64 << 20

// checkMasks keeps a small file from taking much memory: a mask in memory is eight times as large as its bits.
func checkMasks(masks map[string]bits, size int) error {
	n := 0
	for _, b := range masks {
		n += 8 * len(b.Bits)
	}
	if n > size+maxMasks {
		return fmt.Errorf("there are %d elements in Boolean variables, and at most %d are possible next to %d bytes of others", n, size+maxMasks, size)
	}
	return nil
}

func pack(value *tensors.Tensor) (bits, error) {
	b := bits{Shape: value.Shape().Dimensions, Bits: make([]byte, (value.Shape().Size()+7)/8)}
	if b.Shape == nil {
		b.Shape = []int{}
	}
	err := value.ConstBytes(func(raw []byte) {
		for i, x := range raw {
			b.Bits[i/8] |= (x & 1) << (i % 8)
		}
	})
	return b, err
}

func (b bits) tensor() (*tensors.Tensor, error) {
	size := 1
	if slices.Contains(b.Shape, 0) { // wherever it stands: before it there may be any number
		size = 0
	}
	for _, d := range b.Shape {
		if d < 0 || d > 0 && size > 8*len(b.Bits)/d {
			return nil, fmt.Errorf("shape %v in %d bytes", b.Shape, len(b.Bits))
		}
		size *= d
	}
	if (size+7)/8 != len(b.Bits) {
		return nil, fmt.Errorf("shape %v in %d bytes", b.Shape, len(b.Bits))
	}
	t := tensors.FromShape(shapes.Make(dtypes.Bool, b.Shape...))
	return t, t.MutableBytes(func(raw []byte) {
		for i := range raw {
			raw[i] = b.Bits[i/8] >> (i % 8) & 1
		}
	})
}

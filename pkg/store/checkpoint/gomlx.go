package checkpoint

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// GoMLX v0.28.2 (package ml/model/checkpoint) writes two files for each checkpoint: checkpoint-….json with names, shapes and places of the variables, and
// checkpoint-….bin with their bytes, after a header that says that they are compressed, or bare.
const (
	theirPrefix = "checkpoint-"
	theirKey    = "var:" // before a variable's path
	theirMagic  = "gomlx_checkpointss\x04gzip"
)

// theirs is the content of GoMLX's JSON file.
type theirs struct {
	Params    json.RawMessage // hyperparameters: not read, written as none
	Variables []theirVariable
	BinFormat string
}

type theirVariable struct {
	ParameterName string
	Dimensions    []int
	DType         dtypes.DType
	Pos, Length   int
}

// LoadGoMLX brings the newest whole checkpoint that GoMLX's own package wrote in a directory into a store, which must have the network's variables. GoMLX does not
// write which variables are trainable, so that stays as it is in the store; variables that the store lacks are made, not trainable. Damaged checkpoints are
// passed over and told to warn, which may be nil. What GoMLX compresses has a checksum; what it does not compress has none, so that a number which changed
// on the disk is read as it is.
//
// Errors: ErrNone, *DamagedError, *MismatchError; nothing is changed on an error.
func LoadGoMLX(dir string, store *model.Store, warn func(error)) error {
	names, err := filepath.Glob(filepath.Join(escape(dir), theirPrefix+"*.json"))
	if err != nil {
		return err
	}
	slices.Sort(names) // GoMLX numbers them: n0000001 and so on
	slices.Reverse(names)
	var damaged []error
	for _, path := range names {
		content, err := readTheirs(path)
		if err != nil {
			damaged = append(damaged, err)
			if warn != nil {
				warn(err)
			}
			continue
		}
		var trainable []string
		for v := range store.IterVariables() {
			if v.Trainable {
				trainable = append(trainable, v.Path())
			}
		}
		return put(store, content, trainable)
	}
	if damaged != nil {
		return &DamagedError{dir, damaged}
	}
	return ErrNone
}

// escape keeps Glob from reading a directory's name as a pattern.
func escape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

func readTheirs(path string) (values, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &FileError{path, "it can't be read", err}
	}
	var list *theirs
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, &FileError{path, "it is no list of variables", err}
	}
	if list == nil || list.Variables == nil {
		return nil, &FileError{path, "it lists no variables", nil}
	}
	// All sizes are checked against each other before anything is allocated, and against the data before anything of that size is.
	total := 0
	for _, v := range list.Variables {
		if !strings.HasPrefix(v.ParameterName, theirKey) {
			return nil, &FileError{path, fmt.Sprintf("%q is no variable's name", v.ParameterName), nil}
		}
		if _, known := typeNames[v.DType]; !known {
			return nil, &FileError{path, fmt.Sprintf("%s has a type that no variable can have", v.ParameterName), nil}
		}
		size, err := sizeOf(v)
		if err != nil {
			return nil, &FileError{path, v.ParameterName, err}
		}
		if v.Pos != total || v.Length != size {
			return nil, &FileError{path, fmt.Sprintf("%s lies at %d with %d bytes, expected at %d with %d", v.ParameterName, v.Pos, v.Length, total, size), nil}
		}
		if total += size; total > maxTheirs {
			return nil, &FileError{path, fmt.Sprintf("its variables have more than %d bytes", maxTheirs), nil}
		}
	}
	binary := strings.TrimSuffix(path, ".json") + ".bin"
	f, err := os.Open(binary)
	if err != nil {
		return nil, &FileError{binary, "it can't be read", err}
	}
	defer f.Close()
	bad := func(err error) (values, error) {
		return nil, &FileError{binary, fmt.Sprintf("expected %d bytes of variables", total), err}
	}
	// It is read once to see that all is there, and once more for the values: nothing is allocated for a list that lies.
	r, err := theirBody(f)
	if err != nil {
		return bad(err)
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(r, int64(total)+1)); err != nil || n != int64(total) {
		return bad(cmp.Or(err, fmt.Errorf("there are %d, or more", n)))
	}
	if r, err = theirBody(f); err != nil {
		return bad(err)
	}
	content := values{}
	for _, v := range list.Variables {
		name := strings.TrimPrefix(v.ParameterName, theirKey)
		if content[name] != nil {
			return nil, &FileError{path, fmt.Sprintf("%s is there twice", v.ParameterName), nil}
		}
		t := tensors.FromShape(shapes.Make(v.DType, v.Dimensions...))
		var inner error
		err := t.MutableBytes(func(raw []byte) { _, inner = io.ReadFull(r, raw) })
		if err := errors.Join(err, inner); err != nil {
			return nil, &FileError{binary, v.ParameterName, err}
		}
		content[name] = t
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); !errors.Is(err, io.EOF) { // where the checksum is compared
		return bad(cmp.Or(err, errors.New("it grew while it was read")))
	}
	return content, nil
}

const maxTheirs = 1 << 36

func sizeOf(v theirVariable) (int, error) {
	size := int(v.DType.Size())
	for _, d := range v.Dimensions {
		if d < 0 || d > 0 && size > maxTheirs/d {
			return 0, fmt.Errorf("dimensions %v", v.Dimensions)
		}
		size *= d
	}
	return size, nil
}

// theirBody returns a file's bytes of variables, from the first.
func theirBody(f *os.File) (io.Reader, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	magic := make([]byte, len(theirMagic))
	n, err := io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if string(magic[:n]) == theirMagic {
		return gzip.NewReader(f)
	}
	return io.MultiReader(bytes.NewReader(magic[:n]), f), nil
}

// SaveGoMLX writes a checkpoint of all variables that have a value as GoMLX's own package reads it, into a directory that has none yet. GoMLX keeps no record of which
// variables are trainable.
//
// Errors: *SaveError.
func SaveGoMLX(dir string, store *model.Store) error {
	var files durable.FS
	if found, err := filepath.Glob(filepath.Join(escape(dir), theirPrefix+"*")); err != nil || len(found) > 0 {
		return &SaveError{dir, cmp.Or(err, errors.New("it has checkpoints already: name another directory"))}
	}
	list := theirs{Params: json.RawMessage("[]"), BinFormat: "uncompressed"}
	var body bytes.Buffer
	for _, v := range sorted(store) {
		if !v.HasValue() {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return &SaveError{dir, err}
		}
		start := body.Len()
		if err := value.ConstBytes(func(raw []byte) { body.Write(raw) }); err != nil {
			return &SaveError{dir, err}
		}
		list.Variables = append(list.Variables, theirVariable{theirKey + v.Path(), v.Shape().Dimensions, v.DType(), start, body.Len() - start})
	}
	text, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return &SaveError{dir, err}
	}
	base := filepath.Join(dir, theirPrefix+"n0000000-from-espalier-initial")
	// GoMLX looks for the JSON file, so that comes last.
	for _, file := range []struct {
		path string
		data []byte
	}{{base + ".bin", body.Bytes()}, {base + ".json", text}} {
		err := files.Replace(file.path, func(w io.Writer) error {
			_, err := w.Write(file.data)
			return err
		})
		if err != nil {
			return &SaveError{dir, err}
		}
	}
	return nil
}

package experiment

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// A run is saved as directories step-N that hold the variables (variables.safetensors) and the rest (state.json). Each is written under
// another name, synced and renamed, so that it is there whole or not at all; the two newest are kept; the loader verifies digests and
// goes back to the newest that is whole. GoMLX's own checkpoints are not used: they do not survive a kill while saving, and forget which variables
// are trainable.
const (
	stepPrefix    = "step-"
	tensorsFile   = "variables.safetensors"
	stateFile     = "state.json"
	kept          = 2
	formatVersion = 1
	maxHeader     = 100 << 20 // safetensors' own limit
)

// state is what a run needs to go on, besides its variables.
type state struct {
	Version   int
	Step      int
	Losses    []Point
	Sum       float64  // of the losses of the steps since the last of Losses
	Trainable []string // paths; all other variables are not
	Tensors   string   // SHA-256 of variables.safetensors
	Digest    string   // SHA-256 of this state with Digest ""
}

func (s state) digest() (string, error) {
	s.Digest = ""
	data, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// CheckpointError says that none of a run's checkpoints is whole.
type CheckpointError struct {
	Dir  string
	Errs []error
}

func (e *CheckpointError) Error() string {
	return fmt.Sprintf("no whole checkpoint in %s (%v); remove the directory to start afresh", e.Dir, errors.Join(e.Errs...))
}

// SaveError says that a run could not be saved: a full disk, a directory that can't be written. What was saved before is whole.
type SaveError struct {
	Dir string
	Err error
}

func (e *SaveError) Error() string {
	return fmt.Sprintf("the run could not be saved in %s: %v; mend that and run it again: it goes on from what was saved before", e.Dir, e.Err)
}

func (e *SaveError) Unwrap() error { return e.Err }

// BusyError says that a run is being trained by somebody else.
type BusyError struct{ Dir string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("the run in %s is being trained by another process, or by another part of this one: wait for it, or set Training.Name to train a run of its own", e.Dir)
}

// claim keeps others from training a run until release is called, or the process ends.
func claim(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, &SaveError{dir, err}
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	switch got, err := lock.TryLock(); {
	case err != nil:
		return nil, &SaveError{dir, err}
	case !got:
		return nil, &BusyError{dir}
	}
	return func() { _ = lock.Unlock() }, nil // the end of the process releases it too
}

// save writes a checkpoint of the store. The error is a *SaveError.
func save(dir string, store *model.Store, s state) (err error) {
	temporary := ""
	defer func() {
		if err == nil {
			return
		}
		if temporary != "" {
			err = errors.Join(err, os.RemoveAll(temporary))
		}
		err = &SaveError{dir, err}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if temporary, err = os.MkdirTemp(dir, ".saving-"); err != nil {
		return err
	}
	data, trainable, err := encode(store)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	s.Version, s.Trainable, s.Tensors = formatVersion, trainable, hex.EncodeToString(sum[:])
	if s.Digest, err = s.digest(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(temporary, tensorsFile), data); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(temporary, stateFile), text); err != nil {
		return err
	}
	if err := syncDir(temporary); err != nil {
		return err
	}
	final := filepath.Join(dir, fmt.Sprintf("%s%09d", stepPrefix, s.Step))
	if err := os.RemoveAll(final); err != nil { // a damaged one, that an earlier one was taken instead of
		return err
	}
	if err := os.Rename(temporary, final); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	// Only now is there one more whole checkpoint: drop what is older than the last two, and what a killed save left.
	steps, err := checkpoints(dir)
	if err != nil {
		return err
	}
	for _, old := range steps[min(kept, len(steps)):] {
		if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
			return err
		}
	}
	litter, err := filepath.Glob(filepath.Join(dir, ".saving-*"))
	if err != nil {
		return err
	}
	for _, l := range litter {
		if err := os.RemoveAll(l); err != nil {
			return err
		}
	}
	return nil
}

// load brings the newest whole checkpoint of a run into the store and returns its state; the zero state if there is none. A damaged one is
// skipped, and stderr says so; if all are damaged, the error is a *CheckpointError. For a checkpoint of another network it is a *MismatchError.
func load(dir string, store *model.Store) (state, error) {
	steps, err := checkpoints(dir)
	if err != nil {
		return state{}, err
	}
	var damaged []error
	for _, name := range steps {
		s, values, err := read(filepath.Join(dir, name))
		if err != nil {
			damaged = append(damaged, fmt.Errorf("%s: %w", name, err))
			fmt.Fprintf(os.Stderr, "checkpoint %s is damaged (%v): going back to the one before\n", filepath.Join(dir, name), err)
			continue
		}
		return s, put(store, values, s.Trainable)
	}
	if len(damaged) > 0 {
		return state{}, &CheckpointError{Dir: dir, Errs: damaged}
	}
	return state{}, nil
}

// Load brings the newest whole checkpoint of a run, named by Result.Dir, into a store that Init made for the same network, and returns its
// step. Variables of optimizers and masks that the store lacks are created.
func Load(dir string, store *model.Store) (step int, err error) {
	s, err := load(dir, store)
	if err == nil && s.Version == 0 {
		err = &CheckpointError{Dir: dir, Errs: []error{fs.ErrNotExist}}
	}
	return s.Step, err
}

// checkpoints lists the names of a run's checkpoints, the newest first.
func checkpoints(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // below a file there is nothing either
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && stepOf(e.Name()) >= 0 {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(stepOf(b), stepOf(a)) })
	return names, nil
}

// stepOf returns the step in a checkpoint's name, or -1 if it is no such name.
func stepOf(name string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(name, stepPrefix))
	if err != nil || !strings.HasPrefix(name, stepPrefix) {
		return -1
	}
	return n
}

func read(dir string) (state, Values, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return state{}, nil, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return state{}, nil, err
	}
	if s.Version != formatVersion {
		return state{}, nil, fmt.Errorf("format version %d, this program reads %d", s.Version, formatVersion)
	}
	if want, err := s.digest(); err != nil || want != s.Digest {
		return state{}, nil, fmt.Errorf("%s does not match its digest", stateFile)
	}
	data, err := os.ReadFile(filepath.Join(dir, tensorsFile))
	if err != nil {
		return state{}, nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != s.Tensors {
		return state{}, nil, fmt.Errorf("%s does not match its digest", tensorsFile)
	}
	values, err := decode(data)
	return s, values, err
}

// put sets the variables, all or none. Variables that only the checkpoint has are made, unless they are trainable: those belong to a
// network, and the others to optimizers and masks.
func put(store *model.Store, values Values, trainable []string) error {
	var problems []string
	for _, v := range sorted(store) {
		value, found := values[v.Path()]
		switch {
		case !found:
			problems = append(problems, fmt.Sprintf("%s: expected %s, not in the checkpoint", v.Path(), v.Shape()))
		case !v.Shape().Equal(value.Shape()):
			problems = append(problems, fmt.Sprintf("%s: expected %s, found %s", v.Path(), v.Shape(), value.Shape()))
		}
	}
	paths := slices.Sorted(maps.Keys(values))
	for _, path := range paths {
		if store.GetVariable(path) == nil && slices.Contains(trainable, path) {
			problems = append(problems, fmt.Sprintf("%s: not in the network, found %s", path, values[path].Shape()))
		}
	}
	if len(problems) > 0 {
		return &MismatchError{Problems: problems}
	}
	for _, path := range paths {
		v, value := store.GetVariable(path), values[path]
		var err error
		if v == nil {
			if v, err = store.CreateVariable(path, value); err != nil {
				return err
			}
		} else if err = v.SetValue(value); err != nil {
			return err
		}
		v.SetTrainable(slices.Contains(trainable, path))
	}
	return nil
}

// tensorInfo is an entry of a safetensors header.
type tensorInfo struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
}

var typeNames = map[dtypes.DType]string{
	dtypes.Bool: "BOOL", dtypes.Uint8: "U8", dtypes.Int8: "I8", dtypes.Int16: "I16", dtypes.Uint16: "U16", dtypes.Int32: "I32", dtypes.Uint32: "U32",
	dtypes.Int64: "I64", dtypes.Uint64: "U64", dtypes.Float16: "F16", dtypes.BFloat16: "BF16", dtypes.Float32: "F32", dtypes.Float64: "F64",
}

// encode writes all variables with a value as safetensors: 8 bytes of header length, the header in JSON, the tensors' bytes in little-endian.
func encode(store *model.Store) (data []byte, trainable []string, err error) {
	header := map[string]tensorInfo{}
	var body bytes.Buffer
	for _, v := range sorted(store) {
		if !v.HasValue() {
			continue
		}
		if v.Trainable {
			trainable = append(trainable, v.Path())
		}
		name, ok := typeNames[v.DType()]
		if !ok {
			return nil, nil, fmt.Errorf("variable %q has type %s, which can't be saved", v.Path(), v.DType())
		}
		value, err := v.Value()
		if err != nil {
			return nil, nil, err
		}
		start := body.Len()
		if err := value.ConstBytes(func(raw []byte) { body.Write(raw) }); err != nil {
			return nil, nil, err
		}
		dims := slices.Clone(v.Shape().Dimensions)
		if dims == nil {
			dims = []int{}
		}
		header[v.Path()] = tensorInfo{DType: name, Shape: dims, Offsets: [2]int{start, body.Len()}}
	}
	text, err := json.Marshal(header) // a map's keys are sorted, so the bytes are a function of the variables
	if err != nil {
		return nil, nil, err
	}
	for len(text)%8 != 0 { // safetensors aligns the body by blanks
		text = append(text, ' ')
	}
	data = binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(text)+body.Len()), uint64(len(text)))
	return append(append(data, text...), body.Bytes()...), trainable, nil
}

// decode reads what encode wrote. Nothing is allocated before its size is known to lie within the data.
func decode(data []byte) (Values, error) {
	if len(data) < 8 {
		return nil, fmt.Errorf("%s: %d bytes, too short for a header", tensorsFile, len(data))
	}
	length := binary.LittleEndian.Uint64(data)
	if length > maxHeader || length > uint64(len(data)-8) {
		return nil, fmt.Errorf("%s: header of %d bytes in a file of %d", tensorsFile, length, len(data))
	}
	var header map[string]tensorInfo
	if err := json.Unmarshal(data[8:8+length], &header); err != nil {
		return nil, fmt.Errorf("%s: header: %w", tensorsFile, err)
	}
	body := data[8+length:]
	covered := 0 // the bytes of the body up to which tensors lie, without holes or overlaps
	values := Values{}
	paths := slices.SortedFunc(maps.Keys(header), func(a, b string) int {
		x, y := header[a].Offsets, header[b].Offsets
		return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]), cmp.Compare(a, b))
	})
	for _, path := range paths {
		info := header[path]
		dtype, ok := dtypeOf(info.DType)
		if !ok {
			return nil, fmt.Errorf("%s: %s has the unknown type %q", tensorsFile, path, info.DType)
		}
		start, end := info.Offsets[0], info.Offsets[1]
		size := int(dtype.Size())
		for _, d := range info.Shape {
			if d < 0 || d > 0 && size > len(body)/d {
				return nil, fmt.Errorf("%s: %s has the shape %v, larger than the file", tensorsFile, path, info.Shape)
			}
			size *= d
		}
		if start != covered || end < start || end > len(body) || end-start != size {
			return nil, fmt.Errorf("%s: %s has offsets %v for %d bytes; they are expected to start at %d in a body of %d", tensorsFile, path, info.Offsets, size, covered, len(body))
		}
		covered = end
		t := tensors.FromShape(shapes.Make(dtype, info.Shape...))
		if err := t.MutableBytes(func(raw []byte) { copy(raw, body[start:end]) }); err != nil {
			return nil, err
		}
		values[path] = t
	}
	if covered != len(body) {
		return nil, fmt.Errorf("%s: tensors cover %d of %d bytes", tensorsFile, covered, len(body))
	}
	return values, nil
}

func dtypeOf(name string) (dtypes.DType, bool) {
	for dtype, n := range typeNames {
		if n == name {
			return dtype, true
		}
	}
	return dtypes.InvalidDType, false
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

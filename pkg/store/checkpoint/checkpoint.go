// Package checkpoint saves the variables of a GoMLX store so that nothing is lost: a program may be killed at any moment, and the disk may be full.
//
// A checkpoint is a directory, step-N, that holds the variables (variables.safetensors, which the whole ecosystem reads) and the rest (state.json: the step, the
// place in the data, masks of one bit for each weight, which variables are trainable, and what the run adds). It is written under another name, synced,
// renamed, and its parent synced, so that it is there whole or not at all. Two are kept at least. The loader checks SHA-256 digests, one for each variable and for
// the state, goes back to the newest that is whole, and says so. Order is that of steps, never of clocks.
//
// GoMLX's own checkpoints (LoadGoMLX, SaveGoMLX) do not survive a kill while saving, and forget which variables are trainable.
package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

const (
	version     = 3
	oldest      = 2 // that is read
	tensorsFile = "variables.safetensors"
	stateFile   = "state.json"
	stepPrefix  = "step-"
	saving      = ".saving-" // the start of the names of checkpoints that are being written
)

// Dir is where the checkpoints of one run lie. With a Path it is ready to use. One process at a time may save there.
type Dir struct {
	Path string
	// Keep is how many checkpoints are kept. Default, and the fewest: 2, so that there is one to go back to.
	Keep int
	// Warn is told of each damaged checkpoint that Load passes over. nil: it is printed on the standard error output.
	Warn func(error)

	files durable.FS
}

// State is what a run needs to go on, besides its variables. Optimizers and random number generators keep theirs in variables.
type State struct {
	Step   int    `json:"step"`             // of training; checkpoints are ordered by it
	Recipe string `json:"recipe,omitempty"` // what the run is, in words
	Seed   int64  `json:"seed,omitempty"`   // of the run: it chooses the order of the examples
	// Position is the place in the data: the number of batches that have been used. Together with Seed it says which examples come next.
	Position int `json:"position,omitempty"`
	// Extra is what else the run keeps, in JSON.
	Extra json.RawMessage `json:"extra,omitempty"`
}

// saved is the content of state.json.
type saved struct {
	State
	Trainable []string        `json:"trainable"`       // paths; all other variables are not
	Masks     map[string]bits `json:"masks,omitempty"` // Boolean variables by path
	Tensors   digests         `json:"tensors"`
}

// envelope is the form of state.json.
type envelope struct {
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"` // of State, byte for byte
	State   json.RawMessage `json:"state"`
}

// ErrNone says that a run has no checkpoint yet.
var ErrNone = errors.New("no checkpoint has been saved")

// DamagedError says that none of a run's checkpoints can be used.
type DamagedError struct {
	Dir  string
	Errs []error // one for each, the newest first
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("no whole checkpoint in %s (%v); remove the directory to start afresh", e.Dir, errors.Join(e.Errs...))
}

// Unwrap returns what is wrong with each.
func (e *DamagedError) Unwrap() []error { return e.Errs }

// FileError says what is wrong with a file of a checkpoint.
type FileError struct {
	Path    string
	Problem string
	Err     error // the cause; may be nil
}

func (e *FileError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Path, e.Problem, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Path, e.Problem)
}

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// VersionError says that a checkpoint has a format that this program does not read.
type VersionError struct {
	Path string
	Got  int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d, and this program reads %d to %d: load it with the version of Espalier that wrote it, or train again", e.Path, e.Got, oldest, version)
}

// SaveError says that a checkpoint could not be saved: a full disk, a directory that can't be written. What was saved before is whole, and what
// is in memory is as it was, so saving again works once that is mended.
type SaveError struct {
	Dir string
	Err error
}

func (e *SaveError) Error() string {
	return fmt.Sprintf("the run could not be saved in %s: %v; mend that and run it again: it goes on from what was saved before", e.Dir, e.Err)
}

// Unwrap returns the cause.
func (e *SaveError) Unwrap() error { return e.Err }

// Save writes a checkpoint of all variables that have a value, and returns when it is on the disk. The error is a *SaveError.
func (d Dir) Save(store *model.Store, s State) error {
	content, err := borrow(store)
	if err != nil {
		return &SaveError{d.Path, err}
	}
	return d.write(content, s)
}

// write writes a checkpoint. The error is a *SaveError.
func (d Dir) write(content *content, s State) (err error) {
	temporary := ""
	defer func() {
		if err == nil {
			return
		}
		if temporary != "" {
			err = errors.Join(err, d.files.RemoveAll(temporary))
		}
		err = &SaveError{d.Path, err}
	}()
	if s.Step < 0 {
		return fmt.Errorf("step %d: expected 0 or more", s.Step)
	}
	if err := d.files.MkdirAll(d.Path); err != nil {
		return err
	}
	if temporary, err = d.files.MkdirTemp(d.Path, saving); err != nil {
		return err
	}
	// The digests are taken while the file is written and synced, of the same variables a second time: one after the other would take twice as long, as SHA-256
	// takes longer than a fast disk. While the file is synced there is a processor more for it.
	hasher, head := content.hasher(), &header{}
	hasher.join()
	err = d.files.Write(filepath.Join(temporary, tensorsFile), func(w io.Writer) error {
		head.w = w
		err := content.write(head)
		hasher.join()
		return err
	})
	sums, hashed := hasher.wait()
	if err := errors.Join(err, hashed); err != nil {
		return err
	}
	sums[headerKey] = head.sum
	text, err := json.Marshal(saved{s, content.trainable, content.masks, sums})
	if err != nil {
		return err
	}
	if text, err = json.Marshal(envelope{version, sumOf(text), text}); err != nil {
		return err
	}
	err = d.files.Write(filepath.Join(temporary, stateFile), func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
	if err != nil {
		return err
	}
	if err := d.files.SyncDir(temporary); err != nil {
		return err
	}
	steps, err := d.list()
	if err != nil {
		return err
	}
	// One of the same step, which may be the only whole one, is not touched: the new one is its next edition.
	next := place{step: s.Step}
	for _, p := range steps {
		if p.step == s.Step {
			next.edition = max(next.edition, p.edition+1)
		}
	}
	if err := d.files.Rename(temporary, filepath.Join(d.Path, next.String())); err != nil {
		return err
	}
	temporary = ""
	if err := d.files.SyncDir(d.Path); err != nil {
		return err
	}
	return d.tidy(next)
}

// header takes the digest of what is written first, which is the header of a file of tensors.
type header struct {
	w   io.Writer
	sum string
}

func (h *header) Write(data []byte) (int, error) {
	if h.sum == "" {
		h.sum = sumOf(data)
	}
	return h.w.Write(data)
}

// tidy removes what is older than what is kept, and what killed saves left. It is called when there is one more whole checkpoint, which was saved just now. Newer ones, of a run that
// went back, are older in that sense: they could not be read.
func (d Dir) tidy(saved place) error {
	steps, err := d.list()
	if err != nil {
		return err
	}
	if at := slices.Index(steps, saved); at > 0 {
		steps = slices.Concat(steps[at:], steps[:at])
	}
	for _, old := range steps[min(max(2, d.Keep), len(steps)):] {
		if err := d.files.RemoveAll(filepath.Join(d.Path, old.String())); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), saving) {
			if err := d.files.RemoveAll(filepath.Join(d.Path, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Load brings the newest whole checkpoint into a store and returns its state. Variables that the store lacks are made, unless they are trainable: those
// belong to a network, and the others to optimizers and masks. Damaged checkpoints are passed over, and Warn is told.
//
// Errors: ErrNone; *DamagedError, where none is whole; *MismatchError for a checkpoint of another network. Nothing is changed on an error.
func (d Dir) Load(store *model.Store) (State, error) {
	s, content, err := d.newest()
	if err != nil {
		return State{}, err
	}
	return s.State, put(store, content, s.Trainable)
}

// newest reads the newest whole checkpoint.
func (d Dir) newest() (saved, values, error) {
	steps, err := d.list()
	if err != nil {
		return saved{}, nil, err
	}
	var damaged []error
	for _, p := range steps {
		s, content, err := read(filepath.Join(d.Path, p.String()))
		if err == nil {
			return s, content, nil
		}
		damaged = append(damaged, err)
		err = fmt.Errorf("the checkpoint of step %d is passed over, going back to the one before: %w", p.step, err)
		if d.Warn != nil {
			d.Warn(err)
		} else {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if damaged != nil {
		return saved{}, nil, &DamagedError{d.Path, damaged}
	}
	return saved{}, nil, ErrNone
}

// Steps returns the steps of the checkpoints that are there, the newest first, without reading them. A directory that is missing has none.
func (d Dir) Steps() ([]int, error) {
	places, err := d.list()
	var steps []int
	for _, p := range places {
		steps = append(steps, p.step)
	}
	return slices.Compact(steps), err
}

// place is a checkpoint's name.
type place struct{ step, edition int }

func (p place) String() string {
	name := fmt.Sprintf("%s%09d", stepPrefix, p.step)
	if p.edition > 0 {
		name += "." + strconv.Itoa(p.edition)
	}
	return name
}

// parsePlace reads a name that String wrote.
func parsePlace(name string) (place, bool) {
	digits, found := strings.CutPrefix(name, stepPrefix)
	digits, edition, edited := strings.Cut(digits, ".")
	step, err := strconv.Atoi(digits)
	p := place{step: step}
	if edited && err == nil {
		p.edition, err = strconv.Atoi(edition)
	}
	return p, found && err == nil && p.String() == name
}

// list returns the checkpoints that are there, the newest first.
func (d Dir) list() ([]place, error) {
	entries, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // below a file there is nothing either
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var places []place
	for _, e := range entries {
		if p, ok := parsePlace(e.Name()); ok && e.IsDir() {
			places = append(places, p)
		}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(b.step, a.step), cmp.Compare(b.edition, a.edition)) })
	return places, nil
}

func readable(v int) bool { return oldest <= v && v <= version }

// read reads and checks a checkpoint. The error is a *FileError or a *VersionError.
func read(dir string) (saved, values, error) {
	var s saved
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return s, nil, &FileError{path, "it can't be read", err}
	}
	var outer envelope
	err = json.Unmarshal(text, &outer)
	if older := (struct{ Version int }{}); (err != nil || !readable(outer.Version)) && json.Unmarshal(text, &older) == nil && older.Version > 0 && !readable(older.Version) {
		return s, nil, &VersionError{path, older.Version}
	}
	if err != nil {
		return s, nil, &FileError{path, "it is no state of a run", err}
	}
	if sumOf(outer.State) != outer.SHA256 {
		return s, nil, &FileError{path, "it does not match its digest", nil}
	}
	inner := json.NewDecoder(bytes.NewReader(outer.State))
	inner.DisallowUnknownFields()
	if err := inner.Decode(&s); err != nil {
		return s, nil, &FileError{path, "it is no state of a run", err}
	}
	if s.Step < 0 {
		return s, nil, &FileError{path, fmt.Sprintf("its step is %d", s.Step), nil}
	}
	content, err := readTensors(filepath.Join(dir, tensorsFile), s.Tensors)
	if err != nil {
		return s, nil, err
	}
	size := 0
	for _, t := range content {
		size += int(t.Shape().ByteSize())
	}
	if err := checkMasks(s.Masks, size); err != nil {
		return s, nil, &FileError{path, "its masks are refused", err}
	}
	for name, b := range s.Masks {
		if content[name] != nil {
			return s, nil, &FileError{path, fmt.Sprintf("%q is among the masks and among the tensors", name), nil}
		}
		t, err := b.tensor()
		if err != nil {
			return s, nil, &FileError{path, fmt.Sprintf("mask %q", name), err}
		}
		content[name] = t
	}
	return s, content, nil
}

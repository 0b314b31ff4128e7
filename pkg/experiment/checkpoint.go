package experiment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
	"github.com/espalier-ml/espalier/pkg/store/checkpoint"
)

// CheckpointError says that none of a run's checkpoints is whole.
type CheckpointError = checkpoint.DamagedError

// SaveError says that a run could not be saved: a full disk, a directory that can't be written. What was saved before is whole.
type SaveError = checkpoint.SaveError

// MismatchError says that values belong to another network. Nothing was changed.
type MismatchError = checkpoint.MismatchError

// BusyError says that a run is being trained, or a comparison made, by somebody else.
type BusyError struct{ Dir, Remedy string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("another process, or another part of this one, is at work in %s: wait for it, or %s", e.Dir, e.Remedy)
}

// claim keeps others from working in a directory until release is called, or the process ends.
func claim(dir, remedy string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, &SaveError{Dir: dir, Err: err}
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	switch got, err := lock.TryLock(); {
	case err != nil:
		return nil, &SaveError{Dir: dir, Err: err}
	case !got:
		return nil, &BusyError{dir, remedy}
	}
	return func() { _ = lock.Unlock() }, nil // the end of the process releases it too
}

// reachedFile is where an interrupted run writes which run would start from what it has left in the store: it is the same, and goes on.
const reachedFile = "reached"

// reached writes it.
func (tr *Trainer) reached(t Training, total int, r Result) error {
	if r.Dir == "" {
		return nil
	}
	// As Train starts: with a fresh optimizer and fresh random numbers.
	instead := maps.Clone(tr.step.owned)
	if v := tr.store.GetVariable("/" + model.RNGStateVariableName); v != nil {
		state, err := graph.RNGStateFromSeed(t.Seed)
		if err != nil {
			return err
		}
		instead[v] = state
	}
	digest, err := tr.digestWith(t, total, instead)
	if err != nil {
		return err
	}
	err = durable.FS{}.Replace(filepath.Join(r.Dir, reachedFile), func(w io.Writer) error {
		_, err := io.WriteString(w, digest[:16])
		return err
	})
	if err != nil {
		return &SaveError{Dir: r.Dir, Err: err}
	}
	return nil
}

// beganAs returns the name of the run in a directory that a run goes on with, by its name: that of an interrupted one which has reached what this one starts from, or its own.
func beganAs(dir, name string) string {
	if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
		return name
	}
	runs, err := os.ReadDir(dir)
	if err != nil {
		return name // there is nothing yet
	}
	for _, run := range runs {
		if text, err := os.ReadFile(filepath.Join(dir, run.Name(), reachedFile)); err == nil && string(text) == name {
			return run.Name()
		}
	}
	return name
}

// notes are what a run keeps besides its variables and its place in the data.
type notes struct {
	Losses []Point `json:"losses"`
	Sum    float64 `json:"sum"` // of the losses of the steps since the last of Losses
	// What Training.Watch is told when the run goes on.
	Accuracies []Point `json:"accuracies,omitempty"`
	Layers     history `json:"layers"`
	// The losses at the steps of Accuracies, and the step of the least.
	Validation []Point `json:"validation,omitempty"`
	Best       int     `json:"best,omitempty"`

	kept map[int]Values // they lie among the checkpoint's variables
}

// resume brings the newest whole checkpoint of a run into the store; step 0 if there is none.
func resume(dir checkpoint.Dir, store *model.Store) (step int, n notes, err error) {
	s, err := dir.Load(store)
	if errors.Is(err, checkpoint.ErrNone) {
		return 0, n, nil
	}
	if err != nil {
		return 0, n, err
	}
	if err := json.Unmarshal(s.Extra, &n); err != nil {
		return 0, n, &CheckpointError{Dir: dir.Path, Errs: []error{fmt.Errorf("it is not of a training run: %w", err)}}
	}
	if n.kept, err = takeKept(store); err != nil {
		return 0, n, &CheckpointError{Dir: dir.Path, Errs: []error{err}}
	}
	if !n.Layers.whole() {
		return 0, n, &CheckpointError{Dir: dir.Path, Errs: []error{errors.New("its record of pruned layers is not whole")}}
	}
	return s.Step, n, nil
}

// Load brings the newest whole checkpoint of a run, named by Result.Dir, into a store that Init made for the same network, and returns its
// step. Variables of optimizers and masks that the store lacks are created.
//
// Errors: *CheckpointError, *MismatchError, checkpoint.ErrNone.
func Load(dir string, store *model.Store) (step int, err error) {
	s, err := checkpoint.Dir{Path: dir}.Load(store)
	if err == nil {
		_, err = takeKept(store)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", dir, err)
	}
	return s.Step, err
}

// keptScope is where the networks of Result.Kept lie in a checkpoint, by step: "/kept/100/fc1/weights". They are saved with the rest, so that a checkpoint is whole or
// not there at all; the store that is trained does not have them.
const keptScope = "/kept/"

// withKept returns a store to be saved: the variables of a run's store, whose values it shares, and the networks that are kept.
func withKept(store *model.Store, kept map[int]Values) (*model.Store, error) {
	if len(kept) == 0 {
		return store, nil
	}
	whole := model.NewStore()
	for v := range store.IterVariables() {
		if !v.HasValue() {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		shared, err := whole.CreateVariable(v.Path(), value)
		if err != nil {
			return nil, err
		}
		shared.SetTrainable(v.Trainable)
	}
	for step, values := range kept {
		for path, value := range values {
			v, err := whole.CreateVariable(keptScope+strconv.Itoa(step)+path, value)
			if err != nil {
				return nil, err
			}
			v.SetTrainable(false)
		}
	}
	return whole, nil
}

// takeKept takes what withKept has added out of a store again.
func takeKept(store *model.Store) (map[int]Values, error) {
	var kept map[int]Values
	for _, v := range sorted(store) {
		rest, found := strings.CutPrefix(v.Path(), keptScope)
		if !found {
			continue
		}
		number, path, _ := strings.Cut(rest, model.ScopeSeparator)
		step, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("%s is of no step", v.Path())
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		if value, err = value.LocalClone(); err != nil {
			return nil, err
		}
		if kept == nil {
			kept = map[int]Values{}
		}
		if kept[step] == nil {
			kept[step] = Values{}
		}
		kept[step][model.ScopeSeparator+path] = value
		if err := store.DeleteVariable(v.Path()); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

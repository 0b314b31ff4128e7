package setup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// step is one part of the set-up. It is done once for each digest of what it is made from.
type step struct {
	name  string
	made  []string                        // what it makes, relative to Home: what uninstall removes. Nothing else may be there
	from  func() (string, error)          // digest of all that it depends on
	there func() bool                     // whether what it makes is there, cheaply
	do    func(ctx context.Context) error // makes it; must leave nothing half-made that `there` takes for whole

	computes bool // it is needed to compute, without a kernel
}

// state is the record of what was set up.
type state struct {
	Done map[string]string // step -> digest
	Made []string          // relative to Home
}

const (
	stateFile = "state.json"
	lockFile  = "lock"
)

// Ensure sets up what is not there yet. It is safe to repeat and to interrupt; a second run needs no network. One process works at a time.
func Ensure(ctx context.Context, progress io.Writer) (Paths, error) {
	p, err := Locate()
	if err != nil {
		return p, err
	}
	return p, ensure(ctx, progress, p.Home, p.steps(progress))
}

// EnsureComputing is Ensure for programs that compute and need no kernel. What is there of the kernel stays as it is: it may be another checkout's.
func EnsureComputing(ctx context.Context, progress io.Writer) (Paths, error) {
	p, err := Locate()
	if err != nil {
		return p, err
	}
	return p, ensureSome(ctx, progress, p.Home, p.steps(progress), func(s step) bool { return s.computes })
}

func ensure(ctx context.Context, progress io.Writer, dir string, steps []step) error {
	return ensureSome(ctx, progress, dir, steps, func(step) bool { return true })
}

// ensureSome does those of all steps that are wanted.
func ensureSome(ctx context.Context, progress io.Writer, dir string, all []step, wanted func(step) bool) error {
	if err := usable(dir); err != nil {
		return err
	}
	unlock, err := lock(ctx, progress, dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeScratch(dir); err != nil {
		return wrap("set-up", err)
	}
	s, err := readState(dir)
	if errors.Is(err, ErrState) {
		// Nothing is known to be done, so all is done again, over what an earlier set-up made.
		for _, step := range all {
			s.Made = append(s.Made, step.made...)
		}
	} else if err != nil {
		return err
	}
	var steps []step
	for _, step := range all {
		if wanted(step) {
			steps = append(steps, step)
		}
	}
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		digest, err := step.from()
		if err != nil {
			return wrap(step.name, err)
		}
		if s.Done[step.name] == digest && step.there() {
			continue
		}
		fmt.Fprintf(progress, "[%d/%d] %s …\n", i+1, len(steps), step.name)
		start := time.Now()
		// What is made now is recorded first, so that uninstall finds it even after a kill.
		delete(s.Done, step.name)
		for _, m := range step.made {
			if s.owns(m) {
				continue
			}
			if exists(filepath.Join(dir, m)) {
				return &Error{step.name, fmt.Errorf("%s is there, and set-up did not make it", filepath.Join(dir, m)),
					"move it away, or choose another directory with ESPALIER_HOME"}
			}
			s.Made = append(s.Made, m)
		}
		if err := writeState(dir, s); err != nil {
			return wrap(step.name, err)
		}
		if err := step.do(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return wrap(step.name, err)
		}
		s.Done[step.name] = digest
		if err := writeState(dir, s); err != nil {
			return wrap(step.name, err)
		}
		fmt.Fprintf(progress, "[%d/%d] %s: done in %.0f s\n", i+1, len(steps), step.name, time.Since(start).Seconds())
	}
	return nil
}

// usable refuses directories that hold what is not ours: `bin` in them is the user's.
func usable(dir string) error {
	user, err := os.UserHomeDir()
	if dir = filepath.Clean(dir); dir == filepath.Dir(dir) || err == nil && dir == filepath.Clean(user) {
		return &Error{"set-up", fmt.Errorf("%s is not for us alone", dir), "choose a directory of its own with ESPALIER_HOME"}
	}
	return nil
}

// owns says whether set-up made a path, or the directory that it is in.
func (s state) owns(path string) bool {
	return slices.ContainsFunc(s.Made, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
}

const scratchPrefix = ".espalier-"

// removeScratch removes what a killed set-up left. The lock must be held.
func removeScratch(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, scratchPrefix+"*"))
	for _, l := range left {
		err = errors.Join(err, os.RemoveAll(l))
	}
	return err
}

// lock makes a home directory and takes the lock on it, waiting for another set-up to end.
func lock(ctx context.Context, progress io.Writer, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, &Error{"set-up", err, "choose a directory that you can write with ESPALIER_HOME"}
	}
	l := flock.New(filepath.Join(dir, lockFile))
	got, err := l.TryLock()
	if err == nil && !got {
		fmt.Fprintln(progress, "another espalier is at work on the set-up: waiting for it")
		got, err = l.TryLockContext(ctx, 200*time.Millisecond)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil || !got {
		return nil, wrap("lock the set-up", err)
	}
	if !exists(l.Path()) {
		// We waited for an uninstall, which removed the file: a lock on it keeps nobody out.
		return lock(ctx, progress, dir)
	}
	return func() { _ = l.Unlock() }, nil // the end of the process releases it in any case
}

// ErrState says that the record of what was set up can't be read.
var ErrState = errors.New("the record of what was set up is damaged")

func readState(dir string) (state, error) {
	s := state{Done: map[string]string{}}
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, wrap("read the state of the set-up", err)
	}
	if err := json.Unmarshal(data, &s); err != nil || s.Done == nil {
		return state{Done: map[string]string{}}, &Error{"read the state of the set-up", ErrState, "run `go run ./kernelext/cmd/espalier setup`, which writes it anew"}
	}
	return s, nil
}

func writeState(dir string, s state) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, stateFile), data, 0o644)
}

// writeFile writes a file whole or not at all.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), scratchPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// digest of strings and files; files that do not exist count as empty.
func digest(parts map[string][]byte) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		fmt.Fprintf(h, "%s %d\n", name, len(parts[name]))
		h.Write(parts[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// UninstallReport says what was removed.
type UninstallReport struct {
	Removed []string
	Left    []string // what set-up did not make
}

// Uninstall removes all that set-up made below its directory, and nothing else.
func Uninstall(ctx context.Context, progress io.Writer) (UninstallReport, error) {
	p, err := Locate()
	if err != nil {
		return UninstallReport{}, err
	}
	if err := usable(p.Home); err != nil {
		return UninstallReport{}, err
	}
	if err := unregister(p); err != nil {
		return UninstallReport{}, err
	}
	return uninstall(ctx, progress, p.Home)
}

func uninstall(ctx context.Context, progress io.Writer, dir string) (UninstallReport, error) {
	var r UninstallReport
	if _, err := os.Stat(filepath.Join(dir, stateFile)); errors.Is(err, fs.ErrNotExist) {
		return r, nil // nothing was set up here
	}
	unlock, err := lock(ctx, progress, dir)
	if err != nil {
		return r, err
	}
	defer unlock()
	s, err := readState(dir)
	if err != nil {
		return r, err
	}
	for _, m := range s.Made {
		// The state is a file that others can write: nothing outside of the directory is touched, whatever it says.
		if !filepath.IsLocal(m) || m == "." {
			continue
		}
		path := filepath.Join(dir, m)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return r, wrap("uninstall", err)
		}
		r.Removed = append(r.Removed, path)
		// The directory that it was in goes if nothing else is in it; else it stays, with what is not ours.
		if parent := filepath.Dir(path); parent != dir {
			_ = os.Remove(parent)
		}
	}
	if err := removeScratch(dir); err != nil {
		return r, wrap("uninstall", err)
	}
	for _, own := range []string{stateFile, lockFile} {
		if err := os.Remove(filepath.Join(dir, own)); err != nil {
			return r, wrap("uninstall", err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return r, wrap("uninstall", err)
	}
	for _, l := range left {
		r.Left = append(r.Left, filepath.Join(dir, l.Name()))
	}
	if len(left) == 0 {
		return r, os.Remove(dir)
	}
	return r, nil
}

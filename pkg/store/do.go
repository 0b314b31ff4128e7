package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Run is one attempt at computing a result.
type Run struct {
	Dir     string // where fn saves what it needs to go on; it is kept on an error, an interrupt and a kill, and removed when the result is saved
	Resumed bool   // an earlier attempt had this Dir
	Attempt int    // the first is 1
}

// Do returns the result of fn for these inputs, computing it where the store does not have it. However many goroutines and processes ask for the same,
// one computes; the others wait for it, or for ctx. Where the one that computes fails or is killed, the next goes on from its Dir.
//
// T may be []byte, a type with the methods of encoding.BinaryMarshaler and BinaryUnmarshaler, or anything that JSON keeps: a type with parts that JSON
// loses is refused before anything is computed. What was computed is returned as it will be read the next time.
//
// An fn that returns an error, when ctx is done or otherwise, has not finished: nothing is saved, and its value and error are returned as they are.
// A result in the store that is found damaged is said on the standard error, in one line, and computed again.
//
// Errors: that of fn; *PanicError; *SaveError, beside the result, where it can't be saved; *ArgumentError, *FormatError, *WriteError, and that
// of ctx, before anything is computed.
func Do[T any](ctx context.Context, name string, inputs Inputs, fn func(ctx context.Context, run *Run) (T, error)) (T, error) {
	var none T
	if err := checkName(name); err != nil {
		return none, err
	}
	c, err := codecOf[T]()
	if err != nil {
		return none, err
	}
	in, err := inputs.resolve()
	if err != nil {
		return none, err
	}
	s, id := in.store, runID(name, in.key)
	var damage error // told where the result has to be computed because of it; what is damaged is moved aside, so only the first load meets it
	tell := func(err error) { damage = cmp.Or(damage, err) }
	if value, found, err := load(s, name, in.key, c, tell); found || err != nil {
		if found {
			s.tidy(id)
		}
		return value, err
	}
	release, err := s.hold(ctx, id, name)
	if err != nil {
		return none, err
	}
	defer release()
	value, found, err := load(s, name, in.key, c, tell)
	if found || err != nil {
		return value, err
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	run, err := s.begin(id, name, in.key)
	if err != nil {
		return none, err
	}
	if damage != nil {
		fmt.Fprintf(s.stderr, "store: %s is computed again: %s\n", name, strings.ReplaceAll(damage.Error(), "\n", "; "))
	}
	value, err = call(ctx, name, run, fn)
	if err != nil {
		return value, err
	}
	kept, err := save(s, Ref{Name: name, Key: in.key, Inputs: in.canonical, Versions: in.versions}, value, c)
	if err != nil {
		return value, &SaveError{name, run.Dir, err}
	}
	s.fs.RemoveAll(s.runDir(id)) // where that fails the next Do or GC removes it
	return kept, nil
}

// runID names the work of a run.
func runID(name, key string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + key))
	return hex.EncodeToString(sum[:16])
}

func (s *Store) runDir(id string) string  { return s.path(workDir + "/" + id) }
func (s *Store) runLock(id string) string { return s.runDir(id) + ".lock" }

// load reads a result. What is damaged or missing is told, and counts as not there; a whole result of another type is an error, lest it be replaced.
func load[T any](s *Store, name, key string, c codec[T], tell func(error)) (value T, found bool, err error) {
	ref, bound, err := s.Lookup(name, key)
	var data []byte
	if err == nil && bound {
		data, err = s.get(ref.Object, ref.Size)
	}
	if err != nil {
		tell(err)
		return value, false, nil
	}
	if !bound {
		return value, false, nil
	}
	if value, err = c.decode(data); err != nil {
		var none T
		return none, false, &ArgumentError{"result type", fmt.Sprintf("%T", none), "the result in the store is another: " + err.Error(),
			"give another name, or say in the inputs what is new"}
	}
	return value, true, nil
}

// hold takes the lock of a run, which a killed program's system gives back.
func (s *Store) hold(ctx context.Context, id, name string) (release func(), err error) {
	if err := s.mkdir(workDir); err != nil {
		return nil, failed("beginning a run", s.path(workDir), err)
	}
	pause := time.Millisecond
	for {
		l, err := s.tryHold(id)
		if err != nil {
			return nil, failed("beginning a run", s.runLock(id), err)
		}
		if l != nil {
			return func() {
				os.Remove(s.runLock(id)) // while it is held: whoever waits for it sees that it is another's
				l.Unlock()
			}, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another run of %s: %w", name, ctx.Err())
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}

// tryHold returns nil where another has the lock.
func (s *Store) tryHold(id string) (*flock.Flock, error) {
	for {
		l := flock.New(s.runLock(id))
		if ok, err := l.TryLock(); err != nil || !ok {
			return nil, err
		}
		mine, err := l.Stat()
		if err == nil {
			var there fs.FileInfo
			if there, err = os.Stat(s.runLock(id)); err == nil && os.SameFile(mine, there) {
				return l, nil
			}
		}
		l.Unlock() // of a file that the one before removed
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// tidy removes what a run left that was killed after it had saved its result.
func (s *Store) tidy(id string) {
	if _, err := os.Lstat(s.runDir(id)); err != nil {
		return
	}
	if l, err := s.tryHold(id); err == nil && l != nil {
		s.fs.RemoveAll(s.runDir(id))
		os.Remove(s.runLock(id))
		l.Unlock()
	}
}

// runFile says what the work of a run is.
type runFile struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Attempt  int    `json:"attempt"`
	Sequence uint64 `json:"sequence"` // of the store, when it last began
}

func (s *Store) readRun(id string) (f runFile, err error) {
	data, err := s.read(workDir+"/"+id+"/run.json", 1<<12)
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	return f, err
}

// begin makes the directory of a run, or finds it, and counts the attempt.
func (s *Store) begin(id, name, key string) (*Run, error) {
	dir := workDir + "/" + id + "/dir"
	before, err := s.readRun(id)
	run := &Run{Dir: s.path(dir), Resumed: !errors.Is(err, fs.ErrNotExist)} // a damaged count is no reason to throw away the work
	run.Attempt = max(before.Attempt, 0) + 1
	if run.Resumed {
		run.Attempt = max(run.Attempt, 2)
	}
	if err := s.mkdir(dir); err != nil {
		return nil, failed("beginning a run", run.Dir, err)
	}
	st, err := s.stage()
	if err != nil {
		return nil, err
	}
	defer st.close()
	sequence, err := s.sequence()
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(runFile{name, key, run.Attempt, sequence})
	if err != nil {
		return nil, err
	}
	return run, st.replace(workDir+"/"+id+"/run.json", append(data, '\n'))
}

// call makes a panic of fn an error.
func call[T any](ctx context.Context, name string, run *Run, fn func(context.Context, *Run) (T, error)) (value T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{name, r, string(debug.Stack())}
		}
	}()
	return fn(ctx, run)
}

// save puts and binds a result with no GC in between, and returns it as it will be read.
func save[T any](s *Store, ref Ref, value T, c codec[T]) (kept T, err error) {
	data, err := c.encode(value)
	if err != nil {
		return kept, err
	}
	if kept, err = c.decode(data); err != nil {
		return kept, fmt.Errorf("it can't be read back: %w", err)
	}
	st, err := s.stage()
	if err != nil {
		return kept, err
	}
	defer st.close()
	if ref.Object, ref.Size, err = st.object("object", func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
		return kept, err
	}
	unlock, err := s.lock()
	if err != nil {
		return kept, err
	}
	defer unlock()
	if err := s.place(st.path("object"), ref.Object); err != nil {
		return kept, err
	}
	_, err = s.bind(st, ref)
	return kept, err
}

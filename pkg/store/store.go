// Package store keeps results so that none is lost and each can be asked for again. Results are objects, named by the SHA-256 of their content,
// immutable and kept once; references give them names. Do computes a result at most once for the same inputs, however many processes ask.
//
// A store is a directory:
//
//	FORMAT              the version of this layout
//	SEQUENCE            how many references were ever bound; the order of things is by this counter, never by the clock
//	objects/ab/cdef…    the objects, by digest
//	refs/NAME/@KEY.json the references; each says what it was computed from, and holds a digest of itself
//	work/ID             what a run that is not finished needs to go on; ID.lock is locked while it runs
//	quarantine/         what was found damaged
//	tmp/                what is being written
//	lock, writers       locked while the store is changed, and while there is something in tmp
//	UNDO                the references that an import under way adds
//
// A program may be killed at any step of writing: whatever was there before is whole when the store is opened again. Locks are the operating
// system's (flock), so that one of a killed program frees itself; a network file system without them is refused by the first operation that locks.
package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/gofrs/flock"

	"github.com/espalier-ml/espalier/pkg/backend/home"
	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// Env is the environment variable that names the default store's directory.
const Env = "ESPALIER_STORE"

// Version is the version of the layout that this package writes, and the newest that it reads.
const Version = 1

const (
	formatFile, lockFile, writersFile, sequenceFile, undoFile = "FORMAT", "lock", "writers", "SEQUENCE", "UNDO"
	objectsDir, refsDir, workDir, quarantineDir, tmpDir       = "objects", "refs", "work", "quarantine", "tmp"
)

// Store is a directory of results. Its methods may be called by many goroutines, and on one directory by many processes.
type Store struct {
	dir    string
	root   *os.Root
	fs     durable.FS
	stderr io.Writer
}

// Dir returns the store's directory, an absolute path.
func (s *Store) Dir() string { return s.dir }

// Default opens the store of $ESPALIER_STORE, else that in the directory of home.Dir.
//
// Errors: home.ErrNoHome; those of Open.
func Default() (*Store, error) {
	dir, err := DefaultDir()
	if err != nil {
		return nil, err
	}
	return Open(dir)
}

// DefaultDir returns the directory of the default store, whether it is there or not.
func DefaultDir() (string, error) {
	if dir := os.Getenv(Env); dir != "" {
		return dir, nil
	}
	dir, err := home.Dir()
	return filepath.Join(dir, "store"), err
}

// Open opens the store in a directory, which is made where it is missing. A directory that holds something else is refused. One that can't be
// written is opened where it is a store already, and can be read.
//
// Errors: *FormatError (a newer version, something else than a store), *WriteError (which path, and what is missing there).
func Open(dir string) (*Store, error) { return open(dir, durable.FS{}) }

func open(dir string, files durable.FS) (*Store, error) {
	const doing = "opening a store"
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, failed(doing, dir, err)
	}
	s := &Store{dir: dir, fs: files, stderr: os.Stderr}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, &FormatError{dir, "a store is a directory, and this is a file", "give another path"}
	} else if errors.Is(err, fs.ErrNotExist) {
		if err := makeDirs(files, dir); err != nil {
			return nil, failed(doing, dir, err)
		}
	} else if err != nil {
		return nil, failed(doing, dir, err)
	}
	if s.root, err = os.OpenRoot(dir); err != nil {
		return nil, failed(doing, dir, err)
	}
	err = s.checkFormat()
	if errors.Is(err, fs.ErrNotExist) {
		err = s.found()
	}
	if err != nil {
		return nil, err
	}
	s.sweep() // what is left there costs room only, and the next one tries again
	if err := s.settle(); err != nil {
		return nil, err
	}
	return s, nil
}

// makeDirs makes a directory and its parents so that they last.
func makeDirs(files durable.FS, dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDirs(files, parent); err != nil {
			return err
		}
	}
	if err := files.MkdirAll(dir); err != nil {
		return err
	}
	return files.SyncDir(parent)
}

func formatText() string { return fmt.Sprintf("espalier store %d\n", Version) }

var formatPattern = regexp.MustCompile(`\Aespalier store ([1-9][0-9]{0,8})\n\z`)

// checkFormat returns fs.ErrNotExist where there is no FORMAT.
func (s *Store) checkFormat() error {
	data, err := s.read(formatFile, 64)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return &FormatError{s.path(formatFile), "can't be read: " + err.Error(), "give a directory that is a store"}
	}
	return checkFormat(s.path(formatFile), data)
}

func checkFormat(path string, data []byte) error {
	match := formatPattern.FindSubmatch(data)
	if match == nil {
		return &FormatError{path, fmt.Sprintf("does not say the format of a store (%.40q)", data),
			fmt.Sprintf("where it was damaged, write %q to it", formatText())}
	}
	if v, _ := strconv.Atoi(string(match[1])); v != Version {
		return &FormatError{path, fmt.Sprintf("the store has version %d, and this program knows %d", v, Version), "use a newer version of Espalier"}
	}
	return nil
}

// found makes an empty directory a store.
func (s *Store) found() error {
	const doing = "making a store"
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return failed(doing, s.dir, err)
	}
	for _, e := range entries {
		// What one leaves that was killed while it made a store.
		begun := e.Name() == lockFile || e.Name() == writersFile || e.Name() == formatFile || e.Name() == tmpDir && exists(s.path(lockFile))
		if !begun {
			return &FormatError{s.dir, fmt.Sprintf("holds other things (%s) and no %s", e.Name(), formatFile),
				fmt.Sprintf("give an empty directory; where this is a store whose %s was lost, write %q to it", formatFile, formatText())}
		}
	}
	lock := flock.New(s.path(lockFile))
	if err := lock.Lock(); err != nil {
		return failed(doing, s.path(lockFile), err)
	}
	defer lock.Unlock()
	if err := s.checkFormat(); !errors.Is(err, fs.ErrNotExist) {
		return err // another process made it meanwhile
	}
	st, err := s.stage()
	if err != nil {
		return err
	}
	defer st.close()
	return st.replace(formatFile, []byte(formatText()))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (s *Store) path(rel string) string { return filepath.Join(s.dir, filepath.FromSlash(rel)) }

var errIrregular = errors.New("it is no regular file")

// openFile opens a regular file. It asks before: who opens a pipe waits for one who writes to it.
func (s *Store) openFile(rel string) (*os.File, error) {
	info, err := s.root.Stat(rel)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errIrregular
	}
	return s.root.Open(rel)
}

// read reads a regular file of at most limit bytes; the size is known before anything is allocated.
func (s *Store) read(rel string, limit int64) ([]byte, error) {
	f, err := s.openFile(rel)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%d bytes, more than the %d that it may have", info.Size(), limit)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	return data, nil
}

// lock makes this the only one that changes the store, and undoes what an import that was killed had begun.
func (s *Store) lock() (unlock func(), err error) {
	l := flock.New(s.path(lockFile))
	if err := l.Lock(); err != nil {
		return nil, failed("locking the store", s.path(lockFile), err)
	}
	if err := s.undo(); err != nil {
		l.Unlock()
		return nil, err
	}
	return func() { l.Unlock() }, nil
}

// settle undoes what an import that was killed had begun, and waits for one under way.
func (s *Store) settle() error {
	if _, err := s.root.Lstat(undoFile); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := s.lock()
	if err == nil {
		unlock()
	}
	return err
}

// mkdir makes a directory of the store so that it lasts. It is an error where a link leads out of the store.
func (s *Store) mkdir(rel string) error {
	if info, err := s.root.Stat(rel); err == nil && info.IsDir() {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(rel); parent != "." {
		if err := s.mkdir(parent); err != nil {
			return err
		}
	}
	return makeDirs(s.fs, s.path(rel))
}

// stage is a directory in which something is written before it becomes visible by a rename.
type stage struct {
	s       *Store
	dir     string
	writers *flock.Flock
}

// stage is shared by all writers; whoever gets the lock for itself knows that what lies in tmp is litter.
func (s *Store) stage() (*stage, error) {
	if err := s.mkdir(tmpDir); err != nil {
		return nil, failed("writing to the store", s.path(tmpDir), err)
	}
	l := flock.New(s.path(writersFile))
	if err := l.RLock(); err != nil {
		return nil, failed("locking the store", s.path(writersFile), err)
	}
	dir, err := s.fs.MkdirTemp(s.path(tmpDir), "")
	if err != nil {
		l.Unlock()
		return nil, failed("writing to the store", s.path(tmpDir), err)
	}
	return &stage{s, dir, l}, nil
}

// close removes what was not renamed. Where that fails it is litter, which the next one removes.
func (st *stage) close() {
	st.s.fs.RemoveAll(st.dir)
	st.writers.Unlock()
}

func (st *stage) path(name string) string { return filepath.Join(st.dir, name) }

// replace writes a small file in place of the one at rel, whole or not at all.
func (st *stage) replace(rel string, data []byte) error {
	s := st.s
	if err := s.mkdir(filepath.Dir(rel)); err != nil {
		return failed("writing to the store", s.path(rel), err)
	}
	name := st.path("replace")
	err := s.fs.RemoveAll(name)
	if err == nil {
		err = s.fs.Write(name, func(w io.Writer) error {
			_, err := io.Copy(w, bytes.NewReader(data))
			return err
		})
	}
	if err == nil {
		err = s.fs.Rename(name, s.path(rel))
	}
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(s.path(rel)))
	}
	if err != nil {
		return failed("writing to the store", s.path(rel), err)
	}
	return nil
}

// sweep removes what killed programs were writing, and returns how many there were and their bytes. Where somebody writes, nothing is removed.
func (s *Store) sweep() (n int, size int64, err error) {
	if info, err := s.root.Lstat(tmpDir); err != nil || !info.IsDir() {
		return 0, 0, nil // none yet, or a link, behind which nothing is ours
	}
	entries, err := os.ReadDir(s.path(tmpDir))
	if err != nil || len(entries) == 0 {
		return 0, 0, err
	}
	l := flock.New(s.path(writersFile))
	if ok, err := l.TryLock(); err != nil || !ok {
		return 0, 0, err
	}
	defer l.Unlock()
	if entries, err = os.ReadDir(s.path(tmpDir)); err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		path := filepath.Join(s.path(tmpDir), e.Name())
		bytes := sizeOf(path)
		if err := s.fs.RemoveAll(path); err != nil {
			return n, size, failed("removing litter", path, err)
		}
		n, size = n+1, size+bytes
	}
	return n, size, nil
}

// sizeOf is the number of bytes in the files under a path; what vanishes meanwhile counts nothing.
func sizeOf(path string) (size int64) {
	filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

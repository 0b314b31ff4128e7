package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
)

// Digest is the SHA-256 of an object's content, as 64 small hexadecimal digits.
type Digest string

var digestPattern = regexp.MustCompile(`\A[0-9a-f]{64}\z`)

func (d Digest) check() error {
	if !digestPattern.MatchString(string(d)) {
		return &ArgumentError{"digest", string(d), "it is no SHA-256", "give 64 hexadecimal digits, a to f small"}
	}
	return nil
}

func (d Digest) rel() string { return objectsDir + "/" + string(d[:2]) + "/" + string(d[2:]) }

func digestOf(h hash.Hash) Digest { return Digest(hex.EncodeToString(h.Sum(nil))) }

// Put keeps what write writes, and returns its digest and number of bytes. What the store has already is not kept twice. An object that no reference
// names is removed by the next GC, so Bind soon; Do does both without letting a GC in between.
//
// Errors: that of write; *WriteError.
func (s *Store) Put(write func(io.Writer) error) (Digest, int64, error) {
	st, err := s.stage()
	if err != nil {
		return "", 0, err
	}
	defer st.close()
	d, size, err := st.object("object", write)
	if err != nil {
		return "", 0, err
	}
	unlock, err := s.lock()
	if err != nil {
		return "", 0, err
	}
	defer unlock()
	if err := s.place(st.path("object"), d); err != nil {
		return "", 0, err
	}
	return d, size, nil
}

// digester hashes and counts what passes, and remembers whether the disk or the one who writes failed.
type digester struct {
	to   io.Writer
	hash hash.Hash
	size int64
	err  error
}

func (w *digester) Write(data []byte) (int, error) {
	n, err := w.to.Write(data)
	w.hash.Write(data[:n])
	w.size += int64(n)
	w.err = errors.Join(w.err, err)
	return n, err
}

// object writes a file of the stage.
func (st *stage) object(name string, write func(io.Writer) error) (Digest, int64, error) {
	w := &digester{hash: sha256.New()}
	var own error
	err := st.s.fs.Write(st.path(name), func(to io.Writer) error {
		w.to = to
		own = write(w)
		return own
	})
	if own != nil && w.err == nil {
		return "", 0, own
	}
	if err != nil {
		return "", 0, failed("writing an object", st.path(name), err)
	}
	return digestOf(w.hash), w.size, nil
}

// place gives a staged file its place among the objects; the store is locked. An object that is there but damaged is replaced.
func (s *Store) place(staged string, d Digest) error {
	rel := d.rel()
	if s.check(d) == nil {
		return nil
	}
	if err := s.mkdir(filepath.Dir(rel)); err != nil {
		return failed("writing an object", s.path(rel), err)
	}
	if _, err := s.root.Lstat(rel); err == nil {
		s.moveAside(rel, string(d)) // where that fails, the good one replaces it all the same
	}
	err := s.fs.Rename(staged, s.path(rel))
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(s.path(rel)))
	}
	if err != nil {
		return failed("writing an object", s.path(rel), err)
	}
	return nil
}

// check reads an object and compares its digest, in little memory. The error is fs.ErrNotExist, one of reading, errIrregular or errDigest.
func (s *Store) check(d Digest) error {
	f, err := s.openFile(d.rel())
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if digestOf(h) != d {
		return errDigest
	}
	return nil
}

var errDigest = errors.New("its content does not have its digest")

// large is the size in bytes from which an object's digest is checked before memory is taken for it.
const large = 64 << 20

// Get returns an object's content, which has the digest. A damaged one is moved aside.
//
// Errors: *ArgumentError, *MissingError, *DamagedError; that of reading.
func (s *Store) Get(d Digest) ([]byte, error) { return s.get(d, -1) }

// get knows the size that the object must have, where it is not negative.
func (s *Store) get(d Digest, size int64) ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	f, err := s.openFile(d.rel())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{s.path(d.rel()), d}
	}
	if errors.Is(err, errIrregular) {
		return nil, s.damagedObject(d, err.Error())
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if size >= 0 && info.Size() != size {
		return nil, s.damagedObject(d, fmt.Sprintf("it has %d bytes and had %d", info.Size(), size))
	}
	if info.Size() > large {
		if err := s.check(d); err != nil {
			return nil, s.damagedObject(d, err.Error())
		}
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, s.damagedObject(d, err.Error())
	}
	if sum := sha256.Sum256(data); Digest(hex.EncodeToString(sum[:])) != d {
		return nil, s.damagedObject(d, errDigest.Error())
	}
	return data, nil
}

// damagedObject moves a damaged object aside, unless another process has put a good one in its place meanwhile.
func (s *Store) damagedObject(d Digest, problem string) error {
	e := &DamagedError{Path: s.path(d.rel()), Problem: problem, Remedy: "compute or import it again"}
	unlock, err := s.lock()
	if err != nil {
		e.Problem += fmt.Sprintf(" (and it could not be moved aside: %v)", err)
		return e
	}
	defer unlock()
	if err := s.check(d); err == nil || errors.Is(err, fs.ErrNotExist) {
		return e
	}
	e.MovedTo = s.moveAside(d.rel(), string(d))
	return e
}

// moveAside moves a file to the quarantine and returns where it lies now; "" where it could not be moved. The store is locked.
func (s *Store) moveAside(rel, name string) string {
	if s.mkdir(quarantineDir) != nil {
		return ""
	}
	to := quarantineDir + "/" + name
	for i := 2; ; i++ {
		if _, err := s.root.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return ""
		}
		to = fmt.Sprintf("%s/%s-%d", quarantineDir, name, i)
	}
	if s.fs.Rename(s.path(rel), s.path(to)) != nil {
		return ""
	}
	s.fs.SyncDir(filepath.Dir(s.path(rel)))
	s.fs.SyncDir(s.path(quarantineDir))
	return s.path(to)
}

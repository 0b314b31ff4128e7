package store

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Ref gives an object a name. One name may have many keys: the same thing computed from other inputs.
type Ref struct {
	Name     string            `json:"name"` // as in a path: parts of letters, digits and ._+=,- and space between slashes; 150 bytes at most
	Key      string            `json:"key"`  // as one part of a name, 80 bytes at most; of Do, the SHA-256 of Inputs
	Object   Digest            `json:"object"`
	Size     int64             `json:"size"`             // bytes of the object
	Sequence uint64            `json:"sequence"`         // the how manieth this was to be bound in its store; set by Bind
	Inputs   json.RawMessage   `json:"inputs,omitempty"` // what it was computed from
	Versions map[string]string `json:"versions,omitempty"`
}

const (
	maxRef  = 16 << 20 // bytes of a reference's file
	maxName = 150
	maxKey  = 80 // with it, and maxName, a path in a tar file needs no extension of the format
)

var partPattern = regexp.MustCompile(`\A[A-Za-z0-9_+=,-](?:[A-Za-z0-9._+=, -]*[A-Za-z0-9_+=,-])?\z`)

func checkName(name string) error {
	problem := ""
	if len(name) > maxName {
		problem = fmt.Sprintf("it has %d bytes", len(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if !partPattern.MatchString(part) {
			problem = fmt.Sprintf("%.40q can't be a part of it", part)
		}
	}
	if problem != "" {
		return &ArgumentError{"name", name, problem,
			fmt.Sprintf("give parts of letters, digits and _+=,- with spaces and dots inside, slashes between, %d bytes at most", maxName)}
	}
	return nil
}

func (r Ref) check() error {
	if err := checkName(r.Name); err != nil {
		return err
	}
	if len(r.Key) > maxKey || !partPattern.MatchString(r.Key) {
		return &ArgumentError{"key", r.Key, "it can't be one", fmt.Sprintf("give letters, digits and _+=,- with spaces and dots inside, %d bytes at most", maxKey)}
	}
	if err := r.Object.check(); err != nil {
		return err
	}
	if r.Size < 0 {
		return &ArgumentError{"size", strconv.FormatInt(r.Size, 10), "it is negative", "give what Put returned"}
	}
	return nil
}

// A key's file begins with @, with which no part of a name does, so that a name may continue another one.
func (r Ref) rel() string { return refsDir + "/" + r.Name + "/@" + r.Key + ".json" }

type refFile struct {
	SHA256 string          `json:"sha256"` // of what follows
	Ref    json.RawMessage `json:"ref"`
}

func encodeRef(r Ref) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, &ArgumentError{"inputs", string(r.Inputs), "they are no JSON: " + err.Error(), "give JSON"}
	}
	sum := sha256.Sum256(body)
	data, err := json.Marshal(refFile{hex.EncodeToString(sum[:]), body})
	if err != nil {
		return nil, err
	}
	if len(data) >= maxRef {
		return nil, &ArgumentError{"inputs", string(r.Inputs), fmt.Sprintf("the reference would have %d bytes", len(data)),
			fmt.Sprintf("keep it below %d: keep large inputs as data and give their digest", maxRef)}
	}
	return append(data, '\n'), nil
}

// decodeRef takes nothing but what encodeRef writes, byte for byte.
func decodeRef(data []byte) (Ref, error) {
	var f refFile
	if err := json.Unmarshal(data, &f); err != nil {
		return Ref{}, err
	}
	var r Ref
	if err := json.Unmarshal(f.Ref, &r); err != nil {
		return Ref{}, err
	}
	if err := r.check(); err != nil {
		return Ref{}, err
	}
	if again, err := encodeRef(r); err != nil || !bytes.Equal(again, data) {
		return Ref{}, errors.New("it does not have the digest that it holds, or is written otherwise")
	}
	return r, nil
}

// Bind makes a reference to an object that the store has, in place of one of the same name and key; its Sequence is set. From then on the object stays.
//
// Errors: *ArgumentError, *MissingError (Put it again), *WriteError.
func (s *Store) Bind(ref Ref) error {
	st, err := s.stage()
	if err != nil {
		return err
	}
	defer st.close()
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	_, err = s.bind(st, ref)
	return err
}

// bind is Bind in a locked store.
func (s *Store) bind(st *stage, ref Ref) (Ref, error) {
	if err := ref.check(); err != nil {
		return Ref{}, err
	}
	info, err := s.root.Stat(ref.Object.rel())
	if errors.Is(err, fs.ErrNotExist) {
		return Ref{}, &MissingError{s.path(ref.Object.rel()), ref.Object}
	}
	if err != nil {
		return Ref{}, err
	}
	if info.Size() != ref.Size {
		return Ref{}, &ArgumentError{"size", strconv.FormatInt(ref.Size, 10), fmt.Sprintf("the object has %d bytes", info.Size()), "give what Put returned"}
	}
	last, err := s.sequence()
	if err != nil {
		return Ref{}, err
	}
	ref.Sequence = last + 1
	data, err := encodeRef(ref)
	if err != nil {
		return Ref{}, err
	}
	if _, err := decodeRef(data); err != nil {
		return Ref{}, &ArgumentError{"reference", ref.Name, err.Error(), "give names and versions in UTF-8"}
	}
	if err := st.replace(sequenceFile, sequenceText(ref.Sequence)); err != nil {
		return Ref{}, err
	}
	return ref, st.replace(ref.rel(), data)
}

func sequenceText(n uint64) []byte {
	number := strconv.FormatUint(n, 10)
	sum := sha256.Sum256([]byte(number))
	return []byte(number + " " + hex.EncodeToString(sum[:]) + "\n")
}

// sequence returns the last number that a reference got. Where the counter was lost or damaged, it goes on from the references.
func (s *Store) sequence() (uint64, error) {
	data, err := s.read(sequenceFile, 128)
	if err == nil {
		number, _, _ := strings.Cut(string(data), " ")
		if n, err := strconv.ParseUint(number, 10, 63); err == nil && bytes.Equal(data, sequenceText(n)) {
			return n, nil
		}
	}
	refs, _, err := s.scan()
	if err != nil {
		return 0, err
	}
	if len(refs) == 0 {
		return 0, nil
	}
	return refs[0].Sequence, nil
}

// Lookup returns the reference of a name and key, and whether there is one. With an empty key it is the last that was bound of that name.
//
// Errors: *ArgumentError, *DamagedError (it was moved aside); that of reading.
func (s *Store) Lookup(name, key string) (Ref, bool, error) {
	if err := checkName(name); err != nil {
		return Ref{}, false, err
	}
	if err := s.settle(); err != nil {
		return Ref{}, false, err
	}
	if key == "" {
		refs, err := s.Refs()
		for _, r := range refs {
			if r.Name == name {
				return r, true, nil
			}
		}
		return Ref{}, false, err
	}
	want := Ref{Name: name, Key: key}
	if err := (Ref{Name: name, Key: key, Object: Digest(strings.Repeat("0", 64))}).check(); err != nil {
		return Ref{}, false, err
	}
	r, err := s.readRef(want.rel())
	if errors.Is(err, fs.ErrNotExist) {
		return Ref{}, false, nil
	}
	if e, ok := errors.AsType[*DamagedError](err); ok {
		s.setAside(e, want.rel())
	}
	return r, err == nil, err
}

// readRef reads the reference at a path, which has to be its own.
func (s *Store) readRef(rel string) (Ref, error) {
	data, err := s.read(rel, maxRef)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return Ref{}, err
	}
	var r Ref
	if err == nil {
		r, err = decodeRef(data)
	}
	if err == nil && r.rel() != rel {
		err = fmt.Errorf("it is the reference of %q, %q", r.Name, r.Key)
	}
	if err != nil {
		return Ref{}, &DamagedError{Path: s.path(rel), Problem: err.Error(), Remedy: "compute or import it again"}
	}
	return r, nil
}

// setAside moves a damaged reference aside, unless it was replaced meanwhile.
func (s *Store) setAside(e *DamagedError, rel string) {
	unlock, err := s.lock()
	if err != nil {
		return
	}
	defer unlock()
	if _, err := s.readRef(rel); err == nil || errors.Is(err, fs.ErrNotExist) {
		return
	}
	e.MovedTo = s.moveAside(rel, strings.ReplaceAll(strings.TrimPrefix(rel, refsDir+"/"), "/", "%"))
}

// Refs returns all references, the last bound first. Damaged ones are said in the error, which joins a *DamagedError for each, beside the others.
func (s *Store) Refs() ([]Ref, error) {
	if err := s.settle(); err != nil {
		return nil, err
	}
	refs, damaged, err := s.scan()
	for _, d := range damaged {
		err = errors.Join(err, d)
	}
	return refs, err
}

// scan reads all references, and what is damaged or does not belong there.
func (s *Store) scan() (refs []Ref, damaged []*DamagedError, err error) {
	err = fs.WalkDir(s.root.FS(), refsDir, func(rel string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // none yet, or removed meanwhile
		}
		if err != nil || d.IsDir() {
			return err
		}
		r, err := s.readRef(rel)
		if e, ok := errors.AsType[*DamagedError](err); ok {
			damaged = append(damaged, e)
			return nil
		}
		if err == nil {
			refs = append(refs, r)
		} else if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	slices.SortFunc(refs, func(a, b Ref) int {
		return cmp.Or(cmp.Compare(b.Sequence, a.Sequence), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key))
	})
	return refs, damaged, err
}

// removeRef removes a reference so that it stays removed, and the directories of its name that are empty then. The store is locked.
func (s *Store) removeRef(rel string) error {
	if err := s.fs.RemoveAll(s.path(rel)); err != nil {
		return failed("removing a reference", s.path(rel), err)
	}
	dir := path.Dir(rel)
	for dir != refsDir {
		if entries, err := fs.ReadDir(s.root.FS(), dir); err != nil || len(entries) > 0 {
			break
		}
		if err := s.fs.RemoveAll(s.path(dir)); err != nil {
			return failed("removing a reference", s.path(dir), err)
		}
		dir = path.Dir(dir)
	}
	if err := s.fs.SyncDir(filepath.Join(s.dir, filepath.FromSlash(dir))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed("removing a reference", s.path(dir), err)
	}
	return nil
}

package store

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The limits of an import. Objects go to disk as they come, and references are held in memory.
const (
	maxObject     = 8<<30 - 1 // bytes; what a plain tar header can say
	maxImport     = 64 << 30  // bytes of all objects
	maxImportRefs = 256 << 20 // bytes of all references
	maxEntries    = 1 << 20
)

// Export writes a tar file of the references of these names, all of their keys and all names below them, and of their objects; without names,
// of everything. The same references bound in the same order give the same bytes: times are zero, the order is fixed, Sequence counts from 1.
// Each object is verified as it is written; on an error what was written is no whole export, and Import refuses it.
//
// Errors: *ArgumentError (a name without references), *DamagedError, *MissingError, those of w.
func (s *Store) Export(w io.Writer, names ...string) error {
	refs, err := s.Refs()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if refs, err = under(refs, names); err != nil {
			return err
		}
	}
	files := map[string][]byte{}
	sizes := map[Digest]int64{}
	for i, r := range refs {
		r.Sequence = uint64(len(refs) - i) // the last bound comes first
		if files[r.rel()], err = encodeRef(r); err != nil {
			return err
		}
		sizes[r.Object] = r.Size
	}
	t := tar.NewWriter(w)
	if err := writeEntry(t, formatFile, int64(len(formatText())), strings.NewReader(formatText())); err != nil {
		return err
	}
	for _, d := range sortedDigests(sizes) {
		if err := s.exportObject(t, d, sizes[d]); err != nil {
			return err
		}
	}
	for _, rel := range sortedKeys(files) {
		if err := writeEntry(t, rel, int64(len(files[rel])), bytes.NewReader(files[rel])); err != nil {
			return err
		}
	}
	return t.Close()
}

func sortedKeys(m map[string][]byte) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// under keeps the references of the names and below them.
func under(refs []Ref, names []string) ([]Ref, error) {
	used := make([]bool, len(names))
	var kept []Ref
	for _, r := range refs {
		keep := false
		for i, n := range names {
			if r.Name == n || strings.HasPrefix(r.Name, n+"/") {
				keep, used[i] = true, true
			}
		}
		if keep {
			kept = append(kept, r)
		}
	}
	for i, n := range names {
		if !used[i] {
			return nil, &ArgumentError{"name", n, "the store has no reference of it", "give one that Refs lists"}
		}
	}
	return kept, nil
}

func (s *Store) exportObject(t *tar.Writer, d Digest, size int64) error {
	if size > maxObject {
		return &ArgumentError{"object", string(d), fmt.Sprintf("it has %d bytes", size),
			fmt.Sprintf("an export takes objects of %d at most; split it", int64(maxObject))}
	}
	f, err := s.openFile(d.rel())
	if errors.Is(err, fs.ErrNotExist) {
		return &MissingError{s.path(d.rel()), d}
	}
	if errors.Is(err, errIrregular) {
		return s.damagedObject(d, err.Error())
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != size {
		return s.damagedObject(d, "it does not have its size")
	}
	h := sha256.New()
	if err := writeEntry(t, d.rel(), size, io.TeeReader(f, h)); err != nil {
		return err
	}
	if digestOf(h) != d {
		return s.damagedObject(d, errDigest.Error())
	}
	return nil
}

// writeEntry writes the only kind of entry that an export has.
func writeEntry(t *tar.Writer, name string, size int64, content io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.CopyN(t, content, size)
	return err
}

// Imported says what an import brought.
type Imported struct {
	Refs    []Ref // new in the store, in the order in which they were bound
	Same    int   // references that the store had already
	Kept    []Ref // of the export, where the store has another object under the name and key, and keeps it
	Objects int   // of the new references
	Bytes   int64
}

// Import reads an export. Every digest is verified before anything becomes visible, and all becomes visible or nothing, also where the program is
// killed. A file is taken only if it is byte for byte what Export writes: regular files of the expected names in their order, and nothing after them;
// nothing in it is executed. What the store has is never replaced, unless it is damaged. Importing again changes nothing.
//
// Errors: *ImportError, *FormatError (an export of a newer version), *WriteError; that of reading.
func (s *Store) Import(r io.Reader) (Imported, error) {
	st, err := s.stage()
	if err != nil {
		return Imported{}, err
	}
	defer st.close()
	refs, err := st.receive(r)
	if err != nil {
		return Imported{}, err
	}
	unlock, err := s.lock()
	if err != nil {
		return Imported{}, err
	}
	defer unlock()
	return s.admit(st, refs)
}

var objectPattern = regexp.MustCompile(`\Aobjects/[0-9a-f]{2}/[0-9a-f]{62}\z`)

// counted remembers an error of the one who is read, which is not the export's fault.
type counted struct {
	r   io.Reader
	err error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// receive reads a whole export into the stage and returns its references in the order of their binding. It writes the same export beside, to a digest
// only, and compares: that is how no byte can be other than it should.
func (st *stage) receive(r io.Reader) ([]Ref, error) {
	source := &counted{r: r}
	refused := func(entry, problem string) error {
		if source.err != nil {
			return source.err
		}
		return &ImportError{entry, problem}
	}
	came, should := sha256.New(), sha256.New()
	in := io.TeeReader(source, came)
	t, again := tar.NewReader(in), tar.NewWriter(should)
	sizes := map[Digest]int64{}
	wanted := map[Digest]bool{}
	var refs []Ref
	total, refBytes, last := int64(0), int64(0), ""
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			if n == 0 {
				return nil, refused("", "it is empty")
			}
			break
		}
		if err != nil {
			return nil, refused("", err.Error())
		}
		if h.Typeflag != tar.TypeReg || len(h.PAXRecords) > 0 {
			return nil, refused(h.Name, "it is not a plain regular file")
		}
		if h.Name <= last || n > maxEntries {
			return nil, refused(h.Name, "it is not in order, or one too many")
		}
		last = h.Name
		content := io.Reader(t)
		switch {
		case n == 0:
			data, err := readEntry(content, h.Size, 64)
			if err != nil || h.Name != formatFile {
				return nil, refused(h.Name, "an export begins with "+formatFile)
			}
			if err := checkFormat(formatFile, data); err != nil {
				return nil, err
			}
			content = bytes.NewReader(data)
		case objectPattern.MatchString(h.Name):
			d := Digest(strings.ReplaceAll(strings.TrimPrefix(h.Name, objectsDir+"/"), "/", ""))
			if total += h.Size; h.Size < 0 || h.Size > maxObject || total > maxImport {
				return nil, refused(h.Name, fmt.Sprintf("its %d bytes are more than the limits (%d for one, %d for all)", h.Size, int64(maxObject), int64(maxImport)))
			}
			if err := st.receiveObject(t, again, d, h.Size); err != nil {
				if _, write := errors.AsType[*WriteError](err); write {
					return nil, err
				}
				return nil, refused(h.Name, err.Error())
			}
			sizes[d] = h.Size
			continue
		case strings.HasPrefix(h.Name, refsDir+"/"):
			data, err := readEntry(content, h.Size, min(maxRef, maxImportRefs-refBytes))
			if err != nil {
				return nil, refused(h.Name, err.Error())
			}
			refBytes += h.Size
			ref, err := decodeRef(data)
			if err != nil {
				return nil, refused(h.Name, err.Error())
			}
			if size, ok := sizes[ref.Object]; ref.rel() != h.Name || !ok || size != ref.Size {
				return nil, refused(h.Name, "it is not the reference of that name to an object of the export")
			}
			wanted[ref.Object] = true
			refs = append(refs, ref)
			content = bytes.NewReader(data)
		default:
			return nil, refused(h.Name, "an export has no such file")
		}
		if err := writeEntry(again, h.Name, h.Size, content); err != nil {
			return nil, refused(h.Name, err.Error())
		}
	}
	if err := again.Close(); err != nil {
		return nil, refused("", err.Error())
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // what comes after the end
		return nil, refused("", err.Error())
	}
	if digestOf(came) != digestOf(should) {
		return nil, refused("", "it is not byte for byte what is exported: cut off, changed, or made by another program")
	}
	if len(wanted) != len(sizes) {
		return nil, refused("", "it has objects that no reference names")
	}
	slices.SortFunc(refs, func(a, b Ref) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for i, r := range refs {
		if r.Sequence != uint64(i)+1 {
			return nil, refused(r.rel(), "the order of the references has gaps")
		}
	}
	return refs, nil
}

// readEntry takes memory as the bytes come, not as the header says.
func readEntry(r io.Reader, size, limit int64) ([]byte, error) {
	if size < 0 || size > limit {
		return nil, fmt.Errorf("its %d bytes are more than %d", size, limit)
	}
	data, err := io.ReadAll(r)
	if err == nil && int64(len(data)) != size {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}

// receiveObject writes an object to the stage and to the export that is written beside.
func (st *stage) receiveObject(from io.Reader, again *tar.Writer, d Digest, size int64) error {
	got, _, err := st.object(string(d), func(w io.Writer) error {
		return writeEntry(again, d.rel(), size, io.TeeReader(from, w))
	})
	if err == nil && got != d {
		err = errDigest
	}
	return err
}

// admit makes received references visible, all or none. The store is locked. UNDO is there for as long as not all of them are.
func (s *Store) admit(st *stage, refs []Ref) (Imported, error) {
	var result Imported
	var add []Ref
	for _, r := range refs {
		there, err := s.readRef(r.rel())
		whole := err == nil && s.check(there.Object) == nil
		switch {
		case whole && there.Object == r.Object:
			result.Same++
		case whole:
			result.Kept = append(result.Kept, r)
		default:
			add = append(add, r)
		}
	}
	if len(add) == 0 {
		return result, nil
	}
	var rels []string
	placed := map[Digest]bool{}
	for _, r := range add {
		rels = append(rels, r.rel())
		if placed[r.Object] {
			continue
		}
		if err := s.place(st.path(string(r.Object)), r.Object); err != nil {
			return Imported{}, err
		}
		placed[r.Object] = true
		result.Objects, result.Bytes = result.Objects+1, result.Bytes+r.Size
	}
	slices.Sort(rels)
	undo, err := undoText(rels)
	if err != nil {
		return Imported{}, err
	}
	if err := st.replace(undoFile, undo); err != nil {
		return Imported{}, errors.Join(err, s.undo())
	}
	for _, r := range add {
		bound, err := s.bind(st, r)
		if err != nil {
			return Imported{}, errors.Join(err, s.undo())
		}
		result.Refs = append(result.Refs, bound)
	}
	if err := s.forget(); err != nil {
		return Imported{}, errors.Join(err, s.undo())
	}
	return result, nil
}

// undoText is a line of JSON and one of its digest, lest damage to it leave a part of an import.
func undoText(rels []string) ([]byte, error) {
	data, err := json.Marshal(rels)
	sum := sha256.Sum256(data)
	return fmt.Appendf(nil, "%s\n%x\n", data, sum), err
}

// undo removes the references of an import that was not finished. The store is locked. It needs no space, so that it works on a full disk.
func (s *Store) undo() error {
	data, err := s.read(undoFile, maxImportRefs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var rels []string
	if err == nil {
		line, _, _ := bytes.Cut(data, []byte("\n"))
		if err = json.Unmarshal(line, &rels); err == nil {
			if again, _ := undoText(rels); !bytes.Equal(again, data) {
				err = errDigest
			}
		}
	}
	for _, rel := range rels {
		if path.Clean(rel) != rel || !strings.HasPrefix(rel, refsDir+"/") || !strings.HasPrefix(path.Base(rel), "@") {
			err = fmt.Errorf("%q is no reference", rel)
		}
	}
	if err != nil {
		return &DamagedError{Path: s.path(undoFile), Problem: err.Error(),
			Remedy: "an import was not finished: see which references are not wanted, then remove the file"}
	}
	for _, rel := range rels {
		if _, err := s.root.Lstat(rel); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return failed("undoing an import", s.path(rel), err)
		}
		if err := s.removeRef(rel); err != nil {
			return err
		}
	}
	return s.forget()
}

// forget removes UNDO: an import is finished, or undone.
func (s *Store) forget() error {
	err := s.fs.RemoveAll(s.path(undoFile))
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		return failed("finishing an import", s.path(undoFile), err)
	}
	return nil
}

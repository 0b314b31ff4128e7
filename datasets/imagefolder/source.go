package imagefolder

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/espalier-ml/espalier/datasets/internal/foreign"
)

// entry is a file by its cleaned, slash-separated name. Content is nil where the name is not that of an image.
type entry struct {
	name    string
	content []byte
}

// source is a directory or an archive.
type source interface {
	digest() (string, error)   // of names and contents; to be called before entries
	entries() ([]entry, error) // those not hidden, sorted by name
	close() error
}

// find opens the source at path.
func find(path string, lim limits) (source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &Error{Kind: ErrMissing, File: path, Expected: "a directory or archive of images", Came: "nothing that can be read", Err: err}
	}
	if info.IsDir() {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, &Error{Kind: ErrMissing, File: path, Expected: "a directory that can be read", Came: "a failure", Err: err}
		}
		return &folder{root: root, path: path, lim: lim}, nil
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Kind: ErrUnsafe, File: path, Expected: "a directory or archive of images", Came: info.Mode().Type().String()}
	}
	if err := foreign.Refuse(path, "a directory or archive of images", foreign.Remedy); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Kind: ErrMissing, File: path, Expected: "an archive that can be read", Came: "a failure", Err: err}
	}
	return &archive{file: f, path: path, lim: lim}, nil
}

// names checks names as they come, and counts them.
type names struct {
	path string
	lim  limits
	seen map[string]string // by the name in lower case
	dirs map[string]string // the folders of files, too
	n    int
}

// add returns the cleaned name. Two names that differ only in case are duplicates too: elsewhere they would be one file.
func (s *names) add(name string, dir bool) (string, error) {
	unsafe := func(expected string) (string, error) {
		return "", &Error{Kind: ErrUnsafe, File: s.path, Entry: name, Expected: expected, Came: "this name"}
	}
	if s.n++; s.n > s.lim.entries {
		return "", &Error{Kind: ErrLimit, File: s.path, Entry: name, Expected: fmt.Sprintf("at most %d entries", s.lim.entries), Came: "more"}
	}
	if !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return unsafe("a name in UTF-8")
	}
	if name == "" || strings.HasPrefix(name, "/") || slices.Contains(strings.FieldsFunc(name, isSeparator), "..") {
		return unsafe("a relative name without ..")
	}
	clean := path.Clean(name)
	if dir {
		return clean, nil // may come more than once
	}
	if clean == "." || strings.HasSuffix(name, "/") {
		return unsafe("the name of a file")
	}
	if s.seen == nil {
		s.seen, s.dirs = map[string]string{}, map[string]string{}
	}
	folded := strings.ToLower(clean)
	if other, found := s.seen[folded]; found {
		return unsafe(fmt.Sprintf("each name once, but %q came before", other))
	}
	s.seen[folded] = name
	for dir := path.Dir(clean); dir != "."; dir = path.Dir(dir) {
		folded := strings.ToLower(dir)
		other, found := s.dirs[folded]
		if found && other != dir {
			return unsafe(fmt.Sprintf("each name once, but a folder %q came before", other))
		}
		if found { // and so the folders above it
			break
		}
		s.dirs[folded] = dir
	}
	return clean, nil
}

// isSeparator also separates where other systems do.
func isSeparator(r rune) bool { return r == '/' || r == '\\' }

// hidden says whether a name, or a folder in it, is one that programs leave behind unasked.
func hidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") || part == "__MACOSX" || part == "Thumbs.db" || part == "desktop.ini" {
			return true
		}
	}
	return false
}

// isImage goes by the end of the name.
func isImage(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".png", ".jpg", ".jpeg":
		return true
	}
	return false
}

// room is what is left of the bytes for encoded images.
type room struct {
	path string
	lim  limits
	used int64
}

// take refuses a file that is too large or too much.
func (r *room) take(name string, size int64) error {
	if size > r.lim.file {
		return &Error{Kind: ErrLimit, File: r.path, Entry: name, Expected: fmt.Sprintf("an image of at most %d bytes", r.lim.file),
			Came: fmt.Sprintf("%d", size)}
	}
	if r.used += size; r.used > r.lim.bytes {
		return &Error{Kind: ErrLimit, File: r.path, Entry: name, Expected: fmt.Sprintf("images of at most %d bytes in all", r.lim.bytes),
			Came: "more", Remedy: "set Config.MaxBytes if there is memory for them"}
	}
	return nil
}

// folder is a directory. Its files are read once, by digest.
type folder struct {
	root *os.Root // nothing outside of it can be opened through it
	path string
	lim  limits
	read []entry
}

func (d *folder) close() error { return d.root.Close() }

func (d *folder) entries() ([]entry, error) { return d.read, nil }

func (d *folder) digest() (string, error) {
	names := names{path: d.path, lim: d.lim}
	room := room{path: d.path, lim: d.lim}
	err := fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return &Error{Kind: ErrMissing, File: d.path, Entry: name, Expected: "an entry that can be read", Came: "a failure", Err: err}
		}
		if name == "." {
			return nil
		}
		if hidden(name) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		clean, err := names.add(name, e.IsDir())
		if err != nil || e.IsDir() {
			return err
		}
		info, err := d.root.Stat(name) // follows a link, as long as it stays inside
		if err != nil {
			return &Error{Kind: ErrUnsafe, File: d.path, Entry: name, Expected: "files inside the directory", Came: "what can't be reached in it",
				Err: err, Remedy: "put the images themselves there, no links out of it"}
		}
		if !info.Mode().IsRegular() {
			came := info.Mode().Type().String()
			if info.IsDir() {
				came = "a link to a directory"
			}
			return &Error{Kind: ErrUnsafe, File: d.path, Entry: name, Expected: "files and directories", Came: came}
		}
		if isImage(clean) {
			if err := room.take(name, info.Size()); err != nil {
				return err
			}
		}
		d.read = append(d.read, entry{name: clean})
		return nil
	})
	if err != nil {
		return "", err
	}
	slices.SortFunc(d.read, byName)
	err = parallel(len(d.read), func(i int) error {
		e := &d.read[i]
		if !isImage(e.name) {
			return nil
		}
		var err error
		if e.content, err = d.load(e.name); err != nil {
			return &Error{Kind: ErrMissing, File: d.path, Entry: e.name, Expected: "a file that can be read", Came: "a failure", Err: err}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, e := range d.read {
		for _, part := range [][]byte{[]byte(e.name), e.content} {
			sum.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(part))))
			sum.Write(part)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// load reads a file that may have grown since it was looked at.
func (d *folder) load(name string) ([]byte, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, d.lim.file+1))
	if err == nil && int64(len(content)) > d.lim.file {
		err = errors.New("the file grows")
	}
	return content, err
}

func byName(a, b entry) int { return strings.Compare(a.name, b.name) }

// archive is a tar file, compressed or not.
type archive struct {
	file *os.File
	path string
	lim  limits
	sum  string // as digest found it
}

func (a *archive) close() error { return a.file.Close() }

func (a *archive) digest() (string, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, a.file); err != nil {
		return "", &Error{Kind: ErrMissing, File: a.path, Expected: "a file that can be read", Came: "a failure", Err: err}
	}
	a.sum = hex.EncodeToString(sum.Sum(nil))
	return a.sum, nil
}

func (a *archive) entries() ([]entry, error) {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return nil, &Error{Kind: ErrMissing, File: a.path, Expected: "a file that can be read twice", Came: "a failure", Err: err}
	}
	sum := sha256.New()
	entries, err := untar(a.path, a.file, sum, a.lim)
	if err != nil {
		return nil, err
	}
	if came := hex.EncodeToString(sum.Sum(nil)); came != a.sum {
		return nil, &Error{Kind: ErrFormat, File: a.path, Expected: "a file that stays as it is", Came: "one that was changed while it was read",
			Remedy: "open it again"}
	}
	return entries, nil
}

// untar reads the files of an archive, and adds all bytes of r to sum.
func untar(path string, r io.Reader, sum hash.Hash, lim limits) ([]entry, error) {
	buffered := bufio.NewReaderSize(r, 1<<20)
	in := &meter{r: io.TeeReader(buffered, sum)}
	out := &unpacked{meter: meter{r: in}, in: in, path: path, lim: lim}
	if start, _ := buffered.Peek(2); bytes.Equal(start, []byte{0x1f, 0x8b}) {
		gz, err := gzip.NewReader(bufio.NewReader(in))
		if err != nil {
			return nil, broken(path, "", "the start of a gzip file", err)
		}
		out.r = gz
	}
	entries, err := readTar(path, out, lim)
	if err != nil {
		return nil, err
	}
	// To the end, where gzip's checksum is, and where an archive that was cut off shows: tar itself ends with two empty blocks, and
	// its reader is content without them, or with another archive behind them.
	empty := make([]byte, 1<<15)
	for {
		n, err := out.Read(empty)
		if len(bytes.Trim(empty[:n], "\x00")) > 0 {
			return nil, broken(path, "", "nothing after the end of the archive", errors.New("more came"))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, broken(path, "", "an intact archive", err)
		}
	}
	if out.zeros < 2*512 {
		return nil, broken(path, "", "two empty blocks at the end of the archive", io.ErrUnexpectedEOF)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, broken(path, "", "a file that can be read", err)
	}
	slices.SortFunc(entries, byName)
	return entries, nil
}

// readTar reads the entries up to tar's end mark.
func readTar(path string, r io.Reader, lim limits) (entries []entry, err error) {
	names := names{path: path, lim: lim}
	room := room{path: path, lim: lim}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // which add finds, too, and says more about
			return nil, broken(path, "", "a tar archive, compressed by gzip or not", err)
		}
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeReg, tar.TypeDir:
		default:
			return nil, &Error{Kind: ErrUnsafe, File: path, Entry: h.Name, Expected: "files and directories", Came: kind(h.Typeflag)}
		}
		// A sparse file has its holes in the header: they come out of nothing, past the limit on that.
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return nil, &Error{Kind: ErrUnsafe, File: path, Entry: h.Name, Expected: "files and directories", Came: "a sparse file"}
			}
		}
		name, err := names.add(h.Name, h.Typeflag == tar.TypeDir)
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeDir || hidden(name) {
			continue
		}
		e := entry{name: name}
		if isImage(name) {
			if err := room.take(h.Name, h.Size); err != nil {
				return nil, err
			}
			e.content = make([]byte, h.Size)
			if _, err := io.ReadFull(tr, e.content); err != nil {
				return nil, broken(path, h.Name, fmt.Sprintf("%d bytes", h.Size), err)
			}
		}
		entries = append(entries, e)
	}
}

func kind(flag byte) string {
	switch flag {
	case tar.TypeLink:
		return "a hard link"
	case tar.TypeSymlink:
		return "a symbolic link"
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a named pipe"
	}
	return fmt.Sprintf("an entry of type %q", flag)
}

// broken wraps an error of reading, unless it is one of ours already.
func broken(path, name, expected string, err error) error {
	var typed *Error
	if errors.As(err, &typed) {
		return err
	}
	return &Error{Kind: ErrFormat, File: path, Entry: name, Expected: expected, Came: "something else", Err: err,
		Remedy: "get it again"}
}

// meter counts what is read.
type meter struct {
	r io.Reader
	n int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	return n, err
}

// unpacked reads the content of an archive and refuses a decompression bomb.
type unpacked struct {
	meter
	in    *meter
	path  string
	lim   limits
	zeros int64 // at the end of what was read
}

func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.meter.Read(p)
	if end := len(bytes.TrimRight(p[:n], "\x00")); end == 0 {
		u.zeros += int64(n)
	} else {
		u.zeros = int64(n - end)
	}
	if u.n > u.lim.slack && u.n/u.lim.ratio > u.in.n {
		return 0, &Error{Kind: ErrLimit, File: u.path, Expected: fmt.Sprintf("at most %d bytes out of one", u.lim.ratio),
			Came: fmt.Sprintf("%d bytes out of the first %d", u.n, u.in.n), Remedy: "do not trust this archive"}
	}
	return n, err
}

package cifar10

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/espalier-ml/espalier/datasets/internal/fetch"
)

// bounded fails when f allocates more than twice the size of what it reads and 64 MiB; the race detector allocates too.
func bounded(t *testing.T, size int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(2*size+64<<20)*(1+raceDetector); got > limit {
		t.Errorf("%d bytes made %d bytes be allocated, more than %d", size, got, limit)
	}
}

// entry is one of an archive, with content of n zeros if it has none.
type entry struct {
	tar.Header
	content []byte
	zeros   int64
}

// packed returns a compressed archive.
func packed(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	zeros := make([]byte, 1<<20)
	for _, e := range entries {
		e.Mode, e.Size = 0o644, int64(len(e.content))+e.zeros
		if e.Typeflag != 0 && e.Typeflag != tar.TypeReg {
			e.Size = 0
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
		for range e.zeros >> 20 {
			if _, err := w.Write(zeros); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// headers returns a compressed archive of 200 extended headers, each nearly as large as they may be, and of no file.
func headers(t *testing.T, flag byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": strings.Repeat("x", 1<<20-100)}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	one := b.Bytes()
	one[156] = flag // and its checksum: six octal digits of the sum of the header's bytes, its own place counted as spaces
	copy(one[148:156], "        ")
	sum := 0
	for _, c := range one[:512] {
		sum += int(c)
	}
	copy(one[148:156], fmt.Sprintf("%06o\x00 ", sum))
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	for range 200 {
		if _, err := gz.Write(one); err != nil {
			t.Fatal(err)
		}
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Nothing that is not the release makes room be made for the release, which takes 184 MB.
func TestHostileCopiesOfThePublishedRelease(t *testing.T) {
	empty := t.TempDir()
	if err := os.WriteFile(filepath.Join(empty, batchNames[0]), []byte("tiny"), 0o644); err != nil {
		t.Fatal(err)
	}
	whole := t.TempDir() // of the right size, with bytes that are all labels of their own
	if err := os.WriteFile(filepath.Join(whole, batchNames[0]), make([]byte, published.batch*recordSize), 0o644); err != nil {
		t.Fatal(err)
	}
	bomb := packed(t, entry{Header: tar.Header{Name: "x"}, zeros: 64 << 20})
	global, local := headers(t, tar.TypeXGlobalHeader), headers(t, tar.TypeXHeader)
	for _, c := range []struct {
		name, path string
		size       int
		kind       error
		want       string
	}{
		{"a tiny batch", empty, 4, ErrFormat, `data_batch_1.bin at byte 4: malformed data: expected 10000 records of 3073 bytes, came 4 bytes`},
		{"another batch", whole, published.batch * recordSize, ErrDigest, "data_batch_1.bin"},
		{"an archive that is a bomb", saved(t, "x.tar.gz", bomb), len(bomb), ErrLimit, "at most 200 bytes out of one"},
		{"an archive of headers", saved(t, "x.tar.gz", global), len(global), ErrLimit, "at most 200 bytes out of one"},
		{"an archive of headers of one entry", saved(t, "x.tar.gz", local), len(local), ErrLimit, "at most 200 bytes out of one"},
		{"the names of the release, other bytes", saved(t, "x.tar.gz", packed(t, entry{Header: tar.Header{Name: batchesDir + "/data_batch_1.bin"}, zeros: 30 << 20})), 0, ErrDigest,
			"get it again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t, c.path)
			var err error
			bounded(t, c.size, func() { _, err = Open(cfg) })
			refused(t, err, c.kind, c.want)
			refused(t, err, c.kind, c.path)
		})
	}
}

// A pinned archive can't hold these; should the pin be wrong, or the file change behind it, they are refused all the same, and nothing is ever unpacked to a disk.
func TestHostileArchivesWithTheRightDigest(t *testing.T) {
	r, files, intact := small(t)
	all := func(change func([]entry) []entry) []byte {
		var entries []entry
		for _, name := range batchNames {
			entries = append(entries, entry{Header: tar.Header{Name: batchesDir + "/" + name}, content: files[name]})
		}
		return packed(t, change(entries)...)
	}
	other := func(e []entry) []entry {
		e[2].content = bytes.Clone(e[2].content)
		e[2].content[17]++
		return e
	}
	for _, c := range []struct {
		name   string
		change func([]entry) []entry
		kind   error
		want   string
	}{
		{"other bytes", other, ErrDigest, batchesDir + "/data_batch_3.bin"},
		{"two swapped", func(e []entry) []entry { e[0].content, e[5].content = e[5].content, e[0].content; return e }, ErrDigest, "data_batch_1.bin"},
		{"one twice", func(e []entry) []entry { return append(e, e[0]) }, ErrUnsafe, "this one again"},
		{"a link for one", func(e []entry) []entry {
			e[1] = entry{Header: tar.Header{Name: e[1].Name, Typeflag: tar.TypeSymlink, Linkname: "data_batch_1.bin"}}
			return e
		}, ErrFormat, "data_batch_2.bin"},
		{"a hard link for one", func(e []entry) []entry {
			e[1] = entry{Header: tar.Header{Name: e[1].Name, Typeflag: tar.TypeLink, Linkname: e[0].Name}}
			return e
		}, ErrFormat, "data_batch_2.bin"},
		{"a device for one", func(e []entry) []entry {
			e[1] = entry{Header: tar.Header{Name: e[1].Name, Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}}
			return e
		}, ErrFormat, "data_batch_2.bin"},
		{"one elsewhere", func(e []entry) []entry { e[1].Name = "../" + e[1].Name; return e }, ErrFormat, "data_batch_2.bin"},
		{"one at the root", func(e []entry) []entry { e[1].Name = "/" + e[1].Name; return e }, ErrFormat, "data_batch_2.bin"},
		{"one in capitals", func(e []entry) []entry { e[1].Name = strings.ToUpper(e[1].Name); return e }, ErrFormat, "data_batch_2.bin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			archive := all(c.change)
			r.archive.Size, r.archive.SHA256 = int64(len(archive)), digest(archive)
			cfg := config(t, saved(t, "x.tar.gz", archive))
			_, err := open(t.Context(), cfg, r, fetch.Options{})
			refused(t, err, c.kind, c.want)
			filepath.WalkDir(cfg.CacheDir, func(path string, e os.DirEntry, err error) error {
				if err != nil || !e.IsDir() && !strings.HasSuffix(path, ".lock") {
					t.Errorf("%s was written, %v", path, err)
				}
				return nil
			})
		})
	}
	_, err := readArchive(saved(t, "cut", intact[:2000]), r) // after its digest was found right
	refused(t, err, ErrFormat, "unexpected EOF")
}

// The whole of an archive that was cut or changed has another digest.
func TestDamagedArchives(t *testing.T) {
	r, _, archive := small(t)
	path := filepath.Join(t.TempDir(), "cifar-10-binary.tar.gz")
	cfg := config(t, "")
	cfg.CacheDir = filepath.Dir(path) // where it is found without being named
	for k := range 64 {
		at := k * len(archive) / 64
		flipped := bytes.Clone(archive)
		flipped[at] ^= 1
		for what, content := range map[string][]byte{"cut": archive[:at], "flipped": flipped} {
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := open(t.Context(), cfg, r, fetch.Options{})
			t.Log(what, at)
			refused(t, err, ErrDigest, path)
		}
	}
}

// What is no file, or has no end, is not waited for.
func TestWhatIsNoFile(t *testing.T) {
	r, _, _ := small(t)
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, batchNames[0]), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := open(t.Context(), config(t, dir), r, fetch.Options{})
	refused(t, err, ErrMissing, "data_batch_1.bin")
	for _, path := range []string{filepath.Join(dir, batchNames[0]), "/dev/zero"} {
		_, err := open(t.Context(), config(t, path), r, fetch.Options{})
		refused(t, err, ErrUnsafe, "a file or a directory")
	}
	cfg := config(t, "")
	if err := os.Symlink("/dev/zero", cfg.archive(r)); err != nil {
		t.Fatal(err)
	}
	_, err = open(t.Context(), cfg, r, fetch.Options{})
	refused(t, err, ErrUnsafe, "a file or a directory")
}

// The version for Python is refused in all its forms, with the way to the other one.
func TestPicklesAreRefused(t *testing.T) {
	r, _, _ := small(t)
	pickle := append([]byte("\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05("), make([]byte, 3000)...)
	dir := filepath.Join(t.TempDir(), "any")
	if err := os.MkdirAll(filepath.Join(dir, pythonDir), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"batches.meta", "data_batch_1", "test_batch"} {
		if err := os.WriteFile(filepath.Join(dir, pythonDir, name), pickle, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	python := packed(t, entry{Header: tar.Header{Name: pythonDir + "/", Typeflag: tar.TypeDir}}, entry{Header: tar.Header{Name: pythonDir + "/data_batch_4"}, content: pickle})
	bare := packed(t, entry{Header: tar.Header{Name: pythonDir + "/data_batch_4"}, content: pickle})
	unpacked, err := gzip.NewReader(bytes.NewReader(python))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"the directory":               dir,
		"the folder":                  filepath.Join(dir, pythonDir),
		"a batch":                     filepath.Join(dir, pythonDir, "data_batch_1"),
		"the archive":                 saved(t, "cifar-10-python.tar.gz", python),
		"the archive, no folders":     saved(t, "x", bare),
		"the archive, not compressed": saved(t, "x.tar", plain),
		"objects of NumPy":            saved(t, "cifar.npy", append([]byte("\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"), pickle...)),
		"arrays of NumPy":             saved(t, "cifar.npz", []byte("PK\x03\x04")),
		"tensors of PyTorch":          saved(t, "cifar.pt", []byte("PK\x03\x04")),
		"a pickle that is text":       saved(t, "cifar.pkl", []byte("(dp0\nS'data'\n")),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t.Context(), config(t, path), r, fetch.Options{})
			for _, want := range []string{path, "get cifar-10-binary.tar.gz", "safetensors", "pickle"} {
				refused(t, err, ErrFormat, want)
			}
		})
	}
}

// No package that is built into the project can open a pickle.
func TestThereIsNoUnpickler(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 100 {
		t.Fatalf("only %d packages", len(packages))
	}
	for _, p := range packages {
		if name := strings.ToLower(p); strings.Contains(name, "pickle") || strings.Contains(name, "pytorch") {
			t.Errorf("%s is built in", p)
		}
	}
}

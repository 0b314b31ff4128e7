package store

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func exported(t testing.TB, s *Store, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Export(&b, names...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// filled has references of which some share an object; shift makes other sequences.
func filled(t testing.TB, shift int) *Store {
	s := fresh(t)
	for range shift {
		bound(t, s, "a", "1", "one")
	}
	bound(t, s, "a", "1", "one")
	bound(t, s, "a/b", "1", "two")
	bound(t, s, "a", "2", "one")
	bound(t, s, strings.Repeat("long/", 29)+"name", strings.Repeat("k", 80), strings.Repeat("large ", 1000))
	return s
}

func TestExportImport(t *testing.T) {
	from := filled(t, 0)
	data := exported(t, from)
	if other := exported(t, filled(t, 3)); !bytes.Equal(data, other) {
		t.Error("the same content with other sequences is exported otherwise")
	}
	to := fresh(t)
	got, err := to.Import(bytes.NewReader(data))
	if err != nil || len(got.Refs) != 4 || got.Objects != 3 || got.Bytes != 6006 || got.Same != 0 || len(got.Kept) != 0 {
		t.Errorf("Import: %+v, %v; want 4 references to 3 objects of 6006 bytes", got, err)
	}
	if diff := cmp.Diff(contents(t, from), contents(t, to)); diff != "" {
		t.Errorf("imported, -want +got:\n%s", diff)
	}
	if again := exported(t, to); !bytes.Equal(data, again) {
		t.Error("what was imported is exported otherwise")
	}
	refs, _ := to.Refs()
	if got, err = to.Import(bytes.NewReader(data)); err != nil || got.Same != 4 || len(got.Refs) != 0 {
		t.Errorf("again: %+v, %v", got, err)
	}
	if now, _ := to.Refs(); cmp.Diff(refs, now) != "" {
		t.Error("importing again changes the references")
	}
	// What the store has stays, and is repaired where it is damaged.
	own := fresh(t)
	bound(t, own, "a", "1", "another")
	damage := bound(t, own, "a", "2", "one")
	own.fs.RemoveAll(own.path(damage.Object.rel()))
	if got, err = own.Import(bytes.NewReader(data)); err != nil || len(got.Kept) != 1 || len(got.Refs) != 3 {
		t.Errorf("into a store with another: %+v, %v; want one kept and 3 new", got, err)
	}
	if c := contents(t, own); c["a@1"] != "another" || c["a@2"] != "one" || c["a/b@1"] != "two" {
		t.Errorf("then: %v", c)
	}
	part := fresh(t)
	if got, err := part.Import(bytes.NewReader(exported(t, from, "a/b"))); err != nil || len(got.Refs) != 1 {
		t.Errorf("one name: %+v, %v", got, err)
	}
	if got, err := part.Import(bytes.NewReader(exported(t, from, "a"))); err != nil || len(got.Refs) != 2 || got.Same != 1 {
		t.Errorf("a name and those below: %+v, %v", got, err)
	}
	var argument *ArgumentError
	if err := from.Export(io.Discard, "a", "none"); !errors.As(err, &argument) || !strings.Contains(err.Error(), "none") {
		t.Errorf("a name without references: %v", err)
	}
	if got, err := fresh(t).Import(bytes.NewReader(exported(t, fresh(t)))); err != nil || len(got.Refs) != 0 {
		t.Errorf("an empty store: %+v, %v", got, err)
	}
	broken := errors.New("broken pipe")
	if _, err := to.Import(io.MultiReader(bytes.NewReader(data[:700]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
	r, _, _ := from.Lookup("a", "1")
	from.fs.RemoveAll(from.path(r.Object.rel()))
	var missing *MissingError
	if err := from.Export(io.Discard); !errors.As(err, &missing) {
		t.Errorf("a missing object: %v", err)
	}
}

func TestDamagedExportsAreRefused(t *testing.T) {
	data := exported(t, filled(t, 0))
	s := fresh(t)
	variants := damaged(data)
	variants = append(variants, append(bytes.Clone(data), 0), append(bytes.Clone(data), data...), nil, data[:len(data)-512], data[:len(data)-1024])
	// Each byte of a header, of the padding after it, and of what ends the file.
	for at := range 1024 {
		flipped := bytes.Clone(data)
		flipped[at] ^= 1
		variants = append(variants, flipped)
		if at%32 == 0 {
			flipped = bytes.Clone(data)
			flipped[len(data)-1-at] ^= 1
			variants = append(variants, flipped)
		}
	}
	for i, bad := range variants {
		var imported *ImportError
		var format *FormatError
		if _, err := s.Import(bytes.NewReader(bad)); !errors.As(err, &imported) && !errors.As(err, &format) {
			t.Errorf("variant %d: %v; want an *ImportError", i, err)
		}
	}
	if u, err := s.Usage(); err != nil || u.Objects != 0 || u.Refs != 0 {
		t.Errorf("afterwards the store has %+v, %v", u, err)
	}
	operation{}.checkDone(t, s)
}

// tarOf makes a tar file of headers and contents.
func tarOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range append([]tar.Header{{Name: formatFile, Size: int64(len(formatText())), Linkname: formatText()}}, entries...) {
		content := ""
		if h.Typeflag == 0 {
			h.Typeflag, content, h.Linkname = tar.TypeReg, h.Linkname, "" // of a file, the content stands in Linkname
		}
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	w.Flush()
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func TestHostileExports(t *testing.T) {
	object := "objects/" + strings.Repeat("0", 2) + "/" + strings.Repeat("0", 62)
	s := fresh(t)
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"a path out of the root", tarOf(t, tar.Header{Name: "refs/../../x/@k.json", Linkname: "{}", Size: 2}), "invalid|not"},
		{"an absolute path", tarOf(t, tar.Header{Name: "/etc/passwd"}), "in order"},
		{"another file", tarOf(t, tar.Header{Name: "x.so"}), "no such file"},
		{"a symbolic link", tarOf(t, tar.Header{Name: object, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "plain regular"},
		{"a hard link", tarOf(t, tar.Header{Name: object, Typeflag: tar.TypeLink, Linkname: "FORMAT"}), "plain regular"},
		{"a device", tarOf(t, tar.Header{Name: object, Typeflag: tar.TypeChar}), "plain regular"},
		{"a directory", tarOf(t, tar.Header{Name: "objects/", Typeflag: tar.TypeDir}), "plain regular"},
		{"the same name twice", tarOf(t, tar.Header{Name: formatFile}), "in order"},
		{"an object with another digest", tarOf(t, tar.Header{Name: object}), "digest"},
		{"an object larger than a plain header can say", tarOf(t, tar.Header{Name: object, Size: 1 << 40}), "plain regular"},
		{"an object larger than the file", tarOf(t, tar.Header{Name: object, Size: maxObject}), "EOF"},
		{"a reference too large", tarOf(t, tar.Header{Name: "refs/a/@k.json", Size: maxRef + 1}), "more than"},
		{"a reference larger than the file", tarOf(t, tar.Header{Name: "refs/a/@k.json", Size: maxRef}), "EOF"},
		{"records", tarOf(t, tar.Header{Name: object, PAXRecords: map[string]string{"a.b": "c"}}), "plain regular"},
		{"no tar file", bytes.Repeat([]byte("pickle"), 1000), "header"},
		{"a newer version", bytes.Replace(exported(t, s), []byte("store 1"), []byte("store 2"), 1), "version 2"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := s.Import(bytes.NewReader(test.data))
		runtime.ReadMemStats(&after)
		found := false
		for want := range strings.SplitSeq(test.want, "|") {
			found = found || err != nil && strings.Contains(err.Error(), want)
		}
		if !found {
			t.Errorf("%s: got %v; want an error with %q", test.name, err, test.want)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 4<<20 { // a buffer of 1 MiB for each file that is written
			t.Errorf("%s: %d bytes of memory for a file of %d", test.name, taken, len(test.data))
		}
	}
	operation{}.checkDone(t, s)
}

func FuzzImport(f *testing.F) {
	f.Add(exported(f, filled(f, 0)))
	f.Add(exported(f, fresh(f)))
	s := fresh(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := s.Import(bytes.NewReader(data))
		if err != nil {
			return
		}
		// What is taken is what Export writes.
		to := fresh(t)
		if _, err := to.Import(bytes.NewReader(data)); err != nil {
			t.Fatalf("taken once (%+v), then %v", got, err)
		}
		if !bytes.Equal(exported(t, to), data) {
			t.Fatal("exported otherwise than it was imported")
		}
	})
}

func FuzzDecodeRef(f *testing.F) {
	for _, r := range []Ref{
		{Name: "a", Key: "k", Object: Digest(strings.Repeat("0", 64))},
		{Name: "a/b", Key: "k", Object: Digest(strings.Repeat("f", 64)), Size: 3, Sequence: 7, Inputs: []byte(`{"a":[1,"<"]}`), Versions: map[string]string{"go": "1"}},
	} {
		data, err := encodeRef(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRef(data)
		if err != nil {
			return
		}
		again, err := encodeRef(r)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatal(fmt.Errorf("taken, and written otherwise: %q, %q, %v", data, again, err))
		}
	})
}

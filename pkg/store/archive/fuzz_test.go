package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever comes, Extract does not panic, leaves nothing outside its directory and nothing at all on an error; and what it takes, the standard library reads
// in the same way.
func FuzzExtract(f *testing.F) {
	good := packed(f, file("a", "one"), file("d/b", "two"))
	content := append([]byte("evil"), make([]byte, blockSize-4)...)
	for _, seed := range [][]byte{
		nil, good, compressed(f, good), good[:700], append(bytes.Clone(good), good...), byHand(raw("../canary", '0', 4, nil), content), byHand(raw("link", '2', 0, nil)),
		byHand(raw("d/", '5', 0, nil), raw("d/f", '0', 4, nil), content), byHand(raw("f", '0', 4, func(h []byte) { copy(h[atPrefix:], "p/q") }), content),
		byHand(raw("x", 'x', 4, nil), content), []byte("\x1f\x8b"),
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	limits := Limits{Files: 16, Bytes: 1 << 16, Ratio: 20}
	f.Fuzz(func(t *testing.T, data []byte, mend bool) {
		if mend { // or next to nothing gets past the checksums
			for at := 0; at+blockSize <= len(data); at += blockSize {
				block := [blockSize]byte(data[at:])
				if string(block[atMagic:atMagic+5]) == "ustar" {
					copy(block[:], raw("", 0, 0, func(h []byte) { copy(h, block[:]) }))
					data = append(append(bytes.Clone(data[:at]), block[:]...), data[at+blockSize:]...)
				}
			}
		}
		root, above := within(t)
		names, err := Extract(bytes.NewReader(data), root, limits)
		all := found(t, above)
		if all["canary"] != "sings" {
			t.Fatal("the canary is dead")
		}
		if err != nil {
			if diff := cmp.Diff(untouched, all); diff != "" || names != nil {
				t.Fatalf("after %v, names %q and -want +got:\n%s", err, names, diff)
			}
			return
		}
		files, size := 0, 0
		for name, text := range all {
			if name[len(name)-1] != '/' && name != "canary" {
				files, size = files+1, size+len(text)
			}
		}
		if files != len(names) || int64(size) > limits.Bytes || len(all) > limits.Files+2 {
			t.Fatalf("%d files of %d bytes for names %q", files, size, names)
		}
		var r io.Reader = bytes.NewReader(data)
		if bytes.HasPrefix(data, []byte("\x1f\x8b")) {
			if r, err = gzip.NewReader(r); err != nil {
				t.Fatal(err)
			}
		}
		archive := tar.NewReader(r)
		for i := 0; ; {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				if i != len(names) {
					t.Fatalf("the standard library reads %d files of %q", i, names)
				}
				return
			}
			if err != nil {
				t.Fatalf("the standard library refuses it: %v", err)
			}
			if h.Typeflag == tar.TypeDir {
				continue
			}
			want, err := io.ReadAll(archive)
			if err != nil || i >= len(names) || h.Name != names[i] {
				t.Fatalf("the standard library reads %q as number %d of %q, %v", h.Name, i, names, err)
			}
			if got, err := os.ReadFile(filepath.Join(root.Name(), h.Name)); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%q: got %q, the standard library reads %q, %v", h.Name, got, want, err)
			}
			i++
		}
	})
}

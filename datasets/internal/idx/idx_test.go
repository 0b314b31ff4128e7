package idx

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// file returns the compressed IDX file of the given header words and content.
func file(content []byte, words ...uint32) []byte {
	var raw []byte
	for _, w := range words {
		raw = binary.BigEndian.AppendUint32(raw, w)
	}
	return squeeze(append(raw, content...))
}

func squeeze(raw []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(raw)
	w.Close()
	return b.Bytes()
}

var (
	images = file([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, magicImages, 2, 3, 2)
	labels = file([]byte{0, 9, 4}, magicLabels, 3)
)

func TestRead(t *testing.T) {
	got, err := ReadImages("i", images)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Images{2, 3, 2, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	l, err := ReadLabels("l", labels, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int32{0, 9, 4}, l); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestHeadersThatLie(t *testing.T) {
	for _, c := range []struct {
		name   string
		file   []byte
		labels bool
		want   string
	}{
		{"labels for images", labels, false, "expected magic number 0x803 (images), came 0x801 (labels)"},
		{"images for labels", images, true, "expected magic number 0x801 (labels), came 0x803 (images)"},
		{"neither", file(nil, 7, 1), true, "came 0x7 (neither images nor labels)"},
		{"2^31 images", file([]byte{1, 2, 3, 4}, magicImages, 1<<31, 2, 2), false, "came 2147483648 on axis 0"},
		{"2^32-1 labels", file([]byte{1, 2, 3, 4}, magicLabels, 1<<32-1), true, "came 4294967295 on axis 0"},
		{"a product above 2^64", file([]byte{1}, magicImages, 1, 1<<31, 1<<31), false, "on axis 1"},
		{"each small, the product large", file([]byte{1}, magicImages, 1000, 1000, 1000), false, "came 1000 on axis"},
		{"no image", file(nil, magicImages, 0, 28, 28), false, "at byte 4: malformed data: expected a dimension of at least 1, came 0"},
		{"no height", file(nil, magicImages, 1, 0, 28), false, "at byte 8"},
		{"label 255", file([]byte{1, 2, 255}, magicLabels, 3), true,
			"at byte 10: malformed data: expected labels from 0 to 9, came label 255 of example 2"},
		{"a byte missing", file([]byte{1, 2}, magicLabels, 3), true, "at byte 10: malformed data: expected 3 bytes after the header, came 2"},
		{"a byte too many", file([]byte{1, 2, 3, 4}, magicLabels, 3), true, "expected 3 bytes after the header, came more"},
		{"half a header", squeeze([]byte{0, 0, 8, 3, 0, 0}), false, "at byte 6: malformed data: expected a header of 16 bytes, came 6"},
		{"nothing inside", squeeze(nil), false, "expected a header of 16 bytes, came 0"},
		{"no gzip", []byte("<html>not found</html>"), false, "expected a gzip file"},
		{"an empty file", nil, true, "expected a gzip file, came 0 bytes"},
		{"something after the end", append(bytes.Clone(labels), "more"...), true, "expected the end of an intact gzip file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			if c.labels {
				_, err = ReadLabels("the file", c.file, 10)
			} else {
				_, err = ReadImages("the file", c.file)
			}
			var typed *fault.Error
			if !errors.As(err, &typed) || !errors.Is(err, fault.ErrFormat) {
				t.Fatalf("%v, expected a *fault.Error of kind ErrFormat", err)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "the file") || typed.Remedy == "" {
				t.Errorf("%q doesn't say file, remedy and %q", err, c.want)
			}
		})
	}
}

// Nothing that happens to a file goes unnoticed.
func TestTruncationAndFlipsAreNoticed(t *testing.T) {
	pixels := make([]byte, 16*64)
	for i := range pixels {
		pixels[i] = byte(i * i)
	}
	intact := file(pixels, magicImages, 16, 8, 8)
	want, err := ReadImages("f", intact)
	if err != nil {
		t.Fatal(err)
	}
	for k := range 64 {
		at := k * len(intact) / 64
		if _, err := ReadImages("f", intact[:at]); !errors.Is(err, fault.ErrFormat) {
			t.Errorf("cut at %d of %d: %v, expected ErrFormat", at, len(intact), err)
		}
		flipped := bytes.Clone(intact)
		flipped[at] ^= 0x10
		got, err := ReadImages("f", flipped)
		// Some bits of gzip's own header (the time, the system) mean nothing to the content.
		if err == nil && cmp.Equal(want, got) && at < 10 {
			continue
		}
		if !errors.Is(err, fault.ErrFormat) {
			t.Errorf("a bit of byte %d flipped: %v, expected ErrFormat", at, err)
		}
	}
}

// bounded fails when f allocates more than twice the size of the file, what is allocated on trust, and the decompressor's windows.
func bounded(t *testing.T, size int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(2*size+firstAllocation+1<<20); got > limit {
		t.Errorf("a file of %d bytes made %d bytes be allocated, more than %d", size, got, limit)
	}
}

func FuzzReadImages(f *testing.F) {
	f.Add(images)
	f.Add(labels)
	f.Add(images[:20])
	f.Add(file([]byte{1, 2, 3, 4}, magicImages, 1<<31, 1<<31, 1<<31))
	f.Add(file([]byte{1}, magicImages, 1, 100, 300)) // claims what its size allows, and has less
	f.Fuzz(func(t *testing.T, data []byte) {
		bounded(t, len(data), func() {
			got, err := ReadImages("f", data)
			if err == nil && len(got.Pixels) != got.Count*got.Height*got.Width {
				t.Errorf("%d pixels for %dx%dx%d", len(got.Pixels), got.Count, got.Height, got.Width)
			}
			if err != nil && !errors.Is(err, fault.ErrFormat) {
				t.Errorf("%v is no ErrFormat", err)
			}
		})
	})
}

// FuzzReadLabels compresses what the fuzzer makes, so that it reaches behind gzip's checksum.
func FuzzReadLabels(f *testing.F) {
	f.Add([]byte{0, 0, 8, 1, 0, 0, 0, 2, 3, 4})
	f.Add([]byte{0, 0, 8, 1, 0x80, 0, 0, 0, 3, 4})
	f.Add([]byte{0, 0, 8, 1, 0, 0, 0, 1, 255})
	f.Add([]byte{0, 0, 8, 3, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		data := squeeze(raw)
		bounded(t, len(data), func() {
			got, err := ReadLabels("f", data, 10)
			if err != nil && !errors.Is(err, fault.ErrFormat) {
				t.Errorf("%v is no ErrFormat", err)
			}
			for _, label := range got {
				if label < 0 || label > 9 {
					t.Errorf("label %d came through", label)
				}
			}
			if err == nil && len(got) != len(raw)-8 {
				t.Errorf("%d labels of %d bytes", len(got), len(raw))
			}
		})
	})
}

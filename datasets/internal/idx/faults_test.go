package idx

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// bomb returns an IDX file whose header is true and whose n bytes are all zero; n must be a multiple of 1 MiB.
func bomb(t *testing.T, n int, words ...uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for _, word := range words {
		w.Write(binary.BigEndian.AppendUint32(nil, word))
	}
	zeros := make([]byte, 1<<20)
	for range n >> 20 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Files whose header is true, and which come to a thousand times their size.
func TestBombs(t *testing.T) {
	const size = 256 << 20
	for name, c := range map[string]struct {
		content []byte
		labels  bool
		want    string
	}{
		"images":                 {bomb(t, size, magicImages, size/1024, 32, 32), false, "at byte 12: malformed data: expected dimensions that"},
		"one large image":        {bomb(t, size, magicImages, 1, 1<<14, 1<<14), false, "at byte 12"},
		"labels":                 {bomb(t, size, magicLabels, size), true, "at byte 4"},
		"more behind the labels": {bomb(t, size, magicLabels, 1<<20), true, "at byte 1048584: malformed data: expected 1048576 bytes after the header, came more"},
	} {
		t.Run(name, func(t *testing.T) {
			bounded(t, len(c.content), func() {
				var err error
				if c.labels {
					_, err = ReadLabels("the file", c.content, 10)
				} else {
					_, err = ReadImages("the file", c.content)
				}
				if !errors.Is(err, fault.ErrFormat) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "the file") {
					t.Errorf("%v, expected ErrFormat with %q", err, c.want)
				}
			})
		})
	}
	// What is all the same and small is no bomb.
	black := bomb(t, 1<<20, magicImages, 1024, 32, 32)
	if got, err := ReadImages("black", black); err != nil || len(got.Pixels) != 1<<20 {
		t.Errorf("%d pixels, %v", len(got.Pixels), err)
	}
}

// FuzzReadRawImages compresses what the fuzzer makes, so that it reaches behind gzip's checksum.
func FuzzReadRawImages(f *testing.F) {
	f.Add([]byte{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4})
	f.Add([]byte{0, 0, 8, 3, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4})
	f.Add([]byte{0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2})
	f.Add([]byte{0, 0, 8, 1, 0, 0, 0, 2, 3, 4})
	f.Fuzz(func(t *testing.T, raw []byte) {
		data := squeeze(raw)
		bounded(t, len(data), func() {
			got, err := ReadImages("f", data)
			if err != nil && !errors.Is(err, fault.ErrFormat) {
				t.Errorf("%v is no ErrFormat", err)
			}
			if err == nil && !bytes.Equal(got.Pixels, raw[16:]) {
				t.Errorf("%d pixels of %d bytes", len(got.Pixels), len(raw))
			}
		})
	})
}

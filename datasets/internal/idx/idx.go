// Package idx reads the gzip-compressed IDX files of MNIST and of the data sets that copy its format.
//
// The header of such a file is believed only as far as it was checked: its magic number, counts and sizes are verified before anything
// is allocated by them.
package idx

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// The magic numbers: two zero bytes, the type (8: unsigned byte), the number of axes.
const (
	magicLabels = 0x00000801
	magicImages = 0x00000803
)

const (
	// maxDeflate is more than the highest ratio that DEFLATE reaches, 1032 to 1.
	maxDeflate = 1100
	// maxRatio is far above what images and labels reach, 2 to 5 to 1. A file that claims more, and more than firstAllocation, is a bomb.
	maxRatio = 64
	// firstAllocation bounds what is allocated before that many bytes were seen.
	firstAllocation = 64 << 20
)

const remedy = "get the file again"

// Images is the content of an images file.
type Images struct {
	Count, Height, Width int
	Pixels               []byte // [Count, Height, Width]
}

// ReadImages decodes an images file, given its name for messages and its compressed content. The error is a *fault.Error of kind
// ErrFormat.
func ReadImages(name string, compressed []byte) (Images, error) {
	r, err := open(name, compressed)
	if err != nil {
		return Images{}, err
	}
	dims, err := r.header(magicImages, 3)
	if err != nil {
		return Images{}, err
	}
	pixels, err := r.body(dims)
	return Images{Count: dims[0], Height: dims[1], Width: dims[2], Pixels: pixels}, err
}

// ReadLabels decodes a labels file and checks that each label is below classes. The error is a *fault.Error of kind ErrFormat.
func ReadLabels(name string, compressed []byte, classes int) ([]int32, error) {
	r, err := open(name, compressed)
	if err != nil {
		return nil, err
	}
	dims, err := r.header(magicLabels, 1)
	if err != nil {
		return nil, err
	}
	body, err := r.body(dims)
	if err != nil {
		return nil, err
	}
	labels := make([]int32, len(body))
	for i, label := range body {
		if int(label) >= classes {
			return nil, r.fault(int64(8+i), fmt.Sprintf("labels from 0 to %d", classes-1), fmt.Sprintf("label %d of example %d", label, i), nil)
		}
		labels[i] = int32(label)
	}
	return labels, nil
}

// reader reads the uncompressed content of one file.
type reader struct {
	name       string
	compressed int
	gz         *gzip.Reader
	offset     int64
}

func open(name string, compressed []byte) (*reader, error) {
	r := &reader{name: name, compressed: len(compressed)}
	var err error
	if r.gz, err = gzip.NewReader(bytes.NewReader(compressed)); err != nil {
		return nil, r.fault(0, "a gzip file", fmt.Sprintf("%d bytes that don't begin like one", len(compressed)), err)
	}
	return r, nil
}

func (r *reader) fault(offset int64, expected, came string, cause error) error {
	return &fault.Error{Kind: fault.ErrFormat, File: r.name, Offset: offset, Expected: expected, Came: came, Remedy: remedy, Err: cause}
}

// header reads magic number and dimensions, and refuses those that the rest of the file can't hold.
func (r *reader) header(magic uint32, rank int) ([]int, error) {
	header := make([]byte, 4+4*rank)
	n, err := io.ReadFull(r.gz, header)
	r.offset = int64(n)
	// The magic number first: it tells swapped files, even when they are short.
	if n >= 4 {
		if came := binary.BigEndian.Uint32(header); came != magic {
			return nil, r.fault(0, fmt.Sprintf("magic number %#x (%s)", magic, kind(magic)), fmt.Sprintf("%#x (%s)", came, kind(came)), nil)
		}
	}
	if err != nil {
		return nil, r.fault(r.offset, fmt.Sprintf("a header of %d bytes", len(header)), fmt.Sprintf("%d", n), err)
	}
	limit := min(int64(r.compressed)*maxDeflate, max(int64(r.compressed)*maxRatio, firstAllocation))
	dims := make([]int, rank)
	size := int64(1)
	for axis := range dims {
		dim := int64(binary.BigEndian.Uint32(header[4+4*axis:]))
		at := int64(4 + 4*axis)
		if dim == 0 {
			return nil, r.fault(at, "a dimension of at least 1", "0", nil)
		}
		if dim > limit/size {
			return nil, r.fault(at, fmt.Sprintf("dimensions that %d compressed bytes can hold", r.compressed),
				fmt.Sprintf("%d on axis %d", dim, axis), nil)
		}
		dims[axis] = int(dim)
		size *= dim
	}
	return dims, nil
}

// body reads what the dimensions promise, and checks that it is all there is.
func (r *reader) body(dims []int) ([]byte, error) {
	size := 1
	for _, dim := range dims {
		size *= dim
	}
	data := make([]byte, 0, min(size, firstAllocation))
	for len(data) < size {
		if len(data) == cap(data) {
			data = append(make([]byte, 0, min(size, 2*cap(data))), data...)
		}
		n, err := r.gz.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err != nil && len(data) < size {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, r.fault(r.offset+int64(len(data)), fmt.Sprintf("%d bytes after the header", size), fmt.Sprintf("%d", len(data)), err)
		}
	}
	// The end is read too: only there gzip's checksum is compared.
	n, err := io.ReadFull(r.gz, make([]byte, 1))
	if n > 0 {
		return nil, r.fault(r.offset+int64(size), fmt.Sprintf("%d bytes after the header", size), "more", nil)
	}
	if !errors.Is(err, io.EOF) {
		return nil, r.fault(r.offset+int64(size), "the end of an intact gzip file", "a broken one", err)
	}
	return data, nil
}

// kind names what a magic number stands for.
func kind(magic uint32) string {
	switch magic {
	case magicLabels:
		return "labels"
	case magicImages:
		return "images"
	}
	return "neither images nor labels"
}

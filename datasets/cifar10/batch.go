package cifar10

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/espalier-ml/espalier/datasets/internal/memory"
)

// batchesDir is the folder in the archive.
const batchesDir = "cifar-10-batches-bin"

// batchNames are the files in it, those for training first.
var batchNames = []string{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"}

const (
	imageSize  = side * side * channels
	recordSize = 1 + imageSize // the label, then a plane of each colour
)

// readBatch reads the records that fill labels, and no more: inputs gets [n, 32, 32, 3] of the [n, 3, 32, 32] in the file.
func readBatch(name, entry string, r io.Reader, inputs []uint8, labels []int32) error {
	bad := func(offset int64, expected, came string, err error) error {
		return &Error{Kind: ErrFormat, File: name, Entry: entry, Offset: offset, Expected: expected, Came: came, Err: err,
			Remedy: "get the file again"}
	}
	record := make([]byte, recordSize)
	for i := range labels {
		at := int64(i) * recordSize
		if n, err := io.ReadFull(r, record); err != nil {
			return bad(at+int64(n), fmt.Sprintf("%d records of %d bytes", len(labels), recordSize), fmt.Sprintf("%d bytes", at+int64(n)), err)
		}
		if int(record[0]) >= len(classNames) {
			return bad(at, "labels from 0 to 9", fmt.Sprintf("label %d of example %d", record[0], i), nil)
		}
		labels[i] = int32(record[0])
		out := inputs[i*imageSize:][:imageSize]
		for plane := range channels {
			for p, v := range record[1+plane*side*side:][:side*side] {
				out[p*channels+plane] = v
			}
		}
	}
	switch n, err := io.ReadFull(r, record[:1]); {
	case n > 0:
		return bad(int64(len(labels))*recordSize, fmt.Sprintf("%d records of %d bytes", len(labels), recordSize), "more", nil)
	case !errors.Is(err, io.EOF):
		return bad(int64(len(labels))*recordSize, "the end of the file", "a failure", err)
	}
	return nil
}

// batches are the six files being read. Room for all of them is made when the first one was the published one, so that no other file makes more be
// allocated than a batch takes.
type batches struct {
	release     release
	train, test memory.Contents
	inputs      []uint8 // of the batch being read
	labels      []int32
	seen        map[string]bool
}

func newBatches(r release) *batches {
	contents := memory.Contents{Name: "cifar10", Height: side, Width: side, Channels: channels, ClassNames: classNames}
	b := &batches{release: r, train: contents, test: contents, inputs: make([]uint8, r.batch*imageSize), labels: make([]int32, r.batch), seen: map[string]bool{}}
	b.train.Part, b.test.Part = "train", "test"
	return b
}

// read takes one of the files, and checks its digest.
func (b *batches) read(file, entry string, r io.Reader, name string) error {
	if b.seen[name] {
		return &Error{Kind: ErrUnsafe, File: file, Entry: entry, Expected: "each file once", Came: "this one again", Remedy: "get the archive again"}
	}
	b.seen[name] = true
	sum := sha256.New()
	if err := readBatch(file, entry, io.TeeReader(r, sum), b.inputs, b.labels); err != nil {
		return err
	}
	if came := hex.EncodeToString(sum.Sum(nil)); came != b.release.sha256[name] {
		return &Error{Kind: ErrDigest, File: file, Entry: entry, Expected: "SHA-256 " + b.release.sha256[name], Came: came,
			Remedy: "unpack the archive again, or name the archive itself in Config.Path"}
	}
	to, n, at := &b.test, 1, 0
	if i := slices.Index(batchNames[:5], name); i >= 0 {
		to, n, at = &b.train, 5, i
	}
	if to.Inputs == nil {
		to.Inputs, to.Labels = make([]uint8, n*len(b.inputs)), make([]int32, n*len(b.labels))
	}
	copy(to.Inputs[at*len(b.inputs):], b.inputs)
	copy(to.Labels[at*len(b.labels):], b.labels)
	return nil
}

// parts returns the split, once all files were read.
func (b *batches) parts(file string) (memory.Parts, error) {
	for _, name := range batchNames {
		if !b.seen[name] {
			return memory.Parts{}, &Error{Kind: ErrFormat, File: file, Entry: name, Expected: "six files of records", Came: "none of this name"}
		}
	}
	p := memory.Parts{Test: b.test}
	p.Train, p.Validation = memory.HoldOut(b.train, b.release.batch/2)
	return p, nil
}

// readDir reads the files in dir, and checks their digests.
func readDir(dir string, r release) (memory.Parts, error) {
	b := newBatches(r)
	for _, name := range batchNames {
		file := filepath.Join(dir, name)
		if err := readFile(b, file, name); err != nil {
			return memory.Parts{}, err
		}
	}
	return b.parts(dir)
}

func readFile(b *batches, file, name string) error {
	missing := func(came string, err error) error {
		return &Error{Kind: ErrMissing, File: file, Expected: "a file that can be read", Came: came, Err: err,
			Remedy: "unpack the archive again, or name the archive itself in Config.Path"}
	}
	info, err := os.Stat(file)
	if err != nil {
		return missing("none", err)
	}
	if !info.Mode().IsRegular() { // which might never end, or never begin
		return missing(info.Mode().Type().String(), nil)
	}
	f, err := os.Open(file)
	if err != nil {
		return missing("none", err)
	}
	defer f.Close()
	return b.read(file, "", bufio.NewReaderSize(f, 1<<20), name)
}

// readArchive reads the published archive, whose digest was checked.
func readArchive(file string, r release) (memory.Parts, error) {
	var none memory.Parts
	bad := func(err error) error {
		return &Error{Kind: ErrFormat, File: file, Expected: "a gzip-compressed tar archive", Came: "something else", Err: err}
	}
	f, err := os.Open(file)
	if err != nil {
		return none, &Error{Kind: ErrMissing, File: file, Expected: "an archive that can be read", Came: "none", Err: err}
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return none, bad(err)
	}
	b := newBatches(r)
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return b.parts(file)
		}
		if err != nil {
			return none, bad(err)
		}
		if name, found := batchName(h); found {
			if err := b.read(file, h.Name, tr, name); err != nil {
				return none, err
			}
		}
	}
}

// batchName says which of the six files an entry is.
func batchName(h *tar.Header) (name string, found bool) {
	for _, name := range batchNames {
		if h.Typeflag == tar.TypeReg && path.Clean(h.Name) == path.Join(batchesDir, name) {
			return name, true
		}
	}
	return "", false
}

// maxStart is how much of an archive is unpacked to see what it is. The published one shows it in its first 512 bytes.
const maxStart = 1 << 20

// start is what an archive begins like, intact or not.
type start int

const (
	ofSomethingElse start = iota
	ofBatches             // the published archive
	ofPickles             // the archive published for Python
)

// starts says what file begins like.
func starts(file string) start {
	f, err := os.Open(file)
	if err != nil {
		return ofSomethingElse
	}
	defer f.Close()
	var r io.Reader = bufio.NewReader(f)
	if first, _ := r.(*bufio.Reader).Peek(2); bytes.Equal(first, []byte{0x1f, 0x8b}) {
		if r, err = gzip.NewReader(r); err != nil {
			return ofSomethingElse
		}
	}
	tr := tar.NewReader(io.LimitReader(r, maxStart))
	for range 4 { // the folder, its readme, the names of the classes, the first file
		h, err := tr.Next()
		if err != nil {
			return ofSomethingElse
		}
		name := path.Clean(h.Name)
		if name == pythonDir || path.Dir(name) == pythonDir {
			return ofPickles
		}
		if _, found := batchName(h); found || name == batchesDir {
			return ofBatches
		}
	}
	return ofSomethingElse
}

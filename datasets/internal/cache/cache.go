// Package cache keeps decoded data sets on disk, one file each, so that they are decoded once.
//
// A file is the magic bytes, the length of a JSON header (8 bytes, little-endian), the header, labels (4 bytes each, little-endian) and
// inputs of each part in turn, and the SHA-256 of all that. It appears under its name whole or not at all; what is wrong with it later is
// found when it is read, reported, and mended by decoding again.
package cache

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/gofrs/flock"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
	"github.com/espalier-ml/espalier/datasets/internal/memory"
)

const (
	magic     = "espalier decoded data 1\n"
	maxHeader = 1 << 20
)

// part is the header's description of one part.
type part struct {
	Name, Part                     string
	Count, Height, Width, Channels int
	ClassNames                     []string
}

// size returns the bytes of labels and inputs of p, or -1 when p makes no sense or has more than limit.
func (p part) size(limit int64) int64 {
	size := int64(1)
	for _, dim := range []int{p.Height, p.Width, p.Channels, p.Count} {
		if dim < 1 || int64(dim) > limit/size {
			return -1
		}
		size *= int64(dim)
	}
	if labels := 4 * int64(p.Count); labels <= limit-size {
		return size + labels
	}
	return -1
}

// Keep returns what is stored in dir under key, which must be a file name; where nothing is, or something broken, it is what build
// returns, stored for the next time. One process builds while others wait for it. Failures of the cache are told to warn and cost only the time of
// another build; the error is that of build.
func Keep(dir, key string, build func() (memory.Parts, error), warn func(error)) (memory.Parts, error) {
	path := filepath.Join(dir, key+".decoded")
	// Nearly always the file is there, and no lock is needed to read it.
	if parts, err := load(path); err == nil {
		return parts, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		warn(storing(path, err))
		return build()
	}
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		warn(storing(path, err))
		return build()
	}
	defer lock.Unlock()
	parts, err := load(path) // by another process, meanwhile
	if err == nil {
		return parts, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		warn(err)
	}
	if parts, err = build(); err != nil {
		return memory.Parts{}, err
	}
	if err := store(path, parts); err != nil {
		warn(storing(path, err))
	}
	return parts, nil
}

func storing(path string, err error) error {
	return &fault.Error{Kind: fault.ErrCache, File: path, Expected: "a place that can be written", Came: "a failure", Err: err,
		Remedy: "make room or give write access; until then the data is decoded each time"}
}

// store writes parts to path, atomically. It is called under the lock, so that the name of the temporary file is its own; one that
// an interrupted process left is written over.
func store(path string, parts memory.Parts) (err error) {
	temporary := path + ".tmp"
	f, err := os.Create(temporary)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temporary)
		}
	}()
	if err := write(f, parts); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func write(f io.Writer, parts memory.Parts) error {
	sum := sha256.New()
	buffered := bufio.NewWriterSize(f, 1<<20)
	w := io.MultiWriter(buffered, sum)
	all := []*memory.Contents{&parts.Train, &parts.Validation, &parts.Test}
	var header []part
	for _, c := range all {
		header = append(header, part{c.Name, c.Part, len(c.Labels), c.Height, c.Width, c.Channels, c.ClassNames})
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	chunks := [][]byte{[]byte(magic), binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text}
	for _, c := range all {
		labels := make([]byte, 0, 4*len(c.Labels))
		for _, label := range c.Labels {
			labels = binary.LittleEndian.AppendUint32(labels, uint32(label))
		}
		chunks = append(chunks, labels, c.Inputs)
	}
	for _, chunk := range chunks {
		if _, err := w.Write(chunk); err != nil {
			return err
		}
	}
	if _, err := buffered.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return buffered.Flush()
}

// load reads what store wrote. The error is fs.ErrNotExist when there is nothing, else a *fault.Error.
func load(path string) (memory.Parts, error) {
	f, err := os.Open(path)
	if err != nil {
		return memory.Parts{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return memory.Parts{}, err
	}
	parts, err := read(f, info.Size())
	if err != nil {
		return memory.Parts{}, &fault.Error{Kind: fault.ErrFormat, File: path, Expected: "intact decoded data", Came: "something else",
			Err: err, Remedy: "it is decoded again"}
	}
	return parts, nil
}

// read reads size bytes. Nothing is allocated by what the header says before it was compared with size.
func read(f io.Reader, size int64) (memory.Parts, error) {
	var none memory.Parts
	sum := sha256.New()
	r := io.TeeReader(f, sum)
	start := make([]byte, len(magic)+8)
	if _, err := io.ReadFull(r, start); err != nil {
		return none, fmt.Errorf("the start: %w", err)
	}
	if !bytes.HasPrefix(start, []byte(magic)) {
		return none, errors.New("other magic bytes")
	}
	length := binary.LittleEndian.Uint64(start[len(magic):])
	rest := size - int64(len(start)) - sha256.Size
	if length > maxHeader || int64(length) > rest {
		return none, fmt.Errorf("a header of %d bytes", length)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return none, fmt.Errorf("the header: %w", err)
	}
	rest -= int64(length)
	header, err := three(text)
	if err != nil {
		return none, fmt.Errorf("the header: %w", err)
	}
	for _, p := range header {
		need := p.size(rest)
		if need < 0 {
			return none, fmt.Errorf("a part of %dx%dx%dx%d in the %d bytes left", p.Count, p.Height, p.Width, p.Channels, rest)
		}
		rest -= need
	}
	if rest != 0 {
		return none, fmt.Errorf("%d bytes too many", rest)
	}
	var parts memory.Parts
	for i, to := range []*memory.Contents{&parts.Train, &parts.Validation, &parts.Test} {
		p := header[i]
		*to = memory.Contents{Name: p.Name, Part: p.Part, Height: p.Height, Width: p.Width, Channels: p.Channels, ClassNames: p.ClassNames,
			Labels: make([]int32, p.Count), Inputs: make([]uint8, p.Count*p.Height*p.Width*p.Channels)}
		if err := fill(f, sum, to); err != nil {
			return none, err
		}
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return none, fmt.Errorf("the SHA-256: %w", err)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, want) {
		return none, fmt.Errorf("SHA-256 %x of what says %x", got, want)
	}
	return parts, nil
}

// three decodes a header. It stops at a fourth part, of which a hostile header could have hundreds of thousands.
func three(text []byte) (header [3]part, err error) {
	if !json.Valid(text) {
		return header, errors.New("no JSON")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('[') {
		return header, errors.New("no list of parts")
	}
	for i := range header {
		if err := d.Decode(&header[i]); err != nil {
			return header, err
		}
	}
	if d.More() {
		return header, fmt.Errorf("more than %d parts", len(header))
	}
	return header, nil
}

// fill reads labels and inputs of c, and adds them to sum.
func fill(f io.Reader, sum hash.Hash, c *memory.Contents) error {
	labels := make([]byte, 4*len(c.Labels))
	for _, all := range [][]byte{labels, c.Inputs} {
		// In pieces that are still in the processor's cache when they are summed up.
		for piece := range slices.Chunk(all, 1<<18) {
			if _, err := io.ReadFull(f, piece); err != nil {
				return fmt.Errorf("the examples: %w", err)
			}
			sum.Write(piece)
		}
	}
	for i := range c.Labels {
		c.Labels[i] = int32(binary.LittleEndian.Uint32(labels[4*i:]))
	}
	return nil
}

package archive

import (
	"fmt"
	"io"
	"os"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// Extract unpacks an archive, tar or tar.gz by its first bytes, below a directory, and returns the names of the files in the archive's order. Files
// are synced, and so are the directories that they are in; they get the mode 0644, directories 0755. Nothing that is there is replaced, and links that
// are there are not followed.
//
// It is all or nothing: on an error what was written is removed. A program that is killed leaves a part; who must not see one unpacks into a directory
// that is renamed when it is whole. Memory is a buffer and the names, which the limit of files bounds.
//
// Errors: *Error for an archive that is refused, with nothing written of the entry it names; others of r and of the file system.
func Extract(r io.Reader, root *os.Root, limits Limits) ([]string, error) {
	return extract(durable.FS{}, r, root, limits)
}

func extract(fs durable.FS, r io.Reader, root *os.Root, limits Limits) (names []string, err error) {
	if limits, err = limits.complete(); err != nil {
		return nil, err
	}
	d := newDisk(fs, root)
	defer func() {
		if err != nil {
			names, err = nil, d.undo(err)
		}
	}()
	src, err := open(r, limits.Ratio)
	if err != nil {
		return nil, err
	}
	var (
		all   = newTree(limits.Files)
		left  = limits.Bytes
		block [blockSize]byte
	)
	for {
		if _, err := io.ReadFull(src, block[:]); err != nil {
			return nil, damage(err)
		}
		if zero(block[:]) {
			break
		}
		e, err := parse(&block)
		if err != nil {
			return nil, err
		}
		dirs, err := all.add(e.name, e.dir)
		if err != nil {
			return nil, err
		}
		switch {
		case e.size > limits.FileBytes:
			return nil, &Error{e.name, fmt.Sprintf("has %d bytes, at most %d are allowed", e.size, limits.FileBytes), "raise Limits.FileBytes if that is as it should be"}
		case e.size > left:
			return nil, &Error{"", fmt.Sprintf("holds more than %d bytes", limits.Bytes), "raise Limits.Bytes if that is as it should be"}
		}
		left -= e.size
		for _, dir := range dirs {
			if err := d.mkdir(dir); err != nil {
				return nil, err
			}
		}
		if e.dir {
			continue
		}
		if err := d.write(e.name, src, e.size); err != nil {
			return nil, err
		}
		rest := block[:padding(e.size)]
		if _, err := io.ReadFull(src, rest); err != nil {
			return nil, damage(err)
		}
		if !zero(rest) {
			return nil, &Error{e.name, "is followed by bytes that belong to no file", "get the archive again"}
		}
		names = append(names, e.name)
	}
	if err := src.end(); err != nil {
		return nil, err
	}
	return names, d.sync()
}

package archive

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// WriteFile writes a compressed archive in place of the file that has the name, if any: whole, or not at all even where the program is killed, which then
// leaves a hidden directory beside it, .packing-…. Before the archive gets its name, check is asked about it under another one, in a directory that is removed afterwards; nil: nobody is asked.
//
// Where check refuses it with an *Error it is written again with Huffman's codes alone, which leave an eighth at least: what is all but
// nothing when it is compressed well, as masks of a dense network are, is a bomb to Extract.
//
// Errors: those of Write and check, and of the file system.
func WriteFile(path string, files []File, check func(path string) error) error {
	return writeFile(durable.FS{}, path, files, check)
}

func writeFile(fs durable.FS, path string, files []File, check func(path string) error) (err error) {
	dir := filepath.Dir(path)
	if err := fs.MkdirAll(dir); err != nil {
		return err
	}
	own, err := fs.MkdirTemp(dir, ".packing-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.RemoveAll(own)) }()
	var refused *Error
	for i, level := range []int{gzip.DefaultCompression, gzip.HuffmanOnly} {
		written := filepath.Join(own, fmt.Sprintf("%d.tar.gz", i))
		err := fs.Write(written, func(w io.Writer) error {
			z, err := gzip.NewWriterLevel(w, level) // with no name and no time in its header
			if err != nil {
				return err
			}
			if err := Write(z, files); err != nil {
				return err
			}
			return z.Close()
		})
		if err != nil {
			return err
		}
		if check != nil {
			if err := check(written); errors.As(err, &refused) && i == 0 {
				continue
			} else if err != nil {
				return err
			}
		}
		if err := fs.Rename(written, path); err != nil {
			return err
		}
		return fs.SyncDir(dir)
	}
	return refused
}

// ExtractNew is Extract into a directory that is new, or empty, and that is there whole or not at all even where the program is killed, which
// then leaves a hidden directory beside it, .unpacking-…. One that is there keeps its mode. Before the directory gets its name, check is asked about it, with the names of the files in the archive's order; nil: nobody is asked.
//
// Errors: those of Extract and check, and of the file system. The directory is as it was then; only where its name can't be made to last is it there.
func ExtractNew(r io.Reader, dir string, limits Limits, check func(root *os.Root, names []string) error) error {
	return extractNew(durable.FS{}, r, dir, limits, check)
}

func extractNew(fs durable.FS, r io.Reader, dir string, limits Limits, check func(root *os.Root, names []string) error) (err error) {
	dir = filepath.Clean(dir)
	there, err := vacant(dir)
	if err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	if err := fs.MkdirAll(parent); err != nil {
		return err
	}
	own, err := fs.MkdirTemp(parent, ".unpacking-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.RemoveAll(own)) }()
	whole := filepath.Join(own, "whole") // has the usual mode, which own does not
	if err := fs.MkdirAll(whole); err != nil {
		return err
	}
	if err := fill(fs, r, whole, limits, check); err != nil {
		return err
	}
	if there != nil {
		if err := os.Chmod(whole, there.Mode().Perm()|0o700); err != nil { // it may be for its owner alone, who has to move it
			return err
		}
		if err := os.Remove(dir); err != nil { // a directory can't get a name that is there, not even an empty one's
			return err
		}
	}
	if err := fs.Rename(whole, dir); err != nil {
		if there != nil {
			err = errors.Join(err, os.Mkdir(dir, there.Mode().Perm()))
		}
		return err
	}
	return fs.SyncDir(parent)
}

func fill(fs durable.FS, r io.Reader, dir string, limits Limits, check func(root *os.Root, names []string) error) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	names, err := extract(fs, r, root, limits)
	if err != nil || check == nil {
		return err
	}
	return check(root, names)
}

// vacant describes a directory, which must be empty; nil where there is none.
func vacant(dir string) (there os.FileInfo, err error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	taken := func(why string) (os.FileInfo, error) {
		return nil, &Error{"", fmt.Sprintf("can't be unpacked into %s, which %s", dir, why), "give another directory"}
	}
	if !info.IsDir() {
		return taken("is there and no directory")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return taken("is not empty")
	}
	return info, nil
}

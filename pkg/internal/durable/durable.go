// Package durable writes files so that they are there whole or not at all, and stay: what is written goes to another name, is synced, renamed, and
// its directory synced. All of the project's own writing goes through an FS, so that a test can make each single step of it fail.
package durable

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Op is a step of writing.
type Op string

// The steps, each of which may be the last that a killed program or a full disk lets happen.
const (
	OpMkdir  Op = "mkdir"
	OpCreate Op = "create"
	OpWrite  Op = "write"
	OpSync   Op = "sync"
	OpClose  Op = "close"
	OpRename Op = "rename"
	OpRemove Op = "remove"
)

// FS writes to the operating system's files. The zero value is what programs use.
type FS struct {
	// Before is asked before each step; where it returns an error, the step fails with it, a write after half of its bytes. nil: nothing fails.
	// It is for tests: one that fails from some step on is a program that was killed there, since nothing after it happens either.
	Before func(op Op, path string) error
}

func (fs FS) before(op Op, path string) error {
	if fs.Before == nil {
		return nil
	}
	if err := fs.Before(op, path); err != nil {
		return &os.PathError{Op: string(op), Path: path, Err: err}
	}
	return nil
}

// MkdirAll makes a directory and its parents.
func (fs FS) MkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := fs.before(OpMkdir, dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

// MkdirTemp makes a directory of its own, as os.MkdirTemp does.
func (fs FS) MkdirTemp(dir, pattern string) (string, error) {
	if err := fs.before(OpMkdir, filepath.Join(dir, pattern)); err != nil {
		return "", err
	}
	return os.MkdirTemp(dir, pattern)
}

// Rename gives a file or directory another name, in place of a file that had it.
func (fs FS) Rename(from, to string) error {
	if err := fs.before(OpRename, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// RemoveAll removes a file or a directory with all that is in it; nothing there is no error.
func (fs FS) RemoveAll(path string) error {
	if err := fs.before(OpRemove, path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// SyncDir makes the names in a directory last.
func (fs FS) SyncDir(dir string) error {
	if err := fs.before(OpSync, dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// File is a file that is being written.
type File struct {
	fs FS
	f  *os.File
}

// Create makes a file; one of that name must not be there.
func (fs FS) Create(path string) (*File, error) {
	if err := fs.before(OpCreate, path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &File{fs, f}, nil
}

// Write implements io.Writer.
func (f *File) Write(data []byte) (int, error) {
	if err := f.fs.before(OpWrite, f.f.Name()); err != nil {
		n, _ := f.f.Write(data[:len(data)/2]) // the torn write that a kill or a full disk leaves
		return n, err
	}
	return f.f.Write(data)
}

// SyncClose makes the content last, and closes the file.
func (f *File) SyncClose() error {
	err := f.fs.before(OpSync, f.f.Name())
	if err == nil {
		err = f.f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Close closes the file; its content may not last.
func (f *File) Close() error {
	err := f.fs.before(OpClose, f.f.Name())
	return errors.Join(err, f.f.Close())
}

// Write makes a new file and syncs it; one of that name must not be there. On an error there may be a part of it: it is for files in a directory that
// is renamed when all are there.
func (fs FS) Write(path string, write func(io.Writer) error) error {
	f, err := fs.Create(path)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(f, 1<<20)
	if err = write(buffered); err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return f.SyncClose()
}

// temporary is the start of the names of files that are being written. What a kill leaves under such a name is litter.
const temporary = ".writing-"

// Temporary tells whether a file's name, without its directory, is of one that Replace was writing.
func Temporary(name string) bool { return strings.HasPrefix(name, temporary) }

// Replace writes a file in place of the one that has the name, if any: whole or not at all. Its directory is made.
func (fs FS) Replace(path string, write func(io.Writer) error) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	if err := fs.MkdirAll(dir); err != nil {
		return err
	}
	if err := fs.before(OpMkdir, path); err != nil {
		return err
	}
	own, err := os.MkdirTemp(dir, temporary) // a name that no other process has
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.RemoveAll(own)) }()
	if err := fs.Write(filepath.Join(own, name), write); err != nil {
		return err
	}
	if err := fs.Rename(filepath.Join(own, name), path); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}

// Append adds data to a file and syncs it; the file and its directory are made. After a last line that was torn, a new line is begun.
func (fs FS) Append(path string, data []byte) error {
	if err := fs.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	if err := fs.before(OpCreate, path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	f := &File{fs, file}
	end, err := file.Seek(0, io.SeekEnd)
	if err == nil && end > 0 {
		last := make([]byte, 1)
		if _, err = file.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			data = append([]byte("\n"), data...)
		}
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.SyncClose(); err != nil {
		return err
	}
	if end == 0 {
		return fs.SyncDir(filepath.Dir(path))
	}
	return nil
}

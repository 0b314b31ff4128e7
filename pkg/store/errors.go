package store

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// FormatError says that a directory is no store that this version can use. Nothing was changed.
type FormatError struct{ Path, Problem, Remedy string }

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: %s; %s", e.Path, e.Problem, e.Remedy)
}

// WriteError says that the store could not write: where, what is missing there, and what to do. What was in the store before is still there.
type WriteError struct {
	Doing, Path     string
	Missing, Remedy string
	Err             error
}

func (e *WriteError) Error() string {
	return fmt.Sprintf("%s: %s at %s (%v); %s", e.Doing, e.Missing, e.Path, e.Err, e.Remedy)
}

func (e *WriteError) Unwrap() error { return e.Err }

// failed makes a *WriteError, and leaves alone what is one already.
func failed(doing, path string, err error) error {
	if known, ok := errors.AsType[*WriteError](err); ok {
		return known
	}
	if place, ok := errors.AsType[*fs.PathError](err); ok {
		path = place.Path
	}
	e := &WriteError{doing, path, "writing failed", "see to the disk and try again", err}
	for _, known := range []struct {
		is              error
		missing, remedy string
	}{
		{syscall.ENOSPC, "no space is left", "make room, or set " + Env + " to a directory on another disk"},
		{syscall.EDQUOT, "the quota is used up", "make room, or set " + Env + " to a directory on another disk"},
		{syscall.EROFS, "the file system is read-only", "mount it for writing, or set " + Env + " to another directory"},
		{syscall.ENOTDIR, "a directory is needed where a file is", "move the file away, or set " + Env + " to another directory"},
		{syscall.ENOLCK, "the file system has no locks", "set " + Env + " to a directory on a local disk"},
		{syscall.ENOTSUP, "the file system can't do what is asked", "set " + Env + " to a directory on a local disk"},
		{fs.ErrPermission, "the permission to write is missing", "give it, or set " + Env + " to a directory that you can write"},
	} {
		if errors.Is(err, known.is) {
			e.Missing, e.Remedy = known.missing, known.remedy
			break
		}
	}
	return e
}

// DamagedError says that a file of the store is not what was written. It was moved aside and is never given out.
type DamagedError struct {
	Path, Problem string
	MovedTo       string // where it lies now; "" where it could not be moved, or is no file of its own
	Remedy        string
}

func (e *DamagedError) Error() string {
	moved := ""
	if e.MovedTo != "" {
		moved = "; it was moved to " + e.MovedTo
	}
	return fmt.Sprintf("%s is damaged: %s%s; %s", e.Path, e.Problem, moved, e.Remedy)
}

// MissingError says that the store has no such object.
type MissingError struct {
	Path   string
	Object Digest
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not in the store; compute or import it again", e.Path)
}

// Is makes errors.Is(err, fs.ErrNotExist) true.
func (e *MissingError) Is(target error) bool { return target == fs.ErrNotExist }

// ArgumentError says that what was given can't be used. Nothing was changed.
type ArgumentError struct{ What, Given, Problem, Remedy string }

func (e *ArgumentError) Error() string {
	return fmt.Sprintf("%s %.200q: %s; %s", e.What, e.Given, e.Problem, e.Remedy)
}

// SaveError says that a result was computed but not saved. It was returned beside this error, and its working directory was kept, so that a next Do
// goes on from there.
type SaveError struct {
	Name, Dir string
	Err       error
}

func (e *SaveError) Error() string {
	return fmt.Sprintf("the result of %s was computed and is returned, but was not saved: %v", e.Name, e.Err)
}

func (e *SaveError) Unwrap() error { return e.Err }

// PanicError says that a function given to Do panicked.
type PanicError struct {
	Name  string
	Value any
	Stack string
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("computing %s panicked: %v\n%s", e.Name, e.Value, e.Stack)
}

func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ImportError says that a file is no export of a store, or not a whole one. Nothing was imported.
type ImportError struct{ Entry, Problem string }

func (e *ImportError) Error() string {
	at := ""
	if e.Entry != "" {
		at = fmt.Sprintf(" at %.200q", e.Entry)
	}
	return fmt.Sprintf("not a whole export of a store%s: %s; have it made or sent again; nothing was imported", at, e.Problem)
}

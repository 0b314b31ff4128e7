package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// disk writes below a directory and remembers what it made, so that it can be undone. Its steps fail where those of durable.FS do, which itself knows
// paths but no os.Root.
type disk struct {
	fs      durable.FS
	root    *os.Root
	made    []string        // files and directories, in order
	touched map[string]bool // directories that got a new name
	buffer  []byte
}

func newDisk(fs durable.FS, root *os.Root) *disk {
	return &disk{fs: fs, root: root, touched: map[string]bool{}}
}

func (d *disk) before(op durable.Op, name string) error {
	if d.fs.Before == nil {
		return nil
	}
	if err := d.fs.Before(op, name); err != nil {
		return &os.PathError{Op: string(op), Path: name, Err: err}
	}
	return nil
}

func (d *disk) did(name string) {
	d.made = append(d.made, name)
	d.touched[path.Dir(name)] = true
}

// mkdir makes a directory whose parent is there. One that is there may stay; a link to one may not.
func (d *disk) mkdir(name string) error {
	if err := d.before(durable.OpMkdir, name); err != nil {
		return err
	}
	err := d.root.Mkdir(name, 0o755)
	if errors.Is(err, fs.ErrExist) {
		info, err := d.root.Lstat(name)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return &Error{name, "is a directory, and something else is there under that name", "unpack into an empty directory"}
		}
		return nil
	}
	if err != nil {
		return err
	}
	d.did(name)
	return nil
}

// write makes a file of the next size bytes of a source, and syncs it.
func (d *disk) write(name string, src io.Reader, size int64) (err error) {
	if err := d.before(durable.OpCreate, name); err != nil {
		return err
	}
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &Error{name, "is there already", "unpack into an empty directory"}
	}
	if err != nil {
		return err
	}
	d.did(name)
	defer func() {
		closed := d.before(durable.OpClose, name)
		err = errors.Join(err, closed, f.Close())
	}()
	if d.buffer == nil {
		d.buffer = make([]byte, 128<<10)
	}
	for size > 0 {
		part := d.buffer[:min(size, int64(len(d.buffer)))]
		if _, err := io.ReadFull(src, part); err != nil {
			return damage(err)
		}
		size -= int64(len(part))
		if err := d.before(durable.OpWrite, name); err != nil {
			_, _ = f.Write(part[:len(part)/2]) // the torn write that a full disk leaves
			return err
		}
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	if err := d.before(durable.OpSync, name); err != nil {
		return err
	}
	return f.Sync()
}

// sync makes the names last.
func (d *disk) sync() error {
	for _, name := range slices.Sorted(maps.Keys(d.touched)) {
		if err := d.before(durable.OpSync, name); err != nil {
			return err
		}
		dir, err := d.root.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
			return err
		}
	}
	return nil
}

// undo removes what was made, and returns the error that it is undone for.
func (d *disk) undo(cause error) error {
	for _, name := range slices.Backward(d.made) {
		err := d.before(durable.OpRemove, name)
		if err == nil {
			err = d.root.Remove(name)
		}
		if err != nil {
			cause = errors.Join(cause, fmt.Errorf("and what was unpacked is still there: %w", err))
		}
	}
	return cause
}

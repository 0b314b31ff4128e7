package checkpoint

import (
	"errors"
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// Background saves while training goes on: Save copies the variables and returns, and another goroutine writes the copy. It is not for use by several
// goroutines at a time.
type Background struct {
	dir     Dir
	buffers map[string][]byte // by path, kept from one save to the next
	pending chan error        // of the save that is going on; nil: none is
}

// Background returns a saver that has saved nothing yet. Finish must be called at the end.
func (d Dir) Background() *Background { return &Background{dir: d, buffers: map[string][]byte{}} }

// Save copies all variables that have a value, and begins to write them. It waits for the save before, and returns that one's error, a *SaveError; then nothing new
// is begun.
func (b *Background) Save(store *model.Store, s State) error {
	if err := b.Finish(); err != nil {
		return err
	}
	content, err := describe(store, func(path string, value *tensors.Tensor) (func(func([]byte) error) error, error) {
		buffer := b.buffers[path]
		err := value.ConstBytes(func(raw []byte) {
			buffer = append(buffer[:0], raw...)
		})
		b.buffers[path] = buffer
		return func(use func([]byte) error) error { return use(buffer) }, err
	})
	if err != nil {
		return &SaveError{b.dir.Path, err}
	}
	b.pending = make(chan error, 1)
	go func(done chan<- error) {
		var err error = &SaveError{b.dir.Path, errors.New("the save ended without a result")}
		defer func() {
			if p := recover(); p != nil {
				err = &SaveError{b.dir.Path, fmt.Errorf("%v", p)}
			}
			done <- err
		}()
		err = b.dir.write(content, s)
	}(b.pending)
	return nil
}

// Finish waits for the save that is going on, if any, and returns its error, a *SaveError.
func (b *Background) Finish() error {
	if b.pending == nil {
		return nil
	}
	err := <-b.pending
	b.pending = nil
	return err
}

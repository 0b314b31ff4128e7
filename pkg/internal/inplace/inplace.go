// Package inplace changes a few elements of a tensor where it lies.
package inplace

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/gomlx/core/tensors"
)

// Change calls a function with the elements of a tensor, which it may change.
//
// It is tensors.MutableFlatData, but for a tensor that lies on a device which shares its memory with the host, as results of XLA on a CPU do: that one copies the tensor
// from there, and the next execution copies it back, where here the device's own memory is changed. For a few elements of a large tensor that is a hundred times faster.
// The tensor must not be in use by an execution.
func Change[T gotype.Supported](t *tensors.Tensor, change func(flat []T)) error {
	data, err := shared(t)
	if err != nil {
		return err
	}
	if data == nil {
		return tensors.MutableFlatData(t, change)
	}
	flat, ok := data.([]T)
	if !ok {
		return fmt.Errorf("the elements of a tensor of shape %s are %T, expected %T", t.Shape(), data, flat)
	}
	change(flat)
	runtime.KeepAlive(t) // which owns the memory
	return nil
}

// Copy copies the elements of a tensor to another of the same shape, as Change would.
func Copy(to, from *tensors.Tensor) error {
	if !to.Shape().Equal(from.Shape()) {
		return fmt.Errorf("elements of shape %s can't be copied to a tensor of shape %s", from.Shape(), to.Shape())
	}
	data, err := shared(to)
	if err != nil {
		return err
	}
	var inner error
	err = from.ConstBytes(func(bytes []byte) {
		if data == nil {
			inner = to.MutableBytes(func(into []byte) { copy(into, bytes) })
		} else {
			copy(dtypes.UnsafeByteSliceFromAny(data), bytes)
		}
	})
	runtime.KeepAlive(to)
	return errors.Join(err, inner)
}

// Near tells whether the elements of a tensor can be read and changed without a copy: they lie on the host, or on a device that shares its memory with the host.
func Near(t *tensors.Tensor) bool {
	if t.IsLocal() {
		return true
	}
	b, err := t.Backend()
	return err == nil && b.HasSharedBuffers()
}

// shared returns the memory of a tensor that lies on a device and nowhere else, if the device shares it; it is a slice of elements.
func shared(t *tensors.Tensor) (data any, err error) {
	if t.IsLocal() || !t.IsOnAnyDevice() {
		return nil, nil
	}
	b, err := t.Backend()
	if err != nil || !b.HasSharedBuffers() {
		return nil, err
	}
	device, err := t.Device()
	if err != nil {
		return nil, err
	}
	buffer, err := t.Buffer(b, device)
	if err != nil {
		return nil, err
	}
	return buffer.Data()
}

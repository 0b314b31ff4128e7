// Package inplace changes a few elements of a tensor where it lies.
package inplace

import (
	"fmt"
	"runtime"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/gomlx/core/tensors"
)

// Change calls a function with the elements of a tensor, which it may change.
//
// It is tensors.MutableFlatData, but for a tensor that lies on a device which shares its memory with the host, as results of XLA on a CPU do: that one copies the tensor
// from there, and the next execution copies it back, where here the device's own memory is changed. For a few elements of a large tensor that is a hundred times faster.
// The tensor must not be in use by an execution.
func Change[T gotype.Supported](t *tensors.Tensor, change func(flat []T)) error {
	if !t.IsLocal() && t.IsOnAnyDevice() {
		b, err := t.Backend()
		if err != nil {
			return err
		}
		if b.HasSharedBuffers() {
			return shared(t, b, change)
		}
	}
	return tensors.MutableFlatData(t, change)
}

func shared[T gotype.Supported](t *tensors.Tensor, b compute.Backend, change func(flat []T)) error {
	device, err := t.Device()
	if err != nil {
		return err
	}
	buffer, err := t.Buffer(b, device)
	if err != nil {
		return err
	}
	data, err := buffer.Data()
	if err != nil {
		return err
	}
	flat, ok := data.([]T)
	if !ok {
		return fmt.Errorf("the elements of a tensor of shape %s are %T, expected %T", t.Shape(), data, flat)
	}
	change(flat)
	runtime.KeepAlive(t) // which owns the memory
	return nil
}

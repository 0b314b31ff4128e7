// Package labels looks at labels that are numbers of logits.
package labels

import (
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
)

// Outside returns the place and the value of the first label that is the number of none of so many logits, −1 for the place if there is none. GoMLX's loss takes such a label for an
// example without a class, and learns nothing of it. Labels that are no integers are not looked at; the value of
// one of 2^63 or more is what int64 makes of it.
func Outside(of *tensors.Tensor, logits int) (at int, label int64, err error) {
	at = -1
	err = of.ConstFlatData(func(flat any) {
		switch all := flat.(type) {
		case []int8:
			at, label = first(all, logits)
		case []int16:
			at, label = first(all, logits)
		case []int32:
			at, label = first(all, logits)
		case []int64:
			at, label = first(all, logits)
		case []uint8:
			at, label = first(all, logits)
		case []uint16:
			at, label = first(all, logits)
		case []uint32:
			at, label = first(all, logits)
		case []uint64:
			at, label = first(all, logits)
		}
	})
	return at, label, err
}

func first[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64](labels []T, logits int) (at int, label int64) {
	// As an unsigned number a negative one is larger than any number of logits.
	if at = slices.IndexFunc(labels, func(l T) bool { return uint64(l) >= uint64(logits) }); at >= 0 {
		label = int64(labels[at])
	}
	return at, label
}

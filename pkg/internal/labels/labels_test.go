package labels

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
)

func TestOutside(t *testing.T) {
	for _, test := range []struct {
		name   string
		labels *tensors.Tensor
		at     int
		label  int64
	}{
		{"all are there", tensors.FromValue([]int32{0, 2, 1}), -1, 0},
		{"one too many", tensors.FromValue([]int32{0, 3, 4}), 1, 3},
		{"below 0", tensors.FromValue([]int64{0, 1, -1}), 2, -1},
		{"a column of bytes", tensors.FromValue([][]uint8{{2}, {255}}), 1, 255},
		{"short ones", tensors.FromValue([]int16{2, 3}), 1, 3},
		{"single bytes with a sign", tensors.FromValue([]int8{0, -1}), 1, -1},
		{"short ones without a sign", tensors.FromValue([]uint16{3}), 0, 3},
		{"words without a sign", tensors.FromValue([]uint32{1, 4}), 1, 4},
		{"long ones without a sign", tensors.FromValue([]uint64{2, 5}), 1, 5},
		{"longer than with a sign", tensors.FromValue([]uint64{2, 1 << 63}), 1, math.MinInt64},
		{"no integers", tensors.FromValue([]float32{7}), -1, 0},
	} {
		at, label, err := Outside(test.labels, 3)
		if err != nil {
			t.Fatal(err)
		}
		if at != test.at || label != test.label {
			t.Errorf("%s: place %d, label %d; want %d, %d", test.name, at, label, test.at, test.label)
		}
	}
}

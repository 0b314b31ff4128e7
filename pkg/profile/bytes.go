package profile

import (
	"compress/gzip"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"
)

// csrBytes is the size of a variable, of which n elements are alive, as compressed sparse rows: the values and, in 32 bits each, their columns and where the rows begin. A row
// is what leads to one output, the last axis. What has less than two axes stays dense.
func csrBytes(shape shapes.Shape, n int64) int64 {
	if shape.Rank() < 2 || shape.DType.IsPacked() {
		return int64(shape.ByteSize())
	}
	const index = 4
	return n*(int64(shape.DType.Size())+index) + index*int64(shape.Dim(-1)+1)
}

// gzipBytes is the size of a variable after gzip, with zeros where keep is false.
func gzipBytes(v *model.Variable, keep []bool) (int64, error) {
	value, err := v.Value()
	if err != nil {
		return 0, err
	}
	var n counting
	z := gzip.NewWriter(&n)
	err = value.ConstBytes(func(data []byte) {
		size := len(data) / max(1, v.Shape().Size())
		if keep == nil || size == 0 {
			z.Write(data)
			return
		}
		zeros := make([]byte, size)
		for i, k := range keep { // gzip has a buffer of its own
			if k {
				z.Write(data[i*size : (i+1)*size])
			} else {
				z.Write(zeros)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	return int64(n), z.Close()
}

// counting counts what is written to it.
type counting int64

func (n *counting) Write(p []byte) (int, error) {
	*n += counting(len(p))
	return len(p), nil
}

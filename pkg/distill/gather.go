package distill

import (
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
)

// gatherer makes batches of a data set in memory, for those who read it batch by batch: signals, for instance.
type gatherer struct {
	backend compute.Backend
	from    *cached

	sync.Mutex
	exec *graph.Exec
}

// gather returns the examples of the indices, decoded, and their labels, on the host.
func (r *gatherer) gather(indices []int32) (batch train.Batch, err error) {
	r.Lock()
	defer r.Unlock()
	err = guard.Run(r.from.Name(), func() error {
		if r.exec == nil {
			var err error
			if r.exec, err = graph.NewExec(r.backend, func(x *graph.Node) *graph.Node {
				defer guard.Building()
				return r.from.Decode(x)
			}); err != nil {
				return err
			}
			r.exec.SetMaxCache(-1)
		}
		all, labels := r.from.Arrays()
		x, err := pick(all, indices)
		if err != nil {
			return err
		}
		y, err := pick(labels, indices)
		if err != nil {
			return err
		}
		if x, err = r.exec.Call1(x); err != nil {
			return err
		}
		if err := x.ToLocal(); err != nil {
			return err
		}
		batch.Inputs, batch.Labels = []*tensors.Tensor{x}, []*tensors.Tensor{y}
		return nil
	})
	return batch, err
}

// pick copies rows: [n, …] -> [len(indices), …].
func pick(all *tensors.Tensor, indices []int32) (*tensors.Tensor, error) {
	shape := all.Shape().Clone()
	n := shape.Dimensions[0]
	shape.Dimensions[0] = len(indices)
	part := tensors.FromShape(shape)
	var inner error
	err := all.ConstBytes(func(data []byte) {
		row := len(data) / n
		inner = part.MutableBytes(func(into []byte) {
			for i, at := range indices {
				copy(into[i*row:(i+1)*row], data[int(at)*row:])
			}
		})
	})
	return part, firstOf(err, inner)
}

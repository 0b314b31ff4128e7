// Package mask keeps what is alive: a Boolean variable for each parameter, in the same store, so that masks travel with checkpoints.
package mask

import (
	"bytes"
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Scope is where masks lie: the mask of "/fc1/weights" is "/pruning/mask/fc1/weights".
const Scope = "/pruning/mask"

// Path returns the path of a parameter's mask.
func Path(p params.Param) string { return Scope + p.Path }

// Variable returns the mask of a parameter, made all alive if it is not there yet. It is marked as not trainable each time, because
// GoMLX's checkpoints forget that.
func Variable(store *model.Store, p params.Param) (*model.Variable, error) {
	v := store.GetVariable(Path(p))
	if v == nil {
		var err error
		if v, err = store.CreateVariable(Path(p), tensors.FromScalarAndDimensions(true, p.Shape.Dimensions...)); err != nil {
			return nil, fmt.Errorf("mask of %s: %w", p.Path, err)
		}
	}
	v.SetTrainable(false)
	if want := shapes.Make(dtypes.Bool, p.Shape.Dimensions...); !v.Shape().Equal(want) {
		return nil, &ShapeError{Path: p.Path, Want: want.String(), Got: v.Shape().String()}
	}
	return v, nil
}

// ShapeError says that a mask does not fit its parameter.
type ShapeError struct{ Path, Want, Got string }

func (e *ShapeError) Error() string {
	return fmt.Sprintf("the mask of %s has shape %s, expected %s: it belongs to another network", e.Path, e.Got, e.Want)
}

// Apply returns the weights with the dead ones zero. Unlike w·mask it lets no NaN or −0 survive.
func Apply(w, keep *graph.Node) *graph.Node { return graph.Where(keep, w, graph.ZerosLike(w)) }

// Stats counts a parameter's weights.
type Stats struct {
	Path       string
	Kept, Size int
}

// Sparsity returns the share of dead weights over all parameters; 0 if there are none.
func Sparsity(stats []Stats) float64 {
	kept, size := 0, 0
	for _, s := range stats {
		kept, size = kept+s.Kept, size+s.Size
	}
	if size == 0 {
		return 0
	}
	return 1 - float64(kept)/float64(size)
}

// Count counts the living weights of each parameter. A parameter without a mask is all alive.
func Count(store *model.Store, set params.Set) ([]Stats, error) {
	stats := make([]Stats, len(set))
	for i, p := range set {
		stats[i] = Stats{Path: p.Path, Kept: p.Size(), Size: p.Size()}
		if store.GetVariable(Path(p)) == nil {
			continue
		}
		v, err := Variable(store, p)
		if err != nil {
			return nil, err
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		// The bytes, each 0 or 1, are counted several times faster than Booleans.
		if err := value.ConstBytes(func(alive []byte) { stats[i].Kept = bytes.Count(alive, []byte{1}) }); err != nil {
			return nil, err
		}
	}
	return stats, nil
}

// Bools returns a copy of a parameter's mask in row-major order; all true if it has none.
func Bools(store *model.Store, p params.Param) ([]bool, error) {
	if store.GetVariable(Path(p)) == nil {
		alive := make([]bool, p.Size())
		for i := range alive {
			alive[i] = true
		}
		return alive, nil
	}
	v, err := Variable(store, p)
	if err != nil {
		return nil, err
	}
	value, err := v.Value()
	if err != nil {
		return nil, err
	}
	return tensors.CopyFlatData[bool](value)
}

// Set sets a parameter's mask, in row-major order.
func Set(store *model.Store, p params.Param, alive []bool) error {
	if len(alive) != p.Size() {
		return &ShapeError{Path: p.Path, Want: fmt.Sprintf("%d values", p.Size()), Got: fmt.Sprintf("%d values", len(alive))}
	}
	v, err := Variable(store, p)
	if err != nil {
		return err
	}
	return v.SetValue(tensors.FromFlatDataAndDimensions(alive, p.Shape.Dimensions...))
}

// Difference compares two masks.
type Difference struct {
	Hamming int     // positions that differ
	Jaccard float64 // |a ∧ b| / |a ∨ b|; 1 if both are all dead
}

// Diff compares two masks of the same length, which it panics about otherwise.
func Diff(a, b []bool) Difference {
	if len(a) != len(b) {
		panic(fmt.Sprintf("mask.Diff: lengths %d and %d", len(a), len(b)))
	}
	var d Difference
	both, either := 0, 0
	for i := range a {
		if a[i] != b[i] {
			d.Hamming++
		}
		if a[i] && b[i] {
			both++
		}
		if a[i] || b[i] {
			either++
		}
	}
	d.Jaccard = 1
	if either > 0 {
		d.Jaccard = float64(both) / float64(either)
	}
	return d
}

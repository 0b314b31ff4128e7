package reconstruct

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
)

// Weights returns a copy of a parameter's weights as the matrix that this package works on, [spatial… · in, out].
//
// Errors: *Error if the store has no such parameter in float32, or if its axes are not […, in, out].
func Weights(store *model.Store, p params.Param) (w []float32, in, out int, err error) {
	const method = "Weights"
	if in, out, err = matrix(method, p); err != nil {
		return nil, 0, 0, err
	}
	v, err := variable(method, store, p)
	if err != nil {
		return nil, 0, 0, err
	}
	value, err := v.Value()
	if err != nil {
		return nil, 0, 0, err
	}
	w, err = tensors.CopyFlatData[float32](value)
	return w, in, out, err
}

// Apply puts a result into a store: the weights of the parameter and its mask, both or neither. An optimizer's state is not its business: wrap the optimizer
// by prune.Pruner.Optimizer, as always.
//
// Errors: *Error if the result does not fit the parameter, is not finite, has a dead weight that is not 0, or revives one that the mask in the store has as
// dead: masks only shrink. Nothing was changed then.
func Apply(store *model.Store, p params.Param, r Result) error {
	const method = "Apply"
	v, err := variable(method, store, p)
	if err != nil {
		return err
	}
	n := p.Size()
	if len(r.Weights) != n || len(r.Alive) != n {
		return &Error{method, fmt.Sprintf("%d weights and as long a mask for %s", n, p.Path), fmt.Sprintf("%d and %d", len(r.Weights), len(r.Alive)),
			"apply the result to the parameter that it was made from"}
	}
	if err := finite(method, "weights", r.Weights); err != nil {
		return err
	}
	before, err := mask.Bools(store, p)
	if err != nil {
		return err
	}
	for i, alive := range r.Alive {
		switch {
		case !alive && math.Float32bits(r.Weights[i]) != 0:
			return &Error{method, "dead weights of 0", fmt.Sprintf("%v at index %d", r.Weights[i], i), "leave the result as it was returned"}
		case alive && !before[i]:
			return &Error{method, "a mask that only shrinks", fmt.Sprintf("weight %d of %s alive again", i, p.Path), "give the mask so far as Alive, as OBS and SparseGPT take it; least squares takes none"}
		}
	}
	had := store.GetVariable(mask.Path(p)) != nil
	if err := mask.Set(store, p, r.Alive); err != nil {
		return err
	}
	err = v.SetValue(tensors.FromFlatDataAndDimensions(r.Weights, p.Shape.Dimensions...))
	if err == nil {
		return nil
	}
	undo := func() error {
		if had {
			return mask.Set(store, p, before)
		}
		return store.DeleteVariable(mask.Path(p))
	}
	if failed := undo(); failed != nil {
		return fmt.Errorf("%w; and its mask was left changed: %v", err, failed)
	}
	return err
}

// variable returns a parameter's variable.
func variable(method string, store *model.Store, p params.Param) (*model.Variable, error) {
	if store == nil {
		return nil, &Error{method, "a store", "none", "give the network's store"}
	}
	v := store.GetVariable(p.Path)
	if v == nil {
		return nil, &Error{method, fmt.Sprintf("a store with %s", p.Path), "one without", "select the parameters of this store: params.Select"}
	}
	if !v.HasValue() || v.DType() != dtypes.Float32 || !v.Shape().Equal(p.Shape) {
		return nil, &Error{method, fmt.Sprintf("%s with a value in float32, of shape %s", p.Path, p.Shape), v.Shape().String(),
			"initialize the network, and select its parameters anew: params.Select"}
	}
	return v, nil
}

// matrix returns the sizes of a parameter taken as a matrix.
func matrix(method string, p params.Param) (in, out int, err error) {
	rank := p.Shape.Rank()
	if rank < 2 || p.Out != rank-1 || p.In != rank-2 {
		return 0, 0, &Error{method, fmt.Sprintf("%s as [spatial…, in, out]", p.Path), fmt.Sprintf("in on axis %d and out on axis %d of %d", p.In, p.Out, rank),
			"reconstruct dense layers and convolutions"}
	}
	out = p.Shape.Dimensions[p.Out]
	if out == 0 {
		return 0, 0, &Error{method, "a parameter of some weights", "none", "leave it out"}
	}
	return p.Size() / out, out, nil
}

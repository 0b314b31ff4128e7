package sparsetrain

import (
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/inplace"
	"github.com/espalier-ml/espalier/pkg/params"
)

// Where optimizers keep their moments: experiment.SGD its velocity, GoMLX's Adam its first and second.
func velocityPath(p params.Param) string { return "/optimizers/velocity" + p.Path }
func firstPath(p params.Param) string    { return "/AdamOptimizer" + p.Path + "_1st_moment" }
func secondPath(p params.Param) string   { return "/AdamOptimizer" + p.Path + "_2nd_moment" }

// momentPaths lists all of them.
func momentPaths(p params.Param) []string {
	return []string{velocityPath(p), firstPath(p), secondPath(p)}
}

// momentum returns what the optimizer remembers of the gradients of a parameter, in the room of an earlier answer, or a *MomentumError.
func momentum(store *model.Store, update string, p params.Param, into []float32) ([]float32, error) {
	read := func(path string, see func(moments []float32)) (bool, error) {
		v := store.GetVariable(path)
		if v == nil || !v.HasValue() {
			return false, nil
		}
		if v.DType() != dtypes.Float32 || v.Shape().Size() != p.Size() {
			return false, &MomentumError{update, p.Path, "it has the shape " + v.Shape().String(), "train with moments in float32, of the shape of the weights"}
		}
		value, err := v.Value()
		if err != nil {
			return false, err
		}
		return true, tensors.ConstFlatData(value, see)
	}
	into = room(&into, p.Size())
	if found, err := read(velocityPath(p), func(velocity []float32) { copy(into, velocity) }); found || err != nil {
		return into, err
	}
	first, err := read(firstPath(p), func(m []float32) { copy(into, m) })
	if err != nil {
		return nil, err
	}
	second, err := read(secondPath(p), func(v []float32) {
		for i, m := range into {
			into[i] = float32(float64(m) / (math.Sqrt(float64(v[i])) + 1e-8))
		}
	})
	if err != nil {
		return nil, err
	}
	if !first || !second {
		return nil, &MomentumError{update, p.Path, "the store has none", "train with Adam or with experiment.SGD{Momentum: 0.9}, or take an update that reads none, such as SET or RigL"}
	}
	return into, nil
}

// reset makes the moments of weights at some places zero, and notes how they are set back.
func reset(store *model.Store, p params.Param, changed *undo, places ...[]int32) error {
	for _, path := range momentPaths(p) {
		v := store.GetVariable(path)
		if v == nil || !v.HasValue() || v.DType() != dtypes.Float32 || v.Shape().Size() != p.Size() {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return err
		}
		all := slices.Concat(places...)
		before := make([]float32, len(all))
		if err := inplace.Change(value, func(moments []float32) {
			for j, i := range all { // a place may be there twice
				before[j] = moments[i]
			}
			for _, i := range all {
				moments[i] = 0
			}
		}); err != nil {
			return err
		}
		*changed = append(*changed, func() error {
			return inplace.Change(value, func(moments []float32) {
				for j, i := range all {
					moments[i] = before[j]
				}
			})
		})
	}
	return nil
}

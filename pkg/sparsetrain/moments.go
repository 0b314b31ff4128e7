package sparsetrain

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

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

// momentum returns what the optimizer remembers of the gradients of a parameter, or a *MomentumError.
func momentum(store *model.Store, update string, p params.Param) ([]float32, error) {
	read := func(path string) ([]float32, error) {
		v := store.GetVariable(path)
		if v == nil || !v.HasValue() {
			return nil, nil
		}
		if v.DType() != dtypes.Float32 || v.Shape().Size() != p.Size() {
			return nil, &MomentumError{update, p.Path, "it has the shape " + v.Shape().String(), "train with moments in float32, of the shape of the weights"}
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		return tensors.CopyFlatData[float32](value)
	}
	if velocity, err := read(velocityPath(p)); err != nil || velocity != nil {
		return velocity, err
	}
	first, err := read(firstPath(p))
	if err != nil {
		return nil, err
	}
	second, err := read(secondPath(p))
	if err != nil {
		return nil, err
	}
	if first == nil || second == nil {
		return nil, &MomentumError{update, p.Path, "the store has none", "train with Adam or with experiment.SGD{Momentum: 0.9}, or take an update that reads none, such as SET or RigL"}
	}
	for i, m := range first {
		first[i] = float32(float64(m) / (math.Sqrt(float64(second[i])) + 1e-8))
	}
	return first, nil
}

// reset makes the moments of some weights zero.
func reset(store *model.Store, p params.Param, which func(i int) bool) error {
	for _, path := range momentPaths(p) {
		v := store.GetVariable(path)
		if v == nil || !v.HasValue() || v.DType() != dtypes.Float32 || v.Shape().Size() != p.Size() {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return err
		}
		if err := value.MutableFlatData(func(flat any) {
			for i, moments := 0, flat.([]float32); i < len(moments); i++ {
				if which(i) {
					moments[i] = 0
				}
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

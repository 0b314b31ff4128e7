package surgery

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// largestShadow is up to how many bytes the values of variables are there for a model function that looks at them while it builds.
const largestShadow = 4096

// shadowOf returns a store for recording the original model function again: with the variables of a store that was cut, in their shapes from before. It has no values of
// what was cut or is large, so that the original network does not have to be kept.
func shadowOf(store *model.Store, dims map[string][]int) (*model.Store, error) {
	shadow := model.NewStore()
	for path, value := range store.IterParams() {
		shadow.SetParam(path, value)
	}
	for v := range store.IterVariables() {
		before, wasCut := dims[v.Path()]
		if !wasCut && v.HasValue() && v.Shape().ByteSize() <= largestShadow {
			value, err := v.Value()
			if err != nil {
				return nil, err
			}
			if value, err = value.LocalClone(); err != nil {
				return nil, err
			}
			made, err := shadow.CreateVariable(v.Path(), value)
			if err != nil {
				return nil, err
			}
			made.SetTrainable(v.Trainable)
			continue
		}
		shape := v.Shape()
		if wasCut {
			shape = shapes.Make(v.DType(), before...)
		}
		if shape.Rank() != v.Shape().Rank() {
			return nil, &ValueError{v.Path(), fmt.Sprintf("has the shape %s, the plan is for %s", v.Shape(), shape), "give the store that the plan's network was cut to"}
		}
		shadow.VariableWithShape(v.Path(), shape, graph.Zeros).SetTrainable(v.Trainable)
	}
	return shadow, nil
}

// below returns a store with the variables of a scope, at paths as if the scope were the root. They must not be set or finalised. The root's is the store itself.
func below(store *model.Store, scope string) *model.Store {
	if scope == model.RootScopePath {
		return store
	}
	part := model.NewStore()
	for path, value := range store.IterParams() {
		part.SetParam(strings.TrimPrefix(path, scope), value)
	}
	for v := range store.IterVariables() {
		if path, inside := strings.CutPrefix(v.Path(), scope+model.ScopeSeparator); inside {
			path = model.ScopeSeparator + path
			if v.HasValue() {
				if value, err := v.Value(); err == nil {
					if made, err := part.CreateVariable(path, value); err == nil {
						made.SetTrainable(v.Trainable)
						continue
					}
				}
			}
			part.VariableWithShape(path, v.Shape(), graph.Zeros).SetTrainable(v.Trainable)
		}
	}
	return part
}

// created is a variable that a model function made.
type created struct {
	value     *tensors.Tensor
	trainable bool
}

// createdValues returns first values of the variables that a model function made while it was recorded, in the shapes that are left of them: as its own initialisers give them for
// these shapes, or what stays of values that it gives itself.
func createdValues(b compute.Backend, store *model.Store, before map[string]bool, removed map[string]map[int][]int) (map[string]created, error) {
	var made []*model.Variable
	for v := range store.IterVariables() {
		if !before[v.Path()] {
			made = append(made, v)
		}
	}
	if len(made) == 0 {
		return nil, nil
	}
	for path := range before { // they have nothing to be initialised with, and need not be
		if err := store.DeleteVariable(path); err != nil {
			return nil, err
		}
	}
	for _, v := range made {
		c := removed[v.Path()]
		if c == nil {
			continue
		}
		small := tensors.FromShape(smaller(v.Shape(), c))
		if !v.HasValue() { // it takes over the shape of a value, and keeps it without
			if err := errors.Join(v.SetValue(small), v.Reset()); err != nil {
				return nil, err
			}
			continue
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		if small, err = cut(value, c, false); err != nil {
			return nil, err
		}
		if err := v.SetValue(small); err != nil {
			return nil, err
		}
	}
	if err := store.InitializeVariables(b, nil); err != nil {
		return nil, err
	}
	all := map[string]created{}
	for _, v := range made {
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		if value, err = value.LocalClone(); err != nil {
			return nil, err
		}
		all[v.Path()] = created{value, v.Trainable}
	}
	return all, nil
}

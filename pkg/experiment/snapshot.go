package experiment

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/mask"
)

// Values holds copies of a store's variables by path: where a run can start from again, any number of times.
type Values map[string]*tensors.Tensor

// Snapshot copies the values of all variables of a store. GoMLX frees a variable's old value at each step, so the copies are deep.
func Snapshot(store *model.Store) (Values, error) {
	return snapshot(store, func(*model.Variable) bool { return true })
}

// network is Snapshot without what belongs to the optimizer.
func (tr *Trainer) network() (Values, error) {
	return snapshot(tr.store, func(v *model.Variable) bool { return tr.step.owned[v] == nil })
}

func snapshot(store *model.Store, wanted func(*model.Variable) bool) (Values, error) {
	values := Values{}
	for v := range store.IterVariables() {
		if !v.HasValue() || !wanted(v) {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return nil, fmt.Errorf("snapshot of %q: %w", v.Path(), err)
		}
		copied, err := value.LocalClone()
		if err != nil {
			return nil, fmt.Errorf("snapshot of %q: %w", v.Path(), err)
		}
		values[v.Path()] = copied
	}
	return values, nil
}

// Restore sets the store's variables to the values, which it copies. What pruning keeps and the values lack, because it was made since, becomes as it is before pruning:
// masks are set to all alive, the count of random rounds and what criteria track to zero. Other variables that the values lack are left: they belong to optimizers, and Train starts those afresh. Values for a variable
// that the store lacks, or of another shape, are a *MismatchError, and nothing is changed.
func Restore(store *model.Store, values Values) error {
	var problems []string
	for path, value := range values {
		v := store.GetVariable(path)
		switch {
		case v == nil:
			problems = append(problems, fmt.Sprintf("%s: given %s, the network has no such variable", path, value.Shape()))
		case !v.Shape().Equal(value.Shape()):
			problems = append(problems, fmt.Sprintf("%s: given %s, the network has %s", path, value.Shape(), v.Shape()))
		}
	}
	if len(problems) > 0 {
		return &MismatchError{Problems: slices.Sorted(slices.Values(problems))}
	}
	for v := range store.IterVariables() {
		value, found := values[v.Path()]
		if !found {
			switch {
			case strings.HasPrefix(v.Path(), mask.Scope):
				value = tensors.FromScalarAndDimensions(true, v.Shape().Dimensions...)
			case strings.HasPrefix(v.Path(), "/pruning/"):
				value = tensors.FromShape(v.Shape())
			default:
				continue
			}
		}
		copied, err := value.LocalClone()
		if err != nil {
			return fmt.Errorf("restore %q: %w", v.Path(), err)
		}
		if err := v.SetValue(copied); err != nil {
			return fmt.Errorf("restore %q: %w", v.Path(), err)
		}
	}
	return nil
}

package sensitivity

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/ml/model"
)

// ours is where pruning keeps masks, and the count of its random draws.
const ours = "/pruning/"

// memory holds the values of all variables of a store, the state of random numbers too, so that each point of a scan starts from the same.
type memory struct {
	store  *model.Store
	values map[string]value
}

type value struct {
	data      []byte // nil: it had none
	trainable bool
}

func remember(store *model.Store) (*memory, error) {
	m := &memory{store, map[string]value{}}
	for v := range store.IterVariables() {
		was := value{trainable: v.Trainable}
		if v.HasValue() {
			tensor, err := v.Value()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", v.Path(), err)
			}
			if err := tensor.ConstBytes(func(data []byte) { was.data = append([]byte{}, data...) }); err != nil {
				return nil, fmt.Errorf("%s: %w", v.Path(), err)
			}
		}
		m.values[v.Path()] = was
	}
	return m, nil
}

// restore sets what has changed back, in place, so that what is the same does not have to travel to the device again. Variables that are new are left: Evaluate's
// executables may use them; but masks among them live again, and counts start again.
func (m *memory) restore() error {
	var errs []error
	for v := range m.store.IterVariables() {
		if err := m.reset(v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v.Path(), err))
		}
	}
	return errors.Join(errs...)
}

func (m *memory) reset(v *model.Variable) error {
	was, known := m.values[v.Path()]
	if !known && !strings.HasPrefix(v.Path(), ours) || !v.HasValue() || known && was.data == nil {
		return nil
	}
	tensor, err := v.Value()
	if err != nil {
		return err
	}
	if !known {
		fill := byte(0)
		if v.DType() == dtypes.Bool { // a mask
			fill = 1
		}
		was.data = bytes.Repeat([]byte{fill}, int(tensor.Shape().ByteSize()))
	}
	same, fits := false, false
	if err := tensor.ConstBytes(func(data []byte) { same, fits = bytes.Equal(data, was.data), len(data) == len(was.data) }); err != nil || same {
		return err
	}
	if !fits {
		return errors.New("its shape has changed, so that its value can't be set back")
	}
	return tensor.MutableBytes(func(data []byte) { copy(data, was.data) })
}

// forget restores, and deletes the variables that pruning made.
func (m *memory) forget() error {
	errs := []error{m.restore()}
	var made []string
	for v := range m.store.IterVariables() {
		if was, known := m.values[v.Path()]; known {
			v.SetTrainable(was.trainable)
		} else if strings.HasPrefix(v.Path(), ours) {
			made = append(made, v.Path())
		}
	}
	for _, path := range made {
		errs = append(errs, m.store.DeleteVariable(path))
	}
	return errors.Join(errs...)
}

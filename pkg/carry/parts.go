package carry

import (
	"fmt"
	"reflect"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// Code says how values of a type that hold functions are written, and read again. Its fields are those of kernelext/survive.Code.
type Code struct {
	Type      reflect.Type
	Marshal   func(pointer any) ([]byte, error)
	Unmarshal func(data []byte, pointer any) error
}

// Codes lists the parts of recipes. They are functions, which can't be kept; but those of the library have names.
func Codes() []Code { return []Code{criteria.code(), units.code(), budgets.code(), normalizes.code()} }

// parts are the library's values of a type.
type parts[T any] struct {
	what   string // in words
	name   func(T) string
	byName func(name string) (T, bool)
}

var (
	criteria = parts[criterion.Criterion]{"criterion", func(c criterion.Criterion) string { return c.Name }, criterion.ByName}
	units    = parts[unit.Unit]{"unit", func(u unit.Unit) string { return u.Name }, unit.ByName}
	budgets  = parts[budget.Budget]{"budget", func(b budget.Budget) string { return b.Name }, budget.ByName}

	normalizes = parts[criterion.Normalize]{"normalisation", func(n criterion.Normalize) string { return n.Name }, func(name string) (criterion.Normalize, bool) {
		for _, n := range []criterion.Normalize{criterion.ByL2, criterion.ByMean, criterion.ByLAMP} {
			if n.Name == name {
				return n, true
			}
		}
		return criterion.Normalize{}, false
	}}
)

func (p parts[T]) find(name string) (T, error) {
	v, found := p.byName(name)
	if !found {
		return v, fmt.Errorf("%s %q is not one of this library's", p.what, name)
	}
	return v, nil
}

// nameOf returns the name of a value that is the library's, as it is there: one's own may have the same name.
func nameOf[T any](p parts[T], value T) (string, error) {
	name := p.name(value)
	v, err := p.find(name)
	if err == nil && !same(reflect.ValueOf(v), reflect.ValueOf(value)) {
		err = fmt.Errorf("%s %q is not the one that this library has under the name", p.what, name)
	}
	return name, err
}

func (p parts[T]) code() Code {
	return Code{
		Type: reflect.TypeFor[T](),
		Marshal: func(pointer any) ([]byte, error) {
			name, err := nameOf(p, *pointer.(*T))
			return []byte(name), err
		},
		Unmarshal: func(data []byte, pointer any) (err error) {
			*pointer.(*T), err = p.find(string(data))
			return err
		},
	}
}

// same tells whether two values are equal, functions by where they stand in the source.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Func:
		return a.Pointer() == b.Pointer()
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	return a.Equal(b)
}

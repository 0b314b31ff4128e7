package trace

import (
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"

	"github.com/gomlx/compute"
)

// Attributes are the arguments of an operation that are not values, by name. Slices are copies: nobody else changes them.
//
// The getters return the zero value where there is no attribute of the name, as for strides that were left out; they panic if it is of another type, which is a mistake of
// the caller.
type Attributes map[string]any

// Ints is an attribute such as the axes of a reduction.
func (a Attributes) Ints(name string) []int { return get[[]int](a, name) }

// Int is an attribute such as the axis of a concatenation.
func (a Attributes) Int(name string) int { return get[int](a, name) }

// Bool is an attribute such as indicesAreSorted.
func (a Attributes) Bool(name string) bool { return get[bool](a, name) }

// String is the attribute name of a Parameter.
func (a Attributes) String(name string) string { return get[string](a, name) }

// Float32 is the attribute epsilon of a batch normalisation.
func (a Attributes) Float32(name string) float32 { return get[float32](a, name) }

// Paddings is an attribute [axes][2]: how much is added before and behind.
func (a Attributes) Paddings(name string) [][2]int { return get[[][2]int](a, name) }

// PadAxes is the attribute axesConfig of a Pad.
func (a Attributes) PadAxes(name string) []compute.PadAxis { return get[[]compute.PadAxis](a, name) }

// ConvolveAxes is the attribute axes of a ConvGeneral.
func (a Attributes) ConvolveAxes(name string) compute.ConvolveAxesConfig {
	return get[compute.ConvolveAxesConfig](a, name)
}

func get[T any](a Attributes, name string) (value T) {
	if x, found := a[name]; found && x != nil {
		return x.(T)
	}
	return value
}

// write writes the attributes in the order of their names. Large constants are written whole: they are part of what is computed.
func (a Attributes) write(w io.Writer) {
	for i, name := range slices.Sorted(maps.Keys(a)) {
		if i > 0 {
			io.WriteString(w, " ")
		}
		fmt.Fprintf(w, "%s=%+v", name, a[name])
	}
}

// copied returns a copy of what a caller could change afterwards.
func copied(x any) any {
	v := reflect.ValueOf(x)
	if v.Kind() != reflect.Slice || v.IsNil() {
		return x
	}
	c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	reflect.Copy(c, v)
	return c.Interface()
}

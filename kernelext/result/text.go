package result

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxElements = 200 // of a slice, array or map that is written whole
	someOf      = 10  // of a longer one
	maxText     = 64 << 10
)

// Text is a value as a reader wants to see it: strings in quotes, long slices and maps by their beginning and their length.
func Text(v any) string {
	var text string
	switch v := v.(type) {
	case nil:
		text = "nil"
	case tensor:
		text = tensorText(v)
	case error:
		text = fmt.Sprint(v)
	case fmt.Stringer:
		text = fmt.Sprint(v) // which survives a nil pointer
	case string:
		if text = v; !strings.Contains(v, "\n") {
			text = strconv.Quote(v)
		}
	default:
		text = compound(reflect.ValueOf(v))
	}
	text = strings.TrimRight(text, "\n")
	if len(text) > maxText {
		cut := maxText
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = fmt.Sprintf("%s …\n(the first %d of %d bytes)", text[:cut], cut, len(text))
	}
	return text
}

func compound(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		if n := v.Len(); n > maxElements {
			return fmt.Sprintf("%s … (%d elements of %s)", strings.TrimSuffix(fmt.Sprintf("%+v", v.Slice(0, someOf).Interface()), "]"), n, v.Type().Elem())
		}
	case reflect.Map:
		if n := v.Len(); n > maxElements {
			var some []string
			for iter := v.MapRange(); len(some) < someOf && iter.Next(); {
				some = append(some, fmt.Sprintf("%v:%+v", iter.Key(), iter.Value()))
			}
			return fmt.Sprintf("map[%s … (%d elements of %s)", strings.Join(some, " "), n, v.Type())
		}
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		if v.IsNil() {
			return "<nil>"
		}
		return v.Type().String()
	}
	return fmt.Sprintf("%+v", v.Interface())
}

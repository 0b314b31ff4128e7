package result

import (
	"fmt"
	"reflect"
)

// tensor is what a GoMLX tensor has.
type tensor interface {
	Size() int
	Value() any
	Summary(precision int) string
	MustConstFlatData(func(flat any))
}

// tensorText presents a tensor: its shape, the range of its values and how many of them are zero, and the values themselves, of a large one some.
func tensorText(t tensor) string {
	head := fmt.Sprintf("%T", t)
	if shape := reflect.ValueOf(t).MethodByName("Shape"); shape.IsValid() && shape.Type().NumIn() == 0 && shape.Type().NumOut() == 1 {
		head = fmt.Sprint(shape.Call(nil)[0].Interface())
	}
	if t.Size() > maxElements {
		return head + described(t) + "\n" + t.Summary(4)
	}
	return head + described(t) + "\n" + fmt.Sprint(t.Value())
}

// described says what values a tensor has; "" for one of few values, or of others than numbers.
func described(t tensor) string {
	if t.Size() <= someOf {
		return ""
	}
	text := ""
	t.MustConstFlatData(func(flat any) {
		switch values := flat.(type) {
		case []float32:
			text = describe(values)
		case []float64:
			text = describe(values)
		case []int32:
			text = describe(values)
		case []int64:
			text = describe(values)
		}
	})
	return text
}

func describe[T float32 | float64 | int32 | int64](values []T) string {
	least, most, sum, zeros := values[0], values[0], 0.0, 0
	for _, v := range values {
		least, most = min(least, v), max(most, v)
		sum += float64(v)
		if v == 0 {
			zeros++
		}
	}
	n := float64(len(values))
	return fmt.Sprintf(": from %.4g to %.4g, mean %.4g, %.1f%% zeros", float64(least), float64(most), sum/n, 100*float64(zeros)/n)
}

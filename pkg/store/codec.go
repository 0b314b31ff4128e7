package store

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
)

// codec says how results of a type become bytes and come back.
type codec[T any] struct {
	encode func(T) ([]byte, error)
	decode func([]byte) (T, error)
}

// codecOf refuses the types that would come back as something else, before anything is computed.
func codecOf[T any]() (codec[T], error) {
	var zero T
	t := reflect.TypeFor[T]()
	if _, ok := any(zero).([]byte); ok {
		return codec[T]{
			func(v T) ([]byte, error) { return any(v).([]byte), nil },
			func(data []byte) (T, error) { return any(data).(T), nil },
		}, nil
	}
	// The methods may be those of T, where T is a pointer, or those of its pointer.
	base, pointer := t, t.Kind() == reflect.Pointer
	if pointer {
		base = t.Elem()
	}
	methods := reflect.PointerTo(base)
	both := methods.Implements(reflect.TypeFor[encoding.BinaryMarshaler]()) && methods.Implements(reflect.TypeFor[encoding.BinaryUnmarshaler]())
	if both && base.Kind() != reflect.Interface {
		return codec[T]{
			func(v T) ([]byte, error) {
				if pointer {
					if reflect.ValueOf(v).IsNil() {
						return nil, fmt.Errorf("a nil %v has no bytes", t)
					}
					return any(v).(encoding.BinaryMarshaler).MarshalBinary()
				}
				return any(&v).(encoding.BinaryMarshaler).MarshalBinary()
			},
			func(data []byte) (v T, err error) {
				if pointer {
					p := reflect.New(base)
					err = p.Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary(data)
					return p.Interface().(T), err
				}
				err = any(&v).(encoding.BinaryUnmarshaler).UnmarshalBinary(data)
				return v, err
			},
		}, nil
	}
	if problem := lossy(t, map[reflect.Type]bool{}); problem != "" {
		return codec[T]{}, &ArgumentError{"result type", t.String(), problem + " is lost in JSON",
			"export it, mark it `json:\"-\"`, or implement encoding.BinaryMarshaler and BinaryUnmarshaler"}
	}
	return codec[T]{
		func(v T) ([]byte, error) { return json.Marshal(v) },
		func(data []byte) (v T, err error) { err = json.Unmarshal(data, &v); return v, err },
	}, nil
}

// lossy names a part of a type that JSON does not keep; "" where there is none.
func lossy(t reflect.Type, seen map[reflect.Type]bool) string {
	if seen[t] {
		return ""
	}
	seen[t] = true
	for _, own := range []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()} {
		if t.Implements(own) || reflect.PointerTo(t).Implements(own) {
			return ""
		}
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Sprintf("a %v", t)
	case reflect.Map:
		if problem := lossy(t.Key(), seen); problem != "" {
			return problem
		}
		return lossy(t.Elem(), seen)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return lossy(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Tag.Get("json") == "-" {
				continue
			}
			if !f.IsExported() && !f.Anonymous {
				return fmt.Sprintf("the field %s of %v", f.Name, t)
			}
			if problem := lossy(f.Type, seen); problem != "" {
				return problem
			}
		}
	}
	return ""
}

package survive

import (
	"reflect"
	"strings"
)

// Type is a type by which values in interfaces are found again.
type Type = reflect.Type

// TypeOf returns a type.
func TypeOf[T any]() Type { return reflect.TypeFor[T]() }

// registered are the notebook's own types, which have a name at package level, and others that Begin was given.
var registered = map[reflect.Type]bool{}

// unfindable says why the next program could not find a type again that a value in an interface has; "": it can.
func unfindable(t reflect.Type) string {
	switch {
	case t.PkgPath() == "" && t.Name() != "" || registered[t]:
		return ""
	case t.Name() != "":
		// The next program imports its package, if the type has a name outside of it.
		if foreign(t) && t.Name()[0] >= 'A' && t.Name()[0] <= 'Z' && !strings.Contains(t.Name(), "[") && !strings.Contains("/"+t.PkgPath()+"/", "/internal/") {
			return ""
		}
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array:
		return unfindable(t.Elem())
	case t.Kind() == reflect.Map:
		if why := unfindable(t.Key()); why != "" {
			return why
		}
		return unfindable(t.Elem())
	default:
		if _, there := known[t.String()]; there {
			return ""
		}
	}
	return "an interface holds a " + t.String() + ", a type that a later cell can't name"
}

package survive

import (
	"reflect"
	"strings"
)

// unfindable says why the next program could not find a type again that a value in an interface has; "": it can.
func unfindable(t reflect.Type) string {
	switch {
	case t.Name() != "":
		if _, there := known[typeName(t)]; there {
			return ""
		}
		// The next program imports its package, if the type has a name outside of it.
		if !foreign(t) || t.Name()[0] < 'A' || t.Name()[0] > 'Z' || strings.Contains(t.Name(), "[") || strings.Contains("/"+t.PkgPath()+"/", "/internal/") {
			return "an interface holds a " + t.String() + ", a type that a later cell can't name"
		}
		return ""
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array:
		return unfindable(t.Elem())
	case t.Kind() == reflect.Map:
		if why := unfindable(t.Key()); why != "" {
			return why
		}
		return unfindable(t.Elem())
	}
	if _, there := known[t.String()]; there {
		return ""
	}
	return "an interface holds a " + t.String() + ", a type that a later cell can't name"
}

package survive

import (
	"encoding"
	"reflect"
	"strconv"
	"strings"
	"unsafe"
)

// class says how values of a type are carried.
type class int

const (
	flat     class = iota + 1 // as the bytes that they are
	text                      // a string
	marshals                  // by MarshalBinary
	gobs                      // by GobEncode
	coded                     // by a Code
	object                    // it presents itself; reached through pointers only
	parts                     // pointer, slice, array, struct, map, interface: by what they consist of
	zeroOnly                  // only if it is zero or nil
	renewed                   // as zero: whoever held a lock is gone with the program
)

var (
	classes     = map[reflect.Type]class{}
	marshaler   = reflect.TypeFor[encoding.BinaryMarshaler]()
	unmarshaler = reflect.TypeFor[encoding.BinaryUnmarshaler]()
	gobEncoder  = reflect.TypeFor[interface{ GobEncode() ([]byte, error) }]()
	gobDecoder  = reflect.TypeFor[interface{ GobDecode([]byte) error }]()
)

// renewing names what belongs to the goroutines of one program.
var renewing = map[string]bool{"sync.Mutex": true, "sync.RWMutex": true, "sync.WaitGroup": true}

// open names structs of the standard library that hide fields and are nothing but these fields.
var open = map[string]bool{
	"bytes.Buffer": true, "container/list.List": true, "container/list.Element": true, "container/ring.Ring": true, "math/rand/v2.Rand": true,
	"sync.Once": true, "sync/atomic.Bool": true, "sync/atomic.Int32": true, "sync/atomic.Int64": true, "sync/atomic.Uint32": true, "sync/atomic.Uint64": true,
	// These are in the ones above, and empty.
	"sync/atomic.noCopy": true, "sync/atomic.align64": true,
}

// ours is this project's module: its structs are copied field by field like the notebook's own.
const ours = "github.com/espalier-ml/espalier/"

func classOf(t reflect.Type) class {
	if c, known := classes[t]; known {
		return c
	}
	classes[t] = parts // for types that contain themselves
	c := classify(t)
	classes[t] = c
	return c
}

func classify(t reflect.Type) class {
	if _, there := codes[t]; there {
		return coded
	}
	if foreign(t) && t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface {
		if p := reflect.PointerTo(t); presents(t) {
			return object
		} else if p.Implements(marshaler) && p.Implements(unmarshaler) {
			return marshals
		} else if p.Implements(gobEncoder) && p.Implements(gobDecoder) {
			return gobs
		}
	}
	switch t.Kind() {
	case reflect.String:
		return text
	case reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Uintptr:
		return zeroOnly
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return parts
	case reflect.Array:
		if c := classOf(t.Elem()); c == flat {
			return flat
		}
		return parts
	case reflect.Struct:
		if presents(t) {
			return object
		}
		if renewing[typeName(t)] {
			return renewed
		}
		if hidden(t) != "" {
			return zeroOnly
		}
		for i := range t.NumField() {
			if classOf(t.Field(i).Type) != flat {
				return parts
			}
		}
		return flat
	}
	return flat // numbers and bools
}

// foreign tells whether a type was defined outside of the notebook.
func foreign(t reflect.Type) bool {
	return t.Name() != "" && t.PkgPath() != "" && t.PkgPath() != "main"
}

// hidden returns the first field that a struct of another package hides.
func hidden(t reflect.Type) string {
	if !foreign(t) || strings.HasPrefix(t.PkgPath(), ours) || open[t.PkgPath()+"."+t.Name()] {
		return ""
	}
	for i := range t.NumField() {
		if f := t.Field(i); !f.IsExported() {
			return f.Name
		}
	}
	return ""
}

// reason says why a value of a type can't be kept.
func reason(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Chan:
		return "a channel can't be kept"
	case reflect.Func:
		return "a function can't be kept"
	case reflect.Struct:
		return "a value of " + t.String() + " can't be kept, since it hides its field " + hidden(t)
	}
	return "a value of " + t.String() + " can't be kept"
}

// certain tells whether every value of a type can be kept, so that none has to be looked at to know that.
func certain(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return true
	}
	seen[t] = true
	switch classOf(t) {
	case flat, text, renewed:
		return true
	case parts:
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array:
			return certain(t.Elem(), seen)
		case reflect.Map:
			return certain(t.Key(), seen) && certain(t.Elem(), seen)
		case reflect.Struct:
			for i := range t.NumField() {
				if !certain(t.Field(i).Type, seen) {
					return false
				}
			}
			return true
		}
	}
	return false
}

// zero tells whether the memory of a value is all zero.
func zero(p unsafe.Pointer, t reflect.Type) bool {
	for _, b := range unsafe.Slice((*byte)(p), t.Size()) {
		if b != 0 {
			return false
		}
	}
	return true
}

// known are the types by which values in interfaces are found again: those that Begin was given, all that they consist of, and the predeclared ones.
var known = map[string]reflect.Type{}

// typeName is a defined type's name, with the path of its package.
func typeName(t reflect.Type) string {
	if t.PkgPath() == "" {
		return t.Name()
	}
	return t.PkgPath() + "." + t.Name()
}

// learn adds a type, and those that it consists of, to the known ones.
func learn(t reflect.Type) {
	key := typeName(t)
	if t.Name() == "" {
		key = t.String()
	}
	if _, there := known[key]; there {
		return
	}
	known[key] = t
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan:
		learn(t.Elem())
	case reflect.Map:
		learn(t.Key())
		learn(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			learn(t.Field(i).Type)
		}
	}
}

func init() {
	for _, t := range []reflect.Type{
		reflect.TypeFor[bool](), reflect.TypeFor[string](), reflect.TypeFor[error](), reflect.TypeFor[any](),
		reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[int16](), reflect.TypeFor[int32](), reflect.TypeFor[int64](),
		reflect.TypeFor[uint](), reflect.TypeFor[uint8](), reflect.TypeFor[uint16](), reflect.TypeFor[uint32](), reflect.TypeFor[uint64](),
		reflect.TypeFor[uintptr](), reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[complex64](), reflect.TypeFor[complex128](),
	} {
		learn(t)
	}
}

// layout describes all that a type consists of. Two programs have the same type if it is the same in both.
func layout(t reflect.Type) string {
	var b strings.Builder
	describe(&b, t, map[reflect.Type]bool{})
	return b.String()
}

func describe(b *strings.Builder, t reflect.Type, seen map[reflect.Type]bool) {
	if t.Name() != "" {
		b.WriteString(typeName(t))
		// What presents or marshals itself answers for its format.
		if t.PkgPath() == "" || seen[t] || classOf(t) == object || classOf(t) == marshals || classOf(t) == gobs || classOf(t) == coded {
			return
		}
		seen[t] = true
		b.WriteString("=")
	}
	switch t.Kind() {
	case reflect.Pointer:
		b.WriteString("*")
		describe(b, t.Elem(), seen)
	case reflect.Slice:
		b.WriteString("[]")
		describe(b, t.Elem(), seen)
	case reflect.Array:
		b.WriteString("[" + strconv.Itoa(t.Len()) + "]")
		describe(b, t.Elem(), seen)
	case reflect.Map:
		b.WriteString("map[")
		describe(b, t.Key(), seen)
		b.WriteString("]")
		describe(b, t.Elem(), seen)
	case reflect.Struct:
		b.WriteString("struct{")
		for i := range t.NumField() {
			f := t.Field(i)
			b.WriteString(f.Name + " ")
			describe(b, f.Type, seen)
			b.WriteString(";")
		}
		b.WriteString("}")
	case reflect.Chan, reflect.Func, reflect.Interface:
		if t.Name() == "" {
			b.WriteString(t.String())
		} else {
			b.WriteString(t.Kind().String())
		}
	default:
		b.WriteString(t.Kind().String())
	}
}

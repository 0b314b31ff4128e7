package survive

import "reflect"

// Keeper is a value too big, or too much alive, to be copied field by field: a network's weights, a data set, something that holds a connection. It is
// implemented by pointers to structs.
type Keeper interface {
	// KeepDigest returns a digest of all that KeepSave writes: while it stays the same, nothing is written again. An error says why the value can't be
	// kept now; one of KeepSave says that it could not be written, and leaves all variables as they were before the cell.
	KeepDigest() (string, error)
	// KeepSave writes the value into a directory that is empty.
	KeepSave(dir string) error
	// KeepLoad makes a new, zero value what KeepSave wrote. It is called before the program's own variables are initialised.
	KeepLoad(dir string) error
}

// Referrer is a Keeper that refers to other values which survive as well, such as a pruner to its network. KeepRefs returns pointers to the fields that
// do. They are saved as they are, and hold what they held when KeepLoad is called.
type Referrer interface {
	Keeper
	KeepRefs() []any
}

// Adapter does for a type of another package what Keeper does for one's own.
type Adapter struct {
	Type reflect.Type // the struct; values are pointers to it
	// Refs returns what a value refers to and what presents itself as well, as pointers. nil: nothing.
	Refs   func(pointer any) []any
	Digest func(pointer any) (string, error) // as KeepDigest
	Save   func(pointer any, dir string) error
	Load   func(dir string, refs []any) (pointer any, err error) // makes a new value of what Save wrote
}

// Code writes values of another package's type that hold functions, and reads them again: by name, for instance.
type Code struct {
	Type      reflect.Type
	Marshal   func(pointer any) ([]byte, error)
	Unmarshal func(data []byte, pointer any) error
}

var codes = map[reflect.Type]Code{}

var adapters = map[reflect.Type]Adapter{}

// Adapt makes the values of a type survive. The last adapter for a type counts.
func Adapt(a Adapter) { adapters[a.Type] = a }

var keeperType = reflect.TypeFor[Keeper]()

// presents tells whether pointers to t present themselves.
func presents(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	_, adapted := adapters[t]
	return adapted || reflect.PointerTo(t).Implements(keeperType)
}

func objectDigest(t reflect.Type, pointer any) (string, error) {
	if a, ok := adapters[t]; ok {
		return a.Digest(pointer)
	}
	return pointer.(Keeper).KeepDigest()
}

func objectSave(t reflect.Type, pointer any, dir string) error {
	if a, ok := adapters[t]; ok {
		return a.Save(pointer, dir)
	}
	return pointer.(Keeper).KeepSave(dir)
}

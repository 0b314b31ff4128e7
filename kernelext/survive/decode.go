package survive

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"unsafe"
)

// damaged says that a file of values is not one that this program's types could have written.
type damaged string

func (e damaged) Error() string { return string(e) }

// reader reads the file of a group of variables. It trusts no size in it: what is allocated is bounded by what the file holds.
type reader struct {
	data    []byte
	dir     string
	types   []reflect.Type
	regions []place
	maps    []reflect.Value
	sizes   []int // of the maps
	things  []*loading
	depth   int // of interfaces in interfaces
}

// place is where a region goes.
type place struct {
	p    unsafe.Pointer // what pointers to it become
	into unsafe.Pointer // where its content goes: elsewhere if the variable that it was is evaluated anew
	t    reflect.Type
	n    int
	keep reflect.Value
}

// loading is a thing that is being made.
type loading struct {
	t       reflect.Type
	dir     string
	refs    int
	pointer reflect.Value
	fields  []reflect.Value // pointers to those that refer to others
	needs   []any           // what an adapter makes it with
}

// target says where a variable of this program lies; fresh: its content is not wanted, since its declaration is evaluated anew.
type target struct {
	v     Var
	fresh bool
}

// decode gives variables the values of a file. Those that the program does not have, or has with another type, are made all the same, since others may
// point into them.
func decode(data []byte, dir string, targets map[string]target) (err error) {
	defer func() {
		if r := recover(); r != nil {
			// What reads values panics on what is wrong with them, and so does what unmarshals them.
			if d, ok := r.(damaged); ok {
				err = d
			} else {
				err = fmt.Errorf("%v", r)
			}
		}
	}()
	r := &reader{data: data, dir: dir}
	if string(r.take(len(magic))) != magic {
		return damaged("it has no such beginning")
	}
	for range r.count() {
		r.types = append(r.types, r.readType())
	}
	for range r.count() {
		t, n, name := r.typeAt(), r.size(), r.string()
		// A flat value takes its size, any other a byte at least.
		if least := max(1, t.Size()); classOf(t) == flat && uint64(n) > uint64(len(r.data))/uint64(least) || n > len(r.data) {
			panic(damaged("it ends before its values"))
		}
		at := place{t: t, n: n}
		at.keep = reflect.MakeSlice(reflect.SliceOf(t), n, n)
		at.p = at.keep.UnsafePointer()
		at.into = at.p
		if own, there := targets[name]; there && name != "" && own.v.t == t && n == 1 {
			at.p = own.v.p
			if !own.fresh {
				at.into = at.p
			}
		}
		r.regions = append(r.regions, at)
	}
	for range r.count() {
		t, n := r.typeAt(), r.size()
		if t.Kind() != reflect.Map || n > len(r.data) {
			panic(damaged("a map that is none"))
		}
		r.maps, r.sizes = append(r.maps, reflect.MakeMapWithSize(t, n)), append(r.sizes, n)
	}
	for range r.count() {
		o := &loading{t: r.typeAt(), dir: r.string(), refs: r.size()}
		if classOf(o.t) != object || !filepath.IsLocal(o.dir) || filepath.Base(o.dir) != o.dir {
			panic(damaged("a value that does not present itself"))
		}
		for range r.count() {
			n := r.size()
			if n >= len(r.things) {
				panic(damaged("a value that needs one that is not made yet"))
			}
			o.needs = append(o.needs, r.things[n].pointer.Interface())
		}
		if err := r.make(o); err != nil {
			return err
		}
		r.things = append(r.things, o)
	}
	for _, at := range r.regions {
		r.values(at.into, at.t, at.n)
	}
	type entry struct{ m, key, value reflect.Value }
	var entries []entry
	for i, m := range r.maps {
		for range r.sizes[i] {
			e := entry{m, reflect.New(m.Type().Key()), reflect.New(m.Type().Elem())}
			r.value(e.key.UnsafePointer(), m.Type().Key())
			r.value(e.value.UnsafePointer(), m.Type().Elem())
			entries = append(entries, e)
		}
	}
	for _, o := range r.things {
		for _, ref := range o.fields {
			r.value(ref.UnsafePointer(), ref.Type().Elem())
		}
	}
	if len(r.data) > 0 {
		return damaged("it goes on after its end")
	}
	for _, e := range entries { // only now, since keys are found by their content
		e.m.SetMapIndex(e.key.Elem(), e.value.Elem())
	}
	// What refers to others was found before these, so the last ones are made whole first.
	for _, o := range slices.Backward(r.things) {
		if _, adapted := adapters[o.t]; !adapted {
			if err := o.pointer.Interface().(Keeper).KeepLoad(filepath.Join(r.dir, o.dir)); err != nil {
				return err
			}
		}
	}
	return nil
}

// make makes a thing: whole if an adapter does it, else empty, so that there is something to point to.
func (r *reader) make(o *loading) error {
	a, adapted := adapters[o.t]
	if !adapted {
		o.pointer = reflect.New(o.t)
		if referrer, ok := o.pointer.Interface().(Referrer); ok {
			for _, ref := range referrer.KeepRefs() {
				o.fields = append(o.fields, reflect.ValueOf(ref))
			}
		}
		if len(o.fields) != o.refs {
			return damaged("a value that refers to others than it did")
		}
		return nil
	}
	pointer, err := a.Load(filepath.Join(r.dir, o.dir), o.needs)
	if err != nil {
		return err
	}
	if o.pointer = reflect.ValueOf(pointer); o.pointer.Type() != reflect.PointerTo(o.t) {
		return errors.New("an adapter for " + o.t.String() + " made a " + o.pointer.Type().String())
	}
	return nil
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.data) {
		panic(damaged("it ends early"))
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) uint() uint64 {
	x, n := binary.Uvarint(r.data)
	if n <= 0 {
		panic(damaged("it ends early"))
	}
	r.data = r.data[n:]
	return x
}

// size reads a number that has to fit into an int.
func (r *reader) size() int {
	x := r.uint()
	if x > 1<<40 {
		panic(damaged("a size of more than a terabyte"))
	}
	return int(x)
}

// count reads how many of something follow, each of which takes a byte at least.
func (r *reader) count() int {
	n := r.size()
	if n > len(r.data) {
		panic(damaged("it ends early"))
	}
	return n
}

func (r *reader) string() string { return string(r.take(r.size())) }

func (r *reader) typeAt() reflect.Type {
	n := r.size()
	if n >= len(r.types) {
		panic(damaged("a type that it does not have"))
	}
	return r.types[n]
}

func (r *reader) readType() reflect.Type {
	switch kind := r.uint(); kind {
	case typeNamed, typeOther:
		name, want := r.string(), r.string()
		t, there := known[name]
		if !there {
			panic(damaged("type " + name + " is not in this program"))
		}
		if layout(t) != want {
			panic(damaged("type " + name + " has changed"))
		}
		return t
	case typePointer:
		return reflect.PointerTo(r.typeAt())
	case typeSlice:
		return reflect.SliceOf(r.typeAt())
	case typeArray:
		n, elem := r.size(), r.typeAt()
		if t, there := known[fmt.Sprintf("[%d]%s", n, elem)]; there && t.Elem() == elem {
			return t
		}
		if uint64(n)*uint64(max(1, elem.Size())) > uint64(len(r.data))*64+1<<16 {
			panic(damaged("an array larger than the file"))
		}
		return reflect.ArrayOf(n, elem)
	case typeMap:
		key, elem := r.typeAt(), r.typeAt()
		if !key.Comparable() {
			panic(damaged("a map with keys that can't be"))
		}
		return reflect.MapOf(key, elem)
	}
	panic(damaged("a type of no kind"))
}

func (r *reader) values(p unsafe.Pointer, t reflect.Type, n int) {
	if classOf(t) == flat {
		size := int(t.Size()) * n
		copy(unsafe.Slice((*byte)(p), size), r.take(size))
		return
	}
	for i := range n {
		r.value(unsafe.Add(p, uintptr(i)*t.Size()), t)
	}
}

func (r *reader) value(p unsafe.Pointer, t reflect.Type) {
	switch classOf(t) {
	case flat:
		if t.Size() == 0 {
			r.uint()
		}
		copy(unsafe.Slice((*byte)(p), t.Size()), r.take(int(t.Size())))
		return
	case text:
		*(*string)(p) = r.string()
		return
	case zeroOnly, renewed:
		if r.uint() != 0 {
			panic(damaged("a " + t.String() + " that is not zero"))
		}
		return
	case marshals, gobs:
		r.unmarshal(p, t)
		return
	case coded:
		if r.uint() == 1 {
			r.unmarshal(p, t)
		}
		return
	case object:
		panic(damaged("a " + t.String() + " that is not pointed to"))
	}
	switch t.Kind() {
	case reflect.Pointer:
		r.pointer(p, t.Elem(), 1)
	case reflect.Slice:
		n := r.size()
		if n == 0 {
			return
		}
		capacity := r.size()
		if n-1 > capacity {
			panic(damaged("a slice longer than its array"))
		}
		v := reflect.NewAt(t, p).Elem()
		if capacity == 0 || t.Elem().Size() == 0 {
			v.Set(reflect.MakeSlice(t, n-1, capacity))
			if capacity > 0 {
				r.uint() // that it points to nothing
			}
			return
		}
		header := (*struct {
			data     unsafe.Pointer
			len, cap int
		})(p)
		r.pointer(p, t.Elem(), capacity)
		if header.data == nil {
			panic(damaged("a slice without elements"))
		}
		header.len, header.cap = n-1, capacity
	case reflect.Array:
		r.values(p, t.Elem(), t.Len())
		if t.Len() == 0 {
			r.uint()
		}
	case reflect.Struct:
		for i := range t.NumField() {
			r.value(unsafe.Add(p, t.Field(i).Offset), t.Field(i).Type)
		}
		if t.NumField() == 0 {
			r.uint()
		}
	case reflect.Map:
		n := r.size()
		if n == 0 {
			return
		}
		if n > len(r.maps) || !r.maps[n-1].Type().ConvertibleTo(t) {
			panic(damaged("a map that it does not have"))
		}
		reflect.NewAt(t, p).Elem().Set(r.maps[n-1].Convert(t))
	case reflect.Interface:
		n := r.size()
		if n == 0 {
			return
		}
		if n > len(r.types) || !r.types[n-1].Implements(t) || r.types[n-1].Kind() == reflect.Interface {
			panic(damaged("an interface that holds what it can't"))
		}
		if r.depth++; r.depth > maxDepth {
			panic(damaged("interfaces in interfaces without end"))
		}
		box := reflect.New(r.types[n-1])
		r.value(box.UnsafePointer(), r.types[n-1])
		r.depth--
		reflect.NewAt(t, p).Elem().Set(box.Elem())
	default:
		panic(damaged("a " + t.String()))
	}
}

// pointer reads a pointer to n values of a type. It is checked that they lie in one region, of a type with such parts.
func (r *reader) pointer(p unsafe.Pointer, t reflect.Type, n int) {
	to := (*unsafe.Pointer)(p)
	switch r.uint() {
	case toNil:
		*to = nil
	case toNothing:
		if t.Size() != 0 {
			panic(damaged("a pointer to nothing"))
		}
		*to = reflect.New(t).UnsafePointer()
	case toRegion:
		i, offset := r.size(), r.size()
		if i >= len(r.regions) {
			panic(damaged("a pointer to memory that it does not have"))
		}
		at := r.regions[i]
		if !fits(at.t, uintptr(at.n), uintptr(offset), t, uintptr(n)) {
			panic(damaged("a pointer to a value of another type"))
		}
		*to = unsafe.Add(at.p, offset)
	case toThing:
		i := r.size()
		if i >= len(r.things) || r.things[i].t != t {
			panic(damaged("a pointer to a value that it does not have"))
		}
		*to = r.things[i].pointer.UnsafePointer()
	default:
		panic(damaged("a pointer to no kind of thing"))
	}
}

// fits tells whether n values of type t lie at an offset into count values of type in.
func fits(in reflect.Type, count, offset uintptr, t reflect.Type, n uintptr) bool {
	size := in.Size()
	if size == 0 || offset >= size*count || t.Size() != 0 && n > (size*count-offset)/t.Size() {
		return false
	}
	if in == t {
		return offset%size == 0
	}
	inner := offset % size
	// An array, or the field of a struct, in one of the values.
	switch in.Kind() {
	case reflect.Array:
		return n <= uintptr(in.Len()) && fits(in.Elem(), uintptr(in.Len()), inner, t, n) || inArray(t, in, count, offset, n)
	case reflect.Struct:
		for i := range in.NumField() {
			if f := in.Field(i); f.Type.Size() > 0 && inner >= f.Offset && inner < f.Offset+f.Type.Size() {
				return fits(f.Type, 1, inner-f.Offset, t, n)
			}
		}
	}
	return inArray(t, in, count, offset, n)
}

// inArray tells whether t is an array of values of type in: a slice that was converted to an array.
func inArray(t, in reflect.Type, count, offset, n uintptr) bool {
	return n == 1 && t.Kind() == reflect.Array && t.Elem() == in && offset%in.Size() == 0 && uintptr(t.Len()) <= count-offset/in.Size()
}

func (r *reader) unmarshal(p unsafe.Pointer, t reflect.Type) {
	data := append([]byte(nil), r.take(r.size())...) // what unmarshals it may keep it
	v := reflect.NewAt(t, p).Interface()
	var err error
	switch classOf(t) {
	case coded:
		err = codes[t].Unmarshal(data, v)
	case marshals:
		err = v.(encoding.BinaryUnmarshaler).UnmarshalBinary(data)
	default:
		err = v.(interface{ GobDecode([]byte) error }).GobDecode(data)
	}
	if err != nil {
		panic(damaged("a " + t.String() + ": " + err.Error()))
	}
}

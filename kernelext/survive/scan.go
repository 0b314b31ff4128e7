package survive

import (
	"cmp"
	"reflect"
	"slices"
	"unsafe"
)

// Var is a variable of the notebook: its name, and where it lies.
type Var struct {
	Name string
	p    unsafe.Pointer
	t    reflect.Type
}

// Of describes a variable.
func Of[T any](name string, p *T) Var { return Var{name, unsafe.Pointer(p), reflect.TypeFor[T]()} }

// region is memory that holds n values of one type: a variable, what a pointer points to, what a slice slices (all of its capacity, since another
// slice may see more of it).
type region struct {
	p     unsafe.Pointer
	t     reflect.Type
	n     int
	root  int // the variable that it is, or -1
	owner int // the variable by which it was found
	found int // how many were found before
}

func (r *region) start() uintptr { return uintptr(r.p) }
func (r *region) size() uintptr  { return r.t.Size() * uintptr(r.n) }
func (r *region) end() uintptr   { return r.start() + r.size() }

// mapping is a map, which pointers can't point into; its keys are in an order that does not depend on where they lie.
type mapping struct {
	t            reflect.Type
	keys, values []unsafe.Pointer
	owner, found int
}

// thing is a value that presents itself.
type thing struct {
	p            unsafe.Pointer
	t            reflect.Type
	refs         []reflect.Value // pointers to what it refers to
	needs        []*thing        // of one that an adapter makes: what has to be made before
	owner, found int
}

type regionKey struct {
	p unsafe.Pointer
	t reflect.Type
	n int
}

// pending is a value whose parts have still to be looked at.
type pending struct {
	p unsafe.Pointer
	t reflect.Type
}

// scan finds all memory that variables consist of, and which variables share some.
type scan struct {
	vars    []Var
	regions []*region
	seen    map[regionKey]*region
	maps    map[unsafe.Pointer]*mapping
	things  map[unsafe.Pointer]*thing
	found   int

	current int            // the variable that is being looked at
	failure string         // why it can't be kept
	torn    map[int]string // why variables can't be kept that share memory in a way that can't be described
	extra   map[int]int64  // bytes of what presents itself, of each variable
	empty   []*region      // variables whose type has no size: they have no memory of their own
	queue   []pending
	parent  []int // of each variable in the trees of those that share memory
	boxes   []any // keeps copies of what lies in interfaces and maps alive while pointers to them are in use
}

func newScan(vars []Var) *scan {
	s := &scan{vars: vars, seen: map[regionKey]*region{}, maps: map[unsafe.Pointer]*mapping{}, things: map[unsafe.Pointer]*thing{}, torn: map[int]string{}, extra: map[int]int64{}}
	for i := range vars {
		s.parent = append(s.parent, i)
	}
	return s
}

// variable looks at all that variable i consists of, and returns why it can't be kept; "": it can.
func (s *scan) variable(i int) string {
	s.current, s.failure = i, ""
	v := s.vars[i]
	if classOf(v.t) == object {
		return "it is a " + v.t.String() + " itself; declare a pointer to one"
	}
	s.region(v.p, v.t, 1, i)
	for len(s.queue) > 0 {
		next := s.queue[len(s.queue)-1]
		s.queue = s.queue[:len(s.queue)-1]
		s.value(next.p, next.t)
	}
	return s.failure
}

func (s *scan) fail(why string) {
	if s.failure == "" {
		s.failure = why
	}
}

// set returns the representative of the variables that share memory with variable i.
func (s *scan) set(i int) int {
	for s.parent[i] != i {
		s.parent[i] = s.parent[s.parent[i]]
		i = s.parent[i]
	}
	return i
}

// join notes that the current variable shares memory with another.
func (s *scan) join(i int) {
	a, b := s.set(i), s.set(s.current)
	s.parent[max(a, b)] = min(a, b)
}

func (s *scan) next() int {
	s.found++
	return s.found - 1
}

// region notes memory, once.
func (s *scan) region(p unsafe.Pointer, t reflect.Type, n, root int) {
	if t.Size() == 0 {
		if root >= 0 {
			s.empty = append(s.empty, &region{p: p, t: t, n: n, root: root, owner: s.current, found: s.next()})
		}
		return
	}
	key := regionKey{p, t, n}
	if r := s.seen[key]; r != nil {
		if root >= 0 {
			r.root = root
		}
		s.join(r.owner)
		return
	}
	r := &region{p: p, t: t, n: n, root: root, owner: s.current, found: s.next()}
	s.seen[key] = r
	s.regions = append(s.regions, r)
	if classOf(t) == flat || classOf(t) == text {
		return
	}
	// Pushed in reverse, so that they are looked at in order.
	for i := n - 1; i >= 0; i-- {
		s.queue = append(s.queue, pending{unsafe.Add(p, uintptr(i)*t.Size()), t})
	}
}

// value looks at one value.
func (s *scan) value(p unsafe.Pointer, t reflect.Type) {
	switch classOf(t) {
	case zeroOnly:
		if !zero(p, t) {
			s.fail(reason(t))
		}
		return
	case object:
		s.fail("a " + t.String() + " can be kept only where it is pointed to")
		return
	case parts:
	default:
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		if q := *(*unsafe.Pointer)(p); q != nil {
			if classOf(t.Elem()) == object {
				s.thing(q, t.Elem())
			} else {
				s.region(q, t.Elem(), 1, -1)
			}
		}
	case reflect.Slice:
		if v := reflect.NewAt(t, p).Elem(); v.Cap() > 0 {
			s.region(v.UnsafePointer(), t.Elem(), v.Cap(), -1)
		}
	case reflect.Array:
		for i := t.Len() - 1; i >= 0; i-- {
			s.queue = append(s.queue, pending{unsafe.Add(p, uintptr(i)*t.Elem().Size()), t.Elem()})
		}
	case reflect.Struct:
		for i := t.NumField() - 1; i >= 0; i-- {
			f := t.Field(i)
			s.queue = append(s.queue, pending{unsafe.Add(p, f.Offset), f.Type})
		}
	case reflect.Map:
		s.mapping(p, t)
	case reflect.Interface:
		if v := reflect.NewAt(t, p).Elem(); !v.IsNil() {
			v = v.Elem()
			if why := unfindable(v.Type()); why != "" {
				s.fail(why)
				return
			}
			s.queue = append(s.queue, pending{s.box(v), v.Type()})
		}
	}
}

// thing notes a value that presents itself, and looks at what it refers to.
func (s *scan) thing(p unsafe.Pointer, t reflect.Type) {
	if o := s.things[p]; o != nil {
		s.join(o.owner)
		return
	}
	o := &thing{p: p, t: t, owner: s.current}
	s.things[p] = o
	pointer := reflect.NewAt(t, p).Interface()
	if a, adapted := adapters[t]; adapted {
		if a.Refs != nil {
			for _, ref := range a.Refs(pointer) {
				v := reflect.ValueOf(ref)
				if v.Kind() != reflect.Pointer || v.IsNil() || classOf(v.Type().Elem()) != object {
					s.fail("a " + t.String() + " refers to a " + v.Type().String() + ", which does not present itself")
					return
				}
				s.thing(v.UnsafePointer(), v.Type().Elem())
				o.needs = append(o.needs, s.things[v.UnsafePointer()])
			}
		}
	} else if referrer, ok := pointer.(Referrer); ok {
		for _, ref := range referrer.KeepRefs() {
			v := reflect.ValueOf(ref)
			o.refs = append(o.refs, v)
			s.queue = append(s.queue, pending{v.UnsafePointer(), v.Type().Elem()})
		}
	}
	o.found = s.next() // after what it needs
}

func (s *scan) mapping(p unsafe.Pointer, t reflect.Type) {
	header := *(*unsafe.Pointer)(p)
	if header == nil {
		return
	}
	if m := s.maps[header]; m != nil {
		s.join(m.owner)
		return
	}
	m := &mapping{t: t, owner: s.current, found: s.next()}
	s.maps[header] = m
	type entry struct{ key, value unsafe.Pointer }
	v := reflect.NewAt(t, p).Elem()
	// All entries are copied into two arrays: pointers to them are what the rest works with.
	keys, values := reflect.MakeSlice(reflect.SliceOf(t.Key()), v.Len(), v.Len()), reflect.MakeSlice(reflect.SliceOf(t.Elem()), v.Len(), v.Len())
	s.boxes = append(s.boxes, keys, values)
	entries := make([]entry, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		k, e := keys.Index(len(entries)), values.Index(len(entries))
		k.SetIterKey(it)
		e.SetIterValue(it)
		entries = append(entries, entry{k.Addr().UnsafePointer(), e.Addr().UnsafePointer()})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if c := compare(a.key, b.key, t.Key()); c != 0 {
			return c
		}
		return compare(a.value, b.value, t.Elem()) // there can be several NaN
	})
	for _, e := range entries {
		m.keys, m.values = append(m.keys, e.key), append(m.values, e.value)
	}
	simple := func(t reflect.Type) bool { return classOf(t) == flat || classOf(t) == text }
	for i := len(m.keys) - 1; i >= 0; i-- {
		if !simple(t.Elem()) {
			s.queue = append(s.queue, pending{m.values[i], t.Elem()})
		}
		if !simple(t.Key()) {
			s.queue = append(s.queue, pending{m.keys[i], t.Key()})
		}
	}
}

// box copies a value to where it can be pointed to.
func (s *scan) box(v reflect.Value) unsafe.Pointer {
	b := reflect.New(v.Type())
	b.Elem().Set(v)
	s.boxes = append(s.boxes, b)
	return b.UnsafePointer()
}

// compare orders the keys of maps, pointers by what they point to. They may come out equal: their order changes nothing but the digest.
func compare(a, b unsafe.Pointer, t reflect.Type) int {
	return compareValues(reflect.NewAt(t, a).Elem(), reflect.NewAt(t, b).Elem(), 4)
}

// compareValues follows depth pointers, since these may lead back.
func compareValues(a, b reflect.Value, depth int) int {
	switch a.Kind() {
	case reflect.Pointer:
		if depth == 0 || a.Pointer() == b.Pointer() {
			return 0
		} else if a.IsNil() || b.IsNil() {
			return compareValues(reflect.ValueOf(!a.IsNil()), reflect.ValueOf(!b.IsNil()), 0)
		}
		return compareValues(a.Elem(), b.Elem(), depth-1)
	case reflect.String:
		return cmp.Compare(a.String(), b.String())
	case reflect.Bool:
		if a.Bool() == b.Bool() {
			return 0
		} else if b.Bool() {
			return -1
		}
		return 1
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return cmp.Compare(a.Int(), b.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return cmp.Compare(a.Uint(), b.Uint())
	case reflect.Float32, reflect.Float64:
		return cmp.Compare(a.Float(), b.Float())
	case reflect.Complex64, reflect.Complex128:
		x, y := a.Complex(), b.Complex()
		return cmp.Or(cmp.Compare(real(x), real(y)), cmp.Compare(imag(x), imag(y)))
	case reflect.Array:
		for i := range a.Len() {
			if c := compareValues(a.Index(i), b.Index(i), depth); c != 0 {
				return c
			}
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if c := compareValues(a.Field(i), b.Field(i), depth); c != 0 {
				return c
			}
		}
	case reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return compareValues(reflect.ValueOf(!a.IsNil()), reflect.ValueOf(!b.IsNil()), 0)
		}
		a, b = a.Elem(), b.Elem()
		if a.Type() != b.Type() {
			return cmp.Compare(a.Type().String(), b.Type().String())
		}
		return compareValues(a, b, depth)
	}
	return 0
}

// merge joins regions that overlap: a pointer into a variable, slices of one array. It returns what is left, by address.
func (s *scan) merge() []*region {
	slices.SortFunc(s.regions, func(a, b *region) int {
		return cmp.Or(cmp.Compare(a.start(), b.start()), -cmp.Compare(a.size(), b.size()), -cmp.Compare(a.root, b.root), cmp.Compare(a.found, b.found))
	})
	var merged []*region
	for _, r := range s.regions {
		if len(merged) > 0 {
			last := merged[len(merged)-1]
			if r.start() < last.end() {
				s.current = r.owner
				s.join(last.owner)
				if r.start() == last.start() && r.end() == last.end() && last.root < 0 && !fits(last.t, uintptr(last.n), 0, r.t, uintptr(r.n)) {
					last.t, last.n = r.t, r.n // a struct, found after the pointer to its only field
				}
				if r.end() > last.end() { // two slices of one array, neither of which sees all of it
					if r.t != last.t || last.root >= 0 {
						s.torn[r.owner] = "it shares memory with another value in a way that can't be written down"
					}
					last.n = int((r.end() - last.start()) / last.t.Size())
				}
				last.found = min(last.found, r.found)
				continue
			}
		}
		merged = append(merged, r)
	}
	return merged
}

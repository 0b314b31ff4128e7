package survive

import (
	"cmp"
	"encoding"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"unsafe"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// The file of a group of variables: magic; the types; the things (type, directory, what they refer to); the regions (type, count, variable's name); the
// maps' types and sizes; then the content of regions and maps, in that order. Numbers are varints. A pointer is the number of a region and an offset in it.
const magic = "espalier value 1\n"

// The kinds of entries in the table of types.
const (
	typeNamed = iota
	typePointer
	typeSlice
	typeArray
	typeMap
	typeOther // found by how Go writes it
)

// What a pointer points to.
const (
	toNil     = iota
	toNothing // a value without size
	toRegion
	toThing
)

// writer makes a file's content. Large values are not copied: parts borrows their memory.
type writer struct {
	parts [][]byte
	buf   []byte

	scan    *scan
	all     []*region // by address
	number  map[*region]int
	mapOf   map[*mapping]int
	thingOf map[*thing]int

	types map[reflect.Type]int
	table []byte // of types
	depth int    // of interfaces in interfaces
	err   error
}

// maxDepth bounds how deep interfaces that hold values with interfaces may go: they are followed by recursion.
const maxDepth = 1 << 20

// borrowed is the size from which a value's memory is written as it is, without a copy of it.
const borrowed = 4096

func (w *writer) uint(x uint64)   { w.buf = binary.AppendUvarint(w.buf, x) }
func (w *writer) bytes(b []byte)  { w.uint(uint64(len(b))); w.raw(b) }
func (w *writer) string(s string) { w.bytes(unsafe.Slice(unsafe.StringData(s), len(s))) }

func (w *writer) raw(b []byte) {
	if len(b) < borrowed {
		w.buf = append(w.buf, b...)
		return
	}
	w.parts = append(w.parts, w.buf, b)
	w.buf = nil
}

// typeNumber returns the number of a type in the table, into which it is put.
func (w *writer) typeNumber(t reflect.Type) uint64 {
	if n, there := w.types[t]; there {
		return uint64(n)
	}
	var entry []byte
	add := func(x uint64) { entry = binary.AppendUvarint(entry, x) }
	str := func(s string) { add(uint64(len(s))); entry = append(entry, s...) }
	switch {
	case t.Name() != "":
		add(typeNamed)
		str(typeName(t))
		str(layout(t))
	case t.Kind() == reflect.Pointer, t.Kind() == reflect.Slice:
		elem := w.typeNumber(t.Elem())
		add(map[reflect.Kind]uint64{reflect.Pointer: typePointer, reflect.Slice: typeSlice}[t.Kind()])
		add(elem)
	case t.Kind() == reflect.Array:
		elem := w.typeNumber(t.Elem())
		add(typeArray)
		add(uint64(t.Len()))
		add(elem)
	case t.Kind() == reflect.Map:
		key, elem := w.typeNumber(t.Key()), w.typeNumber(t.Elem())
		add(typeMap)
		add(key)
		add(elem)
	default:
		add(typeOther)
		str(t.String())
		str(layout(t))
	}
	n := len(w.types)
	w.types[t] = n
	w.table = append(w.table, entry...)
	return uint64(n)
}

// group is the variables that share memory, as a file.
type group struct {
	vars    []string
	parts   [][]byte
	size    int64
	name    string           // of the file
	objects []string         // the directories of the things in it
	types   []reflect.Type   // the defined ones in it
	sizes   map[string]int64 // of each variable
}

// errMoving: what was found first is no longer there.
var errMoving = errors.New("a goroutine was still changing them: let the cell wait for those that it starts")

// refusal says that a value does not let itself be kept, as opposed to a disk that is full.
type refusal struct{ error }

// encode writes the variables of one set of those that share memory. The error is a refusal where these can't be kept.
func (s *scan) encode(dir string, set int, merged []*region) (*group, error) {
	w := &writer{scan: s, all: merged, number: map[*region]int{}, mapOf: map[*mapping]int{}, thingOf: map[*thing]int{}, types: map[reflect.Type]int{}}
	g := &group{}
	for i := range s.vars {
		if s.set(i) == set {
			g.vars = append(g.vars, s.vars[i].Name)
		}
	}
	var regions []*region
	for _, r := range slices.Concat(merged, s.empty) {
		if s.set(r.owner) == set {
			regions = append(regions, r)
		}
	}
	slices.SortFunc(regions, func(a, b *region) int { return cmp.Compare(a.found, b.found) })
	for i, r := range regions {
		w.number[r] = i
	}
	var maps []*mapping
	for _, m := range s.maps {
		if s.set(m.owner) == set {
			maps = append(maps, m)
		}
	}
	slices.SortFunc(maps, func(a, b *mapping) int { return cmp.Compare(a.found, b.found) })
	for i, m := range maps {
		w.mapOf[m] = i
	}
	var things []*thing
	for _, o := range s.things {
		if s.set(o.owner) == set {
			things = append(things, o)
		}
	}
	slices.SortFunc(things, func(a, b *thing) int { return cmp.Compare(a.found, b.found) })
	for i, o := range things {
		w.thingOf[o] = i
	}

	w.uint(uint64(len(regions)))
	for _, r := range regions {
		w.uint(w.typeNumber(r.t))
		w.uint(uint64(r.n))
		name := ""
		if r.root >= 0 {
			name = s.vars[r.root].Name
		}
		w.string(name)
	}
	w.uint(uint64(len(maps)))
	for _, m := range maps {
		w.uint(w.typeNumber(m.t))
		w.uint(uint64(len(m.keys)))
	}
	w.uint(uint64(len(things)))
	for _, o := range things {
		name, err := o.write(dir)
		if err != nil {
			return g, err
		}
		g.objects = append(g.objects, name)
		s.extra[o.owner] += sizeOf(filepath.Join(dir, name))
		w.uint(w.typeNumber(o.t))
		w.string(name)
		w.uint(uint64(len(o.refs)))
		w.uint(uint64(len(o.needs)))
		for _, need := range o.needs {
			w.uint(uint64(w.thingOf[need]))
		}
	}
	for _, r := range regions {
		w.values(r.p, r.t, r.n)
	}
	for _, m := range maps {
		for i := range m.keys {
			w.value(m.keys[i], m.t.Key())
			w.value(m.values[i], m.t.Elem())
		}
	}
	for _, o := range things {
		for _, ref := range o.refs {
			w.value(ref.UnsafePointer(), ref.Type().Elem())
		}
	}
	if errors.Is(w.err, errMoving) {
		return g, w.err
	}
	if w.err != nil {
		return g, refusal{w.err}
	}
	head := binary.AppendUvarint([]byte(magic), uint64(len(w.types)))
	g.parts = append([][]byte{append(head, w.table...)}, append(w.parts, w.buf)...)
	var d digest
	for _, part := range g.parts {
		g.size += int64(len(part))
		d.write(part)
	}
	g.name = d.sum() + manifest.ValueSuffix
	for t := range w.types {
		if t.PkgPath() != "" {
			g.types = append(g.types, t)
		}
	}
	return g, nil
}

// write writes what is not there yet, whole or not at all.
func (g *group) write(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, g.name)); err == nil {
		return nil
	}
	f, err := os.CreateTemp(dir, manifest.TemporaryPattern)
	if err != nil {
		return err
	}
	for _, part := range g.parts {
		if _, err = f.Write(part); err != nil {
			break
		}
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, g.name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// write has a thing write itself into a directory named by its digest, if it is not there, and returns the directory's name.
func (o *thing) write(dir string) (string, error) {
	pointer := reflect.NewAt(o.t, o.p).Interface()
	sum, err := objectDigest(o.t, pointer)
	if err != nil {
		return "", refusal{err}
	}
	var d digest
	for _, part := range []string{typeName(o.t), "\n", sum} {
		d.write([]byte(part))
	}
	name := d.sum() + manifest.ValueSuffix
	if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		return name, nil
	}
	temporary, err := os.MkdirTemp(dir, manifest.TemporaryPattern)
	if err != nil {
		return "", err
	}
	if err = objectSave(o.t, pointer, temporary); err == nil {
		err = os.Rename(temporary, filepath.Join(dir, name))
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(temporary))
	}
	return name, nil
}

func (w *writer) values(p unsafe.Pointer, t reflect.Type, n int) {
	if classOf(t) == flat {
		w.raw(unsafe.Slice((*byte)(p), t.Size()*uintptr(n)))
		return
	}
	for i := range n {
		w.value(unsafe.Add(p, uintptr(i)*t.Size()), t)
	}
}

// value writes one value. Each takes a byte at least, so that a reader can tell from a file's size how many there can be.
func (w *writer) value(p unsafe.Pointer, t reflect.Type) {
	switch classOf(t) {
	case flat:
		if t.Size() == 0 {
			w.uint(0)
		}
		w.raw(unsafe.Slice((*byte)(p), t.Size()))
		return
	case text:
		w.string(*(*string)(p))
		return
	case zeroOnly, renewed:
		w.uint(0)
		return
	case marshals, gobs:
		w.bytes(w.marshal(p, t))
		return
	case coded:
		if zero(p, t) {
			w.uint(0)
			return
		}
		w.uint(1)
		w.bytes(w.marshal(p, t))
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		w.pointer(*(*unsafe.Pointer)(p), t.Elem())
	case reflect.Slice:
		v := reflect.NewAt(t, p).Elem()
		if v.IsNil() {
			w.uint(0)
			return
		}
		w.uint(uint64(v.Len()) + 1)
		w.uint(uint64(v.Cap()))
		if v.Cap() > 0 {
			w.pointer(v.UnsafePointer(), t.Elem())
		}
	case reflect.Array:
		w.values(p, t.Elem(), t.Len())
		if t.Len() == 0 {
			w.uint(0)
		}
	case reflect.Struct:
		for i := range t.NumField() {
			w.value(unsafe.Add(p, t.Field(i).Offset), t.Field(i).Type)
		}
		if t.NumField() == 0 {
			w.uint(0)
		}
	case reflect.Map:
		header := *(*unsafe.Pointer)(p)
		if header == nil {
			w.uint(0)
			return
		}
		n, there := w.mapOf[w.scan.maps[header]]
		if !there {
			w.err = errMoving
		}
		w.uint(uint64(n) + 1)
	case reflect.Interface:
		v := reflect.NewAt(t, p).Elem()
		if v.IsNil() {
			w.uint(0)
			return
		}
		v = v.Elem()
		w.uint(w.typeNumber(v.Type()) + 1)
		if w.depth++; w.depth > maxDepth {
			w.err = errors.New("interfaces hold values that hold interfaces, more than a million times")
			return
		}
		w.value(w.scan.box(v), v.Type())
		w.depth--
	}
}

func (w *writer) pointer(p unsafe.Pointer, t reflect.Type) {
	switch {
	case p == nil:
		w.uint(toNil)
	case classOf(t) == object:
		n, there := w.thingOf[w.scan.things[p]]
		if !there {
			w.err = errMoving
		}
		w.uint(toThing)
		w.uint(uint64(n))
	case t.Size() == 0:
		w.uint(toNothing)
	default:
		i, exact := slices.BinarySearchFunc(w.all, uintptr(p), func(r *region, a uintptr) int { return cmp.Compare(r.start(), a) })
		if !exact {
			i--
		}
		w.uint(toRegion)
		if i < 0 || uintptr(p) >= w.all[i].end() {
			w.err = errMoving
			return
		}
		n, there := w.number[w.all[i]]
		if !there {
			w.err = errMoving
		}
		w.uint(uint64(n))
		w.uint(uint64(uintptr(p) - w.all[i].start()))
	}
}

func (w *writer) marshal(p unsafe.Pointer, t reflect.Type) []byte {
	v := reflect.NewAt(t, p).Interface()
	var data []byte
	var err error
	switch classOf(t) {
	case coded:
		data, err = codes[t].Marshal(v)
	case marshals:
		data, err = v.(encoding.BinaryMarshaler).MarshalBinary()
	default:
		data, err = v.(interface{ GobEncode() ([]byte, error) }).GobEncode()
	}
	if err != nil && w.err == nil {
		w.err = err
	}
	return data
}

// sizeOf returns the bytes of the files in a directory; those that can't be looked at count for nothing.
func sizeOf(dir string) (size int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
	}
	return size
}

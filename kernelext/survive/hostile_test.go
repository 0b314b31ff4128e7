package survive

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// crowd is a value of many kinds, and another that points into it.
type crowd struct {
	Numbers []int
	Names   map[string]*node
	Any     []any
	Times   [2]time.Time
	Inner   *point
	Nested  map[any][]string
	flag    bool
}

// crowded returns the file of a crowd, and variables to decode it into.
func crowded(t testing.TB) (data []byte, targets func() map[string]target) {
	t.Helper()
	register(reflect.TypeFor[point](), reflect.TypeFor[node](), reflect.TypeFor[celsius]())
	root := &node{name: "root"}
	root.left = &node{name: "left", parent: root}
	c := crowd{
		Numbers: make([]int, 20, 40), Names: map[string]*node{"r": root, "l": root.left}, Any: []any{1, "x", point{1, 2}, root, []string{"a"}, celsius(2)},
		Times: [2]time.Time{time.Unix(1, 2)}, Inner: &point{3, 4}, Nested: map[any][]string{1: {"one"}, "k": nil}, flag: true,
	}
	into := &c.Numbers[3]
	s := newScan([]Var{Of("c", &c), Of("into", &into)})
	for i := range s.vars {
		learn(s.vars[i].t)
		if why := s.variable(i); why != "" {
			t.Fatal(why)
		}
	}
	g, err := s.encode(t.TempDir(), 0, s.merge())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range g.parts {
		data = append(data, part...)
	}
	return data, func() map[string]target {
		return map[string]target{"c": {v: Of("c", new(crowd))}, "into": {v: Of("into", new(*int))}}
	}
}

func TestDamagedFiles(t *testing.T) {
	data, targets := crowded(t)
	dir := t.TempDir()
	if err := decode(data, dir, targets()); err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if err := decode(data[:n], dir, targets()); err == nil {
			t.Fatalf("%d of %d bytes were taken for the whole", n, len(data))
		}
	}
	if err := decode(append(data[:len(data):len(data)], 0), dir, targets()); err == nil {
		t.Error("a byte more was not found")
	}
	// Bytes that are changed at will give an error or another value, never a crash, nor more memory than the file can stand for.
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		changed := append([]byte(nil), data...)
		for range 1 + random.IntN(3) {
			changed[random.IntN(len(changed))] = byte(random.UintN(256))
		}
		_ = decode(changed, dir, targets())
	}
}

func FuzzDecode(f *testing.F) {
	data, targets := crowded(f)
	dir := f.TempDir()
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) { _ = decode(data, dir, targets()) })
}

// What does not match its digest is not decoded at all.
func TestDigestProtects(t *testing.T) {
	dir := private(t)
	in, out := []int{1, 2, 3}, []int(nil)
	carry(t, dir, []Var{Of("v", &in)}, []Var{Of("v", &out)})
	files, err := filepath.Glob(filepath.Join(dir, "*"+manifest.ValueSuffix))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		changed := append([]byte(nil), data...)
		changed[i] ^= 1
		if err := os.WriteFile(files[0], changed, 0o600); err != nil {
			t.Fatal(err)
		}
		p := &Program{Dir: dir, Vars: []Declared{{Name: "v", Layout: layout(reflect.TypeFor[[]int]())}}, addresses: vars{Of("v", &out)}}
		if err := p.restore(); err == nil {
			t.Fatalf("a change of byte %d was not found", i)
		}
	}
}

func TestDigest(t *testing.T) {
	seen := map[string]int{}
	data := make([]byte, 200)
	for i := range data {
		data[i] = byte(i)
	}
	for n := range data {
		var d digest
		d.write(data[:n])
		sum := d.sum()
		if before, there := seen[sum]; there {
			t.Errorf("%d and %d bytes have one digest", before, n)
		}
		seen[sum] = n
		// In pieces it is the same.
		for _, at := range []int{0, 1, 7, 31, 32, 33, 64} {
			if at > n {
				continue
			}
			var p digest
			p.write(data[:at])
			p.write(data[at:n])
			if got := p.sum(); got != sum {
				t.Errorf("%d bytes in pieces of %d: %s, at once %s", n, at, got, sum)
			}
		}
	}
	zeros := map[string]bool{}
	for n := range 200 {
		var d digest
		d.write(make([]byte, n))
		zeros[d.sum()] = true
	}
	if len(zeros) != 200 {
		t.Errorf("zeros of 200 lengths have %d digests", len(zeros))
	}
}

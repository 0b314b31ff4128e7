package survive

import (
	"bytes"
	"container/list"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// point, tree and so on stand for the types of a notebook: classes by package path treat this project's as its own.
type (
	point                     struct{ X, y int }
	celsius                   float64
	pair[K comparable, V any] struct {
		key K
		Val V
	}
	node struct {
		name        string
		left, right *node
		parent      *node
	}
	shape  interface{ area() float64 }
	square struct{ side float64 }
	circle struct{ radius float64 }
	base   struct{ id int }
	widget struct {
		base
		*point
		Tags  []string
		extra map[string]any
	}
	guarded struct {
		mu    sync.Mutex
		count atomic.Int64
		names []string
	}
	empty  struct{}
	single struct{ only *int }
)

func (s square) area() float64  { return s.side * s.side }
func (c *circle) area() float64 { return math.Pi * c.radius * c.radius }

// carry saves variables, clears the memory that they lie in, and restores them: from one program to the next, in one process.
func carry(t *testing.T, dir string, from, to []Var) map[string]string {
	t.Helper()
	declared := func(vars []Var, fresh bool) (d []Declared) {
		for _, v := range vars {
			d = append(d, Declared{Name: v.Name, Layout: layout(v.t), Fresh: fresh})
		}
		return d
	}
	first := &Program{Dir: dir, Cell: 1, Vars: declared(from, true), addresses: vars(from)}
	for _, v := range from {
		learn(v.t)
	}
	if err := first.restore(); err != nil {
		t.Fatal(err)
	}
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	second := &Program{Dir: dir, Cell: 2, Vars: declared(to, false), addresses: vars(to)}
	if err := second.restore(); err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, v := range second.manifest.Vars {
		if v.Reason != "" {
			reasons[v.Name] = v.Reason
		}
	}
	if len(reasons) > 0 {
		return reasons
	}
	before := second.manifest
	if err := second.Save(); err != nil {
		t.Fatal(err)
	}
	third := &Program{Dir: dir, addresses: vars(nil)}
	if err := third.restore(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, third.manifest); diff != "" {
		t.Errorf("saving what did not change changed the record (-before +after):\n%s", diff)
	}
	return reasons
}

type vars []Var

func (v vars) Vars() []Var { return v }

func private(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// same is a row of the matrix: a value that comes back deeply equal.
func sameValue[T any](value T) func(t *testing.T) {
	return func(t *testing.T) {
		t.Helper()
		in, out := value, *new(T)
		if reasons := carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)}); len(reasons) > 0 {
			t.Fatalf("not kept: %v", reasons)
		}
		if !reflect.DeepEqual(in, out) {
			t.Errorf("want %#v, got %#v", in, out)
		}
	}
}

// refused is a row of a value that can't be kept, and why.
func refused[T any](value T, why string) func(t *testing.T) {
	return func(t *testing.T) {
		t.Helper()
		in, out := value, *new(T)
		reasons := carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
		if !strings.Contains(reasons["v"], why) {
			t.Errorf("reason %q, want one with %q", reasons["v"], why)
		}
	}
}

func bigInt(s string) *big.Int {
	n, _ := new(big.Int).SetString(s, 10)
	return n
}

// register does what Begin does with Program.Types.
func register(types ...Type) {
	for _, t := range types {
		learn(t)
		registered[t] = true
	}
}

func TestMatrix(t *testing.T) {
	register(reflect.TypeFor[point](), reflect.TypeFor[celsius]())
	now := time.Now().Round(0) // without the monotonic clock, which no other process has
	address, _ := url.Parse("https://example.org/a?b=c")
	for name, test := range map[string]func(t *testing.T){
		"bool": sameValue(true), "int": sameValue(-7), "int8": sameValue(int8(-8)), "int16": sameValue(int16(-16)), "int32": sameValue(int32(-32)),
		"int64": sameValue(int64(math.MinInt64)), "uint": sameValue(uint(7)), "uint8": sameValue(uint8(255)), "uint16": sameValue(uint16(16)),
		"uint32": sameValue(uint32(32)), "uint64": sameValue(uint64(math.MaxUint64)), "float32": sameValue(float32(1.5)),
		"float64": sameValue(math.Inf(-1)), "complex64": sameValue(complex64(1 + 2i)), "complex128": sameValue(3 - 4i),
		"uintptr of zero": sameValue(uintptr(0)), "string": sameValue("a string, äöü \x00"), "empty string": sameValue(""), "rune": sameValue('→'),
		"array": sameValue([3]int{1, 2, 3}), "array of none": sameValue([0]string{}), "array of strings": sameValue([2]string{"a", "b"}),
		"slice": sameValue([]float64{1, 2}), "nil slice": sameValue([]int(nil)), "empty slice": sameValue([]int{}), "slice of slices": sameValue([][]string{{"a"}, nil, {}}),
		"large slice": sameValue(make([]float32, 1<<16)), "slice of nothing": sameValue(make([]struct{}, 5, 9)),
		"map": sameValue(map[string]int{"a": 1, "b": 2}), "nil map": sameValue(map[int]int(nil)), "empty map": sameValue(map[int]int{}),
		"map of maps": sameValue(map[string]map[int][]point{"a": {1: {{1, 2}}}}), "map with struct keys": sameValue(map[point]string{{1, 2}: "x"}),
		"map with array keys": sameValue(map[[2]string]bool{{"a", "b"}: true}), "map with interface keys": sameValue(map[any]string{1: "int", "1": "string", celsius(1): "degree", nil: "nil"}),
		"map of a large number": sameValue(func() map[int]string {
			m := map[int]string{}
			for i := range 1000 {
				m[i] = fmt.Sprint(i)
			}
			return m
		}()),
		"struct": sameValue(point{1, 2}), "struct with hidden fields behind a pointer": sameValue(&point{1, 2}), "anonymous struct": sameValue(struct {
			A int
			b string
		}{1, "x"}),
		"embedded": sameValue(widget{base{1}, &point{2, 3}, []string{"t"}, map[string]any{"n": 1, "p": point{4, 5}}}), "empty struct": sameValue(empty{}), "pointer to nothing": sameValue(&empty{}),
		"defined number": sameValue(celsius(36.6)), "duration": sameValue(time.Minute), "generic": sameValue(pair[string, []int]{"k", []int{1}}), "generic in a slice": sameValue([]pair[int, *point]{{1, &point{1, 1}}}),
		"pointer": sameValue(new(int)), "nil pointer": sameValue((*int)(nil)), "pointer to pointer": sameValue(func() **string { s := "x"; p := &s; return &p }()),
		"struct of one pointer": sameValue(&single{new(int)}), "interface": sameValue[any](3), "nil interface": sameValue[any](nil), "any of slice": sameValue[any]([]int{1, 2}),
		"any of map": sameValue[any](map[string]any{"deep": []any{1, "x", nil, 2.5, true}}), "any of pointer": sameValue[any](new(int)), "any of error type": sameValue[any](celsius(1)),
		"interface holding notebook types": func(t *testing.T) {
			register(reflect.TypeFor[square](), reflect.TypeFor[circle]())
			sameValue([]shape{square{2}, &circle{1}, nil})(t)
		},
		"nil error": sameValue[error](nil), "nil func": sameValue((func())(nil)), "nil chan": sameValue((chan int)(nil)), "struct with a nil func": sameValue(struct{ F func() }{}),
		"time": sameValue(now), "zero time": sameValue(time.Time{}), "time in UTC": sameValue(now.UTC()), "big int": sameValue(bigInt("123456789012345678901234567890")),
		"big rat": sameValue(big.NewRat(1, 3)), "url": sameValue(address), "netip": sameValue(netip.MustParseAddr("10.0.0.1")), "list": func(t *testing.T) {
			in, out := list.New(), (*list.List)(nil)
			in.PushBack(1)
			in.PushBack("two")
			carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
			var got []any
			for e := out.Front(); e != nil; e = e.Next() {
				got = append(got, e.Value)
			}
			if diff := cmp.Diff([]any{1, "two"}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		},
		"buffer": func(t *testing.T) {
			in, out := bytes.NewBufferString("abc"), bytes.Buffer{}
			carry(t, private(t), []Var{Of("v", in)}, []Var{Of("v", &out)})
			if out.String() != "abc" {
				t.Errorf("got %q", out.String())
			}
		},
		"random numbers go on": func(t *testing.T) {
			in, out := rand.New(rand.NewPCG(1, 2)), (*rand.Rand)(nil)
			register(reflect.TypeFor[rand.PCG]())
			in.Uint64()
			carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
			if a, b := in.Uint64(), out.Uint64(); a != b {
				t.Errorf("after it %d, before %d", b, a)
			}
		},
		"unlocked mutex and counter": func(t *testing.T) {
			var in, out guarded
			in.count.Store(5)
			in.names = []string{"x"}
			carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
			out.mu.Lock()
			if out.count.Load() != 5 || len(out.names) != 1 {
				t.Errorf("got %d and %v", out.count.Load(), out.names)
			}
		},
		"a lock is open, and what was done once is done": func(t *testing.T) {
			type locked struct {
				mu    sync.Mutex
				rw    sync.RWMutex
				group sync.WaitGroup
				once  sync.Once
				n     int
			}
			var in, out locked
			in.mu.Lock()
			in.rw.RLock()
			in.group.Add(1)
			in.once.Do(func() { in.n = 5 })
			if reasons := carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)}); len(reasons) > 0 {
				t.Fatalf("not kept: %v", reasons)
			}
			out.mu.Lock()
			out.rw.Lock()
			out.group.Wait()
			if out.once.Do(func() { out.n = 6 }); out.n != 5 {
				t.Errorf("got %d", out.n)
			}
		},
		"a cycle": func(t *testing.T) {
			in, out := &node{name: "root"}, (*node)(nil)
			in.left, in.right = &node{name: "l", parent: in}, in
			carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
			if out.name != "root" || out.right != out || out.left.parent != out || out.left.name != "l" {
				t.Errorf("got %+v", out)
			}
		},
		"a slice that holds itself": func(t *testing.T) {
			in, out := []any{nil, 1}, []any(nil)
			in[0] = in
			carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
			if out[0].([]any)[1] != 1 || &out[0].([]any)[0] != &out[0] {
				t.Errorf("it does not hold itself")
			}
		},
		"a map that holds itself": func(t *testing.T) {
			in, out := map[string]any{}, map[string]any(nil)
			in["self"], in["n"] = in, 1
			carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
			if out["self"].(map[string]any)["n"] != 1 {
				t.Errorf("got %v", len(out))
			}
			out["new"] = 2
			if out["self"].(map[string]any)["new"] != 2 {
				t.Error("it holds another map")
			}
		},
		"NaN keys": func(t *testing.T) {
			in, out := map[float64]string{math.NaN(): "a", 1: "b"}, map[float64]string(nil)
			in[math.NaN()] = "c"
			carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
			got := map[string]bool{}
			for _, v := range out {
				got[v] = true
			}
			if diff := cmp.Diff(map[string]bool{"a": true, "b": true, "c": true}, got); diff != "" || len(out) != 3 {
				t.Errorf("%d entries (-want +got):\n%s", len(out), diff)
			}
		},
		"keys that are pointers": func(t *testing.T) {
			p, q := &point{1, 2}, (*point)(nil)
			in, out := map[*point]int{p: 1, {3, 4}: 2}, map[*point]int(nil)
			carry(t, private(t), []Var{Of("p", &p), Of("v", &in)}, []Var{Of("p", &q), Of("v", &out)})
			if len(out) != 2 || out[q] != 1 {
				t.Errorf("got %v, %d of the variable's own key", out, out[q])
			}
		},
		"two pointers to one": func(t *testing.T) {
			a := &point{1, 2}
			b := a
			var c, d *point
			carry(t, private(t), []Var{Of("a", &a), Of("b", &b)}, []Var{Of("a", &c), Of("b", &d)})
			if c != d || *c != *a {
				t.Errorf("%p and %p, %v", c, d, c)
			}
		},
		"a pointer into another variable": func(t *testing.T) {
			type pointers struct {
				whole *[4]point
				field *int
				elem  *point
				slice []point
			}
			var a, c [4]point
			a[2] = point{5, 6}
			b, d := pointers{&a, &a[2].y, &a[2], a[1:3]}, pointers{}
			carry(t, private(t), []Var{Of("a", &a), Of("b", &b)}, []Var{Of("a", &c), Of("b", &d)})
			if d.whole != &c || d.field != &c[2].y || d.elem != &c[2] || &d.slice[1] != &c[2] || len(d.slice) != 2 || cap(d.slice) != 3 || *d.field != 6 {
				t.Errorf("they point elsewhere: %+v in %p", d, &c)
			}
		},
		"slices of one array": func(t *testing.T) {
			a := []int{0, 1, 2, 3, 4, 5, 6, 7}
			b, e := a[4:6], a[2:5:5]
			var c, d, f []int
			carry(t, private(t), []Var{Of("a", &a), Of("b", &b), Of("e", &e)}, []Var{Of("a", &c), Of("b", &d), Of("e", &f)})
			d[0] = 44
			if c[4] != 44 || f[2] != 44 || len(d) != 2 || cap(d) != 4 || cap(f) != 3 {
				t.Errorf("%v %v %v", c, d, f)
			}
		},
		"slices that overlap, none of which sees all": func(t *testing.T) {
			all := []int{0, 1, 2, 3, 4, 5}
			a, b := all[0:4:4], all[2:6:6]
			var c, d []int
			carry(t, private(t), []Var{Of("a", &a), Of("b", &b)}, []Var{Of("a", &c), Of("b", &d)})
			if c[3] = 33; d[1] != 33 || d[3] != 5 {
				t.Errorf("%v %v", c, d)
			}
		},
		"a slice as an array": func(t *testing.T) {
			a := []int{1, 2, 3, 4}
			b := (*[2]int)(a[1:])
			var c []int
			var d *[2]int
			carry(t, private(t), []Var{Of("a", &a), Of("b", &b)}, []Var{Of("a", &c), Of("b", &d)})
			if d[1] = 9; c[2] != 9 {
				t.Errorf("%v %v", c, d)
			}
		},
		"two names of one map": func(t *testing.T) {
			a := map[string]int{"x": 1}
			b := a
			var c, d map[string]int
			carry(t, private(t), []Var{Of("a", &a), Of("b", &b)}, []Var{Of("a", &c), Of("b", &d)})
			if d["y"] = 2; c["y"] != 2 || c["x"] != 1 {
				t.Errorf("%v %v", c, d)
			}
		},
		"memory is still collected": func(t *testing.T) {
			in, out := &node{left: &node{name: strings.Repeat("x", 100)}}, (*node)(nil)
			carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)})
			for range 3 {
				churn()
			}
			if out.left.name != strings.Repeat("x", 100) {
				t.Errorf("got %q", out.left.name)
			}
		},
		"channel":       refused(make(chan int), "a channel"),
		"function":      refused(func() {}, "a function"),
		"file":          refused(os.Stdout, "os.File"),
		"error":         refused(io.EOF, "errors"),
		"condition":     refused(sync.NewCond(new(sync.Mutex)), "sync.Cond"),
		"in an any":     refused[any](map[string]any{"f": func() {}}, "func"),
		"address":       refused(uintptr(1), "uintptr"),
		"hidden struct": refused(strings.NewReader("x"), "strings.Reader"),
		"local type in an any": func(t *testing.T) {
			type local chan int
			refused[any](map[string]any{"x": local(nil)}, "can't name")(t)
		},
	} {
		t.Run(name, test)
	}
}

// web is a node of a random graph, with all ways in which memory can be shared.
type web struct {
	Next  *web
	Many  []*web
	Near  []web // some are slices of one array
	By    map[string]*web
	Any   any
	Field *int // in another node
	value int
	text  string
}

// What is saved again is the same file, which carry checks: so it has the same shape, aliases and all.
func TestRandomGraphs(t *testing.T) {
	register(reflect.TypeFor[web]())
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		nodes := make([]*web, 1+random.IntN(20))
		array := make([]web, len(nodes))
		for i := range nodes {
			if random.IntN(3) == 0 {
				nodes[i] = &array[i] // one that lies in an array
			} else {
				nodes[i] = new(web)
			}
		}
		pick := func() *web { return nodes[random.IntN(len(nodes))] }
		for _, n := range nodes {
			n.value, n.text = random.IntN(100), strings.Repeat("x", random.IntN(5))
			switch random.IntN(7) {
			case 0:
				n.Next = pick()
			case 1:
				n.Many = []*web{pick(), nil, pick()}
			case 2:
				from := random.IntN(len(array))
				to := from + random.IntN(len(array)-from+1)
				n.Near = array[from:to:to]
			case 3:
				n.By = map[string]*web{"a": pick(), "b": pick()}
			case 4:
				n.Any = pick()
			case 5:
				n.Any = []any{pick(), *pick(), n.value}
			case 6:
				n.Field = &pick().value
			}
		}
		a, b, c := nodes[0], pick(), array[len(array)/2:]
		var d, e *web
		var f []web
		if reasons := carry(t, private(t), []Var{Of("a", &a), Of("b", &b), Of("c", &c)}, []Var{Of("a", &d), Of("b", &e), Of("c", &f)}); len(reasons) > 0 {
			t.Fatalf("seed %d: not kept: %v", seed, reasons)
		}
		if !reflect.DeepEqual(a, d) || !reflect.DeepEqual(b, e) || !reflect.DeepEqual(c, f) || (a == b) != (d == e) {
			t.Fatalf("seed %d: another graph came back", seed)
		}
	}
}

// churn makes garbage and collects it, so that what is held by an address alone would be overwritten.
func churn() {
	var keep [][]byte
	for range 1000 {
		keep = append(keep, bytes.Repeat([]byte{0xff}, 200))
	}
	_ = keep
	runtime.GC()
}

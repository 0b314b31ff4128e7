package survive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// album presents itself: what it holds open can't be copied.
type album struct {
	title string
	open  chan int // stands for a connection
	saves *int
}

func (a *album) KeepDigest() (string, error) {
	if a.title == "broken" {
		return "", errors.New("this album is broken")
	}
	return a.title, nil
}

func (a *album) KeepSave(dir string) error {
	if a.title == "panics" {
		panic("out of paper")
	}
	if a.title == "full" {
		return errors.New("no space left")
	}
	*a.saves++
	return os.WriteFile(filepath.Join(dir, "title"), []byte(a.title), 0o600)
}

func (a *album) KeepLoad(dir string) error {
	title, err := os.ReadFile(filepath.Join(dir, "title"))
	a.title, a.open, a.saves = string(title), make(chan int), new(int)
	return err
}

// shelf refers to an album, and to a plain value.
type shelf struct {
	first *album
	names map[string]int
	lock  chan int
	seen  string // what KeepLoad saw
}

func (s *shelf) KeepRefs() []any             { return []any{&s.first, &s.names} }
func (s *shelf) KeepDigest() (string, error) { return fmt.Sprint(s.names), nil }
func (s *shelf) KeepSave(string) error       { return nil }
func (s *shelf) KeepLoad(string) error {
	s.seen, s.lock = fmt.Sprint(s.first != nil, s.names), make(chan int)
	return nil
}

func TestKeeper(t *testing.T) {
	dir := private(t)
	in := &album{"holidays", make(chan int), new(int)}
	type both struct {
		direct *album
		any    any
		slice  []*album
	}
	register(reflect.TypeFor[album]())
	a, b := in, both{in, in, []*album{in, nil}}
	var c *album
	var d both
	if reasons := carry(t, dir, []Var{Of("a", &a), Of("b", &b)}, []Var{Of("a", &c), Of("b", &d)}); len(reasons) > 0 {
		t.Fatalf("not kept: %v", reasons)
	}
	if c.title != "holidays" || c.open == nil || d.direct != c || d.any != any(c) || d.slice[0] != c || d.slice[1] != nil {
		t.Errorf("got %+v and %+v", c, d)
	}
	if *in.saves != 1 || *c.saves != 0 {
		t.Errorf("saved %d times, and %d times unchanged", *in.saves, *c.saves)
	}
}

func TestReferrer(t *testing.T) {
	register(reflect.TypeFor[album](), reflect.TypeFor[shelf]())
	in := &album{"a", nil, new(int)}
	names := map[string]int{"x": 1}
	s := &shelf{first: in, names: names}
	var (
		album  *album
		shelf  *shelf
		outMap map[string]int
	)
	carry(t, private(t), []Var{Of("album", &in), Of("names", &names), Of("shelf", &s)}, []Var{Of("album", &album), Of("names", &outMap), Of("shelf", &shelf)})
	if shelf.first != album || album.title != "a" || shelf.lock == nil {
		t.Errorf("got %+v of %+v", shelf, album)
	}
	if shelf.seen != "true map[x:1]" {
		t.Errorf("KeepLoad saw %q", shelf.seen)
	}
	if shelf.names["y"] = 2; outMap["y"] != 2 {
		t.Error("it has another map")
	}
}

func TestKeeperThatFails(t *testing.T) {
	in, out := &album{"broken", nil, new(int)}, (*album)(nil)
	healthy, read := 1, 0
	reasons := carry(t, private(t), []Var{Of("album", &in), Of("healthy", &healthy)}, []Var{Of("album", &out), Of("healthy", &read)})
	if reasons["album"] != "this album is broken" || reasons["healthy"] != "" || read != 1 {
		t.Errorf("reasons %v, and %d of the other", reasons, read)
	}
}

// What could not be written is not what can't be kept: the last state stays.
func TestFullDisk(t *testing.T) {
	dir := private(t)
	in, out := &album{"a", nil, new(int)}, (*album)(nil)
	carry(t, dir, []Var{Of("v", &in)}, []Var{Of("v", &out)})
	p := &Program{Dir: dir, Vars: []Declared{{Name: "v", Layout: layout(reflect.TypeFor[*album]())}}, addresses: vars{Of("v", &out)}}
	if err := p.restore(); err != nil {
		t.Fatal(err)
	}
	out.title = "full"
	if err := p.Save(); err == nil || !strings.Contains(err.Error(), "as they were before this cell: no space left") {
		t.Errorf("error %v, want one that says that the variables are as they were", err)
	}
	p = &Program{Dir: dir, Vars: p.Vars, addresses: vars{Of("v", &out)}, manifest: p.manifest}
	out.title = "panics"
	if err := p.Save(); err == nil || !strings.Contains(err.Error(), "as they were before this cell: out of paper") {
		t.Errorf("error %v of a method that panics", err)
	}
	var again *album
	p = &Program{Dir: dir, Vars: p.Vars, addresses: vars{Of("v", &again)}}
	if err := p.restore(); err != nil || again.title != "a" {
		t.Errorf("after it %+v, %v", again, err)
	}
}

func TestKeeperThatIsNotPointedTo(t *testing.T) {
	var in, out album
	if reasons := carry(t, private(t), []Var{Of("v", &in)}, []Var{Of("v", &out)}); !strings.Contains(reasons["v"], "declare a pointer") {
		t.Errorf("reasons %v", reasons)
	}
}

// foreignPart and foreignWhole stand for types of other packages, which adapters carry.
type (
	foreignPart  struct{ c chan int }
	foreignWhole struct {
		part *foreignPart
		c    chan int
	}
)

func TestAdapters(t *testing.T) {
	saves := 0
	part := Adapter{
		Type:   reflect.TypeFor[foreignPart](),
		Digest: func(any) (string, error) { return "part", nil },
		Save:   func(any, string) error { saves++; return nil },
		Load:   func(string, []any) (any, error) { return &foreignPart{make(chan int, 3)}, nil },
	}
	whole := Adapter{
		Type:   reflect.TypeFor[foreignWhole](),
		Refs:   func(p any) []any { return []any{p.(*foreignWhole).part} },
		Digest: func(any) (string, error) { return "whole", nil },
		Save:   func(any, string) error { saves++; return nil },
		Load: func(_ string, refs []any) (any, error) {
			return &foreignWhole{refs[0].(*foreignPart), make(chan int, 4)}, nil
		},
	}
	Adapt(part)
	Adapt(whole)
	defer func() {
		clear(adapters)
		clear(classes)
	}()
	clear(classes)
	p := &foreignPart{make(chan int)}
	// Whichever is found first, the part is made first.
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		w, q := &foreignWhole{p, make(chan int)}, p
		var outW *foreignWhole
		var outQ *foreignPart
		from, to := []Var{Of(names[0], &w), Of(names[1], &q)}, []Var{Of(names[0], &outW), Of(names[1], &outQ)}
		if reasons := carry(t, private(t), from, to); len(reasons) > 0 {
			t.Fatalf("not kept: %v", reasons)
		}
		if outW.part != outQ || cap(outQ.c) != 3 || cap(outW.c) != 4 {
			t.Errorf("got %+v and %+v", outW, outQ)
		}
	}
	if saves != 4 {
		t.Errorf("saved %d times, want 4: twice each, never unchanged", saves)
	}
}

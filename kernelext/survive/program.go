package survive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// Declared is what the kernel's Go command knows of a variable that a program reaches.
type Declared struct {
	Name, Type   string
	Layout, Code string   // see manifest.Var
	Noted        string   // see manifest.Var
	Cell         int      // in which its declaration stands
	From         []string // the variables that its initialiser reaches
	Unit         []string // the variables that are declared together with it, by one value
	Fresh        bool     // this program evaluates its declaration
	Constant     bool     // evaluating its declaration again gives what it holds, as far as this program is concerned
	Local        bool     // it is declared by := among the cell's statements
	Reason       string   // why it is not to be kept; "": no reason
}

// Program is a cell's program.
type Program struct {
	Dir      string // of the kept variables
	Cell     int
	Vars     []Declared        // those that the program reaches, by name
	Outgoing []Declared        // variables that the program reads for the last time: their names are those of others from now on
	Types    []Type            // by which values in interfaces are found again
	Layouts  map[string]string // of the notebook's types, and of others that values in interfaces have, by their names
	Adapters []Adapter
	Codes    []Code
	Gone     []string // variables that the notebook no longer has
	Notes    []string // what the reader has to be told first
	Graceful bool     // the program deals with interrupts itself
	Asks     bool     // the program may ask the reader for input

	addresses Addresses
	manifest  manifest.Manifest
	saved     atomic.Bool // or about to be
	kept      atomic.Bool // as far as they can be
}

// Addresses says where a program's variables lie: those of Program.Vars, then those of Program.Outgoing. It is an interface so that the compiler does not take what uses it to depend on the variables: it is
// called before they are initialised.
type Addresses interface{ Vars() []Var }

// active is the program that this process is; nil outside of a cell.
var active *Program

// Begin gives the program's variables their values. It ends the process where that is impossible: a program must not go on with values that are none.
func Begin(p *Program, addresses Addresses) *Program {
	active = p
	p.addresses = addresses
	if !p.Asks {
		emptyInput()
	}
	for _, note := range p.Notes {
		say(note)
	}
	for _, a := range p.Adapters {
		Adapt(a)
	}
	for _, c := range p.Codes {
		codes[c.Type] = c
	}
	for _, t := range p.Types {
		learn(t)
		registered[t] = true
	}
	if err := p.restore(); err != nil {
		say(err.Error())
		os.Exit(1)
	}
	p.watch()
	return p
}

// emptyInput has the program find the end of its standard input at once. It is a pipe that nobody would ever write to, so that to read it would be to wait for ever.
func emptyInput() {
	if empty, err := os.Open(os.DevNull); err == nil {
		os.Stdin = empty
	}
}

func say(text string) { fmt.Fprintln(os.Stderr, "espalier: "+text) }

func (p *Program) restore() error {
	var err error
	if p.manifest, err = manifest.Read(p.Dir); err != nil {
		return err
	}
	vars := p.addresses.Vars()
	targets := map[string]target{}
	for i, v := range vars {
		learn(v.t)
		targets[v.Name] = target{v, i < len(p.Vars) && p.Vars[i].Fresh} // the outgoing ones come last, in place of those that have their names
	}
	var plain, others []manifest.Var // a file each
	done := map[string]bool{}
	for _, d := range slices.Concat(p.Vars, p.Outgoing) {
		kept := p.manifest.Vars[d.Name]
		if d.Fresh || kept.File == "" || kept.Layout != d.Layout || done[kept.File] {
			continue
		}
		done[kept.File] = true
		if kept.Objects == "" {
			plain = append(plain, kept)
		} else {
			others = append(others, kept)
		}
	}
	// What presents itself may look at the other variables when it is made.
	for _, kept := range append(plain, others...) {
		if err := p.load(kept.File, targets); err != nil {
			names := strings.Join(p.manifest.Sharing(kept), " ")
			return fmt.Errorf("the kept value of %s can't be read: %v; `%%reset %s` forgets it, and the next use evaluates the declaration", names, err, names)
		}
	}
	return nil
}

func (p *Program) load(file string, targets map[string]target) error {
	data, release, err := readFile(filepath.Join(p.Dir, file))
	if err != nil {
		return err
	}
	defer release()
	var d digest
	d.write(data)
	if d.sum()+manifest.ValueSuffix != file {
		return errors.New("it does not match its digest")
	}
	return decode(data, p.Dir, targets)
}

// Save leaves the variables to the next program. It does so once: what happens later is not kept.
func (p *Program) Save() (err error) {
	if !p.saved.CompareAndSwap(false, true) {
		return nil
	}
	defer p.kept.Store(true)
	defer func() {
		// Values present themselves by their own code, and goroutines that go on can leave anything.
		if r := recover(); r != nil {
			err = p.unsaved(fmt.Errorf("%v", r))
		}
	}()
	vars := p.addresses.Vars()[:len(p.Vars)]
	reasons, notes := p.unkeepable(vars)
	var kept []Var
	for _, v := range vars {
		if reasons[v.Name] == "" {
			kept = append(kept, v)
		}
	}
	groups, failed, err := p.groups(kept)
	if err != nil {
		return p.unsaved(err)
	}
	for name, why := range failed {
		reasons[name] = why
	}
	next := manifest.Manifest{Vars: map[string]manifest.Var{}}
	for name, v := range p.manifest.Vars {
		next.Vars[name] = v
	}
	for _, name := range p.Gone {
		delete(next.Vars, name)
	}
	entry := func(d Declared) manifest.Var {
		return manifest.Var{Name: d.Name, Type: d.Type, Layout: d.Layout, Code: d.Code, Noted: d.Noted, Local: d.Local, Cell: d.Cell, Changed: p.Cell}
	}
	declared := map[string]Declared{}
	for _, d := range p.Vars {
		declared[d.Name] = d
		if why := reasons[d.Name]; why != "" {
			v := entry(d)
			v.Reason, v.Same = why, d.Constant && (d.Cell == p.Cell || p.manifest.Vars[d.Name].Same)
			next.Vars[d.Name] = v
		}
	}
	for _, g := range groups {
		if err := g.write(p.Dir); err != nil {
			return p.unsaved(err)
		}
		dynamic := p.madeOf(g)
		for _, name := range g.vars {
			d := declared[name]
			v := entry(d)
			v.File, v.Objects, v.Size, v.Dynamic = g.name, strings.Join(g.objects, " "), g.sizes[name], dynamic
			if old := p.manifest.Vars[d.Name]; old.File == v.File && !d.Fresh {
				v.Changed = old.Changed
			}
			next.Vars[d.Name] = v
		}
	}
	if !same(p.manifest, next) {
		if err := next.Write(p.Dir); err != nil {
			return p.unsaved(err)
		}
		if err := manifest.Sweep(p.Dir, next); err != nil {
			say("values that are no longer used could not be removed: " + err.Error())
		}
	}
	for name, note := range notes {
		if next.Vars[name].File != p.manifest.Vars[name].File {
			say(note)
		}
	}
	return nil
}

func (p *Program) unsaved(err error) error {
	return fmt.Errorf("the variables could not be saved, and are as they were before this cell: %w", err)
}

func same(a, b manifest.Manifest) bool {
	if len(a.Vars) != len(b.Vars) {
		return false
	}
	for name, v := range a.Vars {
		if b.Vars[name] != v {
			return false
		}
	}
	return true
}

// madeOf lists the defined types that a group's values are made of, with their layouts, as far as the next program can name them: it needs those that are in
// interfaces, and those of variables that it no longer has.
func (p *Program) madeOf(g *group) string {
	var list []string
	for _, t := range g.types {
		if name := typeName(t); unfindable(t) == "" {
			list = append(list, name+"="+p.Layouts[name]) // of other packages' types there is none: they don't change
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// groups encodes what can be kept. failed says why variables turn out not to be; the error is of what could be, and was not written.
func (p *Program) groups(vars []Var) (groups []*group, failed map[string]string, err error) {
	failed = map[string]string{}
	for {
		s := newScan(vars)
		again := false
		drop := func(name, why string) {
			failed[name] = why
			again = true
		}
		for i := range vars {
			if why := s.variable(i); why != "" {
				drop(vars[i].Name, why)
			}
		}
		merged := s.merge()
		for owner, why := range s.torn {
			drop(vars[owner].Name, why)
		}
		groups = groups[:0]
		for i := range vars {
			if again || s.set(i) != i {
				continue
			}
			g, err := s.encode(p.Dir, i, merged)
			if err != nil && !errors.As(err, new(refusal)) {
				return nil, nil, err
			}
			if err != nil {
				for _, name := range g.vars {
					drop(name, err.Error())
				}
				break
			}
			g.sizes = s.sizes()
			groups = append(groups, g)
		}
		if !again {
			return groups, failed, nil
		}
		p.unit(failed)
		vars = slices.DeleteFunc(slices.Clone(vars), func(v Var) bool { return failed[v.Name] != "" })
	}
}

// sizes returns the bytes that each variable takes; what several share counts for the first.
func (s *scan) sizes() map[string]int64 {
	sizes := map[string]int64{}
	for _, r := range s.regions {
		sizes[s.vars[r.owner].Name] += int64(r.size())
	}
	for owner, size := range s.extra {
		sizes[s.vars[owner].Name] += size
	}
	return sizes
}

// Together begins the reason of a variable that is not kept because another one that is declared with it can't be.
const Together = "it is declared together with "

// unit spreads the reasons to the variables that are declared by one value with those that have one.
func (p *Program) unit(reasons map[string]string) {
	for _, d := range p.Vars {
		if why := reasons[d.Name]; why != "" {
			for _, other := range d.Unit {
				if reasons[other] == "" {
					reasons[other] = Together + d.Name + ": " + why
				}
			}
		}
	}
}

// unkeepable says which variables can't be kept, and why, and what the reader has to know about the others.
func (p *Program) unkeepable(vars []Var) (reasons, notes map[string]string) {
	reasons, notes = map[string]string{}, map[string]string{}
	memory := map[string]*scan{} // of those that can't
	for i, v := range vars {
		if why := p.Vars[i].Reason; why != "" {
			reasons[v.Name] = why
		} else if !certain(v.t, map[reflect.Type]bool{}) {
			s := newScan(vars)
			if why := s.variable(i); why != "" {
				reasons[v.Name], memory[v.Name] = why, s
			}
		}
	}
	p.unit(reasons)
	if len(memory) == 0 {
		return reasons, notes
	}
	// What points into a variable that is evaluated again would point into nothing, and what came from one and still shares memory with it would no longer.
	for changed := true; changed; {
		changed = false
		for i, v := range vars {
			if reasons[v.Name] != "" {
				continue
			}
			s := newScan(vars)
			s.variable(i)
			for _, d := range p.Vars {
				other := memory[d.Name]
				if other == nil {
					continue
				}
				into, shared := s.touches(other)
				if into || shared && slices.Contains(p.Vars[i].From, d.Name) {
					reasons[v.Name], memory[v.Name] = "it points into "+d.Name+": "+reasons[d.Name], s
					changed = true
					break
				}
			}
		}
		p.unit(reasons)
	}
	for i, v := range vars {
		for _, d := range p.Vars {
			if other := memory[d.Name]; other != nil && reasons[v.Name] == "" && !slices.Contains(d.From, v.Name) {
				s := newScan(vars)
				s.variable(i)
				if _, shared := s.touches(other); shared {
					notes[v.Name] = v.Name + " is kept without its tie to " + d.Name + ", with which it shares memory and which is evaluated again"
				}
			}
		}
	}
	return reasons, notes
}

// touches tells whether the memory of one scan lies in the variable that the other looked at, and whether both have memory in common.
func (s *scan) touches(other *scan) (into, shared bool) {
	starts := map[unsafe.Pointer]bool{}
	var own *region
	for _, r := range other.regions {
		starts[r.p] = true
		if r.root >= 0 {
			own = r
		}
	}
	for _, r := range s.regions {
		into = into || own != nil && r.start() >= own.start() && r.start() < own.end()
		shared = shared || starts[r.p]
	}
	for header := range s.maps {
		shared = shared || other.maps[header] != nil
	}
	return into, shared
}

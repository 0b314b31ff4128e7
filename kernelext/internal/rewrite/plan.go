package rewrite

import (
	"fmt"
	"go/ast"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
	"github.com/espalier-ml/espalier/kernelext/survive"
)

// variable is what becomes of one of the notebook's variables in a program.
type variable struct {
	object   types.Object
	name     string
	text     string // its type, as the generated file writes it
	nameable bool
	layout   string
	unit     []string // those that are declared together with it

	live   bool   // the program reaches it
	fresh  bool   // the program evaluates its declaration
	always bool   // its declaration has to be left as it is
	local  bool   // declared by :=
	gone   bool   // what was kept under its name is of no use
	reason string // why it is not kept, if that is known beforehand

	cell        int
	code, noted string
	from        []string
}

// plan decides what becomes of each variable.
type plan struct {
	p      *program
	g      *graph
	cell   keep.Cell
	before keep.Code
	code   keep.Code
	kept   manifest.Manifest
	vars   map[string]*variable
	notes  []string
	gone   []string
	// outgoing are variables of := whose names this cell gives to variables of other types: they are read once more.
	outgoing []*variable

	reached map[types.Object]bool // the declarations that the program needs
	imports map[types.Object]bool // the imports that it then names
	paths   map[string]bool       // of the packages of which it names something
}

func (c Config) plan(p *program, cell keep.Cell, known bool, before keep.Code, kept manifest.Manifest) (*plan, error) {
	pl := &plan{p: p, g: p.graph(), cell: cell, before: before, kept: kept, vars: map[string]*variable{}}
	pl.code = pl.g.code(before, cell.Number)
	declares := map[string]bool{}
	if known {
		for _, name := range cell.Declares {
			declares[name] = true
		}
	} else { // what has another text than in the program before is taken to stand in this cell
		for name, d := range pl.code {
			declares[name] = before[name].Digest != d.Digest
		}
	}
	for o, s := range pl.g.specs {
		v := &variable{object: o, name: o.Name()}
		v.text, v.nameable = p.typeText(o.Type(), nil)
		v.layout = p.layout(o.Type())
		for _, n := range s.Names {
			if n.Name != "_" {
				v.unit = append(v.unit, n.Name)
			}
			if object := p.info.Defs[n]; object == nil || object.Type() == nil {
				v.nameable = false
			} else if _, ok := p.typeText(object.Type(), nil); !ok {
				v.nameable = false // one that is declared together with it
			}
		}
		v.code, v.from = pl.g.origins(o, pl.code)
		switch {
		case pl.registers(s):
			v.always, v.reason = true, aFlag
		case !v.nameable:
			v.always, v.reason = true, "its type "+o.Type().String()+" can't be named in another cell"
		}
		pl.vars[v.name] = v
	}
	if p.locals != nil {
		for _, o := range p.localObjects() {
			v := &variable{object: o, name: o.Name(), local: true, nameable: true, layout: p.layout(o.Type())}
			v.text, _ = p.typeText(o.Type(), nil)
			pl.vars[v.name] = v
		}
	}
	pl.decide(c.State, declares)
	for s, err := range p.broken {
		for _, n := range s.Names {
			if v := pl.vars[n.Name]; v == nil || v.live || v.always {
				return nil, err
			}
		}
	}
	pl.hoist()
	return pl, nil
}

// aFlag is why flags are not kept. The reader is not told: it is what flags are for.
const aFlag = "a flag has the value that the arguments of each cell give it"

// registers tells whether a variable's initialiser makes a flag, which has to exist in each program.
func (pl *plan) registers(s spec) bool {
	found := false
	for _, value := range s.Values {
		ast.Inspect(value, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				f, ok := pl.p.info.Uses[id].(*types.Func)
				found = found || ok && f.Pkg() != nil && f.Pkg().Path() == "flag"
			}
			return !found
		})
	}
	return found
}

// localObjects returns the variables that earlier cells declared by :=.
func (p *program) localObjects() []types.Object {
	var list []types.Object
	for _, name := range p.pkg.Scope().Names() {
		o := p.pkg.Scope().Lookup(name)
		if _, isVar := o.(*types.Var); isVar && p.fset.Position(o.Pos()).Filename == localsFile {
			list = append(list, o)
		}
	}
	return list
}

// decide says which variables the program evaluates, which it restores, and which it has no use for.
func (pl *plan) decide(dir string, declares map[string]bool) {
	for _, name := range sorted(pl.vars) {
		v := pl.vars[name]
		old, there := pl.kept.Vars[name]
		v.cell = pl.cell.Number
		v.noted = old.Noted
		switch {
		case v.local:
			v.cell, v.code = old.Cell, old.Code
			continue
		case declares[name]:
			v.fresh, v.noted = true, ""
			continue
		case there && old.Rerun:
			v.fresh, v.noted = true, ""
			continue
		}
		if there {
			v.cell = old.Cell
		} else if d, known := pl.before[name]; known {
			v.cell = d.Cell
		}
		v.gone = old.File == "" || old.Layout != v.layout || pl.lost(dir, old) || pl.changedInside(old) != ""
		if !v.gone {
			v.code = old.Code
		}
	}
	// What is declared by one value is evaluated together.
	for _, v := range pl.vars {
		for _, other := range v.unit {
			o := pl.vars[other]
			v.fresh = v.fresh || o != nil && o.fresh
			v.gone = v.gone || o != nil && o.gone
		}
	}
	// What the program reaches, where the initialisers of what is restored don't count.
	starts := append([]types.Object(nil), pl.g.roots...)
	byObject := map[types.Object]*variable{}
	for _, v := range pl.vars {
		byObject[v.object] = v
		if v.fresh || v.always {
			starts = append(starts, v.object)
		}
	}
	for _, h := range pl.p.hoist {
		for _, o := range h.objects {
			if v := pl.variable(o); v != nil && !v.local {
				starts = append(starts, v.object) // x := 1 where x was declared by var: it is assigned to
			}
		}
	}
	restored := func(o types.Object) bool {
		v := byObject[o]
		return v != nil && !v.fresh && !v.gone && !v.always
	}
	for {
		pl.reached = pl.g.reach(starts, restored)
		before := len(starts)
		for o := range pl.reached {
			v := byObject[o]
			if v == nil || v.live {
				continue
			}
			v.live = true
			if restored(o) {
				// Methods of its type can be called, and of those that it has in interfaces.
				starts = append(starts, pl.defined(o.Type())...)
				for _, t := range pl.madeOf(v) {
					if t.Pkg() == pl.p.pkg {
						starts = append(starts, t)
					}
				}
				// With it come those that share memory with it, and would not afterwards.
				for _, name := range pl.kept.Sharing(pl.kept.Vars[v.name]) {
					if other := pl.vars[name]; other != nil && !other.live {
						starts = append(starts, other.object)
					}
				}
			}
			for _, name := range v.unit {
				if other := pl.vars[name]; other != nil && !other.live && !restored(o) {
					starts = append(starts, other.object)
				}
			}
		}
		if len(starts) == before {
			break
		}
	}
	for _, name := range sorted(pl.vars) {
		if v := pl.vars[name]; v.live {
			pl.tell(dir, v)
		}
	}
	for name, v := range pl.kept.Vars {
		if pl.vars[name] == nil && !v.Local {
			pl.gone = append(pl.gone, name)
		}
	}
	slices.Sort(pl.gone)
}

// variable returns the variable of the notebook that has the name of an object, or nil.
func (pl *plan) variable(o types.Object) *variable {
	if o == nil {
		return nil
	}
	return pl.vars[o.Name()]
}

// hoist takes in the variables that this cell's statements declare.
func (pl *plan) hoist() {
	for _, h := range pl.p.hoist {
		for _, o := range h.objects {
			if o == nil {
				continue
			}
			old := pl.variable(o)
			if old != nil && !old.local {
				continue // declared by var, and assigned to
			}
			v := &variable{object: o, name: o.Name(), local: true, nameable: true, live: true, fresh: true, cell: pl.cell.Number, layout: pl.p.layout(o.Type())}
			v.text, _ = pl.p.typeText(o.Type(), nil)
			v.fresh = old == nil || !old.live
			if old != nil && old.live && !types.Identical(old.object.Type(), o.Type()) {
				// x := len(x): the old one is read under another name.
				v.fresh = true
				pl.outgoing = append(pl.outgoing, old)
			}
			var from []string
			for used := range pl.g.reach(pl.g.used(h.statement), func(o types.Object) bool { return false }) {
				if d, there := pl.code[name(used)]; there {
					from = append(from, name(used)+"="+d.Digest)
				}
				if pl.g.kinds[used] == "var" && used.Name() != v.name {
					v.from = append(v.from, used.Name())
				}
			}
			slices.Sort(from)
			slices.Sort(v.from)
			v.code = strings.Join(from, " ")
			pl.vars[v.name] = v
		}
	}
}

// defined returns the notebook's own types that a type is made of, and aliases by which it names them: all that the generated file may write.
func (pl *plan) defined(t types.Type) []types.Object {
	var list []types.Object
	seen := map[types.Type]bool{}
	var walk func(t types.Type)
	walk = func(t types.Type) {
		if seen[t] {
			return
		}
		seen[t] = true
		if alias, ok := t.(*types.Alias); ok && alias.Obj().Pkg() == pl.p.pkg {
			list = append(list, alias.Origin().Obj())
		}
		switch t := types.Unalias(t).(type) {
		case *types.Named:
			if t.Obj().Pkg() == pl.p.pkg {
				list = append(list, t.Origin().Obj())
			}
			for i := range t.TypeArgs().Len() {
				walk(t.TypeArgs().At(i))
			}
			// What it consists of is in its declaration, or, in other packages, can't be of the notebook's types.
		case *types.Pointer:
			walk(t.Elem())
		case *types.Slice:
			walk(t.Elem())
		case *types.Array:
			walk(t.Elem())
		case *types.Map:
			walk(t.Key())
			walk(t.Elem())
		case *types.Struct:
			for i := range t.NumFields() {
				walk(t.Field(i).Type())
			}
		case *types.Chan:
			walk(t.Elem())
		case *types.Interface:
			for m := range t.Methods() {
				walk(m.Type())
			}
		case *types.Signature:
			for v := range t.Params().Variables() {
				walk(v.Type())
			}
			for v := range t.Results().Variables() {
				walk(v.Type())
			}
		}
	}
	walk(t)
	return list
}

// tell notes what the reader has to know about a variable that the program reaches, once.
func (pl *plan) tell(dir string, v *variable) {
	old, there := pl.kept.Vars[v.name]
	if v.fresh || !there {
		v.fresh = true
		return
	}
	if v.gone || v.always {
		v.fresh = true
		why := ""
		switch inside := pl.changedInside(old); {
		case old.Reason != "":
			if old.Same {
				return // nobody can tell
			}
			// Those that are declared together are named together, where the one is that can't be kept.
			if v.noted = old.Reason; old.Noted == old.Reason || old.Reason == aFlag || strings.HasPrefix(old.Reason, survive.Together) {
				return
			}
			if len(v.unit) > 1 {
				pl.notes = append(pl.notes, strings.Join(v.unit, ", ")+" are evaluated again in each cell that uses them: "+old.Reason)
			} else {
				pl.notes = append(pl.notes, v.name+" is evaluated again in each cell that uses it: "+old.Reason)
			}
			return
		case v.always || old.File == "":
			return
		case old.Layout != v.layout:
			why = fmt.Sprintf("its type has changed since cell %d", old.Cell)
		case inside != "":
			why = fmt.Sprintf("type %s, of which it holds values, has changed since cell %d", inside, old.Cell)
		case pl.lost(dir, old):
			why = fmt.Sprintf("its value from cell %d is no longer there", old.Cell)
		default:
			why = "it is declared together with one that is"
		}
		pl.notes = append(pl.notes, v.name+" starts afresh: "+why)
		return
	}
	if stale := pl.code.Stale(old.Code); stale != "" {
		// Of the same change the reader is told once.
		if v.noted = stale; old.Noted != stale {
			pl.notes = append(pl.notes, fmt.Sprintf("%s is kept from cell %d, but %s: run cell %d again to evaluate it anew", v.name, old.Cell, stale, old.Cell))
		}
	} else {
		v.noted = ""
	}
}

// lost tells whether the file of a kept value, or a directory that it needs, is gone.
func (pl *plan) lost(dir string, v manifest.Var) bool {
	for _, file := range append(strings.Fields(v.Objects), v.File) {
		if _, err := os.Lstat(filepath.Join(dir, file)); err != nil {
			return true
		}
	}
	return false
}

// madeOf returns the types that a variable's kept value is made of, as far as they have names.
func (pl *plan) madeOf(v *variable) []types.Object {
	var list []types.Object
	for _, entry := range strings.Fields(pl.kept.Vars[v.name].Dynamic) {
		name, _, _ := strings.Cut(entry, "=")
		if t := pl.find(name); t != nil {
			list = append(list, t)
		}
	}
	return list
}

// changedInside returns the first type that a kept value is made of and that this program has no longer, or otherwise.
func (pl *plan) changedInside(v manifest.Var) string {
	for _, entry := range strings.Fields(v.Dynamic) {
		name, layout, _ := strings.Cut(entry, "=")
		o := pl.find(name)
		if o == nil || layout != "" && pl.p.layout(o.Type()) != layout {
			return name
		}
	}
	return ""
}

// find returns a defined type by its package's path and its name.
func (pl *plan) find(name string) types.Object {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return nil
	}
	path, short := name[:dot], name[dot+1:]
	var scope *types.Scope
	if path == "main" {
		scope = pl.p.pkg.Scope()
	} else if pkg, err := pl.p.importer.Import(path); err == nil {
		scope = pkg.Scope()
	}
	if scope == nil {
		return nil
	}
	if o, ok := scope.Lookup(short).(*types.TypeName); ok {
		return o
	}
	return nil
}

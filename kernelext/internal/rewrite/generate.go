package rewrite

import (
	"fmt"
	"go/types"
	"slices"
	"strings"
)

const (
	module        = "github.com/espalier-ml/espalier/"
	survivePath   = module + "kernelext/survive"
	carryPath     = module + "pkg/carry"
	kernelextPath = module + "kernelext"
	generated     = "0espalier.go" // first among the package's files, so that what it initialises is initialised first
	localsFile    = "espalier_vars.go"
	surviveAlias  = prefix + "survive"
	carryAlias    = prefix + "carry"
)

// file returns the file that is added to the program.
func (pl *plan) file(state string, gomlx bool) string {
	imports := map[string]string{surviveAlias: survivePath}
	var body, declared, outgoing, addresses, registered, layouts strings.Builder
	for _, name := range sorted(pl.vars) {
		v := pl.vars[name]
		if v.live && (v.local || !v.fresh && !v.always) {
			text, _ := pl.p.typeText(v.object.Type(), imports)
			fmt.Fprintf(&body, "type %sT_%s = %s\n", prefix, name, text)
		}
		if v.local && v.live {
			fmt.Fprintf(&body, "var %s %sT_%s\n", name, prefix, name)
		}
		if !v.live {
			continue
		}
		fmt.Fprintf(&declared, "\t\t{Name: %q, Type: %q, Layout: %q, Code: %q, Noted: %q, Cell: %d, From: %#v, Unit: %#v, Fresh: %t, Constant: %t, Local: %t, Reason: %q},\n",
			name, pl.typeName(v.object.Type()), v.layout, v.code, v.noted, v.cell, v.from, v.unit, v.fresh, pl.constant(v), v.local, v.reason)
		fmt.Fprintf(&addresses, "\t\t%s.Of(%q, &%s),\n", surviveAlias, name, name)
	}
	for _, v := range pl.outgoing {
		text, _ := pl.p.typeText(v.object.Type(), imports)
		fmt.Fprintf(&body, "var %sold_%s %s\n", prefix, v.name, text)
		fmt.Fprintf(&outgoing, "\t\t{Name: %q, Layout: %q},\n", v.name, v.layout)
		fmt.Fprintf(&addresses, "\t\t%s.Of(%q, &%sold_%s),\n", surviveAlias, v.name, prefix, v.name)
	}
	for _, name := range pl.p.pkg.Scope().Names() {
		o, ok := pl.p.pkg.Scope().Lookup(name).(*types.TypeName)
		if !ok || o.IsAlias() || types.IsInterface(o.Type()) || !pl.reached[o] {
			continue
		}
		if named, ok := o.Type().(*types.Named); !ok || named.TypeParams().Len() > 0 {
			continue
		}
		fmt.Fprintf(&registered, "\t\t%s.TypeOf[%s](),\n", surviveAlias, name)
		fmt.Fprintf(&layouts, "\t\t%q: %q,\n", "main."+name, pl.p.layout(o.Type()))
	}
	others := map[string]bool{}
	for _, v := range pl.vars {
		if v.live && !v.fresh {
			for _, o := range pl.madeOf(v) {
				if text, ok := pl.p.typeText(o.Type(), nil); ok && o.Pkg() != pl.p.pkg && !others[text] {
					others[text] = true
					pl.p.typeText(o.Type(), imports)
				}
			}
		}
	}
	for _, text := range sorted(others) {
		fmt.Fprintf(&registered, "\t\t%s.TypeOf[%s](),\n", surviveAlias, text)
	}
	carried := ""
	if gomlx {
		imports[carryAlias] = carryPath
		carried = prefix + "carried(" // a function around the program, which adds what package carry knows
		fmt.Fprintf(&body, `func %[1]scarried(p *%[2]s.Program) *%[2]s.Program {
	for _, k := range %[3]s.Kinds() {
		p.Adapters = append(p.Adapters, %[2]s.Adapter(k))
	}
	for _, c := range %[3]s.Codes() {
		p.Codes = append(p.Codes, %[2]s.Code(c))
	}
	return p
}
`, prefix, surviveAlias, carryAlias)
	}
	if pl.p.shown != nil {
		dot := strings.LastIndexByte(pl.cell.Show, '.')
		path := pl.cell.Show[:dot]
		imports[aliasOf(path)] = path
		if pl.p.showsForms() {
			imports["_"] = kernelextPath // it brings the forms
		}
		fmt.Fprintf(&body, "func %sShow(values ...any) { %s.%s(values...) }\n", prefix, aliasOf(path), pl.cell.Show[dot+1:])
	}
	var b strings.Builder
	b.WriteString("package main\n\nimport (\n")
	for _, alias := range sorted(imports) {
		fmt.Fprintf(&b, "\t%s %q\n", alias, imports[alias])
	}
	fmt.Fprintf(&b, ")\n\n%s\n", body.String())
	fmt.Fprintf(&b, `var %[1]sP = %[2]s.Begin(%[8]s&%[2]s.Program{
	Dir: %[3]q, Cell: %[4]d, Gone: %#[5]v, Notes: %#[6]v, Graceful: %[7]t, Asks: %[15]t,
	Vars: []%[2]s.Declared{
%[9]s	},
	Types: []%[2]s.Type{
%[10]s	},
	Layouts: map[string]string{
%[11]s	},
	Outgoing: []%[2]s.Declared{
%[14]s	},
}%[13]s, %[1]saddresses{})

type %[1]saddresses struct{}

func (%[1]saddresses) Vars() []%[2]s.Var {
	return []%[2]s.Var{
%[12]s	}
}

func %[1]sC() {
	if %[2]s.Stop.Load() {
		%[2]s.Halt()
	}
}
`, prefix, surviveAlias, state, pl.cell.Number, pl.gone, slices.Concat(pl.notes, pl.p.notes), pl.handlesInterrupts(), carried,
		declared.String(), registered.String(), layouts.String(), addresses.String(), strings.Repeat(")", strings.Count(carried, "(")), outgoing.String(), pl.asks())
	return b.String()
}

// typeName writes a type for people.
func (pl *plan) typeName(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string {
		if p == pl.p.pkg {
			return ""
		}
		return p.Name()
	})
}

// handlesInterrupts tells whether the program asks for signals itself.
func (pl *plan) handlesInterrupts() bool {
	for _, o := range pl.p.info.Uses {
		if f, ok := o.(*types.Func); ok && f.Pkg() != nil && f.Pkg().Path() == "os/signal" && strings.HasPrefix(f.Name(), "Notify") {
			return true
		}
	}
	return false
}

// showsForms tells whether the last expression has a value that package kernelext shows in another form than as text: a table, a picture. The cell need not import it.
func (p *program) showsForms() bool {
	has := func(t types.Type) bool {
		table := types.Unalias(t)
		if pointer, ok := table.(*types.Pointer); ok {
			table = types.Unalias(pointer.Elem())
		}
		if named, ok := table.(*types.Named); ok && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == module+"pkg/report" && named.Obj().Name() == "Table" {
			return true
		}
		if t.String() == "image.Rectangle" { // a picture only to the compiler
			return false
		}
		for _, method := range []string{"ColorModel", "Bounds", "At"} { // image.Image
			if o, _, _ := types.LookupFieldOrMethod(t, false, p.pkg, method); o == nil {
				return false
			}
		}
		return true
	}
	t := p.info.Types[p.shown.X].Type
	if values, ok := t.(*types.Tuple); ok {
		for v := range values.Variables() {
			if has(v.Type()) {
				return true
			}
		}
		return false
	}
	return has(t)
}

// asks tells whether the program imports what has GoNB ask the reader: the answer comes by standard input.
func (pl *plan) asks() bool {
	return slices.ContainsFunc(pl.p.imports(), func(path string) bool { return strings.HasPrefix(path, "github.com/janpfeifer/gonb/") })
}

// carried are the types of other modules that package carry makes survive.
var carried = map[string]bool{
	"github.com/gomlx/gomlx/ml/model.Store":      true,
	"github.com/gomlx/gomlx/core/tensors.Tensor": true,
	module + "pkg/prune.Pruner":                  true,
	module + "pkg/criterion.Criterion":           true,
	module + "pkg/criterion.Normalize":           true,
	module + "pkg/unit.Unit":                     true,
	module + "pkg/budget.Budget":                 true,
}

// gomlx tells whether a variable that the program reaches may hold a value that package carry makes survive.
func (pl *plan) gomlx(e exports) bool {
	if _, links := e.Files["github.com/gomlx/gomlx/core/tensors"]; !links {
		return false
	}
	seen := map[types.Type]bool{}
	var holds func(t types.Type) bool
	holds = func(t types.Type) bool {
		t = types.Unalias(t)
		if seen[t] {
			return false
		}
		seen[t] = true
		switch t := t.(type) {
		case *types.Named:
			o := t.Obj()
			if o.Pkg() == nil {
				return false // error
			}
			if carried[o.Pkg().Path()+"."+o.Name()] {
				return true
			}
			return (o.Pkg() == pl.p.pkg || strings.HasPrefix(o.Pkg().Path(), module)) && holds(t.Underlying())
		case *types.Pointer:
			return holds(t.Elem())
		case *types.Slice:
			return holds(t.Elem())
		case *types.Array:
			return holds(t.Elem())
		case *types.Map:
			return holds(t.Key()) || holds(t.Elem())
		case *types.Struct:
			for i := range t.NumFields() {
				if holds(t.Field(i).Type()) {
					return true
				}
			}
		case *types.Interface:
			return true // it may
		}
		return false
	}
	for _, v := range pl.vars {
		if v.live && holds(v.object.Type()) {
			return true
		}
	}
	return false
}

package rewrite

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

// graph says which declarations use which.
type graph struct {
	p     *program
	uses  map[types.Object][]types.Object // in the order of the source
	kinds map[types.Object]string
	text  map[types.Object]string // of declarations in main.go
	specs map[types.Object]spec   // of the variables in main.go
	roots []types.Object          // what is needed in any case: main, init functions, constants, blank variables, what the user put beside main.go
}

// spec is where a variable is declared.
type spec struct {
	*ast.ValueSpec
	grouped bool
}

// graph finds the program's declarations.
func (p *program) graph() *graph {
	g := &graph{p: p, uses: map[types.Object][]types.Object{}, kinds: map[types.Object]string{}, text: map[types.Object]string{}, specs: map[types.Object]spec{}}
	for _, f := range p.files() {
		own := f == p.file
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				o := p.info.Defs[d.Name]
				if o == nil {
					continue
				}
				g.add(o, "func", d, own)
				if d.Recv == nil && (d.Name.Name == "main" || d.Name.Name == "init") || p.beside(f) {
					g.roots = append(g.roots, o)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.ValueSpec:
						for _, name := range s.Names {
							o := p.info.Defs[name]
							if o == nil {
								continue
							}
							g.add(o, d.Tok.String(), s, own)
							switch {
							case d.Tok == token.CONST, name.Name == "_", p.beside(f): // constants stay: iota counts them
								g.roots = append(g.roots, o)
							case d.Tok == token.VAR && own:
								g.specs[o] = spec{s, d.Lparen.IsValid()}
							}
						}
					case *ast.TypeSpec:
						if o := p.info.Defs[s.Name]; o != nil {
							g.add(o, "type", s, own)
							if p.beside(f) {
								g.roots = append(g.roots, o)
							}
						}
					}
				}
			}
		}
	}
	// What uses a type may call its methods.
	for o := range g.uses {
		if recv := receiver(o); recv != nil && g.kinds[recv] != "" {
			g.uses[recv] = append(g.uses[recv], o)
		}
	}
	return g
}

// beside tells whether a file is one that the user put beside main.go.
func (p *program) beside(f *ast.File) bool { return f != p.file && f != p.locals }

func (g *graph) add(o types.Object, kind string, n ast.Node, own bool) {
	g.kinds[o] = kind
	g.uses[o] = g.used(n)
	if own {
		g.text[o] = g.p.text(n)
	}
}

// used returns the package-level declarations and methods that a piece of the program names.
func (g *graph) used(n ast.Node) []types.Object {
	var list []types.Object
	seen := map[types.Object]bool{}
	ast.Inspect(n, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			o := origin(g.p.info.Uses[id])
			if o != nil && !seen[o] && o.Pkg() == g.p.pkg && (o.Parent() == g.p.pkg.Scope() || receiver(o) != nil) {
				seen[o] = true
				list = append(list, o)
			}
		}
		return true
	})
	return list
}

// origin returns the declaration of a generic function's or method's instance.
func origin(o types.Object) types.Object {
	if f, ok := o.(*types.Func); ok {
		return f.Origin()
	}
	return o
}

// receiver returns the type that an object is a method of, or nil.
func receiver(o types.Object) types.Object {
	f, ok := o.(*types.Func)
	if !ok || f.Signature().Recv() == nil {
		return nil
	}
	t := f.Signature().Recv().Type()
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if named, ok := t.(*types.Named); ok {
		return named.Origin().Obj()
	}
	return nil
}

// reach returns all that is used, directly or not, by some declarations, themselves among it. What stops says true of is not looked into.
func (g *graph) reach(from []types.Object, stops func(types.Object) bool) map[types.Object]bool {
	seen := map[types.Object]bool{}
	from = slices.Clone(from)
	for len(from) > 0 {
		o := from[len(from)-1]
		from = from[:len(from)-1]
		if seen[o] {
			continue
		}
		seen[o] = true
		if !stops(o) {
			from = append(from, g.uses[o]...)
		}
	}
	return seen
}

// name returns the name under which a declaration is recorded.
func name(o types.Object) string {
	if r := receiver(o); r != nil {
		return r.Name() + "." + o.Name()
	}
	return o.Name()
}

// code returns the program's declarations, and where each got its present text: in this cell if before has it with another one, or not at all.
func (g *graph) code(before keep.Code, cell int) keep.Code {
	code := keep.Code{}
	for o, text := range g.text {
		n := name(o)
		if o.Name() == "_" || n == "main" || n == "init" {
			continue
		}
		d := keep.Declaration{Kind: g.kinds[o], Digest: codeDigest(text), Cell: cell}
		if old, there := before[n]; there && old.Digest == d.Digest {
			d.Cell = old.Cell
		}
		code[n] = d
	}
	return code
}

// origins returns the declarations that a variable's value comes from, and the variables among them besides itself.
func (g *graph) origins(o types.Object, code keep.Code) (from string, vars []string) {
	var names []string
	for used := range g.reach([]types.Object{o}, func(types.Object) bool { return false }) {
		n := name(used)
		if _, there := code[n]; !there {
			continue
		}
		names = append(names, n+"="+code[n].Digest)
		if used != o && g.kinds[used] == "var" {
			vars = append(vars, n)
		}
	}
	slices.Sort(names)
	slices.Sort(vars)
	for i, n := range names {
		if i > 0 {
			from += " "
		}
		from += n
	}
	return from, vars
}

package rewrite

import (
	"cmp"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// edit replaces a piece of main.go. No edit adds or removes lines, so that errors and panics name the lines that GoNB knows.
type edit struct {
	at, length int
	text       string
}

// edits are what makes main.go take its variables from the program before.
func (pl *plan) edits() []edit {
	p := pl.p
	var edits []edit
	insert := func(at token.Pos, text string) { edits = append(edits, edit{p.offset(at), 0, text}) }
	for _, d := range p.file.Decls {
		edits = append(edits, pl.prune(d)...)
	}
	gone := slices.Clone(edits) // in what is taken out there is nothing to change
	for _, h := range p.hoist {
		edits = append(edits, edit{p.offset(h.statement.TokPos), 2, "="})
	}
	for id, o := range p.info.Uses {
		if at := p.fset.Position(id.Pos()); at.Filename == mainFile && slices.ContainsFunc(pl.outgoing, func(v *variable) bool { return v.object == o }) {
			edits = append(edits, edit{at.Offset, len(id.Name), prefix + "old_" + id.Name})
		}
	}
	insert(p.main.Body.Lbrace+1, " defer "+prefix+"P.End();")
	if p.shown != nil {
		insert(p.shown.X.Pos(), prefix+"Show(")
		insert(p.shown.X.End(), ")")
	}
	for _, d := range p.file.Decls {
		if f, ok := d.(*ast.FuncDecl); !ok || pl.reached[p.info.Defs[f.Name]] {
			pl.guard(d, func(at token.Pos, text string) {
				offset := p.offset(at)
				if !slices.ContainsFunc(gone, func(e edit) bool { return e.at < offset && offset < e.at+e.length }) {
					insert(at, text)
				}
			})
		}
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.at, b.at) })
	return edits
}

// prune takes out of a declaration what the program has no use for, so that no more is compiled and linked than it needs: a notebook's declarations
// come to be many, and what they import large. Of a variable that is restored the initialiser goes.
func (pl *plan) prune(d ast.Decl) []edit {
	p := pl.p
	switch d := d.(type) {
	case *ast.FuncDecl:
		if !pl.reached[p.info.Defs[d.Name]] {
			return []edit{p.blank(d, "")}
		}
	case *ast.GenDecl:
		var edits []edit
		left := len(d.Specs)
		drop := func(s ast.Spec, text string) {
			edits = append(edits, p.blank(s, text))
			if text == "" {
				left--
			}
		}
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ImportSpec:
				edits = append(edits, pl.imported(s)...)
			case *ast.TypeSpec:
				if !pl.reached[p.info.Defs[s.Name]] {
					drop(s, "")
				}
			case *ast.ValueSpec:
				if text, change := pl.declaration(s, d); change {
					drop(s, text)
				}
			}
		}
		if left == 0 && !d.Lparen.IsValid() {
			return []edit{p.blank(d, "")}
		}
		return edits
	}
	return nil
}

// declaration returns what stands in place of a specification of variables, and whether anything does.
//
//	counter, err = f()  →  counter esp_T_counter; err esp_T_err
func (pl *plan) declaration(s *ast.ValueSpec, d *ast.GenDecl) (text string, change bool) {
	if d.Tok != token.VAR {
		return "", false
	}
	separator := "; "
	if !d.Lparen.IsValid() {
		separator = "; var "
	}
	var decls []string
	for _, n := range s.Names {
		v := pl.vars[n.Name]
		if n.Name == "_" {
			if len(s.Names) == 1 {
				return "", false
			}
			continue
		}
		if v == nil || v.fresh || v.always {
			return "", false
		}
		if v.live {
			decls = append(decls, n.Name+" "+prefix+"T_"+n.Name)
		}
	}
	return strings.Join(decls, separator), true
}

// blank replaces a node, and keeps its lines.
func (p *program) blank(n ast.Node, text string) edit {
	at, end := p.offset(n.Pos()), p.offset(n.End())
	return edit{at, end - at, text + strings.Repeat("\n", strings.Count(string(p.src[at:end]), "\n"))}
}

// imported makes an import fit what is left of the program. A package of the standard library that is no longer named stays linked, since some, such as
// image/png, register themselves with others; those of modules go, as they are large.
func (pl *plan) imported(s *ast.ImportSpec) []edit {
	path := strings.Trim(s.Path.Value, "`\"")
	imports, dotted := pl.named()
	if s.Name != nil && s.Name.Name == "_" || s.Name != nil && s.Name.Name == "." && dotted[path] || imports[pl.p.importOf(s)] {
		return nil
	}
	if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
		return []edit{pl.p.blank(s, "")}
	}
	return []edit{pl.p.blank(s, "_ "+s.Path.Value)}
}

// importOf returns the object of an import.
func (p *program) importOf(s *ast.ImportSpec) types.Object {
	if s.Name != nil {
		return p.info.Defs[s.Name]
	}
	return p.info.Implicits[s]
}

// named returns the imports that the program names once it is pruned, and the paths of the packages of which it names something.
func (pl *plan) named() (imports map[types.Object]bool, paths map[string]bool) {
	if pl.imports != nil {
		return pl.imports, pl.paths
	}
	pl.imports, pl.paths = map[types.Object]bool{}, map[string]bool{}
	look := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				switch o := pl.p.info.Uses[id].(type) {
				case *types.PkgName:
					pl.imports[o] = true
				case nil:
				default:
					if o.Pkg() != nil && o.Parent() == o.Pkg().Scope() {
						pl.paths[o.Pkg().Path()] = true
					}
				}
			}
			return true
		})
	}
	for _, d := range pl.p.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if pl.reached[pl.p.info.Defs[d.Name]] {
				look(d)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if pl.reached[pl.p.info.Defs[s.Name]] {
						look(s)
					}
				case *ast.ValueSpec:
					if _, change := pl.declaration(s, d); !change {
						look(s)
					}
				}
			}
		}
	}
	return pl.imports, pl.paths
}

// guard lets outermost loops end when the reader presses the stop button, and has the variables saved before the program ends itself.
func (pl *plan) guard(d ast.Node, insert func(token.Pos, string)) {
	p := pl.p
	var visit func(n ast.Node, inLoop bool)
	visit = func(n ast.Node, inLoop bool) {
		ast.Inspect(n, func(child ast.Node) bool {
			if child == n || child == nil {
				return true
			}
			switch c := child.(type) {
			case *ast.FuncLit:
				visit(c, false)
				return false
			case *ast.ForStmt:
				if !inLoop {
					insert(c.Body.Lbrace+1, " "+prefix+"C();")
				}
				visit(c, true)
				return false
			case *ast.RangeStmt:
				if !inLoop {
					insert(c.Body.Lbrace+1, " "+prefix+"C();")
				}
				visit(c, true)
				return false
			case *ast.ExprStmt:
				if call, ok := c.X.(*ast.CallExpr); ok && c != p.shown {
					if f := pl.calls(call, "log"); strings.HasPrefix(f, "Fatal") {
						insert(c.Pos(), prefix+"P.Exit(1); ")
					}
				}
			case *ast.CallExpr:
				if pl.calls(c, "os") == "Exit" && len(c.Args) == 1 {
					insert(c.Args[0].Pos(), prefix+"P.Exit(")
					insert(c.Args[0].End(), ")")
				}
			}
			return true
		})
	}
	visit(d, false)
}

// calls returns the name of the function of a package that a call calls; "": it calls something else.
func (pl *plan) calls(call *ast.CallExpr, pkg string) string {
	if s, ok := call.Fun.(*ast.SelectorExpr); ok {
		if f, ok := pl.p.info.Uses[s.Sel].(*types.Func); ok && f.Pkg() != nil && f.Pkg().Path() == pkg && f.Signature().Recv() == nil {
			return f.Name()
		}
	}
	return ""
}

// apply makes the edits.
func apply(src []byte, edits []edit) []byte {
	var b []byte
	last := 0
	for _, e := range edits {
		b = append(append(b, src[last:e.at]...), e.text...)
		last = e.at + e.length
	}
	return append(b, src[last:]...)
}

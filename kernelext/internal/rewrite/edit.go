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
	done := map[*ast.ValueSpec]bool{}
	for o, s := range pl.g.specs {
		v := pl.vars[o.Name()]
		if done[s.ValueSpec] || v.fresh || v.always || len(s.Values) == 0 {
			continue
		}
		done[s.ValueSpec] = true
		edits = append(edits, pl.defuse(s)...)
	}
	for _, h := range p.hoist {
		edits = append(edits, edit{p.offset(h.statement.TokPos), 2, "="})
	}
	insert(p.main.Body.Lbrace+1, " defer "+prefix+"P.End();")
	if p.shown != nil {
		insert(p.shown.X.Pos(), prefix+"Show(")
		insert(p.shown.X.End(), ")")
	}
	for _, d := range p.file.Decls {
		pl.guard(d, insert)
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.at, b.at) })
	return edits
}

// defuse declares a specification's variables without a value. Their initialiser becomes a function that nobody calls: what it imports is still used.
//
//	counter, err = f()  →  counter esp_T_counter; err esp_T_err; _ = func() (esp_T_counter, esp_T_err) { return f() }
func (pl *plan) defuse(s spec) []edit {
	p := pl.p
	var decls, results []string
	for _, n := range s.Names {
		if n.Name == "_" {
			text, _ := p.typeText(p.info.Defs[n].Type(), nil)
			results = append(results, text)
			continue
		}
		decls = append(decls, n.Name+" "+prefix+"T_"+n.Name)
		results = append(results, prefix+"T_"+n.Name)
	}
	separator := "; "
	if !s.grouped {
		separator = "; var "
	}
	from, to, end := p.offset(s.Names[0].Pos()), p.offset(s.Values[0].Pos()), p.offset(s.Values[len(s.Values)-1].End())
	lines := strings.Count(string(p.src[from:to]), "\n")
	text := strings.Join(decls, separator) + separator + "_ = func() (" + strings.Join(results, ", ") + ") {" + strings.Repeat("\n", lines) + " return "
	return []edit{{from, to - from, text}, {end, 0, " }"}}
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

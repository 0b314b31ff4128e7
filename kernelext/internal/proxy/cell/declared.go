package cell

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"slices"
	"strings"
)

// declare notes the package-level declarations of a cell's file but main: names, and Type~Method for methods. GoNB would keep the last of two that have one name, and say nothing: that is an error here.
func (c *Cell) declare(files *token.FileSet, file *ast.File, origin []int) error {
	c.Declares = []string{}
	for _, d := range declared(file) {
		if slices.Contains(c.Declares, d.name) && d.name != "_" && d.name != "init" {
			message := strings.Replace(d.name, "~", ".", 1) + " is declared twice in this cell"
			return c.syntaxError(scanner.ErrorList{{Pos: files.Position(d.at), Msg: message}}, origin)
		}
		c.Declares = append(c.Declares, d.name)
	}
	return nil
}

// declaration is a name that a file declares, and where.
type declaration struct {
	name string
	at   token.Pos
}

func declared(file *ast.File) []declaration {
	var names []declaration
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			switch {
			case d.Recv != nil:
				names = append(names, declaration{receiver(d.Recv) + "~" + d.Name.Name, d.Name.Pos()})
			case d.Name.Name != "main":
				names = append(names, declaration{d.Name.Name, d.Name.Pos()})
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					for _, n := range s.Names {
						names = append(names, declaration{n.Name, n.Pos()})
					}
				case *ast.TypeSpec:
					names = append(names, declaration{s.Name.Name, s.Name.Pos()})
				}
			}
		}
	}
	return names
}

// receiver returns the name of a method's type.
func receiver(list *ast.FieldList) string {
	if len(list.List) == 0 {
		return ""
	}
	t := list.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.ParenExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// statements parses the statements of a piece of text; nil if it does not parse.
func statements(text string) []ast.Stmt {
	file, err := parser.ParseFile(token.NewFileSet(), "", head+"func _() {"+text+"\n}", parser.SkipObjectResolution)
	if err != nil || len(file.Decls) != 1 {
		return nil
	}
	return file.Decls[0].(*ast.FuncDecl).Body.List
}

// noteLocals adds the names that statements make with := or var.
func noteLocals(text string, locals map[string]bool) {
	for _, s := range statements(text) {
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				for _, e := range s.Lhs {
					if name, ok := e.(*ast.Ident); ok {
						locals[name.Name] = true
					}
				}
			}
		case *ast.DeclStmt:
			if d, ok := s.Decl.(*ast.GenDecl); ok && d.Tok == token.VAR {
				for _, spec := range d.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						locals[name.Name] = true
					}
				}
			}
		}
	}
}

// usesLocal says whether a variable's declaration uses one of the names.
func usesLocal(text string, locals map[string]bool) bool {
	uses := false
	for _, s := range statements(text) {
		d, ok := s.(*ast.DeclStmt)
		if !ok {
			continue
		}
		for _, spec := range d.Decl.(*ast.GenDecl).Specs {
			if v, ok := spec.(*ast.ValueSpec); ok {
				for _, value := range v.Values {
					ast.Inspect(value, func(n ast.Node) bool {
						if name, ok := n.(*ast.Ident); ok && locals[name.Name] {
							uses = true
						}
						return !uses
					})
				}
			}
		}
	}
	return uses
}

// shortened gives `var a, b = x, y` the form `a, b := x, y`, in which a variable survives its cell. It keeps lines where they are.
func shortened(text string) (string, bool) {
	list := statements(text)
	if len(list) != 1 {
		return "", false
	}
	d, ok := list[0].(*ast.DeclStmt)
	if !ok {
		return "", false
	}
	g := d.Decl.(*ast.GenDecl)
	if g.Lparen.IsValid() || len(g.Specs) != 1 {
		return "", false
	}
	v := g.Specs[0].(*ast.ValueSpec)
	equals := strings.IndexByte(text, '=')
	if v.Type != nil || len(v.Values) == 0 || equals < 0 {
		return "", false
	}
	return strings.TrimPrefix(text[:equals], "var ") + ":" + text[equals:], true
}

// importsOf lists the imports in a declaration: name, where there is one, and path.
func importsOf(declaration string) []string { return FileImports(head + declaration) }

// FileImports lists the imports of a file: name, where there is one, and path; none if it does not parse.
func FileImports(text string) []string {
	file, err := parser.ParseFile(token.NewFileSet(), "", text, parser.ImportsOnly)
	if err != nil {
		return nil
	}
	var list []string
	for _, i := range file.Imports {
		text := i.Path.Value
		if i.Name != nil {
			text = i.Name.Name + " " + text
		}
		list = append(list, text)
	}
	return list
}

// Without returns a file's text with the declarations of some names blanked out, lines as they are; "package main" if it does not parse.
func Without(text string, names []string) string {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", text, parser.SkipObjectResolution)
	if err != nil {
		return "package main\n"
	}
	out := []byte(text)
	blank := func(n ast.Node) {
		for i := files.Position(n.Pos()).Offset; i < files.Position(n.End()).Offset; i++ {
			if out[i] != '\n' {
				out[i] = ' '
			}
		}
	}
	of := func(d ast.Decl) bool {
		return slices.ContainsFunc(declared(&ast.File{Decls: []ast.Decl{d}}), func(d declaration) bool { return slices.Contains(names, d.name) })
	}
	for _, d := range file.Decls {
		g, group := d.(*ast.GenDecl)
		if !group || !g.Lparen.IsValid() {
			if of(d) {
				blank(d)
			}
			continue
		}
		for _, s := range g.Specs {
			if of(&ast.GenDecl{Tok: g.Tok, Specs: []ast.Spec{s}}) {
				blank(s)
			}
		}
	}
	return string(out)
}

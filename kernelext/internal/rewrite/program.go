package rewrite

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const mainFile = "main.go"

// program is the cell's program as GoNB wrote it, type-checked.
type program struct {
	fset   *token.FileSet
	src    []byte
	file   *ast.File   // main.go
	others []*ast.File // those that the user put beside it
	locals *ast.File   // declares the variables that earlier cells declared by :=
	pkg    *types.Package
	info   *types.Info

	importer types.Importer

	main   *ast.FuncDecl // nil: there is none
	hoist  []hoisting
	shown  *ast.ExprStmt // the last expression, if it is to be shown
	notes  []string
	broken map[*ast.ValueSpec]*CompileError // initialisers that do not compile
}

// hoisting is a statement among a cell's, x := 1, that declares variables which survive.
type hoisting struct {
	statement *ast.AssignStmt
	objects   []types.Object // in the order of the left side; nil for the blank identifier
}

// CompileError says that the program does not compile. It lists what is wrong as the Go command would.
type CompileError struct{ Problems []string }

func (e *CompileError) Error() string { return strings.Join(e.Problems, "\n") }

// parse reads the program's files.
func (c Config) parse() (*program, error) {
	p := &program{fset: token.NewFileSet()}
	var err error
	if p.src, err = os.ReadFile(filepath.Join(c.Dir, mainFile)); err != nil {
		return nil, err
	}
	var problems []string
	read := func(name string, src any) *ast.File {
		f, err := parser.ParseFile(p.fset, name, src, parser.SkipObjectResolution)
		var list scanner.ErrorList
		if errors.As(err, &list) {
			for _, e := range list {
				problems = append(problems, "./"+e.Error())
			}
		} else if err != nil {
			problems = append(problems, err.Error())
		}
		return f
	}
	p.file = read(mainFile, p.src)
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if name == mainFile || name == localsFile || name == "other.go" || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue // GoNB keeps declarations in other.go for gopls, while main.go is no program
		}
		src, err := os.ReadFile(filepath.Join(c.Dir, name))
		if err != nil {
			return nil, err
		}
		p.others = append(p.others, read(name, src))
	}
	if len(problems) > 0 {
		return nil, &CompileError{problems}
	}
	for _, d := range p.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "main" {
			p.main = f
		}
	}
	return p, nil
}

// imports returns the paths that the program's files import.
func (p *program) imports() []string {
	var paths []string
	for _, f := range p.files() {
		for _, i := range f.Imports {
			paths = append(paths, strings.Trim(i.Path.Value, `"`+"`"))
		}
	}
	return paths
}

func (p *program) files() []*ast.File {
	files := append([]*ast.File{p.file}, p.others...)
	if p.locals != nil {
		files = append(files, p.locals)
	}
	return files
}

// declared returns the names that the program declares at package level, and those of its imports.
func (p *program) declared() map[string]bool {
	names := map[string]bool{}
	for _, f := range append([]*ast.File{p.file}, p.others...) {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					names[d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.ImportSpec:
						names[importName(s)] = true
					case *ast.ValueSpec:
						for _, n := range s.Names {
							names[n.Name] = true
						}
					case *ast.TypeSpec:
						names[s.Name.Name] = true
					}
				}
			}
		}
	}
	return names
}

// check type-checks the program. statements: main's statements are the cell's, so that x := 1 among them declares variables that survive; show: the
// value of the last of them is shown.
func (p *program) check(e exports, statements, show bool) error {
	p.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}, Implicits: map[ast.Node]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{}}
	var errs []types.Error
	p.importer = importer.ForCompiler(p.fset, "gc", func(path string) (io.ReadCloser, error) {
		file, there := e.Files[path]
		if !there {
			return nil, fmt.Errorf("the Go command does not know package %s", path)
		}
		return os.Open(file)
	})
	conf := types.Config{
		Importer: p.importer,
		Error: func(err error) {
			var e types.Error
			if errors.As(err, &e) {
				errs = append(errs, e)
			}
		},
	}
	p.pkg, _ = conf.Check("main", p.fset, p.files(), p.info) // its error is the first of errs
	allowed := map[token.Pos]bool{}
	if statements && p.main != nil && p.main.Body != nil {
		p.findHoisted(allowed)
	}
	if show {
		p.findShown()
	}
	var problems []string
	p.broken = map[*ast.ValueSpec]*CompileError{}
	for _, e := range errs {
		// A variable that survives is used by later cells; what is shown is used.
		if strings.HasPrefix(e.Msg, "declared and not used") && allowed[e.Pos] ||
			p.shown != nil && strings.HasSuffix(e.Msg, "is not used") && e.Pos >= p.shown.Pos() && e.Pos < p.shown.End() {
			continue
		}
		// Nobody drops a dot import that this cell has no use for, and others may have: it is taken out of the program.
		if p.inDotImport(e.Pos) && strings.HasSuffix(e.Msg, "imported and not used") {
			continue
		}
		at := p.fset.Position(e.Pos)
		problem := fmt.Sprintf("./%s:%d:%d: %s", at.Filename, at.Line, at.Column, e.Msg)
		// An old initialiser that does not fit a new type is no matter to a program that has no use for it.
		if s := p.initialiser(e.Pos); s != nil {
			if p.broken[s] == nil {
				p.broken[s] = &CompileError{}
			}
			p.broken[s].Problems = append(p.broken[s].Problems, problem)
			continue
		}
		problems = append(problems, problem)
	}
	if err := p.hidden(); err != nil {
		return err
	}
	if len(problems) > 10 {
		problems = append(problems[:10], "too many errors")
	}
	if len(problems) > 0 {
		return &CompileError{problems}
	}
	return nil
}

// inDotImport tells whether a position lies in an import of the form `import . "strings"`.
func (p *program) inDotImport(at token.Pos) bool {
	return slices.ContainsFunc(p.file.Imports, func(s *ast.ImportSpec) bool {
		return s.Name != nil && s.Name.Name == "." && at >= s.Pos() && at < s.End()
	})
}

// initialiser returns the specification of variables whose values a position lies in, or nil.
func (p *program) initialiser(at token.Pos) *ast.ValueSpec {
	for _, d := range p.file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR || at < g.Pos() || at >= g.End() {
			continue
		}
		for _, s := range g.Specs {
			if v := s.(*ast.ValueSpec); len(v.Values) > 0 && at >= v.Values[0].Pos() && at < v.End() {
				return v
			}
		}
	}
	return nil
}

// findHoisted finds the statements that declare variables which survive. Where these are, "declared and not used" is no error.
func (p *program) findHoisted(allowed map[token.Pos]bool) {
	for _, s := range p.main.Body.List {
		assign, ok := s.(*ast.AssignStmt)
		if !ok || assign.Tok != token.DEFINE {
			continue
		}
		h := hoisting{statement: assign}
		why := ""
		for _, left := range assign.Lhs {
			id, ok := left.(*ast.Ident)
			if !ok {
				why = "a left side that is no name"
				break
			}
			if id.Name == "_" {
				h.objects = append(h.objects, nil)
				continue
			}
			object := p.info.Defs[id]
			if object == nil {
				object = p.info.Uses[id]
			}
			if object == nil || object.Type() == nil || object.Type() == types.Typ[types.Invalid] {
				why = "it has no type"
				break
			}
			if slices.ContainsFunc(p.file.Imports, func(s *ast.ImportSpec) bool { return importName(s) == id.Name }) {
				why = "the notebook imports a package of its name"
			}
			if what := hides(id.Name); what != "" {
				why = "a variable of its name would hide Go's own " + what + " from all cells"
			}
			if _, ok := p.typeText(object.Type(), nil); !ok {
				why = "its type " + object.Type().String() + " can't be named in another cell"
			}
			if outer := p.pkg.Scope().Lookup(id.Name); outer != nil && p.fset.Position(outer.Pos()).Filename != localsFile {
				if _, isVar := outer.(*types.Var); !isVar || !types.Identical(outer.Type(), object.Type()) {
					why = "it is another one than the " + id.Name + " declared before"
				}
			}
			h.objects = append(h.objects, object)
		}
		if why == "" {
			p.hoist = append(p.hoist, h)
			for _, o := range h.objects {
				if o != nil {
					allowed[o.Pos()] = true
				}
			}
		} else if id, ok := assign.Lhs[0].(*ast.Ident); ok {
			p.notes = append(p.notes, id.Name+" ends with this cell: "+why)
		}
	}
}

// majorVersion is a last element of an import path that is no name.
var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// importName returns the name under which a file has a package, as far as its path says.
func importName(s *ast.ImportSpec) string {
	if s.Name != nil {
		return s.Name.Name
	}
	importPath := strings.Trim(s.Path.Value, "\"`")
	if dir, last := path.Split(importPath); majorVersion.MatchString(last) {
		importPath = path.Clean(dir)
	}
	return path.Base(importPath)
}

// hides says what of Go itself, of that which the generated file needs, a package-level declaration of a name hides: "type string"; "": nothing.
func hides(name string) string {
	switch types.Universe.Lookup(name).(type) {
	case *types.TypeName:
		return "type " + name
	case *types.Const, *types.Nil:
		return name
	}
	if name == "append" {
		return name
	}
	return ""
}

// hidden is the error of a program that declares names which the generated file needs as Go has them; nil: it does not.
func (p *program) hidden() error {
	var problems []string
	for _, name := range p.pkg.Scope().Names() {
		if what := hides(name); what != "" {
			at := p.fset.Position(p.pkg.Scope().Lookup(name).Pos())
			problems = append(problems, fmt.Sprintf("./%s:%d:%d: %s hides Go's own %s from all cells: give it another name", at.Filename, at.Line, at.Column, name, what))
		}
	}
	if problems == nil {
		return nil
	}
	return &CompileError{problems}
}

// findShown finds the last expression among main's statements, if it has a value, or several that are not those of printing.
func (p *program) findShown() {
	if p.main == nil || p.main.Body == nil || len(p.main.Body.List) == 0 {
		return
	}
	last, ok := p.main.Body.List[len(p.main.Body.List)-1].(*ast.ExprStmt)
	if !ok {
		return
	}
	tv, ok := p.info.Types[last.X]
	if !ok || tv.IsNil() || tv.Type == types.Typ[types.Invalid] {
		return
	}
	if values, ok := tv.Type.(*types.Tuple); ok {
		if values.Len() < 2 || p.prints(last.X) {
			return
		}
	} else if !tv.IsValue() {
		return
	}
	p.shown = last
}

// prints tells whether a call is one of those that are made for what they write, and not for the number of bytes and the error that they return: fmt.Println, w.Write.
func (p *program) prints(call ast.Expr) bool {
	c, ok := ast.Unparen(call).(*ast.CallExpr)
	if !ok {
		return false
	}
	s, ok := ast.Unparen(c.Fun).(*ast.SelectorExpr)
	return ok && slices.ContainsFunc([]string{"Print", "Fprint", "Write"}, func(prefix string) bool { return strings.HasPrefix(s.Sel.Name, prefix) })
}

// text returns the source of a node of main.go.
func (p *program) text(n ast.Node) string {
	return string(p.src[p.offset(n.Pos()):p.offset(n.End())])
}

func (p *program) offset(at token.Pos) int { return p.fset.Position(at).Offset }

// typeText returns how the generated file writes a type, and whether it can. The packages that it names are added to imports, by alias.
func (p *program) typeText(t types.Type, imports map[string]string) (string, bool) {
	ok := true
	text := types.TypeString(t, func(pkg *types.Package) string {
		if pkg == p.pkg {
			return ""
		}
		alias := aliasOf(pkg.Path())
		if imports != nil {
			imports[alias] = pkg.Path()
		}
		ok = ok && importable(pkg.Path())
		return alias
	})
	seen := map[types.Type]bool{}
	var walk func(t types.Type)
	walk = func(t types.Type) {
		if seen[t] {
			return
		}
		seen[t] = true
		named := func(o *types.TypeName, args *types.TypeList) {
			if o.Pkg() == p.pkg && o.Parent() != p.pkg.Scope() || o.Pkg() != nil && o.Pkg() != p.pkg && !o.Exported() {
				ok = false
			}
			for i := range args.Len() {
				walk(args.At(i))
			}
		}
		switch t := t.(type) {
		case *types.Named:
			named(t.Obj(), t.TypeArgs())
		case *types.Alias:
			named(t.Obj(), t.TypeArgs())
		case *types.TypeParam:
			ok = false
		case *types.Pointer:
			walk(t.Elem())
		case *types.Slice:
			walk(t.Elem())
		case *types.Array:
			walk(t.Elem())
		case *types.Chan:
			walk(t.Elem())
		case *types.Map:
			walk(t.Key())
			walk(t.Elem())
		case *types.Struct:
			for i := range t.NumFields() {
				walk(t.Field(i).Type())
			}
		case *types.Signature:
			walk(t.Params())
			walk(t.Results())
		case *types.Tuple:
			for i := range t.Len() {
				walk(t.At(i).Type())
			}
		case *types.Interface:
			for i := range t.NumExplicitMethods() {
				walk(t.ExplicitMethod(i).Type())
			}
			for i := range t.NumEmbeddeds() {
				walk(t.EmbeddedType(i))
			}
		}
	}
	walk(t)
	return text, ok
}

// prefix begins the names that the rewritten program adds.
const prefix = "esp_"

func aliasOf(path string) string {
	return prefix + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, path)
}

func importable(path string) bool {
	return !strings.Contains("/"+path+"/", "/internal/") && path != "main"
}

// layout is the digest of all that a type consists of, as far as it can change while a kernel runs: in the notebook and in this project.
func (p *program) layout(t types.Type) string {
	var b strings.Builder
	seen := map[*types.TypeName]bool{}
	var write func(t types.Type)
	write = func(t types.Type) {
		switch t := types.Unalias(t).(type) {
		case *types.Named:
			o := t.Obj()
			b.WriteString(types.TypeString(t, nil))
			if o.Pkg() == nil || o.Pkg() != p.pkg && !strings.HasPrefix(o.Pkg().Path(), module) || seen[o] {
				return
			}
			seen[o] = true
			b.WriteString("=")
			write(t.Underlying())
		case *types.Pointer:
			b.WriteString("*")
			write(t.Elem())
		case *types.Slice:
			b.WriteString("[]")
			write(t.Elem())
		case *types.Array:
			fmt.Fprintf(&b, "[%d]", t.Len())
			write(t.Elem())
		case *types.Chan:
			b.WriteString("chan ")
			write(t.Elem())
		case *types.Map:
			b.WriteString("map[")
			write(t.Key())
			b.WriteString("]")
			write(t.Elem())
		case *types.Struct:
			b.WriteString("struct{")
			for i := range t.NumFields() {
				b.WriteString(t.Field(i).Name() + " ")
				write(t.Field(i).Type())
				b.WriteString(";")
			}
			b.WriteString("}")
		default:
			b.WriteString(types.TypeString(t, nil))
		}
	}
	write(t)
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:8])
}

// codeDigest is the digest of a declaration's tokens: comments and layout don't count.
func codeDigest(text string) string {
	h := sha256.New()
	fset := token.NewFileSet()
	var s scanner.Scanner
	s.Init(fset.AddFile("", fset.Base(), len(text)), []byte(text), nil, 0)
	for separated := false; ; {
		_, tok, literal := s.Scan()
		if tok == token.EOF {
			break
		}
		// A new line separates what a semicolon does, and nothing before a bracket.
		if tok == token.SEMICOLON {
			separated = true
			continue
		}
		if separated && tok != token.RBRACE && tok != token.RPAREN {
			fmt.Fprintln(h, ";")
		}
		separated = false
		fmt.Fprintf(h, "%d %s\n", tok, literal)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

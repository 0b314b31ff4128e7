package cell

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"slices"
	"strings"
)

// Cell is a cell that was read.
type Cell struct {
	Source   string
	Lines    []string
	Commands []Line // in their order. The magics of a cell that is not Go are not among them
	Other    *Line  // the first line of a cell that is not Go, such as %%bash; nil: it is Go

	Declares   []string // package-level declarations: names, and Type~Method
	Statements bool     // it has statements at top level, which main is put around
	Shows      bool     // its last statement is an expression whose value is to be shown

	clauses []int // the lines that name a package

	code   []string // what GoNB gets, commands included
	origin []int    // for each line of code: the line of the source that it comes from, -1: none
}

// SyntaxError is a cell's first mistake that the parser finds.
type SyntaxError struct {
	Line, Column int // from 1
	Message      string
}

func (e *SyntaxError) Error() string { return e.Message }

// otherCells are GoNB's cell magics: what follows them is not Go.
var otherCells = []string{"%writefile", "%script", "%bash", "%sh", "%gx"}

// Read reads a cell. If its Go part does not parse the error is a *SyntaxError, and the cell is as good as can be.
func Read(source string) (*Cell, error) {
	source = strings.ReplaceAll(source, "\r\n", "\n") // else a command's last word would end in \r
	c := &Cell{Source: source, Lines: strings.Split(source, "\n")}
	c.Commands, c.clauses = commands(c.Lines)
	if len(c.Commands) > 0 {
		first := c.Commands[0]
		if first.Kind == Magic && first.First == 0 && strings.HasPrefix(first.Text, "%") && len(first.Text) > 1 && first.Name() != "%" {
			c.Other, c.Commands, c.clauses = &first, nil, nil
			c.code, c.origin = c.Lines, count(len(c.Lines))
			return c, nil
		}
	}
	err := c.compose()
	c.shield()
	c.passArgs()
	return c, err
}

// IsOtherOfGonb says whether a cell that is not Go is one of those that GoNB knows.
func (c *Cell) IsOtherOfGonb() bool {
	return c.Other != nil && slices.Contains(otherCells, c.Other.Name())
}

// count returns 0, 1, …, n-1.
func count(n int) []int {
	ns := make([]int, n)
	for i := range ns {
		ns[i] = i
	}
	return ns
}

// starter says whether a command begins main (`%%`, `%main`), or makes one (`%exec f`).
func starter(l Line) (begins, makes bool) {
	if l.Kind != Magic {
		return false, false
	}
	switch l.Name() {
	case "%", "main":
		return true, false
	case "exec":
		return false, true
	}
	return false, false
}

// compose finds what of the cell is declarations and what is statements.
func (c *Cell) compose() error {
	text := c.goText()
	explicit := -1
	for _, l := range c.Commands {
		begins, makes := starter(l)
		if begins && explicit < 0 {
			explicit = l.First
		} else if makes && explicit < 0 {
			explicit = len(c.Lines)
		}
	}
	c.code, c.origin = slices.Clone(c.Lines), count(len(c.Lines))
	if explicit >= 0 {
		return c.checkExplicit(text, explicit)
	}
	files := token.NewFileSet()
	if file, err := parser.ParseFile(files, "", head+text, parser.SkipObjectResolution); err == nil {
		return c.declare(files, file, c.origin)
	}
	parts := split(text)
	if !slices.ContainsFunc(parts, func(p part) bool { return !p.declaration }) {
		_, err := parser.ParseFile(files, "", head+text, parser.SkipObjectResolution)
		return c.syntaxError(err, c.origin)
	}
	return c.wrap(text, parts)
}

// head makes a file of Go text without moving its lines.
const head = "package p;"

// goText returns the cell's Go, with the lines of commands empty, and those by which a file names its package: GoNB takes them out.
func (c *Cell) goText() string {
	lines := slices.Clone(c.Lines)
	for _, l := range c.Commands {
		for i := l.First; i <= l.Last; i++ {
			lines[i] = ""
		}
	}
	for _, i := range c.clauses {
		lines[i] = ""
	}
	return strings.Join(lines, "\n")
}

// checkExplicit looks at a cell that says itself where main begins.
func (c *Cell) checkExplicit(text string, at int) error {
	lines := strings.Split(text, "\n")
	if at < len(lines) {
		lines[at] = "func main() {"
		lines = append(lines, "}")
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", head+strings.Join(lines, "\n"), parser.SkipObjectResolution)
	if err == nil {
		err = c.declare(files, file, c.origin)
	}
	if err != nil {
		return c.syntaxError(err, c.origin)
	}
	// A last expression that is no call would not compile, so that no notebook means anything else by it.
	if last := lastExpression(file); last != nil {
		if _, call := last.X.(*ast.CallExpr); !call {
			c.Shows = !c.endsInSemicolon()
		}
	}
	return nil
}

// opening is what the statements of a cell are put into. It stands on the line of the first, so that lines stay where they are.
const opening = "func main() { "

// openingWithArgs also has the program look at its arguments, as `%%` does.
const openingWithArgs = opening + "flag.Parse(); "

// args returns the cell's %args; nil: it has none.
func (c *Cell) args() *Line {
	for i, l := range c.Commands {
		if l.Kind == Magic && l.Name() == "args" {
			return &c.Commands[i]
		}
	}
	return nil
}

// passArgs has a main that begins without arguments get those of an %args before it: GoNB would forget them there.
func (c *Cell) passArgs() {
	args := c.args()
	if args == nil {
		return
	}
	for _, l := range c.Commands {
		if begins, _ := starter(l); begins && l.Text == l.Name() && l.First > args.First {
			c.code[l.First] += strings.TrimPrefix(args.Text, args.Name())
		}
	}
}

// wrap puts main around the statements, from the first to the last; declarations between them come after it.
func (c *Cell) wrap(text string, parts []part) error {
	first := slices.IndexFunc(parts, func(p part) bool { return !p.declaration })
	locals := map[string]bool{}
	for i, p := range parts {
		if p.declaration && p.keyword == token.VAR && usesLocal(text[p.from:p.to], locals) {
			// A variable that is made from what a statement before made: it has to be a statement too.
			parts[i].declaration = false
		}
		if !parts[i].declaration {
			noteLocals(text[p.from:p.to], locals)
		}
	}
	last := len(parts) - 1
	for parts[last].declaration {
		last--
	}
	from, to := parts[first].from, parts[last].to
	opening := opening
	if c.args() != nil {
		opening = openingWithArgs
	}
	var b builder
	b.add(text, 0, from)
	b.insert(opening)
	at := from
	var moved []part
	for _, p := range parts[first : last+1] {
		if p.declaration {
			b.add(text, at, p.from)
			b.blank(text[p.from:p.to])
			moved = append(moved, p)
			at = p.to
		} else if short, ok := shortened(text[p.from:p.to]); ok {
			b.add(text, at, p.from)
			b.replace(short, text, p.from)
			at = p.to
		}
	}
	b.add(text, at, to)
	b.insert("\n}")
	for _, p := range moved {
		b.insert("\n")
		b.from = p.from
		b.add(text, p.from, p.to)
	}
	b.add(text, to, len(text))
	code, origin := b.finish(text)
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", head+code, parser.SkipObjectResolution)
	if err != nil {
		err = c.syntaxError(err, origin)
		var e *SyntaxError
		if errors.As(err, &e) && e.Line == lineOf(text, from) && e.Column > len(opening) {
			e.Column -= len(opening)
		}
		return err
	}
	if countMains(file) > 1 {
		return &SyntaxError{lineOf(text, from), 1, "the cell has func main and statements outside of functions; it can have one of the two"}
	}
	if err := c.declare(files, file, origin); err != nil {
		return err
	}
	c.Statements = true
	c.Shows = lastExpression(file) != nil && !c.endsInSemicolon()
	c.code, c.origin = strings.Split(code, "\n"), origin
	for _, l := range c.Commands {
		for i := l.First; i <= l.Last; i++ {
			// The line of a command is empty in the code, so it is there once, and nothing else is on it.
			if at := slices.Index(c.origin, i); at >= 0 {
				c.code[at] = c.Lines[i]
			}
		}
	}
	return nil
}

func lineOf(text string, offset int) int { return 1 + strings.Count(text[:offset], "\n") }

// endsInSemicolon says whether the reader silenced the last expression.
func (c *Cell) endsInSemicolon() bool {
	return strings.HasSuffix(strings.TrimRight(c.goText(), " \t\r\n"), ";")
}

func countMains(file *ast.File) int {
	n := 0
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "main" {
			n++
		}
	}
	return n
}

// lastExpression returns the expression that main ends with; nil: it ends with something else.
func lastExpression(file *ast.File) *ast.ExprStmt {
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || f.Name.Name != "main" || f.Body == nil {
			continue
		}
		for i := len(f.Body.List) - 1; i >= 0; i-- {
			switch s := f.Body.List[i].(type) {
			case *ast.EmptyStmt:
			case *ast.ExprStmt:
				return s
			default:
				return nil
			}
		}
	}
	return nil
}

// syntaxError turns the parser's error into one that speaks of the cell's lines.
func (c *Cell) syntaxError(err error, origin []int) error {
	var list scanner.ErrorList
	if !errors.As(err, &list) || len(list) == 0 {
		return err
	}
	e := &SyntaxError{Line: len(c.Lines), Column: list[0].Pos.Column, Message: list[0].Msg}
	line := list[0].Pos.Line - 1
	if line < len(origin) && origin[line] >= 0 {
		e.Line = origin[line] + 1
		if line == 0 {
			e.Column = max(1, e.Column-len(head))
		}
		return e
	}
	// On a line that was added: the cell ends too early.
	for line = min(line, len(origin)-1); line > 0 && origin[line] < 0; {
		line--
	}
	e.Line = max(origin[line], 0) + 1
	e.Column = len(strings.TrimRight(c.Lines[e.Line-1], " \t\r")) + 1
	if i := strings.Index(e.Message, ", found "); i >= 0 {
		e.Message = e.Message[:i] + ", found the end of the statements"
	}
	return e
}

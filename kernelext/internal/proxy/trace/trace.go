// Package trace turns what the compiler and dying programs print into errors that speak of the notebook: a type, a value of one line, and a traceback
// that points at cells and lines. Frames of the machinery (the runtime, what the kernel puts around a cell) are left out.
package trace

import (
	"fmt"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
)

// Error is an error as the protocol wants it.
type Error struct {
	Name      string   `json:"ename"`
	Value     string   `json:"evalue"` // one line
	Traceback []string `json:"traceback"`
}

// The types of errors.
const (
	Compile     = "CompileError"
	Panic       = "panic"
	Fatal       = "fatal error"
	Exit        = "ExitError"
	Shell       = "ShellError"
	Interrupted = "Interrupted"
	Command     = "MagicError"
	Gonb        = "GonbError"   // GoNB's own, of a kind that is not known
	Kernel      = "KernelError" // the kernel's
)

// Plain is an error without a place.
func Plain(name, value string, more ...string) Error {
	value = oneLine(value)
	return Error{Name: name, Value: value, Traceback: append([]string{title(name, value)}, more...)}
}

func oneLine(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(text)
}

// title is a traceback's first line, in red.
func title(name, value string) string {
	return "\x1b[31m" + name + "\x1b[0m: " + value
}

// Cells gives the cells that GoNB knows, by its own count.
type Cells interface {
	// Cell returns the cell that GoNB counts as n, and the number under which the reader knows it; nil: it is not known.
	Cell(n int) (c *cell.Cell, number int)
}

// place is a line of a cell.
type place struct {
	cell     *cell.Cell
	number   int // as the reader counts
	line     int // from 1
	column   int // from 1; 0: unknown
	function string
}

// find returns the place of a line of the code that GoNB got for its cell n.
func find(cells Cells, n, codeLine int) (place, bool) {
	c, number := cells.Cell(n)
	if c == nil {
		return place{}, false
	}
	line := c.Line(codeLine)
	if line < 1 || line > len(c.Lines) {
		return place{}, false
	}
	return place{cell: c, number: number, line: line}, true
}

// around is how many lines are shown before and after the one that is meant.
const around = 2

// show draws a place: where it is, and the lines around it with an arrow at the one that is meant.
func (p place) show() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\x1b[32mCell [%d], line %d\x1b[0m", p.number, p.line)
	if p.function != "" {
		fmt.Fprintf(&b, ", in %s", p.function)
	}
	first, last := max(1, p.line-around), min(len(p.cell.Lines), p.line+around)
	for i := first; i <= last; i++ {
		mark := "     "
		if i == p.line {
			mark = "---> "
		}
		text := strings.ReplaceAll(strings.TrimRight(p.cell.Lines[i-1], " \t\r"), "\t", "    ")
		fmt.Fprintf(&b, "\n%s%3d | %s", mark, i, text)
		if i == p.line && p.column > 0 {
			before := p.cell.Lines[i-1][:min(p.column-1, len(p.cell.Lines[i-1]))]
			fmt.Fprintf(&b, "\n         | %s^", strings.Repeat(" ", width(before)))
		}
	}
	return b.String()
}

// width of text when tabs are four wide.
func width(text string) int {
	n := 0
	for _, r := range text {
		if r == '\t' {
			n += 4
		} else {
			n++
		}
	}
	return n
}

// Syntax is the error of a cell that does not parse.
func Syntax(c *cell.Cell, number int, e *cell.SyntaxError) Error {
	p := place{cell: c, number: number, line: e.Line, column: e.Column}
	return Error{Name: Compile, Value: oneLine(e.Message), Traceback: []string{title(Compile, e.Message), p.show()}}
}

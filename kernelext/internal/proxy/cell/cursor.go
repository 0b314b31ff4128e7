package cell

import (
	"slices"
	"strings"
	"unicode/utf16"
)

// Typing is a cell in which the reader asks what could come at the cursor, or what stands there. It need not parse.
type Typing struct {
	Line string // the cell's, up to the cursor
	Full string // the same to its end
	Go   string // the cell as Go declarations, with main where it has to be; "": the cell is not Go
	Row  int    // of the cursor in it, from 0
	// Column of the cursor in it, from 0, in UTF-16 units, as the Language Server Protocol counts.
	Column   int
	Declares []string // what the cell declares, as far as that can be told

	before []uint16 // the row up to the cursor
}

// At looks at a cell while it is typed; cursor counts characters, as Jupyter's protocol does.
func At(source string, cursor int) Typing {
	offset := len(source)
	n := 0
	for i := range source {
		if n == cursor {
			offset = i
			break
		}
		n++
	}
	start := strings.LastIndexByte(source[:offset], '\n') + 1
	full, _, _ := strings.Cut(source[start:], "\n")
	t := Typing{Line: source[start:offset], Full: full, Row: strings.Count(source[:offset], "\n")}
	c, _ := Read(source) // as good as can be
	if c.Other != nil {
		return t
	}
	t.Declares = c.Declares
	lines := strings.Split(c.goText(), "\n")
	inLine, shift := offset-start, 0
	explicit := slices.ContainsFunc(c.Commands, func(l Line) bool {
		begins, makes := starter(l)
		if begins {
			lines[l.First] = "func main() {"
			lines = append(lines, "}")
		}
		return begins || makes
	})
	if !explicit {
		shift = wrapTyped(lines, t.Row, inLine)
	}
	t.Go = strings.Join(lines, "\n")
	row := strings.Split(t.Go, "\n")[t.Row]
	t.before = utf16.Encode([]rune(row[:min(inLine+shift, len(row))]))
	t.Column = len(t.before)
	return t
}

// wrapTyped puts main around the statements among lines, but leaves declarations among them where they are: gopls can live with that. It returns by
// how much the given place moves to the right.
func wrapTyped(lines []string, row, column int) (shift int) {
	text := strings.Join(lines, "\n")
	parts := split(text)
	first := slices.IndexFunc(parts, func(p part) bool { return !p.declaration })
	if first < 0 || parses(head+text) {
		return 0
	}
	last := len(parts) - 1
	for parts[last].declaration {
		last--
	}
	place := func(offset int) (row, column int) {
		return strings.Count(text[:offset], "\n"), offset - strings.LastIndexByte(text[:offset], '\n') - 1
	}
	// The end first, so that the beginning stays where it is. The cursor is within main, so that main ends after it.
	endRow, _ := place(parts[last].to)
	endRow = max(endRow, row)
	beginRow, beginColumn := place(parts[first].from)
	lines[endRow] += "\n}"
	lines[beginRow] = lines[beginRow][:beginColumn] + opening + lines[beginRow][beginColumn:]
	if row == beginRow && column >= beginColumn {
		return len(opening)
	}
	return 0
}

// Back returns how many characters before the cursor a column is.
func (t Typing) Back(column int) int {
	if column < 0 || column > len(t.before) {
		return 0
	}
	return len(utf16.Decode(t.before[column:]))
}

// Imports lists the imports of the cell, as they are written.
func (c *Cell) Imports() []string {
	var list []string
	for _, d := range c.Declarations() {
		list = append(list, importsOf(d)...)
	}
	return list
}

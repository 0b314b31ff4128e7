package cell

import (
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Typing is a cell in which the reader asks what could come at the cursor, or what stands there. It need not parse.
type Typing struct {
	Line   string // up to the cursor
	Code   string // for GoNB
	Cursor int    // in it, in GoNB's count: UTF-16 units

	shift  int // bytes that the code has more than the source before the cursor
	source string
}

// At looks at a cell while it is typed; cursor counts characters, as the protocol does.
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
	t := Typing{Line: source[strings.LastIndexByte(source[:offset], '\n')+1 : offset], Code: source, source: source}
	c := &Cell{Source: source, Lines: strings.Split(source, "\n")}
	c.Commands = commands(c.Lines)
	explicit := slices.ContainsFunc(c.Commands, func(l Line) bool {
		begins, makes := starter(l)
		return begins || makes || l.First == 0 && l.Kind == Magic && strings.HasPrefix(l.Text, "%")
	})
	if !explicit {
		t.wrap(c, offset)
	}
	t.Cursor = len(utf16.Encode([]rune(t.Code[:offset+t.shift])))
	return t
}

// wrap puts main around the statements, but leaves declarations among them where they are: gopls can live with that.
func (t *Typing) wrap(c *Cell, offset int) {
	text := c.goText()
	if len(text) != len(t.source) {
		// The lines of commands were emptied: fill them up, so that offsets agree.
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			lines[i] = line + strings.Repeat(" ", len(c.Lines[i])-len(line))
		}
		text = strings.Join(lines, "\n")
	}
	parts := split(text)
	first := slices.IndexFunc(parts, func(p part) bool { return !p.declaration })
	if first < 0 || parses(head+text) {
		return
	}
	last := len(parts) - 1
	for parts[last].declaration {
		last--
	}
	from, to := parts[first].from, max(parts[last].to, min(offset, len(t.source)))
	t.Code = t.source[:from] + opening + t.source[from:to] + "\n}" + t.source[to:]
	if offset >= from {
		t.shift = len(opening)
	}
}

// Characters turns a cursor in GoNB's count of UTF-16 units in its code into characters of the source, the protocol's count.
func (t Typing) Characters(units int) int {
	n := 0
	for i, r := range t.Code {
		if n >= units {
			return max(0, utf8.RuneCountInString(t.Code[:i])-t.shift)
		}
		n += utf16.RuneLen(r)
	}
	return max(0, utf8.RuneCountInString(t.Code)-t.shift)
}

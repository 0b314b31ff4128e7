package cell

import (
	"go/scanner"
	"go/token"
	"slices"
	"strings"
)

// shield keeps GoNB from lines that it would take for what they are not. It looks at nothing but how a line begins: within a raw string or a comment it would
// run `!rm` and leave out `%who`, and it leaves out every line that begins with `package`, `packages++` among them.
func (c *Cell) shield() {
	lines := slices.Clone(c.code)
	commands := map[int]bool{}
	for _, l := range c.Commands {
		for i := l.First; i <= l.Last; i++ {
			commands[i] = true
		}
	}
	for i, from := range c.origin {
		if from >= 0 && commands[from] && lines[i] == c.Lines[from] {
			lines[i] = ""
		}
	}
	text := strings.Join(lines, "\n")
	var edits []insertion
	var raw []rawString
	for i, at := 0, 0; i < len(lines); i++ {
		if misread(lines[i]) && !slices.Contains(c.clauses, c.origin[i]) {
			if raw == nil {
				raw = rawStrings(text)
			}
			edits = append(edits, apart(raw, at)...)
		}
		at += len(lines[i]) + 1
	}
	if len(edits) == 0 {
		return
	}
	for _, r := range raw {
		if r.cut { // it stays one operand
			edits = append(edits, insertion{r.from, "("}, insertion{r.to, ")"})
		}
	}
	for i, line := range strings.Split(inserted(text, edits), "\n") {
		if lines[i] != "" {
			c.code[i] = line
		}
	}
}

// misread says whether GoNB would take a line for a command, or leave it out.
func misread(line string) bool {
	text := plain(line)
	return strings.HasPrefix(text, "%") || strings.HasPrefix(text, "!") || strings.HasPrefix(line, "package")
}

// rawString is where a raw string is in a text, and whether it is to be cut in several.
type rawString struct {
	from, to int
	cut      bool
}

// rawStrings finds the raw strings of a text.
func rawStrings(text string) []rawString {
	list := []rawString{}
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(text))
	var s scanner.Scanner
	s.Init(file, []byte(text), func(token.Position, string) {}, 0)
	for {
		pos, t, literal := s.Scan()
		if t == token.EOF {
			return list
		}
		if t == token.STRING && literal[0] == quote {
			from := file.Offset(pos)
			// Not by the literal's length: carriage returns are left out of it.
			if n := strings.IndexByte(text[from+1:], quote); n >= 0 {
				list = append(list, rawString{from: from, to: from + n + 2})
			}
		}
	}
}

// insertion is a text that is put into another.
type insertion struct {
	at   int
	text string
}

// apart has the line that begins at an offset begin with something else: a blank, or, in a raw string, the quote of the second of two strings.
func apart(raw []rawString, at int) []insertion {
	for i, r := range raw {
		if r.from < at && at < r.to {
			raw[i].cut = true
			return []insertion{{at - 1, "` + \"\\n\" +"}, {at, "`"}}
		}
	}
	return []insertion{{at, " "}}
}

// inserted makes the insertions.
func inserted(text string, list []insertion) string {
	slices.SortStableFunc(list, func(a, b insertion) int { return a.at - b.at })
	var b strings.Builder
	last := 0
	for _, e := range list {
		b.WriteString(text[last:e.at] + e.text)
		last = e.at
	}
	return b.String() + text[last:]
}

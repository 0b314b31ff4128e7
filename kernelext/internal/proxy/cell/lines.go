// Package cell reads the source of a cell: which lines are Go and which are commands, what it declares, what of it is statements, whether it is complete;
// and gives it the form that GoNB takes, with a way back from GoNB's lines to the reader's.
package cell

import (
	"regexp"
	"strings"
)

// Kind of a line.
type Kind int

// The kinds of lines.
const (
	Go    Kind = iota
	Magic      // %name …
	Shell      // !command
)

// Line is a command: one line, or several that are joined by a \ at the end.
type Line struct {
	Kind        Kind
	First, Last int    // line numbers, from 0
	Text        string // after the % or !, joined, without blanks around it
}

// Name of a magic, without its arguments.
func (l Line) Name() string {
	name, _, _ := strings.Cut(l.Text, " ")
	name, _, _ = strings.Cut(name, "\t")
	return name
}

// Args of a magic: what comes after its name, split at blanks outside of double quotes.
func (l Line) Args() []string {
	words := Words(l.Text)
	if len(words) == 0 {
		return nil
	}
	return words[1:]
}

// Words splits text at blanks outside of double quotes, in which \ takes the next character as it is. It is how GoNB splits its own commands.
func Words(text string) []string {
	var words []string
	var word strings.Builder
	started, quoted := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case !quoted && (c == ' ' || c == '\t' || c == '\n'):
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		case c == '"':
			quoted, started = !quoted, true
		case c == '\\' && quoted && i+1 < len(text):
			i++
			started = true
			switch text[i] {
			case 'n':
				word.WriteByte('\n')
			case 't':
				word.WriteByte('\t')
			default:
				word.WriteByte(text[i])
			}
		default:
			started = true
			word.WriteByte(c)
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}

// gonbPrefix hides commands from Go tools, for notebooks that are kept as Go files (jupytext's go:percent).
const gonbPrefix = "//gonb:"

// plain returns a line as GoNB takes it: a command may stand behind a comment sign.
func plain(line string) string { return strings.TrimPrefix(line, gonbPrefix) }

// clause is a line by which a file names its package. GoNB takes such lines out, and so do we.
var clause = regexp.MustCompile(`^package[ \t]+\w+[ \t]*;?[ \t]*(?://.*)?$`)

// commands finds the commands among the lines of a cell, and the lines that name a package. What looks like one within a raw string or a comment is none.
func commands(lines []string) (found []Line, clauses []int) {
	var open byte // what the lines before leave open
	for i := 0; i < len(lines); i++ {
		text := plain(lines[i])
		kind := Go
		switch {
		case open != 0:
		case strings.HasPrefix(text, "%"):
			kind = Magic
		case strings.HasPrefix(text, "!"):
			kind = Shell
		case clause.MatchString(text):
			clauses = append(clauses, i)
		}
		if kind == Go {
			open = leavesOpen(lines[i], open)
			continue
		}
		l := Line{Kind: kind, First: i, Last: i}
		text = text[1:]
		for strings.HasSuffix(text, `\`) && i+1 < len(lines) {
			i++
			l.Last = i
			text = text[:len(text)-1] + " " + plain(lines[i])
		}
		l.Text = strings.TrimSpace(text)
		found = append(found, l)
	}
	return found, clauses
}

// What a line can leave open for the next.
const (
	quote        = '`' // of a raw string
	blockComment = '*'
)

// leavesOpen says what a line of Go leaves open, given what those before it did; 0: nothing.
func leavesOpen(line string, open byte) byte {
	for i := 0; i < len(line); i++ {
		switch rest := line[i:]; {
		case open == quote:
			if line[i] == quote {
				open = 0
			}
		case open == blockComment:
			if strings.HasPrefix(rest, "*/") {
				open = 0
				i++
			}
		case line[i] == quote:
			open = quote
		case strings.HasPrefix(rest, "/*"):
			open = blockComment
			i++
		case strings.HasPrefix(rest, "//"):
			return 0
		case line[i] == '"' || line[i] == '\'':
			i += quoted(rest) - 1
		}
	}
	return open
}

// quoted returns the length of the string or rune that text begins with. Neither goes beyond its line.
func quoted(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case text[0]:
			return i + 1
		}
	}
	return len(text)
}

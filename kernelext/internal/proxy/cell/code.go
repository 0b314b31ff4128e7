package cell

import "strings"

// Code returns what GoNB is to run, less the given lines of the source (commands that were dealt with already).
func (c *Cell) Code(without func(line int) bool) string {
	lines := make([]string, len(c.code))
	for i, text := range c.code {
		if at := c.origin[i]; at < 0 || !without(at) {
			lines[i] = text
		}
	}
	return strings.Join(lines, "\n")
}

// Only returns what GoNB is to run if only some commands are to be run: their lines, each where it is.
func (c *Cell) Only(with func(line int) bool) string {
	lines := make([]string, len(c.Lines))
	for i, text := range c.Lines {
		if with(i) {
			lines[i] = text
		}
	}
	return strings.Join(lines, "\n")
}

// HasGo says whether there is anything but commands, blanks and comments.
func (c *Cell) HasGo() bool { return len(split(c.goText())) > 0 }

// Line returns the line of the source, from 1, for a line of the code that GoNB got, from 1; 0 if there is none.
func (c *Cell) Line(code int) int {
	if code < 1 || code > len(c.origin) {
		return 0
	}
	return c.origin[code-1] + 1
}

// Declarations returns the source of the cell's declarations, without main and statements, each as it stands in the cell.
func (c *Cell) Declarations() []string {
	text := c.goText()
	for _, l := range c.Commands {
		if begins, _ := starter(l); begins {
			text = strings.Join(strings.Split(text, "\n")[:l.First], "\n")
			break
		}
	}
	var list []string
	end := 0
	for _, p := range split(text) {
		if p.declaration && !strings.HasPrefix(text[p.from:], "func main()") {
			list = append(list, comment(text[end:p.from])+strings.TrimRight(text[p.from:p.to], " \t\r\n;"))
		}
		end = p.to
	}
	return list
}

// comment returns the comment that ends a piece of text and belongs to what comes after it.
func comment(text string) string {
	if i := strings.LastIndex(text, "\n\n"); i >= 0 {
		text = text[i+2:]
	}
	text = strings.TrimLeft(text, " \t\r\n")
	if strings.HasPrefix(text, "//") || strings.HasPrefix(text, "/*") {
		return text
	}
	return ""
}

package trace

import (
	"regexp"
	"strconv"
	"strings"
)

var (
	// compilerLine is a line of the compiler: file, line, column, message.
	compilerLine = regexp.MustCompile(`^\S*?([^/\s]+\.go):(\d+)(?::(\d+))?: (.+)$`)
	// showing is what the compiler says of a last expression that can't be a value: the call was put around it.
	showing = regexp.MustCompile(` in argument to esp_\w+`)
	// gonbPlace is how GoNB begins its account of such a line, where it knows the cell.
	gonbPlace = regexp.MustCompile(`^Cell\[(\d+)\]: Line (\d+)\n`)
)

// FromCompiler is the error of a cell that does not compile. output is all that the go command said; accounts are GoNB's, one for each of its lines.
func FromCompiler(cells Cells, output string, accounts []string) (Error, bool) {
	e := Error{Name: Compile}
	var body []string
	mapped := false
	for i, line := range strings.Split(output, "\n") {
		m := compilerLine.FindStringSubmatch(showing.ReplaceAllString(line, ""))
		if m == nil {
			if text := strings.TrimSpace(line); text != "" && !noise(text) {
				body = append(body, withoutDirectories(text))
			}
			continue
		}
		if e.Value == "" {
			e.Value = m[4]
		}
		var where place
		found := false
		if i < len(accounts) {
			if at := gonbPlace.FindStringSubmatch(accounts[i]); at != nil {
				n, _ := strconv.Atoi(at[1])
				codeLine, _ := strconv.Atoi(at[2])
				where, found = find(cells, n, codeLine)
			}
		}
		if !found {
			// A file of another package, or what was put around the cell.
			text := withoutDirectories(line)
			if m[1] == "main.go" {
				text = m[4]
			}
			body = append(body, text)
			continue
		}
		mapped = true
		where.column = columnInCell(accounts[i], where.cell.Lines[where.line-1])
		body = append(body, m[4], where.show())
	}
	if e.Value == "" {
		if len(body) == 0 {
			return Error{}, false
		}
		e.Value = oneLine(body[0])
	}
	e.Traceback = append([]string{title(e.Name, e.Value)}, trimFirst(body, e.Value)...)
	return e, mapped || len(body) > 0
}

// trimFirst leaves out the first message, which the title has already.
func trimFirst(body []string, value string) []string {
	if len(body) > 0 && body[0] == value {
		return body[1:]
	}
	return body
}

// noise are lines of the go command that say nothing more.
func noise(text string) bool {
	return strings.HasPrefix(text, "# gonb_") || exitLine.MatchString(text) || text == "# command-line-arguments"
}

var (
	exitLine    = regexp.MustCompile(`^(?:exit status \d+|signal: .+)$`)
	directories = regexp.MustCompile(`(?:[^\s:"]*/)?gonb_[0-9a-f]+/(?:\./)?`)
)

// withoutDirectories leaves out GoNB's temporary directory, which means nothing to the reader.
func withoutDirectories(text string) string { return directories.ReplaceAllString(text, "") }

// columnInCell finds the column that GoNB's account marks in its rendering of a line, in the cell's own line; 0 if that can't be told.
func columnInCell(account, own string) int {
	lines := strings.Split(account, "\n")
	for i := 1; i < len(lines); i++ {
		mark := strings.TrimLeft(lines[i], " ")
		if mark != "^" {
			continue
		}
		column := len(lines[i]) - 1 // from 0
		rendered := lines[i-1]
		text := strings.TrimSpace(rendered)
		before := len(rendered) - len(strings.TrimLeft(rendered, " \t"))
		if text == "" || column < before {
			return 0
		}
		// The code's line may hold what was put around the cell.
		if at := strings.Index(text, strings.TrimSpace(own)); at >= 0 && strings.TrimSpace(own) != "" {
			in := column - before - at
			if in < 0 {
				return 0
			}
			return in + 1 + len(own) - len(strings.TrimLeft(own, " \t"))
		}
		if at := strings.Index(own, text); at >= 0 {
			return at + column - before + 1
		}
		// A declaration is rendered anew: look for the word that is marked.
		if word := wordAt(rendered, column); word != "" {
			if at := strings.Index(own, word); at >= 0 && strings.Count(own, word) == 1 {
				return at + 1
			}
		}
		return 0
	}
	return 0
}

func wordAt(text string, at int) string {
	end := at
	for end < len(text) && (text[end] == '_' || text[end] >= '0' && text[end] <= '9' || text[end] >= 'A' && text[end] <= 'Z' || text[end] >= 'a' && text[end] <= 'z') {
		end++
	}
	if at > end || at >= len(text) {
		return ""
	}
	return text[at:end]
}

package magic

import (
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
)

// IsCommand says whether the reader types a command.
func IsCommand(line string) bool {
	line = strings.TrimPrefix(line, "//gonb:")
	return strings.HasPrefix(line, "%") || strings.HasPrefix(line, "!")
}

// Complete lists what can stand at the end of a line that begins a command, and how many characters of it they replace.
func Complete(all []Magic, state, line string) (matches []string, length int) {
	line = strings.TrimPrefix(line, "//gonb:")
	text, ok := strings.CutPrefix(line, "%")
	if !ok {
		return nil, 0
	}
	words := cell.Words(text)
	if !strings.ContainsAny(text, " \t") {
		for _, m := range append(all[:len(all):len(all)], withoutOurs(all)...) {
			if strings.HasPrefix(m.Name, text) {
				matches = append(matches, "%"+m.Name)
			}
		}
		return matches, len([]rune(text)) + 1
	}
	typed := ""
	if !strings.HasSuffix(text, " ") && !strings.HasSuffix(text, "\t") {
		typed = words[len(words)-1]
		words = words[:len(words)-1]
	}
	m, ok := Find(all, words[0])
	if !ok || m.Complete == nil {
		return nil, 0
	}
	for _, c := range m.Complete(all, state, words[1:]) {
		if strings.HasPrefix(c, typed) {
			matches = append(matches, c)
		}
	}
	return matches, len([]rune(typed))
}

// Unknown says that there is no such command, and which one may have been meant.
func Unknown(all []Magic, name string) string {
	text := "there is no command " + name
	best, distance := "", 3
	for _, m := range append(all[:len(all):len(all)], gonbs...) {
		if d := distanceOf("%"+m.Name, name); d < distance {
			best, distance = m.Name, d
		}
	}
	if best != "" {
		text += "; did you mean %" + best + "?"
	} else {
		text += "; %help lists those there are"
	}
	return text
}

// distanceOf counts the letters to change, add or leave out.
func distanceOf(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := slices.Clone(row)
		next[0] = i + 1
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, row[j+1]+1, next[j]+1)
		}
		row = next
	}
	return row[len(b)]
}

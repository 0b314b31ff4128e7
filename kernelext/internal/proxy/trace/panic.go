package trace

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	// begins is how the runtime begins when a program dies.
	begins    = regexp.MustCompile(`(?m)^(?:panic: |fatal error: |SIG[A-Z]+: |unexpected fault address )`)
	goroutine = regexp.MustCompile(`^goroutine \d+ .*\[.*\]:$`)
	// mark is what GoNB puts before a place in main.go, where it knows the cell.
	mark  = regexp.MustCompile(` ?(?:\x1b\[7m)?\[\[ Cell \[(\d+)\] Line (\d+) \]\](?:\x1b\[0m)? ?`)
	frame = regexp.MustCompile(`^\s+(?:(?:\x1b\[7m)?\[\[.*?\]\](?:\x1b\[0m)? )?\s*(\S+):(\d+)(?: \+0x[0-9a-f]+)?$`)
)

// Death returns where a program's last words begin in what it wrote to standard error; -1: it did not die.
func Death(text string) int {
	if at := begins.FindStringIndex(text); at != nil {
		return at[0]
	}
	return -1
}

// machinery are the functions that the kernel and the runtime put around a cell.
var machinery = []string{"runtime.", "runtime/", "reflect.", "internal/", "main.espalier", "main.esp_", "panic(", "testing.", "sync.", "syscall."}

// FromDeath is the error of a program that died with these last words.
func FromDeath(cells Cells, words string) Error {
	lines := strings.Split(strings.ReplaceAll(words, "\r\n", "\n"), "\n")
	e := Error{Name: Panic}
	var message []string
	at := 0
	for ours := true; at < len(lines) && !goroutine.MatchString(lines[at]); at++ {
		if ours = ours && lines[at] != "runtime stack:"; !ours {
			continue // of the runtime that ran out of stack or memory
		}
		if line := strings.TrimRight(lines[at], " \t"); line != "" && !exitLine.MatchString(line) {
			message = append(message, line)
		}
	}
	first := ""
	for _, line := range message {
		// Of a panic that was recovered and raised again the runtime prints both; the last is what the program died of.
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "panic:"); ok {
			first, e.Name = strings.TrimSpace(text), Panic
		} else if text, ok := strings.CutPrefix(line, "fatal error: "); ok && first == "" {
			first, e.Name = text, Fatal
		}
	}
	switch {
	case first != "" || len(message) == 0:
	case message[0] == "panic:" && len(message) > 1: // a text that begins with an empty line
		first = message[1]
	default:
		first, e.Name = message[0], Fatal
	}
	first = strings.TrimSuffix(first, " [recovered]")
	e.Value = oneLine(first)
	e.Traceback = []string{title(e.Name, e.Value)}
	for _, line := range message {
		if text := strings.TrimSpace(line); !strings.Contains(text, e.Value) && !strings.HasPrefix(text, "[signal ") {
			e.Traceback = append(e.Traceback, withoutDirectories(mark.ReplaceAllString(line, "")))
		}
	}
	shown, hidden := frames(cells, lines[at:])
	shown, again := withoutRepeats(shown)
	e.Traceback = append(e.Traceback, shown...)
	if again > 0 {
		e.Traceback = append(e.Traceback, fmt.Sprintf("(%s that repeat those above not shown)", plural(again, "frame")))
	}
	if hidden > 0 {
		e.Traceback = append(e.Traceback, fmt.Sprintf("(%s of the runtime and the kernel not shown)", plural(hidden, "frame")))
	}
	return e
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

const maxFrames = 40

// frames reads the stack of the first goroutine: the one that died.
func frames(cells Cells, lines []string) (shown []string, hidden int) {
	for i, started := 0, false; i < len(lines); i++ {
		line := lines[i]
		if goroutine.MatchString(line) {
			if started {
				break
			}
			started = true
			continue
		}
		if i+1 >= len(lines) || strings.TrimSpace(line) == "" {
			if started && strings.TrimSpace(line) == "" {
				break // the end of the first stack
			}
			continue
		}
		m := frame.FindStringSubmatch(lines[i+1])
		if m == nil {
			continue
		}
		name := functionName(line)
		if p, ok := marked(cells, lines[i+1]); ok {
			p.function = strings.TrimPrefix(name, "main.")
			if p.function == "main" || isMachinery(name) {
				p.function = ""
			}
			shown = append(shown, p.show())
		} else if isMachinery(name) || strings.HasPrefix(name, "main.") || len(shown) > maxFrames {
			hidden++
		} else {
			shown = append(shown, fmt.Sprintf("  %s, %s:%s", name, filepath.Base(m[1]), m[2]))
		}
		i++
	}
	return shown, hidden
}

// longestCycle is how many functions that call each other in turn are recognised.
const longestCycle = 4

// withoutRepeats leaves out frames that repeat those before them, as of a function that calls itself without end.
func withoutRepeats(frames []string) (kept []string, repeats int) {
	for _, f := range frames {
		kept = append(kept, f)
		for n := 1; n <= longestCycle && 2*n <= len(kept); n++ {
			if tail := len(kept) - n; slices.Equal(kept[tail:], kept[tail-n:tail]) {
				kept, repeats = kept[:tail], repeats+n
				break
			}
		}
	}
	return kept, repeats
}

// marked returns the place that GoNB marked on a line.
func marked(cells Cells, line string) (place, bool) {
	m := mark.FindStringSubmatch(line)
	if m == nil {
		return place{}, false
	}
	n, _ := strconv.Atoi(m[1])
	codeLine, _ := strconv.Atoi(m[2])
	return find(cells, n, codeLine)
}

// functionName returns the name in a line such as `main.f(0x1, {...})` or `created by main.f in goroutine 1`.
func functionName(line string) string {
	line = strings.TrimPrefix(strings.TrimSpace(line), "created by ")
	line, _, _ = strings.Cut(line, " in goroutine ")
	if i := strings.LastIndexByte(line, '('); i > 0 && strings.HasSuffix(line, ")") {
		line = line[:i]
	}
	return strings.TrimSuffix(line, "[...]")
}

func isMachinery(name string) bool {
	for _, m := range machinery {
		if strings.HasPrefix(name, m) || name == strings.TrimSuffix(m, "(") {
			return true
		}
	}
	return false
}

// WithPlaces rewrites text that a program printed and GoNB marked, so that places are those of the notebook.
func WithPlaces(cells Cells, text string) string {
	if !strings.Contains(text, "[[ Cell [") {
		return text
	}
	return markAndFile.ReplaceAllStringFunc(text, func(found string) string {
		if p, ok := marked(cells, found); ok {
			return fmt.Sprintf(" Cell [%d], line %d", p.number, p.line)
		}
		return mark.ReplaceAllString(found, " ")
	})
}

var markAndFile = regexp.MustCompile(mark.String() + `\S*main(?:_test)?\.go:\d+`)

// FromExit is the error of a program that ended with an exit code. said is the last line that it wrote to standard error.
func FromExit(status, said string) Error {
	value := status
	if said = oneLine(said); said != "" {
		value = status + ": " + withoutDirectories(said)
	}
	return Plain(Exit, value)
}

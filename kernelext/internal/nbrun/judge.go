package nbrun

import (
	"fmt"
	"regexp"
	"strings"
)

// Failure is something that went wrong in a notebook, whatever its kernel said of it.
type Failure struct {
	Cell    int // from 1, in the order of all cells; 0: the notebook as a whole
	Problem string
}

func (f Failure) String() string {
	if f.Cell == 0 {
		return f.Problem
	}
	return fmt.Sprintf("cell %d: %s", f.Cell, f.Problem)
}

// ran is what the driver says of a cell.
type ran struct {
	status string // of the reply: ok, error, aborted
	sent   int    // displays that its program sent
}

// Summary counts what came out.
type Summary struct {
	Cells, Figures, Tables, Streams int
}

const maxSize = 2 << 20

var (
	// exitStatus is what GoNB prints, with status ok, when a shell command or a program fails.
	exitStatus   = regexp.MustCompile(`(?m)^(?:exit status \d+|signal: .+)$`)
	unknownMagic = regexp.MustCompile(`"%[^"]*" unknown or not implemented yet`)
	remote       = regexp.MustCompile(`(?i)(?:src|href)\s*=\s*["']?https?://|@import|url\(\s*["']?https?:`)
)

// judge looks at an executed notebook. GoNB reports ok for failing shell commands, for unknown magics, and for displays that are lost, so the outputs
// themselves are looked at. private are paths that must not be in the outputs.
func judge(nb *Notebook, runs map[int]ran, size int, private []string) (Summary, []Failure) {
	var s Summary
	var failures []Failure
	fail := func(cell int, format string, args ...any) {
		failures = append(failures, Failure{cell, fmt.Sprintf(format, args...)})
	}
	for i, c := range nb.Cells {
		number := i + 1
		if !c.runs() {
			continue
		}
		r, done := runs[i]
		if !done {
			fail(number, "it did not run")
			continue
		}
		s.Cells++
		mayFail := c.mayFail()
		problem := ""
		if r.status != "ok" {
			problem = "it failed"
		}
		received := 0
		for _, o := range c.Outputs {
			switch o.Type {
			case "error":
				problem = firstLine(o.Text)
			case "stream":
				s.Streams++
				if o.Name == "stderr" {
					if m := unknownMagic.FindString(o.Text); m != "" {
						problem = m
					} else if m := exitStatus.FindString(o.Text); m != "" && problem == "" {
						problem = "a command or the cell's program ended with " + m
					}
				}
				checkText(o.Text, private, func(p string) { fail(number, "%s", p) })
			case "display_data", "execute_result":
				received++
				checkDisplay(o, private, &s, func(p string) { fail(number, "%s", p) })
			}
		}
		if problem != "" {
			// The reason often stands on stderr, before the bare status.
			for _, o := range c.Outputs {
				if o.Name == "stderr" && firstLine(o.Text) != "" && !strings.Contains(problem, firstLine(o.Text)) {
					problem += ": " + firstLine(o.Text)
					break
				}
			}
		}
		switch {
		case problem != "" && !mayFail:
			fail(number, "%s", problem)
		case problem == "" && mayFail:
			fail(number, "it is tagged raises-exception and did not fail")
		}
		if received < r.sent {
			fail(number, "%d of %d displays were lost", r.sent-received, r.sent)
		}
	}
	want := nb.expect()
	if s.Figures < want.Figures {
		fail(0, "%d figures came out, the notebook says %d", s.Figures, want.Figures)
	}
	if s.Tables < want.Tables {
		fail(0, "%d tables came out, the notebook says %d", s.Tables, want.Tables)
	}
	if size > maxSize {
		fail(0, "it has %d bytes, at most %d are allowed", size, maxSize)
	}
	return s, failures
}

// checkDisplay checks that a display shows everywhere: a figure as picture and as text, HTML without scripts and without the network.
func checkDisplay(o Output, private []string, s *Summary, fail func(string)) {
	_, png := o.Data["image/png"]
	svg, isSVG := o.Data["image/svg+xml"]
	plain := text(o.Data["text/plain"])
	html := text(o.Data["text/html"])
	if png || isSVG {
		s.Figures++
		for _, mime := range []string{"image/png", "image/svg+xml", "text/plain"} {
			if text(o.Data[mime]) == "" {
				fail("a figure lacks " + mime)
			}
		}
	}
	if strings.Contains(html, "<table") {
		s.Tables++
		if plain == "" {
			fail("a table lacks text/plain")
		}
	}
	for _, markup := range []string{html, text(svg)} {
		// A script may make more of a figure that also shows without it.
		if strings.Contains(strings.ToLower(markup), "<script") && !(png && isSVG && strings.Contains(markup, `src="data:image/png`)) {
			fail("an output has a script, which does not run everywhere, and no picture in its place")
		}
		if remote.MatchString(markup) {
			fail("an output needs the network")
		}
		checkText(markup, private, fail)
	}
	checkText(plain, private, fail)
}

func checkText(output string, private []string, fail func(string)) {
	for _, p := range private {
		if p != "" && p != "/" && strings.Contains(output, p) {
			fail("an output names the directory " + p + " of this machine")
			return
		}
	}
}

func firstLine(s string) string {
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

package proxy

import (
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/trace"
)

// stderrReader tells what a program writes to standard error from what belongs into the error that follows: the last words of one that dies, and the exit
// status that GoNB prints after a program or a command that failed. These are held back; last words for a moment only, since what looks like them
// may be none.
type stderrReader struct {
	mu       sync.Mutex
	words    strings.Builder // from where a program seemed to begin to die
	shown    bool            // they were passed on after all
	timer    *time.Timer
	exit     string // "exit status 3", if that was the last that came
	last     string // the last line that was passed on
	inLine   bool   // what was passed on ends within a line
	finished bool
}

const (
	maxWords      = 1 << 20
	wordsPatience = 2 * time.Second
)

// gonbExit is what GoNB prints when what it ran failed: always a message of its own.
var gonbExit = regexp.MustCompile(`^(?:\^C\n)?(exit status \d+|signal: [^\n]+)\n$`)

// add takes text, and returns what is to be passed on at once. late is called with what is passed on later.
func (s *stderrReader) add(text string, late func(string)) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := ""
	if s.exit != "" {
		before, s.exit = s.exit+"\n", "" // more came, so it was no end
	}
	if m := gonbExit.FindStringSubmatch(text); m != nil && !s.inLine {
		s.exit = m[1]
		return s.note(before)
	}
	text = before + text
	if s.words.Len() > 0 {
		return s.note(s.hold(text))
	}
	at := trace.Death(text)
	if at == 0 && s.inLine {
		// The text begins within a line, so that its beginning is no line's.
		if at = trace.Death(text[1:]); at >= 0 {
			at++
		}
	}
	if at < 0 {
		return s.note(text)
	}
	s.timer = time.AfterFunc(wordsPatience, func() {
		s.mu.Lock()
		words := ""
		if !s.shown && !s.finished {
			s.shown, words = true, s.words.String()
		}
		s.mu.Unlock()
		if words != "" {
			late(words)
		}
	})
	pass := text[:at]
	return s.note(pass + s.hold(text[at:]))
}

// hold keeps text for the error, and returns what is passed on nevertheless.
func (s *stderrReader) hold(text string) string {
	keep := min(len(text), maxWords-s.words.Len())
	s.words.WriteString(text[:keep])
	if s.shown {
		return text
	}
	return text[keep:]
}

func (s *stderrReader) note(pass string) string {
	if pass != "" {
		s.inLine = !strings.HasSuffix(pass, "\n")
		lines := strings.Split(strings.TrimSpace(pass), "\n")
		if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
			s.last = last
		}
	}
	return pass
}

// end returns the last words, whether they were passed on, the exit status, and the last line before them.
func (s *stderrReader) end() (words string, shown bool, exit, last string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	if s.timer != nil {
		s.timer.Stop()
	}
	return s.words.String(), s.shown, s.exit, s.last
}

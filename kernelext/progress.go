package kernelext

import (
	"fmt"
	"html"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// Bar is a progress bar: one line below the cell that is redrawn in place while work goes on. Progress makes one. It can be used from
// several goroutines at once.
//
// Its last line holds no times, so that a notebook that is run again doesn't change: "training: 4300 of 4300 steps, done".
type Bar struct {
	// Unit names what is counted, in the plural: "steps" if empty. Set it before the first Update.
	Unit string

	title string
	paint func(frame)      // draws it
	now   func() time.Time // a test's clock, or time.Now

	forget func() // takes back that Must is to call Done; nil in tests

	mu          sync.Mutex
	done, total int
	note        string
	start       time.Time // when this count began, and with how many done
	startDone   int
	drawn       time.Time // when it was last drawn
	closed      bool
}

// frame is one state of a bar as it is drawn.
type frame struct {
	text           string
	fraction       float64 // of the work that is done, 0 where that is not known
	done           int
	last, finished bool // last: nothing comes after it; finished: all of the work is done
}

// redrawEvery limits how often a bar is redrawn: the kernel passes each frame on to the browser and into the notebook.
const redrawEvery = time.Second / 5

// Progress starts a progress bar. Call Update as the work goes on, and Done at its end:
//
//	bar := kernelext.Progress("training")
//	defer bar.Done()
//	result, err := experiment.Train(kernelext.Context(), task, store, experiment.Training{Epochs: 10, Progress: bar.Update})
//
// Outside a notebook a bar goes to standard error: redrawn in place on a terminal, else as one line for each tenth of the work.
func Progress(title string) *Bar {
	b := &Bar{title: title, now: time.Now, paint: painter(display())}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paint(frame{text: title + ": starting"})
	b.forget = BeforeExit(b.Done)
	return b
}

// Update says that done of total are done, with a note on how it goes ("loss 0.21", or ""). Call it as often as is handy: the bar is redrawn
// at most 5 times a second, and when all is done. A total of 0 means that it isn't known. When done falls, as it does when one bar is
// used for several runs in a row, the time left is measured anew.
func (b *Bar) Update(done, total int, note string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	now := b.now()
	if b.start.IsZero() || done < b.done {
		b.start, b.startDone = now, done
	}
	b.done, b.total, b.note = done, total, note
	complete := total > 0 && done >= total
	if !complete && !b.drawn.IsZero() && now.Sub(b.drawn) < redrawEvery {
		return
	}
	b.drawn = now
	if complete {
		b.paint(b.lastFrame())
	} else {
		b.paint(b.frame(now))
	}
}

// Done ends the bar and leaves its last line: that all is done, or how far the work came.
func (b *Bar) Done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	if b.forget != nil {
		b.forget()
	}
	f := b.lastFrame()
	f.last = true
	b.paint(f)
}

func (b *Bar) units() string {
	if b.Unit == "" {
		return "steps"
	}
	return b.Unit
}

func (b *Bar) fraction() float64 {
	if b.total <= 0 {
		return 0
	}
	return min(1, max(0, float64(b.done)/float64(b.total)))
}

// frame is the bar in mid-work: with the share done, the time left and the note.
func (b *Bar) frame(now time.Time) frame {
	f := frame{fraction: b.fraction(), done: b.done}
	if b.total <= 0 {
		f.text = fmt.Sprintf("%s: %d %s", b.title, b.done, b.units())
	} else {
		f.text = fmt.Sprintf("%s: %d of %d %s (%.0f%%)", b.title, b.done, b.total, b.units(), 100*f.fraction)
		// The first second says little about the rest.
		if elapsed, advanced := now.Sub(b.start), b.done-b.startDone; advanced > 0 && elapsed >= time.Second {
			f.text += ", " + TimeLeft(time.Duration(float64(elapsed)/float64(advanced)*float64(b.total-b.done)))
		}
	}
	if b.note != "" {
		f.text += "; " + b.note
	}
	return f
}

// lastFrame is what stays: it depends on the counts alone.
func (b *Bar) lastFrame() frame {
	f := frame{fraction: b.fraction(), done: b.done, finished: true}
	switch {
	case b.total <= 0 && b.done == 0:
		f.text = b.title + ": done"
	case b.total <= 0:
		f.text = fmt.Sprintf("%s: %d %s, done", b.title, b.done, b.units())
	case b.done >= b.total:
		f.text = fmt.Sprintf("%s: %d of %d %s, done", b.title, b.done, b.total, b.units())
	default:
		f.text = fmt.Sprintf("%s: stopped at %d of %d %s", b.title, b.done, b.total, b.units())
		f.finished = false
	}
	return f
}

// TimeLeft says how long something still takes, rounded to what a person wants to know: "about 3 min left".
func TimeLeft(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("about %d s left", max(1, int(d.Round(time.Second).Seconds())))
	case d < 90*time.Minute:
		return fmt.Sprintf("about %d min left", int(d.Round(time.Minute).Minutes()))
	default:
		return fmt.Sprintf("about %.1f h left", d.Hours())
	}
}

// painter returns what draws a bar's frames on s.
func painter(s *screen) func(frame) {
	if s.kernel != nil {
		return notebookPainter(s)
	}
	if f, ok := s.err.(stream); ok && term.IsTerminal(int(f().Fd())) {
		return terminalPainter(f, func() int {
			width, _, err := term.GetSize(int(f().Fd()))
			if err != nil {
				return 80
			}
			return width
		})
	}
	return linePainter(s.err)
}

// notebookPainter draws into one output of the notebook, which each frame replaces.
func notebookPainter(s *screen) func(frame) {
	out := newOutput(s)
	shown := ""
	return func(f frame) {
		if f.text == shown { // Done after the last Update
			return
		}
		shown = f.text
		out.replace(forms{
			"text/plain": f.text,
			"text/html":  fmt.Sprintf(`<div><progress value="%.3g" max="1"></progress> %s</div>`, f.fraction, html.EscapeString(f.text)),
		}, f.last || f.finished) // in between, the next frame is on its way already
	}
}

// forms is a Displayer of given forms.
type forms map[string]any

func (f forms) MIMEBundle() (map[string]any, error) { return f, nil }

// terminalPainter draws over the current line of a terminal.
func terminalPainter(w io.Writer, width func() int) func(frame) {
	shown := 0
	return func(f frame) {
		text := f.text
		if room := width() - 1; utf8.RuneCountInString(text) > room {
			text = string([]rune(text)[:max(0, room)])
		}
		length := utf8.RuneCountInString(text)
		fmt.Fprintf(w, "\r%s%s", text, strings.Repeat(" ", max(0, shown-length)))
		shown = length
		if f.last {
			fmt.Fprintln(w)
		}
	}
}

// linePainter writes a line whenever another tenth of the work is done, and the last line.
func linePainter(w io.Writer) func(frame) {
	tenths, done := 0, 0
	last := ""
	return func(f frame) {
		if f.done < done { // the next run
			tenths, last = 0, ""
		}
		done = f.done
		n := int(10 * f.fraction)
		if f.text == last || n <= tenths && !f.last && !f.finished {
			return
		}
		tenths = n
		last = f.text
		fmt.Fprintln(w, f.text)
	}
}

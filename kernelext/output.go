package kernelext

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
)

// Output is a place below the cell whose content can be replaced while the cell runs. NewOutput makes one. It can be used from several goroutines at
// once.
//
// Outside a notebook only what Show is given is printed.
type Output struct {
	screen *screen

	mu    sync.Mutex
	id    string
	there bool // whether the front end has it already
}

// NewOutput makes an output. Its place is below what was displayed before its first content.
func NewOutput() *Output { return newOutput(display()) }

func newOutput(s *screen) *Output {
	// The kernel remembers the names of outputs as long as it lives: a name used before would redraw an older cell's output.
	return &Output{screen: s, id: fmt.Sprintf("espalier-%016x", rand.Uint64())}
}

// InNotebook reports whether Update shows anything.
func (o *Output) InNotebook() bool { return o.screen.kernel != nil }

// Update replaces the content by v for as long as it takes until the next Update or Show: the last one before the program ends may be lost.
func (o *Output) Update(v any) {
	if o.InNotebook() {
		o.replace(v, false)
	}
}

// Show replaces the content by v for good. When it returns, the notebook has it.
func (o *Output) Show(v any) { o.replace(v, true) }

func (o *Output) replace(v any, flush bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.screen.present(v)
	m.id, m.update, m.flush = o.id, o.there, flush || !o.there // the first content says where the place is
	o.screen.display(m)
	o.there = true
}

// Note prints a line on standard error outside a notebook, for what Update shows within one.
func (o *Output) Note(line string) {
	if !o.InNotebook() {
		fmt.Fprintln(o.screen.err, strings.TrimRight(line, "\n"))
	}
}

// atEnd are the functions that Must calls before it ends the program.
var atEnd struct {
	sync.Mutex
	n       int
	pending map[int]func()
}

// BeforeExit has f called if Must ends the program, so that what is shown while work goes on is left as it is to stay. The function that
// it returns takes that back: call it when the work has ended.
func BeforeExit(f func()) (cancel func()) {
	atEnd.Lock()
	defer atEnd.Unlock()
	if atEnd.pending == nil {
		atEnd.pending = map[int]func(){}
	}
	atEnd.n++
	n := atEnd.n
	atEnd.pending[n] = f
	return func() {
		atEnd.Lock()
		defer atEnd.Unlock()
		delete(atEnd.pending, n)
	}
}

// closeAll calls what BeforeExit was given, in that order, each once.
func closeAll() {
	for {
		atEnd.Lock()
		first := 0
		for n := range atEnd.pending {
			if first == 0 || n < first {
				first = n
			}
		}
		f := atEnd.pending[first]
		delete(atEnd.pending, first)
		atEnd.Unlock()
		if f == nil {
			return
		}
		f()
	}
}

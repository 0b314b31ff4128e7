package survive

import (
	"bytes"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"time"
)

// Stop says that the reader pressed the stop button: loops of the notebook end at their next turn. The kernel's Go command puts a look at it into
// them: if survive.Stop.Load() { survive.Halt() }.
var Stop atomic.Bool

// interrupted is what a loop panics with, so that deferred calls are made.
type interrupted struct{}

func (interrupted) Error() string { return "interrupted" }

// exitInterrupted is what shells report for a program that SIGINT ended.
const exitInterrupted = 130

// Halt ends the program if it is called by its first goroutine; others wait for that.
func Halt() {
	var stack [64]byte
	if bytes.HasPrefix(stack[:runtime.Stack(stack[:], false)], []byte("goroutine 1 ")) {
		panic(interrupted{})
	}
	select {}
}

// graceful says that the program looks for interrupts itself (kernelext.Context), and is given time to end as it wants.
var graceful atomic.Bool

// Graceful gives a program that is interrupted time to end as it wants.
func Graceful() { graceful.Store(true) }

// How long an interrupted program is waited for. GoNB kills it after five seconds.
const (
	patience = 3500 * time.Millisecond // for one that ends as it wants
	blocked  = 200 * time.Millisecond  // until one that waits for something is taken to go on waiting
	stuck    = 1200 * time.Millisecond // until one that computes in a library is given up
)

// watch waits for interrupts. A second one shortens what the first began.
func (p *Program) watch() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	go func() {
		<-signals
		if p.Graceful || graceful.Load() {
			select {
			case <-signals:
			case <-time.After(patience):
			}
		}
		Stop.Store(true)
		look := time.NewTicker(20 * time.Millisecond)
		giveUp := time.After(stuck)
		for start, waiting := time.Now(), true; waiting; {
			select {
			case <-look.C:
				if p.saved.Load() {
					p.outlive(signals)
				}
				if time.Since(start) > blocked && waits() {
					say("interrupted while it was waiting; what the variables held then is kept")
					p.end(exitInterrupted)
				}
			case <-signals:
				waiting = false
			case <-giveUp:
				waiting = false
			}
		}
		if p.saved.Load() {
			p.outlive(signals)
		}
		say("interrupted in a function that can't be stopped halfway; the variables are as they were before this cell")
		os.Exit(exitInterrupted)
	}()
}

// outlive waits for the end of a program that saves its variables, or has done so. Where it does not end by itself (its first goroutine called runtime.Goexit) it is ended; a second interrupt
// ends it at once.
func (p *Program) outlive(signals <-chan os.Signal) {
	for patience := stuck; patience > 0; {
		select {
		case <-signals:
			patience = 0
		case <-time.After(stuck / 10):
			if p.kept.Load() {
				patience -= stuck / 10
			}
		}
	}
	os.Exit(exitInterrupted)
}

// waits tells whether the first goroutine is waiting, so that its variables don't change.
func waits() bool {
	stack := make([]byte, 1<<20)
	stack = stack[:runtime.Stack(stack, true)]
	_, state, found := bytes.Cut(stack, []byte("goroutine 1 ["))
	if !found {
		return false
	}
	for _, prefix := range []string{"sleep", "chan", "select", "sync", "sema", "IO wait"} {
		if bytes.HasPrefix(state, []byte(prefix)) {
			return true
		}
	}
	return false
}

// End is what the cell's main function defers: it saves the variables, however that function ends.
func (p *Program) End() {
	// A panic that is not ours is not recovered, so that it is reported with its own stack.
	if Stop.Load() {
		if r := recover(); r != nil {
			if _, ours := r.(interrupted); ours {
				say("interrupted; what the variables held then is kept")
				p.end(exitInterrupted)
			}
			defer panic(r)
		}
	}
	if err := p.Save(); err != nil {
		say(err.Error())
		if r := recover(); r != nil {
			panic(r)
		}
		os.Exit(1)
	}
}

// Exit saves the variables before the process ends, and returns the code to end it with.
func (p *Program) Exit(code int) int {
	if err := p.Save(); err != nil {
		say(err.Error())
		return max(code, 1)
	}
	return code
}

func (p *Program) end(code int) { os.Exit(p.Exit(code)) }

// Exit saves the variables of the cell that this process runs, if it runs one, and returns the code to end it with: os.Exit(survive.Exit(1)).
func Exit(code int) int {
	if active == nil {
		return code
	}
	return active.Exit(code)
}

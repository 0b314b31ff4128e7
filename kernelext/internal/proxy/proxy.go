// Package proxy is the kernel that front ends talk to: Jupyter's protocol on one side, an unchanged GoNB on the other.
//
// It answers what GoNB leaves unanswered, checks what goes in and mends what comes out. Each idea has its file, or its package below this one:
//
//	zmtp, wire        sockets; messages and their signatures
//	cell              what a cell's source means
//	trace             errors that speak of the notebook
//	history, magic    what was run; commands of our own
//	front.go          the sockets of the front end
//	gonb.go           the process that compiles and runs
//	execute.go        the queue of cells, and what running one is
//	output.go         what goes to the reader, in order, neither too often nor too late
//	ask.go, gopls     completion and documentation
//	answer.go         questions that need neither
//	interrupt.go      stopping what runs, at whatever stage
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/history"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/magic"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
)

// Config says what a kernel is made of.
type Config struct {
	ConnectionFile string
	Gonb           []string // the command that starts GoNB, without --kernel
	Home           string   // for history and variables
	Project        string   // the checkout that cells import from
	Notebook       string   // what tells the notebook from others. "": the directory that the kernel runs in
	Version        string
	Log            io.Writer     // a line for each thing that goes wrong on the wire. nil: os.Stderr
	Magics         []magic.Magic // nil: magic.All
}

// kernel is a running proxy.
type kernel struct {
	Config
	log     *logger
	session string
	front   *front
	out     *output
	state   *keep.Notebook
	history *history.History
	dir     string // for what only this kernel needs: the private connection, the cell's file

	queue   queue
	cells   cellTable
	comms   comms
	backend backend
	imports importTable
	ctx     context.Context // of the kernel, for what requests start

	mu      sync.Mutex
	count   int      // of cells that were run
	running *running // nil: no cell runs
	stop    context.CancelCauseFunc
}

// errShutdown says that a front end asked the kernel to end.
var errShutdown = errors.New("shut down")

// Run runs a kernel until a front end shuts it down, or ctx ends.
func Run(ctx context.Context, c Config) (err error) {
	connection, err := wire.ReadConnection(c.ConnectionFile)
	if err != nil {
		return err
	}
	if c.Log == nil {
		c.Log = os.Stderr
	}
	if c.Magics == nil {
		c.Magics = magic.All
	}
	if c.Notebook == "" {
		if c.Notebook, err = os.Getwd(); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	k := &kernel{Config: c, log: &logger{out: c.Log}, session: wire.NewID(), stop: stop, ctx: ctx}
	k.queue.changed = sync.NewCond(&k.queue.mu)
	removeStale()
	if k.dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid())); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(k.dir)) }()
	if k.state, err = keep.Open(c.Home, c.Notebook); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.state.Close()) }()
	if k.history, err = history.Open(filepath.Join(c.Home, "history.jsonl")); err != nil {
		return err
	}
	k.out = newOutput(func(m *wire.Message) { k.front.publish(m) }, k.session)
	// A front end may be quicker than we are: messages wait until all is there that answers them.
	ready := make(chan struct{})
	late := func(handle func(*wire.Message)) func(*wire.Message) {
		return func(m *wire.Message) {
			select {
			case <-ready:
				handle(m)
			case <-ctx.Done():
			}
		}
	}
	if k.front, err = listenFront(connection, k.log, late(k.onShell), late(k.onControl), late(k.onStdin)); err != nil {
		return err
	}
	defer k.front.close()
	k.out.message(nil, "status", map[string]string{"execution_state": "starting"})
	if err := k.backend.open(ctx, k); err != nil {
		return err
	}
	defer k.backend.close()
	close(ready)
	go k.work(ctx)
	defer k.queue.close()
	k.watchSignals(ctx)
	k.watchParent(ctx)
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, errShutdown) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// dirPrefix begins the names of kernels' directories; the process's id follows.
const dirPrefix = "espalier-kernel-"

// removeStale removes the directories of kernels that were killed.
func removeStale() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		return // no pattern of ours is malformed
	}
	for _, dir := range dirs {
		id, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if pid, err := strconv.Atoi(id); err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir) // another's can't be removed, and need not
		}
	}
}

// watchSignals makes Ctrl-C in the kernel's terminal stop the cell and not the kernel.
func (k *kernel) watchSignals(ctx context.Context) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case s := <-signals:
				if s == os.Interrupt {
					k.interrupt()
				} else {
					k.stop(errShutdown)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
}

// watchParent ends the kernel when the server that started it is gone, however it went.
func (k *kernel) watchParent(ctx context.Context) {
	parent, err := strconv.Atoi(os.Getenv("JPY_PARENT_PID"))
	if err != nil || parent <= 1 || os.Getppid() != parent {
		return // started in another way
	}
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if os.Getppid() != parent {
					k.stop(errShutdown)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
}

// logger writes lines, of each kind only the first few: a hostile peer must not fill a disk.
type logger struct {
	mu    sync.Mutex
	out   io.Writer
	times map[string]int
}

const maxSaid = 5

func (l *logger) say(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.times == nil {
		l.times = map[string]int{}
	}
	if len(l.times) >= 100 {
		what = "more of other kinds"
	}
	l.times[what]++
	switch n := l.times[what]; {
	case n < maxSaid:
		fmt.Fprintln(l.out, "espalier:", what)
	case n == maxSaid:
		fmt.Fprintf(l.out, "espalier: %s (this is not said again)\n", what)
	}
}

package kernelext

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/janpfeifer/gonb/gonbui/protocol"
)

func init() {
	// The kernel knows these two; the protocol package does not register them for the program's side. They carry JSON-like values.
	gob.Register(map[string]any{})
	gob.Register([]any{})
}

// pipe is the connection to the kernel: messages go out through one named pipe, acknowledgements come back through another.
// It writes GoNB's protocol itself, because gonbui would double the packages that a cell links, waits for ever if the kernel is
// gone, and keeps its errors to itself.
type pipe struct {
	out, back string        // paths of the named pipes
	patience  time.Duration // how long to wait for the kernel before giving up

	mu      sync.Mutex // held while a message is sent and acknowledged, so that acknowledgements need no numbers of their own
	encoder *gob.Encoder
	acks    chan int
	broken  error // once set, the connection is not used again
	syncs   int
}

// errTwoWriters: the kernel decodes one gob stream per program, and a second encoder on the same pipe ends it.
var errTwoWriters = errors.New("this program displays through GoNB's gonbui package as well, and the kernel can read only one of the two: " +
	"use either kernelext or gonbui (and what is built on it) in one cell")

// newPipe returns the connection that the environment names, nil outside a notebook. It is opened when first used.
func newPipe(env func(string) string) *pipe {
	out := env(protocol.GONB_PIPE_ENV)
	if out == "" {
		return nil
	}
	return &pipe{out: out, back: env(protocol.GONB_PIPE_BACK_ENV), patience: 30 * time.Second}
}

// send hands data to the kernel. With flush it returns only when the kernel has passed it on to the front end; without, the message
// may be lost if the program ends before the kernel has read it.
func (p *pipe) send(data *protocol.DisplayData, flush bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(); err != nil {
		return err
	}
	if flush {
		// Text that was printed before this call travels through other pipes. Wait until the kernel has taken it out of them,
		// and then for one round trip more, in which it passes it on.
		drainStandardOutput()
		if err := p.sync(); err != nil {
			return err
		}
	}
	if err := p.encoder.Encode(data); err != nil {
		return p.breakOff(fmt.Errorf("writing to the kernel: %w", err))
	}
	if flush {
		return p.sync()
	}
	return nil
}

// breakOff remembers why the connection can't be used any more.
func (p *pipe) breakOff(err error) error {
	p.broken = err
	return err
}

func (p *pipe) open() error {
	if p.broken != nil || p.encoder != nil {
		return p.broken
	}
	if writers(p.out) > 0 {
		return p.breakOff(errTwoWriters)
	}
	w, err := p.openFile(p.out, os.O_WRONLY)
	if err != nil {
		return p.breakOff(err)
	}
	r, err := p.openFile(p.back, os.O_RDONLY)
	if err != nil {
		w.Close()
		return p.breakOff(err)
	}
	p.encoder = gob.NewEncoder(w)
	p.acks = make(chan int, 1)
	go func() {
		defer close(p.acks)
		decoder := gob.NewDecoder(r)
		for {
			var value protocol.CommValue
			if decoder.Decode(&value) != nil {
				return
			}
			if n, ok := value.Value.(int); ok && value.Address == protocol.GonbuiSyncAckAddress {
				p.acks <- n
			}
		}
	}()
	return nil
}

// openFile opens one of the named pipes. That blocks until the kernel has opened the other end, which it does at once if it is alive.
func (p *pipe) openFile(path string, flag int) (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	opened := make(chan result, 1)
	go func() {
		file, err := os.OpenFile(path, flag, 0)
		opened <- result{file, err}
	}()
	select {
	case r := <-opened:
		if r.err != nil {
			return nil, fmt.Errorf("opening the connection to the kernel: %w", r.err)
		}
		return r.file, nil
	case <-time.After(p.patience):
		return nil, fmt.Errorf("opening the connection to the kernel: nothing listens on %s", path)
	}
}

// sync waits until the kernel has dealt with everything sent so far: it answers messages in order.
func (p *pipe) sync() error {
	id := p.syncs
	p.syncs++
	request := &protocol.DisplayData{Data: map[protocol.MIMEType]any{
		protocol.MIMECommValue: &protocol.CommValue{Address: protocol.GonbuiSyncAddress, Value: id},
	}}
	if err := p.encoder.Encode(request); err != nil {
		return p.breakOff(fmt.Errorf("writing to the kernel: %w", err))
	}
	look := time.NewTicker(time.Second)
	defer look.Stop()
	giveUp := time.After(p.patience)
	for {
		select {
		case ack, alive := <-p.acks:
			switch {
			case !alive:
				return p.breakOff(errors.New("the kernel closed the connection"))
			case ack == id:
				return nil
			}
		case <-look.C:
			if writers(p.out) > 1 {
				return p.breakOff(errTwoWriters)
			}
		case <-giveUp:
			return p.breakOff(fmt.Errorf("the kernel did not acknowledge an output within %v", p.patience))
		}
	}
}

// writers counts how often this process has the file open for writing, 0 where the system can't tell.
func writers(path string) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || target != path {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		if err != nil {
			continue
		}
		// Its second line is "flags:", with the flags of open(2) in octal.
		_, flags, _ := strings.Cut(string(info), "flags:")
		flags, _, _ = strings.Cut(strings.TrimSpace(flags), "\n")
		if f, err := strconv.ParseUint(flags, 8, 64); err == nil && f&uint64(os.O_WRONLY|os.O_RDWR) != 0 {
			n++
		}
	}
	return n
}

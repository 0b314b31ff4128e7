package proxy

import (
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// interrupt stops what runs. It can be a magic of ours, the go command and its compilers, a shell command and its children, or the cell's program; and
// what comes next in the same cell. GoNB itself is not told: it would signal the program a second time, which ends it at once instead of letting it save,
// and kill it after five seconds.
func (k *kernel) interrupt() {
	k.mu.Lock()
	r := k.running
	k.mu.Unlock()
	if r == nil {
		return
	}
	r.mu.Lock()
	r.interrupts++
	times := r.interrupts
	r.mu.Unlock()
	r.cancel()
	g := k.backend.now()
	if g == nil {
		return
	}
	if len(processes()) == 0 {
		_ = syscall.Kill(g.pid, syscall.SIGINT) // no /proc here: what GoNB can do
		return
	}
	switch times {
	case 1:
		go r.chase(g)
	case 2:
		r.chased.again(g, syscall.SIGINT) // a program that handles the first is ended by the second
	default:
		r.chased.again(g, syscall.SIGKILL)
	}
}

const (
	chaseEvery   = 10 * time.Millisecond
	toolPatience = 2 * time.Second // a compiler has nothing to save
)

// chase signals every process of the cell, once each, until the cell has ended: one that was about to start when the reader pressed stop is signalled too.
func (r *running) chase(g *gonb) {
	tick := time.NewTicker(chaseEvery)
	defer tick.Stop()
	start := time.Now()
	for {
		r.chased.signal(g, syscall.SIGINT, time.Since(start) > toolPatience)
		select {
		case <-tick.C:
		case <-r.ended:
			return
		case <-g.done:
			return
		}
	}
}

// chased are the processes that were signalled.
type chased struct {
	mu   sync.Mutex // held while processes are looked for and signalled, so that none of the next cell's is
	seen map[process]bool
	over bool
}

// end has no process signalled any more.
func (c *chased) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// signal signals those that were not signalled before, and kills tools that did not heed it. Programs and shell commands may take their time to save.
func (c *chased) signal(g *gonb, s syscall.Signal, killTools bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if c.seen == nil {
		c.seen = map[process]bool{}
	}
	for _, p := range ofCell(g) {
		switch {
		case c.seen[p] && killTools && slices.Contains(tools, p.executable()):
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		case c.seen[p]:
		case p.ignores(s):
			_ = syscall.Kill(p.pid, syscall.SIGTERM)
		default:
			_ = syscall.Kill(p.pid, s) // it may have ended
		}
		c.seen[p] = true
	}
}

// again signals all there are.
func (c *chased) again(g *gonb, s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	for _, p := range ofCell(g) {
		_ = syscall.Kill(p.pid, s)
	}
}

// tools are the programs that only compile, and so have nothing to save.
var tools = []string{"go", "goimports", "compile", "link", "asm", "cgo", "vet"}

// ofCell lists the processes that GoNB runs for a cell: its descendants, but neither gopls nor what the cell's program started, which is the program's.
func ofCell(g *gonb) []process {
	children := map[int][]process{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p)
	}
	var list []process
	var walk func(pid int)
	walk = func(pid int) {
		for _, p := range children[pid] {
			switch name := p.executable(); {
			case pid == g.pid && name == "gopls":
				continue
			case strings.HasPrefix(name, "gonb_"):
				list = append(list, p)
				continue
			}
			list = append(list, p)
			walk(p.pid)
		}
	}
	walk(g.pid)
	return list
}

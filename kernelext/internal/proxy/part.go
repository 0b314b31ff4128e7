package proxy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/magic"
)

// A part is the kernel that magics see.
var _ magic.Kernel = (*part)(nil)

// Print writes to the cell's standard output.
func (p *part) Print(text string) { p.k.out.print(p.r.request, "stdout", text) }

// Show displays something in several forms.
func (p *part) Show(data map[string]any) {
	p.k.out.message(p.r.request, "display_data", object{"data": data, "metadata": object{}, "transient": object{}})
}

// Go runs a program of a magic.
func (p *part) Go(ctx context.Context, code string) error {
	return p.segment(ctx, code, false, numbered{nil, p.r.number}, keep.Cell{Declares: []string{}})
}

// Gonb runs one of GoNB's commands.
func (p *part) Gonb(ctx context.Context, command string) error {
	return p.segment(ctx, command, false, numbered{nil, p.r.number}, keep.Cell{Declares: []string{}})
}

// Forget has GoNB forget declarations; of those that it does not know, since statements made them, there is nothing to forget.
func (p *part) Forget(ctx context.Context, names []string) error {
	s := &segment{idle: make(chan struct{}), mute: true}
	return p.send(ctx, s, "%rm "+strings.Join(names, " "), numbered{nil, p.r.number}, keep.Cell{Declares: []string{}})
}

// State is the directory of the notebook's variables.
func (p *part) State() string { return p.k.state.Dir }

// Magics are all commands of our own.
func (p *part) Magics() []magic.Magic { return p.k.Magics }

// Number is the cell's execution count.
func (p *part) Number() int { return p.r.number }

// Built is when a cell's program was last compiled.
func (p *part) Built() time.Time {
	g := p.k.backend.now()
	if g == nil {
		return time.Time{}
	}
	dir := g.tempDir()
	if dir == "" {
		return time.Time{}
	}
	info, err := os.Stat(filepath.Join(dir, filepath.Base(dir))) // GoNB names program and directory alike
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

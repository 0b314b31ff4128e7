package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/trace"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
)

// segment is what GoNB gets to run at once: a cell, or a command of one.
type segment struct {
	idle  chan struct{}
	errs  stderrReader
	shell bool
	mute  bool // nothing that it prints is shown

	mu     sync.Mutex
	isIdle bool
}

// segment has GoNB run something, and says how it went.
func (p *part) segment(ctx context.Context, code string, shell bool, from numbered, about keep.Cell) error {
	if err := p.revive(ctx); err != nil {
		return err
	}
	return p.send(ctx, &segment{idle: make(chan struct{}), shell: shell}, code, from, about)
}

// revive gives a GoNB that was started again what cells had declared. Its variables have their values still: nothing is evaluated.
func (p *part) revive(ctx context.Context) error {
	if _, err := p.k.backend.get(ctx); err != nil {
		return err
	}
	empty, note := p.k.backend.reborn()
	if note {
		p.print("stderr", "GoNB, which compiles and runs cells, died and was started again, with what cells declared.\n")
	}
	if !empty {
		return nil
	}
	declarations, err := os.ReadFile(filepath.Join(p.k.state.Dir, keep.DeclarationsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was declared
	}
	if err == nil {
		s := &segment{idle: make(chan struct{}), mute: true}
		err = p.send(ctx, s, string(declarations), numbered{nil, p.r.number}, keep.Cell{Declares: []string{}})
	}
	if err != nil {
		return fmt.Errorf("GoNB was started again, but what cells declared could not be given to it (%w): run the cells again", err)
	}
	return nil
}

func (p *part) send(ctx context.Context, s *segment, code string, from numbered, about keep.Cell) error {
	k, r := p.k, p.r
	g, err := k.backend.get(ctx)
	if err != nil {
		return err
	}
	if err := keep.WriteCell(k.cellFile(), p.about(about, code)); err != nil {
		return err
	}
	if err := os.Remove(k.resultFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	request, err := r.request.With(object{
		"code": code, "silent": false, "store_history": true, "allow_stdin": p.input, "stop_on_error": false, "user_expressions": object{},
	})
	if err != nil {
		return err
	}
	request.Metadata, request.Buffers = []byte("{}"), nil
	r.mu.Lock()
	r.segment = s
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.segment = nil
		r.mu.Unlock()
	}()
	g.mu.Lock()
	g.count++
	k.cells.set(g.count, from)
	g.mu.Unlock()
	reply := make(chan *wire.Message, 1)
	g.ask(request, func(m *wire.Message) { reply <- m })
	var m *wire.Message
	select {
	case m = <-reply:
	case <-g.done:
	}
	if m == nil {
		<-g.done
		return k.backend.gone(g)
	}
	// All that it printed has been published before it was idle.
	select {
	case <-s.idle:
	case <-g.done:
	case <-time.After(settle):
		k.log.say("from GoNB: it did not say that a cell had ended")
	}
	return p.outcome(s, m)
}

// outcome reads how a segment went from GoNB's reply and from what was printed.
func (p *part) outcome(s *segment, m *wire.Message) error {
	k := p.k
	var reply struct {
		Status    string   `json:"status"`
		Value     string   `json:"evalue"`
		Traceback []string `json:"traceback"`
	}
	if err := m.Decode(&reply); err != nil {
		return err
	}
	words, shown, exit, last := s.errs.end()
	switch {
	case reply.Status == "ok" && s.shell && exit != "":
		value := exit
		if last != "" {
			value += ": " + last
		}
		return &failure{trace.Plain(trace.Shell, value)}
	case reply.Status == "ok":
		// What looked like last words was not.
		if !shown {
			p.print("stderr", words)
		}
		if exit != "" {
			p.print("stderr", exit+"\n")
		}
		return p.result()
	case words != "" && exitStatus.MatchString(reply.Value):
		return &failure{trace.FromDeath(&k.cells, words)}
	case exitStatus.MatchString(reply.Value):
		return &failure{trace.FromExit(reply.Value, last)}
	}
	if command, ok := strings.CutPrefix(reply.Value, "executing special commands in cell: "); ok {
		return &failure{trace.Plain(trace.Command, command)}
	}
	if e, ok := trace.FromCompiler(&k.cells, reply.Value, reply.Traceback); ok {
		return &failure{e}
	}
	return &failure{trace.Plain(trace.Gonb, reply.Value)}
}

// print writes to a stream of the cell.
func (p *part) print(stream, text string) { p.k.out.print(p.r.request, stream, text) }

var exitStatus = regexp.MustCompile(`^(?:exit status \d+|signal: .+)$`)

const maxResult = 64 << 20

// result publishes the value of the cell's last expression, if its program left one.
func (p *part) result() error {
	k := p.k
	info, err := os.Stat(k.resultFile())
	if errors.Is(err, fs.ErrNotExist) || p.r.silent {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() > maxResult {
		return &failure{trace.Plain(trace.Kernel, fmt.Sprintf("the cell's value takes %d bytes to show, at most %d are allowed", info.Size(), maxResult))}
	}
	text, err := os.ReadFile(k.resultFile())
	if err != nil {
		return err
	}
	var value struct {
		Data     map[string]any `json:"data"`
		Metadata map[string]any `json:"metadata"`
	}
	if err := json.Unmarshal(text, &value); err != nil || len(value.Data) == 0 {
		return &failure{trace.Plain(trace.Kernel, "the cell's value can't be read back")}
	}
	if value.Metadata == nil {
		value.Metadata = object{}
	}
	k.out.message(p.r.request, "execute_result", object{"execution_count": p.r.number, "data": value.Data, "metadata": value.Metadata})
	if plain, ok := value.Data["text/plain"].(string); ok {
		k.history.Result(p.r.number, plain)
	}
	return nil
}

// onOutput takes what GoNB publishes.
func (k *kernel) onOutput(g *gonb, m *wire.Message) {
	k.mu.Lock()
	r := k.running
	k.mu.Unlock()
	var parent *wire.Message
	var s *segment
	if r != nil && r.request.Header.ID == m.ParentID {
		parent = r.request
		r.mu.Lock()
		s = r.segment
		r.mu.Unlock()
	}
	switch m.Header.Type {
	case "status":
		var content struct {
			State string `json:"execution_state"`
		}
		if s != nil && m.Decode(&content) == nil && content.State == "idle" {
			s.setIdle()
		}
	case "execute_input", "error": // we say these ourselves
	case "stream":
		var content struct{ Name, Text string }
		if m.Decode(&content) != nil || s != nil && s.mute {
			return
		}
		if content.Name == "stderr" && s != nil {
			content.Text = trace.WithPlaces(&k.cells, s.errs.add(content.Text, func(late string) {
				k.out.print(parent, "stderr", trace.WithPlaces(&k.cells, late))
			}))
		}
		if parent == nil {
			parent = k.late(m)
		}
		k.out.print(parent, content.Name, content.Text)
	case "update_display_data":
		k.out.update(k.restamp(m, parent))
	default:
		k.out.pass(k.restamp(m, parent))
	}
}

// late makes a parent for what comes after its cell has ended.
func (k *kernel) late(m *wire.Message) *wire.Message {
	parent := &wire.Message{RawHeader: m.RawParent}
	parent.Header.ID = m.ParentID
	return parent
}

func (s *segment) setIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isIdle {
		s.isIdle = true
		close(s.idle)
	}
}

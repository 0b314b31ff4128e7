package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/magic"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/trace"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
)

// failure is an error that is shown as it is.
type failure struct{ shown trace.Error }

func (f *failure) Error() string { return f.shown.Name + ": " + f.shown.Value }

// running is a cell that runs.
type running struct {
	request *wire.Message
	number  int // its execution count
	silent  bool
	cancel  context.CancelFunc // of the magic that runs, if one does
	ended   chan struct{}
	chased  chased // when it is interrupted

	mu         sync.Mutex
	interrupts int
	segment    *segment // what GoNB runs of it at present
}

func (r *running) interrupted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.interrupts > 0
}

// executeRequest is the content of an execute_request, with the protocol's defaults.
type executeRequest struct {
	Code         string            `json:"code"`
	Silent       bool              `json:"silent"`
	StoreHistory *bool             `json:"store_history"`
	StopOnError  *bool             `json:"stop_on_error"`
	AllowStdin   bool              `json:"allow_stdin"`
	Expressions  map[string]string `json:"user_expressions"`
}

// work runs cells, one after the other.
func (k *kernel) work(ctx context.Context) {
	swept := time.Now()
	for {
		m := k.queue.next()
		if m == nil {
			return
		}
		for _, waiting := range k.execute(ctx, m) {
			k.answer(k.front.shell, waiting, withStatus("aborted", object{"execution_count": k.count}))
		}
		if time.Since(swept) > sweepEvery {
			sweepPipes()
			swept = time.Now()
		}
	}
}

// execute runs a cell and answers the request. It returns the cells that are not to be run because it failed: those that waited before the answer, since what
// a front end sends after that it sends knowing.
func (k *kernel) execute(ctx context.Context, m *wire.Message) (aborted []*wire.Message) {
	var q executeRequest
	if err := m.Decode(&q); err != nil {
		k.refuse(k.front.shell, m, trace.Kernel, err.Error())
		return nil
	}
	store := !q.Silent && (q.StoreHistory == nil || *q.StoreHistory)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &running{request: m, silent: q.Silent, cancel: cancel, ended: make(chan struct{})}
	k.mu.Lock()
	if store {
		k.count++
	}
	r.number = k.count
	k.running = r
	k.mu.Unlock()
	k.busy(m)
	if !q.Silent {
		k.out.message(m, "execute_input", object{"code": q.Code, "execution_count": r.number})
	}
	if store && strings.TrimSpace(q.Code) != "" {
		if err := k.history.Add(r.number, q.Code); err != nil {
			k.log.say("the history can't be written: " + err.Error())
		}
	}
	pages, err := k.run(ctx, r, q)
	k.out.flush()
	r.chased.end()
	close(r.ended)
	content := object{"execution_count": r.number}
	if err != nil {
		if q.StopOnError == nil || *q.StopOnError {
			aborted = k.queue.clear()
		}
		e := k.explain(r, err)
		if !q.Silent {
			k.out.message(m, "error", e)
		}
		for name, v := range withStatus("error", e) {
			content[name] = v
		}
	} else {
		expressions := object{}
		for name := range q.Expressions {
			expressions[name] = withStatus("error", trace.Plain("NotSupported", "Go has no expressions that are evaluated from outside"))
		}
		content = withStatus("ok", object{"execution_count": r.number, "user_expressions": expressions, "payload": pages})
	}
	k.reply(k.front.shell, m, content)
	k.mu.Lock()
	k.running = nil
	k.mu.Unlock()
	k.idle(m)
	return aborted
}

// explain turns what ended a cell into what is shown.
func (k *kernel) explain(r *running, err error) trace.Error {
	var f *failure
	e := trace.Plain(trace.Kernel, err.Error())
	if errors.As(err, &f) {
		e = f.shown
	}
	if r.interrupted() && e.Name != trace.Kernel || errors.Is(err, context.Canceled) {
		// What the program said of it is on standard error.
		return trace.Plain(trace.Interrupted, "the cell was interrupted")
	}
	return e
}

// run runs the parts of a cell in their order: commands first, as GoNB does, then its Go.
func (k *kernel) run(ctx context.Context, r *running, q executeRequest) (pages []any, err error) {
	pages = []any{}
	if topic, ok := question(q.Code); ok {
		page, err := k.page(ctx, topic)
		if err != nil {
			return pages, err
		}
		return append(pages, page), nil
	}
	c, err := cell.Read(q.Code)
	var syntax *cell.SyntaxError
	if errors.As(err, &syntax) {
		return pages, &failure{trace.Syntax(c, r.number, syntax)}
	}
	if err != nil {
		return pages, err
	}
	plan, err := k.plan(c)
	if err != nil {
		return pages, err
	}
	p := &part{k: k, r: r, cell: c, input: q.AllowStdin}
	body := func() error { return p.all(ctx, plan) }
	for _, around := range plan.around {
		inner := body
		body = func() error { return around.magic.Around(ctx, p, around.call, inner) }
	}
	return pages, body()
}

// question recognises `name?` and `?name`, by which the reader asks for documentation.
func question(code string) (topic string, ok bool) {
	code = strings.TrimSpace(code)
	if strings.ContainsAny(code, "\n`\"") || strings.HasPrefix(code, "!") {
		return "", false
	}
	if topic, ok = strings.CutSuffix(code, "?"); !ok {
		topic, ok = strings.CutPrefix(code, "?")
	}
	return strings.Trim(topic, "? "), ok
}

// plan is a cell with its commands told apart.
type plan struct {
	steps  []step
	around []command
}

// step is a command of ours, or one that GoNB runs.
type step struct {
	line cell.Line
	own  *command // nil: GoNB's
}

type command struct {
	magic magic.Magic
	call  magic.Call
}

// shapers are the commands of GoNB that say how the cell's Go is run: they stay with it.
var shapers = map[string]bool{"%": true, "main": true, "args": true, "test": true, "exec": true, "wasm": true, "capture": true}

// plan looks at all commands before any is run, so that a cell with a mistake does nothing.
func (k *kernel) plan(c *cell.Cell) (plan, error) {
	var p plan
	if c.Other != nil && !c.IsOtherOfGonb() {
		return p, &failure{trace.Plain(trace.Command, magic.Unknown(k.Magics, "%"+c.Other.Name()))}
	}
	for _, l := range c.Commands {
		if l.Text == "" {
			return p, &failure{trace.Plain(trace.Command, "a line with nothing but % or !: write a command after it, or take it out")}
		}
		if l.Kind == cell.Shell {
			p.steps = append(p.steps, step{line: l})
			continue
		}
		m, own := magic.Find(k.Magics, l.Name())
		switch {
		case !own && magic.IsGonbs(l.Name()):
			p.steps = append(p.steps, step{line: l})
		case !own:
			return p, &failure{trace.Plain(trace.Command, magic.Unknown(k.Magics, "%"+l.Name()))}
		default:
			call := magic.Call{Args: l.Args(), Text: strings.TrimSpace(strings.TrimPrefix(l.Text, l.Name())), Cell: c}
			cmd := command{m, call}
			if m.Around != nil && m.Wraps(call) {
				p.around = append(p.around, cmd)
			} else {
				p.steps = append(p.steps, step{l, &cmd})
			}
		}
	}
	return p, nil
}

// part runs a cell's parts, and is what magics get for a kernel.
type part struct {
	k     *kernel
	r     *running
	cell  *cell.Cell
	input bool
	done  map[int]bool // lines of the cell that need not be run any more
}

// all runs a cell. Each shell command is sent to GoNB by itself, so that what stands behind one that fails is not run.
func (p *part) all(ctx context.Context, plan plan) error {
	c := p.cell
	if c.Other != nil {
		return p.segment(ctx, c.Source, true, numbered{c, p.r.number}, keep.Cell{Declares: []string{}})
	}
	p.done = map[int]bool{}
	waiting := map[int]bool{} // lines of GoNB's commands before the next shell command
	for _, l := range c.Commands {
		if m, own := magic.Find(p.k.Magics, l.Name()); l.Kind == cell.Magic && own && m.Around != nil {
			p.mark(p.done, l)
		}
	}
	for _, s := range plan.steps {
		if p.r.interrupted() {
			return context.Canceled
		}
		switch {
		case s.own != nil:
			p.mark(p.done, s.line)
			if err := p.flushCommands(ctx, waiting, false); err != nil {
				return err
			}
			if err := s.own.magic.Run(ctx, p, s.own.call); err != nil {
				return magicFailure(s.line, err)
			}
		case s.line.Kind == cell.Shell:
			p.mark(p.done, s.line)
			p.mark(waiting, s.line)
			if err := p.flushCommands(ctx, waiting, true); err != nil {
				return err
			}
		case !shapers[s.line.Name()]:
			p.mark(p.done, s.line)
			p.mark(waiting, s.line)
		}
	}
	if err := p.flushCommands(ctx, waiting, false); err != nil {
		return err
	}
	runs := c.HasGo()
	for _, s := range plan.steps {
		runs = runs || s.own == nil && s.line.Kind == cell.Magic && shapers[s.line.Name()]
	}
	if !runs {
		return nil
	}
	about := keep.Cell{Declares: c.Declares, Statements: c.Statements}
	if c.Shows && !p.r.silent {
		about.Show = showFunction
	}
	err := p.segment(ctx, c.Code(func(line int) bool { return p.done[line] }), false, numbered{c, p.r.number}, about)
	var f *failure
	if err == nil || errors.As(err, &f) && f.shown.Name != trace.Compile {
		p.k.imports.add(c.Imports()) // GoNB keeps what compiles, even if it then fails
	}
	return err
}

func (p *part) mark(lines map[int]bool, l cell.Line) {
	for i := l.First; i <= l.Last; i++ {
		lines[i] = true
	}
}

// flushCommands has GoNB run the commands on the given lines.
func (p *part) flushCommands(ctx context.Context, lines map[int]bool, shell bool) error {
	if len(lines) == 0 {
		return nil
	}
	code := p.cell.Only(func(line int) bool { return lines[line] })
	clear(lines)
	return p.segment(ctx, code, shell, numbered{p.cell, p.r.number}, keep.Cell{Declares: []string{}})
}

// magicFailure says which magic failed.
func magicFailure(l cell.Line, err error) error {
	var f *failure
	if errors.As(err, &f) || errors.Is(err, context.Canceled) {
		return err
	}
	return &failure{trace.Plain(trace.Command, "%"+l.Name()+": "+err.Error())}
}

// showFunction is what shows the last expression: see package result.
const showFunction = "github.com/espalier-ml/espalier/kernelext/result.Show"

// resultEnv names the file that a program leaves the value of its last expression in.
const resultEnv = "ESPALIER_RESULT"

func (k *kernel) cellFile() string   { return filepath.Join(k.dir, "cell.json") }
func (k *kernel) resultFile() string { return filepath.Join(k.dir, "result.json") }

// about completes what the go command is told of a cell.
func (p *part) about(a keep.Cell, code string) keep.Cell {
	digest := sha256.Sum256([]byte(code))
	a.Number, a.Digest = p.r.number, hex.EncodeToString(digest[:])
	a.ID = cellID(p.r.request)
	return a
}

// cellID is the front end's name of the cell, where it says one.
func cellID(m *wire.Message) string {
	var metadata struct {
		ID string `json:"cellId"`
	}
	if json.Unmarshal(m.Metadata, &metadata) != nil || len(metadata.ID) > 200 {
		return ""
	}
	return metadata.ID
}

// queue holds the cells that wait.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting []*wire.Message
	bytes   int
	closed  bool
}

const (
	maxWaiting      = 10_000
	maxWaitingBytes = 128 << 20
)

// enqueue has a cell run after those that came before.
func (k *kernel) enqueue(m *wire.Message) {
	if !k.queue.add(m) {
		k.refuse(k.front.shell, m, trace.Kernel, "too many cells wait: interrupt the one that runs, or wait")
	}
}

func (q *queue) add(m *wire.Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.waiting) >= maxWaiting || q.bytes+len(m.Content) > maxWaitingBytes {
		return false
	}
	q.waiting = append(q.waiting, m)
	q.bytes += len(m.Content)
	q.changed.Signal()
	return true
}

// next waits for a cell; nil: there will be none.
func (q *queue) next() *wire.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.changed.Wait()
	}
	if q.closed {
		return nil
	}
	m := q.waiting[0]
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
	q.bytes -= len(m.Content)
	return m
}

// clear returns all that wait, and forgets them.
func (q *queue) clear() []*wire.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting, q.bytes = nil, 0
	return all
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// numbered is a cell and the number under which the reader knows it.
type numbered struct {
	cell   *cell.Cell
	number int
}

// cellTable says which cell GoNB means by its numbers.
type cellTable struct {
	mu    sync.Mutex
	cells map[int]numbered
	first int // numbers below are forgotten
	bytes int
}

const maxCells, maxCellBytes = 20_000, 64 << 20

func (t *cellTable) set(n int, c numbered) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cells == nil {
		t.cells = map[int]numbered{}
	}
	t.cells[n] = c
	if c.cell != nil {
		t.bytes += len(c.cell.Source)
	}
	for t.first < n && (len(t.cells) > maxCells || t.bytes > maxCellBytes) {
		if old := t.cells[t.first]; old.cell != nil {
			t.bytes -= len(old.cell.Source)
		}
		delete(t.cells, t.first)
		t.first++
	}
}

func (t *cellTable) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cells, t.first, t.bytes = nil, 0, 0
}

// Cell returns the cell that GoNB counts as n.
func (t *cellTable) Cell(n int) (*cell.Cell, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.cells[n]
	return c.cell, c.number
}

// settle is how long a cell's end waits for output that is still on its way after GoNB's reply.
const settle = 5 * time.Second

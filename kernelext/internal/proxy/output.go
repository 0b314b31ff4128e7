package proxy

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
)

// output is the way of everything to the reader. What is printed is gathered for a moment, so that a program that prints line by line does not flood
// the front end (Jupyter's server drops what comes too fast); updates of a display are passed on ten times a second, the last one always; and all of it keeps
// its order.
type output struct {
	publish func(*wire.Message)
	session string

	mu      sync.Mutex
	text    []byte // printed, not passed on
	name    string // of the stream
	parent  *wire.Message
	printed time.Time // when text was last passed on
	timer   *time.Timer
	updates map[string]*update
	held    int // bytes in updates that wait
}

// update is the state of a display.
type update struct {
	waiting *wire.Message // nil: the last one was passed on
	sent    time.Time
}

const (
	gather      = 20 * time.Millisecond
	maxGathered = 64 << 10
	updateEvery = 100 * time.Millisecond
	maxHeld     = 16 << 20
	maxDisplays = 1024
)

func newOutput(publish func(*wire.Message), session string) *output {
	o := &output{publish: publish, session: session, updates: map[string]*update{}}
	o.timer = time.AfterFunc(time.Hour, o.tick)
	o.timer.Stop()
	return o
}

// message publishes a message of ours, after all that was printed before.
func (o *output) message(parent *wire.Message, kind string, content any) {
	o.pass(wire.New(o.session, kind, parent, content))
}

// pass publishes a message, after all that was printed before.
func (o *output) pass(m *wire.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushText()
	o.publish(m)
}

// print adds text to a stream.
func (o *output) print(parent *wire.Message, name, text string) {
	if text == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if name != o.name || parent != o.parent {
		o.flushText()
	}
	o.name, o.parent = name, parent
	o.text = append(o.text, text...)
	if len(o.text) >= maxGathered || time.Since(o.printed) >= gather {
		o.flushText()
		return
	}
	o.timer.Reset(gather)
}

func (o *output) flushText() {
	if len(o.text) == 0 {
		return
	}
	o.publish(wire.New(o.session, "stream", o.parent, map[string]string{"name": o.name, "text": string(o.text)}))
	o.printed = time.Now()
	if cap(o.text) > 4*maxGathered {
		o.text = nil
	}
	o.text = o.text[:0]
}

// update passes on the update of a display, now or a little later; one that a later one overtakes is left out.
func (o *output) update(m *wire.Message) {
	var content struct {
		Transient struct {
			ID string `json:"display_id"`
		}
	}
	if json.Unmarshal(m.Content, &content) != nil || content.Transient.ID == "" {
		o.pass(m)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	u := o.updates[content.Transient.ID]
	if u == nil {
		if len(o.updates) >= maxDisplays {
			o.flushUpdates(time.Time{})
			clear(o.updates)
		}
		u = &update{}
		o.updates[content.Transient.ID] = u
	}
	if u.waiting != nil {
		o.held -= len(u.waiting.Content)
	}
	u.waiting = m
	o.held += len(m.Content)
	if wait := updateEvery - time.Since(u.sent); wait > 0 && o.held < maxHeld {
		o.timer.Reset(min(wait, gather))
		return
	}
	o.flushUpdates(time.Now())
}

// flushUpdates passes on the updates that are due at a time; all if that is zero.
func (o *output) flushUpdates(now time.Time) (waiting bool) {
	for _, u := range o.updates {
		if u.waiting == nil {
			continue
		}
		if !now.IsZero() && now.Sub(u.sent) < updateEvery && o.held < maxHeld {
			waiting = true
			continue
		}
		o.flushText() // what was printed before stands before
		o.publish(u.waiting)
		o.held -= len(u.waiting.Content)
		u.waiting, u.sent = nil, time.Now()
	}
	return waiting
}

// tick passes on what is due.
func (o *output) tick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushText()
	if o.flushUpdates(time.Now()) {
		o.timer.Reset(gather)
	}
}

// flush passes on all that waits.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushText()
	o.flushUpdates(time.Time{})
}

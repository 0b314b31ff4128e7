// Package gopls asks gopls about Go code. GoNB starts one for each kernel and asks it itself, but connects only twelve seconds after its start, and has
// cells wait behind questions meanwhile; so the kernel has a connection of its own to the same gopls, which also answers while a cell runs.
package gopls

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"sync"
)

// conn speaks JSON-RPC 2.0 with the framing of the Language Server Protocol.
type conn struct {
	nc net.Conn

	write sync.Mutex

	mu      sync.Mutex
	next    int
	waiting map[int]chan reply
	broken  error
}

type reply struct {
	Result json.RawMessage
	Err    error
}

type message struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

const maxMessage = 64 << 20

var errBroken = errors.New("the connection to gopls is broken")

func dial(path string) (*conn, error) {
	nc, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	c := &conn{nc: nc, waiting: map[int]chan reply{}}
	go c.receive()
	return c, nil
}

func (c *conn) receive() {
	r := bufio.NewReader(c.nc)
	headers := textproto.NewReader(r)
	for {
		h, err := headers.ReadMIMEHeader()
		if err != nil {
			c.fail(err)
			return
		}
		size, err := strconv.Atoi(h.Get("Content-Length"))
		if err != nil || size < 0 || size > maxMessage {
			c.fail(fmt.Errorf("a message of %q bytes", h.Get("Content-Length")))
			return
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(r, body); err != nil {
			c.fail(err)
			return
		}
		var m message
		if json.Unmarshal(body, &m) != nil {
			continue
		}
		switch {
		case m.Method != "" && len(m.ID) > 0:
			// gopls asks for our settings, and to show progress: there is nothing to say.
			result := json.RawMessage("null")
			if m.Method == "workspace/configuration" {
				result = settings(body)
			}
			_ = c.send(message{Version: "2.0", ID: m.ID, Result: result}) // if it fails the next read does too
		case m.Method == "":
			id, err := strconv.Atoi(string(m.ID))
			if err != nil {
				continue
			}
			c.mu.Lock()
			ch := c.waiting[id]
			delete(c.waiting, id)
			c.mu.Unlock()
			if ch != nil {
				answer := reply{Result: m.Result}
				if m.Error != nil {
					answer.Err = errors.New(m.Error.Message)
				}
				ch <- answer
			}
		}
	}
}

// settings answers a question for settings: the defaults, for each section that is asked for.
func settings(body []byte) json.RawMessage {
	var m struct{ Params struct{ Items []any } }
	if json.Unmarshal(body, &m) != nil {
		return json.RawMessage("[]")
	}
	list, err := json.Marshal(make([]any, len(m.Params.Items)))
	if err != nil {
		return json.RawMessage("[]")
	}
	return list
}

func (c *conn) fail(err error) {
	_ = c.nc.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = fmt.Errorf("%w: %v", errBroken, err)
	for id, ch := range c.waiting {
		ch <- reply{Err: c.broken}
		delete(c.waiting, id)
	}
}

func (c *conn) send(m message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	c.write.Lock()
	defer c.write.Unlock()
	_, err = fmt.Fprintf(c.nc, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return err
}

func (c *conn) notify(method string, params any) error {
	return c.send(message{Version: "2.0", Method: method, Params: params})
}

// call asks and waits for the answer, which it reads into result.
func (c *conn) call(ctx context.Context, method string, params, result any) error {
	c.mu.Lock()
	if c.broken != nil {
		defer c.mu.Unlock()
		return c.broken
	}
	c.next++
	id := c.next
	ch := make(chan reply, 1)
	c.waiting[id] = ch
	c.mu.Unlock()
	if err := c.send(message{Version: "2.0", ID: json.RawMessage(strconv.Itoa(id)), Method: method, Params: params}); err != nil {
		return fmt.Errorf("%w: %v", errBroken, err)
	}
	select {
	case r := <-ch:
		if r.Err != nil {
			return r.Err
		}
		return json.Unmarshal(r.Result, result)
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		_ = c.notify("$/cancelRequest", map[string]int{"id": id}) // so that it stops thinking
		return ctx.Err()
	}
}

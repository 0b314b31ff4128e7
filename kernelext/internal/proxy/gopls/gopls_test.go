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
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// server plays gopls: it notes what it is told, and answers what it is asked.
type server struct {
	dir     string
	answers map[string]string // by method
	mu      sync.Mutex
	told    []string // methods
	conns   []net.Conn
}

func startServer(t *testing.T, answers map[string]string) *server {
	t.Helper()
	s := &server{dir: t.TempDir(), answers: answers}
	if err := os.WriteFile(filepath.Join(s.dir, "go.mod"), []byte("module x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(s.dir, "gopls_socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, nc)
			s.mu.Unlock()
			go s.serve(nc)
		}
	}()
	return s
}

func (s *server) serve(nc net.Conn) {
	r := bufio.NewReader(nc)
	write := func(text string) { fmt.Fprintf(nc, "Content-Length: %d\r\n\r\n%s", len(text), text) }
	for {
		h, err := textproto.NewReader(r).ReadMIMEHeader()
		if err != nil {
			return
		}
		n, _ := strconv.Atoi(h.Get("Content-Length"))
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		var m struct {
			ID     json.RawMessage
			Method string
		}
		if json.Unmarshal(body, &m) != nil || m.Method == "" {
			continue // an answer of ours
		}
		s.mu.Lock()
		s.told = append(s.told, m.Method)
		s.mu.Unlock()
		if m.Method == "initialize" {
			write(`{"jsonrpc":"2.0","id":"q","method":"workspace/configuration","params":{"items":[{},{}]}}`)
			write(fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{}}`, m.ID))
		} else if answer, ok := s.answers[m.Method]; ok && len(m.ID) > 0 {
			write(fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,%s}`, m.ID, answer))
		}
	}
}

func context10(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestComplete(t *testing.T) {
	s := startServer(t, map[string]string{"textDocument/completion": `"result":{"items":[
		{"kind":3,"detail":"func()","sortText":"2","textEdit":{"newText":"Second","range":{"start":{"line":1,"character":4},"end":{"line":1,"character":6}}}},
		{"kind":9,"sortText":"1","textEdit":{"newText":"First","range":{"start":{"line":1,"character":4},"end":{"line":1,"character":6}}}},
		{"sortText":"3","textEdit":{"newText":"elsewhere","range":{"start":{"line":0,"character":4},"end":{"line":1,"character":6}}}}]}`})
	c := New(s.dir)
	defer c.Close()
	at := Position{Line: 1, Column: 6}
	for range 2 {
		items, err := c.Complete(context10(t), at, Text{"main.go", "package main"}, Text{"before.go", "package main"})
		if err != nil {
			t.Fatal(err)
		}
		want := []Item{{Text: "First", From: 4, Kind: "module"}, {Text: "Second", From: 4, Kind: "function", Detail: "func()"}}
		if diff := cmp.Diff(want, items); diff != "" {
			t.Errorf("items (-want +got):\n%s", diff)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	want := []string{"initialize", "initialized", "workspace/didChangeWatchedFiles", "textDocument/didOpen", "textDocument/didOpen", "textDocument/completion",
		"textDocument/didChange", "textDocument/didChange", "textDocument/completion"}
	if diff := cmp.Diff(want, s.told); diff != "" {
		t.Errorf("gopls was told (-want +got):\n%s", diff)
	}
}

func TestHover(t *testing.T) {
	s := startServer(t, map[string]string{"textDocument/hover": `"result":{"contents":{"kind":"markdown","value":"**f**"}}`})
	c := New(s.dir)
	defer c.Close()
	if text, err := c.Hover(context10(t), Position{}, Text{"main.go", ""}); err != nil || text != "**f**" {
		t.Errorf("hover %q, error %v", text, err)
	}
	// A connection that breaks is made again with the next question but one.
	s.mu.Lock()
	s.conns[0].Close()
	s.mu.Unlock()
	_, _ = c.Hover(context10(t), Position{}, Text{"main.go", ""})
	if text, err := c.Hover(context10(t), Position{}, Text{"main.go", ""}); err != nil || text != "**f**" {
		t.Errorf("after the connection broke: %q, error %v", text, err)
	}
}

func TestErrors(t *testing.T) {
	s := startServer(t, map[string]string{"textDocument/hover": `"error":{"code":1,"message":"no package"}`})
	c := New(s.dir)
	defer c.Close()
	if _, err := c.Hover(context10(t), Position{}, Text{"main.go", ""}); err == nil || err.Error() != "no package" {
		t.Errorf("error %v, want gopls's own", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Complete(ctx, Position{}, Text{"main.go", ""}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without an answer: error %v, want that time is up", err)
	}
	nobody := New(t.TempDir())
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := nobody.Hover(ctx, Position{}, Text{"main.go", ""}); err == nil {
		t.Error("an answer came from nobody")
	}
}

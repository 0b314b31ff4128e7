package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/zmtp"
)

func fakeChild(seconds string) *exec.Cmd { return exec.Command("sleep", seconds) }

// client is a front end.
type client struct {
	t                     testing.TB
	connection            wire.Connection
	key                   wire.Key
	session               string
	shell, control, stdin *zmtp.Conn
	published             chan *wire.Message
	replies               chan *wire.Message
	controls              chan *wire.Message
	asked                 chan *wire.Message
	log                   *lockedBuffer
	ended                 chan error
	stop                  context.CancelFunc
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startKernel starts a kernel with a fake GoNB, and connects to it.
func startKernel(t testing.TB) *client {
	t.Helper()
	if os.Getenv(fakeVariable) == "" {
		t.Setenv(fakeVariable, "1")
	}
	dir := t.TempDir()
	c := &client{t: t, key: wire.NewKey("the key"), session: wire.NewID(), log: &lockedBuffer{}, ended: make(chan error, 1)}
	c.connection = localConnection(t)
	data, err := json.Marshal(c.connection)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "kernel-test.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	go func() {
		c.ended <- Run(ctx, Config{ConnectionFile: file, Gonb: []string{os.Args[0]}, Home: filepath.Join(dir, "home"), Notebook: "test.ipynb", Version: "test", Log: c.log})
	}()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-c.ended:
			if err != nil {
				t.Errorf("the kernel ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the kernel does not end")
		}
		if t.Failed() {
			t.Logf("the kernel's log:\n%s", c.log)
		}
	})
	receive := func(own zmtp.Type, port int) (*zmtp.Conn, chan *wire.Message) {
		conn := c.dial(own, port)
		messages := make(chan *wire.Message, 100_000)
		go func() {
			defer close(messages)
			for {
				frames, err := conn.Receive()
				if err != nil {
					return
				}
				m, err := wire.Parse(c.key, frames)
				if err != nil {
					t.Errorf("from the kernel: %v", err)
					return
				}
				messages <- m
			}
		}()
		return conn, messages
	}
	_, c.published = receive(zmtp.Sub, c.connection.IOPub)
	c.shell, c.replies = receive(zmtp.Dealer, c.connection.Shell)
	c.control, c.controls = receive(zmtp.Dealer, c.connection.Control)
	c.stdin, c.asked = receive(zmtp.Dealer, c.connection.Stdin)
	c.request(c.shell, "kernel_info_request", object{})
	c.next(c.replies, "kernel_info_reply")
	for m := range c.published {
		if m.Header.Type == "status" && strings.Contains(string(m.Content), "idle") {
			break
		}
	}
	return c
}

// localConnection is a connection by sockets in the file system: of TCP's ports any that is found free may be taken when the kernel opens it.
func localConnection(t testing.TB) wire.Connection {
	t.Helper()
	dir, err := os.MkdirTemp("", "k") // t.TempDir has the test's name, and a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return wire.Connection{Transport: "ipc", IP: filepath.Join(dir, "s"), Key: "the key", Scheme: "hmac-sha256", Shell: 1, Control: 2, Stdin: 3, IOPub: 4, Heartbeat: 5}
}

// dial connects as front ends do: again and again until the kernel listens.
func (c *client) dial(own zmtp.Type, port int) *zmtp.Conn {
	c.t.Helper()
	network, address := c.connection.Address(port)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := zmtp.Dial(network, address, own, []byte(c.session), zmtp.Limits{Message: 256 << 20})
		if err == nil {
			c.t.Cleanup(func() { conn.Close() })
			return conn
		}
		if time.Now().After(deadline) {
			c.t.Fatal(err)
		}
	}
}

func (c *client) message(kind string, content any) *wire.Message {
	m := wire.New(c.session, kind, nil, content)
	m.Header.Username = "reader"
	return m
}

func (c *client) request(s *zmtp.Conn, kind string, content any) *wire.Message {
	c.t.Helper()
	m := c.message(kind, content)
	if err := s.Send(m.Frames(c.key)...); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// next waits for a message.
func (c *client) next(from chan *wire.Message, kind string) *wire.Message {
	c.t.Helper()
	select {
	case m, ok := <-from:
		if !ok {
			c.t.Fatalf("the kernel has closed the connection; %s was expected", kind)
		}
		if kind != "" && m.Header.Type != kind {
			c.t.Fatalf("a %s came, with %s; %s was expected", m.Header.Type, m.Content, kind)
		}
		return m
	case <-time.After(30 * time.Second):
		c.t.Fatalf("no %s came", kind)
	}
	return nil
}

func content(t testing.TB, m *wire.Message) object {
	t.Helper()
	o, err := m.Object()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// outcome is what came of a cell: the reply, and what was published between busy and idle, in order; consecutive text of a stream is one.
type outcome struct {
	reply object
	kinds []string
	all   []object
}

func (o outcome) text(stream string) string {
	text := ""
	for i, kind := range o.kinds {
		if kind == "stream" && o.all[i]["name"] == stream {
			text += o.all[i]["text"].(string)
		}
	}
	return text
}

func (c *client) execute(code string) outcome {
	c.t.Helper()
	return c.collect(c.request(c.shell, "execute_request", object{"code": code, "silent": false}))
}

func (c *client) collect(request *wire.Message) outcome {
	c.t.Helper()
	var o outcome
	for {
		m := c.next(c.published, "")
		if m.ParentID != request.Header.ID {
			continue
		}
		body := content(c.t, m)
		if m.Header.Type == "status" && body["execution_state"] == "idle" {
			break
		}
		if m.Header.Type == "status" {
			continue
		}
		o.kinds, o.all = append(o.kinds, m.Header.Type), append(o.all, body)
	}
	m := c.next(c.replies, "execute_reply")
	for m.ParentID != request.Header.ID {
		m = c.next(c.replies, "execute_reply") // to a request of which nothing else was looked at
	}
	o.reply = content(c.t, m)
	return o
}

package zmtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func wire(frames ...string) []byte {
	var b []byte
	for i, f := range frames {
		flags := byte(flagMore)
		if i == len(frames)-1 {
			flags = 0
		}
		b = appendFrame(b, flags, []byte(f))
	}
	return b
}

func TestReadMessage(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name string
		data []byte
		want []string
		err  error
	}{
		{"short", wire("a", "", "bc"), []string{"a", "", "bc"}, nil},
		{"long", wire(long, "b"), []string{long, "b"}, nil},
		{"truncated header", []byte{0}, nil, io.EOF},
		{"truncated body", []byte{0, 5, 'a'}, nil, io.ErrUnexpectedEOF},
		{"unknown flags", []byte{8, 0}, nil, ErrProtocol},
		{"command with more to come", []byte{flagCommand | flagMore, 0}, nil, ErrProtocol},
		{"command within a message", append([]byte{flagMore, 1, 'a'}, flagCommand, 0), nil, ErrProtocol},
		{"absurd size", []byte{flagLong, 0xff, 0, 0, 0, 0, 0, 0, 0}, nil, ErrProtocol},
	} {
		frames, _, err := readMessage(bufio.NewReader(bytes.NewReader(c.data)), Limits{Message: 1000, Frames: 5})
		if !errors.Is(err, c.err) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.err)
		}
		var got []string
		for _, f := range frames {
			got = append(got, string(f))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// What is over the limits is skipped, and what comes after it is read.
func TestTooLarge(t *testing.T) {
	for name, large := range map[string][]byte{
		"bytes": wire("a", strings.Repeat("x", 2000), "b"), "frames": wire("1", "2", "3", "4", "5", "6", "7"), "bytes together": wire(strings.Repeat("x", 600), strings.Repeat("x", 600)),
	} {
		r := bufio.NewReader(bytes.NewReader(append(large, wire("next")...)))
		if _, _, err := readMessage(r, Limits{Message: 1000, Frames: 5}); err != ErrTooLarge {
			t.Errorf("%s: error %v, want ErrTooLarge", name, err)
		}
		frames, _, err := readMessage(r, Limits{Message: 1000, Frames: 5})
		if err != nil || len(frames) != 1 || string(frames[0]) != "next" {
			t.Errorf("%s: then %q (error %v), want the next message", name, frames, err)
		}
	}
}

// A header that promises much takes no memory.
func TestPromisesAreFree(t *testing.T) {
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			data := []byte{flagLong, 0, 0, 0, 0, 3, 0, 0, 0, 'a'} // 50 MB, of which one byte comes
			_, _, err := readMessage(bufio.NewReader(bytes.NewReader(data)), Limits{Message: 64 << 20, Frames: 5})
			if err == nil {
				b.Fatal("a message came of one byte")
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 3<<20 {
		t.Errorf("%d bytes were allocated for one that came", allocated)
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add(wire("a", "b"))
	f.Add([]byte{flagLong, 0, 0, 0, 0, 0, 0, 1, 0})
	f.Add([]byte{flagCommand, 6, 5, 'R', 'E', 'A', 'D', 'Y'})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			frames, _, err := readMessage(r, Limits{Message: 1 << 16, Frames: 16})
			if err != nil && err != ErrTooLarge {
				break
			}
			for _, frame := range frames {
				_, _, _ = splitCommand(frame)
				_, _ = parseProperties(frame)
			}
		}
	})
}

func address(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

func dial(t *testing.T, path string, own Type, identity string) *Conn {
	t.Helper()
	c, err := Dial("unix", path, own, []byte(identity), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func receive(t *testing.T, c *Conn) string {
	t.Helper()
	frames, err := c.Receive()
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.Join(frames, []byte("|")))
}

func TestRouter(t *testing.T) {
	path := address(t)
	var r *RouterSocket
	ready := make(chan bool)
	r, err := ListenRouter("unix", path, Limits{}, func(id []byte, frames [][]byte) {
		<-ready
		r.Send(id, append([][]byte{[]byte("to " + string(id))}, frames...)...)
	}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	defer r.Close()
	a, b := dial(t, path, Dealer, "a"), dial(t, path, Dealer, "b")
	for _, c := range []struct {
		conn *Conn
		want string
	}{{a, "to a|x|"}, {b, "to b|x|"}, {a, "to a|x|"}} {
		if err := c.conn.Send([]byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, c.conn); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	// A peer that comes back takes the place of its old connection.
	again := dial(t, path, Dealer, "a")
	if err := again.Send([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, again); got != "to a|y" {
		t.Errorf("got %q after coming back", got)
	}
	r.Send([]byte("nobody"), []byte("x")) // must not hang
}

func TestEcho(t *testing.T) {
	path := address(t)
	e, err := ListenEcho("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	c := dial(t, path, Dealer, "")
	if err := c.Send(nil, []byte("ping")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c); got != "|ping" {
		t.Errorf("got %q", got)
	}
}

func TestPub(t *testing.T) {
	path := address(t)
	p, err := ListenPub("unix", path, func(topic []byte) [][]byte { return [][]byte{[]byte("welcome")} })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := dial(t, path, Sub, "")
	if got := receive(t, c); got != "welcome" || !p.Subscribed() {
		t.Errorf("first came %q", got)
	}
	for range 3 {
		p.Send([]byte("topic"), []byte("x"))
	}
	for range 3 {
		if got := receive(t, c); got != "topic|x" {
			t.Errorf("got %q", got)
		}
	}
}

// One that does not read must not keep others from what they are sent, nor the kernel from going on.
func TestSlowSubscriber(t *testing.T) {
	path := address(t)
	p, err := ListenPub("unix", path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	slow, quick := dial(t, path, Sub, ""), dial(t, path, Sub, "")
	for !p.Subscribed() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // for the second
	big := bytes.Repeat([]byte("x"), 1<<20)
	got := make(chan int)
	go func() {
		n := 0
		for ; n < 40; n++ {
			if _, err := quick.Receive(); err != nil {
				break
			}
		}
		got <- n
	}()
	for range 40 {
		p.Send([]byte("t"), big)
	}
	if n := <-got; n != 40 {
		t.Errorf("the one that reads got %d of 40 messages", n)
	}
	_ = slow
}

// A peer that does not present itself keeps nobody out.
func TestSilentPeers(t *testing.T) {
	path := address(t)
	e, err := ListenEcho("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for range 20 {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	c := dial(t, path, Dealer, "")
	if err := c.Send([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c); got != "ping" {
		t.Errorf("got %q", got)
	}
}

func TestWrongPeers(t *testing.T) {
	path := address(t)
	p, err := ListenPub("unix", path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := Dial("unix", path, Dealer, nil, Limits{}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a DEALER at a PUB: error %v, want ErrProtocol", err)
	}
}

package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/gopls"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/trace"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/zmtp"
)

// gonb is a running GoNB. Its sockets are files in a directory that is ours alone, and its messages are signed with a key of their own.
type gonb struct {
	pid                 int
	key                 wire.Key
	shell, stdin, iopub *zmtp.Conn
	heard               chan struct{} // closed when something has come by iopub
	done                chan struct{} // closed when it is gone
	fate                error         // why, once done

	log     io.Writer
	leaving atomic.Bool // it was asked to end

	mu      sync.Mutex
	count   int                            // of execute requests that it got: by this number it calls cells
	pending map[string]func(*wire.Message) // by msg_id: what waits for a reply
	temp    string                         // its temporary directory, once known
	client  *gopls.Client                  // nil: not asked yet
	gopls   process                        // which GoNB starts in a group of its own, once known
}

// backend keeps a GoNB running.
type backend struct {
	k *kernel

	mu      sync.Mutex
	current *gonb
	ready   chan struct{} // closed when there is a current one, or never will be
	fatal   error
	closing bool
	deaths  []time.Time
	told    bool // the reader has seen that the present one died
	note    bool // the reader has yet to be told that the last one died
	empty   bool // the present one has yet to get what cells declared before the last one died
}

const (
	startPatience = 30 * time.Second
	stopPatience  = 5 * time.Second
	// A GoNB that dies again and again is not started again: the front end should know.
	maxDeaths   = 3
	deathWindow = time.Minute
)

// open starts the first GoNB. It does not wait for it: a front end can be answered meanwhile.
func (b *backend) open(ctx context.Context, k *kernel) error {
	b.k, b.ready = k, make(chan struct{})
	if len(k.dir) > 90 {
		return fmt.Errorf("the directory for temporary files, %s, has too long a name for sockets: set TMPDIR to a shorter one", filepath.Dir(k.dir))
	}
	go b.keep(ctx)
	return nil
}

// keep starts GoNB, and again if it dies.
func (b *backend) keep(ctx context.Context) {
	for generation := 1; ; generation++ {
		g, err := b.start(ctx, generation)
		b.mu.Lock()
		if err != nil || b.closing {
			b.fatal = err
			close(b.ready)
			b.mu.Unlock()
			if err != nil && ctx.Err() == nil {
				b.k.log.say(err.Error())
				b.k.stop(err)
			}
			if g != nil {
				g.end(stopPatience)
			}
			return
		}
		b.current = g
		close(b.ready)
		b.mu.Unlock()
		select {
		case <-g.done:
		case <-ctx.Done():
			return
		}
		if !b.again(g) {
			return
		}
	}
}

// again cleans up after a GoNB that died, and says whether to start another.
func (b *backend) again(g *gonb) bool {
	g.cleanUp()
	b.mu.Lock()
	if b.closing {
		b.mu.Unlock()
		return false
	}
	b.current, b.ready, b.note = nil, make(chan struct{}), !b.told
	b.told, b.empty = false, true
	now := time.Now()
	b.deaths = append(b.deaths, now)
	recent := 0
	for _, d := range b.deaths {
		if now.Sub(d) < deathWindow {
			recent++
		}
	}
	b.mu.Unlock()
	b.k.log.say(fmt.Sprintf("GoNB died (%v) and is started again", g.fate))
	g.abandon()
	b.k.cells.reset()
	if recent >= maxDeaths {
		err := fmt.Errorf("GoNB died %d times within a minute, at last with: %w", recent, g.fate)
		b.mu.Lock()
		b.fatal = err
		close(b.ready)
		b.mu.Unlock()
		b.k.log.say(err.Error())
		b.k.stop(err)
		return false
	}
	return true
}

// get returns the running GoNB, once there is one.
func (b *backend) get(ctx context.Context) (*gonb, error) {
	for {
		b.mu.Lock()
		ready := b.ready
		b.mu.Unlock()
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		b.mu.Lock()
		g, fatal, closing := b.current, b.fatal, b.closing
		b.mu.Unlock()
		switch {
		case fatal != nil:
			return nil, fatal
		case closing:
			return nil, errShutdown
		case g == nil:
			continue // it died while we looked: there will be another
		}
		select {
		case <-g.done: // nobody has noticed yet
			time.Sleep(time.Millisecond)
		default:
			return g, nil
		}
	}
}

// reborn says, once, that GoNB was started again, and whether the reader has yet to be told.
func (b *backend) reborn() (empty, note bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	empty, note = b.empty, b.note
	b.empty, b.note = false, false
	return empty, note
}

// now returns the running GoNB; nil: none is.
func (b *backend) now() *gonb {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current
}

// tell passes on a message that has no reply. Messages keep their order, so that it waits for a GoNB that is about to be there.
func (b *backend) tell(m *wire.Message) {
	ctx, cancel := context.WithTimeout(b.k.ctx, stopPatience)
	defer cancel()
	if g, err := b.get(ctx); err == nil {
		_ = g.send(g.shell, m) // if it is gone, so is what would listen
	}
}

// input passes on the reader's answer.
func (b *backend) input(m *wire.Message) {
	if g := b.now(); g != nil {
		_ = g.send(g.stdin, m)
	}
}

// close stops GoNB.
func (b *backend) close() {
	b.mu.Lock()
	b.closing = true
	g := b.current
	b.mu.Unlock()
	if g != nil {
		g.end(stopPatience)
	}
}

// start starts a GoNB and connects to it.
func (b *backend) start(ctx context.Context, generation int) (*gonb, error) {
	k := b.k
	dir := filepath.Join(k.dir, fmt.Sprint(generation))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	secret := wire.NewID()
	connection := wire.Connection{Transport: "ipc", IP: filepath.Join(dir, "g"), Shell: 1, Control: 2, Stdin: 3, IOPub: 4, Heartbeat: 5, Key: secret, Scheme: "hmac-sha256"}
	data, err := json.Marshal(connection)
	if err != nil {
		return nil, err
	}
	// GoNB takes the kernel's id, which widgets need, from the name of the file.
	file := filepath.Join(dir, filepath.Base(k.ConnectionFile))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(k.Gonb[0], append(k.Gonb[1:len(k.Gonb):len(k.Gonb)], "--kernel", file, "-raw_error=true")...)
	cmd.Env = append(os.Environ(), keep.CellEnv+"="+k.cellFile(), keep.StateEnv+"="+k.state.Dir, resultEnv+"="+k.resultFile())
	g := &gonb{key: wire.NewKey(secret), heard: make(chan struct{}), done: make(chan struct{}), pending: map[string]func(*wire.Message){}, log: k.Log}
	cmd.Stdout, cmd.Stderr = (*gonbLog)(g), (*gonbLog)(g)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithUs(cmd.SysProcAttr)
	if err := g.launch(cmd); err != nil {
		return nil, fmt.Errorf("GoNB could not be started: %w; run `go run ./kernelext/cmd/espalier doctor`", err)
	}
	dial := func(own zmtp.Type, port int) (*zmtp.Conn, error) {
		network, address := connection.Address(port)
		deadline := time.Now().Add(startPatience)
		for {
			c, err := zmtp.Dial(network, address, own, []byte("espalier"), zmtp.Limits{Message: 256 << 20})
			if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
				return c, err
			}
			select {
			case <-g.done:
				return nil, fmt.Errorf("it ended at once (%v)", g.fate)
			case <-time.After(3 * time.Millisecond):
			}
		}
	}
	var errs [3]error
	g.iopub, errs[0] = dial(zmtp.Sub, connection.IOPub)
	if errs[0] == nil {
		g.shell, errs[1] = dial(zmtp.Dealer, connection.Shell)
	}
	if errs[0] == nil && errs[1] == nil {
		g.stdin, errs[2] = dial(zmtp.Dealer, connection.Stdin)
	}
	if err := errors.Join(errs[:]...); err != nil {
		g.end(0)
		return nil, fmt.Errorf("GoNB did not start: %w; run `go run ./kernelext/cmd/espalier doctor`", err)
	}
	go g.findTemp()
	heard := sync.OnceFunc(func() { close(g.heard) })
	go g.receive(g.iopub, k, func(m *wire.Message) {
		heard()
		k.onOutput(g, m)
	})
	go g.receive(g.shell, k, func(m *wire.Message) { k.onReply(g, m) })
	go g.receive(g.stdin, k, k.onInput)
	if err := g.nudge(ctx); err != nil {
		g.end(0)
		return nil, fmt.Errorf("GoNB did not start: %w; run `go run ./kernelext/cmd/espalier doctor`", err)
	}
	return g, nil
}

// nudge waits until what GoNB publishes arrives. It drops what it publishes before it has learnt that somebody subscribed, and says nothing about when that is: the outputs of a first
// cell would be lost. So it is asked for something that makes it say that it is busy, until that is heard.
func (g *gonb) nudge(ctx context.Context) error {
	patience := time.After(startPatience)
	for {
		g.ask(wire.New("espalier", "kernel_info_request", nil, object{}), func(*wire.Message) {})
		select {
		case <-g.heard:
			return nil
		case <-g.done:
			return fmt.Errorf("it ended at once (%v)", g.fate)
		case <-ctx.Done():
			return ctx.Err()
		case <-patience:
			return errors.New("it publishes nothing")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// launch starts the process and waits for its end. Both happen on one thread of the system, since the signal that ends GoNB when we die comes when the thread
// that started it ends.
func (g *gonb) launch(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			g.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		g.fate = cmd.Wait()
		if g.fate == nil {
			g.fate = errors.New("it ended by itself")
		}
		close(g.done)
	}()
	return <-started
}

// receive hands on what GoNB sends on one socket.
func (g *gonb) receive(c *zmtp.Conn, k *kernel, handle func(*wire.Message)) {
	for {
		frames, err := c.Receive()
		if errors.Is(err, zmtp.ErrTooLarge) {
			k.out.print(nil, "stderr", "An output of more than 256 MB was left out.\n")
			continue
		}
		if err != nil {
			return
		}
		m, err := wire.Parse(g.key, frames)
		if err != nil {
			k.log.say("from GoNB: " + err.Error())
			continue
		}
		handle(m)
	}
}

func (g *gonb) send(c *zmtp.Conn, m *wire.Message) error { return c.Send(m.Frames(g.key)...) }

// ask sends a request; reply is called with the answer, or with nil if GoNB is gone.
func (g *gonb) ask(m *wire.Message, reply func(*wire.Message)) {
	g.mu.Lock()
	g.pending[m.Header.ID] = reply
	g.mu.Unlock()
	if g.send(g.shell, m) != nil {
		g.answered(m.Header.ID, nil)
	}
}

// answered calls what waits for a reply; false: nothing does.
func (g *gonb) answered(id string, m *wire.Message) bool {
	g.mu.Lock()
	reply := g.pending[id]
	delete(g.pending, id)
	g.mu.Unlock()
	if reply != nil {
		reply(m)
	}
	return reply != nil
}

// abandon tells all that wait that nothing will come.
func (g *gonb) abandon() {
	g.mu.Lock()
	var ids []string
	for id := range g.pending {
		ids = append(ids, id)
	}
	g.mu.Unlock()
	for _, id := range ids {
		g.answered(id, nil)
	}
}

// gonbLog passes on what GoNB writes to its terminal, until it is asked to end: then it now and then panics, with a long stack and no harm.
type gonbLog gonb

func (l *gonbLog) Write(b []byte) (int, error) {
	if l.leaving.Load() {
		return len(b), nil
	}
	return l.log.Write(b)
}

// end asks GoNB to end, and ends it.
func (g *gonb) end(patience time.Duration) {
	g.leaving.Store(true)
	g.tempDir()
	if g.shell != nil && patience > 0 {
		_ = g.send(g.shell, wire.New("espalier", "shutdown_request", nil, object{"restart": false}))
		select {
		case <-g.done:
		case <-time.After(patience):
		}
	}
	select {
	case <-g.done:
	default:
		_ = syscall.Kill(g.pid, syscall.SIGTERM)
		select {
		case <-g.done:
		case <-time.After(time.Second):
			_ = syscall.Kill(g.pid, syscall.SIGKILL)
			<-g.done
		}
	}
	g.cleanUp()
}

// cleanUp removes what a GoNB that did not end by itself leaves: gopls, what it compiled and ran, its temporary directory.
func (g *gonb) cleanUp() {
	temp := g.tempDir()
	for _, p := range processes() {
		if p.group == g.pid {
			removePipes(p)
		}
		if p.group == g.pid || p.pid == g.gopls.pid && p.started == g.gopls.started {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	for _, c := range []*zmtp.Conn{g.shell, g.stdin, g.iopub} {
		if c != nil {
			_ = c.Close()
		}
	}
	g.mu.Lock()
	if g.client != nil {
		g.client.Close()
	}
	g.mu.Unlock()
	if temp != "" {
		_ = os.RemoveAll(temp) // GoNB's own clean-up has been here if it could
	}
	sweepPipes()
}

// tempDir returns the directory in which GoNB compiles; "": it is not known yet. gopls, which GoNB starts there, shows where it is.
func (g *gonb) tempDir() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gopls.pid != 0 {
		return g.temp
	}
	for _, p := range processes() {
		if p.parent != g.pid {
			continue
		}
		dir, err := os.Readlink(filepath.Join("/proc", fmt.Sprint(p.pid), "cwd"))
		if err == nil && strings.HasPrefix(filepath.Base(dir), "gonb_") {
			g.temp = dir
			if p.executable() == "gopls" {
				g.gopls = p
			}
			break
		}
	}
	return g.temp
}

// findTemp looks for the temporary directory while GoNB starts: once GoNB has died nothing shows it any more.
func (g *gonb) findTemp() {
	for range 200 {
		select {
		case <-g.done:
			return
		case <-time.After(20 * time.Millisecond):
		}
		g.tempDir()
		g.mu.Lock()
		found := g.gopls.pid != 0
		g.mu.Unlock()
		if found {
			return
		}
	}
}

// onReply takes GoNB's replies.
func (k *kernel) onReply(g *gonb, m *wire.Message) {
	if !g.answered(m.ParentID, m) && m.Header.Type != "shutdown_reply" && m.Header.Type != "comm_close" {
		k.log.say("from GoNB: a reply that nobody waits for")
	}
}

// onInput passes a program's question on to the front end whose cell it is.
func (k *kernel) onInput(m *wire.Message) {
	k.mu.Lock()
	r := k.running
	k.mu.Unlock()
	if r == nil || m.Header.Type != "input_request" {
		return
	}
	k.out.flush() // what the program printed before it asks
	k.front.reply(k.front.stdin, r.request, k.restamp(m, r.request))
}

// restamp makes GoNB's message one of ours that answers parent.
func (k *kernel) restamp(m, parent *wire.Message) *wire.Message {
	stamped := wire.New(k.session, m.Header.Type, parent, nil)
	stamped.Metadata, stamped.Content, stamped.Buffers = m.Metadata, m.Content, m.Buffers
	if parent == nil {
		stamped.RawParent, stamped.ParentID = m.RawParent, m.ParentID
	}
	return stamped
}

// gone is the error of a cell whose GoNB died.
func (b *backend) gone(g *gonb) *failure {
	b.mu.Lock()
	b.told, b.note = true, false
	b.mu.Unlock()
	return &failure{trace.Plain(trace.Kernel, fmt.Sprintf("GoNB died while the cell ran (%v)", g.fate), "It is started again, with what cells declared.")}
}

package kernelext

import (
	"bytes"
	"encoding/gob"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/janpfeifer/gonb/gonbui/protocol"
)

// fakeKernel is the other end of the pipes, which GoNB has in a notebook.
type fakeKernel struct {
	out, back string

	mu       sync.Mutex
	displays []protocol.DisplayData
	events   []string // "display" and "sync" in the order in which they came
}

// newFakeKernel starts a kernel that acknowledges if acks is true.
func newFakeKernel(t *testing.T, acks bool) *fakeKernel {
	t.Helper()
	dir := t.TempDir()
	k := &fakeKernel{out: filepath.Join(dir, "out"), back: filepath.Join(dir, "back")}
	for _, path := range []string{k.out, k.back} {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replies := make(chan int, 100)
	go func() {
		r, err := os.Open(k.out)
		if err != nil {
			return
		}
		defer r.Close()
		defer close(replies)
		decoder := gob.NewDecoder(r)
		for {
			var data protocol.DisplayData
			if decoder.Decode(&data) != nil {
				return
			}
			k.mu.Lock()
			if comm, ok := data.Data[protocol.MIMECommValue].(protocol.CommValue); ok {
				k.events = append(k.events, "sync")
				if acks && comm.Address == protocol.GonbuiSyncAddress {
					replies <- comm.Value.(int)
				}
			} else {
				k.events = append(k.events, "display")
				k.displays = append(k.displays, data)
			}
			k.mu.Unlock()
		}
	}()
	go func() {
		w, err := os.OpenFile(k.back, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer w.Close()
		encoder := gob.NewEncoder(w)
		for id := range replies {
			if encoder.Encode(&protocol.CommValue{Address: protocol.GonbuiSyncAckAddress, Value: id}) != nil {
				return
			}
		}
	}()
	return k
}

func (k *fakeKernel) received() ([]protocol.DisplayData, []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]protocol.DisplayData(nil), k.displays...), append([]string(nil), k.events...)
}

// env is what the kernel gives a cell's program.
func (k *fakeKernel) env(name string) string {
	return map[string]string{protocol.GONB_PIPE_ENV: k.out, protocol.GONB_PIPE_BACK_ENV: k.back}[name]
}

// newScreen returns a screen on k, and what it prints besides.
func newScreen(k *fakeKernel) (s *screen, out, errs *bytes.Buffer) {
	out, errs = new(bytes.Buffer), new(bytes.Buffer)
	s = &screen{out: out, err: errs}
	if k != nil {
		s.kernel = newPipe(k.env)
		s.kernel.patience = 20 * time.Second
	}
	return s, out, errs
}

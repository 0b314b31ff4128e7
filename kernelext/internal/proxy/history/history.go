// Package history keeps what was run, over sessions, and finds it again, as IPython does: a session a kernel, a line a cell.
package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/gofrs/flock"
)

// Entry is a cell that was run.
type Entry struct {
	Session int    `json:"s"`
	Line    int    `json:"n"`
	Source  string `json:"src"`
	Output  string `json:"out,omitempty"` // the text of its result, if it had one
}

const (
	maxFile   = 8 << 20 // above that the older half goes
	maxSource = 256 << 10
	maxOutput = 4 << 10
)

// History is the file of all sessions, to which this one is added.
type History struct {
	path    string
	session int

	mu      sync.Mutex
	entries []Entry // of this session
}

// Open begins a session. The file is made if it is not there.
func Open(path string) (*History, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	h := &History{path: path, session: 1}
	// The number is taken by an entry without a source, so that two kernels that start at once get two.
	return h, h.locked(func() error {
		all, err := read(path)
		if err != nil {
			return err
		}
		for _, e := range all {
			h.session = max(h.session, e.Session+1)
		}
		if err := h.shorten(all); err != nil {
			return err
		}
		return h.append(Entry{Session: h.session})
	})
}

// Session returns the number of this session.
func (h *History) Session() int { return h.session }

// Add notes a cell that is about to run.
func (h *History) Add(line int, source string) error {
	if len(source) > maxSource {
		source = strings.ToValidUTF8(source[:maxSource], "")
	}
	e := Entry{Session: h.session, Line: line, Source: source}
	h.mu.Lock()
	h.entries = append(h.entries, e)
	if len(h.entries) > 20_000 {
		h.entries = slices.Clone(h.entries[10_000:]) // the file has them
	}
	h.mu.Unlock()
	return h.locked(func() error { return h.append(e) })
}

// Result notes the text of a cell's result, for as long as the session lasts.
func (h *History) Result(line int, text string) {
	if len(text) > maxOutput {
		text = strings.ToValidUTF8(text[:maxOutput], "")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.entries) - 1; i >= 0; i-- {
		if h.entries[i].Line == line {
			h.entries[i].Output = text
			return
		}
	}
}

// locked does something that other kernels must not do at the same time.
func (h *History) locked(do func() error) error {
	l := flock.New(h.path + ".lock")
	if err := l.Lock(); err != nil {
		return err
	}
	return errors.Join(do(), l.Unlock())
}

func (h *History) append(e Entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(h.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if h.torn() {
		data = append([]byte{'\n'}, data...) // a kill left half a line
	}
	_, err = f.Write(append(data, '\n'))
	return errors.Join(err, f.Close())
}

// torn says whether the file ends within a line.
func (h *History) torn() bool {
	f, err := os.Open(h.path)
	if err != nil {
		return false
	}
	defer f.Close()
	end, err := f.Seek(-1, io.SeekEnd)
	var last [1]byte
	if err != nil || end < 0 {
		return false
	}
	_, err = f.Read(last[:])
	return err == nil && last[0] != '\n'
}

// shorten leaves out the older half if the file has become too large.
func (h *History) shorten(all []Entry) error {
	info, err := os.Stat(h.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() <= maxFile {
		return nil
	}
	if err != nil {
		return err
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	for _, e := range all[len(all)/2:] {
		if err := encoder.Encode(e); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(h.path), ".history-")
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), h.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// read returns all entries of the file. A line that can't be read, which a kill may leave at the end, is left out.
func read(path string) ([]Entry, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Entry
	lines := bufio.NewReader(io.LimitReader(f, 4*maxFile))
	for {
		line, err := lines.ReadBytes('\n')
		var e Entry
		if len(line) > 0 && json.Unmarshal(line, &e) == nil && e.Session > 0 {
			all = append(all, e)
		}
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the history can't be read: %w", err)
		}
	}
}

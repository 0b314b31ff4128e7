package kernelext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/janpfeifer/gonb/gonbui/protocol"
)

// Displayer is a value that can present itself in several forms at once, of which the reader's front end takes the richest that it can show.
//
// The keys are MIME types. Text forms ("text/plain", "text/html", "image/svg+xml") are strings, "image/png" is the PNG file as []byte, and
// JSON forms are built of map[string]any, []any, strings, numbers and bools. "text/plain" should be among them: it is what a terminal, a
// diff and a screen reader get. Text inside HTML must be escaped.
//
// A Displayer may also have the method MIMEMetadata() map[string]any, which Jupyter's messaging protocol describes: how wide an image is to
// be drawn, for instance.
type Displayer interface {
	MIMEBundle() (map[string]any, error)
}

// Show displays each value below the cell, as one output each, in the best form that it has:
//
//   - a Displayer, such as a figure, as it presents itself;
//   - a report.Table as a table (its first 50 rows);
//   - an image.Image as a picture;
//   - an error, a fmt.Stringer or anything else as text.
//
// When Show returns, the notebook has the output: nothing is lost if the program ends or crashes right after. What was printed to standard
// output and standard error before comes before it. That holds for writes that have reached the operating system; text that still
// lies in a bufio.Writer comes when it is flushed, and on a very busy machine the kernel can still pass on the last printed line too late.
//
// A value that fails to present itself is not dropped: the failure is displayed in its place and printed to standard error.
//
// Outside a notebook Show prints each value's text form to standard output.
func Show(values ...any) {
	for _, v := range values {
		display().show(v)
	}
}

// screen is where outputs go: the notebook, or a terminal as text.
type screen struct {
	kernel   *pipe // nil: not in a notebook
	out, err io.Writer
	logPath  string // "": no log

	mu sync.Mutex
	n  int // displays so far
}

// display is the process's screen.
var display = sync.OnceValue(func() *screen {
	return &screen{
		kernel:  newPipe(os.Getenv),
		out:     stream(func() *os.File { return os.Stdout }),
		err:     stream(func() *os.File { return os.Stderr }),
		logPath: os.Getenv("ESPALIER_DISPLAY_LOG"),
	}
})

// stream writes to what os.Stdout or os.Stderr is at that time: programs, tests among them, exchange these.
type stream func() *os.File

func (s stream) Write(p []byte) (int, error) { return s().Write(p) }

func (s *screen) show(v any) {
	m := s.present(v)
	m.flush = true
	s.display(m)
}

// present makes a message of v, or of why it can't be shown, which it also prints.
func (s *screen) present(v any) message {
	data, metadata, err := bundle(v)
	if err != nil {
		err = fmt.Errorf("cannot show %T: %w", v, err)
		fmt.Fprintln(s.err, err)
		data, metadata = map[string]any{"text/plain": err.Error()}, nil
	}
	return message{data: data, metadata: metadata, failure: err}
}

// message is one output on its way to the notebook.
type message struct {
	data     map[string]any
	metadata map[string]any
	id       string // "": a new output; else the output of that name is replaced, or made if there is none
	update   bool   // whether the output of that name is there already
	flush    bool
	failure  error // what the output is shown instead of
}

func (s *screen) display(m message) {
	if s.kernel == nil {
		text, _ := m.data["text/plain"].(string)
		if text == "" {
			text = "(no text form; " + strings.Join(slices.Sorted(maps.Keys(m.data)), ", ") + ")"
		}
		fmt.Fprintln(s.out, strings.TrimRight(text, "\n"))
		return
	}
	s.log(m)
	data := make(map[protocol.MIMEType]any, len(m.data))
	for mime, content := range m.data {
		data[protocol.MIMEType(mime)] = content
	}
	if err := s.kernel.send(&protocol.DisplayData{Data: data, Metadata: m.metadata, DisplayID: m.id}, m.flush); err != nil && m.flush {
		// The text form is better than nothing, and standard output still works.
		text, _ := m.data["text/plain"].(string)
		fmt.Fprintln(s.out, strings.TrimRight(text, "\n"))
		fmt.Fprintf(s.err, "an output could not be displayed: %v\n", err)
	}
}

// log notes that a display is about to be sent, so that whoever runs the notebook can compare what was sent with what arrived.
func (s *screen) log(m message) {
	if s.logPath == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	entry := struct {
		N      int      `json:"n"`
		MIME   []string `json:"mime"`
		Update bool     `json:"update"`
		Error  string   `json:"error,omitempty"` // why the value could not be shown
	}{N: s.n, MIME: slices.Sorted(maps.Keys(m.data)), Update: m.update}
	if m.failure != nil {
		entry.Error = m.failure.Error()
	}
	if err := appendJSON(s.logPath, entry); err != nil {
		fmt.Fprintf(s.err, "the display log could not be written: %v\n", err)
		s.logPath = "" // once is enough
	}
}

func appendJSON(path string, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n')) // one write: lines of programs that run at the same time don't mix
	return errors.Join(err, f.Close())
}

// bundle returns the forms that v can be shown in.
func bundle(v any) (data, metadata map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it panicked: %v", r)
		}
	}()
	switch v := v.(type) {
	case Displayer:
		if data, err = v.MIMEBundle(); err != nil {
			return nil, nil, err
		}
		if m, ok := v.(interface{ MIMEMetadata() map[string]any }); ok {
			metadata = m.MIMEMetadata()
		}
		if err = checkBundle(data); err == nil {
			err = checkContent(metadata)
		}
		return data, metadata, err
	case report.Table:
		data, err = tableBundle(v)
	case *report.Table:
		data, err = tableBundle(*v)
	case image.Rectangle: // which is an image.Image, too: of opaque points
		data = map[string]any{"text/plain": v.String()}
	case image.Image:
		data, err = pictureBundle(v)
	default:
		data = map[string]any{"text/plain": fmt.Sprint(v)} // Error() and String() are what fmt takes where they exist
	}
	return data, nil, err
}

// maxPixels bounds what is encoded: an image.Uniform has 4·10¹⁸ of them.
const maxPixels = 1 << 26

func pictureBundle(img image.Image) (map[string]any, error) {
	size := img.Bounds().Size()
	if size.X > maxPixels || size.Y > maxPixels || size.X*size.Y > maxPixels {
		return nil, fmt.Errorf("it has %d × %d pixels, at most %d in all can be shown: cut a part out of it", size.X, size.Y, maxPixels)
	}
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return map[string]any{"image/png": b.Bytes(), "text/plain": fmt.Sprintf("image, %d × %d pixels", size.X, size.Y)}, err
}

// checkBundle finds what the connection to the kernel could not carry before anything of it is sent.
func checkBundle(data map[string]any) error {
	if len(data) == 0 {
		return errors.New("its MIMEBundle is empty; it needs \"text/plain\" at least")
	}
	for _, mime := range slices.Sorted(maps.Keys(data)) {
		if err := checkContent(data[mime]); err != nil {
			return fmt.Errorf("its form %q: %w", mime, err)
		}
	}
	return nil
}

func checkContent(v any) error {
	switch v := v.(type) {
	case string, []byte, bool, int, int64, float64, []string:
		return nil
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := checkContent(v[key]); err != nil {
				return err
			}
		}
		return nil
	case []any:
		for _, element := range v {
			if err := checkContent(element); err != nil {
				return err
			}
		}
		return nil
	default:
		return fmt.Errorf("holds a %T; use a string for text, []byte for a PNG, and maps, slices, numbers and bools for JSON", v)
	}
}

package kernelext

import (
	"bytes"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/google/go-cmp/cmp"
	"github.com/janpfeifer/gonb/gonbui/protocol"
)

// card is a Displayer with all that it wants.
type card struct {
	data     map[string]any
	metadata map[string]any
	err      error
	panics   bool
}

func (c card) MIMEBundle() (map[string]any, error) {
	if c.panics {
		panic("no canvas")
	}
	return c.data, c.err
}

func (c card) MIMEMetadata() map[string]any { return c.metadata }

func TestShowSendsOneDisplayWithAllForms(t *testing.T) {
	k := newFakeKernel(t, true)
	s, out, errs := newScreen(k)
	c := card{
		data:     map[string]any{"image/png": []byte{1, 2, 3}, "image/svg+xml": "<svg/>", "text/plain": "a card", "application/json": map[string]any{"x": []any{1, "y", true}}},
		metadata: map[string]any{"image/png": map[string]any{"width": 640}},
	}
	s.show(c)
	displays, events := k.received()
	want := []protocol.DisplayData{{
		Data: map[protocol.MIMEType]any{"image/png": []byte{1, 2, 3}, "image/svg+xml": "<svg/>", "text/plain": "a card",
			"application/json": map[string]any{"x": []any{1, "y", true}}},
		Metadata: map[string]any{"image/png": map[string]any{"width": 640}},
	}}
	if diff := cmp.Diff(want, displays); diff != "" {
		t.Errorf("displays (-want +got):\n%s", diff)
	}
	// The second sync is what makes Show wait until the display has arrived; the first lets what was printed before pass.
	if diff := cmp.Diff([]string{"sync", "display", "sync"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if out.Len()+errs.Len() > 0 {
		t.Errorf("printed %q and %q, want nothing", out, errs)
	}
}

func TestForms(t *testing.T) {
	for _, c := range []struct {
		name  string
		value any
		want  map[string]any
	}{
		{"error", errors.New("out of weights"), map[string]any{"text/plain": "out of weights"}},
		{"Stringer", 1500 * time.Millisecond, map[string]any{"text/plain": "1.5s"}},
		{"number", 42, map[string]any{"text/plain": "42"}},
		{"nil", nil, map[string]any{"text/plain": "<nil>"}},
		{"struct", struct{ A, B int }{1, 2}, map[string]any{"text/plain": "{1 2}"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := bundle(c.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("forms (-want +got):\n%s", diff)
			}
		})
	}
}

func TestImage(t *testing.T) {
	img := image.NewGray(image.Rect(0, 0, 2, 3))
	img.SetGray(1, 2, color.Gray{Y: 200})
	data, _, err := bundle(img)
	if err != nil {
		t.Fatal(err)
	}
	got, err := png.Decode(bytes.NewReader(data["image/png"].([]byte)))
	if err != nil {
		t.Fatal(err)
	}
	if got.Bounds() != img.Bounds() || got.At(1, 2) != img.At(1, 2) {
		t.Errorf("the PNG is %v with %v at (1, 2), want %v with %v", got.Bounds(), got.At(1, 2), img.Bounds(), img.At(1, 2))
	}
	if want := "image, 2 × 3 pixels"; data["text/plain"] != want {
		t.Errorf("text form %q, want %q", data["text/plain"], want)
	}
}

// A value that can't be shown leaves its mark in the notebook, on standard error and in the log.
func TestShowDoesNotDropFailures(t *testing.T) {
	var missing *report.Table
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"error", card{err: errors.New("two lengths")}, "cannot show kernelext.card: two lengths"},
		{"panic", card{panics: true}, "cannot show kernelext.card: it panicked: no canvas"},
		{"nil pointer", missing, "cannot show *report.Table: it panicked: runtime error: invalid memory address or nil pointer dereference"},
		{"empty", card{}, `cannot show kernelext.card: its MIMEBundle is empty; it needs "text/plain" at least`},
		{"content", card{data: map[string]any{"text/plain": struct{}{}}},
			`cannot show kernelext.card: its form "text/plain": holds a struct {}; use a string for text, []byte for a PNG, and maps, slices, numbers and bools for JSON`},
		{"metadata", card{data: map[string]any{"text/plain": "x"}, metadata: map[string]any{"image/png": map[string]any{"width": float32(1)}}},
			`cannot show kernelext.card: holds a float32; use a string for text, []byte for a PNG, and maps, slices, numbers and bools for JSON`},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newFakeKernel(t, true)
			s, _, errs := newScreen(k)
			s.logPath = filepath.Join(t.TempDir(), "log")
			s.show(c.value)
			s.show("next") // the connection is still good
			displays, _ := k.received()
			want := []protocol.DisplayData{
				{Data: map[protocol.MIMEType]any{"text/plain": c.want}},
				{Data: map[protocol.MIMEType]any{"text/plain": "next"}},
			}
			if diff := cmp.Diff(want, displays); diff != "" {
				t.Errorf("displays (-want +got):\n%s", diff)
			}
			if got := errs.String(); got != c.want+"\n" {
				t.Errorf("standard error %q, want %q", got, c.want+"\n")
			}
			var entry struct{ Error string }
			decodeLine(t, readLines(t, s.logPath)[0], &entry)
			if entry.Error != c.want {
				t.Errorf("the log says %q, want %q", entry.Error, c.want)
			}
		})
	}
}

func TestDisplayLog(t *testing.T) {
	k := newFakeKernel(t, true)
	s, _, _ := newScreen(k)
	s.logPath = filepath.Join(t.TempDir(), "log")
	s.show(card{data: map[string]any{"text/plain": "a", "image/png": []byte{1}}})
	paint := notebookPainter(s)
	paint(frame{text: "p: 1 of 2 steps"})
	paint(frame{text: "p: 2 of 2 steps, done", last: true})
	want := []string{
		`{"n":1,"mime":["image/png","text/plain"],"update":false}`,
		`{"n":2,"mime":["text/html","text/plain"],"update":false}`,
		`{"n":3,"mime":["text/html","text/plain"],"update":true}`,
	}
	if diff := cmp.Diff(want, readLines(t, s.logPath)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestDisplayLogThatCannotBeWritten(t *testing.T) {
	k := newFakeKernel(t, true)
	s, _, errs := newScreen(k)
	s.logPath = t.TempDir() // a directory
	s.show("a")
	s.show("b")
	if displays, _ := k.received(); len(displays) != 2 {
		t.Errorf("%d displays arrived, want 2", len(displays))
	}
	if n := strings.Count(errs.String(), "the display log could not be written"); n != 1 {
		t.Errorf("standard error %q complains %d times, want once", errs, n)
	}
}

func TestShowOutsideANotebook(t *testing.T) {
	s, out, _ := newScreen(nil)
	s.logPath = filepath.Join(t.TempDir(), "log")
	s.show(card{data: map[string]any{"text/plain": "a figure\n", "image/png": []byte{1}}})
	s.show(card{data: map[string]any{"image/png": []byte{1}, "image/svg+xml": "<svg/>"}})
	s.show(3)
	if diff := cmp.Diff("a figure\n(no text form; image/png, image/svg+xml)\n3\n", out.String()); diff != "" {
		t.Errorf("standard output (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(s.logPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a log of displays (%v), want none outside a notebook", err)
	}
}

func TestKernelThatDoesNotAcknowledge(t *testing.T) {
	k := newFakeKernel(t, false)
	s, out, errs := newScreen(k)
	s.kernel.patience = time.Second // it is the patience for opening the pipes, too, which a busy machine takes its time for
	s.show("a result")
	s.show("another") // at once: the connection is known to be broken
	if diff := cmp.Diff("a result\nanother\n", out.String()); diff != "" {
		t.Errorf("standard output (-want +got):\n%s", diff)
	}
	want := "an output could not be displayed: the kernel did not acknowledge an output within 1s\n"
	if diff := cmp.Diff(want+want, errs.String()); diff != "" {
		t.Errorf("standard error (-want +got):\n%s", diff)
	}
}

func TestKernelThatIsGone(t *testing.T) {
	k := &fakeKernel{out: filepath.Join(t.TempDir(), "none"), back: "none"}
	s, out, errs := newScreen(k)
	s.show("a result")
	if got := out.String(); got != "a result\n" {
		t.Errorf("standard output %q, want the text form", got)
	}
	if got := errs.String(); !strings.Contains(got, "an output could not be displayed: opening the connection to the kernel") {
		t.Errorf("standard error %q does not say that the kernel is gone", got)
	}
}

// GoNB's own package has the pipe open already, or opens it later.
func TestTwoWriters(t *testing.T) {
	if _, err := os.Stat("/proc/self/fdinfo"); err != nil {
		t.Skip("this system does not say which files are open")
	}
	k := newFakeKernel(t, true)
	other, err := os.OpenFile(k.out, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s, _, errs := newScreen(k)
	s.show("a result")
	if got := errs.String(); !strings.Contains(got, errTwoWriters.Error()) {
		t.Errorf("standard error %q, want that gonbui is used as well", got)
	}
}

func TestTableBundle(t *testing.T) {
	table := report.Table{
		Title:   "Layers <b>",
		Columns: []report.Column{{Name: "layer"}, {Name: "kept", Unit: "%", Format: "%.1f"}},
		Rows:    [][]any{{"fc1 & fc2", 10.04}, {"<script>alert(1)</script>", 9.0}},
		Caption: `"quoted"`,
	}
	data, err := tableBundle(table)
	if err != nil {
		t.Fatal(err)
	}
	want := `<table>
<caption>Layers &lt;b&gt;</caption>
<thead>
<tr><th align="left" style="text-align:left">layer</th><th align="right" style="text-align:right">kept (%)</th></tr>
</thead>
<tbody>
<tr><td align="left" style="text-align:left">fc1 &amp; fc2</td><td align="right" style="text-align:right">10.0</td></tr>
<tr><td align="left" style="text-align:left">&lt;script&gt;alert(1)&lt;/script&gt;</td><td align="right" style="text-align:right">9.0</td></tr>
</tbody>
</table>
<p><small>&#34;quoted&#34;</small></p>
`
	if diff := cmp.Diff(want, data["text/html"]); diff != "" {
		t.Errorf("HTML (-want +got):\n%s", diff)
	}
	if text := data["text/plain"].(string); !strings.Contains(text, "fc1 & fc2") || !strings.Contains(text, "10.0") {
		t.Errorf("the text form lacks its cells:\n%s", text)
	}
}

func TestLongTableIsCut(t *testing.T) {
	table := report.Table{Columns: []report.Column{{Name: "i"}}}
	for i := range 51 {
		table.Rows = append(table.Rows, []any{i})
	}
	data, err := tableBundle(table)
	if err != nil {
		t.Fatal(err)
	}
	const line = "The first 50 of 51 rows"
	html, text := data["text/html"].(string), data["text/plain"].(string)
	if n := strings.Count(html, "<tr>"); n != 51 { // with the head
		t.Errorf("the HTML has %d rows, want 51", n)
	}
	for _, form := range []string{html, text} {
		if !strings.Contains(form, line) {
			t.Errorf("no line says that the table was cut:\n%s", form)
		}
	}
	if len(table.Rows) != 51 {
		t.Errorf("the table itself was cut to %d rows", len(table.Rows))
	}
	table.Rows = table.Rows[:50]
	if data, err = tableBundle(table); err != nil || strings.Contains(data["text/html"].(string), "The first") {
		t.Errorf("a table of 50 rows is cut (error %v)", err)
	}
}

// Each cell's program is linked anew, so that what this package imports is paid for at every run of every cell.
func TestFewPackagesAreLinked(t *testing.T) {
	list, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(list))
	const most = 110
	if len(packages) > most {
		t.Errorf("kernelext links %d packages, want at most %d", len(packages), most)
	}
	for _, p := range packages {
		if strings.Contains(p, "gomlx") || strings.Contains(p, "gonum.org") || p == "net" {
			t.Errorf("kernelext links %s", p)
		}
	}
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func decodeLine(t *testing.T, line string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), into); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
}

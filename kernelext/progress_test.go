package kernelext

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newBar returns a bar that draws into frames, on a clock that the test turns.
func newBar(title string) (b *Bar, clock *time.Time, frames *[]string) {
	clock, frames = new(time.Time), new([]string)
	*clock = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	b = &Bar{title: title, now: func() time.Time { return *clock }, paint: func(f frame) { *frames = append(*frames, f.text) }}
	return b, clock, frames
}

func TestBarText(t *testing.T) {
	b, clock, frames := newBar("training")
	step := func(d time.Duration, done, total int, note string) {
		*clock = clock.Add(d)
		b.Update(done, total, note)
	}
	step(0, 0, 4300, "")
	step(500*time.Millisecond, 50, 4300, "")           // too early to say how long it takes
	step(500*time.Millisecond, 100, 4300, "loss 0.52") // 100 steps a second
	step(9*time.Second, 1000, 4300, "loss 0.21")       //
	step(time.Second, 2000, 4300, "")                  // faster: 2000 in 11 s
	step(time.Second, 4300, 4300, "loss 0.08")         //
	b.Done()
	want := []string{
		"training: 0 of 4300 steps (0%)",
		"training: 50 of 4300 steps (1%)",
		"training: 100 of 4300 steps (2%), about 42 s left; loss 0.52",
		"training: 1000 of 4300 steps (23%), about 33 s left; loss 0.21",
		"training: 2000 of 4300 steps (47%), about 13 s left",
		"training: 4300 of 4300 steps, done",
		"training: 4300 of 4300 steps, done",
	}
	if diff := cmp.Diff(want, *frames); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

func TestBarIsRedrawnFiveTimesASecond(t *testing.T) {
	b, clock, frames := newBar("p")
	const updates = 10000 // one each millisecond, the last after 10 s
	for i := range updates {
		*clock = clock.Add(time.Millisecond)
		b.Update(i, updates+1, "")
	}
	if got := len(*frames); got != 50 {
		t.Errorf("drawn %d times in 10 s, want 50", got)
	}
}

func TestBarLastLine(t *testing.T) {
	for _, c := range []struct {
		name        string
		done, total int
		unit, want  string
	}{
		{"all", 10, 10, "", "p: 10 of 10 steps, done"},
		{"units", 3, 3, "networks", "p: 3 of 3 networks, done"},
		{"part", 4, 10, "", "p: stopped at 4 of 10 steps"},
		{"unknown total", 7, 0, "", "p: 7 steps, done"},
		{"never updated", 0, 0, "", "p: done"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, _, frames := newBar("p")
			b.Unit = c.unit
			if c.done > 0 {
				b.Update(c.done, c.total, "loss 0.1")
			}
			b.Done()
			b.Done()             // again does nothing
			b.Update(1, 10, "x") // nor does this
			if got := (*frames)[len(*frames)-1]; got != c.want {
				t.Errorf("last line %q, want %q", got, c.want)
			}
		})
	}
}

// One bar can follow several runs: the time left is that of the current one.
func TestBarOfSeveralRuns(t *testing.T) {
	b, clock, frames := newBar("p")
	b.Update(0, 10, "")
	*clock = clock.Add(100 * time.Second)
	b.Update(10, 10, "")
	*clock = clock.Add(time.Second)
	b.Update(2, 10, "") // resumed at 2
	*clock = clock.Add(2 * time.Second)
	b.Update(6, 10, "") // 4 in 2 s
	want := []string{
		"p: 0 of 10 steps (0%)",
		"p: 10 of 10 steps, done",
		"p: 2 of 10 steps (20%)",
		"p: 6 of 10 steps (60%), about 2 s left",
	}
	if diff := cmp.Diff(want, *frames); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

func TestTimeLeft(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "about 1 s left"},
		{89 * time.Second, "about 89 s left"},
		{100 * time.Second, "about 2 min left"},
		{89 * time.Minute, "about 89 min left"},
		{150 * time.Minute, "about 2.5 h left"},
	} {
		if got := TimeLeft(c.d); got != c.want {
			t.Errorf("TimeLeft(%v) = %q, want %q", c.d, got, c.want)
		}
	}
}

func TestBarInANotebook(t *testing.T) {
	k := newFakeKernel(t, true)
	s, out, errs := newScreen(k)
	b := &Bar{title: "<i>", now: time.Now, paint: notebookPainter(s)}
	b.Update(1, 4, "a & b")
	b.Update(4, 4, "")
	b.Done()
	displays, events := k.received()
	type shown struct{ Plain, HTML string }
	var got []shown
	ids := map[string]bool{}
	for _, d := range displays {
		got = append(got, shown{d.Data["text/plain"].(string), d.Data["text/html"].(string)})
		ids[d.DisplayID] = true
	}
	want := []shown{
		{"<i>: 1 of 4 steps (25%); a & b", `<div><progress value="0.25" max="1"></progress> &lt;i&gt;: 1 of 4 steps (25%); a &amp; b</div>`},
		{"<i>: 4 of 4 steps, done", `<div><progress value="1" max="1"></progress> &lt;i&gt;: 4 of 4 steps, done</div>`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
	if len(ids) != 1 || ids[""] {
		t.Errorf("the frames go to the outputs %v, want one with a name", ids)
	}
	if events[len(events)-1] != "sync" {
		t.Errorf("the last frame is not waited for: %v", events)
	}
	if out.Len()+errs.Len() > 0 {
		t.Errorf("printed %q and %q, want nothing", out, errs)
	}
}

// Two bars, also of two programs, don't draw over each other.
func TestBarsHaveNamesOfTheirOwn(t *testing.T) {
	k := newFakeKernel(t, true)
	s, _, _ := newScreen(k)
	for range 2 {
		notebookPainter(s)(frame{text: "x"})
	}
	displays, _ := k.received()
	if displays[0].DisplayID == displays[1].DisplayID {
		t.Errorf("both bars draw into the output %q", displays[0].DisplayID)
	}
}

func TestBarOnATerminal(t *testing.T) {
	var w bytes.Buffer
	paint := terminalPainter(&w, func() int { return 12 })
	paint(frame{text: "p: 100 of 200 steps"}) // wider than the terminal
	paint(frame{text: "p: 2"})
	paint(frame{text: "p: done", last: true})
	if diff := cmp.Diff("\rp: 100 of 2\rp: 2       \rp: done\n", w.String()); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
}

func TestBarInALog(t *testing.T) {
	var w bytes.Buffer
	b := &Bar{title: "p", paint: linePainter(&w)}
	now := time.Time{}
	b.now = func() time.Time { now = now.Add(time.Hour); return now }
	b.paint(frame{text: "p: starting"})
	for i := range 31 {
		b.Update(i, 30, "")
	}
	b.Update(1, 30, "") // a second run
	b.Update(30, 30, "")
	b.Done()
	lines := strings.Split(strings.TrimSpace(w.String()), "\n")
	var got []string
	for _, l := range lines {
		l, _, _ = strings.Cut(l, " steps")
		got = append(got, l)
	}
	var want []string
	for i := 3; i <= 30; i += 3 {
		want = append(want, fmt.Sprintf("p: %d of 30", i))
	}
	want = append(want, "p: 30 of 30") // of the second run
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if last := lines[len(lines)-1]; last != "p: 30 of 30 steps, done" {
		t.Errorf("last line %q", last)
	}
}

func TestBarFromManyGoroutines(t *testing.T) {
	k := newFakeKernel(t, true)
	s, _, _ := newScreen(k)
	b := &Bar{title: "p", now: time.Now, paint: notebookPainter(s)}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				b.Update(i, 200, "")
				s.show(i)
			}
		})
	}
	wg.Wait()
	b.Update(200, 200, "")
	b.Done()
	displays, _ := k.received()
	last := displays[len(displays)-1]
	if got := last.Data["text/plain"]; got != "p: 200 of 200 steps, done" {
		t.Errorf("last frame %q", got)
	}
}

package live

import (
	"bytes"
	"errors"
	"image/png"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/figure"
	"github.com/espalier-ml/espalier/pkg/report"
)

// board is where a test's chart is drawn.
type board struct {
	notebook bool
	takes    time.Duration // each drawing
	begun    chan struct{} // is told of each drawing, unless nil

	mu      sync.Mutex
	frames  []any
	shown   []any
	noted   []string
	current int // drawings at this moment
	clash   bool
}

func (b *board) InNotebook() bool { return b.notebook }

func (b *board) Update(v any) {
	b.mu.Lock()
	b.current++
	b.clash = b.clash || b.current > 1
	b.mu.Unlock()
	if b.begun != nil {
		b.begun <- struct{}{}
	}
	time.Sleep(b.takes)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current--
	b.frames = append(b.frames, v)
}

func (b *board) Show(v any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clash = b.clash || b.current > 0
	b.shown = append(b.shown, v)
}

func (b *board) Note(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noted = append(b.noted, line)
}

func measured(step, total int, loss float64) report.Progress {
	return report.Progress{Step: step, Total: total, Loss: loss, Accuracy: math.NaN()}
}

// training is what a run of 400 steps tells, from one step to another.
func training(c *Chart, from, to int) {
	layers := func(share float64) []report.Layer {
		return []report.Layer{{Name: "/fc1/dense/weights", Kept: int(1000 * share), Size: 1000}, {Name: "/output/dense/weights", Kept: int(100 * share), Size: 100}}
	}
	for step := from; step <= to; step += 50 {
		p := measured(step, 400, 2/(1+float64(step)))
		switch {
		case step == 0:
			p.Loss, p.Layers = math.NaN(), layers(1)
		case step%100 == 0:
			p.Layers = layers(1 - float64(step)/500)
			p.Accuracy = 1 - 1/float64(step)
		}
		c.Watch(p)
	}
}

func TestRedrawnTwiceASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{notebook: true}
		c := newChart("training", b, time.Now)
		for i := range 10_000 {
			c.Watch(measured(i, 10_001, 1))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if got := len(b.frames); got != 20 {
			t.Errorf("drawn %d times in 10 s, want 20", got)
		}
	})
}

// Where drawing takes long, it comes less often, so that the training has the time.
func TestSlowDrawingIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{notebook: true, takes: 20 * time.Millisecond}
		c := newChart("training", b, time.Now)
		start := time.Now()
		for i := range 10_000 {
			c.Watch(measured(i, 10_001, 1))
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("watching held the training up: it took %v instead of 10 s", took)
		}
		synctest.Wait()
		if got := len(b.frames); got != 5 { // every 100 · 20 ms
			t.Errorf("drawn %d times in 10 s, want 5", got)
		}
		if b.clash {
			t.Error("two drawings at the same time")
		}
	})
}

// A drawing that is on its way when the run ends does not come after the last one.
func TestDoneComesLast(t *testing.T) {
	b := &board{notebook: true, takes: 50 * time.Millisecond, begun: make(chan struct{}, 1)}
	c := newChart("training", b, time.Now)
	c.Watch(measured(50, 400, 1))
	<-b.begun
	c.Done()
	c.Done()
	c.Watch(measured(100, 400, 1))
	if len(b.frames) != 1 || len(b.shown) != 1 || b.clash {
		t.Errorf("%d frames, %d last ones, at the same time: %v; want one each, one after the other", len(b.frames), len(b.shown), b.clash)
	}
}

// What stays is a figure in all static forms that says how far the run came.
func TestDoneLeavesAStaticFigure(t *testing.T) {
	for _, c := range []struct {
		to   int
		want string
	}{{400, "LeNet: 400 steps, done"}, {250, "LeNet: stopped at step 250 of 400"}} {
		b := &board{notebook: true}
		chart := newChart("LeNet", b, time.Now)
		training(chart, 0, c.to)
		chart.Done()
		forms, err := b.shown[0].(figure.Figure).MIMEBundle()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(bytes.NewReader(forms["image/png"].([]byte))); err != nil {
			t.Error(err)
		}
		if svg := forms["image/svg+xml"].(string); !strings.Contains(svg, c.want) {
			t.Errorf("the SVG does not say %q", c.want)
		}
		if text := forms["text/plain"].(string); !strings.HasPrefix(text, c.want+"\n") {
			t.Errorf("the text begins %.60q, want %q", text, c.want)
		}
	}
}

func TestChartText(t *testing.T) {
	b := &board{}
	c := newChart("LeNet", b, time.Now)
	training(c, 0, 200)
	c.Done()
	const want = `LeNet: stopped at step 200 of 400
[grid of figures]
training loss: 0.0100
[line chart]
x: step
  x         y
---  --------
 50  0.039216
100  0.019802
150  0.013245
200  0.009950

weights removed: 40.0%
[line chart]
x: step
  x  y (%)
---  -----
  0   0.00
100  20.00
200  40.00

weights left: 660
[bar chart]
            y (%)
----------  -----
fc1: 600    60.00
output: 60  60.00

validation accuracy: 99.50%
[line chart]
x: step
  x  y (%)
---  -----
100  99.00
200  99.50`
	forms, err := b.shown[0].(figure.Figure).MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, forms["text/plain"]); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

// A run that was interrupted and went on leaves the same figure as one that was not: it tells its past first.
func TestResumedRunLeavesTheSameFigure(t *testing.T) {
	draw := func(watch func(c *Chart)) map[string]any {
		b := &board{notebook: true}
		c := newChart("LeNet", b, time.Now)
		watch(c)
		c.Done()
		forms, err := b.shown[0].(figure.Figure).MIMEBundle()
		if err != nil {
			t.Fatal(err)
		}
		return forms
	}
	whole := draw(func(c *Chart) { training(c, 0, 400) })
	resumed := draw(func(c *Chart) { training(c, 0, 250); training(c, 300, 400) })
	if diff := cmp.Diff(whole, resumed); diff != "" {
		t.Errorf("the figures differ:\n%.500s", diff)
	}
	again := draw(func(c *Chart) { training(c, 0, 200); training(c, 0, 400) })
	if diff := cmp.Diff(whole, again); diff != "" {
		t.Errorf("a second run on the same chart leaves something of the first:\n%.500s", diff)
	}
}

func TestTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChart("LeNet", &board{notebook: true}, time.Now)
		training(c, 0, 200) // the past of a run that goes on: it took no time
		if got := c.run.status(); got != "step 200 of 400 (50%)" {
			t.Errorf("after the past: %q", got)
		}
		time.Sleep(2 * time.Second)
		training(c, 250, 250) // 50 steps in 2 s
		if got, want := c.run.status(), "step 250 of 400 (62%), about 6 s left"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// What can't be drawn is left out; the chart goes on.
func TestOddReports(t *testing.T) {
	for name, reports := range map[string][]report.Progress{
		"nothing":       nil,
		"no numbers":    {measured(1, 10, math.NaN()), measured(2, 10, math.Inf(1))},
		"no total":      {measured(1, 0, 1), measured(2, 0, 2)},
		"beyond":        {measured(20, 10, 1)},
		"huge":          {measured(1, 10, 1e300), measured(2, 10, 1)},
		"no weights":    {{Step: 1, Total: 2, Loss: math.NaN(), Accuracy: math.NaN(), Layers: []report.Layer{{Name: "a"}}}},
		"too many kept": {{Step: 1, Total: 2, Loss: 1, Accuracy: 2, Layers: []report.Layer{{Name: "a", Kept: 5, Size: 2}}}},
		"odd names":     {{Step: 1, Total: 2, Loss: 1, Accuracy: 0.5, Layers: []report.Layer{{Name: "</script><script>", Kept: 1, Size: 2}, {Name: "/", Size: 1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &board{notebook: true}
			c := newChart("<b>", b, time.Now)
			for _, p := range reports {
				c.Watch(p)
			}
			if f := c.run.figure("<b>"); f != nil {
				forms, err := frame{f}.MIMEBundle()
				if err != nil {
					t.Fatal(err)
				}
				if html := forms["text/html"].(string); strings.Contains(html, "<script") || strings.Contains(html, "<b>") {
					t.Error("a name is not escaped")
				}
			}
			c.Done()
			if f, ok := b.shown[0].(figure.Figure); ok {
				var wrong *figure.InputError
				if _, err := f.MIMEBundle(); errors.As(err, &wrong) {
					t.Error(err)
				}
			}
		})
	}
}

func TestOutsideANotebookEachTenthIsNoted(t *testing.T) {
	b := &board{}
	c := newChart("training", b, time.Now)
	for step := 1; step <= 1000; step++ {
		c.Watch(measured(step, 1000, 1))
	}
	if len(b.noted) != 10 || len(b.frames) != 0 || !strings.HasPrefix(b.noted[0], "training: step 100 of 1,000 (10%)") {
		t.Errorf("%d frames, noted %q, want a line for each tenth", len(b.frames), b.noted)
	}
}

func TestLayerName(t *testing.T) {
	for path, want := range map[string]string{
		"/fc1/dense/weights": "fc1", "/conv1/conv/weights": "conv1", "/block/1/weights": "block/1", "/weights": "weights", "": "", "/": "",
	} {
		if got := layerName(path); got != want {
			t.Errorf("layerName(%q) = %q, want %q", path, got, want)
		}
	}
}

// Package live shows how a training goes while it goes: one output below the cell in which loss and accuracy, the share of weights that is removed, and what
// is left of each layer are redrawn in place, with the time left. At the end, or where the reader stopped it, it leaves the chart as a static figure.
//
//	chart := live.New("LeNet-300-100, pruned while it trains")
//	defer chart.Done()
//	_, err := trainer.Train(kernelext.Context(), experiment.Training{Epochs: 10, Pruner: pruner, …, Dir: dir, Validate: 430, Watch: chart.Watch})
//	kernelext.Must(err)
//
// The chart itself costs less than can be measured. The accuracy is the training's to measure: on MNIST each epoch takes about four percent of the time,
// every third less than two; `espalier bench live` says what it is here.
//
// The chart takes plain numbers, so that this package knows nothing of what trains.
package live

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/kernelext"
	"github.com/espalier-ml/espalier/kernelext/figure"
	"github.com/espalier-ml/espalier/pkg/report"
)

// Chart is one training's chart. New makes one. It can be used from several goroutines at once.
type Chart struct {
	title string
	out   place
	now   func() time.Time // a test's clock, or time.Now

	forget func() // takes back that kernelext.Must is to call Done

	mu     sync.Mutex
	run    run
	began  time.Time // since when, and from which step on, steps are timed
	from   int
	next   time.Time // when it may be drawn again
	tenths int       // of the run that were noted outside a notebook
	closed bool

	painting sync.Mutex // held while it is drawn: the last drawing comes last
}

// place is where the chart is drawn: a *kernelext.Output, or what a test puts there.
type place interface {
	InNotebook() bool
	Update(v any)
	Show(v any)
	Note(line string)
}

const (
	redrawEvery = time.Second / 2 // at most: each frame goes through the kernel into the browser
	// share is how much longer than a drawing the time up to the next one is at least, so that drawing takes no more than one percent of it.
	share = 100
)

// New makes a chart and shows its place. Give its Watch to the training, and call Done at the end.
func New(title string) *Chart {
	c := newChart(title, kernelext.NewOutput(), time.Now)
	c.forget = kernelext.BeforeExit(c.Done)
	return c
}

func newChart(title string, out place, now func() time.Time) *Chart {
	return &Chart{title: title, out: out, now: now, forget: func() {}}
}

// run is what is known of the training.
type run struct {
	step, total              int
	loss, accuracy, sparsity series
	layers                   []report.Layer
	finished                 bool
	left                     time.Duration // 0: not known
}

type series struct{ x, y []float64 }

func (s *series) add(step int, v float64) {
	s.x, s.y = append(s.x, float64(step)), append(s.y, v)
}

// Watch notes how the training stands. It returns at once: the chart is drawn beside the training, at most twice a second and for at most one percent of the
// time. Numbers that are not finite count as not measured. When steps fall, a new run begins, and the chart with it.
func (c *Chart) Watch(p report.Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	now := c.now()
	if p.Step < c.run.step {
		c.run, c.began, c.tenths = run{}, time.Time{}, 0
	}
	c.run.add(p)
	// A run that goes on tells its past at once: that took no time.
	if c.began.IsZero() || now.Sub(c.began) < 20*time.Millisecond {
		c.began, c.from = now, p.Step
	}
	c.run.left = 0
	// The first second says little about the rest.
	if elapsed, advanced := now.Sub(c.began), p.Step-c.from; advanced > 0 && elapsed >= time.Second && p.Total > p.Step {
		c.run.left = time.Duration(float64(elapsed) / float64(advanced) * float64(p.Total-p.Step))
	}
	if !c.out.InNotebook() {
		if tenths := 10 * p.Step / max(1, p.Total); p.Total > 0 && tenths > c.tenths {
			c.tenths = tenths
			c.out.Note(c.title + ": " + c.run.status())
		}
		return
	}
	if now.Before(c.next) {
		return
	}
	c.next = now.Add(time.Hour) // until this drawing is done
	go c.redraw(c.run)          // a copy: its series are only appended to
}

// redraw draws one frame and says when the next may come.
func (c *Chart) redraw(r run) {
	c.painting.Lock()
	defer c.painting.Unlock()
	c.mu.Lock()
	closed, start := c.closed, c.now()
	c.mu.Unlock()
	if closed {
		return
	}
	if f := r.figure(c.title); f != nil {
		c.out.Update(frame{f})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	took := c.now().Sub(start)
	c.next = start.Add(max(redrawEvery, share*took))
}

// Done leaves the chart as it stands, as PNG, SVG and text. Later calls, and calls of Watch, do nothing.
func (c *Chart) Done() {
	c.painting.Lock()
	defer c.painting.Unlock()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	r := c.run
	c.mu.Unlock()
	c.forget()
	r.left, r.finished = 0, true
	if f := r.figure(c.title); f != nil {
		c.out.Show(f)
		return
	}
	c.out.Show(c.title + ": " + r.status())
}

// frame is a figure as HTML, which front ends exchange without a flicker, and text; no PNG, which takes longer than all else.
type frame struct{ figure.Figure }

// MIMEBundle hides that of the figure.
func (f frame) MIMEBundle() (map[string]any, error) {
	svg, plain, err := figure.SVG(f.Figure)
	if err != nil {
		return nil, err
	}
	return map[string]any{"text/html": "<div>" + svg + "</div>", "text/plain": plain}, nil
}

// add takes in one report.
func (r *run) add(p report.Progress) {
	r.step, r.total = p.Step, p.Total
	if usable(p.Loss) {
		r.loss.add(p.Step, p.Loss)
	}
	if p.Accuracy >= 0 && p.Accuracy <= 1 {
		r.accuracy.add(p.Step, p.Accuracy)
	}
	if len(p.Layers) > 0 {
		kept, size := 0, 0
		for _, l := range p.Layers {
			kept, size = kept+l.Kept, size+l.Size
		}
		if size > 0 && kept >= 0 && kept <= size {
			r.sparsity.add(p.Step, 1-float64(kept)/float64(size))
			r.layers = p.Layers
		}
	}
}

// usable is what a figure can draw.
func usable(v float64) bool { return math.Abs(v) <= 1e100 } // false for NaN

// status says where the run is.
func (r run) status() string {
	switch {
	case r.total <= 0 && r.finished:
		return fmt.Sprintf("%s steps", report.Count(r.step))
	case r.total <= 0:
		return fmt.Sprintf("step %s", report.Count(r.step))
	case r.finished && r.step >= r.total:
		return fmt.Sprintf("%s steps, done", report.Count(r.total))
	case r.finished:
		return fmt.Sprintf("stopped at step %s of %s", report.Count(r.step), report.Count(r.total))
	}
	s := fmt.Sprintf("step %s of %s (%d%%)", report.Count(r.step), report.Count(r.total), 100*r.step/r.total)
	if r.left > 0 {
		s += ", " + kernelext.TimeLeft(r.left)
	}
	return s
}

// figure is the chart as it stands, nil if nothing was measured yet.
func (r run) figure(title string) figure.Figure {
	line := func(name string, s series) figure.Line {
		l := figure.Line{Title: name, XLabel: "step", Series: []figure.Series{{X: s.x, Y: s.y}}}
		if r.total > 0 {
			l.XMax = float64(r.total) // from the start, so that the lines grow and the axis stays
		}
		return l
	}
	var panels []figure.Figure
	if len(r.loss.y) > 0 {
		l := line("training loss: "+latest(r.loss, "%.4f"), r.loss)
		lo, hi := extremes(r.loss.y)
		l.LogY = lo > 0 && hi > 10*lo
		panels = append(panels, l)
	}
	if len(r.sparsity.y) > 0 {
		l := line("weights removed: "+latest(percent(r.sparsity), "%.1f%%"), r.sparsities())
		l.YPercent, l.YMax, l.Series[0].Steps = true, 1, true
		panels = append(panels, l, r.bars())
	}
	if len(r.accuracy.y) > 0 {
		l := line("validation accuracy: "+latest(percent(r.accuracy), "%.2f%%"), r.accuracy)
		lo, _ := extremes(r.accuracy.y)
		l.YPercent, l.YMin, l.YMax = true, max(0, math.Floor(20*lo-0.1)/20), 1
		panels = append(panels, l)
	}
	title += ": " + r.status()
	switch len(panels) {
	case 0:
		return nil
	case 1:
		l := panels[0].(figure.Line)
		l.Title = title
		l.YLabel = cmp.Or(l.YLabel, "training loss")
		if len(r.loss.y) == 0 {
			l.YLabel = "validation accuracy"
		}
		return l
	}
	return figure.Grid{Title: title, Figures: panels}
}

// sparsities is the sparsity up to now.
func (r run) sparsities() series {
	x, y := r.sparsity.x, r.sparsity.y
	last := len(x) - 1
	if float64(r.step) > x[last] {
		x, y = append(slices.Clip(x), float64(r.step)), append(slices.Clip(y), y[last])
	}
	return series{x, y}
}

// bars are what is left of each layer.
func (r run) bars() figure.Bar {
	b := figure.Bar{YPercent: true, YMin: 0, YMax: 1.1, Series: []figure.Series{{}}}
	kept := 0
	for _, l := range r.layers {
		b.Labels = append(b.Labels, fmt.Sprintf("%s: %s", layerName(l.Name), report.Count(l.Kept)))
		share := 0.0
		if l.Size > 0 {
			share = float64(l.Kept) / float64(l.Size)
		}
		b.Series[0].Y = append(b.Series[0].Y, share)
		kept += l.Kept
	}
	b.Title = fmt.Sprintf("weights left: %s", report.Count(kept))
	return b
}

// layerName is a parameter's path without what says nothing: "fc1" of "/fc1/dense/weights".
func layerName(path string) string {
	name := strings.Trim(path, "/")
	for _, end := range []string{"/weights", "/kernel", "/dense", "/conv"} {
		if shorter := strings.TrimSuffix(name, end); shorter != "" {
			name = shorter
		}
	}
	return name
}

func percent(s series) series {
	out := series{x: s.x}
	for _, y := range s.y {
		out.y = append(out.y, 100*y)
	}
	return out
}

func latest(s series, format string) string { return fmt.Sprintf(format, s.y[len(s.y)-1]) }

func extremes(values []float64) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, v := range values {
		lo, hi = math.Min(lo, v), math.Max(hi, v)
	}
	return lo, hi
}

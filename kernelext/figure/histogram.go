package figure

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Sample is a named set of values of which a Histogram shows the distribution.
type Sample struct {
	Name   string
	Values []float64
}

// Float64s converts values, such as a tensor's, to what figures take.
func Float64s[T ~int8 | ~int16 | ~int32 | ~int64 | ~int | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64](values []T) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

// Histogram draws how often values occur, of one sample or of several laid over each other. All samples share the same bins.
type Histogram struct {
	Title, XLabel, YLabel string // YLabel "" is "count"
	Caption               string
	Samples               []Sample
	Bins                  int // 0: 60

	LogY       bool    // logarithmic counts: also shows the rare values beside a tall peak
	XMin, XMax float64 // limits of the x axis; both 0: from the data. Values outside are left out, and the text says how many.

	Width, Height int // px; 0: 640, and a height that suits
}

// MIMEBundle returns the figure as PNG, SVG and text.
func (h Histogram) MIMEBundle() (map[string]any, error) { return bundle(h) }

// MIMEMetadata says at which size the PNG is to be shown.
func (h Histogram) MIMEMetadata() map[string]any { return metadata(h) }

func (h Histogram) kind() string { return "histogram" }

func (h Histogram) frame() frame { return frame{h.Title, h.Caption, h.Width, h.Height} }

const maxBins = 1000

func (h Histogram) check() error {
	wrong := func(series, format string, args ...any) error {
		return &InputError{Figure: h.kind(), Series: series, Problem: fmt.Sprintf(format, args...)}
	}
	if len(h.Samples) == 0 {
		return wrong("", "it has no samples; expected at least one")
	}
	if h.Bins < 0 || h.Bins > maxBins {
		return wrong("", "it is to have %d bins; expected 1 to %d, or 0 for 60", h.Bins, maxBins)
	}
	for i, s := range h.Samples {
		name := fmt.Sprintf("sample %q", h.name(i))
		if len(s.Values) == 0 {
			return wrong(name, "it has no values; expected at least one")
		}
		for j, v := range s.Values {
			if problem := badValue(v, false); problem != "" {
				return wrong(name, "Values[%d] is %v; expected %s", j, v, problem)
			}
		}
	}
	if problem := (axisSpec{min: h.XMin, max: h.XMax}).checkLimits("x"); problem != "" {
		return wrong("", "%s", problem)
	}
	return nil
}

func (h Histogram) name(i int) string {
	if name := h.Samples[i].Name; name != "" || len(h.Samples) == 1 {
		return name
	}
	return fmt.Sprintf("sample %d", i+1)
}

// bins are the shared bins and each sample's counts.
type bins struct {
	lo, width float64
	counts    [][]int
}

func (h Histogram) bins() bins {
	n := h.Bins
	if n == 0 {
		n = 60
	}
	lo, hi := h.XMin, h.XMax
	if lo == 0 && hi == 0 {
		all := newSpan()
		for _, s := range h.Samples {
			all.add(s.Values...)
		}
		lo, hi = all.lo, all.hi
	}
	if hi/float64(n) == lo/float64(n) { // one value, or values that are as good as one
		room := math.Max(0.5, 1e-9*math.Abs(lo))
		lo, hi = lo-room, hi+room
	}
	b := bins{lo: lo, width: hi/float64(n) - lo/float64(n)}
	if lo < 0 && hi > 0 && h.XMin == 0 && h.XMax == 0 && n > 2 {
		// Exact zeros, of which a pruned network has many, are not to fall into a bin of small positive values: 0 is the middle of a bin.
		b.width = (hi - lo) / float64(n-1)
		b.lo = -(math.Ceil(-lo/b.width-0.5) + 0.5) * b.width
	}
	for _, s := range h.Samples {
		counts := make([]int, n)
		for _, v := range s.Values {
			if v >= lo && v <= hi {
				counts[min(n-1, int((v-b.lo)/b.width))]++ // the last bin has both its ends
			}
		}
		b.counts = append(b.counts, counts)
	}
	return b
}

func (h Histogram) yLabel() string {
	if h.YLabel == "" {
		return "count"
	}
	return h.YLabel
}

func (h Histogram) legend(l *look) []legendItem {
	var items []legendItem
	for i := range h.Samples {
		if name := h.name(i); name != "" {
			items = append(items, legendItem{name: name, color: l.washed(l.series(i))})
		}
	}
	return items
}

func (h Histogram) naturalWidth() float64 { return defaultWidth }

func (h Histogram) bodyHeight(width float64) float64 {
	return math.Round(0.5*width) + legendHeight(h.legend(&light), width)
}

func (h Histogram) drawBody(p painter, body rect) {
	items := h.legend(p.look)
	p.legend(items, body)
	top := legendHeight(items, body.w)
	body.y, body.h = body.y+top, body.h-top

	b := h.bins()
	most := 1
	for _, counts := range b.counts {
		for _, c := range counts {
			most = max(most, c)
		}
	}
	floor := 0.0
	if h.LogY {
		floor = 0.5 // below 1, so that a single value can be seen
	}
	n := len(b.counts[0])
	x := newAxis(b.lo, b.lo+b.width*float64(n), axisSpec{slack: 0.06, count: 7})
	y := newAxis(floor, float64(most), axisSpec{log: h.LogY, slack: 1, count: 5})
	if h.LogY {
		y.lo = floor
		for len(y.ticks) > 0 && y.ticks[0] < 1 {
			y.ticks, y.labels = y.ticks[1:], y.labels[1:]
		}
	}
	pl := p.axes(body, x, y, h.XLabel, h.yLabel())
	for i, counts := range b.counts {
		// Bins without values part the shape.
		var shape []point
		for j := 0; j <= n; j++ {
			from := b.lo + b.width*float64(j)
			if j < n && counts[j] > 0 {
				if shape == nil {
					shape = append(shape, pl.at(from, floor))
				}
				level := float64(counts[j])
				shape = append(shape, pl.at(from, level), pl.at(from+b.width, level))
				continue
			}
			if shape != nil {
				shape = append(shape, pl.at(from, floor))
				p.fillIn(pl.rect, withAlpha(p.series(i), histogramAlpha), shape...)
				p.strokeIn(pl.rect, p.series(i), 1.3, nil, shape...)
				shape = nil
			}
		}
	}
}

const histogramAlpha = 0.35

func (h Histogram) describe() string {
	b := h.bins()
	out := axisText("x", h.XLabel, false) + axisText("y", h.yLabel(), h.LogY)
	summary := report.Table{Columns: []report.Column{{Name: "sample"}, {Name: "values"}, {Name: "exactly 0"}, {Name: "outside"}}}
	for _, name := range []string{"mean", "std", "min", "max"} {
		summary.Columns = append(summary.Columns, report.Column{Name: name, Format: "%.4g"})
	}
	for i, s := range h.Samples {
		name := h.name(i)
		if name == "" {
			name = "all"
		}
		zeros, inside := 0, 0
		for _, v := range s.Values {
			if v == 0 {
				zeros++
			}
		}
		for _, c := range b.counts[i] {
			inside += c
		}
		st := report.Summarize(s.Values)
		summary.Rows = append(summary.Rows, []any{name, report.Count(st.N), report.Count(zeros), report.Count(len(s.Values) - inside), st.Mean, st.Std, st.Min, st.Max})
	}
	out += tableText(summary, len(summary.Rows))

	// Neighbouring bins are added up until the table is short enough: counts can't be thinned.
	n := len(b.counts[0])
	per := (n + maxTextRows - 1) / maxTextRows
	ends := []float64{b.lo, b.lo + b.width*float64(n)}
	t := report.Table{Columns: []report.Column{column("from", false, ends), column("to", false, ends)}}
	for i := range h.Samples {
		name := h.name(i)
		if name == "" {
			name = "count"
		}
		t.Columns = append(t.Columns, report.Column{Name: name})
	}
	for j := 0; j < n; j += per {
		end := min(j+per, n)
		row := []any{b.lo + b.width*float64(j), b.lo + b.width*float64(end)}
		for _, counts := range b.counts {
			sum := 0
			for _, c := range counts[j:end] {
				sum += c
			}
			row = append(row, report.Count(sum))
		}
		t.Rows = append(t.Rows, row)
	}
	return out + tableText(t, len(t.Rows))
}

package figure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Series is a named row of values.
type Series struct {
	Name string // in the legend; "series 1", … if it is empty and there are several
	// X and Y are the points of a line, of equal length. X may be nil: then the points are numbered from 0. In a Bar, Y has a value for each label and X is nil.
	X, Y []float64
	// Low and High, if not nil, are the ends of an error band (Line) or error bar (Bar) around each Y. Say in the caption what they are.
	Low, High []float64
	Dashed    bool // draws the line dashed, as one does with controls
	Markers   bool // marks each point; lines of up to 30 points are marked anyhow, unless they are steps
	Steps     bool // Line: each value holds up to the next point, as a sparsity does between two prunings
}

// HLine is a level to compare with, drawn across a Line figure.
type HLine struct {
	Name string // in the legend
	Y    float64
}

// Line draws series as lines, with error bands where they have Low and High.
type Line struct {
	Title, XLabel, YLabel string   // the labels name the quantity and its unit: "time (s)"
	Caption               string   // below the figure: what a reader needs to read it
	Series                []Series // the first is drawn on top of the others, and all on top of noisy ones
	HLines                []HLine

	LogX, LogY         bool // logarithmic axes
	ReverseX           bool // the largest x on the left
	XPercent, YPercent bool // the values are fractions, written as percentages: 0.9 as 90%

	// Limits of the axes; both 0: from the data. What lies outside is cut off.
	XMin, XMax, YMin, YMax float64

	Width, Height int // px; 0: 640, and a height that suits
}

// MIMEBundle returns the figure as PNG, SVG and text.
func (l Line) MIMEBundle() (map[string]any, error) { return bundle(l) }

// MIMEMetadata says at which size the PNG is to be shown.
func (l Line) MIMEMetadata() map[string]any { return metadata(l) }

func (l Line) kind() string { return "line chart" }

func (l Line) frame() frame { return frame{l.Title, l.Caption, l.Width, l.Height} }

func (l Line) xSpec() axisSpec {
	return axisSpec{log: l.LogX, reverse: l.ReverseX, percent: l.XPercent, min: l.XMin, max: l.XMax, slack: 0.06, count: 6}
}

func (l Line) ySpec() axisSpec {
	return axisSpec{log: l.LogY, percent: l.YPercent, min: l.YMin, max: l.YMax, slack: 1, count: 5}
}

func (l Line) check() error {
	wrong := func(series, format string, args ...any) error {
		return &InputError{Figure: l.kind(), Series: series, Problem: fmt.Sprintf(format, args...)}
	}
	if len(l.Series) == 0 {
		return wrong("", "it has no series; expected at least one")
	}
	for i, s := range l.Series {
		name := seriesName(l.Series, i, true)
		if s.X != nil && len(s.X) != len(s.Y) {
			return wrong(name, "X has %d values and Y has %d; expected as many (or X nil)", len(s.X), len(s.Y))
		}
		if problem := s.problem(l.LogY); problem != "" {
			return wrong(name, "%s", problem)
		}
		for j, x := range s.X {
			if problem := badValue(x, l.LogX); problem != "" {
				return wrong(name, "X[%d] is %v; expected %s", j, x, problem)
			}
		}
		if s.X == nil && l.LogX {
			return wrong(name, "X is nil, so that the points are numbered from 0, which a logarithmic x axis can't show; give X, or don't set LogX")
		}
	}
	for _, h := range l.HLines {
		if problem := badValue(h.Y, l.LogY); problem != "" {
			return wrong(fmt.Sprintf("level %q", h.Name), "Y is %v; expected %s", h.Y, problem)
		}
	}
	for _, problem := range []string{l.xSpec().checkLimits("x"), l.ySpec().checkLimits("y")} {
		if problem != "" {
			return wrong("", "%s", problem)
		}
	}
	return nil
}

// problem returns what is wrong with Y, Low and High, "" if nothing is.
func (s Series) problem(log bool) string {
	if len(s.Y) == 0 {
		return "it has no values; expected at least one"
	}
	if (s.Low == nil) != (s.High == nil) {
		return "it has one of Low and High; expected both or neither"
	}
	if s.Low != nil && (len(s.Low) != len(s.Y) || len(s.High) != len(s.Y)) {
		return fmt.Sprintf("Y has %d values, Low %d and High %d; expected as many", len(s.Y), len(s.Low), len(s.High))
	}
	for _, row := range []struct {
		name   string
		values []float64
	}{{"Y", s.Y}, {"Low", s.Low}, {"High", s.High}} {
		for j, v := range row.values {
			if problem := badValue(v, log); problem != "" {
				return fmt.Sprintf("%s[%d] is %v; expected %s", row.name, j, v, problem)
			}
		}
	}
	for j := range s.Low {
		if s.Low[j] > s.High[j] {
			return fmt.Sprintf("Low[%d] is %v, above High[%d], %v", j, s.Low[j], j, s.High[j])
		}
	}
	return ""
}

// largestValue leaves room to compute with.
const largestValue = 1e100

// badValue returns what was expected instead of v, "" if v can be drawn.
func badValue(v float64, log bool) string {
	switch {
	case !finite(v):
		return "a finite number (leave out points that have none)"
	case math.Abs(v) > largestValue:
		return fmt.Sprintf("a number between -%g and %g", largestValue, largestValue)
	case log && v <= 0:
		return "a number above 0, since the axis is logarithmic"
	case log && v < 1/largestValue:
		return fmt.Sprintf("a number of at least %g", 1/largestValue)
	}
	return ""
}

// seriesName is the i-th series' name in the legend, or, quoted, in an error.
func seriesName(series []Series, i int, quoted bool) string {
	switch name := series[i].Name; {
	case name != "" && quoted:
		return fmt.Sprintf("series %q", name)
	case name != "":
		return name
	case len(series) > 1 || quoted:
		return fmt.Sprintf("series %d", i+1)
	}
	return ""
}

func (s Series) x(i int) float64 {
	if s.X == nil {
		return float64(i)
	}
	return s.X[i]
}

func (l Line) naturalWidth() float64 { return defaultWidth }

func (l Line) bodyHeight(width float64) float64 {
	return math.Round(0.5*width) + legendHeight(l.legend(&light), width)
}

// style is how the i-th line is drawn.
func (l Line) style(lk *look, i int) legendItem {
	const marked = 30 // points; more of them would run into each other
	s := l.Series[i]
	item := legendItem{name: seriesName(l.Series, i, false), color: lk.series(i), width: 2.2, marker: -1}
	if s.Markers || len(s.Y) <= marked && !s.Steps {
		item.marker = i
	} else if s.Steps {
		item.dash = dashes[i%len(dashes)]
	} else {
		item.dash = dashes[i%len(dashes)]
		item.width = 1.6
		if s.noisy() {
			item.width = 1
		}
	}
	if s.Dashed {
		item.dash = dashes[1]
	}
	return item
}

func (l Line) legend(lk *look) []legendItem {
	var items []legendItem
	for i := range l.Series {
		if item := l.style(lk, i); item.name != "" {
			items = append(items, item)
		}
	}
	for _, h := range l.HLines {
		if h.Name != "" {
			items = append(items, levelItem(lk, h))
		}
	}
	return items
}

func levelItem(l *look, h HLine) legendItem {
	return legendItem{name: h.Name, color: l.muted, width: 1.3, dash: []float64{3, 3}, marker: -1}
}

func (l Line) drawBody(p painter, body rect) {
	items := l.legend(p.look)
	p.legend(items, body)
	top := legendHeight(items, body.w)
	body.y, body.h = body.y+top, body.h-top

	xs, ys := newSpan(), newSpan()
	for _, s := range l.Series {
		for i, y := range s.Y {
			xs.add(s.x(i))
			ys.add(y)
		}
		ys.add(s.Low...)
		ys.add(s.High...)
	}
	for _, h := range l.HLines {
		ys.add(h.Y)
	}
	pl := p.axes(body, newAxis(xs.lo, xs.hi, l.xSpec()), newAxis(ys.lo, ys.hi, l.ySpec()), l.XLabel, l.YLabel)

	for i, s := range l.Series {
		if s.Low == nil {
			continue
		}
		var band []point
		for j, y := range s.High {
			band = append(band, pl.at(s.x(j), y))
		}
		for j, y := range slices.Backward(s.Low) {
			band = append(band, pl.at(s.x(j), y))
		}
		p.fillIn(pl.rect, withAlpha(p.series(i), 0.18), band...)
	}
	for _, h := range l.HLines {
		look := levelItem(p.look, h)
		p.strokeIn(pl.rect, look.color, look.width, look.dash, pl.at(pl.x.lo, h.Y), pl.at(pl.x.hi, h.Y))
	}
	for _, i := range l.drawingOrder() {
		s, look := l.Series[i], l.style(p.look, i)
		points := make([]point, len(s.Y))
		for j, y := range s.Y {
			points[j] = pl.at(s.x(j), y)
		}
		drawn := points
		if s.Steps {
			drawn = staircase(points)
		}
		p.strokeIn(pl.rect, look.color, look.width, look.dash, thinLine(drawn)...)
		if look.marker < 0 {
			continue
		}
		for _, q := range points {
			if pl.contains(q) {
				p.marker(look.marker, look.color, q, markerSize)
			}
		}
	}
}

// staircase goes from each point straight to the next one's place, and there up or down to it.
func staircase(points []point) []point {
	out := points[:1:1]
	for i := 1; i < len(points); i++ {
		out = append(out, point{points[i].x, points[i-1].y}, points[i])
	}
	return out
}

// noisy reports whether the line goes up and down so much that it would cover others.
func (s Series) noisy() bool {
	ys := newSpan()
	ys.add(s.Y...)
	travelled := 0.0
	for j := 1; j < len(s.Y); j++ {
		travelled += math.Abs(s.Y[j] - s.Y[j-1])
	}
	return travelled > 5*(ys.hi-ys.lo)
}

// drawingOrder begins with what may be covered: noisy series, then the last ones.
func (l Line) drawingOrder() []int {
	var order []int
	for _, noisy := range []bool{true, false} {
		for i, s := range slices.Backward(l.Series) {
			if s.noisy() == noisy {
				order = append(order, i)
			}
		}
	}
	return order
}

// thinLine drops points that can't be seen: of those that fall into one half px it keeps the first, the lowest, the highest and the last.
// A line that goes back and forth is left as it is.
func thinLine(points []point) []point {
	byX := func(a, b point) int { return cmp.Compare(a.x, b.x) }
	if len(points) < 4*defaultWidth || !slices.IsSortedFunc(points, byX) && !slices.IsSortedFunc(points, func(a, b point) int { return byX(b, a) }) {
		return points
	}
	column := func(q point) float64 { return math.Floor(q.x * resolution) }
	var out []point
	for start := 0; start < len(points); {
		end, low, high := start, start, start
		for end < len(points) && column(points[end]) == column(points[start]) {
			if points[end].y < points[low].y {
				low = end
			}
			if points[end].y > points[high].y {
				high = end
			}
			end++
		}
		keep := []int{start, low, high, end - 1}
		slices.Sort(keep)
		for _, i := range slices.Compact(keep) {
			out = append(out, points[i])
		}
		start = end
	}
	return out
}

func (l Line) describe() string {
	var b strings.Builder
	b.WriteString(axisText("x", l.XLabel, l.LogX) + axisText("y", l.YLabel, l.LogY))
	for _, h := range l.HLines {
		fmt.Fprintf(&b, "level %s: %s\n", h.Name, number(h.Y, l.YPercent))
	}
	b.WriteString(bandText(l.Series))
	first := l.Series[0]
	shared := !slices.ContainsFunc(l.Series, func(s Series) bool {
		return len(s.Y) != len(first.Y) || !slices.Equal(s.X, first.X)
	})
	if shared {
		b.WriteString(l.table("", l.Series, maxTextRows))
		return b.String()
	}
	for i, s := range l.Series {
		b.WriteString(l.table(seriesName(l.Series, i, false), []Series{s}, max(3, maxTextRows/len(l.Series))))
	}
	return b.String()
}

// table lists series that share their X.
func (l Line) table(title string, series []Series, rows int) string {
	n := len(series[0].Y)
	points := thin(n, rows)
	xs := Series{}
	for j := range n {
		xs.Y = append(xs.Y, series[0].x(j))
	}
	c, cells := withBands("x", xs, l.XPercent, points)
	columns := [][]any{cells}
	t := report.Table{Title: title, Columns: []report.Column{c}}
	for i, s := range series {
		name := seriesName(series, i, false)
		if name == "" {
			name = "y"
		}
		c, cells := withBands(name, s, l.YPercent, points)
		t.Columns, columns = append(t.Columns, c), append(columns, cells)
	}
	t.Rows = transpose(columns)
	return tableText(t, n)
}

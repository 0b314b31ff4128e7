package figure

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Option is one point of a Pareto figure: a network that one could choose, with what it costs and what it is worth.
type Option struct {
	Method string // options of the same method share colour and marker
	Name   string // what tells it from others of its method: "90%"
	X, Y   float64
	// Ends of the error bars; both 0: none. Say in the caption what they are.
	XLow, XHigh, YLow, YHigh float64
}

// Pareto draws options by cost (x) and worth (y), and the front: those than which no other is better in one and at least as good in the
// other. What is not on the front is grey.
type Pareto struct {
	Title, XLabel, YLabel string // the labels name the quantity and its unit: "latency (ms)"
	Caption               string
	Options               []Option

	MoreX bool // more of x is better, as of a speed-up; else less, as of a cost
	LessY bool // less of y is better, as of a loss; else more, as of an accuracy

	LogX, LogY             bool
	XPercent, YPercent     bool    // the values are fractions, written as percentages
	XMin, XMax, YMin, YMax float64 // limits of the axes; both 0: from the data. What lies outside is cut off.

	Width, Height int // px; 0: 640, and a height that suits
}

// MIMEBundle returns the figure as PNG, SVG and text.
func (f Pareto) MIMEBundle() (map[string]any, error) { return bundle(f) }

// MIMEMetadata says at which size the PNG is to be shown.
func (f Pareto) MIMEMetadata() map[string]any { return metadata(f) }

func (f Pareto) kind() string { return "Pareto chart" }

func (f Pareto) frame() frame { return frame{f.Title, f.Caption, f.Width, f.Height} }

func (f Pareto) xSpec() axisSpec {
	return axisSpec{log: f.LogX, percent: f.XPercent, min: f.XMin, max: f.XMax, slack: 0.15, count: 6}
}

func (f Pareto) ySpec() axisSpec {
	return axisSpec{log: f.LogY, percent: f.YPercent, min: f.YMin, max: f.YMax, slack: 1, count: 5}
}

const maxOptions = 5000

func (f Pareto) check() error {
	wrong := func(option, format string, args ...any) error {
		return &InputError{Figure: f.kind(), Series: option, Problem: fmt.Sprintf(format, args...)}
	}
	if n := len(f.Options); n == 0 || n > maxOptions {
		return wrong("", "it has %d options; expected 1 to %d", n, maxOptions)
	}
	for i, o := range f.Options {
		name := fmt.Sprintf("option %d (%q)", i, o.label())
		for _, v := range []struct {
			name string
			v    float64
			log  bool
		}{{"X", o.X, f.LogX}, {"Y", o.Y, f.LogY}} {
			if problem := badValue(v.v, v.log); problem != "" {
				return wrong(name, "%s is %v; expected %s", v.name, v.v, problem)
			}
		}
		for _, bar := range []struct {
			name      string
			low, high float64
			log       bool
		}{{"X", o.XLow, o.XHigh, f.LogX}, {"Y", o.YLow, o.YHigh, f.LogY}} {
			if bar.low == 0 && bar.high == 0 {
				continue
			}
			for _, v := range []float64{bar.low, bar.high} {
				if problem := badValue(v, bar.log); problem != "" {
					return wrong(name, "an end of its error bar of %s is %v; expected %s", bar.name, v, problem)
				}
			}
			if bar.low > bar.high {
				return wrong(name, "%sLow is %v, above %sHigh, %v", bar.name, bar.low, bar.name, bar.high)
			}
		}
	}
	for _, problem := range []string{f.xSpec().checkLimits("x"), f.ySpec().checkLimits("y")} {
		if problem != "" {
			return wrong("", "%s", problem)
		}
	}
	return nil
}

func (o Option) label() string { return strings.TrimSpace(o.Method + " " + o.Name) }

// better says whether option a dominates option b.
func (f Pareto) better(a, b Option) bool {
	x, y := b.X-a.X, a.Y-b.Y // how much better a is
	if f.MoreX {
		x = -x
	}
	if f.LessY {
		y = -y
	}
	return x >= 0 && y >= 0 && (x > 0 || y > 0)
}

// dominator returns an option that is better than the i-th, -1 for one on the front: the best such in y.
func (f Pareto) dominator(i int) int {
	best := -1
	for j, o := range f.Options {
		if f.better(o, f.Options[i]) && (best < 0 || f.better(o, f.Options[best])) {
			best = j
		}
	}
	return best
}

func (f Pareto) methods() []string {
	var names []string
	for _, o := range f.Options {
		if !slices.Contains(names, o.Method) {
			names = append(names, o.Method)
		}
	}
	return names
}

func (f Pareto) legend(l *look) []legendItem {
	var items []legendItem
	for i, name := range f.methods() {
		if name != "" {
			items = append(items, legendItem{name: name, color: l.series(i), point: true, marker: i})
		}
	}
	items = append(items, legendItem{name: "best for its cost", color: l.muted, width: 1.3, dash: []float64{5, 3}, marker: -1})
	for i := range f.Options {
		if f.dominator(i) >= 0 {
			return append(items, legendItem{name: "another is better", color: l.dim(), point: true})
		}
	}
	return items
}

// dim is the colour of what is drawn for comparison only.
func (l *look) dim() color.RGBA { return mix(l.card, l.middle, 0.7) }

func (f Pareto) naturalWidth() float64 { return defaultWidth }

func (f Pareto) bodyHeight(width float64) float64 {
	return math.Round(0.55*width) + legendHeight(f.legend(&light), width)
}

func (f Pareto) drawBody(p painter, body rect) {
	items := f.legend(p.look)
	p.legend(items, body)
	top := legendHeight(items, body.w)
	body.y, body.h = body.y+top, body.h-top

	xs, ys := newSpan(), newSpan()
	for _, o := range f.Options {
		xs.add(o.X)
		ys.add(o.Y)
		if o.XLow != 0 || o.XHigh != 0 {
			xs.add(o.XLow, o.XHigh)
		}
		if o.YLow != 0 || o.YHigh != 0 {
			ys.add(o.YLow, o.YHigh)
		}
	}
	pl := p.axes(body, newAxis(xs.lo, xs.hi, f.xSpec()), newAxis(ys.lo, ys.hi, f.ySpec()), f.XLabel, f.YLabel)

	methods := f.methods()
	var front, others []int
	for i := range f.Options {
		if f.dominator(i) >= 0 {
			others = append(others, i)
		} else {
			front = append(front, i)
		}
	}
	slices.SortStableFunc(front, func(a, b int) int { return cmp.Compare(f.Options[a].X, f.Options[b].X) })
	p.strokeIn(pl.rect, p.muted, 1.3, []float64{5, 3}, f.frontLine(pl, front)...)
	var taken []rect // by markers and names
	draw := func(i int, c color.RGBA) {
		o := f.Options[i]
		at := pl.at(o.X, o.Y)
		if o.YLow != 0 || o.YHigh != 0 {
			p.errorBar(pl, c, pl.at(o.X, o.YLow), pl.at(o.X, o.YHigh))
		}
		if o.XLow != 0 || o.XHigh != 0 {
			p.errorBar(pl, c, pl.at(o.XLow, o.Y), pl.at(o.XHigh, o.Y))
		}
		if pl.contains(at) {
			p.marker(slices.Index(methods, o.Method), c, at, markerSize)
			taken = append(taken, rect{at.x - markerSize, at.y - markerSize, 2 * markerSize, 2 * markerSize})
		}
	}
	for _, i := range others {
		draw(i, p.dim())
	}
	for _, i := range front {
		draw(i, p.series(slices.Index(methods, f.Options[i].Method)))
	}
	for _, i := range front {
		o := f.Options[i]
		if at := pl.at(o.X, o.Y); o.Name != "" && pl.contains(at) {
			taken = p.nameNear(pl.rect, at, o.Name, taken)
		}
	}
}

// errorBar draws a bar with caps between two points of one height or one place.
func (p painter) errorBar(pl plane, c color.RGBA, from, to point) {
	p.strokeIn(pl.rect, c, 1.2, nil, from, to)
	cap := point{3, 0}
	if from.y == to.y {
		cap = point{0, 3}
	}
	for _, q := range []point{from, to} {
		p.strokeIn(pl.rect, c, 1.2, nil, point{q.x - cap.x, q.y - cap.y}, point{q.x + cap.x, q.y + cap.y})
	}
}

// nameNear writes a name beside a point where there is room within area, and nothing where there is none: the figure's text has all names.
func (p painter) nameNear(area rect, at point, name string, taken []rect) []rect {
	const away = markerSize + 4
	size := float64(textSize - 1)
	w := textWidth(name, size, false)
	for _, corner := range []point{{at.x + away, at.y - away - size}, {at.x - away - w, at.y - away - size}, {at.x + away, at.y + away}, {at.x - away - w, at.y + away},
		{at.x - w/2, at.y - away - size - 4}, {at.x - w/2, at.y + away + 4}} {
		box := rect{corner.x, corner.y, w, size + 2}
		inside := area.contains(point{box.x, box.y}) && area.contains(point{box.x + box.w, box.y + box.h})
		if inside && !slices.ContainsFunc(taken, box.overlaps) {
			p.text(box.x, box.y+size, name, style{size: size, color: p.ink})
			return append(taken, box)
		}
	}
	return taken
}

func (r rect) overlaps(o rect) bool {
	return r.x < o.x+o.w && o.x < r.x+r.w && r.y < o.y+o.h && o.y < r.y+r.h
}

// frontLine is the best y that can be had for each x: it steps where the next option begins.
func (f Pareto) frontLine(pl plane, front []int) []point {
	var line []point
	for n, i := range front {
		q := pl.at(f.Options[i].X, f.Options[i].Y)
		if n > 0 {
			before := line[len(line)-1]
			corner := point{q.x, before.y} // for this x one still has what came before
			if f.MoreX {
				corner = point{before.x, q.y}
			}
			line = append(line, corner)
		}
		line = append(line, q)
	}
	if last := len(line) - 1; !f.MoreX {
		line = append(line, point{pl.rect.x + pl.w, line[last].y})
	} else {
		line = append([]point{{pl.rect.x, line[0].y}}, line...)
	}
	return line
}

func (f Pareto) describe() string {
	order := make([]int, len(f.Options))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(f.Options[a].X, f.Options[b].X) })
	column := func(name, fallback string, percent bool, of func(Option) (v, low, high float64)) (report.Column, []any) {
		if name == "" {
			name = fallback
		}
		s, bars := Series{}, false
		for _, o := range f.Options {
			v, low, high := of(o)
			if bars = bars || low != 0 || high != 0; low == 0 && high == 0 {
				low, high = v, v
			}
			s.Y, s.Low, s.High = append(s.Y, v), append(s.Low, low), append(s.High, high)
		}
		if !bars {
			s.Low, s.High = nil, nil
		}
		return withBands(name, s, percent, order)
	}
	x, xs := column(f.XLabel, "x", f.XPercent, func(o Option) (v, low, high float64) { return o.X, o.XLow, o.XHigh })
	y, ys := column(f.YLabel, "y", f.YPercent, func(o Option) (v, low, high float64) { return o.Y, o.YLow, o.YHigh })
	var labels, front []any
	for _, i := range order {
		labels = append(labels, f.Options[i].label())
		verdict := "best for its cost"
		if j := f.dominator(i); j >= 0 {
			verdict = "worse than " + f.Options[j].label()
		}
		front = append(front, verdict)
	}
	t := tableOf(report.Column{Name: "option"}, x, y, report.Column{Name: "front"})
	t.Rows = transpose([][]any{labels, xs, ys, front})
	const most = 100
	n := len(t.Rows)
	t.Rows = t.Rows[:min(n, most)]
	less, more := "less", "more"
	if f.MoreX {
		less = "more"
	}
	if f.LessY {
		more = "less"
	}
	direction := fmt.Sprintf("better: %s x, %s y\n", less, more)
	return axisText("x", f.XLabel, f.LogX) + axisText("y", f.YLabel, f.LogY) + direction + f.bracketText() + tableText(t, n)
}

func (f Pareto) bracketText() string {
	if slices.ContainsFunc(f.Options, func(o Option) bool { return o.XLow != 0 || o.XHigh != 0 || o.YLow != 0 || o.YHigh != 0 }) {
		return "in brackets: from the lower to the upper end of the error bar\n"
	}
	return ""
}

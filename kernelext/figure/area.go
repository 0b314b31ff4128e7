package figure

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Area draws series stacked on each other, so that one sees how parts of a whole change: the weights that each layer has, over the epochs of a
// training that redistributes them.
type Area struct {
	Title, XLabel, YLabel string
	Caption               string
	// Series are stacked from the bottom, all with the same X, which must rise, and Y of 0 or more; without Low and High. If the first has Steps,
	// each value holds up to the next X.
	Series []Series

	Share              bool // draws each value as its share of the sum at its X
	XPercent, YPercent bool // the values are fractions, written as percentages

	Width, Height int // px; 0: 640, and a height that suits
}

// MIMEBundle returns the figure as PNG, SVG and text.
func (a Area) MIMEBundle() (map[string]any, error) { return bundle(a) }

// MIMEMetadata says at which size the PNG is to be shown.
func (a Area) MIMEMetadata() map[string]any { return metadata(a) }

func (a Area) kind() string { return "stacked areas" }

func (a Area) frame() frame { return frame{a.Title, a.Caption, a.Width, a.Height} }

func (a Area) check() error {
	wrong := func(series, format string, args ...any) error {
		return &InputError{Figure: a.kind(), Series: series, Problem: fmt.Sprintf(format, args...)}
	}
	if len(a.Series) == 0 {
		return wrong("", "it has no series; expected at least one")
	}
	first := a.Series[0]
	for i, s := range a.Series {
		name := seriesName(a.Series, i, true)
		if problem := s.problem(false); problem != "" {
			return wrong(name, "%s", problem)
		}
		if s.Low != nil {
			return wrong(name, "it has Low and High, which stacked areas can't show; use a Line")
		}
		if len(s.Y) < 2 {
			return wrong(name, "it has one value; expected two or more, of which one sees how they change")
		}
		if s.X != nil && len(s.X) != len(s.Y) {
			return wrong(name, "X has %d values and Y has %d; expected as many (or X nil)", len(s.X), len(s.Y))
		}
		if len(s.Y) != len(first.Y) || !slices.Equal(s.X, first.X) {
			return wrong(name, "its X differ from those of the first series; expected the same for all, or nil")
		}
		for j, y := range s.Y {
			if y < 0 {
				return wrong(name, "Y[%d] is %v; expected 0 or more", j, y)
			}
		}
	}
	for j, x := range first.X {
		if problem := badValue(x, false); problem != "" {
			return wrong(seriesName(a.Series, 0, true), "X[%d] is %v; expected %s", j, x, problem)
		}
		if j > 0 && x <= first.X[j-1] {
			return wrong(seriesName(a.Series, 0, true), "X[%d] is %v, after %v; expected rising values", j, x, first.X[j-1])
		}
	}
	if a.Share {
		for j := range first.Y {
			if a.sum(j) == 0 {
				return wrong("", "all series are 0 at point %d, so that there are no shares of their sum; expected a value above 0", j)
			}
		}
	}
	return nil
}

func (a Area) sum(j int) float64 {
	sum := 0.0
	for _, s := range a.Series {
		sum += s.Y[j]
	}
	return sum
}

// levels are the borders between the series at each point: levels[i] is below the i-th series, the last is above all.
func (a Area) levels() [][]float64 {
	levels := make([][]float64, len(a.Series)+1)
	for i := range levels {
		levels[i] = make([]float64, len(a.Series[0].Y))
	}
	for j := range levels[0] {
		scale := 1.0
		if a.Share {
			scale = 1 / a.sum(j)
		}
		for i, s := range a.Series {
			levels[i+1][j] = levels[i][j] + scale*s.Y[j]
		}
	}
	return levels
}

func (a Area) percent() bool { return a.Share || a.YPercent }

func (a Area) naturalWidth() float64 { return defaultWidth }

func (a Area) bodyHeight(width float64) float64 {
	return math.Round(math.Max(0.5*width, textLine*float64(len(a.Series))+60))
}

const labelSpace = 120 // px beside the areas, for their names

func (a Area) drawBody(p painter, body rect) {
	widest := 0.0
	for i := range a.Series {
		widest = math.Max(widest, textWidth(seriesName(a.Series, i, false), textSize, false))
	}
	widest = math.Min(widest, math.Min(labelSpace, body.w/3))
	area := body
	if widest > 0 {
		area.w -= widest + 22
	}
	levels := a.levels()
	top := levels[len(levels)-1]
	xs := newSpan()
	for j := range top {
		xs.add(a.Series[0].x(j))
	}
	ys := axisSpec{percent: a.percent(), slack: 1, count: 5}
	if a.Share {
		ys.max = 1
	}
	x := newAxis(xs.lo, xs.hi, axisSpec{percent: a.XPercent, count: 6, min: xs.lo, max: xs.hi})
	if xs.lo == 0 && xs.hi == 0 {
		x = newAxis(0, 1, axisSpec{count: 6})
	}
	pl := p.axes(area, x, newAxis(0, math.Max(slices.Max(top), 1e-300), ys), a.XLabel, a.YLabel)
	// line is the border i from left to right.
	line := func(i int) []point {
		points := make([]point, len(top))
		for j := range top {
			points[j] = pl.at(a.Series[0].x(j), levels[i][j])
		}
		if a.Series[0].Steps {
			return staircase(points)
		}
		return points
	}
	for i := range a.Series {
		lower, upper := line(i), line(i+1)
		outline := slices.Clone(upper)
		for _, q := range slices.Backward(lower) {
			outline = append(outline, q)
		}
		c := p.series(i)
		p.fillIn(pl.rect, c, outline...)
		if n := i / len(p.palette) % hatches; n > 0 {
			p.hatch(on(c), n, pl.rect, func(q point) bool { return q.y <= heightAt(lower, q.x) && q.y >= heightAt(upper, q.x) })
		}
		p.strokeIn(pl.rect, p.card, 1, nil, upper...)
	}
	a.drawNames(p, pl, levels)
}

// heightAt is the y of a line from left to right at an x.
func heightAt(line []point, x float64) float64 {
	for i := 1; i < len(line); i++ {
		if a, b := line[i-1], line[i]; x <= b.x && b.x > a.x {
			return a.y + (b.y-a.y)*math.Max(0, (x-a.x)/(b.x-a.x))
		}
	}
	return line[len(line)-1].y
}

// drawNames writes each series' name beside where it ends, moved apart where they would touch.
func (a Area) drawNames(p painter, pl plane, levels [][]float64) {
	last := len(levels[0]) - 1
	var wanted []float64
	for i := range a.Series {
		wanted = append(wanted, pl.at(0, (levels[i][last]+levels[i+1][last])/2).y)
	}
	right := pl.rect.x + pl.w
	for i, y := range apart(wanted, textLine-2, pl.rect.y, pl.rect.y+pl.h) {
		name := seriesName(a.Series, i, false)
		if name == "" {
			continue
		}
		p.stroke(p.middle, 1, nil, point{right + 2, wanted[i]}, point{right + 14, y})
		p.text(right+18, y+4, shorten(name, labelSpace, textSize, false), style{size: textSize})
	}
}

// apart moves heights, which fall, so that neighbours are at least gap away from each other, and within lo … hi if there is room.
func apart(falling []float64, gap, lo, hi float64) []float64 {
	out := slices.Clone(falling)
	for i := range out {
		limit := hi
		if i > 0 {
			limit = out[i-1] - gap
		}
		out[i] = math.Min(out[i], limit)
	}
	for i, y := range slices.Backward(out) {
		limit := lo
		if i+1 < len(out) {
			limit = out[i+1] + gap
		}
		out[i] = math.Max(y, limit)
	}
	return out
}

func (a Area) describe() string {
	n := len(a.Series[0].Y)
	points := thin(n, maxTextRows)
	xs := Series{}
	for j := range n {
		xs.Y = append(xs.Y, a.Series[0].x(j))
	}
	name := a.XLabel
	if name == "" {
		name = "x"
	}
	c, cells := withBands(name, xs, a.XPercent, points)
	t, columns := tableOf(c), [][]any{cells}
	for i, s := range a.Series {
		if a.Share {
			s.Y = slices.Clone(s.Y)
			for j := range s.Y {
				s.Y[j] /= a.sum(j)
			}
		}
		name := seriesName(a.Series, i, false)
		if name == "" {
			name = "y"
		}
		c, cells := withBands(name, s, a.percent(), points)
		t.Columns, columns = append(t.Columns, c), append(columns, cells)
	}
	t.Rows = transpose(columns)
	var b strings.Builder
	b.WriteString(axisText("y", a.YLabel, false))
	if a.Share {
		b.WriteString("shares of the sum\n")
	}
	b.WriteString(tableText(t, n))
	return b.String()
}

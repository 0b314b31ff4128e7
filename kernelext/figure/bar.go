package figure

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Bar draws values as bars: a group for each label, in it a bar for each series, with error bars where the series has Low and High.
type Bar struct {
	Title, XLabel, YLabel string
	Caption               string
	Labels                []string // below the groups; of more than can be read there every second, third, … is written
	Series                []Series // Y[i] belongs to Labels[i]; X must be nil

	LogY       bool    // logarithmic y axis; the bars then begin at its lower end
	YPercent   bool    // the values are fractions, written as percentages
	YMin, YMax float64 // limits of the y axis; both 0: from the data, and from 0

	Width, Height int // px; 0: 640, and a height that suits
}

// MIMEBundle returns the figure as PNG, SVG and text.
func (b Bar) MIMEBundle() (map[string]any, error) { return bundle(b) }

// MIMEMetadata says at which size the PNG is to be shown.
func (b Bar) MIMEMetadata() map[string]any { return metadata(b) }

func (b Bar) kind() string { return "bar chart" }

func (b Bar) frame() frame { return frame{b.Title, b.Caption, b.Width, b.Height} }

func (b Bar) ySpec() axisSpec {
	return axisSpec{log: b.LogY, percent: b.YPercent, min: b.YMin, max: b.YMax, slack: 1, count: 5}
}

func (b Bar) check() error {
	wrong := func(series, format string, args ...any) error {
		return &InputError{Figure: b.kind(), Series: series, Problem: fmt.Sprintf(format, args...)}
	}
	if len(b.Series) == 0 || len(b.Labels) == 0 {
		return wrong("", "it has %d labels and %d series; expected at least one of each", len(b.Labels), len(b.Series))
	}
	for i, s := range b.Series {
		name := seriesName(b.Series, i, true)
		if s.X != nil {
			return wrong(name, "X is set; expected nil, since a bar stands where its label is")
		}
		if problem := s.problem(b.LogY); problem != "" {
			return wrong(name, "%s", problem)
		}
		if len(s.Y) != len(b.Labels) {
			return wrong(name, "Y has %d values for %d labels; expected one for each", len(s.Y), len(b.Labels))
		}
	}
	if problem := b.ySpec().checkLimits("y"); problem != "" {
		return wrong("", "%s", problem)
	}
	return nil
}

func (b Bar) legend(l *look) []legendItem {
	var items []legendItem
	for i := range b.Series {
		if name := seriesName(b.Series, i, false); name != "" {
			items = append(items, legendItem{name: name, color: l.series(i)})
		}
	}
	return items
}

func (b Bar) naturalWidth() float64 { return defaultWidth }

func (b Bar) bodyHeight(width float64) float64 {
	return math.Round(0.5*width) + legendHeight(b.legend(&light), width)
}

func (b Bar) drawBody(p painter, body rect) {
	items := b.legend(p.look)
	p.legend(items, body)
	top := legendHeight(items, body.w)
	body.y, body.h = body.y+top, body.h-top

	ys := newSpan()
	if !b.LogY {
		ys.add(0)
	}
	for _, s := range b.Series {
		ys.add(s.Y...)
		ys.add(s.Low...)
		ys.add(s.High...)
	}
	if b.LogY {
		ys.lo /= 1.5 // or the smallest bar would have no height
	}
	y := newAxis(ys.lo, ys.hi, b.ySpec())
	if b.YMin == 0 && b.YMax == 0 && !b.LogY {
		room := 0.06 * (y.hi - y.lo) // for the numbers at the ends of the bars
		y.hi += room
		if ys.lo < 0 {
			y.lo -= room
		}
	}

	// Labels that don't fit side by side are slanted, and get the room they need.
	const slant, longest = math.Pi / 4, 120
	slot := (body.w - 60) / float64(len(b.Labels))
	widest := 0.0
	for _, l := range b.Labels {
		widest = math.Max(widest, textWidth(shorten(l, longest, textSize, false), textSize, false))
	}
	slanted := widest > slot-6
	area := body
	if slanted {
		area.h -= widest * math.Sin(slant)
		// A slanted label ends under its bars and begins left of them: so far left, for the first ones, that the field has to begin later.
		later, n, indent := 0.0, float64(len(b.Labels)), y.indent()
		for i, l := range b.Labels {
			before := (float64(i) + 0.5) / n // the share of the field that lies left of the label's end
			left := textWidth(shorten(l, longest, textSize, false), textSize, false)*math.Cos(slant) - 4 - indent - before*(body.w-indent)
			later = math.Max(later, left/(1-before))
		}
		area.x += later
		area.w -= later
	}
	if b.XLabel != "" {
		area.h -= textLine + 2
	}
	x := axis{lo: -0.5, hi: float64(len(b.Labels)) - 0.5}
	pl := p.axes(area, x, y, "", b.YLabel)
	if b.XLabel != "" {
		p.text(pl.rect.x+pl.w/2, body.y+body.h-2, shorten(b.XLabel, pl.w, textSize, false), style{size: textSize, color: p.muted, align: center})
	}
	bottom := pl.rect.y + pl.h
	last := math.Inf(-1)
	for i, l := range b.Labels {
		at := pl.at(float64(i), y.lo).x
		if l == "" || slanted && (at-last)*math.Sin(slant) < textSize { // no room beside the one that was written last
			continue
		}
		last = at
		if slanted {
			p.text(at+4, bottom+textSize+2, shorten(l, longest, textSize, false), style{size: textSize, color: p.muted, align: right, rotate: slant})
		} else {
			p.text(at, bottom+4+textSize, shorten(l, b.room(i, pl, body), textSize, false), style{size: textSize, color: p.muted, align: center})
		}
	}
	b.drawBars(p, pl)
}

// room is how wide a label may be that stands below its group: as wide as its neighbours leave it, within the body.
func (b Bar) room(i int, pl plane, body rect) float64 {
	const gap = 6
	slot := pl.w / float64(len(b.Labels))
	at := pl.at(float64(i), 0).x
	half := math.Min(at-body.x, body.x+body.w-at)
	for _, k := range []int{i - 1, i + 1} {
		if k >= 0 && k < len(b.Labels) { // what the neighbour takes of the way between their middles, but for what is ours
			half = math.Min(half, slot-gap-math.Min(textWidth(b.Labels[k], textSize, false), slot-gap)/2)
		}
	}
	return 2 * half
}

func (b Bar) drawBars(p painter, pl plane) {
	base := math.Max(0, pl.y.lo)
	if pl.y.hi < base {
		base = pl.y.hi
	}
	group := pl.w / float64(len(b.Labels)) * 0.78
	width := math.Min(group/float64(len(b.Series)), 70)
	group = width * float64(len(b.Series))
	// Numbers stand above the bars where they fit.
	var all []float64
	for _, s := range b.Series {
		all = append(all, s.Y...)
	}
	format := numberFormat(all, b.YPercent)
	numbers := !slices.ContainsFunc(all, func(v float64) bool { return textWidth(format(v), textSize-1, false) > width+2 })
	zero := pl.at(0, base).y
	for i, s := range b.Series {
		for j, v := range s.Y {
			x := pl.at(float64(j), base).x - group/2 + width*float64(i)
			top := pl.at(0, v).y
			p.fillIn(pl.rect, p.series(i), rect{x + 1, math.Min(top, zero), width - 2, math.Abs(zero - top)}.corners()...)
			ends := newSpan()
			ends.add(top, zero)
			if s.Low != nil {
				middle := x + width/2
				low, high := pl.at(0, s.Low[j]).y, pl.at(0, s.High[j]).y
				p.strokeIn(pl.rect, p.ink, 1.3, nil, point{middle, low}, point{middle, high})
				for _, end := range []float64{low, high} {
					p.strokeIn(pl.rect, p.ink, 1.3, nil, point{middle - 4, end}, point{middle + 4, end})
				}
				ends.add(low, high)
			}
			label := ends.lo - 4
			if v < 0 {
				label = ends.hi + textSize
			}
			if numbers && label >= pl.rect.y-textSize && label <= pl.rect.y+pl.h+textSize {
				p.text(x+width/2, label, format(v), style{size: textSize - 1, align: center})
			}
		}
	}
	if pl.y.lo < 0 && base == 0 {
		p.stroke(p.middle, 1, nil, point{pl.rect.x, zero}, point{pl.rect.x + pl.w, zero})
	}
}

func (b Bar) describe() string {
	shown := thin(len(b.Labels), maxTextRows)
	var labels []any
	for _, j := range shown {
		labels = append(labels, b.Labels[j])
	}
	columns := [][]any{labels}
	t := report.Table{Columns: []report.Column{{Name: b.XLabel}}}
	for i, s := range b.Series {
		name := seriesName(b.Series, i, false)
		if name == "" {
			name = "y"
		}
		c, cells := withBands(name, s, b.YPercent, shown)
		t.Columns, columns = append(t.Columns, c), append(columns, cells)
	}
	t.Rows = transpose(columns)
	return axisText("y", b.YLabel, b.LogY) + bandText(b.Series) + tableText(t, len(b.Labels))
}

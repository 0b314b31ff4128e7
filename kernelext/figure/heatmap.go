package figure

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// HeatMap draws a matrix as coloured cells, the first row on top.
type HeatMap struct {
	Title, XLabel, YLabel string // XLabel names the columns' axis, YLabel the rows'
	ValueLabel            string // what the colours stand for, with its unit
	Caption               string

	Values []float64 // row by row
	Cols   int       // how many values a row has; 0: the matrix is square

	XNames, YNames []string // name columns and rows one by one; nil: they are numbered from 0
	Percent        bool     // the values are fractions, written as percentages

	// Mask draws in two colours: 0 is pruned, all else is kept. The legend says how many there are of each.
	Mask bool

	// Min and Max are the values of the first and the last colour; both 0: from the data. Without them, values of both signs are drawn in
	// two hues that meet in white at 0, others in one hue that grows darker.
	Min, Max float64

	Width, Height int // px; 0: 640, and a height that makes cells square unless the matrix is long and narrow
}

// MIMEBundle returns the figure as PNG, SVG and text.
func (m HeatMap) MIMEBundle() (map[string]any, error) { return bundle(m) }

// MIMEMetadata says at which size the PNG is to be shown.
func (m HeatMap) MIMEMetadata() map[string]any { return metadata(m) }

func (m HeatMap) kind() string {
	if m.Mask {
		return "mask"
	}
	return "heat map"
}

func (m HeatMap) frame() frame { return frame{m.Title, m.Caption, m.Width, m.Height} }

func (m HeatMap) shape() (rows, cols int) {
	cols = m.Cols
	if cols == 0 {
		cols = int(math.Round(math.Sqrt(float64(len(m.Values)))))
	}
	if cols <= 0 {
		return 0, 0
	}
	return len(m.Values) / cols, cols
}

func (m HeatMap) check() error {
	wrong := func(format string, args ...any) error {
		return &InputError{Figure: m.kind(), Problem: fmt.Sprintf(format, args...)}
	}
	rows, cols := m.shape()
	switch {
	case len(m.Values) == 0:
		return wrong("it has no values; expected at least one")
	case m.Cols < 0:
		return wrong("it is to have %d columns; expected a number above 0, or 0 if the matrix is square", m.Cols)
	case m.Cols == 0 && cols*cols != len(m.Values):
		return wrong("it has %d values, which make no square; set Cols", len(m.Values))
	case rows*cols != len(m.Values):
		return wrong("it has %d values, which make no whole rows of %d; expected a multiple of Cols", len(m.Values), m.Cols)
	case m.XNames != nil && len(m.XNames) != cols:
		return wrong("it has %d names for %d columns; expected one for each, or none", len(m.XNames), cols)
	case m.YNames != nil && len(m.YNames) != rows:
		return wrong("it has %d names for %d rows; expected one for each, or none", len(m.YNames), rows)
	}
	for i, v := range m.Values {
		if problem := badValue(v, false); problem != "" {
			return wrong("the value in row %d, column %d is %v; expected %s", i/cols, i%cols, v, problem)
		}
	}
	if problem := (axisSpec{min: m.Min, max: m.Max}).checkLimits("colour"); problem != "" {
		return wrong("%s", problem)
	}
	return nil
}

// scale is what maps values to colours.
func (m HeatMap) scale(l *look) colorScale {
	lo, hi := m.Min, m.Max
	if lo == 0 && hi == 0 {
		all := newSpan()
		all.add(m.Values...)
		lo, hi = all.lo, all.hi
		if lo < 0 && hi > 0 {
			hi = math.Max(-lo, hi)
			lo = -hi
		}
		round := newAxis(lo, hi, axisSpec{slack: 0.12, count: 5})
		lo, hi = round.lo, round.hi
	}
	s := colorScale{lo: lo, hi: hi, stops: l.sequential}
	if lo < 0 && hi > 0 {
		s.stops, s.reach = l.diverging, math.Max(-lo, hi)
	}
	return s
}

// layout of a heat map around its cells, px.
type heatLayout struct {
	left, right, top, bottom float64
}

const (
	barWidth  = 16 // of the colour bar
	nameSpace = 130
)

func (m HeatMap) layout() heatLayout {
	l := heatLayout{top: 2, bottom: 4 + textLine}
	if m.YLabel != "" {
		l.top = textLine + 8
	}
	if m.XLabel != "" {
		l.bottom += textLine + 2
	}
	for _, name := range m.rowNames() {
		l.left = math.Max(l.left, textWidth(shorten(name, nameSpace, textSize, false), textSize, false))
	}
	l.left += 8
	if m.Mask {
		l.right = 4
		return l
	}
	l.right = colorBarSpace(m.barAxis())
	if m.ValueLabel != "" {
		l.top = textLine + 8
	}
	return l
}

func (m HeatMap) barAxis() axis {
	s := m.scale(&light)
	return newAxis(s.lo, s.hi, axisSpec{percent: m.Percent, slack: 0, count: 5})
}

// rowNames are the labels beside the rows, thinned where they are numbers.
func (m HeatMap) rowNames() []string {
	rows, _ := m.shape()
	return names(m.YNames, rows)
}

func names(given []string, n int) []string {
	if given != nil {
		return given
	}
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(i)
	}
	return out
}

func (m HeatMap) legend(l *look) []legendItem {
	if !m.Mask {
		return nil
	}
	kept := m.kept()
	item := func(name string, n int, c color.RGBA) legendItem {
		return legendItem{name: fmt.Sprintf("%s: %s of %s (%s)", name, number(float64(n), false), number(float64(len(m.Values)), false),
			number(float64(n)/float64(len(m.Values)), true)), color: c}
	}
	return []legendItem{item("kept", kept, l.kept), item("pruned", len(m.Values)-kept, l.pruned)}
}

func (m HeatMap) kept() int {
	n := 0
	for _, v := range m.Values {
		if v != 0 {
			n++
		}
	}
	return n
}

const tallest = 420 // px that the cells of a figure without a given height may take

// cells returns the size of all cells together in the room that there is: square ones, if that leaves enough of the shorter side to see something.
func (m HeatMap) cells(w, h float64) (float64, float64) {
	rows, cols := m.shape()
	if side := math.Min(w/float64(cols), h/float64(rows)); math.Min(side*float64(rows), side*float64(cols)) >= 60 {
		return math.Round(side * float64(cols)), math.Round(side * float64(rows))
	}
	return math.Floor(w), math.Floor(h)
}

func (m HeatMap) naturalWidth() float64 {
	l := m.layout()
	w, _ := m.cells(defaultWidth-2*margin-l.left-l.right, tallest)
	w += l.left + l.right
	for _, item := range m.legend(&light) {
		w = math.Max(w, 2*item.length(defaultWidth)+20)
	}
	w = math.Max(w, math.Max(400, textWidth(m.Title, titleSize, true)+1))
	return math.Min(math.Ceil(w)+2*margin, defaultWidth)
}

func (m HeatMap) bodyHeight(width float64) float64 {
	l := m.layout()
	rows, cols := m.shape()
	inner := width - l.left - l.right
	side := inner / float64(cols)
	h := math.Min(side*float64(rows), tallest)
	return math.Round(math.Max(h, 60)) + l.top + l.bottom + legendHeight(m.legend(&light), width)
}

func (m HeatMap) drawBody(p painter, body rect) {
	items := m.legend(p.look)
	p.legend(items, body)
	top := legendHeight(items, body.w)
	body.y, body.h = body.y+top, body.h-top

	l := m.layout()
	rows, cols := m.shape()
	area := rect{x: math.Round(body.x + l.left), y: math.Round(body.y + l.top)}
	area.w, area.h = m.cells(body.w-l.left-l.right, body.h-l.top-l.bottom)
	s := m.scale(p.look)
	if m.Mask {
		s = colorScale{lo: 0, hi: 1, stops: []color.RGBA{p.pruned, p.kept}}
	}
	values := m.Values
	if m.Mask {
		values = make([]float64, len(m.Values))
		for i, v := range m.Values {
			if v != 0 {
				values[i] = 1
			}
		}
	}
	p.image(area.x, area.y, matrixImage(values, rows, cols, int(area.w*resolution), int(area.h*resolution), s.at))
	p.outline(p.middle, area)
	m.drawNames(p, area, body)
	m.drawNumbers(p, area, s)
	if !m.Mask {
		p.colorBar(area, s, m.barAxis(), m.ValueLabel)
	}
}

func (m HeatMap) drawNames(p painter, area, body rect) {
	rows, cols := m.shape()
	if m.YLabel != "" {
		p.text(body.x, area.y-12, shorten(m.YLabel, area.w, textSize, false), style{size: textSize, color: p.muted})
	}
	if m.XLabel != "" {
		p.text(area.x+area.w/2, area.y+area.h+4+textLine+textSize+2, shorten(m.XLabel, area.w, textSize, false), style{size: textSize, color: p.muted, align: center})
	}
	yNames, xNames := m.rowNames(), names(m.XNames, cols)
	cellH, cellW := area.h/float64(rows), area.w/float64(cols)
	for i := 0; i < rows; i += every(rows, cellH, textLine) {
		p.text(area.x-6, area.y+(float64(i)+0.5)*cellH+4, shorten(yNames[i], nameSpace, textSize, false), style{size: textSize, color: p.muted, align: right})
	}
	widest := 0.0
	for _, n := range xNames {
		widest = math.Max(widest, textWidth(n, textSize, false))
	}
	widest = math.Min(widest, nameSpace)
	for j := 0; j < cols; j += every(cols, cellW, widest+8) {
		p.text(area.x+(float64(j)+0.5)*cellW, area.y+area.h+4+textSize, shorten(xNames[j], nameSpace, textSize, false), style{size: textSize, color: p.muted, align: center})
	}
}

// every returns how many cells to go from one label to the next, so that each has room: 1, 2, 5, 10, …
func every(n int, cell, room float64) int {
	if cell >= room {
		return 1
	}
	return max(1, int(niceStep(math.Min(room/cell, float64(n)))))
}

// drawNumbers writes the values into the cells if these are large enough.
func (m HeatMap) drawNumbers(p painter, area rect, s colorScale) {
	rows, cols := m.shape()
	cellH, cellW := area.h/float64(rows), area.w/float64(cols)
	if m.Mask || cellH < textLine {
		return
	}
	format := numberFormat(m.Values, m.Percent)
	if slices.ContainsFunc(m.Values, func(v float64) bool { return textWidth(format(v), textSize-1, false) > cellW-4 }) {
		return
	}
	for i, v := range m.Values {
		p.text(area.x+(float64(i%cols)+0.5)*cellW, area.y+(float64(i/cols)+0.5)*cellH+4, format(v), style{size: textSize - 1, color: on(s.at(v)), align: center})
	}
}

// colorBar draws the colours' meaning to the right of what is drawn in them, with its name above.
func (p painter) colorBar(area rect, s colorScale, a axis, label string) {
	bar := rect{area.x + area.w + 14, area.y, barWidth, area.h}
	steps := int(bar.h) * resolution
	ramp := make([]float64, steps)
	for i := range ramp {
		ramp[i] = s.hi - (s.hi-s.lo)*(float64(i)+0.5)/float64(steps)
	}
	p.image(bar.x, bar.y, matrixImage(ramp, steps, 1, barWidth*resolution, steps, s.at))
	p.outline(p.middle, bar)
	for i, v := range a.ticks {
		y := bar.y + bar.h*(1-a.at(v))
		p.stroke(p.middle, 1, nil, point{bar.x + bar.w, y}, point{bar.x + bar.w + 4, y})
		p.text(bar.x+bar.w+7, y+4, a.labels[i], style{size: textSize, color: p.muted})
	}
	if label != "" {
		// Right-aligned over the bar, beside the name of the rows' axis.
		p.text(bar.x+bar.w, area.y-12, shorten(label, area.w*0.6, textSize, false), style{size: textSize, color: p.muted, align: right})
	}
}

// colorBarSpace is the width of a colour bar with its ticks and the space before it.
func colorBarSpace(a axis) float64 {
	widest := 0.0
	for _, label := range a.labels {
		widest = math.Max(widest, textWidth(label, textSize, false))
	}
	return widest + 14 + barWidth + 8
}

// matrixImage paints a matrix onto w × h pixels: each cell as a block, or, where there are more cells than pixels, each pixel with their mean.
func matrixImage(values []float64, rows, cols, w, h int, colorOf func(float64) color.RGBA) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		r0, r1 := cellsUnder(y, h, rows)
		for x := range w {
			c0, c1 := cellsUnder(x, w, cols)
			sum := 0.0
			for r := r0; r < r1; r++ {
				for c := c0; c < c1; c++ {
					sum += values[r*cols+c]
				}
			}
			img.SetRGBA(x, y, colorOf(sum/float64((r1-r0)*(c1-c0))))
		}
	}
	return img
}

// cellsUnder returns which of n cells pixel i of size lies over: one, or several where there are more cells than pixels.
func cellsUnder(i, size, n int) (from, to int) {
	from = i * n / size
	if n <= size {
		return from, from + 1
	}
	return from, max(from+1, (i+1)*n/size)
}

func (m HeatMap) describe() string {
	rows, cols := m.shape()
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows × %d columns\n", rows, cols)
	b.WriteString(axisText("rows", m.YLabel, false) + axisText("columns", m.XLabel, false) + axisText("values", m.ValueLabel, false))
	for _, item := range m.legend(&light) {
		fmt.Fprintf(&b, "%s\n", item.name)
	}
	const most = 12 // columns of a table that can be read
	if cols > most || m.Mask {
		b.WriteString(m.rowsText(rows, cols))
		return b.String()
	}
	yNames := m.rowNames()
	t := report.Table{Columns: []report.Column{{Name: m.YLabel}}}
	for _, name := range names(m.XNames, cols) {
		t.Columns = append(t.Columns, column(name, m.Percent, m.Values))
	}
	for _, r := range thin(rows, maxTextRows) {
		row := []any{yNames[r]}
		for _, v := range m.Values[r*cols : (r+1)*cols] {
			row = append(row, cell(v, m.Percent))
		}
		t.Rows = append(t.Rows, row)
	}
	b.WriteString(tableText(t, rows))
	return b.String()
}

// rowsText sums up what is in each row, or in several rows together if there are many.
func (m HeatMap) rowsText(rows, cols int) string {
	t := report.Table{Columns: []report.Column{{Name: "rows"}}}
	if m.Mask {
		t.Columns = append(t.Columns, report.Column{Name: "kept"}, report.Column{Name: "kept", Unit: "%", Format: "%.2f"})
	} else {
		mean := column("mean", m.Percent, nil)
		mean.Format = "%.4g"
		t.Columns = append(t.Columns, mean, column("min", m.Percent, m.Values), column("max", m.Percent, m.Values))
	}
	yNames := m.rowNames()
	per := (rows + maxTextRows - 1) / maxTextRows
	for r := 0; r < rows; r += per {
		end := min(r+per, rows)
		name := yNames[r]
		if end > r+1 {
			name += " to " + yNames[end-1]
		}
		part := HeatMap{Values: m.Values[r*cols : end*cols]}
		if m.Mask {
			t.Rows = append(t.Rows, []any{name, report.Count(part.kept()), 100 * float64(part.kept()) / float64(len(part.Values))})
			continue
		}
		s := report.Summarize(part.Values)
		t.Rows = append(t.Rows, []any{name, cell(s.Mean, m.Percent), cell(s.Min, m.Percent), cell(s.Max, m.Percent)})
	}
	return tableText(t, len(t.Rows))
}

package figure

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Filters draws the filters of a convolution side by side, all in the same colours, and crosses out those that were removed. A filter with several
// input channels is drawn as a mosaic with a tile for each.
type Filters struct {
	Title, Caption string
	ValueLabel     string    // what the colours stand for; "": weight
	Weights        []float64 // [Rows, Columns, In, Out], as GoMLX keeps them
	// Rows and Columns are the size of the kernel, In the number of input channels and Out that of filters.
	Rows, Columns, In, Out int
	Removed                []bool // of the filters; nil: none

	Cols          int // filters in a row; 0: up to 10, in rows of equal length if possible
	Width, Height int // px; 0: 640, and a height that suits
}

// MIMEBundle returns the figure as PNG, SVG and text.
func (f Filters) MIMEBundle() (map[string]any, error) { return bundle(f) }

// MIMEMetadata says at which size the PNG is to be shown.
func (f Filters) MIMEMetadata() map[string]any { return metadata(f) }

func (f Filters) kind() string { return "filters" }

func (f Filters) frame() frame { return frame{f.Title, f.Caption, f.Width, f.Height} }

// maxFilters keeps a figure to what can be looked at.
const maxFilters = 1024

func (f Filters) check() error {
	wrong := func(format string, args ...any) error {
		return &InputError{Figure: f.kind(), Problem: fmt.Sprintf(format, args...)}
	}
	const most = 1 << 20 // so that the product below can't overflow
	for _, n := range []int{f.Rows, f.Columns, f.In, f.Out} {
		if n < 1 || n > most {
			return wrong("its shape is [%d, %d, %d, %d]; expected rows, columns, input channels and filters, each of 1 or more", f.Rows, f.Columns, f.In, f.Out)
		}
	}
	switch n := float64(f.Rows) * float64(f.Columns) * float64(f.In) * float64(f.Out); {
	case float64(len(f.Weights)) != n:
		return wrong("it has %d weights for the shape [%d, %d, %d, %d]; expected %.0f", len(f.Weights), f.Rows, f.Columns, f.In, f.Out, n)
	case f.Out > maxFilters:
		return wrong("it has %d filters; expected at most %d: show some of them", f.Out, maxFilters)
	case f.Removed != nil && len(f.Removed) != f.Out:
		return wrong("Removed has %d values for %d filters; expected one for each, or nil", len(f.Removed), f.Out)
	case f.Cols < 0:
		return wrong("it is to have %d columns; expected a number above 0, or 0 to have it chosen", f.Cols)
	}
	for i, v := range f.Weights {
		if problem := badValue(v, false); problem != "" {
			return wrong("Weights[%d], of filter %d, is %v; expected %s", i, i%f.Out, v, problem)
		}
	}
	return nil
}

func (f Filters) shape() (rows, cols int) { return gridShape(f.Out, f.Cols) }

// tiles is the shape of the mosaic of input channels.
func (f Filters) tiles() (rows, cols int) {
	cols = int(math.Ceil(math.Sqrt(float64(f.In))))
	return (f.In + cols - 1) / cols, cols
}

func (f Filters) scale(l *look) colorScale {
	most := 0.0
	for _, v := range f.Weights {
		most = math.Max(most, math.Abs(v))
	}
	if most == 0 {
		most = 1
	}
	round := newAxis(-most, most, axisSpec{slack: 0.12, count: 5})
	return colorScale{lo: round.lo, hi: round.hi, stops: l.diverging}
}

func (f Filters) barAxis() axis {
	s := f.scale(&light)
	return newAxis(s.lo, s.hi, axisSpec{count: 5})
}

func (f Filters) removed() int {
	n := 0
	for _, r := range f.Removed {
		if r {
			n++
		}
	}
	return n
}

func (f Filters) legend(l *look) []legendItem {
	if n := f.removed(); n > 0 {
		return []legendItem{{name: fmt.Sprintf("crossed out: removed, %d of %d", n, f.Out), color: l.gone}}
	}
	return nil
}

const filterLine = 14 // the height of a filter's number

// cell is the space of one filter in that width: that of the mosaic, which is drawn in whole pixels.
func (f Filters) cell(width float64) (w, h float64) {
	_, cols := f.shape()
	tr, tc := f.tiles()
	room := math.Min((width-f.barSpace()-imageGap*float64(cols-1))/float64(cols), 110)
	scale := math.Max(1, math.Floor((room*resolution-tileGap*float64(tc-1))/float64(tc*f.Columns))) // pixels a weight
	size := func(tiles, weights int) float64 {
		return (scale*float64(tiles*weights) + tileGap*float64(tiles-1)) / resolution
	}
	return size(tc, f.Columns), size(tr, f.Rows)
}

const tileGap = 2 // pixels between the input channels of a mosaic

func (f Filters) barSpace() float64 { return colorBarSpace(f.barAxis()) }

func (f Filters) naturalWidth() float64 {
	_, cols := f.shape()
	w, _ := f.cell(defaultWidth - 2*margin)
	return math.Min(2000, math.Ceil(math.Max(300, float64(cols)*(w+imageGap)-imageGap+f.barSpace())+2*margin))
}

func (f Filters) bodyHeight(width float64) float64 {
	rows, _ := f.shape()
	_, h := f.cell(width)
	return math.Max(120, float64(rows)*(h+filterLine+imageGap)-imageGap) + textLine + 8 + legendHeight(f.legend(&light), width)
}

func (f Filters) drawBody(p painter, body rect) {
	items := f.legend(p.look)
	p.legend(items, body)
	top := legendHeight(items, body.w) + textLine + 8
	body.y, body.h = body.y+top, body.h-top
	rows, cols := f.shape()
	w, h := f.cell(body.w)
	s := f.scale(p.look)
	for i := range f.Out {
		x := math.Round(body.x + float64(i%cols)*(w+imageGap))
		y := math.Round(body.y + float64(i/cols)*(h+filterLine+imageGap))
		gone := f.Removed != nil && f.Removed[i]
		p.text(x+w/2, y+textSize-2, fmt.Sprint(i), style{size: textSize - 2, color: p.muted, align: center})
		box := rect{x, y + filterLine, w, h}
		p.image(box.x, box.y, f.mosaic(i, int(w*resolution), int(h*resolution), s, p.look, gone))
		p.outline(p.border, box)
		if gone {
			p.cross(box)
		}
	}
	cells := rect{body.x, body.y, float64(cols)*(w+imageGap) - imageGap, math.Max(90, float64(rows)*(h+filterLine+imageGap)-imageGap)}
	label := f.ValueLabel
	if label == "" {
		label = "weight"
	}
	p.colorBar(cells, s, f.barAxis(), label)
}

// mosaic paints a filter on w × h pixels.
func (f Filters) mosaic(filter, w, h int, s colorScale, l *look, gone bool) image.Image {
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(out, out.Bounds(), image.NewUniform(l.card), image.Point{}, draw.Src)
	tr, tc := f.tiles()
	tileW, tileH := max(1, (w-tileGap*(tc-1))/tc), max(1, (h-tileGap*(tr-1))/tr)
	values := make([]float64, f.Rows*f.Columns)
	for in := range f.In {
		for k := range values {
			values[k] = f.Weights[(k*f.In+in)*f.Out+filter]
		}
		tile := matrixImage(values, f.Rows, f.Columns, tileW, tileH, s.at)
		at := image.Pt(in%tc*(tileW+tileGap), in/tc*(tileH+tileGap))
		draw.Draw(out, image.Rectangle{at, at.Add(image.Pt(tileW, tileH))}, tile, image.Point{}, draw.Src)
	}
	if gone {
		fade(out, l.card)
	}
	return out
}

// fade washes a picture out, so that a cross over it can be seen.
func fade(img *image.RGBA, ground color.RGBA) {
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			img.SetRGBA(x, y, mix(img.RGBAAt(x, y), ground, 0.55))
		}
	}
}

func (f Filters) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d filters of %d × %d weights on %d input channels; %d removed\n", f.Out, f.Rows, f.Columns, f.In, f.removed())
	norms, largest := make([]float64, f.Out), make([]float64, f.Out)
	for i, v := range f.Weights {
		norms[i%f.Out] += v * v
		largest[i%f.Out] = math.Max(largest[i%f.Out], math.Abs(v))
	}
	for i, v := range norms {
		norms[i] = math.Sqrt(v)
	}
	t := tableOf(report.Column{Name: "filter"}, column("norm", false, norms), column("largest weight", false, largest), report.Column{Name: ""})
	const most = 64
	for i := range min(f.Out, most) {
		verdict := "kept"
		if f.Removed != nil && f.Removed[i] {
			verdict = "removed"
		}
		t.Rows = append(t.Rows, []any{i, norms[i], largest[i], verdict})
	}
	b.WriteString(tableText(t, f.Out))
	return b.String()
}

package figure

import (
	"image"
	"image/color"
	"math"
	"strings"
	"sync"
	"unicode"

	"codeberg.org/go-fonts/liberation/liberationsansbold"
	"codeberg.org/go-fonts/liberation/liberationsansregular"
	stdfont "golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// dpi makes one px of the layout a CSS pixel.
const dpi = 96

func px(x float64) vg.Length { return vg.Length(x) * vg.Inch / dpi }

type point struct{ x, y float64 }

type rect struct{ x, y, w, h float64 }

func (r rect) corners() []point {
	return []point{{r.x, r.y}, {r.x + r.w, r.y}, {r.x + r.w, r.y + r.h}, {r.x, r.y + r.h}}
}

func (r rect) contains(p point) bool {
	const slack = 0.01
	return p.x >= r.x-slack && p.x <= r.x+r.w+slack && p.y >= r.y-slack && p.y <= r.y+r.h+slack
}

func rgb(hex uint32) color.RGBA {
	return color.RGBA{R: uint8(hex >> 16), G: uint8(hex >> 8), B: uint8(hex), A: 255}
}

// dashes are the patterns of lines that have no markers.
var dashes = [][]float64{nil, {7, 3}, {2, 3}, {9, 3, 2, 3}}

func withAlpha(c color.RGBA, alpha float64) color.NRGBA {
	return color.NRGBA{R: c.R, G: c.G, B: c.B, A: uint8(math.Round(255 * alpha))}
}

// surface is what a figure is drawn on, in px from the top left corner, y down.
type surface interface {
	fill(c color.Color, polygon []point)
	circle(c color.Color, center point, radius float64)
	stroke(c color.Color, width float64, dash []float64, line []point)
	text(at point, s string, st style) // at is where the base line begins
	image(x, y float64, img image.Image)
}

// painter is what figures draw with: surface's methods in a handier form, and more.
type painter struct {
	on surface
	*look
}

func (p painter) fill(c color.Color, polygon ...point) { p.on.fill(c, polygon) }

func (p painter) circle(c color.Color, center point, radius float64) { p.on.circle(c, center, radius) }

func (p painter) stroke(c color.Color, width float64, dash []float64, line ...point) {
	p.on.stroke(c, width, dash, line)
}

// strokeIn draws what of the line lies in area.
func (p painter) strokeIn(area rect, c color.Color, width float64, dash []float64, line ...point) {
	for _, part := range clipper(area).ClipLinesXY(toVG(line)) {
		p.on.stroke(c, width, dash, fromVG(part))
	}
}

// fillIn fills what of the polygon lies in area.
func (p painter) fillIn(area rect, c color.Color, polygon ...point) {
	if inside := clipper(area).ClipPolygonXY(toVG(polygon)); len(inside) > 2 {
		p.on.fill(c, fromVG(inside))
	}
}

// clipper only cuts, so that it needs no canvas, and px do as lengths.
func clipper(area rect) *draw.Canvas {
	c := toVG([]point{{area.x, area.y}, {area.x + area.w, area.y + area.h}})
	return &draw.Canvas{Rectangle: vg.Rectangle{Min: c[0], Max: c[1]}}
}

func toVG(points []point) []vg.Point {
	out := make([]vg.Point, len(points))
	for i, q := range points {
		out[i] = vg.Point{X: vg.Length(q.x), Y: vg.Length(q.y)}
	}
	return out
}

func fromVG(points []vg.Point) []point {
	out := make([]point, len(points))
	for i, q := range points {
		out[i] = point{float64(q.X), float64(q.Y)}
	}
	return out
}

// image draws img, whose pixels are the PNG's, with its top left corner at x, y.
func (p painter) image(x, y float64, img image.Image) { p.on.image(x, y, img) }

// align says which end of a text its position is.
type align float64

const (
	left   align = 0
	center align = 0.5
	right  align = 1
)

// style of a text. The zero value is left-aligned ink.
type style struct {
	size   float64
	bold   bool
	color  color.Color
	align  align
	rotate float64 // radians, counterclockwise
}

// text writes s with its base line through x, y.
func (p painter) text(x, y float64, s string, st style) {
	s = clean(s)
	if s == "" {
		return
	}
	if st.color == nil {
		st.color = p.ink
	}
	back := float64(st.align) * textWidth(s, st.size, st.bold)
	sin, cos := math.Sincos(st.rotate)
	p.on.text(point{x - back*cos, y + back*sin}, s, st)
}

func textWidth(s string, size float64, bold bool) float64 {
	f := face(size, bold)
	return float64(f.Width(visible(clean(s))) / px(1))
}

// Two faces of the Liberation fonts are linked, not the twelve that gonum's plot package brings: a cell with figures links in half the time.
var (
	regular = sync.OnceValue(func() *opentype.Font { return parseFont(liberationsansregular.TTF) })
	bold    = sync.OnceValue(func() *opentype.Font { return parseFont(liberationsansbold.TTF) })
)

func parseFont(ttf []byte) *opentype.Font {
	f, err := opentype.Parse(ttf)
	if err != nil {
		panic(err) // the font is part of the program
	}
	return f
}

func face(size float64, isBold bool) font.Face {
	f := font.Face{Font: font.Font{Typeface: "Liberation", Variant: "Sans", Size: px(size)}, Face: regular()}
	if isBold {
		f.Face = bold()
		f.Font.Weight = stdfont.WeightBold
	}
	return f
}

// clean replaces what XML does not allow in a text, and line breaks.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\ufffe' || r == '\uffff':
			return '\ufffd'
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// visible replaces characters that our font has no form of, and which would leave no trace in a picture, by boxes. The SVG has them all: a browser finds a font.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII {
			return r
		}
		if i, err := regular().GlyphIndex(nil, r); err == nil && i != 0 {
			return r
		}
		if unicode.In(r, unicode.Mn, unicode.Cf) { // an accent, a joiner: part of the character before
			return -1
		}
		return '□'
	}, s)
}

// wrap breaks s at spaces into lines that fit width. A word that is wider than that has a line of its own, shortened.
func wrap(s string, width, size float64, bold bool) []string {
	var lines []string
	for _, word := range strings.Fields(clean(s)) {
		if n := len(lines); n > 0 {
			if longer := lines[n-1] + " " + word; textWidth(longer, size, bold) <= width {
				lines[n-1] = longer
				continue
			}
		}
		lines = append(lines, shorten(word, width, size, bold))
	}
	return lines
}

// shorten cuts s to width, with an ellipsis.
func shorten(s string, width, size float64, bold bool) string {
	s = clean(s)
	if textWidth(s, size, bold) <= width {
		return s
	}
	runes := []rune(s)
	for n := len(runes) - 1; n > 0; n-- {
		if cut := string(runes[:n]) + "…"; textWidth(cut, size, bold) <= width {
			return cut
		}
	}
	return "…"
}

package figure

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/vgimg"
)

// pngSurface draws pixels.
type pngSurface struct {
	c      *vgimg.Canvas
	height float64
}

func newPNG(w, h float64, ground color.Color) *pngSurface {
	return &pngSurface{vgimg.NewWith(vgimg.UseWH(px(w), px(h)), vgimg.UseDPI(resolution*dpi), vgimg.UseBackgroundColor(ground)), h}
}

func (s *pngSurface) encode() ([]byte, error) {
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	err := encoder.Encode(&b, compact(s.c.Image()))
	return b.Bytes(), err
}

func (s *pngSurface) point(q point) vg.Point { return vg.Point{X: px(q.x), Y: px(s.height - q.y)} }

func (s *pngSurface) path(points []point) vg.Path {
	var path vg.Path
	for i, q := range points {
		if i == 0 {
			path.Move(s.point(q))
		} else {
			path.Line(s.point(q))
		}
	}
	return path
}

func (s *pngSurface) fill(c color.Color, polygon []point) {
	path := s.path(polygon)
	path.Close()
	s.c.SetColor(c)
	s.c.Fill(path)
}

func (s *pngSurface) circle(c color.Color, center point, radius float64) {
	var path vg.Path
	path.Move(s.point(point{center.x + radius, center.y}))
	path.Arc(s.point(center), px(radius), 0, 2*math.Pi)
	path.Close()
	s.c.SetColor(c)
	s.c.Fill(path)
}

func (s *pngSurface) stroke(c color.Color, width float64, dash []float64, line []point) {
	lengths := make([]vg.Length, len(dash))
	for i, d := range dash {
		lengths[i] = px(d)
	}
	s.c.SetColor(c)
	s.c.SetLineWidth(px(width))
	s.c.SetLineDash(lengths, 0)
	s.c.Stroke(s.path(line))
}

func (s *pngSurface) text(at point, text string, st style) {
	s.c.Push()
	defer s.c.Pop()
	s.c.Translate(s.point(at))
	if st.rotate != 0 {
		s.c.Rotate(st.rotate)
	}
	s.c.SetColor(st.color)
	s.c.FillString(face(st.size, st.bold), vg.Point{}, visible(text))
}

func (s *pngSurface) image(x, y float64, img image.Image) {
	w, h := float64(img.Bounds().Dx())/resolution, float64(img.Bounds().Dy())/resolution
	s.c.DrawImage(vg.Rectangle{Min: s.point(point{x, y + h}), Max: s.point(point{x + w, y})}, img)
}

// svgSurface writes an SVG document. It is our own and not gonum's, because texts need a fixed length here: on a system without Liberation
// Sans or Arial another font takes their place, and wider texts would run into each other.
type svgSurface struct {
	b    strings.Builder
	w, h float64
	name string // for screen readers
}

func newSVG(w, h float64, name string) *svgSurface { return &svgSurface{w: w, h: h, name: name} }

func (s *svgSurface) document() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" width="%[1]s" height="%[2]s" viewBox="0 0 %[1]s %[2]s" style="max-width:100%%;height:auto" `+
		`font-family="'Liberation Sans',Arial,Helvetica,sans-serif">
<title>%[3]s</title>
%[4]s</svg>
`, coordinate(s.w), coordinate(s.h), html.EscapeString(clean(s.name)), s.b.String())
}

// coordinate writes a length with a precision that no screen shows.
func coordinate(x float64) string {
	s := trimZeros(strconv.FormatFloat(x, 'f', 2, 64))
	if s == "-0" {
		return "0"
	}
	return s
}

// paint is a colour as attributes.
func paint(attribute string, c color.Color) string {
	n := color.NRGBAModel.Convert(c).(color.NRGBA)
	s := fmt.Sprintf(`%s="#%02x%02x%02x"`, attribute, n.R, n.G, n.B)
	if n.A < 255 {
		s += fmt.Sprintf(` %s-opacity="%.2f"`, attribute, float64(n.A)/255)
	}
	return s
}

func path(points []point) string {
	var b strings.Builder
	for i, q := range points {
		b.WriteByte("ML"[min(i, 1)])
		b.WriteString(coordinate(q.x) + " " + coordinate(q.y))
	}
	return b.String()
}

func (s *svgSurface) fill(c color.Color, polygon []point) {
	fmt.Fprintf(&s.b, "<path d=\"%sZ\" %s/>\n", path(polygon), paint("fill", c))
}

func (s *svgSurface) circle(c color.Color, center point, radius float64) {
	fmt.Fprintf(&s.b, "<circle cx=\"%s\" cy=\"%s\" r=\"%s\" %s/>\n", coordinate(center.x), coordinate(center.y), coordinate(radius), paint("fill", c))
}

func (s *svgSurface) stroke(c color.Color, width float64, dash []float64, line []point) {
	dashes := ""
	if len(dash) > 0 {
		lengths := make([]string, len(dash))
		for i, d := range dash {
			lengths[i] = coordinate(d)
		}
		dashes = fmt.Sprintf(` stroke-dasharray="%s"`, strings.Join(lengths, " "))
	}
	fmt.Fprintf(&s.b, "<path d=\"%s\" fill=\"none\" %s stroke-width=\"%s\"%s/>\n", path(line), paint("stroke", c), coordinate(width), dashes)
}

func (s *svgSurface) text(at point, text string, st style) {
	weight, turn := "", ""
	if st.bold {
		weight = ` font-weight="bold"`
	}
	if st.rotate != 0 {
		turn = fmt.Sprintf(` transform="rotate(%s %s %s)"`, coordinate(-st.rotate*180/math.Pi), coordinate(at.x), coordinate(at.y))
	}
	fmt.Fprintf(&s.b, "<text x=\"%s\" y=\"%s\" font-size=\"%s\"%s %s textLength=\"%s\" lengthAdjust=\"spacingAndGlyphs\"%s>%s</text>\n", coordinate(at.x), coordinate(at.y),
		coordinate(st.size), weight, paint("fill", st.color), coordinate(textWidth(text, st.size, st.bold)), turn, html.EscapeString(text))
}

func (s *svgSurface) image(x, y float64, img image.Image) {
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&b, compact(img)); err != nil {
		panic(err) // bundle makes an error of it
	}
	fmt.Fprintf(&s.b, "<image x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\" xlink:href=\"data:image/png;base64,%s\"/>\n", coordinate(x), coordinate(y),
		coordinate(float64(img.Bounds().Dx())/resolution), coordinate(float64(img.Bounds().Dy())/resolution), base64.StdEncoding.EncodeToString(b.Bytes()))
}

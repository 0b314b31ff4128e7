package figure

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// examples returns one figure of each kind, of the size that notebooks have.
func examples() map[string]Figure {
	sparsity := []float64{0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99}
	line := Line{Title: "Accuracy over sparsity", XLabel: "sparsity", YLabel: "test accuracy", XPercent: true, YPercent: true,
		Caption: "Mean of 3 seeds; the band reaches from the worst to the best.", HLines: []HLine{{"dense", 0.983}}}
	for i, name := range []string{"iterative", "one-shot", "random"} {
		s := Series{Name: name, X: sparsity, Dashed: i == 2}
		for _, x := range sparsity {
			y := 0.98 - 0.3*float64(i)*x*x
			s.Y, s.Low, s.High = append(s.Y, y), append(s.Low, y-0.02), append(s.High, y+0.01)
		}
		line.Series = append(line.Series, s)
	}
	loss := Line{LogY: true, Series: []Series{{Name: "training"}, {Name: "validation"}}}
	for i := range 5000 {
		loss.Series[0].Y = append(loss.Series[0].Y, 0.1+math.Exp(-float64(i)/500)*(1+0.5*math.Sin(float64(i*i))))
		loss.Series[1].Y = append(loss.Series[1].Y, 0.12+math.Exp(-float64(i)/500))
	}
	mask := make([]float64, 784*300)
	perPixel := make([]float64, 784)
	weights := make([]float64, len(mask))
	for i := range mask {
		weights[i] = math.Sin(float64(i)) * math.Cos(float64(i*i))
		if pixel := i / 300; math.Hypot(float64(pixel/28)-13.5, float64(pixel%28)-13.5) < 10 && i*2654435761%7 < 3 {
			mask[i] = 1
			perPixel[pixel]++
		}
	}
	var digits []Image
	for d := range 10 {
		pixels := make([]uint8, 784)
		for i := range pixels {
			pixels[i] = uint8(i * (d + 1))
		}
		digits = append(digits, Image{Title: fmt.Sprint(d), Image: Pixels(pixels, 28, 28)})
	}
	return map[string]Figure{
		"line": line,
		"loss": loss,
		"bar": Bar{Title: "Parameters", YLabel: "count", LogY: true, Labels: []string{"/conv1/weights", "/conv2/weights", "/fc1/weights", "/output/weights"},
			Series: []Series{{Name: "dense", Y: []float64{500, 25000, 400000, 5000}}, {Name: "pruned", Y: []float64{100, 2500, 4000, 500}, Low: []float64{90, 2400, 3500, 400}, High: []float64{110, 2600, 5000, 600}}}},
		"histogram": Histogram{Title: "Weights", LogY: true, Samples: []Sample{{"dense", weights}, {"pruned", mask}}},
		"heat map":  HeatMap{Title: "Weights kept for each pixel", XLabel: "column", YLabel: "row", ValueLabel: "weights", Values: perPixel},
		"mask":      HeatMap{Title: "Mask of fc1", Values: mask, Cols: 300, Mask: true},
		"images":    ImageGrid{Title: "Digits", Images: digits},
		"grid":      Grid{Title: "Both", Figures: []Figure{line, HeatMap{Title: "Kept", Values: perPixel}}},
		"area":      shares(),
		"pareto":    bargains(),
		"filters":   someFilters(1, 20),
		"mosaics":   someFilters(20, 20),
		"network":   resnet20(),
		"one row":   unet(),
		"film":      moving(),
	}
}

func TestForms(t *testing.T) {
	for name, f := range examples() {
		t.Run(name, func(t *testing.T) {
			forms, err := f.MIMEBundle()
			if err != nil {
				t.Fatal(err)
			}
			var mimes []string
			for _, m := range []string{"image/png", "image/svg+xml", "text/plain"} {
				if forms[m] != nil {
					mimes = append(mimes, m)
				}
			}
			if len(mimes) != 3 || len(forms) != 3 {
				t.Fatalf("forms %v of %d, want PNG, SVG and text", mimes, len(forms))
			}
			file := forms["image/png"].([]byte)
			if len(file) > 150_000 {
				t.Errorf("the PNG has %d bytes, want at most 150,000", len(file))
			}
			img, err := png.Decode(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			size := f.(interface{ MIMEMetadata() map[string]any }).MIMEMetadata()["image/png"].(map[string]any)
			if want := image.Pt(2*size["width"].(int), 2*size["height"].(int)); img.Bounds().Size() != want {
				t.Errorf("the PNG has %v pixels, want twice what the metadata says, %v", img.Bounds().Size(), want)
			}
			checkCard(t, img)
			checkXML(t, forms["image/svg+xml"].(string))

			again, err := f.MIMEBundle()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(forms, again); diff != "" {
				t.Errorf("drawn again it differs:\n%.500s", diff)
			}
		})
	}
}

// checkCard sees that the ground is opaque and white inside the border, and that something is drawn on it.
func checkCard(t *testing.T, img image.Image) {
	t.Helper()
	b := img.Bounds()
	drawn := 0
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)
			edge := x-b.Min.X < 2 || y-b.Min.Y < 2 || b.Max.X-x <= 2 || b.Max.Y-y <= 2
			switch {
			case c.A != 255:
				t.Fatalf("the pixel at %d, %d is not opaque: %v", x, y, c)
			case edge && c != light.border:
				t.Fatalf("the edge at %d, %d is %v, want the border %v", x, y, c, light.border)
			case !edge && c != light.card:
				drawn++
			}
		}
	}
	if drawn < b.Dx()*b.Dy()/200 {
		t.Errorf("only %d of %d pixels are drawn", drawn, b.Dx()*b.Dy())
	}
}

func checkXML(t *testing.T, s string) (texts []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(s))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return texts
		}
		if err != nil {
			t.Fatalf("the SVG is no XML: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if name := token.Name.Local; name == "script" || name == "style" {
				t.Errorf("the SVG has a <%s>", name)
			}
		case xml.CharData:
			if s := strings.TrimSpace(string(token)); s != "" {
				texts = append(texts, s)
			}
		}
	}
}

func TestTextInSVGIsEscaped(t *testing.T) {
	const evil = `<script>alert("&'")</script>`
	f := Line{Title: evil + "\x00\x1b\n\xff", XLabel: evil, YLabel: evil, Caption: evil, Series: []Series{{Name: evil, Y: []float64{1, 2}}}, HLines: []HLine{{evil, 1}}}
	forms, err := f.MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	svg := forms["image/svg+xml"].(string)
	count := map[string]int{}
	for _, s := range checkXML(t, svg) {
		count[s]++
	}
	if n := count[evil]; n != 5 { // both labels, the caption, both legend entries
		t.Errorf("%q appears %d times as text, want 5:\n%v", evil, n, count)
	}
	if strings.Contains(svg, "<script") {
		t.Error("the SVG has an unescaped <script")
	}
}

// What is drawn must be where the data says: the cells of a mask and the points of a line are looked up in the PNG.
func TestPixels(t *testing.T) {
	// Rows: kept, pruned / pruned, kept.
	img := decode(t, HeatMap{Values: []float64{1, 0, 0, 1}, Mask: true, Width: 400, Height: 400})
	m := HeatMap{Values: []float64{1, 0, 0, 1}, Mask: true}
	l := m.layout()
	top := margin + legendHeight(m.legend(&light), 400-2*margin)
	w, h := m.cells(400-2*margin-l.left-l.right, 400-margin-top-l.top-l.bottom)
	for i, want := range []color.RGBA{light.kept, light.pruned, light.pruned, light.kept} {
		x := math.Round(margin+l.left) + w*(0.25+0.5*float64(i%2))
		y := math.Round(top+l.top) + h*(0.25+0.5*float64(i/2))
		if got := img.At(int(x*resolution), int(y*resolution)); got != want {
			t.Errorf("cell %d is %v, want %v", i, got, want)
		}
	}

	// One point in the middle of the axes, whose marker is a blue disc.
	blue := 0
	img = decode(t, Line{Series: []Series{{Y: []float64{3}}}})
	b := img.Bounds()
	var center image.Point
	for y := range b.Dy() {
		for x := range b.Dx() {
			if img.At(x, y) == light.palette[0] {
				blue++
				center = center.Add(image.Pt(x, y))
			}
		}
	}
	if area := math.Pi * math.Pow(markerSize*resolution, 2); math.Abs(float64(blue)-area) > 0.2*area {
		t.Errorf("the marker has %d pixels, want about %.0f", blue, area)
	}
	if x := center.X / max(1, blue); x < b.Dx()*45/100 || x > b.Dx()*60/100 {
		t.Errorf("the marker is at x = %d of %d, want it near the middle", x, b.Dx())
	}
}

func decode(t *testing.T, f Figure) image.Image {
	t.Helper()
	forms, err := f.MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(forms["image/png"].([]byte)))
	if err != nil {
		t.Fatal(err)
	}
	out := image.NewRGBA(img.Bounds())
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			out.Set(x, y, img.At(x, y))
		}
	}
	return out
}

// The first series is on top, but not of smoother ones.
func TestDrawingOrder(t *testing.T) {
	var noise, smooth []float64
	for i := range 100 {
		noise, smooth = append(noise, float64(i%2)), append(smooth, float64(i))
	}
	l := Line{Series: []Series{{Y: noise}, {Y: smooth}, {Y: smooth}, {Y: noise}}}
	if diff := cmp.Diff([]int{3, 0, 2, 1}, l.drawingOrder()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestInputErrors(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	one := []float64{1}
	line := func(s Series) Line { return Line{Series: []Series{{Name: "good", Y: one}, s}} }
	for _, c := range []struct {
		name           string
		figure         Figure
		series, inText string
	}{
		{"no series", Line{}, "", "no series"},
		{"lengths", line(Series{Name: "s", X: []float64{1, 2}, Y: one}), `series "s"`, "X has 2 values and Y has 1"},
		{"no values", line(Series{Name: "s"}), `series "s"`, "no values"},
		{"no name", line(Series{}), "series 2", "no values"},
		{"NaN", line(Series{Name: "s", Y: []float64{1, nan}}), `series "s"`, "Y[1] is NaN"},
		{"infinite X", line(Series{Name: "s", X: []float64{inf}, Y: one}), `series "s"`, "X[0] is +Inf"},
		{"huge", line(Series{Name: "s", Y: []float64{1e300}}), `series "s"`, "Y[0] is 1e+300; expected a number between"},
		{"half a band", line(Series{Name: "s", Y: one, Low: one}), `series "s"`, "one of Low and High"},
		{"band length", line(Series{Name: "s", Y: one, Low: one, High: []float64{1, 2}}), `series "s"`, "Low 1 and High 2"},
		{"band turned over", line(Series{Name: "s", Y: one, Low: []float64{2}, High: one}), `series "s"`, "Low[0] is 2, above High[0], 1"},
		{"band NaN", line(Series{Name: "s", Y: one, Low: []float64{nan}, High: one}), `series "s"`, "Low[0] is NaN"},
		{"log", Line{LogY: true, Series: []Series{{Name: "s", Y: []float64{1, 0}}}}, `series "s"`, "Y[1] is 0; expected a number above 0, since the axis is logarithmic"},
		{"log X", Line{LogX: true, Series: []Series{{Name: "s", X: []float64{-1}, Y: one}}}, `series "s"`, "X[0] is -1"},
		{"log X without X", Line{LogX: true, Series: []Series{{Name: "s", Y: one}}}, `series "s"`, "X is nil"},
		{"level", Line{Series: []Series{{Y: one}}, HLines: []HLine{{"dense", nan}}}, `level "dense"`, "Y is NaN"},
		{"limits", Line{Series: []Series{{Y: one}}, YMin: 2, YMax: 1}, "", "y axis is to reach from 2 to 1"},
		{"log limits", Line{Series: []Series{{Y: one}}, LogY: true, YMin: 0, YMax: 1}, "", "logarithmic y axis is to begin at 0"},
		{"negative size", Line{Series: []Series{{Y: one}}, Width: -1}, "", "its size is -1 × 0"},
		{"tiny size", Line{Series: []Series{{Y: one}}, Height: 10}, "", "too small to draw in"},

		{"bar: no labels", Bar{Series: []Series{{Y: one}}}, "", "0 labels and 1 series"},
		{"bar: lengths", Bar{Labels: []string{"a", "b"}, Series: []Series{{Name: "s", Y: one}}}, `series "s"`, "Y has 1 values for 2 labels"},
		{"bar: X", Bar{Labels: []string{"a"}, Series: []Series{{Name: "s", X: one, Y: one}}}, `series "s"`, "X is set"},
		{"bar: NaN", Bar{Labels: []string{"a"}, Series: []Series{{Name: "s", Y: []float64{nan}}}}, `series "s"`, "Y[0] is NaN"},

		{"histogram: no samples", Histogram{}, "", "no samples"},
		{"histogram: empty", Histogram{Samples: []Sample{{Name: "s"}}}, `sample "s"`, "no values"},
		{"histogram: NaN", Histogram{Samples: []Sample{{"s", []float64{nan}}}}, `sample "s"`, "Values[0] is NaN"},
		{"histogram: bins", Histogram{Samples: []Sample{{"s", one}}, Bins: 1e6}, "", "1000000 bins"},

		{"heat map: empty", HeatMap{}, "", "no values"},
		{"heat map: no square", HeatMap{Values: make([]float64, 6)}, "", "6 values, which make no square"},
		{"heat map: ragged", HeatMap{Values: make([]float64, 6), Cols: 4}, "", "no whole rows of 4"},
		{"heat map: NaN", HeatMap{Values: []float64{0, 0, nan, 0}}, "", "row 1, column 0 is NaN"},
		{"heat map: names", HeatMap{Values: one, XNames: []string{"a", "b"}}, "", "2 names for 1 columns"},

		{"images: none", ImageGrid{}, "", "no images"},
		{"images: nil", ImageGrid{Images: []Image{{Title: "a"}}}, `image 0 ("a")`, "no pixels"},
		{"images: size", ImageGrid{Images: []Image{{Title: "a", Image: Pixels(make([]uint8, 5), 2, 2)}}}, `image 0 ("a")`, "5 values for 2 × 2 pixels; expected 4 (grey) or 12 (colour)"},
		{"images: NaN", ImageGrid{Images: []Image{{Title: "a", Image: Pixels([]float64{nan}, 1, 1)}}}, `image 0 ("a")`, "a pixel of NaN"},

		{"grid: none", Grid{}, "", "no figures"},
		{"grid: nil", Grid{Figures: []Figure{nil}}, "figure 0", "it is nil"},
		{"grid: nil pointer", Grid{Figures: []Figure{(*Line)(nil)}}, "", "it can't be drawn: value method"},
		{"grid: part", Grid{Figures: []Figure{line(Series{Name: "s"})}}, `series "s"`, "line chart 0 of the grid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			forms, err := c.figure.MIMEBundle()
			var e *InputError
			if !errors.As(err, &e) {
				t.Fatalf("error %v (%d forms), want an *InputError", err, len(forms))
			}
			if e.Series != c.series || !strings.Contains(err.Error(), c.inText) {
				t.Errorf("error of the series %q: %v\nwant series %q and %q", e.Series, err, c.series, c.inText)
			}
		})
	}
}

// What is odd but not wrong is drawn.
func TestOddFigures(t *testing.T) {
	long := strings.Repeat("a very long name ", 40)
	for name, f := range map[string]Figure{
		"one point":        Line{Series: []Series{{Y: []float64{0}}}},
		"log, one point":   Line{LogX: true, LogY: true, Series: []Series{{X: []float64{3}, Y: []float64{1e-90}}}},
		"close together":   Line{Series: []Series{{Y: []float64{1e17, 1e17 + 16}}}},
		"far apart":        Line{Series: []Series{{Y: []float64{-1e99, 1e99}, X: []float64{1e-99, 2e-99}}}},
		"many decades":     Line{LogY: true, Series: []Series{{Y: []float64{1e-90, 1e90}}}},
		"narrow log":       Line{LogY: true, YMin: 1.2, YMax: 1.9, Series: []Series{{Y: []float64{1, 1.5, 2}}}},
		"outside":          Line{YMin: 5, YMax: 6, XMin: 5, XMax: 6, Series: []Series{{Y: []float64{1, 2}, Low: []float64{1, 2}, High: []float64{1, 2}, Markers: true}}},
		"many series":      Line{Series: make100()},
		"long texts":       Line{Title: long, XLabel: long, YLabel: strings.ReplaceAll(long, " ", "_"), Caption: long, Series: []Series{{Name: long, Y: []float64{1}}}},
		"narrow":           Line{Width: 160, Title: long, Series: []Series{{Name: long, Y: []float64{1, 2}}}},
		"negative bars":    Bar{Labels: []string{"a", "b"}, Series: []Series{{Y: []float64{-1, -2}}}},
		"zero bars":        Bar{Labels: []string{"a", "b"}, Series: []Series{{Y: []float64{0, 0}}}},
		"bars cut off":     Bar{YMin: 0.9, YMax: 1, Labels: []string{"a", long}, Series: []Series{{Y: []float64{0.95, 0.5}}}},
		"equal values":     Histogram{Samples: []Sample{{"", []float64{2, 2, 2}}}},
		"nothing in range": Histogram{XMin: 5, XMax: 6, LogY: true, Samples: []Sample{{"", []float64{2}}}},
		"one cell":         HeatMap{Values: []float64{0}},
		"one row":          HeatMap{Values: make([]float64, 5000), Cols: 5000, Mask: true},
		"one column":       HeatMap{Values: make([]float64, 5000), Cols: 1, XNames: []string{long}},
		"equal cells":      HeatMap{Values: []float64{1e-12, 1e-12, 1e-12, 1e-12}},
		"one pixel":        ImageGrid{Images: []Image{{Title: long, Image: Pixels([]float32{7}, 1, 1)}}},
		"long picture":     ImageGrid{Images: []Image{{Image: Pixels(make([]uint8, 300), 100, 1)}, {Image: Pixels(make([]uint8, 300), 1, 100)}}, Cols: 20},
		"grid in grid":     Grid{Figures: []Figure{Grid{Figures: []Figure{Line{Series: []Series{{Y: []float64{1}}}}}}}, Cols: 3},
	} {
		t.Run(name, func(t *testing.T) {
			forms, err := f.MIMEBundle()
			if err != nil {
				t.Fatal(err)
			}
			checkXML(t, forms["image/svg+xml"].(string))
			if s := forms["image/svg+xml"].(string); strings.Contains(s, "NaN") || strings.Contains(s, "Inf") {
				t.Error("the SVG has coordinates that are no numbers")
			}
		})
	}
}

func make100() []Series {
	s := make([]Series, 100)
	for i := range s {
		s[i].Y = []float64{float64(i), 1}
	}
	return s
}

func TestColorPixels(t *testing.T) {
	img := Pixels([]float32{0, 0.5, 1, 2, -1, 0}, 1, 2) // two pixels; values outside 0 … 1 are cut
	want := []color.RGBA{{0, 128, 255, 255}, {255, 0, 0, 255}}
	for x, w := range want {
		if got := img.At(x, 0); got != w {
			t.Errorf("pixel %d is %v, want %v", x, got, w)
		}
	}
	if got := Pixels([]uint8{7, 200}, 2, 1).At(0, 1); got != (color.Gray{Y: 200}) {
		t.Errorf("the lower pixel is %v, want grey 200", got)
	}
}

// A photograph keeps its colours: 256 would not do.
func TestCompact(t *testing.T) {
	photo, drawing := image.NewRGBA(image.Rect(0, 0, 64, 64)), image.NewRGBA(image.Rect(0, 0, 64, 64))
	for i := range 64 * 64 {
		photo.SetRGBA(i%64, i/64, color.RGBA{uint8(i), uint8(i >> 4), uint8(i * 7), 255})
		drawing.SetRGBA(i%64, i/64, light.palette[i%2])
	}
	if got := compact(photo); got != image.Image(photo) {
		t.Errorf("the photograph became a %T", got)
	}
	got, ok := compact(drawing).(*image.Paletted)
	if !ok || len(got.Palette) != 2 {
		t.Fatalf("the drawing became a %T, want two colours in a palette", compact(drawing))
	}
	for i := range 64 * 64 {
		if got.At(i%64, i/64) != drawing.At(i%64, i/64) {
			t.Fatalf("pixel %d changed", i)
		}
	}
}

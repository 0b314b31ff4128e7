package figure

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Image is one picture of an ImageGrid.
type Image struct {
	Title string      // above the picture
	Image image.Image // see Pixels for a tensor's data
	// Removed crosses the picture out.
	Removed bool
}

// ImageGrid draws small pictures in rows. Pixels are enlarged as blocks, so that each can be seen.
type ImageGrid struct {
	Title   string
	Caption string
	Images  []Image
	Cols    int // pictures in a row; 0: up to 10, in rows of equal length if possible

	Width, Height int // px; 0: 640, and a height that suits
}

// Pixels makes a picture of pixel values [height, width, channels], of 1 channel (grey) or 3 (red, green, blue). Values of type uint8 reach
// from 0 to 255, floats from 0 to 1. An ImageGrid with a picture whose size does not fit its values gives an *InputError.
func Pixels[T uint8 | float32 | float64](values []T, height, width int) image.Image {
	var zero T
	_, whole := any(zero).(uint8)
	level := func(v T) uint8 {
		f := float64(v)
		if !whole {
			f = math.Round(255 * math.Min(1, math.Max(0, f)))
		}
		return uint8(f)
	}
	for _, v := range values {
		if f := float64(v); !finite(f) {
			return badImage{fmt.Errorf("it has a pixel of %v; expected a finite number", f)}
		}
	}
	n := height * width
	switch {
	case height <= 0 || width <= 0 || len(values) != n && len(values) != 3*n:
		return badImage{fmt.Errorf("it has %d values for %d × %d pixels; expected %d (grey) or %d (colour)", len(values), height, width, max(0, n), max(0, 3*n))}
	case len(values) == n:
		img := image.NewGray(image.Rect(0, 0, width, height))
		for i, v := range values {
			img.Pix[i] = level(v)
		}
		return img
	default:
		img := image.NewRGBA(image.Rect(0, 0, width, height))
		for i := range n {
			img.SetRGBA(i%width, i/width, color.RGBA{level(values[3*i]), level(values[3*i+1]), level(values[3*i+2]), 255})
		}
		return img
	}
}

// badImage is what Pixels returns for values that make no picture; the figure reports it.
type badImage struct{ err error }

func (badImage) ColorModel() color.Model { return color.GrayModel }
func (badImage) Bounds() image.Rectangle { return image.Rectangle{} }
func (badImage) At(int, int) color.Color { return color.Gray{} }

// MIMEBundle returns the figure as PNG, SVG and text.
func (g ImageGrid) MIMEBundle() (map[string]any, error) { return bundle(g) }

// MIMEMetadata says at which size the PNG is to be shown.
func (g ImageGrid) MIMEMetadata() map[string]any { return metadata(g) }

func (g ImageGrid) kind() string { return "images" }

func (g ImageGrid) frame() frame { return frame{g.Title, g.Caption, g.Width, g.Height} }

func (g ImageGrid) check() error {
	if len(g.Images) == 0 {
		return &InputError{Figure: g.kind(), Problem: "it has no images; expected at least one"}
	}
	if g.Cols < 0 {
		return &InputError{Figure: g.kind(), Problem: fmt.Sprintf("it is to have %d columns; expected a number above 0, or 0 to have it chosen", g.Cols)}
	}
	for i, img := range g.Images {
		err := error(nil)
		if bad, ok := img.Image.(badImage); ok {
			err = bad.err
		} else if img.Image == nil || img.Image.Bounds().Empty() {
			err = errors.New("it has no pixels; expected a picture")
		}
		if err != nil {
			return &InputError{Figure: g.kind(), Series: fmt.Sprintf("image %d (%q)", i, img.Title), Problem: err.Error()}
		}
	}
	return nil
}

const (
	imageGap    = 10
	largestSide = 150 // px of a picture, unless there are few
)

func (g ImageGrid) shape() (rows, cols int) { return gridShape(len(g.Images), g.Cols) }

// gridShape is how n pictures are laid out if nothing else is asked for by a number of columns.
func gridShape(n, cols int) (rows, _ int) {
	if cols == 0 {
		const most = 10
		rows = (n + most - 1) / most
		cols = (n + rows - 1) / rows
	}
	return (n + cols - 1) / cols, cols
}

// side is the space of one picture, px.
func (g ImageGrid) side(width float64) float64 {
	_, cols := g.shape()
	return math.Max(1, math.Floor(math.Min((width-imageGap*float64(cols-1))/float64(cols), largestSide)))
}

func (g ImageGrid) titleHeight() float64 {
	for _, img := range g.Images {
		if img.Title != "" {
			return textLine + 2
		}
	}
	return 0
}

// tallestImage is the largest ratio of height to width.
func (g ImageGrid) tallestImage() float64 {
	r := 0.0
	for _, img := range g.Images {
		r = math.Max(r, float64(img.Image.Bounds().Dy())/float64(img.Image.Bounds().Dx()))
	}
	return math.Min(r, 2)
}

func (g ImageGrid) naturalWidth() float64 { return defaultWidth }

func (g ImageGrid) bodyHeight(width float64) float64 {
	rows, _ := g.shape()
	return float64(rows)*(math.Ceil(g.side(width)*g.tallestImage())+g.titleHeight()+imageGap) - imageGap
}

func (g ImageGrid) drawBody(p painter, body rect) {
	rows, cols := g.shape()
	cell := rect{w: math.Floor((body.w - imageGap*float64(cols-1)) / float64(cols)), h: math.Floor((body.h-imageGap*float64(rows-1))/float64(rows) - g.titleHeight())}
	cell.w = math.Min(cell.w, largestSide)
	for i, img := range g.Images {
		cell.x = math.Round(body.x) + float64(i%cols)*(cell.w+imageGap)
		cell.y = math.Round(body.y) + float64(i/cols)*(cell.h+imageGap+g.titleHeight())
		if img.Title != "" {
			p.text(cell.x+cell.w/2, cell.y+textSize, shorten(img.Title, cell.w+imageGap-4, textSize, false), style{size: textSize, align: center})
		}
		size := img.Image.Bounds().Size()
		scale := math.Min(cell.w/float64(size.X), cell.h/float64(size.Y))
		w, h := math.Max(1, math.Round(float64(size.X)*scale)), math.Max(1, math.Round(float64(size.Y)*scale))
		x, y := cell.x+math.Floor((cell.w-w)/2), cell.y+g.titleHeight()
		p.image(x, y, enlarge(p.card, img.Image, int(w*resolution), int(h*resolution)))
		p.outline(p.border, rect{x, y, w, h})
		if img.Removed {
			p.cross(rect{x, y, w, h})
		}
	}
}

// enlarge paints img on w × h pixels of the card, each of its own as a block.
func enlarge(card color.RGBA, img image.Image, w, h int) image.Image {
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	b := img.Bounds()
	for y := range h {
		for x := range w {
			c := color.NRGBAModel.Convert(img.At(b.Min.X+x*b.Dx()/w, b.Min.Y+y*b.Dy()/h)).(color.NRGBA)
			out.SetRGBA(x, y, mix(card, color.RGBA{c.R, c.G, c.B, 255}, float64(c.A)/255))
		}
	}
	return out
}

func (g ImageGrid) describe() string {
	t := report.Table{Columns: []report.Column{{Name: "image"}, {Name: "title"}, {Name: "pixels"}}}
	for _, i := range thin(len(g.Images), maxTextRows) {
		size := g.Images[i].Image.Bounds().Size()
		what := fmt.Sprintf("%d × %d", size.X, size.Y)
		if g.Images[i].Removed {
			what += ", removed"
		}
		t.Rows = append(t.Rows, []any{i, g.Images[i].Title, what})
	}
	var b strings.Builder
	rows, cols := g.shape()
	fmt.Fprintf(&b, "%d images in %d rows of %d\n", len(g.Images), rows, cols)
	b.WriteString(tableText(t, len(g.Images)))
	return b.String()
}

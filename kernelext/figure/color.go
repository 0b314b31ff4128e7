package figure

import (
	"cmp"
	"image"
	"image/color"
	"maps"
	"math"
	"slices"
)

// colorScale maps lo … hi to colours, evenly between the stops.
type colorScale struct {
	lo, hi float64
	stops  []color.RGBA
	reach  float64 // of two hues that meet at 0: where each is darkest; 0: they begin and end at lo and hi
}

func (s colorScale) at(v float64) color.RGBA {
	// 128 shades look like all of them, and leave half of a PNG's palette to text and lines.
	const shades = 127
	lo, hi := s.lo, s.hi
	if s.reach > 0 {
		lo, hi = -s.reach, s.reach
	}
	t := math.Round(shades*math.Min(1, math.Max(0, (v-lo)/(hi-lo)))) / shades * float64(len(s.stops)-1)
	i := min(int(t), len(s.stops)-2)
	return mix(s.stops[i], s.stops[i+1], t-float64(i))
}

// mix returns a, b or what lies between.
func mix(a, b color.RGBA, t float64) color.RGBA {
	f := func(x, y uint8) uint8 { return uint8(math.Round(float64(x) + t*(float64(y)-float64(x)))) }
	return color.RGBA{f(a.R, b.R), f(a.G, b.G), f(a.B, b.B), 255}
}

// luminance is how bright a colour looks, 0 to 1.
func luminance(c color.RGBA) float64 {
	return (0.299*float64(c.R) + 0.587*float64(c.G) + 0.114*float64(c.B)) / 255
}

// compact returns img with a palette of its 256 most frequent colours if nearly all of its pixels have one of these: the PNG is then less than
// half as large. Other pixels, on the edges of lines and letters, take the nearest colour. An image with photographs stays as it is.
func compact(img image.Image) image.Image {
	rgba, ok := img.(*image.RGBA)
	if !ok {
		return img
	}
	count := map[color.RGBA]int{}
	runs(rgba, func(c color.RGBA, _, n int) { count[c] += n })
	frequent := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B), cmp.Compare(a.A, b.A))
	})
	total, inPalette := rgba.Rect.Dx()*rgba.Rect.Dy(), 0
	var p color.Palette
	for _, c := range frequent[:min(256, len(frequent))] {
		p = append(p, c)
		inPalette += count[c]
	}
	if inPalette < total*97/100 {
		return img
	}
	index := make(map[color.RGBA]uint8, len(frequent))
	for i, c := range frequent {
		index[c] = uint8(i)
		if i >= len(p) {
			index[c] = uint8(p.Index(c))
		}
	}
	out := image.NewPaletted(rgba.Rect, p)
	runs(rgba, func(c color.RGBA, start, n int) {
		nearest := index[c]
		for i := range n {
			out.Pix[start+i] = nearest
		}
	})
	return out
}

// runs calls f for each run of n equal pixels in a row, the first being the start-th of the image. Most of a figure is such runs.
func runs(img *image.RGBA, f func(c color.RGBA, start, n int)) {
	w := img.Rect.Dx()
	for y := range img.Rect.Dy() {
		row := img.Pix[y*img.Stride : y*img.Stride+4*w]
		for x := 0; x < w; {
			n := 1
			for x+n < w && [4]byte(row[4*(x+n):]) == [4]byte(row[4*x:]) {
				n++
			}
			f(color.RGBA{row[4*x], row[4*x+1], row[4*x+2], row[4*x+3]}, y*w+x, n)
			x += n
		}
	}
}

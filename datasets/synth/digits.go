package synth

import "math"

const side = 28 // pixels

// point is a place in the picture, in 1/unit of a pixel.
type point struct{ x, y int }

// The corners of a digit, x and y in half its width and height, and the segments between them in the usual order a to g.
var (
	corners = [6]point{{-1, -1}, {1, -1}, {-1, 0}, {1, 0}, {-1, 1}, {1, 1}}
	strokes = [7][2]int{{0, 1}, {1, 3}, {3, 5}, {4, 5}, {2, 4}, {0, 2}, {2, 3}}
	// segments has bit k set where the digit has stroke k.
	segments = [10]uint8{0b0111111, 0b0000110, 0b1011011, 0b1001111, 0b1100110, 0b1101101, 0b1111101, 0b0000111, 0b1111111, 0b1101111}
)

// digit draws one example.
func digit(d draws, label int, pixels []uint8) {
	// Widths and heights of 7.5 to 11.5 and 13 to 18 pixels, moved by up to 2 pixels, slanted by up to a quarter.
	halfWidth, halfHeight := d.between(15*unit/4, 23*unit/4), d.between(13*unit/2, 9*unit)
	centre := point{side*unit/2 + d.between(-2*unit, 2*unit), side*unit/2 + d.between(-2*unit, 2*unit)}
	slant := d.between(-unit/4, unit/4)
	radius, ink, noise := d.between(3*unit/4, 7*unit/4), d.between(150, 255), d.between(0, 40)
	var at [len(corners)]point
	for i, c := range corners {
		x, y := c.x*halfWidth, c.y*halfHeight
		at[i] = point{centre.x + x - y*slant/unit + d.between(-unit/2, unit/2), centre.y + y + d.between(-unit/2, unit/2)}
	}
	for i := range pixels {
		p := point{i%side*unit + unit/2, i/side*unit + unit/2}
		nearest := math.MaxInt
		for k, s := range strokes {
			if segments[label]>>k&1 == 1 {
				nearest = min(nearest, distance2(p, at[s[0]], at[s[1]]))
			}
		}
		// From full ink inside the stroke to none in the width of one pixel.
		cover := max(0, min(unit, radius+unit/2-int(math.Sqrt(float64(nearest)))))
		pixels[i] = clamp(ink*cover/unit + d.between(-noise, noise))
	}
}

// distance2 returns the square of the distance of p from the segment from a to b.
func distance2(p, a, b point) int {
	dx, dy := b.x-a.x, b.y-a.y
	along, length2 := (p.x-a.x)*dx+(p.y-a.y)*dy, dx*dx+dy*dy
	along = max(0, min(along, length2))
	x, y := p.x-a.x, p.y-a.y
	if length2 > 0 {
		x, y = x-dx*along/length2, y-dy*along/length2
	}
	return x*x + y*y
}

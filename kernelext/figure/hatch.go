package figure

import "image/color"

// hatches is how many patterns there are; the first is none.
const hatches = 4

// hatch draws the n-th pattern of lines over what of bounds is inside. Areas that share a colour differ by it, also in print and to colour-blind readers.
func (p painter) hatch(c color.Color, n int, bounds rect, inside func(point) bool) {
	const apart, step = 6.0, 1.5
	// along walks a line and draws the stretches that lie inside.
	along := func(from point, dx, dy float64) {
		var start, last point
		drawing := false
		end := func() {
			if drawing && start != last {
				p.stroke(c, 1, nil, start, last)
			}
			drawing = false
		}
		for q := from; bounds.contains(q); q = (point{q.x + dx*step, q.y + dy*step}) {
			switch {
			case !inside(q):
				end()
			case !drawing:
				start, last, drawing = q, q, true
			default:
				last = q
			}
		}
		end()
	}
	right, bottom := bounds.x+bounds.w, bounds.y+bounds.h
	switch n % hatches {
	case 1: // falling
		for x := bounds.x; x < right; x += apart {
			along(point{x, bounds.y}, 1, 1)
		}
		for y := bounds.y + apart; y < bottom; y += apart {
			along(point{bounds.x, y}, 1, 1)
		}
	case 2: // rising
		for x := bounds.x; x < right; x += apart {
			along(point{x, bottom}, 1, -1)
		}
		for y := bottom - apart; y > bounds.y; y -= apart {
			along(point{bounds.x, y}, 1, -1)
		}
	case 3: // upright
		for x := bounds.x + apart/2; x < right; x += 4 {
			along(point{x, bounds.y}, 0, 1)
		}
	}
}

// patch fills a box with a colour and a pattern.
func (p painter) patch(c color.RGBA, n int, r rect) {
	p.fill(c, r.corners()...)
	if n%hatches > 0 {
		p.hatch(on(c), n, r, func(point) bool { return true })
	}
}

// cross draws what says that something was removed.
func (p painter) cross(r rect) {
	a, b := point{r.x, r.y}, point{r.x + r.w, r.y + r.h}
	for _, line := range [][]point{{a, b}, {{a.x, b.y}, {b.x, a.y}}} {
		p.stroke(p.card, 4, nil, line...) // so that it can be seen on any picture
		p.stroke(p.gone, 2, nil, line...)
	}
}

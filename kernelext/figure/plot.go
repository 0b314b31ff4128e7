package figure

import (
	"image/color"
	"math"
)

// legendItem is one entry of a legend: what its mark looks like and what it means.
type legendItem struct {
	name   string
	color  color.RGBA
	width  float64 // of the line; 0: a filled box
	dash   []float64
	marker int  // number of the marker, -1: none
	point  bool // the marker alone, without a line or a box
	hatch  int  // pattern of a box
}

// indent is the width of a legend's mark and the space after it.
func (i legendItem) indent() float64 {
	if i.width > 0 {
		return 26 + 6
	}
	return 14 + 6
}

func (i legendItem) length(limit float64) float64 {
	return i.indent() + math.Min(textWidth(i.name, textSize, false), limit-i.indent())
}

// legendRows breaks the items into rows that fit width. The legend stands above the data, where it hides none of it.
func legendRows(items []legendItem, width float64) [][]legendItem {
	const between = 18
	var rows [][]legendItem
	used := 0.0
	for _, item := range items {
		l := item.length(width)
		if len(rows) == 0 || used+between+l > width {
			rows = append(rows, nil)
			used = -between
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], item)
		used += between + l
	}
	return rows
}

func legendHeight(items []legendItem, width float64) float64 {
	if len(items) == 0 {
		return 0
	}
	return 18*float64(len(legendRows(items, width))) + gap
}

func (p painter) legend(items []legendItem, area rect) {
	y := area.y
	for _, row := range legendRows(items, area.w) {
		x := area.x
		for _, item := range row {
			mid := y + 8
			wide := item.indent() - 6
			if item.point {
				p.marker(item.marker, item.color, point{x + wide/2, mid}, markerSize)
			} else if item.width > 0 {
				p.stroke(item.color, item.width, item.dash, point{x, mid}, point{x + wide, mid})
				if item.marker >= 0 {
					p.marker(item.marker, item.color, point{x + wide/2, mid}, markerSize)
				}
			} else {
				p.patch(item.color, item.hatch, rect{x, mid - 6, wide, 12})
				p.outline(p.middle, rect{x, mid - 6, wide, 12})
			}
			p.text(x+item.indent(), mid+4, shorten(item.name, area.w-item.indent(), textSize, false), style{size: textSize})
			x += item.length(area.w) + 18
		}
		y += 18
	}
}

func (p painter) outline(c color.Color, r rect) {
	corners := r.corners()
	p.stroke(c, 1, nil, append(corners, corners[0])...)
}

const markerSize = 4 // half a marker's width

// marker draws the n-th marker shape.
func (p painter) marker(n int, c color.Color, at point, r float64) {
	polygon := func(points ...point) {
		for i := range points {
			points[i] = point{at.x + r*points[i].x, at.y + r*points[i].y}
		}
		p.fill(c, points...)
	}
	switch n % 6 {
	case 0:
		p.circle(c, at, r)
	case 1:
		polygon(point{-0.9, -0.9}, point{0.9, -0.9}, point{0.9, 0.9}, point{-0.9, 0.9})
	case 2:
		polygon(point{0, -1.2}, point{1.15, 0.85}, point{-1.15, 0.85})
	case 3:
		polygon(point{0, -1.3}, point{1.3, 0}, point{0, 1.3}, point{-1.3, 0})
	case 4:
		polygon(point{0, 1.2}, point{1.15, -0.85}, point{-1.15, -0.85})
	case 5:
		polygon(point{-1, -0.35}, point{-0.35, -0.35}, point{-0.35, -1}, point{0.35, -1}, point{0.35, -0.35}, point{1, -0.35},
			point{1, 0.35}, point{0.35, 0.35}, point{0.35, 1}, point{-0.35, 1}, point{-0.35, 0.35}, point{-1, 0.35})
	}
}

// plane is the field in which data is drawn between an x and a y axis.
type plane struct {
	rect
	x, y axis
}

func (pl plane) at(x, y float64) point {
	return point{pl.rect.x + pl.w*pl.x.at(x), pl.rect.y + pl.h*(1-pl.y.at(y))}
}

// indent is the room that the numbers of a y axis need beside it.
func (a axis) indent() float64 {
	widest := 0.0
	for _, l := range a.labels {
		widest = math.Max(widest, textWidth(l, textSize, false))
	}
	return widest + 8
}

// axes draws both axes with their names around what is left of area, and returns that.
//
// The name of the y axis stands above it, not turned by a quarter: it is read first, and without tilting one's head.
func (p painter) axes(area rect, x, y axis, xName, yName string) plane {
	pl := plane{rect: area, x: x, y: y}
	top := 4.0
	if yName != "" {
		p.text(area.x, area.y+textSize, shorten(yName, area.w, textSize, false), style{size: textSize, color: p.muted})
		top = textLine + 8
	}
	pl.rect.y += top
	pl.h -= top
	pl.h -= 4 + textLine // x labels
	if xName != "" {
		pl.h -= textLine + 2
	}
	indent := y.indent()
	pl.rect.x += indent
	pl.w -= indent
	// The last label is centred under the axis' end, and needs half its width.
	if n := len(x.labels); n > 0 {
		end := x.labels[n-1]
		if x.reverse {
			end = x.labels[0]
		}
		pl.w -= textWidth(end, textSize, false)/2 + 2
	}
	for i, v := range y.ticks {
		q := pl.at(x.lo, v).y
		p.stroke(p.faint, 1, nil, point{pl.rect.x, q}, point{pl.rect.x + pl.w, q})
		p.text(pl.rect.x-8, q+4, y.labels[i], style{size: textSize, color: p.muted, align: right})
	}
	bottom := pl.rect.y + pl.h
	p.stroke(p.middle, 1, nil, point{pl.rect.x, bottom}, point{pl.rect.x + pl.w, bottom})
	free := math.Inf(-1)
	for i := range x.ticks {
		if x.reverse {
			i = len(x.ticks) - 1 - i
		}
		q := pl.at(x.ticks[i], y.lo).x
		p.stroke(p.middle, 1, nil, point{q, bottom}, point{q, bottom + 4})
		half := textWidth(x.labels[i], textSize, false) / 2
		if q-half < free { // would touch the label before it
			continue
		}
		free = q + half + 6
		p.text(q, bottom+4+textSize, x.labels[i], style{size: textSize, color: p.muted, align: center})
	}
	if xName != "" {
		p.text(pl.rect.x+pl.w/2, bottom+4+textLine+textSize+2, shorten(xName, pl.w, textSize, false), style{size: textSize, color: p.muted, align: center})
	}
	return pl
}

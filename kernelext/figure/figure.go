// Package figure draws the figures of a notebook: lines with error bands, bars, histograms, heat maps and masks, grids of images, stacked areas, Pareto
// charts, filters, networks with their coupled channels, sweeps with a slider, and films.
//
// Each figure is a plain struct whose zero fields mean what their comments say. kernelext.Show displays it:
//
//	kernelext.Show(figure.Line{
//		Title: "Pruning LeNet-300-100", XLabel: "sparsity", YLabel: "test accuracy", XPercent: true, YPercent: true,
//		Series: []figure.Series{{Name: "iterative", X: sparsity, Y: mean, Low: low, High: high}},
//	})
//
// It comes as PNG (at twice the resolution), as SVG and as text, all of the same data: the text is what a terminal, a screen reader and
// a diff get. The same figure gives the same bytes. The ground is an opaque card, light or dark as the Theme says, so that a
// figure can be read in either; the colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell
// apart, and lines differ by marker or dash as well.
//
// Data that can't be drawn (lengths that differ, NaN, nothing at all) gives an *InputError that names the series.
package figure

import (
	"fmt"
	"strings"
)

// Figure is one of this package's figures. kernelext.Show displays it; Grid puts several side by side.
type Figure interface {
	// MIMEBundle returns the figure as "image/png" ([]byte), "image/svg+xml" and "text/plain" (strings), or an *InputError.
	MIMEBundle() (map[string]any, error)

	check() error                     // an *InputError if it can't be drawn
	frame() frame                     // what stands around the body
	naturalWidth() float64            // the width of the whole figure that suits it; px, as all lengths
	bodyHeight(width float64) float64 // the height that suits the body at that width
	drawBody(p painter, body rect)    // draws it
	describe() string                 // the body as text
	kind() string                     // "line chart", …
}

// InputError says why a figure can't be drawn.
type InputError struct {
	Figure  string // the kind of figure: "line chart"
	Series  string // the name of the series, image or part that is wrong; "" if it is the figure as a whole
	Problem string // what is wrong, what was expected
}

func (e *InputError) Error() string {
	if e.Series == "" {
		return fmt.Sprintf("%s: %s", e.Figure, e.Problem)
	}
	return fmt.Sprintf("%s, %s: %s", e.Figure, e.Series, e.Problem)
}

// frame is what all figures have in common.
type frame struct {
	title, caption string
	width, height  int // px; 0: chosen
}

const (
	defaultWidth = 640 // what a notebook's column and GitHub show unscaled
	margin       = 14  // around the card's content
	titleSize    = 15  // font sizes
	partSize     = 13  // of the title of a figure in a Grid
	textSize     = 12
	textLine     = 16 // line height
	gap          = 6  // between parts
	resolution   = 2  // PNG pixels for each px
	maxSide      = 4000
)

// cardWidth and cardHeight are the whole figure's size.
func cardWidth(f Figure) float64 {
	if w := f.frame().width; w > 0 {
		return float64(w)
	}
	return f.naturalWidth()
}

func cardHeight(f Figure) float64 {
	if h := f.frame().height; h > 0 {
		return float64(h)
	}
	width := cardWidth(f) - 2*margin
	return 2*margin + blockHeight(f, width, titleSize)
}

// blockHeight is the height of title, body and caption together when the body has what suits it.
func blockHeight(f Figure, width, size float64) float64 {
	return f.bodyHeight(width) + surroundings(f.frame(), width, size)
}

// titleLine is the line height of a title.
func titleLine(size float64) float64 { return size + 5 }

// surroundings is the height of title and caption, the title in that font size.
func surroundings(f frame, width, size float64) float64 {
	h := 0.0
	if f.title != "" {
		h += titleLine(size)*float64(len(wrap(f.title, width, size, true))) + gap
	}
	if f.caption != "" {
		h += textLine*float64(len(wrap(f.caption, width, textSize, false))) + gap
	}
	return h
}

// drawBlock draws title, body and caption into area, the body taking what the others leave.
func drawBlock(p painter, f Figure, area rect, size float64) {
	fr := f.frame()
	body := area
	if fr.title != "" {
		for _, line := range wrap(fr.title, area.w, size, true) {
			p.text(area.x, body.y+size, line, style{size: size, bold: true})
			body.y += titleLine(size)
		}
		body.y += gap
	}
	body.h = area.h - surroundings(fr, area.w, size)
	f.drawBody(p, body)
	if fr.caption != "" {
		y := body.y + body.h + gap
		for _, line := range wrap(fr.caption, area.w, textSize, false) {
			p.text(area.x, y+textSize, line, style{size: textSize, color: p.muted})
			y += textLine
		}
	}
}

func drawCard(p painter, f Figure, w, h float64) {
	p.fill(p.border, rect{0, 0, w, h}.corners()...)
	p.fill(p.card, rect{1, 1, w - 2, h - 2}.corners()...)
	drawBlock(p, f, rect{margin, margin, w - 2*margin, h - 2*margin}, titleSize)
}

// bundle renders f in all three forms.
func bundle(f Figure) (forms map[string]any, err error) {
	defer undrawable(f, &err)
	if err := check(f); err != nil {
		return nil, err
	}
	colors, err := chosenLook(f)
	if err != nil {
		return nil, err
	}
	pngFile, err := drawPNG(f, colors)
	if err != nil {
		return nil, err
	}
	return map[string]any{"image/png": pngFile, "image/svg+xml": drawSVG(f, colors), "text/plain": text(f)}, nil
}

func drawPNG(f Figure, colors *look) ([]byte, error) {
	w, h := cardWidth(f), cardHeight(f)
	pixels := newPNG(w, h, colors.card)
	drawCard(painter{pixels, colors}, f, w, h)
	return pixels.encode()
}

func drawSVG(f Figure, colors *look) string {
	w, h := cardWidth(f), cardHeight(f)
	name := f.frame().title
	if name == "" {
		name = f.kind()
	}
	svg := newSVG(w, h, name)
	drawCard(painter{svg, colors}, f, w, h)
	return svg.document()
}

// SVG returns a figure as SVG and as text, or an *InputError. It leaves out the PNG, which takes most of the time: for what is redrawn while one looks on.
func SVG(f Figure) (svg, plain string, err error) {
	defer undrawable(f, &err)
	if err := check(f); err != nil {
		return "", "", err
	}
	colors, err := chosenLook(f)
	if err != nil {
		return "", "", err
	}
	return drawSVG(f, colors), text(f), nil
}

// undrawable makes an error of a panic, which is how the drawing library says that it can't go on.
func undrawable(f Figure, err *error) {
	if r := recover(); r != nil {
		*err = &InputError{Figure: f.kind(), Problem: fmt.Sprintf("it can't be drawn: %v", r)}
	}
}

// metadata gives the PNG's size in px: it has more pixels than that.
func metadata(f Figure) map[string]any {
	return map[string]any{"image/png": map[string]any{"width": int(cardWidth(f)), "height": int(cardHeight(f))}}
}

// check looks at what all figures have in common, and then at the figure's own data.
func check(f Figure) error {
	fr := f.frame()
	if fr.width < 0 || fr.height < 0 || fr.width > maxSide || fr.height > maxSide {
		return &InputError{Figure: f.kind(), Problem: fmt.Sprintf("its size is %d × %d px; expected 0 (chosen) to %d", fr.width, fr.height, maxSide)}
	}
	if err := f.check(); err != nil {
		return err
	}
	// Too small a figure would have negative room for its data.
	const leastWidth, leastBody = 160, 60
	w := cardWidth(f)
	if least := 2*margin + surroundings(fr, w-2*margin, titleSize) + leastBody; w < leastWidth || fr.height > 0 && float64(fr.height) < least {
		return &InputError{Figure: f.kind(), Problem: fmt.Sprintf("its size is %.0f × %.0f px, too small to draw in; expected at least %d × %.0f, or 0 to have it chosen",
			w, cardHeight(f), leastWidth, least)}
	}
	return nil
}

// text is the whole figure as text.
func text(f Figure) string {
	var b strings.Builder
	fr := f.frame()
	if fr.title != "" {
		fmt.Fprintf(&b, "%s\n", fr.title)
	}
	fmt.Fprintf(&b, "[%s]\n%s", f.kind(), f.describe())
	if fr.caption != "" {
		fmt.Fprintf(&b, "%s\n", fr.caption)
	}
	return strings.TrimRight(b.String(), "\n")
}

package figure

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Grid puts figures side by side on one card, so that they can be compared.
type Grid struct {
	Title   string
	Caption string
	Figures []Figure // their Width and Height are not used
	Cols    int      // figures in a row; 0: 2
	Width   int      // px; 0: 460 for each column
}

// MIMEBundle returns the figures as one PNG, SVG and text.
func (g Grid) MIMEBundle() (map[string]any, error) { return bundle(g) }

// MIMEMetadata says at which size the PNG is to be shown.
func (g Grid) MIMEMetadata() map[string]any { return metadata(g) }

func (g Grid) kind() string { return "grid of figures" }

func (g Grid) frame() frame { return frame{title: g.Title, caption: g.Caption, width: g.Width} }

const (
	gridGap    = 28
	gridColumn = 420 // two fit the column of a notebook, in which JupyterLab does not scale SVG down
)

func (g Grid) cols() int {
	cols := g.Cols
	if cols == 0 {
		cols = 2
	}
	return min(cols, len(g.Figures))
}

func (g Grid) naturalWidth() float64 { return float64(gridColumn * g.cols()) }

func (g Grid) check() error {
	if len(g.Figures) == 0 {
		return &InputError{Figure: g.kind(), Problem: "it has no figures; expected at least one"}
	}
	if g.Cols < 0 {
		return &InputError{Figure: g.kind(), Problem: fmt.Sprintf("it is to have %d columns; expected a number above 0, or 0 for 2", g.Cols)}
	}
	for i, f := range g.Figures {
		if f == nil {
			return &InputError{Figure: g.kind(), Series: fmt.Sprintf("figure %d", i), Problem: "it is nil"}
		}
		if err := f.check(); err != nil {
			var e *InputError
			if errors.As(err, &e) {
				return &InputError{Figure: fmt.Sprintf("%s %d of the grid", e.Figure, i), Series: e.Series, Problem: e.Problem}
			}
			return err
		}
	}
	return nil
}

func (g Grid) columnWidth(width float64) float64 {
	return math.Floor((width - gridGap*float64(g.cols()-1)) / float64(g.cols()))
}

// rowHeights are the rows' heights when each figure has what suits it.
func (g Grid) rowHeights(width float64) []float64 {
	var heights []float64
	for i, f := range g.Figures {
		if i%g.cols() == 0 {
			heights = append(heights, 0)
		}
		last := len(heights) - 1
		heights[last] = math.Max(heights[last], blockHeight(f, g.columnWidth(width), partSize))
	}
	return heights
}

func (g Grid) bodyHeight(width float64) float64 {
	sum := -float64(gridGap)
	for _, h := range g.rowHeights(width) {
		sum += h + gridGap
	}
	return sum
}

func (g Grid) drawBody(p painter, body rect) {
	w := g.columnWidth(body.w)
	y := body.y
	for row, h := range g.rowHeights(body.w) {
		for col := range g.cols() {
			if i := row*g.cols() + col; i < len(g.Figures) {
				drawBlock(p, g.Figures[i], rect{body.x + float64(col)*(w+gridGap), y, w, h}, partSize)
			}
		}
		y += h + gridGap
	}
}

func (g Grid) describe() string {
	var parts []string
	for _, f := range g.Figures {
		parts = append(parts, text(f)+"\n")
	}
	return strings.Join(parts, "\n")
}

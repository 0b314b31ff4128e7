package figure

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Film plays figures one after the other: how the weights of a network move between its layers, or what a mask looks like after each epoch of a training. The
// SVG plays by itself, without a script: three times, and again at a click. Below what plays, some of the figures stand side by side as a strip, which
// says the same where nothing moves; the strip alone is also the PNG and the text, and so what GitHub and paper show. A viewer that removes the animation leaves
// the last figure above the strip.
//
// The figures should have the same axes, with limits that are set, or the axes will jump.
type Film struct {
	Title, Caption string
	Name           string // what goes on, before each label: "epoch"
	Stops          []Stop
	Seconds        float64 // that each figure is shown; 0: 0.4
	Strip          int     // figures in the strip; 0: 6, or all where there are fewer
	Cols           int     // figures in a row of the strip; 0: 3
}

const (
	filmStrip   = 6
	filmRounds  = 3
	filmHold    = 4   // how many times as long the last figure is shown
	filmWidth   = 600 // px at most, of what plays
	filmSeconds = 0.4
)

// MIMEBundle returns the figures as an SVG that plays them above a strip of some, and the strip as PNG and text.
func (f Film) MIMEBundle() (map[string]any, error) {
	forms, err := bundle(f)
	if err != nil {
		return nil, err
	}
	if forms["image/svg+xml"], _, err = SVG(screen{f}); err != nil {
		return nil, err
	}
	return forms, nil
}

// MIMEMetadata says at which size the PNG is to be shown.
func (f Film) MIMEMetadata() map[string]any { return metadata(f) }

func (f Film) kind() string { return "film" }

func (f Film) check() error {
	wrong := func(format string, args ...any) error {
		return &InputError{Figure: f.kind(), Problem: fmt.Sprintf(format, args...)}
	}
	if !(f.Seconds >= 0 && f.Seconds <= 60) { // NaN too
		return wrong("each figure is to be shown for %v seconds; expected up to 60, or 0 for %v", f.Seconds, filmSeconds)
	}
	if f.Strip < 0 || f.Strip == 1 {
		return wrong("its strip is to have %d figures; expected 2 or more, or 0 for %d", f.Strip, filmStrip)
	}
	err := f.sweep().check()
	var e *InputError
	if errors.As(err, &e) {
		return &InputError{Figure: f.kind(), Series: e.Series, Problem: e.Problem}
	}
	return err
}

// sweep is the film as what it has in common with a slider.
func (f Film) sweep() Sweep {
	return Sweep{Title: f.Title, Caption: f.Caption, Name: f.Name, Stops: f.Stops, Cols: f.Cols}
}

// shown are the figures in the strip, evenly spread, the first and the last among them.
func (f Film) shown() []int {
	n := f.Strip
	if n == 0 {
		n = filmStrip
	}
	return thin(len(f.Stops), n)
}

func (f Film) strip() Grid {
	g := Grid{Cols: f.Cols}
	if g.Cols == 0 {
		g.Cols = min(3, len(f.Stops))
	}
	for _, i := range f.shown() {
		g.Figures = append(g.Figures, f.still(i))
	}
	return g
}

// still is a figure with its label as title.
func (f Film) still(i int) Figure { return retitled{f.Stops[i].Figure, f.sweep().label(i)} }

func (f Film) frame() frame { return frame{title: f.Title, caption: f.Caption} }

func (f Film) naturalWidth() float64 { return math.Min(maxSide, 320*float64(f.strip().cols())) }

func (f Film) bodyHeight(width float64) float64 { return f.strip().bodyHeight(width) }

func (f Film) drawBody(p painter, body rect) { f.strip().drawBody(p, body) }

func (f Film) describe() string {
	var b strings.Builder
	shown := f.shown()
	fmt.Fprintf(&b, "%d figures", len(f.Stops))
	if len(shown) < len(f.Stops) {
		fmt.Fprintf(&b, ", %d of them here", len(shown))
	}
	b.WriteString("\n")
	for _, i := range shown {
		fmt.Fprintf(&b, "\n%s\n[%s]\n%s", f.sweep().label(i), f.Stops[i].Figure.kind(), f.Stops[i].Figure.describe())
	}
	return b.String()
}

// screen is the film as it plays, above its strip.
type screen struct{ Film }

func (s screen) size(width float64) (w, h float64) {
	w = math.Min(width, filmWidth)
	for i := range s.Stops {
		h = math.Max(h, blockHeight(s.still(i), w, partSize))
	}
	return w, h
}

func (s screen) bodyHeight(width float64) float64 {
	_, h := s.size(width)
	return h + gridGap + s.Film.bodyHeight(width)
}

func (s screen) drawBody(p painter, body rect) {
	w, h := s.size(body.w)
	stage := rect{body.x + (body.w-w)/2, body.y, w, h}
	svg, plays := p.on.(*svgSurface)
	if plays {
		fmt.Fprintf(&svg.b, "<g id=\"%s\" cursor=\"pointer\">\n<title>Plays %d times; click to play it again</title>\n", s.id(), filmRounds)
		p.fill(p.card, stage.corners()...) // takes the click
	}
	last := len(s.Stops) - 1
	for i := range s.Stops {
		switch {
		case plays:
			hidden := ""
			if i < last {
				hidden = ` visibility="hidden"`
			}
			fmt.Fprintf(&svg.b, "<g%s>\n%s\n", hidden, s.animation(i))
			drawBlock(p, s.still(i), stage, partSize)
			svg.b.WriteString("</g>\n")
		case i == last:
			drawBlock(p, s.still(i), stage, partSize)
		}
	}
	if plays {
		svg.b.WriteString("</g>\n")
	}
	s.Film.drawBody(p, rect{body.x, body.y + h + gridGap, body.w, body.h - h - gridGap})
}

// animation makes a figure visible while it is its turn. It is SMIL and not CSS, since a style would hold for the whole page, and is what sanitisers remove first.
func (s screen) animation(i int) string {
	n := len(s.Stops)
	seconds := s.Seconds
	if seconds == 0 {
		seconds = filmSeconds
	}
	turns := float64(n - 1 + filmHold)
	from, to := moment(float64(i)/turns), moment(float64(i+1)/turns)
	values, times := "hidden;visible;hidden", "0;"+from+";"+to
	switch i {
	case 0:
		values, times = "visible;hidden", "0;"+to
	case n - 1:
		values, times = "hidden;visible", "0;"+from
	}
	return fmt.Sprintf(`<animate attributeName="visibility" begin="0s;%s.click" dur="%ss" repeatCount="%d" calcMode="discrete" values="%s" keyTimes="%s"/>`,
		s.id(), coordinate(seconds*turns), filmRounds, values, times)
}

// moment writes a share of the time more exactly than lengths need.
func moment(x float64) string { return trimZeros(fmt.Sprintf("%.4f", x)) }

// id tells the film from others on the page.
func (s screen) id() string {
	sum := sha256.Sum256([]byte(text(s.Film)))
	return "film-" + hex.EncodeToString(sum[:6])
}

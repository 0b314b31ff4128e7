package figure

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"strings"
)

// Stop is one position of a Sweep's slider.
type Stop struct {
	Label  string // what the swept quantity is there: "90%"
	Figure Figure
}

// Sweep lets the reader move a slider over figures that were computed before: how a network's accuracy, masks or weights change from one sparsity to
// the next. It is one piece of HTML with all its data inside, which works in a notebook, without a kernel too, and in exported HTML. Where no scripts
// run, as on GitHub, all figures stand side by side as a picture; that picture is also its PNG, SVG and text.
type Sweep struct {
	Title, Caption string
	Name           string // what is swept, beside the slider: "sparsity"
	Stops          []Stop
	Start          int // which is shown first
	Cols           int // figures in a row of the picture; 0: 3
}

const (
	maxStops  = 60
	mostSmall = 12 // figures in the picture
	mostHTML  = 4 << 20
)

//go:embed sweep.js
var sweepScript string

// MIMEBundle returns the figures as HTML with a slider, and all of them as PNG, SVG and text.
func (s Sweep) MIMEBundle() (map[string]any, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	small := s.multiples()
	forms, err := bundle(small)
	if err != nil {
		return nil, s.wrong("", "%v", err)
	}
	live, err := s.html(forms["image/png"].([]byte), small)
	if err != nil {
		return nil, err
	}
	forms["text/html"] = live
	forms["text/plain"] = s.describe()
	return forms, nil
}

// MIMEMetadata says at which size the PNG is to be shown.
func (s Sweep) MIMEMetadata() map[string]any {
	if s.check() != nil {
		return nil
	}
	return metadata(s.multiples())
}

func (s Sweep) wrong(stop, format string, args ...any) error {
	return &InputError{Figure: "sweep", Series: stop, Problem: fmt.Sprintf(format, args...)}
}

func (s Sweep) check() error {
	switch n := len(s.Stops); {
	case n < 2 || n > maxStops:
		return s.wrong("", "it has %d stops; expected 2 to %d", n, maxStops)
	case s.Start < 0 || s.Start >= n:
		return s.wrong("", "it is to start at stop %d of %d; expected 0 to %d", s.Start, n, n-1)
	case s.Cols < 0:
		return s.wrong("", "it is to have %d columns; expected a number above 0, or 0 for 3", s.Cols)
	}
	for i, stop := range s.Stops {
		name := fmt.Sprintf("stop %d (%q)", i, stop.Label)
		switch {
		case stop.Label == "":
			return s.wrong(name, "it has no label; expected what tells it from the others")
		case stop.Figure == nil:
			return s.wrong(name, "it has no figure")
		}
		if err := checkSafely(stop.Figure); err != nil {
			return s.wrong(name, "%v", err)
		}
	}
	return nil
}

// checkSafely is check for a figure that may be a nil pointer.
func checkSafely(f Figure) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("it can't be drawn: it is a nil pointer")
		}
	}()
	return check(f)
}

// retitled is a figure with another title and without a caption.
type retitled struct {
	Figure
	title string
}

func (r retitled) frame() frame {
	f := r.Figure.frame()
	return frame{title: r.title, width: f.width, height: f.height}
}

// multiples are the figures side by side: all, or as many as can be looked at, evenly spread.
func (s Sweep) multiples() Grid {
	g := Grid{Title: s.Title, Caption: s.Caption, Cols: s.Cols}
	if g.Cols == 0 {
		g.Cols = min(3, len(s.Stops))
	}
	g.Width = min(maxSide, 320*g.Cols)
	shown := thin(len(s.Stops), mostSmall)
	for _, i := range shown {
		g.Figures = append(g.Figures, retitled{s.Stops[i].Figure, s.label(i)})
	}
	if len(shown) < len(s.Stops) {
		g.Caption = strings.TrimSpace(fmt.Sprintf("%s (%d of %d figures)", s.Caption, len(shown), len(s.Stops)))
	}
	return g
}

func (s Sweep) label(i int) string { return strings.TrimSpace(s.Name + " " + s.Stops[i].Label) }

func (s Sweep) html(png []byte, small Grid) (document string, err error) {
	defer undrawable(small, &err)
	colors, err := chosenLook(small)
	if err != nil {
		return "", err
	}
	data := struct {
		ID     string   `json:"id"`
		Title  string   `json:"title"`
		Name   string   `json:"name"`
		Labels []string `json:"labels"`
		Frames []string `json:"frames"`
		Note   string   `json:"note"`
		Start  int      `json:"start"`
	}{Title: clean(s.Title), Name: clean(s.Name), Note: clean(s.Caption), Start: s.Start}
	digest := sha256.New()
	size := len(png)
	for _, stop := range s.Stops {
		svg := drawSVG(stop.Figure, colors)
		digest.Write([]byte(svg))
		size += len(svg)
		data.Labels, data.Frames = append(data.Labels, clean(stop.Label)), append(data.Frames, svg)
	}
	if size > mostHTML {
		return "", s.wrong("", "its figures take %.1f MB; expected at most %d: use fewer stops or smaller figures", float64(size)/(1<<20), mostHTML>>20)
	}
	data.ID = hex.EncodeToString(digest.Sum(nil))[:16]
	inline, err := json.Marshal(data) // with <, > and & as escapes, so that nothing in it ends the script
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<div style="font-family:'Liberation Sans',Arial,Helvetica,sans-serif;font-size:14px">`+"\n")
	// What is inside is replaced where scripts run.
	fmt.Fprintf(&b, `<div data-espalier-sweep="%s"><img alt="%s" width="%.0f" src="data:image/png;base64,%s"></div>`+"\n",
		data.ID, html.EscapeString(clean(s.Title+": "+s.Name)), cardWidth(small), base64.StdEncoding.EncodeToString(png))
	fmt.Fprintf(&b, "</div>\n<script>\n%s(%s);\n</script>\n", strings.TrimSpace(sweepScript), inline)
	return b.String(), nil
}

func (s Sweep) describe() string {
	var b strings.Builder
	if s.Title != "" {
		fmt.Fprintf(&b, "%s\n", s.Title)
	}
	fmt.Fprintf(&b, "[sweep over %d figures]\n", len(s.Stops))
	for i, stop := range s.Stops {
		fmt.Fprintf(&b, "\n%s\n[%s]\n%s", s.label(i), stop.Figure.kind(), stop.Figure.describe())
	}
	if s.Caption != "" {
		fmt.Fprintf(&b, "\n%s\n", s.Caption)
	}
	return strings.TrimRight(b.String(), "\n")
}

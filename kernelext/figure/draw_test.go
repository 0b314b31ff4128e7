package figure

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// recorder is a surface that remembers what is drawn in each colour.
type recorder struct {
	fills, strokes map[color.Color][][]point
	texts          []string
	at             map[string]point // where the last text of these words stands
}

func (r *recorder) fill(c color.Color, polygon []point) { r.fills[c] = append(r.fills[c], polygon) }
func (r *recorder) circle(color.Color, point, float64)  {}
func (r *recorder) text(at point, s string, _ style)    { r.texts, r.at[s] = append(r.texts, s), at }
func (r *recorder) image(float64, float64, image.Image) {}
func (r *recorder) stroke(c color.Color, _ float64, _ []float64, line []point) {
	r.strokes[c] = append(r.strokes[c], line)
}

func record(t *testing.T, f Figure) *recorder {
	t.Helper()
	if err := check(f); err != nil {
		t.Fatal(err)
	}
	r := &recorder{fills: map[color.Color][][]point{}, strokes: map[color.Color][][]point{}, at: map[string]point{}}
	drawCard(painter{r, &light}, f, cardWidth(f), cardHeight(f))
	return r
}

// extent is the smallest box around points.
func extent(points []point) (x, y span) {
	x, y = newSpan(), newSpan()
	for _, p := range points {
		x.add(p.x)
		y.add(p.y)
	}
	return x, y
}

// relative maps points into the box of the first and the last: what is left is their shape, y up.
func relative(points []point) (xs, ys []float64) {
	a, b := points[0], points[len(points)-1]
	for _, p := range points {
		xs, ys = append(xs, (p.x-a.x)/(b.x-a.x)), append(ys, (p.y-a.y)/(b.y-a.y))
	}
	return xs, ys
}

var close6 = cmpopts.EquateApprox(0, 1e-6)

func TestLineIsWhereItsDataIs(t *testing.T) {
	s := Series{X: []float64{1, 10, 100}, Y: []float64{1, 3, 5}}
	for _, c := range []struct {
		name   string
		line   Line
		xs, ys []float64
		right  bool // the last point is right of the first
	}{
		{"linear", Line{Series: []Series{s}}, []float64{0, 1. / 11, 1}, []float64{0, 0.5, 1}, true},
		{"logarithmic x", Line{Series: []Series{s}, LogX: true}, []float64{0, 0.5, 1}, []float64{0, 0.5, 1}, true},
		{"logarithmic y", Line{Series: []Series{s}, LogY: true}, []float64{0, 1. / 11, 1}, []float64{0, math.Log(3) / math.Log(5), 1}, true},
		{"reversed x", Line{Series: []Series{s}, ReverseX: true}, []float64{0, 1. / 11, 1}, []float64{0, 0.5, 1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			drawn := record(t, c.line).strokes[light.palette[0]]
			if len(drawn) != 1 || len(drawn[0]) != 3 {
				t.Fatalf("drawn as %v, want one line through three points", drawn)
			}
			xs, ys := relative(drawn[0])
			if diff := cmp.Diff(c.xs, xs, close6); diff != "" {
				t.Errorf("x (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.ys, ys, close6); diff != "" {
				t.Errorf("y (-want +got):\n%s", diff)
			}
			if first, last := drawn[0][0], drawn[0][2]; last.y >= first.y || (last.x > first.x) != c.right {
				t.Errorf("from %v to %v; want the larger y higher up, to the right: %v", first, last, c.right)
			}
		})
	}
}

func TestLineIsCutAtItsLimits(t *testing.T) {
	// From 0 to 4 over two steps, of which 1 … 3 is shown: x from 0.5 to 1.5 of 0 … 2.
	r := record(t, Line{Series: []Series{{Y: []float64{0, 2, 4}}}, YMin: 1, YMax: 3, XMin: 0, XMax: 2})
	whole := record(t, Line{Series: []Series{{Y: []float64{1, 1, 1}}}, YMin: 1, YMax: 3, XMin: 0, XMax: 2}).strokes[light.palette[0]][0]
	x, _ := extent(r.strokes[light.palette[0]][0])
	all, _ := extent(whole)
	got := []float64{(x.lo - all.lo) / (all.hi - all.lo), (x.hi - all.lo) / (all.hi - all.lo)}
	if diff := cmp.Diff([]float64{0.25, 0.75}, got, close6); diff != "" {
		t.Errorf("share of the x axis (-want +got):\n%s", diff)
	}
}

// The axis reaches to a level that lies outside of the data.
func TestLevelIsWithinTheAxis(t *testing.T) {
	r := record(t, Line{Series: []Series{{Y: []float64{0, 1}}}, HLines: []HLine{{Y: 10}}})
	if n := len(r.strokes[light.muted]); n != 1 {
		t.Errorf("the level is drawn %d times, want once", n)
	}
}

func TestBandIsAroundItsLine(t *testing.T) {
	r := record(t, Line{Series: []Series{{Y: []float64{2, 2}, Low: []float64{1, 0}, High: []float64{3, 4}}}})
	band := r.fills[withAlpha(light.palette[0], 0.18)]
	if len(band) != 1 || len(band[0]) < 4 {
		t.Fatalf("the band is drawn as %v, want one polygon of four corners", band)
	}
	line := r.strokes[light.palette[0]][0]
	heights := map[float64]span{}
	for _, p := range band[0] {
		s, ok := heights[math.Round(p.x)]
		if !ok {
			s = newSpan()
		}
		s.add(p.y - line[0].y)
		heights[math.Round(p.x)] = s
	}
	left, right := heights[math.Round(line[0].x)], heights[math.Round(line[1].x)]
	got := []float64{left.lo / left.hi, right.lo / right.hi, right.hi / left.hi}
	if diff := cmp.Diff([]float64{-1, -1, 2}, got, close6); diff != "" {
		t.Errorf("ratios of up to down at both ends, and of right to left (-want +got):\n%s", diff)
	}
}

func TestBarsAreAsHighAsTheirValues(t *testing.T) {
	r := record(t, Bar{Labels: []string{"a", "b", "c"}, Series: []Series{{Y: []float64{1, 2, -1}}, {Y: []float64{3, 0.5, 2}}}})
	unit := 0.0
	for series, want := range [][]float64{{1, 2, -1}, {3, 0.5, 2}} {
		bars := r.fills[light.palette[series]]
		if len(bars) != 4 {
			t.Fatalf("series %d has %d boxes, want one in the legend and 3 bars", series, len(bars))
		}
		bars = bars[1:]
		before := math.Inf(-1)
		for i, bar := range bars {
			x, y := extent(bar)
			height := y.hi - y.lo
			if unit == 0 {
				unit = height
			}
			if math.Abs(height-math.Abs(want[i])*unit) > 1e-6 {
				t.Errorf("bar %d of series %d is %v times as high as the first, want %v", i, series, height/unit, want[i])
			}
			if x.lo <= before {
				t.Errorf("bar %d of series %d is not right of the one before", i, series)
			}
			before = x.hi
		}
	}
	_, up := extent(r.fills[light.palette[0]][1])
	_, down := extent(r.fills[light.palette[0]][3])
	if math.Abs(up.hi-down.lo) > 1e-6 {
		t.Errorf("the bars of 1 and -1 meet at %v and %v, want them to share the base line", up.hi, down.lo)
	}
}

func TestErrorBarsReachFromLowToHigh(t *testing.T) {
	r := record(t, Bar{Labels: []string{"a"}, Series: []Series{{Y: []float64{4}, Low: []float64{3}, High: []float64{6}}}})
	_, bar := extent(r.fills[light.palette[0]][0])
	_, reach := extent(r.strokes[light.ink][0])
	unit := (bar.hi - bar.lo) / 4
	if diff := cmp.Diff([]float64{3, 6}, []float64{(bar.hi - reach.hi) / unit, (bar.hi - reach.lo) / unit}, close6); diff != "" {
		t.Errorf("ends of the error bar (-want +got):\n%s", diff)
	}
}

// The error bars of an option end where its data says, on both sides of its point.
func TestParetoErrorBarsReachFromLowToHigh(t *testing.T) {
	r := record(t, Pareto{Options: []Option{{X: 2, Y: 2, XLow: 1.5, XHigh: 4, YLow: 1, YHigh: 4}}})
	bars := r.strokes[light.palette[0]] // of y and of x: the bar and its two caps
	if len(bars) != 6 {
		t.Fatalf("%d strokes, want 6", len(bars))
	}
	x, _ := extent(bars[3])
	_, y := extent(bars[0])
	at := point{bars[0][0].x, bars[3][0].y}
	if diff := cmp.Diff([]float64{4, 2}, []float64{(x.hi - at.x) / (at.x - x.lo), (at.y - y.lo) / (y.hi - at.y)}, close6); diff != "" {
		t.Errorf("ratios of right to left and of up to down (-want +got):\n%s", diff)
	}
}

// The name of the axis that goes right stands below everything, that of the one that goes up above it.
func TestNamesStandAtTheirAxes(t *testing.T) {
	y := []float64{1, 2, 3}
	for name, f := range map[string]Figure{
		"line":      Line{XLabel: "right", YLabel: "up", Series: []Series{{Y: y}}},
		"area":      Area{XLabel: "right", YLabel: "up", Series: []Series{{Y: y}}},
		"bar":       Bar{XLabel: "right", YLabel: "up", Labels: []string{"a", "b", "c"}, Series: []Series{{Y: y}}},
		"histogram": Histogram{XLabel: "right", YLabel: "up", Samples: []Sample{{"", y}}},
		"pareto":    Pareto{XLabel: "right", YLabel: "up", Options: []Option{{X: 1, Y: 2}}},
	} {
		r := record(t, f)
		right, up := r.at["right"].y, r.at["up"].y
		for text, at := range r.at {
			if text != "right" && at.y >= right || text != "up" && text != "best for its cost" && at.y <= up {
				t.Errorf("%s: %q stands at a height of %g, not between the names of the axes at %g and %g", name, text, at.y, right, up)
			}
		}
		text, err := f.MIMEBundle()
		if err != nil {
			t.Fatal(err)
		}
		if plain := text["text/plain"].(string); !strings.Contains(plain, "right") || !strings.Contains(plain, "y: up\n") {
			t.Errorf("%s: the text does not name the axes:\n%s", name, plain)
		}
	}
}

// A value is read at its option: the labels of the axes stand where those values are, as fractions of one hundred where they are.
func TestParetoIsReadAtItsAxes(t *testing.T) {
	f := Pareto{YPercent: true, Options: []Option{{X: 10, Y: 0.2}, {X: 30, Y: 0.8}, {X: 30, Y: 0.4}}}
	for _, c := range []struct {
		moreX, lessY bool
		front        []int // by x
		direction    string
	}{
		{false, false, []int{0, 1}, "better: less x, more y"}, {true, false, []int{1}, "better: more x, more y"},
		{false, true, []int{0}, "better: less x, less y"}, {true, true, []int{0, 2}, "better: more x, less y"},
	} {
		f.MoreX, f.LessY = c.moreX, c.lessY
		r := record(t, f)
		lines := r.strokes[light.muted]
		front := lines[len(lines)-1] // behind that of the legend
		if c.moreX {
			front = front[1:] // from the axis
		} else {
			front = front[:len(front)-1] // to the end
		}
		for i, option := range c.front { // between two of them is the corner of a step
			o := f.Options[option]
			across, up := fmt.Sprint(o.X), fmt.Sprintf("%g%%", 100*o.Y)
			middle := r.at[across].x + textWidth(across, textSize, false)/2
			if diff := cmp.Diff([]float64{middle, r.at[up].y - 4}, []float64{front[2*i].x, front[2*i].y}, close6); diff != "" {
				t.Errorf("%s: option %d of the front (-where the axes say +where it is):\n%s", c.direction, option, diff)
			}
		}
		for i := 2; i < len(front); i += 2 { // until the next one is paid for, the one before is what there is
			want := point{front[i].x, front[i-2].y}
			if c.moreX {
				want = point{front[i-2].x, front[i].y}
			}
			if front[i-1] != want {
				t.Errorf("%s: the corner before point %d is at %v, want %v", c.direction, i, front[i-1], want)
			}
		}
		if len(front) != 2*len(c.front)-1 {
			t.Errorf("%s: a front of %d points, want %d options with a corner between", c.direction, len(front), len(c.front))
		}
		if text := f.describe(); !strings.Contains(text, c.direction+"\n") {
			t.Errorf("want %q in\n%s", c.direction, text)
		}
	}
}

func TestHistogramIsAsHighAsItsCounts(t *testing.T) {
	r := record(t, Histogram{Bins: 4, Samples: []Sample{{"", []float64{0, 1, 1.5, 1.7, 4}}}}) // 1, 3, 0, 1
	shapes := r.fills[withAlpha(light.palette[0], histogramAlpha)]
	if len(shapes) != 2 {
		t.Fatalf("%d shapes, want two with an empty bin between", len(shapes))
	}
	_, first := extent(shapes[0])
	_, second := extent(shapes[1])
	if ratio := (first.hi - first.lo) / (second.hi - second.lo); math.Abs(ratio-3) > 1e-6 {
		t.Errorf("the tallest bin is %v times the last, want 3", ratio)
	}
}

// A single value can be seen beside many where counts are logarithmic.
func TestOneValueIsSeenBesideMany(t *testing.T) {
	r := record(t, Histogram{Samples: []Sample{{"", append(make([]float64, 1000), 10)}}, Bins: 10, LogY: true})
	shapes := r.fills[withAlpha(light.palette[0], histogramAlpha)]
	if len(shapes) != 2 {
		t.Fatalf("%d shapes, want one for the many and one for the single value", len(shapes))
	}
	for i, shape := range shapes {
		if _, y := extent(shape); y.hi-y.lo < 1 {
			t.Errorf("shape %d is %v px high, want at least 1", i, y.hi-y.lo)
		}
	}
}

// A grid shows all of its figures' texts, each figure in its own column.
func TestGridDrawsAllFigures(t *testing.T) {
	one := func(title string) Figure {
		return Line{Title: title, Series: []Series{{Name: title + " series", Y: []float64{1, 2}}}}
	}
	r := record(t, Grid{Title: "both", Caption: "below", Figures: []Figure{one("left"), one("right"), one("third")}})
	have := map[string]bool{}
	for _, s := range r.texts {
		have[s] = true
	}
	for _, want := range []string{"both", "below", "left", "left series", "right", "right series", "third", "third series"} {
		if !have[want] {
			t.Errorf("the text %q is missing", want)
		}
	}
	var boxes []span
	for _, line := range r.strokes[light.palette[0]] {
		if x, y := extent(line); y.hi > y.lo { // not the legend
			boxes = append(boxes, x)
		}
	}
	if len(boxes) != 3 || boxes[0].hi >= boxes[1].lo || math.Abs(boxes[0].lo-boxes[2].lo) > 1e-6 {
		t.Errorf("the lines lie at %v, want two side by side and the third below the first", boxes)
	}
}

// A value that holds until the next one goes straight on, and then up at once.
func TestSteps(t *testing.T) {
	r := record(t, Line{Series: []Series{{X: []float64{0, 10, 20}, Y: []float64{0, 1, 2}, Steps: true}}})
	xs, ys := relative(r.strokes[light.palette[0]][0])
	if diff := cmp.Diff([]float64{0, 0.5, 0.5, 1, 1}, xs, close6); diff != "" {
		t.Errorf("x (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]float64{0, 0, 0.5, 0.5, 1}, ys, close6); diff != "" {
		t.Errorf("y (-want +got):\n%s", diff)
	}
}

// Values between which no bin has room.
func TestHistogramOfAsGoodAsOneValue(t *testing.T) {
	for _, values := range [][]float64{{0, 5e-324}, {1e17}, {-1e90, -1e90}, {3, 3}} {
		if _, err := (Histogram{Samples: []Sample{{Values: values}}}).MIMEBundle(); err != nil {
			t.Errorf("%v: %v", values, err)
		}
	}
}

// writer is a surface that remembers from where to where texts reach.
type writer struct {
	*recorder
	lines []line
}

type line struct {
	text     string
	from, to float64 // x
	rotate   float64
}

func (w *writer) text(at point, s string, st style) {
	w.lines = append(w.lines, line{s, at.x, at.x + textWidth(s, st.size, st.bold)*math.Cos(st.rotate), st.rotate})
}

// No two labels of bars run into each other, however long or many they are.
func TestBarLabelsStayApart(t *testing.T) {
	long := strings.Repeat("layer with a long name ", 9)
	many := make([]string, 90)
	for i := range many {
		many[i] = fmt.Sprintf("layer %d", i)
	}
	for _, labels := range [][]string{{long, long, "layer"}, {"layer a", "layer b"}, many, {"layer a", long[:60], "layer c", long[:60], long[:60], "layer d"}} {
		f := Bar{Labels: labels, Series: []Series{{Y: make([]float64, len(labels))}}}
		w := &writer{recorder: &recorder{fills: map[color.Color][][]point{}, strokes: map[color.Color][][]point{}}}
		drawCard(painter{w, &light}, f, cardWidth(f), cardHeight(f))
		var last *line
		for i, l := range w.lines {
			if !strings.HasPrefix(l.text, "layer") {
				continue
			}
			switch {
			case last == nil:
			case l.rotate == 0 && l.from < last.to:
				t.Errorf("%d labels: %q begins at %.0f, before the end of the last, %.0f", len(labels), l.text, l.from, last.to)
			case l.rotate != 0 && (l.to-last.to)*math.Sin(l.rotate) < textSize-1:
				t.Errorf("%d labels: %q ends %.1f px behind the last, too few for its letters", len(labels), l.text, l.to-last.to)
			}
			last = &w.lines[i]
		}
		if last == nil {
			t.Errorf("%d labels: none is written", len(labels))
		}
	}
}

// A label that is wider than its group is written whole where its neighbours leave it the room.
func TestWideBarLabel(t *testing.T) {
	wide := "layers keep their number"
	labels := []string{"as published", "drops by momentum", wide, "grows at random", "grows at random, layers keep", "static"}
	f := Bar{Labels: labels, Series: []Series{{Y: make([]float64, len(labels))}}, Width: 900}
	w := &writer{recorder: &recorder{fills: map[color.Color][][]point{}, strokes: map[color.Color][][]point{}}}
	drawCard(painter{w, &light}, f, cardWidth(f), cardHeight(f))
	var written []string
	for _, l := range w.lines {
		written = append(written, l.text)
	}
	for _, l := range labels {
		if !slices.Contains(written, l) {
			t.Errorf("%q is not among the texts %q", l, written)
		}
	}
}

// Labels that are left empty, as between those of every fourth group, take none of the others' room.
func TestEmptyBarLabels(t *testing.T) {
	labels := make([]string, 48)
	for i := 3; i < len(labels); i += 4 {
		labels[i] = fmt.Sprint(i + 1)
	}
	f := Bar{Labels: labels, Series: []Series{{Y: make([]float64, len(labels))}}, Width: 400}
	w := &writer{recorder: &recorder{fills: map[color.Color][][]point{}, strokes: map[color.Color][][]point{}}}
	drawCard(painter{w, &light}, f, cardWidth(f), cardHeight(f))
	var written []string
	for _, l := range w.lines {
		if l.rotate != 0 {
			written = append(written, l.text)
		}
	}
	if diff := cmp.Diff(strings.Fields("4 8 12 16 20 24 28 32 36 40 44 48"), written); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCharactersThatTheFontLacks(t *testing.T) {
	if got := visible("π 日本é"); got != "π □□é" {
		t.Errorf("%q", got)
	}
}

package figure

import (
	"image/color"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAxisTicks(t *testing.T) {
	for _, c := range []struct {
		name   string
		lo, hi float64
		spec   axisSpec
		want   string // the labels
		from   float64
		to     float64
	}{
		{"fractions as percent", 0, 0.983, axisSpec{percent: true, slack: 1, count: 5}, "0% 20% 40% 60% 80% 100%", 0, 1},
		{"a narrow range", 0.972, 0.983, axisSpec{percent: true, slack: 1, count: 5}, "97.0% 97.5% 98.0% 98.5%", 0.97, 0.985},
		{"little slack", 0, 4300, axisSpec{slack: 0.06, count: 6}, "0 1,000 2,000 3,000 4,000", 0, 4300},
		{"enough slack", 0, 0.99, axisSpec{percent: true, slack: 0.06, count: 6}, "0% 20% 40% 60% 80% 100%", 0, 1},
		{"negative", -0.31, 0.28, axisSpec{slack: 1, count: 5}, "-0.4 -0.2 0 0.2 0.4", -0.4, 0.4},
		{"limits", 0, 1, axisSpec{percent: true, min: 0.9, max: 1, slack: 1, count: 5}, "90% 92% 94% 96% 98% 100%", 0.9, 1},
		{"millions", 0, 15_470_264, axisSpec{slack: 1, count: 5}, "0 5M 10M 15M 20M", 0, 20e6},
		{"billions", 0, 15.5e9, axisSpec{slack: 1, count: 5}, "0 5G 10G 15G 20G", 0, 20e9},
		{"small", 0, 4e-5, axisSpec{slack: 1, count: 5}, "0 1e-5 2e-5 3e-5 4e-5", 0, 4e-5},
		{"log, two decades", 0.01, 1, axisSpec{log: true, percent: true, count: 6}, "1% 2% 5% 10% 20% 50% 100%", 0.01, 1},
		{"log, more", 0.5, 266_200, axisSpec{log: true, count: 6}, "0.1 1 10 100 1,000 10,000 100,000 1M", 0.1, 1e6},
		{"log, tiny", 1e-6, 1e-3, axisSpec{log: true, count: 6}, "1e-6 1e-5 1e-4 0.001", 1e-6, 1e-3},
		// Where not all decades have a tick, the first has one.
		{"log, many decades", 1, 1e10, axisSpec{log: true, count: 5}, "1 100 10,000 1M 100M 10G", 1, 1e10},
		{"log, within a decade", 1, 2, axisSpec{log: true, min: 1.2, max: 1.9, count: 5}, "1.2 1.4 1.6 1.8", 1.2, 1.9},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAxis(c.lo, c.hi, c.spec)
			if diff := cmp.Diff(c.want, strings.Join(a.labels, " ")); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			if math.Abs(a.lo-c.from) > 1e-9*c.to || math.Abs(a.hi-c.to) > 1e-9*c.to {
				t.Errorf("reaches from %v to %v, want %v to %v", a.lo, a.hi, c.from, c.to)
			}
			if len(a.ticks) != len(a.labels) {
				t.Errorf("%d ticks and %d labels", len(a.ticks), len(a.labels))
			}
		})
	}
}

func TestAxisAt(t *testing.T) {
	linear, log := axis{lo: 10, hi: 20}, axis{lo: 0.01, hi: 1, log: true}
	reversed := log
	reversed.reverse = true
	for _, c := range []struct {
		a       axis
		v, want float64
	}{
		{linear, 10, 0}, {linear, 12.5, 0.25}, {linear, 20, 1}, {linear, 30, 2},
		{log, 0.01, 0}, {log, 0.1, 0.5}, {log, 1, 1},
		{reversed, 0.01, 1}, {reversed, 0.1, 0.5}, {reversed, 1, 0},
	} {
		if got := c.a.at(c.v); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%v stands at %v of %+v, want %v", c.v, got, c.a, c.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v       float64
		percent bool
		want    string
	}{
		{0, false, "0"}, {1234567, false, "1.235M"}, {138357544, false, "138.4M"}, {15470264320, false, "15.47G"}, {235200, false, "235,200"},
		{-1500, false, "-1,500"}, {0.12345, false, "0.1235"}, {1e-7, false, "1e-7"}, {2.5e15, false, "2.5e+15"},
		{0.983, true, "98.3%"}, {1, true, "100%"}, {0, true, "0%"}, {0.12345, true, "12.35%"}, {-0.00001, true, "0%"},
	} {
		if got := number(c.v, c.percent); got != c.want {
			t.Errorf("number(%v, %v) = %q, want %q", c.v, c.percent, got, c.want)
		}
	}
}

func TestNumberFormat(t *testing.T) {
	for _, c := range []struct {
		values  []float64
		percent bool
		want    string
	}{
		{[]float64{0.983, 0.91, 0.5}, true, "98.3% 91.0% 50.0%"},
		{[]float64{0.983, 0.981}, true, "98.30% 98.10%"},
		{[]float64{1, 0.5}, true, "100% 50%"},
		{[]float64{1000, 25}, false, "1,000 25"},
		{[]float64{1.5, -0.25}, false, "1.50 -0.25"},
		{[]float64{120.5, 3}, false, "120 3"},
		{[]float64{15_000_000, 1}, false, "15M 1"},
	} {
		format := numberFormat(c.values, c.percent)
		var got []string
		for _, v := range c.values {
			got = append(got, format(v))
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.values, diff)
		}
	}
}

func TestThin(t *testing.T) {
	for _, c := range []struct {
		n, most int
		want    []int
	}{
		{0, 3, []int{}}, {1, 3, []int{0}}, {3, 3, []int{0, 1, 2}}, {10, 4, []int{0, 3, 6, 9}}, {4300, 3, []int{0, 2149, 4299}}, {5, 1, []int{0}},
	} {
		if diff := cmp.Diff(c.want, thin(c.n, c.most)); diff != "" {
			t.Errorf("thin(%d, %d) (-want +got):\n%s", c.n, c.most, diff)
		}
	}
}

// The outline of a long line stays: in each column of pixels its ends, its lowest and its highest point.
func TestThinLine(t *testing.T) {
	var points []point
	for i := range 100_000 {
		points = append(points, point{float64(i) / 1000, math.Sin(float64(i))})
	}
	points[55_555].y = 9
	got := thinLine(points)
	if len(got) > 4*200+4 {
		t.Errorf("%d points are left, want at most 4 in each of 200 columns", len(got))
	}
	spans := func(points []point) map[float64]span {
		m := map[float64]span{}
		for _, q := range points {
			column := math.Floor(q.x * resolution)
			s, ok := m[column]
			if !ok {
				s = newSpan()
			}
			s.add(q.y)
			m[column] = s
		}
		return m
	}
	if diff := cmp.Diff(spans(points), spans(got), cmp.AllowUnexported(span{})); diff != "" {
		t.Errorf("what the columns span (-want +got):\n%s", diff)
	}
	if got[0] != points[0] || got[len(got)-1] != points[len(points)-1] {
		t.Error("an end of the line is gone")
	}
	points[0], points[99_999] = points[99_999], points[0]
	if got := thinLine(points); len(got) != len(points) {
		t.Errorf("a line that goes back and forth lost %d points", len(points)-len(got))
	}
}

func TestBins(t *testing.T) {
	for _, c := range []struct {
		name  string
		h     Histogram
		lo    float64
		width float64
		want  []int
	}{
		{"one side", Histogram{Bins: 4, Samples: []Sample{{"", []float64{0, 1, 1.5, 4}}}}, 0, 1, []int{1, 2, 0, 1}},
		{"around 0", Histogram{Bins: 5, Samples: []Sample{{"", []float64{-2, -0.4, 0, 0.4, 2}}}}, -2.5, 1, []int{1, 0, 3, 0, 1}},
		{"uneven around 0", Histogram{Bins: 5, Samples: []Sample{{"", []float64{-1, 0, 3}}}}, -1.5, 1, []int{1, 1, 0, 0, 1}},
		{"limits", Histogram{Bins: 2, XMin: -1, XMax: 1, Samples: []Sample{{"", []float64{-3, -1, 0, 1, 2}}}}, -1, 1, []int{1, 2}},
		{"one value", Histogram{Bins: 1, Samples: []Sample{{"", []float64{7, 7}}}}, 6.5, 1, []int{2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.h.bins()
			if b.lo != c.lo || b.width != c.width {
				t.Errorf("bins from %v, %v wide; want %v and %v", b.lo, b.width, c.lo, c.width)
			}
			if diff := cmp.Diff(c.want, b.counts[0]); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
		})
	}
}

// Where there are more cells than pixels, a pixel is their mean.
func TestMatrixImage(t *testing.T) {
	s := colorScale{lo: 0, hi: 127, stops: []color.RGBA{{0, 0, 0, 255}, {127, 127, 127, 255}}}
	at := func(values []float64, rows, cols, w, h int) (got []uint8) {
		img := matrixImage(values, rows, cols, w, h, s.at)
		for i := range w * h {
			r, _, _, _ := img.At(i%w, i/w).RGBA()
			got = append(got, uint8(r>>8))
		}
		return got
	}
	if diff := cmp.Diff([]uint8{10, 20, 30, 40}, at([]float64{10, 20, 30, 40}, 2, 2, 2, 2)); diff != "" {
		t.Errorf("as many (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint8{10, 10, 20, 20}, at([]float64{10, 20}, 1, 2, 4, 1)); diff != "" {
		t.Errorf("fewer (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint8{15, 35}, at([]float64{10, 20, 30, 40}, 1, 4, 2, 1)); diff != "" {
		t.Errorf("more (-want +got):\n%s", diff)
	}
}

// Colours reach as far above 0 as below it where the values below are the larger ones, too.
func TestColorScaleOfMostlyNegative(t *testing.T) {
	if s := (HeatMap{Values: []float64{-4, 1}, Cols: 2}).scale(&light); s.lo != -s.hi || s.hi < 4 {
		t.Errorf("the scale is %v … %v, want it to reach as far up as down, and to 4 at least", s.lo, s.hi)
	}
}

func TestColorScale(t *testing.T) {
	m := HeatMap{Values: []float64{-0.5, 0, 0.25, 0.5}}
	s := m.scale(&light)
	if got, want := s.at(0), light.diverging[len(light.diverging)/2]; !near(got, want) {
		t.Errorf("0 is drawn as %v, want about %v between the two hues", got, want)
	}
	if s.lo != -s.hi || s.hi < 0.5 || s.at(s.lo) != light.diverging[0] || s.at(s.hi) != light.diverging[len(light.diverging)-1] {
		t.Errorf("the scale is %v … %v, its ends %v and %v", s.lo, s.hi, s.at(s.lo), s.at(s.hi))
	}
	m = HeatMap{Values: []float64{0, 3, 80, 99}}
	if s := m.scale(&light); s.lo != 0 || s.hi != 100 || s.at(0) != light.sequential[0] || s.at(100) != light.sequential[len(light.sequential)-1] {
		t.Errorf("counts up to 99 are drawn on the scale %v … %v", s.lo, s.hi)
	}
}

func near(a, b color.RGBA) bool {
	d := func(x, y uint8) bool { return max(x, y)-min(x, y) <= 6 }
	return d(a.R, b.R) && d(a.G, b.G) && d(a.B, b.B)
}

// Two hues meet in white at 0, also where the limits that are given lie at other distances from it.
func TestDivergingColoursMeetAtZero(t *testing.T) {
	white := light.diverging[len(light.diverging)/2]
	for _, m := range []HeatMap{{Min: -1, Max: 3}, {Min: -3, Max: 1}, {Min: -2, Max: 2}} {
		m.Values, m.Cols = []float64{-1, 0, 3, 1}, 2
		s := m.scale(&light)
		if got := s.at(0); !near(got, white) {
			t.Errorf("from %g to %g: 0 is drawn as %v, want %v", m.Min, m.Max, got, white)
		}
		if darkest := s.at(max(-m.Min, m.Max)); darkest != light.diverging[len(light.diverging)-1] {
			t.Errorf("from %g to %g: the end of the longer side is drawn as %v, want the darkest", m.Min, m.Max, darkest)
		}
	}
}

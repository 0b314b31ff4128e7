package figure

import (
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func shares() Area {
	a := Area{Title: "Weights move to the first layers", XLabel: "epoch", YLabel: "share of the weights that are left", Share: true, Caption: "95% removed."}
	for i := range 12 {
		s := Series{Name: fmt.Sprintf("conv%d", i+1)}
		for e := range 20 {
			s.X, s.Y = append(s.X, float64(e)), append(s.Y, 100+float64(e*(12-i)))
		}
		a.Series = append(a.Series, s)
	}
	return a
}

func bargains() Pareto {
	f := Pareto{Title: "What a millisecond buys", XLabel: "latency (ms)", YLabel: "test accuracy", YPercent: true, LogX: true, Caption: "Bars: 95% confidence intervals."}
	for m, name := range []string{"L1 filters", "Taylor", "random"} {
		for i := range 6 {
			x := 8 * math.Pow(0.7, float64(i)) * (1 + 0.05*float64(m))
			y := 0.93 - 0.01*float64(m) - 0.004*float64(i*i)
			f.Options = append(f.Options, Option{Method: name, Name: fmt.Sprintf("%d%%", 15*i), X: x, Y: y, XLow: 0.97 * x, XHigh: 1.05 * x, YLow: y - 0.006, YHigh: y + 0.005})
		}
	}
	return f
}

func someFilters(in, out int) Filters {
	f := Filters{Title: "Half of the filters are removed", Rows: 5, Columns: 5, In: in, Out: out}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 25 * in * out {
		f.Weights = append(f.Weights, 0.3*rng.NormFloat64())
	}
	for i := range out {
		f.Removed = append(f.Removed, i%2 == 1)
	}
	return f
}

// grow adds nodes and the edges to them.
func (n *Network) grow(name, text string, groups []string, from ...string) string {
	n.Nodes = append(n.Nodes, Node{Name: name, Text: text, Groups: groups})
	for _, f := range from {
		n.Edges = append(n.Edges, Edge{From: f, To: name})
	}
	return name
}

func resnet20() Network {
	n := Network{Title: "ResNet-20: which channels must go together", Caption: "Lines have the colour of what flows along them."}
	widths := []int{16, 32, 64}
	for s, w := range widths {
		n.Groups = append(n.Groups, Group{Name: fmt.Sprintf("stage %d", s+1), Channels: w, Removed: 5 * s, Text: "the additions join all blocks of the stage"})
	}
	last := n.grow("conv0", "3×3, 16", []string{"stage 1"}, n.grow("input", "32×32×3", nil))
	for s, w := range widths {
		stream := []string{fmt.Sprintf("stage %d", s+1)}
		for b := range 3 {
			name, block := fmt.Sprintf("%d.%d", s+1, b+1), fmt.Sprintf("block %d.%d", s+1, b+1)
			n.Groups = append(n.Groups, Group{Name: block, Channels: w})
			inner := n.grow("conv "+name+"a", fmt.Sprintf("3×3, %d", w), []string{block}, last)
			outer := n.grow("conv "+name+"b", fmt.Sprintf("3×3, %d", w), stream, inner)
			skip := last
			if b == 0 && s > 0 {
				skip = n.grow("short "+name, fmt.Sprintf("1×1, %d", w), stream, last)
			}
			last = n.grow("add "+name, "", stream, outer, skip)
		}
	}
	n.grow("fc", "10", nil, n.grow("pool", "mean", []string{"stage 3"}, last))
	return n
}

func unet() Network {
	n := Network{Title: "U-Net", Groups: []Group{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
	a, b, c := []string{"a"}, []string{"b"}, []string{"c"}
	n.grow("x", "", nil)
	n.grow("d1", "", a, "x")
	n.grow("d2", "", b, "d1")
	n.grow("d3", "", c, "d2")
	n.grow("cat", "", []string{"c", "b"}, "d3", "d2")
	n.grow("u1", "", c, "cat")
	n.grow("y", "", nil, "u1", "d1")
	return n
}

// moving is a film of weights that move between layers.
func moving() Film {
	f := Film{Title: "Weights move to the output", Name: "epoch", Caption: "1% of the weights."}
	for e := range 20 {
		n := float64(20 * e)
		f.Stops = append(f.Stops, Stop{fmt.Sprint(e), Bar{YLabel: "weights", YMax: 1000, Labels: []string{"fc1", "output"}, Series: []Series{{Y: []float64{900 - n, 100 + n}}}}})
	}
	return f
}

// fence is a surface that notes what is drawn outside of it.
type fence struct {
	area    rect
	outside []string
}

func (f *fence) points(what string, points ...point) {
	const slack = 1 // px, of lines' widths
	for _, q := range points {
		if q.x < f.area.x-slack || q.y < f.area.y-slack || q.x > f.area.x+f.area.w+slack || q.y > f.area.y+f.area.h+slack {
			f.outside = append(f.outside, fmt.Sprintf("%s at %.0f, %.0f", what, q.x, q.y))
			return
		}
	}
}

func (f *fence) fill(_ color.Color, polygon []point) { f.points("a shape", polygon...) }
func (f *fence) stroke(_ color.Color, _ float64, _ []float64, line []point) {
	f.points("a line", line...)
}
func (f *fence) circle(_ color.Color, c point, r float64) {
	f.points("a circle", point{c.x - r, c.y - r}, point{c.x + r, c.y + r})
}
func (f *fence) image(x, y float64, img image.Image) {
	size := img.Bounds().Size()
	f.points("an image", point{x, y}, point{x + float64(size.X)/resolution, y + float64(size.Y)/resolution})
}
func (f *fence) text(at point, s string, st style) {
	w := textWidth(s, st.size, st.bold)
	sin, cos := math.Sincos(st.rotate)
	f.points(fmt.Sprintf("the text %q", s), at, point{at.x + w*cos, at.y - w*sin}, point{at.x, at.y - 0.7*st.size})
}

// Nothing is drawn outside of its card, and no text runs out of it.
func TestNothingIsCutOff(t *testing.T) {
	long := strings.Repeat("long_name_", 12)
	figures := examples()
	figures["long names"] = Network{Nodes: []Node{{Name: long, Text: long}, {Name: long + "2"}}, Edges: []Edge{{From: long, To: long + "2"}}, Groups: []Group{{Name: long}}}
	figures["long areas"] = Area{Title: long, XLabel: long, YLabel: long, Series: []Series{{Name: long, Y: []float64{1, 2}}, {Name: long, Y: []float64{0, 2}}}}
	figures["long options"] = Pareto{XLabel: long, YLabel: long, Options: []Option{{Method: long, Name: long, X: 1, Y: 1}, {Method: long, Name: "b", X: 2, Y: 2}}}
	figures["long bars"] = Bar{YLabel: long, XLabel: long, Labels: []string{long, long, long, "a", long, "b", long, long}, Series: []Series{{Name: long, Y: []float64{1, 2, 3, 4, 5, 6, 7, 8}}}}
	for name, f := range figures {
		t.Run(name, func(t *testing.T) {
			if err := check(f); err != nil {
				t.Fatal(err)
			}
			w, h := cardWidth(f), cardHeight(f)
			s := &fence{area: rect{0, 0, w, h}}
			drawCard(painter{s, &light}, f, w, h)
			for _, what := range s.outside {
				t.Errorf("%s, outside of %.0f × %.0f", what, w, h)
			}
		})
	}
}

func TestThemes(t *testing.T) {
	f := examples()["line"]
	t.Setenv(themeVariable, "dark")
	img := decode(t, f)
	if got := img.At(8, 8); got != dark.card {
		t.Errorf("in the dark theme the ground is %v, want %v", got, dark.card)
	}
	inDark, err := f.MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(themeVariable, "light")
	if got := decode(t, f).At(8, 8); got != light.card {
		t.Errorf("in the light theme the ground is %v, want %v", got, light.card)
	}
	inLight, err := f.MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(inLight["text/plain"], inDark["text/plain"]); diff != "" {
		t.Errorf("the texts differ (-light +dark):\n%s", diff)
	}
	var wrong *InputError
	if err := SetTheme("sepia"); !errors.As(err, &wrong) {
		t.Errorf("SetTheme(sepia) = %v, want an *InputError", err)
	}
	if err := SetTheme(Dark); err != nil || decode(t, f).At(8, 8) != dark.card {
		t.Errorf("SetTheme(Dark) = %v, and the ground is %v", err, decode(t, f).At(8, 8))
	}
	t.Setenv(themeVariable, "sepia")
	if _, err := f.MIMEBundle(); !errors.As(err, &wrong) || !strings.Contains(err.Error(), `"sepia"`) {
		t.Errorf("with an unknown theme: %v, want an *InputError that names it", err)
	}
	if _, _, err := SVG(f); !errors.As(err, &wrong) {
		t.Errorf("SVG with an unknown theme: %v, want an *InputError", err)
	}
}

// contrast is that of WCAG 2: 4.5 is needed for text, 3 for graphics.
func contrast(a, b color.RGBA) float64 {
	linear := func(c uint8) float64 {
		v := float64(c) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	bright := func(c color.RGBA) float64 { return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B) }
	x, y := bright(a)+0.05, bright(b)+0.05
	return max(x, y) / min(x, y)
}

func TestTextsCanBeRead(t *testing.T) {
	for name, l := range map[string]look{"light": light, "dark": dark} {
		for what, c := range map[string]color.RGBA{"ink": l.ink, "muted": l.muted} {
			if got := contrast(c, l.card); got < 4.5 {
				t.Errorf("%s: %s has a contrast of %.1f to the ground, want 4.5", name, what, got)
			}
		}
		if len(l.palette) != len(light.palette) {
			t.Errorf("%s: %d colours, want %d", name, len(l.palette), len(light.palette))
		}
		for _, c := range append(append([]color.RGBA{}, l.sequential...), l.diverging...) {
			if got := contrast(on(c), c); got < 3 {
				t.Errorf("%s: a number on %v has a contrast of %.1f, want 3", name, c, got)
			}
		}
	}
	for i, c := range dark.palette {
		if got := contrast(c, dark.card); got < 4.5 {
			t.Errorf("dark: colour %d has a contrast of %.1f to the ground, want 4.5", i, got)
		}
	}
}

func TestAreaLevels(t *testing.T) {
	a := Area{Series: []Series{{Y: []float64{1, 3}}, {Y: []float64{1, 0}}, {Y: []float64{2, 1}}}}
	if diff := cmp.Diff([][]float64{{0, 0}, {1, 3}, {2, 3}, {4, 4}}, a.levels()); diff != "" {
		t.Errorf("levels (-want +got):\n%s", diff)
	}
	a.Share = true
	if diff := cmp.Diff([][]float64{{0, 0}, {0.25, 0.75}, {0.5, 0.75}, {1, 1}}, a.levels(), close6); diff != "" {
		t.Errorf("shares (-want +got):\n%s", diff)
	}
}

func TestNamesStayApart(t *testing.T) {
	for _, c := range []struct{ falling, want []float64 }{
		{[]float64{90, 50, 10}, []float64{90, 50, 10}},
		{[]float64{50, 49, 48}, []float64{50, 40, 30}},
		{[]float64{5, 4, 3}, []float64{20, 10, 0}}, // pushed back up from the lower end of the room
		{[]float64{200, 100}, []float64{100, 90}},  // and into it
	} {
		if diff := cmp.Diff(c.want, apart(c.falling, 10, 0, 100)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.falling, diff)
		}
	}
}

func TestDominance(t *testing.T) {
	options := []Option{{Name: "cheap", X: 1, Y: 1}, {Name: "dear", X: 3, Y: 3}, {Name: "bad", X: 3, Y: 2}, {Name: "twin", X: 1, Y: 1}, {Name: "worst", X: 4, Y: 0}}
	front := func(f Pareto) (names []string) {
		f.Options = options
		for i, o := range options {
			if f.dominator(i) < 0 {
				names = append(names, o.Name)
			}
		}
		return names
	}
	for _, c := range []struct {
		name string
		f    Pareto
		want []string
	}{
		{"cost and worth", Pareto{}, []string{"cheap", "dear", "twin"}},
		{"speed and worth", Pareto{MoreX: true}, []string{"dear", "worst"}},
		{"cost and loss", Pareto{LessY: true}, []string{"cheap", "twin", "worst"}},
		{"speed and loss", Pareto{MoreX: true, LessY: true}, []string{"worst"}},
	} {
		if diff := cmp.Diff(c.want, front(c.f)); diff != "" {
			t.Errorf("%s: the front (-want +got):\n%s", c.name, diff)
		}
	}
	f := Pareto{Options: options}
	if got := options[f.dominator(4)].Name; got != "dear" && got != "cheap" {
		t.Errorf("the worst is dominated by %q, want one of the front", got)
	}
}

// In a mosaic each weight is a block of its colour: rows and columns of the kernel within the tile of its input channel.
func TestMosaic(t *testing.T) {
	// [2, 2, 2, 2]: the weight of row r, column c, input i, filter o is its digits rcio, as a binary number.
	f := Filters{Rows: 2, Columns: 2, In: 2, Out: 2}
	for i := range 16 {
		f.Weights = append(f.Weights, float64(i))
	}
	s := colorScale{lo: 0, hi: 127, stops: []color.RGBA{{0, 0, 0, 255}, {127, 127, 127, 255}}}
	img := f.mosaic(1, 2*2+2*2+tileGap, 4, s, &light, false) // two pixels a weight
	var got []uint8
	for y := range 2 {
		for x := range 2 {
			r, _, _, _ := img.At(2*x, 2*y).RGBA()
			got = append(got, uint8(r>>8))
		}
		for x := range 2 {
			r, _, _, _ := img.At(4+tileGap+2*x, 2*y).RGBA()
			got = append(got, uint8(r>>8))
		}
	}
	if diff := cmp.Diff([]uint8{1, 5, 3, 7, 9, 13, 11, 15}, got); diff != "" {
		t.Errorf("row by row, the first channel's two weights and the second's (-want +got):\n%s", diff)
	}
}

func TestNetworkLayout(t *testing.T) {
	n := unet()
	if diff := cmp.Diff([]int{0, 1, 2, 3, 4, 5, 6}, n.columnOf()); diff != "" {
		t.Errorf("columns of x, d1, d2, d3, cat, u1, y (-want +got):\n%s", diff)
	}
	l := n.layout(2000)
	var lanes [][]string
	for _, spots := range l.columns {
		var names []string
		for _, s := range spots {
			name := n.Nodes[s.node].Name
			if s.pass {
				name = "past " + name
			}
			names = append(names, fmt.Sprintf("%s %d", name, s.lane))
		}
		lanes = append(lanes, names)
	}
	// d1 passes below d2, and goes straight on though nothing is above it in its first column.
	want := [][]string{{"x 0"}, {"d1 0"}, {"d2 0", "past d1 2"}, {"d3 0", "past d2 1", "past d1 2"}, {"cat 0", "past d1 2"}, {"u1 0", "past d1 2"}, {"y 0"}}
	if diff := cmp.Diff(want, lanes); diff != "" {
		t.Errorf("lanes (-want +got):\n%s", diff)
	}
}

// A constant stands before its user, not at the beginning.
func TestConstantsStandBesideTheirUsers(t *testing.T) {
	var n Network
	n.grow("a", "", nil)
	n.grow("b", "", nil, "a")
	n.grow("c", "", nil, "b", n.grow("constant", "", nil))
	if diff := cmp.Diff([]int{0, 1, 1, 2}, n.columnOf()); diff != "" {
		t.Errorf("columns of a, b, constant, c (-want +got):\n%s", diff)
	}
}

// Rows of a long network are broken where one line goes on, and its nodes don't overlap.
func TestNetworkRows(t *testing.T) {
	n := resnet20()
	l := n.layout(cardWidth(n) - 2*margin)
	if len(l.rows) != 4 {
		t.Errorf("%d rows, want 4", len(l.rows))
	}
	for _, first := range l.rows[1:] {
		if got := l.crossing(first - 1); len(got) != 1 {
			t.Errorf("the outputs of %d nodes go on in the row from column %d, want 1", len(got), first)
		}
	}
	drawn := 0
	for r := range l.rows {
		first, end := l.row(r)
		middles, height := l.lanes(r)
		for _, spots := range l.columns[first:end] {
			below := 0.0
			for _, s := range spots {
				half := l.nodeH / 2
				if s.pass {
					half = 1
				} else {
					drawn++
				}
				if top := middles[s.lane] - half; top < below || middles[s.lane]+half > height {
					t.Errorf("%q reaches from %v to %v, what is above it to %v, and the row is %v high", n.Nodes[s.node].Name, top, middles[s.lane]+half, below, height)
				}
				below = middles[s.lane] + half
			}
		}
	}
	if drawn != len(n.Nodes) {
		t.Errorf("%d nodes are laid out, want %d", drawn, len(n.Nodes))
	}
}

func TestTeachingInputErrors(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	two := []float64{1, 2}
	nodes := []Node{{Name: "a"}, {Name: "b"}}
	line := Line{Series: []Series{{Y: two}}}
	stops := []Stop{{"1", line}, {"2", line}}
	for _, c := range []struct {
		name   string
		figure interface {
			MIMEBundle() (map[string]any, error)
		}
		series, inText string
	}{
		{"area: none", Area{}, "", "no series"},
		{"area: one point", Area{Series: []Series{{Name: "s", Y: two[:1]}}}, `series "s"`, "one value"},
		{"area: NaN", Area{Series: []Series{{Name: "s", Y: []float64{1, nan}}}}, `series "s"`, "Y[1] is NaN"},
		{"area: negative", Area{Series: []Series{{Name: "s", Y: []float64{1, -2}}}}, `series "s"`, "Y[1] is -2; expected 0 or more"},
		{"area: band", Area{Series: []Series{{Name: "s", Y: two, Low: two, High: two}}}, `series "s"`, "Low and High"},
		{"area: other X", Area{Series: []Series{{Y: two}, {Name: "s", X: two, Y: two}}}, `series "s"`, "X differ"},
		{"area: falling X", Area{Series: []Series{{Name: "s", X: []float64{2, 1}, Y: two}}}, `series "s"`, "X[1] is 1, after 2"},
		{"area: infinite X", Area{Series: []Series{{Name: "s", X: []float64{2, inf}, Y: two}}}, `series "s"`, "X[1] is +Inf"},
		{"area: no sum", Area{Share: true, Series: []Series{{Y: []float64{1, 0}}}}, "", "all series are 0 at point 1"},

		{"pareto: none", Pareto{}, "", "0 options"},
		{"pareto: NaN", Pareto{Options: []Option{{Method: "m", Name: "n", Y: nan}}}, `option 0 ("m n")`, "Y is NaN"},
		{"pareto: log", Pareto{LogX: true, Options: []Option{{X: 0, Y: 1}}}, `option 0 ("")`, "X is 0; expected a number above 0"},
		{"pareto: bar", Pareto{Options: []Option{{Y: 1, YLow: inf, YHigh: inf}}}, `option 0 ("")`, "error bar of Y is +Inf"},
		{"pareto: bar turned over", Pareto{Options: []Option{{Y: 1, YLow: 2, YHigh: 1}}}, `option 0 ("")`, "YLow is 2, above YHigh, 1"},
		{"pareto: limits", Pareto{XMin: 2, XMax: 1, Options: []Option{{}}}, "", "x axis is to reach from 2 to 1"},

		{"filters: none", Filters{}, "", "its shape is [0, 0, 0, 0]"},
		{"filters: weights", Filters{Rows: 2, Columns: 2, In: 1, Out: 1, Weights: two}, "", "2 weights for the shape [2, 2, 1, 1]; expected 4"},
		{"filters: overflow", Filters{Rows: math.MaxInt, Columns: 2, In: 2, Out: 1}, "", "its shape is"},
		{"filters: NaN", Filters{Rows: 1, Columns: 1, In: 1, Out: 2, Weights: []float64{0, nan}}, "", "of filter 1, is NaN"},
		{"filters: removed", Filters{Rows: 1, Columns: 1, In: 1, Out: 2, Weights: two, Removed: []bool{true}}, "", "Removed has 1 values for 2 filters"},

		{"network: none", Network{}, "", "0 nodes"},
		{"network: many", Network{Nodes: make([]Node, maxNodes+1)}, "", "601 nodes"},
		{"network: no name", Network{Nodes: make([]Node, 1)}, `node 0 ("")`, "no name"},
		{"network: twice", Network{Nodes: []Node{{Name: "a"}, {Name: "a"}}}, `node 1 ("a")`, "same name"},
		{"network: edge", Network{Nodes: nodes, Edges: []Edge{{From: "a", To: "z"}}}, "edge 0", `no node "z"`},
		{"network: group", Network{Nodes: []Node{{Name: "a", Groups: []string{"g"}}}}, `node 0 ("a")`, `the group "g"`},
		{"network: circle", Network{Nodes: nodes, Edges: []Edge{{From: "a", To: "b"}, {From: "b", To: "a"}}}, `node "a"`, "depends on itself"},
		{"network: removed", Network{Nodes: nodes, Groups: []Group{{Name: "g", Channels: 1, Removed: 2}}}, `group 0 ("g")`, "1 channels of which 2 are removed"},

		{"sweep: none", Sweep{}, "", "0 stops"},
		{"sweep: start", Sweep{Stops: stops, Start: 2}, "", "start at stop 2 of 2"},
		{"sweep: label", Sweep{Stops: []Stop{{"1", line}, {"", line}}}, `stop 1 ("")`, "no label"},
		{"sweep: nil", Sweep{Stops: []Stop{{"1", line}, {"2", nil}}}, `stop 1 ("2")`, "no figure"},
		{"sweep: nil pointer", Sweep{Stops: []Stop{{"1", line}, {"2", (*Line)(nil)}}}, `stop 1 ("2")`, "nil pointer"},
		{"film: one stop", Film{Stops: stops[:1]}, "", "1 stops"},
		{"film: nil", Film{Stops: []Stop{{"1", line}, {"2", nil}}}, `stop 1 ("2")`, "no figure"},
		{"film: seconds", Film{Stops: stops, Seconds: nan}, "", "shown for NaN seconds"},
		{"film: strip", Film{Stops: stops, Strip: 1}, "", "strip is to have 1 figures"},
		{"sweep: part", Sweep{Stops: []Stop{{"1", line}, {"2", Line{}}}}, `stop 1 ("2")`, "no series"},
	} {
		t.Run(c.name, func(t *testing.T) {
			forms, err := c.figure.MIMEBundle()
			var e *InputError
			if !errors.As(err, &e) {
				t.Fatalf("error %v (%d forms), want an *InputError", err, len(forms))
			}
			if e.Series != c.series || !strings.Contains(err.Error(), c.inText) {
				t.Errorf("error of the series %q: %v\nwant series %q and %q", e.Series, err, c.series, c.inText)
			}
		})
	}
}

func TestTeachingTextIsEscaped(t *testing.T) {
	const evil = `</script><script>alert("&'")</script>`
	figures := map[string]Figure{
		"network": Network{Title: evil, Nodes: []Node{{Name: evil, Text: evil, Groups: []string{evil}}}, Groups: []Group{{Name: evil, Text: evil}}},
		"pareto":  Pareto{Title: evil, Options: []Option{{Method: evil, Name: evil}}},
		"area":    Area{Title: evil, Series: []Series{{Name: evil, Y: []float64{1, 2}}}},
		"film":    Film{Title: evil, Name: evil, Stops: []Stop{{evil, Bar{Labels: []string{evil}, Series: []Series{{Y: []float64{1}}}}}, {evil, Line{Series: []Series{{Name: evil, Y: []float64{1, 2}}}}}}},
		"filters": Filters{Title: evil, ValueLabel: evil, Rows: 1, Columns: 1, In: 1, Out: 1, Weights: []float64{1}},
	}
	for name, f := range figures {
		forms, err := f.MIMEBundle()
		if err != nil {
			t.Fatal(err)
		}
		svg := forms["image/svg+xml"].(string)
		checkXML(t, svg)
		if strings.Contains(svg, "<script") {
			t.Errorf("%s: the SVG has an unescaped <script", name)
		}
	}
	forms, err := Sweep{Title: evil, Name: evil, Caption: evil, Stops: []Stop{{evil, figures["area"]}, {evil, figures["network"]}}}.MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	page := forms["text/html"].(string)
	if got := strings.Count(strings.ToLower(page), "<script"); got != 1 {
		t.Errorf("the page has %d scripts, want its own alone", got)
	}
	if got := strings.Count(strings.ToLower(page), "</script"); got != 1 {
		t.Errorf("a script ends %d times, want once", got)
	}
}

// A sweep carries all of its data, and its picture stands where no scripts run.
func TestSweepIsSelfContained(t *testing.T) {
	s := Sweep{Title: "Accuracy", Name: "sparsity", Start: 1}
	for i := range 20 {
		s.Stops = append(s.Stops, Stop{fmt.Sprintf("%d%%", 5*i), Line{Title: fmt.Sprint("at ", i), Series: []Series{{Y: []float64{float64(i), 1}}}}})
	}
	forms, err := s.MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	for _, mime := range []string{"text/html", "image/png", "image/svg+xml", "text/plain"} {
		if forms[mime] == nil {
			t.Errorf("the form %s is missing", mime)
		}
	}
	page := forms["text/html"].(string)
	if found := regexp.MustCompile(`(?:src|href)="(?:https?:)?//`).FindString(page); found != "" {
		t.Errorf("the page fetches %s", found)
	}
	if !strings.Contains(page, `<img alt="Accuracy: sparsity" width="960" src="data:image/png;base64,`) {
		t.Error("the page has no picture for where no scripts run")
	}
	inline := regexp.MustCompile(`(?s)\}\)\((\{.*\})\);\n</script>`).FindStringSubmatch(page)
	if inline == nil {
		t.Fatal("the page has no data")
	}
	var data struct {
		Labels, Frames []string
		Start          int
	}
	if err := json.Unmarshal([]byte(inline[1]), &data); err != nil {
		t.Fatal(err)
	}
	if len(data.Frames) != 20 || len(data.Labels) != 20 || data.Labels[3] != "15%" || data.Start != 1 || !strings.Contains(data.Frames[3], "at 3") {
		t.Errorf("the data has %d frames and the labels %q, starts at %d", len(data.Frames), data.Labels, data.Start)
	}
	if !strings.Contains(forms["text/plain"].(string), "sparsity 95%\n[line chart]") {
		t.Error("the text lacks the last figure")
	}
	if g := s.multiples(); len(g.Figures) != mostSmall || !strings.Contains(g.Caption, "12 of 20") {
		t.Errorf("the picture has %d figures and the caption %q", len(g.Figures), g.Caption)
	}
	again, err := s.MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(forms, again); diff != "" {
		t.Errorf("drawn again it differs:\n%.300s", diff)
	}
}

// A film shows every figure in its turn, one at a time, and without its animation the last one above the strip.
func TestFilmPlaysEachFigureInTurn(t *testing.T) {
	f := moving()
	f.Seconds = 1
	forms, err := f.MIMEBundle()
	if err != nil {
		t.Fatal(err)
	}
	svg := forms["image/svg+xml"].(string)
	const turns = 23 // 19 figures and the last one four times as long
	visible := make([]int, turns)
	for i, m := range regexp.MustCompile(`dur="23s" repeatCount="3" calcMode="discrete" values="([a-z;]+)" keyTimes="([0-9.;]+)"`).FindAllStringSubmatch(svg, -1) {
		values, times := strings.Split(m[1], ";"), strings.Split(m[2], ";")
		if len(values) != len(times) || times[0] != "0" {
			t.Fatalf("figure %d: values %v at %v", i, values, times)
		}
		for turn := range visible {
			now := ""
			for j, at := range times {
				if share, err := strconv.ParseFloat(at, 64); err != nil {
					t.Fatal(err)
				} else if share <= (float64(turn)+0.5)/turns {
					now = values[j]
				}
			}
			if want := min(turn, 19) == i; (now == "visible") != want {
				t.Errorf("turn %d: figure %d is %s", turn, i, now)
			} else if want {
				visible[turn]++
			}
		}
	}
	for turn, n := range visible {
		if n != 1 {
			t.Errorf("turn %d: %d figures are visible, want 1", turn, n)
		}
	}
	if got := strings.Count(svg, `<g visibility="hidden">`); got != 19 {
		t.Errorf("%d figures are hidden where nothing plays, want all but the last of 20", got)
	}
	texts := checkXML(t, svg)
	for _, c := range []struct {
		label string
		want  int // how often it stands there
	}{{"epoch 0", 2}, {"epoch 1", 1}, {"epoch 3", 2}, {"epoch 19", 2}} {
		got := 0
		for _, s := range texts {
			if s == c.label {
				got++
			}
		}
		if got != c.want {
			t.Errorf("%q stands there %d times, want %d: where it plays, and in the strip if it is among the 6", c.label, got, c.want)
		}
	}
	if plain := forms["text/plain"].(string); !strings.Contains(plain, "20 figures, 6 of them here\n\nepoch 0\n[bar chart]") || strings.Contains(plain, "epoch 1\n") || !strings.Contains(plain, "epoch 19\n") {
		t.Errorf("the text is\n%s", plain)
	}
}

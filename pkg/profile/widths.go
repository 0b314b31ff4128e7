package profile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/store"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Widths is how latency grows with the width of a layer on one machine: a layer of one more channel can take as long as one of eight more.
type Widths struct {
	Machine string // what was measured on
	Curves  []Curve
	// RoundTo is the multiple that the numbers of channels should have that are left in a layer: what lies between two multiples costs as much as the upper one, or more. 1 if
	// latency grows evenly.
	RoundTo int
}

// Curve is latency against width of one kind of layer, whose inputs and outputs have the width.
type Curve struct {
	Kind   string // "3x3 convolution of 14x14, batch 1", …
	Widths []int
	Median []time.Duration
	Jumps  []Jump
}

// Jump says by how much layers whose width lies half way between two multiples cost more than the mean of those two multiples, as a share of what latency grows by from one multiple to the
// next: 0 if it grows evenly, 0.5 if all of the growth comes with the first channel above a multiple, more if what lies between is slower than both.
type Jump struct {
	Multiple          int
	Excess, Low, High float64 // with its 95% interval, by bootstrap over the rounds
	Found             bool    // it is above 0.25, half of what a staircase has, and its interval above 0
}

// WidthsConfig says how to measure. The zero value takes less than ten seconds.
type WidthsConfig struct {
	Compare CompareConfig // Defaults: 40 rounds, samples of 1 ms, 5 ms of warm-up, and those of Compare
	Store   *store.Store  // where RoundTo keeps the result; nil: store.Default
}

// evenly is how large an excess has to be for a jump.
const evenly = 0.25

// multiples are those that are looked for. Widths from 32 to 64 have two of the half multiples of the largest.
var multiples = []int{2, 4, 8, 16}

const narrowest, widest = 32, 64

// RoundTo returns what MeasureWidths measures, from the store if it was measured on this machine before: the processor, its number of cores, the backend, and the versions of Go and GoMLX.
//
// Errors: those of MeasureWidths and of store.Do; with a *store.SaveError, which says that the result could not be kept, it is returned.
func RoundTo(ctx context.Context, b compute.Backend, cfg WidthsConfig) (Widths, error) {
	if b == nil {
		return Widths{}, errNoBackend
	}
	sum := sha256.Sum256([]byte(machineOf(b)))
	inputs := store.Inputs{Code: "widths 1", Data: hex.EncodeToString(sum[:]), Store: cfg.Store}
	return store.Do(ctx, "profile/widths", inputs, func(ctx context.Context, _ *store.Run) (Widths, error) { return MeasureWidths(ctx, b, cfg) })
}

var errNoBackend = fmt.Errorf("backend must not be nil: give what backend.Open returns")

// pluginVersion is that of XLA's plugin in the backend's description.
var pluginVersion = regexp.MustCompile(`\bv[0-9]+\.[0-9.]+[0-9]`)

// machineOf describes what latency depends on besides versions.
func machineOf(b compute.Backend) string {
	processor := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				processor = strings.TrimSpace(value)
				break
			}
		}
	}
	name, _, _ := strings.Cut(b.Name(), ":") // what follows can be where the plugin lies, which is nobody's business
	return strings.Join(append([]string{fmt.Sprintf("%s, %d cores, %s", processor, runtime.NumCPU(), name)}, pluginVersion.FindAllString(b.Description(), 1)...), " ")
}

// MeasureWidths measures the latency of layers of all widths from 32 to 64, in turn (see Compare), and finds the multiples at which it jumps.
func MeasureWidths(ctx context.Context, b compute.Backend, cfg WidthsConfig) (Widths, error) {
	if b == nil {
		return Widths{}, errNoBackend
	}
	var kinds []layerKind
	var releases []func()
	defer func() {
		for _, release := range releases {
			release()
		}
	}()
	for _, k := range []struct {
		name  string
		layer func(x, w *graph.Node) *graph.Node
		x, w  func(width int) []int
	}{
		{"3x3 convolution of 14x14", func(x, w *graph.Node) *graph.Node { return graph.Convolve(x, w).PadSame().Done() },
			func(n int) []int { return []int{1, 14, 14, n} }, func(n int) []int { return []int{3, 3, n, n} }},
		{"dense layer, batch 64", graph.MatMul, func(n int) []int { return []int{64, n} }, func(n int) []int { return []int{n, n} }},
	} {
		kinds = append(kinds, layerKind{k.name, func(width int) (Contender, error) {
			_, c, err := count(b, model.NewStore(), func(scope *model.Scope, in []*graph.Node) []*graph.Node {
				w := scope.VariableWithShape("weights", shapes.Make(dtypes.Float32, k.w(width)...)).NodeValue(in[0].Graph())
				return []*graph.Node{k.layer(in[0], w)}
			}, []shapes.Shape{shapes.Make(dtypes.Float32, k.x(width)...)})
			if err != nil {
				return Contender{}, err
			}
			p, err := c.piece(func(*trace.Op) bool { return true })
			if err != nil {
				return Contender{}, err
			}
			contender, release, err := p.contender(b, fmt.Sprintf("%s, width %d", k.name, width))
			if err == nil {
				releases = append(releases, release)
			}
			return contender, err
		}})
	}
	curves, err := measureCurves(ctx, kinds, cfg.Compare)
	if err != nil {
		return Widths{}, err
	}
	w := Widths{Machine: machineOf(b), Curves: curves, RoundTo: 1}
	for _, c := range curves {
		w.RoundTo = max(w.RoundTo, c.roundTo())
	}
	return w, nil
}

// layerKind makes contenders of a kind of layer.
type layerKind struct {
	name string
	make func(width int) (Contender, error)
}

func measureCurves(ctx context.Context, kinds []layerKind, cfg CompareConfig) ([]Curve, error) {
	if cfg.Rounds <= 0 {
		cfg.Rounds = 40
	}
	if cfg.Sample <= 0 {
		cfg.Sample = time.Millisecond
	}
	if cfg.WarmUp <= 0 {
		cfg.WarmUp = 5 * time.Millisecond
	}
	var widths []int
	for w := narrowest; w <= widest; w++ {
		widths = append(widths, w)
	}
	var contenders []Contender
	for _, k := range kinds {
		for _, w := range widths {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			c, err := k.make(w)
			if err != nil {
				return nil, err
			}
			contenders = append(contenders, c)
		}
	}
	seconds, err := sample(ctx, contenders, cfg)
	if err != nil {
		return nil, err
	}
	var curves []Curve
	for i, k := range kinds {
		curves = append(curves, newCurve(k.name, widths, seconds[i*len(widths):(i+1)*len(widths)], cfg.Seed))
	}
	return curves, nil
}

// newCurve finds the jumps in what was measured, [width][round]. It takes the lower quartile over the rounds, since whatever else the machine does only ever adds time, and resamples
// the rounds, all widths together.
func newCurve(kind string, widths []int, seconds [][]float64, seed uint64) Curve {
	c := Curve{Kind: kind, Widths: widths}
	for _, rounds := range seconds {
		c.Median = append(c.Median, duration(Quantile(rounds, 0.5)))
	}
	typical := make([]float64, len(seconds)) // by width
	for i, rounds := range seconds {
		typical[i] = Quantile(rounds, 0.25)
	}
	rng := rand.New(rand.NewPCG(seed, 3))
	resampled := make([][]float64, 400)
	rounds := make([]int, len(seconds[0]))
	sample := make([]float64, len(rounds))
	for i := range resampled {
		for k := range rounds {
			rounds[k] = rng.IntN(len(rounds))
		}
		for _, all := range seconds {
			for k, round := range rounds {
				sample[k] = all[round]
			}
			resampled[i] = append(resampled[i], Quantile(sample, 0.25))
		}
	}
	for _, m := range multiples {
		j := Jump{Multiple: m, Excess: excess(m, typical)}
		var others []float64
		for _, typical := range resampled {
			others = append(others, excess(m, typical))
		}
		j.Low, j.High = Quantile(others, 0.025), Quantile(others, 0.975)
		j.Found = j.Excess > evenly && j.Low > 0
		c.Jumps = append(c.Jumps, j)
	}
	return c
}

// excess is that of a Jump, in seconds by width, of which the first is a multiple.
func excess(multiple int, seconds []float64) float64 {
	last, half := len(seconds)-1, multiple/2
	growth := (seconds[last] - seconds[0]) / float64(last) * float64(multiple)
	if growth <= 0 {
		return 0 // width costs nothing here
	}
	sum, n := 0.0, 0
	for mid := half; mid+half <= last; mid += multiple {
		sum += seconds[mid] - (seconds[mid-half]+seconds[mid+half])/2
		n++
	}
	return sum / float64(n) / growth
}

// roundTo is the largest multiple at which latency jumps.
func (c Curve) roundTo() int {
	for _, j := range slices.Backward(c.Jumps) {
		if j.Found {
			return j.Multiple
		}
	}
	return 1
}

// Table returns a row for each width.
func (w Widths) Table() report.Table {
	t := report.Table{Columns: []report.Column{{Name: "width"}}}
	var jumps []string
	for _, c := range w.Curves {
		t.Columns = append(t.Columns, report.Column{Name: c.Kind, Unit: "µs", Format: "%.1f"})
		jumps = append(jumps, fmt.Sprintf("%s: every %d", c.Kind, c.roundTo()))
	}
	if len(w.Curves) == 0 {
		t.Caption = "Nothing was measured."
		return t
	}
	for i, width := range slices.MaxFunc(w.Curves, func(a, b Curve) int { return cmp.Compare(len(a.Widths), len(b.Widths)) }).Widths {
		row := []any{width}
		for _, c := range w.Curves {
			row = append(row, 1000*milliseconds(c.Median[i]))
		}
		t.Rows = append(t.Rows, row)
	}
	t.Caption = fmt.Sprintf("%s. Where latency jumps: %s (1: nowhere). Round the numbers of channels to multiples of %d.", w.Machine, strings.Join(jumps, "; "), w.RoundTo)
	return t
}

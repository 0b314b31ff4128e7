package profile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/store"
)

// machines, by how many seconds a layer of a width takes on them.
var machines = []struct {
	name    string
	seconds func(width int) float64
	want    int
}{
	{"even", func(w int) float64 { return float64(w) }, 1},
	{"as the square", func(w int) float64 { return float64(w * w) }, 1},
	{"free", func(int) float64 { return 1 }, 1},
	{"less for more", func(w int) float64 { return float64(100 - w) }, 1},
	{"steps of 2", steps(2), 2},
	{"steps of 4", steps(4), 4},
	{"steps of 8", steps(8), 8},
	{"steps of 16", steps(16), 16},
	{"steps of 8 on a slope", func(w int) float64 { return steps(8)(w) + 0.3*float64(w) }, 8},
	{"slow unless a multiple of 4", slowUnless(4), 4},
	{"slow unless a multiple of 8", slowUnless(8), 8},
	{"steps of 3, which no multiple of 2 catches", steps(3), 1},
}

func steps(size int) func(int) float64 {
	return func(w int) float64 { return float64((w + size - 1) / size * size) }
}

func slowUnless(multiple int) func(int) float64 {
	return func(w int) float64 {
		if w%multiple == 0 {
			return float64(w)
		}
		return 1.5 * float64(w)
	}
}

func allWidths() (widths []int) {
	for w := narrowest; w <= widest; w++ {
		widths = append(widths, w)
	}
	return widths
}

// The multiple is found on a quiet machine and on a noisy one, which adds up to 3% to each sample and doubles one in ten.
func TestJumps(t *testing.T) {
	for _, m := range machines {
		for _, noise := range []float64{0, 0.03} {
			rng := rand.New(rand.NewPCG(7, 7))
			var seconds [][]float64
			for _, w := range allWidths() {
				rounds := make([]float64, 40)
				for i := range rounds {
					rounds[i] = m.seconds(w) * (1 + noise*rng.Float64())
					if noise > 0 && rng.IntN(10) == 0 {
						rounds[i] *= 2
					}
				}
				seconds = append(seconds, rounds)
			}
			c := newCurve(m.name, allWidths(), seconds, 1)
			if got := c.roundTo(); got != m.want {
				t.Errorf("%s with %g of noise: multiple %d, want %d: %+v", m.name, noise, got, m.want, c.Jumps)
			}
		}
	}
	staircase := newCurve("", allWidths(), constant64(steps(16)), 1)
	var excess []float64
	for _, j := range staircase.Jumps {
		excess = append(excess, j.Excess)
	}
	// In intervals of 2, two of sixteen have a step of 16, of which half is excess: 1 on average, half of what they grow by, 2. So for each multiple.
	if diff := cmp.Diff([]float64{0.5, 0.5, 0.5, 0.5}, excess); diff != "" {
		t.Errorf("excess of a staircase (-want +got):\n%s", diff)
	}
}

func constant64(seconds func(int) float64) (all [][]float64) {
	for _, w := range allWidths() {
		all = append(all, []float64{seconds(w), seconds(w)})
	}
	return all
}

// From contenders to the recommendation, on a machine with a clock of its own.
func TestMeasureCurves(t *testing.T) {
	m := &machine{}
	kind := func(name string, seconds func(int) float64) layerKind {
		return layerKind{name, func(width int) (Contender, error) {
			return m.contender(fmt.Sprint(name, width), time.Duration(seconds(width)*float64(time.Millisecond))), nil
		}}
	}
	curves, err := measureCurves(t.Context(), []layerKind{kind("a", steps(4)), kind("b", steps(8))}, CompareConfig{Rounds: 3, Now: m.clock})
	if err != nil {
		t.Fatal(err)
	}
	if len(curves) != 2 || curves[0].roundTo() != 4 || curves[1].roundTo() != 8 || curves[1].Median[1] != 40*time.Millisecond {
		t.Errorf("curves %+v, want jumps at 4 and 8, and 40 ms for width 33 of b", curves)
	}
	broken := errors.New("broken")
	if _, err := measureCurves(t.Context(), []layerKind{{"a", func(int) (Contender, error) { return Contender{}, broken }}}, CompareConfig{}); !errors.Is(err, broken) {
		t.Errorf("a layer that can't be compiled: %v", err)
	}
}

func TestRoundToIsKept(t *testing.T) {
	results, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, cfg := pure(t), WidthsConfig{Store: results, Compare: CompareConfig{Rounds: 2, Now: clock()}}
	first, err := RoundTo(t.Context(), b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if first.RoundTo != 1 || len(first.Curves) != 2 || first.Machine != machineOf(b) { // on the clock all take the same time
		t.Errorf("round to %d, %d curves, machine %q", first.RoundTo, len(first.Curves), first.Machine)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	again, err := RoundTo(cancelled, b, cfg)
	if err != nil {
		t.Fatalf("what was measured before is measured again: %v", err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("(-measured +kept):\n%s", diff)
	}
	if _, err := MeasureWidths(cancelled, b, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for name, f := range map[string]func(context.Context, WidthsConfig) error{
		"RoundTo":       func(ctx context.Context, cfg WidthsConfig) error { _, err := RoundTo(ctx, nil, cfg); return err },
		"MeasureWidths": func(ctx context.Context, cfg WidthsConfig) error { _, err := MeasureWidths(ctx, nil, cfg); return err },
	} {
		if err := f(t.Context(), cfg); !errors.Is(err, errNoBackend) {
			t.Errorf("%s without a backend: %v", name, err)
		}
	}
}

func TestWidthsTable(t *testing.T) {
	if empty := (Widths{}).Table(); len(empty.Rows) != 0 || empty.Caption != "Nothing was measured." {
		t.Errorf("of nothing: %+v", empty)
	}
	w := Widths{Machine: "a machine", RoundTo: 8, Curves: []Curve{newCurve("dense layer", allWidths(), constant64(func(w int) float64 { return 1e-3 * steps(8)(w) }), 1)}}
	var got strings.Builder
	if err := w.Table().Text(&got); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"dense layer (µs)", "   33           40000.0", "a machine. Where latency jumps: dense layer: every 8", "multiples of 8"} {
		if !strings.Contains(got.String(), part) {
			t.Errorf("the table does not say %q:\n%s", part, &got)
		}
	}
	if rows := len(w.Table().Rows); rows != 33 {
		t.Errorf("%d rows, want 33", rows)
	}
}

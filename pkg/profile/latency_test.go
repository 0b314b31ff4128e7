package profile

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
)

// machine has a clock of its own, which its contenders advance, and may run slower as it gets older.
type machine struct {
	now    time.Time
	slower float64 // by how much in a second
	ran    []string
}

func (m *machine) clock() time.Time { return m.now }

func (m *machine) contender(name string, takes time.Duration) Contender {
	return Contender{name, func() error {
		age := m.now.Sub(time.Time{}).Seconds()
		m.now = m.now.Add(time.Duration(float64(takes) * (1 + m.slower*age)))
		m.ran = append(m.ran, name)
		return nil
	}}
}

func TestCompare(t *testing.T) {
	m := &machine{}
	timings, err := Compare(t.Context(), []Contender{m.contender("a", 2*time.Millisecond), m.contender("b", 3*time.Millisecond)}, CompareConfig{Rounds: 5, Now: m.clock})
	if err != nil {
		t.Fatal(err)
	}
	want := []Timing{
		{Name: "a", Min: 2 * time.Millisecond, P50: 2 * time.Millisecond, P90: 2 * time.Millisecond, Ratio: 1, Low: 1, High: 1, Rounds: 5},
		{Name: "b", Min: 3 * time.Millisecond, P50: 3 * time.Millisecond, P90: 3 * time.Millisecond, Ratio: 1.5, Low: 1.5, High: 1.5, Rounds: 5},
	}
	near := cmp.Comparer(func(x, y float64) bool { return math.Abs(x-y) < 1e-9 })
	if diff := cmp.Diff(want, timings, near); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Of eleven rounds that take 1 to 11 ms the median is 6 ms, and nine tenths take at most 10 ms.
func TestCompareByHand(t *testing.T) {
	m, runs := &machine{}, 0
	c := Contender{"a", func() error {
		runs++
		m.now = m.now.Add(time.Duration(max(1, runs-3)) * time.Millisecond) // three to warm up
		return nil
	}}
	got, err := Compare(t.Context(), []Contender{c}, CompareConfig{Rounds: 11, Sample: time.Nanosecond, WarmUp: time.Nanosecond, Now: m.clock})
	if err != nil {
		t.Fatal(err)
	}
	want := []Timing{{Name: "a", Min: time.Millisecond, P50: 6 * time.Millisecond, P90: 10 * time.Millisecond, Ratio: 1, Low: 1, High: 1, Rounds: 11}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What a sample takes and how long a contender warms up are seen on the clock alone.
func TestWarmUpAndSamples(t *testing.T) {
	for _, takes := range []time.Duration{time.Microsecond, time.Millisecond, time.Second} {
		m := &machine{}
		c := m.contender("a", takes)
		if _, err := Compare(t.Context(), []Contender{c}, CompareConfig{Rounds: 1, Now: m.clock}); err != nil {
			t.Fatal(err)
		}
		all := len(m.ran)
		m.ran = nil
		if _, err := Compare(t.Context(), []Contender{c}, CompareConfig{Rounds: 3, Now: m.clock}); err != nil {
			t.Fatal(err)
		}
		sample := (len(m.ran) - all) / 2 // runs in a round
		warmUp := all - sample
		if time.Duration(sample)*takes < 5*time.Millisecond || time.Duration(sample)*takes > max(takes, 10*time.Millisecond) {
			t.Errorf("runs of %v: a sample has %d", takes, sample)
		}
		if warmUp < 3 || time.Duration(warmUp)*takes < 200*time.Millisecond {
			t.Errorf("runs of %v: %d to warm up", takes, warmUp)
		}
	}
}

// A machine that slows down changes the times, and hardly the ratio; each round has all contenders, in an order drawn from the seed.
func TestInterleaving(t *testing.T) {
	run := func(seed uint64) (timings []Timing, order []string) {
		m := &machine{slower: 0.2}
		cfg := CompareConfig{Rounds: 40, Sample: time.Millisecond, WarmUp: time.Nanosecond, Seed: seed, Now: m.clock}
		timings, err := Compare(t.Context(), []Contender{m.contender("a", 10*time.Millisecond), m.contender("b", 20*time.Millisecond), m.contender("c", 10*time.Millisecond)}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for ran := m.ran[9:]; len(ran) > 0; ran = ran[3:] { // three each to warm up
			order = append(order, strings.Join(ran[:3], ""))
		}
		return timings, order
	}
	timings, order := run(1)
	if b := timings[1]; b.P90 < b.Min*5/4 || math.Abs(b.Ratio-2) > 0.02 || b.Low > b.Ratio || b.High < b.Ratio || b.High-b.Low > 0.05 {
		t.Errorf("timings = %+v", timings)
	}
	seen := map[string]bool{}
	for _, round := range order {
		seen[round] = true
		if !strings.Contains(round, "a") || !strings.Contains(round, "b") || !strings.Contains(round, "c") {
			t.Fatalf("a round ran %s", round)
		}
	}
	if len(order) != 40 || len(seen) != 6 {
		t.Errorf("%d rounds, in %d orders; want 40 and all 6", len(order), len(seen))
	}
	again, sameOrder := run(1)
	if diff := cmp.Diff(timings, again) + cmp.Diff(order, sameOrder); diff != "" {
		t.Errorf("the same seed gave something else:\n%s", diff)
	}
	if _, other := run(2); cmp.Equal(order, other) {
		t.Error("another seed gave the same order")
	}
}

func TestCompareErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, at := range []int{1, 5} { // while it warms up, and later
		n := 0
		c := Contender{"c", func() error {
			if n++; n >= at {
				return broken
			}
			return nil
		}}
		m := &machine{}
		now := func() time.Time { m.now = m.now.Add(time.Second); return m.now }
		if _, err := Compare(t.Context(), []Contender{c}, CompareConfig{Now: now}); !errors.Is(err, broken) || !strings.Contains(err.Error(), "c: ") {
			t.Errorf("got %v, want the contender's error with its name", err)
		}
	}
	m := &machine{}
	ctx, cancel := context.WithCancel(t.Context())
	stop := Contender{"stop", func() error { cancel(); m.now = m.now.Add(time.Second); return nil }}
	if _, err := Compare(ctx, []Contender{stop}, CompareConfig{Now: m.clock}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := Compare(t.Context(), nil, CompareConfig{}); !errors.Is(err, ErrNoContenders) {
		t.Errorf("got %v, want ErrNoContenders", err)
	}
}

func TestQuantile(t *testing.T) {
	xs := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 0.9: 3.7, 1: 4} {
		if got := Quantile(xs, q); math.Abs(got-want) > 1e-12 {
			t.Errorf("Quantile(%v) = %v, want %v", q, got, want)
		}
	}
	if diff := cmp.Diff([]float64{4, 1, 3, 2}, xs); diff != "" {
		t.Errorf("the sample was changed (-want +got):\n%s", diff)
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("the median of nothing is %v", got)
	}
}

func TestBootstrap(t *testing.T) {
	sample := func(n int) []float64 {
		xs := make([]float64, n)
		for i := range xs {
			xs[i] = float64(i*37%n) / float64(n) // 0 to 1, evenly
		}
		return xs
	}
	low, high := Bootstrap(sample(50), 1)
	// The median of 50 such values, 0.49, has a standard error of about 0.5 / √52 = 0.069, and 95% lie within 1.96 of them.
	if math.Abs(low-(0.49-0.136)) > 0.015 || math.Abs(high-(0.49+0.136)) > 0.015 {
		t.Errorf("of 50: %v to %v, want 0.354 to 0.626", low, high)
	}
	if l, h := Bootstrap(sample(5000), 1); h-l > (high-low)/5 || l > 0.5 || h < 0.49 {
		t.Errorf("of 5000: %v to %v", l, h)
	}
	if l, h := Bootstrap(sample(50), 1); l != low || h != high {
		t.Error("the same seed gave another interval")
	}
	if l, h := Bootstrap([]float64{7}, 1); l != 7 || h != 7 {
		t.Errorf("of one: %v to %v", l, h)
	}
	if l, h := Bootstrap(nil, 1); !math.IsNaN(l) || !math.IsNaN(h) {
		t.Errorf("of nothing: %v to %v", l, h)
	}
}

// The interval leaves 2.5% on either side: where 5 of 17 values are 0 and the others 1, the median of a resample is 0 for 3.6% (9 or more of 17 draws at 5/17), and 0 is in it.
func TestBootstrapLeavesTwoAndAHalfPercent(t *testing.T) {
	xs := make([]float64, 17)
	for i := 5; i < len(xs); i++ {
		xs[i] = 1
	}
	if low, high := Bootstrap(xs, 1); low != 0 || high != 1 {
		t.Errorf("%v to %v, want 0 to 1", low, high)
	}
}

func TestTimingTable(t *testing.T) {
	var got strings.Builder
	table := TimingTable([]Timing{
		{Name: "dense", Min: 90 * time.Microsecond, P50: 100 * time.Microsecond, P90: 120500 * time.Nanosecond, Ratio: 1, Low: 1, High: 1, Rounds: 30},
		{Name: "masked", Min: 91 * time.Microsecond, P50: 101 * time.Microsecond, P90: 1234567, Ratio: 1.004, Low: 0.99, High: 1.02, Rounds: 30},
	})
	if err := table.Text(&got); err != nil {
		t.Fatal(err)
	}
	want := `network  least (µs)  median (µs)  90% (µs)  time over the first  95% interval
-------  ----------  -----------  --------  -------------------  ------------
dense          90.0        100.0     120.5                 1.00  1.00 to 1.00
masked         91.0        101.0    1234.6                 1.00  0.99 to 1.02
30 rounds, in which all are timed in shuffled order; the ratio is the median over the rounds.
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestModel(t *testing.T) {
	for _, b := range []compute.Backend{pure(t), best(t)} {
		store := model.NewStore()
		variable(t, store, "/w", []float32{3}, 1, 1)
		builds := 0
		scale := func(scope *model.Scope, x *graph.Node) *graph.Node {
			builds++
			if scope.Store().IsTraining(x.Graph()) {
				t.Error("not in inference mode")
			}
			return graph.Mul(x, store.GetVariable("/w").NodeValue(x.Graph()))
		}
		x := tensors.FromFlatDataAndDimensions([]float32{1, 2}, 1, 2)
		c, err := Model("scale", b, store, scale, x)
		if err != nil {
			t.Fatal(err)
		}
		if builds != 1 || !x.IsOnDevice(0) {
			t.Errorf("%s: built %d times before it is timed, input on the device: %v", b.Name(), builds, x.IsOnDevice(0))
		}
		for range 3 { // the input is used again and again
			if err := c.Run(); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([][]float32{{1, 2}}, x.Value()); builds != 1 || diff != "" {
			t.Errorf("built %d times; the input (-want +got):\n%s", builds, diff)
		}
		fails := func(*model.Scope, *graph.Node) *graph.Node { panic("no such layer") }
		if _, err := Model("fails", b, store, fails, x); err == nil || !strings.Contains(err.Error(), "fails: ") || !strings.Contains(err.Error(), "no such layer") {
			t.Errorf("got %v, want the network's error with its name", err)
		}
		if _, err := Model("nothing", b, store, nil, x); err == nil {
			t.Error("no model function gave no error")
		}
	}
}

package profile

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Contender is something whose time is measured. Run does it once, and returns when it is done.
type Contender struct {
	Name string
	Run  func() error
}

// Model makes a contender of a model function in inference mode, compiled before it is timed. x is a batch [batch, …] as the function takes it; each run hands it
// over and reads the output back.
func Model(name string, b compute.Backend, store *model.Store, fn func(*model.Scope, *graph.Node) *graph.Node, x *tensors.Tensor) (Contender, error) {
	exec, err := model.NewExec(b, store, func(_ *model.Scope, x *graph.Node) *graph.Node {
		store.SetTraining(x.Graph(), false)
		return fn(store.RootScope(), x)
	})
	if err != nil {
		return Contender{}, err
	}
	run := func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%s: %v", name, r)
			}
		}()
		y, err := exec.Call1(x)
		if err != nil {
			return err
		}
		if err := y.ConstFlatData(func(any) {}); err != nil { // waits for the result
			return err
		}
		return y.FinalizeAll()
	}
	return Contender{name, run}, run()
}

// CompareConfig says how to measure. The zero value is good for claims.
type CompareConfig struct {
	Rounds int              // Default: 30
	Sample time.Duration    // least length of a sample, reached by repetition. Default: 5 ms
	WarmUp time.Duration    // least time before measuring, for each contender, and three calls. Default: 200 ms
	Seed   uint64           // of the order in each round, and of the bootstrap
	Now    func() time.Time // the clock. Default: time.Now
}

// Timing is what was measured of a contender.
type Timing struct {
	Name          string
	Min, P50, P90 time.Duration // of one run
	// Ratio is the median over the rounds of its time over the first contender's in the same round; Low and High bound it with 95% confidence
	// (bootstrap over rounds).
	Ratio, Low, High float64
	Rounds           int
}

// Compare measures contenders in turn, in shuffled order within each round: machines drift, so that only times of the same round compare.
func Compare(ctx context.Context, contenders []Contender, cfg CompareConfig) ([]Timing, error) {
	if len(contenders) == 0 {
		return nil, fmt.Errorf("profile.Compare: no contenders: give at least one, the one to compare with first")
	}
	if cfg.Rounds <= 0 {
		cfg.Rounds = 30
	}
	if cfg.Sample <= 0 {
		cfg.Sample = 5 * time.Millisecond
	}
	if cfg.WarmUp <= 0 {
		cfg.WarmUp = 200 * time.Millisecond
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	repeat := make([]int, len(contenders))
	for i, c := range contenders {
		start := cfg.Now()
		calls := 0
		for calls < 3 || cfg.Now().Sub(start) < cfg.WarmUp {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err := c.Run(); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			calls++
		}
		each := max(1, cfg.Now().Sub(start)/time.Duration(calls))
		repeat[i] = int(max(1, (cfg.Sample+each-1)/each))
	}
	seconds := make([][]float64, len(contenders)) // [contender][round], of one run
	for range cfg.Rounds {
		for i := range contenders {
			seconds[i] = append(seconds[i], 0)
		}
		for _, i := range rng.Perm(len(contenders)) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			start := cfg.Now()
			for range repeat[i] {
				if err := contenders[i].Run(); err != nil {
					return nil, fmt.Errorf("%s: %w", contenders[i].Name, err)
				}
			}
			seconds[i][len(seconds[i])-1] = cfg.Now().Sub(start).Seconds() / float64(repeat[i])
		}
	}
	timings := make([]Timing, len(contenders))
	for i, c := range contenders {
		ratios := make([]float64, cfg.Rounds)
		for round := range ratios {
			ratios[round] = seconds[i][round] / seconds[0][round]
		}
		t := Timing{Name: c.Name, Rounds: cfg.Rounds, Ratio: Quantile(ratios, 0.5),
			Min: duration(Quantile(seconds[i], 0)), P50: duration(Quantile(seconds[i], 0.5)), P90: duration(Quantile(seconds[i], 0.9))}
		t.Low, t.High = Bootstrap(ratios, cfg.Seed)
		timings[i] = t
	}
	return timings, nil
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// Quantile returns the q-th quantile, interpolated between neighbours.
func Quantile(xs []float64, q float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	at := q * float64(len(xs)-1)
	i := int(at)
	if i+1 >= len(xs) {
		return xs[len(xs)-1]
	}
	return xs[i] + (at-float64(i))*(xs[i+1]-xs[i])
}

// Bootstrap returns a 95% confidence interval of the median, from 2000 resamples.
func Bootstrap(xs []float64, seed uint64) (low, high float64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	medians := make([]float64, 2000)
	sample := make([]float64, len(xs))
	for i := range medians {
		for j := range sample {
			sample[j] = xs[rng.IntN(len(xs))]
		}
		medians[i] = Quantile(sample, 0.5)
	}
	return Quantile(medians, 0.025), Quantile(medians, 0.975)
}

// TimingTable returns timings as a table.
func TimingTable(timings []Timing) report.Table {
	t := report.Table{
		Columns: []report.Column{{Name: "network"}, {Name: "least", Unit: "µs", Format: "%.0f"}, {Name: "median", Unit: "µs", Format: "%.0f"},
			{Name: "90%", Unit: "µs", Format: "%.0f"}, {Name: "time over the first", Format: "%.2f"}, {Name: "95% interval"}},
	}
	rounds := 0
	for _, x := range timings {
		rounds = x.Rounds
		us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
		t.Rows = append(t.Rows, []any{x.Name, us(x.Min), us(x.P50), us(x.P90), x.Ratio, fmt.Sprintf("%.2f to %.2f", x.Low, x.High)})
	}
	t.Caption = fmt.Sprintf("%d rounds, in which all are timed in shuffled order; the ratio is the median over the rounds.", rounds)
	return t
}

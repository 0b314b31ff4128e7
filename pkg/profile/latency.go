package profile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
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

// Model makes a contender of a model function in inference mode. It is compiled and run once before this returns; variables without values get their initial ones,
// and x, a batch [batch, …] as the function takes it, is on the device from then on. Each run reads the output back.
func Model(name string, b compute.Backend, store *model.Store, fn func(*model.Scope, *graph.Node) *graph.Node, x *tensors.Tensor) (Contender, error) {
	if b == nil || store == nil || fn == nil || x == nil {
		return Contender{}, fmt.Errorf("profile.Model %s: backend, store, model function and input must not be nil", name)
	}
	exec, err := model.NewExec(b, store, func(_ *model.Scope, x *graph.Node) *graph.Node {
		store.SetTraining(x.Graph(), false)
		return fn(store.RootScope(), x)
	})
	if err != nil {
		return Contender{}, fmt.Errorf("%s: %w", name, err)
	}
	run := func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%v", r)
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
	if err := run(); err != nil {
		return Contender{}, fmt.Errorf("%s: %w", name, err)
	}
	return Contender{name, run}, nil
}

// CompareConfig says how to measure. The zero value is good for claims.
type CompareConfig struct {
	Rounds int              // Default: 30
	Sample time.Duration    // length of a sample, reached by repetition. Default: 5 ms
	WarmUp time.Duration    // least time before measuring, for each contender, and three runs. Default: 200 ms
	Seed   uint64           // of the order in each round, and of the bootstrap
	Now    func() time.Time // the clock. Default: time.Now
}

// Timing is what was measured of a contender.
type Timing struct {
	Name          string
	Min, P50, P90 time.Duration // of one run
	// Ratio is the median over the rounds of its time over the first contender's in the same round; Low and High bound it with 95% confidence
	// (bootstrap over rounds). They do not cover what stays the same in all rounds, such as where in memory a network's weights lie: two instances of one
	// network can differ by some percent, so make several of each before you claim as little.
	Ratio, Low, High float64
	Rounds           int
}

// ErrNoContenders says that Compare was given nothing to measure.
var ErrNoContenders = errors.New("no contenders: give at least one, first the one that the others are compared with")

// Compare measures contenders in turn, in shuffled order within each round: machines drift, so that only times of the same round compare. A sample is as many runs
// as take cfg.Sample. Go's garbage is collected before each round, so that none pays for another's.
func Compare(ctx context.Context, contenders []Contender, cfg CompareConfig) ([]Timing, error) {
	if len(contenders) == 0 {
		return nil, fmt.Errorf("profile.Compare: %w", ErrNoContenders)
	}
	seconds, err := sample(ctx, contenders, cfg)
	if err != nil {
		return nil, err
	}
	timings := make([]Timing, len(contenders))
	for i, c := range contenders {
		rounds := len(seconds[i])
		ratios := make([]float64, rounds)
		for round := range ratios {
			ratios[round] = seconds[i][round] / seconds[0][round]
		}
		t := Timing{Name: c.Name, Rounds: rounds, Ratio: Quantile(ratios, 0.5),
			Min: duration(Quantile(seconds[i], 0)), P50: duration(Quantile(seconds[i], 0.5)), P90: duration(Quantile(seconds[i], 0.9))}
		t.Low, t.High = Bootstrap(ratios, cfg.Seed)
		timings[i] = t
	}
	return timings, nil
}

// sample returns how many seconds a run of each contender took in each round, [contender][round].
func sample(ctx context.Context, contenders []Contender, cfg CompareConfig) ([][]float64, error) {
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
	take := func(c Contender, n int) (time.Duration, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		start := cfg.Now()
		for range n {
			if err := c.Run(); err != nil {
				return 0, fmt.Errorf("%s: %w", c.Name, err)
			}
		}
		return cfg.Now().Sub(start), nil
	}
	runs := make([]int, len(contenders)) // in a sample
	for i, c := range contenders {
		runs[i] = 1
		calls, spent := 0, time.Duration(0)
		for {
			took, err := take(c, runs[i])
			if err != nil {
				return nil, err
			}
			calls, spent = calls+runs[i], spent+took
			if took < cfg.Sample {
				runs[i] *= 2
			} else if calls >= 3 && spent >= cfg.WarmUp {
				break
			}
		}
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	seconds := make([][]float64, len(contenders)) // of one run
	for i := range seconds {
		seconds[i] = make([]float64, cfg.Rounds)
	}
	for round := range cfg.Rounds {
		runtime.GC()
		for _, i := range rng.Perm(len(contenders)) {
			took, err := take(contenders[i], runs[i])
			if err != nil {
				return nil, err
			}
			seconds[i][round] = took.Seconds() / float64(runs[i])
		}
	}
	return seconds, nil
}

func duration(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds * float64(time.Second)))
}

// Quantile returns the quantile of a share q from 0 to 1, interpolated between neighbours; NaN of nothing.
func Quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	xs = slices.Sorted(slices.Values(xs))
	at := q * float64(len(xs)-1)
	i := int(at)
	if i+1 >= len(xs) {
		return xs[len(xs)-1]
	}
	return xs[i] + (at-float64(i))*(xs[i+1]-xs[i])
}

// Bootstrap returns a 95% confidence interval of the median, from 2000 resamples; NaN of nothing.
func Bootstrap(xs []float64, seed uint64) (low, high float64) {
	if len(xs) == 0 {
		return math.NaN(), math.NaN()
	}
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
		Columns: []report.Column{{Name: "network"}, {Name: "least", Unit: "µs", Format: "%.1f"}, {Name: "median", Unit: "µs", Format: "%.1f"},
			{Name: "90%", Unit: "µs", Format: "%.1f"}, {Name: "time over the first", Format: "%.2f"}, {Name: "95% interval"}},
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

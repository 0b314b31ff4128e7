package surgery

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Report says what surgery did.
type Report struct {
	// MaxDiff is the largest difference between an output of the smaller network and that of the masked one; MaxOutput is the largest of the masked one's outputs.
	MaxDiff, MaxOutput float64
	Before, After      Cost
	// BytesBefore and BytesAfter are the sizes of the variables that the network reads.
	BytesBefore, BytesAfter int64
	// Latency of the original network, then of the smaller one, for the samples; empty unless Measure was called.
	Latency []profile.Timing
}

// Verify compares the smaller network with the masked one, which it has to equal, on samples: an input of the network each, in its order. It counts what both cost.
// Report.Measure adds how long they take.
//
// Errors: *ConfigError for samples that are no inputs of the network; *OtherNetworkError for a network that the smaller one was not made of; *ReplayError for a model function that holds
// variables by itself instead of asking its scope, so that there is no masked network to compare with; what running the networks returns.
func Verify(n *Network, small *Small, samples ...*tensors.Tensor) (Report, error) {
	r := Report{Before: n.Cost()}
	if len(samples) == 0 {
		return r, &ConfigError{"samples", "there are none", "give an input of the network, of any batch size"}
	}
	if err := n.fit(samples); err != nil {
		return r, err
	}
	plan, err := small.plan(n)
	if err != nil {
		return r, err
	}
	if r.After, err = plan.Cost(); err != nil {
		return r, err
	}
	r.BytesBefore, r.BytesAfter = bytesOf(n.store, n.analysis.order), bytesOf(small.Store, n.analysis.order)
	masked, err := plan.Masked()
	if err != nil {
		return r, err
	}
	want, err := n.outputs(masked, n.fn, samples)
	if err != nil {
		return r, fmt.Errorf("the masked network: %w", err)
	}
	got, err := n.outputs(small.Store, small.ModelFn, samples)
	if err != nil {
		return r, fmt.Errorf("the smaller network: %w", err)
	}
	for i := range want {
		if !want[i].Shape().Equal(got[i].Shape()) {
			return r, fmt.Errorf("output %d has the shape %s, expected %s", i, got[i].Shape(), want[i].Shape())
		}
		diff, largest, err := difference(want[i], got[i])
		if err != nil {
			return r, err
		}
		r.MaxDiff, r.MaxOutput = math.Max(r.MaxDiff, diff), math.Max(r.MaxOutput, largest)
	}
	if r.MaxDiff > suspicious*math.Max(1, r.MaxOutput) {
		return r, n.reads(masked, want, samples)
	}
	return r, nil
}

// suspicious is a difference, as a share of the largest output, that no rounding makes.
const suspicious = 1e-2

// reads returns a *ReplayError if the model function does not read a masked store, but variables that it holds: then its outputs there are not those of its recording, which does.
func (n *Network) reads(masked *model.Store, outputs, samples []*tensors.Tensor) error {
	whole := &replay{network: n.digest, fn: n.fn, removed: map[string]map[int][]int{}, dims: map[string][]int{}}
	recorded, err := n.outputs(masked, whole.build, samples)
	if err != nil {
		return fmt.Errorf("the masked network, as it was recorded: %w", err)
	}
	for i := range outputs {
		diff, largest, err := difference(outputs[i], recorded[i])
		if err != nil {
			return err
		}
		if diff > suspicious*math.Max(1, largest) {
			return held("")
		}
	}
	return nil
}

// fit returns a *ConfigError for samples that are no inputs of the network. The first axis may be of any size.
func (n *Network) fit(samples []*tensors.Tensor) error {
	if len(samples) != len(n.inputs) {
		return &ConfigError{"samples", fmt.Sprintf("there are %d, and the network has %d inputs", len(samples), len(n.inputs)), "give one for each, in the network's order"}
	}
	for i, want := range n.inputs {
		if !samples[i].Ok() {
			return &ConfigError{"samples", fmt.Sprintf("number %d is nil, or was finalized", i), "give an input of the network, of any batch size"}
		}
		if got := samples[i].Shape(); got.DType != want.DType || got.Rank() != want.Rank() || want.Rank() > 0 && !slices.Equal(got.Dimensions[1:], want.Dimensions[1:]) {
			return &ConfigError{"samples", fmt.Sprintf("number %d is %s, and the network was traced for %s", i, got, want), "give an input of that type and shape, of any batch size"}
		}
	}
	return nil
}

// plan returns what was removed, as a plan of the network.
func (s *Small) plan(n *Network) (*Plan, error) {
	if s == nil || s.replay == nil {
		return nil, &ValueError{"Small", "was not made by this package", "use what Plan.Apply or Rebuild returns"}
	}
	if s.replay.network != n.digest {
		return nil, &OtherNetworkError{Plan: s.replay.network, Network: n.digest}
	}
	p := n.Empty()
	gone, err := n.analysis.removal(s.replay.removed)
	if err != nil {
		return nil, err
	}
	for _, g := range n.groups {
		for u, x := range g.atoms {
			if gone[x] {
				p.Removed[g.Name] = append(p.Removed[g.Name], u)
			}
		}
	}
	return p, p.Check()
}

// outputs runs a network once in inference.
func (n *Network) outputs(store *model.Store, fn trace.ModelFn, samples []*tensors.Tensor) (outputs []*tensors.Tensor, err error) {
	err = guard.Run("run", func() error {
		exec, err := n.exec(store, fn)
		if err != nil {
			return err
		}
		defer exec.Finalize()
		outputs, err = exec.Call(inputs(samples)...)
		return err
	})
	return outputs, err
}

func (n *Network) exec(store *model.Store, fn trace.ModelFn) (*model.Exec, error) {
	return model.NewExec(n.backend, store, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		defer guard.Building()
		store.SetTraining(in[0].Graph(), false)
		return fn(store.RootScope(), in)
	})
}

// inputs are samples as what is called takes them.
func inputs(samples []*tensors.Tensor) []any {
	all := make([]any, len(samples))
	for i, s := range samples {
		all[i] = s
	}
	return all
}

// Measure adds the latencies of the original network and of the smaller one, measured in turn, for the samples.
func (r *Report) Measure(ctx context.Context, n *Network, small *Small, cfg profile.CompareConfig, samples ...*tensors.Tensor) error {
	if err := n.fit(samples); err != nil {
		return err
	}
	if _, err := small.plan(n); err != nil {
		return err
	}
	var contenders []profile.Contender
	for _, c := range []struct {
		name  string
		store *model.Store
		fn    trace.ModelFn
	}{{"original", n.store, n.fn}, {"smaller", small.Store, small.ModelFn}} {
		exec, err := n.exec(c.store, c.fn)
		if err != nil {
			return err
		}
		defer exec.Finalize()
		contenders = append(contenders, profile.Contender{Name: c.name, Run: func() error {
			return guard.Run(c.name, func() error {
				outputs, err := exec.Call(inputs(samples)...)
				if err != nil {
					return err
				}
				for _, y := range outputs {
					if err := y.ConstFlatData(func(any) {}); err != nil { // waits for it
						return err
					}
					if err := y.FinalizeAll(); err != nil {
						return err
					}
				}
				return nil
			})
		}})
	}
	var err error
	r.Latency, err = profile.Compare(ctx, contenders, cfg)
	return err
}

// Table shows the report: before, after, and what is left.
func (r Report) Table() report.Table {
	t := report.Table{
		Title:   "Before and after surgery",
		Columns: []report.Column{{Name: ""}, {Name: "before"}, {Name: "after"}, {Name: "left", Unit: "%", Format: "%.1f"}},
		Caption: fmt.Sprintf("Largest difference of an output from the masked network: %.2g, where the largest output is %.3g.", r.MaxDiff, r.MaxOutput),
	}
	row := func(name string, before, after int64) {
		t.Rows = append(t.Rows, []any{name, report.Count(before), report.Count(after), 100 * share(after, before)})
	}
	row("parameters", r.Before.Params, r.After.Params)
	row("MACs", r.Before.MACs, r.After.MACs)
	row("bytes", r.BytesBefore, r.BytesAfter)
	if len(r.Latency) == 2 {
		original, small := r.Latency[0], r.Latency[1]
		unit := time.Millisecond
		if max(original.P50, small.P50) < unit {
			unit = time.Microsecond
		}
		t.Rows = append(t.Rows, []any{"latency", in(unit, original.P50), in(unit, small.P50), 100 * small.Ratio})
		t.Caption += fmt.Sprintf(" Latency: medians of %d rounds; what is left is the median of their ratios, with a 95%% interval from %.1f%% to %.1f%%.", small.Rounds, 100*small.Low, 100*small.High)
	}
	return t
}

// in writes a time in milliseconds or microseconds, with four digits and at most three of them behind the point.
func in(unit, d time.Duration) string {
	name := map[time.Duration]string{time.Millisecond: "ms", time.Microsecond: "µs"}[unit]
	x := float64(d) / float64(unit)
	decimals := 3
	for limit := 10.0; decimals > 0 && x >= limit; limit *= 10 {
		decimals--
	}
	return fmt.Sprintf("%.*f %s", decimals, x, name)
}

// String is the report in one line.
func (r Report) String() string {
	return fmt.Sprintf("max |Δ| %.2g of %.3g; parameters %s -> %s, MACs %s -> %s, bytes %s -> %s", r.MaxDiff, r.MaxOutput, report.Count(r.Before.Params),
		report.Count(r.After.Params), report.Count(r.Before.MACs), report.Count(r.After.MACs), report.Count(r.BytesBefore), report.Count(r.BytesAfter))
}

// difference returns the largest difference of two tensors, and the largest element of the first. Numbers that are none in one only differ by infinity.
func difference(want, got *tensors.Tensor) (diff, largest float64, err error) {
	x, err := float64s(want)
	if err != nil {
		return 0, 0, err
	}
	y, err := float64s(got)
	if err != nil {
		return 0, 0, err
	}
	for i := range x {
		switch d := math.Abs(x[i] - y[i]); {
		case x[i] == y[i] || math.IsNaN(x[i]) && math.IsNaN(y[i]):
		case math.IsNaN(d):
			diff = math.Inf(1)
		default:
			diff = math.Max(diff, d)
		}
		if !math.IsNaN(x[i]) {
			largest = math.Max(largest, math.Abs(x[i]))
		}
	}
	return diff, largest, nil
}

// toFloats converts a slice of numbers; nil if they are none.
func toFloats(flat any) []float64 {
	switch data := flat.(type) {
	case []bfloat16.BFloat16:
		return convert(data, func(x bfloat16.BFloat16) float64 { return float64(x.Float32()) })
	case []float16.Float16:
		return convert(data, func(x float16.Float16) float64 { return float64(x.Float32()) })
	case []bool:
		return convert(data, func(x bool) float64 {
			if x {
				return 1
			}
			return 0
		})
	}
	v := reflect.ValueOf(flat)
	result := make([]float64, 0, v.Len())
	for i := range v.Len() {
		switch e := v.Index(i); {
		case e.CanFloat():
			result = append(result, e.Float())
		case e.CanInt():
			result = append(result, float64(e.Int()))
		case e.CanUint():
			result = append(result, float64(e.Uint()))
		default:
			return nil
		}
	}
	return result
}

func convert[T any](data []T, f func(T) float64) []float64 {
	result := make([]float64, len(data))
	for i, x := range data {
		result[i] = f(x)
	}
	return result
}

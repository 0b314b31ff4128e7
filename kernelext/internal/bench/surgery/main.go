// Command surgery measures what physically smaller networks gain on this machine: latency before and after surgery, interleaved, and what surgery itself takes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func main() {
	bench.Main("surgery", run)
}

// settings are the flags.
type settings struct {
	networks []nets.Network
	batches  []int
	macs     float64
	compare  profile.CompareConfig
	large    *nets.Network // of which surgery itself is measured
	file     string
}

func parse(args []string) (settings, error) {
	f := flag.NewFlagSet("bench surgery", flag.ContinueOnError)
	names := f.String("networks", "LeNet-5,SmallConv,ResNet-20,ResNet-18,MobileNetV2", "reference networks whose latency is measured")
	batches := f.String("batches", "1,64", "batch sizes")
	macs := f.Float64("macs", 0.5, "share of the multiply-accumulates that stays")
	rounds := f.Int("rounds", 12, "rounds, in each of which all are timed")
	large := f.String("large", "ResNet-50", "reference network on which surgery itself is measured; empty: none")
	file := f.String("json", "", "also write the measurements to this file, a line each")
	if err := f.Parse(args); err != nil {
		return settings{}, err
	}
	s := settings{macs: *macs, file: *file, compare: profile.CompareConfig{Rounds: *rounds, WarmUp: 100 * time.Millisecond}}
	if f.NArg() > 0 {
		return s, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if !(*macs > 0 && *macs < 1) {
		return s, fmt.Errorf("-macs is %v: give a share between 0 and 1, for instance 0.5", *macs)
	}
	if *rounds < 6 {
		return s, fmt.Errorf("-rounds is %d: give at least 6, or an interval says nothing", *rounds)
	}
	for _, name := range bench.List(*names) {
		n, err := nets.Find(name)
		if err != nil {
			return s, err
		}
		s.networks = append(s.networks, n)
	}
	for _, text := range bench.List(*batches) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return s, fmt.Errorf("-batches has %q: give positive numbers, with commas between them", text)
		}
		s.batches = append(s.batches, n)
	}
	if *large != "" {
		n, err := nets.Find(*large)
		if err != nil {
			return s, err
		}
		s.large = &n
	}
	return s, nil
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	choice, err := backend.Describe()
	if err != nil {
		return err
	}
	b, err := backend.Open()
	if err != nil {
		return err
	}
	machine := fmt.Sprintf("%s, %d CPUs, %s", choice.Name, runtime.NumCPU(), runtime.Version())
	var records []report.Record
	for _, n := range s.networks {
		fmt.Fprintln(os.Stderr, n.Name)
		measured, err := latencies(ctx, b, n, s)
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		records = append(records, measured...)
	}
	if len(records) > 0 {
		if err := latencyTable(records, machine).Text(os.Stdout); err != nil {
			return err
		}
		fmt.Println()
		for _, line := range verdicts(records) {
			fmt.Println(line)
		}
	}
	if s.large != nil {
		fmt.Fprintln(os.Stderr, s.large.Name)
		r, err := resources(b, *s.large, s.macs)
		if err != nil {
			return fmt.Errorf("%s: %w", s.large.Name, err)
		}
		records = append(records, r)
		fmt.Println()
		if err := resourceTable(r, machine).Text(os.Stdout); err != nil {
			return err
		}
	}
	if s.file == "" {
		return nil
	}
	return report.WriteRecords(s.file, records)
}

// initial returns a store with the variables of a network at their first values.
func initial(b compute.Backend, n nets.Network) (*model.Store, error) {
	store := model.NewStore()
	exec, err := model.NewExec(b, store, func(_ *model.Scope, x *graph.Node) *graph.Node {
		store.SetTraining(x.Graph(), false)
		return n.Model(store.RootScope(), x)
	})
	if err != nil {
		return nil, err
	}
	defer exec.Finalize()
	if _, err := exec.Call(tensors.FromShape(input(n, 1))); err != nil {
		return nil, err
	}
	return store, nil
}

func input(n nets.Network, batch int) shapes.Shape {
	return shapes.Make(dtypes.Float32, append([]int{batch}, n.Input...)...)
}

// widths are the ways in which layers get narrower: to any width, and to multiples of what vector units like.
var widths = []struct {
	name    string
	roundTo int
}{{"any width", 1}, {"multiples of 8", 8}, {"multiples of 16", 16}}

// latencies measures a network before surgery and after it. Channels are chosen by magnitude, of weights at their first values: what they are worth does not matter here.
func latencies(ctx context.Context, b compute.Backend, n nets.Network, s settings) ([]report.Record, error) {
	store, err := initial(b, n)
	if err != nil {
		return nil, err
	}
	whole, err := surgery.Trace(b, store, trace.Single(n.Model), input(n, 1))
	if err != nil {
		return nil, err
	}
	type variant struct {
		name  string
		cost  surgery.Cost
		store *model.Store
		fn    trace.ModelFn
	}
	variants := []variant{{"before", whole.Cost(), store, trace.Single(n.Model)}}
	for _, w := range widths {
		plan, err := whole.Plan(surgery.Config{MACs: s.macs, RoundTo: w.roundTo}, nil)
		var small *surgery.BudgetError
		if errors.As(err, &small) { // the layers are too narrow for that
			fmt.Fprintf(os.Stderr, "  %s: %v\n", w.name, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		cost, err := plan.Cost()
		if err != nil {
			return nil, err
		}
		cut, err := plan.Apply()
		if err != nil {
			return nil, err
		}
		variants = append(variants, variant{w.name, cost, cut.Store, cut.ModelFn})
	}
	var records []report.Record
	for _, batch := range s.batches {
		var candidates []profile.Candidate
		for _, v := range variants {
			candidates = append(candidates, profile.Candidate{Name: v.name, Store: v.store, Model: v.fn, Inputs: []shapes.Shape{input(n, batch)}})
		}
		comparison, err := profile.CompareModels(ctx, b, candidates, s.compare)
		if err != nil {
			return nil, err
		}
		for i, t := range comparison.Timings {
			records = append(records, report.Record{
				Recipe: fmt.Sprintf("surgery latency macs=%g", s.macs), Labels: map[string]string{"network": n.Name, "batch": strconv.Itoa(batch), "width": variants[i].name},
				Values: map[string]float64{
					"macs": float64(variants[i].cost.MACs), "macs_share": float64(variants[i].cost.MACs) / float64(variants[0].cost.MACs),
					"params": float64(variants[i].cost.Params), "params_share": float64(variants[i].cost.Params) / float64(variants[0].cost.Params),
					"least_seconds": t.Min.Seconds(), "median_seconds": t.P50.Seconds(), "p90_seconds": t.P90.Seconds(), "ratio": t.Ratio, "ratio_low": t.Low, "ratio_high": t.High, "rounds": float64(t.Rounds),
				},
			})
		}
	}
	return records, nil
}

// latencyTable has a row for each measurement.
func latencyTable(records []report.Record, machine string) report.Table {
	t := report.Table{
		Title: "Latency of inference before and after surgery",
		Columns: []report.Column{{Name: "network"}, {Name: "batch"}, {Name: "width"}, {Name: "MACs", Unit: "%", Format: "%.1f"}, {Name: "parameters", Unit: "%", Format: "%.1f"},
			{Name: "median", Unit: "ms", Format: "%.3f"}, {Name: "90%", Unit: "ms", Format: "%.3f"}, {Name: "time over before", Format: "%.2f"}, {Name: "95% interval"}},
		Caption: fmt.Sprintf("%.0f rounds, in which all of a network and batch are timed in shuffled order; the ratio is the median over the rounds. %s.", records[0].Values["rounds"], machine),
	}
	for _, r := range records {
		v := r.Values
		t.Rows = append(t.Rows, []any{r.Labels["network"], r.Labels["batch"], r.Labels["width"], 100 * v["macs_share"], 100 * v["params_share"], 1e3 * v["median_seconds"], 1e3 * v["p90_seconds"],
			v["ratio"], fmt.Sprintf("%.2f to %.2f", v["ratio_low"], v["ratio_high"])})
	}
	return t
}

// verdicts says in a sentence for each case whether latency falls, and where it does not.
func verdicts(records []report.Record) []string {
	var lines []string
	for _, r := range records {
		if r.Labels["width"] == "before" {
			continue
		}
		v := r.Values
		what := fmt.Sprintf("%s, batch %s, %s: with %.1f%% of the MACs", r.Labels["network"], r.Labels["batch"], r.Labels["width"], 100*v["macs_share"])
		switch {
		case v["ratio_high"] < 1:
			lines = append(lines, fmt.Sprintf("%s, latency falls to %.0f%%.", what, 100*v["ratio"]))
		case v["ratio_low"] > 1:
			lines = append(lines, fmt.Sprintf("%s, latency does not fall: it rises to %.0f%%.", what, 100*v["ratio"]))
		default:
			lines = append(lines, fmt.Sprintf("%s, no fall of latency is shown: %.0f%%, and the interval holds 100%%.", what, 100*v["ratio"]))
		}
	}
	return lines
}

// resources measures how long surgery takes on a large network, and how much memory.
func resources(b compute.Backend, n nets.Network, macs float64) (report.Record, error) {
	store, err := initial(b, n)
	if err != nil {
		return report.Record{}, err
	}
	var weights int64
	for v := range store.IterVariables() {
		if v.DType().IsFloat() { // the state of the random numbers is none
			weights += int64(v.Shape().ByteSize())
		}
	}
	runtime.GC()
	before, err := resetPeak()
	if err != nil {
		return report.Record{}, err
	}
	start := time.Now()
	whole, err := surgery.Trace(b, store, trace.Single(n.Model), input(n, 1))
	if err != nil {
		return report.Record{}, err
	}
	traced := time.Since(start)
	start = time.Now()
	plan, err := whole.Plan(surgery.Config{MACs: macs}, nil)
	if err != nil {
		return report.Record{}, err
	}
	planned := time.Since(start)
	start = time.Now()
	small, err := plan.Apply()
	if err != nil {
		return report.Record{}, err
	}
	applied := time.Since(start)
	peak, err := peak()
	if err != nil {
		return report.Record{}, err
	}
	cost, err := plan.Cost()
	if err != nil {
		return report.Record{}, err
	}
	runtime.KeepAlive(small)
	// The kernel counts pages for each processor and adds them up now and then, so that a peak can read as some pages less than what there was before it.
	taken := max(peak-before, 0)
	return report.Record{
		Recipe: fmt.Sprintf("surgery resources macs=%g", macs), Labels: map[string]string{"network": n.Name},
		Values: map[string]float64{"trace_seconds": traced.Seconds(), "plan_seconds": planned.Seconds(), "apply_seconds": applied.Seconds(), "weights_bytes": float64(weights),
			"peak_bytes": float64(taken), "macs_share": float64(cost.MACs) / float64(whole.Cost().MACs), "groups": float64(len(whole.Groups()))},
	}, nil
}

func resourceTable(r report.Record, machine string) report.Table {
	v := r.Values
	return report.Table{
		Title:   "What surgery takes on " + r.Labels["network"],
		Columns: []report.Column{{Name: "step"}, {Name: "measured"}},
		Rows: [][]any{
			{"record and analyse", fmt.Sprintf("%.2f s", v["trace_seconds"])},
			{"score and choose", fmt.Sprintf("%.2f s", v["plan_seconds"])},
			{"cut and build", fmt.Sprintf("%.2f s", v["apply_seconds"])},
			{"memory at its peak, besides the weights", fmt.Sprintf("%.1f MB, %.2f times the weights", v["peak_bytes"]/1e6, v["peak_bytes"]/v["weights_bytes"])},
		},
		Caption: fmt.Sprintf("%.0f groups, cut to %.1f%% of the MACs. %s.", v["groups"], 100*v["macs_share"], machine),
	}
}

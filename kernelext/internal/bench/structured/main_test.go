package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/kernelext/internal/bench/benchtest"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/report"
)

// A comparison from end to end: a record for each method, with equal fine-tuning, measured on its way; a second time nothing is computed again.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	args := []string{"-fast", "-networks", "LeNet-5", "-methods", "random;random, longer;FPGM;slimming;PFP;PFP, floor;GAL;scratch", "-dir", dir, "-json", filepath.Join(dir, "out.jsonl")}
	if err := run(t.Context(), append(args, "-stop", "1ns")); err == nil {
		t.Fatal("no error, when the time was up before anything was done")
	}
	if err := run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	records, err := report.ReadRecords(filepath.Join(dir, "out.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var methods []string
	for _, r := range records {
		methods = append(methods, r.Labels["method"])
		switch {
		case r.Labels["method"] == "dense":
			continue
		case r.Labels["method"] == "slimming":
			if r.Labels["refused"] == "" {
				t.Errorf("slimming of a network without gains: %+v", r)
			}
			continue
		}
		if v := r.Values; v["macs"] > 0.3 || v["macs"] < 0.1 || v["accuracy"] <= 0 || v["params"] <= 0 {
			t.Errorf("%+v", r)
		}
		want := map[string]int{longer: 24 + 8, scratch: 24 + 24}[r.Labels["method"]]
		if want == 0 {
			want = 24
		}
		choosing := 0.0
		if r.Labels["method"] == "GAL" {
			choosing = 8
		}
		if r.Step != want || r.Values["choosing"] != choosing {
			t.Errorf("%s was tuned for %d steps and took %g to choose, want %d and %g", r.Labels["method"], r.Step, r.Values["choosing"], want, choosing)
		}
		if got := measured(r); r.Labels["method"] != scratch && !cmp.Equal(got, []int{0, 10, want}) {
			t.Errorf("%s was measured after %d steps of fine-tuning, want 0, 10 and %d", r.Labels["method"], got, want)
		}
	}
	if diff := cmp.Diff([]string{"dense", "random", "random", "random, longer", "random, longer", "FPGM", "slimming", "PFP", "PFP, floor", "GAL", "scratch"}, methods); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	lots, floor := records[1].Values, records[slices.Index(methods, "PFP, floor")].Values
	layers := 0
	for name, random := range lots {
		if strings.HasPrefix(name, "units ") {
			layers++
			if 3*floor[name] < 2*random {
				t.Errorf("PFP, floor keeps %g %s, random %g: want at least two thirds", floor[name], name, random)
			}
		}
	}
	if layers != 3 {
		t.Errorf("there are units of %d layers, want 3", layers)
	}
	kept, err := report.ReadRecords(filepath.Join(dir, "records.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	again, err := report.ReadRecords(filepath.Join(dir, "records.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(again) != len(kept) {
		t.Errorf("%d records after a second run, want %d", len(again), len(kept))
	}
	if err := run(t.Context(), append(args, "-methods", "random;L1", "-tables")); err != nil { // L1 is not there, and is not made
		t.Fatal(err)
	}
	if shown, err := report.ReadRecords(filepath.Join(dir, "out.jsonl")); err != nil || len(shown) != 3 {
		t.Errorf("-tables has %d records, want the dense network's and two draws (%v)", len(shown), err)
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-methods none", "there are random; random, longer; L1"}, {"-seeds x", "give numbers"}, {"-methods L1;L1", "twice"}, {"-networks VGG16", "there are LeNet-5, LeNet-5-norm, ResNet-8-narrow"}, {"surplus", "no flag"}, {"-images 5", "1000 images"},
	} {
		_, err := parse(append(strings.Fields(c.args), "-dir", "x"))
		if c.args == "surplus" {
			_, err = parse(strings.Fields(c.args))
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.args, err, c.want)
		}
	}
}

// record has an accuracy on test data and, where there are more, on validation data after 0, 10, … steps of fine-tuning.
func record(method string, seed int64, accuracy float64, course ...float64) report.Record {
	r := report.Record{Seed: seed, Labels: map[string]string{"study": "s", "network": "LeNet-5", "data": "MNIST", "method": method, "device": "xla:cpu"},
		Values: map[string]float64{"accuracy": accuracy, "macs": 0.25, "params": 0.5, "budget": 0.25, "tune": 100, "choosing": 0}}
	for i, x := range course {
		r.Values[tuned(10*i)] = x
	}
	return r
}

// Differences to random are paired by seed; what failed counts, in no mean; what was refused says why.
func TestTables(t *testing.T) {
	failed, refused, dense := record("L1", 3, 0), record("slimming", 1, 0), record("dense", 1, 0.99)
	failed.Labels["failed"], failed.Values = "NaN", map[string]float64{"choosing": 0}
	refused.Labels["refused"], refused.Values = "no gains", map[string]float64{}
	dense.Values["macs"], dense.Values["params"] = 1, 1
	delete(dense.Values, "choosing")
	gal := record("GAL", 2, 0.95, 0.70, 0.95, 0.94)
	gal.Values["choosing"] = 30
	again := record(random, 1, 0.91, 0.15, 0.85, 0.91) // a second draw: with the first 90% after 10%
	again.Values["draw"] = 2
	all := tables([]report.Record{dense, record(random, 1, 0.89, 0.05, 0.75, 0.89), again, record(random, 2, 0.92, 0.20, 0.80, 0.92), record(random, 3, 0.94, 0.30, 0.80, 0.94), record(longer, 2, 0.93),
		record("L1", 1, 0.91, 0.40, 0.81, 0.89), record("L1", 2, 0.94, 0.50, 0.83, 0.95), failed, refused, record("FPGM", 1, 0.9, 0.5, 0.9, 0.9), record("FPGM", 2, 0.92, 0.6, 0.71, 0.93), gal})
	if len(all) != 2 {
		t.Fatalf("%d tables, want two", len(all))
	}
	want := [][]any{
		{"dense", 100.0, 100.0, nil, "", "99.00", "+9.00", "", 1, 0},
		{"random", 25.0, 50.0, 0, "20.00 ± 10.00", "92.00 ± 2.00", "", "-1.00", 3, 0},
		{"random, longer", 25.0, 50.0, 0, "", "93.00", "+1.00", "", 1, 0},
		{"L1", 25.0, 50.0, 0, "45.00 ± 7.07", "92.50 ± 2.12", "+1.50 [-4.85, +7.85]", "+1.00", 3, 1},
		{"FPGM", 25.0, 50.0, 0, "55.00 ± 7.07", "91.00 ± 1.41", "+0.00 [+0.00, +0.00]", "-1.00", 2, 0},
		{"slimming", nil, nil, nil, "", "refused: no gains", "", "", nil, nil},
		{"GAL", 25.0, 50.0, 30, "70.00", "95.00", "+3.00", "+2.00", 1, 0},
	}
	if diff := cmp.Diff(want, all[0].Rows); diff != "" {
		t.Errorf("rows (-want +got)\n%s", diff)
	}
	course := [][]any{
		{"random", "20.00 ± 10.00%", "80.00 ± 0.00%", "92.00 ± 2.00%"},
		{"L1", "+30.00 ± 0.00", "+2.00 ± 12.71", "+1.00 ± 25.41"},
		{"FPGM", "+40.00 ± 0.00", "+0.50 ± 120.71", "+0.50 ± 6.35"},
		{"GAL", "+50.00", "+15.00", "+2.00"},
	}
	if diff := cmp.Diff(course, all[1].Rows); diff != "" {
		t.Errorf("course (-want +got)\n%s", diff)
	}
	if want := "until then: L1 (0); FPGM (0); GAL (never)."; !strings.HasSuffix(all[1].Caption, want) { // of one seed there is no interval
		t.Errorf("%q does not end with %q", all[1].Caption, want)
	}
}

// The committed tables are those of the committed records.
func TestCommitted(t *testing.T) { benchtest.Page(t, "structured", head, tables) }

// Three differences of 1, 2 and 3 points: a mean of 2, and 4.303/√3 around it.
func TestInterval(t *testing.T) {
	if got, want := interval([]float64{1, 2, 3}), "+2.00 [-0.48, +4.48]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := interval([]float64{1}), "+1.00"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// tiny is a network with normalisation.
func tiny(s *model.Scope, x *graph.Node) *graph.Node {
	for _, name := range []string{"a", "b"} {
		x = layers.Convolution(s.At("%s", name), x).Channels(8).KernelSize(3).Strides(2).PadSame().UseBias(false).Done()
		x = activation.Relu(norm.BatchNorm(s.At("%s", name), x, -1).Momentum(0.9).Done())
	}
	return layers.Dense(s.At("output"), graph.ReduceMean(x, 1, 2), true, 10)
}

// The methods that need normalisation, or train before they choose, come to a network of the size that was asked for, and are tuned for the steps that all have.
func TestMeasure(t *testing.T) {
	data, err := synth.Digits(synth.Config{Train: 256, Validation: 64, Test: 64, Batch: 32})
	if err != nil {
		t.Fatal(err)
	}
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	p := plan{12, 0.05, 1e-4}
	st := study{network: nets.Network{Name: "tiny", Input: []int{28, 28, 1}, Model: tiny}, data: "drawn digits", train: data.Train, validation: data.Validation, test: data.Test, macs: 0.5, dense: p, tune: p,
		slimming: 1e-2, throughout: 1e-2, lasso: 1e-4, sparsity: 0.05, prepare: 4}
	j := &job{ctx: t.Context(), backend: b, study: st, seed: 1, draw: 1, dir: t.TempDir()}
	for name, choosing := range map[string]float64{"slimming": 4, throughout: 0, throughout + ", uniform": 0, "group lasso": 4, "growing": 4, "SCOP": 4, "PFP, sampled": 0, "ThiNet": 0} {
		r, err := j.measure(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v := r.Values; r.Step != 12 || v["choosing"] != choosing || v["macs"] > 0.5 || v["macs"] < 0.2 || v["accuracy"] <= 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

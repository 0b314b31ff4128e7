package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/report"
)

// A comparison from end to end: a record for each method, at equal work; a second time nothing is computed again.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	args := []string{"-fast", "-networks", "LeNet-5", "-methods", "random,FPGM,slimming,PFP,GAL,scratch", "-dir", dir, "-json", filepath.Join(dir, "out.jsonl")}
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
		if want := map[bool]int{true: 48, false: 24}[r.Labels["method"] == scratch]; r.Step != want {
			t.Errorf("%s took %d steps after the dense network, want %d", r.Labels["method"], r.Step, want)
		}
	}
	if diff := cmp.Diff([]string{"dense", "random", "FPGM", "slimming", "PFP", "GAL", "scratch"}, methods); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
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
}

func TestFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-methods none", "there are random, L1"}, {"-seeds x", "give numbers"}, {"-networks VGG16", "there are LeNet-5"}, {"surplus", "no flag"}, {"-images 5", "1000 images"},
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

// Three differences of 1, 2 and 3 points: a mean of 2, and 4.303/√3 around it.
func TestInterval(t *testing.T) {
	if got, want := interval([]float64{1, 2, 3}), "+2.00 [-0.48, +4.48]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := interval([]float64{1}), "+1.00"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

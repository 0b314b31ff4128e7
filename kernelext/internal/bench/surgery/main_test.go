package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/report"
)

func record(width string, ratio, low, high float64) report.Record {
	return report.Record{Labels: map[string]string{"network": "N", "batch": "1", "width": width},
		Values: map[string]float64{"macs_share": 0.5, "ratio": ratio, "ratio_low": low, "ratio_high": high}}
}

// A fall is claimed only where the interval excludes that there is none, and what does not fall is said.
func TestVerdicts(t *testing.T) {
	got := verdicts([]report.Record{record("before", 1, 1, 1), record("a", 0.6, 0.5, 0.7), record("b", 1.3, 1.2, 1.4), record("c", 0.9, 0.7, 1.1)})
	want := []string{
		"N, batch 1, a: with 50.0% of the MACs, latency falls to 60%.",
		"N, batch 1, b: with 50.0% of the MACs, latency does not fall: it rises to 130%.",
		"N, batch 1, c: with 50.0% of the MACs, no fall of latency is shown: 90%, and the interval holds 100%.",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A small network from end to end: a record for each batch and width, and one of what surgery takes.
func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records.jsonl")
	if err := run(t.Context(), []string{"-networks", "LeNet-5", "-batches", "1,2", "-rounds", "6", "-large", "LeNet-5", "-json", file}); err != nil {
		t.Fatal(err)
	}
	records, err := report.ReadRecords(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, r := range records {
		if r.Labels["width"] == "" {
			if r.Values["weights_bytes"] != 4*431080 || r.Values["peak_bytes"] < 0 || r.Values["groups"] != 3 {
				t.Errorf("resources: %+v", r)
			}
			continue
		}
		seen[r.Labels["batch"]+" "+r.Labels["width"]]++
		if v := r.Values; r.Labels["width"] != "before" && !(v["macs_share"] <= 0.5 || r.Labels["width"] != "any width") || v["median_seconds"] <= 0 {
			t.Errorf("%+v", r)
		}
	}
	want := map[string]int{"1 before": 1, "1 any width": 1, "1 multiples of 8": 1, "1 multiples of 16": 1, "2 before": 1, "2 any width": 1, "2 multiples of 8": 1, "2 multiples of 16": 1}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("records (-want +got)\n%s", diff)
	}
}

// Wrong flags are refused with what to do.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-networks", "AlexNet"}, "AlexNet"}, {[]string{"-batches", "1,x"}, `"x"`}, {[]string{"-batches", "0"}, `"0"`}, {[]string{"-macs", "1"}, "between 0 and 1"},
		{[]string{"-rounds", "1"}, "at least 6"}, {[]string{"-large", "AlexNet"}, "AlexNet"}, {[]string{"more"}, `"more"`},
	} {
		if _, err := parse(c.args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want an error with %s", c.args, err, c.want)
		}
	}
	s, err := parse(nil)
	if err != nil || len(s.networks) != 5 || s.large.Name != "ResNet-50" {
		t.Errorf("without flags: %+v, %v", s, err)
	}
}

// Memory that is taken shows in the peak, and is forgotten when it is reset.
func TestPeak(t *testing.T) {
	if _, err := os.Stat("/proc/self/clear_refs"); err != nil {
		t.Skip("the kernel does not tell the peak of memory here")
	}
	before, err := resetPeak()
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	taken := make([]byte, size)
	for i := 0; i < len(taken); i += 4096 {
		taken[i] = 1
	}
	after, err := peak()
	if err != nil {
		t.Fatal(err)
	}
	if after-before < size*9/10 || taken[4096] != 1 {
		t.Errorf("the peak rose by %d bytes when %d were taken", after-before, size)
	}
}

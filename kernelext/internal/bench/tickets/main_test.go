package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/bench/benchtest"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/report"
)

// The fast mode goes through all of it: it trains, is loaded the second time, writes the same records, and prints them without training.
func TestFast(t *testing.T) {
	dir := t.TempDir()
	json, curves, masks := filepath.Join(dir, "tickets.json"), filepath.Join(dir, "curves.json"), filepath.Join(dir, "masks")
	args := func(more ...string) []string {
		return append([]string{"-fast", "-dir", filepath.Join(dir, "runs"), "-json", json, "-curves", curves, "-masks", masks}, more...)
	}
	// Two processes take a trial each; the third finds all of it done.
	for _, seed := range []string{"1", "2"} {
		if err := run(t.Context(), args("-seeds", seed), io.Discard, t.Output()); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(json)
	if err != nil {
		t.Fatal(err)
	}
	var table, log bytes.Buffer
	if err := run(t.Context(), args(), &table, &log); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(log.String(), "; loaded\n"); got != 14 {
		t.Errorf("%d runs of 14 were loaded:\n%s", got, log.String())
	}
	again, err := os.ReadFile(json)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(written), string(again)); diff != "" {
		t.Errorf("records (-first +second):\n%s", diff)
	}
	records, err := report.ReadRecords(json)
	if err != nil || len(records) != 14 {
		t.Fatalf("%d records, want 14: %v", len(records), err)
	}
	for _, r := range records {
		for _, value := range []string{"earlyStop", "validationLoss", "validationAccuracy", "testAccuracy", "testAccuracyEnd", "density", "failed"} {
			if _, found := r.Values[value]; !found {
				t.Errorf("trial %d, round %v, %s: no %s", r.Seed, r.Values["round"], r.Labels["branch"], value)
			}
		}
	}
	lines, err := report.ReadRecords(curves)
	if err != nil || len(lines) != 14 {
		t.Fatalf("%d curves, want 14: %v", len(lines), err)
	}
	for i, c := range lines {
		if c.Seed != records[i].Seed || c.Labels["branch"] != records[i].Labels["branch"] || len(c.Values) != 3 || c.Values["60"] != records[i].Values["validationAccuracyEnd"] {
			t.Errorf("curve %d is %+v, of the record %+v", i, c, records[i])
		}
	}
	files, _ := filepath.Glob(filepath.Join(masks, "*"))
	if len(files) != 6 {
		t.Errorf("files of masks: %v, want 6", files)
	}
	var printed bytes.Buffer
	if err := run(t.Context(), []string{"-print", "-json", json}, &printed, io.Discard); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(table.String(), printed.String()); diff != "" {
		t.Errorf("(-after training +printed):\n%s", diff)
	}
	if !strings.Contains(printed.String(), "accuracy, 51.3% minus re-initialised") {
		t.Errorf("no comparison of pairs in:\n%s", printed.String())
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, []string{"-fast", "-dir", t.TempDir()}, io.Discard, io.Discard)
	var stopped *experiment.InterruptedError
	if !errors.As(err, &stopped) {
		t.Errorf("got %v, want an *experiment.InterruptedError", err)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"-seeds", "1,1"}, {"-seeds", "a"}, {"-rungs", "-2"}, {"-steps", "-1"}, {"-print"}, {"more"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// The first trial is done, but for what tells least, before the second begins.
func TestOrder(t *testing.T) {
	o, err := parse([]string{"-seeds", "3,5"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	jobs := o.jobs()
	if len(jobs) != 2*(21+5+4) {
		t.Errorf("%d jobs, want 60", len(jobs))
	}
	for i, j := range jobs {
		if want := map[bool]int64{true: 3, false: 5}[i < 21]; i < 42 && j.seed != want {
			t.Errorf("job %d is of trial %d, want %d", i, j.seed, want)
		}
	}
	if last := jobs[20]; last.round != 15 || last.branch.Name != "reinit" {
		t.Errorf("the first part ends with %+v", last)
	}
}

// Hand-computed: two trials, one of which has a run that failed.
func TestTables(t *testing.T) {
	record := func(seed int64, round int, branch string, stop, accuracy float64) report.Record {
		return report.Record{Seed: seed, Labels: map[string]string{"branch": branch}, Values: map[string]float64{
			"round": float64(round), "density": 0.5, "earlyStop": stop, "testAccuracy": accuracy, "testAccuracyEnd": accuracy, "validationLoss": 1}}
	}
	failed := report.Record{Seed: 3, Labels: map[string]string{"branch": "ticket"}, Values: map[string]float64{"round": 7, "density": 0.5, "failed": 1}}
	all := collect([]report.Record{
		record(1, 0, "ticket", 1000, 0.9), record(2, 0, "ticket", 2000, 0.9), record(3, 0, "ticket", 5000, 0.9),
		record(1, 7, "ticket", 500, 0.93), record(2, 7, "ticket", 1400, 0.95), failed,
		record(1, 7, "reinit", 500, 0.92), record(2, 7, "reinit", 500, 0.92), record(3, 7, "reinit", 500, 0.1),
	})
	runs, err := all.runs().Cells()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"50.0", "ticket", "3", "0", "2667 ± 2082", "1.0000 ± 0.0000", "90.00 ± 0.00", "90.00 ± 0.00"},
		{"50.0", "ticket", "3", "1", "950 ± 636", "1.0000 ± 0.0000", "94.00 ± 1.41", "94.00 ± 1.41"},
		{"50.0", "reinit", "3", "0", "500 ± 0", "1.0000 ± 0.0000", "64.67 ± 47.34", "64.67 ± 47.34"},
	}
	if diff := cmp.Diff(want, runs); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	tests, err := all.tests().Cells()
	if err != nil {
		t.Fatal(err)
	}
	want = [][]string{
		// 950 over 1500, residuals ∓0.0889: 0.633 ± 12.706·0.0889; 0.5 and 0.7: 0.6 ± 12.706·0.1; 1 and 3 points: 2 ± 12.706·1, t = 2, p = 0.2952.
		{"early stop, 50.0% over dense, of the means", "2", "0.633", "-0.496 to 1.763", "", "≤ 0.75 (paper 0.62)", "yes"},
		{"the same, mean of each trial's", "2", "0.600", "-0.671 to 1.871", "", "", ""},
		{"accuracy, 50.0% minus re-initialised", "2", "2.000", "-10.706 to 14.706", "0.2952", "> 0, p < 0.05", "no"},
	}
	if diff := cmp.Diff(want, tests); diff != "" {
		t.Errorf("tests (-want +got):\n%s", diff)
	}
}

// A trial that drew several times has the mean of the draws that did not fail, and one of which all failed has none.
func TestDraws(t *testing.T) {
	draw := func(seed int64, values map[string]float64) report.Record {
		values["round"] = 7
		return report.Record{Seed: seed, Labels: map[string]string{"branch": "reinit"}, Values: values}
	}
	all := collect([]report.Record{
		draw(1, map[string]float64{"earlyStop": 500}), draw(1, map[string]float64{"earlyStop": 900}), draw(1, map[string]float64{"failed": 1}),
		draw(2, map[string]float64{"earlyStop": 300}), draw(3, map[string]float64{"failed": 1}),
	})
	if diff := cmp.Diff(map[int64]float64{1: 700, 2: 300}, all.of(kind{7, "reinit"}, "earlyStop")); diff != "" {
		t.Errorf("by trial (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]float64{70000, 30000}, all.sample(kind{7, "reinit"}, "earlyStop", 100)); diff != "" {
		t.Errorf("a hundred times (-want +got):\n%s", diff)
	}
}

// The committed tables are those of the committed records.
func TestCommittedTables(t *testing.T) { benchtest.Page(t, "tickets", head, tables) }

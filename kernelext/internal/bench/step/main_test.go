package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/kernelext/internal/bench"
)

// Ratios are taken within rounds: a round that is twice as slow for all changes none.
func TestTable(t *testing.T) {
	got := table(measured{
		Batch: 60, Samples: map[string]int{"base": 200}, Names: []string{"base", "half"},
		Seconds: map[string][]float64{"base": {0.002, 0.004, 0.003}, "half": {0.001, 0.002, 0.0015}},
	})
	want := [][]any{
		{"base", 2.0, 3.0, 1.0, "1.00 to 1.00", 1.0},
		{"half", 1.0, 1.5, 0.5, "0.50 to 0.50", 0.5},
	}
	if diff := cmp.Diff(want, got.Rows); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A peer that answers is obeyed; one that says something else is an error.
func TestTraining(t *testing.T) {
	p, err := bench.StartPeer(t.Context(), "peer", "/bin/sh", "-c", "echo 1.2.3; while read n; do test $n = 7 && echo done || echo no; done")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if err := training(p)(7); err != nil {
		t.Error(err)
	}
	if err := training(p)(8); err == nil {
		t.Error("another answer than done is no error")
	}
}

// A goal's ratio is taken over the fastest of what it names, round by round; what was not measured is neither reached nor missed.
func TestGoals(t *testing.T) {
	rows := map[string][]any{}
	for _, row := range reached(measured{
		First: []float64{0.9, 0.7, 0.75},
		Seconds: map[string][]float64{
			jaxMLP: {2, 4, 3}, ourMLP: {1, 3, 2}, maskedMLP: {1, 3.3, 2.2},
			torchConv: {10, 20, 30}, torchLast: {20, 10, 30}, ourLeNet5: {9, 9, 27},
		},
	}).Rows {
		rows[row[0].(string)] = row
	}
	for what, want := range map[string][]any{
		"LeNet-300-100":    {2.0 / 3, 0.80, "yes"},
		"LeNet-5":          {0.9, 0.95, "yes"},
		"90% masked":       {1.1, 1.03, "no"},
		"first step, cold": {0.75, 0.8, "yes"},
	} {
		row := rows[what]
		if diff := cmp.Diff(want, []any{row[1], row[3], row[5]}, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	if got := rows["4 seeds together, each"][5]; got != "not measured" {
		t.Errorf("seeds that were not measured: %v", got)
	}
}

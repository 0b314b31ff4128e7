package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Ratios are taken within rounds: a round that is twice as slow for all changes none.
func TestTable(t *testing.T) {
	got := table(measured{
		Batch: 60, Steps: 200, Names: []string{"base", "half"},
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

// A peer that answers is obeyed; one that dies, or says something else, is an error.
func TestPeer(t *testing.T) {
	interpreter := func(script string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "python")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p, err := startJAX(t.Context(), interpreter("echo 1.2.3; while read n; do test $n = 7 && echo done || echo no; done"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if p.version != "1.2.3" {
		t.Errorf("version %q, want 1.2.3", p.version)
	}
	if err := p.steps(7); err != nil {
		t.Error(err)
	}
	if err := p.steps(8); err == nil {
		t.Error("another answer than done is no error")
	}
	if _, err := startJAX(t.Context(), interpreter("exit 1")); err == nil {
		t.Error("a peer that dies is no error")
	}
	if _, err := startJAX(t.Context(), filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a peer that is not there is no error")
	}
}

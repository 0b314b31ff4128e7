package cell

import (
	"bytes"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		xs   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(test.xs); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.xs, got, test.want)
		}
	}
}

func TestTable(t *testing.T) {
	ours := func(seconds float64) sample { return sample{setup.KernelName, "trivial", seconds} }
	got := table([]sample{ours(0.5), {"plain", "trivial", 1}, ours(0.25), {"plain", "trivial", 0.5}, ours(0.375), {"plain", "GoMLX", 1},
		{pythonName, "trivial", 0.0078125}})
	// GoMLX was not measured in our kernel, so there is nothing to compare.
	want := [][]any{{"trivial", 0.375, 0.25, 0.5, 0.75, 0.5, 0.0078125, budgetTrivial, 3}}
	if diff := cmp.Diff(want, got.Rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	var text bytes.Buffer
	if err := got.Text(&text); err != nil || !strings.Contains(text.String(), "0.35") {
		t.Errorf("text lacks the budget (%v):\n%s", err, &text)
	}
}

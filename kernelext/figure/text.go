package figure

import (
	"fmt"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// maxTextRows is how many rows of numbers a figure's text form has.
const maxTextRows = 24

// thin returns at most most of the indices 0 … n-1, evenly spread, the first and the last among them.
func thin(n, most int) []int {
	if n <= most {
		most = n
	}
	out := make([]int, most)
	for i := range out {
		if most > 1 {
			out[i] = i * (n - 1) / (most - 1)
		}
	}
	return out
}

// column is a column of numbers, in percent if they are fractions.
func column(name string, percent bool) report.Column {
	if percent {
		return report.Column{Name: name, Unit: "%", Format: "%.2f"}
	}
	return report.Column{Name: name, Format: "%.5g"}
}

func cell(v float64, percent bool) float64 {
	if percent {
		return 100 * v
	}
	return v
}

// tableText writes t, whose rows are taken from total ones.
func tableText(t report.Table, total int) string {
	var b strings.Builder
	if err := t.Text(&b); err != nil { // a strings.Builder takes all
		fmt.Fprintf(&b, "%v\n", err)
	}
	if n := len(t.Rows); n < total {
		fmt.Fprintf(&b, "(%d of %d rows)\n", n, total)
	}
	return b.String()
}

// axisText is an axis in words.
func axisText(axis, label string, log bool) string {
	if label == "" && !log {
		return ""
	}
	s := axis + ": " + label
	if log {
		s = strings.TrimSuffix(s, " ") + " (logarithmic)"
	}
	return s + "\n"
}

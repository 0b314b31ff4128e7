package figure

import (
	"fmt"
	"math"
	"slices"
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

// column is a column of numbers like values: with as many decimals as the largest needs, in percent if they are fractions.
func column(name string, percent bool, values []float64) report.Column {
	c := report.Column{Name: name, Format: "%.4g"}
	if percent {
		c.Unit, c.Format = "%", "%.2f"
		return c
	}
	smallest, largest, whole := math.Inf(1), 0.0, true
	for _, v := range values {
		largest = math.Max(largest, math.Abs(v))
		if v != 0 {
			smallest = math.Min(smallest, math.Abs(v))
		}
		whole = whole && v == math.Trunc(v)
	}
	switch {
	case largest == 0 || whole && largest < 1e15:
		c.Format = "%.0f"
	case largest < 1e6 && largest > 1e-3 && smallest > largest/1e5: // else digits would be lost, or many zeros written
		c.Format = fmt.Sprintf("%%.%df", max(0, 4-exponent(largest)))
	}
	return c
}

func cell(v float64, percent bool) float64 {
	if percent {
		return 100 * v
	}
	return v
}

// withBands returns a column for a series, a cell for each of the given points: its value, followed by the ends of its error band.
func withBands(name string, s Series, percent bool, points []int) (report.Column, []any) {
	c := column(name, percent, slices.Concat(s.Y, s.Low, s.High))
	var cells []any
	if s.Low == nil {
		for _, j := range points {
			cells = append(cells, cell(s.Y[j], percent))
		}
		return c, cells
	}
	// As a text, so that a series has one column; padded, so that numbers stand below each other.
	var parts [][3]string
	var widths [3]int
	for _, j := range points {
		var p [3]string
		for k, v := range []float64{s.Y[j], s.Low[j], s.High[j]} {
			p[k] = fmt.Sprintf(c.Format, cell(v, percent))
			widths[k] = max(widths[k], len(p[k]))
		}
		parts = append(parts, p)
	}
	for _, p := range parts {
		cells = append(cells, fmt.Sprintf("%*s [%*s, %*s]", widths[0], p[0], widths[1], p[1], widths[2], p[2]))
	}
	c.Format = ""
	return c, cells
}

// bandText says what the brackets of withBands are.
func bandText(series []Series) string {
	if slices.ContainsFunc(series, func(s Series) bool { return s.Low != nil }) {
		return "in brackets: from the lower to the upper end of the error band\n"
	}
	return ""
}

// transpose makes rows of columns.
func transpose(columns [][]any) [][]any {
	rows := make([][]any, len(columns[0]))
	for _, column := range columns {
		for i, c := range column {
			rows[i] = append(rows[i], c)
		}
	}
	return rows
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
	if log && !strings.Contains(label, "logarithmic") {
		s = strings.TrimSuffix(s, " ") + " (logarithmic)"
	}
	return s + "\n"
}

// tableOf is a table with those columns.
func tableOf(columns ...report.Column) report.Table { return report.Table{Columns: columns} }

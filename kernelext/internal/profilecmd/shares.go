package main

import (
	"strings"

	"github.com/espalier-ml/espalier/kernelext/figure"
	"github.com/espalier-ml/espalier/pkg/report"
)

// shares draws which part of a network has which share of its parameters, multiply-accumulates and time, of the records of a profile that was measured. A part is what lies under the first name of
// the layers' paths, such as a block; products of activations are one part.
func shares(name string, records []report.Record) figure.Bar {
	b := figure.Bar{Title: name + ": where it lies, and where the time goes", YLabel: "share", YPercent: true, Width: 900,
		Caption: "Time: layers timed alone, so that the shares are of their sum."}
	values := []struct{ name, key string }{{"parameters", "parameters"}, {"MACs", "MACs"}, {"time", "median seconds"}}
	sums := make([]float64, len(values))
	at := map[string]int{}
	for _, v := range values {
		b.Series = append(b.Series, figure.Series{Name: v.name})
	}
	for _, r := range records {
		part, _, _ := strings.Cut(r.Labels["layer"], "/")
		switch {
		case part == "total":
			continue
		case r.Labels["kind"] == "product":
			part = "products"
		}
		if _, known := at[part]; !known {
			at[part] = len(b.Labels)
			b.Labels = append(b.Labels, part)
			for i := range b.Series {
				b.Series[i].Y = append(b.Series[i].Y, 0)
			}
		}
		for i, v := range values {
			b.Series[i].Y[at[part]] += r.Values[v.key]
			sums[i] += r.Values[v.key]
		}
	}
	for i := range b.Series {
		for j := range b.Series[i].Y {
			if sums[i] > 0 {
				b.Series[i].Y[j] /= sums[i]
			}
		}
	}
	return b
}

package profile

import "github.com/espalier-ml/espalier/pkg/report"

// Records returns the profile as plain data, a record for each layer and one for the whole network, whose label "layer" is "total": what a program reads, and what a figure is drawn of. What was
// not measured is left out. recipe names the network.
func (p Profile) Records(recipe string) []report.Record {
	record := func(labels map[string]string, l Layer) report.Record {
		values := map[string]float64{"parameters": float64(l.Params), "trained": float64(l.Params - l.Statistics), "not zero": float64(l.NonZero), "MACs": float64(l.MACs),
			"MACs without zeros": float64(l.EffectiveMACs), "bytes": float64(l.Bytes), "CSR bytes": float64(l.CSRBytes), "activation bytes": float64(l.Activations)}
		if p.GzipBytes() > 0 {
			values["gzip bytes"] = float64(l.GzipBytes)
		}
		if t := l.Latency; t.Rounds > 0 {
			values["least seconds"], values["median seconds"], values["90% seconds"] = t.Min.Seconds(), t.P50.Seconds(), t.P90.Seconds()
		}
		return report.Record{Recipe: recipe, Labels: labels, Values: values}
	}
	var records []report.Record
	for _, l := range p.Layers {
		records = append(records, record(map[string]string{"layer": short(l.Path), "kind": l.Kind}, l))
	}
	total := record(map[string]string{"layer": "total"}, p.total())
	total.Values["peak activation bytes"] = float64(p.Activations.Peak)
	return append(records, total)
}

// total is the whole network as if it were a layer.
func (p Profile) total() Layer {
	return Layer{Params: p.Params(), Statistics: p.Params() - p.Trained(), NonZero: p.NonZero(), MACs: p.MACs(), EffectiveMACs: p.EffectiveMACs(), Bytes: p.Bytes(), CSRBytes: p.CSRBytes(),
		GzipBytes: p.GzipBytes(), Activations: p.Activations.Sum, Latency: p.Latency}
}

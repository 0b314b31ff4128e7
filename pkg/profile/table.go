package profile

import (
	"fmt"
	"strings"
	"time"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Table returns the profile as a table with totals. Where latency was measured, the other measures stand there too.
func (p Profile) Table() report.Table {
	inputs := "one input"
	if p.Batch > 1 {
		inputs = fmt.Sprintf("%d inputs together", p.Batch)
	}
	t := report.Table{
		Title: fmt.Sprintf("%s parameters, %sB, %sMACs = %sFLOPs", report.Count(p.Params()), scaled(p.Bytes(), 1), scaled(p.MACs(), 3), scaled(p.FLOPs(), 2)),
		Columns: []report.Column{{Name: "layer"}, {Name: "kind"}, {Name: "output"}, {Name: "parameters"}, {Name: "not zero"}, {Name: "MACs"},
			{Name: "MACs without zeros"}, {Name: "size", Unit: "MB", Format: "%.3f"}},
		Caption: "MACs are multiply-accumulates for " + inputs + ", without the additions of biases; FLOPs = 2 MACs. MB = 10⁶ bytes.",
	}
	measured, gzip := p.Latency.Rounds > 0, p.GzipBytes() > 0
	if measured {
		t.Columns = append(t.Columns, report.Column{Name: "CSR", Unit: "MB", Format: "%.3f"})
		if gzip {
			t.Columns = append(t.Columns, report.Column{Name: "gzip", Unit: "MB", Format: "%.3f"})
		}
		t.Columns = append(t.Columns, report.Column{Name: "activations", Unit: "MB", Format: "%.3f"}, report.Column{Name: "median", Unit: "ms", Format: "%.3f"},
			report.Column{Name: "90%", Unit: "ms", Format: "%.3f"})
		t.Caption += fmt.Sprintf(" CSR: matrices as compressed sparse rows. Activations: what a layer writes; the most at any time is %sB. Latency: %d rounds. A layer is timed alone, %.3f ms of it the call; "+
			"the total is that of the whole network, not the sum: alone, layers are not fused, and find their weights in the cache.", scaled(p.Activations.Peak, 1), p.Latency.Rounds, milliseconds(p.Dispatch.P50))
	}
	row := func(name, kind, out string, l Layer) {
		cells := []any{name, kind, out, report.Count(l.Params), report.Count(l.NonZero), report.Count(l.MACs), report.Count(l.EffectiveMACs), megabytes(l.Bytes)}
		if measured {
			cells = append(cells, megabytes(l.CSRBytes))
			if gzip {
				cells = append(cells, megabytes(l.GzipBytes))
			}
			cells = append(cells, megabytes(l.Activations))
			if l.Latency.Rounds > 0 {
				cells = append(cells, milliseconds(l.Latency.P50), milliseconds(l.Latency.P90))
			} else {
				cells = append(cells, nil, nil)
			}
		}
		t.Rows = append(t.Rows, cells)
	}
	for _, l := range p.Layers {
		row(short(l.Path), l.Kind, strings.Trim(strings.ReplaceAll(fmt.Sprint(l.OutShape), " ", "×"), "[]"), l)
	}
	row("total", "", "", p.total())
	if len(p.Unknown) > 0 {
		t.Caption += " Not counted, for want of a rule: " + strings.Join(p.Unknown, ", ") + "."
	}
	if len(p.Untimed) > 0 {
		t.Caption += " Not timed alone: " + strings.Join(p.Untimed, "; ") + "."
	}
	return t
}

// short is the path of a layer as people read it.
func short(path string) string {
	if path == model.RootScopePath {
		return path
	}
	return strings.TrimPrefix(path, model.ScopeSeparator)
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// scaled writes a count with a prefix of the SI: 15.470 G.
func scaled(n int64, digits int) string {
	for _, unit := range []struct {
		prefix string
		size   float64
	}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
		if float64(n) >= unit.size {
			return fmt.Sprintf("%.*f %s", digits, float64(n)/unit.size, unit.prefix)
		}
	}
	return fmt.Sprintf("%d ", n)
}

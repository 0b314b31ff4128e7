package sensitivity

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/report"
)

// Curves is what a scan found. It is plain data: written as JSON and read back, it is the same.
type Curves struct {
	Recipe            string // its canonical name
	Seed              int64  // of the recipe and of the bootstrap
	Sparsities        []float64
	MinUnits, RoundTo int       // of the recipe
	Layers            []Layer   // all parameters that the recipe prunes, scanned or not
	Dense             []float64 // the loss of the network as it is, on each part of the data
	Curves            []Curve
}

// Layer is a parameter that can be pruned.
type Layer struct {
	Path        string `json:"path"`
	Units       int    `json:"units"`
	UnitSize    int    `json:"unit_size"`    // weights of a unit
	WeightBytes int    `json:"weight_bytes"` // bytes of a weight
	Alive       int    `json:"alive"`        // units that were alive before the scan
}

// Curve is the loss over the sparsity of one group.
type Curve struct {
	Group  string
	Paths  []string
	Points []Point // by rising sparsity; the first is the group as it was
}

// Point is one evaluation. The band is a 95% confidence interval of Increase, from a bootstrap over the parts of the data that is paired with the network as it is; it is
// NaN where there is one part only. It covers the choice of the validation data, and not that of the training run.
type Point struct {
	Asked                        float64   // the sparsity asked for
	Sparsity                     float64   // the share of the group's units that are dead: what was asked, rounded to units
	Kept                         []int     // living units, of each of the group's parameters
	UnitsRemoved, WeightsRemoved int       // by this point, of those alive before
	Losses                       []float64 // on each part of the data
	Loss, Increase, Low, High    float64   // mean loss; by how much it is more than before; its band
}

// layer returns the layer of a path. Curves that were checked have one for each path that they name.
func (c *Curves) layer(path string) Layer {
	return c.Layers[slices.IndexFunc(c.Layers, func(l Layer) bool { return l.Path == path })]
}

// kept returns how many units of each parameter are left when each loses a share: what prune.Pruner does with budget.Layerwise.
func (c *Curves) kept(paths []string, sparsity float64) []int {
	kept := make([]int, len(paths))
	for i, path := range paths {
		l := c.layer(path)
		k := max(budget.Keep(l.Units, sparsity), c.MinUnits)
		k += (c.RoundTo - k%c.RoundTo) % c.RoundTo
		kept[i] = min(k, l.Alive)
	}
	return kept
}

// sparsity returns the share of a group's units that are dead.
func (c *Curves) sparsity(paths []string, kept []int) float64 {
	left, all := 0, 0
	for i, path := range paths {
		left, all = left+kept[i], all+c.layer(path).Units
	}
	return float64(all-left) / float64(all)
}

// summarize fills in what follows from the losses.
func (c *Curves) summarize() {
	draws := resamples(len(c.Dense), c.Seed)
	dense := mean(c.Dense)
	for i := range c.Curves {
		for j := range c.Curves[i].Points {
			p := &c.Curves[i].Points[j]
			p.Loss = mean(p.Losses)
			p.Increase = p.Loss - dense
			if j == 0 {
				p.Increase = 0
			}
			p.Low, p.High = band(replicates(c.differences(*p), draws))
		}
	}
}

// differences returns by how much the loss of a point is more than before, on each part of the data.
func (c *Curves) differences(p Point) []float64 {
	d := make([]float64, len(p.Losses))
	for i, loss := range p.Losses {
		d[i] = loss - c.Dense[i]
	}
	return d
}

// Table returns how much the loss rises, a row for each group and a column for each sparsity asked for.
func (c *Curves) Table() report.Table {
	t := report.Table{Title: fmt.Sprintf("Loss added by pruning one group alone, by %s; without pruning it is %.4f", c.Recipe, mean(c.Dense)),
		Columns: []report.Column{{Name: "group"}, {Name: "weights"}}}
	for _, s := range c.Sparsities {
		t.Columns = append(t.Columns, report.Column{Name: fmt.Sprintf("%.4g%%", 100*s), Format: "%+.4f"})
	}
	for _, curve := range c.Curves {
		row := []any{curve.Group, report.Count(c.weights(curve.Paths))}
		for _, s := range c.Sparsities {
			var cell any
			for _, p := range curve.Points[1:] {
				if p.Asked == s {
					cell = p.Increase
				}
			}
			row = append(row, cell)
		}
		t.Rows = append(t.Rows, row)
	}
	t.Caption = fmt.Sprintf("Means over %d parts of the validation data. Empty: nothing more to remove than in the column before.", len(c.Dense))
	return t
}

// Details returns all points with their bands, a row each.
func (c *Curves) Details() report.Table {
	t := report.Table{Columns: []report.Column{{Name: "group"}, {Name: "sparsity", Unit: "%", Format: "%.2f"}, {Name: "units removed"}, {Name: "weights removed"},
		{Name: "loss", Format: "%.4f"}, {Name: "increase", Format: "%+.4f"}, {Name: "low", Format: "%+.4f"}, {Name: "high", Format: "%+.4f"}},
		Caption: fmt.Sprintf("Low and high bound the increase with 95%% confidence: paired bootstrap over %d parts of the validation data.", len(c.Dense))}
	for _, curve := range c.Curves {
		for _, p := range curve.Points {
			t.Rows = append(t.Rows, []any{curve.Group, 100 * p.Sparsity, report.Count(p.UnitsRemoved), report.Count(p.WeightsRemoved), p.Loss, p.Increase, p.Low, p.High})
		}
	}
	return t
}

// Records returns the points as records, with the label "group" and the values "sparsity", "asked", "loss", "increase", "low", "high", "units removed" and
// "weights removed".
func (c *Curves) Records() []report.Record {
	var records []report.Record
	for _, curve := range c.Curves {
		for _, p := range curve.Points {
			records = append(records, report.Record{Recipe: c.Recipe, Seed: c.Seed, Labels: map[string]string{"group": curve.Group}, Values: map[string]float64{
				"sparsity": p.Sparsity, "asked": p.Asked, "loss": p.Loss, "increase": p.Increase, "low": p.Low, "high": p.High,
				"units removed": float64(p.UnitsRemoved), "weights removed": float64(p.WeightsRemoved)}})
		}
	}
	return records
}

func (c *Curves) weights(paths []string) int {
	n := 0
	for _, path := range paths {
		l := c.layer(path)
		n += l.Units * l.UnitSize
	}
	return n
}

// names returns the groups.
func (c *Curves) names() []string {
	names := make([]string, len(c.Curves))
	for i, curve := range c.Curves {
		names[i] = curve.Group
	}
	return names
}

func mean(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}

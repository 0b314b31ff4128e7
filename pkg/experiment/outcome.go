package experiment

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Interval is a mean over seeds with its 95% confidence interval by Student's t.
type Interval struct {
	N               int
	Mean, Low, High float64 // Low and High are NaN for a single seed
}

// String is the mean ± half of the interval.
func (i Interval) String() string {
	if i.N < 2 {
		return fmt.Sprintf("%.2f", i.Mean)
	}
	return fmt.Sprintf("%.2f ± %.2f", i.Mean, i.High-i.Mean)
}

// Confidence returns the interval of a sample.
func Confidence(xs []float64) Interval {
	s := report.Summarize(xs)
	i := Interval{N: s.N, Mean: s.Mean, Low: math.NaN(), High: math.NaN()}
	if s.N > 1 {
		half := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(s.N - 1)}.Quantile(0.975) * s.StdErr
		i.Low, i.High = s.Mean-half, s.Mean+half
	}
	return i
}

// Of returns a contender's records at a sparsity, in the order of the seeds.
func (o *Outcome) Of(contender string, sparsity float64) []report.Record {
	var records []report.Record
	for _, r := range o.Records {
		if r.Recipe == contender && r.Values["sparsity"] == sparsity {
			records = append(records, r)
		}
	}
	return records
}

// values returns a value of a contender's records at a sparsity, by seed. Those that diverged have none.
func (o *Outcome) values(contender string, sparsity float64, value string) []float64 {
	var xs []float64
	for _, r := range o.Of(contender, sparsity) {
		if x, measured := r.Values[value]; measured {
			xs = append(xs, x)
		}
	}
	return xs
}

// At returns the mean and interval of a value ("accuracy", "difference", "loss", "speedup", …) of a contender at a sparsity.
func (o *Outcome) At(contender string, sparsity float64, value string) Interval {
	return Confidence(o.values(contender, sparsity, value))
}

// Sparsities returns those of the records, ascending.
func (o *Outcome) Sparsities() []float64 {
	var all []float64
	for _, r := range o.Records {
		if s := r.Values["sparsity"]; s != 0 && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return all
}

// Curve is a contender's line in a figure: X ascending, Y the mean over the seeds between Low and High, the 95% interval.
type Curve struct {
	Name            string
	X, Y, Low, High []float64
}

// Curve returns a value of a contender over x: "sparsity", "compression" or "speedup". The dense networks have one point.
func (o *Outcome) Curve(contender, x, y string) Curve {
	c := Curve{Name: contender}
	for _, s := range append([]float64{0}, o.Sparsities()...) {
		if len(o.values(contender, s, y)) == 0 {
			continue
		}
		at := o.At(contender, s, y)
		c.X, c.Y = append(c.X, o.At(contender, s, x).Mean), append(c.Y, at.Mean)
		if at.N < 2 {
			at.Low, at.High = at.Mean, at.Mean
		}
		c.Low, c.High = append(c.Low, at.Low), append(c.High, at.High)
	}
	return c
}

// Table returns the accuracies at a sparsity, in percent, best first among the contenders; the dense networks come first, and those of which runs diverged last. Nothing is singled out: what lies within
// the interval of another is no better. How many runs diverged is said; the mean is over the others, and so are the steps.
func (o *Outcome) Table(sparsity float64) report.Table {
	t := report.Table{
		Title: fmt.Sprintf("%.10g%% removed, accuracy on %s", 100*sparsity, o.Measured),
		Columns: []report.Column{{Name: "contender"}, {Name: "accuracy", Unit: "%"}, {Name: "minus dense", Unit: "points"}, {Name: "weights ÷", Format: "%.1f"},
			{Name: "MACs ÷", Format: "%.1f"}, {Name: "steps"}, {Name: "seeds"}},
		Caption: "Mean ± 95% confidence interval over the seeds, by Student's t; differences are paired by seed. Weights ÷: prunable weights over those that are left. MACs ÷: theoretical speed-up.",
	}
	if o.Fast {
		t.Caption += " A fast run, to try out: too few seeds or points to conclude from."
	}
	type line struct {
		name  string
		at    float64
		mean  float64
		dense bool
		whole bool // no run diverged: the mean of the others alone would be of those that had luck
	}
	var lines []line
	for _, name := range o.Contenders {
		at, dense := sparsity, false
		if len(o.values(name, 0, "accuracy")) > 0 {
			at, dense = 0, true
		}
		if len(o.Of(name, at)) > 0 {
			mean, n := math.Inf(-1), len(o.values(name, at, "accuracy")) // all diverged
			if n > 0 {
				mean = o.At(name, at, "accuracy").Mean
			}
			lines = append(lines, line{name, at, mean, dense, n == len(o.Of(name, at))})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		switch {
		case a.dense != b.dense:
			if a.dense {
				return -1
			}
			return 1
		case a.whole != b.whole && !a.dense:
			if a.whole {
				return -1
			}
			return 1
		case a.mean > b.mean && !a.dense:
			return -1
		case a.mean < b.mean && !a.dense:
			return 1
		}
		return 0
	})
	percent := func(xs []float64) []float64 {
		scaled := make([]float64, len(xs))
		for i, x := range xs {
			scaled[i] = 100 * x
		}
		return scaled
	}
	for _, l := range lines {
		accuracy := Confidence(percent(o.values(l.name, l.at, "accuracy")))
		var steps any
		for _, r := range o.Records {
			if _, came := r.Values["accuracy"]; came && r.Recipe == l.name && r.Values["sparsity"] == l.at {
				steps = r.Step
			}
		}
		diverged := len(o.Of(l.name, l.at)) - accuracy.N
		if accuracy.N == 0 {
			t.Rows = append(t.Rows, []any{l.name, "diverged", nil, nil, nil, steps, diverged})
			continue
		}
		text := accuracy.String()
		if diverged > 0 {
			text += fmt.Sprintf(" (%d more diverged)", diverged)
		}
		t.Rows = append(t.Rows, []any{l.name, text, Confidence(percent(o.values(l.name, l.at, "difference"))).String(),
			o.At(l.name, l.at, "compression").Mean, o.At(l.name, l.at, "speedup").Mean, steps, accuracy.N})
	}
	return t
}

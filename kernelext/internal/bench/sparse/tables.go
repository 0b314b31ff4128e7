package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// goal is a published figure.
type goal struct {
	study, method string
	density       float64
	accuracy      float64 // percent
	within        float64 // 0: to be reached; else: to be within so many points of it
	source        string
}

// control is the method that those in ahead have to be ahead of, by more than their spread.
const control = "static"

// ahead are the methods of a study that have to be ahead of its control, at the same density.
var ahead = map[string][]string{"cifar10": {"sparse-momentum", "sparse-momentum, ERK", "rigl"}}

// Where goals come from.
const (
	summary = "Dettmers & Zettlemoyer's results, MNIST_sparse_summary.csv"
	own     = "goal of this project"
)

var goals = append([]goal{
	{"lenet300", "sparse-momentum", 0.01, 97.53, 0, summary},
	{"lenet300", "sparse-momentum", 0.02, 98.20, 0, summary},
	{"lenet300", "sparse-momentum", 0.05, 98.53, 0, summary},
	{"lenet300", "sparse-momentum", 0.1, 98.67, 0, summary},
	{"lenet300", "sparse-momentum, ERK", 0.01, 97.7, 0, own},
	{"lenet300", "sparse-momentum, cosine", 0.01, 97.7, 0, own},
	{"lenet300", "ac/dc", 0.01, 97.7, 0, own},
	// DSR as its own authors have the network: with batch normalisation.
	{"lenet300-norm", "dsr", 0.01, 97.54, 0.15, summary},
	{"lenet300-norm", "dsr", 0.02, 98.14, 0.15, summary},
	{"lenet300-norm", "dsr", 0.05, 98.32, 0.15, summary},
	{"lenet300-norm", "dsr", 0.1, 98.44, 0.15, summary},
	{"lenet300", "set", 0.01, 95.80, 0.15, summary},
	{"lenet300", "set", 0.02, 97.74, 0.15, summary},
	{"lenet300", "set", 0.05, 98.14, 0.15, summary},
	{"lenet300", "set", 0.1, 98.39, 0.15, summary},
}, lenet5Goals()...)

// lenet5Goals are the errors of the authors' LeNet-5, held against their recipe and against ours.
func lenet5Goals() []goal {
	var all []goal
	for density, wrong := range map[float64]float64{0.005: 1.144, 0.01: 0.83, 0.02: 0.76, 0.05: 0.69} {
		for _, by := range [][2]string{{"lenet5", "sparse-momentum"}, {"lenet5", "sparse-momentum, ERK, warm-up"}, {"lenet5-long", "sparse-momentum, ERK, warm-up"}} {
			all = append(all, goal{by[0], by[1], density, 100 - wrong, 0, "the same, MNIST_compression_comparison_LeNet5.csv"})
		}
	}
	return all
}

// tables holds the records of each study against what was published: mean ± standard error, as there.
func tables(records []report.Record) []report.Table {
	var all []report.Table
	for _, s := range studies {
		t := report.Table{
			Title: fmt.Sprintf("%s on %s, %d epochs", strings.TrimSpace(s.network+" "+s.variant), map[string]string{"mnist": "MNIST", "cifar10": "CIFAR-10 (image folder)"}[s.data], s.epochs),
			Columns: []report.Column{{Name: "method"}, {Name: "weights left", Unit: "%", Format: "%g"}, {Name: "test accuracy", Unit: "%"}, {Name: "validation", Unit: "%"},
				{Name: "seeds"}, {Name: "failed"}, {Name: "to meet", Unit: "%"}, {Name: "met"}},
			Caption: "Mean ± standard error over the seeds, as published. A run whose loss became NaN counts as failed, and its accuracy is not in the mean.",
		}
		for _, one := range s.runs {
			for _, density := range one.densities {
				test, validation, failed := results(records, s.name, one.method.name, density)
				if len(validation)+failed == 0 {
					continue
				}
				row := []any{one.method.name, 100 * density, text(test), text(validation), len(validation), failed, nil, nil}
				if i := slices.IndexFunc(goals, func(g goal) bool { return g.study == s.name && g.method == one.method.name && g.density == density }); i >= 0 {
					row[6] = fmt.Sprintf("≥ %.2f", goals[i].accuracy)
					if goals[i].within > 0 {
						row[6] = fmt.Sprintf("%.2f ± %.2f", goals[i].accuracy, goals[i].within)
					}
					row[7] = goals[i].verdict(test)
				}
				if slices.Contains(ahead[s.name], one.method.name) {
					base, _, _ := results(records, s.name, control, density)
					row[6], row[7] = "> "+control+", by more than the spread", lead(test, base)
				}
				t.Rows = append(t.Rows, row)
			}
		}
		if len(t.Rows) > 0 {
			all = append(all, t)
		}
	}
	return all
}

// results are those of a method at a density over the seeds, in percent, and how many of its runs failed.
func results(records []report.Record, study, method string, density float64) (test, validation []float64, failed int) {
	for _, r := range records {
		if r.Labels["kind"] == "layers" || r.Labels["study"] != study || r.Recipe != method || r.Values["density"] != density {
			continue
		}
		if r.Labels["failed"] != "" {
			failed++
			continue
		}
		validation = append(validation, 100*r.Values["validation"])
		if x, measured := r.Values["test"]; measured {
			test = append(test, 100*x)
		}
	}
	return test, validation, failed
}

// lead tells whether results are ahead of a control's by more than their spread: the standard deviation of the difference of two runs, one of each.
func lead(test, control []float64) string {
	a, b := report.Summarize(test), report.Summarize(control)
	if a.N < 2 || b.N < 2 {
		return "not measured"
	}
	margin, spread := a.Mean-b.Mean, math.Hypot(a.Std, b.Std)
	verdict := "no"
	if margin > spread {
		verdict = "yes"
	}
	return fmt.Sprintf("%s: %+.2f (spread %.2f)", verdict, margin, spread)
}

func text(xs []float64) string {
	if len(xs) == 0 {
		return "–"
	}
	s := report.Summarize(xs)
	if s.N == 1 {
		return fmt.Sprintf("%.2f", s.Mean)
	}
	return fmt.Sprintf("%.2f ± %.3f", s.Mean, s.StdErr)
}

// verdict compares a mean with the goal: rounded as the published ones are, but for a goal of our own, which is no rounded mean.
func (g goal) verdict(test []float64) string {
	if len(test) == 0 {
		return "not measured"
	}
	exact := report.Summarize(test).Mean
	mean := math.Round(100*exact) / 100
	switch {
	case g.source == own && mean >= g.accuracy && exact < g.accuracy-1e-9:
		return fmt.Sprintf("no: %.3f", exact)
	case g.within == 0 && mean >= g.accuracy, g.within > 0 && math.Abs(mean-g.accuracy) <= g.within+1e-9:
		return "yes"
	case g.within > 0 && mean > g.accuracy:
		return "no: it is better"
	}
	return "no"
}

package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/lottery"
	"github.com/espalier-ml/espalier/pkg/report"
)

// kind is what the trials have in common: a rung and what was done there.
type kind struct {
	round  int
	branch string
}

// results are records by kind and trial.
type results map[kind]map[int64][]report.Record

func collect(records []report.Record) results {
	all := results{}
	for _, r := range records {
		k := kind{int(r.Values["round"]), r.Labels["branch"]}
		if all[k] == nil {
			all[k] = map[int64][]report.Record{}
		}
		all[k][r.Seed] = append(all[k][r.Seed], r)
	}
	return all
}

// of returns a value of each trial of a kind that has it: the mean over its draws. Runs that failed have none.
func (all results) of(k kind, value string) map[int64]float64 {
	values := map[int64]float64{}
	for seed, records := range all[k] {
		sum, n := 0.0, 0
		for _, r := range records {
			if x, measured := r.Values[value]; measured {
				sum, n = sum+x, n+1
			}
		}
		if n > 0 {
			values[seed] = sum / float64(n)
		}
	}
	return values
}

// pairs returns a value of two kinds, of the trials that have both.
func (all results) pairs(a, b kind, value string) (xs, ys []float64) {
	of, other := all.of(a, value), all.of(b, value)
	for seed := range of {
		if _, both := other[seed]; !both {
			delete(of, seed)
		}
	}
	for _, seed := range sorted(of) {
		xs, ys = append(xs, of[seed]), append(ys, other[seed])
	}
	return xs, ys
}

func sorted(of map[int64]float64) []int64 {
	var seeds []int64
	for seed := range of {
		seeds = append(seeds, seed)
	}
	slices.Sort(seeds)
	return seeds
}

// sample returns a kind's values times a factor, in the order of the seeds.
func (all results) sample(k kind, value string, factor float64) []float64 {
	of := all.of(k, value)
	var xs []float64
	for _, seed := range sorted(of) {
		xs = append(xs, factor*of[seed])
	}
	return xs
}

// tables returns the tables of each recipe that there are records of: training of another length is another.
func tables(records []report.Record) []report.Table {
	var recipes []string
	of := map[string][]report.Record{}
	for _, r := range records {
		if of[r.Recipe] == nil {
			recipes = append(recipes, r.Recipe)
		}
		of[r.Recipe] = append(of[r.Recipe], r)
	}
	var all []report.Table
	for _, recipe := range recipes {
		one := collect(of[recipe])
		runs := one.runs()
		runs.Title += ": " + recipe
		all = append(all, runs, one.tests())
	}
	return all
}

// head is what the page of the tables begins with.
const head = "# Lottery tickets, held against what was published\n\nWritten by `espalier bench tickets` from tickets.jsonl, and not by hand.\n"

// runs is a line for each kind.
func (all results) runs() report.Table {
	t := report.Table{
		Title: "LeNet-300-100 on MNIST: winning tickets and their controls",
		Columns: []report.Column{{Name: "weights left", Unit: "%", Format: "%.1f"}, {Name: "network"}, {Name: "trials"}, {Name: "failed"}, {Name: "early stop", Unit: "step", Format: "%.0f"},
			{Name: "validation loss there", Format: "%.4f"}, {Name: "test accuracy there", Unit: "%", Format: "%.2f"}, {Name: "test accuracy at the end", Unit: "%", Format: "%.2f"}},
		Caption: "Mean ± standard deviation over the trials that did not fail. The early stop is the step of the least validation loss.",
	}
	kinds := make([]kind, 0, len(all))
	for k := range all {
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b kind) int {
		rank := func(k kind) int {
			return slices.IndexFunc(lottery.Branches(), func(b lottery.Branch) bool { return b.Name == k.branch })
		}
		return cmp.Or(cmp.Compare(a.round, b.round), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.branch, b.branch))
	})
	for _, k := range kinds {
		failed, runs, density := 0, 0, math.NaN()
		for _, records := range all[k] {
			for _, r := range records {
				runs, failed = runs+1, failed+int(r.Values["failed"])
				if d, known := r.Values["density"]; known {
					density = d
				}
			}
		}
		row := []any{100 * density, k.branch, runs, failed}
		for _, c := range []struct {
			value  string
			factor float64
		}{{"earlyStop", 1}, {"validationLoss", 1}, {"testAccuracy", 100}, {"testAccuracyEnd", 100}} {
			if xs := all.sample(k, c.value, c.factor); len(xs) > 0 {
				row = append(row, report.Summarize(xs))
			} else {
				row = append(row, nil)
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// tests holds the figures to meet against what was measured.
func (all results) tests() report.Table {
	t := report.Table{
		Title:   "Figures to meet",
		Columns: []report.Column{{Name: "what"}, {Name: "trials"}, {Name: "mean"}, {Name: "95% band"}, {Name: "p"}, {Name: "to meet"}, {Name: "met"}},
		Caption: "Paired by trial. Accuracies are those on the test data at the early stop, in points. Bands and two-sided p by Student's t over the trials.",
	}
	dense := kind{0, lottery.Ticket.Name}
	ticket := func(n int) kind { return kind{n, lottery.Ticket.Name} }
	yes := func(met bool) string { return map[bool]string{true: "yes", false: "no"}[met] }
	add := func(what string, at experiment.Interval, p any, goal string, met any) {
		band := "one trial"
		if at.N > 1 {
			band = fmt.Sprintf("%.3f to %.3f", at.Low, at.High)
		} else {
			met = nil // one trial shows nothing
		}
		t.Rows = append(t.Rows, []any{what, at.N, fmt.Sprintf("%.3f", at.Mean), band, p, goal, met})
	}
	left := func(n int) string { return fmt.Sprintf("%.1f%%", 100*all.density(ticket(n))) }
	ratios := func(n int, goal float64, text string) {
		xs, ys := all.pairs(ticket(n), dense, "earlyStop")
		if len(xs) == 0 {
			return
		}
		at := ratioOfMeans(xs, ys)
		add("early stop, "+left(n)+" over dense, of the means", at, nil, text, yes(at.Mean <= goal))
		for i := range xs {
			xs[i] /= ys[i]
		}
		add("the same, mean of each trial's", experiment.Confidence(xs), nil, "", nil)
	}
	difference := func(a, b kind, what, goal string, met func(lottery.PairedTest) bool) {
		xs, ys := all.pairs(a, b, "testAccuracy")
		if len(xs) == 0 {
			return
		}
		for i := range xs {
			xs[i], ys[i] = 100*xs[i], 100*ys[i]
		}
		test := lottery.Paired(xs, ys)
		var p, verdict any
		if test.N > 1 {
			p = test.Significance()
		}
		if met != nil {
			verdict = yes(met(test))
		}
		add(what, test.Interval, p, goal, verdict)
	}
	ratios(7, 0.75, "≤ 0.75 (paper 0.62)") // of the means: the paper compares averages of five trials
	above := func(test lottery.PairedTest) bool { return test.Mean > 0 && test.P < 0.05 }
	for _, n := range []int{3, 7, 9, 12, 15} {
		goal, met := "> 0, p < 0.05", above
		if n == 3 {
			goal, met = "", nil
		}
		difference(ticket(n), kind{n, lottery.Reinit.Name}, "accuracy, "+left(n)+" minus re-initialised", goal, met)
	}
	difference(ticket(9), dense, "accuracy, "+left(9)+" minus dense", "> 0", func(test lottery.PairedTest) bool { return test.Mean > 0 })
	difference(ticket(15), dense, "accuracy, "+left(15)+" minus dense", "≥ −0.1", func(test lottery.PairedTest) bool { return test.Mean >= -0.1 })
	for _, n := range []int{7, 15} {
		for _, b := range []lottery.Branch{lottery.RandomMask, lottery.OneShot} {
			difference(ticket(n), kind{n, b.Name}, "accuracy, "+left(n)+" minus "+b.Name, "", nil)
		}
	}
	return t
}

// ratioOfMeans returns mean(xs)/mean(ys) of pairs, with the band of the delta method: of the pairs' residuals x − ratio·y.
func ratioOfMeans(xs, ys []float64) experiment.Interval {
	x, y := report.Summarize(xs).Mean, report.Summarize(ys).Mean
	residuals := make([]float64, len(xs))
	for i := range xs {
		residuals[i] = (xs[i] - x/y*ys[i]) / y
	}
	at := experiment.Confidence(residuals) // around 0
	at.Mean, at.Low, at.High = at.Mean+x/y, at.Low+x/y, at.High+x/y
	return at
}

// density returns the share of weights that a kind has left.
func (all results) density(k kind) float64 {
	for _, records := range all[k] {
		for _, r := range records {
			if d, known := r.Values["density"]; known {
				return d
			}
		}
	}
	return math.NaN()
}

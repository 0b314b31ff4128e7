package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/report"
)

// goal is what is to be shown: so much faster, and no more points lost.
const (
	goal = 9.0
	lost = 0.5
)

// tableFile and its form for programs hold the tables, written from the other files by nothing but this program.
const (
	tableFile  = "README.md"
	tablesFile = "tables.json"
)

// read reads a file of times; nil if there is none.
func readTimes(path string) (*times, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := new(times)
	if err := json.Unmarshal(text, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// tables are made of the files of the results alone.
func tables(s settings) ([]report.Table, error) {
	records, err := report.ReadRecords(filepath.Join(s.out, accuracyFile))
	if err != nil {
		return nil, err
	}
	var all []report.Table
	if len(records) > 0 {
		all = append(all, accuracyTable(records))
	}
	t, err := readTimes(filepath.Join(s.out, timesFile))
	if err != nil {
		return nil, err
	}
	if t != nil {
		all = append(all, speedTable(t, records), int8Table(t), runtimeTable(t))
	}
	w, err := readTimes(filepath.Join(s.out, widthsFile))
	if err != nil {
		return nil, err
	}
	if w != nil {
		all = append(all, widthsTable(w))
	}
	return all, nil
}

func showTables(s settings) error {
	all, err := tables(s)
	if err != nil {
		return err
	}
	return bench.Print(s.stdout, all)
}

func writeTables(s settings) error {
	all, err := tables(s)
	if err != nil {
		return err
	}
	page, err := bench.Page("# Nine times faster\n\nMade by `espalier bench nine` from the files beside it, and by nothing else. `networks/` holds what is timed: ONNX, safetensors and manifests.\n", all)
	if err != nil {
		return err
	}
	forPrograms, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if _, err := keep(filepath.Join(s.out, tablesFile), func(w io.Writer) error { _, err := w.Write(append(forPrograms, '\n')); return err }); err != nil {
		return err
	}
	_, err = keep(filepath.Join(s.out, tableFile), func(w io.Writer) error { _, err := w.Write(page); return err })
	return err
}

// accuracyTable has a row for each network and what was done to it.
func accuracyTable(records []report.Record) report.Table {
	t := report.Table{
		Title: "Accuracy",
		Columns: []report.Column{{Name: "network"}, {Name: "what"}, {Name: "widths"}, {Name: "parameters"}, {Name: "MACs"}, {Name: "MACs of dense over its own", Format: "%.1f"},
			{Name: "validation", Unit: "%"}, {Name: "test", Unit: "%"}, {Name: "points from dense, test"}},
		Caption: "Mean ± standard deviation over the seeds; points from dense are of the same seed. Of the learning rates that small networks are trained with, the one that is best on validation data is kept, for each seed and network. Nothing was chosen on test data.",
	}
	dense := map[string]float64{}
	macs := map[string]float64{}
	for _, r := range records {
		if r.Recipe == teacherNet {
			dense[fmt.Sprint(r.Labels["network"], r.Seed)], macs[r.Labels["network"]] = r.Values["test"], r.Values["macs"]
		}
	}
	order := func(r report.Record) int {
		for i, name := range []string{teacherNet, denseLong, fastNet + ", rung", fastNet, noTeacher + ", rung", noTeacher, randomNet + ", rung", randomNet, scratchNet, scratchSoft} {
			if r.Recipe == name || strings.HasSuffix(name, "rung") && strings.HasPrefix(r.Recipe, name) {
				return i
			}
		}
		return 99
	}
	var keys []report.Record
	values := map[string][3][]float64{}
	key := func(r report.Record) string { return r.Labels["network"] + "|" + r.Recipe }
	for _, r := range records {
		v, seen := values[key(r)]
		if !seen {
			keys = append(keys, r)
		}
		v[0], v[1] = append(v[0], 100*r.Values["validation"]), append(v[1], 100*r.Values["test"])
		v[2] = append(v[2], 100*(r.Values["test"]-dense[fmt.Sprint(r.Labels["network"], r.Seed)]))
		values[key(r)] = v
	}
	slices.SortStableFunc(keys, func(a, b report.Record) int {
		if n := strings.Compare(b.Labels["network"], a.Labels["network"]); n != 0 {
			return n
		}
		return order(a) - order(b)
	})
	for _, r := range keys {
		v := values[key(r)]
		t.Rows = append(t.Rows, []any{r.Labels["network"], r.Recipe, r.Labels["widths"], report.Count(r.Values["params"]), report.Count(r.Values["macs"]), macs[r.Labels["network"]] / r.Values["macs"],
			report.Summarize(v[0]), report.Summarize(v[1]), report.Summarize(v[2])})
	}
	return t
}

// quiet returns the rounds in which the machine did nothing else, by the fixed loop, and whether they are enough of them.
func (c cell) quiet() (rounds []int, enough bool) {
	usual := usualSpin(c.Spin)
	for i, x := range c.Spin {
		if isQuiet(x, usual) {
			rounds = append(rounds, i)
		}
	}
	return rounds, 10*len(rounds) >= 7*len(c.Spin)
}

// at returns a series' times in some rounds.
func (s series) at(rounds []int) []float64 {
	xs := make([]float64, len(rounds))
	for i, round := range rounds {
		xs[i] = s.Seconds[round]
	}
	return xs
}

// fastest returns, of the series that accept takes, those of the runtime with the smallest median over all of them, by seed.
func (c cell) fastest(rounds []int, accept func(series) bool) (runtime string, bySeed map[int64]series) {
	best := math.Inf(1)
	for _, name := range runtimes {
		of := map[int64]series{}
		var pooled []float64
		for _, s := range c.Series {
			if s.Runtime == name && accept(s) {
				of[s.Seed] = s
				pooled = append(pooled, s.at(rounds)...)
			}
		}
		if median := profile.Quantile(pooled, 0.5); len(pooled) > 0 && median < best {
			best, runtime, bySeed = median, name, of
		}
	}
	return runtime, bySeed
}

// comparison is how much faster one thing is than another in a cell.
type comparison struct {
	slowRuntime, fastRuntime string
	slow, fast               float64 // median seconds, over seeds and rounds
	ratio                    float64 // median over the seeds of the median over the rounds of slow over fast in the same round
	low, high                float64 // the lowest and highest end of the seeds' 95% intervals
	quiet                    bool
}

func (c cell) compare(slow, fast func(series) bool) (comparison, bool) {
	rounds, enough := c.quiet()
	r := comparison{quiet: enough, low: math.Inf(1), high: math.Inf(-1)}
	var slows, fasts map[int64]series
	r.slowRuntime, slows = c.fastest(rounds, slow)
	r.fastRuntime, fasts = c.fastest(rounds, fast)
	var ratios, slowTimes, fastTimes []float64
	for seed, b := range slows {
		f, found := fasts[seed]
		if !found {
			continue
		}
		bs, fs := b.at(rounds), f.at(rounds)
		of := make([]float64, len(bs))
		for i := range bs {
			of[i] = bs[i] / fs[i]
		}
		low, high := profile.Bootstrap(of, 1)
		r.low, r.high = min(r.low, low), max(r.high, high)
		ratios = append(ratios, profile.Quantile(of, 0.5))
		slowTimes, fastTimes = append(slowTimes, bs...), append(fastTimes, fs...)
	}
	r.ratio, r.slow, r.fast = profile.Quantile(ratios, 0.5), profile.Quantile(slowTimes, 0.5), profile.Quantile(fastTimes, 0.5)
	return r, len(ratios) > 0
}

func is(role string, int8 bool) func(series) bool {
	return func(s series) bool { return s.Role == role && s.Int8 == int8 }
}

// right is the test accuracy of a role's files in percent, by seed.
func (t *times) right(network, role string, int8 bool, runtime string) map[int64]float64 {
	if runtime == ort1 { // threads change nothing of what a file answers
		runtime = ort
	}
	of := map[int64]float64{}
	for _, j := range t.Accuracy {
		if j.Network == network && j.Role == role && j.Int8 == int8 && j.Runtime == runtime {
			of[j.Seed] = 100 * float64(j.Right) / float64(j.N)
		}
	}
	return of
}

// points is the mean over the seeds of what a role loses against the network it was cut from, in points, by the files that are timed.
func (t *times) points(network, role string, int8 bool, runtime string) float64 {
	return meanDifference(t.right(network, role, int8, runtime), t.right(network, teacherNet, false, runtime))
}

// pointsOfLonger is the same against the dense network that was trained as long as teacher and small one together, of which there is no file: by its record.
func (t *times) pointsOfLonger(records []report.Record, network, role, runtime string) float64 {
	longer := map[int64]float64{}
	for _, r := range records {
		if r.Recipe == denseLong && r.Labels["network"] == network {
			longer[r.Seed] = 100 * r.Values["test"]
		}
	}
	return meanDifference(t.right(network, role, false, runtime), longer)
}

// meanDifference is over the seeds that both have; NaN if there is none.
func meanDifference(of, from map[int64]float64) float64 {
	var all []float64
	for seed, x := range of {
		if base, found := from[seed]; found {
			all = append(all, x-base)
		}
	}
	return report.Summarize(all).Mean
}

// macsOf is how many multiply-accumulates a role has.
func macsOf(records []report.Record, network, recipe string) float64 {
	for _, r := range records {
		if r.Labels["network"] == network && r.Recipe == recipe {
			return r.Values["macs"]
		}
	}
	return math.NaN()
}

// roles of the timed networks that are not dense.
func (t *times) roles(network string) []string {
	var roles []string
	for _, j := range t.Accuracy {
		if j.Network == network && j.Role != teacherNet && !slices.Contains(roles, j.Role) {
			roles = append(roles, j.Role)
		}
	}
	slices.SortFunc(roles, func(a, b string) int { return len(b) - len(a) }) // rungs come before the last
	return roles
}

// verdict says what may be claimed of a network that loses no more than the half point: against the network that it was cut from, and against the dense one that was trained as long in all.
func verdict(r comparison, points, ofLonger float64) string {
	switch {
	case !r.quiet:
		return "no: the machine was not quiet"
	case r.low < goal:
		return fmt.Sprintf("no: the interval reaches below %.0f", goal)
	case !(points >= -lost):
		return fmt.Sprintf("no: it loses more than %.1f points", lost)
	case math.IsNaN(ofLonger):
		return "no: there is no dense network trained as long"
	case ofLonger < -lost:
		return fmt.Sprintf("no: it loses more than %.1f points against the dense network trained as long", lost)
	}
	return "yes"
}

// speedTable has a row for each setting.
func speedTable(t *times, records []report.Record) report.Table {
	table := report.Table{
		Title: "How much faster, float32",
		Columns: []report.Column{{Name: "network"}, {Name: "what"}, {Name: "threads"}, {Name: "batch"}, {Name: "dense", Unit: "µs", Format: "%.1f"}, {Name: "by"}, {Name: "small", Unit: "µs", Format: "%.1f"},
			{Name: "by"}, {Name: "dense over small", Format: "%.1f"}, {Name: "95% interval"}, {Name: "MACs, dense over small", Format: "%.1f"}, {Name: "points, test", Format: "%+.2f"}, {Name: "points, test, from dense as long", Format: "%+.2f"}, {Name: "nine times faster"}},
		Caption: fmt.Sprintf("Dense and small each in the runtime that is fastest for it; of two threads each may leave one alone. Ratio: median over the seeds of the median over %d interleaved rounds in shuffled order; the interval holds those of all seeds "+
			"(bootstrap over rounds). Points: of the timed files themselves, mean over the seeds, from the network that they were cut from, and from the dense one with as many epochs as both together. %s; ONNX Runtime %s; %s; load average before: %s.", t.Rounds, t.Machine, t.Versions[ort], t.Versions[xla], t.Load),
	}
	for _, c := range t.Cells {
		for _, role := range t.roles(c.Network) {
			r, found := c.compare(is(teacherNet, false), is(role, false))
			if !found {
				continue
			}
			points, ofLonger := t.points(c.Network, role, false, r.fastRuntime), t.pointsOfLonger(records, c.Network, role, r.fastRuntime)
			table.Rows = append(table.Rows, []any{c.Network, role, c.Threads, c.Batch, 1e6 * r.slow, r.slowRuntime, 1e6 * r.fast, r.fastRuntime, r.ratio, fmt.Sprintf("%.1f to %.1f", r.low, r.high),
				macsOf(records, c.Network, teacherNet) / macsOf(records, c.Network, role), points, ofLonger, verdict(r, points, ofLonger)})
		}
	}
	return table
}

// int8Table is the further factor, of the small network in ONNX Runtime, and what quantisation alone does to the dense one.
func int8Table(t *times) report.Table {
	table := report.Table{
		Title: "Int8 on top, ONNX Runtime",
		Columns: []report.Column{{Name: "network"}, {Name: "threads"}, {Name: "batch"}, {Name: "small, int8", Unit: "µs", Format: "%.1f"}, {Name: "further factor", Format: "%.2f"}, {Name: "95% interval"},
			{Name: "dense float32 over small int8", Format: "%.1f"}, {Name: "points, test", Format: "%+.2f"}, {Name: "dense over dense int8", Format: "%.2f"}, {Name: "points, dense int8", Format: "%+.2f"}},
		Caption: "Static quantisation (QDQ, weights by channel, 512 training images for the ranges). The further factor is the small float32 network, in its faster runtime, over its int8 form; below 1 int8 is slower.",
	}
	for _, c := range t.Cells {
		further, found := c.compare(is(fastNet, false), is(fastNet, true))
		if !found {
			continue
		}
		whole, _ := c.compare(is(teacherNet, false), is(fastNet, true))
		alone, _ := c.compare(is(teacherNet, false), is(teacherNet, true))
		table.Rows = append(table.Rows, []any{c.Network, c.Threads, c.Batch, 1e6 * further.fast, further.ratio, fmt.Sprintf("%.2f to %.2f", further.low, further.high), whole.ratio,
			t.points(c.Network, fastNet, true, ort), alone.ratio, t.points(c.Network, teacherNet, true, ort)})
	}
	return table
}

// runtimeTable has both runtimes of all files, median over seeds and rounds.
func runtimeTable(t *times) report.Table {
	table := report.Table{
		Title: "Times by runtime, float32",
		Columns: []report.Column{{Name: "network"}, {Name: "what"}, {Name: "threads"}, {Name: "batch"}, {Name: ort, Unit: "µs", Format: "%.1f"}, {Name: ort1, Unit: "µs", Format: "%.1f"},
			{Name: xla, Unit: "µs", Format: "%.1f"}, {Name: "rounds that were quiet"}},
		Caption: "Median over seeds and rounds. XLA's calls go through GoMLX and read the result back; ONNX Runtime's have input and output bound in advance.",
	}
	for _, c := range t.Cells {
		rounds, _ := c.quiet()
		for _, role := range append([]string{teacherNet}, t.roles(c.Network)...) {
			of := map[string][]float64{}
			for _, s := range c.Series {
				if s.Role == role && !s.Int8 {
					of[s.Runtime] = append(of[s.Runtime], s.at(rounds)...)
				}
			}
			row := []any{c.Network, role, c.Threads, c.Batch}
			for _, name := range runtimes {
				if len(of[name]) == 0 { // with one thread there is no other choice
					row = append(row, nil)
					continue
				}
				row = append(row, 1e6*profile.Quantile(of[name], 0.5))
			}
			table.Rows = append(table.Rows, append(row, fmt.Sprintf("%d of %d", len(rounds), len(c.Spin))))
		}
	}
	return table
}

// widthsTable is what the choice of widths was made by.
func widthsTable(t *times) report.Table {
	table := report.Table{
		Title:   "Where the widths come from: times of candidates, with made-up weights",
		Columns: []report.Column{{Name: "candidate"}, {Name: "threads"}, {Name: "batch"}, {Name: ort, Unit: "µs", Format: "%.1f"}, {Name: xla, Unit: "µs", Format: "%.1f"}, {Name: "fastest dense over fastest", Format: "%.1f"}},
		Caption: "Median over the rounds of one interleaved run. " + t.Machine + ".",
	}
	for _, c := range t.Cells {
		rounds, _ := c.quiet()
		best := map[string]float64{}
		of := map[string]map[string]float64{}
		var names []string
		for _, s := range c.Series {
			if of[s.File] == nil {
				of[s.File] = map[string]float64{}
				best[s.File] = math.Inf(1)
				names = append(names, s.File)
			}
			median := profile.Quantile(s.at(rounds), 0.5)
			of[s.File][s.Runtime] = median
			best[s.File] = min(best[s.File], median)
		}
		for _, name := range names {
			table.Rows = append(table.Rows, []any{name, c.Threads, c.Batch, 1e6 * of[name][ort], 1e6 * of[name][xla], best[names[0]] / best[name]})
		}
	}
	return table
}

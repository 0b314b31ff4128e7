// Command tickets repeats figures of Frankle & Carbin 2019, "The Lottery Ticket Hypothesis" (arXiv:1803.03635), on MNIST with LeNet-300-100: how soon and how well winning
// tickets learn, next to the dense network and to controls. It goes on where it was interrupted, and several of it may share the work: see -seeds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/backend/home"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/lottery"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/report"
)

func main() {
	bench.Main("tickets", func(ctx context.Context, args []string) error { return run(ctx, args, os.Stdout, os.Stderr) })
}

// options are what the command line says.
type options struct {
	seeds                              []int64
	rungs                              int // of the ladder: 20 leave 1.2% of the weights
	steps                              int
	fast, print                        bool
	json, markdown, masks, curves, dir string
	reinit, others                     []int // rungs that are branched at
	validate                           int
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench tickets", flag.ContinueOnError)
	flags.SetOutput(stderr)
	seeds := flags.String("seeds", "", "trials, by their seeds; default: 1,2,3,4,5. Two processes may take some each")
	flags.IntVar(&o.rungs, "rungs", -1, "rounds of removing, 0 for the dense network alone; default: 20, which leave 1.2% of the weights")
	flags.IntVar(&o.steps, "steps", 0, "training steps of each run; default: 50000, as in the paper")
	flags.BoolVar(&o.fast, "fast", false, "two trials of three rounds and a few steps, to try out")
	flags.BoolVar(&o.print, "print", false, "train nothing: print the tables of the records in the file of -json")
	flags.StringVar(&o.json, "json", "", "a file to which each record is added when its run ends, one a line; processes may share it")
	flags.StringVar(&o.curves, "curves", "", "a file for how the validation accuracy of each run went, one a line; processes may share it")
	flags.StringVar(&o.markdown, "markdown", "", "a file to which the tables are written")
	flags.StringVar(&o.masks, "masks", "", "a directory for the masks of each rung, a bit for each weight")
	flags.StringVar(&o.dir, "dir", "", "where runs are saved; default: bench/tickets in $ESPALIER_HOME")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected %q: expected flags only", flags.Arg(0))
	}
	o.reinit, o.others, o.validate = []int{3, 7, 9, 12, 15}, []int{7, 15}, 100
	defaultSeeds, rungs, steps := "1,2,3,4,5", 20, 50_000
	if o.fast {
		defaultSeeds, rungs, steps, o.validate = "1,2", 3, 60, 20
		o.reinit, o.others = []int{3}, []int{3}
	}
	if *seeds == "" {
		*seeds = defaultSeeds
	}
	if o.rungs == -1 {
		o.rungs = rungs
	}
	if o.steps == 0 {
		o.steps = steps
	}
	if o.rungs < 0 || o.steps < 0 {
		return o, fmt.Errorf("-rungs %d -steps %d: expected positive numbers", o.rungs, o.steps)
	}
	var err error
	if o.seeds, err = bench.Seeds("-seeds", *seeds); err != nil {
		return o, err
	}
	if o.print && o.json == "" {
		return o, errors.New("-print: expected the file of records too; add -json FILE")
	}
	return o, nil
}

// job is one run.
type job struct {
	seed   int64
	round  int
	branch lottery.Branch
}

// jobs lists the runs in the order in which they are made: what the first conclusions need comes first, trial by trial.
func (o options) jobs() []job {
	var all []job
	add := func(seed int64, round int, b lottery.Branch) {
		if round <= o.rungs {
			all = append(all, job{seed, round, b})
		}
	}
	const first = 15 // rounds: 3.6% are left
	for _, seed := range o.seeds {
		for n := range first + 1 {
			add(seed, n, lottery.Ticket)
			if slices.Contains(o.reinit, n) {
				add(seed, n, lottery.Reinit)
			}
		}
	}
	for _, seed := range o.seeds {
		for _, n := range o.others {
			add(seed, n, lottery.RandomMask)
			add(seed, n, lottery.OneShot)
		}
	}
	for _, seed := range o.seeds {
		for n := first + 1; n <= o.rungs; n++ {
			add(seed, n, lottery.Ticket)
		}
	}
	return all
}

// normalised is LeNet-300-100 on pixels with the mean and deviation of MNIST's taken out. The paper does not say so, but without that its figures are not met.
func normalised(scope *model.Scope, x *graph.Node) *graph.Node {
	return nets.LeNet300(scope, graph.DivScalar(graph.AddScalar(x, -0.1307), 0.3081))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.print {
		records, err := report.ReadRecords(o.json)
		if err != nil {
			return err
		}
		return o.show(records, stdout)
	}
	if o.dir == "" {
		root, err := home.Dir()
		if err != nil {
			return err
		}
		o.dir = filepath.Join(root, "bench", "tickets")
	}
	data, err := mnist.Open(mnist.Config{Batch: 60})
	if err != nil {
		return err
	}
	b, err := backend.Open()
	if err != nil {
		return err
	}
	cfg := lottery.Config{
		Task: experiment.Task{Backend: b, Model: normalised, Train: data.Train, Validation: data.Validation, Test: data.Test},
		Dir:  o.dir,
	}
	cfg.Training.Steps, cfg.Training.Validate = o.steps, o.validate
	cfg.Progress = every(10*time.Second, func(run string, done, total int, note string) {
		fmt.Fprintf(stderr, "%s: step %d of %d, %s\n", run, done, total, note)
	})
	trials := map[int64]*lottery.Trial{}
	defer func() {
		for _, t := range trials {
			t.Close()
		}
	}()
	var records []report.Record
	jobs := o.jobs()
	for i, j := range jobs {
		t := trials[j.seed]
		if t == nil {
			if t, err = lottery.New(cfg, j.seed); err != nil {
				return err
			}
			trials[j.seed] = t
		}
		start := time.Now()
		r, err := t.Branch(ctx, j.round, j.branch)
		if err != nil {
			return err
		}
		fmt.Fprintf(stderr, "%d of %d: %s\n", i+1, len(jobs), line(r, time.Since(start)))
		records = append(records, r.Record)
		if err := o.keep(t, r); err != nil {
			return err
		}
	}
	if o.json != "" { // what other processes have added is shown too
		if records, err = report.ReadRecords(o.json); err != nil {
			return err
		}
	}
	return o.show(records, stdout)
}

// show prints the tables, and writes them in Markdown where that is wanted.
func (o options) show(records []report.Record, out io.Writer) error {
	all := tables(records)
	if o.markdown != "" {
		text, err := bench.Page(head, all)
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.markdown, text, 0o644); err != nil {
			return err
		}
	}
	return bench.Print(out, all)
}

// every calls f at most once in a time.
func every(pause time.Duration, f func(run string, done, total int, note string)) func(string, int, int, string) {
	last := time.Now()
	return func(run string, done, total int, note string) {
		if now := time.Now(); now.Sub(last) >= pause {
			last = now
			f(run, done, total, note)
		}
	}
}

// line says in a few words how a run ended.
func line(r *lottery.Run, took time.Duration) string {
	v := r.Record.Values
	if r.Failed != nil {
		return fmt.Sprintf("%s failed: %v", r.Name, r.Failed)
	}
	how := fmt.Sprintf("trained in %s", took.Round(time.Second))
	if r.Loaded {
		how = "loaded"
	}
	return fmt.Sprintf("%s: %.1f%% of the weights, early stop at step %.0f, test accuracy there %.2f%%, at the end %.2f%%; %s",
		r.Name, 100*v["density"], v["earlyStop"], 100*v["testAccuracy"], 100*v["testAccuracyEnd"], how)
}

// keep writes down a run that has ended.
func (o options) keep(t *lottery.Trial, r *lottery.Run) error {
	if o.masks != "" && r.Masks != nil && r.Record.Labels["branch"] == lottery.Ticket.Name && r.Round > 0 {
		if err := saveMasks(filepath.Join(o.masks, fmt.Sprintf("trial-%d-round-%02d.mask", t.Seed(), r.Round)), t, r); err != nil {
			return err
		}
	}
	if o.json == "" && o.curves == "" {
		return nil
	}
	// Processes that share the files take turns.
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(o.dir, "records.lock"))
	if err := lock.Lock(); err != nil {
		return err
	}
	defer lock.Unlock()
	return errors.Join(add(o.json, r.Record), add(o.curves, curve(r)))
}

// add adds a record to a file, in place of one of the same run.
func add(path string, r report.Record) error {
	if path == "" {
		return nil
	}
	records, err := report.ReadRecords(path)
	if err != nil {
		return err
	}
	return report.WriteRecords(path, with(records, r))
}

// curve is the validation accuracy of a run by step: all that was measured in the first 10,000 steps, where most happens, and one in ten from there on.
func curve(r *lottery.Run) report.Record {
	c := report.Record{Recipe: r.Record.Recipe, Seed: r.Record.Seed, Labels: map[string]string{"round": fmt.Sprintf("%02d", r.Round)}, Values: map[string]float64{}}
	maps.Copy(c.Labels, r.Record.Labels)
	for i, a := range r.Accuracies {
		if a.Step <= 10_000 || (i+1)%10 == 0 {
			c.Values[strconv.Itoa(a.Step)] = a.Value
		}
	}
	return c
}

// with returns the records with one more, in order; it takes the place of one of the same run.
func with(records []report.Record, r report.Record) []report.Record {
	id := func(r report.Record) string {
		return fmt.Sprintf("%020d %06.0f %s %s %s %s", r.Seed, r.Values["round"], r.Labels["round"], r.Labels["branch"], r.Labels["draw"], r.Recipe)
	}
	records = slices.DeleteFunc(records, func(old report.Record) bool { return id(old) == id(r) })
	records = append(records, r)
	slices.SortFunc(records, func(a, b report.Record) int { return strings.Compare(id(a), id(b)) })
	return records
}

// saveMasks writes a file of masks, whole or not at all.
func saveMasks(path string, t *lottery.Trial, r *lottery.Run) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".masks-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails where it was renamed
	if err := errors.Join(r.Masks.Save(f, t.Params()), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

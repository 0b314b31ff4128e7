// Command structured holds the methods of pkg/structured against random, L1, FPGM and training from scratch: from the same dense network, with the same multiply-accumulates left and the same
// fine-tuning, on LeNet-5 (MNIST) and residual networks (CIFAR-10). What a method trains in order to choose comes on top, as in the papers, and "random, longer" fine-tunes for as much more. It goes
// on where it was interrupted, and stops by itself after a time if that is set: on a machine that is lent for minutes, call it again and again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"github.com/espalier-ml/espalier/datasets/cifar10"
	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/backend/home"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/report"
)

func main() {
	bench.Main("structured", run)
}

// study is one network with its data and its trainings.
type study struct {
	network nets.Network
	data    string
	// Train, validation and test data. Everything is chosen on validation data; test data are read once for each network that is reported.
	train, validation, test   *synth.Dataset
	macs                      float64 // the share that stays, where rate does not say it
	rate                      float64 // of a residual network: the share of the channels of both convolutions of each block that goes, while those of the stream stay
	augment                   bool    // training images are mirrored and shifted
	dense, tune               plan    // of the dense network; after it
	slimming, lasso, sparsity float64 // prices of Slimming, GroupLasso and GAL
	throughout                float64 // price of slimming from the first step
	prepare                   int     // steps of each method that trains before it chooses, on top of those of tune
	lots                      int     // draws of random channels, of each seed
	seeds                     []int64 // those of the committed tables
}

// plan is a training by stochastic gradient descent with momentum 0.9 and Nesterov, along half a cosine.
type plan struct {
	steps       int
	rate, decay float64
}

func (p plan) training(steps int, seed int64, dir string) experiment.Training {
	return experiment.Training{Steps: steps, Seed: seed, Dir: dir, Rate: experiment.CosineDecay, Optimizer: &experiment.SGD{LearningRate: p.rate, Momentum: 0.9, Nesterov: true, WeightDecay: p.decay}}
}

// stream makes the channels that pass by the blocks of a residual network for CIFAR-10: the first convolution and the projections. Where there is a rate, they stay (Tang et al. 2020).
var stream = []string{"/conv1", "/layer2_0/downsample", "/layer3_0/downsample"}

// known are the networks that can be studied. The last two need hours on a GPU; their shortcuts are projected, as those of the papers that they are held against.
var known = []string{"LeNet-5", "LeNet-5-norm", "ResNet-8-narrow", "ResNet-20-narrow", "ResNet-20", "ResNet-56"}

// settings are the flags.
type settings struct {
	studies   []string
	seeds     []int64  // empty: those of each study
	methods   []string // empty: all
	dir, file string
	markdown  string
	images    int // of CIFAR-10 for training
	fast      bool
	idle      bool          // no more than tables
	stop      time.Duration // 0: never
}

func parse(args []string) (settings, error) {
	f := flag.NewFlagSet("bench structured", flag.ContinueOnError)
	names := f.String("networks", "LeNet-5,LeNet-5-norm,ResNet-8-narrow", "networks to study, of "+strings.Join(known, ", "))
	seeds := f.String("seeds", "", "seeds, of the dense network and of all that follows; empty: 1, 2, 3 and 5, of the narrow residual networks 6 and 7 too; settings were chosen with seed 4")
	methods := f.String("methods", "", "methods to compare, with semicolons between them; empty: all")
	s := settings{}
	f.StringVar(&s.dir, "dir", "", "where runs and records are kept, so that an interrupted comparison goes on; empty: bench/structured in Espalier's directory")
	f.StringVar(&s.file, "json", "", "also write the records to this file, a line each")
	f.StringVar(&s.markdown, "markdown", "", "also write the tables to this file")
	f.IntVar(&s.images, "images", 10000, "training images of CIFAR-10, for the narrow networks")
	f.DurationVar(&s.stop, "stop", 0, "stop after this time, all saved, as Ctrl-C does; 0: when all is done")
	f.BoolVar(&s.idle, "tables", false, "train nothing, print the tables of what is there")
	f.BoolVar(&s.fast, "fast", false, "drawn digits, a few steps and one seed, to try out")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	var err error
	if *seeds != "" {
		if s.seeds, err = bench.Seeds("-seeds", *seeds); err != nil {
			return s, err
		}
	}
	s.studies, s.methods = bench.List(*names), bench.Split(*methods, ";")
	for _, name := range s.studies {
		if !slices.Contains(known, name) {
			return s, fmt.Errorf("-networks has %q: there are %s", name, strings.Join(known, ", "))
		}
	}
	for i, name := range s.methods {
		if slices.Contains(s.methods[:i], name) {
			return s, fmt.Errorf("-methods has %q twice", name)
		}
		if !slices.ContainsFunc(contenders, func(c contender) bool { return c.name == name }) {
			return s, fmt.Errorf("-methods has %q: there are %s", name, strings.Join(order()[1:], "; "))
		}
	}
	if len(s.studies) == 0 || s.images < 1000 {
		return s, errors.New("give at least one network and 1000 images")
	}
	if s.dir == "" {
		root, err := home.Dir()
		if err != nil {
			return s, err
		}
		s.dir = filepath.Join(root, "bench", "structured")
	}
	return s, nil
}

// open returns a study. Learning rates and most prices were set once, before anything was compared, and are the same for all methods. That of slimming was set later, on validation data of seed 4,
// which is not in the tables: a gain that is not needed loses λ·Σ learning rates/(1 − momentum) in all, so that what the authors take for 160 epochs does nothing in a hundred steps. ResNet-20 and ResNet-56 have
// the steps for it. So was that of slimming throughout, as the best of three for the authors' own division.
func (s settings) open(name string) (study, error) {
	network, err := nets.Find(name)
	if err != nil {
		return study{}, err
	}
	if s.fast {
		data, err := synth.Digits(synth.Config{Train: 512, Validation: 128, Test: 128, Batch: 32})
		if err != nil {
			return study{}, err
		}
		if !strings.HasPrefix(name, "LeNet-5") {
			return study{}, fmt.Errorf("-fast is for LeNet-5 and LeNet-5-norm: %s takes images of another size than the digits that it draws", name)
		}
		p := plan{24, 0.01, 1e-4}
		return study{network: network, data: "drawn digits", train: data.Train, validation: data.Validation, test: data.Test, macs: 0.3, dense: p, tune: p, slimming: 1e-2, throughout: 1e-2, lasso: 1e-4, sparsity: 0.05, prepare: 8, lots: 2, seeds: []int64{1}}, nil
	}
	if strings.HasPrefix(name, "LeNet-5") {
		data, err := mnist.Open(mnist.Config{Batch: 100})
		if err != nil {
			return study{}, err
		}
		return study{network: network, data: "MNIST", train: data.Train, validation: data.Validation, test: data.Test, macs: 0.05, dense: plan{2750, 0.02, 1e-4}, tune: plan{550, 0.01, 1e-4},
			slimming: 1e-2, throughout: 3e-3, lasso: 1e-5, sparsity: 0.05, prepare: 300, lots: 5, seeds: []int64{1, 2, 3, 5}}, nil
	}
	data, err := cifar10.Open(cifar10.Config{Batch: 100})
	if err != nil {
		return study{}, err
	}
	perEpoch := s.images / 100
	if name == "ResNet-20" || name == "ResNet-56" { // Tang et al. 2020, table 2: 55.7% and 56% of the multiply-accumulates go
		if network, err = nets.Find(name + "-B"); err != nil {
			return study{}, err
		}
		perEpoch = data.Train.Len() / 100
		return study{network: network, data: "CIFAR-10", train: data.Train, validation: data.Validation, test: data.Test, rate: 0.45, augment: true,
			dense: plan{160 * perEpoch, 0.1, 5e-4}, tune: plan{120 * perEpoch, 0.04, 5e-4}, slimming: 1e-4, throughout: 1e-5, lasso: 1e-5, sparsity: 0.05, prepare: 10 * perEpoch, lots: 1, seeds: []int64{1, 2, 3}}, nil
	}
	return study{network: network, data: fmt.Sprintf("CIFAR-10, %d training images", s.images), train: data.Train.Take(s.images), validation: data.Validation, test: data.Test, macs: 0.4,
		dense: plan{12 * perEpoch, 0.1, 5e-4}, tune: plan{4 * perEpoch, 0.05, 5e-4}, slimming: 3e-2, throughout: 3e-3, lasso: 1e-4, sparsity: 0.05, prepare: perEpoch, lots: 5,
		seeds: []int64{1, 2, 3, 5, 6, 7}}, nil
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if s.stop > 0 {
		timed, cancel := context.WithTimeout(ctx, s.stop)
		defer cancel()
		ctx = timed
	}
	choice, err := backend.Describe()
	if err != nil {
		return err
	}
	b, err := backend.Open()
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "records.jsonl")
	records, err := report.ReadRecords(file)
	var torn *report.TornError
	if errors.As(err, &torn) {
		fmt.Fprintln(os.Stderr, "bench structured:", err)
	} else if err != nil {
		return err
	}
	var of []report.Record // of this command's settings
	for _, name := range s.studies {
		st, err := s.open(name)
		if err != nil {
			return err
		}
		for _, seed := range s.seedsOf(st) {
			found, err := s.compare(ctx, b, st, seed, choice.Name, file, &records)
			if err != nil {
				return err
			}
			of = append(of, found...)
		}
	}
	all := tables(of)
	if s.file != "" {
		if err := report.WriteRecords(s.file, of); err != nil {
			return err
		}
	}
	if s.markdown != "" {
		text, err := bench.Page(head, all)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.markdown, text, 0o644); err != nil {
			return err
		}
	}
	return bench.Print(os.Stdout, all)
}

// head is what the page of the tables begins with.
const head = "# Structured pruning: who chooses best?\n\nWritten by `espalier bench structured` from structured.jsonl, and not by hand.\n"

// seedsOf are the seeds of a study: those that were asked for, or its own; with -fast the first.
func (s settings) seedsOf(st study) []int64 {
	seeds := s.seeds
	if len(seeds) == 0 {
		seeds = st.seeds
	}
	if s.fast {
		return seeds[:1]
	}
	return seeds
}

// compare does what is left of one seed.
func (s settings) compare(ctx context.Context, b compute.Backend, st study, seed int64, device, file string, records *[]report.Record) ([]report.Record, error) {
	j := &job{ctx: ctx, backend: b, study: st, seed: seed, dir: filepath.Join(s.dir, "runs")}
	var found []report.Record
	names := append([]string{"dense"}, s.methods...)
	if len(s.methods) == 0 {
		names = order()
	}
	for _, method := range names {
		for draw := range st.draws(method) {
			name, recipe := drawn(method, draw+1), st.recipe(drawn(method, draw+1))
			if i := slices.IndexFunc(*records, func(r report.Record) bool { return r.Recipe == recipe && r.Seed == seed }); i >= 0 {
				found = append(found, (*records)[i])
				continue
			}
			if s.idle {
				continue
			}
			start := time.Now()
			j.draw = draw + 1
			r, err := j.measure(method)
			if err != nil {
				return nil, fmt.Errorf("%s, seed %d, %s: %w", st.network.Name, seed, name, err)
			}
			r.Recipe, r.Seed = recipe, seed
			r.Labels["study"], r.Labels["device"] = st.recipe("*"), device
			r.Values["tune"] = float64(st.tune.steps)
			if st.rate != 0 {
				r.Values["rate"] = st.rate
			} else {
				r.Values["budget"] = st.macs
			}
			if err := report.AppendRecord(file, r); err != nil {
				return nil, err
			}
			*records, found = append(*records, r), append(found, r)
			outcome := fmt.Sprintf("%.2f%%", 100*r.Values["accuracy"])
			for _, label := range []string{"refused", "failed"} {
				if r.Labels[label] != "" {
					outcome = label
				}
			}
			fmt.Fprintf(os.Stderr, "%s, seed %d, %s: %s after %s\n", st.network.Name, seed, name, outcome, time.Since(start).Round(time.Second))
		}
	}
	return found, nil
}

// recipe names a result by all that the study sets.
func (st study) recipe(method string) string {
	left := fmt.Sprintf("macs=%g", st.macs)
	if st.rate != 0 {
		left = fmt.Sprintf("rate=%g", st.rate)
	}
	if strings.HasPrefix(method, throughout) {
		left += fmt.Sprintf(", throughout=%g", st.throughout)
	}
	return fmt.Sprintf("%s on %s: %s, %s, dense=%d×%g/%g, tune=%d×%g/%g, choosing=%d more, slimming=%g, lasso=%g, sparsity=%g", st.network.Name, st.images(), method, left, st.dense.steps, st.dense.rate,
		st.dense.decay, st.tune.steps, st.tune.rate, st.tune.decay, st.prepare, st.slimming, st.lasso, st.sparsity)
}

// augmented ends the name of data of which training images are mirrored and shifted.
const augmented = ", crop and flip"

// images names the data, and what is done to them.
func (st study) images() string {
	if st.augment {
		return st.data + augmented
	}
	return st.data
}

// tables has two tables of each study that there are records of, in their order.
func tables(records []report.Record) []report.Table {
	var all []report.Table
	var seen []string
	merged := report.Merge(records) // the draws of a seed
	for _, r := range records {
		study := r.Labels["study"]
		if slices.Contains(seen, study) {
			continue
		}
		seen = append(seen, study)
		of, draws := outcomes{}, map[int64][]float64{}
		for _, r := range records {
			if x, has := r.Values["accuracy"]; has && r.Labels["study"] == study && r.Labels["method"] == random {
				draws[r.Seed] = append(draws[r.Seed], 100*x)
			}
		}
		for _, r := range merged {
			if r.Labels["study"] == study {
				of[r.Labels["method"]] = append(of[r.Labels["method"]], r)
			}
		}
		all = append(all, of.table(r, draws), of.course(r))
	}
	return all
}

// outcomes are the records of one study, by method.
type outcomes map[string][]report.Record

// percent is a value of the records of a method that have it, in percent.
func (o outcomes) percent(method, value string) (xs []float64) {
	for _, r := range o[method] {
		if x, has := r.Values[value]; has {
			xs = append(xs, 100*x)
		}
	}
	return xs
}

// less is a value of a method less the same of another, in points, for the seeds that have both.
func (o outcomes) less(method, other, value string) (xs []float64) {
	if method == other {
		return nil
	}
	for _, r := range o[method] {
		for _, q := range o[other] {
			x, has := r.Values[value]
			y, both := q.Values[value]
			if r.Seed == q.Seed && has && both {
				xs = append(xs, 100*(x-y))
			}
		}
	}
	return xs
}

// table shows what came of each method. It is given the accuracies (%) of random's draws, by seed.
func (o outcomes) table(first report.Record, draws map[int64][]float64) report.Table {
	most, apart := 1, 0.0
	for _, xs := range draws {
		most, apart = max(most, len(xs)), max(apart, slices.Max(xs)-slices.Min(xs))
	}
	t := report.Table{
		Title: fmt.Sprintf("%s, %s: %s", first.Labels["network"], first.Labels["data"], o.budget(first)),
		Columns: []report.Column{{Name: "method"}, {Name: "MACs left", Unit: "%", Format: "%.1f"}, {Name: "parameters left", Unit: "%", Format: "%.1f"}, {Name: "steps to choose"},
			{Name: "before fine-tuning", Unit: "%"}, {Name: "after", Unit: "%"}, {Name: "less random", Unit: "points"}, {Name: "less random, longer", Unit: "points"}, {Name: "seeds"}, {Name: "failed"}},
		Caption: caption(first, most, apart),
	}
	for _, name := range order() {
		if len(o[name]) == 0 {
			continue
		}
		if refused := o[name][0].Labels["refused"]; refused != "" {
			t.Rows = append(t.Rows, []any{name, nil, nil, nil, "", "refused: " + refused, "", "", nil, nil})
			continue
		}
		failed, seeds := 0, map[int64]bool{} // a draw that failed is a record of its own
		for _, r := range o[name] {
			seeds[r.Seed] = true
			if r.Labels["failed"] != "" {
				failed++
			}
		}
		row := []any{name, nil, nil, nil, "", "", interval(o.less(name, random, "accuracy")), interval(o.less(name, longer, "accuracy")), len(seeds), failed}
		for i, value := range []string{"macs", "params"} {
			if xs := o.percent(name, value); len(xs) > 0 { // unknown, where nothing was chosen
				row[1+i] = report.Summarize(xs).Mean
			}
		}
		if steps, has := o[name][0].Values["choosing"]; has {
			row[3] = int(steps)
		}
		for i, value := range []string{tuned(0), "accuracy"} {
			if xs := o.percent(name, value); len(xs) > 0 {
				row[4+i] = report.Summarize(xs).String()
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// budget says how much of the network stays.
func (o outcomes) budget(first report.Record) string {
	rate := first.Values["rate"]
	if rate == 0 {
		return fmt.Sprintf("at most %g%% of the multiply-accumulates stay", 100*first.Values["budget"])
	}
	text := fmt.Sprintf("a rate of %g on both convolutions of each block", rate)
	if xs := o.percent(random, "macs"); len(xs) > 0 {
		text += fmt.Sprintf(", so that %.1f%% of the multiply-accumulates stay", report.Summarize(xs).Mean)
	}
	return text
}

// caption explains a table of what came of each method. It is given how many draws of random there are of a seed, and how far apart they lie.
func caption(first report.Record, draws int, apart float64) string {
	parts := []string{"Accuracy: mean ± standard deviation over the seeds; before fine-tuning on validation data, after it on test data."}
	rate := first.Values["rate"] != 0
	if draws > 1 || !rate {
		parts = append(parts, fmt.Sprintf("Random, and random, longer: of each seed the mean of %d draws; those of random lie up to %.1f points apart.", draws, apart))
	}
	parts = append(parts, "Less random: paired by seed, with a 95% interval of Student's t. Failed: runs whose training came to NaN, which are in no mean.")
	if rate {
		parts = append(parts, "The first convolution and the projections of shortcuts stay whole; each convolution of a block has channels of its own, and zeros are added for those that a branch lacks. "+
			"Slimming and PFP divide the multiply-accumulates that the rate leaves over the layers by rules of their own; uniform, and ThiNet: the same share of each layer in which they can choose.")
	} else {
		parts = append(parts, "Uniform: at random's widths, where slimming and PFP divide the budget over the layers by rules of their own otherwise.")
	}
	parts = append(parts, fmt.Sprintf("Floor: by those rules, with at least two thirds of random's share of each layer. Every network is fine-tuned for %.0f steps; the steps that a method trains in order to choose come on top. "+
		"Random, longer is fine-tuned for as many more as the most that any takes to choose. Throughout: the price of gains is there from the first step of the dense network's training, as slimming's authors have it. Averages of batch normalisation are estimated anew before anything is measured, for all alike. "+
		"Scratch has the widths that L1 leaves and trains as long as the dense network and fine-tuning together.", first.Values["tune"]))
	if strings.HasSuffix(first.Labels["data"], augmented) {
		parts = append(parts, "Images are mirrored half of the time and shifted by up to 4 pixels wherever a network's weights are trained; SCOP, GAL, PFP and ThiNet choose on images as they are.")
	}
	return strings.Join(append(parts, first.Labels["device"]+"."), " ")
}

// course shows how long a choice matters: how far each method is ahead of random while both are fine-tuned.
func (o outcomes) course(first report.Record) report.Table {
	t := report.Table{
		Title:   fmt.Sprintf("%s, %s: ahead of random after so many steps of fine-tuning, validation data", first.Labels["network"], first.Labels["data"]),
		Columns: []report.Column{{Name: "method"}},
	}
	var steps []int
	for _, r := range o[random] {
		steps = append(steps, measured(r)...)
	}
	slices.Sort(steps)
	steps = slices.Compact(steps)
	row := []any{random}
	for _, step := range steps {
		t.Columns = append(t.Columns, report.Column{Name: fmt.Sprint(step)})
		row = append(row, report.Summarize(o.percent(random, tuned(step))).String()+"%")
	}
	t.Rows = append(t.Rows, row)
	var until []string
	for _, name := range order() {
		if name == random || name == longer || len(o.percent(name, tuned(0))) == 0 {
			continue
		}
		row, last, ahead := []any{name}, -1, true
		for _, step := range steps {
			xs := o.less(name, random, tuned(step))
			row = append(row, halved(xs))
			if at := experiment.Confidence(xs); ahead && at.N > 1 && at.Low > 0 {
				last = step
			} else {
				ahead = false
			}
		}
		t.Rows = append(t.Rows, row)
		if last < 0 {
			until = append(until, name+" (never)")
		} else {
			until = append(until, fmt.Sprintf("%s (%d)", name, last))
		}
	}
	t.Caption = "Random: mean ± standard deviation over the seeds. Others: points ahead of it, paired by seed, ± half of a 95% interval of Student's t. Up to which step each is ahead, with an interval above 0 at all measurements until then: " +
		strings.Join(until, "; ") + "."
	return t
}

// measured are the steps of fine-tuning after which a network was measured.
func measured(r report.Record) (steps []int) {
	for value := range r.Values {
		step := 0
		if n, _ := fmt.Sscanf(value, tunedAfter, &step); n == 1 || value == tuned(0) {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps
}

// halved writes a mean with half of its 95% interval.
func halved(xs []float64) string {
	return written(xs, func(at experiment.Interval) string { return fmt.Sprintf("%+.2f ± %.2f", at.Mean, (at.High-at.Low)/2) })
}

// interval writes a mean with its 95% interval.
func interval(xs []float64) string {
	return written(xs, func(at experiment.Interval) string {
		return fmt.Sprintf("%+.2f [%+.2f, %+.2f]", at.Mean, at.Low, at.High)
	})
}

// written writes the mean of several numbers in a form that tells of its interval, a single number alone, and of none nothing.
func written(xs []float64, form func(experiment.Interval) string) string {
	switch at := experiment.Confidence(xs); at.N {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%+.2f", at.Mean)
	default:
		return form(at)
	}
}

func order() []string {
	names := []string{"dense"}
	for _, c := range contenders {
		names = append(names, c.name)
	}
	return names
}

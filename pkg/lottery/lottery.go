// Package lottery finds winning tickets: sparse networks inside of a dense one that, trained from where that one started, learn as well. Frankle & Carbin 2019,
// "The Lottery Ticket Hypothesis", arXiv:1803.03635.
//
// A Trial climbs a ladder: it trains a network, removes a share of its weights, takes the others back to where they were after step k, and trains again. What makes that
// science are the controls, which a Branch describes: the same masks on other weights, other masks on the same weights, and so on. Every rung and every branch of every
// trial is a run of its own that is saved, goes on where it was interrupted, and is loaded once it is finished.
//
// Beyond tickets by magnitude there are the tests of what a ticket is: Supermask scores one that was never trained, Connect looks at the loss between two trained copies
// of it, and EarlyBird draws tickets while the first network still trains.
//
// It stands above experiment, which trains, where the other packages that prune stand below it: a ladder is an experiment.
package lottery

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/internal/scoring"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/signal"
)

// Config says what tickets are looked for, and how. All but Task have defaults: those of the paper for LeNet-300-100.
type Config struct {
	// Task is what is to be learnt, with validation data, by which training is stopped early. Test data, where there are any, are read at the end of each run, for the
	// network of the early stop and for the last one. Start: experiment.GlorotNormal unless it is set.
	Task experiment.Task
	// Training of each run. Default: 50,000 steps of Adam with learning rate 1.2e-3, validated every 100 steps. Epochs, Steps, Optimizer, Rate, Batches, SaveEvery,
	// Validate and StepsPerDispatch may be set; the rest is the ladder's own business.
	Training experiment.Training
	// Recipe says what is removed after a round; by default the weights of least magnitude, in each layer by itself: Share of the weights that it has left, and
	// OutputShare in the layer that is the network's output. With a Budget, such as budget.Global, that divides what Share leaves over all layers. With
	// a Seed of 0 each trial draws by its own, where the criterion draws.
	Recipe prune.Recipe
	// Share of the living weights that are removed in a round. Default: 0.2
	Share float64
	// OutputShare is that of the network's output layer, which params.Select finds by its name, or Params marks (params.Set.MarkOutput). Default: half of Share.
	OutputShare float64
	// Params selects what is pruned. nil: all kernels, as params.Select finds them.
	Params func(store *model.Store) params.Set
	// Rewind is the step of the dense network to which tickets are taken back, k in Frankle et al. 2020 (arXiv:1912.05671). Their training then has that many steps less,
	// and the learning rate goes on from there. 0: the original initialisation.
	Rewind int
	// Save are more steps of the dense network whose weights are kept, for branches that start AtStep.
	Save []int
	// Dir is where runs are saved, each in a directory named by trial, round and branch. One that diverged is taken up from what it last saved, and diverges again. "": nothing
	// is saved.
	Dir string
	// Progress is told how far a run is, at most 5 times a second, and at the end. nil: nobody is told.
	Progress func(run string, done, total int, note string)
	// Watch is told how a run goes in numbers, as by experiment.Training.Watch. nil: nobody is told.
	Watch func(run string, p report.Progress)
}

// paperSteps is how long each network is trained in the paper.
const paperSteps = 50_000

// complete returns the configuration with its defaults filled in, and refuses what can't be used.
func (c Config) complete() (Config, error) {
	t := &c.Training
	if c.Task.Validation == nil {
		return c, &experiment.ConfigError{Field: "Config.Task.Validation", Problem: "there is none, and by it training is stopped early", Remedy: "hold out a part of the training data"}
	}
	for field, set := range map[string]bool{"Seed": t.Seed != 0, "Pruner": t.Pruner != nil, "Schedule": t.Schedule != nil, "When": t.When != nil, "Topology": t.Topology != nil,
		"Dir": t.Dir != "", "Progress": t.Progress != nil, "Watch": t.Watch != nil, "KeepBest": t.KeepBest, "Keep": t.Keep != nil} {
		if set {
			return c, &experiment.ConfigError{Field: "Config.Training." + field, Problem: "it is set, and each run of a ladder has its own", Remedy: "leave it out; see the fields of Config"}
		}
	}
	if t.Steps == 0 && t.Epochs == 0 {
		t.Steps = paperSteps
	}
	if t.Optimizer == nil {
		t.Optimizer = optimizer.Adam().LearningRate(1.2e-3).Done()
	}
	if t.Validate == 0 {
		t.Validate = 100
	}
	if c.Task.Start == nil {
		c.Task.Start = experiment.GlorotNormal
	}
	if c.Share == 0 {
		c.Share = 0.2
	}
	if c.OutputShare == 0 {
		c.OutputShare = c.Share / 2
	}
	for field, x := range map[string]float64{"Share": c.Share, "OutputShare": c.OutputShare} {
		if !(x > 0 && x < 1) { // NaN too
			return c, &experiment.ConfigError{Field: "Config." + field, Problem: fmt.Sprintf("got %v", x), Remedy: "give a share above 0 and below 1, for instance 0.2"}
		}
	}
	if c.Params == nil {
		c.Params = func(store *model.Store) params.Set { return params.Select(store, nil) }
	}
	return c, nil
}

// Trial is one seed's ladder and its branches. It holds the networks of its rungs in memory: three for each, at the start, at the early stop and at the end. Its methods may not be called from several goroutines.
type Trial struct {
	cfg     Config
	seed    int64
	total   int // steps of the dense network's training
	store   *model.Store
	trainer *experiment.Trainer
	set     params.Set
	pruner  *prune.Pruner // keeps masks while training
	first   experiment.Values
	rungs   []*Run
}

// New returns the trial of a seed, which chooses the first weights and the orders of the examples. Nothing is trained yet.
//
// The error is an *experiment.ConfigError or a *RewindError, or of the recipe: see prune.New.
func New(cfg Config, seed int64) (*Trial, error) {
	outputShare := cfg.OutputShare
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	t := &Trial{cfg: cfg, seed: seed}
	if t.store, err = experiment.Init(cfg.Task, seed); err != nil {
		return nil, err
	}
	if t.trainer, err = experiment.NewTrainer(cfg.Task, t.store); err != nil {
		return nil, err
	}
	if t.total, err = t.trainer.Steps(cfg.Training); err != nil {
		return nil, err
	}
	for _, k := range append([]int{cfg.Rewind}, cfg.Save...) {
		if k < 0 || k >= t.total {
			return nil, &RewindError{Step: k, Total: t.total}
		}
	}
	t.set = cfg.Params(t.store)
	if t.first, err = experiment.Snapshot(t.store); err != nil {
		return nil, err
	}
	t.pruner, err = prune.New(t.trainer.Task().Backend, t.store, t.set, cfg.Recipe)
	if err != nil {
		return nil, err
	}
	isOutput := func(p params.Param) bool { return p.Output }
	if outputShare != 0 && cfg.layerwise() && !slices.ContainsFunc(t.set, isOutput) {
		return nil, &experiment.ConfigError{Field: "Config.OutputShare", Problem: fmt.Sprintf("got %v, and none of %s is marked as the network's output", outputShare, strings.Join(t.set.Paths(), ", ")),
			Remedy: "mark it in Config.Params with params.Set.MarkOutput, or leave OutputShare out"}
	}
	t.set = t.pruner.Params() // less the output where the recipe's unit leaves that out
	// Whether rungs can be made of the recipe is said now, not when the dense network has been trained.
	recipe, _, err := t.recipe(1)
	if err != nil {
		return nil, err
	}
	_, err = prune.New(t.trainer.Task().Backend, t.store, t.pruner.Given(), recipe)
	return t, err
}

// Close frees what the trial compiled.
func (t *Trial) Close() { t.trainer.Close() }

// Seed returns the trial's seed.
func (t *Trial) Seed() int64 { return t.seed }

// Params returns the parameters that are pruned.
func (t *Trial) Params() params.Set { return t.set }

// Trainer returns the trainer of all of the trial's runs. What its store holds is that of the run that was last; Run.Start, Run.End and Run.Kept bring others back.
func (t *Trial) Trainer() *experiment.Trainer { return t.trainer }

// Run is a run of a trial that has ended.
type Run struct {
	experiment.Result
	Name  string // of the trial, the round and the branch
	Round int    // how many times weights had been removed
	// Record is the run in numbers. Labels: branch; draw, where the branch has one. Values: round; kept, size and density of what is pruned; failed, 1 for a run that
	// diverged; and, unless it did, earlyStop (the step), validationLoss and validationAccuracy there, validationAccuracyEnd, trainLossEnd and, where there are test data,
	// testLoss and testAccuracy at the early stop and testAccuracyEnd. Accuracies are between 0 and 1; a loss that is no number is left out.
	Record report.Record
	Masks  Masks             // it was trained with
	Start  experiment.Values // the network before it was trained, masks and all
	End    experiment.Values // after it; nil for a run that failed
	// Failed says why the run has no result: an *experiment.DivergedError, of its own or of the rung that it builds on. nil: it has.
	Failed error
}

// EarlyStop returns the network of the least validation loss; nil for a run that failed before it was measured.
func (r *Run) EarlyStop() experiment.Values { return r.Kept[r.Best] }

// Rung returns the n-th rung of the ladder: the ticket that is left after n rounds of removing, trained. Rung 0 is the dense network. Rungs below that the trial has not got
// yet are trained first, or loaded.
//
// A run that diverges is returned with Failed set, and so are the rungs above it, which it leaves no weights to rank. Other errors: *LadderError, before anything is
// trained; *experiment.InterruptedError, or ctx.Err() while a run is measured, after which the same call goes on; *experiment.SaveError and what else Train returns.
func (t *Trial) Rung(ctx context.Context, n int) (*Run, error) {
	if err := t.check(n); err != nil {
		return nil, err
	}
	for len(t.rungs) <= n {
		if err := t.climb(ctx); err != nil {
			return nil, err
		}
	}
	return t.rungs[n], nil
}

// climb trains the next rung.
func (t *Trial) climb(ctx context.Context) error {
	n := len(t.rungs)
	if n > 0 && t.rungs[n-1].Failed != nil {
		t.rungs = append(t.rungs, t.failed(plan{round: n, branch: Ticket}, t.rungs[n-1].Failed))
		return nil
	}
	p := plan{round: n, branch: Ticket, weights: t.first}
	var err error
	if n == 0 {
		p.keep = append([]int{}, t.cfg.Save...)
		if t.cfg.Rewind > 0 {
			p.keep = append(p.keep, t.cfg.Rewind)
		}
	} else {
		if p.masks, err = t.next(n); err != nil {
			return err
		}
		if p.weights, err = t.at(t.cfg.Rewind); err != nil {
			return err
		}
		p.behind = t.cfg.Rewind
	}
	run, err := t.train(ctx, p)
	if err == nil {
		t.rungs = append(t.rungs, run)
	}
	return err
}

// at returns the dense network's weights after step k.
func (t *Trial) at(k int) (experiment.Values, error) {
	if k == 0 {
		return t.first, nil
	}
	if len(t.rungs) == 0 || t.rungs[0].Kept[k] == nil {
		return nil, &RewindError{Step: k, Total: t.total, Saved: slices.Compact(slices.Sorted(slices.Values(append([]int{0, t.cfg.Rewind}, t.cfg.Save...))))}
	}
	return t.rungs[0].Kept[k], nil
}

// next returns the masks that the end of rung n − 1 leaves for rung n.
func (t *Trial) next(n int) (Masks, error) {
	if err := experiment.Restore(t.store, t.rungs[n-1].End); err != nil {
		return nil, err
	}
	recipe, sparsity, err := t.recipe(n)
	if err != nil {
		return nil, err
	}
	return t.prune(recipe, sparsity)
}

// prune applies a recipe to the network in the store and returns its masks.
func (t *Trial) prune(recipe prune.Recipe, sparsity float64) (Masks, error) {
	if recipe.Seed == 0 { // or all trials would have the same masks of a criterion that draws them, and their spread nothing of the draw
		recipe.Seed = derive("masks", t.seed)
	}
	p, err := prune.New(t.trainer.Task().Backend, t.store, t.pruner.Given(), recipe)
	if err != nil {
		return nil, err
	}
	var sig *signal.Signals
	if needs := p.Recipe().Criterion.Needs; needs&criterion.NeedSignals != 0 {
		src := t.trainer.Source()
		src.Batches, src.Start = t.cfg.Training.Batches, t.first
		if sig, err = signal.Collect(src, t.set, needs); err != nil {
			return nil, err
		}
	}
	if _, err := p.Prune(sparsity, sig); err != nil {
		return nil, err
	}
	return masksOf(t.store, t.set)
}

// plan is a run that is to be made.
type plan struct {
	round   int
	branch  Branch
	weights experiment.Values
	masks   Masks // nil: all alive
	behind  int   // steps of the dense network's schedule that are not to be repeated
	last    bool  // whether the learning rate stays at its last
	keep    []int
	order   int // another order of the examples than that of the round; 0: the same
}

func (t *Trial) name(p plan) string {
	name := fmt.Sprintf("seed-%d/%02d-%s", t.seed, p.round, strings.ReplaceAll(p.branch.label(), " ", "-"))
	if p.order != 0 {
		name += fmt.Sprintf("-order-%d", p.order)
	}
	return name
}

// train makes a run.
func (t *Trial) train(ctx context.Context, p plan) (*Run, error) {
	if err := experiment.Restore(t.store, p.weights); err != nil {
		return nil, err
	}
	if err := p.masks.set(t.store, t.set); err != nil {
		return nil, err
	}
	if err := t.pruner.Enforce(); err != nil {
		return nil, err
	}
	run := &Run{Round: p.round, Name: t.name(p)}
	var err error
	if run.Masks, err = masksOf(t.store, t.set); err != nil {
		return nil, err
	}
	if run.Start, err = t.network(); err != nil {
		return nil, err
	}
	training := t.cfg.Training
	training.Epochs, training.Steps = 0, t.total-p.behind
	training.Pruner, training.KeepBest, training.Keep = t.pruner, true, p.keep
	// Each round has its own order of the examples, which its branches share: they are compared in pairs.
	training.Seed = t.seed*1000 + int64(p.round)
	if p.order != 0 {
		training.Seed = derive("order", t.seed, p.round, p.order)
	}
	training.Rate = t.rate(p)
	if t.cfg.Dir != "" {
		training.Dir = filepath.Join(t.cfg.Dir, filepath.FromSlash(run.Name))
	}
	if t.cfg.Progress != nil {
		training.Progress = func(done, total int, note string) { t.cfg.Progress(run.Name, done, total, note) }
	}
	if t.cfg.Watch != nil {
		training.Watch = func(now report.Progress) { t.cfg.Watch(run.Name, now) }
	}
	run.Result, err = t.trainer.Train(ctx, training)
	var diverged *experiment.DivergedError
	switch {
	case errors.As(err, &diverged):
		run.Failed = err
		run.Record = t.record(p, run)
		return run, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", run.Name, err)
	}
	if run.End, err = t.network(); err != nil {
		return nil, err
	}
	run.Record = t.record(p, run)
	return run, t.score(ctx, run)
}

// rate returns the factor of the learning rate of a run that leaves out the first steps of the schedule.
func (t *Trial) rate(p plan) func(float64) float64 {
	full := t.cfg.Training.Rate
	switch {
	case full == nil || p.behind == 0 && !p.last:
		return full
	case p.last:
		last := full(float64((t.total-1)/experiment.RateSteps*experiment.RateSteps) / float64(t.total)) // that of the last step
		return func(float64) float64 { return last }
	}
	start := float64(p.behind) / float64(t.total)
	return func(done float64) float64 { return full(start + done*(1-start)) }
}

// network copies what is in the store, but for what belongs to the optimizer. What a criterion has tracked of the training is the next rung's to rank by.
func (t *Trial) network() (experiment.Values, error) {
	values, err := experiment.Snapshot(t.store)
	for path := range values {
		if _, own := t.first[path]; !own && !strings.HasPrefix(path, mask.Scope) && !strings.HasPrefix(path, scoring.TrackScope) {
			delete(values, path)
		}
	}
	return values, err
}

// failed is a run that could not be made because the one that it builds on had diverged.
func (t *Trial) failed(p plan, cause error) *Run {
	run := &Run{Round: p.round, Name: t.name(p), Failed: cause}
	run.Record = t.record(p, run)
	return run
}

// record describes a run without what is measured on test data.
func (t *Trial) record(p plan, run *Run) report.Record {
	r := report.Record{Recipe: t.cfg.describe(t.total), Seed: t.seed, Step: run.Steps, Labels: map[string]string{"branch": p.branch.Name},
		Values: map[string]float64{"round": float64(p.round), "size": float64(t.set.Size()), "failed": 0}}
	if p.branch.Draw != 0 {
		r.Labels["draw"] = fmt.Sprint(p.branch.Draw)
	}
	if p.order != 0 {
		r.Labels["order"] = fmt.Sprint(p.order)
	}
	if run.Masks != nil {
		r.Values["kept"] = float64(run.Masks.Kept())
		r.Values["density"] = r.Values["kept"] / r.Values["size"]
	}
	if run.Failed != nil {
		r.Values["failed"] = 1
		return r
	}
	r.Values["trainLossEnd"] = run.Loss
	r.Values["earlyStop"] = float64(run.Best)
	for i, l := range run.ValidationLosses {
		if l.Step == run.Best {
			r.Values["validationLoss"], r.Values["validationAccuracy"] = l.Value, run.Accuracies[i].Value
		}
		r.Values["validationAccuracyEnd"] = run.Accuracies[i].Value
	}
	return r
}

// recordFile is where the record of a finished run lies, in the run's directory.
const recordFile = "record.json"

// testValues are what is measured on test data.
var testValues = []string{"testLoss", "testAccuracy", "testAccuracyEnd"}

// testLabel is the label of a record that says which test data its measurements are of.
const testLabel = "test data"

// score adds what is measured on test data to a run's record: once for the same data, unless the run is not saved.
func (t *Trial) score(ctx context.Context, run *Run) error {
	test := t.cfg.Task.Test
	if test == nil {
		return nil
	}
	digest, err := experiment.DataDigest(test)
	if err != nil {
		return err
	}
	of := strings.TrimSpace(fmt.Sprintf("%s %.12s", test.Name(), digest))
	file := filepath.Join(run.Dir, recordFile)
	if run.Loaded {
		if saved, err := report.ReadRecords(file); err == nil && len(saved) == 1 && saved[0].Labels[testLabel] == of {
			// No more than what was measured: ladders that differ in what comes later share their dense network, and its record is of the one that made it.
			for _, name := range testValues {
				if x, measured := saved[0].Values[name]; measured {
					run.Record.Values[name] = x
				}
			}
			run.Record.Labels[testLabel] = of
			return nil
		}
	}
	run.Record.Labels[testLabel] = of
	end, err := t.trainer.Evaluate(ctx, test)
	if err != nil {
		return err
	}
	if best := run.EarlyStop(); best != nil {
		if err := experiment.Restore(t.store, best); err != nil {
			return err
		}
		stopped, err := t.trainer.Evaluate(ctx, test)
		if err != nil {
			return err
		}
		run.Record.Values["testAccuracy"] = stopped.Accuracy
		if !math.IsNaN(stopped.Loss) && !math.IsInf(stopped.Loss, 0) { // which records can't hold
			run.Record.Values["testLoss"] = stopped.Loss
		}
	}
	run.Record.Values["testAccuracyEnd"] = end.Accuracy
	if run.Dir == "" {
		return nil
	}
	return report.WriteRecords(file, []report.Record{run.Record})
}

// describe names the ladder: what is removed, and what of Config's own numbers differs from the defaults, so that a field added later renames nothing. Optimizer, rate, data and parameters are not named.
func (c Config) describe(total int) string {
	parts := []string{"lottery", c.Recipe.String()}
	if total != paperSteps {
		parts = append(parts, fmt.Sprintf("steps=%d", total))
	}
	if c.Share != 0.2 {
		parts = append(parts, fmt.Sprintf("share=%v", c.Share))
	}
	if c.layerwise() && c.OutputShare != c.Share/2 {
		parts = append(parts, fmt.Sprintf("outputshare=%v", c.OutputShare))
	}
	if c.Rewind != 0 {
		parts = append(parts, fmt.Sprintf("rewind=%d", c.Rewind))
	}
	return strings.Join(parts, " ")
}

// layerwise tells whether each layer has its own share.
func (c Config) layerwise() bool { return c.Recipe.Budget.Divide == nil }

// derive makes a seed of a purpose and numbers that no other has.
func derive(purpose string, numbers ...any) int64 {
	h := fnv.New64a()
	fmt.Fprintln(h, append([]any{purpose}, numbers...)...)
	return int64(h.Sum64() & math.MaxInt64)
}

// random returns the random numbers of a branch.
func (t *Trial) random(n int, b Branch) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(t.seed), uint64(derive("branch", n, b.label()))))
}

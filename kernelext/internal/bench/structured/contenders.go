package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/structured"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// job is one seed of a study.
type job struct {
	ctx     context.Context
	backend compute.Backend
	study   study
	seed    int64
	draw    int // of those that lots decide, from 1
	dir     string

	dense *model.Store // trained; nil at first
}

// chosen is what a contender comes to.
type chosen struct {
	plan *surgery.Plan
	// spent is how many training steps it took; adjust changes the smaller network's store.
	spent  int
	adjust func(*model.Store) error
}

// contender chooses what goes of a trained network.
type contender struct {
	name   string
	choose func(j *job, n *surgery.Network) (chosen, error)
}

// contenders are in the order of the table.
var contenders []contender

// Names that measure knows. longer is random again, with as many steps as the method that takes the most has in all.
const (
	random  = "random"
	longer  = "random, longer"
	scratch = "scratch"
	// throughout is slimming whose gains have their price from the first step, in place of the dense network's training, as its authors do it. It takes no further steps to choose.
	throughout = "slimming, throughout"
)

// draws is how often a method is run of each seed: where lots decide, several times, as one draw of a few channels says little of what channels by lot are worth.
func (st study) draws(name string) int {
	if name == random || name == longer {
		return st.lots
	}
	return 1
}

func init() {
	contenders = []contender{
		{random, byCriterion(criterion.Random)},
		{longer, byCriterion(criterion.Random)},
		{"L1", byCriterion(criterion.Magnitude)},
		{"FPGM", byCriterion(criterion.FPGM)},
		{"slimming", slimming(published, false)},
		{"slimming, floor", slimming(floored, false)},
		{"slimming, uniform", slimming(uniform, false)},
		{throughout, slimming(published, true)},
		{throughout + ", uniform", slimming(uniform, true)},
		{"group lasso", func(j *job, n *surgery.Network) (chosen, error) {
			l := structured.GroupLasso{Strength: j.study.lasso, Budget: j.budget()}
			l.Budget.Compete = structured.WithinGroup // few steps drive no unit to zero, and what is only small says little of other layers
			return j.penalised(n, l.Model, l.Choose)
		}},
		{"growing", func(j *job, n *surgery.Network) (chosen, error) {
			g := structured.Growing{Every: 1, Step: 0.5 / float64(j.study.prepare), Limit: 0.5, Budget: j.budget()}
			p, err := g.Choose(n)
			if err != nil {
				return chosen{}, err
			}
			return j.penalised(n, func(n *surgery.Network) (trace.ModelFn, error) { return g.Model(n, p) }, func(n *surgery.Network) (*surgery.Plan, error) {
				again := n.Empty() // of the store that was trained
				again.Removed, again.Criterion, again.Budget = p.Removed, p.Criterion, p.Budget
				return again, again.Check()
			})
		}},
		{"PFP", pfp(published, false)},
		{"PFP, floor", pfp(floored, false)},
		{"PFP, uniform", pfp(uniform, false)},
		{"PFP, sampled", pfp(published, true)},
		{"SCOP", scop(structured.SecondOrder(0))},
		{"SCOP, generator", scop(structured.Generator(structured.GeneratorConfig{}))},
		{"SCOP, shuffled", scop(structured.Shuffled)},
		{"SCOP, noise", scop(structured.Noise)},
		{"SCOP, zeros", scop(structured.Zeros)},
		{"GAL", func(j *job, n *surgery.Network) (chosen, error) {
			r, err := structured.GAL{Budget: j.budget(), Sparsity: j.study.sparsity, Steps: j.study.prepare, Seed: j.seed}.Choose(j.ctx, n, j.data())
			if err != nil {
				return chosen{}, err
			}
			return chosen{plan: r.Plan, spent: j.study.prepare}, nil
		}},
		{"ThiNet", func(j *job, n *surgery.Network) (chosen, error) {
			b, err := uniform(j, n)
			if err != nil {
				return chosen{}, err
			}
			r, err := structured.ThiNet{Budget: b}.Choose(j.ctx, n, j.data())
			if err != nil {
				return chosen{}, err
			}
			return chosen{plan: r.Plan}, nil
		}},
		{scratch, byCriterion(criterion.Magnitude)},
	}
}

// budget keeps the same share of each layer's channels.
func (j *job) budget() structured.Budget {
	if j.study.rate != 0 {
		return structured.Budget{Rate: j.study.rate, Exclude: stream}
	}
	return structured.Budget{MACs: j.study.macs}
}

// keep is how many channels the rate leaves of each convolution in a block.
func (j *job) keep(n *surgery.Network) map[string]int {
	keep := map[string]int{}
	for _, g := range n.Groups() {
		made := slices.ContainsFunc(g.Members, func(m surgery.Member) bool { return m.Role == surgery.Makes })
		whole := slices.ContainsFunc(g.Members, func(m surgery.Member) bool {
			return slices.ContainsFunc(stream, func(scope string) bool { return strings.HasPrefix(m.Path, scope+model.ScopeSeparator) })
		})
		if made && !whole {
			keep[g.Name] = g.Size - int(math.Floor(j.study.rate*float64(g.Size)+1e-9)) // as structured.Budget
		}
	}
	return keep
}

// data are the training data, in an order of this seed.
func (j *job) data() experiment.Resident {
	return j.study.train.WithSeed(j.seed)
}

func byCriterion(c criterion.Criterion) func(*job, *surgery.Network) (chosen, error) {
	return func(j *job, n *surgery.Network) (chosen, error) {
		c := c
		if c.Pool == nil {
			c.Pool = criterion.Mean
		}
		cfg := surgery.Config{Criterion: c, MACs: j.study.macs, Uniform: true, Seed: j.seed + 1000*int64(j.draw-1)}
		if j.study.rate != 0 {
			cfg.Keep, cfg.Exclude = j.keep(n), stream
		}
		p, err := n.Plan(cfg, nil)
		return chosen{plan: p}, err
	}
}

// division is how the budget is divided over the layers. What comes of the choice within layers is told apart from what comes of their widths.
type division func(*job, *surgery.Network) (structured.Budget, error)

// published is each method's own rule. Where the others have a rate, it gets the multiply-accumulates that this leaves.
func published(j *job, n *surgery.Network) (structured.Budget, error) {
	if j.study.rate == 0 {
		return j.budget(), nil
	}
	lots, err := byCriterion(criterion.Random)(j, n)
	if err != nil {
		return structured.Budget{}, err
	}
	cost, err := lots.plan.Cost()
	return structured.Budget{MACs: float64(cost.MACs) / float64(n.Cost().MACs), Exclude: stream}, err
}

// uniform gives the layers random's widths. Where there is a rate, it gives all layers that a method can choose in the same share, of as many multiply-accumulates: PFP and ThiNet read importances off the
// layer behind, and where that is only a sum there is none.
func uniform(j *job, n *surgery.Network) (structured.Budget, error) {
	b, err := published(j, n)
	b.Compete = structured.WithinGroup
	return b, err
}

// floored is published, with at least two thirds of the share that random keeps of each layer, so that none is starved.
func floored(j *job, n *surgery.Network) (structured.Budget, error) {
	b, err := published(j, n)
	if err != nil {
		return b, err
	}
	lots, err := byCriterion(criterion.Random)(j, n)
	if err != nil {
		return b, err
	}
	b.MinShare = 2. / 3
	for name, removed := range lots.plan.Removed {
		size := n.Group(name).Size
		b.MinShare = min(b.MinShare, 2./3*float64(size-len(removed))/float64(size))
	}
	return b, nil
}

func slimming(divide division, whole bool) func(*job, *surgery.Network) (chosen, error) {
	return func(j *job, n *surgery.Network) (chosen, error) {
		b, err := divide(j, n)
		if err != nil {
			return chosen{}, err
		}
		if !whole {
			s := structured.Slimming{Strength: j.study.slimming, Budget: b}
			return j.penalised(n, s.Model, s.Choose) // trained once for all divisions
		}
		s := structured.Slimming{Strength: j.study.throughout, Budget: b}
		store, err := experiment.Init(j.task(j.study.network.Model), j.seed)
		if err != nil {
			return chosen{}, err
		}
		c, err := j.priced(n, store, j.study.dense, j.study.dense.steps, s.Model, s.Choose)
		c.spent = 0
		return c, err
	}
}

func pfp(divide division, sampled bool) func(*job, *surgery.Network) (chosen, error) {
	return func(j *job, n *surgery.Network) (chosen, error) {
		b, err := divide(j, n)
		if err != nil {
			return chosen{}, err
		}
		r, err := structured.PFP{Budget: b, Sampled: sampled, Seed: j.seed}.Choose(j.ctx, n, j.study.validation)
		if err != nil {
			return chosen{}, err
		}
		return chosen{plan: r.Plan, adjust: r.Reweight}, nil // by 1, unless it samples
	}
}

func scop(k structured.Knockoffs) func(*job, *surgery.Network) (chosen, error) {
	return func(j *job, n *surgery.Network) (chosen, error) {
		r, err := structured.SCOP{Budget: j.budget(), Knockoffs: k, Steps: j.study.prepare, LearningRate: 0.02, Seed: j.seed}.Choose(j.ctx, n, j.data())
		if err != nil {
			return chosen{}, err
		}
		return chosen{plan: r.Plan, spent: j.study.prepare}, nil
	}
}

// penalised trains a copy with a penalty, and chooses of it.
func (j *job) penalised(n *surgery.Network, penalty func(*surgery.Network) (trace.ModelFn, error), choose func(*surgery.Network) (*surgery.Plan, error)) (chosen, error) {
	store, err := n.Store().Clone()
	if err != nil {
		return chosen{}, err
	}
	return j.priced(n, store, j.study.tune, j.study.prepare, penalty, choose)
}

// priced trains a store of the network's variables with a penalty, and chooses of it.
func (j *job) priced(n *surgery.Network, store *model.Store, p plan, steps int, penalty func(*surgery.Network) (trace.ModelFn, error), choose func(*surgery.Network) (*surgery.Plan, error)) (chosen, error) {
	fn, err := penalty(n)
	if err != nil {
		return chosen{}, err
	}
	task := j.task(structured.Logits(fn))
	if _, err := experiment.Train(j.ctx, task, store, p.training(steps, j.seed, j.dir)); err != nil {
		return chosen{}, err
	}
	trained, err := j.trace(store)
	if err != nil {
		return chosen{}, err
	}
	removal, err := choose(trained)
	return chosen{plan: removal, spent: steps}, err
}

func (j *job) task(fn experiment.ModelFn) experiment.Task {
	if j.study.augment {
		fn = cropAndFlip(fn)
	}
	return experiment.Task{Backend: j.backend, Model: fn, Train: j.data(), Validation: j.study.validation, Test: j.study.test}
}

// trace returns the network that methods choose of. Where there is a rate, the last convolution of a block has channels of its own, as papers count them.
func (j *job) trace(store *model.Store) (*surgery.Network, error) {
	n, err := surgery.Trace(j.backend, store, trace.Single(j.study.network.Model), shapes.Make(dtypes.Float32, append([]int{1}, j.study.network.Input...)...))
	if err != nil || j.study.rate == 0 {
		return n, err
	}
	return structured.FreeBranches(n)
}

// trained returns the dense network of the seed, which is trained once and then loaded.
func (j *job) trained() (*model.Store, error) {
	if j.dense != nil {
		return j.dense, nil
	}
	task := j.task(j.study.network.Model)
	store, err := experiment.Init(task, j.seed)
	if err != nil {
		return nil, err
	}
	if _, err := experiment.Train(j.ctx, task, store, j.study.dense.training(j.study.dense.steps, j.seed, j.dir)); err != nil {
		return nil, err
	}
	j.dense = store
	return store, nil
}

// measure makes the record of a method.
func (j *job) measure(name string) (report.Record, error) {
	r := report.Record{Labels: map[string]string{"network": j.study.network.Name, "data": j.study.images(), "method": name}, Values: map[string]float64{}}
	if j.study.draws(name) > 1 {
		r.Values["draw"] = float64(j.draw)
	}
	dense, err := j.trained()
	if err != nil {
		return r, err
	}
	n, err := j.trace(dense)
	if err != nil {
		return r, err
	}
	if name == "dense" {
		m, err := experiment.Evaluate(j.ctx, j.task(j.study.network.Model), dense, j.study.test)
		r.Values["accuracy"], r.Values["loss"], r.Values["macs"], r.Values["params"] = m.Accuracy, m.Loss, 1, 1
		return r, err
	}
	var c chosen
	start := time.Now()
	for _, one := range contenders {
		if one.name == name {
			c, err = one.choose(j, n)
		}
	}
	var gains *structured.NoGainError
	if errors.As(err, &gains) {
		r.Labels["refused"] = "no normalisation with gains"
		return r, nil
	}
	if failed(&r, err) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	r.Values["seconds"] = time.Since(start).Seconds()
	small, err := c.plan.Apply()
	if err != nil {
		return r, err
	}
	cost, err := c.plan.Cost()
	if err != nil {
		return r, err
	}
	whole := n.Cost()
	r.Values["macs"], r.Values["params"] = float64(cost.MACs)/float64(whole.MACs), float64(cost.Params)/float64(whole.Params)
	for _, g := range n.Groups() {
		r.Values["units "+g.Name] = float64(g.Size - len(c.plan.Removed[g.Name]))
	}
	r.Values["choosing"] = float64(c.spent)
	task, store := j.task(small.Single), small.Store
	steps := j.study.tune.steps
	if name == longer {
		steps += j.study.prepare
	}
	training := j.study.tune.training(steps, j.seed, j.dir)
	training.Name = drawn(name, j.draw) // methods that choose the same are trained apart all the same
	training.Keep = append(j.study.points(), steps)
	if name == scratch {
		if store, err = experiment.Init(task, j.seed+1000); err != nil {
			return r, err
		}
		training = j.study.dense.training(j.study.dense.steps+j.study.tune.steps, j.seed, j.dir)
	} else {
		if c.adjust != nil {
			if err := c.adjust(store); err != nil {
				return r, err
			}
		}
		if err := structured.EstimateNorms(j.ctx, j.backend, store, small.ModelFn, j.data(), 20); err != nil { // of all alike
			return r, err
		}
	}
	trainer, err := experiment.NewTrainer(task, store)
	if err != nil {
		return r, err
	}
	defer trainer.Close()
	result, err := trainer.Train(j.ctx, training)
	if failed(&r, err) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	for _, step := range training.Keep { // the last is the network as it is now
		if err := experiment.Restore(store, result.Kept[step]); err != nil {
			return r, err
		}
		m, err := trainer.Evaluate(j.ctx, j.study.validation)
		if err != nil {
			return r, err
		}
		r.Values[tuned(step)] = m.Accuracy
	}
	r.Step = result.Steps
	m, err := trainer.Evaluate(j.ctx, j.study.test)
	r.Values["accuracy"], r.Values["loss"] = m.Accuracy, m.Loss
	return r, err
}

// drawn names a draw of a method.
func drawn(name string, draw int) string {
	if draw == 1 {
		return name
	}
	return fmt.Sprintf("%s, draw %d", name, draw)
}

const tunedAfter = "validation after %d"

// tuned names the validation accuracy after so many steps of fine-tuning.
func tuned(step int) string {
	if step == 0 {
		return "before"
	}
	return fmt.Sprintf(tunedAfter, step)
}

// points are the steps of fine-tuning after which validation accuracy is measured, but for the last.
func (st study) points() []int {
	return slices.DeleteFunc([]int{0, 10, 30, 100, 300}, func(step int) bool { return 2*step > st.tune.steps })
}

// failed notes that a training came to values that are no numbers: such a run counts as failed, and the others go on.
func failed(r *report.Record, err error) bool {
	var training *experiment.DivergedError
	var choice *structured.DivergedError
	if errors.As(err, &training) || errors.As(err, &choice) {
		r.Labels["failed"] = err.Error()
		return true
	}
	return false
}

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/distill"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// The networks of a run, by what was done. All but the dense ones have the widths of the last rung. denseLong has the epochs that the fast network has had with its teacher's: what those would have made of the dense one.
const (
	teacherNet  = "dense teacher"
	denseLong   = "dense, as long in all"
	fastNet     = "pruned, distilled"
	noTeacher   = "pruned, not distilled"
	randomNet   = "pruned at random, distilled"
	scratchNet  = "from scratch"
	scratchSoft = "from scratch, distilled"
)

// Distillation, as is common: nine tenths of the loss from the teacher, at temperature 4.
const temperature, alpha = 4, 0.9

// run is one network and one seed.
type run struct {
	family
	seed    int64
	backend compute.Backend
	data    *mnist.Data
	dir     string // where trainings are saved and go on from
	say     func(format string, args ...any)
}

// net is a trained network.
type net struct {
	name   string
	widths []int
	store  *model.Store
	cost   surgery.Cost
	steps  int

	rate, validation float64
}

func (r *run) task(widths []int) experiment.Task {
	return experiment.Task{Backend: r.backend, Model: r.model(widths), Train: r.data.Train, Validation: r.data.Validation, Test: r.data.Test}
}

// learn trains a network on a task, which may have a teacher's answers in it. An interrupted training goes on, a finished one is loaded.
func (r *run) learn(ctx context.Context, n *net, task experiment.Task, spec experiment.Spec) error {
	training, err := spec.Training()
	if err != nil {
		return err
	}
	training.Seed, training.Dir = r.seed, r.dir
	start := time.Now()
	result, err := experiment.Train(ctx, task, n.store, training)
	if err != nil {
		return err
	}
	m, err := experiment.Evaluate(ctx, task, n.store, r.data.Validation)
	if err != nil {
		return err
	}
	n.steps, n.rate, n.validation = result.Steps, spec.LearningRate, m.Accuracy
	r.say("%s, seed %d, %s %v, rate %g: %d steps in %v, loss %.4f, validation %.4f", r.name, r.seed, n.name, n.widths, n.rate, result.Steps, time.Since(start).Round(time.Second), result.Loss, m.Accuracy)
	n.cost, err = r.cost(*n)
	return err
}

// best makes networks with each of the rates, and returns those whose last one is the best on validation data, of equal ones the earlier.
func (r *run) best(train func(rate float64) ([]net, error)) ([]net, error) {
	var best []net
	for _, rate := range r.rates {
		nets, err := train(rate)
		if err != nil {
			return nil, err
		}
		if best == nil || nets[len(nets)-1].validation > best[len(best)-1].validation {
			best = nets
		}
	}
	return best, nil
}

// all trains all networks of the run: the teacher first, then what is compared.
func (r *run) all(ctx context.Context) ([]net, error) {
	teacher := net{name: teacherNet, widths: r.teacher.widths}
	var err error
	if teacher.store, err = experiment.Init(r.task(teacher.widths), r.seed); err != nil {
		return nil, err
	}
	if err = r.taught(ctx, &teacher, nil, r.teacher.spec); err != nil {
		return nil, err
	}
	nets := []net{teacher}
	for _, ladder := range []struct {
		name      string
		criterion criterion.Criterion
		distilled bool
	}{{fastNet, criterion.Taylor, true}, {noTeacher, criterion.Taylor, false}, {randomNet, criterion.Random, true}} {
		n, err := r.best(func(rate float64) ([]net, error) {
			return r.ladder(ctx, ladder.name, teacher, ladder.criterion, ladder.distilled, rate)
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ladder.name, err)
		}
		nets = append(nets, n...)
	}
	last := r.rungs[len(r.rungs)-1].widths
	long, err := r.best(func(rate float64) ([]net, error) { return r.fresh(ctx, denseLong, r.teacher.widths, nil, rate) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", denseLong, err)
	}
	nets = append(nets, long...)
	for _, control := range []struct {
		name    string
		teacher *net
	}{{scratchNet, nil}, {scratchSoft, &teacher}} {
		n, err := r.best(func(rate float64) ([]net, error) { return r.fresh(ctx, control.name, last, control.teacher, rate) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", control.name, err)
		}
		nets = append(nets, n...)
	}
	return nets, nil
}

// fresh trains a network from scratch, as long as the fast network and its teacher together.
func (r *run) fresh(ctx context.Context, name string, widths []int, teacher *net, rate float64) ([]net, error) {
	n := net{name: name, widths: widths}
	var err error
	if n.store, err = experiment.Init(r.task(widths), r.seed+1000); err != nil { // not the teacher's seed, whose values the pruned networks come from
		return nil, err
	}
	spec := r.scratch
	spec.LearningRate = rate
	err = r.taught(ctx, &n, teacher, spec)
	return []net{n}, err
}

// taught trains a network, from a teacher or, if that is nil, by the labels alone.
func (r *run) taught(ctx context.Context, n, teacher *net, spec experiment.Spec) error {
	task := r.task(n.widths)
	if teacher != nil {
		lesson, err := distill.Teach(ctx, distill.Config{
			Backend: r.backend, Student: task.Model, Store: n.store, Train: task.Train,
			Teachers: []distill.Teacher{{Model: r.model(teacher.widths), Store: teacher.store}},
			Terms:    []distill.Term{distill.Logits(temperature, alpha)},
		})
		if err != nil {
			return err
		}
		task.Model, task.Loss, task.Train = lesson.Model, lesson.Loss, lesson.Train
	}
	return r.learn(ctx, n, task, spec)
}

// ladder cuts the dense network to one rung after the other and trains after each at a rate, with that network as its teacher or without. It returns the networks of all rungs.
func (r *run) ladder(ctx context.Context, name string, dense net, c criterion.Criterion, distilled bool, rate float64) ([]net, error) {
	var nets []net
	from, teacher := dense, &dense
	if !distilled {
		teacher = nil
	}
	for i, rung := range r.rungs {
		n := net{name: name, widths: rung.widths}
		if i < len(r.rungs)-1 {
			n.name = fmt.Sprintf("%s, rung %d", name, i+1)
		}
		var err error
		if n.store, err = r.cut(from, rung.widths, c); err != nil {
			return nil, fmt.Errorf("rung %v: %w", rung.widths, err)
		}
		spec := rung.spec
		spec.LearningRate = rate
		if err = r.taught(ctx, &n, teacher, spec); err != nil {
			return nil, err
		}
		nets, from = append(nets, n), n
	}
	return nets, nil
}

// cut makes a network physically smaller: in each group of units those stay that the criterion ranks highest. What is left is an ordinary network of the family with smaller widths, which
// is checked against the masked one.
func (r *run) cut(from net, widths []int, c criterion.Criterion) (*model.Store, error) {
	task := r.task(from.widths)
	n, err := surgery.Trace(r.backend, from.store, trace.Single(task.Model), input(1))
	if err != nil {
		return nil, err
	}
	cfg := surgery.Config{Criterion: c, Keep: map[string]int{}, Seed: r.seed}
	for i, of := range r.groups {
		for _, g := range n.Groups() {
			if strings.HasPrefix(g.Name, of) {
				cfg.Keep[g.Name] = widths[i]
			}
		}
	}
	trainer, err := experiment.NewTrainer(task, from.store)
	if err != nil {
		return nil, err
	}
	defer trainer.Close()
	signals, err := trainer.Signals(n.Params(cfg), c.Needs, 10)
	if err != nil {
		return nil, err
	}
	plan, err := n.Plan(cfg, signals)
	if err != nil {
		return nil, err
	}
	small, err := plan.Apply()
	if err != nil {
		return nil, err
	}
	x := tensors.FromShape(input(64))
	if err := fill(x, r.data.Validation); err != nil {
		return nil, err
	}
	proof, err := surgery.Verify(n, small, x)
	if err != nil {
		return nil, err
	}
	if !(proof.MaxDiff <= 1e-4*max(1, proof.MaxOutput)) {
		return nil, fmt.Errorf("the smaller network differs from the masked one by %g", proof.MaxDiff)
	}
	return stripped(small.Store, r.task(widths))
}

// stripped returns a store with the variables of a network alone, without what optimizers have left.
func stripped(from *model.Store, task experiment.Task) (*model.Store, error) {
	clean, err := experiment.Init(task, 0)
	if err != nil {
		return nil, err
	}
	values := experiment.Values{}
	for v := range clean.IterVariables() {
		have := from.GetVariable(v.Path())
		if have == nil {
			return nil, fmt.Errorf("%s is not there after surgery", v.Path())
		}
		if values[v.Path()], err = have.Value(); err != nil {
			return nil, err
		}
	}
	return clean, experiment.Restore(clean, values)
}

func (r *run) cost(n net) (surgery.Cost, error) {
	traced, err := surgery.Trace(r.backend, n.store, trace.Single(r.model(n.widths)), input(1))
	if err != nil {
		return surgery.Cost{}, err
	}
	return traced.Cost(), nil
}

// records evaluates the networks: on test data last, when nothing is chosen any more.
func (r *run) records(ctx context.Context, nets []net) ([]report.Record, error) {
	var records []report.Record
	for _, n := range nets {
		task := r.task(n.widths)
		validation, err := experiment.Evaluate(ctx, task, n.store, task.Validation)
		if err != nil {
			return nil, err
		}
		test, err := experiment.Evaluate(ctx, task, n.store, task.Test)
		if err != nil {
			return nil, err
		}
		records = append(records, report.Record{
			Recipe: n.name, Seed: r.seed, Step: n.steps,
			Labels: map[string]string{"network": r.name, "widths": widthsText(n.widths)},
			Values: map[string]float64{"validation": validation.Accuracy, "test": test.Accuracy, "macs": float64(n.cost.MACs), "params": float64(n.cost.Params), "rate": n.rate},
		})
	}
	return records, nil
}

func widthsText(widths []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(widths), " ", "-"), "[]")
}

// trainAll does the first phase.
func trainAll(ctx context.Context, s settings) error {
	data, err := mnist.Open(mnist.Config{Batch: 128})
	if err != nil {
		return err
	}
	for _, seed := range s.seeds {
		for _, f := range s.families {
			r := &run{family: f, seed: seed, backend: s.backend, data: data, dir: filepath.Join(s.work, "runs"), say: s.say}
			if s.fast {
				r.data = &mnist.Data{Train: data.Train.Take(4000), Validation: data.Validation.Take(500), Test: data.Test.Take(500)}
			}
			nets, err := r.all(ctx)
			var interrupted *experiment.InterruptedError
			if errors.As(err, &interrupted) {
				return err
			}
			if err != nil {
				return fmt.Errorf("%s, seed %d: %w", f.name, seed, err)
			}
			records, err := r.records(ctx, nets)
			if err != nil {
				return err
			}
			if err := r.write(s, nets, records); err != nil {
				return err
			}
			if err := replaceRecords(filepath.Join(s.out, accuracyFile), records, f.name, seed); err != nil {
				return err
			}
		}
	}
	return writeTables(s)
}

// replaceRecords puts the records of a network and seed in place of those that a file has of them.
func replaceRecords(file string, records []report.Record, network string, seed int64) error {
	all, err := report.ReadRecords(file)
	if err != nil {
		return err
	}
	var kept []report.Record
	for _, r := range all {
		if r.Labels["network"] != network || r.Seed != seed {
			kept = append(kept, r)
		}
	}
	return report.WriteRecords(file, append(kept, records...))
}

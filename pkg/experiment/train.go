package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/store/checkpoint"
)

// Training says how to train. The zero value trains for one epoch with Adam.
type Training struct {
	// Epochs over the training data, or Steps (batches), whichever is set; both is an error. Default: one epoch.
	Epochs, Steps int
	// Optimizer. nil: Adam with learning rate 1e-3. Every run starts with fresh optimizer state. Of optimizers that are pointers, only the fields of an *SGD may be changed between two trainings of a
	// Trainer: what has changed in others is not seen.
	Optimizer optimizer.Interface
	// Rate scales the optimizer's learning rate while the run goes on: it is given the share of the run that is done, at least 0 and below
	// 1, and returns a factor. It is asked every 50 steps (RateSteps). CosineDecay and LinearDecay are such functions. nil: the rate stays.
	Rate func(done float64) float64
	// Seed chooses the order of the examples, together with the data set's own seed, and the random numbers of dropout and the like.
	Seed int64
	// Pruner keeps its masks while training: dead weights are zero after each step. That the compiled step ends in the mask is checked when it is built,
	// and dead weights that are not zero are counted every 50 steps and before anything is pruned or saved; after every step, where something
	// else than the optimizer writes to the weights. nil: nothing is pruned.
	Pruner *prune.Pruner
	// Schedule and When prune while training: after step s, if When(s), to sparsity Schedule(s). Both need Pruner.
	Schedule schedule.Schedule
	When     schedule.When
	// Topology changes the masks while training, for instance a *sparsetrain.Engine. It brings its own Pruner, and takes the place of Schedule. nil: none does.
	Topology Topology
	// Batches of the training data are run through the network before each pruning of the schedule, for criteria that need signals: the first ones, or for a Topology those
	// of a step. They depend on the data set's own seed (WithSeed) and not on Seed. Default: 10; for a Topology 1.
	Batches int
	// Dir is where runs are saved, each in a subdirectory named by its digest: of all of this configuration, the data (with Validate, also those that it measures on) and the weights it
	// starts from. A finished run is loaded instead of trained again, an interrupted one goes on: from the same start, or from the weights that the interruption has left in the store. Of data that are neither
	// Resident nor have a Digest, the digest sees the name only. "": nothing is saved.
	Dir string
	// SaveEvery is the time between two saves. Default: 20 seconds. A run is also saved when it is interrupted and when it ends.
	SaveEvery time.Duration
	// Progress is told how far the run is, at most 5 times a second, and at the end. nil: nobody is told.
	Progress func(done, total int, note string)
	// Watch is told how the run goes in numbers, for a live chart: after each dispatch, where the loss of a block or the accuracy is known and where
	// weights were pruned. A run that goes on, or was finished before, first tells its past. It must return quickly. nil: nobody is told.
	Watch func(report.Progress)
	// Validate is after how many steps loss and accuracy on the task's validation data are measured, and at the end, for Watch, Result.Accuracies and
	// Result.ValidationLosses. It does not change what is trained. 0: never.
	Validate int
	// KeepBest keeps the network of the step with the least validation loss, the first of equal ones, in Result.Kept: what stopping early would have given. It needs
	// Validate.
	KeepBest bool
	// Keep are steps after which the network is kept too, in Result.Kept: to rewind to. 0 is before the first step.
	Keep []int
	// StepsPerDispatch is the number of steps that the device does at a time, at most 50. It does not change the result. Default: 50, or 1
	// where that is not possible or slow: for data sets that are not Resident, for networks with convolutions of many channels or with strides, for backends without loops.
	StepsPerDispatch int
	// Name distinguishes runs that differ in what the digest can't see: constants of 32 elements or more in the code of a model or a criterion.
	Name string

	// after is how many steps of the data's order lie behind: where one training is divided into several, each goes on with the next examples.
	after int
}

// Topology changes which weights are alive while a network trains.
type Topology interface {
	// Pruner holds the masks and keeps dead weights zero.
	Pruner() *prune.Pruner
	// Ready is asked before the first step, when the optimizer's variables are there: what the topology needs and can't have is an error.
	Ready() error
	// Due tells whether Apply is to be called after a step. It has to be a function of the step alone.
	Due(step int) bool
	// Needs are the signals that Apply is given.
	Needs() criterion.Needs
	// Apply changes masks and weights, after a step, and keeps dead weights zero. The signals are good until it returns: their memory serves again.
	Apply(step int, sig *signal.Signals) error
	// String says all that Apply does, but for what depends on the step; Fraction says that. They distinguish runs, and so does Code, which sees what String only names: that a rule was written anew. It is
	// given the number of steps of the training.
	String() string
	Code(steps int) (string, error)
	Fraction(step int) float64
}

// Result of a run.
type Result struct {
	Steps  int     // steps done in all
	Loss   float64 // the last of Losses
	Losses []Point // mean training loss of each 50 steps; the last may be of fewer
	// Accuracies on the validation data, every Training.Validate steps; those that a run which goes on had measured before are among them.
	Accuracies []Point
	// ValidationLosses are the losses there, at the same steps.
	ValidationLosses []Point
	// Best is the step of the least of ValidationLosses, the first of equal ones; 0: none was measured.
	Best int
	// Kept are networks by the step after which they were kept: those of Training.Keep, and with Training.KeepBest that of Best. Restore brings one back. They hold
	// weights, statistics and masks, and nothing of the optimizer.
	Kept    map[int]Values
	Loaded  bool   // the run had been finished before and was loaded from Dir
	Resumed int    // the step from which an interrupted run went on; 0: from the start
	Dir     string // where this run is saved; "": nowhere
}

// Point is a value after a step.
type Point struct {
	Step  int
	Value float64
}

// MarshalJSON writes values that are no numbers, which JSON does not know, as words.
func (p Point) MarshalJSON() ([]byte, error) {
	type plain Point
	if !math.IsNaN(p.Value) && !math.IsInf(p.Value, 0) {
		return json.Marshal(plain(p))
	}
	return json.Marshal(pointInWords{p.Step, strconv.FormatFloat(p.Value, 'g', -1, 64)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Point) UnmarshalJSON(text []byte) error {
	type plain Point
	numbers := json.Unmarshal(text, (*plain)(p))
	if numbers == nil {
		return nil
	}
	var words pointInWords
	if json.Unmarshal(text, &words) != nil {
		return numbers
	}
	value, err := strconv.ParseFloat(words.Value, 64)
	*p = Point{words.Step, value}
	return err
}

// pointInWords is a Point whose value is none of JSON's numbers.
type pointInWords struct {
	Step  int
	Value string
}

// ConfigError says which field of a configuration can't be used.
type ConfigError struct{ Field, Problem, Remedy string }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s: %s; %s", e.Field, e.Problem, e.Remedy)
}

// InterruptedError says that a run was stopped by its context. errors.Is(err, context.Canceled) holds for it.
type InterruptedError struct {
	Step, Steps int    // 0: it was not in a training, but before one or while a network was measured
	Dir         string // where the run is saved; "": nowhere
	causes      []error
}

func (e *InterruptedError) Error() string {
	if e.Steps == 0 { // between two trainings
		if e.Dir == "" {
			return "interrupted; nothing was saved: set Dir to be able to go on"
		}
		return "interrupted; what was done is saved: run it again to go on"
	}
	if e.Dir == "" {
		return fmt.Sprintf("interrupted at step %d of %d; nothing was saved: set Training.Dir to be able to go on", e.Step, e.Steps)
	}
	return fmt.Sprintf("interrupted at step %d of %d and saved; run it again to go on", e.Step, e.Steps)
}

// Unwrap returns the context's error and its cause.
func (e *InterruptedError) Unwrap() []error { return e.causes }

// Interrupted tells a notebook that this is no fault.
func (e *InterruptedError) Interrupted() bool { return true }

// DivergedError says that the loss or a variable is no number any more. The last saved state, if any, is from before.
type DivergedError struct {
	Step int
	Loss float64
	Path string // of the variable; "": it is the loss
}

func (e *DivergedError) Error() string {
	if e.Path != "" {
		return fmt.Sprintf("%s holds values that are no numbers after step %d: try a smaller learning rate", e.Path, e.Step)
	}
	return fmt.Sprintf("the training loss is %v after step %d: try a smaller learning rate", e.Loss, e.Step)
}

// LeakError says that a weight which its mask calls dead was not zero after a step.
type LeakError struct {
	Path  string // the parameter
	Count int    // how many
	Step  int    // after which step it was seen
}

func (e *LeakError) Error() string {
	return fmt.Sprintf("%s: %d dead weights are not zero after step %d: the optimizer was not made by Pruner.Optimizer, or something else writes to the variable", e.Path, e.Count, e.Step)
}

// Trainer trains and evaluates one store for one task, and compiles what it needs once. Only one Trainer may work on a store at a time,
// and none from several goroutines.
type Trainer struct {
	task  Task
	store *model.Store
	adam  optimizer.Interface

	step    *stepper
	stepFor stepKey
	// topology are the last signals for Training.Topology, of so many batches; with them goes what was compiled to collect them.
	topology  *signal.Signals
	batchesOf int
	evals     map[evalKey]*model.Exec
	perEpoch  int // steps; 0: nobody has asked yet

	turn turn
}

type stepKey struct {
	optimizer   any // settings of it
	pruner      *prune.Pruner
	perDispatch int
}

// NewTrainer returns a trainer for a store made by Init.
func NewTrainer(task Task, store *model.Store) (*Trainer, error) {
	task, err := task.complete()
	if err != nil {
		return nil, err
	}
	if store == nil {
		return nil, &ConfigError{"store", "there is none", "give the trainer what Init returns"}
	}
	return &Trainer{task: task, store: store, adam: optimizer.Adam().LearningRate(1e-3).Done(), evals: map[evalKey]*model.Exec{}}, nil
}

// Close frees what the trainer compiled, at once instead of when the garbage collector finds it. The store and its values stay; the trainer may be used again, and
// compiles anew.
func (tr *Trainer) Close() {
	if tr.step != nil {
		tr.step.finalise()
		tr.step = nil
	}
	for _, exec := range tr.evals {
		exec.Finalize()
	}
	clear(tr.evals)
	tr.topology = nil
}

// Task returns the trainer's task, with its defaults filled in, but for Loss.
func (tr *Trainer) Task() Task { return tr.task }

// Steps returns how many steps a training has in all.
func (tr *Trainer) Steps(t Training) (int, error) {
	perEpoch, err := tr.stepsPerEpoch()
	if err != nil {
		return 0, err
	}
	return t.steps(perEpoch)
}

// Train is NewTrainer and Trainer.Train, for a single run.
func Train(ctx context.Context, task Task, store *model.Store, t Training) (Result, error) {
	tr, err := NewTrainer(task, store)
	if err != nil {
		return Result{}, err
	}
	defer tr.Close()
	return tr.Train(ctx, t)
}

// Train trains the store's variables in place. On *InterruptedError the store holds the step that was reached.
func (tr *Trainer) Train(ctx context.Context, t Training) (Result, error) {
	perEpoch, err := tr.stepsPerEpoch()
	if err != nil {
		return Result{}, err
	}
	total, err := t.steps(perEpoch)
	if err != nil {
		return Result{}, err
	}
	if t.Validate > 0 && tr.task.Validation == nil {
		return Result{}, &ConfigError{"Training.Validate", fmt.Sprintf("got %d, and the task has no validation data", t.Validate), "set Task.Validation, or leave Validate 0"}
	}
	for _, step := range t.Keep {
		if step < 0 || step > total {
			return Result{}, &ConfigError{"Training.Keep", fmt.Sprintf("got step %d of a run of %d", step, total), "give steps from 0, before the first, to the last"}
		}
	}
	if err := t.startless(); err != nil {
		return Result{}, err
	}
	if t.Topology != nil {
		t.Pruner = t.Topology.Pruner()
	}
	if t.Pruner != nil && t.Pruner.Store() != tr.store {
		return Result{}, &ConfigError{"Training.Pruner", "it prunes another store than the one that is trained", "make it, or the topology that brings it, for the store that the trainer was given"}
	}
	if err := tr.compile(t); err != nil {
		return Result{}, err
	}
	if err := tr.step.restart(); err != nil {
		return Result{}, err
	}
	if t.Topology != nil {
		if err := t.Topology.Ready(); err != nil {
			return Result{}, err
		}
	}
	if tr.store.GetVariable("/"+model.RNGStateVariableName) != nil {
		if err := tr.store.SetRNGStateFromSeed(t.Seed); err != nil {
			return Result{}, err
		}
	}

	var result Result
	var run checkpoint.Dir
	sum := float32(0) // of the losses since the last of result.Losses
	watch := watcher{tell: t.Watch, total: total}
	if t.Dir != "" {
		digest, err := tr.digest(t, total)
		if err != nil {
			return Result{}, err
		}
		result.Dir = filepath.Join(t.Dir, beganAs(t.Dir, digest[:16]))
		run.Path = result.Dir
		goOn := func() error {
			step, n, err := resume(run, tr.store)
			if err != nil {
				return err
			}
			result.Steps, result.Losses, result.Resumed, sum = step, n.Losses, step, float32(n.Sum)
			result.Accuracies, result.ValidationLosses, watch.history = n.Accuracies, n.Validation, n.Layers
			result.Best, result.Kept = n.Best, n.kept
			if last := len(n.Losses); last > 0 {
				result.Loss = n.Losses[last-1].Value
			}
			result.Loaded = step == total && !t.unmeasured(result, total)
			return nil
		}
		if err := goOn(); err != nil || result.Loaded {
			watch.past(result)
			return result, err
		}
		release, err := claim(result.Dir, "set Training.Name to train a run of its own")
		if err != nil {
			return Result{}, err
		}
		defer release()
		// Somebody else may have gone on with it since.
		if err := goOn(); err != nil || result.Loaded {
			watch.past(result)
			return result, err
		}
	}
	if t.Pruner != nil && watch.history.Kept == nil {
		stats, err := mask.Count(tr.store, t.Pruner.Params())
		if err != nil {
			return result, err
		}
		watch.pruned(result.Steps, stats)
	}
	watch.past(result)
	keep := func() error {
		if result.Kept == nil {
			result.Kept = map[int]Values{}
		}
		var err error
		result.Kept[result.Steps], err = tr.network()
		return err
	}
	if slices.Contains(t.Keep, 0) && result.Steps == 0 {
		if err := keep(); err != nil {
			return result, err
		}
	}
	background := run.Background()
	saved := result.Steps
	save := func() error {
		if err := tr.step.check(result.Steps); err != nil {
			return err
		}
		if err := tr.step.finite(result.Steps); err != nil {
			return err
		}
		if t.Dir == "" || result.Steps == saved && saved > 0 {
			return nil
		}
		extra, err := json.Marshal(notes{
			Losses: result.Losses, Sum: float64(sum), Accuracies: result.Accuracies, Validation: result.ValidationLosses, Best: result.Best, Layers: watch.history,
		})
		if err != nil {
			return err
		}
		saved = result.Steps
		state := checkpoint.State{Step: result.Steps, Seed: t.Seed, Position: result.Steps + t.after, Extra: extra}
		if t.Pruner != nil {
			state.Recipe = t.Pruner.Recipe().String()
		}
		whole, err := withKept(tr.store, result.Kept)
		if err != nil {
			return err
		}
		return background.Save(whole, state)
	}
	// last saves and waits until that is on the disk.
	last := func() error {
		if background.Finish() != nil {
			saved = -1 // what could not be saved then may be now
		}
		return errors.Join(save(), background.Finish())
	}
	defer func() { _ = background.Finish() }() // where another error is on its way
	saveEvery := t.SaveEvery
	if saveEvery <= 0 {
		saveEvery = 20 * time.Second
	}
	progress := throttled(t.Progress)
	batches := tr.batches(t.Seed, perEpoch, t.after)
	defer batches.stop()
	lastSave, rated := time.Now(), -1
	least := math.Inf(1) // validation loss, that of the step Best
	for _, p := range result.ValidationLosses {
		if p.Step == result.Best {
			least = p.Value
		}
	}
	// measure does what is due beside training after a step, and tells.
	measure := func(now report.Progress) error {
		if t.unmeasured(result, total) {
			m, err := tr.Evaluate(ctx, tr.task.Validation)
			if err != nil {
				return err
			}
			now.Accuracy = m.Accuracy
			result.Accuracies = append(result.Accuracies, Point{Step: result.Steps, Value: m.Accuracy})
			result.ValidationLosses = append(result.ValidationLosses, Point{Step: result.Steps, Value: m.Loss})
			if m.Loss < least {
				least = m.Loss
				if t.KeepBest {
					if !slices.Contains(t.Keep, result.Best) {
						delete(result.Kept, result.Best)
					}
					if err := keep(); err != nil {
						return err
					}
				}
				result.Best = result.Steps
			}
		}
		if slices.Contains(t.Keep, result.Steps) {
			if err := keep(); err != nil {
				return err
			}
		}
		now.Step, now.Total = result.Steps, total
		watch.now(now)
		return nil
	}
	// stopped saves what there is, where err comes of the context's end.
	stopped := func(err error) error {
		if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
			return err
		}
		if err := errors.Join(last(), tr.reached(t, total, result)); err != nil {
			return err
		}
		return &InterruptedError{Step: result.Steps, Steps: total, Dir: result.Dir, causes: []error{ctx.Err(), context.Cause(ctx)}}
	}
	if t.unmeasured(result, total) { // it was interrupted while that was measured
		if err := measure(report.Progress{Loss: math.NaN(), Accuracy: math.NaN()}); err != nil {
			return result, stopped(err)
		}
		saved = -1
	}
	for result.Steps < total {
		if err := ctx.Err(); err != nil {
			return result, stopped(err)
		}
		start := result.Steps / block * block
		end := min(start+block, total)
		if t.Rate != nil && rated != start {
			// A function of the step alone, not of where dispatches end, so that a resumed run has the same.
			if err := tr.step.setRate(t.Rate(float64(start) / float64(total))); err != nil {
				return result, err
			}
			rated = start
		}
		n := t.untilEvent(result.Steps, tr.step.limit(end-result.Steps))
		now := report.Progress{Loss: math.NaN(), Accuracy: math.NaN()}
		if sum, err = batches.run(result.Steps, n, sum); err != nil {
			return result, err
		}
		result.Steps += n
		result.Loss = float64(sum) / float64(result.Steps-start)
		if math.IsNaN(result.Loss) || math.IsInf(result.Loss, 0) {
			return result, &DivergedError{Step: result.Steps, Loss: result.Loss}
		}
		progress(result.Steps, total, fmt.Sprintf("loss %.4f", result.Loss))
		if result.Steps == end || tr.step.unsealed {
			if err := tr.step.check(result.Steps); err != nil {
				return result, err
			}
		}
		if result.Steps == end {
			result.Losses = append(result.Losses, Point{Step: result.Steps, Value: result.Loss})
			now.Loss, sum = result.Loss, 0
		}
		if t.event(result.Steps) {
			if result.Steps != end && !tr.step.unsealed { // else it has just been done
				if err := tr.step.check(result.Steps); err != nil {
					return result, err
				}
			}
			stats, err := tr.change(t, result.Steps)
			if err != nil {
				// The loss of a step that makes weights NaN is still a number, that of the weights before. They are looked at only now, because that costs nothing where all goes well.
				var diverged *DivergedError
				if errors.As(tr.step.finite(result.Steps), &diverged) {
					return result, diverged
				}
				return result, err
			}
			now.Layers = watch.pruned(result.Steps, stats)
		}
		if err := measure(now); err != nil {
			return result, stopped(err)
		}
		if result.Steps < total && time.Since(lastSave) >= saveEvery {
			if err := save(); err != nil {
				return result, err
			}
			lastSave = time.Now()
		}
	}
	return result, last()
}

// compile makes the step for t unless the last one serves.
func (tr *Trainer) compile(t Training) error {
	opt := t.Optimizer
	if opt == nil {
		opt = tr.adam
	}
	if sgd, ok := opt.(*SGD); ok && sgd != nil { // a copy, since the step may be built again for batches of another size
		own := *sgd
		opt = &own
	}
	key := stepKey{settings(opt), t.Pruner, t.StepsPerDispatch}
	if tr.step != nil && tr.stepFor == key {
		tr.step.turn = tr.turn
		return nil
	}
	if tr.step != nil {
		tr.step.finalise()
		tr.step = nil
	}
	step, err := newStepper(tr.task, tr.store, opt, key.pruner, key.perDispatch, tr.turn)
	if err != nil {
		return err
	}
	tr.step, tr.stepFor = step, key
	return nil
}

// settings are what tells whether an optimizer is the one that a step was compiled for.
func settings(o optimizer.Interface) any {
	if sgd, ok := o.(*SGD); ok && sgd != nil {
		return *sgd
	}
	if !reflect.ValueOf(o).Comparable() {
		return new(int) // like no other
	}
	return o
}

// steps checks the configuration and returns the number of steps.
func (t Training) steps(perEpoch int) (int, error) {
	switch {
	case t.Epochs < 0 || t.Steps < 0:
		return 0, &ConfigError{"Training.Epochs, Training.Steps", fmt.Sprintf("got %d and %d", t.Epochs, t.Steps), "give a positive number of one of them"}
	case t.Epochs > 0 && t.Steps > 0:
		return 0, &ConfigError{"Training.Epochs, Training.Steps", fmt.Sprintf("both are set, to %d and %d", t.Epochs, t.Steps), "set one of them"}
	case (t.Schedule == nil) != (t.When == nil):
		return 0, &ConfigError{"Training.Schedule, Training.When", "one is set and the other is not", "set both to prune while training, or neither"}
	case t.Topology != nil && (t.Schedule != nil || t.Pruner != nil && t.Pruner != t.Topology.Pruner()):
		return 0, &ConfigError{"Training.Topology", "it is set beside a Schedule or another Pruner", "leave those nil: the topology brings its own masks and changes them itself"}
	case t.Schedule != nil && t.Pruner == nil:
		return 0, &ConfigError{"Training.Pruner", "a schedule is set, but nothing that prunes", "set Training.Pruner to what prune.New returns"}
	case t.Validate < 0:
		return 0, &ConfigError{"Training.Validate", fmt.Sprintf("got %d", t.Validate), "give a positive number of steps, or 0 for never"}
	case t.KeepBest && t.Validate == 0:
		return 0, &ConfigError{"Training.KeepBest", "nothing says which network is best", "set Training.Validate to a number of steps, for instance 100"}
	case t.StepsPerDispatch < 0:
		return 0, &ConfigError{"Training.StepsPerDispatch", fmt.Sprintf("got %d", t.StepsPerDispatch), "give a positive number, or 0 for the default"}
	case t.Steps > 0:
		return t.Steps, nil
	case perEpoch == 0:
		return 0, &ConfigError{"Training.Epochs", "the data set does not say how many examples it has", "give Training.Steps instead"}
	}
	return max(1, t.Epochs) * perEpoch, nil
}

// startless returns a *ConfigError if masks are to be changed by what a training does not keep.
func (t Training) startless() error {
	field, needs := "Training.Schedule", criterion.Needs(0)
	switch {
	case t.Topology != nil:
		field, needs = "Training.Topology", t.Topology.Needs()
	case t.Schedule != nil:
		needs = t.Pruner.Recipe().Criterion.Needs
	}
	if needs&criterion.NeedStart != 0 {
		return &ConfigError{field, "its criterion compares with the weights at the start, which training does not keep", "prune between two trainings, with Trainer.Source and Source.Start, or take another criterion"}
	}
	return nil
}

// CosineDecay falls from 1 to 0 along half a period of the cosine. Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5 without restarts.
func CosineDecay(done float64) float64 { return (1 + math.Cos(math.Pi*done)) / 2 }

// LinearDecay falls from 1 to 0 on a line.
func LinearDecay(done float64) float64 { return 1 - done }

// unmeasured tells whether a run is at a step after which validation is due, and has not been done.
func (t Training) unmeasured(r Result, total int) bool {
	due := t.Validate > 0 && r.Steps > 0 && (r.Steps%t.Validate == 0 || r.Steps == total)
	return due && (len(r.Accuracies) == 0 || r.Accuracies[len(r.Accuracies)-1].Step != r.Steps)
}

// event tells whether masks are to change after a step.
func (t Training) event(step int) bool {
	if t.Topology != nil {
		return t.Topology.Due(step)
	}
	return t.When != nil && t.When(step)
}

// change changes the masks as is due after a step, and counts what is alive then.
func (tr *Trainer) change(t Training, step int) ([]mask.Stats, error) {
	if t.Topology != nil {
		sig, err := tr.topologySignals(t, step)
		if err != nil {
			return nil, err
		}
		if err := t.Topology.Apply(step, sig); err != nil {
			return nil, err
		}
		return mask.Count(tr.store, t.Pruner.Params())
	}
	sig, err := tr.signals(t)
	if err != nil {
		return nil, err
	}
	return t.Pruner.Prune(t.Schedule(step), sig)
}

// untilEvent returns how many of the next n steps may be done before masks are to change, or something is to be measured or kept.
func (t Training) untilEvent(step, n int) int {
	if t.Validate > 0 {
		n = min(n, t.Validate-step%t.Validate)
	}
	for _, k := range t.Keep {
		if k > step {
			n = min(n, k-step)
		}
	}
	for i := 1; i < n; i++ {
		if t.event(step + i) {
			return i
		}
	}
	return n
}

// stepsPerEpoch is 0 where the data set can't say.
func (tr *Trainer) stepsPerEpoch() (int, error) {
	if tr.task.Train == nil {
		return 0, fmt.Errorf("Task.Train: %w", ErrNoData)
	}
	r, ok := tr.task.Train.(Resident)
	if !ok || tr.perEpoch > 0 {
		return tr.perEpoch, nil
	}
	inputs, _ := r.Arrays()
	if r.Batch() < 1 {
		return 0, &ConfigError{"batch size of " + r.Name(), fmt.Sprintf("got %d", r.Batch()), "give a positive one"}
	}
	n := min(len(r.Order(0)), inputs.Shape().Dimensions[0])
	if n < r.Batch() {
		return 0, &ConfigError{"batch size of " + r.Name(), fmt.Sprintf("got %d, and an epoch has %d examples", r.Batch(), n), "use a smaller batch"}
	}
	tr.perEpoch = n / r.Batch()
	return tr.perEpoch, nil
}

// feeder hands the data to the steps.
type feeder struct {
	run  func(step, n int, sum float32) (float32, error) // n steps after step; what it returns is sum with their losses
	stop func()
}

// batches returns the feeder of a run, which leaves out the first steps: the examples of step s are a function of the seed and of s, so that a resumed
// run sees the same.
func (tr *Trainer) batches(seed int64, perEpoch, after int) feeder {
	st := tr.step
	if st.resident == nil {
		return tr.fed(after)
	}
	epoch, order := -1, []int32(nil)
	indices := make([]int32, 0, st.perDispatch*st.batch)
	return feeder{stop: func() {}, run: func(step, n int, sum float32) (float32, error) {
		indices = indices[:0]
		for s := step + after; s < step+after+n; s++ {
			if e := s / perEpoch; e != epoch {
				// A data set's order is a function of its own seed and the epoch; the run's seed picks other epochs.
				var err error
				if order, err = st.order(int(seed%1_000_003)*10_007+e, perEpoch); err != nil {
					return 0, err
				}
				epoch = e
			}
			at := s % perEpoch * st.batch
			indices = append(indices, order[at:at+st.batch]...)
		}
		return st.run(n, indices, sum)
	}}
}

// fed draws from a data set that only yields batches. A resumed run draws and drops what had been used.
func (tr *Trainer) fed(after int) feeder {
	drawn := 0
	next, stop := iter.Pull2(tr.task.Train.Iter())
	draw := func() (train.Batch, error) {
		for range 2 {
			batch, err, ok := next()
			if err != nil {
				return batch, fmt.Errorf("data set %q: %w", tr.task.Train.Name(), err)
			}
			if ok {
				drawn++
				return batch, nil
			}
			stop()
			next, stop = iter.Pull2(tr.task.Train.Iter())
		}
		return train.Batch{}, fmt.Errorf("data set %q: %w", tr.task.Train.Name(), ErrNoData)
	}
	return feeder{stop: func() { stop() }, run: func(step, _ int, sum float32) (float32, error) {
		for drawn < step+after {
			batch, err := draw()
			if err != nil {
				return 0, err
			}
			if err := batch.Finalize(); err != nil {
				return 0, err
			}
		}
		batch, err := draw()
		if err != nil {
			return 0, err
		}
		loss, err := tr.step.feed(tr.task.Train, batch)
		return sum + loss, err
	}}
}

// throttled calls f at most 5 times a second, and always at the end.
func throttled(f func(done, total int, note string)) func(done, total int, note string) {
	if f == nil {
		return func(int, int, string) {}
	}
	var last time.Time
	return func(done, total int, note string) {
		if now := time.Now(); done == total || now.Sub(last) >= 200*time.Millisecond {
			last = now
			f(done, total, note)
		}
	}
}

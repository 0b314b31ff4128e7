package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/durable"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/signal"
)

// Mode is when a contender prunes. All modes have the same training in all: Comparison.Dense and then Comparison.Tune.
type Mode string

// The modes.
const (
	OneShot   Mode = "one-shot"  // the trained network at once, then it trains on. The default
	Iterative Mode = "iterative" // in Contender.Rounds geometric rounds, with an equal part of the further training after each, in which Tune.Rate runs through anew
	Gradual   Mode = "gradual"   // while it trains on, by Contender.Schedule in the first three quarters of the further training
	AtInit    Mode = "at init"   // before any training

	still     Mode = "dense"      // nothing, and no further training
	trainedOn Mode = "trained on" // nothing
	scratchE  Mode = "scratch-E"  // the architecture that magnitude leaves, from new values, with as many epochs
	scratchB  Mode = "scratch-B"  // the same with as much computation
)

// Contender is one way to prune in a comparison.
type Contender struct {
	// Name in records and figures. It also tells apart what differs in what Code can't see (prune.Pruner.Code): large constants, and units. Default: the recipe and the mode.
	Name   string
	Recipe prune.Recipe // without a Seed: each run draws by its own of Comparison.Seeds
	Mode   Mode         // default: OneShot
	Rounds int          // of Iterative. Default: 5
	// Schedule of Gradual, which has to end at the sparsity that it is given; its name goes into manifests. Default: schedule.Cubic
	Schedule schedule.Named
	// Batches of the training data for the criterion's signals: the first ones of the data set, the same for all seeds, so that intervals hold nothing of how signals differ with the examples. Default: 10.
	Batches int
}

func (c Contender) complete() Contender {
	if c.Mode == "" {
		c.Mode = OneShot
	}
	if c.Rounds == 0 {
		c.Rounds = 5
	}
	if c.Schedule.Make == nil {
		c.Schedule = schedule.Named{Name: "cubic", Make: schedule.Cubic}
	}
	if c.Name == "" {
		c.Name = c.Recipe.String()
		if c.Mode != OneShot {
			c.Name += ", " + string(c.Mode)
		}
	}
	return c
}

// Comparison sets contenders against each other and against controls, fairly: for a seed all start from the same trained network (or, at initialisation, from the
// same values), see the same data in the same order, and train on for as long with the same optimizer. Task.Validation is what they are
// measured on, unless Test is set.
//
// Controls are added where they are missing: the dense network as it is and trained on, and random and magnitude pruning with each unit, budget and
// mode that a contender has. For structured units there are also the two controls of Liu et al. 2019 (arXiv:1810.05270): scratch-E and scratch-B
// train the architecture that magnitude leaves from new values, for as many epochs and for as much computation (at most four times the epochs)
// as the pruned network had in all. As nothing is removed physically here, the masked network stands for the small one.
type Comparison struct {
	Task       Task
	Dense      Spec // how the dense networks are trained
	Tune       Spec // how every contender trains on
	Contenders []Contender
	Sparsities []float64 // at least five
	Seeds      []int64   // at least three; they choose first values and the order of the data
	// Fast allows fewer seeds and sparsities, for trying out. Tables then say that they are no result.
	Fast bool
	// Test measures on Task.Test, once for each run, instead of on Task.Validation.
	Test bool
	// Select returns the parameters that may be pruned. nil: params.Select(store, nil).
	Select func(store *model.Store) params.Set
	// Dir is where trained networks, records, manifests and masks are kept, so that nothing is done twice. Default: nothing is kept.
	Dir string
	// Network and Data are the names by which `espalier replay` finds them again (nets.All and the data sets); they are only written down.
	Network string
	Data    DataSpec
	// Progress is told how many runs are done. nil: nobody is told.
	Progress func(done, total int, note string)
}

// DataSpec says how a data set is opened, for manifests.
type DataSpec struct {
	Name  string `json:"name,omitempty"`  // "mnist", "cifar10", "digits" (synthetic)
	Batch int    `json:"batch,omitempty"` // batch size
	Take  int    `json:"take,omitempty"`  // how many training examples are used; 0: all
	Seed  int64  `json:"seed,omitempty"`
}

// Outcome of a comparison. Everything in it comes from its records.
type Outcome struct {
	Records    []report.Record // a loss that is no number is left out of its values
	Contenders []string        // their names, in order: dense first, then the given ones, then the other controls
	Fast       bool
	Measured   string // name of the data set that accuracy was measured on
	Done       int    // runs that were made now; the others had been made before
}

// run is one point: a contender at a sparsity, with a seed.
type run struct {
	Contender
	sparsity float64
	seed     int64
}

// bench is what a comparison works with.
type bench struct {
	Comparison
	trainer  *Trainer
	store    *model.Store
	set      params.Set
	keeper   *prune.Pruner // keeps everybody's masks while training, so that all share one compiled step
	dense    Training
	tune     Training
	steps    [2]int // of dense and tune
	on       train.Dataset
	measured string       // digest of on
	input    shapes.Shape // of one example
	start    Values       // first values of the seed
	startKey string
	codes    map[string]string // what the recipes' functions compute, by contender
	parent   Values            // the trained network of the seed
	known    map[string]report.Record
	macs     int64

	collected map[string]*signal.Signals // of the seed
}

// Compare makes the runs that are not there yet and returns the records of all. On *InterruptedError what is done is kept, and the same call goes on.
//
// Errors: *ConfigError, those of prune.New and those of Pruner.Feasible for what can't be compared, before anything is done; *BusyError where another comparison is being made in
// Dir; those of Train and Prune, with the contender and the sparsity.
func Compare(ctx context.Context, c Comparison) (*Outcome, error) {
	contenders, err := c.contenders()
	if err != nil {
		return nil, err
	}
	b, err := c.open()
	if err != nil {
		return nil, err
	}
	for _, one := range contenders { // a recipe that does not fit should not show after an hour
		if err := b.read(one); err != nil {
			return nil, fmt.Errorf("%s: %w", one.Name, err)
		}
	}
	outcome := &Outcome{Fast: c.Fast, Measured: b.on.Name()}
	for _, one := range contenders {
		outcome.Contenders = append(outcome.Contenders, one.Name)
	}
	if c.Dir != "" {
		release, err := claim(c.Dir, "give Comparison.Dir another directory")
		if err != nil {
			return nil, err
		}
		defer release()
	}
	if b.known, err = b.finished(); err != nil {
		return nil, err
	}
	var runs []run
	for _, seed := range c.Seeds {
		for _, one := range contenders {
			for _, s := range c.sparsities(one) {
				runs = append(runs, run{one, s, seed})
			}
		}
	}
	base := map[int64]float64{}
	for i, r := range runs {
		if i == 0 || r.seed != runs[i-1].seed {
			if err := b.begin(ctx, r.seed); err != nil {
				return nil, err
			}
		}
		record, made, err := b.do(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("%s, %v removed, seed %d: %w", r.Name, r.sparsity, r.seed, err)
		}
		if made {
			outcome.Done++
		}
		if r.Mode == still {
			base[r.seed] = record.Values["accuracy"]
		}
		record.Values = maps.Clone(record.Values)
		if accuracy, measured := record.Values["accuracy"]; measured {
			record.Values["difference"] = accuracy - base[r.seed]
		}
		outcome.Records = append(outcome.Records, record)
		if c.Progress != nil {
			c.Progress(i+1, len(runs), fmt.Sprintf("%s, %.10g%% removed, seed %d", r.Name, 100*r.sparsity, r.seed))
		}
	}
	return outcome, nil
}

// contenders checks the comparison and returns the contenders with the controls.
func (c Comparison) contenders() ([]Contender, error) {
	bad := func(field, problem, remedy string) ([]Contender, error) {
		return nil, &ConfigError{"Comparison." + field, problem, remedy}
	}
	if !c.Fast && len(c.Seeds) < 3 {
		return bad("Seeds", fmt.Sprintf("%d seeds are no sample", len(c.Seeds)), "give at least three, or set Fast to try out")
	}
	if !c.Fast && len(c.Sparsities) < 5 {
		return bad("Sparsities", fmt.Sprintf("%d points are no curve", len(c.Sparsities)), "give at least five, or set Fast to try out")
	}
	if len(c.Seeds) == 0 || len(c.Sparsities) == 0 || len(c.Contenders) == 0 {
		return bad("Contenders, Sparsities, Seeds", "one of them is empty", "give at least one of each")
	}
	for i, s := range c.Sparsities {
		if !(s > 0 && s < 1) || slices.Contains(c.Sparsities[:i], s) {
			return bad("Sparsities", fmt.Sprintf("%v is out of range, or there twice", s), "give different shares between 0 and 1; the dense network is always in")
		}
	}
	for i, s := range c.Seeds {
		if slices.Contains(c.Seeds[:i], s) {
			return bad("Seeds", fmt.Sprintf("%d is there twice", s), "give different seeds")
		}
	}
	if c.Test && c.Task.Test == nil || !c.Test && c.Task.Validation == nil {
		return bad("Task", "it has no data to measure on", "set Task.Validation, or Task.Test together with Test")
	}
	all := []Contender{{Name: "dense", Mode: still}, {Name: "dense, trained on", Mode: trainedOn}}
	type cell struct {
		unit, budget string
		mode         Mode
	}
	placed := func(one Contender) cell {
		r := one.Recipe.Complete() // what is left at its default is in the same cell as what is set to it
		return cell{r.Unit.Name, r.Budget.Name, one.Mode}
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(all, func(o Contender) bool { return o.Name == name })
	}
	has := map[cell]map[string]bool{}
	var cells []Contender
	for _, one := range c.Contenders {
		one = one.complete()
		if !slices.Contains([]Mode{OneShot, Iterative, Gradual, AtInit}, one.Mode) {
			return bad("Contenders", fmt.Sprintf("mode %q of %s is not known", one.Mode, one.Name), "use OneShot, Iterative, Gradual or AtInit")
		}
		if one.Rounds < 1 {
			return bad("Contenders", fmt.Sprintf("%s has %d rounds", one.Name, one.Rounds), "give a positive number, or 0 for the default")
		}
		if one.Batches < 0 {
			return bad("Contenders", fmt.Sprintf("%s has %d batches", one.Name, one.Batches), "give a positive number, or 0 for the default")
		}
		if one.Mode == Gradual && one.Recipe.Unit.M != 0 {
			return bad("Contenders", fmt.Sprintf("%s prunes little by little, and unit %q has one sparsity only", one.Name, one.Recipe.Unit.Name), "use another mode")
		}
		if one.Recipe.Seed != 0 {
			return bad("Contenders", fmt.Sprintf("the recipe of %s has the seed %d", one.Name, one.Recipe.Seed), "leave it 0: each run draws by its own of Comparison.Seeds")
		}
		if taken(one.Name) {
			return bad("Contenders", fmt.Sprintf("two are named %q", one.Name), "give each a name of its own")
		}
		if one.Recipe.Criterion.Track != nil && one.Mode == AtInit {
			return bad("Contenders", fmt.Sprintf("%s tracks training, and prunes before any", one.Name), "use another mode")
		}
		if one.Recipe.Criterion.Needs&criterion.NeedGate != 0 {
			return bad("Contenders", fmt.Sprintf("%s needs gates, which a network has to be trained behind", one.Name), "leave it out; prune.Gates makes a model function with gates, for a training of its own")
		}
		if one.Recipe.Criterion.Needs&criterion.NeedStart != 0 && one.Mode == Gradual {
			return bad("Contenders", fmt.Sprintf("%s compares with the weights at the start, which training does not keep", one.Name), "use another mode")
		}
		all = append(all, one)
		place := placed(one)
		if has[place] == nil {
			has[place] = map[string]bool{}
			cells = append(cells, one)
		}
		if one.Recipe.Normalize.Apply == nil { // controls have none
			has[place][one.Recipe.Complete().Criterion.Name] = true
		}
	}
	for _, one := range cells {
		place := placed(one)
		for _, control := range []criterion.Criterion{criterion.Magnitude, criterion.Random} {
			if !has[place][control.Name] {
				r := one.Recipe
				r.Criterion, r.Normalize = control, criterion.Normalize{}
				added := Contender{Recipe: r, Mode: one.Mode, Rounds: one.Rounds, Schedule: one.Schedule}.complete()
				if taken(added.Name) { // their records would be taken together
					return bad("Contenders", fmt.Sprintf("%q is the name of a control", added.Name), "give the contender of that name another one")
				}
				all = append(all, added)
			}
		}
		structured := func(o Contender) bool { return o.Mode == scratchE && o.Recipe.Unit.Name == one.Recipe.Unit.Name }
		if one.Recipe.Unit.Structured && !slices.ContainsFunc(all, structured) {
			r := one.Recipe
			r.Criterion, r.Normalize = criterion.Magnitude, criterion.Normalize{}
			for _, mode := range []Mode{scratchE, scratchB} {
				all = append(all, Contender{Name: fmt.Sprintf("%s, %s", mode, r.Unit.Name), Recipe: r, Mode: mode}.complete())
			}
		}
	}
	return all, nil
}

// open makes the store and what is compiled for all runs.
func (c Comparison) open() (*bench, error) {
	task, err := c.Task.complete()
	if err != nil {
		return nil, err
	}
	c.Task = task
	b := &bench{Comparison: c, on: task.Validation, codes: map[string]string{}}
	if c.Test {
		b.on = task.Test
	}
	if b.measured, err = DataDigest(b.on); err != nil {
		return nil, err
	}
	if b.dense, err = c.Dense.Training(); err != nil {
		return nil, err
	}
	if b.tune, err = c.Tune.Training(); err != nil {
		return nil, err
	}
	if b.store, err = Init(task, c.Seeds[0]); err != nil {
		return nil, err
	}
	if b.trainer, err = NewTrainer(task, b.store); err != nil {
		return nil, err
	}
	b.set = params.Select(b.store, nil)
	if c.Select != nil {
		b.set = c.Select(b.store)
	}
	if b.keeper, err = prune.New(task.Backend, b.store, b.set, prune.Recipe{}); err != nil {
		return nil, err
	}
	perEpoch, err := b.trainer.stepsPerEpoch()
	if err != nil {
		return nil, err
	}
	for i, t := range []*Training{&b.dense, &b.tune} {
		if b.steps[i], err = t.steps(perEpoch); err != nil {
			return nil, err
		}
		t.Epochs, t.Steps = 0, b.steps[i]
	}
	r, ok := task.Train.(Resident)
	if !ok {
		return nil, &ConfigError{"Comparison.Task.Train", fmt.Sprintf("%q does not say how many examples it has", task.Train.Name()), "use a data set that implements Resident, as those of this project do"}
	}
	inputs, _ := r.Arrays()
	b.input = shapes.Make(dtypes.Float32, append([]int{1}, inputs.Shape().Dimensions[1:]...)...)
	whole, err := profile.Of(task.Backend, b.store, task.Model, b.input)
	if err != nil {
		return nil, err
	}
	b.macs = whole.MACs()
	return b, nil
}

// read checks that a contender's recipe fits the network, and notes what its functions compute.
func (b *bench) read(c Contender) error {
	p, err := prune.New(b.Task.Backend, b.store, b.set, c.Recipe)
	if err != nil {
		return err
	}
	if c.Recipe.Criterion.Needs&criterion.NeedGain != 0 { // which many networks do not have
		src := b.trainer.Source()
		src.Batches = 1
		if _, err := signal.Collect(src, p.Params(), criterion.NeedGain); err != nil {
			return err
		}
	}
	for _, s := range b.sparsities(c) {
		if s == 0 {
			continue // the dense networks
		}
		if err := p.Feasible(s); err != nil {
			return fmt.Errorf("%v removed: %w", s, err)
		}
	}
	code, err := p.Code()
	if err != nil {
		return err
	}
	if c.Mode == Gradual {
		values, err := c.course()
		if err != nil {
			return err
		}
		code = fmt.Sprint(code, values)
	}
	b.codes[c.Name], err = hashJSON(code)
	return err
}

// course returns a contender's schedule on the way from 0 to 0.9, or a *ConfigError if it does not end there, or falls where masks only shrink.
func (c Contender) course() ([]float64, error) {
	const last, target = 100, 0.9
	made := c.Schedule.Make(0, last, 0, target)
	var values []float64
	for step := range last + 1 {
		values = append(values, made(step))
		if step > 0 && values[step] < values[step-1] && !c.Recipe.Revive {
			return nil, &ConfigError{"Contender.Schedule", fmt.Sprintf("%q lets the sparsity fall, and masks only shrink", c.Schedule.Name), "set Recipe.Revive, or take another schedule"}
		}
	}
	if end := values[last]; !(math.Abs(end-target) < 1e-9) { // NaN too
		return nil, &ConfigError{"Contender.Schedule", fmt.Sprintf("%q ends at a sparsity of %v where %v was asked for", c.Schedule.Name, end, target), "make it end at the final sparsity that it is given"}
	}
	return values, nil
}

// sparsities returns those at which a contender is compared; 0 for the dense networks.
func (c Comparison) sparsities(one Contender) []float64 {
	if one.Mode == still || one.Mode == trainedOn {
		return []float64{0}
	}
	if u := one.Recipe.Unit; u.M != 0 { // which has one only
		return []float64{1 - float64(u.N)/float64(u.M)}
	}
	return c.Sparsities
}

// begin trains the dense network of a seed, or loads it.
func (b *bench) begin(ctx context.Context, seed int64) error {
	b.collected = map[string]*signal.Signals{}
	// What earlier contenders left has no part in what identifies a run.
	var left []string
	for v := range b.store.IterVariables() {
		if strings.HasPrefix(v.Path(), "/pruning/") && !strings.HasPrefix(v.Path(), mask.Scope) {
			left = append(left, v.Path())
		}
	}
	for _, path := range left {
		if err := b.store.DeleteVariable(path); err != nil {
			return err
		}
	}
	fresh, err := Init(b.Task, seed)
	if err != nil {
		return err
	}
	if b.start, err = Snapshot(fresh); err != nil {
		return err
	}
	if err := Restore(b.store, b.start); err != nil {
		return err
	}
	t := b.training(b.dense, seed, "dense")
	if err := b.trainer.compile(t); err != nil { // so that the digest sees the step
		return err
	}
	if err := b.trainer.step.restart(); err != nil {
		return err
	}
	if b.startKey, err = b.trainer.digest(t, b.steps[0]); err != nil {
		return err
	}
	if _, err := b.trainer.Train(ctx, t); err != nil {
		return fmt.Errorf("dense network, seed %d: %w", seed, err)
	}
	if b.parent, err = Snapshot(b.store); err != nil {
		return err
	}
	for path := range b.parent { // masks are the contenders' own, and what optimizers keep starts afresh
		if _, of := b.start[path]; !of {
			delete(b.parent, path)
		}
	}
	return nil
}

// training returns a training of the bench, saved under a name.
func (b *bench) training(t Training, seed int64, name string) Training {
	t.Seed, t.Pruner = seed, b.keeper
	if b.Dir != "" {
		t.Dir = filepath.Join(b.Dir, name)
	}
	return t
}

// do makes a run, or finds its record.
func (b *bench) do(ctx context.Context, r run) (record report.Record, made bool, err error) {
	manifest := b.manifest(r)
	key, err := manifest.key()
	if err != nil {
		return record, false, err
	}
	if known, ok := b.known[key]; ok {
		return known, false, nil
	}
	if ctx.Err() != nil {
		return record, false, &InterruptedError{Dir: b.Dir, causes: []error{ctx.Err(), context.Cause(ctx)}}
	}
	if record, err = b.result(ctx, r); err != nil {
		var stopped *InterruptedError
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) && !errors.As(err, &stopped) { // while it was measured
			err = &InterruptedError{Dir: b.Dir, causes: []error{err, context.Cause(ctx)}}
		}
		return record, false, err
	}
	record.Labels["key"] = key
	if b.Dir == "" {
		return record, true, nil
	}
	manifest.Results = record.Values
	if err := b.digests(&manifest); err != nil {
		return record, false, err
	}
	if r.sparsity > 0 {
		err := durable.FS{}.Replace(filepath.Join(b.Dir, "masks", key[:16]+".masks"), func(w io.Writer) error { return mask.Save(w, b.store, b.set) })
		if err != nil {
			return record, false, err
		}
	}
	if err := manifest.write(b.manifestPath(key)); err != nil {
		return record, false, err
	}
	if err := report.AppendRecord(b.recordPath(), record); err != nil {
		return record, false, err
	}
	return record, true, os.RemoveAll(filepath.Join(b.Dir, "tune")) // it served an interrupted run
}

// result makes a run and measures what comes out. A run that diverges has that for its result, and the comparison goes on; but all rests on the dense network.
func (b *bench) result(ctx context.Context, r run) (report.Record, error) {
	record, err := b.measure(ctx, r)
	var diverged *DivergedError
	if r.Mode == still || !errors.As(err, &diverged) {
		return record, err
	}
	return report.Record{
		Recipe: r.Name, Seed: r.seed, Step: diverged.Step, Labels: b.labels(r, "diverged", diverged.Error()),
		Values: map[string]float64{"sparsity": r.sparsity, "diverged": 1},
	}, nil
}

// labels are those of a run's record.
func (b *bench) labels(r run, more ...string) map[string]string {
	l := map[string]string{"mode": string(r.Mode), "unit": r.Recipe.Complete().Unit.Name, "data": b.on.Name()}
	for i := 0; i < len(more); i += 2 {
		l[more[i]] = more[i+1]
	}
	return l
}

// measure makes a run and measures what comes out.
func (b *bench) measure(ctx context.Context, r run) (report.Record, error) {
	steps, err := b.visit(ctx, r)
	if err != nil {
		return report.Record{}, err
	}
	metrics, err := b.trainer.Evaluate(ctx, b.on)
	if err != nil {
		return report.Record{}, err
	}
	cost, err := profile.Of(b.Task.Backend, b.store, b.Task.Model, b.input)
	if err != nil {
		return report.Record{}, err
	}
	stats, err := mask.Count(b.store, b.set)
	if err != nil {
		return report.Record{}, err
	}
	kept, size := 0, 0
	for _, s := range stats {
		kept, size = kept+s.Kept, size+s.Size
	}
	record := report.Record{
		Recipe: r.Name, Seed: r.seed, Step: steps,
		Labels: b.labels(r),
		Values: map[string]float64{
			"sparsity": r.sparsity, "removed": 1 - float64(kept)/float64(size), "compression": float64(size) / float64(kept),
			"speedup":  float64(b.macs) / float64(max(1, cost.EffectiveMACs())), // theoretical
			"accuracy": metrics.Accuracy, "loss": metrics.Loss,
		},
	}
	if math.IsNaN(metrics.Loss) || math.IsInf(metrics.Loss, 0) { // which records can't hold
		delete(record.Values, "loss")
	}
	return record, nil
}

// visit brings the store to what a run ends with, and returns the number of training steps in all.
func (b *bench) visit(ctx context.Context, r run) (steps int, err error) {
	total := b.steps[0] + b.steps[1]
	from := b.parent
	if r.Mode == AtInit {
		from = b.start
	}
	if err := Restore(b.store, from); err != nil {
		return 0, err
	}
	tune := b.training(b.tune, r.seed, "tune")
	tune.Name = r.Name // for what can't be seen of a contender's code
	train := func(t Training, n int) error {
		t.Steps = n
		_, err := b.trainer.Train(ctx, t)
		return err
	}
	// part is train for a part of the further training: it goes on in the order of the data, so that all see the same examples.
	part := func(n int) error {
		err := train(tune, n)
		tune.after += n
		return err
	}
	switch r.Mode {
	case still:
		return b.steps[0], nil
	case trainedOn:
		return total, train(tune, b.steps[1])
	}
	recipe := r.Recipe
	recipe.Seed = r.seed
	p, err := prune.New(b.Task.Backend, b.store, b.set, recipe)
	if err != nil {
		return 0, err
	}
	if recipe.Criterion.Track != nil {
		tune.Pruner = p // what it tracks it has to see
	}
	cut := func(sparsity float64) error {
		sig, err := b.signals(p, r)
		if err != nil {
			return err
		}
		_, err = p.Prune(sparsity, sig)
		return err
	}
	switch r.Mode {
	case OneShot, AtInit:
		if recipe.Criterion.Track != nil {
			// A first tenth of the further training is what it looks at.
			n := max(1, b.steps[1]/10)
			if err := part(n); err != nil {
				return 0, err
			}
			if err := cut(r.sparsity); err != nil || n == b.steps[1] {
				return total, err
			}
			return total, part(b.steps[1] - n)
		}
		if err := cut(r.sparsity); err != nil {
			return 0, err
		}
		if r.Mode == AtInit {
			if err := train(b.training(b.dense, r.seed, "tune"), b.steps[0]); err != nil {
				return 0, err
			}
		}
		return total, train(tune, b.steps[1])
	case Iterative:
		for i := 1; i <= r.Rounds; i++ {
			n := b.steps[1]*i/r.Rounds - b.steps[1]*(i-1)/r.Rounds
			if recipe.Criterion.Track != nil && i == 1 {
				half := max(1, n/2)
				if err := part(half); err != nil {
					return 0, err
				}
				n -= half
			}
			sparsity := r.sparsity
			if i < r.Rounds && recipe.Unit.M == 0 {
				sparsity = 1 - math.Pow(1-r.sparsity, float64(i)/float64(r.Rounds))
			}
			if err := cut(sparsity); err != nil {
				return 0, err
			}
			if n > 0 {
				if err := part(n); err != nil {
					return 0, err
				}
			}
		}
		return total, nil
	case Gradual:
		n := b.steps[1]
		every := max(1, n/20)
		last := max(every, n*3/4/every*every)
		tune.Pruner, tune.Batches = p, r.Batches
		tune.Schedule, tune.When = r.Schedule.Make(0, last, 0, r.sparsity), schedule.Every(every, every, last)
		return total, train(tune, n)
	}
	return b.scratch(r, cut, train, tune)
}

// scratch trains the architecture that magnitude leaves of the trained network from new values.
func (b *bench) scratch(r run, cut func(float64) error, train func(Training, int) error, tune Training) (steps int, err error) {
	if err := cut(r.sparsity); err != nil {
		return 0, err
	}
	small, err := profile.Of(b.Task.Backend, b.store, b.Task.Model, b.input)
	if err != nil {
		return 0, err
	}
	masks := Values{}
	pruned, err := Snapshot(b.store)
	if err != nil {
		return 0, err
	}
	for _, p := range b.set {
		masks[mask.Path(p)] = pruned[mask.Path(p)]
	}
	fresh, err := Init(b.Task, r.seed+1_000_003) // other values than those that the masks were found with
	if err != nil {
		return 0, err
	}
	values, err := Snapshot(fresh)
	if err != nil {
		return 0, err
	}
	maps.Copy(values, masks)
	if err := Restore(b.store, values); err != nil {
		return 0, err
	}
	if err := b.keeper.Enforce(); err != nil {
		return 0, err
	}
	factor := 1.0
	if r.Mode == scratchB {
		factor = min(4, float64(b.macs)/float64(max(1, small.EffectiveMACs())))
	}
	n := [2]int{int(factor * float64(b.steps[0])), int(factor * float64(b.steps[1]))}
	if err := train(b.training(b.dense, r.seed, "tune"), n[0]); err != nil {
		return 0, err
	}
	return n[0] + n[1], train(tune, n[1])
}

// signals collects what a pruner's criterion asks for: once for all who prune the network that a seed's contenders start from.
func (b *bench) signals(p *prune.Pruner, r run) (*signal.Signals, error) {
	needs := p.Recipe().Criterion.Needs & criterion.NeedSignals
	if needs == 0 {
		return nil, nil
	}
	key := fmt.Sprint(needs, r.Batches, r.Mode == AtInit, p.Params().Paths())
	shared := (r.Mode == OneShot || r.Mode == AtInit) && p.Recipe().Criterion.Track == nil
	if sig := b.collected[key]; sig != nil && shared {
		return sig, nil
	}
	src := b.trainer.Source()
	src.Batches, src.Start = r.Batches, b.start
	sig, err := signal.Collect(src, p.Params(), needs)
	if err == nil && shared {
		b.collected[key] = sig
	}
	return sig, err
}

// digests writes into a manifest what identifies the masks and the weights as they are.
func (b *bench) digests(manifest *Manifest) error {
	m, w := sha256.New(), sha256.New()
	manifest.Each = map[string]string{}
	for _, p := range b.set {
		alive, err := mask.Bools(b.store, p)
		if err != nil {
			return err
		}
		bits := make([]byte, len(alive))
		for i, a := range alive {
			if a {
				bits[i] = 1
			}
		}
		one := sha256.New()
		to := io.MultiWriter(m, one)
		fmt.Fprintln(to, p.Path, p.Shape)
		to.Write(bits)
		manifest.Each["mask of "+p.Path] = hex.EncodeToString(one.Sum(nil))[:16]
	}
	for _, v := range sorted(b.store) {
		if _, of := b.start[v.Path()]; !of {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return err
		}
		one := sha256.New()
		to := io.MultiWriter(w, one)
		fmt.Fprintln(to, v.Path())
		if err := hashTensor(to, value); err != nil {
			return err
		}
		manifest.Each[v.Path()] = hex.EncodeToString(one.Sum(nil))[:16]
	}
	manifest.Masks, manifest.Weights = hex.EncodeToString(m.Sum(nil)), hex.EncodeToString(w.Sum(nil))
	return nil
}

// finished returns the records whose manifests are whole, by their keys. What else is in the directory is left alone and made again.
func (b *bench) finished() (map[string]report.Record, error) {
	known := map[string]report.Record{}
	if b.Dir == "" {
		return known, nil
	}
	records, err := report.ReadRecords(b.recordPath())
	var torn *report.TornError
	if err != nil && !errors.As(err, &torn) {
		return nil, err
	}
	for _, r := range records {
		key := r.Labels["key"]
		m, err := ReadManifest(b.manifestPath(key))
		if err != nil {
			continue
		}
		if again, err := m.key(); err == nil && again == key && maps.Equal(m.Results, r.Values) {
			known[key] = r
		}
	}
	return known, nil
}

func (b *bench) recordPath() string { return filepath.Join(b.Dir, "records.jsonl") }
func (b *bench) manifestPath(key string) string {
	return filepath.Join(b.Dir, "manifests", key[:min(16, len(key))]+".json")
}

// hashJSON is a digest of a value's JSON.
func hashJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

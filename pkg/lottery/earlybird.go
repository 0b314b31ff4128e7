package lottery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/signal"
)

// EarlyBird says how to draw a ticket while the dense network still trains: as soon as the masks that pruning would give stop changing. You et al. 2020, "Drawing Early-Bird
// Tickets", arXiv:1909.11957, algorithm 1. All but Task have defaults.
//
// The paper prunes channels by the gain of batch normalisation, pushed apart by an L1 term in the loss:
//
//	Recipe{Criterion: criterion.Gain, Unit: unit.Filter}, with Task.Model: Slimming(model, 1e-4)
type EarlyBird struct {
	Task experiment.Task
	// Training of the dense network, which ends when the ticket is drawn. Epochs, Steps, Optimizer, Rate, Seed, Batches, Dir, SaveEvery, Progress, Watch, Validate,
	// KeepBest, Keep, StepsPerDispatch and Name may be set.
	Training experiment.Training
	// Recipe says which masks are looked at. The zero value: the weights of least magnitude, all layers together.
	Recipe prune.Recipe
	// Sparsity is the share of units that the ticket lacks, p in the paper. Default: 0.5
	Sparsity float64
	// Every is how many steps lie between two masks. Default: an epoch.
	Every int
	// Window is how many masks in a row have to agree. Default: 5
	Window int
	// Distance is the largest normalised Hamming distance of masks that agree. Default: 0.1
	Distance float64
	// Params selects what is pruned. nil: all kernels.
	Params func(store *model.Store) params.Set
}

// Bird is a training that was watched for a ticket.
type Bird struct {
	experiment.Result
	// Drawn is the step after which the ticket was drawn. 0: the masks never agreed, and training went on to its end.
	Drawn int
	// Steps at which masks were looked at, and the Distances of each from each: the share of units that differ. As a picture it is the paper's of pairwise mask distances.
	Steps     []int
	Distances [][]float64
	// Masks are the last of them: the ticket, where one was drawn.
	Masks Masks
	// Network is the dense network at that step.
	Network experiment.Values
	// Store holds the pruned network, its weights as they were then, and Pruner its masks: to be trained on, or made physically smaller.
	Store  *model.Store
	Pruner *prune.Pruner
}

func (e EarlyBird) complete() (EarlyBird, error) {
	if e.Sparsity == 0 {
		e.Sparsity = 0.5
	}
	if e.Window == 0 {
		e.Window = 5
	}
	if e.Distance == 0 {
		e.Distance = 0.1
	}
	if e.Params == nil {
		e.Params = func(store *model.Store) params.Set { return params.Select(store, nil) }
	}
	bad := func(field, problem, remedy string) (EarlyBird, error) {
		return e, &experiment.ConfigError{Field: "EarlyBird." + field, Problem: problem, Remedy: remedy}
	}
	t := e.Training
	switch {
	case !(e.Sparsity > 0 && e.Sparsity < 1):
		return bad("Sparsity", fmt.Sprintf("got %v", e.Sparsity), "give a share above 0 and below 1, for instance 0.5")
	case e.Every < 0:
		return bad("Every", fmt.Sprintf("got %d", e.Every), "give a positive number of steps, or 0 for an epoch")
	case e.Window < 2:
		return bad("Window", fmt.Sprintf("got %d", e.Window), "give at least 2: one mask agrees with nothing")
	case !(e.Distance > 0 && e.Distance <= 1):
		return bad("Distance", fmt.Sprintf("got %v", e.Distance), "give a share of units above 0 and at most 1, for instance 0.1")
	case t.Pruner != nil || t.Schedule != nil || t.When != nil || t.Topology != nil:
		return bad("Training", "it prunes while training", "leave Pruner, Schedule, When and Topology out: nothing is pruned before the ticket is drawn")
	case e.Recipe.Criterion.Needs&criterion.NeedStart != 0:
		return bad("Recipe", fmt.Sprintf("criterion %q compares with the weights at the start", e.Recipe.Criterion.Name), "use another criterion")
	}
	return e, nil
}

// errDrawn ends a training whose ticket was drawn.
var errDrawn = errors.New("the ticket is drawn")

// Draw trains the network of a seed until its ticket is drawn. With Training.Dir it goes on where it was interrupted, and what was drawn is not trained again.
//
// Errors: *experiment.ConfigError, those of the recipe, and those of experiment.Train.
func (e EarlyBird) Draw(ctx context.Context, seed int64) (*Bird, error) {
	e, err := e.complete()
	if err != nil {
		return nil, err
	}
	store, err := experiment.Init(e.Task, seed)
	if err != nil {
		return nil, err
	}
	trainer, err := experiment.NewTrainer(e.Task, store)
	if err != nil {
		return nil, err
	}
	defer trainer.Close()
	if e.Every == 0 {
		if e.Every, err = trainer.Steps(experiment.Training{Epochs: 1}); err != nil {
			return nil, &experiment.ConfigError{Field: "EarlyBird.Every", Problem: "it is 0, which stands for an epoch: " + err.Error(), Remedy: "give a number of steps"}
		}
	}
	p, err := prune.New(trainer.Task().Backend, store, e.Params(store), e.Recipe)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watcher{EarlyBird: e, store: store, pruner: p, drawn: func() { cancel(errDrawn) }}
	training := e.Training
	training.Topology = w
	// What a run that goes on had seen before is known when it tells its past, before its next step.
	var resumed error
	first := true
	training.Watch = func(now report.Progress) {
		if first {
			first, resumed = false, w.look()
		}
		if e.Training.Watch != nil {
			e.Training.Watch(now)
		}
	}
	bird := &Bird{Store: store, Pruner: p}
	bird.Result, err = trainer.Train(ctx, training)
	if err != nil && !errors.Is(err, errDrawn) || resumed != nil {
		return nil, errors.Join(err, resumed)
	}
	return bird, w.tell(bird)
}

// watcher is a topology that changes nothing: it looks at the masks that pruning would give. They lie in the store, in variables of their own, so that a run which goes on
// finds those from before.
type watcher struct {
	EarlyBird
	store  *model.Store
	pruner *prune.Pruner
	drawn  func()
}

func (w *watcher) Pruner() *prune.Pruner    { return w.pruner }
func (w *watcher) Ready() error             { return nil }
func (w *watcher) Due(step int) bool        { return step%w.Every == 0 }
func (w *watcher) Needs() criterion.Needs   { return w.pruner.Recipe().Criterion.Needs }
func (w *watcher) Fraction(int) float64     { return 0 }
func (w *watcher) Code(int) (string, error) { return w.pruner.Code() }
func (w *watcher) String() string {
	return fmt.Sprintf("early bird, %s, sparsity %v, window %d, distance %v", w.pruner.Recipe(), w.Sparsity, w.Window, w.Distance)
}

// seenScope is where masks that were looked at lie.
const seenScope = "/earlybird/"

// Apply looks at the masks after a step.
func (w *watcher) Apply(step int, sig *signal.Signals) error {
	before, err := experiment.Snapshot(w.store)
	if err != nil {
		return err
	}
	_, err = w.pruner.Prune(w.Sparsity, sig)
	var masks Masks
	if err == nil {
		masks, err = masksOf(w.store, w.pruner.Params())
	}
	if err := errors.Join(err, w.keepDraws(before), experiment.Restore(w.store, before)); err != nil {
		return err
	}
	for _, p := range w.pruner.Params() {
		layout, err := w.pruner.Recipe().Unit.Of(p)
		if err != nil {
			return err
		}
		units := toUnits(layout, masks[p.Path])
		v, err := w.store.CreateVariable(seenPath(step, p), tensors.FromFlatDataAndDimensions(units, len(units)))
		if err != nil {
			return err
		}
		v.SetTrainable(false)
	}
	return w.look()
}

// keepDraws leaves what pruning counts as it is now: how often random numbers were drawn, so that the next mask of a criterion that draws some is another one.
func (w *watcher) keepDraws(before experiment.Values) error {
	for v := range w.store.IterVariables() {
		if !strings.HasPrefix(v.Path(), "/pruning/") || strings.HasPrefix(v.Path(), mask.Scope) {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return err
		}
		if before[v.Path()], err = value.LocalClone(); err != nil {
			return err
		}
	}
	return nil
}

// look ends the training if the masks agree.
func (w *watcher) look() error {
	_, masks, err := w.seen()
	if err == nil && agree(distances(masks), w.Window, w.Distance) {
		w.drawn()
	}
	return err
}

// seen returns the masks that were looked at up to now, by units, all parameters after each other, and after which steps.
func (w *watcher) seen() (steps []int, masks [][]bool, err error) {
	byStep := map[int]bool{}
	for v := range w.store.IterVariables() {
		if rest, found := strings.CutPrefix(v.Path(), seenScope); found {
			number, _, _ := strings.Cut(rest, model.ScopeSeparator)
			step, err := strconv.Atoi(number)
			if err != nil {
				return nil, nil, fmt.Errorf("%s is of no step", v.Path())
			}
			byStep[step] = true
		}
	}
	for _, step := range slices.Sorted(maps.Keys(byStep)) {
		var all []bool
		for _, p := range w.pruner.Params() {
			units, err := w.at(step, p)
			if err != nil {
				return nil, nil, err
			}
			all = append(all, units...)
		}
		steps, masks = append(steps, step), append(masks, all)
	}
	return steps, masks, nil
}

// seenPath is where the mask of a step and a parameter lies, by units: "/earlybird/000000100/fc1/weights".
func seenPath(step int, p params.Param) string {
	return fmt.Sprintf("%s%09d%s", seenScope, step, p.Path)
}

func (w *watcher) at(step int, p params.Param) ([]bool, error) {
	v := w.store.GetVariable(seenPath(step, p))
	if v == nil {
		return nil, fmt.Errorf("there is no mask of %s after step %d", p.Path, step)
	}
	value, err := v.Value()
	if err != nil {
		return nil, err
	}
	return tensors.CopyFlatData[bool](value)
}

// tell says what was seen, and prunes the network by the last masks.
func (w *watcher) tell(b *Bird) error {
	steps, seen, err := w.seen()
	if err != nil {
		return err
	}
	b.Steps, b.Distances = steps, distances(seen)
	if len(steps) == 0 {
		return &experiment.ConfigError{Field: "EarlyBird.Every", Problem: fmt.Sprintf("no mask was looked at in %d steps, one each %d", b.Result.Steps, w.Every), Remedy: "train longer, or look more often"}
	}
	last := steps[len(steps)-1]
	if agree(b.Distances, w.Window, w.Distance) {
		b.Drawn = last
	}
	b.Masks = Masks{}
	for _, p := range w.pruner.Params() {
		units, err := w.at(last, p)
		if err != nil {
			return err
		}
		layout, err := w.pruner.Recipe().Unit.Of(p)
		if err != nil {
			return err
		}
		b.Masks[p.Path] = toWeights(layout, units, p.Size())
	}
	for _, kept := range b.Kept { // which can then be restored to Store
		maps.DeleteFunc(kept, func(path string, _ *tensors.Tensor) bool { return strings.HasPrefix(path, seenScope) })
	}
	if err := w.store.DeleteVariablesInScope(strings.TrimSuffix(seenScope, model.ScopeSeparator)); err != nil {
		return err
	}
	if b.Network, err = experiment.Snapshot(w.store); err != nil {
		return err
	}
	if err := b.Masks.set(w.store, w.pruner.Params()); err != nil {
		return err
	}
	return w.pruner.Enforce()
}

// distances returns the normalised Hamming distance of each mask from each.
func distances(masks [][]bool) [][]float64 {
	d := make([][]float64, len(masks))
	for i := range masks {
		d[i] = make([]float64, len(masks))
		for j := range i {
			d[i][j] = float64(mask.Diff(masks[i], masks[j]).Hamming) / float64(max(1, len(masks[i])))
			d[j][i] = d[i][j]
		}
	}
	return d
}

// agree tells whether the last masks of a window are all near to the newest: a queue of five in the paper, four of which are compared with the fifth.
func agree(distances [][]float64, window int, most float64) bool {
	n := len(distances)
	if n < window {
		return false
	}
	for _, d := range distances[n-1][n-window : n-1] {
		if d > most {
			return false
		}
	}
	return true
}

// Slimming adds λ·Σ|γ| to the training loss of a network, γ the scales of all of its batch normalisations: what tells channels apart for criterion.Gain. Liu et al. 2017,
// arXiv:1708.06519, equation 1; λ is 1e-4 for VGG there.
func Slimming(network experiment.ModelFn, lambda float64) experiment.ModelFn {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		logits := network(scope, x)
		g := x.Graph()
		if !scope.Store().IsTraining(g) {
			return logits
		}
		for v := range scope.Store().IterVariables() {
			if v.Trainable && v.Name() == "scale" && strings.HasSuffix(v.Scope(), model.ScopeSeparator+norm.BatchNormalizationScopeName) && v.InUseByGraph(g) {
				gamma := v.NodeValue(g)
				train.AddRegularizationLoss(graph.MulScalar(graph.ReduceAllSum(graph.Mul(gamma, graph.StopGradient(graph.Sign(gamma)))), lambda)) // the gradient of GoMLX's Abs is 1 at 0
			}
		}
		return logits
	}
}

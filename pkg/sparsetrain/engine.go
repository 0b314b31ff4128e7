package sparsetrain

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/inplace"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/signal"
)

// Config says how a sparse training starts. Density has no default.
type Config struct {
	// Density is the share of weights that is alive, above 0 and at most 1.
	Density float64
	// Seed draws the first topology, and what rules draw.
	Seed int64
	// KeepMasks starts from the masks that the store has, for instance of a winning ticket, instead of a random topology; Density is then theirs.
	KeepMasks bool
	// Observe is told of each update. nil: nobody is.
	Observe func(Change)
}

// Change is what an update has done.
type Change struct {
	Step     int     // after which it was
	Fraction float64 // the share of living weights that was to be dropped
	Layers   []LayerChange
}

// LayerChange is what an update has done to a parameter.
type LayerChange struct {
	Path                           string
	Before, Dropped, Grown, Living int // weights: alive before, dropped, grown, alive after
	Regrown                        int // of the dropped, those that were grown again at once
	Size                           int
}

// Engine changes the topology of one network while it trains. It keeps all that it has to remember in the store, so that it travels with checkpoints: give it to
// experiment.Training as Topology.
type Engine struct {
	store   *model.Store
	set     params.Set
	update  Update
	config  Config
	pruner  *prune.Pruner
	scorers []scorer
	layers  []*Layer // of the last update, whose room the next one uses
	moves   []move   // so too
}

// scorer computes the scores of a criterion that serves as a rule.
type scorer struct {
	role      role
	criterion criterion.Criterion
	pruner    *prune.Pruner
}

// role is what a criterion is for.
type role int

const (
	toDrop role = iota
	toGrow
)

// Where the engine keeps what it remembers.
const (
	scope      = "/pruning/sparsetrain"
	memoryPath = scope + "/memory" // float64 [2 + 8]: number of updates, budget, Round.Memory
	signScope  = scope + "/positive"
	memorySize = 8
)

// New returns an engine, and makes the store sparse: masks at random places with the update's budget, exactly Density of all weights alive, the others zero. A store that is sparse already is refused, unless
// KeepMasks is set: what its dead weights were is gone, and those that came to life would be zero.
// Errors: *UpdateError, *DensityError, *MaskError, *prune.RecipeError, before anything is changed.
func New(b compute.Backend, store *model.Store, set params.Set, u Update, c Config) (*Engine, error) {
	u = u.complete()
	if err := u.check(); err != nil {
		return nil, err
	}
	if !c.KeepMasks && !(c.Density > 0 && c.Density <= 1) { // NaN too
		return nil, &DensityError{Density: c.Density, Problem: "out of range"}
	}
	recipe := prune.Recipe{Criterion: criterion.Random, Budget: u.Budget, Revive: true, Seed: c.Seed}
	if !c.KeepMasks && c.Density < 1 {
		if err := feasible(set, recipe, c.Density); err != nil {
			return nil, err
		}
	}
	if !c.KeepMasks {
		if err := dense(store, set); err != nil {
			return nil, err
		}
	}
	e := &Engine{store: store, set: set, update: u, config: c}
	for role, rule := range map[role]*criterion.Criterion{toDrop: u.Drop.criterion, toGrow: u.Grow.criterion} {
		if rule == nil {
			continue
		}
		if rule.Track != nil || rule.Needs&(criterion.NeedTrack|criterion.NeedGate) != 0 {
			return nil, &UpdateError{u.String(), fmt.Sprintf("criterion %q tracks training or needs gates", rule.Name), "take one that scores weights as they are"}
		}
		p, err := prune.New(b, store, set, prune.Recipe{Criterion: *rule, Seed: c.Seed, Revive: true})
		if err != nil {
			return nil, err
		}
		e.scorers = append(e.scorers, scorer{role, *rule, p})
	}
	slices.SortFunc(e.scorers, func(a, b scorer) int { return cmp.Compare(a.role, b.role) })
	var err error
	if e.pruner, err = prune.New(b, store, set, recipe); err != nil {
		return nil, err
	}
	living := 0
	if c.KeepMasks {
		stats, err := mask.Count(store, set)
		if err != nil {
			return nil, err
		}
		for _, s := range stats {
			if s.Kept == 0 {
				return nil, &MaskError{s.Path, "it has no living weight", "start from masks that leave one of each parameter"}
			}
			living += s.Kept
		}
		if err := e.pruner.Enforce(); err != nil {
			return nil, err
		}
	} else {
		stats, err := e.pruner.Prune(1-c.Density, nil)
		if err != nil {
			return nil, err
		}
		for _, s := range stats {
			living += s.Kept
		}
	}
	return e, e.remember(living)
}

// dense returns a *MaskError if a weight is dead.
func dense(store *model.Store, set params.Set) error {
	stats, err := mask.Count(store, set)
	if err != nil {
		return err
	}
	for _, s := range stats {
		if s.Kept < s.Size {
			return &MaskError{s.Path, fmt.Sprintf("%d of its %d weights are dead before the start", s.Size-s.Kept, s.Size),
				"start from a store as experiment.Init makes it, bring one back by experiment.Restore, or set Config.KeepMasks to go on from these masks"}
		}
	}
	return nil
}

// feasible returns a *DensityError if a layer would be left empty.
func feasible(set params.Set, recipe prune.Recipe, density float64) error {
	units := make([]int, len(set))
	for i, p := range set {
		units[i] = p.Size()
	}
	groups, err := recipe.Budget.Divide(set, units, 1-density)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if g.Keep < len(g.Members) {
			return &DensityError{Density: density, Path: set[g.Members[0]].Path, Problem: fmt.Sprintf("the budget %q leaves %d weights", recipe.Budget.Name, g.Keep)}
		}
	}
	return nil
}

// remember makes the variables of a new start.
func (e *Engine) remember(living int) error {
	memory := make([]float64, 2+memorySize)
	memory[1] = float64(living)
	if err := set(e.store, memoryPath, tensors.FromValue(memory)); err != nil {
		return err
	}
	if e.update.needs()&NeedSigns == 0 {
		return nil
	}
	for _, p := range e.set {
		w, err := weights(e.store, p, nil)
		if err != nil {
			return err
		}
		positive := make([]bool, len(w))
		for i := range w {
			positive[i] = w[i] > 0
		}
		if err := e.setSigns(p, positive); err != nil {
			return err
		}
	}
	return nil
}

// set sets a variable that training must not touch.
func set(store *model.Store, path string, value *tensors.Tensor) error {
	if v := store.GetVariable(path); v != nil {
		v.SetTrainable(false) // which GoMLX's checkpoints forget
		return v.SetValue(value)
	}
	v, err := store.CreateVariable(path, value)
	if err != nil {
		return err
	}
	v.SetTrainable(false)
	return nil
}

// weights copies those of a parameter, into the room of an earlier copy.
func weights(store *model.Store, p params.Param, into []float32) ([]float32, error) {
	return values(store.GetVariable(p.Path), into)
}

// alive does so with its mask.
func alive(store *model.Store, p params.Param, into []bool) ([]bool, error) {
	v, err := mask.Variable(store, p)
	if err != nil {
		return nil, err
	}
	return values(v, into)
}

func values[T float32 | bool](v *model.Variable, into []T) ([]T, error) {
	value, err := v.Value()
	if err != nil {
		return nil, err
	}
	err = tensors.ConstFlatData(value, func(flat []T) { into = append(into[:0], flat...) })
	return into, err
}

// Pruner keeps the masks while training: it makes the optimizer that experiment wraps.
func (e *Engine) Pruner() *prune.Pruner { return e.pruner }

// Due tells whether there is an update after a step.
func (e *Engine) Due(step int) bool { return e.update.due(step) }

// Needs are the signals that Apply has to be given.
func (e *Engine) Needs() criterion.Needs {
	var needs criterion.Needs
	if e.update.needs()&NeedGradient != 0 {
		needs = criterion.NeedGrad
	}
	for _, s := range e.scorers {
		needs |= s.criterion.Needs
	}
	return needs
}

// String identifies the engine's rules, density and seed.
func (e *Engine) String() string {
	return fmt.Sprintf("%s density=%v seed=%d", e.update.parts(), e.config.Density, e.config.Seed)
}

// Fraction is the share of living weights to be dropped after a step.
func (e *Engine) Fraction(step int) float64 {
	f, err := e.update.fraction(step)
	if err != nil {
		return math.NaN() // as which Apply refuses it
	}
	return f
}

// Ready returns a *MomentumError if the update reads an optimizer's momentum and the store has none: it is asked when the optimizer's variables are there, before the first step.
func (e *Engine) Ready() error {
	if e.update.needs()&NeedMomentum == 0 {
		return nil
	}
	for _, p := range e.set {
		if _, err := momentum(e.store, e.update.String(), p, nil); err != nil {
			return err
		}
	}
	return nil
}

// Apply drops and grows once, after a step, with signals of Needs (nil where there are none). It changes masks, weights, signs and moments, all or nothing: the number
// alive stays what it was at the start, but for rules with a Count of their own.
//
// Errors: *RuleError, *MomentumError, *MaskError, *UpdateError for a Fraction out of range, *signal.MissingError.
func (e *Engine) Apply(step int, sig *signal.Signals) error {
	r, memory, err := e.round(step, sig)
	if err != nil {
		return err
	}
	if err := e.drop(r); err != nil {
		return err
	}
	counts, err := e.counts(r)
	if err != nil {
		return err
	}
	for i, l := range r.Layers {
		if err := e.grow(l, counts[i]); err != nil {
			return err
		}
	}
	change := Change{Step: step, Fraction: r.Fraction}
	moves := room(&e.moves, len(r.Layers))
	for i, l := range r.Layers {
		layer, err := e.move(l, &moves[i])
		if err != nil {
			return err
		}
		change.Layers = append(change.Layers, layer)
	}
	memory[0]++
	copy(memory[2:], r.Memory)
	if err := e.write(r, moves, memory); err != nil {
		return err
	}
	if e.config.Observe != nil {
		e.config.Observe(change)
	}
	return nil
}

// ask calls a rule. What it panics with becomes a *RuleError.
func ask(rule, path string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &RuleError{rule, path, fmt.Sprintf("it panics: %v; a rule has only what it asks for of a layer's Momentum, Gradient and Positive: set its Needs", r)}
		}
	}()
	if err = f(); err != nil && !errors.As(err, new(*RuleError)) { // the rule's own
		err = fmt.Errorf("rule %q: %w", rule, err)
	}
	return err
}

// drop marks what goes.
func (e *Engine) drop(r *Round) error {
	same := r.order()
	if err := ask(e.update.Drop.Name, "", func() error { return e.update.Drop.Mark(r) }); err != nil {
		return err
	}
	if err := same(e.update.Drop.Name); err != nil {
		return err
	}
	for _, l := range r.Layers {
		if len(l.Drop) != l.Size() {
			return &RuleError{e.update.Drop.Name, l.Param.Path, fmt.Sprintf("it leaves a Drop of %d weights for a layer of %d: set values in the one that is there", len(l.Drop), l.Size())}
		}
		// Without a branch, as in living.
		dropped, n := room(&l.dropped, len(l.living())+1), 0
		for _, i := range l.living() {
			dropped[n] = i
			if l.Drop[i] {
				n++
			}
		}
		l.dropped = dropped[:n]
		l.Living, l.Dropped = len(l.living()), n
	}
	return nil
}

// counts returns how many weights each layer grows.
func (e *Engine) counts(r *Round) (counts []int, err error) {
	same := r.order()
	err = ask(e.update.Redistribute.Name, "", func() (err error) {
		counts, err = e.update.Redistribute.counts(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return counts, same(e.update.Redistribute.Name)
}

// grow finds the places where a layer grows.
func (e *Engine) grow(l *Layer, n int) error {
	rule := e.update.Grow
	var scores []float32
	living, dropped := l.Living, l.Dropped
	err := ask(rule.Name, l.Param.Path, func() error {
		scores = scored(l, rule.Score)
		return nil
	})
	if err != nil {
		return err
	}
	l.Living, l.Dropped = living, dropped
	if l.Living-l.Dropped+n == 0 {
		return &RuleError{e.update.Redistribute.Name, l.Param.Path, "it leaves no living weight"}
	}
	grown, err := l.bestOpen(rule.Name, n, scores)
	l.grown = append(l.grown, grown...)
	return err
}

// round gathers what the rules see.
func (e *Engine) round(step int, sig *signal.Signals) (*Round, []float64, error) {
	fraction, err := e.update.fraction(step)
	if err != nil {
		return nil, nil, err
	}
	needs := e.update.needs()
	if err := sig.Check(e.Needs()); err != nil {
		return nil, nil, fmt.Errorf("update %q: %w", e.update, err)
	}
	v := e.store.GetVariable(memoryPath)
	if v == nil {
		return nil, nil, &MaskError{e.set[0].Path, "the engine's memory is gone from the store", "make a new engine with New"}
	}
	value, err := v.Value()
	if err != nil {
		return nil, nil, err
	}
	memory, err := tensors.CopyFlatData[float64](value)
	if err != nil {
		return nil, nil, err
	}
	scores := map[role]map[string][]float32{}
	for _, s := range e.scorers {
		if scores[s.role], err = s.pruner.Scores(sig); err != nil {
			return nil, nil, err
		}
	}
	r := &Round{Step: step, Number: int(memory[0]), Budget: int(memory[1]), Fraction: fraction, Memory: append([]float64{}, memory[2:]...)}
	if e.layers == nil {
		shared := new(rooms)
		for _, p := range e.set {
			e.layers = append(e.layers, &Layer{Param: p, room: shared})
		}
	}
	for _, l := range e.layers {
		p := l.Param
		l.Random, l.criteria = random(e.config.Seed, step, p.Path), map[role][]float32{}
		l.Dropped, l.places, l.dropped, l.grown = 0, l.places[:0], l.dropped[:0], l.grown[:0]
		if l.Weight, err = weights(e.store, p, l.Weight); err != nil {
			return nil, nil, err
		}
		if l.Alive, err = alive(e.store, p, l.Alive); err != nil {
			return nil, nil, err
		}
		if l.Living = len(l.living()); l.Living == 0 {
			return nil, nil, &MaskError{p.Path, "it has no living weight", "make a new engine with New"}
		}
		clear(room(&l.Drop, l.Size()))
		if needs&NeedMomentum != 0 {
			if l.Momentum, err = momentum(e.store, e.update.String(), p, l.Momentum); err != nil {
				return nil, nil, err
			}
		}
		if needs&NeedGradient != 0 {
			if l.Gradient, err = sig.Value(criterion.NeedGrad, p.Path); err != nil {
				return nil, nil, err
			}
		}
		if needs&NeedSigns != 0 {
			if l.Positive, err = e.signs(p); err != nil {
				return nil, nil, err
			}
		}
		for role, byPath := range scores {
			l.criteria[role] = byPath[p.Path]
		}
	}
	r.Layers = slices.Clone(e.layers)
	return r, memory, nil
}

func (e *Engine) signs(p params.Param) ([]bool, error) {
	v := e.store.GetVariable(signScope + p.Path)
	if v == nil {
		return nil, &MaskError{p.Path, "the signs of its weights are gone from the store", "make a new engine with New"}
	}
	value, err := v.Value()
	if err != nil {
		return nil, err
	}
	return tensors.CopyFlatData[bool](value)
}

func (e *Engine) setSigns(p params.Param, positive []bool) error {
	return set(e.store, signScope+p.Path, tensors.FromFlatDataAndDimensions(positive, p.Shape.Dimensions...))
}

// random is a source for one parameter and step.
func random(seed int64, step int, path string) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", step, path)
	return rand.New(rand.NewPCG(uint64(seed), h.Sum64()))
}

// move is what an update changes in a layer. Places are in order.
type move struct {
	died   []int32   // dropped, and not grown again
	grown  []int32   // all that were grown
	fresh  []int32   // of these, those that start anew
	values []float32 // with which value
	gone   []int32   // dropped, and not grown again as they were

	wereAlive []bool    // before, those that were grown
	were      []float32 // before, the values of died, and then of fresh
}

func (e *Engine) move(l *Layer, m *move) (LayerChange, error) {
	change := LayerChange{Path: l.Param.Path, Before: l.Living, Dropped: l.Dropped, Grown: len(l.grown), Living: l.Living - l.Dropped + len(l.grown), Size: l.Size()}
	*m = move{grown: l.grown, died: m.died[:0], fresh: m.fresh[:0], gone: m.gone[:0], values: m.values, wereAlive: m.wereAlive, were: m.were}
	regrown := l.grown
	for _, i := range l.dropped {
		for len(regrown) > 0 && regrown[0] < i {
			regrown = regrown[1:]
		}
		again := len(regrown) > 0 && regrown[0] == i
		if !again {
			m.died = append(m.died, i)
		}
		if !again || e.update.Grow.Fresh {
			m.gone = append(m.gone, i)
		}
	}
	for _, i := range l.grown {
		if l.Alive[i] {
			change.Regrown++
		}
		if !l.Alive[i] || e.update.Grow.Fresh {
			m.fresh = append(m.fresh, i)
		}
	}
	clear(room(&m.values, len(m.fresh)))
	err := ask(e.update.Init.Name, l.Param.Path, func() error {
		for j, i := range m.fresh {
			if e.update.Init.Value != nil {
				m.values[j] = e.update.Init.Value(l, int(i))
			}
		}
		if slices.ContainsFunc(m.values, func(x float32) bool { return math.IsInf(float64(x), 0) }) {
			return &RuleError{e.update.Init.Name, l.Param.Path, "it starts weights at infinity: give a number"}
		}
		return numbers(e.update.Init.Name, l, m.values)
	})
	return change, err
}

// undo are functions that set back what an update has changed, in the order in which it was.
type undo []func() error

// back calls them all, the last first.
func (u undo) back() error {
	var err error
	for _, f := range slices.Backward(u) {
		err = errors.Join(err, f())
	}
	return err
}

// write changes masks, weights, signs, moments and memory, and if that can't be done for all of them, sets them back.
func (e *Engine) write(r *Round, moves []move, memory []float64) error {
	var changed undo
	for i := range moves {
		if err := e.writeLayer(r.Layers[i], &moves[i], &changed); err != nil {
			return errors.Join(err, changed.back())
		}
	}
	if err := set(e.store, memoryPath, tensors.FromValue(memory)); err != nil {
		return errors.Join(err, changed.back())
	}
	return nil
}

// writeLayer changes what belongs to a layer.
func (e *Engine) writeLayer(l *Layer, m *move, changed *undo) error {
	if err := e.put(l, m, changed); err != nil {
		return err
	}
	if l.Positive != nil {
		before, err := e.signs(l.Param)
		if err != nil {
			return err
		}
		if err := e.setSigns(l.Param, l.Positive); err != nil {
			return err
		}
		*changed = append(*changed, func() error { return e.setSigns(l.Param, before) })
	}
	switch e.update.Moments {
	case ResetGrown:
		return reset(e.store, l.Param, changed, m.fresh)
	case ResetChanged:
		return reset(e.store, l.Param, changed, m.fresh, m.gone)
	}
	return nil
}

// put changes a layer's mask and weights: a few of them, so where they lie.
func (e *Engine) put(l *Layer, m *move, changed *undo) error {
	wereAlive, were := room(&m.wereAlive, len(m.grown)), room(&m.were, len(m.died)+len(m.fresh))
	right := true
	masked := func(alive []bool) (did bool) {
		born := 0
		for j, i := range m.grown {
			if wereAlive[j] = alive[i]; !alive[i] {
				born++
			}
		}
		// Rules see a copy of the mask, and can spoil it.
		if right = born == len(m.grown)-(len(l.dropped)-len(m.died)); !right {
			return false
		}
		for _, i := range m.died {
			alive[i] = false
		}
		for _, i := range m.grown {
			alive[i] = true
		}
		return true
	}
	unmasked := func(alive []bool) {
		for _, i := range m.died {
			alive[i] = true
		}
		for j, i := range m.grown {
			alive[i] = wereAlive[j]
		}
	}
	weighed := func(weight []float32) (did bool) {
		for j, i := range m.died {
			were[j], weight[i] = weight[i], 0
		}
		for j, i := range m.fresh {
			were[len(m.died)+j], weight[i] = weight[i], m.values[j]
		}
		return true
	}
	unweighed := func(weight []float32) {
		for j, i := range m.died {
			weight[i] = were[j]
		}
		for j, i := range m.fresh {
			weight[i] = were[len(m.died)+j]
		}
	}
	if err := changeOrUndo(e.store, mask.Path(l.Param), masked, unmasked, changed); err != nil {
		return err
	}
	if !right {
		return &RuleError{e.update.String(), l.Param.Path, "a rule has changed Alive: of what it sees it may change Drop and Positive"}
	}
	return changeOrUndo(e.store, l.Param.Path, weighed, unweighed, changed)
}

// changeOrUndo changes elements of a variable and adds how they are set back, also where the change is not brought to its end; f tells whether it has changed any.
func changeOrUndo[T float32 | bool](store *model.Store, path string, f func(flat []T) (did bool), back func(flat []T), changed *undo) error {
	did := false
	err := change(store, path, func(flat []T) { did = f(flat) })
	if did {
		*changed = append(*changed, func() error { return change(store, path, back) })
	}
	return err
}

// change changes elements of a variable.
func change[T float32 | bool](store *model.Store, path string, f func(flat []T)) error {
	value, err := store.GetVariable(path).Value()
	if err != nil {
		return err
	}
	return inplace.Change(value, f)
}

// Living counts the living weights of each parameter.
func (e *Engine) Living() ([]mask.Stats, error) { return mask.Count(e.store, e.set) }

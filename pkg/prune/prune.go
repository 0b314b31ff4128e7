// Package prune joins criterion, unit and budget into a recipe, and applies it: one-shot by one call of Prune, iterative by several, scheduled by
// Attach. Pruner.Optimizer keeps zeros zero while training goes on.
package prune

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/rank"
	"github.com/espalier-ml/espalier/pkg/internal/scoring"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// Recipe is one way to prune. The zero value is global unstructured magnitude pruning.
type Recipe struct {
	Criterion criterion.Criterion // default: criterion.Magnitude
	Unit      unit.Unit           // default: unit.Element
	Normalize criterion.Normalize // default: scores are ranked as they are
	Budget    budget.Budget       // default: budget.Global
	Revive    bool                // whether dead units may come back; by default masks only shrink
	MinUnits  int                 // how many units of each parameter always stay. Default: 1
	// KeepMin says what to do where the budget leaves a parameter fewer than MinUnits: keep those all the same, and so allow a sparsity of 1. By
	// default that is an error.
	KeepMin bool
	// RoundTo makes the number of units kept of each parameter a multiple of this, by keeping up to RoundTo − 1 more of its best than the budget
	// says, as far as it has them. Default: 1
	RoundTo int
	Seed    int64 // for criteria that draw random numbers
}

// Complete returns the recipe with its defaults filled in.
func (r Recipe) Complete() Recipe {
	if r.Criterion.Score == nil {
		r.Criterion = criterion.Magnitude
	}
	if r.Criterion.Pool == nil {
		r.Criterion.Pool = criterion.L1
	}
	if r.Unit.Name == "" {
		r.Unit = unit.Element
	}
	if r.Budget.Divide == nil {
		r.Budget = budget.Global
	}
	if r.MinUnits == 0 {
		r.MinUnits = 1
	}
	if r.RoundTo == 0 {
		r.RoundTo = 1
	}
	return r
}

// String is the recipe's canonical name: the criterion, then what differs from the defaults, in fixed order, so that a field added later
// renames no old run.
func (r Recipe) String() string {
	r = r.Complete()
	parts := []string{r.Criterion.Name}
	add := func(differs bool, text string) {
		if differs {
			parts = append(parts, text)
		}
	}
	add(r.Budget.Name != budget.Global.Name, "budget="+r.Budget.Name)
	add(r.KeepMin, "keepmin")
	add(r.MinUnits != 1, fmt.Sprintf("minunits=%d", r.MinUnits))
	add(r.Normalize.Name != "", "normalize="+r.Normalize.Name)
	add(r.Revive, "revive")
	add(r.RoundTo != 1, fmt.Sprintf("roundto=%d", r.RoundTo))
	add(r.Seed != 0, fmt.Sprintf("seed=%d", r.Seed))
	add(r.Unit.Name != unit.Element.Name, "unit="+r.Unit.Name)
	return strings.Join(parts, " ")
}

// RecipeError says why a recipe can't be used on these parameters. Nothing was changed.
type RecipeError struct{ Recipe, Problem, Remedy string }

func (e *RecipeError) Error() string {
	return fmt.Sprintf("recipe %q: %s; %s", e.Recipe, e.Problem, e.Remedy)
}

// SparsityError says that a sparsity can't be used. Nothing was changed.
type SparsityError struct {
	Sparsity float64
	Problem  string
}

func (e *SparsityError) Error() string {
	return fmt.Sprintf("sparsity %v: %s; it is the share of units to remove, at least 0 and less than 1, for instance 0.9", e.Sparsity, e.Problem)
}

// ScoreError says that a criterion gave scores that can't be ranked. Nothing was changed.
type ScoreError = criterion.ScoreError

// LeakError says that dead weights are not zero.
type LeakError struct {
	Path  string // the parameter
	Count int    // how many of its dead weights
}

func (e *LeakError) Error() string {
	return fmt.Sprintf("%s: %d dead weights are not zero: train with the optimizer that Pruner.Optimizer returns", e.Path, e.Count)
}

// Pruner applies a recipe to parameters of a store.
type Pruner struct {
	backend compute.Backend
	store   *model.Store
	given   params.Set // what New was given
	set     params.Set // those of them that are pruned
	recipe  Recipe
	layouts []unit.Layout // of each parameter
	units   []int         // of each parameter
	scorer  *scoring.Scorer
}

// New returns a pruner. It creates the masks, all alive where there were none, and changes nothing else. Structured units leave out the
// parameters marked as the network's output; if none is marked, the error is a *RecipeError that says how.
func New(b compute.Backend, store *model.Store, set params.Set, r Recipe) (*Pruner, error) {
	name := r.String()
	if r.MinUnits < 0 || r.RoundTo < 0 {
		return nil, &RecipeError{name, fmt.Sprintf("MinUnits is %d and RoundTo is %d", r.MinUnits, r.RoundTo), "give 0 for the default of 1, or a positive number"}
	}
	r = r.Complete()
	given := set
	if r.Unit.M != 0 && r.Budget.Name != budget.Global.Name {
		return nil, &RecipeError{name, "its unit says how many of each group are kept, which leaves a budget nothing to divide", "leave Recipe.Budget as it is"}
	}
	if r.Unit.M != 0 && r.RoundTo != 1 {
		return nil, &RecipeError{name, "its unit says how many of each group are kept, which can't be rounded", "leave Recipe.RoundTo as it is"}
	}
	if r.Unit.Structured {
		var inner params.Set
		for _, p := range set {
			if !p.Output {
				inner = append(inner, p)
			}
		}
		if len(inner) == len(set) && len(set) > 0 {
			return nil, &RecipeError{name, fmt.Sprintf("its unit removes outputs of layers, and none of these is marked as the network's own output: %s",
				strings.Join(set.Paths(), ", ")), "name it with params.Set.MarkOutput, or leave it out with Without and mark nothing but that"}
		}
		set = inner
	}
	if len(set) == 0 {
		return nil, &RecipeError{name, "no parameters to prune", "select some with params.Select; a store has none before experiment.Init, or before its model was built once"}
	}
	p := &Pruner{backend: b, store: store, given: given, set: set, recipe: r, units: make([]int, len(set)), layouts: make([]unit.Layout, len(set))}
	for i, param := range set { // everything is checked before a mask is made
		if slices.ContainsFunc(set[:i], func(before params.Param) bool { return before.Path == param.Path }) {
			return nil, &RecipeError{name, fmt.Sprintf("%s is there twice", param.Path), "give each parameter once: its weights would count twice"}
		}
		v := store.GetVariable(param.Path)
		if v == nil {
			return nil, &params.UnknownPathError{Path: param.Path, Known: params.Select(store, nil).Paths()}
		}
		if v.DType() != dtypes.Float32 {
			return nil, &RecipeError{name, fmt.Sprintf("%s has type %s", param.Path, v.DType()), "only float32 parameters can be pruned"}
		}
		var err error
		if p.layouts[i], err = r.Unit.Of(param); err != nil {
			return nil, err
		}
		if err := whole(r, param, p.layouts[i]); err != nil {
			return nil, err
		}
		p.units[i] = p.layouts[i].Count
		if p.units[i] < r.MinUnits {
			return nil, &budget.Error{Path: param.Path, Wanted: p.units[i], Least: r.MinUnits, Remedy: "lower Recipe.MinUnits or leave the parameter out"}
		}
	}
	if _, err := r.Budget.Divide(set, p.units, 0); err != nil {
		return nil, err
	}
	for _, param := range set {
		if _, err := mask.Variable(store, param); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// whole returns a *RecipeError if the criterion can't tell units apart that lie in the same channel.
func whole(r Recipe, param params.Param, layout unit.Layout) error {
	spared, what := param.Out, "output"
	switch r.Criterion.Granularity {
	case criterion.PerWeight:
		return nil
	case criterion.PerIn:
		spared, what = param.In, "input"
	}
	for axis := range param.Shape.Rank() {
		if axis != spared && !layout.Spans(axis) || r.Unit.M != 0 {
			return &RecipeError{r.String(), fmt.Sprintf("criterion %q scores whole %s channels, and unit %q divides those of %s", r.Criterion.Name, what, r.Unit.Name, param.Path),
				fmt.Sprintf("use unit.%s, or a criterion that scores single weights", map[string]string{"output": "Filter", "input": "InChannel"}[what])}
		}
	}
	return nil
}

// Store returns the store whose parameters are pruned.
func (p *Pruner) Store() *model.Store { return p.store }

// Given returns the parameters that New was given: those that are pruned, and the network's output where the unit leaves that out.
func (p *Pruner) Given() params.Set { return p.given }

// Params returns the parameters that are pruned.
func (p *Pruner) Params() params.Set { return p.set }

// Recipe returns the recipe with its defaults filled in.
func (p *Pruner) Recipe() Recipe { return p.recipe }

// Prune removes units until the share sparsity of them is gone: it scores, ranks, sets the masks and zeroes the weights, all or nothing. The number kept is
// exact; of equal scores the earlier is kept; MinUnits of each parameter stay. Sparsity is the share of units (of weights, for elements; of
// cost, for budgets that have one), and 0 changes nothing. Unless the recipe revives, asking for more than is alive is a *SparsityError.
//
// sig are the signals that the criterion needs, from signal.Collect or experiment's Trainer.Signals; nil where it needs none (Recipe.Criterion.Needs).
// A criterion of several rounds collects them again from the same source before each round but the first.
//
// Errors: *SparsityError, *budget.Error, *ScoreError, *signal.MissingError, before anything is changed.
func (p *Pruner) Prune(sparsity float64, sig *signal.Signals) ([]mask.Stats, error) {
	if err := p.inRange(sparsity); err != nil {
		return nil, err
	}
	if err := sig.Check(p.recipe.Criterion.Needs); err != nil {
		return nil, fmt.Errorf("criterion %q: %w", p.recipe.Criterion.Name, err)
	}
	rounds := p.recipe.Criterion.Rounds
	if rounds <= 1 || sparsity == 0 || p.recipe.Unit.M != 0 { // N of M has one sparsity only
		return p.round(sparsity, sig)
	}
	from, err := p.left()
	if err != nil {
		return nil, err
	}
	undo, err := p.remember()
	if err != nil {
		return nil, err
	}
	var stats []mask.Stats
	for i := 1; i <= rounds; i++ {
		// Geometric from what is left to the target, which the last round reaches exactly.
		target := sparsity
		if i < rounds && sparsity < 1 {
			target = max(0, 1-from*math.Pow((1-sparsity)/from, float64(i)/float64(rounds)))
		}
		if i > 1 && p.recipe.Criterion.Needs&criterion.NeedSignals != 0 {
			if sig, err = sig.Refresh(); err != nil {
				return nil, errors.Join(err, undo())
			}
		}
		if stats, err = p.round(target, sig); err != nil {
			return nil, errors.Join(err, undo())
		}
	}
	return stats, nil
}

// Feasible returns the error with which Prune would refuse a sparsity, of masks as they are: a *SparsityError or one of the budget. Nothing is scored and nothing changed.
func (p *Pruner) Feasible(sparsity float64) error {
	if err := p.inRange(sparsity); err != nil {
		return err
	}
	_, _, err := p.divide(sparsity)
	return err
}

// inRange returns a *SparsityError for what is no share of units to remove.
func (p *Pruner) inRange(sparsity float64) error {
	if math.IsNaN(sparsity) || sparsity < 0 || sparsity > 1 || sparsity == 1 && !p.recipe.KeepMin {
		return &SparsityError{sparsity, "out of range"}
	}
	return nil
}

// left returns the share of units that may be kept, as the budget counts them.
func (p *Pruner) left() (float64, error) {
	groups, err := p.recipe.Budget.Divide(p.set, p.units, 0)
	if err != nil || p.recipe.Revive {
		return 1, err
	}
	living, all := 0, 0
	for _, g := range groups {
		for j, i := range g.Members {
			alive, err := p.aliveUnits(i)
			if err != nil {
				return 0, err
			}
			cost := 1
			if g.Cost != nil {
				cost = int(g.Cost[j])
			}
			living += cost * count(alive)
			all += cost * len(alive)
		}
	}
	return float64(living) / float64(max(1, all)), nil
}

// remember returns a function that sets masks and weights back to what they are now.
func (p *Pruner) remember() (undo func() error, err error) {
	var weights [][]float32
	var masks [][]bool
	for _, param := range p.set {
		alive, err := mask.Bools(p.store, param)
		if err != nil {
			return nil, err
		}
		value, err := p.store.GetVariable(param.Path).Value()
		if err != nil {
			return nil, err
		}
		w, err := tensors.CopyFlatData[float32](value)
		if err != nil {
			return nil, err
		}
		masks, weights = append(masks, alive), append(weights, w)
	}
	return func() error {
		for i, param := range p.set {
			if err := mask.Set(p.store, param, masks[i]); err != nil {
				return err
			}
			if err := p.weights(param, func(w []float32) { copy(w, weights[i]) }); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// divide returns what may be kept at a sparsity, and which units of each parameter are alive, or says why it can't be.
func (p *Pruner) divide(sparsity float64) (groups []budget.Group, alive [][]bool, err error) {
	if groups, err = p.recipe.Budget.Divide(p.set, p.units, sparsity); err != nil {
		return nil, nil, err
	}
	alive = make([][]bool, len(p.set)) // by unit
	for i := range p.set {
		if alive[i], err = p.aliveUnits(i); err != nil {
			return nil, nil, err
		}
	}
	if p.recipe.Unit.M != 0 {
		return groups, alive, p.checkNofM(sparsity)
	}
	return groups, alive, p.feasible(groups, alive, sparsity)
}

// round scores and removes once.
func (p *Pruner) round(sparsity float64, sig *signal.Signals) ([]mask.Stats, error) {
	groups, alive, err := p.divide(sparsity)
	if err != nil {
		return nil, err
	}
	if sparsity == 0 && !p.recipe.Revive {
		return mask.Count(p.store, p.set)
	}
	scores, err := p.scores(alive, sig)
	if err != nil {
		return nil, err
	}
	return p.apply(p.choose(groups, scores, alive, sparsity), alive)
}

// checkNofM returns a *SparsityError unless the sparsity is that of the unit, or 0.
func (p *Pruner) checkNofM(sparsity float64) error {
	u := p.recipe.Unit
	if want := 1 - float64(u.N)/float64(u.M); sparsity != 0 && math.Abs(sparsity-want) > 1e-9 {
		return &SparsityError{sparsity, fmt.Sprintf("unit %q removes exactly %v", u.Name, want)}
	}
	return nil
}

// choose returns which units are kept; nil for parameters in no group.
func (p *Pruner) choose(groups []budget.Group, scores [][]float32, alive [][]bool, sparsity float64) [][]bool {
	keep := make([][]bool, len(p.set)) // by unit
	one := func(i int) rank.Candidate {
		if keep[i] == nil {
			keep[i] = make([]bool, p.units[i])
		}
		c := rank.Candidate{Scores: scores[i], Keep: keep[i]}
		if !p.recipe.Revive {
			c.Eligible = alive[i]
		}
		return c
	}
	if p.recipe.Unit.M != 0 && sparsity > 0 {
		for i, param := range p.set {
			c := one(i)
			p.recipe.Unit.Groups(param, p.layouts[i], func(units []int) { rank.Best(p.recipe.Unit.N, c, units) })
		}
		return keep
	}
	for _, g := range groups {
		if g.Rows > 1 {
			c := one(g.Members[0])
			units := make([]int, 0, len(c.Scores)/g.Rows)
			for row := range g.Rows {
				units = units[:0]
				for u := row; u < len(c.Scores); u += g.Rows {
					units = append(units, u)
				}
				n := g.Keep
				if p.recipe.KeepMin {
					n = max(n, 1)
				}
				rank.Best(n, c, units)
			}
			continue
		}
		var candidates []rank.Candidate
		left := g.Keep
		for j, i := range g.Members {
			c := one(i)
			if g.Cost != nil {
				c.Cost = int(g.Cost[j])
			}
			rank.Top(p.recipe.MinUnits, []rank.Candidate{{Scores: c.Scores, Eligible: c.Eligible, Keep: c.Keep}})
			left -= p.recipe.MinUnits * max(1, c.Cost)
			candidates = append(candidates, c)
		}
		rank.Top(left, candidates)
	}
	for i := range p.set {
		if keep[i] == nil || p.recipe.RoundTo == 1 {
			continue
		}
		c := one(i)
		more := (p.recipe.RoundTo - count(keep[i])%p.recipe.RoundTo) % p.recipe.RoundTo
		open := 0
		for u := range c.Scores {
			if c.Open(u) {
				open++
			}
		}
		rank.Top(min(more, open), []rank.Candidate{c})
	}
	return keep
}

// apply sets the masks to the units that are kept, and zeroes the weights.
func (p *Pruner) apply(keep, alive [][]bool) ([]mask.Stats, error) {
	masks := make([][]bool, len(p.set)) // by weight
	for i, param := range p.set {
		if keep[i] == nil { // in no group: as it is
			keep[i] = alive[i]
		}
		var err error
		if masks[i], err = mask.Bools(p.store, param); err != nil {
			return nil, err
		}
		p.layouts[i].Each(func(weight, unit int) {
			// A living unit keeps the weights that it has; a unit that comes back gets all of them.
			masks[i][weight] = keep[i][unit] && (masks[i][weight] || !alive[i][unit])
		})
	}
	for i, param := range p.set {
		if err := mask.Set(p.store, param, masks[i]); err != nil {
			return nil, err
		}
	}
	if err := p.Enforce(); err != nil {
		return nil, err
	}
	return mask.Count(p.store, p.set)
}

// aliveUnits tells which units of a parameter have a living weight.
func (p *Pruner) aliveUnits(i int) ([]bool, error) {
	weights, err := mask.Bools(p.store, p.set[i])
	if err != nil {
		return nil, err
	}
	units := make([]bool, p.units[i])
	p.layouts[i].Each(func(weight, unit int) { units[unit] = units[unit] || weights[weight] })
	return units, nil
}

// feasible checks, before anything is changed, that each group can keep what its budget says.
func (p *Pruner) feasible(groups []budget.Group, alive [][]bool, sparsity float64) error {
	for _, g := range groups {
		available, least, dearest := 0, 0, 0
		for j, i := range g.Members {
			n, cost := p.units[i], 1
			if !p.recipe.Revive {
				n = count(alive[i])
			}
			if n < p.recipe.MinUnits {
				return &budget.Error{Path: p.set[i].Path, Wanted: n, Least: p.recipe.MinUnits, Remedy: "it has fewer living units than that: start from fresh masks"}
			}
			if g.Cost != nil {
				cost = int(g.Cost[j])
				dearest = max(dearest, cost)
			}
			available += n * cost
			least += p.recipe.MinUnits * cost
		}
		if g.Rows > 1 {
			if err := p.feasibleRows(g, alive[g.Members[0]], sparsity); err != nil {
				return err
			}
			continue
		}
		if g.Keep < least && !p.recipe.KeepMin {
			return &budget.Error{Path: p.set[g.Members[0]].Path, Wanted: g.Keep, Least: least,
				Remedy: "ask for a lower sparsity, or lower Recipe.MinUnits, or set Recipe.KeepMin"}
		}
		// What a budget of costs left over last time was less than a unit.
		if g.Keep > available && (g.Cost == nil || g.Keep-available >= dearest) {
			return &SparsityError{sparsity, fmt.Sprintf("it keeps %d units of %s and what is ranked with it, but only %d are alive, and masks only shrink unless Recipe.Revive is set",
				g.Keep, p.set[g.Members[0]].Path, available)}
		}
	}
	return nil
}

func (p *Pruner) feasibleRows(g budget.Group, alive []bool, sparsity float64) error {
	path := p.set[g.Members[0]].Path
	if g.Keep < 1 && !p.recipe.KeepMin {
		return &budget.Error{Path: path, Wanted: g.Keep, Least: 1, Remedy: "ask for a lower sparsity, or set Recipe.KeepMin"}
	}
	if p.recipe.Revive {
		return nil
	}
	left := make([]int, g.Rows)
	for u, a := range alive {
		if a {
			left[u%g.Rows]++
		}
	}
	for row, n := range left {
		if n < g.Keep {
			return &SparsityError{sparsity, fmt.Sprintf("it keeps %d units of each of the %d rows of %s, but only %d of row %d are alive, and masks only shrink unless Recipe.Revive is set",
				g.Keep, g.Rows, path, n, row)}
		}
	}
	return nil
}

// Scores returns the importance of every unit of every parameter, by path, as Prune would rank them now: larger is more important. Dead units have the scores of their zeros.
// Nothing is changed, but for criteria that draw random numbers another round of those is used up. The errors are those of Prune.
func (p *Pruner) Scores(sig *signal.Signals) (map[string][]float32, error) {
	if err := sig.Check(p.recipe.Criterion.Needs); err != nil {
		return nil, fmt.Errorf("criterion %q: %w", p.recipe.Criterion.Name, err)
	}
	alive := make([][]bool, len(p.set))
	for i := range p.set {
		var err error
		if alive[i], err = p.aliveUnits(i); err != nil {
			return nil, err
		}
	}
	scores, err := p.scores(alive, sig)
	if err != nil {
		return nil, err
	}
	byPath := map[string][]float32{}
	for i, param := range p.set {
		byPath[param.Path] = scores[i]
	}
	return byPath, nil
}

// scores computes the importance of every unit of every parameter.
func (p *Pruner) scores(alive [][]bool, sig *signal.Signals) ([][]float32, error) {
	c := p.recipe.Criterion
	round := int64(0)
	if c.Needs&criterion.NeedUniform != 0 || c.Normalize.Random || p.recipe.Normalize.Random {
		var err error
		if round, err = p.nextRound(); err != nil {
			return nil, err
		}
	}
	if p.scorer == nil {
		p.scorer = p.newScorer()
	}
	scores, err := p.scorer.Run(sig, round)
	if err != nil {
		return nil, err
	}
	for i, param := range p.set {
		if err := scoring.Finite(c, param.Path, scores[i]); err != nil {
			return nil, err
		}
		p.normalize(i, scores[i], alive[i], round)
		if err := scoring.Finite(c, param.Path, scores[i]); err != nil {
			return nil, err
		}
	}
	return scores, nil
}

func (p *Pruner) newScorer() *scoring.Scorer {
	return &scoring.Scorer{Backend: p.backend, Store: p.store, Set: p.set, Criterion: p.recipe.Criterion, Seed: p.recipe.Seed, Reduce: p.pool}
}

// pool makes importances of units of the contributions of weights.
func (p *Pruner) pool(contributions []*graph.Node) []*graph.Node {
	scores := make([]*graph.Node, len(p.set))
	for i, contribution := range contributions {
		split, pooled := p.layouts[i].Split()
		score := p.recipe.Criterion.Pool(graph.Reshape(contribution, split...), pooled...)
		if score.Shape().Size() != p.units[i] {
			panic(&ScoreError{Criterion: p.recipe.Criterion.Name, Path: p.set[i].Path,
				Problem: fmt.Sprintf("its pool gives %s, expected one score for each of %d units: it has to reduce over the axes that it is given", score.Shape(), p.units[i])})
		}
		scores[i] = graph.Reshape(score, p.units[i]) // […units] -> [units]
	}
	return scores
}

// normalize makes a parameter's scores comparable with those of others. Dead units, which are not ranked, have no part in it.
func (p *Pruner) normalize(i int, scores []float32, alive []bool, round int64) {
	n := p.recipe.Criterion.Normalize.Then(p.recipe.Normalize)
	if n.Apply == nil {
		return
	}
	random := scoring.Random(p.recipe.Seed, "normalize", round, p.set[i].Path)
	if p.recipe.Revive || count(alive) == len(alive) {
		n.Apply(scores, p.set[i], random)
		return
	}
	living := make([]float32, 0, len(scores))
	for u, a := range alive {
		if a {
			living = append(living, scores[u])
		}
	}
	n.Apply(living, p.set[i], random)
	for u, a := range alive {
		if a {
			scores[u], living = living[0], living[1:]
		}
	}
}

// roundPath is where the number of calls of Prune that drew random numbers lies: in the store, so that a resumed run draws what an
// uninterrupted one does.
const roundPath = "/pruning/round"

// nextRound returns the number of rounds so far and counts one more.
func (p *Pruner) nextRound() (int64, error) {
	v := p.store.GetVariable(roundPath)
	if v == nil {
		var err error
		if v, err = p.store.CreateVariable(roundPath, tensors.FromScalar(int64(0))); err != nil {
			return 0, err
		}
	}
	v.SetTrainable(false) // which GoMLX's checkpoints forget
	value, err := v.Value()
	if err != nil {
		return 0, err
	}
	round := value.Value().(int64)
	return round, v.SetValue(tensors.FromScalar(round + 1))
}

// Enforce zeroes the dead weights by the masks as they are, for masks that were loaded or set by hand.
func (p *Pruner) Enforce() error {
	for _, param := range p.set {
		alive, err := mask.Bools(p.store, param)
		if err != nil {
			return err
		}
		err = p.weights(param, func(w []float32) {
			for i, a := range alive {
				if !a {
					w[i] = 0
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Check returns a *LeakError for the first parameter that has a dead weight other than zero.
func (p *Pruner) Check() error {
	for _, param := range p.set {
		alive, err := mask.Bools(p.store, param)
		if err != nil {
			return err
		}
		leaks := 0
		err = p.weights(param, func(w []float32) {
			for i, a := range alive {
				if !a && w[i] != 0 {
					leaks++
				}
			}
		})
		if err != nil {
			return err
		}
		if leaks > 0 {
			return &LeakError{param.Path, leaks}
		}
	}
	return nil
}

func (p *Pruner) weights(param params.Param, f func(w []float32)) error {
	value, err := p.store.GetVariable(param.Path).Value()
	if err != nil {
		return err
	}
	return value.MutableFlatData(func(flat any) { f(flat.([]float32)) })
}

// Attach prunes while a GoMLX loop trains: after step s (counted from 1), if w(s), to sparsity sch(s), with the signals that sig returns; sig may be
// nil where the criterion needs none. Masks are inputs of the compiled training step, so it is never compiled again. The loop's trainer must
// use the optimizer that Optimizer returns.
func (p *Pruner) Attach(loop *train.Loop, sch schedule.Schedule, w schedule.When, sig func() (*signal.Signals, error)) {
	loop.OnStep("prune", 0, func(loop *train.Loop, _ []*tensors.Tensor) error {
		done := loop.LoopStep + 1
		if !w(done) {
			return nil
		}
		var signals *signal.Signals
		if sig != nil {
			var err error
			if signals, err = sig(); err != nil {
				return err
			}
		}
		_, err := p.Prune(sch(done), signals)
		return err
	})
}

func count(alive []bool) int {
	n := 0
	for _, a := range alive {
		if a {
			n++
		}
	}
	return n
}

// Package prune joins criterion, unit and budget into a recipe, and applies it: one-shot by one call of Prune, iterative by several, scheduled by
// Attach. Pruner.Optimizer keeps zeros zero while training goes on.
package prune

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/schedule"
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
	Seed      int64               // for criteria that draw random numbers
}

func (r Recipe) complete() Recipe {
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
	return r
}

// String is the recipe's canonical name: the criterion, then what differs from the defaults, in fixed order, so that a field added later
// renames no old run.
func (r Recipe) String() string {
	r = r.complete()
	parts := []string{r.Criterion.Name}
	add := func(differs bool, text string) {
		if differs {
			parts = append(parts, text)
		}
	}
	add(r.Budget.Name != budget.Global.Name, "budget="+r.Budget.Name)
	add(r.MinUnits != 1, fmt.Sprintf("minunits=%d", r.MinUnits))
	add(r.Normalize.Name != "", "normalize="+r.Normalize.Name)
	add(r.Revive, "revive")
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
type ScoreError struct{ Criterion, Path, Problem string }

func (e *ScoreError) Error() string {
	return fmt.Sprintf("criterion %q on %s: %s", e.Criterion, e.Path, e.Problem)
}

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
	set     params.Set
	recipe  Recipe
	units   []int // of each parameter
	score   *model.Exec
}

// New returns a pruner. It creates the masks, all alive where there were none, and changes nothing else. Structured units leave out the
// parameters marked as the network's output; if none is marked, the error is a *RecipeError that says how.
func New(b compute.Backend, store *model.Store, set params.Set, r Recipe) (*Pruner, error) {
	name := r.String()
	if r.MinUnits < 0 {
		return nil, &RecipeError{name, fmt.Sprintf("MinUnits is %d", r.MinUnits), "give 0 for the default of 1, or a positive number"}
	}
	r = r.complete()
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
	p := &Pruner{backend: b, store: store, set: set, recipe: r, units: make([]int, len(set))}
	for i, param := range set {
		v := store.GetVariable(param.Path)
		if v == nil {
			return nil, &params.UnknownPathError{Path: param.Path, Known: params.Select(store, nil).Paths()}
		}
		if v.DType() != dtypes.Float32 {
			return nil, &RecipeError{name, fmt.Sprintf("%s has type %s", param.Path, v.DType()), "only float32 parameters can be pruned"}
		}
		p.units[i] = r.Unit.Count(param)
		if p.units[i] < r.MinUnits {
			return nil, &budget.Error{Path: param.Path, Wanted: p.units[i], Least: r.MinUnits, Remedy: "lower Recipe.MinUnits or leave the parameter out"}
		}
		if _, err := mask.Variable(store, param); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Params returns the parameters that are pruned.
func (p *Pruner) Params() params.Set { return p.set }

// Recipe returns the recipe with its defaults filled in.
func (p *Pruner) Recipe() Recipe { return p.recipe }

// Prune removes units until the share sparsity of them is gone: it scores, ranks, sets the masks and zeroes the weights, all or nothing. The number kept is
// exact; of equal scores the earlier is kept; MinUnits of each parameter stay. Sparsity is the share of units (of weights, for elements),
// and 0 changes nothing. Unless the recipe revives, asking for more than is alive is a *SparsityError.
//
// Errors: *SparsityError, *budget.Error, *ScoreError.
func (p *Pruner) Prune(sparsity float64) ([]mask.Stats, error) {
	if math.IsNaN(sparsity) || sparsity < 0 || sparsity >= 1 {
		return nil, &SparsityError{sparsity, "out of range"}
	}
	groups := p.recipe.Budget.Divide(p.set, p.units, sparsity)
	alive := make([][]bool, len(p.set)) // by unit
	for i := range p.set {
		var err error
		if alive[i], err = p.aliveUnits(i); err != nil {
			return nil, err
		}
	}
	if err := p.feasible(groups, alive, sparsity); err != nil {
		return nil, err
	}
	scores, err := p.scores()
	if err != nil {
		return nil, err
	}

	keep := make([][]bool, len(p.set)) // by unit
	for _, g := range groups {
		var candidates []candidate
		left := g.Keep
		for _, i := range g.Members {
			keep[i] = make([]bool, p.units[i])
			c := candidate{scores: scores[i], keep: keep[i]}
			if !p.recipe.Revive {
				c.eligible = alive[i]
			}
			keepTop(p.recipe.MinUnits, []candidate{c})
			left -= p.recipe.MinUnits
			candidates = append(candidates, c)
		}
		keepTop(left, candidates)
	}

	masks := make([][]bool, len(p.set)) // by weight
	for i, param := range p.set {
		if keep[i] == nil { // in no group: as it is
			keep[i] = alive[i]
		}
		if masks[i], err = mask.Bools(p.store, param); err != nil {
			return nil, err
		}
		p.recipe.Unit.Each(param, func(weight, unit int) {
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
	p.recipe.Unit.Each(p.set[i], func(weight, unit int) { units[unit] = units[unit] || weights[weight] })
	return units, nil
}

// feasible checks, before anything is changed, that each group can keep what its budget says.
func (p *Pruner) feasible(groups []budget.Group, alive [][]bool, sparsity float64) error {
	for _, g := range groups {
		available := 0
		for _, i := range g.Members {
			n := p.units[i]
			if !p.recipe.Revive {
				n = count(alive[i])
			}
			if n < p.recipe.MinUnits {
				return &budget.Error{Path: p.set[i].Path, Wanted: n, Least: p.recipe.MinUnits, Remedy: "it has fewer living units than that: start from fresh masks"}
			}
			available += n
		}
		if least := p.recipe.MinUnits * len(g.Members); g.Keep < least {
			return &budget.Error{Path: p.set[g.Members[0]].Path, Wanted: g.Keep, Least: least,
				Remedy: "ask for a lower sparsity, or lower Recipe.MinUnits"}
		}
		if g.Keep > available {
			return &SparsityError{sparsity, fmt.Sprintf("it keeps %d units of %s and what is ranked with it, but only %d are alive, and masks only shrink unless Recipe.Revive is set",
				g.Keep, p.set[g.Members[0]].Path, available)}
		}
	}
	return nil
}

// scores computes the importance of every unit of every parameter.
func (p *Pruner) scores() ([][]float32, error) {
	c := p.recipe.Criterion
	random := c.Needs&criterion.NeedUniform != 0
	if p.score == nil {
		build := func(scope *model.Scope, g *graph.Graph, uniform []*graph.Node) []*graph.Node {
			scores := make([]*graph.Node, len(p.set))
			for i, param := range p.set {
				in := criterion.Inputs{Param: param, Weight: p.store.GetVariable(param.Path).NodeValue(g)}
				if random {
					in.Uniform = uniform[i]
				}
				contribution := c.Score(in)
				if !contribution.Shape().Equal(param.Shape) {
					panic(&ScoreError{c.Name, param.Path, fmt.Sprintf("its scores have shape %s, expected that of the weights, %s", contribution.Shape(), param.Shape)})
				}
				pooled := c.Pool(contribution, p.recipe.Unit.Pooled(param)...)
				pooled = graph.Reshape(graph.ConvertDType(pooled, dtypes.Float32), p.units[i]) // […units] -> [units]
				if p.recipe.Normalize.Apply != nil {
					pooled = p.recipe.Normalize.Apply(pooled, param)
				}
				scores[i] = pooled
			}
			return scores
		}
		var err error
		if random {
			p.score, err = model.NewExec(p.backend, p.store, func(scope *model.Scope, uniform []*graph.Node) []*graph.Node {
				return build(scope, uniform[0].Graph(), uniform)
			})
		} else {
			p.score, err = model.NewExec(p.backend, p.store, func(scope *model.Scope, g *graph.Graph) []*graph.Node { return build(scope, g, nil) })
		}
		if err != nil {
			return nil, fmt.Errorf("criterion %q: %w", c.Name, err)
		}
	}
	var args []any
	if random {
		round, err := p.nextRound()
		if err != nil {
			return nil, err
		}
		for _, param := range p.set {
			args = append(args, tensors.FromFlatDataAndDimensions(p.uniform(param, round), param.Shape.Dimensions...))
		}
	}
	results, err := call(p.score, args)
	if err != nil {
		p.score = nil
		return nil, fmt.Errorf("criterion %q: %w", c.Name, err)
	}
	scores := make([][]float32, len(results))
	for i, r := range results {
		if scores[i], err = tensors.CopyFlatData[float32](r); err != nil {
			return nil, err
		}
		if err := r.FinalizeAll(); err != nil {
			return nil, err
		}
		bad := 0
		for _, s := range scores[i] {
			if math.IsNaN(float64(s)) || math.IsInf(float64(s), 0) {
				bad++
			}
		}
		if bad > 0 {
			return nil, &ScoreError{c.Name, p.set[i].Path, fmt.Sprintf("%d of %d scores are NaN or infinite: look at the weights, or at the criterion", bad, len(scores[i]))}
		}
	}
	return scores, nil
}

// call runs an executable and turns the panics of graph building into errors.
func call(exec *model.Exec, args []any) (results []*tensors.Tensor, err error) {
	defer func() {
		if r := recover(); r != nil {
			if e, ok := r.(error); ok {
				err = e
				return
			}
			err = fmt.Errorf("%v", r)
		}
	}()
	return exec.Call(args...)
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

// uniform draws a random number in [0, 1) for each weight: a function of seed, path and round, the same on every backend.
func (p *Pruner) uniform(param params.Param, round int64) []float32 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", round, param.Path)
	rng := rand.New(rand.NewPCG(uint64(p.recipe.Seed), h.Sum64()))
	values := make([]float32, param.Size())
	for i := range values {
		values[i] = rng.Float32()
	}
	return values
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

// Attach prunes while a GoMLX loop trains: after step s (counted from 1), if w(s), to sparsity sch(s). Masks are inputs of the compiled training step, so it is never
// compiled again. The loop's trainer must use the optimizer that Optimizer returns.
func (p *Pruner) Attach(loop *train.Loop, sch schedule.Schedule, w schedule.When) {
	loop.OnStep("prune", 0, func(loop *train.Loop, _ []*tensors.Tensor) error {
		if done := loop.LoopStep + 1; w(done) {
			_, err := p.Prune(sch(done))
			return err
		}
		return nil
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

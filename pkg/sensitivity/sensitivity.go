// Package sensitivity answers how much may be removed where. Scan prunes each layer alone, to several sparsities, and measures the loss each time (Han et al. 2015,
// arXiv:1506.02626, section 5 and figure 6; Li et al. 2017, arXiv:1608.08710, section 3.2). Curves.Solve reads from the curves how much to take from
// each layer, so that the network costs as little as is asked at the least predicted loss.
//
// The prediction adds up what each layer costs alone, as SPDY does (Frantar and Alistarh 2022, arXiv:2201.13096, section 3.1). That is an assumption: layers that
// are pruned together usually lose more than the sum, the more the higher the sparsity. Measure what an allocation gives before you claim it.
package sensitivity

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// Group is a set of parameters that lose the same share of their units together, such as the layers of a stage. Which units, each parameter's own scores say.
type Group struct {
	Name  string   // default: the first path
	Paths []string // of the parameters
}

// Config says what to scan. Backend, Store, Set and Evaluate have no default.
type Config struct {
	Backend compute.Backend
	Store   *model.Store
	Set     params.Set
	// Recipe says how units are scored. Its Budget has to be left as it is, or Layerwise: how much goes where is what the scan varies. Revive and KeepMin have no part:
	// a scan starts from what is alive, and MinUnits of each parameter always stay. Its Seed is that of the bootstrap too.
	Recipe  prune.Recipe
	Signals *signal.Signals // what the criterion needs, of the network as it is; nil where it needs none
	Groups  []Group         // default: each parameter of Set alone
	// Sparsities are the shares of a group's units to remove, 0 ≤ s < 1. Those that remove nothing more than the one before are left out.
	// Default: 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98
	Sparsities []float64
	// Evaluate returns the loss of the store as it is on each part of the validation data: folds of equal size, the same and in the same order
	// each time, which is what makes the differences paired. With one fold there are no confidence bands; below about ten they are too narrow.
	Evaluate func() ([]float64, error)
	Progress func(done, total int, note string) // called after each evaluation; nil: not
}

// DefaultSparsities are the shares that Scan tries where Config.Sparsities is empty.
func DefaultSparsities() []float64 { return []float64{0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98} }

// ConfigError says which field of a Config can't be used. Nothing was changed.
type ConfigError struct{ Field, Problem, Remedy string }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("sensitivity: Config.%s: %s; %s", e.Field, e.Problem, e.Remedy)
}

// LossError says that an evaluation gave what can't be compared. The store is as it was before the scan.
type LossError struct{ Where, Problem, Remedy string }

func (e *LossError) Error() string {
	return fmt.Sprintf("sensitivity: evaluation of %s: %s; %s", e.Where, e.Problem, e.Remedy)
}

// Scan measures the loss with each group pruned alone to each sparsity. It takes an evaluation for each point and one for the network as it is. Whatever happens, the
// store is then as it was before, bit for bit: after an error, a panic of a graph function or of Evaluate, which becomes an error, and when ctx is done,
// which is looked at before each evaluation and gives its cause. Masks that pruning made are deleted again.
//
// A point whose loss is NaN or infinite is recorded so; Solve does not choose it. Of the network as it is, that is a *LossError.
//
// Errors: *ConfigError, *params.UnknownPathError, *LossError; those of prune.New and Pruner.Prune.
func Scan(ctx context.Context, cfg Config) (curves *Curves, err error) {
	if cfg, err = cfg.complete(); err != nil {
		return nil, err
	}
	if err := cfg.Signals.Check(cfg.Recipe.Criterion.Needs); err != nil {
		return nil, fmt.Errorf("criterion %q: %w", cfg.Recipe.Criterion.Name, err)
	}
	before, err := remember(cfg.Store)
	if err != nil {
		return nil, err
	}
	defer func() {
		if undone := before.forget(); undone != nil {
			curves, err = nil, errors.Join(err, undone)
		}
	}()
	err = guard.Run("sensitivity scan", func() error {
		curves, err = scan(ctx, cfg, before)
		return err
	})
	if err != nil {
		return nil, err
	}
	return curves, nil
}

// complete fills in defaults and checks what does not need the store.
func (c Config) complete() (Config, error) {
	fail := func(field, problem, remedy string) (Config, error) { return c, &ConfigError{field, problem, remedy} }
	switch {
	case c.Backend == nil:
		return fail("Backend", "it is nil", "give the one that backend.Open returns")
	case c.Store == nil:
		return fail("Store", "it is nil", "give the store of the trained network")
	case c.Evaluate == nil:
		return fail("Evaluate", "it is nil", "give a function that returns the loss on each part of the validation data")
	case len(c.Set) == 0:
		return fail("Set", "it is empty", "select parameters with params.Select; a store has none before experiment.Init, or before its model was built once")
	case c.Recipe.Unit.M != 0:
		return fail("Recipe", fmt.Sprintf("unit %q has one sparsity only, so that there is nothing to vary", c.Recipe.Unit.Name), "scan with another unit")
	case c.Recipe.Budget.Name != "" && c.Recipe.Budget.Name != budget.Global.Name && c.Recipe.Budget.Name != budget.Layerwise.Name:
		return fail("Recipe", fmt.Sprintf("its budget is %q, and how much goes where is what a scan varies", c.Recipe.Budget.Name), "leave Recipe.Budget as it is")
	}
	c.Recipe.Budget, c.Recipe.Revive, c.Recipe.KeepMin = budget.Budget{}, false, false
	if len(c.Sparsities) == 0 {
		c.Sparsities = DefaultSparsities()
	}
	for _, s := range c.Sparsities {
		if math.IsNaN(s) || s < 0 || s >= 1 {
			return fail("Sparsities", fmt.Sprintf("%v is no share to remove", s), "give shares of at least 0 and less than 1")
		}
	}
	c.Sparsities = slices.Compact(slices.Sorted(slices.Values(c.Sparsities)))
	if c.Sparsities[0] == 0 {
		c.Sparsities = c.Sparsities[1:] // always measured
	}
	if len(c.Groups) == 0 {
		for _, p := range c.Set {
			if !c.Recipe.Unit.Structured || !p.Output {
				c.Groups = append(c.Groups, Group{Paths: []string{p.Path}})
			}
		}
	}
	c.Groups = slices.Clone(c.Groups)
	names, in := map[string]bool{}, map[string]string{}
	for i, g := range c.Groups {
		if len(g.Paths) == 0 {
			return fail("Groups", fmt.Sprintf("group %d, %q, has no paths", i, g.Name), "name at least one parameter in each")
		}
		if g.Name == "" {
			g.Name = g.Paths[0]
		}
		if names[g.Name] {
			return fail("Groups", fmt.Sprintf("two have the name %q", g.Name), "give each its own")
		}
		names[g.Name] = true
		members, err := c.Set.Only(g.Paths...)
		if err != nil {
			return c, fmt.Errorf("sensitivity: group %q: %w", g.Name, err)
		}
		for _, path := range g.Paths {
			if other, taken := in[path]; taken {
				return fail("Groups", fmt.Sprintf("%s is in %q and again in %q", path, other, g.Name), "name each parameter once")
			}
			in[path] = g.Name
		}
		for _, p := range members {
			if c.Recipe.Unit.Structured && p.Output {
				return fail("Groups", fmt.Sprintf("%q names %s, the network's output, whose units must not be removed", g.Name, p.Path), "leave it out")
			}
		}
		g.Paths = members.Paths()
		c.Groups[i] = g
	}
	return c, nil
}

// scanner holds what the points of a scan share. One pruner serves all groups: its budget removes from one group at a time, so that scores are compiled
// once and structured units know which layer is the output.
type scanner struct {
	cfg     Config
	pruner  *prune.Pruner
	curves  *Curves
	layouts map[string]unit.Layout
	current []string // the paths of the group that is pruned
}

func scan(ctx context.Context, cfg Config, before *memory) (*Curves, error) {
	s := &scanner{cfg: cfg, layouts: map[string]unit.Layout{}, curves: &Curves{Recipe: cfg.Recipe.String(), Seed: cfg.Recipe.Seed,
		Sparsities: cfg.Sparsities, MinUnits: max(1, cfg.Recipe.MinUnits), RoundTo: max(1, cfg.Recipe.RoundTo)}}
	r := cfg.Recipe
	r.KeepMin = true
	r.Budget = budget.Budget{Name: budget.Layerwise.Name, Divide: s.divide}
	var err error
	if s.pruner, err = prune.New(cfg.Backend, cfg.Store, cfg.Set, r); err != nil {
		return nil, err
	}
	for _, p := range s.pruner.Params() {
		if s.layouts[p.Path], err = s.pruner.Recipe().Unit.Of(p); err != nil {
			return nil, err
		}
		l := Layer{Path: p.Path, Units: s.layouts[p.Path].Count, UnitSize: s.layouts[p.Path].Size(), WeightBytes: p.Shape.DType.Size()}
		if l.Alive, err = s.alive(p); err != nil {
			return nil, err
		}
		s.curves.Layers = append(s.curves.Layers, l)
	}
	total := 1
	for _, g := range cfg.Groups {
		total += len(s.plan(g))
	}
	done := 0
	evaluate := func(where string) ([]float64, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		losses, err := s.evaluate(where)
		if err == nil && cfg.Progress != nil {
			done++
			cfg.Progress(done, total, fmt.Sprintf("%s: loss %.4g", where, mean(losses)))
		}
		return losses, err
	}
	if s.curves.Dense, err = evaluate(asItIs); err != nil {
		return nil, err
	}
	for _, g := range cfg.Groups {
		curve := Curve{Group: g.Name, Paths: g.Paths, Points: []Point{s.start(g)}}
		for _, sparsity := range s.plan(g) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			point, err := s.prune(g, sparsity)
			if err != nil {
				return nil, fmt.Errorf("sensitivity: %s at sparsity %v: %w", g.Name, sparsity, err)
			}
			if point.Losses, err = evaluate(fmt.Sprintf("%s at sparsity %v", g.Name, sparsity)); err != nil {
				return nil, err
			}
			if err := before.restore(); err != nil {
				return nil, err
			}
			curve.Points = append(curve.Points, point)
		}
		s.curves.Curves = append(s.curves.Curves, curve)
	}
	s.curves.summarize()
	return s.curves, nil
}

// divide is the budget: each parameter of the current group loses the share, and others stay as they are.
func (s *scanner) divide(ps params.Set, units []int, sparsity float64) ([]budget.Group, error) {
	var groups []budget.Group
	for i, p := range ps {
		if slices.Contains(s.current, p.Path) {
			groups = append(groups, budget.Group{Members: []int{i}, Keep: min(budget.Keep(units[i], sparsity), s.curves.layer(p.Path).Alive)})
		}
	}
	return groups, nil
}

// plan returns the sparsities that remove more from a group than those before.
func (s *scanner) plan(g Group) []float64 {
	var plan []float64
	last := s.curves.kept(g.Paths, 0)
	for _, sparsity := range s.cfg.Sparsities {
		if kept := s.curves.kept(g.Paths, sparsity); !slices.Equal(kept, last) {
			plan, last = append(plan, sparsity), kept
		}
	}
	return plan
}

// start is the point of a group as it is.
func (s *scanner) start(g Group) Point {
	kept := s.curves.kept(g.Paths, 0)
	return Point{Sparsity: s.curves.sparsity(g.Paths, kept), Kept: kept, Losses: slices.Clone(s.curves.Dense)}
}

// prune removes a share of a group's units.
func (s *scanner) prune(g Group, sparsity float64) (Point, error) {
	s.current = g.Paths
	defer func() { s.current = nil }()
	start, err := mask.Count(s.cfg.Store, s.pruner.Params())
	if err != nil {
		return Point{}, err
	}
	stats, err := s.pruner.Prune(sparsity, s.cfg.Signals)
	if err != nil {
		return Point{}, err
	}
	point := Point{Asked: sparsity}
	for i, p := range s.pruner.Params() {
		if !slices.Contains(g.Paths, p.Path) {
			continue
		}
		alive, err := s.alive(p)
		if err != nil {
			return Point{}, err
		}
		point.Kept = append(point.Kept, alive)
		point.UnitsRemoved += s.curves.layer(p.Path).Alive - alive
		point.WeightsRemoved += start[i].Kept - stats[i].Kept
	}
	point.Sparsity = s.curves.sparsity(g.Paths, point.Kept)
	return point, nil
}

// alive counts the units of a parameter that have a living weight.
func (s *scanner) alive(p params.Param) (int, error) {
	weights, err := mask.Bools(s.cfg.Store, p)
	if err != nil {
		return 0, err
	}
	layout := s.layouts[p.Path]
	units := make([]bool, layout.Count)
	layout.Each(func(weight, unit int) { units[unit] = units[unit] || weights[weight] })
	n := 0
	for _, alive := range units {
		if alive {
			n++
		}
	}
	return n, nil
}

// asItIs is what messages call the network before anything is removed.
const asItIs = "the network as it is"

// evaluate calls Evaluate and checks what it returns.
func (s *scanner) evaluate(where string) ([]float64, error) {
	var losses []float64
	err := guard.Run("sensitivity: evaluation of "+where, func() (err error) {
		losses, err = s.cfg.Evaluate()
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(losses) == 0 {
		return nil, &LossError{where, "no losses", "let Config.Evaluate return the loss on each part of the validation data, at least on one"}
	}
	if dense := s.curves.Dense; dense == nil {
		if !finite(mean(losses)) {
			return nil, &LossError{where, fmt.Sprintf("the losses are %v", losses), "train it first, and look at the data"}
		}
	} else if len(losses) != len(dense) {
		return nil, &LossError{where, fmt.Sprintf("%d losses, and %d of %s", len(losses), len(dense), asItIs),
			"let Config.Evaluate return the loss on the same parts of the data each time"}
	}
	return slices.Clone(losses), nil
}

// list writes names for a message.
func list(names []string) string { return strings.Join(names, ", ") }

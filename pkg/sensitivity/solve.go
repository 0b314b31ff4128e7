package sensitivity

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/report"
)

// Allocation says how much to remove where. To prune so, give Budget to a recipe and Overall to Prune:
//
//	recipe.Budget = a.Budget()
//	p, err := prune.New(backend, store, set, recipe)
//	stats, err := p.Prune(a.Overall, signals)
type Allocation struct {
	Choices  []Choice           // of each group
	Sparsity map[string]float64 // share of units to remove, of each parameter by path: whole units, so that pruning reaches exactly these
	// Overall is the share of all units of the scanned set that these make together: what Prune takes.
	Overall float64
	// Predicted is the expected increase of the loss, the sum of what each group adds alone; NaN if a group is pruned further than was scanned. Low and
	// High bound it with 95% confidence (see Point), NaN with one part of the data. They take the sum and the allocation as given: what the choice of
	// the best gains by chance, and what pruning layers together adds, are not in them.
	Predicted, Low, High float64
	Cost                 string  // what was budgeted
	Target, Reached      float64 // share of the cost to remove, and removed
	Total, Left          int64   // cost of all, and of what is kept
}

// Choice is what an allocation does to one group.
type Choice struct {
	Group    string
	Paths    []string
	Sparsity float64 // share of its units that are removed
	Kept     []int   // living units of each parameter
	Increase float64 // of the loss, as predicted for this group alone
}

// Budget returns the allocation as the budget of a recipe, for Prune with Overall.
func (a *Allocation) Budget() budget.Budget { return budget.PerLayer(a.Sparsity) }

// Budget returns the budget that solves for the sparsity that it is asked for, as a share of the weights: with it a recipe prunes by these curves to any sparsity. Its name tells
// curves apart by their digest.
func (c *Curves) Budget() budget.Budget {
	text, err := json.Marshal(c)
	name := fmt.Sprintf("sensitivity %x", sha256.Sum256(text))[:len("sensitivity ")+12]
	return budget.Budget{Name: name, Divide: func(ps params.Set, units []int, sparsity float64) ([]budget.Group, error) {
		if err != nil {
			return nil, err
		}
		if sparsity == 0 {
			return budget.Layerwise.Divide(ps, units, 0)
		}
		a, err := c.Solve(Target{Sparsity: sparsity})
		if err != nil {
			return nil, err
		}
		return a.Budget().Divide(ps, units, a.Overall)
	}}
}

// Table returns what is removed of each group.
func (a *Allocation) Table() report.Table {
	t := report.Table{Columns: []report.Column{{Name: "group"}, {Name: "removed", Unit: "%", Format: "%.2f"}, {Name: "units kept"}, {Name: "loss added", Format: "%+.4f"}}}
	for _, c := range a.Choices {
		kept := 0
		for _, k := range c.Kept {
			kept += k
		}
		t.Rows = append(t.Rows, []any{c.Group, 100 * c.Sparsity, report.Count(kept), c.Increase})
	}
	t.Caption = fmt.Sprintf("%.2f%% of the %s removed, target %.4g%%. Predicted loss added: %+.4f", 100*a.Reached, a.Cost, 100*a.Target, a.Predicted)
	if finite(a.Low) {
		t.Caption += fmt.Sprintf(", 95%% interval %+.4f to %+.4f", a.Low, a.High)
	}
	t.Caption += ". It is the sum of what each group adds alone."
	return t
}

// steps is how finely shares are tried between 0 and 1, besides those that were scanned.
const steps = 400

// option is one way to treat a group.
type option struct {
	kept     []int
	sparsity float64
	choice
}

// Solve returns the allocation of least predicted loss among those that remove at least the target's share of the cost. The target is always met, counted in whole units.
//
// A group's loss is that of its curve: made nondecreasing, since noise must not make more pruning look better (gains over the network as it is count as
// 0), and piecewise linear between the points. Each group loses a share out of those scanned and the multiples of 1/400 up to the highest scanned, none
// next to a point whose loss was not finite. Over these the sum of the losses is minimised by dynamic programming: exactly, where the cost to remove is at most
// Target.Buckets times the common divisor of what units cost; else at least as well as the optimum for a target higher by the factor 1 + groups/Buckets, where that
// is feasible.
//
// Errors: *TargetError, *InfeasibleError, which says how much can be reached; *CurvesError.
func (c *Curves) Solve(t Target) (*Allocation, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	t, err := t.complete(c)
	if err != nil {
		return nil, err
	}
	total, need := t.total(c)
	options := make([][]option, len(c.Curves))
	choices := make([][]choice, len(c.Curves))
	most := int64(0)
	for g, curve := range c.Curves {
		if options[g], err = c.options(curve, t); err != nil {
			return nil, err
		}
		best := int64(0)
		for _, o := range options[g] {
			choices[g] = append(choices[g], o.choice)
			best = max(best, o.saving)
		}
		most += best
	}
	picked := knapsack(choices, need, t.Buckets)
	if picked == nil {
		return nil, &InfeasibleError{t.Cost.Name, t.Sparsity, float64(most) / float64(total), "ask for less, scan higher sparsities, or raise Target.Max"}
	}
	kept := make([][]int, len(c.Curves))
	for g, i := range picked {
		kept[g] = options[g][i].kept
	}
	return c.allocation(t, kept), nil
}

// options lists what can be done to a group, by rising sparsity.
func (c *Curves) options(curve Curve, t Target) ([]option, error) {
	xs, fitted := curve.fit()
	low, high := t.Min[curve.Group], 1.0
	if h, ok := t.Max[curve.Group]; ok {
		high = h
	}
	var shares []float64
	for i := range steps {
		shares = append(shares, float64(i)/steps)
	}
	for _, p := range curve.Points {
		shares = append(shares, p.Asked)
	}
	slices.Sort(shares)
	var options []option
	var last []int
	for _, s := range shares {
		kept := c.kept(curve.Paths, s)
		if slices.Equal(kept, last) {
			continue
		}
		last = kept
		o := option{kept, c.sparsity(curve.Paths, kept), choice{saving: t.saving(c, curve.Paths, kept)}}
		if o.loss = interpolate(xs, fitted, o.sparsity); math.IsNaN(o.loss) || o.sparsity < low-1e-9 || o.sparsity > high+1e-9 {
			continue
		}
		options = append(options, o)
	}
	if len(options) == 0 {
		return nil, &TargetError{"Min and Max", fmt.Sprintf("no sparsity of %q lies between %v and %v; it was scanned from %.4g to %.4g",
			curve.Group, low, high, xs[0], xs[len(xs)-1]),
			"widen them, or scan more"}
	}
	return options, nil
}

// fit returns the sparsities of a curve and its nondecreasing losses.
func (c Curve) fit() (xs, fitted []float64) {
	for _, p := range c.Points {
		xs, fitted = append(xs, p.Sparsity), append(fitted, p.Increase)
	}
	return xs, nondecreasing(fitted)
}

// Uniform returns the allocation that removes the same share of each group, the least that reaches the target, to compare Solve's with. Target.Min and Max have no part.
// The predicted loss is NaN if that share lies outside of what was scanned with finite losses.
//
// Errors: *TargetError, *InfeasibleError, *CurvesError.
func (c *Curves) Uniform(t Target) (*Allocation, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	t, err := t.complete(c)
	if err != nil {
		return nil, err
	}
	total, need := t.total(c)
	at := func(share float64) (kept [][]int, saving int64) {
		for _, curve := range c.Curves {
			k := c.kept(curve.Paths, share)
			kept = append(kept, k)
			saving += t.saving(c, curve.Paths, k)
		}
		return kept, saving
	}
	low, high := 0.0, 1.0 // savings grow with the share
	kept, most := at(high)
	if most < need {
		return nil, &InfeasibleError{t.Cost.Name, t.Sparsity, float64(most) / float64(total), "ask for less, or lower Recipe.MinUnits or RoundTo"}
	}
	for range 60 {
		middle := (low + high) / 2
		if k, saving := at(middle); saving >= need {
			high, kept = middle, k
		} else {
			low = middle
		}
	}
	return c.allocation(t, kept), nil
}

// allocation describes what keeping so many units of each group's parameters gives.
func (c *Curves) allocation(t Target, kept [][]int) *Allocation {
	a := &Allocation{Sparsity: map[string]float64{}, Cost: t.Cost.Name, Target: t.Sparsity}
	a.Total, _ = t.total(c)
	a.Left = a.Total
	draws := resamples(len(c.Dense), c.Seed)
	sums := make([]float64, len(draws))
	for g, curve := range c.Curves {
		x := c.sparsity(curve.Paths, kept[g])
		xs, fitted := curve.fit()
		choice := Choice{curve.Group, curve.Paths, x, kept[g], interpolate(xs, fitted, x)}
		a.Choices = append(a.Choices, choice)
		a.Predicted += choice.Increase
		a.Left -= t.saving(c, curve.Paths, kept[g])
		for i, increase := range c.resampled(curve, x, draws) {
			sums[i] += increase
		}
		for i, path := range curve.Paths {
			a.Sparsity[path] = share(c.layer(path).Units, kept[g][i])
		}
	}
	a.Low, a.High = band(sums)
	a.Reached = float64(a.Total-a.Left) / float64(a.Total)
	var set params.Set
	var units []int
	for _, l := range c.Layers {
		if _, scanned := a.Sparsity[l.Path]; !scanned && l.Alive < l.Units { // what is dead stays so
			a.Sparsity[l.Path] = share(l.Units, l.Alive)
		}
		set, units = append(set, params.Param{Path: l.Path}), append(units, l.Units)
	}
	a.Overall = budget.Overall(a.Sparsity, set, units)
	return a
}

// resampled returns what a curve predicts at a sparsity, fitted to each resample of the data.
func (c *Curves) resampled(curve Curve, x float64, draws [][]int) []float64 {
	xs := make([]float64, len(curve.Points))
	points := make([][]float64, len(curve.Points))
	for i, p := range curve.Points {
		xs[i], points[i] = p.Sparsity, replicates(c.differences(p), draws)
	}
	predicted := make([]float64, len(draws))
	values := make([]float64, len(xs))
	for d := range draws {
		for i := range points {
			values[i] = points[i][d]
		}
		predicted[d] = interpolate(xs, nondecreasing(values), x)
	}
	return predicted
}

// share returns which share of units is removed where some are kept.
func share(units, kept int) float64 { return float64(units-kept) / float64(units) }

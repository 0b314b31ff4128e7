package lottery

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// Ladder returns how many weights of each parameter are left after n rounds, each of which removes a share of those that are: share, and outputShare of the network's
// output layer. Counts are rounded once, not in each round. With 0.2 and 0.1, LeNet-300-100 has 51.3% of its weights left after 3 rounds, 21.1% after 7, 3.6% after 15: the
// paper's odd percentages.
func Ladder(set params.Set, share, outputShare float64, n int) []mask.Stats {
	stats := make([]mask.Stats, len(set))
	for i, p := range set {
		stats[i] = mask.Stats{Path: p.Path, Size: p.Size(), Kept: budget.Keep(p.Size(), removed(p, share, outputShare, n))}
	}
	return stats
}

// removed is the share of a parameter that n rounds remove.
func removed(p params.Param, share, outputShare float64, n int) float64 {
	if p.Output {
		share = outputShare
	}
	return 1 - math.Pow(1-share, float64(n))
}

// recipe returns how rung n is made from the end of the one before, and the sparsity to ask for.
func (t *Trial) recipe(n int) (prune.Recipe, float64, error) {
	if !t.cfg.layerwise() {
		return t.cfg.Recipe, 1 - math.Pow(1-t.cfg.Share, float64(n)), nil
	}
	shares := map[string]float64{}
	for _, p := range t.set {
		shares[p.Path] = removed(p, t.cfg.Share, t.cfg.OutputShare, n)
	}
	return perLayer(t.cfg.Recipe, t.set, shares)
}

// perLayer returns a recipe that removes a share of its own from each parameter, and the sparsity that this is in all.
func perLayer(r prune.Recipe, set params.Set, shares map[string]float64) (prune.Recipe, float64, error) {
	if r.Unit.Name == "" {
		r.Unit = unit.Element
	}
	units := make([]int, len(set))
	for i, p := range set {
		layout, err := r.Unit.Of(p)
		if err != nil {
			return r, 0, err
		}
		units[i] = layout.Count
	}
	r.Budget = budget.PerLayer(shares)
	return r, budget.Overall(shares, set, units), nil
}

// check returns a *LadderError if rung n can't be reached: before anything is trained for it.
func (t *Trial) check(n int) error {
	if n < 0 {
		return &LadderError{Round: n, Problem: "there is none below 0, the dense network", Remedy: "count rungs from 0"}
	}
	if !t.cfg.layerwise() {
		return nil // what a layer keeps is known when the time comes, and then is an error of the budget
	}
	r, _, err := t.recipe(n)
	if err != nil {
		return err
	}
	least := t.pruner.Recipe().MinUnits
	for _, p := range t.set {
		layout, err := r.Unit.Of(p)
		if err != nil {
			return err
		}
		if kept := budget.Keep(layout.Count, removed(p, t.cfg.Share, t.cfg.OutputShare, n)); kept < least && !r.KeepMin {
			return &LadderError{Round: n, Path: p.Path, Problem: fmt.Sprintf("it leaves %d of %d units, and at least %d have to stay", kept, layout.Count, least),
				Remedy: "stop at an earlier rung, lower Config.Share or Config.OutputShare, or set Recipe.KeepMin"}
		}
	}
	return nil
}

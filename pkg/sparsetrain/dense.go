package sparsetrain

import (
	"fmt"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

// DenseToSparse is a reference that sparse training is compared with: it trains a dense network, and prunes it by magnitude while it trains. The engine has no part in it: give Recipe to prune.New, the
// pruner and what Over returns to experiment.Training as Pruner, Schedule and When.
type DenseToSparse struct {
	Name, Cite string // as the field calls it, and where it comes from
	Recipe     prune.Recipe

	// plan is Over, of arguments that were checked: after which steps it prunes, with the last of them, and to what sparsity.
	plan func(steps, every int, sparsity float64) (s schedule.Schedule, when schedule.When, last int)
}

// GMP is gradual magnitude pruning: each layer alike, from dense at a twentieth of the training to the density at its half, fast at first (schedule.Cubic). Begin and end are ours: the authors choose
// them for each network, and prune every 100 to 1000 steps. Layers may have other shares with another Recipe.Budget, such as budget.ERK.
var GMP = DenseToSparse{
	Name: "gmp", Cite: "Zhu & Gupta 2017, arXiv:1710.01878", Recipe: prune.Recipe{Budget: budget.Layerwise},
	plan: func(steps, every int, sparsity float64) (schedule.Schedule, schedule.When, int) {
		from, to := steps/20, steps/2
		last := from + (to-from+every-1)/every*every // the first that finds the schedule at its end
		return schedule.Cubic(from, to, 0, sparsity), schedule.Every(every, from, last), last
	},
}

// ACDC alternates between a sparse and a dense network, all layers ranked together (schedule.ACDC): dense for a twentieth of the training, then in turn sparse and dense for as long, and from 17
// twentieths on sparse to the end. That makes nine sparse phases. The ends of the first and of the last dense phase are those of the authors' runs on CIFAR-100; their phases in between are a tenth of the training.
// An interval between prunings is not asked: there is one at the beginning of each phase. The optimizer's momentum goes on, that of dead weights too, where the authors' runs set it to zero at the end of
// each sparse phase.
var ACDC = DenseToSparse{
	Name: "ac/dc", Cite: "Peste et al. 2021, arXiv:2106.12379", Recipe: prune.Recipe{Budget: budget.Global, Revive: true},
	plan: func(steps, _ int, sparsity float64) (schedule.Schedule, schedule.When, int) {
		from, to, phase := steps/20, steps*17/20, steps/20
		s, when := schedule.ACDC(from, to, phase, sparsity)
		return s, when, to
	},
}

// Over returns to what sparsity, and after which steps, a training of some steps is pruned that ends with the share density of the weights alive, with a pruning every so many steps.
// Errors: *UpdateError for less than 20 steps, for an interval below 1 or so long that the density would not be reached; *DensityError.
func (d DenseToSparse) Over(steps, every int, density float64) (schedule.Schedule, schedule.When, error) {
	if steps < 20 {
		return nil, nil, &UpdateError{d.Name, fmt.Sprintf("the training has %d steps", steps), "give 20 at least: it is divided into twentieths"}
	}
	if every < 1 {
		return nil, nil, &UpdateError{d.Name, fmt.Sprintf("the interval between prunings is %d", every), "give a positive number of steps, for instance 100"}
	}
	if !(density > 0 && density <= 1) { // NaN too
		return nil, nil, &DensityError{Density: density, Problem: "out of range"}
	}
	s, when, last := d.plan(steps, every, 1-density)
	if last >= steps {
		// Nothing would train what is left after the last step.
		return nil, nil, &UpdateError{d.Name, fmt.Sprintf("with an interval of %d it would reach the density at step %d of %d", every, last, steps), fmt.Sprintf("give an interval of at most %d steps", steps/2)}
	}
	return s, when, nil
}

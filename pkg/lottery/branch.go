package lottery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/params"
)

// Branch is a control at a rung of the ladder: what it does otherwise than the ticket. Both parts are functions, so that a control of one's own is a literal.
type Branch struct {
	Name string
	// Masks returns the run's masks, of all parameters. nil: those of the ticket.
	Masks func(t *Trial, ticket *Run, rng *rand.Rand) (Masks, error)
	// Weights returns where the run starts. nil: where the ticket does.
	Weights func(t *Trial, ticket *Run, rng *rand.Rand) (From, error)
	// Draw distinguishes branches that draw random numbers anew: the paper re-initialises each ticket three times.
	Draw int
}

// From is where a run starts.
type From struct {
	// Weights are those of a whole network, such as Run.Start, Run.End, one of Run.Kept, or what experiment.Snapshot returns.
	Weights experiment.Values
	// Behind is how many steps of the dense network's training lie behind, at least 0 and fewer than it has: the run has as many less, and its learning rate goes on from there.
	Behind int
	// LastRate keeps the learning rate of the last steps of the schedule, as in fine-tuning.
	LastRate bool
}

func (b Branch) label() string {
	if b.Draw == 0 {
		return b.Name
	}
	return fmt.Sprintf("%s %d", b.Name, b.Draw)
}

// Again returns the branch with other random numbers.
func (b Branch) Again(draw int) Branch {
	b.Draw = draw
	return b
}

// The branches.
var (
	// Ticket is the rung itself.
	Ticket = Branch{Name: "ticket"}
	// Reinit keeps the ticket's masks and draws the weights afresh, as the dense network's were: it shows what the masks are worth without the weights they were found
	// with. Frankle & Carbin 2019, figures 3 and 4. It is trained for all of the steps, also where tickets are taken back to a later one than 0.
	Reinit = Branch{Name: "reinit", Weights: fresh}
	// RandomMask keeps the ticket's start and draws masks with as many weights, or whole units where the recipe removes those, in each layer.
	RandomMask = Branch{Name: "random-mask", Masks: drawn}
	// ShuffledMask permutes the ticket's mask within each output unit of each layer (a column of a dense layer, a filter of a convolution), so that each keeps as many inputs as
	// the ticket's: a stricter control than RandomMask, which is the shuffle within layers of Frankle et al. 2021 (arXiv:2009.08576). Where the recipe removes whole
	// output units there is nothing within them to permute, and it is the ticket.
	ShuffledMask = Branch{Name: "shuffled-mask", Masks: shuffled}
	// OneShot removes all that the ticket lacks at once from the trained dense network, layer by layer as much. Frankle & Carbin 2019, one-shot pruning.
	OneShot = Branch{Name: "one-shot", Masks: oneShot}
	// RateRewinding keeps the weights that the rung before ended with and rewinds the learning rate only, to step Config.Rewind. Renda et al. 2020, arXiv:2003.02389. With a
	// constant learning rate it is FineTuning.
	RateRewinding = Branch{Name: "rate-rewinding", Weights: trained}
	// FineTuning keeps the weights that the rung before ended with and goes on at the learning rate's last value, for as many steps. Han et al. 2015, arXiv:1506.02626.
	FineTuning = Branch{Name: "fine-tuning", Weights: fineTuned}
)

// Branches lists the branches; the conformance test runs over it.
func Branches() []Branch {
	return []Branch{Ticket, Reinit, RandomMask, ShuffledMask, OneShot, RateRewinding, FineTuning}
}

// AtStep returns the branch that takes the ticket's weights back to another step of the dense network than Config.Rewind. If that is neither 0 nor among Config.Save, running
// it is a *RewindError.
func AtStep(k int) Branch {
	return Branch{Name: fmt.Sprintf("step-%d", k), Weights: func(t *Trial, _ *Run, _ *rand.Rand) (From, error) {
		weights, err := t.at(k)
		return From{Weights: weights, Behind: k}, err
	}}
}

// Branch returns the run of a branch at rung n. The ladder is climbed up to there first.
func (t *Trial) Branch(ctx context.Context, n int, b Branch) (*Run, error) {
	switch {
	case b.Name == "" || b.Name == "." || b.Name == ".." || strings.ContainsAny(b.Name, `/\`):
		return nil, &experiment.ConfigError{Field: "Branch.Name", Problem: fmt.Sprintf("got %q", b.Name), Remedy: "give one under which a directory can be made for its runs"}
	case b.Name == Ticket.Name && (b.Masks != nil || b.Weights != nil || b.Draw != 0):
		return nil, &experiment.ConfigError{Field: "Branch.Name", Problem: fmt.Sprintf("%q is the rung itself", b.Name), Remedy: "give another to what differs from it"}
	}
	ticket, err := t.Rung(ctx, n)
	if err != nil || b.Name == Ticket.Name {
		return ticket, err
	}
	return t.branch(ctx, ticket, b, 0)
}

func (t *Trial) branch(ctx context.Context, ticket *Run, b Branch, order int) (*Run, error) {
	n := ticket.Round
	p := plan{round: n, branch: b, order: order}
	if ticket.Failed != nil && ticket.Masks == nil {
		return t.failed(p, ticket.Failed), nil
	}
	p.weights, p.masks, p.behind = ticket.Start, ticket.Masks, t.behind(n)
	rng := t.random(n, b)
	var err error
	if b.Masks != nil {
		// What starts alike may have other masks: the weights from before the ticket's were zeroed.
		if p.weights, err = t.at(p.behind); err != nil {
			return nil, err
		}
		p.masks, err = b.Masks(t, ticket, rng)
		if diverged := (*experiment.DivergedError)(nil); errors.As(err, &diverged) {
			return t.failed(p, err), nil
		}
		if err == nil && p.masks == nil {
			err = &experiment.ConfigError{Field: "Branch.Masks", Problem: "it returns none", Remedy: "return a mask for each of Trial.Params, or leave the function out for those of the ticket"}
		}
		if err != nil {
			return nil, fmt.Errorf("branch %s of rung %d: %w", b.label(), n, err)
		}
	}
	if b.Weights != nil {
		from, err := b.Weights(t, ticket, rng)
		if err == nil {
			err = t.usable(from)
		}
		if err != nil {
			return nil, fmt.Errorf("branch %s of rung %d: %w", b.label(), n, err)
		}
		p.weights, p.behind, p.last = from.Weights, from.Behind, from.LastRate
	}
	return t.train(ctx, p)
}

// usable returns a *experiment.ConfigError for what a run can't start from. Values that are missing would be those of the run before.
func (t *Trial) usable(from From) error {
	if from.Behind < 0 || from.Behind >= t.total {
		return &experiment.ConfigError{Field: "From.Behind", Problem: fmt.Sprintf("got %d of a training of %d steps", from.Behind, t.total), Remedy: "give a number of steps from 0 to one less than it has"}
	}
	for _, path := range slices.Sorted(maps.Keys(t.first)) {
		if from.Weights[path] == nil {
			return &experiment.ConfigError{Field: "From.Weights", Problem: fmt.Sprintf("there is no %s among %d values", path, len(from.Weights)), Remedy: "give those of a whole network, such as Run.Start or Run.End"}
		}
	}
	return nil
}

// behind is how many steps the ticket of a rung leaves out.
func (t *Trial) behind(n int) int {
	if n == 0 {
		return 0
	}
	return t.cfg.Rewind
}

// Before returns the rung below a ticket: for branches that go on from what it ended with. Rung 0 has none, which is a *LadderError.
func (t *Trial) Before(ticket *Run) (*Run, error) {
	if ticket.Round == 0 {
		return nil, &LadderError{Round: 0, Problem: "nothing was trained before the dense network, so there are no trained weights to keep", Remedy: "branch at rung 1 or above"}
	}
	return t.rungs[ticket.Round-1], nil
}

func fresh(t *Trial, _ *Run, rng *rand.Rand) (From, error) {
	store, err := experiment.Init(t.trainer.Task(), int64(rng.Uint64()>>1))
	if err != nil {
		return From{}, err
	}
	weights, err := experiment.Snapshot(store)
	return From{Weights: weights}, err
}

func trained(t *Trial, ticket *Run, _ *rand.Rand) (From, error) {
	before, err := t.Before(ticket)
	if err != nil {
		return From{}, err
	}
	return From{Weights: before.End, Behind: t.cfg.Rewind}, nil
}

func fineTuned(t *Trial, ticket *Run, rng *rand.Rand) (From, error) {
	from, err := trained(t, ticket, rng)
	from.LastRate = true
	return from, err
}

func drawn(t *Trial, ticket *Run, rng *rand.Rand) (Masks, error) {
	masks := Masks{}
	for _, p := range t.set { // in a fixed order, which that of a map is not
		layout, err := t.pruner.Recipe().Unit.Of(p)
		if err != nil {
			return nil, err
		}
		masks[p.Path] = toWeights(layout, permuted(toUnits(layout, ticket.Masks[p.Path]), rng), p.Size())
	}
	return masks, nil
}

// permuted returns a mask in random order.
func permuted(alive []bool, rng *rand.Rand) []bool {
	shuffled := make([]bool, len(alive))
	for i, j := range rng.Perm(len(alive)) {
		shuffled[i] = alive[j]
	}
	return shuffled
}

func shuffled(t *Trial, ticket *Run, rng *rand.Rand) (Masks, error) {
	masks := Masks{}
	for _, p := range t.set {
		masks[p.Path] = withinOutputs(ticket.Masks[p.Path], p, rng)
	}
	return masks, nil
}

// withinOutputs permutes a mask within each output unit.
func withinOutputs(alive []bool, p params.Param, rng *rand.Rand) []bool {
	inner := 1 // the distance of neighbours along the output axis
	for _, d := range p.Shape.Dimensions[p.Out+1:] {
		inner *= d
	}
	units := p.Shape.Dimensions[p.Out]
	columns := make([][]int, units)
	for i := range alive {
		columns[i/inner%units] = append(columns[i/inner%units], i)
	}
	shuffled := make([]bool, len(alive))
	for _, column := range columns {
		for i, j := range rng.Perm(len(column)) {
			shuffled[column[i]] = alive[column[j]]
		}
	}
	return shuffled
}

func oneShot(t *Trial, ticket *Run, _ *rand.Rand) (Masks, error) {
	if failed := t.rungs[0].Failed; failed != nil {
		return nil, failed
	}
	if err := experiment.Restore(t.store, t.rungs[0].End); err != nil {
		return nil, err
	}
	shares := map[string]float64{}
	for _, p := range t.set {
		shares[p.Path] = 1 - float64(count(ticket.Masks[p.Path]))/float64(p.Size())
	}
	recipe, sparsity, err := perLayer(t.cfg.Recipe, t.set, shares)
	if err != nil {
		return nil, err
	}
	return t.prune(recipe, sparsity)
}

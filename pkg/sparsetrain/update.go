// Package sparsetrain trains networks that are sparse from the first step on: from time to time the least useful living weights are dropped and as many others
// grown, while the number alive stays what it was, to the weight.
//
// There is one engine with four plug-ins: which weights are dropped (Drop), how many of them each layer gets back (Share), where it grows them (Grow), and with
// which value (Init). Sparse Momentum, SET, DSR, RigL and the others are values of Update, made of these; a rule of one's own is a function that scores
// weights, see DropBy and GrowBy.
//
// The references that become sparse from dense while they train, GMP and ACDC, are no business of this engine, because prune's schedules do it: they are values of DenseToSparse, a recipe with a schedule.
package sparsetrain

import (
	"fmt"
	"math"
	"strings"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

// Update is one way to change a topology. The zero value moves 30% of each layer's weights every 100 steps, from the smallest to random places.
type Update struct {
	Name, Cite string // as the field calls it, and where it comes from

	Budget       budget.Budget // how the living weights are divided over the layers at first, at random places. Default: budget.ERK
	Drop         Drop          // which living weights go. Default: Smallest
	Redistribute Share         // how many each layer grows. Default: Keep, as many as it lost
	Grow         Grow          // which dead weights come to life. Default: AtRandom
	Init         Init          // the first value of a grown weight. Default: Zero
	Moments      Moments       // what becomes of the optimizer's moments. Default: ResetGrown

	// Start is the share of the living weights that is dropped at first. Default: 0.3
	Start float64
	// Decay makes the share fall from Start to End while Over's steps go by; schedule.Cosine and schedule.Linear do. nil: it stays Start.
	Decay func(from, to int, initial, final float64) schedule.Schedule
	End   float64
	// Until is the share of the training after which the topology rests. Default: 1, up to the last step but one.
	Until float64

	// Fraction is the share that is dropped by an update after a step; Over sets it. Default: Start, for updates without Decay.
	Fraction schedule.Schedule
	// When says after which steps there is an update; Over sets it. Default: every 100 steps.
	When schedule.When
}

// Moments says what becomes of the optimizer's moments, of momentum or of Adam, where the topology changes.
type Moments int

// What may become of moments. Weights that are dropped and grown again by the same update never died, and keep theirs, unless Grow.Fresh.
const (
	ResetGrown   Moments = iota // those of grown weights become 0: RigL's code
	KeepMoments                 // all stay: Sparse Momentum since its version 1.0
	ResetChanged                // those of dropped and of grown weights become 0
)

// Over returns the update for a training of some steps with an update every so many: it sets Fraction and When, unless they are set. Errors: *UpdateError.
func (u Update) Over(steps, every int) (Update, error) {
	if every < 1 {
		return u, &UpdateError{u.String(), fmt.Sprintf("the interval between updates is %d", every), "give a positive number of steps, for instance 100, or those of an epoch"}
	}
	if steps < 1 {
		return u, &UpdateError{u.String(), fmt.Sprintf("the training has %d steps", steps), "give a positive number"}
	}
	c := u.complete()
	if err := c.checkShares(); err != nil {
		return u, err
	}
	last := int(float64(steps) * c.Until)
	if u.When == nil {
		// Nothing would train what an update after the last step has grown.
		latest := min(last, steps-1)
		if every > latest && !(u.Fraction != nil && u.Fraction(1) == 0) {
			return u, &UpdateError{u.String(), fmt.Sprintf("there is an update every %d steps, and none after step %d of %d", every, latest, steps), "train for longer, or give a shorter interval"}
		}
		u.When = schedule.Every(every, every, latest)
	}
	if u.Fraction == nil {
		u.Fraction = schedule.Constant(c.Start)
		if c.Decay != nil {
			u.Fraction = c.Decay(0, last, c.Start, c.End)
		}
	}
	return u, nil
}

// complete returns the update with its defaults filled in, but for Fraction and When.
func (u Update) complete() Update {
	if u.Budget.Divide == nil {
		u.Budget = budget.ERK
	}
	if u.Drop.Mark == nil {
		u.Drop = Smallest
	}
	if u.Redistribute.Claim == nil && u.Redistribute.Count == nil {
		u.Redistribute = Keep
	}
	if u.Grow.Score == nil {
		u.Grow = AtRandom
	}
	if u.Init.Name == "" && u.Init.Value == nil {
		u.Init = Zero
	}
	if u.Start == 0 {
		u.Start = 0.3
	}
	if u.Until == 0 {
		u.Until = 1
	}
	return u
}

// String is the update's name, or where it has none, those of its plug-ins.
func (u Update) String() string {
	if u.Name != "" {
		return u.Name
	}
	return u.parts()
}

// parts names all that the update is made of.
func (u Update) parts() string {
	u = u.complete()
	parts := []string{"drop=" + u.Drop.Name, "share=" + u.Redistribute.Name, "grow=" + u.Grow.Name, "init=" + u.Init.Name}
	if u.Moments != ResetGrown {
		parts = append(parts, "moments="+[]string{"reset-grown", "keep", "reset-changed"}[u.Moments])
	}
	if u.Budget.Name != budget.ERK.Name {
		parts = append(parts, "budget="+u.Budget.Name)
	}
	return strings.Join(parts, " ")
}

func (u Update) needs() Needs {
	return u.Drop.Needs | u.Redistribute.Needs | u.Grow.Needs | u.Init.Needs
}

func (u Update) checkShares() error {
	for name, share := range map[string]float64{"Start": u.Start, "End": u.End} {
		if !(share >= 0 && share < 1) { // NaN too
			return &UpdateError{u.String(), fmt.Sprintf("%s is %v", name, share), "give the share of living weights that is dropped, at least 0 and less than 1"}
		}
	}
	if !(u.Until > 0 && u.Until <= 1) {
		return &UpdateError{u.String(), fmt.Sprintf("Until is %v", u.Until), "give a share of the training, above 0 and at most 1"}
	}
	return nil
}

// horizon is in how many steps an update has to be due at least once.
const horizon = 1_000_000

// check refuses what can't work, of a complete update.
func (u Update) check() error {
	if err := u.checkShares(); err != nil {
		return err
	}
	if u.Moments < ResetGrown || u.Moments > ResetChanged {
		return &UpdateError{u.String(), fmt.Sprintf("Moments is %d", u.Moments), "give ResetGrown, KeepMoments or ResetChanged"}
	}
	if u.Redistribute.Claim != nil && u.Redistribute.Count != nil {
		return &UpdateError{u.String(), "its Redistribute has both a Claim and a Count", "set one of them"}
	}
	if u.Fraction == nil && u.Decay != nil {
		return &UpdateError{u.String(), "the share that it drops decays, but over how many steps is not known", "say so with Update.Over(steps, every), or set Update.Fraction"}
	}
	if u.When == nil || u.Fraction != nil && u.Fraction(1) == 0 { // a topology that stays needs no updates
		return nil
	}
	for step := 1; step <= horizon; step++ {
		if u.When(step) {
			return nil
		}
	}
	return &UpdateError{u.String(), fmt.Sprintf("its When is true after none of the first %d steps, as with an interval of 0", horizon),
		"give a positive interval, for instance with Update.Over(steps, 100), or use Static for a topology that stays"}
}

// fraction returns the share to drop after a step, or a *UpdateError.
func (u Update) fraction(step int) (float64, error) {
	f := u.Start
	if u.Fraction != nil {
		f = u.Fraction(step)
	}
	if math.IsNaN(f) || f < 0 || f >= 1 {
		return 0, &UpdateError{u.String(), fmt.Sprintf("Fraction is %v after step %d", f, step), "give the share of living weights that is dropped, at least 0 and less than 1"}
	}
	return f, nil
}

// due tells whether there is an update after a step.
func (u Update) due(step int) bool {
	if u.When != nil {
		return u.When(step)
	}
	return step > 0 && step%100 == 0
}

package sparsetrain

import (
	"math/rand/v2"
	"slices"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Needs says what a plug-in reads of a Layer besides its weights.
type Needs uint8

// What a plug-in can ask for.
const (
	NeedMomentum Needs = 1 << iota // Layer.Momentum
	NeedGradient                   // Layer.Gradient
	NeedSigns                      // Layer.Positive
)

// Round is what the plug-ins of one update see, and the same for all of them. The layers come in the order of the set of parameters.
type Round struct {
	Step     int       // after which there is this update
	Number   int       // how many updates there were before
	Fraction float64   // the share of living weights to drop
	Budget   int       // how many weights were alive at the start of the training
	Layers   []*Layer  // of each parameter
	Memory   []float64 // eight numbers that a rule may change; they lie in the store between updates, zero at first
}

// hold remembers the numbers of the layers, and returns what sets them back, should a rule have written to them.
func (r *Round) hold() func() {
	numbers := make([][2]int, len(r.Layers))
	for i, l := range r.Layers {
		numbers[i] = [2]int{l.Living, l.Dropped}
	}
	return func() {
		for i, l := range r.Layers {
			l.Living, l.Dropped = numbers[i][0], numbers[i][1]
		}
	}
}

// order remembers the layers, and returns what tells by a *RuleError whether a rule has left them alone: a rule's numbers are taken in their order.
func (r *Round) order() (same func(rule string) error) {
	layers := slices.Clone(r.Layers)
	return func(rule string) error {
		if slices.Equal(layers, r.Layers) {
			return nil
		}
		return &RuleError{rule, "", "it has changed Round.Layers: leave all of them there, in their order; sort a copy"}
	}
}

// Layer is one parameter in an update. All slices have a value for each weight, in row-major order. They are copies, which the next
// update writes over: of what a plug-in changes in them only Drop and Positive count.
type Layer struct {
	Param  params.Param
	Weight []float32
	Alive  []bool // before the update
	Drop   []bool // which living weights are dropped: what a Drop marks
	// Momentum is what the optimizer remembers of gradients, those of dead weights too: SGD's velocity, or for Adam m/(√v + 1e-8), as in Sparse Momentum's code.
	Momentum []float32
	// Gradient is that of the loss of the signals that the update is given, for dead weights too.
	Gradient []float32
	// Positive is the sign that each weight was given when it was grown, or had at the start.
	Positive []bool
	// Random is a source of the layer's own: a function of seed, step and path alone.
	Random *rand.Rand

	Living  int // before the update
	Dropped int // how many are marked in Drop; known after the drop rule

	criteria map[role][]float32 // scores of criteria that serve as rules
	// places are those of the living weights, dropped and grown the others' that their names say; all in order. They are few where the layer is large.
	places, dropped, grown []int32
	room                   *rooms
}

// rooms is where one layer after the other is scored and ranked: to get memory anew for each costs as much as what is done in it.
type rooms struct {
	scores, few []float32
	places      []int32
	keep        []bool
}

// rooms returns those of the layer; one that was made by hand gets its own.
func (l *Layer) rooms() *rooms {
	if l.room == nil {
		l.room = new(rooms)
	}
	return l.room
}

// living returns the places of the living weights.
func (l *Layer) living() []int32 {
	if len(l.places) == 0 {
		// Without a branch, which would be told wrong as often as a weight lives.
		places, n := room(&l.places, len(l.Alive)), 0
		for i, a := range l.Alive {
			places[n] = int32(i)
			if a {
				n++
			}
		}
		l.places = places[:n]
	}
	return l.places
}

// room returns n elements of room, which hold anything, and makes more where there is not enough.
func room[T any](have *[]T, n int) []T {
	if cap(*have) < n {
		*have = make([]T, n)
	}
	*have = (*have)[:n]
	return *have
}

// Size returns the number of weights.
func (l *Layer) Size() int { return len(l.Weight) }

// Open tells whether a weight can be grown: it is dead, or has just been dropped.
func (l *Layer) Open(i int) bool { return !l.Alive[i] || l.Drop[i] }

// Room returns how many weights can be grown.
func (l *Layer) Room() int { return l.Size() - l.Living + l.Dropped }

// Score writes a number for each weight of a layer, none of them NaN. Of equal numbers the earlier weight has the better place.
type Score func(l *Layer, scores []float32)

package sparsetrain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Code identifies what the rules do in a training of so many steps, where String only names them: by what they answer in rounds of made-up layers of the parameters' shapes. Runs that are kept are
// told apart by it, so that a rule that was written anew under its old name is not taken for the old one. A rule that can't deal with such a round is told by how it fails. The rounds are the first update
// of the training, the second, the fourth and so on, and the last: what a rule does at others only is not seen.
func (e *Engine) Code(steps int) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, e.update.Name)
	for _, s := range e.scorers {
		code, err := s.pruner.Code()
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, s.role, code)
	}
	number, next, last := 0, 1, 0
	for step := 1; step <= steps; step++ {
		if !e.Due(step) {
			continue
		}
		if number++; number == next {
			fmt.Fprintln(h, e.rehearse(h, step, number-1))
			next *= 2
		}
		last = step
	}
	if number > 0 && 2*number != next {
		fmt.Fprintln(h, e.rehearse(h, last, number-1))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// rehearse has all rules answer in a made-up round after a step, when there were so many updates before, and writes down what they say.
func (e *Engine) rehearse(h io.Writer, step, number int) error {
	fraction, err := e.update.fraction(step)
	if err != nil {
		return err
	}
	r := &Round{Step: step, Number: number, Fraction: fraction, Memory: make([]float64, memorySize)}
	for _, p := range e.set {
		l := e.madeUp(p)
		r.Budget += l.Living
		r.Layers = append(r.Layers, l)
	}
	if err := e.drop(r); err != nil {
		return err
	}
	counts, err := e.counts(r)
	fmt.Fprintln(h, r.Memory, counts)
	if err != nil {
		return err
	}
	for i, l := range r.Layers {
		if err := e.grow(l, counts[i]); err != nil {
			return err
		}
		var m move
		if _, err := e.move(l, &m); err != nil {
			return err
		}
		fmt.Fprintln(h, l.dropped, l.grown, m.values, l.Positive)
	}
	return nil
}

// madeUp returns a layer with numbers of no meaning, always the same: nine of ten weights are dead.
func (e *Engine) madeUp(p params.Param) *Layer {
	rng := random(0, 0, p.Path)
	l := &Layer{Param: p, Random: rand.New(rand.NewPCG(1, 2)), criteria: map[role][]float32{}}
	draw := func() []float32 {
		values := make([]float32, p.Size())
		for i := range values {
			values[i] = float32(rng.NormFloat64())
		}
		return values
	}
	l.Weight, l.Alive, l.Drop = draw(), make([]bool, p.Size()), make([]bool, p.Size())
	for i := range l.Alive {
		if l.Alive[i] = i == 0 || rng.Float64() < 0.1; l.Alive[i] {
			l.Living++
		} else {
			l.Weight[i] = 0
		}
	}
	needs := e.update.needs()
	if needs&NeedMomentum != 0 {
		l.Momentum = draw()
	}
	if needs&NeedGradient != 0 {
		l.Gradient = draw()
	}
	if needs&NeedSigns != 0 {
		l.Positive = make([]bool, p.Size())
		for i := range l.Positive {
			l.Positive[i] = rng.Float64() < 0.5
		}
	}
	for _, s := range e.scorers {
		l.criteria[s.role] = draw()
	}
	return l
}

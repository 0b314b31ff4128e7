package sparsetrain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Code identifies what the rules do, where String only names them: by what they answer in a round of made-up layers of the parameters' shapes. Runs that are kept are told apart by it, so that
// a rule that was written anew under its old name is not taken for the old one. A rule that can't deal with such a round is told by how it fails.
func (e *Engine) Code() (string, error) {
	h := sha256.New()
	for _, s := range e.scorers {
		code, err := s.pruner.Code()
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, code)
	}
	r := &Round{Step: 100, Number: 1, Fraction: 0.3, Memory: make([]float64, memorySize)}
	for _, p := range e.set {
		l := e.madeUp(p)
		r.Budget += l.Living
		r.Layers = append(r.Layers, l)
	}
	fmt.Fprintln(h, e.rehearse(h, r))
	return hex.EncodeToString(h.Sum(nil)), nil
}

// rehearse has all rules answer, and writes down what they say.
func (e *Engine) rehearse(h io.Writer, r *Round) error {
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
	l := &Layer{Param: p, Random: rand.New(rand.NewPCG(1, 2)), criteria: map[string][]float32{}}
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
		l.criteria[s.criterion.Name] = draw()
	}
	return l
}

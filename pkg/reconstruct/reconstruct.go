// Package reconstruct prunes layer by layer and rewrites the weights that survive, so that they do the work of those that went. It needs no labels and no
// gradient of the loss, only the Gram matrix of a layer's inputs (WoodFisher: gradients of single examples).
//
// A layer computes y = Wᵀx. Its weights are [in, out] in row-major order, as GoMLX stores them; a convolution's [spatial…, in, out] are the
// [spatial… · in, out] of the patches that it sees. With H = (2/n) Σ x·xᵀ, the squared change of the outputs is on average half the trace of ΔᵀHΔ if the
// weights change by Δ: that is what is minimised here, and reported relative to WᵀHW.
//
// Everything is computed on the host, in float64, and the same input gives the same bits on one machine.
package reconstruct

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// Result is a layer that was pruned. Nothing of it is in a store yet: Apply does that.
type Result struct {
	Weights []float32 // [in, out]; exactly 0 where not alive
	Alive   []bool    // [in, out]
	// Error is ‖WᵀX − W'ᵀX‖² / ‖WᵀX‖² over the inputs X that the Gram matrix saw; 0 if nothing changed.
	Error float64
	// MagnitudeError is what Error would be if the largest |w| had been kept as they are: as many, and chosen among the same weights (the layer, an output, a
	// group of M; inputs by Σw²).
	MagnitudeError float64
	// Damp is the share of the mean of diag(H) that was added to that diagonal: more than was asked for if H was too ill-conditioned.
	Damp float64
}

// Error says that something can't be reconstructed. Nothing was changed.
type Error struct{ Method, Expected, Got, Remedy string }

func (e *Error) Error() string {
	return fmt.Sprintf("%s: expected %s, got %s; %s", e.Method, e.Expected, e.Got, e.Remedy)
}

// layer is a checked problem.
type layer struct {
	method  string
	in, out int
	before  []float32
	h       *mat.SymDense // [in, in], without damping
	start   []bool        // [in, out]: the mask at the start
}

// check returns the problem, or what is wrong with it. alive may be nil.
func check(method string, w []float32, in, out int, g *Gram, alive []bool) (*layer, error) {
	l := &layer{method: method, in: in, out: out, before: w}
	if in < 1 || out < 1 || len(w) != in*out {
		return nil, &Error{method, fmt.Sprintf("in · out = %d · %d weights, both at least 1", in, out), fmt.Sprintf("%d", len(w)),
			"give the weights [in, out] in row-major order"}
	}
	if err := finite(method, "weights", w); err != nil {
		return nil, err
	}
	var err error
	if l.start, err = startMask(method, alive, len(w)); err != nil {
		return nil, err
	}
	if g == nil {
		return nil, &Error{method, "a Gram matrix", "none", "collect the layer's inputs with Gram.Add"}
	}
	if g.Dim != in {
		return nil, &Error{method, fmt.Sprintf("the Gram matrix of %d inputs", in), fmt.Sprintf("one of %d", g.Dim),
			"collect the inputs of this layer; a convolution's are patches"}
	}
	l.h, err = g.symmetric(method)
	return l, err
}

// startMask returns a copy of a mask, all alive if it is nil.
func startMask(method string, alive []bool, n int) ([]bool, error) {
	if alive != nil && len(alive) != n {
		return nil, &Error{method, fmt.Sprintf("a mask of %d weights", n), fmt.Sprintf("%d", len(alive)), "give the mask of the same layer, or nil"}
	}
	mask := make([]bool, n)
	for i := range mask {
		mask[i] = alive == nil || alive[i]
	}
	return mask, nil
}

// finite refuses NaN and infinities.
func finite(method, what string, values []float32) error {
	for i, v := range values {
		if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) {
			return &Error{method, "finite " + what, fmt.Sprintf("%v at index %d", v, i), "look for the step at which the network diverged"}
		}
	}
	return nil
}

// removed returns how many of n weights go at a sparsity: the share, rounded to the nearest, halves away from zero, as in budget.Keep.
func removed(method string, n int, sparsity float64) (int, error) {
	if math.IsNaN(sparsity) || sparsity < 0 || sparsity >= 1 {
		return 0, &Error{method, "a sparsity in [0, 1)", fmt.Sprint(sparsity), "give the share of weights to remove"}
	}
	k := int(math.Round(sparsity * float64(n)))
	if k == n {
		return 0, &Error{method, "at least one weight that is left", fmt.Sprintf("sparsity %v of %d weights", sparsity, n), "lower the sparsity"}
	}
	return k, nil
}

// result rounds weights to float32, and measures them. magnitude is the mask that they are compared with.
func (l *layer) result(w []float64, alive, magnitude []bool, damp float64) (Result, error) {
	r := Result{Weights: make([]float32, len(w)), Alive: alive, Damp: damp}
	for i, a := range alive {
		if a {
			r.Weights[i] = float32(w[i])
		}
	}
	if err := finite(l.method, "weights after the update", r.Weights); err != nil {
		return Result{}, err
	}
	plain := make([]float32, len(w))
	for i, a := range magnitude {
		if a {
			plain[i] = l.before[i]
		}
	}
	r.Error, r.MagnitudeError = l.relative(r.Weights), l.relative(plain)
	return r, nil
}

// unchanged is the result of removing nothing: not a bit differs.
func (l *layer) unchanged() Result {
	return Result{Weights: append([]float32(nil), l.before...), Alive: l.start}
}

// floats returns the weights in float64; those of inputs that are always 0 are 0, as they have no influence that H knows of.
func (l *layer) floats() []float64 {
	w := make([]float64, len(l.before))
	for i, v := range l.before {
		if l.h.At(i/l.out, i/l.out) != 0 {
			w[i] = float64(v)
		}
	}
	return w
}

// relative returns tr(ΔᵀHΔ) / tr(WᵀHW) for other weights.
func (l *layer) relative(w []float32) float64 {
	delta, all := mat.NewDense(l.in, l.out, nil), mat.NewDense(l.in, l.out, nil)
	for i, v := range l.before {
		all.Set(i/l.out, i%l.out, float64(v))
		delta.Set(i/l.out, i%l.out, float64(v)-float64(w[i]))
	}
	return ratio(energy(delta, l.h), energy(all, l.h))
}

// energy returns tr(AᵀHA).
func energy(a *mat.Dense, h mat.Symmetric) float64 {
	var ha mat.Dense
	ha.Mul(h, a)
	sum := 0.0
	x, y := a.RawMatrix().Data, ha.RawMatrix().Data
	for i := range x {
		sum += x[i] * y[i]
	}
	return max(0, sum) // below 0 by rounding only
}

// ratio is a/b, and 0 where nothing changed, also of nothing.
func ratio(a, b float64) float64 {
	if a == 0 {
		return 0
	}
	return a / b
}

// RelativeError returns ‖WᵀX − VᵀX‖² / ‖WᵀX‖² for weights w and v [in, out] over the inputs X that the Gram matrix saw, whatever method made v. It is +Inf if
// w's outputs were all 0 and v's are not.
//
// Errors: *Error for sizes that do not fit, values that are not finite, and a Gram matrix of nothing.
func RelativeError(w, v []float32, in, out int, g *Gram) (float64, error) {
	const method = "RelativeError"
	l, err := check(method, w, in, out, g, nil)
	if err != nil {
		return 0, err
	}
	if len(v) != len(w) {
		return 0, &Error{method, fmt.Sprintf("%d weights to compare with", len(w)), fmt.Sprintf("%d", len(v)), "give both as [in, out]"}
	}
	if err := finite(method, "weights", v); err != nil {
		return 0, err
	}
	return l.relative(v), nil
}

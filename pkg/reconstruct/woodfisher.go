package reconstruct

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// FisherConfig says how an inverse Fisher matrix is approximated.
type FisherConfig struct {
	Block int     // consecutive weights whose interactions are kept; the last block may be smaller; 0 is 50
	Damp  float64 // λ, above 0; 0 is 1e-5
}

// InverseFisher is the inverse of an empirical Fisher matrix F = λI + (1/N) Σ g·gᵀ of a parameter, in blocks of consecutive weights, from the gradients g of N
// examples that are added one by one. Singh & Alistarh 2020, arXiv:2004.14340, equation 9. In float64; it takes size · Block numbers.
//
// Consecutive are the weights as they are stored: of [in, out], those of one input to the outputs, where PyTorch's [out, in] has those of one output together.
//
// signal has one of its own for the score alone; this one also rewrites the survivors.
type InverseFisher struct {
	size, block int
	n, added    int
	damp        float64
	blocks      []*mat.SymDense
}

// NewInverseFisher returns the inverse of λI for a parameter of size weights, to which n gradients will be added.
//
// Errors: *Error if size or n is below 1, Block is below 0, or λ is below 0 or not finite.
func NewInverseFisher(size, n int, cfg FisherConfig) (*InverseFisher, error) {
	const method = "NewInverseFisher"
	if size < 1 || n < 1 {
		return nil, &Error{method, "at least 1 weight and 1 gradient", fmt.Sprintf("%d and %d", size, n), "say how many examples there are"}
	}
	if cfg.Block < 0 || !(cfg.Damp >= 0) || math.IsInf(1/cfg.Damp, 0) && cfg.Damp != 0 || math.IsInf(cfg.Damp, 0) {
		return nil, &Error{method, "a block and a finite damping of at least 0", fmt.Sprintf("%d and %v", cfg.Block, cfg.Damp), "leave them 0 for 50 and 1e-5"}
	}
	if cfg.Block == 0 {
		cfg.Block = 50
	}
	if cfg.Damp == 0 {
		cfg.Damp = 1e-5
	}
	f := &InverseFisher{size: size, block: cfg.Block, n: n, damp: cfg.Damp}
	for start := 0; start < size; start += f.block {
		b := min(f.block, size-start)
		m := mat.NewSymDense(b, nil)
		for i := range b {
			m.SetSym(i, i, 1/cfg.Damp)
		}
		f.blocks = append(f.blocks, m)
	}
	return f, nil
}

// Add takes in the gradient of one example's loss, in row-major order: each block becomes F⁻¹ − F⁻¹g·gᵀF⁻¹ / (N + gᵀF⁻¹g).
//
// Errors: *Error for another length, values that are not finite, and more gradients than announced; then nothing is added.
func (f *InverseFisher) Add(grad []float32) error {
	const method = "InverseFisher.Add"
	if len(grad) != f.size {
		return &Error{method, fmt.Sprintf("the gradient of %d weights", f.size), fmt.Sprintf("%d", len(grad)), "add the gradient of the same parameter"}
	}
	if f.added == f.n {
		return &Error{method, fmt.Sprintf("the announced %d gradients", f.n), "one more", "give NewInverseFisher the number of examples"}
	}
	if err := finite(method, "gradients", grad); err != nil {
		return err
	}
	f.added++
	for k, m := range f.blocks {
		b := m.SymmetricDim()
		g := mat.NewVecDense(b, nil)
		any := false
		for i, v := range grad[k*f.block : k*f.block+b] {
			g.SetVec(i, float64(v))
			any = any || v != 0
		}
		if !any {
			continue
		}
		var fg mat.VecDense
		fg.MulVec(m, g)
		m.SymRankOne(m, -1/(float64(f.n)+mat.Dot(g, &fg)), &fg)
	}
	return nil
}

// Diagonal returns the diagonal of the inverse, a value for each weight.
func (f *InverseFisher) Diagonal() []float64 {
	d := make([]float64, 0, f.size)
	for _, m := range f.blocks {
		for i := range m.SymmetricDim() {
			d = append(d, m.At(i, i))
		}
	}
	return d
}

// Update returns the weights after those that are not alive were set to 0 and the others of their blocks made up for it, so that the loss that F predicts
// grows least: with Q the dead weights of a block, w − F⁻¹_{:Q}·(F⁻¹_QQ)⁻¹·w_Q. The paper adds up the changes for single weights, which also
// move weights that are removed; this is exact for all of a block together, and the same for one weight. damp is the largest share of a mean diagonal that had
// to be added to solve for it, usually 0.
//
// Errors: *Error for other lengths, values that are not finite, gradients that are still to come, and a Fisher matrix that rounding has made useless.
func (f *InverseFisher) Update(w []float32, alive []bool) (updated []float32, damp float64, err error) {
	const method = "InverseFisher.Update"
	if err := f.ready(method, w, alive); err != nil {
		return nil, 0, err
	}
	updated = slices.Clone(w)
	for k, m := range f.blocks {
		start, b := k*f.block, m.SymmetricDim()
		var dead []int
		for i := range b {
			if alive != nil && !alive[start+i] {
				dead = append(dead, i)
			}
		}
		if len(dead) == 0 {
			continue
		}
		inner, target := mat.NewSymDense(len(dead), nil), mat.NewVecDense(len(dead), nil)
		for a, i := range dead {
			target.SetVec(a, float64(w[start+i]))
			for c := range a + 1 {
				inner.SetSym(a, c, m.At(i, dead[c]))
			}
		}
		factor, used, err := factorize(method, inner, 0)
		if err != nil {
			return nil, 0, err
		}
		damp = max(damp, used)
		var z mat.VecDense
		if err := factor.SolveVecTo(&z, target); err != nil {
			return nil, 0, &Error{method, "equations that can be solved", err.Error(), "raise the damping of NewInverseFisher"}
		}
		for i := range b {
			change := 0.0
			for a, q := range dead {
				change += m.At(i, q) * z.AtVec(a)
			}
			updated[start+i] = float32(float64(w[start+i]) - change)
		}
		for _, i := range dead {
			updated[start+i] = 0
		}
	}
	if err := finite(method, "weights after the update", updated); err != nil {
		return nil, 0, err
	}
	return updated, damp, nil
}

// WoodFisherConfig says what WoodFisher removes. The zero value removes nothing.
type WoodFisherConfig struct {
	Sparsity float64 // the share of the parameter's weights to remove, in [0, 1)
	// Alive is the mask so far; nil is all alive. What is dead stays so and counts as removed; if that is more than the share, only the survivors are rewritten.
	Alive []bool
}

// WoodFisher removes the weights of least w_q²/(2[F⁻¹]_qq) of a whole parameter, and rewrites the others by Update. Singh & Alistarh 2020, arXiv:2004.14340,
// equation 11. Of equal scores the earlier weight is kept. It wants a network that has converged.
//
// In the result, errors are the growth of the loss that F predicts: δᵀFδ relative to wᵀFw, for this result and for keeping the largest |w|. Damp is that of
// Update.
//
// Errors: those of Update, and *Error for a sparsity outside of [0, 1) or one that leaves nothing.
func WoodFisher(w []float32, f *InverseFisher, cfg WoodFisherConfig) (Result, error) {
	const method = "WoodFisher"
	if f == nil {
		return Result{}, &Error{method, "an inverse Fisher matrix", "none", "make one with NewInverseFisher"}
	}
	if err := f.ready(method, w, cfg.Alive); err != nil {
		return Result{}, err
	}
	k, err := removed(method, f.size, cfg.Sparsity)
	if err != nil {
		return Result{}, err
	}
	alive, err := startMask(method, cfg.Alive, f.size)
	if err != nil {
		return Result{}, err
	}
	if k == 0 && countDead(alive) == 0 {
		return Result{Weights: slices.Clone(w), Alive: alive}, nil
	}
	magnitude, diagonal := slices.Clone(alive), f.Diagonal()
	for i, d := range diagonal {
		if !(d > 0) {
			return Result{}, &Error{method, "an inverse with a diagonal above 0", fmt.Sprintf("%v at %d, by rounding", d, i), "raise the damping of NewInverseFisher"}
		}
	}
	removeLeast(alive, indices(0, 1, f.size), func(i int) float64 { return math.Abs(float64(w[i])) / math.Sqrt(diagonal[i]) }, k)
	removeLeast(magnitude, indices(0, 1, f.size), func(i int) float64 { return math.Abs(float64(w[i])) }, k)
	r := Result{Alive: alive}
	if r.Weights, r.Damp, err = f.Update(w, alive); err != nil {
		return Result{}, err
	}
	plain := make([]float32, f.size)
	for i, a := range magnitude {
		if a {
			plain[i] = w[i]
		}
	}
	r.Error, r.MagnitudeError, err = f.relative(w, r.Weights, plain)
	return r, err
}

// ready checks what Update is given.
func (f *InverseFisher) ready(method string, w []float32, alive []bool) error {
	if len(w) != f.size {
		return &Error{method, fmt.Sprintf("%d weights", f.size), fmt.Sprintf("%d", len(w)), "give the parameter that the gradients are of"}
	}
	if alive != nil && len(alive) != f.size {
		return &Error{method, fmt.Sprintf("a mask of %d weights", f.size), fmt.Sprintf("%d", len(alive)), "give the mask of the same parameter, or nil"}
	}
	if f.added != f.n {
		return &Error{method, fmt.Sprintf("%d gradients", f.n), fmt.Sprintf("%d", f.added), "add the gradients of all examples that were announced"}
	}
	return finite(method, "weights", w)
}

// relative returns (w−v)ᵀF(w−v) / wᵀFw for two other vectors of weights, F being the inverse of what is kept.
func (f *InverseFisher) relative(w, v1, v2 []float32) (first, second float64, err error) {
	var e1, e2, all float64
	for k, m := range f.blocks {
		b, start := m.SymmetricDim(), k*f.block
		factor, _, err := factorize("WoodFisher", m, 0)
		if err != nil {
			return 0, 0, err
		}
		quadratic := func(at func(i int) float64) (float64, error) {
			x, y := mat.NewVecDense(b, nil), mat.NewVecDense(b, nil)
			for i := range b {
				x.SetVec(i, at(start+i))
			}
			if err := factor.SolveVecTo(y, x); err != nil {
				return 0, &Error{"WoodFisher", "a Fisher matrix that can be inverted", err.Error(), "raise the damping of NewInverseFisher"}
			}
			return mat.Dot(x, y), nil
		}
		for _, part := range []struct {
			sum *float64
			at  func(i int) float64
		}{
			{&all, func(i int) float64 { return float64(w[i]) }},
			{&e1, func(i int) float64 { return float64(w[i]) - float64(v1[i]) }},
			{&e2, func(i int) float64 { return float64(w[i]) - float64(v2[i]) }},
		} {
			q, err := quadratic(part.at)
			if err != nil {
				return 0, 0, err
			}
			*part.sum += q
		}
	}
	return ratio(e1, all), ratio(e2, all), nil
}

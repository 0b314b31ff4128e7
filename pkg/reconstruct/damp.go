package reconstruct

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

const (
	defaultDamp = 0.01
	// maxDamp ends the search for a damping at which a matrix can be inverted. Any Gram matrix can be, long before.
	maxDamp = 1.0
	// maxCondition is what a matrix may have at most to be inverted in float64 with four digits to spare.
	maxCondition = 1e12
)

// damping resolves a configured damping: 0 is the default, less is none.
func damping(method string, damp float64) (float64, error) {
	switch {
	case math.IsNaN(damp) || damp > maxDamp:
		return 0, &Error{method, fmt.Sprintf("a damping of at most %v", maxDamp), fmt.Sprint(damp),
			"give the share of the mean of diag(H) to add; 0 is 0.01, negative is none"}
	case damp == 0:
		return defaultDamp, nil
	}
	return max(0, damp), nil
}

// factorize returns the Cholesky factors of a + damp·mean(diag a)·I, and the damping: while the matrix is not positive definite or its condition is above
// 1e12, damp is raised tenfold, from none to 1e-8, up to 1.
func factorize(method string, a *mat.SymDense, damp float64) (*mat.Cholesky, float64, error) {
	n := a.SymmetricDim()
	mean := mat.Trace(a) / float64(n)
	damped := mat.NewSymDense(n, nil)
	for {
		damped.CopySym(a)
		for i := range n {
			damped.SetSym(i, i, a.At(i, i)+damp*mean)
		}
		var c mat.Cholesky
		if c.Factorize(damped) && c.Cond() <= maxCondition {
			return &c, damp, nil
		}
		if damp >= maxDamp {
			return nil, 0, &Error{method, "a Gram matrix, which has no negative eigenvalues",
				fmt.Sprintf("one that can't be inverted with its mean diagonal, %v, added", mean), "collect the layer's inputs with Gram.Add or signal.Grams"}
		}
		damp = min(maxDamp, max(1e-8, 10*damp))
	}
}

// patched returns H with 1 on its diagonal where an input is always 0, as SparseGPT does.
func (l *layer) patched() *mat.SymDense {
	h := mat.NewSymDense(l.in, nil)
	h.CopySym(l.h)
	for i := range l.in {
		if h.At(i, i) == 0 {
			h.SetSym(i, i, 1)
		}
	}
	return h
}

// inverse returns the inverse of the patched and damped H, and the damping.
func (l *layer) inverse(damp float64) (*mat.SymDense, float64, error) {
	c, damp, err := factorize(l.method, l.patched(), damp)
	if err != nil {
		return nil, 0, err
	}
	var inverse mat.SymDense
	if err := c.InverseTo(&inverse); err != nil {
		return nil, 0, &Error{l.method, "a matrix that can be inverted", err.Error(), "raise Damp"}
	}
	return &inverse, damp, nil
}

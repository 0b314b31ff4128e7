package reconstruct

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// Gram is Σ x·xᵀ over the inputs x of a layer. It has the fields of signal.Gram, so that (*Gram)(g) converts what signal.Grams collected.
type Gram struct {
	Dim int       // the length of x
	N   int       // how many x
	Sum []float64 // [Dim, Dim]; nil before the first
}

// Add adds a batch of inputs, [rows, Dim] in row-major order.
//
// Errors: *Error if the rows are not whole or hold a value that is not finite; then nothing is added.
func (g *Gram) Add(x []float32) error {
	const method = "Gram.Add"
	if g.Dim < 1 || len(x)%g.Dim != 0 || g.Sum != nil && len(g.Sum) != g.Dim*g.Dim {
		return &Error{method, fmt.Sprintf("rows of Dim = %d values, and Dim² sums", g.Dim), fmt.Sprintf("%d values and %d sums", len(x), len(g.Sum)),
			"set Dim to the number of inputs"}
	}
	if err := finite(method, "inputs", x); err != nil {
		return err
	}
	if len(x) == 0 {
		return nil
	}
	if g.Sum == nil {
		g.Sum = make([]float64, g.Dim*g.Dim)
	}
	rows := len(x) / g.Dim
	values := make([]float64, len(x))
	for i, v := range x {
		values[i] = float64(v)
	}
	batch := blas64.General{Rows: rows, Cols: g.Dim, Stride: g.Dim, Data: values}
	blas64.Syrk(blas.Trans, 1, batch, 1, blas64.Symmetric{Uplo: blas.Upper, N: g.Dim, Stride: g.Dim, Data: g.Sum})
	for i := range g.Dim {
		for j := range i {
			g.Sum[i*g.Dim+j] = g.Sum[j*g.Dim+i]
		}
	}
	g.N += rows
	return nil
}

// Hessian returns (2/N) Σ x·xᵀ, [Dim, Dim]: the second derivative of the mean squared change of an output by its weights.
//
// Errors: *Error if nothing was added, or if the sums are no Gram matrix.
func (g *Gram) Hessian() ([]float64, error) {
	h, err := g.symmetric("Gram.Hessian")
	if err != nil {
		return nil, err
	}
	return full(h), nil
}

// full returns both halves of a symmetric matrix in row-major order.
func full(h *mat.SymDense) []float64 {
	n := h.SymmetricDim()
	values := make([]float64, n*n)
	for i := range n {
		for j := range n {
			values[i*n+j] = h.At(i, j)
		}
	}
	return values
}

// symmetric returns (2/N)·Sum, of each two entries that should be equal the mean: accelerators round them differently.
func (g *Gram) symmetric(method string) (*mat.SymDense, error) {
	if g.N < 1 {
		return nil, &Error{method, "the Gram matrix of at least one input", fmt.Sprintf("one of %d", g.N), "collect the layer's inputs with Gram.Add"}
	}
	if g.Dim < 1 || len(g.Sum) != g.Dim*g.Dim {
		return nil, &Error{method, fmt.Sprintf("Dim² = %d² sums", g.Dim), fmt.Sprintf("%d", len(g.Sum)), "collect the layer's inputs with Gram.Add"}
	}
	const tolerance = 1e-3 // of √(h_ii·h_jj), which bounds |h_ij|; float32 sums keep far within it
	const remedy = "collect the layer's inputs with Gram.Add or signal.Grams"
	h := mat.NewSymDense(g.Dim, nil)
	for i := range g.Dim {
		for j := range i + 1 {
			a, b := g.Sum[i*g.Dim+j], g.Sum[j*g.Dim+i]
			if v := a + b; math.IsNaN(v) || math.IsInf(v, 0) || i == j && a < 0 {
				return nil, &Error{method, "finite sums, at least 0 on the diagonal", fmt.Sprintf("%v and %v at [%d, %d]", a, b, i, j), remedy}
			}
			if bound := math.Sqrt(g.Sum[i*g.Dim+i]) * math.Sqrt(g.Sum[j*g.Dim+j]); math.Abs(a-b) > tolerance*bound && bound > 0 {
				return nil, &Error{method, "a symmetric matrix", fmt.Sprintf("%v and %v at [%d, %d]", a, b, i, j), remedy}
			}
			h.SetSym(i, j, (a/2+b/2)*2/float64(g.N))
		}
	}
	return h, nil
}

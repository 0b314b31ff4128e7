package reconstruct

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// SparseGPTConfig says what SparseGPT removes: a share, or N of M. The zero value removes nothing.
type SparseGPTConfig struct {
	Sparsity float64 // the share of the layer's weights to remove, in [0, 1)
	// N of each M consecutive inputs of an output are kept, if M is not 0; then Sparsity is 0, and M divides the number of inputs.
	N, M  int
	Block int     // how many inputs are chosen from together; 0 is 128; with N:M rounded up to a multiple of M
	Damp  float64 // the share of the mean of diag(H) to add to it, at most 1; 0 is 0.01, negative is none
	// Alive is the mask so far; nil is all alive. What is dead stays so and counts as removed. A layer that is sparser already is only rewritten.
	Alive []bool
}

// SparseGPT removes weights input by input, and makes up for each by the weights of the inputs that follow. Frantar & Alistarh 2023, arXiv:2301.00774,
// algorithm 1. With U the upper Cholesky factor of H⁻¹, the weights of a block of inputs that have the least w²/U_ii² over all outputs are removed; each that
// goes changes those of the later inputs j of its output by −(w/U_ii)·U_ij.
//
// The authors' code removes one weight more than the share in each block. Here the number is exact: up to the end of each block, the share of all weights
// until there is removed, rounded to the nearest, so that n − round(sparsity·n) of n are left. Of equal scores the earlier weight is kept. As there, an input
// that is always 0 has H_ii = 1 and weights of 0, unless nothing is to be removed at all: then no bit changes. H is computed in float64, there in float32.
//
// Errors: *Error for sizes that do not fit, values that are not finite, a Gram matrix of nothing, a sparsity outside of [0, 1) or one that leaves nothing, M
// that does not divide in, and an H that a damping of 1 makes no better.
func SparseGPT(w []float32, in, out int, g *Gram, cfg SparseGPTConfig) (Result, error) {
	const method = "SparseGPT"
	l, err := check(method, w, in, out, g, cfg.Alive)
	if err != nil {
		return Result{}, err
	}
	damp, err := damping(method, cfg.Damp)
	if err != nil {
		return Result{}, err
	}
	total, err := removed(method, in*out, cfg.Sparsity)
	if err != nil {
		return Result{}, err
	}
	if cfg.Block < 0 {
		return Result{}, &Error{method, "a block of at least 1 input", fmt.Sprint(cfg.Block), "leave Block 0 for 128"}
	}
	if err := cfg.checkNM(in); err != nil {
		return Result{}, err
	}
	dead := countDead(l.start)
	total = max(total, dead)
	if total == 0 && cfg.N == cfg.M {
		return l.unchanged(), nil
	}
	inverse, damp, err := l.inverse(damp)
	if err != nil {
		return Result{}, err
	}
	var factor mat.Cholesky
	if !factor.Factorize(inverse) {
		return Result{}, &Error{method, "an inverse that is positive definite", "one that is not, by rounding", "raise Damp"}
	}
	s := sweep{layer: l, cfg: cfg, total: total, deadAfter: dead,
		u: mat.NewTriDense(in, mat.Upper, nil), w: mat.NewDense(in, out, l.floats()), alive: slices.Clone(l.start)}
	factor.UTo(s.u)
	s.run()
	return l.result(s.w.RawMatrix().Data, s.alive, s.magnitudeMask(), damp)
}

func (cfg SparseGPTConfig) checkNM(in int) error {
	const method = "SparseGPT"
	switch {
	case cfg.M == 0 && cfg.N == 0:
		return nil
	case cfg.N < 1 || cfg.N > cfg.M:
		return &Error{method, "N:M with 1 ≤ N ≤ M", fmt.Sprintf("%d:%d", cfg.N, cfg.M), "2:4 keeps 2 of each 4 weights"}
	case in%cfg.M != 0:
		return &Error{method, fmt.Sprintf("a number of inputs that %d divides", cfg.M), fmt.Sprint(in), "take another M, or a sparsity"}
	case cfg.Sparsity != 0:
		return &Error{method, "N:M or a sparsity", fmt.Sprintf("%d:%d and %v", cfg.N, cfg.M, cfg.Sparsity), fmt.Sprintf("leave Sparsity 0: %d:%d says it", cfg.N, cfg.M)}
	}
	return nil
}

// block returns how many inputs a block has.
func (cfg SparseGPTConfig) block() int {
	block := cfg.Block
	if block == 0 {
		block = 128
	}
	if cfg.M > 0 {
		block = (block + cfg.M - 1) / cfg.M * cfg.M
	}
	return block
}

// sweep is SparseGPT on its way through the inputs.
type sweep struct {
	*layer
	cfg       SparseGPTConfig
	total     int           // how many weights are dead at the end
	gone      int           // how many are, in the blocks before
	deadAfter int           // how many were dead at the start, in this block and those after it
	u         *mat.TriDense // [in, in]
	w         *mat.Dense    // [in, out]
	alive     []bool        // [in, out]
}

func (s *sweep) run() {
	block := s.cfg.block()
	for start := 0; start < s.in; start += block {
		end := min(start+block, s.in)
		if s.cfg.M == 0 {
			s.choose(start, end)
		}
		errs := mat.NewDense(end-start, s.out, nil)
		for i := start; i < end; i++ {
			if s.cfg.M > 0 && i%s.cfg.M == 0 {
				for o := range s.out {
					removeLeast(s.alive, indices(i*s.out+o, s.out, s.cfg.M), s.score, s.cfg.M-s.cfg.N)
				}
			}
			s.compensate(i, end, errs.RawRowView(i-start))
		}
		if end < s.in { // what the block does to all inputs after it, at once
			rest := s.w.Slice(end, s.in, 0, s.out).(*mat.Dense)
			var change mat.Dense
			change.Mul(s.rows(start, end, end, s.in).T(), errs)
			rest.Sub(rest, &change)
		}
	}
}

// score is w²/U_ii², without the squares.
func (s *sweep) score(i int) float64 {
	row := i / s.out
	return math.Abs(s.w.At(row, i%s.out)) / s.u.At(row, row)
}

// choose removes from the block as many as belong to it: up to its end the share of all weights until there, but at least those that are dead already, here and
// in the blocks after it.
func (s *sweep) choose(start, end int) {
	dead := countDead(s.alive[start*s.out : end*s.out])
	s.deadAfter -= dead
	share := int(math.Round(float64(s.total) * float64(end) / float64(s.in)))
	k := max(dead, min(share-s.gone, (end-start)*s.out, s.total-s.gone-s.deadAfter))
	s.gone += k
	removeLeast(s.alive, indices(start*s.out, 1, (end-start)*s.out), s.score, k)
}

// compensate removes the dead weights of input i, writes their errors w/U_ii, and changes the inputs after it up to the block's end.
func (s *sweep) compensate(i, end int, errs []float64) {
	row, d := s.w.RawRowView(i), s.u.At(i, i)
	for o := range row {
		if !s.alive[i*s.out+o] {
			errs[o], row[o] = row[o]/d, 0
		}
	}
	for j := i + 1; j < end; j++ {
		if f := s.u.At(i, j); f != 0 {
			blas64.Axpy(-f, blas64.Vector{N: s.out, Inc: 1, Data: errs}, blas64.Vector{N: s.out, Inc: 1, Data: s.w.RawRowView(j)})
		}
	}
}

// rows returns a part of U right of its diagonal.
func (s *sweep) rows(r0, r1, c0, c1 int) *mat.Dense {
	raw := s.u.RawTriangular()
	return mat.NewDense(s.in, s.in, raw.Data).Slice(r0, r1, c0, c1).(*mat.Dense)
}

// magnitudeMask is the mask of the largest |w|: over the whole layer, or N of each M.
func (s *sweep) magnitudeMask() []bool {
	mask := slices.Clone(s.start)
	if s.cfg.M == 0 {
		removeLeast(mask, indices(0, 1, len(mask)), s.magnitude, s.total)
		return mask
	}
	for i := 0; i < s.in; i += s.cfg.M {
		for o := range s.out {
			removeLeast(mask, indices(i*s.out+o, s.out, s.cfg.M), s.magnitude, s.cfg.M-s.cfg.N)
		}
	}
	return mask
}

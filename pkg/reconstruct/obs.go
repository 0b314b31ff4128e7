package reconstruct

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"gonum.org/v1/gonum/mat"
)

// OBSConfig says what OBS removes. The zero value removes nothing.
type OBSConfig struct {
	Sparsity float64 // the share of each output's weights to remove, in [0, 1)
	Damp     float64 // the share of the mean of diag(H) to add to it, at most 1; 0 is 0.01, negative is none
	// Alive is the mask so far; nil is all alive. What is dead stays so and counts as removed. An output that is sparser already is only rewritten: with a
	// Sparsity of 0, this refits the survivors of any mask exactly.
	Alive []bool
}

// OBS is the optimal brain surgeon on one layer: for each output, it removes the weight of least w_q²/(2[H⁻¹]_qq), changes the others by
// −(w_q/[H⁻¹]_qq)·H⁻¹e_q, takes q out of H⁻¹, and goes on until in − round(sparsity·in) are left. The survivors are then those of least error for their mask.
// Hassibi & Stork 1993, equation 5; layer-wise as in Dong et al. 2017, arXiv:1705.07565, who sort once by the first scores; removed from H⁻¹ one by one and
// output by output as in Frantar & Alistarh 2022, arXiv:2208.11580, lemma 1. Of equal scores the earlier weight is kept.
//
// It costs in³ for each output and in² of memory for each core, at most: 784 inputs and 300 outputs take about a minute on two cores, where SparseGPT, which
// costs in³ + in²·out, takes a second. An input that is always 0 has H_ii = 1 and weights of 0, unless nothing is to be removed at all: then no bit changes.
//
// Errors: those of SparseGPT, but for those of N and M.
func OBS(w []float32, in, out int, g *Gram, cfg OBSConfig) (Result, error) {
	const method = "OBS"
	l, err := check(method, w, in, out, g, cfg.Alive)
	if err != nil {
		return Result{}, err
	}
	damp, err := damping(method, cfg.Damp)
	if err != nil {
		return Result{}, err
	}
	k, err := removed(method, in, cfg.Sparsity)
	if err != nil {
		return Result{}, err
	}
	if k == 0 && countDead(l.start) == 0 {
		return l.unchanged(), nil
	}
	inverse, damp, err := l.inverse(damp)
	if err != nil {
		return Result{}, err
	}
	floats, alive, magnitude := l.floats(), slices.Clone(l.start), slices.Clone(l.start)
	least := l.leastInverse(damp)
	inverseFull := full(inverse)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), out) {
		wait.Go(func() {
			s := surgeon{layer: l, inverse: make([]float64, in*in), least: least, w: make([]float64, in)}
			for o := int(next.Add(1)) - 1; o < out; o = int(next.Add(1)) - 1 { // outputs share nothing
				copy(s.inverse, inverseFull)
				s.output(floats, alive, o, k)
				removeLeast(magnitude, indices(o, out, in), l.magnitude, k)
			}
		})
	}
	wait.Wait()
	return l.result(floats, alive, magnitude, damp)
}

// leastInverse returns 1/H_ii of the damped H, below which [H⁻¹]_ii can't be, whatever was taken out of it, but by rounding.
func (l *layer) leastInverse(damp float64) []float64 {
	h := l.patched()
	mean := mat.Trace(h) / float64(l.in)
	least := make([]float64, l.in)
	for i := range least {
		least[i] = 1 / (h.At(i, i) + damp*mean)
	}
	return least
}

// surgeon removes weights of one output after the other.
type surgeon struct {
	*layer
	inverse []float64 // [in, in]; rows and columns that were removed are stale
	least   []float64 // [in]
	w       []float64 // [in]: the weights of one output
	alive   []int     // the inputs whose weights are left
}

// output removes k weights of output o, or what is dead already if that is more.
func (s *surgeon) output(w []float64, alive []bool, o, k int) {
	s.alive = indices(0, 1, s.in)
	for i := range s.w {
		s.w[i] = w[i*s.out+o]
	}
	for i := range s.in {
		if !alive[i*s.out+o] {
			s.remove(i)
		}
	}
	for len(s.alive) > s.in-k {
		least, at := math.Inf(1), 0
		for _, i := range s.alive {
			if score := math.Abs(s.w[i]) / math.Sqrt(s.at(i)); score <= least { // of equal ones the last
				least, at = score, i
			}
		}
		alive[at*s.out+o] = false
		s.remove(at)
	}
	for i, v := range s.w {
		w[i*s.out+o] = v
	}
}

// at is [H⁻¹]_ii.
func (s *surgeon) at(i int) float64 { return max(s.least[i], s.inverse[i*s.in+i]) }

// remove makes up for weight q, which the result has as 0, and takes q out of H⁻¹: H⁻¹ − H⁻¹e_q·e_qᵀH⁻¹/[H⁻¹]_qq is the inverse of H without row and column q.
func (s *surgeon) remove(q int) {
	at, _ := slices.BinarySearch(s.alive, q)
	s.alive = slices.Delete(s.alive, at, at+1)
	d, row := s.at(q), s.inverse[q*s.in:(q+1)*s.in]
	change := s.w[q] / d
	for _, i := range s.alive {
		if row[i] == 0 {
			continue
		}
		s.w[i] -= change * row[i]
		f, other := row[i]/d, s.inverse[i*s.in:(i+1)*s.in]
		for _, j := range s.alive {
			other[j] -= f * row[j]
		}
	}
}

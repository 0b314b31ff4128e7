package reconstruct

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/espalier-ml/espalier/pkg/params"
)

// LeastSquaresConfig says how LeastSquares refits.
type LeastSquaresConfig struct {
	Damp float64 // the share of the mean of diag(H) to add to it, at most 1; 0 is 0.01, negative is none
}

// LeastSquares refits the survivors after some inputs were removed from a layer, as ThiNet (Luo et al. 2017, arXiv:1707.06342, there a factor per
// channel) and channel pruning (He et al. 2017, arXiv:1707.06168) do: with S the inputs that are left and R the removed ones, W'_S = W_S + (H_SS +
// λI)⁻¹·H_SR·W_R has the least ‖WᵀX − W'ᵀX‖² + λ‖W_S − W'_S‖² (each times 2/n). The damping λ pulls to the weights as they were, not to 0, as that of OBS.
// Survivors that are always 0 keep their weights. It knows no mask: single weights of survivors that were dead come to life, so that Apply refuses its result for a layer that has some. Give the weights before
// they are masked, or use OBS, which takes a mask.
//
// removed lists inputs, rows of the weights [in, out], in any order; for the channels of a convolution, see ChannelInputs. The rows of the result that were
// removed are dead and 0, so that surgery can cut them. Nothing removed changes no bit.
//
// Errors: *Error for sizes that do not fit, values that are not finite, a Gram matrix of nothing, an input that is not there, named twice, or the last one,
// and an H that a damping of 1 makes no better.
func LeastSquares(w []float32, in, out int, g *Gram, removed []int, cfg LeastSquaresConfig) (Result, error) {
	const method = "LeastSquares"
	l, err := check(method, w, in, out, g, nil)
	if err != nil {
		return Result{}, err
	}
	damp, err := damping(method, cfg.Damp)
	if err != nil {
		return Result{}, err
	}
	gone := make([]bool, in)
	for _, i := range removed {
		if i < 0 || i >= in || gone[i] {
			return Result{}, &Error{method, fmt.Sprintf("different inputs from 0 to %d", in-1), fmt.Sprint(removed), "name each input once"}
		}
		gone[i] = true
	}
	if len(removed) == 0 {
		return l.unchanged(), nil
	}
	if len(removed) == in {
		return Result{}, &Error{method, "at least one input that is left", "none", "remove fewer inputs"}
	}
	r, s := slices.Sorted(slices.Values(removed)), make([]int, 0, in)
	for i := range in {
		if !gone[i] {
			s = append(s, i)
		}
	}
	h := l.patched()
	hss, hsr, wr := mat.NewSymDense(len(s), nil), mat.NewDense(len(s), len(r), nil), mat.NewDense(len(r), out, nil)
	for a, i := range s {
		for b := range a + 1 {
			hss.SetSym(a, b, h.At(i, s[b]))
		}
		for b, j := range r {
			hsr.Set(a, b, h.At(i, j))
		}
	}
	for b, j := range r {
		for o := range out {
			wr.Set(b, o, float64(w[j*out+o]))
		}
	}
	factor, damp, err := factorize(method, hss, damp)
	if err != nil {
		return Result{}, err
	}
	var right, change mat.Dense
	right.Mul(hsr, wr)
	if err := factor.SolveTo(&change, &right); err != nil {
		return Result{}, &Error{method, "equations that can be solved", err.Error(), "raise Damp"}
	}
	floats, alive := make([]float64, in*out), make([]bool, in*out)
	for a, i := range s {
		for o := range out {
			floats[i*out+o] = float64(w[i*out+o]) + change.At(a, o)
			alive[i*out+o] = true
		}
	}
	return l.result(floats, alive, l.largestInputs(len(r)), damp)
}

// largestInputs is the mask without the k inputs of least Σw².
func (l *layer) largestInputs(k int) []bool {
	energy, alive := make([]float64, l.in), make([]bool, l.in)
	for i, v := range l.before {
		energy[i/l.out] += float64(v) * float64(v)
		alive[i/l.out] = true
	}
	removeLeast(alive, indices(0, 1, l.in), func(i int) float64 { return energy[i] }, k)
	mask := make([]bool, l.in*l.out)
	for i := range mask {
		mask[i] = alive[i/l.out]
	}
	return mask
}

// ChannelInputs returns the rows of a parameter's weights, taken as [spatial… · in, out], that belong to input channels: for a dense layer the channels
// themselves.
//
// Errors: *Error if the axes are not […, in, out], or for a channel that is not there.
func ChannelInputs(p params.Param, channels []int) ([]int, error) {
	in, _, err := matrix("ChannelInputs", p)
	if err != nil {
		return nil, err
	}
	width := p.Shape.Dimensions[p.In]
	var rows []int
	for _, c := range channels {
		if c < 0 || c >= width {
			return nil, &Error{"ChannelInputs", fmt.Sprintf("input channels of %s from 0 to %d", p.Path, width-1), fmt.Sprint(c), "count channels from 0"}
		}
	}
	for start := 0; start < in; start += width {
		for _, c := range channels {
			rows = append(rows, start+c)
		}
	}
	return rows, nil
}

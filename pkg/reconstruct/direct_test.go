package reconstruct

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// direct is a slow implementation of what this package does, by inverting matrices from scratch at each step: no Cholesky factor, no downdate, no blocked
// update.
type direct struct {
	in, out int
	h       [][]float64 // patched and damped
	w       [][]float64 // [out][in]
}

func newDirect(t *testing.T, w []float32, in, out int, g *Gram, damp float64) *direct {
	t.Helper()
	flat, err := g.Hessian()
	if err != nil {
		t.Fatal(err)
	}
	d := &direct{in: in, out: out}
	mean := 0.0
	for i := range in {
		d.h = append(d.h, slices.Clone(flat[i*in:(i+1)*in]))
		if d.h[i][i] == 0 {
			d.h[i][i] = 1
		}
		mean += d.h[i][i] / float64(in)
	}
	for o := range out {
		row := make([]float64, in)
		for i := range in {
			if flat[i*in+i] != 0 {
				row[i] = float64(w[i*out+o])
			}
		}
		d.w = append(d.w, row)
	}
	for i := range in {
		d.h[i][i] += damp * mean
	}
	return d
}

// inverse inverts the part of H in the given rows and columns, by Gauss and Jordan.
func (d *direct) inverse(rows []int) [][]float64 {
	n := len(rows)
	a := make([][]float64, n)
	for i, r := range rows {
		a[i] = make([]float64, 2*n)
		for j, c := range rows {
			a[i][j] = d.h[r][c]
		}
		a[i][n+i] = 1
	}
	for i := range n {
		pivot := a[i][i]
		for j := range a[i] {
			a[i][j] /= pivot
		}
		for k := range n {
			if f := a[k][i]; k != i {
				for j := range a[k] {
					a[k][j] -= f * a[i][j]
				}
			}
		}
	}
	for i := range a {
		a[i] = a[i][n:]
	}
	return a
}

func from(start, end int) []int {
	var list []int
	for i := start; i < end; i++ {
		list = append(list, i)
	}
	return list
}

// sparseGPT computes what the factor of H⁻¹ stands for: the inverse of what is left of H from input i on, at each i.
func (d *direct) sparseGPT(sparsity float64, n, m, block int) (w []float64, alive []bool) {
	alive = make([]bool, d.in*d.out)
	for i := range alive {
		alive[i] = true
	}
	diagonal := make([]float64, d.in)
	for i := range d.in {
		diagonal[i] = d.inverse(from(i, d.in))[0][0]
	}
	choose := func(start, end, outFrom, outTo, k int) {
		type weight struct {
			at    int
			score float64
		}
		var list []weight
		for i := start; i < end; i++ {
			for o := outFrom; o < outTo; o++ {
				list = append(list, weight{i*d.out + o, d.w[o][i] * d.w[o][i] / diagonal[i]})
			}
		}
		slices.SortFunc(list, func(a, b weight) int { return cmp.Or(cmp.Compare(a.score, b.score), b.at-a.at) })
		for _, x := range list[:k] {
			alive[x.at] = false
		}
	}
	total, before := math.Round(sparsity*float64(d.in*d.out)), 0
	for i := range d.in {
		if m == 0 && i%block == 0 {
			end := min(i+block, d.in)
			share := int(math.Round(total * float64(end) / float64(d.in)))
			choose(i, end, 0, d.out, share-before)
			before = share
		}
		inverse := d.inverse(from(i, d.in))
		for o := range d.out {
			if m > 0 && i%m == 0 {
				choose(i, i+m, o, o+1, m-n)
			}
			if alive[i*d.out+o] {
				continue
			}
			f := d.w[o][i] / inverse[0][0]
			for j := i; j < d.in; j++ {
				d.w[o][j] -= f * inverse[0][j-i]
			}
			d.w[o][i] = 0
		}
	}
	return d.flat(), alive
}

// obs inverts H over the inputs that are left of an output, at each step.
func (d *direct) obs(k int) (w []float64, alive []bool) {
	alive = make([]bool, d.in*d.out)
	for o := range d.out {
		left := from(0, d.in)
		for range k {
			inverse := d.inverse(left)
			best, least := 0, math.Inf(1)
			for a, i := range left {
				if score := d.w[o][i] * d.w[o][i] / (2 * inverse[a][a]); score <= least {
					best, least = a, score
				}
			}
			f := d.w[o][left[best]] / inverse[best][best]
			for a, i := range left {
				d.w[o][i] -= f * inverse[best][a]
			}
			d.w[o][left[best]] = 0
			left = slices.Delete(left, best, best+1)
		}
		for _, i := range left {
			alive[i*d.out+o] = true
		}
	}
	return d.flat(), alive
}

func (d *direct) flat() []float64 {
	w := make([]float64, d.in*d.out)
	for o, row := range d.w {
		for i, v := range row {
			w[i*d.out+o] = v
		}
	}
	return w
}

// problem returns random weights [in, out] and the Gram matrix of correlated inputs; dead says which inputs are always 0.
func problem(t testing.TB, seed uint64, in, out int, dead ...int) ([]float32, *Gram) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	w := make([]float32, in*out)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	g := &Gram{Dim: in}
	for range 4 {
		x := make([]float32, 0, 3*in*in)
		for range 3 * in {
			common := r.NormFloat64()
			for i := range in {
				v := 0.7*common + r.NormFloat64()*(0.2+float64(i%5)/5)
				if slices.Contains(dead, i) {
					v = 0
				}
				x = append(x, float32(v))
			}
		}
		if err := g.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	return w, g
}

// near compares float32 weights with float64 ones.
func near(t *testing.T, name string, want []float64, got []float32, tolerance float64) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	for i := range want {
		if !(math.Abs(want[i]-float64(got[i])) <= tolerance*max(1, math.Abs(want[i]))) {
			t.Errorf("%s: value %d is %v, want %v", name, i, got[i], want[i])
		}
	}
}

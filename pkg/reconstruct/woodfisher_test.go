package reconstruct

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func inverseFisher(t testing.TB, size int, cfg FisherConfig, grads ...[]float32) *InverseFisher {
	t.Helper()
	f, err := NewInverseFisher(size, len(grads), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range grads {
		if err := f.Add(g); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestWoodFisherByHand(t *testing.T) {
	// F = I + g·gᵀ = [2 1; 1 2], as in TestByHand.
	g := []float32{1, 1}
	for _, c := range []struct {
		name       string
		block      int
		cfg        WoodFisherConfig
		want       []float64
		alive      []bool
		err, plain float64
	}{
		{"one block", 2, WoodFisherConfig{Sparsity: 0.5}, []float64{0, 3.5}, []bool{false, true}, 1.5 / 26, 2. / 26},
		{"blocks of 1", 1, WoodFisherConfig{Sparsity: 0.5}, []float64{0, 3}, []bool{false, true}, 2. / 20, 2. / 20}, // F = 2I
		{"mask given", 2, WoodFisherConfig{Alive: []bool{true, false}}, []float64{2.5, 0}, []bool{true, false}, 13.5 / 26, 18. / 26},
	} {
		r, err := WoodFisher([]float32{1, 3}, inverseFisher(t, 2, FisherConfig{Block: c.block, Damp: 1}, g), c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		near(t, c.name, c.want, r.Weights, 1e-6)
		if diff := cmp.Diff(c.alive, r.Alive); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", c.name, diff)
		}
		if math.Abs(r.Error-c.err) > 1e-7 || math.Abs(r.MagnitudeError-c.plain) > 1e-7 || r.Damp != 0 {
			t.Errorf("%s: errors %v and %v, damping %v; want %v, %v and 0", c.name, r.Error, r.MagnitudeError, r.Damp, c.err, c.plain)
		}
	}
}

// Each block of the inverse is that of λI + (1/N) Σ g·gᵀ, also the last one, which is smaller; and its diagonal and update are those of direct inversion.
func TestInverseFisherAgainstDirect(t *testing.T) {
	const size, block, n, damp = 11, 4, 30, 1e-3
	r := rand.New(rand.NewPCG(1, 0))
	var grads [][]float32
	for range n {
		g, common := make([]float32, size), r.NormFloat64()
		for i := range g {
			g[i] = float32(common + r.NormFloat64())
		}
		grads = append(grads, g)
	}
	grads[3] = make([]float32, size) // an example that is learnt perfectly
	w := make([]float32, size)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	f := inverseFisher(t, size, FisherConfig{Block: block, Damp: damp}, grads...)
	res, err := WoodFisher(w, f, WoodFisherConfig{Sparsity: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if got := countDead(res.Alive); got != 6 { // 5.5, halves away from zero
		t.Errorf("%d dead, want 6", got)
	}
	if !(res.Error < res.MagnitudeError) {
		t.Errorf("error %v, of magnitude %v", res.Error, res.MagnitudeError)
	}
	diagonal := f.Diagonal()
	var worstDead, leastAlive = 0., math.Inf(1)
	for start := 0; start < size; start += block {
		b := min(block, size-start)
		d := &direct{in: b}
		for i := range b {
			d.h = append(d.h, make([]float64, b))
			for j := range b {
				for _, g := range grads {
					d.h[i][j] += float64(g[start+i]) * float64(g[start+j]) / n
				}
			}
			d.h[i][i] += damp
		}
		inverse := d.inverse(from(0, b))
		var left []int
		for i := range b {
			if want := inverse[i][i]; math.Abs(diagonal[start+i]-want) > 1e-9*want {
				t.Errorf("diagonal %d is %v, want %v", start+i, diagonal[start+i], want)
			}
			score := float64(w[start+i]) * float64(w[start+i]) / inverse[i][i]
			if res.Alive[start+i] {
				left, leastAlive = append(left, i), min(leastAlive, score)
			} else {
				worstDead = max(worstDead, score)
			}
		}
		// With F itself: the survivors S change by F_SS⁻¹·F_SQ·w_Q.
		small := d.inverse(left)
		for a, i := range left {
			want := float64(w[start+i])
			for c, j := range left {
				for q := range b {
					if !res.Alive[start+q] {
						want += small[a][c] * d.h[j][q] * float64(w[start+q])
					}
				}
			}
			near(t, "survivor", []float64{want}, res.Weights[start+i:start+i+1], 1e-5)
		}
	}
	if worstDead > leastAlive {
		t.Errorf("a weight of score %v is dead, one of %v is alive", worstDead, leastAlive)
	}
}

func TestWoodFisherChangesNoBitAtSparsity0(t *testing.T) {
	w := []float32{float32(math.Copysign(0, -1)), 3}
	r, err := WoodFisher(w, inverseFisher(t, 2, FisherConfig{}, []float32{1, 1}), WoodFisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if math.Float32bits(r.Weights[0]) != math.Float32bits(w[0]) || r.Weights[1] != 3 || countDead(r.Alive) != 0 || r.Error != 0 {
		t.Errorf("%+v, want %v unchanged", r, w)
	}
}

// Dead weights are 0 to the bit, not only to rounding.
func TestWoodFisherDeadAreZero(t *testing.T) {
	const size = 20
	r := rand.New(rand.NewPCG(1, 2))
	normal := func() []float32 {
		x := make([]float32, size)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		return x
	}
	var grads [][]float32
	for range 30 {
		grads = append(grads, normal())
	}
	res, err := WoodFisher(normal(), inverseFisher(t, size, FisherConfig{Block: 10, Damp: 1e-3}, grads...), WoodFisherConfig{Sparsity: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	for i, alive := range res.Alive {
		if !alive && math.Float32bits(res.Weights[i]) != 0 {
			t.Errorf("the dead weight %d is %v", i, res.Weights[i])
		}
	}
	if got := countDead(res.Alive); got != size/2 {
		t.Errorf("%d dead, want %d", got, size/2)
	}
}

func TestBadInverseFisher(t *testing.T) {
	fails := func(what string, err error) {
		t.Helper()
		var typed *Error
		if !errors.As(err, &typed) {
			t.Errorf("%s: %v, want an *Error", what, err)
		}
	}
	for name, c := range map[string]struct {
		size, n int
		cfg     FisherConfig
	}{
		"no weights": {0, 1, FisherConfig{}}, "no gradients": {1, 0, FisherConfig{}},
		"negative block": {1, 1, FisherConfig{Block: -1}}, "negative damping": {1, 1, FisherConfig{Damp: -1}},
		"NaN": {1, 1, FisherConfig{Damp: math.NaN()}}, "infinity": {1, 1, FisherConfig{Damp: math.Inf(1)}}, "too small": {1, 1, FisherConfig{Damp: 1e-310}},
	} {
		_, err := NewInverseFisher(c.size, c.n, c.cfg)
		fails(name, err)
	}
	f, err := NewInverseFisher(3, 1, FisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	w := []float32{1, 2, 3}
	_, err = WoodFisher(w, f, WoodFisherConfig{Sparsity: 0.4})
	fails("gradients still to come", err)
	fails("a short gradient", f.Add(w[:2]))
	fails("NaN", f.Add([]float32{1, float32(math.NaN()), 1}))
	for i, d := range f.Diagonal() {
		if math.Abs(d-1e5) > 1e-9 {
			t.Errorf("diagonal %d is %v, want 1/λ: nothing was added", i, d)
		}
	}
	if err := f.Add(w); err != nil {
		t.Fatal(err)
	}
	fails("one gradient too many", f.Add(w))
	for name, c := range map[string]struct {
		w   []float32
		f   *InverseFisher
		cfg WoodFisherConfig
	}{
		"no matrix": {w, nil, WoodFisherConfig{Sparsity: 0.4}}, "too few weights": {w[:2], f, WoodFisherConfig{Sparsity: 0.4}},
		"a short mask": {w, f, WoodFisherConfig{Alive: make([]bool, 2)}},
		"infinity":     {[]float32{1, float32(math.Inf(1)), 1}, f, WoodFisherConfig{}}, "sparsity 1": {w, f, WoodFisherConfig{Sparsity: 1}},
		"sparsity NaN": {w, f, WoodFisherConfig{Sparsity: math.NaN()}},
		"nothing left": {w, f, WoodFisherConfig{Sparsity: 0.9}},
	} {
		_, err := WoodFisher(c.w, c.f, c.cfg)
		fails(name, err)
	}
	_, _, err = f.Update(w, make([]bool, 2))
	fails("Update with a short mask", err)
}

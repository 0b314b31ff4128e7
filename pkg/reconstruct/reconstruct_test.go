package reconstruct

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/signal"
)

var _ = (*Gram)((*signal.Gram)(nil)) // what signal collects converts

// twoByTwo is a Gram matrix with H = [2 1; 1 2], whose inverse is [2 −1; −1 2]/3.
func twoByTwo() *Gram { return &Gram{Dim: 2, N: 2, Sum: []float64{2, 1, 1, 2}} }

// byHand has the outputs (1, 3) and (4, 1): WᵀHW is 26 and 42.
var byHand = []float32{1, 4, 3, 1}

const exactly = -1 // no damping

func TestByHand(t *testing.T) {
	g := twoByTwo()
	for _, c := range []struct {
		name  string
		run   func() (Result, error)
		want  []float64
		alive []bool
		err   float64 // · 68
		plain float64 // · 68
	}{
		// U_00² = 2/3, U_11² = 1/2: w²/U² is 1.5 and 18 for the first output, 24 and 2 for the second. The first loses weight 0, and 1/(2/3)·(−1/3) goes to
		// weight 1; the second loses weight 1, after which nothing comes.
		{"SparseGPT", func() (Result, error) {
			return SparseGPT(byHand, 2, 2, g, SparseGPTConfig{Sparsity: 0.5, Damp: exactly})
		},
			[]float64{0, 4, 3.5, 0}, []bool{false, true, true, false}, 1.5 + 2, 2 + 2},
		{"SparseGPT 1:2", func() (Result, error) { return SparseGPT(byHand, 2, 2, g, SparseGPTConfig{N: 1, M: 2, Damp: exactly}) },
			[]float64{0, 4, 3.5, 0}, []bool{false, true, true, false}, 1.5 + 2, 2 + 2},
		// Blocks of one input: of the first, 1 of 2 goes; of the second, (3.5, 1), the 1.
		{"SparseGPT, blocks of 1", func() (Result, error) {
			return SparseGPT(byHand, 2, 2, g, SparseGPTConfig{Sparsity: 0.5, Block: 1, Damp: exactly})
		}, []float64{0, 4, 3.5, 0}, []bool{false, true, true, false}, 1.5 + 2, 2 + 2},
		// The mask says what goes: the whole second input, which comes last.
		{"SparseGPT, mask given", func() (Result, error) {
			return SparseGPT(byHand, 2, 2, g, SparseGPTConfig{Alive: []bool{true, true, false, false}, Damp: exactly})
		}, []float64{1, 4, 0, 0}, []bool{true, true, false, false}, 18 + 2, 18 + 2},
		// w²/(2[H⁻¹]_qq) is w²·3/4; what is left gets half of what went.
		{"OBS", func() (Result, error) { return OBS(byHand, 2, 2, g, OBSConfig{Sparsity: 0.5, Damp: exactly}) },
			[]float64{0, 4.5, 3.5, 0}, []bool{false, true, true, false}, 1.5 + 1.5, 2 + 2},
		{"OBS, mask given", func() (Result, error) {
			return OBS(byHand, 2, 2, g, OBSConfig{Alive: []bool{true, true, false, false}, Damp: exactly})
		}, []float64{2.5, 4.5, 0, 0}, []bool{true, true, false, false}, 18 - 4.5 + 1.5, 18 + 2},
		// Σw² is 17 for input 0, 10 for input 1.
		{"LeastSquares", func() (Result, error) {
			return LeastSquares(byHand, 2, 2, g, []int{0}, LeastSquaresConfig{Damp: exactly})
		}, []float64{0, 0, 3.5, 3}, []bool{false, false, true, true}, 1.5 + 24, 18 + 2},
		// λ = 0.5 · 2 (H_11 is all that is inverted): (2 + 1)⁻¹·1·W_0.
		{"LeastSquares, damped", func() (Result, error) {
			return LeastSquares(byHand, 2, 2, g, []int{0}, LeastSquaresConfig{Damp: 0.5})
		}, []float64{0, 0, 3 + 1./3, 1 + 4./3}, []bool{false, false, true, true}, (2 - 2./3 + 2./9) * 17, 18 + 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := c.run()
			if err != nil {
				t.Fatal(err)
			}
			near(t, "weights", c.want, r.Weights, 1e-6)
			if diff := cmp.Diff(c.alive, r.Alive); diff != "" {
				t.Errorf("alive (-want +got):\n%s", diff)
			}
			if math.Abs(r.Error-c.err/68) > 1e-7 || math.Abs(r.MagnitudeError-c.plain/68) > 1e-7 {
				t.Errorf("errors %v and %v, want %v and %v", r.Error, r.MagnitudeError, c.err/68, c.plain/68)
			}
			if again, err := RelativeError(byHand, r.Weights, 2, 2, g); err != nil || again != r.Error {
				t.Errorf("RelativeError: %v, %v; want %v", again, err, r.Error)
			}
		})
	}
}

// Magnitude removes the input of least Σw²: with H = I that is input 1 with 8 of 17, although its Σ|w| is 4 and that of input 0 is 3.
func TestLeastSquaresMagnitudeIsBySquares(t *testing.T) {
	g := &Gram{Dim: 2, N: 2, Sum: []float64{1, 0, 0, 1}}
	r, err := LeastSquares([]float32{3, 0, 2, 2}, 2, 2, g, []int{0}, LeastSquaresConfig{Damp: exactly})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(r.Error-9./17) > 1e-12 || math.Abs(r.MagnitudeError-8./17) > 1e-12 {
		t.Errorf("errors %v and %v, want 9/17 and 8/17", r.Error, r.MagnitudeError)
	}
}

func TestAgainstDirect(t *testing.T) {
	const in, out, damp = 12, 5, 0.01
	w, g := problem(t, 1, in, out, 4)
	compare := func(t *testing.T, r Result, err error, want []float64, alive []bool) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(alive, r.Alive); diff != "" {
			t.Errorf("alive (-want +got):\n%s", diff)
		}
		near(t, "weights", want, r.Weights, 1e-6)
	}
	for _, c := range []SparseGPTConfig{{Sparsity: 0.5}, {Sparsity: 0.3, Block: 5}, {Sparsity: 0.77, Block: 4}, {Sparsity: 0.5, Block: 1},
		{N: 2, M: 4}, {N: 1, M: 4, Block: 4}, {N: 2, M: 3, Block: 4}, {N: 1, M: 4, Block: 3}, {N: 3, M: 6, Block: 4}} {
		t.Run(fmt.Sprintf("SparseGPT %+v", c), func(t *testing.T) {
			want, alive := newDirect(t, w, in, out, g, damp).sparseGPT(c.Sparsity, c.N, c.M, c.block())
			r, err := SparseGPT(w, in, out, g, c)
			compare(t, r, err, want, alive)
		})
	}
	for _, k := range []int{1, 6, 11} {
		t.Run(fmt.Sprintf("OBS, %d removed", k), func(t *testing.T) {
			want, alive := newDirect(t, w, in, out, g, damp).obs(k)
			r, err := OBS(w, in, out, g, OBSConfig{Sparsity: float64(k) / in})
			compare(t, r, err, want, alive)
			if r.Damp != damp {
				t.Errorf("damping %v, want %v", r.Damp, damp)
			}
		})
	}
	t.Run("LeastSquares is OBS with whole inputs dead", func(t *testing.T) {
		w, g := problem(t, 2, in, out)
		gone := []int{7, 0, 3}
		r, err := LeastSquares(w, in, out, g, gone, LeastSquaresConfig{Damp: exactly})
		if err != nil {
			t.Fatal(err)
		}
		same, err := OBS(w, in, out, g, OBSConfig{Alive: r.Alive, Damp: exactly})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r.Alive, same.Alive); diff != "" || countDead(r.Alive) != 3*out {
			t.Errorf("%d dead, want %d (-want +got):\n%s", countDead(r.Alive), 3*out, diff)
		}
		for i, v := range r.Weights {
			near(t, "weights", []float64{float64(v)}, same.Weights[i:i+1], 1e-6)
		}
	})
}

// N:M chooses from weights that all inputs before the group have changed, wherever blocks end.
func TestBlocksDoNotCutGroups(t *testing.T) {
	const in, out = 24, 16
	for seed := range uint64(4) {
		w, g := problem(t, seed, in, out)
		want, err := SparseGPT(w, in, out, g, SparseGPTConfig{N: 2, M: 4})
		if err != nil {
			t.Fatal(err)
		}
		for block := 1; block < in; block++ {
			got, err := SparseGPT(w, in, out, g, SparseGPTConfig{N: 2, M: 4, Block: block})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.Alive, got.Alive); diff != "" {
				t.Errorf("seed %d, blocks of %d (-want +got):\n%s", seed, block, diff)
			}
		}
	}
}

func TestLessErrorThanMagnitude(t *testing.T) {
	const in, out = 48, 16
	for seed := range uint64(5) {
		w, g := problem(t, seed, in, out)
		for _, sparsity := range []float64{0.25, 0.5, 0.75} {
			gpt, err := SparseGPT(w, in, out, g, SparseGPTConfig{Sparsity: sparsity})
			if err != nil {
				t.Fatal(err)
			}
			// N:M with M = in removes as many weights of each output, as OBS does; without that the two choose among different weights.
			even, err := SparseGPT(w, in, out, g, SparseGPTConfig{N: in - int(sparsity*in), M: in})
			if err != nil {
				t.Fatal(err)
			}
			obs, err := OBS(w, in, out, g, OBSConfig{Sparsity: sparsity})
			if err != nil {
				t.Fatal(err)
			}
			if !(gpt.Error < gpt.MagnitudeError && even.Error < even.MagnitudeError && obs.Error <= even.Error) || obs.MagnitudeError != even.MagnitudeError {
				t.Errorf("seed %d, sparsity %v: OBS %v (magnitude %v), SparseGPT per output %v (%v), per layer %v (%v)",
					seed, sparsity, obs.Error, obs.MagnitudeError, even.Error, even.MagnitudeError, gpt.Error, gpt.MagnitudeError)
			}
		}
	}
}

// The survivors of OBS are stationary: no change of one of them lessens the damped error.
func TestSurvivorsAreOptimal(t *testing.T) {
	const in, out = 20, 3
	w, g := problem(t, 3, in, out)
	r, err := OBS(w, in, out, g, OBSConfig{Sparsity: 0.6, Damp: exactly})
	if err != nil {
		t.Fatal(err)
	}
	h, err := g.Hessian()
	if err != nil {
		t.Fatal(err)
	}
	for o := range out {
		for i := range in {
			gradient, scale := 0.0, 0.0
			for j := range in {
				term := h[i*in+j] * (float64(w[j*out+o]) - float64(r.Weights[j*out+o]))
				gradient, scale = gradient+term, scale+math.Abs(term)
			}
			if r.Alive[i*out+o] && math.Abs(gradient) > 1e-5*scale {
				t.Errorf("weight [%d, %d]: the error's slope is %v, of terms of %v", i, o, gradient, scale)
			}
		}
	}
}

// Without correlations there is nothing to make up for.
func TestUncorrelatedInputsAreMagnitude(t *testing.T) {
	const in, out = 16, 6
	w, _ := problem(t, 4, in, out)
	g := &Gram{Dim: in, N: 2, Sum: make([]float64, in*in)}
	for i := range in {
		g.Sum[i*in+i] = 1
	}
	for name, run := range map[string]func() (Result, error){
		"SparseGPT":     func() (Result, error) { return SparseGPT(w, in, out, g, SparseGPTConfig{Sparsity: 0.4}) },
		"SparseGPT 2:4": func() (Result, error) { return SparseGPT(w, in, out, g, SparseGPTConfig{N: 2, M: 4}) },
		"OBS":           func() (Result, error) { return OBS(w, in, out, g, OBSConfig{Sparsity: 0.4}) },
	} {
		r, err := run()
		if err != nil {
			t.Fatal(err)
		}
		if r.Error != r.MagnitudeError || r.Error == 0 {
			t.Errorf("%s: error %v, want that of magnitude, %v", name, r.Error, r.MagnitudeError)
		}
		for i, alive := range r.Alive {
			if alive && r.Weights[i] != w[i] || !alive && r.Weights[i] != 0 {
				t.Errorf("%s: weight %d, alive %t, went from %v to %v", name, i, alive, w[i], r.Weights[i])
			}
		}
		if name == "SparseGPT" {
			want := math.Inf(1)
			for i, alive := range r.Alive {
				if alive {
					want = min(want, math.Abs(float64(w[i])))
				}
			}
			for i, alive := range r.Alive {
				if !alive && math.Abs(float64(w[i])) > want {
					t.Errorf("%v is dead, %v is alive", w[i], want)
				}
			}
		}
	}
	same := make([]float32, in*out) // all equal: the earlier are kept
	for i := range same {
		same[i] = 1
	}
	r, err := SparseGPT(same, in, out, g, SparseGPTConfig{Sparsity: 0.25})
	if err != nil {
		t.Fatal(err)
	}
	if at := slices.Index(r.Alive, false); at != in*out*3/4 || countDead(r.Alive) != in*out/4 {
		t.Errorf("of equal weights %d are dead from %d on, want the last quarter", countDead(r.Alive), at)
	}
	if r, err = OBS(same, in, out, g, OBSConfig{Sparsity: 0.25}); err != nil {
		t.Fatal(err)
	}
	if at := slices.Index(r.Alive, false); at != in*out*3/4 || countDead(r.Alive) != in*out/4 {
		t.Errorf("OBS: of equal weights %d are dead from %d on, want the last quarter", countDead(r.Alive), at)
	}
}

func TestCountIsExact(t *testing.T) {
	const in, out = 14, 3
	w, g := problem(t, 5, in, out, 2, 9)
	for _, block := range []int{0, 1, 3, 5, 14} {
		for k := range in * out {
			sparsity := float64(k) / (in * out)
			r, err := SparseGPT(w, in, out, g, SparseGPTConfig{Sparsity: sparsity, Block: block})
			if err != nil {
				t.Fatal(err)
			}
			if got := countDead(r.Alive); got != k {
				t.Errorf("sparsity %v, block %d: %d dead, want %d", sparsity, block, got, k)
			}
			// In rounds: what is dead stays dead, wherever it lies.
			next, err := SparseGPT(r.Weights, in, out, g, SparseGPTConfig{Sparsity: max(sparsity, 0.6), Block: block, Alive: r.Alive})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := countDead(next.Alive), max(k, 25); got != want { // 0.6 · 42 = 25.2
				t.Errorf("second round, sparsity %v, block %d: %d dead, want %d", max(sparsity, 0.6), block, got, want)
			}
			for i, alive := range next.Alive {
				if alive && !r.Alive[i] {
					t.Fatalf("second round, sparsity %v, block %d: weight %d is alive again", sparsity, block, i)
				}
			}
		}
	}
	for k := range in {
		r, err := OBS(w, in, out, g, OBSConfig{Sparsity: float64(k) / in})
		if err != nil {
			t.Fatal(err)
		}
		for o := range out {
			n := 0
			for i := range in {
				if !r.Alive[i*out+o] {
					n++
				}
			}
			if n != k {
				t.Errorf("OBS: output %d lost %d weights, want %d", o, n, k)
			}
		}
	}
}

// A mask that is all in the last block leaves room for it in those before.
func TestMaskSoFarInTheLastBlock(t *testing.T) {
	const in, out = 8, 2
	w, g := problem(t, 6, in, out)
	alive := make([]bool, in*out)
	for i := range alive {
		alive[i] = i < 9
	}
	r, err := SparseGPT(w, in, out, g, SparseGPTConfig{Sparsity: 0.5, Block: 2, Alive: alive})
	if err != nil {
		t.Fatal(err)
	}
	if got := countDead(r.Alive); got != 8 {
		t.Errorf("%d dead, want 8", got)
	}
	if !r.Alive[0] || countDead(alive) != 7 {
		t.Error("the share of the first blocks is spent on what is dead in the last, and the mask given is not changed")
	}
	for i := 9; i < len(alive); i++ {
		if r.Alive[i] || r.Weights[i] != 0 {
			t.Errorf("weight %d is alive again: %v", i, r.Weights[i])
		}
	}
}

func TestNothingToRemoveChangesNoBit(t *testing.T) {
	const in, out = 6, 2
	w, g := problem(t, 7, in, out, 1)
	w[0] = float32(math.Copysign(0, -1))
	for name, run := range map[string]func() (Result, error){
		"SparseGPT":     func() (Result, error) { return SparseGPT(w, in, out, g, SparseGPTConfig{}) },
		"SparseGPT 4:4": func() (Result, error) { return SparseGPT(w, in, out, g, SparseGPTConfig{N: 3, M: 3}) },
		"OBS":           func() (Result, error) { return OBS(w, in, out, g, OBSConfig{Sparsity: 0.01}) },
		"LeastSquares":  func() (Result, error) { return LeastSquares(w, in, out, g, nil, LeastSquaresConfig{}) },
	} {
		r, err := run()
		if err != nil {
			t.Fatal(err)
		}
		if r.Error != 0 || r.MagnitudeError != 0 || len(r.Alive) != in*out || countDead(r.Alive) != 0 {
			t.Errorf("%s: %+v", name, r)
		}
		for i := range w {
			if math.Float32bits(r.Weights[i]) != math.Float32bits(w[i]) {
				t.Errorf("%s: weight %d is %v, was %v", name, i, r.Weights[i], w[i])
			}
		}
		if r.Weights[0] = 1; w[0] == 1 {
			t.Errorf("%s: the result is the input", name)
		}
	}
}

func TestDeterminism(t *testing.T) {
	const in, out = 200, 40
	w, g := problem(t, 8, in, out, 17)
	before := slices.Clone(w)
	run := func() [2]Result {
		gpt, err := SparseGPT(w, in, out, g, SparseGPTConfig{Sparsity: 0.7})
		if err != nil {
			t.Fatal(err)
		}
		obs, err := OBS(w, in, out, g, OBSConfig{Sparsity: 0.7})
		if err != nil {
			t.Fatal(err)
		}
		return [2]Result{gpt, obs}
	}
	want := run()
	for range 3 {
		if diff := cmp.Diff(want, run()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	if !slices.Equal(before, w) {
		t.Error("the weights that were given have changed")
	}
}

// An input that is always 0 keeps its weight, and does not make H one that needs damping.
func TestDeadInputNeedsNoDamping(t *testing.T) {
	g := &Gram{Dim: 3}
	if err := g.Add([]float32{1, 1, 0, 1, -1, 0}); err != nil {
		t.Fatal(err)
	}
	r, err := LeastSquares([]float32{2, 3, 5}, 3, 1, g, []int{1}, LeastSquaresConfig{Damp: exactly})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float32{2, 0, 5}, r.Weights); diff != "" || r.Damp != 0 {
		t.Errorf("damping %v, want 0; weights (-want +got):\n%s", r.Damp, diff)
	}
}

func TestIllConditioned(t *testing.T) {
	const in, out = 6, 2
	w, _ := problem(t, 9, in, out)
	g := &Gram{Dim: in}
	if err := g.Add([]float32{1, 2, 3, 4, 5, 6}); err != nil { // one example: H has rank 1
		t.Fatal(err)
	}
	for name, run := range map[string]func(damp float64) (Result, error){
		"SparseGPT": func(damp float64) (Result, error) {
			return SparseGPT(w, in, out, g, SparseGPTConfig{Sparsity: 0.5, Damp: damp})
		},
		"OBS": func(damp float64) (Result, error) {
			return OBS(w, in, out, g, OBSConfig{Sparsity: 0.5, Damp: damp})
		},
		"LeastSquares": func(damp float64) (Result, error) {
			return LeastSquares(w, in, out, g, []int{1, 2}, LeastSquaresConfig{Damp: damp})
		},
	} {
		for _, c := range []struct{ damp, want float64 }{{0, 0.01}, {0.1, 0.1}, {-1, 1e-8}, {1e-13, 1e-8}} {
			r, err := run(c.damp)
			if err != nil {
				t.Fatalf("%s, damping %v: %v", name, c.damp, err)
			}
			if r.Damp != c.want || !(r.Error >= 0 && r.Error < r.MagnitudeError) {
				t.Errorf("%s, damping %v: raised to %v, want %v; error %v, of magnitude %v", name, c.damp, r.Damp, c.want, r.Error, r.MagnitudeError)
			}
		}
	}
	// Sums in float32 may leave an eigenvalue below 0: here −5e-6, where the mean of the diagonal is 1.
	rough := &Gram{Dim: 2, N: 2, Sum: []float64{1, 1 + 5e-6, 1 + 5e-6, 1}}
	for _, c := range []struct{ damp, want float64 }{{-1, 1e-5}, {2e-7, 2e-5}, {2e-5, 2e-5}} {
		r, err := OBS([]float32{1, 3}, 2, 1, rough, OBSConfig{Sparsity: 0.5, Damp: c.damp})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r.Damp/c.want-1) > 1e-12 {
			t.Errorf("damping %v was raised to %v, want %v", c.damp, r.Damp, c.want)
		}
		near(t, "weights", []float64{0, 4}, r.Weights, 1e-4)
	}
	none := &Gram{Dim: in, N: 1, Sum: make([]float64, in*in)} // inputs that were all 0
	r, err := SparseGPT(w, in, out, none, SparseGPTConfig{Sparsity: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if r.Error != 0 || countDead(r.Alive) != in*out/2 {
		t.Errorf("inputs of 0: error %v, %d dead; want 0 and %d", r.Error, countDead(r.Alive), in*out/2)
	}
	if e, err := RelativeError(w, r.Weights, in, out, none); err != nil || e != 0 {
		t.Errorf("inputs of 0: %v, %v; want 0", e, err)
	}
}

func TestBadInput(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	w, g := byHand, twoByTwo()
	for name, run := range map[string]func(w []float32, in, out int, g *Gram, alive []bool, sparsity, damp float64) (Result, error){
		"SparseGPT": func(w []float32, in, out int, g *Gram, alive []bool, sparsity, damp float64) (Result, error) {
			return SparseGPT(w, in, out, g, SparseGPTConfig{Sparsity: sparsity, Damp: damp, Alive: alive})
		},
		"OBS": func(w []float32, in, out int, g *Gram, alive []bool, sparsity, damp float64) (Result, error) {
			return OBS(w, in, out, g, OBSConfig{Sparsity: sparsity, Damp: damp, Alive: alive})
		},
		"LeastSquares": func(w []float32, in, out int, g *Gram, alive []bool, sparsity, damp float64) (Result, error) {
			switch {
			case len(alive) == 3:
				return LeastSquares(w, in, out, g, []int{0, 0}, LeastSquaresConfig{Damp: damp})
			case sparsity == 0.9:
				return LeastSquares(w, in, out, g, []int{0, 1}, LeastSquaresConfig{Damp: damp})
			case sparsity < 0:
				return LeastSquares(w, in, out, g, []int{-1}, LeastSquaresConfig{Damp: damp})
			case sparsity != 0.5:
				return LeastSquares(w, in, out, g, []int{2}, LeastSquaresConfig{Damp: damp})
			}
			return LeastSquares(w, in, out, g, []int{0}, LeastSquaresConfig{Damp: damp})
		},
	} {
		for _, c := range []struct {
			name     string
			w        []float32
			in, out  int
			g        *Gram
			alive    []bool
			sparsity float64
			damp     float64
		}{
			{"too few weights", w[:3], 2, 2, g, nil, 0.5, 0},
			{"no inputs", nil, 0, 2, g, nil, 0.5, 0},
			{"negative sizes", w, -2, -2, g, nil, 0.5, 0},
			{"NaN", []float32{1, nan, 2, 3}, 2, 2, g, nil, 0.5, 0},
			{"infinity", []float32{1, inf, 2, 3}, 2, 2, g, nil, 0.5, 0},
			{"no Gram matrix", w, 2, 2, nil, nil, 0.5, 0},
			{"a Gram matrix of nothing", w, 2, 2, &Gram{Dim: 2}, nil, 0.5, 0},
			{"a Gram matrix of no examples", w, 2, 2, &Gram{Dim: 2, Sum: []float64{1, 0, 0, 1}}, nil, 0.5, 0},
			{"a Gram matrix of other inputs", w, 2, 2, &Gram{Dim: 1, N: 1, Sum: []float64{1}}, nil, 0.5, 0},
			{"half a Gram matrix", w, 2, 2, &Gram{Dim: 2, N: 1, Sum: []float64{1, 0}}, nil, 0.5, 0},
			{"NaN in the Gram matrix", w, 2, 2, &Gram{Dim: 2, N: 1, Sum: []float64{1, math.NaN(), math.NaN(), 1}}, nil, 0.5, 0},
			{"infinity in the Gram matrix", w, 2, 2, &Gram{Dim: 2, N: 1, Sum: []float64{math.Inf(1), 0, 0, 1}}, nil, 0.5, 0},
			{"a negative square", w, 2, 2, &Gram{Dim: 2, N: 1, Sum: []float64{-1, 0, 0, 1}}, nil, 0.5, 0},
			{"no symmetry", w, 2, 2, &Gram{Dim: 2, N: 1, Sum: []float64{1, 0.5, -0.5, 1}}, nil, 0.5, 0},
			{"a short mask", w, 2, 2, g, make([]bool, 3), 0.5, 0},
			{"negative sparsity", w, 2, 2, g, nil, -0.1, 0},
			{"sparsity 1", w, 2, 2, g, nil, 1, 0},
			{"sparsity NaN", w, 2, 2, g, nil, math.NaN(), 0},
			{"nothing left", w, 2, 2, g, nil, 0.9, 0},
			{"damping NaN", w, 2, 2, g, nil, 0.5, math.NaN()},
			{"damping above 1", w, 2, 2, g, nil, 0.5, 1.5},
		} {
			r, err := run(c.w, c.in, c.out, c.g, c.alive, c.sparsity, c.damp)
			var typed *Error
			if !errors.As(err, &typed) || r.Weights != nil {
				t.Errorf("%s, %s: %+v, %v; want an *Error", name, c.name, r, err)
				continue
			}
			if typed.Method != name || typed.Expected == "" || typed.Got == "" || typed.Remedy == "" {
				t.Errorf("%s, %s: %#v", name, c.name, typed)
			}
		}
	}
	for name, cfg := range map[string]SparseGPTConfig{
		"5 of 4": {N: 5, M: 4}, "M does not divide": {N: 1, M: 3}, "N without M": {N: 2}, "M without N": {M: 2},
		"negative": {N: -1, M: 2}, "both": {N: 1, M: 2, Sparsity: 0.5}, "negative block": {Sparsity: 0.5, Block: -1},
	} {
		var typed *Error
		if r, err := SparseGPT(w, 2, 2, g, cfg); !errors.As(err, &typed) || r.Weights != nil {
			t.Errorf("%s: %+v, %v; want an *Error", name, r, err)
		}
	}
	// No Gram matrix: the eigenvalues are 11 and −9.
	var typed *Error
	if _, err := SparseGPT(w, 2, 2, &Gram{Dim: 2, N: 2, Sum: []float64{1, 10, 10, 1}}, SparseGPTConfig{Sparsity: 0.5}); !errors.As(err, &typed) {
		t.Errorf("an indefinite matrix: %v, want an *Error", err)
	}
	// What makes up for a weight may be more than float32 holds.
	big := []float32{3e38, 3e38}
	if _, err := OBS(big, 2, 1, twoByTwo(), OBSConfig{Sparsity: 0.5}); !errors.As(err, &typed) {
		t.Errorf("an overflow: %v, want an *Error", err)
	}
	if _, err := RelativeError(w, w[:2], 2, 2, g); !errors.As(err, &typed) {
		t.Errorf("RelativeError of other weights: %v, want an *Error", err)
	}
	if _, err := RelativeError(w, []float32{nan, 0, 0, 0}, 2, 2, g); !errors.As(err, &typed) {
		t.Errorf("RelativeError of NaN: %v, want an *Error", err)
	}
}

func TestGram(t *testing.T) {
	g := &Gram{Dim: 2}
	for _, x := range [][]float32{{1, 2, 3, -1}, nil, {0, 1}} {
		if err := g.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(&Gram{Dim: 2, N: 3, Sum: []float64{10, -1, -1, 6}}, g); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	h, err := g.Hessian()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{20. / 3, -2. / 3, -2. / 3, 4} {
		if math.Abs(h[i]-want) > 1e-15 {
			t.Errorf("H[%d] is %v, want %v", i, h[i], want)
		}
	}
	var typed *Error
	for name, x := range map[string][]float32{"half a row": {1}, "NaN": {1, float32(math.NaN())}, "infinity": {float32(math.Inf(-1)), 1}} {
		if err := g.Add(x); !errors.As(err, &typed) || g.N != 3 || g.Sum[0] != 10 {
			t.Errorf("%s: %v, %+v; want an *Error and no change", name, err, g)
		}
	}
	if err := new(Gram).Add([]float32{1}); !errors.As(err, &typed) {
		t.Errorf("no Dim: %v, want an *Error", err)
	}
	if _, err := (&Gram{Dim: 2}).Hessian(); !errors.As(err, &typed) {
		t.Errorf("nothing added: %v, want an *Error", err)
	}
	// float32 sums of an accelerator need not be symmetric to the last bit.
	rough := &Gram{Dim: 2, N: 2, Sum: []float64{2, 1, 1.0000002, 2}}
	if h, err := rough.Hessian(); err != nil || h[1] != h[2] || math.Abs(h[1]-1.0000001) > 1e-12 {
		t.Errorf("%v, %v; want the mean", h, err)
	}
}

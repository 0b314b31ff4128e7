package structured

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/mat"
)

// small is a generator that is trained in a moment.
var small = Generator(GeneratorConfig{Latent: 2, Hidden: 16, Steps: 60, Batch: 16})

// bananas are points (u, u²) with a little noise, a feature that never varies, and one that is the first, a hundred times as large.
func bananas(n int) [][]float32 {
	rng := rand.New(rand.NewPCG(7, 7))
	x := make([][]float32, n)
	for i := range x {
		u := rng.NormFloat64()
		x[i] = []float32{float32(u + 0.05*rng.NormFloat64()), float32(u*u + 0.05*rng.NormFloat64()), 3, float32(100 * u)}
	}
	return x
}

func blank(n, features int) [][]float32 {
	x := make([][]float32, n)
	for i := range x {
		x[i] = make([]float32, features)
		for j := range x[i] {
			x[i][j] = float32(math.NaN())
		}
	}
	return x
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

// Every kind: all of a batch is written, with numbers, whatever its size; the batch and the examples stay as they are; the same seed draws the same, and another one something else, where anything is
// drawn at all; and but for a control that is made of the batch, knockoffs do not depend on it.
func TestKnockoffs(t *testing.T) {
	examples := bananas(64)
	features := len(examples[0])
	for _, k := range []Knockoffs{SecondOrder(2), small, Shuffled, Noise, Zeros} {
		t.Run(k.Name, func(t *testing.T) {
			// draws returns knockoffs of two batches from the same random numbers.
			draws := func(seed uint64) (one, other [][]float32) {
				given := bananas(64)
				draw, err := k.Fit(given, seeded(seed))
				check(t, err)
				for i, all := range []*[][]float32{&one, &other} {
					rng := seeded(seed)
					for _, n := range []int{8, 8, 3} {
						out := blank(n, features)
						draw(given[8*i:8*i+n], out, rng)
						*all = append(*all, out...)
					}
				}
				if diff := cmp.Diff(examples, given); diff != "" {
					t.Errorf("what was given is changed (-want +got)\n%s", diff)
				}
				return one, other
			}
			one, other := draws(1)
			differ := 0
			for i, x := range one {
				for j, v := range x {
					if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
						t.Fatalf("feature %d of knockoff %d is %v", j, i, v)
					}
				}
				if i > 0 && !cmp.Equal(x, one[i-1]) {
					differ++
				}
			}
			again, _ := draws(1)
			if diff := cmp.Diff(one, again); diff != "" {
				t.Errorf("the same seed again (-want +got)\n%s", diff)
			}
			if k.Name == Zeros.Name {
				return
			}
			if differ != len(one)-1 {
				t.Errorf("of %d knockoffs %d are not as the one before, want all", len(one)-1, differ)
			}
			if another, _ := draws(2); cmp.Equal(one, another) {
				t.Error("another seed draws the same")
			}
			if (k.Name != Shuffled.Name) != cmp.Equal(one, other) {
				t.Errorf("another batch draws the same: %v", cmp.Equal(one, other))
			}
		})
	}
}

// What a covariance can't say: u and u² are uncorrelated, so that second-order knockoffs (a, b) have b − a² of variance 4, where the data have almost none.
func TestGenerator(t *testing.T) {
	examples := bananas(400)
	offCurve := func(k Knockoffs) (square float64, out [][]float32) {
		rng := seeded(3)
		draw, err := k.Fit(examples, rng)
		check(t, err)
		out = blank(4000, 4)
		draw(nil, out, rng)
		for _, x := range out {
			d := float64(x[1] - x[0]*x[0])
			square += d * d / float64(len(out))
		}
		return square, out
	}
	// The last feature, a hundred times as large, would hide the first two from both.
	for _, x := range examples {
		x[3] /= 100
	}
	gaussian, _ := offCurve(SecondOrder(4))
	generated, out := offCurve(Generator(GeneratorConfig{Latent: 2, Hidden: 32, Steps: 1500, LearningRate: 3e-3}))
	t.Logf("mean square of b − a²: second-order %.2f, generator %.2f", gaussian, generated)
	if gaussian < 3 || generated > 0.3 {
		t.Errorf("the mean square of b − a² is %.2f for second-order knockoffs and %.2f for the generator, want about 4 and far less", gaussian, generated)
	}
	wantMean, want := moments(examples)
	gotMean, got := moments(out)
	for i := range want {
		if math.Abs(wantMean[i]-gotMean[i]) > 0.15 {
			t.Errorf("mean of feature %d is %.3f, want %.3f", i, gotMean[i], wantMean[i])
		}
		for j := range want {
			if math.Abs(want[i][j]-got[i][j]) > 0.3*math.Sqrt(want[i][i]*want[j][j])+1e-6 {
				t.Errorf("covariance of %d and %d is %.3f, want %.3f", i, j, got[i][j], want[i][j])
			}
		}
	}
	for i, x := range out {
		if x[2] != 3 {
			t.Fatalf("feature 2 of knockoff %d is %v, want the 3 that it always is", i, x[2])
		}
	}
}

// A code of 2 or −1; hidden units max(0, z) and max(0, −z); outputs 1 + 3·h₁ and 10·h₂.
func TestDecode(t *testing.T) {
	matrix := func(rows, cols int, data ...float32) blas32.General {
		return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
	}
	d := &decoder{
		hidden: affine{matrix(1, 2, 1, -1), []float32{0, 0}}, output: affine{matrix(2, 2, 3, 0, 0, 10), []float32{1, 0}},
		mean: []float32{100, 200}, scale: 2, rest: []float32{0, 0}, codeMean: []float64{2},
	}
	if diff := cmp.Diff([]float32{7, 0, 1, 10}, d.decode(matrix(2, 1, 2, -1)).Data); diff != "" {
		t.Errorf("decoded (-want +got)\n%s", diff)
	}
	d.codeCholesky = *mat.NewTriDense(1, mat.Lower, []float64{0}) // always 2
	out := blank(1, 2)
	d.draw(out, seeded(1))
	if diff := cmp.Diff([][]float32{{114, 200}}, out); diff != "" {
		t.Errorf("100 + 2·7 and 200 + 2·0 (-want +got)\n%s", diff)
	}
}

// Data that are all the same are drawn as they are.
func TestGeneratorOfConstants(t *testing.T) {
	draw, err := small.Fit([][]float32{{1, -2}, {1, -2}, {1, -2}}, seeded(1))
	check(t, err)
	out := blank(2, 2)
	draw(nil, out, seeded(1))
	if diff := cmp.Diff([][]float32{{1, -2}, {1, -2}}, out); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestGeneratorErrors(t *testing.T) {
	good := bananas(8)
	nan := float32(math.NaN())
	for _, c := range []struct {
		name     string
		cfg      GeneratorConfig
		examples [][]float32
		want     any
	}{
		{"no examples", GeneratorConfig{}, nil, new(*DataError)},
		{"one example", GeneratorConfig{}, good[:1], new(*DataError)},
		{"no features", GeneratorConfig{}, [][]float32{{}, {}}, new(*DataError)},
		{"other sizes", GeneratorConfig{}, [][]float32{{1, 2}, {1}}, new(*DataError)},
		{"no number", GeneratorConfig{}, [][]float32{{1, 2}, {1, nan}}, new(*DataError)},
		{"latent", GeneratorConfig{Latent: -1}, good, new(*ConfigError)},
		{"hidden", GeneratorConfig{Hidden: -1}, good, new(*ConfigError)},
		{"steps", GeneratorConfig{Steps: -1}, good, new(*ConfigError)},
		{"batch", GeneratorConfig{Batch: -1}, good, new(*ConfigError)},
		{"learning rate", GeneratorConfig{LearningRate: -1}, good, new(*ConfigError)},
		{"learning rate, no number", GeneratorConfig{LearningRate: math.NaN()}, good, new(*ConfigError)},
		{"diverged", GeneratorConfig{LearningRate: 1e30, Steps: 20}, good, new(*DivergedError)},
	} {
		if _, err := Generator(c.cfg).Fit(c.examples, seeded(1)); !errors.As(err, c.want) {
			t.Errorf("%s: %v, want a %T", c.name, err, c.want)
		}
	}
}

// Kinds that learn from examples say what they miss.
func TestKnockoffsNeedExamples(t *testing.T) {
	one := [][]float32{{1, 2}}
	for _, c := range []struct {
		name     string
		kind     Knockoffs
		examples [][]float32
		want     any
	}{
		{"second-order of one", SecondOrder(0), one, new(*DataError)},
		{"second-order, rank", SecondOrder(-1), [][]float32{{1, 2}, {2, 1}}, new(*ConfigError)},
		{"noise of none", Noise, nil, new(*DataError)},
	} {
		if _, err := c.kind.Fit(c.examples, seeded(1)); !errors.As(err, c.want) {
			t.Errorf("%s: %v, want a %T", c.name, err, c.want)
		}
	}
	if _, err := Noise.Fit(one, seeded(1)); err != nil {
		t.Errorf("noise of one example: %v", err)
	}
}

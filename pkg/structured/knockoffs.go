package structured

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/mat"
)

// Knockoffs make inputs that look like those of the data and know nothing of the labels. A new kind is one value.
type Knockoffs struct {
	Name, Cite string
	// Fit learns from examples, [examples][features], and returns a function that writes the knockoffs of a batch, [batch][features], to out, which has its shape. It may draw random numbers
	// from rng, and nothing else that is random.
	Fit func(examples [][]float32, rng *rand.Rand) (func(batch, out [][]float32, rng *rand.Rand), error)
}

// SecondOrder draws Gaussian knockoffs that share mean and covariance with the data as far as the first principal components say, of which there are rank at most (default, for 0: 64). In the basis
// of the components z the covariance is diagonal, so that z̃ = z − s·z + √(λ·s·(2 − s))·ε with s = 1 keeps all second moments and makes z̃ uncorrelated with z: Candès et al. 2018,
// arXiv:1610.02351, section 3.1, there for Σ as it is. What the components leave over is drawn independently for each feature, with its own variance.
//
// SCOP's authors train a generative network instead, as Generator does; its samples, too, are drawn independently of the images that they accompany.
func SecondOrder(rank int) Knockoffs {
	if rank == 0 {
		rank = 64
	}
	return Knockoffs{Name: "second-order", Cite: "Candès et al. 2018, arXiv:1610.02351, on principal components",
		Fit: func(examples [][]float32, _ *rand.Rand) (func(batch, out [][]float32, rng *rand.Rand), error) {
			c, err := principal(examples, rank)
			if err != nil {
				return nil, err
			}
			return func(_, out [][]float32, rng *rand.Rand) {
				for _, x := range out {
					c.draw(x, rng)
				}
			}, nil
		}}
}

// Shuffled takes the images of a batch in another order: real ones, but each with the wrong label. Every moment is that of the data; a control.
var Shuffled = Knockoffs{Name: "shuffled", Fit: func([][]float32, *rand.Rand) (func(batch, out [][]float32, rng *rand.Rand), error) {
	return func(batch, out [][]float32, rng *rand.Rand) {
		by := 1
		if len(batch) > 2 {
			by += rng.IntN(len(batch) - 1) // never its own
		}
		for i := range out {
			copy(out[i], batch[(i+by)%len(batch)])
		}
	}, nil
}}

// Noise draws each feature by itself from a normal distribution with the mean and the variance of all features together; a control.
var Noise = Knockoffs{Name: "noise", Fit: func(examples [][]float32, _ *rand.Rand) (func(batch, out [][]float32, rng *rand.Rand), error) {
	if len(examples) == 0 || len(examples[0]) == 0 {
		return nil, &DataError{"examples for knockoffs", "there are none", "give one at least, with a feature at least"}
	}
	mean, square, n := 0.0, 0.0, 0.0
	for _, x := range examples {
		for _, v := range x {
			mean += float64(v)
			square += float64(v) * float64(v)
			n++
		}
	}
	mean /= n
	deviation := math.Sqrt(max(0, square/n-mean*mean))
	return func(_, out [][]float32, rng *rand.Rand) {
		for _, x := range out {
			for i := range x {
				x[i] = float32(mean + deviation*rng.NormFloat64())
			}
		}
	}, nil
}}

// Zeros are images of zeros: no knockoffs at all, so that what is left is a learnt gate between a channel and what the network makes of nothing; a control. (Zeros in the place of the knockoff
// features themselves could teach nothing: the normalisation behind the gate takes any factor away.)
var Zeros = Knockoffs{Name: "zeros", Fit: func([][]float32, *rand.Rand) (func(batch, out [][]float32, rng *rand.Rand), error) {
	return func(_, out [][]float32, _ *rand.Rand) {
		for _, x := range out {
			clear(x)
		}
	}, nil
}}

// components are the first principal components of data.
type components struct {
	mean     []float64
	vectors  [][]float64 // unit length, [rank][features]
	variance []float64   // along each
	rest     []float64   // standard deviation of each feature besides
}

// principal finds components from the Gram matrix of the examples, which is small where features are many.
func principal(examples [][]float32, rank int) (*components, error) {
	n := len(examples)
	if n < 2 {
		return nil, &DataError{"examples for knockoffs", fmt.Sprintf("there are %d", n), "give two at least: a covariance is learnt from how they differ"}
	}
	if rank < 1 {
		return nil, &ConfigError{"SecondOrder", fmt.Sprintf("the rank is %d", rank), "give a positive number of components, or 0 for 64"}
	}
	d := len(examples[0])
	c := &components{mean: make([]float64, d), rest: make([]float64, d)}
	centred := mat.NewDense(n, d, nil)
	for _, x := range examples {
		for i, v := range x {
			c.mean[i] += float64(v) / float64(n)
		}
	}
	for r, x := range examples {
		for i, v := range x {
			e := float64(v) - c.mean[i]
			centred.Set(r, i, e)
			c.rest[i] += e * e / float64(n-1)
		}
	}
	var gram mat.SymDense
	gram.SymOuterK(1, centred)
	var eigen mat.EigenSym
	if !eigen.Factorize(&gram, true) {
		return nil, fmt.Errorf("the covariance of %d examples has no eigenvalues", n)
	}
	var basis mat.Dense
	eigen.VectorsTo(&basis)
	all := eigen.Values(nil) // ascending
	for k := n - 1; k >= 0 && len(c.vectors) < min(rank, n-1); k-- {
		if all[k] <= 1e-9*all[n-1] {
			break
		}
		v := make([]float64, d)
		mat.NewVecDense(d, v).MulVec(centred.T(), basis.ColView(k))
		for i := range v {
			v[i] /= math.Sqrt(all[k])
		}
		variance := all[k] / float64(n-1)
		c.vectors, c.variance = append(c.vectors, v), append(c.variance, variance)
		for i := range v {
			c.rest[i] -= variance * v[i] * v[i]
		}
	}
	for i := range c.rest {
		c.rest[i] = math.Sqrt(max(0, c.rest[i]))
	}
	return c, nil
}

// draw writes one knockoff.
func (c *components) draw(x []float32, rng *rand.Rand) {
	sum := make([]float64, len(x))
	for i := range sum {
		sum[i] = c.mean[i] + c.rest[i]*rng.NormFloat64()
	}
	for k, v := range c.vectors {
		z := math.Sqrt(c.variance[k]) * rng.NormFloat64()
		for i := range sum {
			sum[i] += z * v[i]
		}
	}
	for i := range x {
		x[i] = float32(sum[i])
	}
}

package signal

import "sync"

// InverseFisher is the inverse of an empirical Fisher matrix λI + (1/N) Σ g·gᵀ in blocks of consecutive weights, updated by one gradient g after the
// other by the Sherman-Morrison formula: F⁻¹ − F⁻¹ggᵀF⁻¹ / (N + gᵀF⁻¹g). Singh & Alistarh 2020, arXiv:2004.14340, equation 9. In float64.
type InverseFisher struct {
	size, block int
	n           float64
	blocks      [][]float64 // of rows, the last one may be smaller
}

// NewInverseFisher returns the inverse of λI for a parameter of size weights; n is the number of gradients that will be added.
func NewInverseFisher(size, block, n int, damp float64) *InverseFisher {
	f := &InverseFisher{size: size, block: block, n: float64(n)}
	for start := 0; start < size; start += block {
		b := min(block, size-start)
		m := make([]float64, b*b)
		for i := range b {
			m[i*b+i] = 1 / damp
		}
		f.blocks = append(f.blocks, m)
	}
	return f
}

// Add updates the inverse by the gradient of one example, in row-major order.
func (f *InverseFisher) Add(grad []float32) {
	const parts = 2 // goroutines
	var wait sync.WaitGroup
	for part := range parts {
		wait.Go(func() {
			v, g := make([]float64, f.block), make([]float64, f.block)
			for k := part; k < len(f.blocks); k += parts {
				start := k * f.block
				b := min(f.block, f.size-start)
				any := false
				for i, x := range grad[start : start+b] {
					g[i] = float64(x)
					any = any || x != 0
				}
				if any {
					update(f.blocks[k], v[:b], g[:b], f.n)
				}
			}
		})
	}
	wait.Wait()
}

// update does m −= mg(mg)ᵀ / (n + gᵀmg); v is scratch.
func update(m, v, g []float64, n float64) {
	b := len(g)
	denominator := n
	for i := range b {
		sum := 0.0
		for j, x := range m[i*b : (i+1)*b] {
			sum += x * g[j]
		}
		v[i] = sum
		denominator += sum * g[i]
	}
	for i := range b {
		factor := v[i] / denominator
		for j := range m[i*b : (i+1)*b] {
			m[i*b+j] -= factor * v[j]
		}
	}
}

// Diagonal returns the diagonal of the inverse, a value for each weight.
func (f *InverseFisher) Diagonal() []float32 {
	d := make([]float32, 0, f.size)
	for k, m := range f.blocks {
		b := min(f.block, f.size-k*f.block)
		for i := range b {
			d = append(d, float32(m[i*b+i]))
		}
	}
	return d
}

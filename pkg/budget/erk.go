package budget

import (
	"fmt"

	"github.com/espalier-ml/espalier/pkg/params"
)

// ERK gives a parameter a density in proportion to (Σ dᵢ)/(Π dᵢ) over its dimensions dᵢ, Erdős–Rényi-Kernel: small layers stay denser. Evci et al. 2020,
// arXiv:1911.11134, section 3. Layers that would be more than dense are dense, and the others get the rest. Where units are larger than a weight, the
// densities are shares of units. How much is kept of all units together is exact, unlike in the authors' code, which rounds each layer down.
var ERK = checked("erk", func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	return each(allocate(units, kernelShares(ps), Keep(total(units), sparsity))), nil
})

// ErdosRenyi gives a parameter a density of ε(in + out)/(in·out), whatever the size of its kernel. Mocanu et al. 2018, arXiv:1707.04780, where it is the
// probability of a connection, and ε is given; here ε follows from the sparsity, and the number of connections is exact. Capped and rounded as ERK.
// A parameter without inputs and outputs is a *ConfigError.
var ErdosRenyi = checked("erdos-renyi", func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	raw, err := layerShares(ps)
	if err != nil {
		return nil, err
	}
	return each(allocate(units, raw, Keep(total(units), sparsity))), nil
})

// ErdosRenyiKernel returns the density of each parameter under ERK at which the whole has the given one, before rounding to units.
func ErdosRenyiKernel(ps params.Set, units []int, density float64) ([]float64, error) {
	if err := check(ERK.Name, ps, units); err != nil {
		return nil, err
	}
	if !(density >= 0 && density <= 1) { // NaN too
		return nil, &ConfigError{ERK.Name, fmt.Sprintf("the density is %v", density), "give the share of units to keep, from 0 to 1"}
	}
	return capped(kernelShares(ps), units, density), nil
}

// kernelShares returns (Σ dᵢ)/(Π dᵢ) of each parameter.
func kernelShares(ps params.Set) []float64 {
	raw := make([]float64, len(ps))
	for i, p := range ps {
		sum, product := 0.0, 1.0
		for _, d := range p.Shape.Dimensions {
			sum += float64(d)
			product *= float64(d)
		}
		raw[i] = max(sum, 1) / product // 1 for a scalar, as for every vector
	}
	return raw
}

// layerShares returns (in + out)/(in·out) of each parameter.
func layerShares(ps params.Set) ([]float64, error) {
	raw := make([]float64, len(ps))
	for i, p := range ps {
		if p.In == p.Out || min(p.In, p.Out) < 0 || max(p.In, p.Out) >= p.Shape.Rank() {
			return nil, &ConfigError{"erdos-renyi", fmt.Sprintf("%s has the shape %s, inputs on axis %d and outputs on axis %d", p.Path, p.Shape, p.In, p.Out),
				"leave out what is no layer's kernel with params.Set.Without, or use ERK"}
		}
		in, out := float64(p.Shape.Dimensions[p.In]), float64(p.Shape.Dimensions[p.Out])
		raw[i] = (in + out) / (in * out)
	}
	return raw, nil
}

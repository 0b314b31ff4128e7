package budget

import (
	"cmp"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/params"
)

// ERK gives a parameter a density in proportion to (Σ dᵢ)/(Π dᵢ) over its dimensions dᵢ, Erdős–Rényi-Kernel: small layers stay denser. Evci et al. 2020,
// arXiv:1911.11134, section 3. Layers that would be more than dense are dense, and the others get the rest. How much is kept of all units
// together is exact: what rounding leaves over goes to the largest remainders.
var ERK = Budget{Name: "ERK", Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	return each(allocate(units, ErdosRenyiKernel(ps, units, 1-sparsity), sparsity)), nil
}}

// ErdosRenyi gives a parameter a density in proportion to (in + out)/(in·out), whatever the size of its kernel. Mocanu et al. 2018, arXiv:1707.04780,
// equation 3; capped and rounded as ERK.
var ErdosRenyi = Budget{Name: "Erdős–Rényi", Divide: func(ps params.Set, units []int, sparsity float64) ([]Group, error) {
	raw := make([]float64, len(ps))
	for i, p := range ps {
		in, out := float64(p.Shape.Dimensions[p.In]), float64(p.Shape.Dimensions[p.Out])
		raw[i] = (in + out) / (in * out)
	}
	return each(allocate(units, capped(raw, units, 1-sparsity), sparsity)), nil
}}

// ErdosRenyiKernel returns the density of each parameter at which the whole has the given one, before rounding to units.
func ErdosRenyiKernel(ps params.Set, units []int, density float64) []float64 {
	raw := make([]float64, len(ps))
	for i, p := range ps {
		sum, product := 0.0, 1.0
		for _, d := range p.Shape.Dimensions {
			sum += float64(d)
			product *= float64(d)
		}
		raw[i] = sum / product
	}
	return capped(raw, units, density)
}

// capped scales raw densities so that Σ density·units is density·Σ units; those that would exceed 1 are 1, and the factor is found anew for the others.
func capped(raw []float64, units []int, density float64) []float64 {
	densities := make([]float64, len(raw))
	dense := make([]bool, len(raw))
	for {
		want, weight := density*float64(total(units)), 0.0
		for i, u := range units {
			if dense[i] {
				want -= float64(u)
			} else {
				weight += raw[i] * float64(u)
			}
		}
		again := false
		for i := range raw {
			switch {
			case dense[i]:
				densities[i] = 1
			case weight > 0:
				densities[i] = max(0, raw[i]*want/weight)
			}
			if !dense[i] && densities[i] > 1 {
				dense[i], again = true, true
			}
		}
		if !again {
			return densities
		}
	}
}

// allocate rounds densities to units so that exactly Keep of all are kept: down, and then up where the remainders are largest, of equal ones the earlier.
func allocate(units []int, densities []float64, sparsity float64) []int {
	kept := make([]int, len(units))
	remainder := make([]float64, len(units))
	order := make([]int, len(units))
	left := Keep(total(units), sparsity)
	for i, u := range units {
		share := densities[i] * float64(u)
		kept[i] = min(u, int(math.Floor(share+1e-9)))
		remainder[i] = share - float64(kept[i])
		order[i] = i
		left -= kept[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainder[b], remainder[a]) })
	for left != 0 {
		moved := false
		for _, i := range order {
			switch {
			case left > 0 && kept[i] < units[i]:
				kept[i], left, moved = kept[i]+1, left-1, true
			case left < 0 && kept[i] > 0:
				kept[i], left, moved = kept[i]-1, left+1, true
			}
		}
		if !moved {
			break // all dense, or all empty
		}
	}
	return kept
}

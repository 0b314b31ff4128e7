package structured

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/surgery"
)

// BoundPoint holds the error that PFP's bound promises for a number of draws against what is observed.
type BoundPoint struct {
	Draws int
	// Bound is ε(Draws): the relative error that is not exceeded, with a probability of 1 − δ, by an output of a layer that reads the group.
	Bound float64
	// Mean, P99 and Max are the relative errors of outputs when units are drawn, over all outputs and trials.
	Mean, P99, Max float64
}

// CheckBound draws units of a group again and again, estimates outputs of the first layer that reads it from those drawn alone, and holds the errors against the bound. Only the positive
// parts of kernel and input are used, for which the bound is stated; outputs are those of the first few examples, at most 1000 of them, chosen at random. The data should be others than the
// sensitivities were measured on.
//
// Errors: *surgery.UnknownGroupError; *ConfigError; *DataError; *NothingError for a group that no layer reads with positive weights.
func (r *PFPResult) CheckBound(ctx context.Context, data train.Dataset, group string, failure float64, draws []int, trials int, seed int64) ([]BoundPoint, error) {
	if failure == 0 {
		failure = 1e-16
	}
	if trials < 1 || slices.ContainsFunc(draws, func(m int) bool { return m < 1 }) || !(failure > 0 && failure < 1) {
		return nil, &ConfigError{"CheckBound", fmt.Sprintf("draws are %v, trials %d, failure %v", draws, trials, failure), "give positive numbers, and a probability"}
	}
	if r.network == nil {
		return nil, &ConfigError{"CheckBound", "the result is for no network", "take that of PFP.Choose"}
	}
	if r.network.Group(group) == nil {
		var known []string
		for _, g := range r.network.Groups() {
			known = append(known, g.Name)
		}
		return nil, &surgery.UnknownGroupError{Name: group, Known: known}
	}
	all := readingsOf(r.network)
	i := slices.IndexFunc(all, func(q reading) bool { return q.group.Name == group })
	if i < 0 {
		return nil, &NothingError{"PFP"}
	}
	q := all[i]
	store, err := workspace(r.network)
	if err != nil {
		return nil, err
	}
	exec, err := runner(r.network.Backend(), store, false, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		var terms *graph.Node
		r.network.Intercept(func(s surgery.Site, x *graph.Node) *graph.Node {
			if s.Place == surgery.AtProduct && s.Kernel == q.site.Kernel && s.KernelAxis == q.site.KernelAxis && s.Use == q.site.Use {
				a, w := patches(s)
				zero := graph.ScalarZero(x.Graph(), x.DType())
				terms = contributions(graph.Max(a, zero), graph.Max(w, zero), q.member) // [units, rows, out]
				q.patches = x.Shape().Size() / s.Channels / in[0].Shape().Dimensions[0]
			}
			return x
		})(scope, in)
		return []*graph.Node{graph.ConvertDType(terms, dtypes.Float32)}
	})
	if err != nil {
		return nil, err
	}
	defer exec.Finalize()
	var terms []float32
	if err := eachPiece(ctx, r.network.Inputs(), data, func(inputs []*tensors.Tensor) error {
		results, err := call("estimate outputs", exec, anys(inputs...)...)
		if err != nil {
			return err
		}
		found, err := host(results)
		if err != nil {
			return err
		}
		terms = found[0]
		return errEnough
	}); err != nil {
		return nil, err
	}
	sensitivity := r.Sensitivity[group]
	probabilities, sum := make([]float64, len(sensitivity)), 0.0
	for _, s := range sensitivity {
		sum += float64(s)
	}
	for u, s := range sensitivity {
		probabilities[u] = float64(s) / sum
	}
	rng := rand.New(rand.NewPCG(uint64(seed), hash(group)))
	outputs := len(terms) / len(sensitivity)
	chosen := rng.Perm(outputs)
	total := make([]float64, outputs)
	chosen = slices.DeleteFunc(chosen, func(o int) bool {
		for u := range sensitivity {
			total[o] += float64(terms[u*outputs+o])
		}
		return total[o] <= 0
	})
	chosen = chosen[:min(len(chosen), 1000)]
	if len(chosen) == 0 || sum == 0 {
		return nil, &NothingError{"PFP"}
	}
	k := coefficient(sum, q.patches, q.area, failure)
	var points []BoundPoint
	for _, m := range draws {
		p := BoundPoint{Draws: m, Bound: epsilonOf(k, float64(m))}
		var off []float64
		for range trials {
			weight := make([]float64, len(sensitivity))
			for range m {
				u := pick(rng, probabilities)
				weight[u] += 1 / (float64(m) * probabilities[u])
			}
			for _, o := range chosen {
				estimate := 0.0
				for u, w := range weight {
					estimate += w * float64(terms[u*outputs+o])
				}
				off = append(off, math.Abs(estimate/total[o]-1))
			}
		}
		slices.Sort(off)
		for _, e := range off {
			p.Mean += e / float64(len(off))
		}
		p.P99, p.Max = off[int(0.99*float64(len(off)-1))], off[len(off)-1]
		points = append(points, p)
	}
	return points, nil
}

// epsilonOf inverts m(ε), without the rounding.
func epsilonOf(k, m float64) float64 { return (3*k + math.Sqrt(9*k*k+18*k*m)) / m }

// pick draws an index. Those of probability 0 are never drawn.
func pick(rng *rand.Rand, probabilities []float64) int {
	x, last := rng.Float64(), 0
	for u, p := range probabilities {
		if p == 0 {
			continue
		}
		if last = u; x < p {
			return u
		}
		x -= p
	}
	return last
}

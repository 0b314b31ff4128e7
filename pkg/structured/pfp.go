package structured

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/surgery"
)

// PFP is provable filter pruning: Liebenwein et al. 2020, arXiv:1911.07412. From a few examples it tells how much of any output of the next layers a channel can be, its sensitivity; from the
// sensitivities, how many channels have to be sampled for the outputs to keep a relative error ε; and ε is solved for the budget, so that all layers have the same.
//
// It needs no labels, no training and no normalisation. A channel that several layers read has the largest of its sensitivities there. Equal sensitivities, of which there are many where activations
// are sparse, are ranked by the mean of what they are the maximum of, which the paper does not say; and draws end where one more would make too many different units, so that a sampled
// plan has the size that was asked for, where the paper fixes the number of draws. Where as many stay as have any sensitivity, or more, nothing is drawn: these stay, and the highest ranked of
// those without, all with weight 1.
type PFP struct {
	// Budget is divided over the groups by the bound, if it does not say otherwise: WithinGroup keeps the same share of each, and Rate a given one, so that sensitivities rank units and the bound plays
	// no part. Global is refused: sensitivities of different layers are not of one scale.
	Budget Budget
	// Epsilon is the relative error ε that all layers get, instead of a size: how many units stay of each group is what the bound asks for then. Budget may only have MinUnits, MinShare, RoundTo and
	// Exclude besides. The bound promises something only below 1, where layers stay whole or nearly so; above, ε is still the rule by which they share, and PFPResult.Epsilon of a budget chooses the same again.
	// Default: 0, for the ε that meets the budget
	Epsilon float64
	// Examples is how many examples are looked at, at least; an epoch that has fewer in whole batches is an error. Default: ⌈3·ln(8·units/Failure)⌉ with the smallest Failure of 1e-9, which are 80 to 95,
	// or one epoch if that has fewer; a few are looked at at once, 8 at most, so up to 7 more may be
	Examples int
	// Failure is δ, the probability with which a bound may be missed. Default: 1e-16, as in the authors' code
	Failure float64
	// Sampled draws the units that stay with probabilities in proportion to their sensitivities, as in the paper's analysis, instead of those with the largest, as in its experiments. The kernels
	// that read them have to be reweighted then: PFPResult.Reweight.
	Sampled bool
	Seed    int64 // of the draw
}

// PFPResult is what PFP finds.
type PFPResult struct {
	Plan *surgery.Plan
	// Sensitivity of each unit, by the name of its group, from 0 to 1.
	Sensitivity map[string][]float32
	// Epsilon is the relative error that Samples are drawn for, given or solved for; 0 where the budget says how much stays of each group, whatever the error.
	Epsilon float64
	// Samples is how many draws the bound asks for, by group. More draws than there are units leave it whole or nearly so.
	Samples map[string]int
	// Weights are what the inputs of the units that stay are to be multiplied with, in their order, by group: 1 unless the method samples.
	Weights map[string][]float32
	// Examples is how many examples the sensitivities are the maximum over.
	Examples int

	network *surgery.Network
	// means of what Sensitivity has the largest of, over all that was looked at, up to a factor: they rank units of equal sensitivity. Where activations are sparse, a channel is often all of some
	// output at some place, and the sensitivities of many are 1.
	means map[string][]float32
}

// ranking is the sensitivities, and far behind the point the means. In float32 that leaves some eighty steps for the means of units whose sensitivity is 1: those that are within about a hundredth of the
// largest mean of each other come in their own order, and sensitivities that differ by less than 1e-5 may change places.
func (r *PFPResult) ranking() map[string][]float32 {
	ranked := map[string][]float32{}
	for name, s := range r.Sensitivity {
		largest := max(slices.Max(r.means[name]), math.SmallestNonzeroFloat32)
		ranked[name] = slices.Clone(s)
		for u := range s {
			ranked[name][u] += 1e-5 * r.means[name][u] / largest
		}
	}
	return ranked
}

const pfpC = 3.0 // C of the paper, as in the authors' code

// coefficient is K of the paper: m(ε) = ⌈3·(6 + 2ε)·K/ε²⌉ draws give a relative error of at most ε with a probability of 1 − δ. It has sensitivities that sum to s, for a layer of so many
// patches and kernels of an area.
func coefficient(s float64, patches, area int, delta float64) float64 {
	return s * 2 * pfpC * math.Log(8*float64(patches+1)*float64(area)/delta)
}

// draws is m(ε).
func draws(k, epsilon float64) float64 {
	return math.Ceil(3 * (6 + 2*epsilon) * k / (epsilon * epsilon))
}

// distinct is how many different units m draws are expected to have, rounded up.
func distinct(probabilities []float64, m float64) int {
	sum := 0.0
	for _, p := range probabilities {
		sum -= math.Expm1(m * math.Log1p(-min(p, 1))) // 1 − (1 − p)^m
	}
	return int(math.Ceil(sum - 1e-9))
}

// reading is a kernel that reads a group.
type reading struct {
	group   *surgery.Group
	member  surgery.Member
	site    surgery.Site // one of its products
	patches int          // of an example
	area    int
}

// Choose measures sensitivities on the first examples of the data, which should not be those that the network was trained on, and plans what goes.
//
// Errors: *DataError, also for fewer than Examples, where they are set; *ConfigError; *NothingError; *surgery.BudgetError and others of surgery.Network.Choose.
func (c PFP) Choose(ctx context.Context, n *surgery.Network, data train.Dataset) (*PFPResult, error) {
	switch {
	case c.Failure < 0 || c.Failure >= 1 || math.IsNaN(c.Failure):
		return nil, &ConfigError{"PFP.Failure", fmt.Sprintf("it is %v", c.Failure), "give a probability, for instance 1e-16"}
	case c.Examples < 0:
		return nil, &ConfigError{"PFP.Examples", fmt.Sprintf("it is %d", c.Examples), "give a positive number, or 0 for the default"}
	case c.Budget.Compete == Global:
		return nil, &ConfigError{"PFP.Budget.Compete", "it is Global, and sensitivities of different layers are not of one scale", "leave it, so that the bound divides the budget, or set WithinGroup"}
	}
	if err := c.Budget.check(n); err != nil {
		return nil, err
	}
	switch b := c.Budget; {
	case c.Epsilon != 0 && !(c.Epsilon >= 1e-100 && c.Epsilon <= 1e100): // beyond, its square is 0 or infinite
		return nil, &ConfigError{"PFP.Epsilon", fmt.Sprintf("it is %v", c.Epsilon), "give a positive relative error, for instance 0.5, or 0 to solve for that of the budget"}
	case c.Epsilon > 0 && (!b.zero() || b.Compete == WithinGroup):
		return nil, &ConfigError{"PFP.Epsilon", fmt.Sprintf("it is %v, and PFP.Budget says as well how much stays", c.Epsilon), "leave MACs, Params, Units, Rate and Compete of the budget unset, or Epsilon"}
	}
	if c.Failure == 0 {
		c.Failure = 1e-16
	}
	asked := c.Examples
	if c.Examples == 0 {
		units := 0
		for _, g := range n.Groups() {
			units += g.Size
		}
		c.Examples = int(math.Ceil(3 * math.Log(8*float64(max(1, units))/1e-9)))
	}
	r := &PFPResult{network: n, Sensitivity: map[string][]float32{}, Samples: map[string]int{}, Weights: map[string][]float32{}, means: map[string][]float32{}}
	readings, err := r.measure(ctx, data, c.Examples)
	if err != nil {
		return nil, err
	}
	if len(r.Sensitivity) == 0 {
		return nil, &NothingError{"PFP"}
	}
	if r.Examples < asked {
		return nil, &DataError{data.Name(), fmt.Sprintf("an epoch has %d examples in whole batches, and PFP.Examples asks for %d", r.Examples, asked), "give more examples, or a smaller batch, or ask for fewer"}
	}
	return r, r.allocate(c, readings)
}

// measure fills in sensitivities.
func (r *PFPResult) measure(ctx context.Context, data train.Dataset, examples int) ([]reading, error) {
	n := r.network
	readings := readingsOf(n)
	store, err := workspace(n)
	if err != nil {
		return nil, err
	}
	exec, err := runner(n.Backend(), store, false, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		results := make([]*graph.Node, len(readings))
		batch := in[0].Shape().Dimensions[0]
		n.Intercept(func(s surgery.Site, x *graph.Node) *graph.Node {
			if s.Place != surgery.AtProduct {
				return x
			}
			for i := range readings {
				if q := &readings[i]; q.site.Kernel == s.Kernel && q.site.KernelAxis == s.KernelAxis {
					worst := relative(s, q)
					q.patches = max(q.patches, x.Shape().Size()/s.Channels/batch)
					if results[i] != nil {
						worst = graph.Max(results[i], worst)
					}
					results[i] = worst
				}
			}
			return x
		})(scope, in)
		for i, x := range results {
			if x == nil {
				panic(fmt.Errorf("structured: the product with %s was not handed over", readings[i].member.Path))
			}
		}
		return results
	})
	if err != nil {
		return nil, err
	}
	defer exec.Finalize()
	if len(readings) == 0 {
		return nil, nil
	}
	err = eachPiece(ctx, n.Inputs(), data, func(inputs []*tensors.Tensor) error {
		results, err := call("measure sensitivities", exec, anys(inputs...)...)
		if err != nil {
			return err
		}
		found, err := host(results)
		if err != nil {
			return err
		}
		for i, q := range readings {
			s := r.Sensitivity[q.group.Name]
			if s == nil {
				s = make([]float32, q.group.Size)
				r.Sensitivity[q.group.Name] = s
			}
			means := r.means[q.group.Name]
			if means == nil {
				means = make([]float32, q.group.Size)
				r.means[q.group.Name] = means
			}
			for u, x := range found[i][:q.group.Size] {
				if math.IsNaN(float64(x)) {
					return &DataError{data.Name(), fmt.Sprintf("what %s reads of it is no number", q.member.Path), "look for inputs that are no numbers, or a network that diverged"}
				}
				s[u] = max(s[u], x)
				means[u] += found[i][q.group.Size+u]
			}
		}
		if r.Examples += inputs[0].Shape().Dimensions[0]; r.Examples >= examples {
			return errEnough
		}
		return nil
	})
	return readings, err
}

// fewAtOnce is how many examples are looked at together: what each unit adds to each output at each position takes memory.
const fewAtOnce = 8

// eachPiece calls f for the examples of an epoch, a few at once, and as many each time.
func eachPiece(ctx context.Context, of []shapes.Shape, data train.Dataset, f func(inputs []*tensors.Tensor) error) error {
	return each(ctx, of, data, 1, math.MaxInt, false, func(_ int, b train.Batch) error {
		size := b.Inputs[0].Shape().Dimensions[0]
		few := min(size, fewAtOnce)
		for size%few != 0 {
			few--
		}
		for at := 0; at < size; at += few {
			var inputs []*tensors.Tensor
			for _, x := range b.Inputs {
				if x.Shape().Rank() == 0 || x.Shape().Dimensions[0] != size {
					return &DataError{data.Name(), fmt.Sprintf("inputs of a batch have the shapes %s and %s", b.Inputs[0].Shape(), x.Shape()), "make all of them [batch, …]"}
				}
				piece, err := rows(x, at, few)
				if err != nil {
					return err
				}
				inputs = append(inputs, piece)
			}
			if err := f(inputs); err != nil {
				return err
			}
		}
		return nil
	})
}

// rows copies some examples of a batch.
func rows(x *tensors.Tensor, from, count int) (*tensors.Tensor, error) {
	shape := x.Shape().Clone()
	shape.Dimensions[0] = count
	piece := tensors.FromShape(shape)
	var inner error
	err := x.ConstBytes(func(all []byte) {
		inner = piece.MutableBytes(func(part []byte) { copy(part, all[from*len(part)/count:]) })
	})
	return piece, errors.Join(err, inner)
}

// readingsOf lists the products that read groups, in the order of the network.
func readingsOf(n *surgery.Network) []reading {
	var all []reading
	sites := n.Sites()
	for _, g := range n.Groups() {
		for _, m := range g.Members {
			if m.Role != surgery.Reads {
				continue
			}
			i := slices.IndexFunc(sites, func(s surgery.Site) bool { return s.Kernel == m.Path && supported(n, s, m) })
			if i >= 0 {
				all = append(all, reading{group: g, member: m, site: sites[i], area: area(sites[i])})
			}
		}
	}
	return all
}

// supported tells whether a product sums over the kernel's axis that reads: not in groups, and with the kernel on the right.
func supported(n *surgery.Network, s surgery.Site, m surgery.Member) bool {
	at := s.Op.Attributes
	if v := n.Store().GetVariable(m.Path); v == nil || !slices.Equal(v.Shape().Dimensions, s.Op.Inputs[1].Shape.Dimensions) {
		return false
	}
	switch s.Op.Type {
	case "ConvGeneral":
		return at.Int("channelGroupCount") <= 1 && at.ConvolveAxes("axes").KernelInputChannels == m.Axis
	case "DotGeneral":
		return len(at.Ints("lhsBatchAxes")) == 0 && slices.Equal(at.Ints("rhsContractingAxes"), []int{m.Axis}) && s.Op.Inputs[1].Shape.Rank() == 2
	}
	return false
}

// area is how many positions a kernel has.
func area(s surgery.Site) int {
	if s.Op.Type != "ConvGeneral" {
		return 1
	}
	n := 1
	for _, k := range s.Op.Attributes.ConvolveAxes("axes").KernelSpatial {
		n *= s.Op.Inputs[1].Shape.Dimensions[k]
	}
	return n
}

// relative returns how much of an output each unit of a reading is, at most: the largest of ⟨w_ij, a_jp⟩ / Σ_k ⟨w_ik, a_kp⟩ over outputs i, patches p and examples, where only positive terms are
// taken, then only negative ones, of positive and of negative inputs: definition 1 of the paper, and its section on activations of either sign. 0/0 is 0. Behind it comes the mean in the place of
// the largest. -> [2, units]
func relative(s surgery.Site, q *reading) *graph.Node {
	x, w := patches(s) // [rows, positions, in], [positions, in, out]
	zero := graph.ScalarZero(x.Graph(), x.DType())
	var worst, mean *graph.Node
	for _, a := range []*graph.Node{graph.Max(x, zero), graph.Max(graph.Neg(x), zero)} {
		for _, k := range []*graph.Node{graph.Max(w, zero), graph.Max(graph.Neg(w), zero)} {
			terms := contributions(a, k, q.member)                    // [units, rows, out]
			all := graph.ReduceAndKeep(terms, graph.ReduceSum, 0)     // [1, rows, out]
			others := rest(a, k, q.member, all)                       // what channels of other groups add
			share := graph.Div(terms, graph.MaxScalar(others, 1e-30)) // 0/0 := 0
			largest := graph.ReduceMax(share, 1, 2)                   // -> [units]
			mean = plus(mean, graph.ReduceMean(share, 1, 2))
			if worst == nil {
				worst = largest
			} else {
				worst = graph.Max(worst, largest)
			}
		}
	}
	both := graph.Concatenate([]*graph.Node{graph.InsertAxes(graph.MinScalar(worst, 1), 0), graph.InsertAxes(mean, 0)}, 0) // above 1 by rounding only
	return graph.ConvertDType(both, dtypes.Float32)
}

// contributions sums what each unit adds to each output. a [rows, positions, in], k [positions, in, out] -> [units, rows, out]
func contributions(a, k *graph.Node, m surgery.Member) *graph.Node {
	c := graph.DotGeneral(a, []int{1}, []int{2}, k, []int{0}, []int{1}) // -> [in, rows, out]
	var list [][]int32
	inOrder := true
	for _, unit := range m.Indices {
		for _, i := range unit {
			inOrder = inOrder && i == len(list)
			list = append(list, []int32{int32(i)})
		}
	}
	d := c.Shape().Dimensions
	if !inOrder || len(list) != d[0] {
		c = graph.Gather(c, graph.Const(c.Graph(), list))
	}
	if m.PerUnit() == 1 {
		return c
	}
	return graph.ReduceSum(graph.Reshape(c, len(m.Indices), m.PerUnit(), d[1], d[2]), 1)
}

// rest returns the sum over all inputs, those of other groups too. -> [1, rows, out]
func rest(a, k *graph.Node, m surgery.Member, own *graph.Node) *graph.Node {
	if len(m.Indices)*m.PerUnit() == k.Shape().Dimensions[1] {
		return own
	}
	return graph.InsertAxes(graph.DotGeneral(a, []int{1, 2}, nil, k, []int{0, 1}, nil), 0)
}

// patches returns what each output of a product sees, and its kernel: [rows, positions, in] and [positions, in, out].
func patches(s surgery.Site) (x, w *graph.Node) {
	x, w = s.Operands[0], s.Operands[1]
	at := s.Op.Attributes
	if s.Op.Type == "DotGeneral" {
		c := at.Ints("lhsContractingAxes")[0]
		x = last(x, c)
		if at.Ints("rhsContractingAxes")[0] == 1 {
			w = graph.Transpose(w, 0, 1)
		}
		in := w.Shape().Dimensions[0]
		return graph.Reshape(x, x.Shape().Size()/in, 1, in), graph.Reshape(w, 1, in, w.Shape().Dimensions[1])
	}
	axes := at.ConvolveAxes("axes")
	order := append(slices.Clone(axes.KernelSpatial), axes.KernelInputChannels, axes.KernelOutputChannels)
	w = graph.TransposeAllAxes(w, order...)
	d := w.Shape().Dimensions
	in, out := d[len(d)-2], d[len(d)-1]
	positions := w.Shape().Size() / in / out
	// A convolution with one output for each position and channel, and ones where they are.
	pick := graph.Reshape(graph.ConvertDType(graph.Diagonal(x.Graph(), positions*in), x.DType()), append(slices.Clone(d[:len(d)-1]), positions*in)...)
	back := make([]int, len(order)) // to the order of the kernel's axes
	for i, k := range order {
		back[k] = i
	}
	pick = graph.TransposeAllAxes(pick, back...)
	x = graph.ConvGeneral(x, pick, axes, at.Ints("strides"), at.Paddings("paddings"), at.Ints("inputDilations"), at.Ints("kernelDilations"), 1, 1)
	x = last(x, axes.OutputChannels)
	return graph.Reshape(x, x.Shape().Size()/(positions*in), positions, in), graph.Reshape(w, positions, in, out)
}

// last brings an axis to the end.
func last(x *graph.Node, axis int) *graph.Node {
	var order []int
	for k := range x.Rank() {
		if k != axis {
			order = append(order, k)
		}
	}
	return graph.TransposeAllAxes(x, append(order, axis)...)
}

// allocate plans for the ε that was given, or solves it for the budget.
func (r *PFPResult) allocate(c PFP, readings []reading) error {
	n := r.network
	coefficients := map[string]float64{}
	probabilities := map[string][]float64{}
	for name, s := range r.Sensitivity {
		sum := 0.0
		for _, x := range s {
			sum += float64(x)
		}
		p := make([]float64, len(s))
		for u, x := range s {
			if sum > 0 {
				p[u] = float64(x) / sum
			}
		}
		probabilities[name] = p
		for _, q := range readings {
			if q.group.Name == name {
				coefficients[name] = max(coefficients[name], coefficient(sum, q.patches, q.area, c.Failure))
			}
		}
	}
	keepAt := func(epsilon float64) map[string]int {
		keep := map[string]int{}
		for _, g := range n.Groups() {
			if p := probabilities[g.Name]; p != nil && !c.Budget.excludes(g) {
				keep[g.Name] = c.Budget.atLeast(distinct(p, draws(coefficients[g.Name], epsilon)), g.Size)
			}
		}
		return keep
	}
	ranked := r.ranking()
	plan := func(keep map[string]int) (*surgery.Plan, error) {
		cfg := c.Budget.config("PFP", WithinGroup)
		cfg.MACs, cfg.Params, cfg.Units, cfg.Keep = 0, 0, 0, keep
		return n.Choose(cfg, ranked)
	}
	finish := func(epsilon float64, p *surgery.Plan) error {
		r.Epsilon = epsilon
		for name := range probabilities {
			r.Samples[name] = int(min(draws(coefficients[name], epsilon), math.MaxInt32))
		}
		return r.finish(c, p, probabilities, ranked)
	}
	if len(keepAt(1)) == 0 { // all that it can score is excluded
		return &NothingError{"PFP"}
	}
	if c.Epsilon > 0 {
		p, err := plan(keepAt(c.Epsilon))
		if err != nil {
			return err
		}
		return finish(c.Epsilon, p)
	}
	if c.Budget.Rate != 0 || c.Budget.Compete == WithinGroup { // the same share of each: sensitivities rank, and no bound is solved for
		p, err := c.Budget.choose(n, "PFP", WithinGroup, ranked)
		if err != nil {
			return err
		}
		return r.finish(c, p, probabilities, ranked)
	}
	share, target, cost, err := c.Budget.target(n)
	if err != nil {
		return err
	}
	at := func(epsilon float64) (*surgery.Plan, int64, error) {
		p, err := plan(keepAt(epsilon))
		if err != nil {
			return nil, 0, err
		}
		used, err := cost(p)
		return p, used, err
	}
	// The larger ε, the fewer stay. It is looked for on a logarithmic scale; the bound means nothing above 1, but is still the rule by which layers share the budget.
	low, high := math.Log(1e-3), math.Log(1e12)
	p, used, err := at(math.Exp(high))
	if err != nil {
		return err
	}
	if used > target {
		_, whole := n.Empty(), int64(0)
		if whole, err = cost(n.Empty()); err != nil {
			return err
		}
		return &surgery.BudgetError{What: c.Budget.what(), Wanted: share, Least: float64(used) / float64(whole)}
	}
	for range 60 {
		middle := (low + high) / 2
		q, used, err := at(math.Exp(middle))
		if err != nil {
			return err
		}
		if used <= target {
			high, p = middle, q
		} else {
			low = middle
		}
	}
	return finish(math.Exp(high), p)
}

// finish draws, if the method samples, and says by what kernels are to be multiplied.
func (r *PFPResult) finish(c PFP, p *surgery.Plan, probabilities map[string][]float64, ranked map[string][]float32) error {
	for _, name := range slices.Sorted(maps.Keys(p.Removed)) {
		g := r.network.Group(name)
		stay := g.Size - len(p.Removed[name])
		weights := slices.Repeat([]float32{1}, stay)
		if c.Sampled && len(p.Removed[name]) > 0 {
			rng := rand.New(rand.NewPCG(uint64(c.Seed), hash(name)))
			p.Removed[name] = nil
			weights = weights[:0]
			for u, weight := range sampled(rng, probabilities[name], ranked[name], stay) {
				if weight == 0 {
					p.Removed[name] = append(p.Removed[name], u)
				} else {
					weights = append(weights, weight)
				}
			}
		}
		r.Weights[name] = weights
	}
	if c.Sampled {
		p.Criterion = "PFP, sampled"
	}
	r.Plan = p
	return p.Check()
}

// sampled returns a weight for each unit that stays, and 0 for the others. Those that are drawn stand for all. Where they are too few, the highest ranked of the others stay with weight 1: a size was asked
// for, and of what was measured they add nothing, or so little that they were hardly ever drawn.
func sampled(rng *rand.Rand, probabilities []float64, ranked []float32, stay int) []float32 {
	weights := make([]float32, len(probabilities))
	possible := 0
	for _, p := range probabilities {
		if p > 0 {
			possible++
		}
	}
	if stay < possible { // otherwise no unit goes that another has to stand for
		counts, m := drawUnits(rng, probabilities, stay)
		for u, count := range counts {
			if count > 0 {
				weights[u] = float32(float64(count) / (float64(m) * probabilities[u]))
				stay--
			}
		}
	}
	order := make([]int, len(ranked))
	for u := range order {
		order[u] = u
	}
	slices.SortStableFunc(order, func(u, v int) int { return cmp.Compare(ranked[v], ranked[u]) })
	for _, u := range order {
		if stay > 0 && weights[u] == 0 {
			weights[u] = 1
			stay--
		}
	}
	return weights
}

// drawUnits draws units one after the other until one more would make too many different ones, and returns how often each was drawn, and how many draws that were. It gives up with fewer units after
// 1000 draws for each, where some are hardly ever drawn.
func drawUnits(rng *rand.Rand, probabilities []float64, stay int) (counts []int, m int) {
	counts = make([]int, len(probabilities))
	different := 0
	for limit := 1000 * len(probabilities); m < limit; {
		u := pick(rng, probabilities)
		if counts[u] == 0 {
			if different == stay {
				break
			}
			different++
		}
		counts[u]++
		m++
	}
	return counts, m
}

// Reweight multiplies the kernels that read units by Weights, in a store that the plan was applied to. It changes nothing where all are 1.
//
// Errors: *surgery.ValueError for a store without the kernels, or with others; *ConfigError for a plan that was edited since, or none.
func (r *PFPResult) Reweight(store *model.Store) error {
	if r.network == nil || r.Plan == nil || store == nil {
		return &ConfigError{"Reweight", "there is no plan of a network, or no store", "take the result of PFP.Choose, and the store of Plan.Apply"}
	}
	removed, err := r.Plan.Indices()
	if err != nil {
		return err
	}
	type change struct {
		variable *model.Variable
		value    []float32
	}
	changes := map[string]*change{}
	for _, q := range readingsOf(r.network) {
		weights := r.Weights[q.group.Name]
		if !slices.ContainsFunc(weights, func(w float32) bool { return w != 1 }) {
			continue
		}
		kept := keptUnits(q.group.Size, r.Plan.Removed[q.group.Name])
		if len(kept) != len(weights) {
			return &ConfigError{"PFPResult.Plan", fmt.Sprintf("it leaves %d units of %s, for which there are %d weights", len(kept), q.group.Name, len(weights)), "leave the plan as it was chosen, or choose again"}
		}
		c := changes[q.member.Path]
		if c == nil {
			value, err := values(store, q.member.Path)
			if err != nil {
				return err
			}
			c = &change{store.GetVariable(q.member.Path), value}
			changes[q.member.Path] = c
		}
		dims := c.variable.Shape().Dimensions
		before := r.network.Store().GetVariable(q.member.Path).Shape().Dimensions[q.member.Axis]
		gone := removed[q.member.Path][q.member.Axis]
		if dims[q.member.Axis] != before-len(gone) {
			return &surgery.ValueError{Path: q.member.Path, Problem: fmt.Sprintf("has %d inputs, the plan leaves %d", dims[q.member.Axis], before-len(gone)), Remedy: "give the store that the plan was applied to"}
		}
		scale := slices.Repeat([]float32{1}, dims[q.member.Axis])
		units := unitOf(q.member, before)
		for i, to := 0, 0; i < before; i++ {
			if _, goes := slices.BinarySearch(gone, i); goes {
				continue
			}
			if at, found := slices.BinarySearch(kept, units[i]); units[i] >= 0 && found {
				scale[to] = weights[at]
			}
			to++
		}
		inner := 1
		for _, d := range dims[q.member.Axis+1:] {
			inner *= d
		}
		for i := range c.value {
			c.value[i] *= scale[i/inner%dims[q.member.Axis]]
		}
	}
	for _, path := range slices.Sorted(maps.Keys(changes)) {
		c := changes[path]
		if err := c.variable.SetValue(tensors.FromFlatDataAndDimensions(c.value, c.variable.Shape().Dimensions...)); err != nil {
			return err
		}
	}
	return nil
}

// keptUnits lists the units that stay.
func keptUnits(size int, removed []int) []int {
	var kept []int
	for u := range size {
		if !slices.Contains(removed, u) {
			kept = append(kept, u)
		}
	}
	return kept
}

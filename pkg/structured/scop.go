package structured

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/internal/labels"
	"github.com/espalier-ml/espalier/pkg/surgery"
)

// SCOP judges channels by a scientific control: Tang et al. 2020, arXiv:2010.10732. Each batch goes through the network together with knockoffs, inputs that look like the data and know nothing of
// the labels. Behind each kernel, before its normalisation, a scale k per channel mixes the channel's own value with that of the knockoff, k·y + (1 − k)·ỹ. Only these scales are
// trained, on the labels of the real half. A channel that the knockoff can replace is not needed: the importance is |γ|·(2k − 1), with γ the gain of the normalisation. (Overviews tell
// it as a ratio; the authors' code has this difference.)
//
// After surgery, estimate the normalisation's averages anew (EstimateNorms), and fine-tune.
//
// In the paper each convolution of a block has channels of its own, because what a branch lacks is added as zero to the stream: FreeBranches makes such a network. Where several kernels make a
// group all the same, or a kernel is used several times, it has the mean of what each gain says, and kernels without a normalisation have no part in it.
//
// The authors leave the first convolution and the 1x1 convolutions of shortcuts as they are; here, every kernel with a gain is mixed whose channels Budget.Exclude does not keep whole, since which these
// are can't be told from the network. For their setting on a residual network for CIFAR-10, exclude what makes the stream: with the names of nets.CIFARResNet, whose shortcuts are projected,
//
//	free, err := structured.FreeBranches(n)
//	result, err := structured.SCOP{Budget: structured.Budget{Rate: 0.45, Exclude: []string{"/conv1", "/layer2_0/downsample", "/layer3_0/downsample"}}}.Choose(ctx, free, data)
//
// and "/conv1" alone where they have no weights.
type SCOP struct {
	// Budget keeps the same share of each group, if it does not say otherwise. Groups that it excludes have no scales: they are neither mixed nor scored.
	Budget Budget
	// Knockoffs. Default: SecondOrder(64)
	Knockoffs Knockoffs
	// Steps is how many batches the scales are trained on, with Adam (β 0.5 and 0.999) and this learning rate. Defaults: 200 and 4e-3. The authors take 20 epochs of CIFAR-10 in batches of 512,
	// 1,960 steps, and β₂ = 0.9.
	Steps        int
	LearningRate float64
	// Fit is how many examples knockoffs are fitted to. Default: 512
	Fit int
	// Loss of labels and what the network computes, all its outputs. nil: sparse categorical cross-entropy of the logits that are its only output
	Loss train.LossFn
	Seed int64 // of the knockoffs
}

// SCOPResult is what SCOP finds.
type SCOPResult struct {
	Plan *surgery.Plan
	// Importance of each unit by group: |γ|·(2k − 1), the mean over the kernels that make it.
	Importance map[string][]float32
	// Scales are k of each channel, by the path of the kernel; 1 for channels of an excluded group, where a kernel makes some of others as well.
	Scales map[string][]float32
	// Losses of the real half of each batch.
	Losses []float64
}

// scaleScope is where the scales lie in the copy of the store.
const scaleScope = "/structured/scop"

// Choose trains scales and plans what goes. Data are those that the network was trained on, with labels; a batch is mixed with as many knockoffs.
//
// Errors: *NoGainError if no group has a normalisation with a gain, *NothingError if those that have are excluded; *DataError; *ConfigError; *DivergedError;
// *surgery.ValueError for gains that are not in float32; those of surgery.Network.Choose.
func (c SCOP) Choose(ctx context.Context, n *surgery.Network, data train.Dataset) (*SCOPResult, error) {
	if c.Steps < 0 || c.Fit < 0 {
		return nil, &ConfigError{"SCOP.Steps, SCOP.Fit", fmt.Sprintf("they are %d and %d", c.Steps, c.Fit), "give positive numbers, or 0 for the defaults"}
	}
	if c.LearningRate < 0 || math.IsNaN(c.LearningRate) {
		return nil, &ConfigError{"SCOP.LearningRate", fmt.Sprintf("it is %v", c.LearningRate), "give a positive number, or 0 for the default"}
	}
	if err := c.Budget.check(n); err != nil {
		return nil, err
	}
	if c.Steps == 0 {
		c.Steps = 200
	}
	if c.LearningRate == 0 {
		c.LearningRate = 4e-3
	}
	if c.Fit == 0 {
		c.Fit = 512
	}
	if c.Knockoffs.Fit == nil {
		c.Knockoffs = SecondOrder(0)
	}
	if len(n.Inputs()) != 1 {
		return nil, &ConfigError{"SCOP", fmt.Sprintf("the network has %d inputs", len(n.Inputs())), "give a network of one input, or choose with another method"}
	}
	if outputs := len(n.Outputs()); outputs != 1 && c.Loss == nil { // no gradient would tell what the others need
		return nil, &ConfigError{"SCOP.Loss", fmt.Sprintf("it is not set, and the network has %d outputs", outputs), "give a loss of labels and all outputs"}
	}
	mixed := c.mixed(n)
	if len(mixed) == 0 {
		if len(gainsOf(n)) > 0 {
			return nil, &NothingError{"SCOP"}
		}
		return nil, noGains("SCOP", n)
	}
	draw, err := c.fit(ctx, n.Inputs(), data)
	if err != nil {
		return nil, err
	}
	store, err := workspace(n)
	if err != nil {
		return nil, err
	}
	for v := range store.IterVariables() {
		v.SetTrainable(false)
	}
	for _, m := range mixed {
		if _, err := values(store, m.site.Gain); err != nil { // which scores need, after the training
			return nil, err
		}
		first := make([]float32, len(m.open))
		for i, open := range m.open {
			first[i] = 1 - 0.5*open
		}
		if _, err := store.CreateVariable(scaleScope+m.site.Kernel, tensors.FromFlatDataAndDimensions(first, len(first))); err != nil {
			return nil, err
		}
	}
	logits := 0
	exec, err := c.step(n, store, mixed, &logits)
	if err != nil {
		return nil, err
	}
	defer exec.Finalize()
	r := &SCOPResult{Importance: map[string][]float32{}, Scales: map[string][]float32{}}
	rng := rand.New(rand.NewPCG(uint64(c.Seed), hash("knockoffs")))
	err = take(ctx, n.Inputs(), data, c.Steps, true, func(step int, b train.Batch) error {
		fake, err := draw(b.Inputs[0], rng)
		if err != nil {
			return err
		}
		results, err := call("train the scales", exec, anys(append([]*tensors.Tensor{b.Inputs[0], fake, tensors.FromScalar(float32(step + 1))}, b.Labels...)...)...)
		if err != nil {
			return err
		}
		found, err := host(results)
		if err != nil {
			return err
		}
		if c.Loss == nil {
			if err := numbered(data, b.Labels[0], logits); err != nil {
				return err
			}
		}
		l := float64(found[0][0])
		if math.IsNaN(l) || math.IsInf(l, 0) {
			return &DivergedError{"SCOP", step + 1, "the loss"}
		}
		r.Losses = append(r.Losses, l)
		return fake.FinalizeAll()
	})
	if err != nil {
		return nil, err
	}
	for _, m := range mixed {
		if r.Scales[m.site.Kernel], err = values(store, scaleScope+m.site.Kernel); err != nil {
			return nil, err
		}
	}
	if err := r.score(c, n, mixed); err != nil {
		return nil, err
	}
	r.Plan, err = c.Budget.choose(n, "SCOP", WithinGroup, r.Importance)
	return r, err
}

// mixing is a kernel whose channels are mixed.
type mixing struct {
	site surgery.Site
	open []float32 // of each channel: 1, or 0 for those of an excluded group, which keep their own values
}

// mixed lists the kernels that make channels of a group that is not excluded, and have a gain behind them.
func (c SCOP) mixed(n *surgery.Network) []mixing {
	var all []mixing
	of := makers(n)
	at := func(m maker) int {
		return slices.IndexFunc(all, func(o mixing) bool { return o.site.Kernel == m.site.Kernel })
	}
	for _, g := range n.Groups() {
		for _, m := range of[g.Name] {
			if !c.Budget.excludes(g) && hasGain(n, m.site) && at(m) < 0 {
				all = append(all, mixing{m.site, slices.Repeat([]float32{1}, m.site.Channels)})
			}
		}
	}
	for _, g := range n.Groups() {
		for _, m := range of[g.Name] {
			if i := at(m); i >= 0 && c.Budget.excludes(g) {
				for _, channel := range slices.Concat(m.member.Indices...) {
					all[i].open[channel] = 0
				}
			}
		}
	}
	return all
}

// score makes importances of scales and gains.
func (r *SCOPResult) score(c SCOP, n *surgery.Network, mixed []mixing) error {
	all := makers(n)
	for _, g := range n.Groups() {
		if c.Budget.excludes(g) {
			continue
		}
		var scores []float32
		count := 0
		type gained struct{ kernel, gain string }
		seen := map[gained]bool{} // a kernel that is used twice has one or two
		for _, m := range all[g.Name] {
			of := gained{m.site.Kernel, m.site.Gain}
			if seen[of] || !hasGain(n, m.site) || !slices.ContainsFunc(mixed, func(o mixing) bool { return o.site.Kernel == of.kernel }) {
				continue
			}
			seen[of] = true
			gamma, err := values(n.Store(), of.gain)
			if err != nil {
				return err
			}
			if scores == nil {
				scores = make([]float32, g.Size)
			}
			for u, x := range unitMeans(m.member, scopScores(gamma, r.Scales[m.site.Kernel])) {
				scores[u] += x
			}
			count++
		}
		for u := range scores {
			scores[u] /= float32(count)
		}
		if scores != nil {
			r.Importance[g.Name] = scores
		}
	}
	return nil
}

// scopScores is |γ|·(k − (1 − k)).
func scopScores(gamma, k []float32) []float32 {
	scores := make([]float32, len(gamma))
	for i := range scores {
		scores[i] = float32(math.Abs(float64(gamma[i]))) * (2*k[i] - 1)
	}
	return scores
}

// mix returns the values of a batch whose second half are knockoffs, with those of the first half mixed. x [2·batch, …], k [channels]
func mix(x *graph.Node, axis int, k *graph.Node) *graph.Node {
	half := x.Shape().Dimensions[0] / 2
	rows := func(from, to int) *graph.Node {
		spec := slices.Repeat([]graph.SliceAxisSpec{graph.AxisRange()}, x.Rank())
		spec[0] = graph.AxisRange(from, to)
		return graph.Slice(x, spec...)
	}
	own, knockoff := rows(0, half), rows(half, 2*half)
	k = along(k, own, axis)
	return graph.Concatenate([]*graph.Node{graph.Add(graph.Mul(own, k), graph.Mul(knockoff, graph.OneMinus(k))), knockoff}, 0)
}

// numbered returns a *DataError for a label that is the number of no logit.
func numbered(data train.Dataset, of *tensors.Tensor, logits int) error {
	at, label, err := labels.Outside(of, logits)
	if err != nil || at < 0 {
		return err
	}
	return &DataError{data.Name(), fmt.Sprintf("example %d of a batch has the label %d, and the network has %d logits", at, label, logits), "number the classes from 0, or give the network a logit for each"}
}

// step compiles a training step of the scales: inputs are real and knockoff examples, the number of the step, labels. It notes the number of logits when it is built.
func (c SCOP) step(n *surgery.Network, store *model.Store, mixed []mixing, classes *int) (*model.Exec, error) {
	return runner(n.Backend(), store, true, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		g := in[0].Graph()
		scales := make([]*model.Variable, len(mixed))
		nodes := make([]*graph.Node, len(mixed))
		for i, m := range mixed {
			scales[i] = store.GetVariable(scaleScope + m.site.Kernel)
			nodes[i] = scales[i].NodeValue(g)
		}
		x := graph.Concatenate([]*graph.Node{in[0], in[1]}, 0) // [2·batch, …]: the halves share the statistics of the normalisation, as in the authors' code
		outputs := n.Intercept(func(s surgery.Site, y *graph.Node) *graph.Node {
			i := slices.IndexFunc(mixed, func(m mixing) bool { return m.site.Kernel == s.Kernel && m.site.KernelAxis == s.KernelAxis })
			if i < 0 || s.Place != surgery.AtProduct {
				return y
			}
			return mix(y, s.Axis, graph.ConvertDType(nodes[i], y.DType()))
		})(scope, []*graph.Node{x})
		for i, y := range outputs {
			spec := slices.Repeat([]graph.SliceAxisSpec{graph.AxisRange()}, y.Rank())
			spec[0] = graph.AxisRange(0, in[0].Shape().Dimensions[0])
			outputs[i] = graph.Slice(y, spec...)
		}
		*classes = outputs[0].Shape().Dim(-1)
		l := meanLoss(c.Loss, in[3:], outputs)
		grads := graph.Gradient(l, nodes...)
		for i, v := range scales {
			grad := graph.Mul(grads[i], graph.ConvertDType(graph.Const(g, mixed[i].open), grads[i].DType())) // Adam moves nothing whose gradient is 0 in each step
			next := adam(store, v, nodes[i], grad, in[2], c.LearningRate, 0.5, 0.999)
			v.SetNodeValue(graph.ClipScalar(next, 0, 1))
		}
		return []*graph.Node{graph.ConvertDType(l, dtypes.Float32)}
	})
}

// fit returns a function that makes the knockoffs of a batch.
func (c SCOP) fit(ctx context.Context, of []shapes.Shape, data train.Dataset) (func(x *tensors.Tensor, rng *rand.Rand) (*tensors.Tensor, error), error) {
	var examples [][]float32
	err := each(ctx, of, data, 1, math.MaxInt, true, func(_ int, b train.Batch) error {
		rows, err := rowsOf(b.Inputs[0])
		if err != nil {
			return err
		}
		if len(rows) < 2 {
			return &DataError{data.Name(), "its batches have one example", "make them larger: normalisation and knockoffs need several"}
		}
		if examples = append(examples, rows...); len(examples) >= c.Fit {
			return errEnough
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	examples = examples[:min(len(examples), c.Fit)]
	knockoffs, err := c.Knockoffs.Fit(examples, rand.New(rand.NewPCG(uint64(c.Seed), hash("fit"))))
	if err != nil {
		return nil, fmt.Errorf("knockoffs %q: %w", c.Knockoffs.Name, err)
	}
	return func(x *tensors.Tensor, rng *rand.Rand) (*tensors.Tensor, error) {
		batch, err := rowsOf(x)
		if err != nil {
			return nil, err
		}
		flat := make([]float32, x.Shape().Size())
		out := make([][]float32, len(batch))
		for i := range out {
			w := len(flat) / len(batch)
			out[i] = flat[i*w : (i+1)*w]
		}
		knockoffs(batch, out, rng)
		return tensors.FromFlatDataAndDimensions(flat, x.Shape().Dimensions...), nil
	}, nil
}

// rowsOf returns a copy of a batch of examples. [batch, …] -> [batch][features]
func rowsOf(x *tensors.Tensor) ([][]float32, error) {
	if x.DType() != dtypes.Float32 {
		return nil, &DataError{"", fmt.Sprintf("inputs are of type %s", x.DType()), "give float32: knockoffs of other types have no meaning here"}
	}
	flat, err := tensors.CopyFlatData[float32](x)
	if err != nil {
		return nil, err
	}
	rows := make([][]float32, x.Shape().Dimensions[0])
	w := len(flat) / len(rows)
	for i := range rows {
		rows[i] = flat[i*w : (i+1)*w]
	}
	return rows, nil
}

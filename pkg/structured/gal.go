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
	"github.com/espalier-ml/espalier/pkg/trace"
)

// GAL learns which structures go by adversarial learning: Lin et al. 2019, arXiv:1903.09291. A student, which starts as the network with a soft mask m on each structure, is trained to give the logits
// of the frozen network, the teacher: to mimic them, and to deceive a discriminator that tells the two apart. An L1 price on the masks, taken by FISTA's proximal step, makes some of them exactly
// 0. No labels are used. Of a network with several outputs all have to be logits: the discriminator sees them side by side, each in units of the teacher's, and each is mimicked.
//
// Masks are factors of the last values of each channel before it is added, joined or read (surgery.AtLast); where several kernels make a group, each has the same. What remains, and can be traced,
// cut and trained on, is the student with its masks as variables: GALResult.Plan is for that network, not for the one that was given.
//
// Departures from the authors' code, where Compatible is not set: masks start at 1 and not from N(0, 1), half of which the first step clips to 0 before anything was learnt; the discriminator has
// LeakyReLU between its layers, without which it is affine in the logits, and one sigmoid instead of two; the teacher is in inference and not in training; L1 is in the proximal step only, not in
// the loss as well; the step's gradient is the mean since the last one, not that of one batch; logits are standardised by the teacher's, in the squared difference and before the discriminator,
// so that µ and λ mean the same for networks with large logits, on which the authors' learning rate would diverge, or the first gradients of an untrained discriminator ruin the student; masks
// grow no larger than 1, since where a normalisation makes good for their size nothing else would hold a large one.
//
// That is a limit of the method: behind the channels of a group there often is the normalisation of the next layer, which makes good for a factor that all its masks have in common. The price then
// shrinks them all and says little of which are needed; with a higher price or more steps their gradients, which grow as they shrink, become noise. Compare masks within a group, and say by Budget
// how much stays.
type GAL struct {
	// Budget says how much stays, by the size of the masks; the same share of each group, if it does not say otherwise, for one price weighs more on a unit of a large group, which does less. The
	// zero value removes what is exactly 0, as the authors do, whatever that leaves, but for one unit of each group.
	Budget Budget
	// Blocks puts a mask on each branch that ends in a sum, as a whole, and removes whole branches.
	Blocks bool
	// Sparsity is λ, the price of a mask. Default: 0.03
	Sparsity float64
	// Mimic is µ, the weight of the mean squared difference of logits, relative to their variance if not Compatible. Default: 10, and 1 if Compatible
	Mimic float64
	// Steps is how many batches the student is trained on. Default: 300. The authors take 100 epochs.
	Steps int
	// LearningRate of student, discriminator and masks; it is divided by 10 after each third of the steps, and FISTA's momentum starts anew then. Default: 1e-2. Momentum is 0.9, and weight decay 2e-4.
	LearningRate float64
	// MaskRate is the learning rate of the masks, of which there are few steps where Steps are few. Default: 0.1, and LearningRate if Compatible
	MaskRate float64
	// MaskEvery is after how many steps the masks are changed, Steps at most: masks that never move say nothing. Default: 2; 200 if Compatible, as the authors have it
	MaskEvery int
	// Compatible does what the authors' code does, faults and all. That the discriminator is blind then is noted in GALResult.Collapse and is no error.
	Compatible bool
	Seed       int64 // of the discriminator, and of masks if Compatible
}

// GALResult is what GAL finds.
type GALResult struct {
	// Plan is for the trained student: Plan.Network(). What Plan.Apply returns, evaluated as it is, is the result before fine-tuning; fine-tune it for the other, and name both.
	Plan *surgery.Plan
	// Masks of each unit by group; for Blocks one for each branch, by the path of its last kernel.
	Masks map[string][]float32
	// Zeros is how many masks are exactly 0, of All.
	Zeros, All int
	// Steps are what was seen after each training step.
	Steps []GALStep
	// Collapse says that the discriminator was blind at the end; nil if it was not. It is set where Compatible is, and an error elsewhere.
	Collapse *CollapseError
}

// GALStep is a training step.
type GALStep struct {
	Mimic       float64 // mean squared difference of logits, relative to their variance if not Compatible
	Adversarial float64 // the student's loss against the discriminator
	// Discriminator is its loss, Teacher and Student the mean probability that it gives logits to be the teacher's.
	Discriminator, Teacher, Student float64
	// Spread is the standard deviation of the discriminator's answers, before the sigmoid, over the logits of the batch, the teacher's and the student's.
	Spread float64
}

// CollapseError says that the discriminator gives all logits the same answer, so that the student learns nothing from it.
type CollapseError struct {
	Step   int // since when
	Spread float64
}

func (e *CollapseError) Error() string {
	return fmt.Sprintf("GAL: the discriminator collapsed: since step %d it gives all logits the same answer (their spread is %.2g), so the student learns nothing of it; try another LearningRate or Seed, or leave Compatible unset",
		e.Step, e.Spread)
}

const (
	galScope  = "/structured/gal"
	maskScope = "/structured/masks"
	// blind is the spread below which a discriminator tells nothing apart.
	blind = 1e-3

	galMomentum, galDecay = 0.9, 2e-4
)

// galMask is a variable of masks.
type galMask struct {
	name   string // of the group, or the path of the branch's last kernel
	path   string
	size   int
	makers []maker        // whose channels it multiplies; nil for a branch
	branch *surgery.Site  // nil for a group
	group  *surgery.Group // nil for a branch
}

func (c GAL) complete(n *surgery.Network) (GAL, error) {
	if err := c.Budget.check(n); err != nil {
		return c, err
	}
	if c.Blocks && (c.Budget.Rate != 0 || c.Budget.Units != 0) {
		return c, &ConfigError{"GAL.Budget", "Rate or Units is set, and branches go as a whole", "set MACs or Params, or none of them to remove the branches whose mask is 0"}
	}
	for field, x := range map[string]float64{"Sparsity": c.Sparsity, "Mimic": c.Mimic, "LearningRate": c.LearningRate, "MaskRate": c.MaskRate, "Steps": float64(c.Steps), "MaskEvery": float64(c.MaskEvery)} {
		if x < 0 || math.IsNaN(x) || math.IsInf(x, 0) {
			return c, &ConfigError{"GAL." + field, fmt.Sprintf("it is %v", x), "give a positive number, or 0 for the default"}
		}
	}
	if c.Sparsity == 0 {
		c.Sparsity = 0.03
	}
	if c.Mimic == 0 {
		c.Mimic = 10
		if c.Compatible {
			c.Mimic = 1
		}
	}
	if c.Steps == 0 {
		c.Steps = 300
	}
	if c.LearningRate == 0 {
		c.LearningRate = 1e-2
	}
	if c.MaskRate == 0 {
		c.MaskRate = 0.1
		if c.Compatible {
			c.MaskRate = c.LearningRate
		}
	}
	if c.MaskEvery == 0 {
		c.MaskEvery = 2
		if c.Compatible {
			c.MaskEvery = 200
		}
	}
	for i, y := range n.Outputs() {
		if y.Rank() != 2 || !y.DType.IsFloat() {
			return c, &ConfigError{"GAL", fmt.Sprintf("output %d of the network is %s", i, y), "give a network whose outputs are all logits, [batch, classes]"}
		}
	}
	if c.MaskEvery > c.Steps {
		return c, &ConfigError{"GAL.MaskEvery", fmt.Sprintf("masks are changed after %d steps, and there are %d in all", c.MaskEvery, c.Steps), "set it to GAL.Steps or less, or take more steps"}
	}
	return c, nil
}

// masks lists what gets masks.
func (c GAL) masks(n *surgery.Network) []galMask {
	var all []galMask
	if c.Blocks {
		for _, s := range n.Sites() {
			if s.Joins {
				all = append(all, galMask{name: s.Kernel, path: maskScope + s.Kernel, size: 1, branch: &s})
			}
		}
		return all
	}
	of := makers(n)
	for _, g := range n.Groups() {
		if of[g.Name] != nil {
			all = append(all, galMask{name: g.Name, path: maskScope + of[g.Name][0].member.Path + fmt.Sprintf("/%d", len(all)), size: g.Size, makers: of[g.Name], group: g})
		}
	}
	return all
}

// masked is the network with masks.
func masked(n *surgery.Network, masks []galMask) trace.ModelFn {
	return func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		return n.Intercept(func(s surgery.Site, x *graph.Node) *graph.Node {
			if s.Place != surgery.AtLast {
				return x
			}
			for _, k := range masks {
				if b := k.branch; b != nil && b.Kernel == s.Kernel && b.KernelAxis == s.KernelAxis && b.Use == s.Use {
					m := graph.ConvertDType(variable(scope, k.path).NodeValue(x), x.DType()) // [1]
					x = graph.Mul(x, graph.Reshape(m, slices.Repeat([]int{1}, x.Rank())...))
				}
				for _, mk := range k.makers {
					if mk.site.Kernel == s.Kernel && mk.site.KernelAxis == s.KernelAxis && mk.site.Use == s.Use {
						x = factors(x, s.Axis, mk.member, graph.ConvertDType(variable(scope, k.path).NodeValue(x), x.DType()))
					}
				}
			}
			return x
		})(scope, in)
	}
}

// Choose trains student, discriminator and masks, and plans what goes.
//
// Errors: *NothingError where there is nothing to put a mask on; *DataError; *ConfigError; *CollapseError; *DivergedError; those of surgery.Network.Choose.
func (c GAL) Choose(ctx context.Context, n *surgery.Network, data train.Dataset) (*GALResult, error) {
	c, err := c.complete(n)
	if err != nil {
		return nil, err
	}
	masks := c.masks(n)
	if len(masks) == 0 {
		return nil, &NothingError{"GAL"}
	}
	teacher, err := workspace(n)
	if err != nil {
		return nil, err
	}
	student, err := workspace(n)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(uint64(c.Seed), hash("GAL")))
	values := map[string][]float32{}
	for _, k := range masks {
		first := slices.Repeat([]float32{1}, k.size)
		if c.Compatible {
			for i := range first {
				first[i] = float32(rng.NormFloat64())
			}
		}
		values[k.path] = first
		v, err := student.CreateVariable(k.path, tensors.FromFlatDataAndDimensions(slices.Clone(first), k.size))
		if err != nil {
			return nil, err
		}
		v.SetTrainable(false) // by FISTA
	}
	frozen, err := runner(n.Backend(), teacher, c.Compatible, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		answers, _ := heads(n.ModelFn()(scope, in))
		return []*graph.Node{answers}
	})
	if err != nil {
		return nil, err
	}
	defer frozen.Finalize()
	fn := masked(n, masks)
	step, err := c.step(n, student, fn, masks)
	if err != nil {
		return nil, err
	}
	defer step.Finalize()
	r := &GALResult{Masks: map[string][]float32{}}
	f := newFISTA(masks, values)
	f.bounded = !c.Compatible
	classes := 0
	err = take(ctx, n.Inputs(), data, c.Steps, false, func(at int, b train.Batch) error {
		answers, err := call("run the teacher", frozen, anys(b.Inputs...)...)
		if err != nil {
			return err
		}
		target := answers[0]
		if err := target.ToLocal(); err != nil {
			return err
		}
		if classes == 0 {
			classes = target.Shape().Dimensions[1]
			if err := c.discriminator(student, classes, rng); err != nil {
				return err
			}
		}
		decay := math.Pow(0.1, float64(3*at/c.Steps))
		results, err := call("train the student", step, anys(append([]*tensors.Tensor{target, tensors.FromScalar(float32(c.LearningRate * decay))}, b.Inputs...)...)...)
		if err != nil {
			return err
		}
		found, err := host(results)
		if err != nil {
			return err
		}
		seen := GALStep{float64(found[0][0]), float64(found[0][1]), float64(found[0][2]), float64(found[0][3]), float64(found[0][4]), float64(found[0][5])}
		if math.IsNaN(seen.Mimic) || math.IsInf(seen.Mimic, 0) || math.IsNaN(seen.Discriminator) {
			return &DivergedError{"GAL", at + 1, "the loss"}
		}
		r.Steps = append(r.Steps, seen)
		if at > 0 && 3*at/c.Steps != 3*(at-1)/c.Steps {
			f.restart()
		}
		f.add(found[1:])
		if (at+1)%c.MaskEvery == 0 {
			f.step(c.MaskRate*decay, c.Sparsity, !c.Compatible)
			if err := f.store(student); err != nil {
				return err
			}
		}
		return target.FinalizeAll()
	})
	if err != nil {
		return nil, err
	}
	for i, k := range masks {
		r.Masks[k.name] = f.m[i]
		for _, m := range f.m[i] {
			if math.IsNaN(float64(m)) {
				return nil, &DivergedError{"GAL", c.Steps, "a mask of " + k.name}
			}
			if m == 0 {
				r.Zeros++
			}
			r.All++
		}
	}
	if r.Collapse = collapsed(r.Steps); r.Collapse != nil && !c.Compatible {
		return nil, r.Collapse
	}
	r.Plan, err = c.plan(n, student, fn, masks, r.Masks)
	return r, err
}

// collapsed looks at the last quarter of the steps.
func collapsed(steps []GALStep) *CollapseError {
	since := len(steps)
	for since > 0 && steps[since-1].Spread < blind {
		since--
	}
	if len(steps)-since < max(1, len(steps)/4) {
		return nil
	}
	return &CollapseError{Step: since + 1, Spread: steps[len(steps)-1].Spread}
}

// discriminator makes its variables: layers of 128, 256, 128 and 1.
func (c GAL) discriminator(store *model.Store, classes int, rng *rand.Rand) error {
	in := classes
	for i, out := range galWidths {
		deviation := math.Sqrt(2 / float64(in))
		if c.Compatible {
			deviation = 0.01
		}
		w := make([]float32, in*out)
		for j := range w {
			w[j] = float32(deviation * rng.NormFloat64())
		}
		for name, value := range map[string]*tensors.Tensor{"weights": tensors.FromFlatDataAndDimensions(w, in, out), "biases": tensors.FromScalarAndDimensions(float32(0), out)} {
			if _, err := store.CreateVariable(fmt.Sprintf("%s/%d/%s", galScope, i, name), value); err != nil {
				return err
			}
		}
		in = out
	}
	return nil
}

var galWidths = []int{128, 256, 128, 1}

// heads are a network's outputs side by side, [batch, Σ classes], in the discriminator's type, and the number of classes of each.
func heads(outputs []*graph.Node) (all *graph.Node, classes []int) {
	for i, y := range outputs {
		outputs[i] = graph.ConvertDType(y, dtypes.Float32)
		classes = append(classes, y.Shape().Dim(-1))
	}
	if len(outputs) == 1 {
		return outputs[0], classes
	}
	return graph.Concatenate(outputs, 1), classes
}

// momentsOf are mean and variance of each head's logits: scalars of one head, [1, Σ classes] of several.
func momentsOf(logits *graph.Node, classes []int) (mean, variance *graph.Node) {
	var means, variances []*graph.Node
	for i, at := 0, 0; i < len(classes); at, i = at+classes[i], i+1 {
		head := logits
		if len(classes) > 1 {
			head = graph.Slice(logits, graph.AxisRange(), graph.AxisRange(at, at+classes[i]))
		}
		mean = graph.ReduceAllMean(head)
		variance = graph.AddScalar(graph.ReduceAllMean(graph.Square(graph.Sub(head, mean))), 1e-12)
		if len(classes) == 1 {
			return mean, variance
		}
		means, variances = append(means, graph.BroadcastToDims(mean, 1, classes[i])), append(variances, graph.BroadcastToDims(variance, 1, classes[i]))
	}
	return graph.Concatenate(means, 1), graph.Concatenate(variances, 1)
}

// judge is the discriminator with given weights and biases. [batch, classes] -> [batch, 1]
func (c GAL) judge(layers [][2]*graph.Node, x *graph.Node) *graph.Node {
	for i, l := range layers {
		x = graph.Add(graph.Dot(x, l[0]).Product(), graph.InsertAxes(l[1], 0))
		if i < len(layers)-1 && !c.Compatible {
			x = graph.Max(x, graph.MulScalar(x, 0.2))
		}
	}
	if c.Compatible { // and again in the loss
		x = graph.Sigmoid(x)
	}
	return x
}

// crossEntropy is the mean of −log σ(x) where x should be 1, and −log(1 − σ(x)) where it should be 0.
func crossEntropy(x *graph.Node, label float64) *graph.Node {
	// max(x, 0) − x·label + log(1 + e^−|x|)
	l := graph.Add(graph.Sub(graph.Max(x, graph.ScalarZero(x.Graph(), x.DType())), graph.MulScalar(x, label)), graph.Log1P(graph.Exp(graph.Neg(graph.Abs(x)))))
	return graph.ReduceAllMean(l)
}

// step compiles a training step: inputs are the teacher's logits, the learning rate, and the network's inputs. It returns what was seen and the gradients of the masks.
func (c GAL) step(n *surgery.Network, student *model.Store, fn trace.ModelFn, masks []galMask) (*model.Exec, error) {
	var weights []string
	for v := range n.Store().IterVariables() {
		if v.Trainable && v.DType().IsFloat() {
			weights = append(weights, v.Path())
		}
	}
	slices.Sort(weights)
	return runner(n.Backend(), student, true, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		target, rate := in[0], in[1]
		g := target.Graph()
		logits, classes := heads(fn(scope, in[2:]))
		extra := train.TotalLoss(g)
		// First the discriminator.
		var params []*model.Variable
		var nodes []*graph.Node
		layer := func() [][2]*graph.Node {
			var layers [][2]*graph.Node
			for i := 0; i < len(nodes); i += 2 {
				layers = append(layers, [2]*graph.Node{nodes[i], nodes[i+1]})
			}
			return layers
		}
		for i := range galWidths {
			for _, name := range []string{"weights", "biases"} {
				v := student.GetVariable(fmt.Sprintf("%s/%d/%s", galScope, i, name))
				params, nodes = append(params, v), append(nodes, v.NodeValue(g))
			}
		}
		// What the discriminator sees is in units of the teacher's logits, as the mimicking is. Large logits would make its first answers large, and their gradients would ruin the student before it had
		// learnt anything.
		unit := func(x *graph.Node) *graph.Node { return x }
		var variance *graph.Node
		if !c.Compatible {
			var mean *graph.Node
			mean, variance = momentsOf(target, classes)
			unit = func(x *graph.Node) *graph.Node { return graph.Div(graph.Sub(x, mean), graph.Sqrt(variance)) }
		}
		teachers, students := c.judge(layer(), unit(target)), c.judge(layer(), unit(graph.StopGradient(logits)))
		lossD := graph.Add(crossEntropy(teachers, 1), graph.Add(crossEntropy(students, 0), crossEntropy(students, 1))) // the last is the paper's adversarial regulariser
		for i, grad := range graph.Gradient(lossD, nodes...) {
			nodes[i] = sgd(student, params[i], nodes[i], grad, rate, galMomentum, galDecay)
			params[i].SetNodeValue(nodes[i])
		}
		// Then the student, against the new one.
		difference := graph.Square(graph.Sub(target, logits))
		var mimic *graph.Node
		switch {
		case c.Compatible:
			mimic = graph.ReduceAllMean(difference)
		case len(classes) == 1: // the same as below but for the last bits, which plans of networks with one head have
			mimic = graph.Div(graph.ReduceAllMean(difference), variance)
		default:
			mimic = graph.ReduceAllMean(graph.Div(difference, variance))
		}
		adversarial := crossEntropy(c.judge(layer(), unit(logits)), 1)
		l := graph.Add(graph.MulScalar(mimic, c.Mimic), adversarial)
		if extra != nil { // regularisers of the network's own
			l = graph.Add(l, extra)
		}
		var maskNodes []*graph.Node
		for _, k := range masks {
			m := student.GetVariable(k.path).NodeValue(g)
			maskNodes = append(maskNodes, m)
			if c.Compatible {
				l = graph.Add(l, graph.MulScalar(graph.ReduceAllSum(graph.Abs(m)), c.Sparsity))
			}
		}
		var trained []*model.Variable
		wrt := slices.Clone(maskNodes)
		for _, path := range weights {
			if v := student.GetVariable(path); v != nil && v.InUseByGraph(g) {
				trained, wrt = append(trained, v), append(wrt, v.NodeValue(g))
			}
		}
		grads := graph.Gradient(l, wrt...)
		for i, v := range trained {
			v.SetNodeValue(sgd(student, v, wrt[len(masks)+i], grads[len(masks)+i], rate, galMomentum, galDecay))
		}
		train.ExecPerStepUpdateGraphFn(g)
		both := graph.Concatenate([]*graph.Node{teachers, students}, 0)
		spread := graph.Sqrt(graph.ReduceAllMean(graph.Square(graph.Sub(both, graph.ReduceAllMean(both)))))
		var seen []*graph.Node
		for _, x := range []*graph.Node{mimic, adversarial, lossD, graph.ReduceAllMean(graph.Sigmoid(teachers)), graph.ReduceAllMean(graph.Sigmoid(students)), spread} {
			seen = append(seen, graph.Reshape(graph.ConvertDType(x, dtypes.Float32), 1))
		}
		results := []*graph.Node{graph.Concatenate(seen, 0)}
		for _, grad := range grads[:len(masks)] {
			results = append(results, graph.ConvertDType(grad, dtypes.Float32))
		}
		return results
	})
}

// fista minimises a smooth loss plus λ·|m| over m ≥ 0: Beck & Teboulle 2009, doi:10.1137/080716542, as the authors of GAL apply it.
type fista struct {
	masks     []galMask
	m, before [][]float32
	sum, last [][]float32 // gradients since the last step, and the latest
	count     int
	a         float64
	bounded   bool // by 1
}

func newFISTA(masks []galMask, values map[string][]float32) *fista {
	f := &fista{masks: masks, a: 1}
	for _, k := range masks {
		f.m = append(f.m, slices.Clone(values[k.path]))
		f.before = append(f.before, slices.Clone(values[k.path]))
		f.sum = append(f.sum, make([]float32, k.size))
	}
	return f
}

// restart makes the momentum start anew.
func (f *fista) restart() { f.a = 1 }

// add notes the gradients of a batch.
func (f *fista) add(grads [][]float32) {
	f.last = grads
	for i, g := range grads {
		for j, x := range g {
			f.sum[i][j] += x
		}
	}
	f.count++
}

// step takes a proximal step along the mean of the gradients since the last one, or along the latest.
func (f *fista) step(rate, lambda float64, mean bool) {
	for i := range f.m {
		grad := f.last[i]
		if mean {
			for j := range grad {
				grad[j] = f.sum[i][j] / float32(f.count)
			}
		}
		next := proximal(f.m[i], f.before[i], grad, f.a, rate, lambda)
		if f.bounded {
			for j, m := range next {
				next[j] = min(1, m)
			}
		}
		f.m[i], f.before[i] = next, f.m[i]
		clear(f.sum[i])
	}
	f.count = 0
	f.a = momentum(f.a)
}

// momentum is the next of FISTA's numbers: (1 + √(1 + 4a²))/2.
func momentum(a float64) float64 { return (1 + math.Sqrt(1+4*a*a)) / 2 }

// proximal is max(0, y − η·g − η·λ), with y = m + (a − 1)/a'·(m − before): zero exactly where the price is more than what the mask is worth.
func proximal(m, before, grad []float32, a, rate, lambda float64) []float32 {
	next := make([]float32, len(m))
	for i := range m {
		y := float64(m[i]) + (a-1)/momentum(a)*float64(m[i]-before[i])
		next[i] = float32(max(0, y-rate*float64(grad[i])-rate*lambda))
	}
	return next
}

// store puts the masks where the student reads them.
func (f *fista) store(student *model.Store) error {
	for i, k := range f.masks {
		if err := student.GetVariable(k.path).SetValue(tensors.FromFlatDataAndDimensions(slices.Clone(f.m[i]), k.size)); err != nil {
			return err
		}
	}
	return nil
}

// plan traces the student and chooses.
func (c GAL) plan(n *surgery.Network, student *model.Store, fn trace.ModelFn, masks []galMask, values map[string][]float32) (*surgery.Plan, error) {
	var leave []string
	for v := range student.IterVariables() {
		if under(v.Path(), galScope) || under(v.Path(), "/structured/velocity") {
			leave = append(leave, v.Path())
		}
	}
	for _, path := range leave {
		if err := student.DeleteVariable(path); err != nil {
			return nil, err
		}
	}
	for v := range student.IterVariables() {
		if was := n.Store().GetVariable(v.Path()); was != nil {
			v.SetTrainable(was.Trainable)
		} else {
			v.SetTrainable(under(v.Path(), maskScope)) // masks may be fine-tuned
		}
	}
	s, err := surgery.Trace(n.Backend(), student, fn, n.Inputs()...)
	if err != nil {
		return nil, err
	}
	if c.Blocks {
		return c.branches(s, values)
	}
	importance := map[string][]float32{}
	for _, k := range masks {
		if s.Group(k.name) == nil || s.Group(k.name).Size != k.size {
			return nil, fmt.Errorf("structured: with masks, the network's group %s is another", k.name)
		}
		importance[k.name] = values[k.name]
	}
	if !c.Budget.zero() {
		return c.Budget.choose(s, "GAL", WithinGroup, importance)
	}
	keep := map[string]int{}
	for name, m := range importance {
		zeros := 0
		for _, x := range m {
			if x == 0 {
				zeros++
			}
		}
		if !c.Budget.excludes(s.Group(name)) {
			keep[name] = c.Budget.atLeast(len(m)-zeros, len(m))
		}
	}
	if len(keep) == 0 {
		return nil, &NothingError{"GAL"}
	}
	cfg := c.Budget.config("GAL", WithinGroup)
	cfg.Keep = keep
	return s.Choose(cfg, importance)
}

func under(path, scope string) bool {
	return len(path) > len(scope) && path[:len(scope)+1] == scope+"/"
}

// zero tells whether no share was asked for.
func (b Budget) zero() bool { return b.MACs == 0 && b.Params == 0 && b.Units == 0 && b.Rate == 0 }

// branches leaves out whole branches: those with a mask of 0, or the fewest with the smallest masks that the budget asks for.
func (c GAL) branches(s *surgery.Network, values map[string][]float32) (*surgery.Plan, error) {
	var order []surgery.Site
	zeros := 0
	for _, site := range s.Sites() {
		if m := values[site.Kernel]; site.Joins && m != nil && !slices.ContainsFunc(c.Budget.Exclude, func(e string) bool { return inside(site.Kernel, e) }) {
			order = append(order, site)
			if m[0] == 0 {
				zeros++
			}
		}
	}
	slices.SortStableFunc(order, func(a, b surgery.Site) int {
		switch x, y := values[a.Kernel][0], values[b.Kernel][0]; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	without := func(k int) (*surgery.Network, error) {
		fn, err := s.Bypass(order[:k]...)
		if err != nil {
			return nil, err
		}
		return surgery.Trace(s.Backend(), s.Store(), fn, s.Inputs()...)
	}
	finish := func(n *surgery.Network, k int) *surgery.Plan {
		p := n.Empty()
		p.Criterion, p.Budget = "GAL, branches", fmt.Sprintf("%d of %d branches stay", len(order)-k, len(order))
		return p
	}
	if c.Budget.zero() {
		n, err := without(zeros)
		if err != nil {
			return nil, err
		}
		return finish(n, zeros), nil
	}
	share, target, _, err := c.Budget.target(s)
	if err != nil {
		return nil, err
	}
	least := int64(0)
	for k := range len(order) + 1 {
		n, err := without(k)
		if err != nil {
			return nil, err
		}
		least = n.Cost().MACs
		if c.Budget.Params != 0 {
			least = n.Cost().Params
		}
		if least <= target {
			return finish(n, k), nil
		}
	}
	whole := s.Cost().MACs
	if c.Budget.Params != 0 {
		whole = s.Cost().Params
	}
	return nil, &surgery.BudgetError{What: c.Budget.what(), Wanted: share, Least: float64(least) / float64(whole)}
}

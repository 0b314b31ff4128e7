// Package criterion holds importance criteria: what makes a weight worth keeping. A criterion is a value, never a class; a new one is one
// file and one line in All. A criterion that is written in a notebook's cell has the same rights, and criteriontest holds it to the same laws.
package criterion

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Node is a value in a GoMLX graph.
type Node = graph.Node

// Needs says what a criterion has to be given besides the weights: a field of Inputs for each bit.
type Needs uint32

// What a criterion can ask for.
const (
	NeedUniform       Needs = 1 << iota // Inputs.Uniform
	NeedGrad                            // Inputs.Grad
	NeedGradSquare                      // Inputs.GradSquare
	NeedGaussNewton                     // Inputs.GaussNewton
	NeedHessianGrad                     // Inputs.HessianGrad
	NeedInverseFisher                   // Inputs.InverseFisher
	NeedFlow                            // Inputs.Flow
	NeedInputNorm                       // Inputs.InputNorm
	NeedOutputZeros                     // Inputs.OutputZeros
	NeedOutputNorm                      // Inputs.OutputNorm
	NeedOutputRank                      // Inputs.OutputRank
	NeedResidual                        // Inputs.Residual
	NeedGain                            // Inputs.Gain
	NeedStart                           // Inputs.Start
	NeedTrack                           // Inputs.Track
	NeedGate                            // Inputs.Gate
)

// NeedData are the needs for which calibration data is run through the network.
const NeedData = NeedGrad | NeedGradSquare | NeedGaussNewton | NeedHessianGrad | NeedInverseFisher | NeedInputNorm | NeedOutputZeros | NeedOutputNorm |
	NeedOutputRank | NeedResidual

// NeedSignals are the needs that pkg/signal meets; the others come from the recipe's seed and from the store.
const NeedSignals = NeedData | NeedFlow | NeedGain | NeedStart

var needNames = []string{"uniform random numbers", "gradients", "squared gradients", "the Gauss-Newton diagonal", "the Hessian times the gradient",
	"the inverse Fisher matrix", "the synaptic flow", "the norms of the layers' inputs", "the share of zero activations", "the norms of the activations",
	"the ranks of the activations", "reconstruction errors", "the gains of batch normalisation", "the weights at the start",
	"what was tracked while training", "trained gates"}

// String lists what is needed.
func (n Needs) String() string {
	var names []string
	for rest := n; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros32(uint32(rest)); i < len(needNames) {
			names = append(names, needNames[i])
		} else {
			names = append(names, fmt.Sprintf("need %d", i))
		}
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

// Inputs is what Score gets. Every node has the parameter's shape unless its comment says otherwise; those that were not asked for in Needs are nil.
type Inputs struct {
	Param  params.Param
	Weight *Node

	Uniform       *Node // random numbers between 0 and 1, drawn from the recipe's seed
	Grad          *Node // ∂L/∂w of the mean loss over the calibration data
	GradSquare    *Node // the mean over examples of (∂Lᵢ/∂w)², the diagonal of the empirical Fisher matrix
	GaussNewton   *Node // the same for labels drawn from what the network predicts: the diagonal of the Gauss-Newton matrix, on average
	HessianGrad   *Node // H·∂L/∂w, of the loss at a temperature (signal.Source)
	InverseFisher *Node // the diagonal of the inverse of the empirical Fisher matrix in blocks
	Flow          *Node // ∂R/∂|w| of R, the sum of the outputs for an input of ones in a network of absolute values
	InputNorm     *Node // [in]: the L2 norm of each input channel over examples and positions
	OutputZeros   *Node // [out]: the share of zeros among each channel's activations
	OutputNorm    *Node // [out]: the mean over examples of the L2 norm of each channel's activations
	OutputRank    *Node // [out]: the mean over examples of the rank of each channel's activation map, that of the first layer where several share the parameter
	Residual      *Node // [in]: the squared error of the layer's outputs when this input channel goes after all that go before it
	Gain          *Node // [out]: the scale of the batch normalisation that follows the layer, the first that has the parameter
	Start         *Node // the weights at the start of training
	Track         *Node // what Criterion.Track has made of the training steps so far
	Gate          *Node // log α of the trained gates (prune.Gates)
}

// AlongOut spreads [out] over the parameter's shape.
func (in Inputs) AlongOut(x *Node) *Node { return in.along(x, in.Param.Out) }

// AlongIn spreads [in] over the parameter's shape.
func (in Inputs) AlongIn(x *Node) *Node { return in.along(x, in.Param.In) }

func (in Inputs) along(x *Node, axis int) *Node {
	if x.Rank() != 1 || x.Shape().Dimensions[0] != in.Param.Shape.Dimensions[axis] {
		exceptions.Panicf("criterion: %s spread along axis %d of %s, which has shape %s: give one value for each of its channels", x.Shape(), axis, in.Param.Path, in.Param.Shape)
	}
	ones := make([]int, in.Param.Shape.Rank())
	for i := range ones {
		ones[i] = 1
	}
	ones[axis] = x.Shape().Dimensions[0]
	return graph.BroadcastToDims(graph.Reshape(x, ones...), in.Param.Shape.Dimensions...) // [channels] -> [in.Param.Shape]
}

// Granularity is the smallest unit that a criterion can tell from another.
type Granularity int

// The granularities. Units that are finer than a criterion's are refused, because all of a channel's weights would be equal.
const (
	PerWeight Granularity = iota
	PerOut                // whole output channels
	PerIn                 // whole input channels
)

// Criterion says how important weights are.
type Criterion struct {
	Name        string // as the field calls it
	Cite        string // where it comes from
	Needs       Needs
	Granularity Granularity
	// Pool makes the contributions of a unit's weights into its importance. nil: L1.
	Pool Pool
	// Score returns the signed contribution of each weight, in the parameter's shape. It is a graph building function.
	Score func(in Inputs) *Node
	// Normalize is part of the criterion where it compares layers in a way of its own; Recipe.Normalize comes after it.
	Normalize Normalize
	// Rounds is how many rounds of scoring and removing a call of Prune takes, each to the next sparsity of a geometric ladder. 0: one.
	Rounds int
	// Track is done in every training step, with Weight before the update, Grad of the step and Track so far (zeros at first), and returns the next
	// Track. It is a graph building function. nil: nothing is tracked.
	Track func(in Inputs) *Node
}

// ScoreError says that a criterion gave scores that can't be ranked. Nothing was changed.
type ScoreError struct {
	Criterion string
	Path      string // of the parameter, or the name of the group
	Problem   string
}

func (e *ScoreError) Error() string {
	return fmt.Sprintf("criterion %q on %s: %s", e.Criterion, e.Path, e.Problem)
}

// All lists the criteria; the conformance suite runs over it.
func All() []Criterion {
	return []Criterion{
		Magnitude, Random, LAMP, Gain, SignedTaylor, Taylor, TaylorWeight, GradMagnitude, SNIP, GraSP, SynFlow, Fisher, OBD, WoodFisher, Movement,
		SoftMovement, MagnitudeIncrease, Distance, FPGM, APoZ, ActivationNorm, HRank, ThiNet, Wanda, L0, Invert(Magnitude), Shuffle(Magnitude),
	}
}

// ByName returns the criterion of that name among All.
func ByName(name string) (c Criterion, found bool) {
	for _, c := range All() {
		if c.Name == name {
			return c, true
		}
	}
	return Criterion{}, false
}

// inputs says, for each need in the order of its bits, where it goes in Inputs and which shape it has.
var inputs = []struct {
	field func(in *Inputs) **Node
	axis  func(p params.Param) int // of the channels that it has a value for; nil: a value for each weight
}{
	{func(in *Inputs) **Node { return &in.Uniform }, nil},
	{func(in *Inputs) **Node { return &in.Grad }, nil},
	{func(in *Inputs) **Node { return &in.GradSquare }, nil},
	{func(in *Inputs) **Node { return &in.GaussNewton }, nil},
	{func(in *Inputs) **Node { return &in.HessianGrad }, nil},
	{func(in *Inputs) **Node { return &in.InverseFisher }, nil},
	{func(in *Inputs) **Node { return &in.Flow }, nil},
	{func(in *Inputs) **Node { return &in.InputNorm }, inAxis},
	{func(in *Inputs) **Node { return &in.OutputZeros }, outAxis},
	{func(in *Inputs) **Node { return &in.OutputNorm }, outAxis},
	{func(in *Inputs) **Node { return &in.OutputRank }, outAxis},
	{func(in *Inputs) **Node { return &in.Residual }, inAxis},
	{func(in *Inputs) **Node { return &in.Gain }, outAxis},
	{func(in *Inputs) **Node { return &in.Start }, nil},
	{func(in *Inputs) **Node { return &in.Track }, nil},
	{func(in *Inputs) **Node { return &in.Gate }, nil},
}

func inAxis(p params.Param) int  { return p.In }
func outAxis(p params.Param) int { return p.Out }

// Each returns the single needs, in a fixed order.
func (n Needs) Each() []Needs {
	var each []Needs
	for rest := n; rest != 0; rest &= rest - 1 {
		each = append(each, rest&-rest)
	}
	return each
}

// Dims returns the shape that a single need has for a parameter: that of the weights, or one value for each channel.
func (n Needs) Dims(p params.Param) []int {
	if axis := inputs[bits.TrailingZeros32(uint32(n))].axis; axis != nil {
		return []int{p.Shape.Dimensions[axis(p)]}
	}
	return p.Shape.Dimensions
}

// Set sets the field of a single need.
func (in *Inputs) Set(need Needs, x *Node) {
	*inputs[bits.TrailingZeros32(uint32(need))].field(in) = x
}

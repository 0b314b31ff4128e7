package structured

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Slimming trains with a penalty on the gains of batch normalisation, and removes the channels whose gains are smallest, of all groups together: network slimming, Liu et al. 2017,
// arXiv:1708.06519. Train with Model, then Choose, apply the plan, and fine-tune.
//
// It has to hold a gain for each kernel whose channels are to be judged; a group that several kernels make, as the stream of a residual network, is judged by the mean of their gains (the paper
// lets each block select channels instead: see FreeBranches).
type Slimming struct {
	// Strength is λ, the price of a gain's magnitude. Default: 1e-4, as the authors take for VGG in 160 epochs; 1e-5 for residual networks. A gain that the loss does not hold shrinks by
	// λ·Σ learning rates/(1 − momentum) in all: few steps take a larger λ, or gains stay as they were.
	Strength float64
	Budget   Budget // units of all groups compete, if it does not say otherwise
}

// Model is the network with λ·Σ|γ| added to the loss while it trains, whose gradient is λ·sign(γ), 0 at 0. It is for any training loop that adds the losses which a model function leaves, as
// experiment.Train does. Logits makes it the form that experiment.Task wants.
//
// Errors: *ConfigError; *NoGainError if there is no gain at all.
func (s Slimming) Model(n *surgery.Network) (trace.ModelFn, error) {
	if s.Strength == 0 {
		s.Strength = 1e-4
	}
	if !(s.Strength > 0) || math.IsInf(s.Strength, 0) {
		return nil, &ConfigError{"Slimming.Strength", fmt.Sprintf("it is %v", s.Strength), "give a positive number, for instance 1e-4"}
	}
	gains := gainsOf(n)
	if len(gains) == 0 {
		return nil, noGains("slimming", n)
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(gains)) {
		for _, g := range gains[name] {
			paths = append(paths, g.path)
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths) // a kernel can make channels of several groups
	return penalised(n, func(scope *model.Scope, g *graph.Graph) *graph.Node {
		var sum *graph.Node
		for _, path := range paths {
			gamma := variable(scope, path).NodeValue(g)
			sum = plus(sum, graph.ReduceAllSum(graph.Mul(gamma, graph.StopGradient(graph.Sign(gamma))))) // the gradient of GoMLX's Abs is 1 at 0
		}
		return graph.MulScalar(sum, s.Strength)
	}), nil
}

// Choose ranks units by |γ| and plans what goes.
//
// Errors: *NoGainError; *ConfigError; *surgery.ValueError for gains that are not in float32; those of surgery.Network.Choose.
func (s Slimming) Choose(n *surgery.Network) (*surgery.Plan, error) {
	importance := map[string][]float32{}
	for name, of := range gainsOf(n) {
		scores := make([]float32, len(of[0].member.Indices))
		for _, g := range of {
			value, err := values(n.Store(), g.path)
			if err != nil {
				return nil, err
			}
			for i := range value {
				value[i] = float32(math.Abs(float64(value[i]))) / float32(len(of))
			}
			for u, x := range unitMeans(g.member, value) {
				scores[u] += x
			}
		}
		importance[name] = scores
	}
	if len(importance) == 0 {
		return nil, noGains("slimming", n)
	}
	return s.Budget.choose(n, "slimming", Global, importance)
}

func noGains(method string, n *surgery.Network) error {
	e := &NoGainError{Method: method}
	for _, g := range n.Groups() {
		for _, m := range makers(n)[g.Name] {
			if m.site.Gain == "" && !slices.Contains(e.Kernels, m.site.Kernel) {
				e.Kernels = append(e.Kernels, m.site.Kernel)
			}
		}
	}
	return e
}

// penalised is the network with a penalty in training.
func penalised(n *surgery.Network, penalty func(scope *model.Scope, g *graph.Graph) *graph.Node) trace.ModelFn {
	fn := n.ModelFn()
	return func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		out := fn(scope, in)
		if g := in[0].Graph(); scope.Store().IsTraining(g) {
			train.AddRegularizationLoss(penalty(scope, g))
		}
		return out
	}
}

// variable returns the network's variable in the scope that it was called with.
func variable(scope *model.Scope, path string) *model.Variable {
	at := model.JoinPath(scope.Scope(), path)
	v := scope.Store().GetVariable(at)
	if v == nil {
		panic(&surgery.ValueError{Path: at, Problem: "is not there", Remedy: "train the store that the network was traced with, or a copy of it"})
	}
	return v
}

func plus(sum, x *graph.Node) *graph.Node {
	if sum == nil {
		return x
	}
	return graph.Add(sum, x)
}

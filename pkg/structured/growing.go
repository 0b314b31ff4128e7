package structured

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/initializer"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Growing is growing regularisation, Wang et al. 2021, arXiv:2012.09243: a weight decay that grows while the network trains drives units to zero slowly enough for the others to take over.
//
// By default, GReg-1 of the paper, the units that will go are chosen first, by the L1 norm of their kernels, and only they decay: Choose, train with Model(n, plan), apply the plan. GReg-2
// lets all weights decay, which drives them apart by how much the loss needs them, and chooses afterwards: train with Model(n, nil), then Choose.
type Growing struct {
	// Step is δ, by which the decay grows, and Every after how many training steps it does. Defaults: 1e-4 and 10, as the authors take for CIFAR-10
	Step  float64
	Every int
	// Limit is where it stops growing. Default: 1
	Limit  float64
	Budget Budget // the same share of each group stays, if it does not say otherwise
}

// asIs keeps importances as they are.
var asIs = criterion.Normalize{Name: "as it is", Apply: func([]float32, params.Param, *rand.Rand) {}}

// kernelL1 is the mean |w| over the kernels that make a unit.
var kernelL1 = criterion.Criterion{Name: "growing", Cite: "Wang et al. 2021, arXiv:2012.09243", Granularity: criterion.PerOut, Pool: criterion.Mean,
	Score: func(in criterion.Inputs) *graph.Node { return graph.Abs(in.Weight) }}

// Choose ranks units by the mean |w| of the kernels that make them. Errors: those of surgery.Network.Importance and Choose; *ConfigError.
func (c Growing) Choose(n *surgery.Network) (*surgery.Plan, error) {
	importance, err := n.Importance(surgery.Config{Criterion: kernelL1, Normalize: asIs}, nil)
	if err != nil {
		return nil, err
	}
	return c.Budget.choose(n, "growing", WithinGroup, importance)
}

// GrowingSteps is where a Growing counts training steps, below the scope that its model function is called with.
const GrowingSteps = "structured/growing/steps"

// Model is the network with ½·λ·Σw² added to the loss while it trains, over the kernels that make the units which the plan removes, or all units for a plan of nil. λ is
// min(Limit, Step·⌊s/Every⌋) at training step s, which a variable counts.
//
// Errors: *ConfigError; *NothingError for a plan that removes nothing.
func (c Growing) Model(n *surgery.Network, plan *surgery.Plan) (trace.ModelFn, error) {
	for field, x := range map[string]*float64{"Growing.Step": &c.Step, "Growing.Limit": &c.Limit} {
		if *x < 0 || math.IsNaN(*x) || math.IsInf(*x, 0) {
			return nil, &ConfigError{field, fmt.Sprintf("it is %v", *x), "give a positive number, or 0 for the default"}
		}
	}
	if c.Every < 0 {
		return nil, &ConfigError{"Growing.Every", fmt.Sprintf("it is %d", c.Every), "give a positive number of steps, or 0 for the default"}
	}
	if c.Step == 0 {
		c.Step = 1e-4
	}
	if c.Every == 0 {
		c.Every = 10
	}
	if c.Limit == 0 {
		c.Limit = 1
	}
	type decay struct {
		member surgery.Member
		units  []float32 // 1 for those that decay
	}
	var all []decay
	if plan != nil {
		if plan.Network() == nil {
			return nil, &ConfigError{"plan", "it is for no network", "give one of Choose, or nil for all units"}
		}
		if err := plan.Check(); err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(plan.Removed)) {
			if g := n.Group(name); g == nil || g.Size != plan.Network().Group(name).Size {
				return nil, &ConfigError{"plan", fmt.Sprintf("it removes units of %s, which the network does not have", name), "give a plan of this network"}
			}
		}
	}
	for _, g := range n.Groups() {
		decays := slices.Repeat([]float32{1}, g.Size)
		if plan != nil {
			clear(decays)
			for _, u := range plan.Removed[g.Name] {
				decays[u] = 1
			}
		}
		if !slices.Contains(decays, 1) {
			continue
		}
		for _, m := range g.Members {
			if m.Role == surgery.Makes {
				all = append(all, decay{m, decays})
			}
		}
	}
	if len(all) == 0 {
		return nil, &NothingError{"growing regularisation"}
	}
	return penalised(n, func(scope *model.Scope, g *graph.Graph) *graph.Node {
		steps := scope.Store().VariableWithShape(model.JoinPath(scope.Scope(), GrowingSteps), shapes.Make(dtypes.Float32), initializer.Zero).SetTrainable(false)
		s := steps.NodeValue(g)
		steps.SetNodeValue(graph.OnePlus(s))
		lambda := graph.MinScalar(graph.MulScalar(graph.Floor(graph.DivScalar(s, float64(c.Every))), c.Step), c.Limit)
		var sum *graph.Node
		for _, d := range all {
			w := variable(scope, d.member.Path).NodeValue(g)
			sum = plus(sum, graph.ReduceAllSum(graph.Mul(graph.ConvertDType(graph.Const(g, d.units), w.DType()), byUnit(graph.Square(w), d.member))))
		}
		return graph.Mul(graph.ConvertDType(graph.StopGradient(lambda), sum.DType()), graph.MulScalar(sum, 0.5))
	}), nil
}

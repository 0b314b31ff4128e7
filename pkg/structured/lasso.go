package structured

import (
	"fmt"
	"math"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// GroupLasso trains with a penalty on the norm of all the weights of a unit together, which drives whole units to zero, and removes those whose norms are smallest: Yuan & Lin 2006,
// doi:10.1111/j.1467-9868.2005.00532.x, for networks Wen et al. 2016, arXiv:1608.03665. The weights of a unit are those of all kernels that make or read it, and its gains, as in Fang et al.
// 2023, arXiv:2301.12900; Wen et al. penalise kernels one by one.
type GroupLasso struct {
	// Strength is λ. A unit u of p weights costs λ·√p·‖w_u‖₂. Default: 1e-4
	Strength float64
	Budget   Budget // units of all groups compete, if it does not say otherwise
}

// Model is the network with the penalty added to the loss while it trains, as that of Slimming. Near zero the norm is smoothed: √(‖w‖² + 1e-12). Errors: *ConfigError; *NothingError.
func (l GroupLasso) Model(n *surgery.Network) (trace.ModelFn, error) {
	if l.Strength == 0 {
		l.Strength = 1e-4
	}
	if !(l.Strength > 0) || math.IsInf(l.Strength, 0) {
		return nil, &ConfigError{"GroupLasso.Strength", fmt.Sprintf("it is %v", l.Strength), "give a positive number, for instance 1e-4"}
	}
	if len(n.Groups()) == 0 {
		return nil, &NothingError{"group lasso"}
	}
	return penalised(n, func(scope *model.Scope, g *graph.Graph) *graph.Node {
		var sum *graph.Node
		for _, group := range n.Groups() {
			squares, count := squares(scope, g, group)
			if squares == nil {
				continue
			}
			norms := graph.Sqrt(graph.AddScalar(squares, 1e-12)) // [units]
			sum = plus(sum, graph.MulScalar(graph.ReduceAllSum(norms), math.Sqrt(float64(count))))
		}
		return graph.MulScalar(sum, l.Strength)
	}), nil
}

// squares returns Σw² over the kernels and gains of each unit of a group, [units], and of how many weights; nil if it has none.
func squares(scope *model.Scope, g *graph.Graph, group *surgery.Group) (sum *graph.Node, count int) {
	for _, m := range group.Members {
		if m.Role == surgery.Follows {
			continue
		}
		v := variable(scope, m.Path)
		if !v.Trainable || !v.DType().IsFloat() {
			continue
		}
		sum = plus(sum, byUnit(graph.Square(v.NodeValue(g)), m))
		count += v.Shape().Size() / v.Shape().Dimensions[m.Axis] * m.PerUnit()
	}
	return sum, count
}

// rms is √(mean w²) over the weights of a unit.
var rms = criterion.Criterion{Name: "group lasso", Cite: "Wen et al. 2016, arXiv:1608.03665", Score: surgery.GroupL2.Score,
	Pool: func(c *graph.Node, axes ...int) *graph.Node { return graph.Sqrt(graph.ReduceMean(c, axes...)) }}

// Choose ranks units by ‖w_u‖₂, divided by the mean of the group, and plans what goes. What the penalty has brought to zero goes first, wherever it is; for the rest norms of layers of
// other widths don't compare: by ‖w_u‖₂/√p alone a layer with many inputs, whose weights are small one by one, loses all units but one. Fang et al. divide, too.
// Errors: those of surgery.Network.Importance and Choose; *ConfigError.
func (l GroupLasso) Choose(n *surgery.Network) (*surgery.Plan, error) {
	importance, err := n.Importance(surgery.Config{Criterion: rms}, nil)
	if err != nil {
		return nil, err
	}
	return l.Budget.choose(n, "group lasso", Global, importance)
}

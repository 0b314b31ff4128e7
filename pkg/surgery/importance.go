package surgery

import (
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/scoring"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/signal"
)

// GroupL2 is Σw² over all the weights of a unit, in all of its kernels and gains. With the default normalisation, by the mean of the group, and without biases it ranks as Torch-Pruning's
// GroupMagnitudeImportance does (p=2, group_reduction="mean", normalizer="mean"). Fang et al. 2023, arXiv:2301.12900.
var GroupL2 = criterion.Criterion{Name: "group L2", Cite: "Fang et al. 2023, arXiv:2301.12900", Pool: criterion.Sum,
	Score: func(in criterion.Inputs) *graph.Node { return graph.Square(in.Weight) }}

// ofKernels are the needs that there are only for the kernels of products.
const ofKernels = criterion.NeedInputNorm | criterion.NeedOutputZeros | criterion.NeedOutputNorm | criterion.NeedOutputRank | criterion.NeedResidual | criterion.NeedGain |
	criterion.NeedTrack | criterion.NeedGate

// Params returns the variables that a configuration's criterion scores: those to collect signals for. Their In and Out are the axes along which the network uses them.
func (n *Network) Params(cfg Config) params.Set {
	cfg = cfg.complete()
	var set params.Set
	for _, g := range n.groups {
		for _, m := range g.Members {
			if n.scored(g, m, cfg) && !slices.ContainsFunc(set, func(p params.Param) bool { return p.Path == m.Path }) {
				set = append(set, n.param(m.Path))
			}
		}
	}
	slices.SortFunc(set, func(a, b params.Param) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return set
}

// scored tells whether a place has a part in the importance of its units.
func (n *Network) scored(g *Group, m Member, cfg Config) bool {
	v := n.store.GetVariable(m.Path)
	if v == nil || !v.Trainable || !v.DType().IsFloat() {
		return false
	}
	kernel := m.Role == Makes || m.Role == Reads
	switch {
	case cfg.Criterion.Needs&criterion.NeedGain != 0 && !slices.ContainsFunc(g.Members, func(m Member) bool { return m.Role == Scales }):
		return false // there are no gains
	case cfg.Criterion.Granularity == criterion.PerOut:
		return m.Role == Makes && n.param(m.Path).Out == m.Axis
	case cfg.Criterion.Granularity == criterion.PerIn:
		return m.Role == Reads && n.param(m.Path).In == m.Axis
	case cfg.Criterion.Needs&ofKernels != 0:
		return kernel
	}
	return kernel || m.Role == Scales || cfg.Biases
}

// param describes a variable: the axis along which it makes channels is Out, that along which it reads them In; the last two, where the network does not say.
func (n *Network) param(path string) params.Param {
	v := n.store.GetVariable(path)
	rank := v.Shape().Rank()
	in, out := -1, -1
	for _, g := range n.groups {
		for _, m := range g.Members {
			switch {
			case m.Path != path:
			case m.Role == Makes:
				out = m.Axis
			case m.Role == Reads:
				in = m.Axis
			}
		}
	}
	if out < 0 {
		if out = max(rank-1, 0); out == in {
			out = max(rank-2, 0)
		}
	}
	if in < 0 {
		if in = max(rank-2, 0); in == out && rank > 1 {
			in = rank - 1
		}
	}
	return params.Param{Path: path, Shape: v.Shape(), In: in, Out: out}
}

// Importance returns the importance of every unit of every group by name, as Plan ranks them: larger is more important. Groups that no place of is scored are left out. The
// store is not changed.
//
// Errors: *signal.MissingError; *criterion.ScoreError.
func (n *Network) Importance(cfg Config, sig *signal.Signals) (map[string][]float32, error) {
	cfg = cfg.complete()
	c := cfg.Criterion
	if err := sig.Check(c.Needs); err != nil {
		return nil, fmt.Errorf("criterion %q: %w", c.Name, err)
	}
	for _, g := range n.groups {
		for _, m := range g.Members {
			if v := n.store.GetVariable(m.Path); m.Role != Follows && (v == nil || !v.HasValue()) {
				return nil, &ValueError{m.Path, "has no value", "initialise the network, train it, or load its weights before planning"}
			}
		}
	}
	set := n.Params(cfg)
	if c.Needs&criterion.NeedSignals != 0 {
		known := sig.Paths()
		set = slices.DeleteFunc(set, func(p params.Param) bool { return !slices.Contains(known, p.Path) })
	}
	at := map[string]int{}
	for i, p := range set {
		at[p.Path] = i
	}
	type place struct {
		Member
		param int
	}
	var scored []*Group
	var places [][]place
	for _, g := range n.groups {
		var of []place
		for _, m := range g.Members {
			if i, found := at[m.Path]; found && n.scored(g, m, cfg) {
				of = append(of, place{m, i})
			}
		}
		if of != nil {
			scored, places = append(scored, g), append(places, of)
		}
	}
	if scored == nil {
		return map[string][]float32{}, nil
	}
	s := &scoring.Scorer{Backend: n.backend, Store: n.store, Set: set, Criterion: c, Seed: cfg.Seed, Reduce: func(contributions []*graph.Node) []*graph.Node {
		scores := make([]*graph.Node, len(scored))
		for i, g := range scored {
			var all []*graph.Node
			for _, p := range places[i] {
				all = append(all, byUnit(contributions[p.param], p.Member)) // [units, weights of each there]
			}
			x := all[0]
			if len(all) > 1 {
				x = graph.Concatenate(all, 1)
			}
			if scores[i] = c.Pool(x, 1); scores[i].Shape().Size() != g.Size { // -> [units]
				panic(&criterion.ScoreError{Criterion: c.Name, Path: g.Name, Problem: fmt.Sprintf("its pool gives %s, expected one score for each of %d units: it has to reduce over the axes that it is given",
					scores[i].Shape(), g.Size)})
			}
			scores[i] = graph.Reshape(scores[i], g.Size)
		}
		return scores
	}}
	results, err := s.Run(sig, 0)
	if err != nil {
		return nil, err
	}
	importance := map[string][]float32{}
	normalize := c.Normalize.Then(cfg.Normalize)
	for i, g := range scored {
		scores := results[i]
		if err := scoring.Finite(c, g.Name, scores); err != nil {
			return nil, err
		}
		if normalize.Apply != nil {
			normalize.Apply(scores, n.param(places[i][0].Path), scoring.Random(cfg.Seed, "normalize", 0, g.Name))
		}
		if err := scoring.Finite(c, g.Name, scores); err != nil {
			return nil, err
		}
		importance[g.Name] = scores
	}
	return importance, nil
}

// byUnit returns the contributions of the weights of each unit of a place. [dims] -> [units, weights]
func byUnit(c *graph.Node, m Member) *graph.Node {
	order := []int{m.Axis}
	for k := range c.Rank() {
		if k != m.Axis {
			order = append(order, k)
		}
	}
	if m.Axis != 0 {
		c = graph.TransposeAllAxes(c, order...)
	}
	length := c.Shape().Dimensions[0]
	c = graph.Reshape(c, length, c.Shape().Size()/length)
	var indices []int32
	inOrder := true
	for _, unit := range m.Indices {
		for _, i := range unit {
			inOrder = inOrder && i == len(indices)
			indices = append(indices, int32(i))
		}
	}
	if !inOrder || len(indices) != length {
		c = graph.Gather(c, graph.Reshape(graph.Const(c.Graph(), indices), len(indices), 1))
	}
	return graph.Reshape(c, len(m.Indices), c.Shape().Size()/len(m.Indices))
}

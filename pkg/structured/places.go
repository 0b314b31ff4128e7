package structured

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Logits is a model function of one input in the form of experiment.Task.Model.
func Logits(fn trace.ModelFn) func(*model.Scope, *graph.Node) *graph.Node {
	return func(scope *model.Scope, x *graph.Node) *graph.Node { return fn(scope, []*graph.Node{x})[0] }
}

// maker is a site together with what it makes of a group.
type maker struct {
	group  *surgery.Group
	member surgery.Member
	site   surgery.Site
}

// makers lists for each group the sites that make its channels, in the order of the network.
func makers(n *surgery.Network) map[string][]maker {
	all := map[string][]maker{}
	sites := n.Sites()
	for _, g := range n.Groups() {
		for _, s := range sites {
			for _, m := range g.Members {
				if m.Role == surgery.Makes && m.Path == s.Kernel && m.Axis == s.KernelAxis {
					all[g.Name] = append(all[g.Name], maker{g, m, s})
				}
			}
		}
	}
	return all
}

// unitOf returns the unit of each of n indices of a member; −1 for those of other groups.
func unitOf(m surgery.Member, n int) []int {
	units := slices.Repeat([]int{-1}, n)
	for u, indices := range m.Indices {
		for _, i := range indices {
			units[i] = u
		}
	}
	return units
}

// factors multiplies the channels of a value with a factor for each unit of a group; those of other groups stay as they are. factor [units]
func factors(x *graph.Node, axis int, m surgery.Member, factor *graph.Node) *graph.Node {
	return graph.Mul(x, along(channels(m, x.Shape().Dimensions[axis], factor, 1), x, axis))
}

// channels spreads a value for each unit over the channels of a member; channels of other groups get a constant. [units] -> [channels]
//
// It is joined from slices, and not gathered by indices, where units lie in order: surgery follows parts of an axis through those, also where the parts belong to several groups.
func channels(m surgery.Member, n int, value *graph.Node, others float64) *graph.Node {
	units := unitOf(m, n)
	var parts []*graph.Node
	for start := 0; start < n; {
		end := start + 1
		for end < n && (units[start] < 0 && units[end] < 0 || units[start] >= 0 && units[end] == units[end-1]+1) {
			end++
		}
		switch first := units[start]; {
		case first < 0:
			parts = append(parts, graph.BroadcastToDims(graph.Scalar(value.Graph(), value.DType(), others), end-start))
		case end-start == len(m.Indices):
			parts = append(parts, value)
		default:
			parts = append(parts, graph.Slice(value, graph.AxisRange(first, first+end-start)))
		}
		start = end
	}
	switch {
	case len(parts) == 1:
		return parts[0]
	case len(parts) <= 8:
		return graph.Concatenate(parts, 0)
	}
	list := make([][]int32, n)
	for i, u := range units {
		if u < 0 {
			u = len(m.Indices)
		}
		list[i] = []int32{int32(u)}
	}
	rest := graph.BroadcastToDims(graph.Scalar(value.Graph(), value.DType(), others), 1)
	return graph.Gather(graph.Concatenate([]*graph.Node{value, rest}, 0), graph.Const(value.Graph(), list))
}

// along gives a vector the rank of x, to be multiplied with it along an axis.
func along(v, x *graph.Node, axis int) *graph.Node {
	dims := slices.Repeat([]int{1}, x.Rank())
	dims[axis] = x.Shape().Dimensions[axis]
	return graph.Reshape(v, dims...)
}

// byUnit sums a value, which has the shape of a variable, over all of it that a unit has there. [variable] -> [units]
func byUnit(x *graph.Node, m surgery.Member) *graph.Node {
	var others []int
	for k := range x.Rank() {
		if k != m.Axis {
			others = append(others, k)
		}
	}
	if len(others) > 0 {
		x = graph.ReduceSum(x, others...) // -> [indices]
	}
	return units(x, m)
}

// units sums what the indices of a unit have. [indices] -> [units]
func units(x *graph.Node, m surgery.Member) *graph.Node {
	var list [][]int32
	inOrder := true
	for _, unit := range m.Indices {
		for _, i := range unit {
			inOrder = inOrder && i == len(list)
			list = append(list, []int32{int32(i)})
		}
	}
	if !inOrder || len(list) != x.Shape().Dimensions[0] {
		x = graph.Gather(x, graph.Const(x.Graph(), list))
	}
	if m.PerUnit() == 1 {
		return x
	}
	return graph.ReduceSum(graph.Reshape(x, len(m.Indices), m.PerUnit()), 1)
}

// gain is a gain of a normalisation, with what it scales of a group.
type gain struct {
	path   string
	member surgery.Member // of the kernel before it: its indices are those of the gain
}

// hasGain tells whether behind a kernel there is a gain with a value for each of its channels.
func hasGain(n *surgery.Network, s surgery.Site) bool {
	v := n.Store().GetVariable(s.Gain)
	return s.Gain != "" && v != nil && v.Shape().Size() == s.Channels
}

// gainsOf returns the gains of each group that has some.
func gainsOf(n *surgery.Network) map[string][]gain {
	all := map[string][]gain{}
	for name, of := range makers(n) {
		for _, m := range of {
			if !hasGain(n, m.site) || slices.ContainsFunc(all[name], func(g gain) bool { return g.path == m.site.Gain }) {
				continue
			}
			all[name] = append(all[name], gain{m.site.Gain, m.member})
		}
	}
	return all
}

// values reads a variable.
func values(store *model.Store, path string) ([]float32, error) {
	v := store.GetVariable(path)
	if v == nil || !v.HasValue() {
		return nil, &surgery.ValueError{Path: path, Problem: "has no value", Remedy: "initialise the network, train it, or load its weights before"}
	}
	if v.DType() != dtypes.Float32 {
		return nil, &surgery.ValueError{Path: path, Problem: fmt.Sprintf("is of type %s", v.DType()), Remedy: "convert the network to float32, or choose with a method that takes any, such as PFP, GAL or Growing"}
	}
	value, err := v.Value()
	if err != nil {
		return nil, err
	}
	return tensors.CopyFlatData[float32](value)
}

// unitMeans averages a value for each channel over the channels of each unit.
func unitMeans(m surgery.Member, channel []float32) []float32 {
	means := make([]float32, len(m.Indices))
	for u, indices := range m.Indices {
		for _, i := range indices {
			means[u] += channel[i] / float32(len(indices))
		}
	}
	return means
}

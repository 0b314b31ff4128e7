package structured

import (
	"github.com/gomlx/gomlx/core/graph"

	"github.com/espalier-ml/espalier/pkg/surgery"
)

// FreeBranches returns a network that computes the same, in which the last layer of a branch may lose channels that the stream keeps: what it lacks is added as zero. The last convolutions of a
// residual network's blocks then are groups of their own, as SCOP, FPGM and soft filter pruning take them (He et al. 2019, arXiv:1811.00250), where otherwise they go with the stream, all blocks
// of a stage together. Projections of a shortcut stay with the stream.
//
// The zeros cost no multiply-accumulates, but time: a copy of what the branch adds. The network shares the store of the other, and plans are for the network that is returned.
//
// Errors: *NothingError for a network without branches that end in a sum; those of surgery.Trace.
func FreeBranches(n *surgery.Network) (*surgery.Network, error) {
	some := false
	for _, s := range n.Sites() {
		some = some || s.Joins
	}
	if !some {
		return nil, &NothingError{"FreeBranches"}
	}
	fn := n.Intercept(func(s surgery.Site, x *graph.Node) *graph.Node {
		if s.Place != surgery.AtLast || !s.Joins {
			return x
		}
		return listed(x, s.Axis)
	})
	return surgery.Trace(n.Backend(), n.Store(), fn, n.Inputs()...)
}

// listed takes all channels of a value by a list of their indices, of which surgery can then remove each by itself.
func listed(x *graph.Node, axis int) *graph.Node {
	list := make([][]int32, x.Shape().Dimensions[axis])
	for i := range list {
		list[i] = []int32{int32(i)}
	}
	front, back := []int{axis}, make([]int, x.Rank())
	for k := range x.Rank() {
		if k != axis {
			front = append(front, k)
		}
	}
	for i, k := range front {
		back[k] = i
	}
	return graph.TransposeAllAxes(graph.Gather(graph.TransposeAllAxes(x, front...), graph.Const(x.Graph(), list)), back...)
}

package distill

import (
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

// read returns what the layer with the kernel of that path reads, in a graph in which the network was just built. network names it in errors.
func read(network string, store *model.Store, g *graph.Graph, path string) *graph.Node {
	unknown := func() error {
		e := &LayerError{Network: network, Path: path}
		for v := range store.IterVariables() {
			if v.InUseByGraph(g) && v.Shape().Rank() >= 2 {
				e.Known = append(e.Known, v.Path())
			}
		}
		slices.Sort(e.Known)
		return e
	}
	v := store.GetVariable(path)
	if v == nil || !v.InUseByGraph(g) {
		panic(unknown())
	}
	// What is made of the variable by masks, conversions and transposition is the variable still.
	kernel := map[*graph.Node]bool{v.NodeValue(g): true}
	for _, node := range g.Nodes() { // the inputs of a node come before it
		in := node.Inputs()
		switch node.Type() {
		case graph.NodeTypeWhere, graph.NodeTypeConvertDType, graph.NodeTypeIdentity, graph.NodeTypeTranspose:
			if slices.ContainsFunc(in, func(n *graph.Node) bool { return kernel[n] }) {
				kernel[node] = true
			}
		case graph.NodeTypeDotGeneral, graph.NodeTypeFusedDense, graph.NodeTypeConvGeneral:
			if len(in) >= 2 && kernel[in[1]] {
				return in[0]
			}
		}
	}
	panic(unknown())
}

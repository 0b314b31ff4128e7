package distill

import (
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

// read returns what the layer with the kernel of that path reads, in a graph in which the network was just built of a batch of examples x. network names it in errors.
func read(network string, store *model.Store, x *graph.Node, path string) *graph.Node {
	g := x.Graph()
	if v := store.GetVariable(path); v != nil && v.InUseByGraph(g) {
		if in := factor(v, g); in != nil {
			return unrolled(in, x.Shape().Dim(0))
		}
	}
	e := &LayerError{Network: network, Path: path}
	for v := range store.IterVariables() {
		if v.InUseByGraph(g) && v.Shape().Rank() >= 2 && factor(v, g) != nil {
			e.Known = append(e.Known, v.Path())
		}
	}
	slices.Sort(e.Known)
	panic(e)
}

// factor returns what a kernel is multiplied with first; nil if it is nowhere the second of a product's factors.
func factor(v *model.Variable, g *graph.Graph) *graph.Node {
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
	return nil
}

// unrolled gives features their batch back where a layer has rolled it up with other axes, as GoMLX's Dense does with sequences. [batch·positions, channels] -> [batch, positions, channels]
func unrolled(x *graph.Node, batch int) *graph.Node {
	for x.Type() == graph.NodeTypeReshape && x.Shape().Dim(0) != batch && x.Inputs()[0].Rank() > 0 && x.Inputs()[0].Shape().Dim(-1) == x.Shape().Dim(-1) {
		x = x.Inputs()[0]
	}
	return x
}

// Package criterion holds importance criteria: what makes a weight worth keeping. A criterion is a value, never a class; a new one is one
// file and one line in All.
package criterion

import (
	"github.com/gomlx/gomlx/core/graph"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Node is a value in a GoMLX graph.
type Node = graph.Node

// Needs says what a criterion has to be given besides the weights.
type Needs uint8

const (
	// NeedUniform asks for Inputs.Uniform: random numbers between 0 and 1, drawn from the recipe's seed.
	NeedUniform Needs = 1 << iota
)

// Inputs is what Score gets. Every node has the parameter's shape; those that were not asked for in Needs are nil.
type Inputs struct {
	Param   params.Param
	Weight  *Node
	Uniform *Node
}

// Criterion says how important weights are.
type Criterion struct {
	Name  string // as the field calls it
	Cite  string // where it comes from
	Needs Needs
	// Pool makes the contributions of a unit's weights into its importance. nil: L1.
	Pool Pool
	// Score returns the signed contribution of each weight, in the parameter's shape. It is a graph building function.
	Score func(in Inputs) *Node
}

// All lists the criteria; the conformance suite runs over it.
func All() []Criterion { return []Criterion{Magnitude, Random} }

// Pool reduces contributions over axes: the importance of a unit that consists of several weights. With no axes it is the importance
// of single weights.
type Pool func(contribution *Node, axes ...int) *Node

// L1 is Σ|c|.
func L1(c *Node, axes ...int) *Node { return sum(graph.Abs(c), axes) }

// L2 is √Σc².
func L2(c *Node, axes ...int) *Node {
	if len(axes) == 0 {
		return graph.Abs(c)
	}
	return graph.Sqrt(sum(graph.Square(c), axes))
}

// Net is |Σc|: contributions of different sign cancel, as they do in the network.
func Net(c *Node, axes ...int) *Node { return graph.Abs(sum(c, axes)) }

// Sum is Σc: a negative sum is least important.
func Sum(c *Node, axes ...int) *Node { return sum(c, axes) }

// Mean is Σc / n: units of different sizes compare.
func Mean(c *Node, axes ...int) *Node {
	if len(axes) == 0 {
		return c
	}
	return graph.ReduceMean(c, axes...)
}

func sum(c *Node, axes []int) *Node {
	if len(axes) == 0 {
		return c
	}
	return graph.ReduceSum(c, axes...)
}

// Normalize makes the scores of different layers comparable before they are ranked together. The zero value leaves them as they are.
type Normalize struct {
	Name  string
	Apply func(score *Node, p params.Param) *Node // score [units] -> [units]
}

// ByL2 divides a layer's scores by their L2 norm.
var ByL2 = Normalize{Name: "L2", Apply: func(score *Node, _ params.Param) *Node {
	return graph.Div(score, graph.Max(graph.Sqrt(graph.ReduceAllSum(graph.Square(score))), tiny(score)))
}}

// ByMean divides a layer's scores by the mean of their magnitudes.
var ByMean = Normalize{Name: "mean", Apply: func(score *Node, _ params.Param) *Node {
	return graph.Div(score, graph.Max(graph.ReduceAllMean(graph.Abs(score)), tiny(score)))
}}

// tiny keeps a layer of zeros from becoming one of NaNs.
func tiny(like *Node) *Node { return graph.Scalar(like.Graph(), like.DType(), 1e-30) }

package criterion

import "github.com/gomlx/gomlx/core/graph"

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

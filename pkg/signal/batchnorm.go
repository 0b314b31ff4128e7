package signal

import (
	"regexp"
	"strconv"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// GoMLX v0.28.2 has no gradient for batch normalisation in inference, and signals are collected in that mode.
func init() {
	if graph.VJPRegistration[graph.NodeTypeBatchNormForInference] == nil {
		graph.VJPRegistration[graph.NodeTypeBatchNormForInference] = batchNormVJP
	}
}

var batchNormAttributes = regexp.MustCompile(`epsilon=([-+.e\d]+), featureAxis=(\d+)\)`)

// batchNormVJP is the gradient of y = γ·(x − µ)/√(σ² + ε) + β with respect to x, γ, β, µ and σ².
func batchNormVJP(node *graph.Node, vjps []*graph.Node, _ shapes.Shape) []*graph.Node {
	m := batchNormAttributes.FindStringSubmatch(node.String())
	if m == nil {
		exceptions.Panicf("signal: batch normalisation of an unknown form, which has no gradient: %s", node)
	}
	epsilon, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		exceptions.Panicf("signal: ε of %s: %v", node, err)
	}
	axis, _ := strconv.Atoi(m[2]) // the pattern has digits only
	dy, in := vjps[0], node.Inputs()
	x, scale, mean, variance := in[0], in[1], in[3], in[4]
	along := make([]int, x.Rank())
	for i := range along {
		along[i] = 1
	}
	along[axis] = x.Shape().Dimensions[axis]
	spread := func(v *graph.Node) *graph.Node { return graph.BroadcastToShape(graph.Reshape(v, along...), x.Shape()) } // [channels] -> [x]
	sum := func(v *graph.Node) *graph.Node { return sumOver(v, others(x, axis)) }                                      // [x] -> [channels]
	inverse := graph.Reciprocal(graph.Sqrt(graph.AddScalar(variance, epsilon)))                                        // 1/√(σ² + ε)
	centred := graph.Sub(x, spread(mean))
	slope := graph.Mul(scale, inverse)
	dScale := graph.Mul(sum(graph.Mul(dy, centred)), inverse)
	dOffset := sum(dy)
	dMean := graph.Neg(graph.Mul(dOffset, slope))
	dVariance := graph.MulScalar(graph.Mul(graph.Mul(dScale, scale), graph.Square(inverse)), -0.5)
	return []*graph.Node{graph.Mul(dy, spread(slope)), dScale, dOffset, dMean, dVariance}
}

package nets

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/layers/regularizer"
	"github.com/gomlx/gomlx/ml/model"
)

// convolution is a square convolution without bias, padded by (size − 1)/2 on each side as torch does it. GoMLX's layer pads by SAME, which for strides above 1 puts
// less before than behind, and makes kernels of the wrong shape for groups.
type convolution struct {
	size, out int
	stride    int // 0 means 1
	depthwise bool
}

// apply is the convolution, followed by batch normalisation, in a scope of its own. Variables have the names that GoMLX's layers give them.
// [batch, h, w, in] -> [batch, h/stride, w/stride, out], rounded up
func (c convolution) apply(scope *model.Scope, name string, x *graph.Node) *graph.Node {
	scope = scope.At("%s", name)
	in, groups := x.Shape().Dim(-1), 1
	if c.depthwise {
		groups = in
	}
	w := scope.At("conv").VariableWithShape("weights", shapes.Make(x.DType(), c.size, c.size, in/groups, c.out))
	if r := regularizer.FromScope(scope); r != nil {
		r(x.Graph(), w)
	}
	around := [2]int{(c.size - 1) / 2, (c.size - 1) / 2}
	x = graph.Convolve(x, w.NodeValue(x.Graph())).ChannelGroupCount(groups).Strides(max(1, c.stride)).PaddingPerDim([][2]int{around, around}).Done()
	return batchNorm(scope, x)
}

// batchNorm normalises channels, which are last, with torch's constants. The backend's operation is taken where there is one: importers, exporters and surgery know what it
// means; GoMLX's Go backend has none.
func batchNorm(scope *model.Scope, x *graph.Node) *graph.Node {
	known := x.Graph().Backend().Capabilities().Operations[compute.OpTypeBatchNormForInference]
	return norm.BatchNorm(scope, x, -1).Epsilon(1e-5).Momentum(0.9).UseBackendInference(known).Done()
}

// globalPool is the mean of each channel. [batch, h, w, c] -> [batch, c]
func globalPool(x *graph.Node) *graph.Node { return graph.ReduceMean(x, 1, 2) }

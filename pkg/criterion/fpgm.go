package criterion

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

// FPGM is the sum of a filter's distances from all other filters of its layer: those nearest to the geometric median can be replaced by the others. He et al. 2019,
// arXiv:1811.00250, equation 6. Distances are computed in double precision from inner products, because in single precision those of near
// filters cancel.
var FPGM = Criterion{Name: "FPGM", Cite: "He et al. 2019, arXiv:1811.00250", Granularity: PerOut, Pool: Mean, Score: func(in Inputs) *Node {
	out := in.Param.Shape.Dimensions[in.Param.Out]
	axes := []int{in.Param.Out}
	for axis := range in.Param.Shape.Rank() {
		if axis != in.Param.Out {
			axes = append(axes, axis)
		}
	}
	filters := graph.Reshape(graph.TransposeAllAxes(in.Weight, axes...), out, -1) // [in.Param.Shape] -> [out, weights]
	filters = graph.ConvertDType(filters, dtypes.Float64)
	products := graph.DotGeneral(filters, []int{1}, nil, filters, []int{1}, nil) // [out, out]
	squares := graph.ReduceSum(graph.Square(filters), 1)                         // [out]
	distances := graph.Sub(graph.Add(graph.InsertAxes(squares, 1), graph.InsertAxes(squares, 0)), graph.MulScalar(products, 2))
	same := graph.Diagonal(in.Weight.Graph(), out)
	distances = graph.Where(same, graph.ZerosLike(distances), graph.Sqrt(graph.Max(distances, graph.ZerosLike(distances))))
	return in.AlongOut(graph.ConvertDType(graph.ReduceSum(distances, 1), in.Weight.DType())) // [out] -> [in.Param.Shape]
}}

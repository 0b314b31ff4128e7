package scoring

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/graphprint"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/params"
)

// Code identifies what the criterion's functions compute for the parameters: a digest of the graphs that they build. It tells a criterion from one of the same name that has been written
// anew, but for constants of 32 elements or more, which a graph does not show. It compiles and runs nothing, and asks nothing of the store.
func (s *Scorer) Code() (string, error) {
	var code string
	err := guard.Run("read the code of criterion "+s.Criterion.Name, func() error {
		g := graph.NewGraph(s.Backend, "criterion")
		defer g.Finalize()
		defer guard.Building()
		parameter := func(what string, p params.Param, dims []int) *graph.Node {
			return graph.Parameter(g, fmt.Sprintf("%s of %s", what, p.Path), shapes.Make(dtypes.Float32, dims...))
		}
		var contributions, tracked []*graph.Node
		for _, p := range s.Set {
			in := criterion.Inputs{Param: p, Weight: parameter("weights", p, p.Shape.Dimensions)}
			for _, need := range s.Criterion.Needs.Each() {
				in.Set(need, parameter(need.String(), p, need.Dims(p)))
			}
			contributions = append(contributions, s.Criterion.Score(in))
			if s.Criterion.Track != nil {
				in := criterion.Inputs{Param: p, Weight: in.Weight, Grad: parameter("gradients of a step", p, p.Shape.Dimensions), Track: parameter("tracked so far", p, p.Shape.Dimensions)}
				tracked = append(tracked, s.Criterion.Track(in))
			}
		}
		code = graphprint.Of(g, slices.Concat(s.Reduce(contributions), tracked))
		return nil
	})
	return code, err
}

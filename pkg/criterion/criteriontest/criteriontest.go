// Package criteriontest holds importance criteria to the laws that pruning relies on. It is meant for criteria of a reader's own, in a test or in a
// notebook's cell, as much as for those of this project:
//
//	kernelext.Must(criteriontest.Check(b, myCriterion))
package criteriontest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/params"
)

// LawError says which law a criterion breaks, and what the law is for.
type LawError struct{ Criterion, Law, Reason, Got string }

func (e *LawError) Error() string {
	return fmt.Sprintf("criterion %q breaks the law %q: %s; %s", e.Criterion, e.Law, e.Got, e.Reason)
}

// shapesTried are a dense layer [in, out] and a convolution [height, width, in, out].
var shapesTried = [][]int{{4, 6}, {3, 3, 4, 6}}

// Check tries a criterion on made-up weights and signals of a dense layer and of a convolution, and returns a *LawError for each law that it breaks, joined; nil
// if it keeps them all.
func Check(b compute.Backend, c criterion.Criterion) error {
	if c.Score == nil {
		return &LawError{c.Name, "has a score", "without Score there is nothing to rank", "Score is nil"}
	}
	var problems []error
	broken := func(law, reason, got string, args ...any) {
		problems = append(problems, &LawError{c.Name, law, reason, fmt.Sprintf(got, args...)})
	}
	if c.Name == "" {
		broken("has a name", "runs are told apart by it", "Name is empty")
	}
	if c.Needs&criterion.NeedTrack != 0 && c.Track == nil {
		broken("tracks what it needs", "Inputs.Track is what Criterion.Track makes of the training steps", "it needs what was tracked, and Track is nil")
	}
	for _, dims := range shapesTried {
		t := trial{b: b, c: c, param: param(dims)}
		t.draw(1)
		scores, shape, err := t.run()
		var unusable *unusableError
		switch {
		case errors.As(err, &unusable):
			broken("returns scores in "+dtypes.Float32.String(), "pruning ranks such numbers", "on a layer %v: %v", dims, unusable)
			continue
		case err != nil && t.asksForTooLittle():
			broken("needs only what it asks for", "inputs that are not in Needs are nil", "on a layer %v: %v", dims, err)
			continue
		case err != nil:
			broken("can be computed", "it is tried on a dense layer and on a convolution, and has to work for both", "on a layer %v: %v", dims, err)
			continue
		}
		if !slices.Equal(shape, dims) {
			broken("has the shape of the weights", "each weight needs a contribution; units pool them", "scores %v for weights %v", shape, dims)
			continue
		}
		if i := slices.IndexFunc(scores, func(s float32) bool { return math.IsNaN(float64(s)) || math.IsInf(float64(s), 0) }); i >= 0 {
			broken("is finite", "what is no number can't be ranked", "score %d of a layer %v is %v", i, dims, scores[i])
			continue
		}
		again, _, err := t.run()
		if err != nil || !slices.Equal(scores, again) {
			broken("is deterministic", "the same seed has to give the same masks; ask for NeedUniform instead of drawing", "two runs on a layer %v gave different scores", dims)
		}
		if distinct(scores) == 1 && c.Granularity == criterion.PerWeight {
			broken("tells weights apart", "a criterion that is the same everywhere keeps what comes first", "all scores of a layer %v are %v", dims, scores[0])
		}
		if axis, is := map[criterion.Granularity]int{criterion.PerOut: t.param.Out, criterion.PerIn: t.param.In}[c.Granularity]; is && !constantWithin(scores, dims, axis) {
			broken("is the same within a channel", "Granularity says that it scores whole channels", "scores of a layer %v differ within channels of axis %d", dims, axis)
		}
		order := ranks(scores)
		t.scale(2)
		doubled, _, err := t.run()
		if err != nil || !slices.Equal(order, ranks(doubled)) {
			broken("does not depend on the unit of the weights", "a layer whose weights are all twice as large must be pruned alike", "doubling all weights of a layer %v changed the order", dims)
		}
		for _, axes := range [][]int{nil, {len(dims) - 1}} {
			if got, err := t.pool(axes...); err != nil || got != t.param.Size()/extent(dims, axes) {
				broken("pools over the axes that it is given", "units of several weights need one importance each, and single weights, which are pooled over no axes, their own",
					"the pool makes %d importances of a layer %v over axes %v, error %v", got, dims, axes, err)
			}
		}
		t.zero()
		zeros, _, err := t.run()
		if err != nil || slices.ContainsFunc(zeros, func(s float32) bool { return math.IsNaN(float64(s)) || math.IsInf(float64(s), 0) }) {
			broken("is finite for dead weights", "networks that are pruned further have zeros, and whole filters of them", "weights of zero in a layer %v gave scores that are no numbers", dims)
		}
		if c.Track != nil {
			t.draw(2)
			if shape, err := t.track(); err != nil || !slices.Equal(shape, dims) {
				broken("tracks in the shape of the weights", "what is tracked is kept for each weight", "on a layer %v: shape %v, error %v", dims, shape, err)
			}
		}
	}
	return errors.Join(problems...)
}

// Scores returns what a criterion makes of given weights, row by row, of a layer [in, out] or a convolution [spatial…, in, out]: for cases that are computed by hand. inputs has, for each of the
// criterion's needs, a value for each weight, or for each channel where criterion.Inputs says so; needs that the criterion does not have are passed over.
func Scores(b compute.Backend, c criterion.Criterion, dims []int, weights []float32, inputs map[criterion.Needs][]float32) ([]float32, error) {
	if len(dims) < 2 {
		return nil, fmt.Errorf("criteriontest: a layer %v has no input and output axes: give at least two", dims)
	}
	t := trial{b: b, c: c, param: param(dims), weight: weights, inputs: inputs}
	if len(weights) != t.param.Size() {
		return nil, fmt.Errorf("criteriontest: %d weights for a layer %v: give %d", len(weights), dims, t.param.Size())
	}
	for _, need := range c.Needs.Each() {
		if n := shapes.Make(dtypes.Float32, need.Dims(t.param)...).Size(); len(inputs[need]) != n {
			return nil, fmt.Errorf("criteriontest: %d values for %s of a layer %v: give %d", len(inputs[need]), need, dims, n)
		}
	}
	scores, _, err := t.run()
	return scores, err
}

func param(dims []int) params.Param {
	return params.Param{Path: "/layer/weights", Shape: shapes.Make(dtypes.Float32, dims...), In: len(dims) - 2, Out: len(dims) - 1}
}

// trial runs a criterion on one made-up layer.
type trial struct {
	b      compute.Backend
	c      criterion.Criterion
	param  params.Param
	weight []float32
	inputs map[criterion.Needs][]float32
}

// positive needs are never negative in a network.
const positive = criterion.NeedUniform | criterion.NeedGradSquare | criterion.NeedGaussNewton | criterion.NeedInverseFisher | criterion.NeedFlow | criterion.NeedInputNorm |
	criterion.NeedOutputZeros | criterion.NeedOutputNorm | criterion.NeedOutputRank | criterion.NeedResidual

func (t *trial) draw(seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	numbers := func(n int, positive bool) []float32 {
		values := make([]float32, n)
		for i := range values {
			if values[i] = float32(random.NormFloat64()); positive {
				values[i] = 0.05 + 0.9*random.Float32()
			}
		}
		return values
	}
	t.weight = numbers(t.param.Size(), false)
	t.inputs = map[criterion.Needs][]float32{}
	for _, need := range t.c.Needs.Each() {
		t.inputs[need] = numbers(shapes.Make(dtypes.Float32, need.Dims(t.param)...).Size(), need&positive != 0)
	}
}

// scale multiplies the weights, now and at the start.
func (t *trial) scale(factor float32) {
	for i := range t.weight {
		t.weight[i] *= factor
	}
	for i := range t.inputs[criterion.NeedStart] {
		t.inputs[criterion.NeedStart][i] *= factor
	}
}

func (t *trial) zero() { clear(t.weight) }

func (t *trial) run() (scores []float32, shape []int, err error) {
	needs := t.c.Needs.Each()
	args := []any{tensors.FromFlatDataAndDimensions(slices.Clone(t.weight), t.param.Shape.Dimensions...)}
	for _, need := range needs {
		args = append(args, tensors.FromFlatDataAndDimensions(slices.Clone(t.inputs[need]), need.Dims(t.param)...))
	}
	return t.call(args, func(nodes []*graph.Node) *graph.Node {
		in := criterion.Inputs{Param: t.param, Weight: nodes[0]}
		for i, need := range needs {
			in.Set(need, nodes[1+i])
		}
		return t.c.Score(in)
	})
}

// asksForTooLittle tells whether the criterion can be computed when it is given all that there is.
func (t *trial) asksForTooLittle() bool {
	all := trial{b: t.b, c: t.c, param: t.param}
	all.c.Needs = criterion.NeedGate<<1 - 1 // of all needs the last
	all.draw(1)
	_, _, err := all.run()
	return err == nil
}

// pool returns how many importances the criterion's pool makes of the weights.
func (t *trial) pool(axes ...int) (n int, err error) {
	pool := t.c.Pool
	if pool == nil {
		pool = criterion.L1
	}
	weights := tensors.FromFlatDataAndDimensions(slices.Clone(t.weight), t.param.Shape.Dimensions...)
	values, _, err := t.call([]any{weights}, func(nodes []*graph.Node) *graph.Node { return pool(nodes[0], axes...) })
	return len(values), err
}

// extent is how many weights lie along axes.
func extent(dims, axes []int) int {
	n := 1
	for _, axis := range axes {
		n *= dims[axis]
	}
	return n
}

func (t *trial) track() (shape []int, err error) {
	dims := t.param.Shape.Dimensions
	w := tensors.FromFlatDataAndDimensions(slices.Clone(t.weight), dims...)
	_, shape, err = t.call([]any{w, tensors.FromScalarAndDimensions(float32(0.5), dims...), tensors.FromShape(t.param.Shape)}, func(nodes []*graph.Node) *graph.Node {
		return t.c.Track(criterion.Inputs{Param: t.param, Weight: nodes[0], Grad: nodes[1], Track: nodes[2]})
	})
	return shape, err
}

// unusableError says that a function of the criterion returned what is no tensor of scores.
type unusableError struct{ got string }

func (e *unusableError) Error() string {
	return fmt.Sprintf("expected a node of type %s, got %s", dtypes.Float32, e.got)
}

func (t *trial) call(args []any, build func([]*graph.Node) *graph.Node) (values []float32, shape []int, err error) {
	err = guard.Run("score", func() error {
		exec, err := graph.NewExec(t.b, func(nodes []*graph.Node) *graph.Node {
			defer guard.Building()
			result := build(nodes)
			if result == nil { // with which GoMLX would keep its lock
				panic(&unusableError{"nil"})
			}
			return result
		})
		if err != nil {
			return err
		}
		defer exec.Finalize()
		results, err := exec.Call(args...)
		if err != nil {
			return err
		}
		shape = results[0].Shape().Dimensions
		if results[0].DType() != dtypes.Float32 {
			return &unusableError{results[0].DType().String()}
		}
		values, err = tensors.CopyFlatData[float32](results[0])
		return err
	})
	return values, shape, err
}

// ranks returns the places in ascending order; equal scores keep their order.
func ranks(scores []float32) []int {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] < scores[b]:
			return -1
		case scores[a] > scores[b]:
			return 1
		}
		return 0
	})
	return order
}

func distinct(scores []float32) int {
	seen := map[float32]bool{}
	for _, s := range scores {
		seen[s] = true
	}
	return len(seen)
}

// constantWithin tells whether scores depend on the place along one axis only.
func constantWithin(scores []float32, dims []int, axis int) bool {
	stride := 1
	for _, d := range dims[axis+1:] {
		stride *= d
	}
	first := map[int]float32{}
	for i, s := range scores {
		channel := i / stride % dims[axis]
		if _, seen := first[channel]; !seen {
			first[channel] = s
		}
		if first[channel] != s {
			return false
		}
	}
	return true
}

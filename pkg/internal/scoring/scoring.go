// Package scoring evaluates criteria: it gives them the weights, signals, random numbers and stored values that they ask for, and returns what a caller makes of their
// contributions. Pruning by masks and surgery score with it.
package scoring

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/signal"
)

// Where what is learnt beside the weights lies: TrackScope and the path of the parameter, for criteria that track training steps; GateScope and the path, for trained gates.
const (
	TrackScope = "/pruning/track"
	GateScope  = "/pruning/gate"
)

// stored are the needs that lie in the store, with their places.
var stored = map[criterion.Needs]string{criterion.NeedTrack: TrackScope, criterion.NeedGate: GateScope}

// Scorer evaluates one criterion for parameters of a store. It compiles once.
type Scorer struct {
	Backend   compute.Backend
	Store     *model.Store
	Set       params.Set
	Criterion criterion.Criterion
	Seed      int64
	// Reduce makes results of the contributions, each of the shape of its parameter. It is a graph building function; what it returns becomes float32.
	Reduce func(contributions []*graph.Node) []*graph.Node

	exec *model.Exec
}

// Run returns the results for the weights as they are now, in row-major order. round counts the draws of random numbers.
//
// Errors: *criterion.ScoreError for what a criterion needs and the store lacks, and for contributions of another shape; *signal.MissingError.
func (s *Scorer) Run(sig *signal.Signals, round int64) ([][]float32, error) {
	c := s.Criterion
	for need, scope := range stored {
		for _, param := range s.Set {
			if c.Needs&need != 0 && s.Store.GetVariable(scope+param.Path) == nil {
				return nil, &criterion.ScoreError{Criterion: c.Name, Path: param.Path,
					Problem: fmt.Sprintf("it needs %s: train with the optimizer that Pruner.Optimizer returns, or behind prune.Gates, before pruning", need)}
			}
		}
	}
	if s.exec == nil {
		if err := s.compile(); err != nil {
			return nil, fmt.Errorf("criterion %q: %w", c.Name, err)
		}
	}
	var args []any
	for _, need := range c.Needs.Each() {
		if stored[need] != "" {
			continue
		}
		for _, param := range s.Set {
			var values []float32
			if need == criterion.NeedUniform {
				values = s.uniform(param, round)
			} else {
				var err error
				if values, err = sig.Value(need, param.Path); err != nil {
					return nil, fmt.Errorf("criterion %q: %w", c.Name, err)
				}
			}
			dims := need.Dims(param)
			if size := shapes.Make(dtypes.Float32, dims...).Size(); len(values) != size {
				return nil, &criterion.ScoreError{Criterion: c.Name, Path: param.Path,
					Problem: fmt.Sprintf("the signals have %d values for %s, expected %d: they are of another network", len(values), need, size)}
			}
			args = append(args, tensors.FromFlatDataAndDimensions(slices.Clone(values), dims...))
		}
	}
	var results []*tensors.Tensor
	err := guard.Run("score", func() (err error) {
		results, err = s.exec.Call(args...)
		return err
	})
	if err != nil {
		s.exec = nil
		return nil, fmt.Errorf("criterion %q: %w", c.Name, err)
	}
	all := make([][]float32, len(results))
	for i, r := range results {
		if all[i], err = tensors.CopyFlatData[float32](r); err != nil {
			return nil, err
		}
		if err := r.FinalizeAll(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *Scorer) compile() (err error) {
	c := s.Criterion
	build := func(g *graph.Graph, args []*graph.Node) []*graph.Node {
		defer guard.Building()
		contributions := make([]*graph.Node, len(s.Set))
		for i, param := range s.Set {
			weight := graph.ConvertDType(s.Store.GetVariable(param.Path).NodeValue(g), dtypes.Float32)
			in := criterion.Inputs{Param: param, Weight: weight}
			at := i
			for _, need := range c.Needs.Each() {
				if scope := stored[need]; scope != "" {
					in.Set(need, graph.BroadcastToShape(s.Store.GetVariable(scope+param.Path).NodeValue(g), param.Shape))
					continue
				}
				in.Set(need, args[at])
				at += len(s.Set)
			}
			contributions[i] = c.Score(in)
			if contributions[i] == nil {
				panic(&criterion.ScoreError{Criterion: c.Name, Path: param.Path, Problem: fmt.Sprintf("its Score returned nil, expected scores of the shape of the weights, %s", param.Shape)})
			}
			if got := contributions[i].Shape(); !slices.Equal(got.Dimensions, param.Shape.Dimensions) {
				panic(&criterion.ScoreError{Criterion: c.Name, Path: param.Path, Problem: fmt.Sprintf("its scores have shape %s, expected that of the weights, %s", got, param.Shape)})
			}
		}
		results := s.Reduce(contributions)
		for i, r := range results {
			results[i] = graph.ConvertDType(r, dtypes.Float32)
		}
		return results
	}
	if c.Needs&^(criterion.NeedTrack|criterion.NeedGate) == 0 {
		s.exec, err = model.NewExec(s.Backend, s.Store, func(_ *model.Scope, g *graph.Graph) []*graph.Node { return build(g, nil) })
	} else {
		s.exec, err = model.NewExec(s.Backend, s.Store, func(_ *model.Scope, args []*graph.Node) []*graph.Node { return build(args[0].Graph(), args) })
	}
	return err
}

// uniform draws a random number in [0, 1) for each weight: a function of seed, path and round, the same on every backend.
func (s *Scorer) uniform(param params.Param, round int64) []float32 {
	rng := Random(s.Seed, "", round, param.Path)
	values := make([]float32, param.Size())
	for i := range values {
		values[i] = rng.Float32()
	}
	return values
}

// Random returns a source for one seed, purpose, round and path.
func Random(seed int64, purpose string, round int64, path string) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s%d %s", purpose, round, path)
	return rand.New(rand.NewPCG(uint64(seed), h.Sum64()))
}

// Finite returns a *criterion.ScoreError if scores can't be ranked. where is what they are of.
func Finite(c criterion.Criterion, where string, scores []float32) error {
	bad := 0
	for _, s := range scores {
		if math.IsNaN(float64(s)) || math.IsInf(float64(s), 0) {
			bad++
		}
	}
	if bad > 0 {
		return &criterion.ScoreError{Criterion: c.Name, Path: where, Problem: fmt.Sprintf("%d of %d scores are NaN or infinite: look at the weights, or at the criterion", bad, len(scores))}
	}
	return nil
}

package surgery

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// otherBatch is the batch size that a network traced with a batch of 1 is recorded with besides. It is small, because labels are made for each index, and few networks
// have axes of 5 that reshapes could mix up with it.
const otherBatch = 5

// withOtherBatch returns the shapes of inputs with another batch size than 1; nil if the first axes of those that have any are not all 1.
//
// An axis of one index hides what a function does with examples: [1, channels] that is reshaped to [channels/2, 2] can be cut, [batch, channels] that is reshaped to
// [batch·channels/2, 2] can't.
func withOtherBatch(inputs []shapes.Shape) []shapes.Shape {
	var others []shapes.Shape
	some := false
	for _, s := range inputs {
		s = s.Clone()
		if s.Rank() > 0 {
			if s.Dimensions[0] != 1 {
				return nil
			}
			s.Dimensions[0], some = otherBatch, true
		}
		others = append(others, s)
	}
	if !some {
		return nil
	}
	return others
}

// recordOtherBatch records inference and training with another batch size, for a network that was recorded with a batch of 1. Where the function can't be
// recorded so, as one for batches of 1 only, or reads other variables then, note says why.
func recordOtherBatch(b compute.Backend, store *model.Store, fn trace.ModelFn, inference, training *recording, inputs []shapes.Shape) (more []*recording, note string) {
	others := withOtherBatch(inputs)
	if others == nil {
		return nil, ""
	}
	for _, one := range []*recording{inference, training} {
		r, err := record(b, store, fn, trace.Config{Training: one.Training}, others)
		if err == nil && !maps.EqualFunc(one.touched(), r.touched(), slices.Equal[[]int]) {
			err = errors.New("it has other variables, or in other shapes")
		}
		if err != nil {
			first, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
			return nil, fmt.Sprintf("the groups are those for a batch of 1: with a batch of %d the network can't be analysed: %s", otherBatch, first)
		}
		more = append(more, r)
	}
	return more, ""
}

// touched returns the shapes of the variables that a network reads or writes, by path.
func (r *recording) touched() map[string][]int {
	all := map[string][]int{}
	for path, v := range r.Variables() {
		all[path] = v.Shape.Dimensions
	}
	for _, u := range r.updates {
		if all[u.path] == nil {
			all[u.path] = u.node.Shape().Dimensions
		}
	}
	return all
}

// speakOf makes reasons name the operations of one recording instead of those of another with as many, which differ by the batch size.
func (a *analysis) speakOf(from, to *trace.Trace) {
	if !slices.EqualFunc(from.Ops, to.Ops, func(p, q *trace.Op) bool { return p.Type == q.Type }) {
		return
	}
	counterpart := map[*trace.Op]*trace.Op{}
	for i, op := range from.Ops {
		counterpart[op] = to.Ops[i]
	}
	for i, r := range a.reasons {
		if op := counterpart[r.op]; op != nil {
			a.reasons[i].op = op
		}
	}
}

// Package surgery makes networks physically smaller: it finds the channels that have to go together in any GoMLX model function, chooses some, and returns a smaller store and
// a smaller model function, which computes what the network with those channels at zero computes.
//
//	n, err := surgery.Trace(backend, store, modelFn, inputShape)
//	plan, err := n.Plan(surgery.Config{Criterion: criterion.Taylor, MACs: 0.5, RoundTo: 8}, signals)
//	small, err := plan.Apply()                     // small.Store, small.ModelFn
//	report, err := surgery.Verify(n, small, samples)
//
// There is no list of layers. The model function's operations are recorded (pkg/trace), and each index of each axis of each value is given a set of atoms: it
// disappears when one of them does. Operations make sets equal, pass them on, take them apart, or make indices stay. What comes out are groups of
// interchangeable units, with every place that goes with one.
package surgery

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Network is a model function as it was recorded and analysed, in inference and in training.
type Network struct {
	backend compute.Backend
	store   *model.Store
	fn      trace.ModelFn
	inputs  []shapes.Shape

	analysis *analysis
	groups   []*Group
	byName   map[string]*Group
	costs    *costs
	// inference is the recording that diagrams are drawn from.
	inference *trace.Trace
	axes      []axis // of all values, each once, of which indices can go
	digest    string

	notes []string
}

// Trace records a model function for inputs of given shapes and finds its groups. Nothing is compiled or run, and the store is left as it was. It records inference
// and training and analyses them together, because each may couple what the other does not, and inference twice, to see that the function builds the same
// each time. Inputs whose first axes all have one index, as those of a batch of 1, are recorded with a batch of 5 too, if the function allows it, and analysed
// together: one index hides what the function does with a batch. Network.Notes says so if it does not.
//
// The smaller network takes inputs of other shapes too, as far as the function does.
//
// Errors: *trace.Error; *ShapeError for inputs without fixed dimensions, or with dimensions of 0; *UnstableError for functions that build another graph each time.
func Trace(b compute.Backend, store *model.Store, fn trace.ModelFn, inputs ...shapes.Shape) (*Network, error) {
	for i, s := range inputs {
		if slices.ContainsFunc(s.Dimensions, func(d int) bool { return d < 1 }) {
			return nil, &ShapeError{Input: i, Shape: s}
		}
	}
	n := &Network{backend: b, store: store, fn: fn, inputs: slices.Clone(inputs), analysis: newAnalysis()}
	inference, err := record(b, store, fn, trace.Config{}, inputs)
	if err != nil {
		return nil, err
	}
	again, err := record(b, store, fn, trace.Config{}, inputs)
	if err != nil {
		return nil, err
	}
	if inference.Digest() != again.Digest() {
		return nil, &UnstableError{Inputs: inputs}
	}
	training, err := record(b, store, fn, trace.Config{Training: true}, inputs)
	if err != nil {
		return nil, err
	}
	more, note := recordOtherBatch(b, store, fn, inference, training, inputs)
	err = guard.Run("analyse the network", func() error {
		var all []*trace.Trace
		// Several examples come first: what goes together in one is found from what goes together in several, but not the other way round.
		for _, r := range append(more, inference, training) {
			n.analysis.trace(r.Trace, r.updates)
			all = append(all, r.Trace)
		}
		for i, r := range more {
			n.analysis.speakOf(r.Trace, []*recording{inference, training}[i].Trace)
		}
		n.notes = n.analysis.notes()
		if note != "" {
			n.notes = append(n.notes, note)
		}
		n.analysis.settle()
		n.groups = n.analysis.groups()
		n.inference = inference.Trace
		n.costs = newCosts(n.analysis, inference.Trace)
		n.axes = n.analysis.distinct(all...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	n.byName = map[string]*Group{}
	for _, g := range n.groups {
		n.byName[g.Name] = g
	}
	n.digest = digest(n.analysis, n.groups)
	return n, nil
}

// recording is a trace with what a replay has to do besides the outputs.
type recording struct {
	*trace.Trace
	updates  []update // by the model function, then by what it asks to be done after each training step
	params   []nodeParam
	settings []setting
}

// update is a variable that the network sets.
type update struct {
	path  string
	node  *graph.Node
	after bool // the optimizer's step
}

// nodeParam is a graph parameter that holds a node, as the losses that a model adds do.
type nodeParam struct {
	path string
	node *graph.Node
}

// setting is another graph parameter that the model function set.
type setting struct {
	path  string
	value any
}

// Digest identifies the network: its variables and what goes together. A plan can be applied to networks of equal digest.
func (n *Network) Digest() string { return n.digest }

// Groups returns the groups of interchangeable units, in the order in which the network first reads their variables. They must not be changed.
func (n *Network) Groups() []*Group { return slices.Clone(n.groups) }

// Group returns the group of that name; nil if there is none.
func (n *Network) Group(name string) *Group { return n.byName[name] }

// Notes says what stays and why: for each axis of a variable that has indices which can't go, one line, then the operations without a rule.
func (n *Network) Notes() []string { return slices.Clone(n.notes) }

func (a *analysis) notes() []string {
	var notes []string
	for _, path := range a.order {
		for k, ax := range a.variables[path].axes {
			if ax.n <= 1 {
				continue
			}
			count, why := 0, reasonID(0)
			for _, s := range ax.sets {
				if a.now(s) == stays {
					count++
					why = a.whyOf(s)
				}
			}
			switch {
			case count == 0:
			case count == ax.n:
				notes = append(notes, fmt.Sprintf("%s:%d stays: %s", path, k, a.reasons[why]))
			default:
				notes = append(notes, fmt.Sprintf("%s:%d: %d of %d indices stay: %s", path, k, count, ax.n, a.reasons[why]))
			}
		}
	}
	seen := map[string]int{}
	var types []string
	for _, op := range a.pinned {
		if seen[op.Type] == 0 {
			types = append(types, op.Type)
		}
		seen[op.Type]++
	}
	for _, t := range types {
		note := fmt.Sprintf("%s (%d) has no rule: all that it reads and makes stays", t, seen[t])
		if !replayable(t) {
			note += ", and it can't be built again in a smaller network"
		}
		notes = append(notes, note)
	}
	return notes
}

func (r reason) String() string {
	if r.op == nil {
		return r.text
	}
	return fmt.Sprintf("%s %s: %s", r.op.Type, r.op.Outputs[0].Shape, r.text)
}

// String lists the groups.
func (n *Network) String() string {
	var b strings.Builder
	for _, g := range n.groups {
		fmt.Fprintf(&b, "%s\n", g)
	}
	return b.String()
}

// Backend is the backend that Trace was given, as the next ones are what it was given besides.
func (n *Network) Backend() compute.Backend { return n.backend }

// Store is the network's store.
func (n *Network) Store() *model.Store { return n.store }

// ModelFn is the network's model function.
func (n *Network) ModelFn() trace.ModelFn { return n.fn }

// Inputs are the shapes that the network was traced for.
func (n *Network) Inputs() []shapes.Shape { return slices.Clone(n.inputs) }

// Outputs are the shapes of what the network computes of inputs of these shapes, in inference.
func (n *Network) Outputs() []shapes.Shape {
	var all []shapes.Shape
	for _, o := range n.inference.Outputs {
		all = append(all, o.Shape())
	}
	return all
}

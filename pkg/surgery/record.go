package surgery

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// record records a model function with all that it does besides returning outputs: variables that it sets, what it asks to be done after each training step, and nodes that it
// leaves in graph parameters.
func record(b compute.Backend, store *model.Store, fn trace.ModelFn, cfg trace.Config, inputs []shapes.Shape) (*recording, error) {
	r := &recording{}
	before := map[string]string{} // graph parameters that were set for it
	prepare, finish := cfg.Prepare, cfg.Finish
	cfg.Prepare = func(g *graph.Graph) {
		if prepare != nil {
			prepare(g)
		}
		for p := range store.IterGraphParams(g) {
			before[model.JoinPath(p.Scope, p.Key)] = fmt.Sprint(p.Value)
		}
	}
	cfg.Finish = func(g *graph.Graph, store *model.Store) ([]*graph.Node, error) {
		if err := ownVariables(g, store); err != nil {
			return nil, err
		}
		var also []*graph.Node
		set := map[string]*graph.Node{}
		for v := range store.IterVariables() {
			if v.ChangedInGraph(g) {
				node := v.NodeValue(g)
				set[v.Path()] = node
				r.updates = append(r.updates, update{v.Path(), node, false})
				also = append(also, node)
			}
		}
		later := false
		for p := range store.IterGraphParams(g) {
			switch value := p.Value.(type) {
			case *graph.Node:
				r.params = append(r.params, nodeParam{model.JoinPath(p.Scope, p.Key), value})
				also = append(also, value)
			case train.ModelGraphFn:
				later = later || p.Key == train.TrainerPerStepUpdateGraphFnParamKey
			default:
				path := model.JoinPath(p.Scope, p.Key)
				if was, found := before[path]; !found || was != fmt.Sprint(value) {
					r.settings = append(r.settings, setting{path, value})
				}
			}
		}
		if later {
			train.ExecPerStepUpdateGraphFn(g)
			for v := range store.IterVariables() {
				if node := v.NodeValue(g); v.ChangedInGraph(g) && set[v.Path()] != node {
					r.updates = append(r.updates, update{v.Path(), node, true})
					also = append(also, node)
				}
			}
		}
		slices.SortStableFunc(r.updates, func(a, b update) int {
			if a.after != b.after {
				if b.after {
					return -1
				}
				return 1
			}
			return strings.Compare(a.path, b.path)
		})
		if finish != nil {
			more, err := finish(g, store)
			return append(also, more...), err
		}
		return also, nil
	}
	t, err := trace.Record(b, store, fn, cfg, inputs...)
	if err != nil {
		return nil, err
	}
	r.Trace = t
	return r, nil
}

// ownVariables returns a *ReplayError if a graph reads a variable that the store does not have: one of another store, which the model function holds. Of a variable that the store has by
// the same path, GoMLX does not tell whose it is; Verify finds out.
func ownVariables(g *graph.Graph, store *model.Store) error {
	for _, n := range g.Nodes() {
		if n.Type() != graph.NodeTypeParameter {
			continue
		}
		path := n.GetParameterName() // that of an input has no scope
		if strings.HasPrefix(path, model.ScopeSeparator) && store.GetVariable(path) == nil {
			return held(path)
		}
	}
	return nil
}

// held is the error for a model function that brings its own variables.
func held(path string) error {
	return &ReplayError{Variable: path, Problem: "expected variables of the scope that the model function is given, came one that it holds by itself, with values that no other store changes",
		Remedy: "let it ask the scope for its variables each time, as scope.VariableWithShape does"}
}

// settings describes all that a model function can see besides its inputs: the graph's parameters and the store's.
func settings(store *model.Store, g *graph.Graph) string {
	var b strings.Builder
	for p := range store.IterGraphParams(g) {
		if plain(p.Value) {
			fmt.Fprintf(&b, "%s/%s=%v\n", p.Scope, p.Key, p.Value)
		}
	}
	for path, value := range store.IterParams() {
		fmt.Fprintf(&b, "%s=%v\n", path, value)
	}
	return b.String()
}

// plain tells whether a graph parameter can be handed to another graph.
func plain(value any) bool {
	switch value.(type) {
	case *graph.Node, train.ModelGraphFn:
		return false
	}
	return true
}

package surgery

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Small is a network after surgery.
type Small struct {
	// Store has the variables that are left. Any other store with the same variables serves ModelFn as well, such as one that a checkpoint was loaded into; so does a part of a
	// store, for a function that is called with a scope other than the root.
	Store *model.Store
	// ModelFn builds the smaller network, for any batch size and either phase, with all that the model function does besides: it calls the original one anew for each graph,
	// to be recorded, and builds what was recorded with the new sizes. It panics with a *ReplayError where it can't.
	ModelFn trace.ModelFn

	replay *replay
}

// Single is the model function in the form for one input and one output, that of experiment.Task.Model and pkg/profile.
func (s *Small) Single(scope *model.Scope, x *graph.Node) *graph.Node {
	return s.ModelFn(scope, []*graph.Node{x})[0]
}

// Apply makes the smaller network: it cuts variables, statistics, masks and optimizer moments, and builds the network once in each phase to see that it can be. It does all
// of this or nothing; the network that the plan is for is not touched.
//
// Errors: those of Plan.Check; *ValueError for variables without values; *ReplayError.
func (p *Plan) Apply() (*Small, error) {
	removed, err := p.Indices()
	if err != nil {
		return nil, err
	}
	n := p.network
	for _, path := range n.analysis.order {
		v := n.store.GetVariable(path)
		if removed[path] == nil && (v == nil || !v.HasValue()) {
			continue // made when it is needed
		}
		if v == nil || !v.HasValue() {
			return nil, &ValueError{path, "has no value", "initialise the network, train it, or load its weights before surgery"}
		}
		if !slices.Equal(v.Shape().Dimensions, n.analysis.shapes[path]) {
			return nil, &ValueError{path, fmt.Sprintf("has the shape %v, and had %v when the network was traced", v.Shape().Dimensions, n.analysis.shapes[path]), "trace it again"}
		}
	}
	store, err := copyStore(n.store, cutsOf(n.store, n.analysis.order, n.analysis.shapes, removed), false)
	if err != nil {
		return nil, err
	}
	return newSmall(n, store, removed)
}

// Rebuild makes a smaller network again, for instance after a restart, from its weights, the original model function and the plan as Plan.WriteJSON wrote it. The
// weights of the original network are not needed.
//
// Variables that the store lacks are made, with first values by the model function's initialisers. So the store may be empty, for a checkpoint to be loaded into afterwards,
// or to train the smaller network from scratch; experiment.Init, given Small.Single, makes one with its own first values.
//
// Errors: those of Network.ReadPlan; *ValueError for variables of other shapes than the plan leaves; *ReplayError; those of Trace.
func Rebuild(b compute.Backend, store *model.Store, fn trace.ModelFn, plan io.Reader) (*Small, error) {
	if store == nil {
		return nil, &ValueError{"store", "is nil", "give that of the smaller network, or an empty one, model.NewStore()"}
	}
	j, err := readPlan(plan)
	if err != nil {
		return nil, err
	}
	inputs, err := j.shapes()
	if err != nil {
		return nil, err
	}
	dims := map[string][]int{}
	for _, v := range j.Variables {
		dims[v.Path] = v.Shape
	}
	if err := j.complete(store, dims); err != nil {
		return nil, err
	}
	shadow, err := shadowOf(store, dims)
	if err != nil {
		return nil, err
	}
	n, err := Trace(b, shadow, fn, inputs...)
	if err != nil {
		return nil, err
	}
	p, err := n.bind(j)
	if err != nil {
		return nil, err
	}
	removed, err := p.Indices()
	if err != nil {
		return nil, err
	}
	s, err := newSmall(n, store, removed)
	if err != nil {
		return nil, err
	}
	return s, guard.Run("make the variables", func() error {
		g := graph.NewGraph(b, "variables")
		defer g.Finalize()
		model.SetStore(g, store)
		store.SetTraining(g, true)
		var in []*graph.Node
		for i, shape := range inputs {
			in = append(in, graph.Parameter(g, fmt.Sprintf("input %d", i), shape))
		}
		s.ModelFn(store.RootScope(), in)
		return nil
	})
}

// newSmall joins a store and a plan, and builds the network once in each phase.
func newSmall(n *Network, store *model.Store, removed map[string]map[int][]int) (*Small, error) {
	for _, path := range n.analysis.order {
		v := store.GetVariable(path)
		if v == nil {
			continue // made when it is needed
		}
		want := smaller(shapes.Make(v.DType(), n.analysis.shapes[path]...), removed[path])
		if !v.Shape().Equal(want) {
			return nil, &ValueError{path, fmt.Sprintf("has the shape %s, the plan leaves %s", v.Shape(), want), "give the store that the plan's network was cut to"}
		}
	}
	r := &replay{network: n.digest, fn: n.fn, removed: removed, dims: map[string][]int{}}
	for path := range removed {
		r.dims[path] = n.analysis.shapes[path]
	}
	s := &Small{Store: store, ModelFn: r.build, replay: r}
	for _, training := range []bool{false, true} {
		if _, err := trace.Record(n.backend, store, r.build, trace.Config{Training: training}, n.inputs...); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// replay builds a network that is recorded anew, without the indices that go.
type replay struct {
	network string // digest
	fn      trace.ModelFn
	removed map[string]map[int][]int
	dims    map[string][]int // of the variables of which something goes, as they were
	hook    func(Site, *graph.Node) *graph.Node

	bypassed []Site // branches that are left out

	mu     sync.Mutex
	recent []*part // the last ones recorded
}

// part is a recording with its analysis, for inputs of given shapes and given settings.
type part struct {
	key string
	*recording
	analysis *analysis
	gone     []bool
	created  map[string]created // by the model function, by path
	sites    []Site             // of a function that intercepts
}

// keepParts is how many recordings are kept: graphs are built for a few shapes, in two phases, many times.
const keepParts = 4

// build is the smaller network's model function.
func (r *replay) build(scope *model.Scope, inputs []*graph.Node) []*graph.Node {
	defer guard.Building()
	if len(inputs) == 0 {
		panic(&ReplayError{Problem: "it was called without inputs", Remedy: "give it those of the original model function"})
	}
	p, err := r.part(scope, inputs)
	if err != nil {
		panic(err)
	}
	e := &emitter{part: p, scope: scope, graph: inputs[0].Graph(), nodes: map[*graph.Node]*graph.Node{}, hook: r.hook, operands: map[*trace.Op][]*graph.Node{}}
	if len(r.bypassed) > 0 {
		e.without(r.bypassed)
	}
	return e.run(inputs)
}

// part returns the recording for a graph: inputs of these shapes, and the settings of the graph and the store.
func (r *replay) part(scope *model.Scope, inputs []*graph.Node) (*part, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g, store := inputs[0].Graph(), scope.Store()
	var in []shapes.Shape
	for _, x := range inputs {
		in = append(in, x.Shape())
	}
	at := below(store, scope.Scope())
	key := fmt.Sprintln(g.Backend().Name(), in) + settings(store, g)
	for v := range at.IterVariables() {
		key += v.Path() + "\n"
	}
	for i, p := range r.recent {
		if p.key == key {
			r.recent = append(slices.Delete(r.recent, i, i+1), p)
			return p, nil
		}
	}
	shadow, err := shadowOf(at, r.dims)
	if err != nil {
		return nil, err
	}
	p := &part{key: key, analysis: newAnalysis()}
	cfg := trace.Config{Initializer: scope.Initializer(), Prepare: func(to *graph.Graph) {
		for param := range store.IterGraphParams(g) {
			if plain(param.Value) {
				model.SetGraphParam(to, model.JoinPath(param.Scope, param.Key), param.Value)
			}
		}
	}}
	before := map[string]bool{}
	for v := range shadow.IterVariables() {
		before[v.Path()] = true
	}
	cfg.Finish = func(_ *graph.Graph, store *model.Store) (_ []*graph.Node, err error) {
		p.created, err = createdValues(g.Backend(), store, before, r.removed)
		return nil, err
	}
	if p.recording, err = record(g.Backend(), shadow, r.fn, cfg, in); err != nil {
		return nil, err
	}
	p.analysis.trace(p.Trace, p.updates)
	p.analysis.settle()
	if r.hook != nil || r.bypassed != nil {
		p.sites = p.analysis.sites(p.Trace)
	}
	if p.gone, err = p.analysis.removal(r.removed); err != nil {
		return nil, err
	}
	if len(p.created) > 0 { // by the scope's initialiser, which may be another next time
		return p, nil
	}
	if r.recent = append(r.recent, p); len(r.recent) > keepParts {
		r.recent = slices.Delete(r.recent, 0, 1)
	}
	return p, nil
}

// removal returns the atoms that go when these indices of variables do: those that live in none that stays. It checks that they make just these go.
func (a *analysis) removal(removed map[string]map[int][]int) ([]bool, error) {
	gone, stay := make([]bool, len(a.subst)), make([]bool, len(a.subst))
	indexGoes := func(path string, k, n int) []bool {
		goes := make([]bool, n)
		for _, i := range removed[path][k] {
			goes[i] = true
		}
		return goes
	}
	for _, path := range a.order {
		for k, ax := range a.variables[path].axes {
			goes := indexGoes(path, k, ax.n)
			for i, s := range ax.sets {
				for _, x := range a.atoms(s) {
					if goes[i] {
						gone[x] = true
					} else {
						stay[x] = true
					}
				}
			}
		}
	}
	for x := range gone {
		gone[x] = gone[x] && !stay[x]
	}
	for _, path := range a.order {
		for k, ax := range a.variables[path].axes {
			goes := indexGoes(path, k, ax.n)
			for i := range goes {
				if goes[i] != (ax.sets != nil && a.goes(ax.sets[i], gone)) {
					return nil, &ReplayError{Variable: path, Problem: fmt.Sprintf("for these inputs and in this phase, index %d of axis %d can't go as the plan says", i, k),
						Remedy: "trace the network for inputs of these shapes, and plan again"}
				}
			}
		}
	}
	return gone, nil
}

// settle replaces labels by what they stand for. Nothing is unified afterwards.
func (a *analysis) settle() {
	for _, v := range a.values {
		for _, ax := range v.axes {
			for i, s := range ax.sets {
				ax.sets[i] = a.now(s)
			}
		}
	}
}

package surgery

import (
	"slices"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// Place says where in a network a value is handed to the function of Intercept.
type Place int

// The places of a product's channels.
const (
	// AtProduct is right behind the product with the kernel: before a bias and a normalisation.
	AtProduct Place = iota
	// AtLast is the last value that is the channels' own, with as many elements: behind bias, normalisation and activation, but before anything is added that does not come of them alone,
	// before anything reads them, and before they are something else than 0 where their weights are. Zeros there are what is left of a unit that is removed, if all that follows keeps
	// zero at zero. It is the product itself where nothing of that kind comes next.
	AtLast
)

// Site is a product with one of the network's kernels, seen along an axis of channels that it makes.
type Site struct {
	Kernel     string // path of the variable
	KernelAxis int    // of the variable, along which it makes the channels
	Use        int    // which of the kernel's products this is, from 0
	Axis       int    // of the value, along which the channels lie
	Channels   int
	// Gain is the path of the variable that the channels are multiplied with between the two places, as in batch normalisation; "" if there is none.
	Gain string
	// Joins says that the value at AtLast goes nowhere but into a sum with another value that depends on the inputs: it is the end of a branch. Of a sum of two branches with products of their
	// own, this is the one that has more of them, and of equal ones the first: the other is the shortcut.
	Joins bool

	// Place is where the function is called.
	Place Place
	// Op is the product, as recorded, and Operands are its inputs in the graph that is built: data and kernel, in the order of Op.Inputs.
	Op       *trace.Op
	Operands []*graph.Node

	axes [2]int // at both places
	last *trace.Value
	join *trace.Op
}

// Intercept returns a model function that computes what the network does, with values changed on the way: it calls the original one anew for each graph, as that of a smaller network does, and
// builds what was recorded. hook is called at both places of each site, in the order of the products (AtProduct before AtLast), in both phases, and returns what goes on in the place of x,
// which has the shape of x. It may make variables, and panics as graph building functions do. Where it returns x itself, nothing changes.
//
// The function may be traced, as any other, and so may be cut. The network is not touched.
func (n *Network) Intercept(hook func(site Site, x *graph.Node) *graph.Node) trace.ModelFn {
	r := &replay{network: n.digest, fn: n.fn, removed: map[string]map[int][]int{}, dims: map[string][]int{}, hook: hook}
	return r.build
}

// Bypass returns a model function without some of the network's branches: sites that Joins says are the end of one. What a branch adds is zero, what is computed for it alone is not built, and
// what it updates in training, as the statistics of its normalisations, stays as it is. Variables that nothing reads any more stay in the store. The network is not touched.
//
// Errors: *ReplayError for a site that is no end of a branch.
func (n *Network) Bypass(branches ...Site) (trace.ModelFn, error) {
	r := &replay{network: n.digest, fn: n.fn, removed: map[string]map[int][]int{}, dims: map[string][]int{}}
	known := n.Sites()
	for _, b := range branches {
		if !slices.ContainsFunc(known, func(s Site) bool { return s.Joins && b.is(s) }) {
			return nil, &ReplayError{Variable: b.Kernel, Problem: "its product is not the end of a branch", Remedy: "give sites of this network that have Joins"}
		}
	}
	r.bypassed = slices.Clone(branches)
	return r.build, nil
}

// is tells whether two sites are one, of two recordings perhaps.
func (s Site) is(other Site) bool {
	return s.Kernel == other.Kernel && s.KernelAxis == other.KernelAxis && s.Use == other.Use
}

// without leaves out what belongs to bypassed branches alone: updates and losses that are computed from values which the outputs no longer need.
func (e *emitter) without(branches []Site) {
	cut := map[*graph.Node]bool{}
	for _, s := range e.sites {
		if slices.ContainsFunc(branches, s.is) {
			for _, n := range e.Graph.Nodes() {
				if n.NumOutputs() == 1 && trace.Of(n)[0] == s.last {
					cut[n] = true
				}
			}
		}
	}
	above := func(roots []*graph.Node, cut map[*graph.Node]bool) map[*graph.Node]bool {
		found := map[*graph.Node]bool{}
		for todo := slices.Clone(roots); len(todo) > 0; {
			n := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if !found[n] {
				found[n] = true
				if !cut[n] {
					todo = append(todo, n.Inputs()...)
				}
			}
		}
		return found
	}
	before, after := above(e.Outputs, nil), above(e.Outputs, cut)
	dead := map[*graph.Node]bool{}
	for _, n := range e.Graph.Nodes() { // inputs come first
		if n.Type() != graph.NodeTypeParameter && (before[n] && !after[n] || cut[n]) {
			dead[n] = true
		}
		for _, in := range n.Inputs() {
			dead[n] = dead[n] || dead[in] && !cut[in] && !after[n]
		}
	}
	p := *e.part
	r := *p.recording
	r.updates = slices.DeleteFunc(slices.Clone(r.updates), func(u update) bool { return dead[u.node] })
	r.params = slices.DeleteFunc(slices.Clone(r.params), func(u nodeParam) bool { return dead[u.node] })
	// What only counts how often those happen, as the weight of a moving average does, goes too.
	var gone []*graph.Node
	for _, u := range p.recording.updates {
		if dead[u.node] {
			gone = append(gone, u.node)
		}
	}
	lost := above(gone, nil)
	r.updates = slices.DeleteFunc(slices.Clone(r.updates), func(u update) bool {
		kept := slices.Clone(e.Outputs)
		for _, other := range r.updates {
			if other != u {
				kept = append(kept, other.node)
			}
		}
		reads := func(nodes map[*graph.Node]bool) bool {
			for n := range nodes {
				if n.Type() == graph.NodeTypeParameter && n.GetParameterName() == u.path {
					return true
				}
			}
			return false
		}
		return reads(lost) && !reads(above(kept, cut))
	})
	p.recording = &r
	e.part = &p
	e.bypassed = cut
}

// Sites lists the network's products in inference, in the order in which they are computed. They have no Operands.
func (n *Network) Sites() []Site {
	a := newAnalysis()
	a.trace(n.inference, nil)
	a.settle()
	return a.sites(n.inference)
}

// sites finds where a recording, which was analysed alone, computes channels.
func (a *analysis) sites(t *trace.Trace) []Site {
	flow := newFlow(a, t)
	var sites []Site
	uses := map[string]int{}
	seen := map[*trace.Op]int{}
	for _, u := range a.uses {
		if u.kind != makes || u.axis.sets == nil || !flow.live[u.op] {
			continue
		}
		use, known := seen[u.op]
		if !known {
			use = uses[u.variable]
			uses[u.variable]++
			seen[u.op] = use
		}
		s := Site{Kernel: u.variable, Use: use, Channels: u.axis.n, Op: u.op}
		s.KernelAxis, s.Axis = find(a.variables[u.variable].axes, u.axis), find(a.of(u.op.Outputs[0]).axes, u.axis)
		if s.KernelAxis < 0 || s.Axis < 0 { // the kernel was taken apart before
			continue
		}
		s.axes = [2]int{s.Axis, s.Axis}
		flow.follow(&s)
		sites = append(sites, s)
	}
	for _, u := range a.uses { // products that make one channel only
		if _, known := seen[u.op]; known || u.kind != reads || !flow.live[u.op] || len(a.variables[u.variable].axes) < 2 {
			continue
		}
		s := Site{Kernel: u.variable, Use: uses[u.variable], Channels: 1, Op: u.op, last: u.op.Outputs[0]}
		s.KernelAxis = slices.IndexFunc(a.variables[u.variable].axes, func(ax axis) bool { return ax.n == 1 && ax.sets == nil })
		s.Axis = u.op.Outputs[0].Shape.Rank() - 1
		if u.op.Type == "ConvGeneral" {
			axes := u.op.Attributes.ConvolveAxes("axes")
			s.KernelAxis, s.Axis = axes.KernelOutputChannels, axes.OutputChannels
		}
		if s.KernelAxis < 0 || u.op.Outputs[0].Shape.Dimensions[s.Axis] != 1 {
			continue
		}
		seen[u.op] = s.Use
		uses[u.variable]++
		s.axes = [2]int{s.Axis, s.Axis}
		sites = append(sites, s)
	}
	slices.SortStableFunc(sites, func(p, q Site) int { return p.Op.ID - q.Op.ID })
	flow.shortcuts(sites)
	return sites
}

// find returns where among axes one is. That which is it comes before those that only look like it, as the other axis of a kernel that makes what it reads does; -1 if there is none.
func find(axes []axis, x axis) int {
	if k := slices.IndexFunc(axes, func(y axis) bool { return y.sets != nil && &y.sets[0] == &x.sets[0] }); k >= 0 {
		return k
	}
	return slices.IndexFunc(axes, func(y axis) bool { return sameLabels(x, y) })
}

// sameLabels tells whether two axes are one, passed on by operations.
func sameLabels(p, q axis) bool {
	return p.n == q.n && p.sets != nil && q.sets != nil && (&p.sets[0] == &q.sets[0] || slices.Equal(p.sets, q.sets) && !slices.Contains(p.sets, stays))
}

// flow follows values through a recording.
type flow struct {
	a         *analysis
	ops       []*trace.Op
	live      map[*trace.Op]bool // an output of the network depends on it
	consumers map[*trace.Value]int
	depth     map[*trace.Op]int // how many products lie before and at an operation, at most
}

func newFlow(a *analysis, t *trace.Trace) *flow {
	f := &flow{a: a, ops: t.Ops, live: map[*trace.Op]bool{}, consumers: map[*trace.Value]int{}, depth: map[*trace.Op]int{}}
	for _, n := range t.Outputs {
		v := trace.Of(n)[0]
		f.live[v.Op] = true
		f.consumers[v]++ // it is needed to the end
	}
	for _, op := range slices.Backward(t.Ops) {
		if !f.live[op] {
			continue
		}
		for _, in := range op.Inputs {
			f.live[in.Op] = true
			f.consumers[in]++
		}
	}
	for _, op := range t.Ops {
		for _, in := range op.Inputs {
			f.depth[op] = max(f.depth[op], f.depth[in.Op])
		}
		if product(op) {
			f.depth[op]++
		}
	}
	return f
}

func product(op *trace.Op) bool { return op.Type == "ConvGeneral" || op.Type == "DotGeneral" }

// follow goes from a product through the operations that its channels pass, and notes the last value through which all that becomes of them has to go.
//
// Operations come in order, so a value is passed by everything when it is the only one that is still waited for. The statistics of a normalisation that is written out come of
// the channels too, and come together with them again.
func (f *flow) follow(s *Site) {
	start := s.Op.Outputs[0]
	own := f.a.of(start).axes[s.Axis]
	s.last = start
	waits := map[*trace.Value]int{start: f.consumers[start]} // for how many operations; 0: it was reached
	open := 1
	gain := ""
	for _, op := range f.ops {
		if op.ID <= s.Op.ID || !f.live[op] || !slices.ContainsFunc(op.Inputs, func(v *trace.Value) bool { _, reached := waits[v]; return reached }) {
			continue
		}
		joined := false
		for _, in := range op.Inputs {
			_, reached := waits[in]
			joined = joined || !reached && f.a.of(in) != nil && f.a.of(in).data
		}
		if joined {
			if rest := waits[s.last]; open == 1 && rest == 1 && (op.Type == "Add" || op.Type == "Sub") {
				s.join = op
			}
			return
		}
		out := op.Outputs[0]
		at := -1
		if !product(op) {
			at = find(f.a.of(out).axes, own)
		}
		if at < 0 {
			return
		}
		for _, in := range op.Inputs {
			if _, reached := waits[in]; !reached {
				continue
			}
			if waits[in]--; waits[in] == 0 {
				open--
			}
		}
		for _, v := range op.Outputs {
			if f.consumers[v] > 0 {
				waits[v] = f.consumers[v]
				open++
			}
		}
		for _, u := range f.a.uses {
			if u.kind == scales && u.op == op && gain == "" && u.axis.n == own.n {
				gain = u.variable
			}
		}
		if x := f.a.of(out).axes[at]; open == 1 && waits[out] > 0 && out.Shape.Size() == start.Shape.Size() && x.zero && x.wild == 0 {
			s.last, s.axes[AtLast], s.Gain = out, at, gain
		}
	}
}

// shortcuts decides which of the sites that end in one sum is the branch.
func (f *flow) shortcuts(sites []Site) {
	best := map[*trace.Op]int{}
	for i, s := range sites {
		if s.join == nil {
			continue
		}
		if j, found := best[s.join]; !found || f.depth[s.Op] > f.depth[sites[j].Op] {
			best[s.join] = i
		}
	}
	for _, i := range best {
		sites[i].Joins = true
	}
}

// intercepted hands a value to the function of Intercept, at the sites that it is a place of.
func (e *emitter) intercepted(n, built *graph.Node) *graph.Node {
	if e.hook == nil || n.NumOutputs() != 1 {
		return built
	}
	v := trace.Of(n)[0]
	for _, place := range []Place{AtProduct, AtLast} {
		for _, s := range e.sites {
			if place == AtProduct && s.Op.Outputs[0] != v || place == AtLast && s.last != v {
				continue
			}
			s.Place, s.Axis = place, s.axes[place]
			if s.Operands = e.operands[s.Op]; s.Operands == nil {
				for _, in := range s.Op.Node().Inputs() {
					s.Operands = append(s.Operands, e.nodes[in])
				}
				e.operands[s.Op] = s.Operands
			}
			changed := e.hook(s, built)
			if changed == nil || !changed.Shape().Equal(built.Shape()) {
				panic(&ReplayError{Op: s.Op.Type, Variable: s.Kernel, Problem: "the function given to Intercept returned nothing, or a value of another shape",
					Remedy: "return a value of the shape of x, or x itself"})
			}
			built = changed
		}
	}
	return built
}

// Package profile counts a network's parameters, multiply-accumulates and bytes, layer by layer, and measures latency.
package profile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/report"
)

// Layer is what one scope of a network's variables holds and does.
type Layer struct {
	Path          string // the scope of its variables, without the name that GoMLX's layers add where it stays the only one so: "/conv1_1"
	Kind          string // "conv"; "dense"; "product", of activations, which has no parameters; "other", which has no MACs
	Params        int64  // weights, biases and all other variables, running statistics too
	NonZero       int64  // of them, those that are not zero, nor dead by a mask; Params where the store has neither values nor masks
	MACs          int64  // multiply-accumulates for the input given; additions of biases are not counted
	EffectiveMACs int64  // MACs whose weight is counted in NonZero: what a machine that skips zeros would have to do
	Bytes         int64  // of all parameters, zeros too
	OutShape      []int  // of its last product as the backend computes it, without the first axis; nil if it has none
}

// Profile of a network.
type Profile struct {
	Layers []Layer // in the order of computation
	// Unknown lists operations that no rule counts although they may multiply by weights: MACs are too low by theirs.
	Unknown []string
	// MACsPerWeight says in how many of the MACs each weight of a product takes part, by the path of the variable: 1 in a dense layer, the number of positions in a
	// convolution. budget.ByMACs takes it.
	MACsPerWeight map[string]int64
}

func (p Profile) sum(f func(Layer) int64) int64 {
	var total int64
	for _, l := range p.Layers {
		total += f(l)
	}
	return total
}

// Params is the number of parameters.
func (p Profile) Params() int64 { return p.sum(func(l Layer) int64 { return l.Params }) }

// NonZero is the number of parameters that are neither zero nor dead.
func (p Profile) NonZero() int64 { return p.sum(func(l Layer) int64 { return l.NonZero }) }

// MACs is the number of multiply-accumulates for the input given. Papers on pruning often call this FLOPs.
func (p Profile) MACs() int64 { return p.sum(func(l Layer) int64 { return l.MACs }) }

// FLOPs is 2 MACs: a multiplication and an addition each.
func (p Profile) FLOPs() int64 { return 2 * p.MACs() }

// EffectiveMACs is the number of multiply-accumulates whose weight is neither zero nor dead.
func (p Profile) EffectiveMACs() int64 { return p.sum(func(l Layer) int64 { return l.EffectiveMACs }) }

// Bytes is the size of the parameters, zeros too.
func (p Profile) Bytes() int64 { return p.sum(func(l Layer) int64 { return l.Bytes }) }

// Table returns the profile as a table with totals.
func (p Profile) Table() report.Table {
	t := report.Table{
		Title: fmt.Sprintf("%s parameters, %sB, %sMACs = %sFLOPs", report.Count(p.Params()), scaled(p.Bytes(), 1), scaled(p.MACs(), 3), scaled(p.FLOPs(), 2)),
		Columns: []report.Column{{Name: "layer"}, {Name: "kind"}, {Name: "output"}, {Name: "parameters"}, {Name: "not zero"}, {Name: "MACs"},
			{Name: "MACs without zeros"}, {Name: "size", Unit: "MB", Format: "%.3f"}},
		Caption: "MACs are multiply-accumulates for one input, without the additions of biases; FLOPs = 2 MACs. MB = 10⁶ bytes.",
	}
	for _, l := range p.Layers {
		name := l.Path
		if name != model.RootScopePath {
			name = strings.TrimPrefix(name, model.ScopeSeparator)
		}
		t.Rows = append(t.Rows, row(name, l.Kind, strings.Trim(strings.ReplaceAll(fmt.Sprint(l.OutShape), " ", "×"), "[]"), l))
	}
	t.Rows = append(t.Rows, row("total", "", "", Layer{Params: p.Params(), NonZero: p.NonZero(), MACs: p.MACs(), EffectiveMACs: p.EffectiveMACs(), Bytes: p.Bytes()}))
	if len(p.Unknown) > 0 {
		t.Caption += " Not counted, for want of a rule: " + strings.Join(p.Unknown, ", ") + "."
	}
	return t
}

func row(name, kind, out string, l Layer) []any {
	return []any{name, kind, out, report.Count(l.Params), report.Count(l.NonZero), report.Count(l.MACs), report.Count(l.EffectiveMACs), float64(l.Bytes) / 1e6}
}

// scaled writes a count with a prefix of the SI: 15.470 G.
func scaled(n int64, digits int) string {
	for _, unit := range []struct {
		prefix string
		size   float64
	}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
		if float64(n) >= unit.size {
			return fmt.Sprintf("%.*f %s", digits, float64(n)/unit.size, unit.prefix)
		}
	}
	return fmt.Sprintf("%d ", n)
}

// BuildError says that a network could not be built, or its values not be read, to be profiled.
type BuildError struct {
	Input shapes.Shape
	Err   error
}

func (e *BuildError) Error() string { return fmt.Sprintf("profile of an input %s: %v", e.Input, e.Err) }

// Unwrap returns the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// Of profiles a model function for an input, whose first axis is the batch: give 1 for counts per example. It builds the graph and neither compiles it nor initialises
// variables, so it takes no more memory for a large network than for a small one. Variables that the store lacks are created without values. Zeros are
// counted from the values and the masks (pkg/mask) that the store has. The error is a *BuildError.
//
// A convolution counts as outputs × kernel area × input channels / groups, a dense layer as outputs × inputs, padding and all.
func Of(b compute.Backend, store *model.Store, fn func(*model.Scope, *graph.Node) *graph.Node, input shapes.Shape) (p Profile, err error) {
	if b == nil || store == nil || fn == nil {
		return Profile{}, &BuildError{input, errors.New("backend, store and model function must not be nil")}
	}
	defer func() {
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("%v", r)
			}
			p, err = Profile{}, &BuildError{input, cause}
		}
	}()
	g := graph.NewGraph(b, "profile")
	defer g.Finalize()
	model.SetStore(g, store)
	store.SetTraining(g, false)
	x := graph.Parameter(g, "input", input)
	output := fn(store.RootScope(), x)

	c := newCounter(store, x)
	live := reachable(output)
	for _, node := range g.Nodes() { // in the order in which they were built
		if live[node] {
			c.count(node)
		}
	}
	if err := c.parameters(g); err != nil {
		return Profile{}, &BuildError{input, err}
	}
	return Profile{Layers: c.named(), Unknown: c.unknown, MACsPerWeight: c.perWeight}, nil
}

// reachable returns the nodes that an output depends on. Others are in a graph too: GoMLX leaves both forms of what it fuses.
func reachable(output *graph.Node) map[*graph.Node]bool {
	live := map[*graph.Node]bool{output: true}
	for todo := []*graph.Node{output}; len(todo) > 0; {
		node := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, in := range node.Inputs() {
			if !live[in] {
				live[in] = true
				todo = append(todo, in)
			}
		}
	}
	return live
}

// named returns the layers with the shortest of their names that tells them apart.
func (c *counter) named() []Layer {
	short := func(scope string) string {
		for _, added := range []string{"/dense", "/conv"} {
			if s, ok := strings.CutSuffix(scope, added); ok && s != "" {
				return s
			}
		}
		return scope
	}
	users := map[string]int{}
	for _, scope := range c.order {
		users[short(scope)]++
	}
	var layers []Layer
	for _, scope := range c.order {
		l := *c.layers[scope]
		l.Path = scope
		if s := short(scope); users[s] == 1 {
			l.Path = s
		}
		layers = append(layers, l)
	}
	return layers
}

// parameters counts the variables that the graph uses.
func (c *counter) parameters(g *graph.Graph) error {
	var used []*model.Variable
	for v := range c.store.IterVariables() {
		if v.InUseByGraph(g) && isParameter(v.Path()) {
			used = append(used, v)
		}
	}
	slices.SortFunc(used, func(a, b *model.Variable) int { return strings.Compare(a.Path(), b.Path()) }) // a store that was loaded has another order
	for _, v := range used {
		n, err := c.alive(v)
		if err != nil {
			return err
		}
		scope, _ := model.SplitPath(v.Path())
		l := c.layer(scope)
		l.Params += int64(v.Shape().Size())
		l.Bytes += int64(v.Shape().ByteSize())
		l.NonZero += n
	}
	return c.err
}

// alive returns how many elements of a variable are neither zero nor dead.
func (c *counter) alive(v *model.Variable) (int64, error) {
	if n, ok := c.counted[v.Path()]; ok {
		return n, nil
	}
	p := params.Param{Path: v.Path(), Shape: v.Shape()}
	var keep []bool
	if c.store.GetVariable(mask.Path(p)) != nil {
		var err error
		if keep, err = mask.Bools(c.store, p); err != nil {
			return 0, err
		}
	}
	n, err := nonZero(v, keep)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", v.Path(), err)
	}
	c.counted[v.Path()] = n
	return n, nil
}

// nonZero counts the elements that are not zero and, unless keep is nil, kept. What has no value that can be read counts as not zero.
func nonZero(v *model.Variable, keep []bool) (n int64, err error) {
	kept := func(i int) bool { return keep == nil || keep[i] }
	size := v.DType().Size()
	readable := v.DType().IsFloat() || v.DType().IsInt() && !v.DType().IsPacked()
	if !v.HasValue() || !readable {
		n = int64(v.Shape().Size())
		for _, k := range keep {
			if !k {
				n--
			}
		}
		return n, nil
	}
	value, err := v.Value()
	if err != nil {
		return 0, err
	}
	var sign uint64 // −0 is zero
	if v.DType().IsFloat() {
		sign = 1 << (8*size - 1)
	}
	err = value.ConstBytes(func(data []byte) {
		for i := range len(data) / size {
			var bits uint64
			switch at := data[i*size:]; size {
			case 1:
				bits = uint64(at[0])
			case 2:
				bits = uint64(binary.LittleEndian.Uint16(at))
			case 4:
				bits = uint64(binary.LittleEndian.Uint32(at))
			case 8:
				bits = binary.LittleEndian.Uint64(at)
			}
			if bits&^sign != 0 && kept(i) {
				n++
			}
		}
	})
	return n, err
}

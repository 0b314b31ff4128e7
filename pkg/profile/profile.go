// Package profile counts a network's parameters, multiply-accumulates and bytes, layer by layer, and measures latency.
package profile

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Layer is what one scope of a network's variables holds and does.
type Layer struct {
	Path     string // the scope of its variables, without the name that GoMLX's layers add: "/conv1_1"
	Kind     string // "conv", "dense", "other"
	Params   int64  // weights, biases and all other variables
	NonZero  int64  // of them; Params where the store has no values
	MACs     int64  // multiply-accumulates for the input given; additions of biases are not counted
	Sparse   int64  // MACs whose weight is not zero: what a machine that skips zeros would have to do
	Bytes    int64  // of all parameters
	OutShape []int  // of its last product; nil if it has none
}

// Profile of a network.
type Profile struct {
	Layers []Layer // in the order of computation
	// Unknown lists operations that have weights and that no rule counts: MACs are too low by theirs.
	Unknown []string
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

// NonZero is the number of parameters that are not zero.
func (p Profile) NonZero() int64 { return p.sum(func(l Layer) int64 { return l.NonZero }) }

// MACs is the number of multiply-accumulates for the input given. Papers on pruning often call this FLOPs.
func (p Profile) MACs() int64 { return p.sum(func(l Layer) int64 { return l.MACs }) }

// FLOPs is 2 MACs: a multiplication and an addition each.
func (p Profile) FLOPs() int64 { return 2 * p.MACs() }

// Sparse is the number of multiply-accumulates whose weight is not zero.
func (p Profile) Sparse() int64 { return p.sum(func(l Layer) int64 { return l.Sparse }) }

// Bytes is the size of the parameters.
func (p Profile) Bytes() int64 { return p.sum(func(l Layer) int64 { return l.Bytes }) }

// Table returns the profile as a table with totals.
func (p Profile) Table() report.Table {
	t := report.Table{
		Title: fmt.Sprintf("%s parameters, %.1f MB, %sMACs = %sFLOPs", report.Count(p.Params()), float64(p.Bytes())/1e6,
			scaled(p.MACs(), 3), scaled(p.FLOPs(), 2)),
		Columns: []report.Column{{Name: "layer"}, {Name: "kind"}, {Name: "output"}, {Name: "parameters"}, {Name: "not zero"}, {Name: "MACs"},
			{Name: "MACs without zeros"}, {Name: "size", Unit: "MB", Format: "%.2f"}},
		Caption: "MACs are multiply-accumulates for one input; FLOPs = 2 MACs. MB = 10⁶ bytes.",
	}
	for _, l := range p.Layers {
		t.Rows = append(t.Rows, row(strings.TrimPrefix(l.Path, "/"), l.Kind, strings.Trim(strings.ReplaceAll(fmt.Sprint(l.OutShape), " ", "×"), "[]"), l))
	}
	t.Rows = append(t.Rows, row("total", "", "", Layer{Params: p.Params(), NonZero: p.NonZero(), MACs: p.MACs(), Sparse: p.Sparse(), Bytes: p.Bytes()}))
	if len(p.Unknown) > 0 {
		t.Caption += " Not counted, for want of a rule: " + strings.Join(p.Unknown, ", ") + "."
	}
	return t
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

func row(name, kind, out string, l Layer) []any {
	return []any{name, kind, out, report.Count(l.Params), report.Count(l.NonZero), report.Count(l.MACs), report.Count(l.Sparse), float64(l.Bytes) / 1e6}
}

// Of profiles a model function for an input, whose first axis is the batch: give 1 for counts per example. It builds the graph and neither compiles it nor initialises
// variables, so it takes no more memory for a large network than for a small one. Variables that the store lacks are created without values.
func Of(b compute.Backend, store *model.Store, fn func(*model.Scope, *graph.Node) *graph.Node, input shapes.Shape) (p Profile, err error) {
	g := graph.NewGraph(b, "profile")
	defer g.Finalize()
	defer func() {
		if r := recover(); r != nil {
			p, err = Profile{}, fmt.Errorf("profile: %v", r)
		}
	}()
	model.SetStore(g, store)
	store.SetTraining(g, false)
	output := fn(store.RootScope(), graph.Parameter(g, "input", input))

	c := counter{store: store, layers: map[string]*Layer{}}
	live := reachable(output)
	for _, node := range g.Nodes() { // in the order in which they were built
		if live[node] {
			c.count(node)
		}
	}
	if err := c.parameters(g); err != nil {
		return Profile{}, err
	}
	for _, path := range c.order {
		p.Layers = append(p.Layers, *c.layers[path])
	}
	p.Unknown = c.unknown
	return p, nil
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

type counter struct {
	store   *model.Store
	layers  map[string]*Layer
	order   []string
	unknown []string
}

// layer returns the layer of a variable.
func (c *counter) layer(variable string) *Layer {
	scope, _ := model.SplitPath(variable)
	for _, added := range []string{"/dense", "/conv"} {
		scope = strings.TrimSuffix(scope, added)
	}
	l := c.layers[scope]
	if l == nil {
		l = &Layer{Path: scope, Kind: "other"}
		c.layers[scope] = l
		c.order = append(c.order, scope)
	}
	return l
}

// attributes of a node are only in what it prints; a test holds this against GoMLX's form.
var (
	contracting   = regexp.MustCompile(`lhsContractingAxes=\[([\d ]*)\]`)
	outputChannel = regexp.MustCompile(`KernelOutputChannels:(\d+)`)
)

func (c *counter) count(node *graph.Node) {
	kind := node.Type().String()
	inputs := node.Inputs()
	out := int64(node.Shape().Size())
	var macs int64
	switch kind {
	case "Parameter":
		if path := node.GetParameterName(); c.store.GetVariable(path) != nil {
			c.layer(path) // the order of the layers is that in which their variables are first used
		}
		return
	case "DotGeneral":
		m := contracting.FindStringSubmatch(node.String())
		if m == nil {
			c.unknown = append(c.unknown, node.String())
			return
		}
		macs = out
		for _, axis := range strings.Fields(m[1]) {
			a, _ := strconv.Atoi(axis) // the pattern has digits only
			macs *= int64(inputs[0].Shape().Dimensions[a])
		}
		kind = "dense"
	case "FusedDense":
		macs = out * int64(inputs[0].Shape().Dim(-1))
		kind = "dense"
	case "ConvGeneral":
		m := outputChannel.FindStringSubmatch(node.String())
		if m == nil {
			c.unknown = append(c.unknown, node.String())
			return
		}
		a, _ := strconv.Atoi(m[1])
		kernel := inputs[1].Shape() // [spatial…, in / groups, out]
		macs = out * int64(kernel.Size()/kernel.Dimensions[a])
		kind = "conv"
	default:
		if strings.HasPrefix(kind, "Fused") || strings.HasPrefix(kind, "Quantized") {
			c.unknown = append(c.unknown, kind)
		}
		return
	}
	path := c.source(inputs[1])
	if path == "" {
		path = c.source(inputs[0])
	}
	if path == "" { // a product of activations, as in attention
		path = fmt.Sprintf("/product %d/", node.Id())
	}
	l := c.layer(path)
	l.Kind = kind
	l.MACs += macs
	l.OutShape = slices.Clone(node.Shape().Dimensions)[1:]
	l.Sparse += c.withoutZeros(path, macs)
}

// source follows a value back to the one variable that it is made of, or returns "".
func (c *counter) source(node *graph.Node) string {
	for {
		switch node.Type().String() {
		case "Parameter":
			if path := node.GetParameterName(); c.store.GetVariable(path) != nil {
				return path
			}
			return ""
		case "Reshape", "Transpose", "ConvertDType", "BroadcastInDim", "Identity", "Reverse":
			node = node.Inputs()[0]
		case "Where": // a mask: condition, weights, zeros
			node = node.Inputs()[1]
		default:
			return ""
		}
	}
}

// withoutZeros returns the part of a product's MACs whose weight is not zero; each weight takes part in the same number.
func (c *counter) withoutZeros(path string, macs int64) int64 {
	v := c.store.GetVariable(path)
	if v == nil || !v.HasValue() || v.Shape().Size() == 0 {
		return macs
	}
	n, err := nonZero(v)
	if err != nil {
		return macs // parameters reports the error
	}
	return macs / int64(v.Shape().Size()) * n
}

// parameters counts the variables that the graph uses.
func (c *counter) parameters(g *graph.Graph) error {
	for v := range c.store.IterVariables() {
		if !v.InUseByGraph(g) || v.Name() == model.RNGStateVariableName {
			continue
		}
		size := int64(v.Shape().Size())
		l := c.layer(v.Path())
		l.Params += size
		l.Bytes += size * int64(v.DType().Size())
		n := size
		if v.HasValue() {
			var err error
			if n, err = nonZero(v); err != nil {
				return err
			}
		}
		l.NonZero += n
	}
	return nil
}

func nonZero(v *model.Variable) (n int64, err error) {
	value, err := v.Value()
	if err != nil {
		return 0, err
	}
	size := v.DType().Size()
	switch v.DType() {
	case dtypes.Float32, dtypes.Float64, dtypes.Float16, dtypes.BFloat16:
	default:
		return int64(v.Shape().Size()), nil
	}
	err = value.ConstBytes(func(data []byte) {
		for at := 0; at < len(data); at += int(size) {
			for i := range int(size) {
				b := data[at+i]
				if i == int(size)-1 { // little-endian: the sign is in the last byte, and −0 is zero
					b &= 0x7f
				}
				if b != 0 {
					n++
					break
				}
			}
		}
	})
	return n, err
}

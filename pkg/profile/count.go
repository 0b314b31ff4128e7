package profile

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/mask"
)

// counter goes through a graph from its input to its output.
type counter struct {
	store     *model.Store
	layers    map[string]*Layer // by the scope of their variables
	order     []string          // of their scopes
	unknown   []string
	products  int                  // of activations
	fromInput map[*graph.Node]bool // what changes from example to example; the rest is made of variables and constants
	weights   map[*graph.Node]weight
	counted   map[string]int64 // see alive
	perWeight map[string]int64 // MACs of a weight, by the path of its variable
	err       error            // the first
}

func newCounter(store *model.Store, x *graph.Node) *counter {
	c := &counter{store: store, layers: map[string]*Layer{}, fromInput: map[*graph.Node]bool{x: true}, weights: map[*graph.Node]weight{}, counted: map[string]int64{}, perWeight: map[string]int64{}}
	for _, node := range x.Graph().Nodes() { // inputs come before what uses them
		if slices.ContainsFunc(node.Inputs(), func(in *graph.Node) bool { return c.fromInput[in] }) {
			c.fromInput[node] = true
		}
	}
	return c
}

// calls are operations that run functions, whose nodes are not among their inputs, so that what they multiply is not seen. GoMLX gives them no names.
var calls = map[graph.NodeType]string{graph.NodeTypeCall: "Call", graph.NodeTypeWhile: "While", graph.NodeTypeIf: "If"}

// layer returns the layer of a scope.
func (c *counter) layer(scope string) *Layer {
	l := c.layers[scope]
	if l == nil {
		l = &Layer{Kind: "other"}
		c.layers[scope] = l
		c.order = append(c.order, scope)
	}
	return l
}

// isParameter tells a network's parameters from the masks and the random state that lie beside them.
func isParameter(path string) bool {
	_, name := model.SplitPath(path)
	return name != model.RNGStateVariableName && !strings.HasPrefix(path, mask.Scope+model.ScopeSeparator)
}

// attributes of a node are only in what it prints; tests hold this against GoMLX's form.
var (
	contracting   = regexp.MustCompile(`lhsContractingAxes=\[([\d ]*)\]`)
	outputChannel = regexp.MustCompile(`KernelOutputChannels:(\d+) `)
	// Transposed convolutions and gradients have other values.
	plain = regexp.MustCompile(`inputDilations=\[[1 ]*\].*batchGroupCount=1\)`)
)

// count adds what a node computes.
func (c *counter) count(node *graph.Node) {
	in := node.Inputs()
	name := node.Type().String()
	switch kind := node.Type(); kind {
	case graph.NodeTypeParameter:
		if path := node.GetParameterName(); c.store.GetVariable(path) != nil && isParameter(path) {
			scope, _ := model.SplitPath(path)
			c.layer(scope) // the order of the layers is that in which their variables are first used
		}
	case graph.NodeTypeDotGeneral:
		m := contracting.FindStringSubmatch(node.String())
		if m == nil {
			c.skip(name, in[1])
			return
		}
		macs := int64(node.Shape().Size())
		for _, axis := range strings.Fields(m[1]) {
			a, _ := strconv.Atoi(axis) // the pattern has digits only
			macs *= int64(in[0].Shape().Dimensions[a])
		}
		c.product("dense", node, macs)
	case graph.NodeTypeFusedDense:
		c.product("dense", node, int64(node.Shape().Size())*int64(in[0].Shape().Dim(-1)))
	case graph.NodeTypeConvGeneral:
		m := outputChannel.FindStringSubmatch(node.String())
		if m == nil || !plain.MatchString(node.String()) {
			c.skip(name, in[1])
			return
		}
		a, _ := strconv.Atoi(m[1])
		kernel := in[1].Shape() // [spatial…, in / groups, out], in any order
		c.product("conv", node, int64(node.Shape().Size())*int64(kernel.Size()/kernel.Dimensions[a]))
	case graph.NodeTypeCall, graph.NodeTypeWhile, graph.NodeTypeIf:
		c.skip(calls[kind], node)
	case graph.NodeTypeFusedSoftmax, graph.NodeTypeFusedGelu, graph.NodeTypeFusedLayerNorm:
	case graph.NodeTypeAdd, graph.NodeTypeSub, graph.NodeTypeMax, graph.NodeTypeMin, graph.NodeTypeWhere, graph.NodeTypeConcatenate, graph.NodeTypeGather,
		graph.NodeTypeSlice, graph.NodeTypeDynamicSlice, graph.NodeTypeDynamicUpdateSlice:
		// They multiply nothing: biases, look-ups, selections.
	default:
		if strings.HasPrefix(name, "Fused") || kind == graph.NodeTypeFFT {
			c.skip(name, in[min(1, len(in)-1)])
			return
		}
		if !c.fromInput[node] { // weights that are prepared, once for all examples
			return
		}
		for _, x := range in {
			if c.weight(x).matrix {
				c.skip(name, x)
			}
		}
	}
}

// skip lists an operation as one that has no rule, with the variable that it uses.
func (c *counter) skip(name string, operand *graph.Node) {
	if path := c.weight(operand).path; path != "" {
		name += " with " + path
	}
	if !slices.Contains(c.unknown, name) {
		c.unknown = append(c.unknown, name)
	}
}

// product adds the MACs of a node to the layer of the weights among its first two inputs.
func (c *counter) product(kind string, node *graph.Node, macs int64) {
	w := c.weight(node.Inputs()[1])
	if w.path == "" {
		w = c.weight(node.Inputs()[0])
	}
	scope, _ := model.SplitPath(w.path)
	if w.path == "" { // as in attention
		c.products++
		kind, scope = "product", fmt.Sprintf("/product %d", c.products)
	}
	l := c.layer(scope)
	l.Kind = kind
	l.MACs += macs
	if w.path != "" {
		c.perWeight[w.path] += macs / int64(max(1, c.store.GetVariable(w.path).Shape().Size()))
	}
	l.EffectiveMACs += c.effective(w, macs)
	if d := node.Shape().Dimensions; len(d) > 0 {
		l.OutShape = slices.Clone(d[1:])
	}
}

// effective returns the part of a product's MACs whose weight is alive: each weight takes part in the same number.
func (c *counter) effective(w weight, macs int64) int64 {
	if !w.whole {
		return macs
	}
	v := c.store.GetVariable(w.path)
	n, err := c.alive(v)
	if err != nil {
		if c.err == nil {
			c.err = err
		}
		return macs
	}
	return macs / int64(v.Shape().Size()) * n
}

// weight says which variable a value is made of.
type weight struct {
	path   string // "" if of none, or if it depends on the input
	matrix bool   // the variable has two axes or more, as those have that a product uses
	whole  bool   // each of its elements is there, changed by nothing but a mask, and as often as the others
}

// weight follows a value back to the variable that it is made of; to the largest, if there are several.
func (c *counter) weight(node *graph.Node) weight {
	if c.fromInput[node] {
		return weight{}
	}
	if w, ok := c.weights[node]; ok {
		return w
	}
	var w weight
	in := node.Inputs()
	switch node.Type() {
	case graph.NodeTypeParameter:
		if v := c.store.GetVariable(node.GetParameterName()); v != nil {
			w = weight{path: v.Path(), matrix: v.Shape().Rank() >= 2, whole: v.Shape().Size() > 0}
		}
	case graph.NodeTypeReshape, graph.NodeTypeTranspose, graph.NodeTypeConvertDType, graph.NodeTypeBroadcastInDim, graph.NodeTypeIdentity, graph.NodeTypeReverse:
		w = c.weight(in[0])
	case graph.NodeTypeWhere: // a mask: condition, weights, zeros; or the last two the other way round
		w = c.weight(in[1])
		if other := c.weight(in[2]); w.path == "" {
			w = other
		} else if other.path != "" {
			w.whole = false
		}
	default:
		size := 0
		for _, x := range in {
			if part := c.weight(x); part.path != "" {
				if n := c.store.GetVariable(part.path).Shape().Size(); n > size {
					w, size = part, n
				}
			}
		}
		w.whole = false
	}
	c.weights[node] = w
	return w
}

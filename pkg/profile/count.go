package profile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// counter goes through a recorded network from its inputs to its outputs.
type counter struct {
	trace     *trace.Trace
	trained   map[string]bool   // the variables that are, by path
	layers    map[string]*Layer // by the scope of their variables
	order     []string          // of their scopes
	unknown   []string
	products  int                   // of activations
	fromInput map[*trace.Value]bool // what changes from example to example; the rest is made of variables and constants
	owner     map[*trace.Op]string  // the scope of the layer that an operation on examples belongs to
	weights   map[*trace.Value]weight
	counted   map[string]int64 // see alive
	perWeight map[string]int64 // MACs of a weight, by the path of its variable
	err       error            // the first
}

func newCounter(t *trace.Trace, trained map[string]bool) *counter {
	c := &counter{trace: t, trained: trained, layers: map[string]*Layer{}, fromInput: map[*trace.Value]bool{}, owner: map[*trace.Op]string{}, weights: map[*trace.Value]weight{},
		counted: map[string]int64{}, perWeight: map[string]int64{}}
	for _, x := range t.Inputs {
		for _, v := range trace.Of(x) {
			c.fromInput[v] = true
		}
	}
	for _, op := range t.Ops { // inputs come before what uses them
		if slices.ContainsFunc(op.Inputs, func(in *trace.Value) bool { return c.fromInput[in] }) {
			for _, out := range op.Outputs {
				c.fromInput[out] = true
			}
		}
	}
	return c
}

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

// layerOf is the scope of a variable, to which it adds what stands before the last dot of its name: models from elsewhere have the layer there, "layer1.0.conv1.weight".
func layerOf(path string) string {
	scope, name := model.SplitPath(path)
	if at := strings.LastIndexByte(name, '.'); at > 0 {
		return model.JoinPath(scope, name[:at])
	}
	return scope
}

// isParameter tells a network's parameters from the masks and the random state that lie beside them.
func isParameter(path string) bool {
	_, name := model.SplitPath(path)
	return path != "" && name != model.RNGStateVariableName && !strings.HasPrefix(path, mask.Scope+model.ScopeSeparator)
}

// count adds what an operation computes.
func (c *counter) count(op *trace.Op) {
	switch op.Type {
	case "Parameter":
		if path := op.Outputs[0].Variable(); isParameter(path) {
			scope := layerOf(path)
			c.layer(scope) // the order of the layers is that in which their variables are first used
		}
	case "DotGeneral":
		macs := int64(op.Outputs[0].Shape.Size())
		for _, axis := range op.Attributes.Ints("lhsContractingAxes") {
			macs *= int64(op.Inputs[0].Shape.Dimensions[axis])
		}
		c.product("dense", op, macs)
	case "ConvGeneral":
		above1 := func(name string) bool {
			return slices.ContainsFunc(op.Attributes.Ints(name), func(d int) bool { return d > 1 })
		}
		dilated := above1("inputDilations")
		if dilated && above1("strides") || op.Attributes.Int("batchGroupCount") > 1 { // places differ in what they multiply
			c.skip(op.Type, op.Inputs[1])
			return
		}
		kernel, axes := op.Inputs[1].Shape, op.Attributes.ConvolveAxes("axes") // [spatial…, in / groups, out], in any order
		// Of a transposed convolution each place of the input is multiplied with the whole kernel, also where padding crops what comes out.
		if dilated {
			in := op.Inputs[0].Shape
			c.product("conv", op, int64(in.Size()/in.Dimensions[axes.InputChannels])*int64(kernel.Size()))
			return
		}
		c.product("conv", op, int64(op.Outputs[0].Shape.Size())*int64(kernel.Size()/kernel.Dimensions[axes.KernelOutputChannels]))
	case "Call", "While", "If", "FFT": // they run functions, whose products are not seen, or multiply by constants of their own
		c.skip(op.Type, op.Outputs[0])
	case "Add", "Sub", "Max", "Min", "Where", "Concatenate", "Gather", "Slice", "DynamicSlice", "DynamicUpdateSlice":
		// They multiply nothing: biases, look-ups, selections.
	default:
		if !c.fromInput[op.Outputs[0]] { // weights that are prepared, once for all examples
			return
		}
		for _, x := range op.Inputs {
			if c.weight(x).matrix {
				c.skip(op.Type, x)
			}
		}
	}
}

// skip lists an operation as one that has no rule, with the variable that it uses.
func (c *counter) skip(name string, operand *trace.Value) {
	if path := c.weight(operand).path; path != "" {
		name += " with " + path
	}
	if !slices.Contains(c.unknown, name) {
		c.unknown = append(c.unknown, name)
	}
}

// product adds the MACs of an operation to the layer of the weights among its two operands.
func (c *counter) product(kind string, op *trace.Op, macs int64) {
	w := c.weight(op.Inputs[1])
	if w.path == "" {
		w = c.weight(op.Inputs[0])
	}
	scope := layerOf(w.path)
	if w.path == "" { // as in attention
		c.products++
		kind, scope = "product", fmt.Sprintf("/product %d", c.products)
	}
	c.owner[op] = scope
	l := c.layer(scope)
	l.Kind = kind
	l.MACs += macs
	if w.path != "" {
		c.perWeight[w.path] += macs / int64(max(1, w.shape.Size()))
	}
	l.EffectiveMACs += c.effective(w, macs)
	if d := op.Outputs[0].Shape.Dimensions; len(d) > 0 {
		l.OutShape = slices.Clone(d[1:])
	}
}

// effective returns the part of a product's MACs whose weight is alive: each weight takes part in the same number.
func (c *counter) effective(w weight, macs int64) int64 {
	if !w.whole {
		return macs
	}
	n, err := c.alive(w.path, w.shape)
	if err != nil {
		if c.err == nil {
			c.err = err
		}
		return macs
	}
	return macs / int64(w.shape.Size()) * n
}

// weight says which variable a value is made of.
type weight struct {
	path   string // "" if of none, or if it depends on the input
	shape  shapes.Shape
	matrix bool // the variable has two axes or more, as those have that a product uses
	whole  bool // each of its elements is there, changed by nothing but a mask, and as often as the others
}

// weight follows a value back to the variable that it is made of; to the largest, if there are several.
func (c *counter) weight(v *trace.Value) weight {
	if c.fromInput[v] {
		return weight{}
	}
	if w, ok := c.weights[v]; ok {
		return w
	}
	var w weight
	in := v.Op.Inputs
	switch v.Op.Type {
	case "Parameter":
		if path := v.Variable(); path != "" {
			w = weight{path: path, shape: v.Shape, matrix: v.Shape.Rank() >= 2, whole: v.Shape.Size() > 0}
		}
	case "Reshape", "Transpose", "ConvertDType", "BroadcastInDim", "Identity", "Reverse":
		w = c.weight(in[0])
	case "Where": // a mask: condition, weights, zeros; or the last two the other way round
		w = c.weight(in[1])
		if other := c.weight(in[2]); w.path == "" {
			w = other
		} else if other.path != "" {
			w.whole = false
		}
	default:
		for _, x := range in {
			if part := c.weight(x); part.path != "" && (w.path == "" || part.shape.Size() > w.shape.Size()) {
				w = part
			}
		}
		w.whole = false
	}
	c.weights[v] = w
	return w
}

// own says which layer each operation on examples belongs to. Those that use weights belong to the layer of these, with what leads there and belongs to no layer yet: the mean and
// the variance of a layer normalisation. Others belong to the latest layer among those that they take their inputs from, as activations do, and what comes before the
// first layer to that.
func (c *counter) own() {
	rank := map[string]int{"": -1}
	for i, scope := range c.order {
		rank[scope] = i
	}
	var claim func(op *trace.Op, scope string)
	claim = func(op *trace.Op, scope string) {
		if !c.onExamples(op) || c.owner[op] != "" {
			return
		}
		c.owner[op] = scope
		for _, in := range op.Inputs {
			claim(in.Op, scope)
		}
	}
	for _, op := range c.trace.Ops { // products are owned already
		for _, in := range op.Inputs {
			if scope := layerOf(c.weight(in).path); c.layers[scope] != nil {
				claim(op, scope)
			}
		}
	}
	for _, op := range c.trace.Ops {
		if c.onExamples(op) && c.owner[op] == "" {
			latest := ""
			for _, in := range op.Inputs {
				if scope := c.owner[in.Op]; rank[scope] > rank[latest] {
					latest = scope
				}
			}
			c.owner[op] = latest
		}
	}
	for _, op := range slices.Backward(c.trace.Ops) {
		for _, in := range op.Inputs {
			if c.onExamples(in.Op) && c.owner[in.Op] == "" {
				c.owner[in.Op] = c.owner[op]
			}
		}
	}
}

// onExamples says whether an operation computes something that changes from example to example.
func (c *counter) onExamples(op *trace.Op) bool {
	return op.Type != "Parameter" && c.fromInput[op.Outputs[0]]
}

// variables returns the shapes of the parameters that the model function uses, for its outputs or not, by path.
func (c *counter) variables() map[string]shapes.Shape {
	used := map[string]shapes.Shape{}
	for _, node := range c.trace.Graph.Nodes() {
		for _, v := range trace.Of(node) {
			if path := v.Variable(); isParameter(path) {
				used[path] = v.Shape
			}
		}
	}
	return used
}

// parameters counts the variables.
func (c *counter) parameters() error {
	used := c.variables()
	for _, path := range slices.Sorted(maps.Keys(used)) {
		shape := used[path]
		n, err := c.alive(path, shape)
		if err != nil {
			return err
		}
		scope := layerOf(path)
		l := c.layer(scope)
		l.Params += int64(shape.Size())
		l.Bytes += int64(shape.ByteSize())
		l.NonZero += n
		l.CSRBytes += csrBytes(shape, n)
		if !c.trained[path] {
			l.Statistics += int64(shape.Size())
		}
	}
	return c.err
}

// alive returns how many elements of a variable are neither zero nor dead.
func (c *counter) alive(path string, shape shapes.Shape) (int64, error) {
	if n, ok := c.counted[path]; ok {
		return n, nil
	}
	store := c.trace.Store
	keep, err := kept(store, path, shape)
	if err != nil {
		return 0, err
	}
	n := int64(shape.Size())
	if v := store.GetVariable(path); v != nil {
		if n, err = nonZero(v, keep); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
	} else {
		n -= dead(keep)
	}
	c.counted[path] = n
	return n, nil
}

// kept returns the mask of a variable; nil if it has none.
func kept(store *model.Store, path string, shape shapes.Shape) ([]bool, error) {
	p := params.Param{Path: path, Shape: shape}
	if store.GetVariable(mask.Path(p)) == nil {
		return nil, nil
	}
	return mask.Bools(store, p)
}

func dead(keep []bool) (n int64) {
	for _, k := range keep {
		if !k {
			n++
		}
	}
	return n
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

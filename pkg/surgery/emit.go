package surgery

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// emitter builds the nodes of a recording in another graph, without the indices that go.
//
// What has dimensions among its attributes is built with new ones; all else is cloned, which keeps gradients of its own and marks that stop them.
type emitter struct {
	*part
	scope *model.Scope
	graph *graph.Graph
	nodes map[*graph.Node]*graph.Node // of the recording -> built

	hook     func(Site, *graph.Node) *graph.Node // of Intercept; nil
	operands map[*trace.Op][]*graph.Node         // of products that were handed to it
	bypassed map[*graph.Node]bool                // last values of branches that are left out: zeros
}

// run builds the network and returns its outputs.
func (e *emitter) run(inputs []*graph.Node) []*graph.Node {
	for i, n := range e.Inputs {
		e.nodes[n] = inputs[i]
	}
	now := slices.Clone(e.Outputs)
	var later []*graph.Node // after the optimizer's step
	for _, u := range e.updates {
		if u.after {
			later = append(later, u.node)
		} else {
			now = append(now, u.node)
		}
	}
	for _, p := range e.params {
		now = append(now, p.node)
	}
	e.emitAll(now)
	for _, u := range e.updates {
		if !u.after {
			e.variable(u.path).SetNodeValue(e.nodes[u.node])
		}
	}
	for _, p := range e.params {
		e.setParam(p.path, e.nodes[p.node])
	}
	for _, s := range e.settings {
		model.SetGraphParam(e.graph, s.path, s.value)
	}
	if len(later) > 0 {
		model.SetGraphParam(e.graph, model.JoinPath(e.scope.Scope(), "surgery", train.TrainerPerStepUpdateGraphFnParamKey),
			train.ModelGraphFn(func(*model.Scope, *graph.Graph) { e.after(later) }))
	}
	outputs := make([]*graph.Node, len(e.Outputs))
	for i, n := range e.Outputs {
		outputs[i] = e.nodes[n]
	}
	return outputs
}

// after builds what the network does after the optimizer's step. There, a variable has the value that the optimizer gave it.
func (e *emitter) after(later []*graph.Node) {
	again := *e
	again.nodes = map[*graph.Node]*graph.Node{}
	for old, built := range e.nodes {
		if old.Type() != graph.NodeTypeParameter || slices.Contains(e.Inputs, old) {
			again.nodes[old] = built
		}
	}
	for _, u := range e.updates {
		if !u.after {
			again.nodes[u.node] = e.variable(u.path).NodeValue(e.graph)
		}
	}
	again.emitAll(later)
	for _, u := range e.updates {
		if u.after {
			e.variable(u.path).SetNodeValue(again.nodes[u.node])
		}
	}
}

// setParam leaves a node in a graph parameter. Losses add up, as those do that a model adds by itself.
func (e *emitter) setParam(path string, node *graph.Node) {
	switch path {
	case model.JoinPath(train.TrainerAbsoluteScope, train.TrainerMainLossGraphParamKey):
		train.AddMainLoss(node)
	case model.JoinPath(train.TrainerAbsoluteScope, train.TrainerRegularizationLossGraphParamKey):
		train.AddRegularizationLoss(node)
	default:
		model.SetGraphParam(e.graph, path, node)
	}
}

// emitAll builds nodes and what they depend on.
func (e *emitter) emitAll(roots []*graph.Node) {
	live := map[*graph.Node]bool{}
	for todo := slices.Clone(roots); len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !live[n] && e.nodes[n] == nil {
			live[n] = true
			if !e.bypassed[n] {
				todo = append(todo, n.Inputs()...)
			}
		}
	}
	for _, n := range e.Graph.Nodes() { // in the order in which they were made
		if !live[n] {
			continue
		}
		if e.bypassed[n] {
			shape := n.Shape().Clone()
			shape.Dimensions = e.dims(trace.Of(n)[0])
			e.nodes[n] = graph.Zeros(e.graph, shape)
			continue
		}
		built := e.emit(n)
		if n.StopGradient() && !built.StopGradient() {
			built = graph.StopGradient(built)
		}
		if n.NumOutputs() == 1 {
			if want := e.dims(trace.Of(n)[0]); !slices.Equal(want, built.Shape().Dimensions) {
				panic(&ReplayError{Op: trace.Of(n)[0].Op.Type, Problem: fmt.Sprintf("%v were planned and %s built", want, built.Shape()),
					Remedy: "this is a fault of pkg/surgery: exclude the groups around it, and report it with the model function"})
			}
		}
		e.nodes[n] = e.intercepted(n, built)
	}
}

// kept returns which indices stay of an axis of a value; nil: all.
func (e *emitter) kept(v *trace.Value, axis int) []int {
	x := e.analysis.of(v)
	if x == nil || x.axes[axis].sets == nil {
		return nil
	}
	return e.analysis.kept(x.axes[axis], e.gone)
}

// dims returns the dimensions that are left of a value.
func (e *emitter) dims(v *trace.Value) []int {
	dims := slices.Clone(v.Shape.Dimensions)
	if x := e.analysis.of(v); x != nil {
		for k, ax := range x.axes {
			dims[k] = e.analysis.count(ax, e.gone)
		}
	}
	return dims
}

// variable returns the smaller network's variable for one of the original's.
func (e *emitter) variable(path string) *model.Variable {
	store := e.scope.Store()
	at := model.JoinPath(e.scope.Scope(), path)
	v := store.GetVariable(at)
	if v == nil {
		made, found := e.created[path]
		if !found {
			panic(&ReplayError{Variable: at, Problem: "it is not there", Remedy: "give the store that the network was cut to, or a copy of all of its variables"})
		}
		value, err := made.value.LocalClone()
		if err != nil {
			panic(err)
		}
		if v, err = store.CreateVariable(at, value); err != nil {
			panic(err)
		}
		v.SetTrainable(made.trainable)
	}
	return v
}

// replayable tells whether an operation can be built in another graph. The functions that these run belong to the graph that they were made for.
func replayable(op string) bool {
	return !slices.Contains([]string{"While", "If", "Call", "Sort", "DynamicReshape"}, op)
}

// emit builds one node.
func (e *emitter) emit(n *graph.Node) *graph.Node {
	v := trace.Of(n)[0]
	op := v.Op
	if !replayable(op.Type) {
		panic(&ReplayError{Op: op.Type, Problem: "it runs functions that can't be taken out of the graph that they were made for",
			Remedy: "write the model function without it: unroll the loop, or choose with Where"})
	}
	in := make([]*graph.Node, len(n.Inputs()))
	for i, x := range n.Inputs() {
		in[i] = e.nodes[x]
	}
	switch n.Type() {
	case graph.NodeTypeParameter:
		return e.variable(n.GetParameterName()).NodeValue(e.graph)
	case graph.NodeTypeConstant:
		return e.constant(v)
	case graph.NodeTypeIota:
		return e.iota(v)
	case graph.NodeTypeReshape:
		return graph.Reshape(in[0], e.dims(v)...)
	case graph.NodeTypeBroadcastInDim:
		dims := e.dims(v)
		aligned := slices.Repeat([]int{1}, len(dims))
		for i, k := range op.Attributes.Ints("broadcastAxes") {
			aligned[k] = in[0].Shape().Dimensions[i]
		}
		return graph.BroadcastToDims(graph.Reshape(in[0], aligned...), dims...)
	case graph.NodeTypeSlice:
		return e.slice(v, in[0])
	case graph.NodeTypePad:
		if x := e.pad(v, in[0], in[1]); x != nil {
			return x
		}
	case graph.NodeTypeConvGeneral:
		at := op.Attributes
		if at.Int("channelGroupCount") > 1 {
			c := at.ConvolveAxes("axes")
			groups := in[0].Shape().Dimensions[c.InputChannels] / in[1].Shape().Dimensions[c.KernelInputChannels]
			return graph.ConvGeneral(in[0], in[1], c, at.Ints("strides"), at.Paddings("paddings"), at.Ints("inputDilations"), at.Ints("kernelDilations"), groups, 1)
		}
	case graph.NodeTypeGather:
		if x := e.takeListed(v, in[0]); x != nil {
			return x
		}
		at := op.Attributes
		before, now := op.Inputs[0].Shape.Dimensions, in[0].Shape().Dimensions
		sizes := slices.Clone(at.Ints("sliceSizes"))
		for k := range sizes {
			if sizes[k] == before[k] {
				sizes[k] = now[k]
			}
		}
		return graph.BackendGather(in[0], in[1], at.Int("indexVectorAxis"), at.Ints("offsetOutputAxes"), at.Ints("collapsedSliceAxes"), at.Ints("startIndexMap"), sizes,
			at.Bool("indicesAreSorted"))
	case graph.NodeTypeIdentity:
		if n.CustomGradient() != nil {
			return customGradient(n, in[0])
		}
	case graph.NodeTypeSplitNode:
		x := n.CloneWithInputs(in...)
		if op.Type == "RNGBitGenerator" {
			return e.take(v, x)
		}
		return x
	}
	return n.CloneWithInputs(in...)
}

// customGradient builds a value with a gradient of its own, as the recorded one has. The function that computes it is the user's, and can't use other values of the recorded graph.
func customGradient(recorded, x *graph.Node) *graph.Node {
	return graph.IdentityWithCustomGradient(x, func(x, adjoint *graph.Node) *graph.Node {
		defer func() {
			if r := recover(); r != nil {
				panic(&ReplayError{Op: "IdentityWithCustomGradient", Problem: fmt.Sprintf("the function of its gradient failed: %v", r),
					Remedy: "let it compute the gradient from its two arguments and from variables of the scope, and not from other values of the network"})
			}
		}()
		return recorded.CustomGradient()(x, []*graph.Node{adjoint}, x.Shape())[0]
	})
}

// constant builds what stays of a constant.
func (e *emitter) constant(v *trace.Value) *graph.Node {
	c := cuts{}
	for k, n := range v.Shape.Dimensions {
		if kept := e.kept(v, k); kept != nil {
			for i, next := 0, 0; i < n; i++ {
				if next < len(kept) && kept[next] == i {
					next++
				} else {
					c[k] = append(c[k], i)
				}
			}
		}
	}
	t := tensorOf(v.Shape, v.Op.Attributes["flat"])
	t, err := cut(t, c, false)
	if err != nil {
		panic(err)
	}
	return graph.ConstTensor(e.graph, t)
}

// iota builds what stays of a range, with the values that it had.
func (e *emitter) iota(v *trace.Value) *graph.Node {
	along := v.Op.Attributes.Int("iotaAxis")
	shape := v.Shape.Clone()
	shape.Dimensions = e.dims(v)
	kept := e.kept(v, along)
	if kept == nil {
		return graph.Iota(e.graph, shape, along)
	}
	line := slices.Repeat([]int{1}, len(shape.Dimensions))
	line[along] = len(kept)
	x := graph.ConvertDType(graph.Const(e.graph, int32s(kept)), shape.DType)
	return graph.BroadcastToDims(graph.Reshape(x, line...), shape.Dimensions...)
}

func int32s(values []int) []int32 {
	result := make([]int32, len(values))
	for i, x := range values {
		result[i] = int32(x)
	}
	return result
}

// take gathers what stays of a value that was built at its old size.
func (e *emitter) take(v *trace.Value, x *graph.Node) *graph.Node {
	for k := range v.Shape.Dimensions {
		kept := e.kept(v, k)
		if kept == nil {
			continue
		}
		front := []int{k} // brings axis k to the front
		for i := range x.Rank() {
			if i != k {
				front = append(front, i)
			}
		}
		back := make([]int, len(front))
		for i, axis := range front {
			back[axis] = i
		}
		indices := graph.Reshape(graph.Const(e.graph, int32s(kept)), len(kept), 1)
		x = graph.TransposeAllAxes(graph.Gather(graph.TransposeAllAxes(x, front...), indices), back...)
	}
	return x
}

func (e *emitter) slice(v *trace.Value, x *graph.Node) *graph.Node {
	at, from := v.Op.Attributes, v.Op.Inputs[0]
	starts, limits, strides := at.Ints("starts"), at.Ints("limits"), at.Ints("strides")
	spec := make([]graph.SliceAxisSpec, len(starts))
	for k := range spec {
		start, limit := starts[k], limits[k]
		if kept := e.kept(from, k); kept != nil {
			start, _ = slices.BinarySearch(kept, starts[k])
			limit, _ = slices.BinarySearch(kept, limits[k])
		}
		spec[k] = graph.AxisRange(start, limit)
		if strides != nil && strides[k] != 1 {
			spec[k] = spec[k].Stride(strides[k])
		}
	}
	return graph.Slice(x, spec...)
}

// takeListed builds a Gather that takes indices of an axis by a constant list, where some go: those that went from the operand are read as zeros. It returns nil where none goes.
func (e *emitter) takeListed(v *trace.Value, x *graph.Node) *graph.Node {
	op := v.Op
	k, list := constantList(op)
	if k < 0 {
		return nil
	}
	to := 0 // the output's axis for the indices
	for slices.Contains(op.Attributes.Ints("offsetOutputAxes"), to) {
		to++
	}
	from, taken := e.kept(op.Inputs[0], k), e.kept(v, to)
	if from == nil && taken == nil {
		return nil
	}
	place, zero := map[int]int{}, x.Shape().Dimensions[k]
	for i, old := range from {
		place[old] = i
	}
	var indices []int
	padded := false
	for i, old := range list {
		if taken != nil {
			if _, stays := slices.BinarySearch(taken, i); !stays {
				continue
			}
		}
		at, stays := place[old]
		switch {
		case from == nil:
			at = old
		case !stays:
			at, padded = zero, true
		}
		indices = append(indices, at)
	}
	sizes := slices.Clone(x.Shape().Dimensions)
	sizes[k] = 1
	if padded {
		one := x.Shape().Clone()
		one.Dimensions[k] = 1
		x = graph.Concatenate([]*graph.Node{x, graph.Zeros(e.graph, one)}, k)
	}
	at := op.Attributes
	column := graph.Reshape(graph.Const(e.graph, int32s(indices)), len(indices), 1)
	if k == 0 && to == 0 { // the form that has a gradient
		return graph.Gather(x, column)
	}
	return graph.BackendGather(x, column, at.Int("indexVectorAxis"), at.Ints("offsetOutputAxes"), at.Ints("collapsedSliceAxes"), at.Ints("startIndexMap"), sizes, false)
}

// pad builds padding as a Concatenate, because Pad has no gradient in GoMLX v0.28.2. It returns nil where it pads between indices, or cuts.
func (e *emitter) pad(v *trace.Value, x, fill *graph.Node) *graph.Node {
	config := v.Op.Attributes.PadAxes("axesConfig")
	for _, p := range config {
		if p.Interior != 0 || p.Start < 0 || p.End < 0 {
			return nil
		}
	}
	for k, p := range config {
		n := v.Shape.Dimensions[k]
		before, behind := p.Start, p.End
		if kept := e.kept(v, k); kept != nil {
			before, _ = slices.BinarySearch(kept, p.Start)
			last, _ := slices.BinarySearch(kept, n-p.End)
			behind = len(kept) - last
		}
		padding := func(n int) []*graph.Node {
			if n == 0 {
				return nil
			}
			dims := slices.Clone(x.Shape().Dimensions)
			dims[k] = n
			return []*graph.Node{graph.BroadcastToDims(fill, dims...)}
		}
		if parts := slices.Concat(padding(before), []*graph.Node{x}, padding(behind)); len(parts) > 1 {
			x = graph.Concatenate(parts, k)
		}
	}
	return x
}

// tensorOf makes a tensor of recorded data.
func tensorOf(shape shapes.Shape, flat any) *tensors.Tensor {
	t := tensors.FromShape(shape)
	if err := t.MutableFlatData(func(to any) { reflect.Copy(reflect.ValueOf(to), reflect.ValueOf(flat)) }); err != nil {
		panic(err)
	}
	return t
}

// allZero tells whether recorded data is all zero.
func allZero(flat any) bool {
	v := reflect.ValueOf(flat)
	for i := range v.Len() {
		if !v.Index(i).IsZero() {
			return false
		}
	}
	return true
}

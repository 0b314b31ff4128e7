package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// rule makes the nodes of an operation with one output.
type rule func(w *writer, op *trace.Op) (*placed, error)

// rules are the operations that can be written, by their names in compute.Function.
var rules map[string]rule

// unaryNames and binaryNames are operations that ONNX has, too, by their names there.
var (
	unaryNames = map[string]string{"Abs": "Abs", "Ceil": "Ceil", "Cos": "Cos", "Erf": "Erf", "Exp": "Exp", "Floor": "Floor", "IsNaN": "IsNaN", "Log": "Log", "LogicalNot": "Not",
		"Logistic": "Sigmoid", "Neg": "Neg", "Round": "Round", "Sign": "Sign", "Sin": "Sin", "Sqrt": "Sqrt", "Tanh": "Tanh"}
	binaryNames = map[string]string{"Add": "Add", "Div": "Div", "Equal": "Equal", "GreaterOrEqual": "GreaterOrEqual", "GreaterThan": "Greater", "LessOrEqual": "LessOrEqual",
		"LessThan": "Less", "LogicalAnd": "And", "LogicalOr": "Or", "LogicalXor": "Xor", "Max": "Max", "Min": "Min", "Mul": "Mul", "Pow": "Pow", "Sub": "Sub"}
)

func init() {
	rules = map[string]rule{
		"Add": add, "Sub": binaryOp, "Mul": scaled, "Div": scaled, "Max": maximum, "Min": minimum, "Clamp": clamp, "Where": where, "ConvertDType": convert,
		"NotEqual": notEqual, "Rem": remainder, "Rsqrt": rsqrt, "Log1p": log1p, "Expm1": expm1, "IsFinite": isFinite,
		"Identity": same, "OptimizationBarrier": same, "SchedulingBarrier": same,
		"DotGeneral": dot, "ConvGeneral": convolution, "BatchNormForInference": batchNorm,
		"ReduceMax": reduceMax, "ReduceMin": reduceOp, "ReduceSum": reduceSum, "ReduceProduct": reduceOp, "ReduceWindow": reduceWindow, "ArgMinMax": argMinMax,
		"Reshape": reshape, "Transpose": transpose, "BroadcastInDim": broadcast, "Concatenate": concatenate, "Slice": slice, "Pad": pad, "Gather": gather, "Reverse": reverse,
		"Iota": iota,
	}
	for name := range unaryNames {
		rules[name] = unaryOp
	}
	for name := range binaryNames {
		if rules[name] == nil {
			rules[name] = binaryOp
		}
	}
}

// operands returns where the inputs of an operation are.
func (w *writer) operands(op *trace.Op) ([]*placed, error) {
	all := make([]*placed, len(op.Inputs))
	for i, in := range op.Inputs {
		var err error
		if all[i], err = w.value(in); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// elementwise makes a node that computes each element from those at its place in the operands, which are of one rank or scalars. It repeats axes by itself.
func (w *writer) elementwise(name string, d dtypes.DType, dims []size, operands []*placed, attributes ...attribute) (*placed, error) {
	rank := len(dims)
	var lead *placed // it decides on the order: where operands differ, for that of GoMLX, which products of matrices take
	for _, p := range operands {
		better := lead == nil || lead.constant != nil && p.constant == nil
		if !better && lead.constant == nil && p.constant == nil {
			better = lead.anyRepeats() && !p.anyRepeats() || lead.anyRepeats() == p.anyRepeats() && slices.IsSorted(p.order) && !slices.IsSorted(lead.order)
		}
		if p.rank() == rank && better {
			lead = p
		}
	}
	if lead == nil {
		return nil, &Error{Kind: ErrUnsupported, Expected: fmt.Sprintf("an operand of rank %d", rank), Came: "none"}
	}
	out := &placed{dtype: d, dims: dims, order: lead.order, repeats: make([]bool, rank)}
	for axis := range rank {
		out.repeats[axis] = !one(dims[axis])
		for _, p := range operands {
			if p.rank() == rank && !one(p.stored(axis)) {
				out.repeats[axis] = false
			}
		}
	}
	inputs := make([]*value, len(operands))
	for i, p := range operands {
		switch {
		case p.constant != nil && p != lead:
			inputs[i] = w.trimmed(p, lead.order)
		case p.rank() == 0:
			var err error
			if inputs[i], err = w.inOrder(p, nil); err != nil {
				return nil, err
			}
		default:
			var err error
			if inputs[i], err = w.inOrder(p, lead.order); err != nil {
				return nil, err
			}
		}
	}
	stored := make([]size, rank)
	for i, axis := range out.order {
		stored[i] = out.stored(axis)
	}
	out.at = w.node(name, inputs, d, stored, attributes...)
	return out, nil
}

// trimmed returns a constant for a node that repeats axes: without the axes of size 1 in front, which it takes to be there.
func (w *writer) trimmed(p *placed, order []int) *value {
	c := p.constant
	if len(c.dims) == 0 {
		return w.initializer(c, nil)
	}
	moved := make([]int, len(order))
	for i, axis := range order {
		moved[i] = c.dims[axis]
	}
	leading := 0
	for leading < len(moved) && moved[leading] == 1 {
		leading++
	}
	var axes []int // of c, those that something lies along, as they are
	for axis, n := range c.dims {
		if n != 1 {
			axes = append(axes, axis)
		}
	}
	if len(axes) <= 1 { // its elements have one order only
		return w.initializer(c.reshape(moved[leading:]), identity(len(moved)-leading))
	}
	v := w.initializer(c, order)
	return w.initializer(v.constant.reshape(moved[leading:]), identity(len(moved)-leading))
}

func unaryOp(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	return w.elementwise(unaryNames[op.Type], op.Outputs[0].Shape.DType, w.dims(op.Outputs[0]), all)
}

func binaryOp(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	return w.elementwise(binaryNames[op.Type], op.Outputs[0].Shape.DType, w.dims(op.Outputs[0]), all)
}

func same(w *writer, op *trace.Op) (*placed, error) { return w.value(op.Inputs[0]) }

// scalar returns the one number that a value has everywhere; false for others.
func (w *writer) scalar(v *trace.Value) (float64, bool) {
	if v = inputOf(v); v.Op.Type == "BroadcastInDim" || v.Op.Type == "Reshape" {
		return w.scalar(v.Op.Inputs[0])
	}
	if err := w.read(v); err != nil || w.statics.values[v] == nil {
		return 0, false
	}
	return w.statics.values[v].scalar()
}

// pair returns the input of an operation with two that is one number, and the other.
func (w *writer) pair(op *trace.Op) (x *trace.Value, number float64, ok bool) {
	for i, in := range op.Inputs {
		if n, is := w.scalar(in); is {
			return op.Inputs[1-i], n, true
		}
	}
	return nil, 0, false
}

// maximum is Max, which with 0 is Relu.
func maximum(w *writer, op *trace.Op) (*placed, error) {
	if x, number, ok := w.pair(op); ok && number == 0 && x.Shape.DType.IsFloat() && x.Shape.Equal(op.Outputs[0].Shape) {
		p, err := w.value(x)
		if err != nil {
			return nil, err
		}
		return w.elementwise("Relu", p.dtype, p.dims, []*placed{p})
	}
	return binaryOp(w, op)
}

// minimum is Min, which with a Max inside is Clip.
func minimum(w *writer, op *trace.Op) (*placed, error) {
	if x, high, ok := w.pair(op); ok && x.Op.Type == "Max" && w.users[x] == 1 && x.Shape.Equal(op.Outputs[0].Shape) {
		if y, low, ok := w.pair(x.Op); ok && y.Shape.Equal(x.Shape) && y.Shape.DType.IsFloat() {
			return w.clip(y, low, high)
		}
	}
	return binaryOp(w, op)
}

// clip bounds a value by two numbers.
func (w *writer) clip(x *trace.Value, low, high float64) (*placed, error) {
	p, err := w.value(x)
	if err != nil {
		return nil, err
	}
	least, err := w.scalarOf(p.dtype, low)
	if err != nil {
		return nil, err
	}
	most, err := w.scalarOf(p.dtype, high)
	if err != nil {
		return nil, err
	}
	return w.elementwise("Clip", p.dtype, p.dims, []*placed{p, least, most})
}

// clamp is Clip with numbers, and a Min of a Max with others. Its inputs are least, value, most.
func clamp(w *writer, op *trace.Op) (*placed, error) {
	low, isLow := w.scalar(op.Inputs[0])
	high, isHigh := w.scalar(op.Inputs[2])
	if d := op.Outputs[0].Shape.DType; isLow && isHigh && (d == dtypes.Float32 || d == dtypes.Float64) {
		return w.clip(op.Inputs[1], low, high)
	}
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	d, dims := op.Outputs[0].Shape.DType, w.dims(op.Outputs[0])
	bounded, err := w.elementwise("Max", d, dims, []*placed{all[1], all[0]})
	if err != nil {
		return nil, err
	}
	return w.elementwise("Min", d, dims, []*placed{bounded, all[2]})
}

func where(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	return w.elementwise("Where", op.Outputs[0].Shape.DType, w.dims(op.Outputs[0]), all)
}

func convert(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	d := op.Outputs[0].Shape.DType
	number, known := elementTypes[d]
	if !known {
		return nil, w.unsupported(op, "a type that ONNX has", d.String(), nil)
	}
	return w.elementwise("Cast", d, w.dims(op.Outputs[0]), all, attribute{name: "to", i: int64(number)})
}

// chain makes the nodes of a list of operations of one operand, each on what the one before computes.
func (w *writer) chain(p *placed, d dtypes.DType, dims []size, names ...string) (*placed, error) {
	var err error
	for _, name := range names {
		if p, err = w.elementwise(name, d, dims, []*placed{p}); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func notEqual(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	dims := w.dims(op.Outputs[0])
	p, err := w.elementwise("Equal", dtypes.Bool, dims, all)
	if err != nil {
		return nil, err
	}
	return w.chain(p, dtypes.Bool, dims, "Not")
}

// isFinite is that the magnitude is below infinity, which it is not for NaN.
func isFinite(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	dims := w.dims(op.Outputs[0])
	bound, err := w.scalarOf(all[0].dtype, math.Inf(1))
	if err != nil {
		return nil, err
	}
	p, err := w.chain(all[0], all[0].dtype, dims, "Abs")
	if err != nil {
		return nil, err
	}
	return w.elementwise("Less", dtypes.Bool, dims, []*placed{p, bound})
}

// remainder has the sign of the dividend, as C's fmod.
func remainder(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	return w.elementwise("Mod", op.Outputs[0].Shape.DType, w.dims(op.Outputs[0]), all, attribute{name: "fmod", i: 1})
}

func rsqrt(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	return w.chain(all[0], op.Outputs[0].Shape.DType, w.dims(op.Outputs[0]), "Sqrt", "Reciprocal")
}

// scalarOf is a constant of one number.
func (w *writer) scalarOf(d dtypes.DType, x float64) (*placed, error) {
	if d != dtypes.Float32 && d != dtypes.Float64 {
		return nil, &Error{Kind: ErrUnsupported, Expected: "float32 or float64", Came: d.String(), Remedy: "convert it first"}
	}
	return w.placeConstant((&constant{dtype: d, dims: []int{}}).with([]float64{x})), nil
}

func log1p(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	d, dims := op.Outputs[0].Shape.DType, w.dims(op.Outputs[0])
	number, err := w.scalarOf(d, 1)
	if err != nil {
		return nil, err
	}
	p, err := w.elementwise("Add", d, dims, []*placed{all[0], number})
	if err != nil {
		return nil, err
	}
	return w.chain(p, d, dims, "Log")
}

func expm1(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	d, dims := op.Outputs[0].Shape.DType, w.dims(op.Outputs[0])
	number, err := w.scalarOf(d, 1)
	if err != nil {
		return nil, err
	}
	p, err := w.chain(all[0], d, dims, "Exp")
	if err != nil {
		return nil, err
	}
	return w.elementwise("Sub", d, dims, []*placed{p, number})
}

func reshape(w *writer, op *trace.Op) (*placed, error) {
	if p, err := w.denseOfMany(op); p != nil || err != nil {
		return p, err
	}
	p, err := w.value(op.Inputs[0])
	if err != nil {
		return nil, err
	}
	return w.reshaped(p, w.dims(op.Outputs[0]))
}

// transpose gives the axes other names.
func transpose(w *writer, op *trace.Op) (*placed, error) {
	p, err := w.value(op.Inputs[0])
	if err != nil {
		return nil, err
	}
	axes := op.Attributes.Ints("permutation")
	out := *p
	out.dims, out.repeats = make([]size, len(axes)), make([]bool, len(axes))
	to := make([]int, len(axes)) // of each axis before
	for i, axis := range axes {
		out.dims[i], out.repeats[i], to[axis] = p.dims[axis], p.repeats[axis], i
	}
	if p.constant != nil {
		out.constant = p.constant.permute(axes)
		return &out, nil
	}
	out.order = make([]int, len(axes))
	for i, axis := range p.order {
		out.order[i] = to[axis]
	}
	return &out, nil
}

// broadcast adds axes of size 1, and says that they repeat.
func broadcast(w *writer, op *trace.Op) (*placed, error) {
	p, err := w.value(op.Inputs[0])
	if err != nil {
		return nil, err
	}
	to := op.Attributes.Ints("broadcastAxes")
	dims := w.dims(op.Outputs[0])
	out := &placed{dtype: p.dtype, dims: dims, order: identity(len(dims)), repeats: make([]bool, len(dims))}
	for axis := range dims {
		from := slices.Index(to, axis)
		out.repeats[axis] = !one(dims[axis]) && (from < 0 || one(p.stored(from)))
	}
	if p.constant != nil {
		ones := make([]int, len(dims))
		for axis := range ones {
			ones[axis] = 1
			if from := slices.Index(to, axis); from >= 0 {
				ones[axis] = p.constant.dims[from]
			}
		}
		out.constant = p.constant.reshape(ones)
		return out, nil
	}
	// The axes that were there keep their order; new ones have size 1 and lie behind the one that they follow.
	out.order = nil
	for _, axis := range p.order {
		out.order = append(out.order, to[axis])
	}
	for axis := range dims {
		if !slices.Contains(out.order, axis) {
			at := 0
			if axis > 0 {
				at = slices.Index(out.order, axis-1) + 1
			}
			out.order = slices.Insert(out.order, at, axis)
		}
	}
	stored := make([]size, len(dims))
	for i, axis := range out.order {
		stored[i] = out.stored(axis)
	}
	out.at, err = w.reshape(p.at, stored)
	return out, err
}

func concatenate(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	order := identity(all[0].rank())
	for _, p := range all {
		if p.constant == nil {
			order = p.order
			break
		}
	}
	inputs := make([]*value, len(all))
	for i, p := range all {
		if inputs[i], err = w.full(p, order); err != nil {
			return nil, err
		}
	}
	dims := w.dims(op.Outputs[0])
	axis := slices.Index(order, op.Attributes.Int("axis"))
	return place(w.node("Concat", inputs, all[0].dtype, moved(dims, order), attribute{name: "axis", i: int64(axis)}), dims, order), nil
}

// moved are the sizes of axes in an order.
func moved(dims []size, order []int) []size {
	m := make([]size, len(order))
	for i, axis := range order {
		m[i] = dims[axis]
	}
	return m
}

// ints makes the constant of a list of integers.
func (w *writer) ints(values []int64) *value { return w.initializer(int64s(values...), []int{0}) }

func slice(w *writer, op *trace.Op) (*placed, error) {
	p, err := w.value(op.Inputs[0])
	if err != nil {
		return nil, err
	}
	starts, limits, strides := op.Attributes.Ints("starts"), op.Attributes.Ints("limits"), op.Attributes.Ints("strides")
	out := *p
	out.dims = w.dims(op.Outputs[0])
	if p.constant != nil {
		v, err := w.full(p, identity(p.rank()))
		if err != nil {
			return nil, err
		}
		p = place(v, p.dims, identity(p.rank()))
		out.constant, out.repeats, out.order = nil, p.repeats, p.order
	}
	var from, to, axes, steps []int64
	for axis, d := range p.dims {
		step := 1
		if axis < len(strides) {
			step = strides[axis]
		}
		if p.repeats[axis] || slices.Equal(d, out.dims[axis]) && starts[axis] == 0 {
			continue
		}
		if !fixed(d) {
			return nil, &Error{Kind: ErrShape, Expected: "all of an axis that has the size of the batch", Came: fmt.Sprintf("%d to %d", starts[axis], limits[axis]), Remedy: "set Config.FixedBatch"}
		}
		from, to, steps = append(from, int64(starts[axis])), append(to, int64(limits[axis])), append(steps, int64(step))
		axes = append(axes, int64(p.position(axis)))
	}
	if len(axes) == 0 {
		out.at = p.at
		return &out, nil
	}
	stored := make([]size, len(out.dims))
	for i, axis := range out.order {
		stored[i] = out.stored(axis)
	}
	out.at = w.node("Slice", []*value{p.at, w.ints(from), w.ints(to), w.ints(axes), w.ints(steps)}, p.dtype, stored)
	return &out, nil
}

func reverse(w *writer, op *trace.Op) (*placed, error) {
	p, err := w.value(op.Inputs[0])
	if err != nil {
		return nil, err
	}
	v, err := w.full(p, p.order)
	if err != nil {
		return nil, err
	}
	var from, to, axes, steps []int64
	for _, axis := range op.Attributes.Ints("axes") {
		from, to, steps, axes = append(from, -1), append(to, math.MinInt64), append(steps, -1), append(axes, int64(p.position(axis)))
	}
	return place(w.node("Slice", []*value{v, w.ints(from), w.ints(to), w.ints(axes), w.ints(steps)}, p.dtype, v.dims), p.dims, p.order), nil
}

func pad(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	p, fill := all[0], all[1]
	axes := op.Attributes.PadAxes("axesConfig")
	before, after := make([]int64, p.rank()), make([]int64, p.rank())
	for axis, a := range axes {
		if a.Interior != 0 {
			return nil, w.unsupported(op, "padding at the ends of axes", fmt.Sprintf("%d between the elements of axis %d", a.Interior, axis), nil)
		}
		before[p.position(axis)], after[p.position(axis)] = int64(a.Start), int64(a.End)
	}
	v, err := w.full(p, p.order)
	if err != nil {
		return nil, err
	}
	number, err := w.inOrder(fill, nil)
	if err != nil {
		return nil, err
	}
	dims := w.dims(op.Outputs[0])
	return place(w.node("Pad", []*value{v, w.ints(append(before, after...)), number}, p.dtype, moved(dims, p.order)), dims, p.order), nil
}

// gather is Gather where one axis is looked up, and GatherND where the first ones are, together. Other than GoMLX, which takes the nearest, ONNX refuses an index that is not there.
func gather(w *writer, op *trace.Op) (*placed, error) {
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	x, indices := all[0], all[1]
	a := op.Attributes
	looked, collapsed, offsets, sizes := a.Ints("startIndexMap"), a.Ints("collapsedSliceAxes"), a.Ints("offsetOutputAxes"), a.Ints("sliceSizes")
	at := a.Int("indexVectorAxis")
	kept := []int{} // axes of x that come whole
	for axis := range x.rank() {
		if slices.Contains(collapsed, axis) {
			continue
		}
		if sizes[axis] != op.Inputs[0].Shape.Dimensions[axis] {
			return nil, w.unsupported(op, "whole axes beside those that are looked up", fmt.Sprintf("%d of %v of axis %d", sizes[axis], x.dims[axis], axis), nil)
		}
		kept = append(kept, axis)
	}
	if !slices.Equal(slices.Sorted(slices.Values(looked)), slices.Sorted(slices.Values(collapsed))) {
		return nil, w.unsupported(op, "axes that are looked up and left out", fmt.Sprintf("%v and %v", looked, collapsed), nil)
	}
	dims := w.dims(op.Outputs[0])
	batch := []int{} // axes of the output that come from the indices
	for axis := range dims {
		if !slices.Contains(offsets, axis) {
			batch = append(batch, axis)
		}
	}
	data, err := w.full(x, identity(x.rank()))
	if err != nil {
		return nil, err
	}
	where, err := w.full(indices, identity(indices.rank()))
	if err != nil {
		return nil, err
	}
	if len(looked) == 1 {
		if at < indices.rank() {
			if where, err = w.reshape(where, slices.Delete(slices.Clone(indices.dims), at, at+1)); err != nil {
				return nil, err
			}
		}
		var order []int
		for i, axis := range kept {
			if axis > looked[0] && len(order) == i {
				order = append(order, batch...)
			}
			order = append(order, offsets[i])
		}
		if len(order) == len(kept) {
			order = append(order, batch...)
		}
		return place(w.node("Gather", []*value{data, where}, x.dtype, moved(dims, order), attribute{name: "axis", i: int64(looked[0])}), dims, order), nil
	}
	if !slices.Equal(looked, identity(len(looked))) || at != indices.rank()-1 {
		return nil, w.unsupported(op, "the first axes looked up in their order", fmt.Sprint(looked), nil)
	}
	if where.dtype != dtypes.Int64 {
		where = w.node("Cast", []*value{where}, dtypes.Int64, where.dims, attribute{name: "to", i: int64(elementTypes[dtypes.Int64])})
	}
	order := append(slices.Clone(batch), offsets...)
	return place(w.node("GatherND", []*value{data, where}, x.dtype, moved(dims, order)), dims, order), nil
}

// iota is reached only where it depends on the batch size, by an axis along which it repeats.
func iota(w *writer, op *trace.Op) (*placed, error) {
	dims, axis, d := w.dims(op.Outputs[0]), op.Attributes.Int("iotaAxis"), op.Outputs[0].Shape.DType
	if !fixed(dims[axis]) {
		return nil, &Error{Kind: ErrShape, Expected: "numbers along an axis of a fixed size", Came: fmt.Sprintf("sizes %v at batches of %v", dims[axis], w.batches), Remedy: "set Config.FixedBatch"}
	}
	n := dims[axis][0]
	flat := make([]int, len(dims))
	out := &placed{dtype: d, dims: dims, order: identity(len(dims)), repeats: make([]bool, len(dims))}
	for i := range dims {
		flat[i], out.repeats[i] = 1, i != axis && !one(dims[i])
	}
	flat[axis] = n
	t, err := counting(d, n)
	if err != nil {
		return nil, w.unsupported(op, "numbers", d.String(), err)
	}
	out.constant = t.reshape(flat)
	return out, nil
}

// counting is 0, 1, … n − 1.
func counting(d dtypes.DType, n int) (*constant, error) {
	c := &constant{dtype: d, dims: []int{n}}
	switch d {
	case dtypes.Float32, dtypes.Float64:
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(i)
		}
		return c.with(x), nil
	case dtypes.Int32, dtypes.Int64, dtypes.Uint8, dtypes.Uint32:
		for i := range n {
			for b := range d.Size() {
				c.data = append(c.data, byte(uint64(i)>>(8*b)))
			}
		}
		return c, nil
	}
	return nil, fmt.Errorf("no rule for a shape such as %s", shapes.Make(d, n))
}

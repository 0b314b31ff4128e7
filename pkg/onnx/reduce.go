package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// reduceNames are ONNX's for the reductions.
var reduceNames = map[string]string{"ReduceMax": "ReduceMax", "ReduceMin": "ReduceMin", "ReduceSum": "ReduceSum", "ReduceProduct": "ReduceProd"}

func reduceOp(w *writer, op *trace.Op) (*placed, error) { return w.reduce(op, reduceNames[op.Type]) }

// reduce writes a reduction by ONNX's name for it.
func (w *writer) reduce(op *trace.Op, name string) (*placed, error) {
	p, err := w.value(op.Inputs[0])
	if err != nil {
		return nil, err
	}
	axes := op.Attributes.Ints("axes")
	if len(axes) == 0 {
		axes = identity(p.rank())
	}
	order := p.order
	v, err := w.full(p, order)
	if err != nil {
		return nil, err
	}
	var at []int64
	for _, axis := range axes {
		at = append(at, int64(slices.Index(order, axis)))
	}
	slices.Sort(at)
	kept := others(p.rank(), axes)
	var out []int // the axes that are left, in ONNX's order, by their numbers in the output
	for _, axis := range order {
		if i := slices.Index(kept, axis); i >= 0 {
			out = append(out, i)
		}
	}
	if out == nil {
		out = []int{}
	}
	dims := w.dims(op.Outputs[0])
	return place(w.node(name, []*value{v, w.ints(at)}, p.dtype, moved(dims, out), attribute{name: "keepdims"}), dims, out), nil
}

// reduceMax is ReduceMax, which may be a pool.
func reduceMax(w *writer, op *trace.Op) (*placed, error) {
	if p, err := w.poolByReshape(op, "MaxPool"); p != nil || err != nil {
		return p, err
	}
	return reduceOp(w, op)
}

// reduceSum is ReduceSum, which may be a pool.
func reduceSum(w *writer, op *trace.Op) (*placed, error) {
	p, err := w.poolByReshape(op, "AveragePool")
	if p == nil || err != nil {
		if err != nil {
			return nil, err
		}
		return reduceOp(w, op)
	}
	n := op.Inputs[0].Shape.Size() / op.Outputs[0].Shape.Size()
	return w.times(p, float64(n))
}

// times multiplies by a number.
func (w *writer) times(p *placed, number float64) (*placed, error) {
	if number == 1 {
		return p, nil
	}
	by, err := w.scalarOf(p.dtype, number)
	if err != nil {
		return nil, err
	}
	return w.elementwise("Mul", p.dtype, p.dims, []*placed{p, by})
}

// scaled is Mul or Div, which with a number makes a mean of a sum.
func scaled(w *writer, op *trace.Op) (*placed, error) {
	x, number, ok := w.pair(op)
	if ok && op.Type == "Div" {
		ok = x == op.Inputs[0]
		number = 1 / number
	}
	if ok {
		x = inputOf(x)
	}
	if ok && w.users[x] == 1 && x.Shape.Equal(op.Outputs[0].Shape) && x.Shape.DType.IsFloat() {
		switch x.Op.Type {
		case "ReduceSum":
			n := float64(x.Op.Inputs[0].Shape.Size() / x.Shape.Size())
			axes := x.Op.Attributes.Ints("axes")
			if len(axes) == 0 {
				axes = identity(x.Op.Inputs[0].Shape.Rank())
			}
			all := w.dims(x.Op.Inputs[0])
			if near(number*n, 1) && !slices.ContainsFunc(axes, func(axis int) bool { return !fixed(all[axis]) }) {
				if p, err := w.poolByReshape(x.Op, "AveragePool"); p != nil || err != nil {
					return p, err
				}
				return w.reduce(x.Op, "ReduceMean")
			}
		case "ReduceWindow":
			n := float64(sizeOf(x.Op.Attributes.Ints("windowDimensions")))
			if x.Op.Attributes["reductionType"] == compute.ReduceOpSum && near(number*n, 1) {
				return w.poolOf(x.Op, "AveragePool", true)
			}
		}
	}
	if p, err := w.meanWithoutPadding(op); p != nil || err != nil {
		return p, err
	}
	return binaryOp(w, op)
}

// near tells whether a number is another but for the rounding of float32.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Abs(b) }

// meanWithoutPadding recognises the sum over windows divided by how many elements lie in them: the padding does not count. It returns nil if it is none.
func (w *writer) meanWithoutPadding(op *trace.Op) (*placed, error) {
	if op.Type != "Div" {
		return nil, nil
	}
	sum, count := inputOf(op.Inputs[0]).Op, inputOf(op.Inputs[1]).Op
	if sum.Type != "ReduceWindow" || count.Type != "ReduceWindow" || w.users[sum.Outputs[0]] != 1 {
		return nil, nil
	}
	for _, name := range []string{"reductionType", "windowDimensions", "strides", "paddings", "inputDilations", "windowDilations"} {
		if fmt.Sprint(sum.Attributes[name]) != fmt.Sprint(count.Attributes[name]) {
			return nil, nil
		}
	}
	if number, ok := w.scalar(count.Inputs[0]); !ok || number != 1 || sum.Attributes["reductionType"] != compute.ReduceOpSum {
		return nil, nil
	}
	// The ones are there once for all examples and channels, over which no window goes.
	for axis, n := range sum.Attributes.Ints("windowDimensions") {
		if n > 1 && count.Inputs[0].Shape.Dimensions[axis] != sum.Inputs[0].Shape.Dimensions[axis] {
			return nil, nil
		}
	}
	return w.poolOf(sum, "AveragePool", false)
}

func reduceWindow(w *writer, op *trace.Op) (*placed, error) {
	switch kind := op.Attributes["reductionType"]; kind {
	case compute.ReduceOpMax:
		return w.poolOf(op, "MaxPool", false)
	case compute.ReduceOpSum:
		p, err := w.poolOf(op, "AveragePool", true)
		if err != nil {
			return nil, err
		}
		return w.times(p, float64(sizeOf(op.Attributes.Ints("windowDimensions"))))
	default:
		return nil, w.unsupported(op, "the largest or the sum of windows", fmt.Sprint(kind), nil)
	}
}

// pool is what a pool does along each axis of GoMLX.
type pool struct {
	window, strides, dilations []int
	paddings                   [][2]int
	countPadding               bool // of a mean
}

// poolOf writes a ReduceWindow.
func (w *writer) poolOf(op *trace.Op, name string, countPadding bool) (*placed, error) {
	a := op.Attributes
	k := pool{window: a.Ints("windowDimensions"), strides: a.Ints("strides"), dilations: a.Ints("windowDilations"), paddings: a.Paddings("paddings"), countPadding: countPadding}
	rank := len(k.window)
	if len(k.strides) == 0 {
		k.strides = k.window
	}
	for _, d := range a.Ints("inputDilations") {
		if d != 1 {
			return nil, w.unsupported(op, "windows over neighbours", fmt.Sprintf("input dilations %v", a.Ints("inputDilations")), nil)
		}
	}
	if len(k.dilations) == 0 {
		k.dilations = slices.Repeat([]int{1}, rank)
	}
	if name == "AveragePool" && slices.ContainsFunc(k.dilations, func(d int) bool { return d != 1 }) {
		return nil, w.unsupported(op, "means over neighbours", fmt.Sprintf("window dilations %v", k.dilations), nil)
	}
	if len(k.paddings) == 0 {
		k.paddings = make([][2]int, rank)
	}
	for axis, p := range k.paddings {
		if p[0] < 0 || p[1] < 0 || p[0] >= k.window[axis]*k.dilations[axis] && p[0] > 0 || p[1] >= k.window[axis]*k.dilations[axis] && p[1] > 0 {
			return nil, w.unsupported(op, "padding smaller than the window", fmt.Sprintf("%v for a window of %d", p, k.window[axis]), nil)
		}
	}
	p, err := w.value(op.Inputs[0])
	if err != nil {
		return nil, err
	}
	return w.pooled(op, p, name, k, w.dims(op.Outputs[0]))
}

// pooled writes a pool over some axes of a value.
func (w *writer) pooled(op *trace.Op, p *placed, name string, k pool, dims []size) (*placed, error) {
	moves := func(axis int) bool { return k.window[axis] > 1 || k.strides[axis] > 1 || k.paddings[axis] != [2]int{} }
	if !slices.ContainsFunc(identity(p.rank()), moves) {
		return p, nil
	}
	// ONNX goes over all axes but the first two.
	order := p.order
	if p.rank() < 3 || moves(order[0]) || moves(order[1]) {
		var still, moving []int
		for _, axis := range p.order {
			if moves(axis) {
				moving = append(moving, axis)
			} else {
				still = append(still, axis)
			}
		}
		if len(still) < 2 {
			return nil, w.unsupported(op, "two axes that no window goes over", fmt.Sprintf("%d of %d", len(still), p.rank()), nil)
		}
		order = append(still, moving...)
	}
	v, err := w.full(p, order)
	if err != nil {
		return nil, err
	}
	spatial := order[2:]
	attributes := []attribute{{name: "kernel_shape"}}
	var strides, dilations []int
	var paddings [][2]int
	global := true
	for i, axis := range spatial {
		attributes[0].ints = append(attributes[0].ints, int64(k.window[axis]))
		strides, dilations, paddings = append(strides, k.strides[axis]), append(dilations, k.dilations[axis]), append(paddings, k.paddings[axis])
		global = global && fixed(v.dims[2+i]) && v.dims[2+i][0] == k.window[axis] && k.paddings[axis] == [2]int{}
	}
	if global && name == "AveragePool" { // there is a GlobalMaxPool too, which the importer does not know
		name, attributes = "GlobalAveragePool", nil
	} else {
		attributes = append(attributes, windows(strides, dilations, paddings, len(spatial))...)
		if name == "AveragePool" && k.countPadding && slices.ContainsFunc(paddings, func(p [2]int) bool { return p != [2]int{} }) {
			attributes = append(attributes, attribute{name: "count_include_pad", i: 1})
		}
	}
	return place(w.node(name, []*value{v}, p.dtype, moved(dims, order), attributes...), dims, order), nil
}

// poolByReshape recognises a pool whose windows do not overlap, computed by a reshape that makes each an axis, as pkg/nets does. It returns nil if it is none.
func (w *writer) poolByReshape(op *trace.Op, name string) (*placed, error) {
	axes := op.Attributes.Ints("axes")
	split := inputOf(op.Inputs[0])
	if split.Op.Type != "Reshape" || len(axes) == 0 || !op.Outputs[0].Shape.DType.IsFloat() || w.users[op.Inputs[0]] != 1 {
		return nil, nil
	}
	x := split.Op.Inputs[0]
	before, between := w.dims(x), w.dims(split)
	rank := len(before)
	if rank < 3 || len(between)-len(axes) != rank {
		return nil, nil
	}
	k := pool{window: slices.Repeat([]int{1}, rank), strides: slices.Repeat([]int{1}, rank), dilations: slices.Repeat([]int{1}, rank), paddings: make([][2]int, rank)}
	at := 0 // the axis of x
	for axis := 0; axis < len(between); axis++ {
		if slices.Contains(axes, axis) {
			return nil, nil
		}
		whole := between[axis]
		if axis+1 < len(between) && slices.Contains(axes, axis+1) {
			if !fixed(between[axis+1]) {
				return nil, nil
			}
			k.window[at], k.strides[at] = between[axis+1][0], between[axis+1][0]
			whole = product(whole, between[axis+1])
			axis++
		}
		if at >= rank || !slices.Equal(whole, before[at]) {
			return nil, nil
		}
		at++
	}
	still := 0
	for _, n := range k.window {
		if n == 1 {
			still++
		}
	}
	if still < 2 {
		return nil, nil
	}
	p, err := w.value(x)
	if err != nil {
		return nil, err
	}
	return w.pooled(op, p, name, k, w.dims(op.Outputs[0]))
}

// argMinMax returns the place of the least or largest element along an axis.
func argMinMax(w *writer, op *trace.Op) (*placed, error) {
	p, err := w.value(op.Inputs[0])
	if err != nil {
		return nil, err
	}
	v, err := w.full(p, p.order)
	if err != nil {
		return nil, err
	}
	axis := op.Attributes.Int("axis")
	name := "ArgMax"
	if op.Attributes.Bool("isMin") {
		name = "ArgMin"
	}
	var order []int
	for _, a := range p.order {
		switch {
		case a < axis:
			order = append(order, a)
		case a > axis:
			order = append(order, a-1)
		}
	}
	dims := w.dims(op.Outputs[0])
	y := w.node(name, []*value{v}, dtypes.Int64, moved(dims, order), attribute{name: "axis", i: int64(p.position(axis))}, attribute{name: "keepdims"})
	if d := op.Outputs[0].Shape.DType; d != dtypes.Int64 {
		y = w.node("Cast", []*value{y}, d, y.dims, attribute{name: "to", i: int64(elementTypes[d])})
	}
	if order == nil {
		order = []int{}
	}
	return place(y, dims, order), nil
}

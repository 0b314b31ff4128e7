package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// affine is what a per-channel operation after a convolution or a dense layer does to its output.
type affine struct {
	scale []float64 // by output channel; nil: 1
	bias  *constant // by output channel; nil: 0
}

// vector returns a static value that differs along one axis only as [channels].
func (w *writer) vector(v *trace.Value, axis, rank int) (*constant, bool) {
	if !w.statics.is[v] && v.Op.Type != "BroadcastInDim" { // which is not static along the batch
		return nil, false
	}
	p, err := w.value(v)
	if err != nil || p.constant == nil || p.rank() != rank {
		return nil, false
	}
	for i, n := range p.constant.dims {
		if i != axis && n != 1 {
			return nil, false
		}
	}
	channels := p.dims[axis]
	if !fixed(channels) {
		return nil, false
	}
	return p.constant.reshape([]int{p.constant.dims[axis]}).expand([]int{channels[0]}), true
}

// add is Add, which may be the last operation of a batch normalisation, the bias of a convolution or that of a dense layer.
func add(w *writer, op *trace.Op) (*placed, error) {
	if b, ok := w.decomposed(op); ok {
		return w.normalised(b, op)
	}
	for i, in := range op.Inputs {
		x, bias := inputOf(in), op.Inputs[1-i]
		if w.users[in] != 1 || w.users[x] != 1 || !x.Shape.Equal(op.Outputs[0].Shape) {
			continue
		}
		switch x.Op.Type {
		case "ConvGeneral":
			axis := x.Op.Attributes.ConvolveAxes("axes").OutputChannels
			if c, ok := w.vector(bias, axis, x.Shape.Rank()); ok {
				return w.convolve(x.Op, affine{bias: c})
			}
		case "DotGeneral":
			if c, ok := w.vector(bias, 1, 2); ok && x.Shape.Rank() == 2 {
				if p, err := w.gemm(x.Op, c); p != nil || err != nil {
					return p, err
				}
			}
		}
	}
	return binaryOp(w, op)
}

func convolution(w *writer, op *trace.Op) (*placed, error) { return w.convolve(op, affine{}) }

// convolve writes a convolution, with what follows on it per channel.
func (w *writer) convolve(op *trace.Op, after affine) (*placed, error) {
	a := op.Attributes
	axes := a.ConvolveAxes("axes")
	if a.Int("batchGroupCount") > 1 {
		return nil, w.unsupported(op, "a convolution", "one with groups of the batch", nil)
	}
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(a.Ints("inputDilations"), func(d int) bool { return d != 1 }) {
		return w.transposed(op, all[0], all[1], after)
	}
	x, err := w.full(all[0], append([]int{axes.InputBatch, axes.InputChannels}, axes.InputSpatial...))
	if err != nil {
		return nil, err
	}
	kernel := all[1]
	order := append([]int{axes.KernelOutputChannels, axes.KernelInputChannels}, axes.KernelSpatial...)
	if after.scale != nil {
		c := kernel.constant.permute(order).expand(first(moved(kernel.dims, order))) // it may be repeated along an axis
		numbers, ok := c.float64s()
		if !ok {
			return nil, w.unsupported(op, "weights of float32 or float64", c.dtype.String(), nil)
		}
		each := len(numbers) / len(after.scale)
		for i := range numbers {
			numbers[i] *= after.scale[i/each]
		}
		kernel = w.placeConstant(c.with(numbers))
		order = identity(kernel.rank())
	}
	k, err := w.full(kernel, order)
	if err != nil {
		return nil, err
	}
	inputs := []*value{x, k}
	if after.bias != nil {
		inputs = append(inputs, w.initializer(after.bias, []int{0}))
	}
	spatial := len(axes.InputSpatial)
	attributes := []attribute{{name: "kernel_shape", ints: make([]int64, spatial)}}
	for i := range spatial {
		attributes[0].ints[i] = int64(k.dims[2+i][0])
	}
	attributes = append(attributes, windows(a.Ints("strides"), a.Ints("kernelDilations"), a.Paddings("paddings"), spatial)...)
	for _, p := range a.Paddings("paddings") {
		if p[0] < 0 || p[1] < 0 {
			return nil, w.unsupported(op, "padding of 0 or more", fmt.Sprint(p), nil)
		}
	}
	if g := a.Int("channelGroupCount"); g > 1 {
		attributes = append(attributes, attribute{name: "group", i: int64(g)})
	}
	dims := w.dims(op.Outputs[0])
	out := append([]int{axes.OutputBatch, axes.OutputChannels}, axes.OutputSpatial...)
	return place(w.node("Conv", inputs, op.Outputs[0].Shape.DType, moved(dims, out), attributes...), dims, out), nil
}

// transposed writes a convolution over an input with gaps between its elements as ConvTranspose: what GoMLX pads, that crops, its kernel is mirrored, and has the input channels first.
func (w *writer) transposed(op *trace.Op, x, kernel *placed, after affine) (*placed, error) {
	a := op.Attributes
	axes := a.ConvolveAxes("axes")
	if slices.ContainsFunc(a.Ints("strides"), func(s int) bool { return s != 1 }) || kernel.constant == nil || kernel.anyRepeats() || after.scale != nil {
		return nil, w.unsupported(op, "a transposed convolution with steps of 1 and a kernel of variables", fmt.Sprintf("strides %v", a.Ints("strides")), nil)
	}
	groups := max(1, a.Int("channelGroupCount"))
	c := kernel.constant.permute(append([]int{axes.KernelOutputChannels, axes.KernelInputChannels}, axes.KernelSpatial...))
	spatial := len(axes.KernelSpatial)
	size := c.dims[2:]
	apart := slices.Concat([]int{groups, c.dims[0] / groups, c.dims[1]}, size)
	order := append([]int{0, 2, 1}, others(len(apart), []int{0, 1, 2})...)
	k := c.reshape(apart).permute(order).reshape(slices.Concat([]int{groups * c.dims[1], c.dims[0] / groups}, size)).mirror(2)
	in, err := w.full(x, append([]int{axes.InputBatch, axes.InputChannels}, axes.InputSpatial...))
	if err != nil {
		return nil, err
	}
	inputs := []*value{in, w.initializer(k, identity(len(k.dims)))}
	if after.bias != nil {
		inputs = append(inputs, w.initializer(after.bias, []int{0}))
	}
	attributes := []attribute{{name: "kernel_shape"}}
	crop := make([][2]int, spatial)
	for i, n := range size {
		attributes[0].ints = append(attributes[0].ints, int64(n))
		reach := n - 1
		if d := a.Ints("kernelDilations"); len(d) > 0 {
			reach *= d[i]
		}
		crop[i] = [2]int{reach, reach}
		if p := a.Paddings("paddings"); len(p) > 0 {
			crop[i][0], crop[i][1] = reach-p[i][0], reach-p[i][1]
		}
		if crop[i][0] < 0 || crop[i][1] < 0 {
			return nil, w.unsupported(op, "padding that is no larger than the kernel's reach", fmt.Sprint(a.Paddings("paddings")), nil)
		}
	}
	attributes = append(attributes, windows(a.Ints("inputDilations"), a.Ints("kernelDilations"), crop, spatial)...)
	if groups > 1 {
		attributes = append(attributes, attribute{name: "group", i: int64(groups)})
	}
	dims := w.dims(op.Outputs[0])
	out := append([]int{axes.OutputBatch, axes.OutputChannels}, axes.OutputSpatial...)
	return place(w.node("ConvTranspose", inputs, op.Outputs[0].Shape.DType, moved(dims, out), attributes...), dims, out), nil
}

// windows are the attributes of what moves over spatial axes; those that say what is so without them are left out.
func windows(strides, dilations []int, paddings [][2]int, spatial int) []attribute {
	var all []attribute
	list := func(name string, values []int, usual int) {
		if len(values) == spatial && slices.ContainsFunc(values, func(v int) bool { return v != usual }) {
			a := attribute{name: name}
			for _, v := range values {
				a.ints = append(a.ints, int64(v))
			}
			all = append(all, a)
		}
	}
	list("strides", strides, 1)
	list("dilations", dilations, 1)
	pads := make([]int, 2*spatial)
	for i, p := range paddings {
		pads[i], pads[spatial+i] = p[0], p[1]
	}
	if len(paddings) == spatial && slices.ContainsFunc(pads, func(v int) bool { return v != 0 }) {
		a := attribute{name: "pads"}
		for _, v := range pads {
			a.ints = append(a.ints, int64(v))
		}
		all = append(all, a)
	}
	return all
}

// normalisation is a batch normalisation.
type normalisation struct {
	x                             *trace.Value
	axis                          int // of the channels
	scale, offset, mean, variance *constant
	epsilon                       float64
}

func batchNorm(w *writer, op *trace.Op) (*placed, error) {
	b := normalisation{x: op.Inputs[0], axis: op.Attributes.Int("featureAxis"), epsilon: float64(op.Attributes.Float32("epsilon"))}
	for i, to := range []**constant{&b.scale, &b.offset, &b.mean, &b.variance} {
		c, ok := w.vector(op.Inputs[1+i], 0, 1)
		if !ok {
			return nil, w.unsupported(op, "statistics and scales that are variables", "some that are computed from the input", nil)
		}
		*to = c
	}
	return w.normalised(b, op)
}

// decomposed recognises a batch normalisation that is computed step by step, as the importer of ONNX does: (x − mean) / sqrt(variance + epsilon) · scale + offset.
func (w *writer) decomposed(op *trace.Op) (normalisation, bool) {
	var b normalisation
	rank := op.Outputs[0].Shape.Rank()
	if rank < 2 || op.Type != "Add" {
		return b, false
	}
	mul := op.Inputs[0].Op
	if mul.Type != "Mul" || w.users[mul.Outputs[0]] != 1 {
		return b, false
	}
	div := mul.Inputs[0].Op
	if div.Type != "Div" || w.users[div.Outputs[0]] != 1 {
		return b, false
	}
	sub, root := div.Inputs[0].Op, div.Inputs[1].Op
	if sub.Type != "Sub" || w.users[sub.Outputs[0]] != 1 || root.Type != "Sqrt" || root.Inputs[0].Op.Type != "Add" {
		return b, false
	}
	b.x = sub.Inputs[0]
	if w.statics.is[b.x] || !b.x.Shape.Equal(op.Outputs[0].Shape) {
		return b, false
	}
	sum := root.Inputs[0].Op
	variance, epsilon, ok := w.pair(sum)
	if !ok {
		return b, false
	}
	b.epsilon, b.axis = epsilon, 1 // where ONNX has the channels
	variable := func(v *trace.Value) (*constant, bool) {
		for from := v; ; from = from.Op.Inputs[0] {
			if from.Op.Type == "Parameter" {
				break
			}
			if from.Op.Type != "Reshape" && from.Op.Type != "Identity" {
				return nil, false
			}
		}
		if err := w.read(v); err != nil {
			return nil, false
		}
		return w.vector(v, b.axis, rank)
	}
	for from, to := range map[*trace.Value]**constant{mul.Inputs[1]: &b.scale, op.Inputs[1]: &b.offset, sub.Inputs[1]: &b.mean, variance: &b.variance} {
		if *to, ok = variable(from); !ok {
			return b, false
		}
	}
	return b, true
}

// normalised writes a batch normalisation: as part of the convolution before it, as ONNX's, or where the channels do not lie as those ask for, as a product and a sum.
func (w *writer) normalised(b normalisation, op *trace.Op) (*placed, error) {
	scale, ok1 := b.scale.float64s()
	offset, ok2 := b.offset.float64s()
	mean, ok3 := b.mean.float64s()
	variance, ok4 := b.variance.float64s()
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, w.unsupported(op, "statistics of float32 or float64", b.scale.dtype.String(), nil)
	}
	factor, rest := make([]float64, len(scale)), make([]float64, len(scale)) // x·factor + rest
	for i := range scale {
		factor[i] = scale[i] / math.Sqrt(variance[i]+b.epsilon)
		rest[i] = offset[i] - mean[i]*factor[i]
	}
	if w.cfg.FoldBatchNorm {
		x := inputOf(b.x)
		conv, bias := x.Op, []float64(nil)
		if conv.Type == "Add" && w.users[x] == 1 {
			for i, in := range conv.Inputs {
				from := inputOf(in)
				if from.Op.Type != "ConvGeneral" || w.users[from] != 1 || w.users[in] != 1 || !from.Shape.Equal(x.Shape) {
					continue
				}
				if c, ok := w.vector(conv.Inputs[1-i], b.axis, x.Shape.Rank()); ok {
					bias, _ = c.float64s()
					conv = from.Op
					break
				}
			}
		}
		if conv.Type == "ConvGeneral" && w.users[conv.Outputs[0]] == 1 && w.users[b.x] == 1 && w.statics.is[conv.Inputs[1]] &&
			conv.Attributes.ConvolveAxes("axes").OutputChannels == b.axis && !slices.ContainsFunc(conv.Attributes.Ints("inputDilations"), func(d int) bool { return d != 1 }) {
			for i := range bias {
				rest[i] += bias[i] * factor[i]
			}
			return w.convolve(conv, affine{scale: factor, bias: b.offset.with(rest)})
		}
	}
	p, err := w.value(b.x)
	if err != nil {
		return nil, err
	}
	if p.position(b.axis) == 1 {
		x, err := w.full(p, p.order)
		if err != nil {
			return nil, err
		}
		inputs := []*value{x}
		for _, c := range []*constant{b.scale, b.offset, b.mean, b.variance} {
			inputs = append(inputs, w.initializer(c, []int{0}))
		}
		return place(w.node("BatchNormalization", inputs, p.dtype, x.dims, attribute{name: "epsilon", isFloat: true, f: float32(b.epsilon)}), p.dims, p.order), nil
	}
	form := make([]int, p.rank())
	for i := range form {
		form[i] = 1
	}
	form[b.axis] = len(scale)
	y, err := w.elementwise("Mul", p.dtype, p.dims, []*placed{p, w.placeConstant(b.scale.with(factor).reshape(form))})
	if err != nil {
		return nil, err
	}
	return w.elementwise("Add", p.dtype, p.dims, []*placed{y, w.placeConstant(b.offset.with(rest).reshape(form))})
}

// dot is DotGeneral: Gemm for matrices, MatMul for others.
func dot(w *writer, op *trace.Op) (*placed, error) {
	if p, err := w.gemm(op, nil); p != nil || err != nil {
		return p, err
	}
	a := op.Attributes
	all, err := w.operands(op)
	if err != nil {
		return nil, err
	}
	l, r := all[0], all[1]
	lb, rb, lc, rc := a.Ints("lhsBatchAxes"), a.Ints("rhsBatchAxes"), a.Ints("lhsContractingAxes"), a.Ints("rhsContractingAxes")
	lx, rx := others(l.rank(), lb, lc), others(r.rank(), rb, rc)
	dims, d := w.dims(op.Outputs[0]), op.Outputs[0].Shape.DType // [batch…, of the first…, of the second…]
	if l.dtype != d || r.dtype != d {
		return nil, w.unsupported(op, "operands and products of one type", fmt.Sprintf("%s and %s to %s", l.dtype, r.dtype, d), nil)
	}
	batch := moved(l.dims, lb)
	left, err := w.full(l, slices.Concat(lb, lx, lc))
	if err != nil {
		return nil, err
	}
	right, err := w.full(r, slices.Concat(rb, rc, rx))
	if err != nil {
		return nil, err
	}
	if len(lb) == 0 && len(lc) == 1 && len(lx) >= 1 && len(rx) == 1 { // MatMul takes any number of axes in front
		return place(w.node("MatMul", []*value{left, right}, d, dims), dims, identity(len(dims))), nil
	}
	nothing := slices.Repeat(size{1}, len(w.traces))
	joined := func(dims []size) size { return product(append([]size{nothing}, dims...)...) }
	m, k, n := joined(moved(l.dims, lx)), joined(moved(l.dims, lc)), joined(moved(r.dims, rx))
	if left, err = w.reshape(left, slices.Concat(batch, []size{m, k})); err != nil {
		return nil, err
	}
	if right, err = w.reshape(right, slices.Concat(batch, []size{k, n})); err != nil {
		return nil, err
	}
	y := w.node("MatMul", []*value{left, right}, d, slices.Concat(batch, []size{m, n}))
	if y, err = w.reshape(y, dims); err != nil {
		return nil, err
	}
	return place(y, dims, identity(len(dims))), nil
}

// others are the axes that are in none of the lists.
func others(rank int, lists ...[]int) []int {
	var rest []int
	for axis := range rank {
		if !slices.ContainsFunc(lists, func(l []int) bool { return slices.Contains(l, axis) }) {
			rest = append(rest, axis)
		}
	}
	return rest
}

// gemm writes a product of two matrices, with a bias [columns] or nil. It returns nil if it is none.
func (w *writer) gemm(op *trace.Op, bias *constant) (*placed, error) {
	a := op.Attributes
	lc, rc := a.Ints("lhsContractingAxes"), a.Ints("rhsContractingAxes")
	if op.Inputs[0].Shape.Rank() != 2 || op.Inputs[1].Shape.Rank() != 2 || len(lc) != 1 || len(rc) != 1 || len(a.Ints("lhsBatchAxes")) > 0 {
		return nil, nil
	}
	d := op.Outputs[0].Shape.DType
	if !slices.Contains([]dtypes.DType{dtypes.Float32, dtypes.Float64, dtypes.Float16, dtypes.BFloat16}, d) || op.Inputs[0].Shape.DType != d || op.Inputs[1].Shape.DType != d {
		return nil, nil
	}
	r, err := w.value(op.Inputs[1])
	if err != nil {
		return nil, err
	}
	left, rows, err := w.flattened(op.Inputs[0], lc[0])
	if err != nil {
		return nil, err
	}
	var attributes []attribute
	if rows != nil && r.constant != nil && !r.anyRepeats() {
		// The features lie in another order in ONNX: so do the rows of the weights.
		c := r.constant
		wide := slices.Concat(c.dims[:rc[0]], rows.dims, c.dims[rc[0]+1:])
		order := identity(len(wide))
		for i, o := range rows.order {
			order[rc[0]+i] = rc[0] + o
		}
		r = w.placeConstant(c.reshape(wide).permute(order).reshape(c.dims))
	} else {
		l, err := w.value(op.Inputs[0])
		if err != nil {
			return nil, err
		}
		order := []int{1 - lc[0], lc[0]}
		if l.constant == nil && !l.anyRepeats() && slices.Equal(l.order, []int{lc[0], 1 - lc[0]}) {
			order = l.order
			attributes = append(attributes, attribute{name: "transA", i: 1})
		}
		if left, err = w.full(l, order); err != nil {
			return nil, err
		}
	}
	order := []int{rc[0], 1 - rc[0]}
	if stored := r.order; (r.constant != nil || !r.anyRepeats()) && slices.Equal(stored, []int{1 - rc[0], rc[0]}) {
		order = stored
		attributes = append(attributes, attribute{name: "transB", i: 1})
	}
	right, err := w.full(r, order)
	if err != nil {
		return nil, err
	}
	inputs := []*value{left, right}
	if bias != nil {
		inputs = append(inputs, w.initializer(bias, []int{0}))
	}
	dims := w.dims(op.Outputs[0])
	return place(w.node("Gemm", inputs, d, dims, attributes...), dims, []int{0, 1}), nil
}

// denseOfMany recognises a dense layer over the last of several axes, for which GoMLX makes a matrix of its input and the axes of its output again: MatMul does without. It
// returns nil if the reshape is none.
func (w *writer) denseOfMany(op *trace.Op) (*placed, error) {
	y := inputOf(op.Inputs[0])
	if y.Op.Type != "DotGeneral" || y.Shape.Rank() != 2 || w.users[y] != 1 || w.users[op.Inputs[0]] != 1 {
		return nil, nil
	}
	a := y.Op.Attributes
	lc, rc := a.Ints("lhsContractingAxes"), a.Ints("rhsContractingAxes")
	matrix := inputOf(y.Op.Inputs[0])
	if len(a.Ints("lhsBatchAxes")) > 0 || !slices.Equal(lc, []int{1}) || len(rc) != 1 || y.Op.Inputs[1].Shape.Rank() != 2 || matrix.Op.Type != "Reshape" || w.statics.is[matrix] {
		return nil, nil
	}
	x := matrix.Op.Inputs[0]
	in, out := w.dims(x), w.dims(op.Outputs[0])
	last := len(in) - 1
	if last < 2 || len(out) != len(in) || !slices.EqualFunc(in[:last], out[:last], slices.Equal) || !slices.Equal(in[last], w.dims(matrix)[1]) || !slices.Equal(out[last], w.dims(y)[1]) ||
		x.Shape.DType != y.Shape.DType || y.Op.Inputs[1].Shape.DType != y.Shape.DType {
		return nil, nil
	}
	p, err := w.value(x)
	if err != nil {
		return nil, err
	}
	left, err := w.full(p, identity(len(in)))
	if err != nil {
		return nil, err
	}
	if p, err = w.value(y.Op.Inputs[1]); err != nil {
		return nil, err
	}
	right, err := w.full(p, []int{rc[0], 1 - rc[0]})
	if err != nil {
		return nil, err
	}
	return place(w.node("MatMul", []*value{left, right}, y.Shape.DType, out), out, identity(len(out))), nil
}

// features says how the features of a value that was flattened lie in ONNX.
type features struct {
	dims  []int // of the axes that were flattened, as in GoMLX
	order []int // and the order in which they lie
}

// flattened returns a matrix that is the reshape of something whose axes lie in another order in ONNX, as they lie there, so that they need not be moved: [rows, features]. The
// features are nil if it is none.
func (w *writer) flattened(v *trace.Value, axis int) (*value, *features, error) {
	v = inputOf(v)
	if v.Op.Type != "Reshape" || axis != 1 || w.statics.is[v] {
		return nil, nil, nil
	}
	p, err := w.value(v.Op.Inputs[0])
	if err != nil {
		return nil, nil, err
	}
	if p.constant != nil || p.anyRepeats() {
		return nil, nil, nil
	}
	dims := w.dims(v)
	all := blocks(p.dims, dims)
	if len(all) == 0 {
		return nil, nil, nil
	}
	b := all[len(all)-1]
	if !slices.Equal(b.out, []int{1}) || len(all) > 2 {
		return nil, nil, nil
	}
	var stored []int // axes that something lies along, as they lie in ONNX
	for _, axis := range p.order {
		if !one(p.dims[axis]) {
			stored = append(stored, axis)
		}
	}
	split := len(stored) - len(b.in)
	if split < 0 || !slices.Equal(stored[:split], slices.Concat(inOf(all[:len(all)-1])...)) {
		return nil, nil, nil
	}
	if tail := stored[split:]; slices.Equal(tail, b.in) || !slices.Equal(slices.Sorted(slices.Values(tail)), b.in) {
		return nil, nil, nil // as it is to be, or mixed
	}
	f := &features{}
	for _, axis := range b.in {
		if !fixed(p.dims[axis]) {
			return nil, nil, nil
		}
		f.dims = append(f.dims, p.dims[axis][0])
	}
	for _, axis := range stored[split:] {
		f.order = append(f.order, slices.Index(b.in, axis))
	}
	left, err := w.reshape(p.at, dims)
	return left, f, err
}

func inOf(all []block) [][]int {
	var in [][]int
	for _, b := range all {
		in = append(in, b.in)
	}
	return in
}

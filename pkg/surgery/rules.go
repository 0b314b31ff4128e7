package surgery

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// info is what the analysis knows of a value.
type info struct {
	axes []axis
	// variable is the path of the variable that the value is made of alone, if it is: by masks, changes of shape or type, and the like.
	variable string
	// data says that the value depends on the network's inputs.
	data bool
}

// analysis labels the values of traces. Traces of one network share their variables, and so what goes together in one goes together in all.
type analysis struct {
	*labels
	values    map[*trace.Value]*info
	variables map[string]*info
	order     []string // the variables' paths, in the order in which the network first reads them
	shapes    map[string][]int
	uses      []use
	pinned    []*trace.Op        // operations without a rule
	phase     int                // how many traces are done
	zeros     map[*trace.Op]bool // of constants: whether they are zero throughout
}

// use is what a product, a normalisation or a sum does along an axis.
type use struct {
	kind     useKind
	variable string // of the kernel; "" for joins
	axis     axis
	op       *trace.Op
	phase    int // in the how-manieth trace
}

// phases are those that a network is recorded in, inference and training. What is traced after them is the same for another batch size.
const phases = 2

type useKind int

const (
	makes  useKind = iota // a kernel's outputs
	reads                 // a kernel's inputs
	scales                // a variable's factors for each index
	joins                 // two values that both depend on data, which had nothing to do with each other before
)

func newAnalysis() *analysis {
	return &analysis{labels: newLabels(), values: map[*trace.Value]*info{}, variables: map[string]*info{}, shapes: map[string][]int{}, zeros: map[*trace.Op]bool{}}
}

// trace labels all values of a trace.
func (a *analysis) trace(t *trace.Trace, also []update) {
	for _, op := range t.Ops {
		a.op(op)
	}
	for _, n := range t.Outputs {
		why := a.because(nil, "it is what the network returns")
		for _, ax := range a.of(trace.Of(n)[0]).axes {
			a.pinAxis(ax, why)
		}
	}
	for _, u := range also {
		value := trace.Of(u.node)[0]
		v, written := a.variables[u.path], a.of(value)
		if v == nil { // it is written and never read
			a.variable(u.path, written, value.Shape.Dimensions)
			continue
		}
		why := a.because(value.Op, "the network writes it to "+u.path)
		for k, ax := range written.axes {
			a.unifyAxes(v.axes[k], ax, why)
		}
	}
	a.phase++
}

// variable notes the labels of a variable.
func (a *analysis) variable(path string, x *info, dims []int) {
	a.variables[path], a.shapes[path] = x, dims
	a.order = append(a.order, path)
}

func (a *analysis) of(v *trace.Value) *info { return a.values[v] }

// op labels what an operation computes.
func (a *analysis) op(op *trace.Op) {
	out := op.Outputs[0]
	result := &info{axes: make([]axis, out.Shape.Rank())}
	for _, in := range op.Inputs {
		if x := a.of(in); x != nil {
			result.data = result.data || x.data
		}
	}
	result.variable = a.source(op)
	r := rule{a, op, result, out.Shape.Dimensions}
	apply, found := rules[op.Type]
	switch {
	case dynamic(op):
		apply = rule.unknown
	case strings.HasPrefix(op.Type, "Reduce") && op.Type != "ReduceWindow":
		apply = rule.reduce
	case elementwise[op.Type]:
		apply = rule.elementwise
	case !found:
		apply = rule.unknown
	}
	apply(r)
	for k, n := range r.dims {
		if x := result.axes[k]; x.n != n {
			panic(fmt.Errorf("surgery: the rule for %s labels %d indices of axis %d of %s", op.Type, x.n, k, out.Shape))
		}
	}
	a.values[out] = result
}

// source returns the path of the variable that all inputs are made of that are made of any; "" if there are several, or data.
func (a *analysis) source(op *trace.Op) string {
	path := ""
	for _, in := range op.Inputs {
		x := a.of(in)
		switch {
		case x == nil || x.data:
			return ""
		case x.variable == "" || x.variable == path:
		case path != "":
			return ""
		default:
			path = x.variable
		}
	}
	return path
}

func dynamic(op *trace.Op) bool {
	for _, out := range op.Outputs {
		if slices.ContainsFunc(out.Shape.Dimensions, func(d int) bool { return d < 0 }) {
			return true
		}
	}
	return false
}

// rule labels the outputs of one operation.
type rule struct {
	*analysis
	op   *trace.Op
	out  *info
	dims []int // of the first output
}

func (r rule) in(i int) *info { return r.of(r.op.Inputs[i]) }

func (r rule) why(text string) reasonID { return r.because(r.op, text) }

// stay labels an axis of the output whose indices all stay.
func (r rule) stay(k int, why reasonID) { r.out.axes[k] = axis{n: r.dims[k], why: why} }

var rules = map[string]func(rule){
	"Parameter": rule.parameter, "Constant": rule.constant, "Iota": rule.iota, "RNGBitGenerator": rule.random, "Reshape": rule.reshape,
	"BroadcastInDim": rule.broadcast, "Transpose": rule.transpose, "Reverse": rule.reverse, "Slice": rule.slice, "Pad": rule.pad, "Concatenate": rule.concatenate,
	"DotGeneral": rule.dot, "ConvGeneral": rule.convolution, "ReduceWindow": rule.window, "BatchNormForInference": rule.batchNorm,
	"BatchNormForTraining": rule.batchNorm, "Gather": rule.gather, "ArgMinMax": rule.argMinMax, "OptimizationBarrier": rule.barrier,
	"SchedulingBarrier": rule.pass, "Bitcast": rule.bitcast,
}

// elementwise operations compute each element from those at the same place.
var elementwise = words(`Abs Add Atan2 BitCount BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Clamp Clz Complex Conj ConvertDType Cos Div Equal
	EqualTotalOrder Erf Exp Expm1 Floor GreaterOrEqual GreaterOrEqualTotalOrder GreaterThan GreaterThanTotalOrder Identity Imag IsFinite IsNaN LessOrEqual
	LessOrEqualTotalOrder LessThan LessThanTotalOrder Log Log1p LogicalAnd LogicalNot LogicalOr LogicalXor Logistic Max Min Mul Neg NotEqual NotEqualTotalOrder Pow Real Rem
	Round Rsqrt ShiftLeft ShiftRightArithmetic ShiftRightLogical Sign Sin Sqrt Sub Tanh Where`)

// These make zero where all of their operands are, or any, or the first.
var (
	zeroOfAll = words(`Abs Add BitwiseOr BitwiseXor Ceil Clamp Complex Conj ConvertDType Erf Expm1 Floor Identity Imag Log1p LogicalOr LogicalXor Max Min Neg NotEqual Real Round
		Sign Sin Sqrt Sub Tanh Where`)
	zeroOfAny   = words(`Mul BitwiseAnd LogicalAnd`)
	zeroOfFirst = words(`Div Rem ShiftLeft ShiftRightArithmetic ShiftRightLogical`)
)

// infinite are those that may be infinite, or no number, where their last operand is zero.
var infinite = words(`Div Log Rem Rsqrt`)

func words(text string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(text) {
		m[w] = true
	}
	return m
}

func (r rule) parameter() {
	path := r.op.Outputs[0].Variable()
	if path == "" {
		for k := range r.dims {
			r.stay(k, r.why("it is an input of the network"))
		}
		r.out.data = true
		return
	}
	r.out.variable = path
	if v := r.variables[path]; v != nil {
		r.out.axes = v.axes
		return
	}
	for k, n := range r.dims {
		r.out.axes[k] = r.freshAxis(n, r.because(nil, "it has one index only"))
		r.out.axes[k].zero = true
	}
	r.variable(path, r.out, r.dims)
}

// A constant may be cut like a variable.
func (r rule) constant() {
	for k, n := range r.dims {
		r.out.axes[k] = r.freshAxis(n, r.why("it is a constant of one index"))
		r.out.axes[k].zero = r.isZero(r.op.Outputs[0])
	}
}

// Iota is built at its old size, and what stays is gathered: its values do not change.
func (r rule) iota() {
	for k, n := range r.dims {
		r.out.axes[k] = r.freshAxis(n, r.why("it is a range of one index"))
	}
}

// Random numbers are drawn at the old size, and those that stay are gathered: they are those of the masked network.
func (r rule) random() {
	state := r.why("it is the state of the random numbers")
	for _, x := range r.in(0).axes {
		r.pinAxis(x, state)
	}
	for k := range r.dims {
		r.stay(k, state)
	}
	drawn := r.op.Outputs[1]
	values := &info{}
	for _, n := range drawn.Shape.Dimensions {
		values.axes = append(values.axes, r.freshAxis(n, r.why("it is one random number")))
	}
	r.values[drawn] = values
}

func (r rule) reshape() {
	r.out.axes = r.labels.reshape(r.in(0).axes, r.dims, r.why("it takes the axes apart in a way that no set of channels survives"))
}

func (r rule) broadcast() {
	for k, n := range r.dims {
		r.out.axes[k] = r.freshAxis(n, r.why("it is a new axis of one index"))
		r.out.axes[k].zero = r.isZero(r.op.Inputs[0])
	}
	for i, k := range r.op.Attributes.Ints("broadcastAxes") {
		if x := r.in(0).axes[i]; x.n == r.dims[k] && x.n > 1 {
			r.out.axes[k] = x
		}
	}
}

// isZero tells whether a value is 0 everywhere, as a constant is or what was made of one.
func (r rule) isZero(v *trace.Value) bool {
	switch op := v.Op; op.Type {
	case "Constant":
		zero, known := r.zeros[op]
		if !known {
			zero = allZero(op.Attributes["flat"])
			r.zeros[op] = zero
		}
		return zero
	case "BroadcastInDim", "Reshape", "ConvertDType", "Transpose", "Identity":
		return r.isZero(op.Inputs[0])
	}
	return false
}

func (r rule) transpose() {
	for k, from := range r.op.Attributes.Ints("permutation") {
		r.out.axes[k] = r.in(0).axes[from]
	}
}

func (r rule) reverse() {
	copy(r.out.axes, r.in(0).axes)
	for _, k := range r.op.Attributes.Ints("axes") {
		x := &r.out.axes[k]
		x.sets = slices.Clone(x.sets)
		slices.Reverse(x.sets)
	}
}

func (r rule) slice() {
	starts, limits, strides := r.op.Attributes.Ints("starts"), r.op.Attributes.Ints("limits"), r.op.Attributes.Ints("strides")
	for k, n := range r.dims {
		x := r.in(0).axes[k]
		switch {
		case n == x.n:
			r.out.axes[k] = x
			continue
		case strides != nil && strides[k] != 1 && n > 1:
			r.pinAxis(x, r.why("it takes every second index, or fewer"))
			r.stay(k, r.why("it takes every second index, or fewer"))
			continue
		case n == 1: // the only index left can't go
			r.stay(k, r.why("it takes one index alone"))
			if x.sets != nil {
				r.pin(x.sets[starts[k]], r.why("it takes one index alone"))
			}
			continue
		}
		r.out.axes[k] = axis{n: n, why: x.why, zero: x.zero, wild: x.wild}
		if x.sets != nil {
			r.out.axes[k].sets = x.sets[starts[k]:limits[k]]
		}
	}
}

func (r rule) pad() {
	config := r.op.Attributes.PadAxes("axesConfig")
	for k := range r.dims {
		var p compute.PadAxis
		if k < len(config) {
			p = config[k]
		}
		x := r.in(0).axes[k]
		switch {
		case p == compute.PadAxis{}:
			r.out.axes[k] = x
		case p.Interior == 0 && p.Start >= 0 && p.End >= 0: // the padding is cut with what is added to it
			sets := r.freshSets(r.dims[k])
			if x.sets != nil {
				copy(sets[p.Start:], x.sets)
			} else {
				clear(sets[p.Start : p.Start+x.n])
			}
			r.out.axes[k] = axis{n: r.dims[k], sets: sets, zero: x.zero || x.sets == nil, wild: x.wild}
		default:
			why := r.why("it pads between indices, or cuts")
			r.pinAxis(x, why)
			r.stay(k, why)
		}
	}
	if !r.isZero(r.op.Inputs[1]) {
		for k := range r.out.axes {
			r.out.axes[k].zero = false
		}
	}
}

func (r rule) concatenate() {
	along := r.op.Attributes.Int("axis")
	var sets []set
	joined := axis{n: r.dims[along], zero: true}
	some := false
	for i := range r.op.Inputs {
		for k, x := range r.in(i).axes {
			switch {
			case k == along && x.sets == nil:
				sets = append(sets, make([]set, x.n)...)
				joined.why = x.why
			case k == along:
				sets, some = append(sets, x.sets...), true
				joined.zero, joined.wild = joined.zero && x.zero, max(joined.wild, x.wild)
			case i == 0:
				r.out.axes[k] = x
			default:
				r.join(r.in(0), r.in(i), r.out.axes[k], x, "it joins values along another axis")
				r.out.axes[k].zero, r.out.axes[k].wild = r.out.axes[k].zero && x.zero, max(r.out.axes[k].wild, x.wild)
			}
		}
	}
	if some {
		joined.sets = sets
	}
	r.out.axes[along] = joined
}

// join makes axes of two values go together, and remembers it where both depend on data and had other labels.
func (r rule) join(p, q *info, x, y axis, text string) {
	if p.data && q.data && !r.same(x, y) {
		r.use(joins, "", x)
	}
	r.unifyAxes(x, y, r.why(text))
}

// contract makes an axis that two values are summed over go together. One of the two has to be zero at what is removed, or the sum would change.
func (r rule) contract(p, q *info, x, y axis) {
	r.join(p, q, x, y, "it multiplies along it")
	if why := r.inSum(x.zero || y.zero, max(x.wild, y.wild)); why != 0 {
		r.pinAxis(x, why)
		r.pinAxis(y, why)
	}
}

// inSum returns why an axis that is summed over stays; 0 if it need not.
func (r rule) inSum(zero bool, wild reasonID) reasonID {
	switch {
	case wild != 0:
		return wild
	case !zero:
		return r.why(notZero)
	}
	return 0
}

const notZero = "it sums over it, and what is removed would not be zero in the sum"

func (r rule) dot() {
	x, y := r.in(0), r.in(1)
	at := r.op.Attributes
	lc, lb := at.Ints("lhsContractingAxes"), at.Ints("lhsBatchAxes")
	rc, rb := at.Ints("rhsContractingAxes"), at.Ints("rhsBatchAxes")
	for i := range lc {
		r.contract(x, y, x.axes[lc[i]], y.axes[rc[i]])
	}
	axes := r.out.axes[:0]
	for i := range lb {
		batch := x.axes[lb[i]]
		r.join(x, y, batch, y.axes[rb[i]], "it multiplies along it")
		batch.wild = max(batch.wild, y.axes[rb[i]].wild)
		batch.zero = (batch.zero || y.axes[rb[i]].zero) && batch.wild == 0
		axes = append(axes, batch)
	}
	for _, side := range []struct {
		x, other        *info
		contract, batch []int
	}{{x, y, lc, lb}, {y, x, rc, rb}} {
		for k, ax := range side.x.axes {
			contracted := slices.Contains(side.contract, k)
			if !contracted && !slices.Contains(side.batch, k) {
				axes = append(axes, ax)
			}
			switch {
			case side.x.variable == "" || !side.other.data:
			case contracted:
				r.use(reads, side.x.variable, ax)
			default:
				r.use(makes, side.x.variable, ax)
			}
		}
	}
}

func (r rule) use(kind useKind, variable string, x axis) {
	if x.sets != nil {
		r.uses = append(r.uses, use{kind, variable, x, r.op, r.phase})
	}
}

func (r rule) convolution() {
	c, groups := r.op.Attributes.ConvolveAxes("axes"), r.op.Attributes.Int("channelGroupCount")
	x, w := r.in(0), r.in(1)
	if r.op.Attributes.Int("batchGroupCount") > 1 {
		r.unknown()
		return
	}
	why := r.why("the kernel moves along it")
	for i := range c.InputSpatial {
		r.pinAxis(x.axes[c.InputSpatial[i]], why)
		r.pinAxis(w.axes[c.KernelSpatial[i]], why)
		r.stay(c.OutputSpatial[i], why)
	}
	in, kernelIn, out := x.axes[c.InputChannels], w.axes[c.KernelInputChannels], w.axes[c.KernelOutputChannels]
	r.out.axes[c.OutputBatch], r.out.axes[c.OutputChannels] = x.axes[c.InputBatch], out
	if groups <= 1 {
		r.contract(x, w, in, kernelIn)
	} else {
		r.grouped(groups, in, kernelIn, out)
	}
	if x.data && w.variable != "" {
		r.use(makes, w.variable, out)
		r.use(reads, w.variable, kernelIn)
	}
}

// grouped pairs the channels of a convolution in groups. Input channel k of group i goes with group i and position k, output channel j of group i with group i and position j,
// so that whole groups can go, and the same positions of all of them. In a depthwise convolution a group is a channel.
func (r rule) grouped(groups int, in, kernelIn, out axis) {
	perIn, perOut := in.n/groups, out.n/groups
	why := r.why("its groups have equal sizes")
	group, position := r.freshAxis(groups, why), r.freshAxis(perOut, why)
	at := func(a axis, i int) set {
		if a.sets == nil {
			return stays
		}
		return a.sets[i]
	}
	for i := range groups {
		for k := range perIn {
			r.unify(at(in, i*perIn+k), r.union(at(group, i), at(kernelIn, k)), why)
		}
		for j := range perOut {
			r.unify(at(out, i*perOut+j), r.union(at(group, i), at(position, j)), why)
		}
	}
	if why := r.inSum(in.zero || kernelIn.zero, max(in.wild, kernelIn.wild)); why != 0 {
		r.pinAxis(in, why)
		r.pinAxis(kernelIn, why)
	}
}

func (r rule) window() {
	at := r.op.Attributes
	size, strides, paddings, inner := at.Ints("windowDimensions"), at.Ints("strides"), at.Paddings("paddings"), at.Ints("inputDilations")
	for k := range r.dims {
		if size[k] == 1 && (strides == nil || strides[k] == 1) && (paddings == nil || paddings[k] == [2]int{}) && (inner == nil || inner[k] <= 1) {
			r.out.axes[k] = r.in(0).axes[k]
			continue
		}
		why := r.why("a window moves along it")
		r.pinAxis(r.in(0).axes[k], why)
		r.stay(k, why)
	}
	if paddings != nil && r.op.Attributes["reductionType"] != compute.ReduceOpSum {
		for k := range r.out.axes { // padding is not zero for others than sums
			r.out.axes[k].zero = false
		}
	}
}

func (r rule) batchNorm() {
	feature := r.op.Attributes.Int("featureAxis")
	x := r.in(0)
	why := r.why("it normalises each channel with values of its own")
	for i := 1; i < len(r.op.Inputs); i++ {
		r.unifyAxes(x.axes[feature], r.in(i).axes[0], why)
		if path := r.in(i).variable; i == 1 && path != "" {
			r.use(scales, path, r.in(i).axes[0])
		}
	}
	for k, ax := range x.axes {
		ax.zero = k == feature && ax.wild == 0 && r.in(1).axes[0].zero && r.in(2).axes[0].zero // scale and offset
		r.out.axes[k] = ax
	}
	for _, v := range r.op.Outputs[1:] {
		r.values[v] = &info{axes: []axis{x.axes[feature]}, data: r.out.data}
		r.values[v].axes[0].zero = false
	}
}

func (r rule) gather() {
	at := r.op.Attributes
	offsets, collapsed, mapped, sizes := at.Ints("offsetOutputAxes"), at.Ints("collapsedSliceAxes"), at.Ints("startIndexMap"), at.Ints("sliceSizes")
	x, indices := r.in(0), r.in(1)
	why := r.why("it looks indices up along it")
	listed := r.listed()
	whole := func(k int) bool {
		return !slices.Contains(mapped, k) && !slices.Contains(collapsed, k) && sizes[k] == x.axes[k].n
	}
	var from []int // the operand's axes that the output's offset axes come from
	for k, ax := range x.axes {
		if !whole(k) {
			if k != listed {
				r.pinAxis(ax, why)
			}
		} else if x.variable != "" && indices.data { // a table of embeddings makes what is looked up in it
			r.use(makes, x.variable, ax)
		}
		if !slices.Contains(collapsed, k) {
			from = append(from, k)
		}
	}
	var batch []axis
	for k, ax := range indices.axes {
		if k == at.Int("indexVectorAxis") {
			r.pinAxis(ax, why)
		} else {
			ax.zero = false
			batch = append(batch, ax)
		}
	}
	for k := range r.dims {
		if !slices.Contains(offsets, k) {
			r.out.axes[k], batch = batch[0], batch[1:]
			if listed >= 0 { // what is removed of the operand is read as zero, so the axes need not go together
				r.out.axes[k] = r.freshAxis(r.dims[k], why)
			}
			continue
		}
		if whole(from[0]) {
			r.out.axes[k] = x.axes[from[0]]
		} else {
			r.stay(k, why)
		}
		from = from[1:]
	}
}

// listed returns the axis along which a Gather takes indices by a constant list, of a value that comes of the inputs and is zero where it is removed; -1 if it does something else.
func (r rule) listed() int {
	k, _ := constantList(r.op)
	if k < 0 || !r.in(0).data || !r.in(0).axes[k].zero || r.in(0).axes[k].wild != 0 {
		return -1
	}
	return k
}

// constantList returns the axis along which a Gather takes single indices by a constant list, and the list; -1 for others.
func constantList(op *trace.Op) (int, []int) {
	at, list := op.Attributes, op.Inputs[1].Op
	collapsed := at.Ints("collapsedSliceAxes")
	if len(collapsed) != 1 || !slices.Equal(collapsed, at.Ints("startIndexMap")) || op.Inputs[1].Shape.Rank() != 2 || at.Int("indexVectorAxis") != 1 {
		return -1, nil
	}
	for list.Type == "Reshape" || list.Type == "ConvertDType" {
		list = list.Inputs[0].Op
	}
	if list.Type != "Constant" {
		return -1, nil
	}
	n := op.Inputs[0].Shape.Dimensions
	for k, size := range at.Ints("sliceSizes") {
		if k != collapsed[0] && size != n[k] {
			return -1, nil
		}
	}
	var indices []int
	for _, x := range toFloats(list.Attributes["flat"]) {
		i := int(x)
		if i < 0 || i >= n[collapsed[0]] { // backends differ in what they make of it
			return -1, nil
		}
		indices = append(indices, i)
	}
	return collapsed[0], indices
}

func (r rule) argMinMax() {
	axes := slices.Clone(r.in(0).axes)
	k := r.op.Attributes.Int("axis")
	r.pinAxis(axes[k], r.why("it returns positions along it"))
	copy(r.out.axes, slices.Delete(axes, k, k+1)) // of equal zeros the first is found: position 0
}

// reduce lets an axis go that is summed over, if what is removed is zero in the sum.
func (r rule) reduce() {
	over := r.op.Attributes.Ints("axes")
	kept := r.out.axes[:0]
	for k, ax := range r.in(0).axes {
		switch {
		case len(over) > 0 && !slices.Contains(over, k):
			kept = append(kept, ax)
		case r.op.Type != "ReduceSum":
			r.pinAxis(ax, r.why("it reduces over it"))
		default:
			if why := r.inSum(ax.zero, ax.wild); why != 0 {
				r.pinAxis(ax, why)
			}
		}
	}
}

// elementwise operations with an operand that has one index, or none, along an axis use it for all indices.
func (r rule) elementwise() {
	for k, n := range r.dims {
		result := axis{n: n}
		first := true
		all, some, head := true, false, false // which operands are zero at what is removed
		wild := reasonID(0)
		var from *info // of the result's labels
		for i, v := range r.op.Inputs {
			x := axis{n: 1}
			if v.Shape.Rank() > 0 {
				x = r.in(i).axes[k]
			}
			zero := r.isZero(v)
			if x.n == n && n > 1 {
				zero, wild = zero || x.zero, max(wild, x.wild)
				if first {
					result, first, from = x, false, r.in(i)
				} else {
					r.join(from, r.in(i), result, x, "it works index by index")
				}
			}
			// A condition chooses between two zeros; a zero between the bounds 0 and 6 is one.
			zero = zero || r.op.Type == "Where" && i == 0 || r.op.Type == "Clamp" && i == 2
			all, some, head = all && zero, some || zero, head || zero && i == 0
			if zero && i == len(r.op.Inputs)-1 && infinite[r.op.Type] {
				wild = r.why(ofZero)
			}
		}
		if r.op.Type == "Pow" && head {
			exponent, constant := r.least(r.op.Inputs[1])
			switch last := result.n > 1 && r.zeroAlong(r.op.Inputs[1], k, n); {
			case constant && exponent > 0:
				result.wild, result.zero = wild, wild == 0
				r.out.axes[k] = result
				continue
			case constant && exponent == 0 || last: // 0⁰ is 1
			default:
				wild = max(wild, r.why(ofZero))
			}
		}
		result.wild = wild
		result.zero = wild == 0 && (all && zeroOfAll[r.op.Type] || some && zeroOfAny[r.op.Type] || head && zeroOfFirst[r.op.Type])
		r.out.axes[k] = result
	}
	for i := range r.op.Inputs {
		x := r.in(i)
		if x.variable != "" && r.out.data && (r.op.Type == "Mul" || r.op.Type == "Div") {
			for _, ax := range x.axes {
				r.use(scales, x.variable, ax)
			}
		}
	}
}

const ofZero = "where it is removed it would be computed of zero, and may be infinite or no number"

// zeroAlong tells whether an operand is zero where an index of axis k, of n, is removed.
func (r rule) zeroAlong(v *trace.Value, k, n int) bool {
	if v.Shape.Rank() == 0 {
		return r.isZero(v)
	}
	x := r.of(v).axes[k]
	return x.n == n && x.zero || r.isZero(v)
}

// least returns the smallest element of a constant, or of what was made of one without changing it.
func (r rule) least(v *trace.Value) (least float64, constant bool) {
	switch op := v.Op; op.Type {
	case "Constant":
		values := toFloats(op.Attributes["flat"])
		if len(values) == 0 {
			return 0, false
		}
		return slices.Min(values), true
	case "BroadcastInDim", "Reshape", "ConvertDType", "Transpose", "Identity":
		return r.least(op.Inputs[0])
	}
	return 0, false
}

func (r rule) barrier() {
	for i, out := range r.op.Outputs {
		x := *r.in(i)
		r.values[out] = &x
	}
	*r.out = *r.in(0)
}

func (r rule) pass() { *r.out = *r.in(0) }

// bitcast keeps the axes where the elements keep their size.
func (r rule) bitcast() {
	if !slices.Equal(r.op.Inputs[0].Shape.Dimensions, r.dims) {
		r.unknown()
		return
	}
	copy(r.out.axes, r.in(0).axes)
}

// unknown is the rule for operations that have none: all that they touch stays.
func (r rule) unknown() {
	why := r.why("there is no rule for it")
	for _, in := range r.op.Inputs {
		if x := r.of(in); x != nil {
			for _, ax := range x.axes {
				r.pinAxis(ax, why)
			}
		}
	}
	for i, out := range r.op.Outputs {
		x := &info{data: true}
		for _, n := range out.Shape.Dimensions {
			x.axes = append(x.axes, axis{n: n, why: why})
		}
		if i == 0 {
			*r.out = *x
		} else {
			r.values[out] = x
		}
	}
	if r.phase < phases { // they are not counted again for another batch size
		r.pinned = append(r.pinned, r.op)
	}
}

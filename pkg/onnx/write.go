package onnx

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// What is written: operator set 18 in the form of version 8, which ONNX Runtime reads from 1.14 on.
const (
	Opset     = 18
	IRVersion = 8
)

// Config says how a model is written. The zero value writes one that takes batches of any size.
type Config struct {
	// Name of the graph. Default: "espalier".
	Name string
	// Inputs and Outputs are the names. Default: "x" and "y", or "x0", "x1", … where there are several.
	Inputs, Outputs []string
	// FixedBatch writes the shapes of the inputs as they are given. Else the first axis of each input is the batch, and may have any size.
	FixedBatch bool
	// FoldBatchNorm multiplies batch normalisations into the convolutions before them.
	FoldBatchNorm bool
}

// batchName is the name of the first axis of the inputs.
const batchName = "batch"

// Write writes a model function, with the variables of a store, for inference, as an ONNX file. The file is whole or is not there. Inputs are the shapes of the inputs, with any
// batch size. The variables' paths become the names of constants: "/conv1/conv/weights" is "conv1/conv/weights", and of a model that was read "/ONNX/fc.weight" is "fc.weight"
// again. Convolutions, pools and batch normalisations are ONNX's, with channels first; a network whose images have their channels last has one Transpose at its input.
//
// The error is an *Error, which names the operation, or a *trace.Error.
func Write(path string, b compute.Backend, store *model.Store, fn trace.ModelFn, cfg Config, inputs ...shapes.Shape) error {
	content, err := Marshal(b, store, fn, cfg, inputs...)
	if err != nil {
		return err
	}
	return durable.FS{}.Replace(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Marshal is Write for a model in memory.
func Marshal(b compute.Backend, store *model.Store, fn trace.ModelFn, cfg Config, inputs ...shapes.Shape) ([]byte, error) {
	w := &writer{cfg: cfg, backend: b, batches: []int{2, 3, 7}, placed: map[*trace.Value]*placed{}, users: map[*trace.Value]int{}, moved: map[*value]map[string]*value{},
		initializers: map[string]*value{}}
	if cfg.FixedBatch {
		w.batches = []int{0} // which nothing asks for
	}
	for _, batch := range w.batches {
		sized := make([]shapes.Shape, len(inputs))
		for i, s := range inputs {
			sized[i] = s.Clone()
			if !cfg.FixedBatch {
				if s.Rank() == 0 {
					return nil, &Error{Kind: ErrShape, Where: fmt.Sprintf("input %d", i), Expected: "a first axis that is the batch", Came: s.String(), Remedy: "set Config.FixedBatch"}
				}
				sized[i].Dimensions[0] = batch
			}
		}
		t, err := trace.Record(b, store, fn, trace.Config{}, sized...)
		if err != nil {
			return nil, err
		}
		w.traces = append(w.traces, t)
	}
	w.trace = w.traces[0]
	if err := w.compare(); err != nil {
		return nil, err
	}
	if len(w.trace.Missing) > 0 {
		return nil, &Error{Kind: ErrMissing, Where: w.trace.Missing[0], Expected: "a variable with a value", Came: "none", Remedy: "initialise or load the network before it is written"}
	}
	if err := w.write(); err != nil {
		return nil, err
	}
	return w.marshal()
}

// writer writes one model.
type writer struct {
	cfg     Config
	backend compute.Backend
	batches []int
	traces  []*trace.Trace // at each batch size; they have the same operations
	trace   *trace.Trace   // the first

	number  map[*trace.Op]int // in all of the traces
	users   map[*trace.Value]int
	statics statics
	placed  map[*trace.Value]*placed

	nodes        []*node // in the order in which they can run; some may be of no use
	inputs       []*value
	outputs      []*value
	initializers map[string]*value // by content and form
	moved        map[*value]map[string]*value
	batch        *value // the batch size
}

// sized are attributes that may change with the batch size: what they say is in the shape of the output.
var sized = map[string]bool{"shape": true, "outputShape": true, "dimensions": true, "limits": true, "sliceSizes": true, "sharding": true}

// compare checks that the traces differ in nothing but sizes.
func (w *writer) compare() error {
	w.number = map[*trace.Op]int{}
	for _, t := range w.traces {
		for i, op := range t.Ops {
			w.number[op] = i
		}
	}
	differ := func(op *trace.Op, what string) error {
		return &Error{Kind: ErrShape, Where: w.label(op), Expected: "the same operations for all batch sizes", Came: what + " that change with it", Remedy: "set Config.FixedBatch"}
	}
	for k, t := range w.traces[1:] {
		for i, op := range w.trace.Ops {
			if len(t.Ops) != len(w.trace.Ops) || t.Ops[i].Type != op.Type || len(t.Ops[i].Inputs) != len(op.Inputs) {
				return differ(op, "operations")
			}
			other := t.Ops[i]
			for j, in := range op.Inputs {
				if w.number[in.Op] != w.number[other.Inputs[j].Op] || in.Index != other.Inputs[j].Index {
					return differ(op, "inputs")
				}
			}
			for j, out := range op.Outputs {
				if out.Shape.Rank() != other.Outputs[j].Shape.Rank() || out.Shape.DType != other.Outputs[j].Shape.DType {
					return differ(op, "axes")
				}
			}
			for name, a := range op.Attributes {
				if !sized[name] && !reflect.DeepEqual(a, other.Attributes[name]) {
					return differ(op, "constants")
				}
			}
		}
		if len(t.Outputs) != len(w.trace.Outputs) {
			return &Error{Kind: ErrShape, Expected: fmt.Sprintf("%d outputs", len(w.trace.Outputs)), Came: fmt.Sprintf("%d at a batch of %d", len(t.Outputs), w.batches[k+1])}
		}
	}
	return nil
}

// dims are the sizes of a value of the first trace.
func (w *writer) dims(v *trace.Value) []size {
	dims := make([]size, v.Shape.Rank())
	at := w.number[v.Op]
	for i := range dims {
		for _, t := range w.traces {
			dims[i] = append(dims[i], t.Ops[at].Outputs[v.Index].Shape.Dimensions[i])
		}
	}
	return dims
}

// label names an operation in an error: by its type, number and the variables that it uses.
func (w *writer) label(op *trace.Op) string {
	var of []string
	for _, in := range op.Inputs {
		if path := w.statics.origin[in]; path != "" && !slices.Contains(of, path) {
			of = append(of, path)
		}
	}
	text := fmt.Sprintf("operation %d, %s", op.ID, op.Type)
	if len(of) > 0 {
		text += " with " + strings.Join(of, ", ")
	}
	return text
}

// unsupported is the error for what has no rule.
func (w *writer) unsupported(op *trace.Op, expected, came string, cause error) error {
	return &Error{Kind: ErrUnsupported, Where: w.label(op), Expected: expected, Came: came, Err: cause, Remedy: "build it of other operations"}
}

// write makes the nodes.
func (w *writer) write() error {
	for _, op := range w.trace.Ops {
		for _, in := range op.Inputs {
			w.users[in]++
		}
	}
	for _, n := range w.trace.Outputs {
		w.users[trace.Of(n)[0]]++
	}
	w.findStatics()
	if err := w.computeStatics(); err != nil {
		return err
	}
	for i, n := range w.trace.Inputs {
		v := trace.Of(n)[0]
		if _, known := elementTypes[v.Shape.DType]; !known {
			return w.unsupported(v.Op, "numbers that ONNX has", v.Shape.String(), nil)
		}
		dims := w.dims(v)
		if w.number[v.Op] == 0 && w.trace.Ops[0] != v.Op { // it is not used: its sizes are those that it was given
			dims = nil
			for axis := range v.Shape.Dimensions {
				var d size
				for _, t := range w.traces {
					d = append(d, t.Inputs[i].Shape().Dimensions[axis])
				}
				dims = append(dims, d)
			}
		}
		in := &value{name: nameOf(w.cfg.Inputs, "x", i, len(w.trace.Inputs)), dtype: v.Shape.DType, dims: dims}
		w.inputs = append(w.inputs, in)
		w.placed[v] = place(in, in.dims, identity(len(in.dims)))
	}
	for i, n := range w.trace.Outputs {
		v := trace.Of(n)[0]
		p, err := w.value(v)
		if err != nil {
			return err
		}
		out, err := w.full(p, identity(p.rank()))
		if err != nil {
			return err
		}
		if out.from == nil || slices.Contains(w.outputs, out) { // an input, a constant, or one output twice
			out = w.node("Identity", []*value{out}, out.dtype, out.dims)
		}
		out.name = nameOf(w.cfg.Outputs, "y", i, len(w.trace.Outputs))
		w.outputs = append(w.outputs, out)
	}
	return nil
}

func nameOf(given []string, letter string, i, n int) string {
	switch {
	case i < len(given):
		return given[i]
	case n == 1:
		return letter
	}
	return fmt.Sprint(letter, i)
}

// value returns where a value of the trace is, and makes the nodes that compute it.
func (w *writer) value(v *trace.Value) (*placed, error) {
	if p := w.placed[v]; p != nil {
		return p, nil
	}
	var p *placed
	var err error
	if c := w.statics.values[v]; c != nil {
		p = w.placeConstant(c)
	} else if rule := rules[v.Op.Type]; rule == nil {
		err = w.unsupported(v.Op, "an operation that there is a rule for", v.Op.Type, nil)
	} else if v.Index != 0 || len(v.Op.Outputs) != 1 {
		err = w.unsupported(v.Op, "an operation with one output", fmt.Sprintf("output %d of %d", v.Index, len(v.Op.Outputs)), nil)
	} else {
		p, err = rule(w, v.Op)
	}
	if err != nil {
		var own *Error
		if errors.As(err, &own) && own.Where == "" {
			own.Where = w.label(v.Op)
		}
		return nil, err
	}
	w.placed[v] = p
	return p, nil
}

// node makes a node with one output.
func (w *writer) node(op string, inputs []*value, d dtypes.DType, dims []size, attributes ...attribute) *value {
	n := &node{op: op, inputs: inputs, attributes: attributes}
	n.output = &value{from: n, dtype: d, dims: dims}
	w.nodes = append(w.nodes, n)
	return n.output
}

// initializer makes a constant's value, whose axis i is axis order[i] of the constant. Equal ones are one.
func (w *writer) initializer(c *constant, order []int) *value {
	key := fmt.Sprintf("%p %v", c, order)
	small := len(c.data) <= 64 && c.name == ""
	if small {
		key = fmt.Sprint(c.dtype, c.dims, order, c.data)
	} else if len(c.data) > 0 {
		key = fmt.Sprintf("%s %v %p %v", c.dtype, c.dims, &c.data[0], order) // another form of the same elements
	}
	if v := w.initializers[key]; v != nil {
		return v
	}
	moved := c.permute(order)
	v := &value{constant: moved, dtype: c.dtype}
	for _, n := range moved.dims {
		v.dims = append(v.dims, slices.Repeat(size{n}, len(w.traces)))
	}
	w.initializers[key] = v
	return v
}

// marshal writes what the outputs need.
func (w *writer) marshal() ([]byte, error) {
	live := map[*node]bool{}
	var constants []*value
	used := map[*value]bool{}
	var need func(v *value)
	need = func(v *value) {
		if v == nil || used[v] {
			return
		}
		used[v] = true
		if v.constant != nil {
			constants = append(constants, v)
		}
		if v.from != nil {
			live[v.from] = true
			for _, in := range v.from.inputs {
				need(in)
			}
		}
	}
	for _, out := range w.outputs {
		need(out)
	}
	w.name(constants, live)

	total := 0
	for _, v := range constants {
		total += len(v.constant.data)
	}
	if total > maxFile-1<<24 { // the rest of the file takes less than that
		return nil, &Error{Kind: ErrLimit, Expected: fmt.Sprintf("constants of at most %d bytes, which is all that the format can hold", maxFile-1<<24), Came: fmt.Sprint(total),
			Remedy: "write it in parts"}
	}
	g := make([]byte, 0, total+total/64+1<<16)
	for _, n := range w.nodes {
		if live[n] {
			g = appendBytes(g, graphNode, n.marshal())
		}
	}
	name := w.cfg.Name
	if name == "" {
		name = "espalier"
	}
	g = appendBytes(g, graphName, []byte(name))
	for _, v := range constants {
		g = appendBytes(g, graphInitializer, marshalTensor(v.name, v.dtype, v.constant.dims, v.constant.data))
	}
	port := func(v *value) []byte {
		dims, names := make([]int64, len(v.dims)), make([]string, len(v.dims))
		for i, d := range v.dims {
			dims[i] = int64(d[0])
			if fixed(d) {
				continue
			}
			dims[i] = -1
			switch per, rest, ok := w.linear(d); {
			case !ok:
				names[i] = fmt.Sprintf("%s_axis_%d", v.name, i)
			case per == 1 && rest == 0:
				names[i] = batchName
			case rest == 0:
				names[i] = fmt.Sprintf("%d*%s", per, batchName)
			default:
				names[i] = fmt.Sprintf("%d*%s%+d", per, batchName, rest)
			}
		}
		return marshalPort(v.name, v.dtype, dims, names)
	}
	for _, in := range w.inputs {
		g = appendBytes(g, graphInput, port(in))
	}
	for _, out := range w.outputs {
		g = appendBytes(g, graphOutput, port(out))
	}
	m := appendVarint(make([]byte, 0, len(g)+256), modelIR, IRVersion)
	m = appendBytes(m, modelProducer, []byte("espalier"))
	m = appendBytes(m, modelGraph, g)
	return appendBytes(m, modelOpset, appendVarint(nil, opsetVersion, Opset)), nil
}

// name gives each value that is written a name of its own. Inputs and outputs have theirs; then variables get theirs, then what was computed from them.
func (w *writer) name(constants []*value, live map[*node]bool) {
	taken := map[string]bool{}
	for _, v := range slices.Concat(w.inputs, w.outputs) {
		taken[v.name] = true
	}
	unique := func(want string) string {
		name := want
		for i := 2; taken[name]; i++ {
			name = fmt.Sprintf("%s_%d", want, i)
		}
		taken[name] = true
		return name
	}
	for _, pure := range []bool{true, false} {
		for _, v := range constants {
			if v.constant.pure != pure {
				continue
			}
			want := v.constant.name
			if want == "" {
				want = "constant"
			}
			v.name = unique(want)
		}
	}
	for _, n := range w.nodes {
		if live[n] && n.output.name == "" {
			n.output.name = unique(strings.ToLower(n.op))
		}
	}
}

func (n *node) marshal() []byte {
	var b []byte
	for _, in := range n.inputs {
		name := ""
		if in != nil {
			name = in.name
		}
		b = appendBytes(b, nodeInput, []byte(name))
	}
	b = appendBytes(b, nodeOutput, []byte(n.output.name))
	b = appendBytes(b, nodeName, []byte("compute "+n.output.name))
	b = appendBytes(b, nodeType, []byte(n.op))
	for _, a := range n.attributes {
		b = appendBytes(b, nodeAttribute, a.marshal())
	}
	return b
}

// inputOf returns the node that a value of the trace comes from, past operations that change nothing.
func inputOf(v *trace.Value) *trace.Value {
	for v.Op.Type == "Identity" && v.Op.Node() != nil && len(v.Op.Inputs) == 1 {
		v = v.Op.Inputs[0]
	}
	return v
}

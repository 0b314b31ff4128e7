package onnx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// constant is a value that does not depend on the inputs, row by row.
type constant struct {
	name  string // of the variable that it comes from; "" if it comes from none, or several
	pure  bool   // it is the variable itself, but for the order of its elements: it has the first claim on the name
	dtype dtypes.DType
	dims  []int
	data  []byte
}

func sizeOf(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// reshape returns the same elements with other dimensions.
func (c *constant) reshape(dims []int) *constant {
	r := *c
	r.dims = slices.Clone(dims)
	return &r
}

// permute returns the constant whose axis i is axis order[i] of c.
func (c *constant) permute(order []int) *constant {
	if slices.IsSorted(order) {
		return c
	}
	r := *c
	r.dims = make([]int, len(order))
	strides := make([]int, len(c.dims)) // of c, in elements
	for i, n := len(c.dims)-1, 1; i >= 0; i-- {
		strides[i] = n
		n *= c.dims[i]
	}
	steps := make([]int, len(order))
	for i, axis := range order {
		r.dims[i], steps[i] = c.dims[axis], strides[axis]
	}
	width := c.dtype.Size()
	r.data = make([]byte, len(c.data))
	index := make([]int, len(order))
	from := 0
	for to := 0; to < len(r.data); to += width {
		copy(r.data[to:to+width], c.data[from*width:])
		for i := len(index) - 1; i >= 0; i-- {
			index[i]++
			from += steps[i]
			if index[i] < r.dims[i] {
				break
			}
			from -= index[i] * steps[i]
			index[i] = 0
		}
	}
	return &r
}

// expand repeats the axes of size 1 up to other dimensions.
func (c *constant) expand(dims []int) *constant {
	if slices.Equal(c.dims, dims) {
		return c
	}
	r := *c
	r.pure = false
	r.dims = slices.Clone(dims)
	width := c.dtype.Size()
	r.data = make([]byte, 0, sizeOf(dims)*width)
	var fill func(axis, from int)
	strides := make([]int, len(c.dims))
	for i, n := len(c.dims)-1, 1; i >= 0; i-- {
		strides[i] = n
		n *= c.dims[i]
	}
	fill = func(axis, from int) {
		if axis == len(dims) {
			r.data = append(r.data, c.data[from*width:(from+1)*width]...)
			return
		}
		for i := range dims[axis] {
			step := 0
			if c.dims[axis] > 1 {
				step = i * strides[axis]
			}
			fill(axis+1, from+step)
		}
	}
	fill(0, 0)
	return &r
}

// mirror turns the order of the elements round along all axes from one on.
func (c *constant) mirror(from int) *constant {
	r := *c
	width, block := c.dtype.Size(), sizeOf(c.dims[from:])
	r.data = make([]byte, 0, len(c.data))
	for start := 0; start < len(c.data)/width; start += block {
		for i := block - 1; i >= 0; i-- { // along all axes at once it is the order itself that turns round
			r.data = append(r.data, c.data[(start+i)*width:(start+i+1)*width]...)
		}
	}
	return &r
}

// float64s are the elements of a constant of float32 or float64; false for others.
func (c *constant) float64s() ([]float64, bool) {
	var x []float64
	switch c.dtype {
	case dtypes.Float32:
		for at := 0; at < len(c.data); at += 4 {
			x = append(x, float64(math.Float32frombits(binary.LittleEndian.Uint32(c.data[at:]))))
		}
	case dtypes.Float64:
		for at := 0; at < len(c.data); at += 8 {
			x = append(x, math.Float64frombits(binary.LittleEndian.Uint64(c.data[at:])))
		}
	default:
		return nil, false
	}
	return x, true
}

// with returns a constant of the same form with other elements.
func (c *constant) with(x []float64) *constant {
	r := *c
	r.pure, r.data = false, nil
	for _, v := range x {
		if c.dtype == dtypes.Float32 {
			r.data = binary.LittleEndian.AppendUint32(r.data, math.Float32bits(float32(v)))
		} else {
			r.data = binary.LittleEndian.AppendUint64(r.data, math.Float64bits(v))
		}
	}
	return &r
}

// scalar is the value of a constant with one element; false for others.
func (c *constant) scalar() (float64, bool) {
	if sizeOf(c.dims) != 1 {
		return 0, false
	}
	x, ok := c.float64s()
	if !ok {
		return 0, false
	}
	return x[0], true
}

// int64s makes a constant of integers, as shapes and axes are.
func int64s(values ...int64) *constant {
	c := &constant{dtype: dtypes.Int64, dims: []int{len(values)}}
	for _, v := range values {
		c.data = binary.LittleEndian.AppendUint64(c.data, uint64(v))
	}
	return c
}

// constantOf copies a tensor.
func constantOf(t *tensors.Tensor) (*constant, error) {
	c := &constant{dtype: t.DType(), dims: slices.Clone(t.Shape().Dimensions)}
	if _, known := elementTypes[c.dtype]; !known {
		return nil, fmt.Errorf("numbers of type %s", c.dtype)
	}
	err := t.ConstBytes(func(data []byte) { c.data = bytes.Clone(data) })
	return c, err
}

// statics finds what does not depend on the inputs or the batch size, and computes it.
type statics struct {
	is     map[*trace.Value]bool
	origin map[*trace.Value]string // the variable that a value comes from, if it is one alone
	values map[*trace.Value]*constant
}

// random are operations whose result is another each time, or can't be seen.
var random = map[string]bool{"RNGBitGenerator": true, "While": true, "If": true, "Call": true, "Sort": true}

// findStatics looks at a trace whose values have the given dimensions for the batch sizes.
func (w *writer) findStatics() {
	s := &w.statics
	s.is, s.origin, s.values = map[*trace.Value]bool{}, map[*trace.Value]string{}, map[*trace.Value]*constant{}
	for _, op := range w.trace.Ops {
		static := !random[op.Type] && (op.Type != "Parameter" || op.Outputs[0].Variable() != "")
		origin, many := "", false
		if op.Type == "Parameter" {
			origin = op.Outputs[0].Variable()
		}
		for _, in := range op.Inputs {
			static = static && s.is[in]
			if o := s.origin[in]; o != "" {
				many = many || origin != "" && origin != o
				origin = o
			}
		}
		if many {
			origin = ""
		}
		for _, out := range op.Outputs {
			for _, d := range w.dims(out) {
				static = static && fixed(d)
			}
		}
		for _, out := range op.Outputs {
			s.is[out] = static && len(op.Outputs) == 1
			s.origin[out] = origin
		}
	}
}

// moving are operations on constants that move elements or repeat them: the rules for them do that without computing.
var moving = map[string]bool{"Reshape": true, "Transpose": true, "BroadcastInDim": true, "Identity": true}

// computeStatics computes what is needed of the static values, on the backend.
func (w *writer) computeStatics() error {
	s := &w.statics
	var need []*trace.Value
	seen := map[*trace.Value]bool{}
	var want func(v *trace.Value)
	want = func(v *trace.Value) {
		switch {
		case seen[v]:
		case moving[v.Op.Type]:
			want(v.Op.Inputs[0])
		default:
			need = append(need, v)
		}
		seen[v] = true
	}
	for _, op := range w.trace.Ops {
		if !s.is[op.Outputs[0]] {
			for _, in := range op.Inputs {
				if s.is[in] {
					want(in)
				}
			}
		}
	}
	for _, n := range w.trace.Outputs {
		if v := trace.Of(n)[0]; s.is[v] {
			want(v)
		}
	}
	var compute []*trace.Value
	for _, v := range need {
		if err := w.read(v); err != nil {
			return err
		}
		if s.values[v] == nil {
			compute = append(compute, v)
		}
	}
	if len(compute) == 0 {
		return nil
	}
	return guard.Run("compute the constants", func() error {
		exec, err := model.NewExec(w.backend, w.trace.Store, func(_ *model.Scope, g *graph.Graph) []*graph.Node {
			again := map[*graph.Node]*graph.Node{}
			outputs := make([]*graph.Node, len(compute))
			for i, v := range compute {
				outputs[i] = w.rebuild(g, v.Op.Node(), again)
			}
			return outputs
		})
		if err != nil {
			return err
		}
		defer exec.Finalize()
		results, err := exec.Call()
		if err != nil {
			return err
		}
		for i, t := range results {
			c, err := constantOf(t)
			if err != nil {
				return err
			}
			if origin := s.origin[compute[i]]; origin != "" {
				c.name = constantName(origin)
			}
			s.values[compute[i]] = c
			if err := t.FinalizeAll(); err != nil {
				return err
			}
		}
		return nil
	})
}

// read takes over the value of the variable or constant that a value is, or that operations that only move elements make it of. Others are left.
func (w *writer) read(v *trace.Value) error {
	for moving[v.Op.Type] {
		v = v.Op.Inputs[0]
	}
	if w.statics.values[v] != nil || !w.statics.is[v] {
		return nil
	}
	if v.Op.Type == "Constant" {
		c, err := constantOf(flatTensor(v.Shape, v.Op.Attributes["flat"]))
		if err != nil {
			return w.unsupported(v.Op, "numbers that ONNX has", v.Shape.String(), err)
		}
		w.statics.values[v] = c
		return nil
	}
	path := v.Variable()
	if path == "" {
		return nil
	}
	variable := w.trace.Store.GetVariable(path)
	if variable == nil || !variable.HasValue() {
		return &Error{Kind: ErrMissing, Where: path, Expected: "a variable with a value", Came: "none", Remedy: "initialise or load the network before it is written"}
	}
	value, err := variable.Value()
	if err != nil {
		return err
	}
	c, err := constantOf(value)
	if err != nil {
		return w.unsupported(v.Op, "numbers that ONNX has", variable.Shape().String(), err)
	}
	c.name, c.pure = constantName(path), true
	w.statics.values[v] = c
	return nil
}

// rebuild builds a static node of the trace in a graph that runs.
func (w *writer) rebuild(g *graph.Graph, n *graph.Node, again map[*graph.Node]*graph.Node) *graph.Node {
	if done := again[n]; done != nil {
		return done
	}
	op := trace.Of(n)[0].Op
	var made *graph.Node
	switch op.Type {
	case "Parameter":
		made = w.trace.Store.GetVariable(op.Outputs[0].Variable()).NodeValue(g)
	case "Constant":
		made = graph.ConstTensor(g, flatTensor(op.Outputs[0].Shape, op.Attributes["flat"]))
	case "Iota":
		shape := op.Outputs[0].Shape
		made = graph.Iota(g, shape, op.Attributes.Int("iotaAxis"))
	default:
		inputs := make([]*graph.Node, len(n.Inputs()))
		for i, in := range n.Inputs() {
			inputs[i] = w.rebuild(g, in, again)
		}
		made = n.CloneWithInputs(inputs...)
	}
	again[n] = made
	return made
}

// flatTensor makes a tensor of the slice of elements that a Constant was recorded with.
func flatTensor(shape shapes.Shape, flat any) *tensors.Tensor {
	t := tensors.FromShape(shape)
	err := t.MutableFlatData(func(to any) { reflect.Copy(reflect.ValueOf(to), reflect.ValueOf(flat)) })
	if err != nil {
		panic(err)
	}
	return t
}

package profile

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// piece is a part of a recorded network that can be compiled alone.
type piece struct {
	c      *counter
	inside func(op *trace.Op) bool // of operations on examples
	in     []*trace.Value          // what it takes: variables, inputs, what other parts compute
	out    []*trace.Value          // what others take from it
	key    string                  // equal for pieces that compute the same of inputs of the same shapes
}

// errFunctions says why a piece can't be rebuilt.
type errFunctions string

func (e errFunctions) Error() string {
	return string(e) + " runs functions, which can't be taken out of the network they were built in: time the network as a whole, with profile.Model"
}

// piece returns the part of the network whose operations on examples are inside; what prepares weights for them belongs to it.
func (c *counter) piece(inside func(op *trace.Op) bool) (p piece, err error) {
	p = piece{c: c, inside: inside}
	taken := map[*trace.Value]bool{}
	take := func(v *trace.Value) {
		if !taken[v] && c.onExamples(v.Op) && inside(v.Op) {
			taken[v] = true
			p.out = append(p.out, v)
		}
	}
	for _, op := range c.trace.Ops {
		if !(c.onExamples(op) && inside(op)) {
			for _, in := range op.Inputs {
				take(in)
			}
		}
	}
	for _, node := range c.trace.Outputs {
		for _, v := range trace.Of(node) {
			take(v)
		}
	}
	var key strings.Builder
	number := map[*trace.Value]int{}
	var need func(v *trace.Value)
	need = func(v *trace.Value) {
		if _, known := number[v]; known {
			return
		}
		if p.given(v) {
			number[v] = len(number)
			p.in = append(p.in, v)
			fmt.Fprintf(&key, "%d = %s\n", number[v], v.Shape)
			return
		}
		switch op := v.Op; op.Type {
		case "While", "If", "Call", "Sort":
			if err == nil {
				err = errFunctions(op.Type)
			}
		}
		for _, in := range v.Op.Inputs {
			need(in)
		}
		fmt.Fprintf(&key, "%s %v (", v.Op.Type, v.Op.Attributes)
		for _, in := range v.Op.Inputs {
			fmt.Fprint(&key, number[in], " ")
		}
		for _, out := range v.Op.Outputs {
			number[out] = len(number)
			fmt.Fprintf(&key, ") %d = %s", number[out], out.Shape)
		}
		fmt.Fprintln(&key)
	}
	for _, v := range p.out {
		need(v)
		fmt.Fprintln(&key, "out", number[v])
	}
	p.key = key.String()
	return p, err
}

// given says whether a value comes from outside.
func (p *piece) given(v *trace.Value) bool {
	switch op := v.Op; {
	case op.Type == "Parameter":
		return true
	case p.c.fromInput[v]:
		return !p.inside(op)
	case op.Type == "Constant" || op.Type == "Iota":
		return false
	default:
		return len(op.Inputs) == 0
	}
}

// build builds it in the graph of its inputs.
func (p *piece) build(inputs []*graph.Node) []*graph.Node {
	defer guard.Building()
	g := inputs[0].Graph()
	given := map[*trace.Value]*graph.Node{}
	for i, v := range p.in {
		given[v] = inputs[i]
	}
	nodes := map[*trace.Value]*graph.Node{} // of the recording
	for _, n := range p.c.trace.Graph.Nodes() {
		if values := trace.Of(n); len(values) == 1 {
			nodes[values[0]] = n
		}
	}
	built := map[*graph.Node]*graph.Node{}
	var build func(n *graph.Node) *graph.Node
	build = func(n *graph.Node) *graph.Node {
		values := trace.Of(n)
		if len(values) == 1 && given[values[0]] != nil {
			return given[values[0]]
		}
		if built[n] == nil {
			switch op := values[0].Op; op.Type {
			case "Constant":
				built[n] = constant(g, op)
			case "Iota":
				built[n] = graph.Iota(g, values[0].Shape, op.Attributes.Int("iotaAxis"))
			default:
				var in []*graph.Node
				for _, x := range n.Inputs() {
					in = append(in, build(x))
				}
				built[n] = n.CloneWithInputs(in...)
			}
		}
		return built[n]
	}
	var out []*graph.Node
	for _, v := range p.out {
		out = append(out, build(nodes[v]))
	}
	return out
}

// constant builds a recorded constant again.
func constant(g *graph.Graph, op *trace.Op) *graph.Node {
	flat, shape := op.Attributes["flat"], op.Outputs[0].Shape
	if shape.IsScalar() {
		return graph.Const(g, reflect.ValueOf(flat).Index(0).Interface())
	}
	return graph.Reshape(graph.Const(g, flat), shape.Dimensions...)
}

// contender compiles a piece for values made up. release gives its memory back.
func (p *piece) contender(b compute.Backend, name string) (c Contender, release func(), err error) {
	exec, err := graph.NewExec(b, p.build)
	if err != nil {
		return c, nil, fmt.Errorf("%s: %w", name, err)
	}
	var inputs []any
	release = func() {
		exec.Finalize()
		for _, x := range inputs {
			x.(*tensors.Tensor).FinalizeAll()
		}
	}
	for _, v := range p.in {
		x, err := madeUp(v)
		if err != nil {
			release()
			return c, nil, fmt.Errorf("%s: %w", name, err)
		}
		inputs = append(inputs, x)
	}
	c = Contender{name, func() error {
		return guard.Run("running", func() error {
			out, err := exec.Call(inputs...)
			for _, y := range out {
				if err == nil {
					err = y.ConstFlatData(func(any) {}) // waits for the result
				}
				y.FinalizeAll()
			}
			return err
		})
	}}
	if err := c.Run(); err != nil { // compiles
		release()
		return Contender{}, nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, release, nil
}

// madeUp returns something of the shape of a value whose floats stay of ordinary size through many layers: ones where there is one axis, as scales and variances are; otherwise both
// signs, weights smaller the more of them are added up. Integers, which may be indices, are zero.
func madeUp(v *trace.Value) (*tensors.Tensor, error) {
	x := tensors.FromShape(v.Shape)
	scale := 1.0
	if v.Variable() != "" && v.Shape.Rank() >= 2 {
		scale = math.Sqrt(3 * float64(v.Shape.Dim(-1)) / float64(max(1, v.Shape.Size())))
	}
	value := func(i int) float64 {
		if v.Shape.Rank() < 2 {
			return 1
		}
		return scale * (float64(i*7919%2048)/1024 - 1 + 1.0/4096)
	}
	err := x.MutableFlatData(func(flat any) {
		switch x := flat.(type) {
		case []float32:
			for i := range x {
				x[i] = float32(value(i))
			}
		case []float64:
			for i := range x {
				x[i] = value(i)
			}
		}
	})
	return x, err
}

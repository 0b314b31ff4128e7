// Package trace records what a GoMLX model function computes: every operation with its attributes, its inputs and outputs, and the variables that it reads
// and writes. Nothing is compiled or run, and no variable needs a value.
//
// GoMLX's graph nodes do not show their attributes, and no constants of more than 32 elements. So a backend of ours stands between the graph and the real
// one: it hands every operation on, whose shape inference comes for free, and writes it down.
package trace

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
)

// ModelFn is a model function in GoMLX's general form: it gets inputs and returns outputs.
type ModelFn = func(scope *model.Scope, inputs []*graph.Node) []*graph.Node

// Single is the general form of a model function of one input and one output, the form of experiment.ModelFn and pkg/nets.
func Single(fn func(scope *model.Scope, x *graph.Node) *graph.Node) ModelFn {
	return func(scope *model.Scope, inputs []*graph.Node) []*graph.Node {
		return []*graph.Node{fn(scope, inputs[0])}
	}
}

// Config says how a model function is recorded. The zero value records it as it is for inference.
type Config struct {
	// Training records it as it is while it is trained: dropout, statistics of batch normalisation.
	Training bool
	// Prepare, if set, is called with the graph before the model function is, for instance to set graph parameters.
	Prepare func(g *graph.Graph)
	// Initializer, if set, is that of the scope that the model function gets.
	Initializer model.VariableInitializer
	// Finish, if set, is called with the graph and the store after the model function was, while variables that it created are still there. What it returns is
	// recorded as if the network returned it, but is not among Trace.Outputs.
	Finish func(g *graph.Graph, store *model.Store) ([]*graph.Node, error)
}

// Op is one operation.
type Op struct {
	ID   int    // its position among all that were recorded, from 0
	Type string // the name of its method in compute.Function: "Add", "ConvGeneral", "Parameter", …
	// Inputs are its operands, in the order of the method's arguments; of a While, If, Call or Sort also the values of outer functions that its functions use.
	Inputs  []*Value
	Outputs []*Value
	// Attributes are the method's other arguments, by the names that compute.Function gives them.
	Attributes Attributes

	node *graph.Node // set by Record: the node that stands for it
}

// Node is the graph node that the operation was recorded for; nil for operations inside the functions of a While, If, Call or Sort.
func (o *Op) Node() *graph.Node { return o.node }

// Value is what an operation computes.
type Value struct {
	Op    *Op
	Index int // among the outputs of Op
	Shape shapes.Shape

	inner    compute.Value
	function *function // in which it was computed
}

// Variable is the path of the variable that a value is, or "" if it is none.
func (v *Value) Variable() string {
	if v.Op.Type != "Parameter" {
		return ""
	}
	if name := v.Op.Attributes.String("name"); strings.HasPrefix(name, model.ScopeSeparator) {
		return name
	}
	return ""
}

// Update is a variable that the model function sets.
type Update struct {
	Path string
	Node *graph.Node
}

// Trace is a model function as it was recorded once, for inputs of given shapes in one phase.
type Trace struct {
	// Graph is what was built. It can't be run; it is the place to look up nodes, and where they are cloned from.
	Graph *graph.Graph
	Store *model.Store
	// Ops are those that outputs and updates depend on, in the order in which they were recorded, so inputs come before what uses them.
	Ops []*Op
	// Inputs are the model function's.
	Inputs  []*graph.Node
	Outputs []*graph.Node
	// Updates are sorted by path.
	Updates []Update
	// Missing are the paths of variables that the model function asked for and the store did not have, sorted. The store still does not have them.
	Missing []string
	// Training is the phase.
	Training bool
}

// Error says that a model function could not be recorded.
type Error struct {
	Inputs []shapes.Shape
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("model function of inputs %v could not be recorded: %v", e.Inputs, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Record calls a model function once and records what it builds. The store is left as it was: variables that were created are removed again.
//
// The model function must build the same graph each time. What it does besides that it does here, too; other graphs that it builds and runs, as importers do for
// constants, run on the real backend. Two goroutines must not record with one store at once.
//
// The error is an *Error; it wraps what the model function panicked with.
func Record(b compute.Backend, store *model.Store, fn ModelFn, cfg Config, inputs ...shapes.Shape) (t *Trace, err error) {
	if b == nil || store == nil || fn == nil {
		return nil, &Error{inputs, errors.New("backend, store and model function must not be nil")}
	}
	if len(inputs) == 0 {
		return nil, &Error{inputs, errors.New("a model function has one input at least: give its shape")}
	}
	before := map[string]bool{}
	for v := range store.IterVariables() {
		before[v.Path()] = true
	}
	rec := &recorder{Backend: b}
	t = &Trace{Store: store, Training: cfg.Training}
	var also []*graph.Node
	err = guard.Run("building the graph", func() error {
		t.Graph = graph.NewGraph(rec, "trace")
		model.SetStore(t.Graph, store)
		store.SetTraining(t.Graph, cfg.Training)
		if cfg.Prepare != nil {
			cfg.Prepare(t.Graph)
		}
		for i, s := range inputs {
			t.Inputs = append(t.Inputs, graph.Parameter(t.Graph, fmt.Sprintf("input %d", i), s))
		}
		scope := store.RootScope()
		if cfg.Initializer != nil {
			scope = scope.WithInitializer(cfg.Initializer)
		}
		t.Outputs = fn(scope, t.Inputs)
		if cfg.Finish != nil {
			var err error
			if also, err = cfg.Finish(t.Graph, store); err != nil {
				return err
			}
		}
		for v := range store.IterVariables() {
			if v.ChangedInGraph(t.Graph) {
				t.Updates = append(t.Updates, Update{v.Path(), v.NodeValue(t.Graph)})
			}
		}
		return nil
	})
	for v := range store.IterVariables() {
		if !before[v.Path()] {
			t.Missing = append(t.Missing, v.Path())
		}
	}
	slices.Sort(t.Missing)
	for _, path := range t.Missing {
		err = errors.Join(err, store.DeleteVariable(path))
	}
	if err != nil {
		return nil, &Error{inputs, err}
	}
	if len(t.Outputs) == 0 || slices.Contains(t.Outputs, nil) {
		return nil, &Error{inputs, errors.New("it returned no output, or a nil one")}
	}
	slices.SortFunc(t.Updates, func(a, b Update) int { return cmp.Compare(a.Path, b.Path) })
	t.keepLive(rec, also)
	return t, nil
}

// Of returns what a node of the graph computes: its outputs, of which most nodes have one.
func Of(n *graph.Node) []*Value {
	outputs := graph.InternalBackendOutputs(n)
	values := make([]*Value, len(outputs))
	for i, o := range outputs {
		values[i] = o.(*Value)
	}
	return values
}

// keepLive keeps the operations that outputs and updates depend on. GoMLX leaves others in a graph: both forms of what it fuses, for instance.
func (t *Trace) keepLive(rec *recorder, also []*graph.Node) {
	for _, n := range t.Graph.Nodes() {
		for _, v := range Of(n) {
			if v.Op.node == nil { // a SplitNode shares the values of the node that it splits, and comes after it
				v.Op.node = n
			}
		}
	}
	live := make([]bool, len(rec.ops))
	var todo []*Value
	for _, n := range slices.Concat(t.Outputs, also) {
		todo = append(todo, Of(n)...)
	}
	for _, u := range t.Updates {
		todo = append(todo, Of(u.Node)...)
	}
	for len(todo) > 0 {
		op := todo[len(todo)-1].Op
		todo = todo[:len(todo)-1]
		if !live[op.ID] {
			live[op.ID] = true
			todo = append(todo, op.Inputs...)
		}
	}
	for i, op := range rec.ops {
		if live[i] {
			t.Ops = append(t.Ops, op)
		}
	}
}

// Variables returns the values of the variables that the model function reads, by path.
func (t *Trace) Variables() map[string]*Value {
	found := map[string]*Value{}
	for _, op := range t.Ops {
		if path := op.Outputs[0].Variable(); path != "" {
			found[path] = op.Outputs[0]
		}
	}
	return found
}

// Digest is a hash of what was recorded: operations, attributes, shapes and connections, not the values of variables. Two recordings of a model function
// that builds the same graph each time have the same one.
func (t *Trace) Digest() string {
	h := sha256.New()
	number := map[*Op]int{}
	for i, op := range t.Ops {
		number[op] = i
		fmt.Fprint(h, op.Type, "(")
		for _, in := range op.Inputs {
			fmt.Fprintf(h, "%d.%d ", number[in.Op], in.Index)
		}
		fmt.Fprint(h, ") ")
		op.Attributes.write(h)
		for _, out := range op.Outputs {
			fmt.Fprint(h, " ", out.Shape)
		}
		fmt.Fprintln(h)
	}
	for _, n := range t.Outputs {
		fmt.Fprintf(h, "out %d.%d\n", number[Of(n)[0].Op], Of(n)[0].Index)
	}
	for _, u := range t.Updates {
		fmt.Fprintf(h, "update %s %d.%d\n", u.Path, number[Of(u.Node)[0].Op], Of(u.Node)[0].Index)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// String is the recording as text, a line for each operation.
func (t *Trace) String() string {
	var b strings.Builder
	for _, op := range t.Ops {
		for i, out := range op.Outputs {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%%%s %s", out.name(), out.Shape)
		}
		fmt.Fprintf(&b, " = %s(", op.Type)
		for i, in := range op.Inputs {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("%" + in.name())
		}
		b.WriteString(")")
		if len(op.Attributes) > 0 {
			b.WriteString(" ")
			op.Attributes.write(&b)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (v *Value) name() string {
	if len(v.Op.Outputs) == 1 {
		return fmt.Sprint(v.Op.ID)
	}
	return fmt.Sprintf("%d.%d", v.Op.ID, v.Index)
}

package trace

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

//go:generate go run ./internal/gen operations.go

// recorder is a backend that records the first graph that is built on it. Graphs that the model function builds and runs meanwhile are none of ours.
type recorder struct {
	compute.Backend
	main *builder
	ops  []*Op
}

// Builder implements compute.Backend.
func (r *recorder) Builder(name string) compute.Builder {
	inner := r.Backend.Builder(name)
	if r.main != nil {
		return inner
	}
	r.main = &builder{Builder: inner, recorder: r}
	return r.main
}

// builder hands on to the real builder.
type builder struct {
	compute.Builder
	recorder *recorder
	function *function
}

// Main implements compute.Builder.
func (b *builder) Main() compute.Function {
	if b.function == nil {
		b.function = &function{inner: b.Builder.Main(), builder: b}
	}
	return b.function
}

// NewFunction implements compute.Builder.
func (b *builder) NewFunction(name string) (compute.Function, error) {
	inner, err := b.Builder.NewFunction(name)
	if err != nil {
		return nil, err
	}
	return &function{inner: inner, builder: b}, nil
}

// OpShape implements compute.Builder.
func (b *builder) OpShape(v compute.Value) (shapes.Shape, error) {
	return b.Builder.OpShape(unwrap(v))
}

// Compile implements compute.Builder.
func (b *builder) Compile() (compute.Executable, error) {
	return nil, errors.New("a recorded graph can't be run")
}

// function records operations, which operations.go has a method for each of. Where an operation runs other functions, see below.
type function struct {
	inner    compute.Function
	builder  *builder
	parent   *function
	captured []*Value // values of outer functions that operations in here use
}

var _ compute.Function = &function{}

// Name implements compute.Function.
func (f *function) Name() string { return f.inner.Name() }

// Builder implements compute.Function.
func (f *function) Builder() compute.Builder { return f.builder }

// Parent implements compute.Function.
func (f *function) Parent() compute.Function {
	if f.parent == nil {
		return nil
	}
	return f.parent
}

// Closure implements compute.Function.
func (f *function) Closure() (compute.Function, error) {
	inner, err := f.inner.Closure()
	if err != nil {
		return nil, err
	}
	return &function{inner: inner, builder: f.builder, parent: f}, nil
}

// Shape implements compute.Function.
func (f *function) Shape(v compute.Value) (shapes.Shape, error) { return f.inner.Shape(unwrap(v)) }

// Return implements compute.Function.
func (f *function) Return(outputs []compute.Value, shardings []*compute.ShardingSpec) error {
	f.capture(outputs)
	return f.inner.Return(unwrapAll(outputs), shardings)
}

// Call implements compute.Function.
func (f *function) Call(callee compute.Function, inputs ...compute.Value) ([]compute.Value, error) {
	outputs, err := f.inner.Call(callee.(*function).inner, unwrapAll(inputs)...)
	if err != nil {
		return nil, err
	}
	return f.recordCall("Call", nil, outputs, inputs, callee)
}

// Sort implements compute.Function.
func (f *function) Sort(comparator compute.Function, axis int, isStable bool, inputs ...compute.Value) ([]compute.Value, error) {
	outputs, err := f.inner.Sort(comparator.(*function).inner, axis, isStable, unwrapAll(inputs)...)
	if err != nil {
		return nil, err
	}
	return f.recordCall("Sort", Attributes{"axis": axis, "isStable": isStable}, outputs, inputs, comparator)
}

// While implements compute.Function.
func (f *function) While(cond, body compute.Function, initialState ...compute.Value) ([]compute.Value, error) {
	outputs, err := f.inner.While(cond.(*function).inner, body.(*function).inner, unwrapAll(initialState)...)
	if err != nil {
		return nil, err
	}
	return f.recordCall("While", nil, outputs, initialState, cond, body)
}

// If implements compute.Function.
func (f *function) If(pred compute.Value, trueBranch, falseBranch compute.Function) ([]compute.Value, error) {
	outputs, err := f.inner.If(unwrap(pred), trueBranch.(*function).inner, falseBranch.(*function).inner)
	if err != nil {
		return nil, err
	}
	return f.recordCall("If", nil, outputs, []compute.Value{pred}, trueBranch, falseBranch)
}

// DynamicReshape implements compute.Function.
func (f *function) DynamicReshape(operand compute.Value, dimensions ...compute.DynamicDimensionSpec) (compute.Value, error) {
	inputs, inner := []compute.Value{operand}, slices.Clone(dimensions)
	for i, d := range dimensions {
		if d.Value != nil {
			inputs = append(inputs, d.Value)
			inner[i].Value = unwrap(d.Value)
		}
	}
	output, err := f.inner.DynamicReshape(unwrap(operand), inner...)
	if err != nil {
		return nil, err
	}
	recorded, err := f.record("DynamicReshape", nil, []compute.Value{output}, inputs...)
	if err != nil {
		return nil, err
	}
	return recorded[0], nil
}

// recordCall records an operation that runs functions: what these take from outside is among its inputs.
func (f *function) recordCall(name string, attributes Attributes, outputs, inputs []compute.Value, functions ...compute.Function) ([]compute.Value, error) {
	all := append([]compute.Value{}, inputs...)
	for _, called := range functions {
		for _, v := range called.(*function).captured {
			all = append(all, v)
		}
	}
	return f.record(name, attributes, outputs, all...)
}

// record writes an operation down, and returns what it computes in the form in which it comes back as an input of others.
func (f *function) record(name string, attributes Attributes, outputs []compute.Value, inputs ...compute.Value) ([]compute.Value, error) {
	f.capture(inputs)
	r := f.builder.recorder
	op := &Op{ID: len(r.ops), Type: name, Attributes: Attributes{}}
	for name, a := range attributes {
		op.Attributes[name] = copied(a)
	}
	for _, in := range inputs {
		op.Inputs = append(op.Inputs, in.(*Value))
	}
	recorded := make([]compute.Value, len(outputs))
	for i, out := range outputs {
		shape, err := f.builder.Builder.OpShape(out)
		if err != nil {
			return nil, fmt.Errorf("shape of output %d of %s: %w", i, name, err)
		}
		v := &Value{Op: op, Index: i, Shape: shape, inner: out, function: f}
		op.Outputs = append(op.Outputs, v)
		recorded[i] = v
	}
	r.ops = append(r.ops, op)
	return recorded, nil
}

// capture notes which of the values come from outer functions.
func (f *function) capture(values []compute.Value) {
	for _, value := range values {
		v := value.(*Value)
		for inside := f; inside != nil && inside != v.function; inside = inside.parent {
			inside.captured = append(inside.captured, v)
		}
	}
}

func unwrap(v compute.Value) compute.Value {
	if r, ok := v.(*Value); ok {
		return r.inner
	}
	return v
}

func unwrapAll(values []compute.Value) []compute.Value {
	all := make([]compute.Value, len(values))
	for i, v := range values {
		all[i] = unwrap(v)
	}
	return all
}

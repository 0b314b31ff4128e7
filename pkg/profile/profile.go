// Package profile says what a network costs, layer by layer: parameters, multiply-accumulates, bytes and the memory of activations, which it counts on a recording of the
// model function (pkg/trace), and latency, which it measures.
//
// Of counts and computes nothing. Measure counts and measures. CompareModels holds several networks against each other, such as one before and after surgery.
package profile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// Layer is what one scope of a network's variables holds and does.
type Layer struct {
	Path          string // the scope of its variables, without the name that GoMLX's layers add where it stays the only one so: "/conv1_1"
	Kind          string // "conv"; "dense"; "product", of activations, which has no parameters; "other", which has no MACs
	Params        int64  // weights, biases and all other variables, running statistics too
	Statistics    int64  // of them, those that are not trained, which published counts leave out
	NonZero       int64  // of Params, those that are not zero, nor dead by a mask; Params where the store has neither values nor masks
	MACs          int64  // multiply-accumulates for the input given; additions of biases are not counted
	EffectiveMACs int64  // MACs whose weight is counted in NonZero: what a machine that skips zeros would have to do
	Bytes         int64  // of all parameters, zeros too
	CSRBytes      int64  // of all parameters where those of two axes and more are compressed sparse rows
	GzipBytes     int64  // of all parameters, zeros where a mask says so, after gzip; 0 if not measured, see Measure
	Activations   int64  // bytes that its operations write, see Activations
	OutShape      []int  // of its last product as the backend computes it, without the first axis; nil if it has none
	Latency       Timing // of the layer alone; Rounds is 0 if it was not measured, see Measure
}

// Activations are the bytes that a network needs beside its parameters, for the input given, if each operation writes its result and what nothing uses any more makes room.
// Changes of shape cost nothing, nor do operations element by element on something that they are the last to use. XLA fuses more than that, and pads.
type Activations struct {
	Peak int64 // the most at any time, the input with it
	Sum  int64 // all that is written, which is about what a backward pass needs
}

// Profile of a network.
type Profile struct {
	Layers []Layer // in the order of computation
	// Batch is the first axis of the first input: MACs and activations are those of as many inputs together.
	Batch int
	// Unknown lists operations that no rule counts although they may multiply by weights: MACs are too low by theirs.
	Unknown []string
	// MACsPerWeight says in how many of the MACs each weight of a product takes part, by the path of the variable: 1 in a dense layer, the number of positions in a
	// convolution. budget.ByMACs takes it.
	MACsPerWeight map[string]int64
	Activations   Activations
	Latency       Timing   // of the whole network; Rounds is 0 if it was not measured, see Measure
	Dispatch      Timing   // of a computation that does nothing: what each latency holds besides the computing
	Untimed       []string // layers that could not be measured alone, with the reason
}

func (p Profile) sum(f func(Layer) int64) int64 {
	var total int64
	for _, l := range p.Layers {
		total += f(l)
	}
	return total
}

// Params is the number of parameters.
func (p Profile) Params() int64 { return p.sum(func(l Layer) int64 { return l.Params }) }

// Trained is the number of parameters that are trained: what publications give as the number of parameters.
func (p Profile) Trained() int64 {
	return p.sum(func(l Layer) int64 { return l.Params - l.Statistics })
}

// NonZero is the number of parameters that are neither zero nor dead.
func (p Profile) NonZero() int64 { return p.sum(func(l Layer) int64 { return l.NonZero }) }

// MACs is the number of multiply-accumulates for the input given. Papers on pruning often call this FLOPs.
func (p Profile) MACs() int64 { return p.sum(func(l Layer) int64 { return l.MACs }) }

// FLOPs is 2 MACs: a multiplication and an addition each.
func (p Profile) FLOPs() int64 { return 2 * p.MACs() }

// EffectiveMACs is the number of multiply-accumulates whose weight is neither zero nor dead.
func (p Profile) EffectiveMACs() int64 { return p.sum(func(l Layer) int64 { return l.EffectiveMACs }) }

// Bytes is the size of the parameters, zeros too.
func (p Profile) Bytes() int64 { return p.sum(func(l Layer) int64 { return l.Bytes }) }

// CSRBytes is the size of the parameters with matrices as compressed sparse rows.
func (p Profile) CSRBytes() int64 { return p.sum(func(l Layer) int64 { return l.CSRBytes }) }

// GzipBytes is the size of the parameters after gzip; 0 if it was not measured.
func (p Profile) GzipBytes() int64 { return p.sum(func(l Layer) int64 { return l.GzipBytes }) }

// BuildError says that a network could not be built, or its values not be read, to be profiled.
type BuildError struct {
	Inputs []shapes.Shape
	Err    error
}

func (e *BuildError) Error() string { return fmt.Sprintf("profile of inputs %v: %v", e.Inputs, e.Err) }

// Unwrap returns the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// Of profiles a model function of one input, whose first axis is the batch: give 1 for counts per example. It records what the function builds and neither compiles it nor
// initialises variables, so it takes no more memory for a large network than for a small one, and the store is left as it was. Zeros are counted from the values and
// the masks (pkg/mask) that the store has. The error is a *BuildError.
//
// A convolution counts as outputs × kernel area × input channels / groups, a dense layer as outputs × inputs, padding and all.
func Of(b compute.Backend, store *model.Store, fn func(*model.Scope, *graph.Node) *graph.Node, input shapes.Shape) (Profile, error) {
	if fn == nil {
		return Profile{}, &BuildError{[]shapes.Shape{input}, errMissing}
	}
	return OfModel(b, store, trace.Single(fn), input)
}

// OfModel is Of for a model function in GoMLX's general form.
func OfModel(b compute.Backend, store *model.Store, fn trace.ModelFn, inputs ...shapes.Shape) (Profile, error) {
	p, _, err := count(b, store, fn, inputs)
	return p, err
}

var errMissing = errors.New("backend, store and model function must not be nil")

// count records a network and counts.
func count(b compute.Backend, store *model.Store, fn trace.ModelFn, inputs []shapes.Shape) (Profile, *counter, error) {
	failed := func(err error) (Profile, *counter, error) { return Profile{}, nil, &BuildError{inputs, err} }
	if b == nil || store == nil || fn == nil {
		return failed(errMissing)
	}
	for i, s := range inputs {
		if slices.ContainsFunc(s.Dimensions, func(d int) bool { return d < 1 }) { // of nothing, all counts are 0
			return failed(fmt.Errorf("expected fixed dimensions of at least 1, got %s for input %d: give a batch of 1 for counts per example", s, i))
		}
	}
	trained := map[string]bool{}
	t, err := trace.Record(b, store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		out := fn(scope, in)
		for v := range store.IterVariables() { // while those are there that the store does not have
			trained[v.Path()] = v.Trainable
		}
		return out
	}, trace.Config{}, inputs...)
	if err != nil {
		return failed(err)
	}
	c := newCounter(t, trained)
	for _, op := range t.Ops {
		c.count(op)
	}
	if err := c.parameters(); err != nil {
		return failed(err)
	}
	c.own()
	activations := c.activations()
	batch := 1
	if len(inputs) > 0 && inputs[0].Rank() > 0 {
		batch = inputs[0].Dimensions[0]
	}
	return Profile{Batch: batch, Layers: c.named(), Unknown: c.unknown, MACsPerWeight: c.perWeight, Activations: activations}, c, nil
}

// nonZero counts the elements that are not zero and, unless keep is nil, kept. What has no value that can be read counts as not zero.
func nonZero(v *model.Variable, keep []bool) (n int64, err error) {
	alive := func(i int) bool { return keep == nil || keep[i] }
	size := v.DType().Size()
	readable := v.DType().IsFloat() || v.DType().IsInt() && !v.DType().IsPacked()
	if !v.HasValue() || !readable {
		return int64(v.Shape().Size()) - dead(keep), nil
	}
	value, err := v.Value()
	if err != nil {
		return 0, err
	}
	var sign uint64 // −0 is zero
	if v.DType().IsFloat() {
		sign = 1 << (8*size - 1)
	}
	err = value.ConstBytes(func(data []byte) {
		for i := range len(data) / size {
			var bits uint64
			switch at := data[i*size:]; size {
			case 1:
				bits = uint64(at[0])
			case 2:
				bits = uint64(binary.LittleEndian.Uint16(at))
			case 4:
				bits = uint64(binary.LittleEndian.Uint32(at))
			case 8:
				bits = binary.LittleEndian.Uint64(at)
			}
			if bits&^sign != 0 && alive(i) {
				n++
			}
		}
	})
	return n, err
}

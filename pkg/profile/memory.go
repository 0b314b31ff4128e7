package profile

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapeinference"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// buffer holds values; users is how often they are still to be used.
type buffer struct {
	bytes int64
	users int
}

// activations goes through the operations in the order in which they were recorded, with what each value holds and frees. It adds to the layers what their operations write.
func (c *counter) activations() Activations {
	users := map[*trace.Value]int{}
	for _, op := range c.trace.Ops {
		for _, in := range op.Inputs {
			users[in]++
		}
	}
	for _, node := range c.trace.Outputs {
		for _, v := range trace.Of(node) {
			users[v]++ // whoever called
		}
	}
	var a Activations
	var now int64
	holds := map[*trace.Value]*buffer{}
	write := func(v *trace.Value) {
		holds[v] = &buffer{bytes: int64(v.Shape.ByteSize()), users: users[v]}
		now += holds[v].bytes
	}
	for _, op := range c.trace.Ops {
		if !c.fromInput[op.Outputs[0]] {
			continue
		}
		var read []*buffer
		for _, in := range op.Inputs {
			if b := holds[in]; b != nil {
				b.users--
				read = append(read, b)
			}
		}
		if reused := reusable(op, read); reused != nil {
			holds[op.Outputs[0]] = reused
			reused.users += users[op.Outputs[0]]
		} else {
			for _, out := range op.Outputs {
				write(out)
				if op.Type != "Parameter" {
					a.Sum += holds[out].bytes
					if l := c.layers[c.owner[op]]; l != nil {
						l.Activations += holds[out].bytes
					}
				}
				read = append(read, holds[out]) // of several outputs, some may have no use
			}
		}
		a.Peak = max(a.Peak, now)
		for i, b := range read {
			if b.users == 0 && !slices.Contains(read[:i], b) {
				now -= b.bytes
			}
		}
	}
	return a
}

// reusable returns the buffer, among those that an operation reads, that holds its output too; nil if it needs one of its own.
func reusable(op *trace.Op, read []*buffer) *buffer {
	if len(op.Outputs) > 1 {
		return nil
	}
	switch op.Type {
	case "Reshape", "Identity", "Bitcast":
		if len(read) > 0 {
			return read[0]
		}
	default:
		if !elementwise(op.Type) {
			return nil
		}
		for _, b := range read {
			if b.users == 0 && b.bytes == int64(op.Outputs[0].Shape.ByteSize()) {
				return b
			}
		}
	}
	return nil
}

// elementwise says whether an element of the output depends on one element of each operand that is not broadcast.
func elementwise(name string) bool {
	switch name {
	case "Where", "Clamp", "ConvertDType", "BatchNormForInference", "IsFinite", "IsNaN":
		return true
	}
	op, err := compute.OpTypeString(name)
	return err == nil && (shapeinference.StandardUnaryOperations.Has(op) || shapeinference.AllBinaryOperations.Has(op))
}

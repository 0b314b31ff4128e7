package onnx

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"google.golang.org/protobuf/encoding/protowire"
)

// attribute is one of a node that is written: ints, s, f if isFloat, else i.
type attribute struct {
	name    string
	ints    []int64
	s       string
	isFloat bool
	f       float32
	i       int64
}

func appendVarint(to []byte, number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, number, protowire.VarintType), value)
}

func (a attribute) marshal() []byte {
	b := appendBytes(nil, attrName, []byte(a.name))
	kind := uint64(kindInt)
	switch {
	case a.ints != nil:
		kind = kindInts
		for _, i := range a.ints {
			b = appendVarint(b, attrInts, uint64(i))
		}
	case a.s != "":
		kind = kindString
		b = appendBytes(b, attrString, []byte(a.s))
	case a.isFloat:
		kind = kindFloat
		b = protowire.AppendFixed32(protowire.AppendTag(b, attrFloat, protowire.Fixed32Type), math.Float32bits(a.f))
	default:
		b = appendVarint(b, attrInt, uint64(a.i))
	}
	return appendVarint(b, attrKind, kind)
}

// marshalPort writes an input or output; an axis whose dimension is −1 has the name names[i].
func marshalPort(name string, d dtypes.DType, dims []int64, names []string) []byte {
	var shape []byte
	for i, n := range dims {
		var dim []byte
		if n >= 0 {
			dim = appendVarint(dim, dimValue, uint64(n))
		} else {
			dim = appendBytes(dim, dimParam, []byte(names[i]))
		}
		shape = appendBytes(shape, shapeDim, dim)
	}
	tensor := appendBytes(appendVarint(nil, tensorTypeElem, elementTypes[d]), tensorShape, shape)
	return appendBytes(appendBytes(nil, valueName, []byte(name)), valueType, appendBytes(nil, typeTensor, tensor))
}

// marshalTensor writes a constant.
func marshalTensor(name string, d dtypes.DType, dims []int, data []byte) []byte {
	var t []byte
	for _, n := range dims {
		t = appendVarint(t, tensorDims, uint64(n))
	}
	t = appendVarint(t, tensorType, elementTypes[d])
	t = appendBytes(t, tensorName, []byte(name))
	return appendBytes(t, tensorRaw, data)
}

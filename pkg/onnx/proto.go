package onnx

import (
	"errors"
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of onnx.proto that are read or written here, by message. ONNX never changes a number.
const (
	modelIR, modelProducer, modelGraph, modelOpset, modelFunctions = 1, 2, 7, 8, 25
	opsetDomain, opsetVersion                                      = 1, 2
	entryKey, entryValue                                           = 1, 2

	graphNode, graphName, graphInitializer, graphInput, graphOutput, graphSparse = 1, 2, 5, 11, 12, 15

	nodeInput, nodeOutput, nodeName, nodeType, nodeAttribute, nodeDomain = 1, 2, 3, 4, 5, 7

	attrName, attrFloat, attrInt, attrString, attrTensor, attrGraph, attrInts = 1, 2, 3, 4, 5, 6, 8
	attrTensors, attrGraphs, attrKind                                         = 10, 11, 20
	kindFloat, kindInt, kindString, kindInts                                  = 1, 2, 3, 7

	tensorDims, tensorType, tensorSegment, tensorFloats, tensorInt32s, tensorStrings, tensorInt64s = 1, 2, 3, 4, 5, 6, 7
	tensorName, tensorRaw, tensorDoubles, tensorUint64s, tensorExternal                            = 8, 9, 10, 11, 13

	valueName, valueType        = 1, 2
	typeTensor                  = 1
	tensorTypeElem, tensorShape = 1, 2
	shapeDim                    = 1
	dimValue, dimParam          = 1, 2
)

// maxDepth bounds how deep graphs may lie in the attributes of nodes of graphs.
const maxDepth = 32

// elementTypes are ONNX's numbers for the element types that GoMLX has.
var elementTypes = map[dtypes.DType]uint64{
	dtypes.Float32: 1, dtypes.Uint8: 2, dtypes.Int8: 3, dtypes.Uint16: 4, dtypes.Int16: 5, dtypes.Int32: 6, dtypes.Int64: 7, dtypes.Bool: 9,
	dtypes.Float16: 10, dtypes.Float64: 11, dtypes.Uint32: 12, dtypes.Uint64: 13, dtypes.Complex64: 14, dtypes.Complex128: 15, dtypes.BFloat16: 16,
}

// elementType is the inverse of elementTypes; InvalidDType for others.
func elementType(number uint64) dtypes.DType {
	for d, n := range elementTypes {
		if n == number {
			return d
		}
	}
	return dtypes.InvalidDType
}

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	value  uint64 // of a number of any width
	bytes  []byte // of a message, a string or packed numbers; part of the file
	raw    []byte // the field as it is written, with its tag
}

// each calls f for the fields of a message in their order. Errors are of the message's form or f's.
func each(message []byte, f func(field) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		x := field{number: number, kind: kind, raw: message[:n+size]}
		content := message[n : n+size]
		switch kind {
		case protowire.VarintType:
			x.value, _ = protowire.ConsumeVarint(content)
		case protowire.Fixed32Type:
			v, _ := protowire.ConsumeFixed32(content)
			x.value = uint64(v)
		case protowire.Fixed64Type:
			x.value, _ = protowire.ConsumeFixed64(content)
		case protowire.BytesType:
			x.bytes, _ = protowire.ConsumeBytes(content)
		}
		if err := f(x); err != nil {
			return err
		}
		message = message[n+size:]
	}
	return nil
}

// A message that comes twice where there is one is joined by the importer's parser, and a number of another width is passed over by it: what was checked here would
// not be what is read.
var (
	errTwice = errors.New("a message twice where there is one")
	errWidth = errors.New("a number of another width")
)

// numbers appends those of a repeated field of varints, which may be packed.
func (f field) numbers(to []int64) ([]int64, error) {
	if f.kind == protowire.VarintType {
		return append(to, int64(f.value)), nil
	}
	if f.kind != protowire.BytesType {
		return to, errWidth
	}
	for rest := f.bytes; len(rest) > 0; {
		v, n := protowire.ConsumeVarint(rest)
		if n < 0 {
			return to, protowire.ParseError(n)
		}
		to, rest = append(to, int64(v)), rest[n:]
	}
	return to, nil
}

// count returns how many numbers a repeated field has, each of width bytes, or varints if that is 0.
func (f field) count(width int) (int64, error) {
	single := map[int]protowire.Type{0: protowire.VarintType, 4: protowire.Fixed32Type, 8: protowire.Fixed64Type}[width]
	switch {
	case f.kind == single:
		return 1, nil
	case f.kind != protowire.BytesType:
		return 0, errWidth
	case width > 0:
		if len(f.bytes)%width != 0 {
			return 0, fmt.Errorf("%d bytes for numbers of %d", len(f.bytes), width)
		}
		return int64(len(f.bytes) / width), nil
	}
	n := int64(0)
	for _, b := range f.bytes {
		if b < 0x80 { // the last byte of a varint
			n++
		}
	}
	return n, nil
}

// tensorProto is a constant, without its content.
type tensorProto struct {
	name     string
	dims     []int64
	element  uint64
	raw      int64 // bytes; -1: none
	counts   map[protowire.Number]int64
	external map[string]string
	segment  bool
}

func parseTensor(message []byte) (tensorProto, error) {
	t := tensorProto{raw: -1, counts: map[protowire.Number]int64{}}
	err := each(message, func(f field) (err error) {
		switch f.number {
		case tensorName:
			t.name = string(f.bytes)
		case tensorDims:
			t.dims, err = f.numbers(t.dims)
		case tensorType:
			t.element = f.value
		case tensorSegment:
			t.segment = true
		case tensorRaw:
			t.raw = int64(len(f.bytes))
		case tensorFloats, tensorInt32s, tensorInt64s, tensorDoubles, tensorUint64s:
			width := map[protowire.Number]int{tensorFloats: 4, tensorDoubles: 8}[f.number]
			var n int64
			n, err = f.count(width)
			t.counts[f.number] += n
		case tensorStrings:
			t.counts[f.number]++
		case tensorExternal:
			var key, value string
			err = each(f.bytes, func(f field) error {
				switch f.number {
				case entryKey:
					key = string(f.bytes)
				case entryValue:
					value = string(f.bytes)
				}
				return nil
			})
			if t.external == nil {
				t.external = map[string]string{}
			}
			t.external[key] = value
		}
		return err
	})
	return t, err
}

// size returns how many elements and bytes a tensor has by its dimensions; false if they are negative or overflow.
func (t tensorProto) size(width int) (elements, bytes int64, ok bool) {
	elements = 1
	for _, d := range t.dims {
		if d < 0 || d > 0 && elements > math.MaxInt64/8/d {
			return 0, 0, false
		}
		elements *= d
	}
	return elements, elements * int64(width), elements <= math.MaxInt64/16/int64(max(1, width))
}

// attributeProto is an attribute of a node, as far as it is looked at.
type attributeProto struct {
	name    string
	i       int64
	s       string
	ints    []int64
	tensors [][]byte
	graphs  [][]byte
}

func parseAttribute(message []byte) (attributeProto, error) {
	var a attributeProto
	seen := map[protowire.Number]bool{}
	err := each(message, func(f field) (err error) {
		if (f.number == attrTensor || f.number == attrGraph) && seen[f.number] {
			return errTwice
		}
		seen[f.number] = true
		switch f.number {
		case attrName:
			a.name = string(f.bytes)
		case attrInt:
			a.i = int64(f.value)
		case attrString:
			a.s = string(f.bytes)
		case attrInts:
			a.ints, err = f.numbers(a.ints)
		case attrTensor, attrTensors:
			a.tensors = append(a.tensors, f.bytes)
		case attrGraph, attrGraphs:
			a.graphs = append(a.graphs, f.bytes)
		}
		return err
	})
	return a, err
}

// nodeProto is a node.
type nodeProto struct {
	name, op, domain string
	inputs, outputs  []string
	attributes       [][]byte
}

func parseNode(message []byte) (nodeProto, error) {
	var n nodeProto
	err := each(message, func(f field) error {
		switch f.number {
		case nodeInput:
			n.inputs = append(n.inputs, string(f.bytes))
		case nodeOutput:
			n.outputs = append(n.outputs, string(f.bytes))
		case nodeName:
			n.name = string(f.bytes)
		case nodeType:
			n.op = string(f.bytes)
		case nodeDomain:
			n.domain = string(f.bytes)
		case nodeAttribute:
			n.attributes = append(n.attributes, f.bytes)
		}
		return nil
	})
	return n, err
}

// label names a node in an error.
func (n nodeProto) label() string {
	name := n.name
	if name == "" && len(n.outputs) > 0 {
		name = "that computes " + n.outputs[0]
	}
	return fmt.Sprintf("node %s (%s)", name, n.op)
}

// graphProto is a graph; its parts are not parsed yet.
type graphProto struct {
	name                                 string
	nodes, initializers, inputs, outputs [][]byte
	sparse                               bool
}

func parseGraph(message []byte) (graphProto, error) {
	var g graphProto
	err := each(message, func(f field) error {
		switch f.number {
		case graphName:
			g.name = string(f.bytes)
		case graphNode:
			g.nodes = append(g.nodes, f.bytes)
		case graphInitializer:
			g.initializers = append(g.initializers, f.bytes)
		case graphInput:
			g.inputs = append(g.inputs, f.bytes)
		case graphOutput:
			g.outputs = append(g.outputs, f.bytes)
		case graphSparse:
			g.sparse = true
		}
		return nil
	})
	return g, err
}

// modelProto is a whole model; its graph is not parsed yet.
type modelProto struct {
	ir        int64
	producer  string
	opsets    map[string]int64 // by domain; "" is ONNX's own
	graph     []byte
	functions bool
}

func parseModel(message []byte) (modelProto, error) {
	m := modelProto{opsets: map[string]int64{}}
	err := each(message, func(f field) error {
		switch f.number {
		case modelIR:
			m.ir = int64(f.value)
		case modelProducer:
			m.producer = string(f.bytes)
		case modelGraph:
			if m.graph != nil {
				return errTwice
			}
			m.graph = f.bytes
		case modelFunctions:
			m.functions = true
		case modelOpset:
			var domain string
			var version int64
			if err := each(f.bytes, func(f field) error {
				switch f.number {
				case opsetDomain:
					domain = string(f.bytes)
				case opsetVersion:
					version = int64(f.value)
				}
				return nil
			}); err != nil {
				return err
			}
			if domain == "ai.onnx" {
				domain = ""
			}
			m.opsets[domain] = version
		}
		return nil
	})
	return m, err
}

// parsePort reads the name, element type and shape of an input or output. Without a shape, which a scalar has, the dimensions are nil.
func parsePort(message []byte) (Port, error) {
	var p Port
	tensor := false
	err := each(message, func(f field) error {
		switch f.number {
		case valueName:
			p.Name = string(f.bytes)
		case valueType:
			return each(f.bytes, func(f field) error {
				if f.number != typeTensor {
					return nil
				}
				tensor = true
				return each(f.bytes, func(f field) error {
					switch f.number {
					case tensorTypeElem:
						p.DType = elementType(f.value)
					case tensorShape:
						if p.Dims == nil {
							p.Dims = []Dim{}
						}
						return each(f.bytes, func(f field) error {
							if f.number != shapeDim {
								return nil
							}
							d := Dim{Size: -1}
							err := each(f.bytes, func(f field) error {
								switch f.number {
								case dimValue:
									d.Size = int(f.value)
								case dimParam:
									d.Name = string(f.bytes)
								}
								return nil
							})
							p.Dims = append(p.Dims, d)
							return err
						})
					}
					return nil
				})
			})
		}
		return nil
	})
	if err == nil && !tensor {
		err = fmt.Errorf("%q is no tensor", p.Name)
	}
	return p, err
}

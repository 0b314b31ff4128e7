package onnx

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// clean returns a model without what means nothing and yet makes the importer refuse it. All other bytes stay as they are.
//
//   - dilations of 1 on a MaxPool, and the order in which indices would be numbered that nobody asked for; both of torch's exporters write them
//   - counting the padding in an AveragePool that has none
//   - the momentum of a BatchNormalization, which training alone uses
//   - auto_pad VALID, which is no padding, the default
//   - Dropout, which is nothing in inference
//   - Gelu by its approximation, of which the importer knows the older name
//   - inputs of the graph that are constants at the same time, as old files list them
func clean(model []byte) ([]byte, error) {
	var out []byte
	err := each(model, func(f field) error {
		if f.number != modelGraph {
			out = append(out, f.raw...)
			return nil
		}
		g, err := cleanGraph(f.bytes)
		if err != nil {
			return err
		}
		out = appendBytes(out, modelGraph, g)
		return nil
	})
	return out, err
}

func cleanGraph(graph []byte) ([]byte, error) {
	constants := map[string]bool{}
	err := each(graph, func(f field) error {
		if f.number != graphInitializer {
			return nil
		}
		return each(f.bytes, func(f field) error {
			if f.number == tensorName {
				constants[string(f.bytes)] = true
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(graph))
	err = each(graph, func(f field) error {
		switch f.number {
		case graphNode:
			n, err := cleanNode(f.bytes)
			if err != nil {
				return err
			}
			out = appendBytes(out, graphNode, n)
			return nil
		case graphInput:
			p, err := parsePort(f.bytes)
			if err != nil {
				return err
			}
			if constants[p.Name] {
				return nil
			}
		}
		out = append(out, f.raw...)
		return nil
	})
	return out, err
}

// cleanNode returns a node, which may have graphs within, without what means nothing.
func cleanNode(message []byte) ([]byte, error) {
	n, err := parseNode(message)
	if err != nil {
		return nil, err
	}
	left := func(names []string, i int) bool { return i >= len(names) || names[i] == "" }
	identity := n.op == "Dropout" && !left(n.inputs, 0) && !left(n.outputs, 0) && left(n.outputs, 1) && left(n.inputs, 2) // the third says whether it is trained
	if identity {
		out := appendBytes(nil, nodeInput, []byte(n.inputs[0]))
		out = appendBytes(out, nodeOutput, []byte(n.outputs[0]))
		out = appendBytes(out, nodeName, []byte(n.name))
		return appendBytes(out, nodeType, []byte("Identity")), nil
	}
	attributes := map[string]attributeProto{}
	for _, a := range n.attributes {
		parsed, err := parseAttribute(a)
		if err != nil {
			return nil, err
		}
		attributes[parsed.name] = parsed
	}
	var out []byte
	err = each(message, func(f field) error {
		if f.number == nodeType && n.op == "Gelu" && attributes["approximate"].s == "tanh" {
			out = appendBytes(out, nodeType, []byte("FastGelu"))
			return nil
		}
		if f.number != nodeAttribute {
			out = append(out, f.raw...)
			return nil
		}
		a, err := parseAttribute(f.bytes)
		if err != nil || trivial(n, a, attributes) {
			return err
		}
		if len(a.graphs) == 0 {
			out = append(out, f.raw...)
			return nil
		}
		var cleaned []byte
		err = each(f.bytes, func(f field) error {
			if f.number != attrGraph && f.number != attrGraphs {
				cleaned = append(cleaned, f.raw...)
				return nil
			}
			g, err := cleanGraph(f.bytes)
			cleaned = appendBytes(cleaned, f.number, g)
			return err
		})
		out = appendBytes(out, nodeAttribute, cleaned)
		return err
	})
	return out, err
}

// trivial tells whether an attribute says what is so without it.
func trivial(n nodeProto, a attributeProto, all map[string]attributeProto) bool {
	is := func(value int64) func(int64) bool { return func(x int64) bool { return x != value } }
	switch {
	case a.name == "auto_pad" && a.s == "VALID" && slices.Contains([]string{"Conv", "MaxPool", "AveragePool"}, n.op):
		return !slices.ContainsFunc(all["pads"].ints, is(0))
	case a.name == "dilations" && n.op == "MaxPool":
		return !slices.ContainsFunc(a.ints, is(1))
	case a.name == "storage_order" && n.op == "MaxPool":
		return len(n.outputs) == 1
	case a.name == "count_include_pad" && n.op == "AveragePool":
		pad := all["auto_pad"].s
		return (pad == "" || pad == "NOTSET" || pad == "VALID") && !slices.ContainsFunc(all["pads"].ints, is(0))
	case a.name == "momentum" && n.op == "BatchNormalization":
		return all["training_mode"].i == 0
	}
	return false
}

// appendBytes appends a field of a message, string or packed numbers.
func appendBytes(to []byte, number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), content)
}

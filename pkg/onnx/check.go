package onnx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	"google.golang.org/protobuf/encoding/protowire"
)

// oldest is the first set of operators that is read. Before it Clip, Softmax, Dropout and others meant or wrote something else, which the importer does not know.
const oldest = 13

// newest is the last one whose changes the rules were held against, that of ONNX 1.19: what an operation means in a later one nobody here knows.
const newest = 24

// checker looks at a model before anything is allocated for it.
type checker struct {
	file    string
	dir     string           // where external data may lie
	outside map[string]int64 // sizes of files with external data, by location
	taken   int64            // bytes of external data
	fixed   map[string]bool  // constants that training must not change: statistics of batch normalisation
	same    map[string]string
}

func (c *checker) bad(kind error, where, expected, came, remedy string, cause error) error {
	return &Error{Kind: kind, File: c.file, Where: where, Expected: expected, Came: came, Remedy: remedy, Err: cause}
}

// broken is the error for bytes that are no message.
func (c *checker) broken(where string, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	return c.bad(ErrFormat, where, "an ONNX model", "bytes that are none", "export or fetch the file again", err)
}

// model checks all of a model.
func (c *checker) model(m modelProto) error {
	if m.graph == nil {
		return c.bad(ErrFormat, "", "an ONNX model with a graph", "none", "export or fetch the file again", nil)
	}
	if v := m.opsets[""]; v < oldest {
		return c.bad(ErrUnsupported, "", fmt.Sprintf("operator set %d or newer", oldest), fmt.Sprint(v), "export it again, or convert it with onnx.version_converter", nil)
	}
	if v := m.opsets[""]; v > newest {
		return c.bad(ErrUnsupported, "", fmt.Sprintf("operator set %d or older", newest), fmt.Sprint(v), "export it for an older one, or convert it with onnx.version_converter", nil)
	}
	if m.functions {
		return c.bad(ErrUnsupported, "", "a graph of operators", "functions of the model's own", "export it with functions inlined", nil)
	}
	return c.broken("", c.graph(m.graph, map[string]bool{}, 0))
}

// graph checks a graph in which the names of outer ones are known.
func (c *checker) graph(message []byte, outer map[string]bool, depth int) error {
	if depth > maxDepth {
		return c.bad(ErrLimit, "", fmt.Sprintf("graphs at most %d deep", maxDepth), "deeper ones", "do not trust this file", nil)
	}
	g, err := parseGraph(message)
	if err != nil {
		return err
	}
	if g.sparse {
		return c.bad(ErrUnsupported, "graph "+g.name, "dense constants", "sparse ones", "export it with dense ones", nil)
	}
	known := make(map[string]bool, len(outer)+len(g.nodes))
	for name := range outer {
		known[name] = true
	}
	for _, in := range g.inputs {
		p, err := parsePort(in)
		if err != nil {
			return err
		}
		if known[p.Name] && !outer[p.Name] {
			return c.bad(ErrFormat, "graph "+g.name, "each input once", fmt.Sprintf("%q again", p.Name), "export the file again", nil)
		}
		known[p.Name] = true
	}
	variables := map[string]string{} // constants by what they become
	for _, constant := range g.initializers {
		t, err := parseTensor(constant)
		if err != nil {
			return err
		}
		if err := c.tensor(t); err != nil {
			return err
		}
		if other, found := variables[variable(t.name)]; found && other == t.name {
			return c.bad(ErrFormat, "tensor "+t.name, "each constant once", "another of this name", "export the file again", nil)
		} else if found {
			return c.bad(ErrUnsupported, "tensor "+t.name, "names that differ in more than / and |, which are one in a variable's name", fmt.Sprintf("%q too", other), "rename one of them", nil)
		}
		variables[variable(t.name)] = t.name
		known[t.name] = true
	}
	for _, node := range g.nodes {
		n, err := parseNode(node)
		if err != nil {
			return err
		}
		if err := c.node(n, known, depth); err != nil {
			return err
		}
		for _, out := range n.outputs {
			if out == "" {
				continue
			}
			if known[out] && !outer[out] {
				return c.bad(ErrFormat, n.label(), "each name once", fmt.Sprintf("%q again", out), "export the file again", nil)
			}
			known[out] = true
		}
	}
	for _, out := range g.outputs {
		p, err := parsePort(out)
		if err != nil {
			return err
		}
		if !known[p.Name] {
			return c.bad(ErrFormat, "graph "+g.name, "outputs that something computes", fmt.Sprintf("%q, which nothing does", p.Name), "export the file again", nil)
		}
	}
	return nil
}

// node checks a node. Its inputs must come before it, as ONNX has it, so that there are no cycles.
func (c *checker) node(n nodeProto, known map[string]bool, depth int) error {
	if !operators[n.op] {
		name := n.op
		if n.domain != "" && n.domain != "ai.onnx" {
			name = n.domain + "." + n.op
		}
		return c.bad(ErrUnsupported, n.label(), "an operation that there is a rule for", strconv.Quote(name), "replace it in the model before exporting it", nil)
	}
	if len(n.outputs) == 0 {
		return c.bad(ErrFormat, n.label(), "an output", "none", "export the file again", nil)
	}
	for _, in := range n.inputs {
		if in != "" && !known[in] {
			return c.bad(ErrFormat, n.label(), "inputs that were computed before", fmt.Sprintf("%q, which was not", in), "sort the graph, or export the file again", nil)
		}
	}
	if n.op == "Identity" && len(n.inputs) == 1 && depth == 0 { // names within graphs of nodes may be used again
		c.same[n.outputs[0]] = n.inputs[0]
	}
	if n.op == "BatchNormalization" && len(n.inputs) == 5 {
		c.fixed[n.inputs[3]], c.fixed[n.inputs[4]] = true, true
	}
	attributes, pads := make([]attributeProto, len(n.attributes)), false
	for i, attribute := range n.attributes {
		a, err := parseAttribute(attribute)
		if err != nil {
			return err
		}
		attributes[i] = a
		pads = pads || a.name == "pads" && slices.ContainsFunc(a.ints, func(p int64) bool { return p != 0 })
	}
	for _, a := range attributes {
		if passedOver(n.op, a) {
			return c.bad(ErrUnsupported, n.label(), "an operation without "+a.name, fmt.Sprintf("one with %d %v", a.i, a.ints), "replace it in the model before exporting it", nil)
		}
		if came, remedy := unknown(n.op, a, pads); came != "" {
			return c.bad(ErrUnsupported, n.label(), "an operation without "+a.name, came, remedy, nil)
		}
		for _, tensor := range a.tensors {
			t, err := parseTensor(tensor)
			if err != nil {
				return err
			}
			if t.name == "" {
				t.name = a.name + " of " + n.label()
			}
			if err := c.tensor(t); err != nil {
				return err
			}
		}
		for _, graph := range a.graphs {
			if err := c.graph(graph, known, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// passedOver tells whether an attribute changes what an operation computes and the importer does not look at it: a model must not be read as another.
func passedOver(op string, a attributeProto) bool {
	switch op + " " + a.name {
	case "AveragePool dilations":
		return slices.ContainsFunc(a.ints, func(d int64) bool { return d != 1 })
	case "ArgMax select_last_index", "ArgMin select_last_index":
		return a.i != 0
	}
	return false
}

// unknown says what of an attribute the importer has no rule for, which it would say in words of its own when the graph is built, and what to do. pads: the operation pads.
func unknown(op string, a attributeProto, pads bool) (came, remedy string) {
	switch op + " " + a.name {
	case "Conv auto_pad", "MaxPool auto_pad", "AveragePool auto_pad":
		if a.s != "NOTSET" && a.s != "VALID" && a.s != "" {
			return a.s, "export it with pads in numbers: onnxsim writes them where the size of the input is fixed"
		}
	case "MaxPool ceil_mode", "AveragePool ceil_mode":
		if a.i != 0 {
			return "one that rounds its output up", "pad its input so that nothing has to be rounded, and export it again"
		}
	case "AveragePool count_include_pad":
		if a.i != 0 && pads {
			return "one that counts what it pads", "pad by an operation before it, and export it again"
		}
	case "BatchNormalization training_mode":
		if a.i != 0 {
			return "one in training", "export it in inference: model.eval() in PyTorch"
		}
	}
	return "", ""
}

// stored says in which field a type's numbers are, if they are not raw.
func stored(d dtypes.DType) protowire.Number {
	switch d {
	case dtypes.Float32, dtypes.Complex64:
		return tensorFloats
	case dtypes.Float64, dtypes.Complex128:
		return tensorDoubles
	case dtypes.Int64:
		return tensorInt64s
	case dtypes.Uint32, dtypes.Uint64:
		return tensorUint64s
	}
	return tensorInt32s
}

// tensor checks that a constant has the bytes that its dimensions promise.
func (c *checker) tensor(t tensorProto) error {
	where := "tensor " + t.name
	d := elementType(t.element)
	if d == dtypes.InvalidDType || t.segment {
		return c.bad(ErrUnsupported, where, "numbers of a type that GoMLX has, in one piece", fmt.Sprintf("ONNX's type %d", t.element), "convert it to float32 or int64", nil)
	}
	elements, bytes, ok := t.size(d.Size())
	if !ok {
		return c.bad(ErrFormat, where, "dimensions that can be", fmt.Sprint(t.dims), "do not trust this file", nil)
	}
	switch {
	case t.external != nil:
		return c.external(where, t, bytes)
	case t.raw >= 0:
		if t.raw != bytes {
			return c.bad(ErrFormat, where, fmt.Sprintf("%d bytes for %s%v", bytes, d, t.dims), fmt.Sprint(t.raw), "export or fetch the file again", nil)
		}
	default:
		for number, n := range t.counts {
			if n > 0 && number != stored(d) {
				return c.bad(ErrFormat, where, fmt.Sprintf("numbers in the field for %s, %d", d, stored(d)), fmt.Sprintf("some in field %d", number), "export or fetch the file again", nil)
			}
		}
		if elements > 0 && (d == dtypes.Float16 || d == dtypes.BFloat16) { // the importer takes their bits for a number
			return c.bad(ErrUnsupported, where, fmt.Sprintf("%s as raw data", d), "as numbers of 32 bits", "write it again by onnx.numpy_helper: from_array(to_array(t), t.name)", nil)
		}
		n := t.counts[stored(d)]
		if d == dtypes.Complex64 || d == dtypes.Complex128 {
			n /= 2
		}
		if n != elements {
			return c.bad(ErrFormat, where, fmt.Sprintf("%d numbers for %s%v", elements, d, t.dims), fmt.Sprint(n), "export or fetch the file again", nil)
		}
	}
	return nil
}

// external checks data that lies in another file: one below the model's folder, which has that many bytes.
func (c *checker) external(where string, t tensorProto, bytes int64) error {
	location := t.external["location"]
	remedy := "keep the file with its data in one folder"
	if !filepath.IsLocal(location) {
		return c.bad(ErrUnsafe, where, "a file below the model's folder", strconv.Quote(location), remedy, nil)
	}
	offset, length := int64(0), bytes
	for key, to := range map[string]*int64{"offset": &offset, "length": &length} {
		if text, given := t.external[key]; given {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				return c.bad(ErrFormat, where, key+" of external data", strconv.Quote(text), "export the file again", err)
			}
			*to = n
		}
	}
	if length != bytes {
		return c.bad(ErrFormat, where, fmt.Sprintf("%d bytes for its shape %v", bytes, t.dims), fmt.Sprintf("a length of %d", length), "export the file again", nil)
	}
	size, found := c.outside[location]
	if !found {
		if c.dir == "" {
			return c.bad(ErrMissing, where, "a folder with the external data", "a model without one", "give the path of the model's file", nil)
		}
		info, err := statIn(c.dir, location)
		if err != nil {
			kind := ErrUnsafe // a link out of the folder, for instance
			if errors.Is(err, fs.ErrNotExist) {
				kind = ErrMissing
			}
			return c.bad(kind, where, "external data in "+location, "none that can be read", remedy, err)
		}
		if !info.Mode().IsRegular() {
			return c.bad(ErrUnsafe, where, "a regular file", info.Mode().Type().String(), remedy, nil)
		}
		size = info.Size()
		c.outside[location] = size
	}
	if offset > size || length > size-offset {
		return c.bad(ErrFormat, where, fmt.Sprintf("%d bytes at %d of %s", length, offset, location), fmt.Sprintf("a file of %d", size), "fetch the data again", nil)
	}
	c.taken += length
	var all int64
	for _, n := range c.outside {
		all += n
	}
	if c.taken > 2*all {
		return c.bad(ErrLimit, where, "at most twice the bytes that the files have", "more, by tensors that share them", "do not trust this file", nil)
	}
	return nil
}

func statIn(dir, name string) (fs.FileInfo, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Stat(name)
}

// origin follows a value through operations that change nothing.
func (c *checker) origin(name string) string {
	for c.same[name] != "" {
		name = c.same[name]
	}
	return name
}

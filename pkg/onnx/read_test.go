package onnx

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func open(t testing.TB) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// torchDir is where testdata/torch/models.py has written the networks: small ones that are committed, or those of ESPALIER_TORCH_DIR.
func torchDir() string {
	if dir := os.Getenv("ESPALIER_TORCH_DIR"); dir != "" {
		return dir
	}
	return filepath.Join("testdata", "torch")
}

var torchNetworks = []string{"resnet18", "vgg16_bn", "mobilenet_v2"}

// signal is models.py's.
func signal(dims ...int) *tensors.Tensor {
	x := make([]float32, shapes.Make(dtypes.Float32, dims...).Size())
	for i := range x {
		x[i] = float32((uint64(i)*1103515245+12345)%65536)/32768 - 1
	}
	return tensors.FromFlatDataAndDimensions(x, dims...)
}

// call runs a model function in inference and returns its outputs.
func call(t testing.TB, b compute.Backend, store *model.Store, fn trace.ModelFn, inputs ...*tensors.Tensor) [][]float32 {
	t.Helper()
	exec, err := model.NewExec(b, store, fn)
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	args := make([]any, len(inputs))
	for i, x := range inputs {
		args[i] = x
	}
	outputs, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	all := make([][]float32, len(outputs))
	for i, y := range outputs {
		all[i] = tensors.MustCopyFlatData[float32](y)
	}
	return all
}

// difference is the largest between two lists, and the largest magnitude in the first.
func difference(a, b []float32) (largest, magnitude float64) {
	if len(a) != len(b) {
		return math.Inf(1), 0
	}
	for i := range a {
		largest, magnitude = max(largest, math.Abs(float64(a[i])-float64(b[i]))), max(magnitude, math.Abs(float64(a[i])))
		if a[i] != a[i] || b[i] != b[i] {
			return math.Inf(1), magnitude
		}
	}
	return largest, magnitude
}

func read(t testing.TB, name string) *Model {
	t.Helper()
	m, err := Read(filepath.Join(torchDir(), name+".onnx"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Both exporters' files compute what torch computed.
func TestReadTorch(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(torchDir(), "outputs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]struct {
		Input  []int
		Output [][]float32
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	b := open(t)
	for _, network := range torchNetworks {
		for _, exporter := range []string{"legacy", "dynamo"} {
			t.Run(network+" "+exporter, func(t *testing.T) {
				m := read(t, network+"_"+exporter)
				if m.Producer != "pytorch" || m.Opset < oldest || len(m.Inputs) != 1 || m.Inputs[0].Name != "x" || m.Outputs[0].Name != "y" {
					t.Errorf("%s, operator set %d, %v -> %v", m.Producer, m.Opset, m.Inputs, m.Outputs)
				}
				w := want[network]
				y := call(t, b, m.Store, m.ModelFn, signal(w.Input...))[0]
				d, magnitude := difference(slices.Concat(w.Output...), y)
				t.Logf("max |Δ| %.2g of %.3g", d, magnitude)
				if d > 1e-4*max(1, magnitude) {
					t.Errorf("max |Δ| to torch %g of %g", d, magnitude)
				}
			})
		}
	}
}

func TestDescription(t *testing.T) {
	legacy, dynamo := read(t, "resnet18_legacy"), read(t, "resnet18_dynamo")
	if got := legacy.Inputs[0].String(); !strings.HasPrefix(got, "x Float32[batch, 3, ") || legacy.FreeBatch() != "batch" {
		t.Errorf("input %s, free %q", got, legacy.FreeBatch())
	}
	if dynamo.FreeBatch() != "" {
		t.Errorf("a batch that is fixed is free as %q", dynamo.FreeBatch())
	}
	all, err := legacy.Shapes(map[string]int{"batch": 7})
	if err != nil || all[0].Dimensions[0] != 7 {
		t.Errorf("shapes %v, %v", all, err)
	}
	if _, err := legacy.Shapes(map[string]int{"batch": 7, "width": 3}); !errors.Is(err, ErrShape) || !strings.Contains(err.Error(), `one for "width"`) {
		t.Errorf("a size that is for none: %v", err)
	}
	if _, err := legacy.Shapes(map[string]int{"batch": 7, "": 3}); err != nil {
		t.Errorf("a size for what FreeBatch says where the batch is fixed: %v", err)
	}
	if _, err := legacy.Shapes(nil); !errors.Is(err, ErrShape) || !strings.Contains(err.Error(), `"batch"`) {
		t.Errorf("no size for the batch: %v", err)
	}
	// An input without a shape is no scalar, and no memory has the other one.
	m := newBuild(17)
	element := protowire.AppendVarint(protowire.AppendTag(nil, tensorTypeElem, protowire.VarintType), 1)
	m.graph = appendBytes(m.graph, graphInput, appendBytes(appendBytes(nil, valueName, []byte("x")), valueType, appendBytes(nil, typeTensor, element)))
	m.node("Neg", []string{"x"}, "y")
	m.port(graphOutput, "y", 4)
	huge := newBuild(17)
	huge.port(graphInput, "x", 1<<40, 1<<30)
	huge.node("Neg", []string{"x"}, "y")
	huge.port(graphOutput, "y", 1<<40, 1<<30)
	scalar := newBuild(17)
	scalar.port(graphInput, "x")
	scalar.node("Neg", []string{"x"}, "y")
	scalar.port(graphOutput, "y")
	for _, c := range []struct {
		m    *build
		want error
	}{{m, ErrShape}, {huge, ErrLimit}, {scalar, nil}} {
		read, err := Parse(c.m.bytes())
		if err != nil {
			t.Fatal(err)
		}
		if all, err := read.Shapes(nil); !errors.Is(err, c.want) {
			t.Errorf("%v: shapes %v, %v; want %v", read.Inputs, all, err, c.want)
		}
	}
	// What training must not touch.
	var fixed, free []string
	for v := range legacy.Store.IterVariables() {
		if v.Trainable {
			free = append(free, v.Path())
		} else {
			fixed = append(fixed, v.Path())
		}
	}
	if !slices.Contains(free, "/ONNX/layer1.0.conv1.weight") || !slices.Contains(free, "/ONNX/bn1.weight") {
		t.Errorf("trainable: %q", free)
	}
	if !slices.Contains(fixed, "/ONNX/bn1.running_mean") || !slices.Contains(fixed, "/ONNX/layer1.0.bn1.running_var") || len(fixed) != 40 {
		t.Errorf("%d are not trainable: %q", len(fixed), fixed)
	}
}

// The list of operators is the importer's.
func TestOperators(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gomlx/onnx-gomlx").Output()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "internal", "onnxgomlx", "graph.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"Dropout": true} // which clean removes
	for _, m := range regexp.MustCompile(`(?m)^\tcase "(\w+)":`).FindAllSubmatch(source, -1) {
		want[string(m[1])] = true
	}
	if diff := cmp.Diff(want, operators); diff != "" {
		t.Errorf("operators.go (-want +got)\n%s", diff)
	}
}

// build makes small models by hand.
type build struct{ model, graph []byte }

func newBuild(opset int64) *build {
	b := &build{}
	var set []byte
	set = protowire.AppendVarint(protowire.AppendTag(set, opsetVersion, protowire.VarintType), uint64(opset))
	b.model = protowire.AppendVarint(protowire.AppendTag(nil, modelIR, protowire.VarintType), 8)
	b.model = appendBytes(b.model, modelOpset, set)
	return b
}

func (b *build) port(number protowire.Number, name string, dims ...int64) {
	b.graph = appendBytes(b.graph, number, marshalPort(name, dtypes.Float32, dims, nil))
}

func (b *build) node(op string, inputs []string, output string, attributes ...[]byte) {
	var n []byte
	for _, in := range inputs {
		n = appendBytes(n, nodeInput, []byte(in))
	}
	n = appendBytes(n, nodeOutput, []byte(output))
	n = appendBytes(n, nodeType, []byte(op))
	for _, a := range attributes {
		n = appendBytes(n, nodeAttribute, a)
	}
	b.graph = appendBytes(b.graph, graphNode, n)
}

func (b *build) bytes() []byte { return appendBytes(slices.Clone(b.model), modelGraph, b.graph) }

// tensor is a constant of float32 with content of a given size, whatever its dimensions.
func floats(name string, bytes int, dims ...int64) []byte {
	var t []byte
	for _, d := range dims {
		t = protowire.AppendVarint(protowire.AppendTag(t, tensorDims, protowire.VarintType), uint64(d))
	}
	t = protowire.AppendVarint(protowire.AppendTag(t, tensorType, protowire.VarintType), 1)
	t = appendBytes(t, tensorName, []byte(name))
	if bytes >= 0 {
		t = appendBytes(t, tensorRaw, make([]byte, bytes))
	}
	return t
}

func external(t []byte, entries ...string) []byte {
	for i := 0; i < len(entries); i += 2 {
		entry := appendBytes(nil, entryKey, []byte(entries[i]))
		t = appendBytes(t, tensorExternal, appendBytes(entry, entryValue, []byte(entries[i+1])))
	}
	return t
}

func TestClean(t *testing.T) {
	b := open(t)
	m := newBuild(17)
	m.port(graphInput, "x", 1, 1, 4, 4)
	m.port(graphInput, "w", 1, 1, 1, 1) // a constant, listed as old files do
	m.graph = appendBytes(m.graph, graphInitializer, floats("w", 4, 1, 1, 1, 1))
	ints := func(name string, values ...int64) []byte { return attribute{name: name, ints: values}.marshal() }
	m.node("MaxPool", []string{"x"}, "a", ints("kernel_shape", 2, 2), ints("strides", 2, 2), ints("dilations", 1, 1), attribute{name: "storage_order", i: 1}.marshal())
	m.node("AveragePool", []string{"a"}, "b", ints("kernel_shape", 2, 2), attribute{name: "count_include_pad", i: 1}.marshal(), attribute{name: "auto_pad", s: "VALID"}.marshal())
	m.node("Dropout", []string{"b"}, "c")
	m.node("Add", []string{"c", "w"}, "y")
	m.port(graphOutput, "y", 1, 1, 1, 1)
	read, err := Parse(m.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if len(read.Inputs) != 1 {
		t.Errorf("inputs %v", read.Inputs)
	}
	x := make([]float32, 16)
	for i := range x {
		x[i] = float32(i)
	}
	// Largest of the quarters: 5, 7, 13, 15; their mean is 10.
	y := call(t, b, read.Store, read.ModelFn, tensors.FromFlatDataAndDimensions(x, 1, 1, 4, 4))[0]
	if diff := cmp.Diff([]float32{10}, y); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	// The approximation of Gelu, 0.841192 at 1, is not read as Gelu itself, 0.841345.
	m = newBuild(20)
	m.port(graphInput, "x", 1)
	m.node("Gelu", []string{"x"}, "y", attribute{name: "approximate", s: "tanh"}.marshal())
	m.port(graphOutput, "y", 1)
	if read, err = Parse(m.bytes()); err != nil {
		t.Fatal(err)
	}
	if y := call(t, b, read.Store, read.ModelFn, tensors.FromFlatDataAndDimensions([]float32{1}, 1))[0][0]; math.Abs(float64(y)-0.841192) > 1e-5 {
		t.Errorf("Gelu by tanh of 1 is %g, expected 0.841192", y)
	}

	// What means something stays, and is refused by name.
	m = newBuild(17)
	m.port(graphInput, "x", 1, 1, 4, 4)
	m.node("MaxPool", []string{"x"}, "y", ints("kernel_shape", 2, 2), ints("dilations", 2, 2))
	m.port(graphOutput, "y", 1, 1, 2, 2)
	if read, err = Parse(m.bytes()); err != nil {
		t.Fatal(err)
	}
	_, err = trace.Record(b, read.Store, read.ModelFn, trace.Config{}, shapes.Make(dtypes.Float32, 1, 1, 4, 4))
	if !errors.Is(err, ErrShape) || !strings.Contains(err.Error(), "dilations") {
		t.Errorf("dilations of 2: %v", err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "weights.bin"), make([]byte, 64), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link.bin")); err != nil {
		t.Fatal(err)
	}
	with := func(constant []byte) []byte {
		m := newBuild(17)
		m.port(graphInput, "x", 4)
		m.graph = appendBytes(m.graph, graphInitializer, constant)
		m.node("Add", []string{"x", "w"}, "y")
		m.port(graphOutput, "y", 4)
		return m.bytes()
	}
	custom := func(opset int64, op string, in string) []byte {
		m := newBuild(opset)
		m.port(graphInput, "x", 4)
		m.node(op, []string{in}, "y")
		m.port(graphOutput, "y", 4)
		return m.bytes()
	}
	dilated := newBuild(19)
	dilated.port(graphInput, "x", 1, 1, 4, 4)
	dilated.node("AveragePool", []string{"x"}, "y", attribute{name: "kernel_shape", ints: []int64{2, 2}}.marshal(), attribute{name: "dilations", ints: []int64{2, 2}}.marshal())
	dilated.port(graphOutput, "y", 1, 1, 2, 2)
	one := func(op string, inputs []string, attributes ...attribute) []byte {
		m := newBuild(17)
		for _, in := range inputs {
			m.port(graphInput, in, 1, 1, 4, 4)
		}
		var all [][]byte
		for _, a := range attributes {
			all = append(all, a.marshal())
		}
		m.node(op, inputs, "y", all...)
		m.port(graphOutput, "y", 1, 1, 4, 4)
		return m.bytes()
	}
	window, x := attribute{name: "kernel_shape", ints: []int64{3, 3}}, []string{"x"}
	// What a parser of Protocol Buffers joins, or passes over, is not what each part is by itself.
	varint := func(to []byte, number protowire.Number, x uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(to, number, protowire.VarintType), x)
	}
	large := newBuild(17)
	large.port(graphInput, "x", 4)
	large.graph = appendBytes(large.graph, graphInitializer, external(floats("w", -1, 1<<20), "location", "weights.bin"))
	small := newBuild(17)
	small.port(graphInput, "w", 4)
	small.node("Neg", []string{"w"}, "y")
	small.port(graphOutput, "y", 4)
	value := varint(appendBytes(nil, attrName, []byte("value")), attrKind, 4)
	value = appendBytes(appendBytes(value, attrTensor, floats("", 16, 4)), attrTensor, external(floats("", -1, 4), "location", "weights.bin"))
	joined := newBuild(17)
	joined.port(graphInput, "x", 4)
	joined.node("Constant", nil, "w", value)
	joined.node("Add", []string{"x", "w"}, "y")
	joined.port(graphOutput, "y", 4)
	wide := external(floats("w", -1, 1<<20), "location", "weights.bin")
	wide = protowire.AppendFixed32(protowire.AppendTag(wide, tensorDims, protowire.Fixed32Type), 0)
	// 1 in half precision is 0x3c00.
	half := appendBytes(varint(varint(nil, tensorDims, 1), tensorType, 10), tensorName, []byte("w"))
	half = appendBytes(half, tensorInt32s, protowire.AppendVarint(nil, 0x3c00))
	twoFields := appendBytes(floats("w", -1, 4), tensorFloats, make([]byte, 16))
	twoFields = appendBytes(twoFields, tensorDoubles, make([]byte, 32))
	both := func(inputs []string, constants ...string) []byte {
		m := newBuild(17)
		for _, name := range inputs {
			m.port(graphInput, name, 4)
		}
		for _, name := range constants {
			m.graph = appendBytes(m.graph, graphInitializer, floats(name, 16, 4))
		}
		m.node("Neg", []string{"x"}, "y")
		m.port(graphOutput, "y", 4)
		return m.bytes()
	}
	many := newBuild(17)
	many.port(graphInput, "x", 4)
	for i := range 9 {
		many.graph = appendBytes(many.graph, graphInitializer, external(floats(fmt.Sprint("w", i), -1, 16), "location", "weights.bin"))
	}
	many.node("Neg", []string{"x"}, "y")
	many.port(graphOutput, "y", 4)
	for name, c := range map[string]struct {
		content []byte
		kind    error
		want    string
	}{
		"nothing":              {nil, ErrFormat, "graph"},
		"text":                 {[]byte("this is no model"), ErrFormat, "bytes that are none"},
		"huge dimensions":      {with(floats("w", 16, math.MaxInt64/2, 8)), ErrFormat, "dimensions that can be"},
		"negative dimensions":  {with(floats("w", 16, -4)), ErrFormat, "tensor w"},
		"more than it has":     {with(floats("w", 16, 1<<40)), ErrFormat, "tensor w"},
		"no content":           {with(floats("w", -1, 4)), ErrFormat, "tensor w"},
		"leaves the folder":    {with(external(floats("w", -1, 4), "location", "../weights.bin")), ErrUnsafe, `"../weights.bin"`},
		"absolute":             {with(external(floats("w", -1, 4), "location", "/etc/hostname")), ErrUnsafe, "tensor w"},
		"link out":             {with(external(floats("w", -1, 4), "location", "link.bin")), ErrUnsafe, "link.bin"},
		"not there":            {with(external(floats("w", -1, 4), "location", "other.bin")), ErrMissing, "other.bin"},
		"shorter than said":    {with(external(floats("w", -1, 4), "location", "weights.bin", "offset", "56")), ErrFormat, "16 bytes at 56"},
		"negative offset":      {with(external(floats("w", -1, 4), "location", "weights.bin", "offset", "-8")), ErrFormat, `offset of external data, came "-8"`},
		"one for many":         {many.bytes(), ErrLimit, "share"},
		"unknown operation":    {custom(17, "Frobnicate", "x"), ErrUnsupported, `"Frobnicate"`},
		"would be misread":     {dilated.bytes(), ErrUnsupported, "dilations"},
		"old set of operators": {custom(9, "Neg", "x"), ErrUnsupported, "operator set 13"},
		"a set to come":        {custom(99, "Neg", "x"), ErrUnsupported, "operator set 24 or older, came 99"},
		"padding by a word":    {one("MaxPool", x, window, attribute{name: "auto_pad", s: "SAME_UPPER"}), ErrUnsupported, "without auto_pad, came SAME_UPPER"},
		"rounded up":           {one("MaxPool", x, window, attribute{name: "ceil_mode", i: 1}), ErrUnsupported, "without ceil_mode"},
		"padding that counts":  {one("AveragePool", x, window, attribute{name: "count_include_pad", i: 1}, attribute{name: "pads", ints: []int64{1, 1, 1, 1}}), ErrUnsupported, "without count_include_pad"},
		"in training":          {one("BatchNormalization", []string{"x", "a", "b", "c", "d"}, attribute{name: "training_mode", i: 1}), ErrUnsupported, "model.eval()"},
		"two graphs":           {append(large.bytes(), small.bytes()...), ErrFormat, "twice"},
		"two values":           {joined.bytes(), ErrFormat, "twice"},
		"a wide dimension":     {with(wide), ErrFormat, "width"},
		"bits as a number":     {with(half), ErrUnsupported, "Float16 as raw data"},
		"two kinds of numbers": {with(twoFields), ErrFormat, "field 10"},
		"a constant twice":     {both(x, "w", "w"), ErrFormat, "each constant once"},
		"one name in two ways": {both(x, "a/b", "a|b"), ErrUnsupported, `"a/b" too`},
		"an input twice":       {both([]string{"x", "x"}), ErrFormat, "each input once"},
		"a cycle":              {custom(17, "Neg", "y"), ErrFormat, `"y"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "model.onnx")
			if err := os.WriteFile(path, c.content, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := Read(path)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected an *onnx.Error, %v, with %q", err, c.kind, c.want)
			}
		})
	}
	if _, err := Read(filepath.Join(dir, "none.onnx")); !errors.Is(err, ErrMissing) {
		t.Errorf("no file: %v", err)
	}
	huge := filepath.Join(dir, "huge.onnx")
	if err := os.WriteFile(huge, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 3<<30); err != nil { // a hole that takes no room on the disk
		t.Fatal(err)
	}
	if _, err := Read(huge); !errors.Is(err, ErrLimit) {
		t.Errorf("a file of 3 GB: %v", err)
	}
}

// Each is refused before anything is made of it, and by name: most would fail later in words that say nothing, or be read as something else.
func TestRefusedByName(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "folder"), 0o755), os.WriteFile(filepath.Join(dir, "weights.bin"), make([]byte, 64), 0o644)); err != nil {
		t.Fatal(err)
	}
	// made is a small model that is whole, but for what is done to it.
	made := func(change func(m *build)) []byte {
		m := newBuild(17)
		m.port(graphInput, "x", 4)
		m.node("Neg", []string{"x"}, "y")
		m.port(graphOutput, "y", 4)
		change(m)
		return m.bytes()
	}
	constant := func(t []byte) func(m *build) {
		return func(m *build) { m.graph = appendBytes(m.graph, graphInitializer, t) }
	}
	text := protowire.AppendVarint(protowire.AppendTag(floats("w", 16, 4), tensorType, protowire.VarintType), 8) // the last type counts
	inner := (&build{}).graph
	for range maxDepth + 2 {
		b := &build{}
		b.node("If", []string{"x"}, "r", appendBytes(appendBytes(nil, attrName, []byte("then_branch")), attrGraph, inner))
		inner = b.graph
	}
	for name, c := range map[string]struct {
		content []byte
		kind    error
		want    string
	}{
		"whole":              {made(func(*build) {}), nil, ""},
		"functions":          {made(func(m *build) { m.model = appendBytes(m.model, modelFunctions, nil) }), ErrUnsupported, "functions inlined"},
		"sparse":             {made(func(m *build) { m.graph = appendBytes(m.graph, graphSparse, nil) }), ErrUnsupported, "dense constants, came sparse"},
		"deep":               {made(func(m *build) { m.graph = append(m.graph, inner...) }), ErrLimit, fmt.Sprintf("at most %d deep", maxDepth)},
		"computed twice":     {made(func(m *build) { m.node("Abs", []string{"x"}, "y") }), ErrFormat, `each name once, came "y" again`},
		"not computed":       {made(func(m *build) { m.port(graphOutput, "z", 4) }), ErrFormat, `"z", which nothing does`},
		"no output":          {made(func(m *build) { m.graph = appendBytes(m.graph, graphNode, appendBytes(nil, nodeType, []byte("Neg"))) }), ErrFormat, "expected an output, came none"},
		"text":               {made(constant(text)), ErrUnsupported, "ONNX's type 8"},
		"in pieces":          {made(constant(appendBytes(floats("w", 16, 4), tensorSegment, nil))), ErrUnsupported, "in one piece"},
		"of another length":  {made(constant(external(floats("w", -1, 4), "location", "weights.bin", "length", "8"))), ErrFormat, "a length of 8"},
		"at no number":       {made(constant(external(floats("w", -1, 4), "location", "weights.bin", "offset", "x"))), ErrFormat, `offset of external data, came "x"`},
		"a folder":           {made(constant(external(floats("w", -1, 4), "location", "folder"))), ErrUnsafe, "expected a regular file"},
		"input of text":      {made(func(m *build) { m.graph = appendBytes(m.graph, graphInput, typed("z", 8)) }), ErrUnsupported, "input z: expected numbers"},
		"input of less":      {made(func(m *build) { m.graph = appendBytes(m.graph, graphInput, typed("z", 1, -5)) }), ErrFormat, "-5 for axis 0"},
		"nothing to compute": {newBuild(17).bytes(), ErrUnsupported, "a model with an input"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "model.onnx")
			if err := os.WriteFile(path, c.content, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path); !errors.Is(err, c.kind) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected %v with %q", err, c.kind, c.want)
			}
		})
	}
	if _, err := Parse(made(constant(external(floats("w", -1, 4), "location", "weights.bin")))); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "give the path") {
		t.Errorf("external data of a model in memory: %v", err)
	}
	m, err := Parse(made(func(*build) {}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = trace.Record(open(t), m.Store, m.ModelFn, trace.Config{}, shapes.Make(dtypes.Float32, 4), shapes.Make(dtypes.Float32, 4))
	if !errors.Is(err, ErrShape) || !strings.Contains(err.Error(), "expected 1 inputs, came 2") {
		t.Errorf("an input too many: %v", err)
	}
}

// typed is an input of a type and of the sizes of its axes.
func typed(name string, element uint64, sizes ...int64) []byte {
	var shape []byte
	for _, n := range sizes {
		shape = appendBytes(shape, shapeDim, appendVarint(nil, dimValue, uint64(n)))
	}
	tensor := appendBytes(appendVarint(nil, tensorTypeElem, element), tensorShape, shape)
	return appendBytes(appendBytes(nil, valueName, []byte(name)), valueType, appendBytes(nil, typeTensor, tensor))
}

// Names of a file do not steer the terminal that they are shown on.
func TestNamesThatSteer(t *testing.T) {
	m := newBuild(17)
	m.port(graphInput, "\x1b[2J", 4)
	m.node("Neg", []string{"\x1b[2J"}, "\u009b2J")
	m.port(graphOutput, "\u009b2J", 4)
	read, err := Parse(m.bytes())
	if err != nil {
		t.Fatal(err)
	}
	_, size := read.Shapes(map[string]int{"\x1b": 1})
	m.node("Neg", []string{"\x1b"}, "y")
	_, node := Parse(m.bytes())
	for _, text := range []string{read.Inputs[0].String(), read.Outputs[0].String(), fmt.Sprint(size), fmt.Sprint(node)} {
		if strings.ContainsAny(text, "\x1b\u009b") {
			t.Errorf("%q", text)
		}
	}
	m.node("\u009b", []string{"\x1b[2J"}, "z")
	if _, err := Parse(m.bytes()); err == nil || strings.ContainsAny(err.Error(), "\x1b\u009b") {
		t.Errorf("%q", fmt.Sprint(err))
	}
}

func TestExternalData(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 64)
	copy(data[32:], []byte{0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64}) // 1, 2, 3, 4
	if err := os.WriteFile(filepath.Join(dir, "weights.bin"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	m := newBuild(17)
	m.port(graphInput, "x", 4)
	m.graph = appendBytes(m.graph, graphInitializer, external(floats("w", -1, 4), "location", "weights.bin", "offset", "32", "length", "16"))
	m.node("Add", []string{"x", "w"}, "y")
	m.port(graphOutput, "y", 4)
	path := filepath.Join(dir, "model.onnx")
	if err := os.WriteFile(path, m.bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	read, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	y := call(t, open(t), read.Store, read.ModelFn, tensors.FromFlatDataAndDimensions([]float32{10, 20, 30, 40}, 4))[0]
	if diff := cmp.Diff([]float32{11, 22, 33, 44}, y); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A model that is cut off or has flipped bits is refused, or is another model; nothing panics.
func TestDamaged(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("testdata", "torch", "mobilenet_v2_legacy.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(content); n += 1 + len(content)/61 {
		var e *Error
		if _, err := Parse(content[:n]); !errors.As(err, &e) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	refused := 0
	for i := range 160 {
		damaged := slices.Clone(content)
		at := int(uint64(i) * 2654435761 % uint64(len(content)))
		if i%2 == 0 {
			at %= 24 << 10 // where the nodes are
		}
		damaged[at] ^= 1 << (i % 8)
		var e *Error
		if _, err := Parse(damaged); err != nil {
			refused++
			if !errors.As(err, &e) {
				t.Errorf("bit %d of byte %d: %T %v", i%8, at, err, err)
			}
		}
	}
	if refused == 0 {
		t.Error("no flipped bit was noticed")
	}
}

func FuzzParse(f *testing.F) {
	m := newBuild(17)
	m.port(graphInput, "x", 1, 1, 4, 4)
	m.graph = appendBytes(m.graph, graphInitializer, floats("w", 4, 1))
	m.node("MaxPool", []string{"x"}, "a", attribute{name: "kernel_shape", ints: []int64{2, 2}}.marshal(), attribute{name: "dilations", ints: []int64{1, 1}}.marshal())
	m.node("Add", []string{"a", "w"}, "y")
	m.port(graphOutput, "y", 1, 1, 1, 1)
	f.Add(m.bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := Parse(content)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%T: %v", err, err)
		}
		if err == nil && len(m.Inputs) == 0 {
			t.Error("a model without inputs")
		}
	})
}

package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/attention"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func float32At(data []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(data)) }

// initialised returns a store with the variables of a model function, none of which has what it begins with by default: an identity would hide mistakes.
func initialised(t testing.TB, b compute.Backend, fn trace.ModelFn, inputs ...*tensors.Tensor) *model.Store {
	t.Helper()
	store := model.NewStore()
	g := graph.NewGraph(b, "variables") // which is not compiled
	defer g.Finalize()
	model.SetStore(g, store)
	store.SetTraining(g, false)
	var nodes []*graph.Node
	for i, x := range inputs {
		nodes = append(nodes, graph.Parameter(g, nameOf(nil, "x", i, len(inputs)), x.Shape()))
	}
	fn(store.RootScope(), nodes)
	for v := range store.IterVariables() {
		if v.DType() != dtypes.Float32 {
			continue
		}
		dims := v.Shape().Dimensions
		bound := 0.5
		if n := len(dims); n > 1 {
			bound = math.Sqrt(6 / float64(v.Shape().Size()/dims[n-1])) // He et al. 2015
		}
		flat := make([]float32, v.Shape().Size())
		for i := range flat {
			u := float64((uint64(i)*2654435761+7)%1000) / 1000
			flat[i] = float32((2*u - 1) * bound)
			if name := v.Path(); strings.HasSuffix(name, "/variance") || strings.HasSuffix(name, "/scale") || strings.HasSuffix(name, "/gain") {
				flat[i] = float32(0.5 + u)
			}
		}
		if err := v.SetValue(tensors.FromFlatDataAndDimensions(flat, dims...)); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// written writes a model function and checks that ONNX Runtime computes what it computes, at each list of inputs.
func written(t *testing.T, b compute.Backend, store *model.Store, fn trace.ModelFn, cfg Config, runs ...[]*tensors.Tensor) answer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	var inputs []shapes.Shape
	for _, x := range runs[0] {
		inputs = append(inputs, x.Shape())
	}
	if err := Write(path, b, store, fn, cfg, inputs...); err != nil {
		t.Fatal(err)
	}
	var named []map[string]*tensors.Tensor
	for _, run := range runs {
		inputs := map[string]*tensors.Tensor{}
		for i, x := range run {
			inputs[nameOf(cfg.Inputs, "x", i, len(run))] = x
		}
		named = append(named, inputs)
	}
	a := inRuntime(t, path, named...)
	if a.Opset != Opset || a.IR != IRVersion {
		t.Errorf("operator set %d, version %d", a.Opset, a.IR)
	}
	// The last run is of the most examples, and those of the others are its first ones: GoMLX, which compiles for each batch size, need not do so for all.
	want := floatCall(t, b, store, fn, runs[len(runs)-1]...)
	for i, run := range runs {
		if len(want) != len(a.Runs[i]) {
			t.Fatalf("%d outputs, expected %d", len(a.Runs[i]), len(want))
		}
		for j, y := range a.Runs[i] {
			got := y.floats(t)
			d, magnitude := difference(want[j][:min(len(got), len(want[j]))], got)
			if d > 1e-4*max(1, magnitude) {
				t.Errorf("batch %d, output %d: max |Δ| %g of %g", run[0].Shape().Dimensions[0], j, d, magnitude)
			}
			if magnitude == 0 {
				t.Errorf("batch %d, output %d: nothing but zeros", run[0].Shape().Dimensions[0], j)
			}
		}
		if n := len(a.Runs[i][0].Data); n*runs[len(runs)-1][0].Shape().Dimensions[0] != len(a.Runs[len(runs)-1][0].Data)*run[0].Shape().Dimensions[0] {
			t.Errorf("batch %d: the output is not in proportion to the batch: %d bytes", run[0].Shape().Dimensions[0], n)
		}
	}
	return a
}

// floatCall is call with outputs as float32, as ort.py returns them.
func floatCall(t testing.TB, b compute.Backend, store *model.Store, fn trace.ModelFn, inputs ...*tensors.Tensor) [][]float32 {
	return call(t, b, store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		outputs := fn(scope, in)
		for i, y := range outputs {
			outputs[i] = graph.ConvertDType(y, dtypes.Float32)
		}
		return outputs
	}, inputs...)
}

// images makes runs of batches 1 and 3.
func images(dims ...int) [][]*tensors.Tensor {
	return [][]*tensors.Tensor{{signal(append([]int{1}, dims...)...)}, {signal(append([]int{3}, dims...)...)}}
}

func TestWriteNets(t *testing.T) {
	b := open(t)
	for _, n := range nets.All() {
		if (n.Input[0] > 32 || strings.HasPrefix(n.Name, "ResNet-56")) && os.Getenv("ESPALIER_FULL") == "" {
			continue // those for ImageNet, and the deeper one for CIFAR-10, are made of the same parts
		}
		t.Run(n.Name, func(t *testing.T) {
			runs := images(n.Input...)
			fn := trace.Single(n.Model)
			store := initialised(t, b, fn, runs[0]...)
			a := written(t, b, store, fn, Config{}, runs...)
			t.Logf("%v", a.Operators)
			if n := a.Operators["Transpose"]; n > 1 && a.Operators["MatMul"] == 0 {
				t.Errorf("%d times the axes are moved, expected once, at the input", n)
			}
			if a.Shapes[0][0] != batchName {
				t.Errorf("output %v", a.Shapes[0])
			}
		})
	}
}

func TestWriteLeNet5(t *testing.T) {
	b := open(t)
	fn := trace.Single(nets.LeNet5)
	runs := images(28, 28, 1)
	a := written(t, b, initialised(t, b, fn, runs[0]...), fn, Config{Inputs: []string{"image"}, Outputs: []string{"logits"}}, runs...)
	want := map[string]int{"Conv": 2, "MaxPool": 2, "Gemm": 2, "Relu": 1, "Reshape": 2} // the first makes [batch, 28, 28, 1] to [batch, 1, 28, 28]
	if diff := cmp.Diff(want, a.Operators); diff != "" {
		t.Errorf("operators (-want +got)\n%s", diff)
	}
	slices.Sort(a.Constants)
	names := slices.DeleteFunc(a.Constants, func(name string) bool { return strings.HasPrefix(name, "constant") })
	if diff := cmp.Diff([]string{"conv1/conv/biases", "conv1/conv/weights", "conv2/conv/biases", "conv2/conv/weights", "fc1/dense/biases", "fc1/dense/weights",
		"output/dense/biases", "output/dense/weights"}, names); diff != "" {
		t.Errorf("constants (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"image"}, a.Inputs); diff != "" {
		t.Errorf("inputs (-want +got)\n%s", diff)
	}
}

// What was read from ONNX is written as it was: the same operators, by the same names. TestSurgery runs what is written; here the ones whose batch normalisations are folded are run.
func TestWriteTorch(t *testing.T) {
	b := open(t)
	for name, want := range map[string]map[string]int{
		"resnet18_legacy":     {"Conv": 20, "BatchNormalization": 20, "Relu": 17, "Add": 8, "MaxPool": 1, "GlobalAveragePool": 1, "Gemm": 1, "Reshape": 1},
		"resnet18_dynamo":     {"Conv": 20, "Relu": 17, "Add": 8, "MaxPool": 1, "ReduceMean": 1, "Gemm": 1},
		"vgg16_bn_legacy":     {"Relu": 15, "Conv": 13, "BatchNormalization": 13, "MaxPool": 5, "Gemm": 3, "Reshape": 1},
		"vgg16_bn_dynamo":     {"Relu": 15, "Conv": 13, "MaxPool": 5, "Gemm": 3, "Reshape": 1},
		"mobilenet_v2_legacy": {"Conv": 52, "BatchNormalization": 52, "Clip": 35, "Add": 11, "GlobalAveragePool": 1, "Gemm": 1, "Reshape": 1},
		"mobilenet_v2_dynamo": {"Conv": 52, "Clip": 35, "Add": 11, "ReduceMean": 1, "Gemm": 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := read(t, name)
			cfg := Config{Inputs: []string{"x"}, Outputs: []string{"y"}, FixedBatch: m.FreeBatch() == ""}
			inputs, err := m.Shapes(map[string]int{m.FreeBatch(): 1})
			if err != nil {
				t.Fatal(err)
			}
			content, err := Marshal(b, m.Store, m.ModelFn, cfg, inputs...)
			if err != nil {
				t.Fatal(err)
			}
			operators, constants := contents(t, content)
			if diff := cmp.Diff(want, operators); diff != "" {
				t.Errorf("operators (-want +got)\n%s", diff)
			}
			for _, c := range constants {
				if m.Store.GetVariable(variable(c)) == nil && !strings.HasPrefix(c, "constant") {
					t.Errorf("the constant %q has a name that the model read did not have", c)
				}
			}
			if want["BatchNormalization"] == 0 || name == "mobilenet_v2_legacy" { // which has nothing to fold that the others have not
				return
			}
			cfg.FoldBatchNorm = true
			a := written(t, b, m.Store, m.ModelFn, cfg, images(example(m.Inputs[0])...)[1:]...)
			want = maps.Clone(want)
			delete(want, "BatchNormalization")
			if diff := cmp.Diff(want, a.Operators); diff != "" {
				t.Errorf("operators with batch normalisation folded (-want +got)\n%s", diff)
			}
		})
	}
}

// contents returns how many of each operator a model has, and the names of its constants.
func contents(t *testing.T, content []byte) (operators map[string]int, constants []string) {
	t.Helper()
	m, err := parseModel(content)
	if err != nil {
		t.Fatal(err)
	}
	g, err := parseGraph(m.graph)
	if err != nil {
		t.Fatal(err)
	}
	operators = map[string]int{}
	for _, message := range g.nodes {
		n, err := parseNode(message)
		if err != nil {
			t.Fatal(err)
		}
		operators[n.op]++
	}
	for _, message := range g.initializers {
		c, err := parseTensor(message)
		if err != nil {
			t.Fatal(err)
		}
		constants = append(constants, c.name)
	}
	return operators, constants
}

// example are the dimensions of an example.
func example(p Port) []int {
	var dims []int
	for _, d := range p.Dims[1:] {
		dims = append(dims, d.Size)
	}
	return dims
}

// single makes a model function of the general form.
func single(f func(s *model.Scope, x *graph.Node) *graph.Node) trace.ModelFn { return trace.Single(f) }

// cases are model functions that use each rule, in forms that real networks have.
var cases = []struct {
	name  string
	dims  []int
	fn    trace.ModelFn
	uses  map[string]int // operators of which there must be as many; -1: one at least
	batch bool           // FixedBatch
}{
	{"residual network", []int{8, 8, 3}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		conv := func(name string, x *graph.Node, out, stride int) *graph.Node {
			x = layers.Convolution(s.In("%s", name), x).Channels(out).KernelSize(3).Strides(stride).PadSame().UseBias(false).Done()
			return norm.BatchNorm(s.In("%s", name+"bn"), x, -1).Done()
		}
		x = activation.Relu(conv("a", x, 8, 1))
		y := activation.Relu(conv("b", x, 8, 1))
		x = activation.Relu(graph.Add(conv("c", y, 8, 1), x))
		short := graph.Pad(graph.Slice(x, graph.AxisRange(), graph.AxisRange().Stride(2), graph.AxisRange().Stride(2)), graph.ScalarZero(x.Graph(), x.DType()),
			compute.PadAxis{}, compute.PadAxis{}, compute.PadAxis{}, compute.PadAxis{Start: 4, End: 4})
		x = activation.Relu(graph.Add(conv("d", x, 16, 2), short))
		return layers.Dense(s.In("fc"), graph.ReduceMean(x, 1, 2), true, 10)
	}), map[string]int{"Transpose": 1, "BatchNormalization": 4, "Conv": 4, "ReduceMean": 1, "Gemm": 1, "Relu": 4}, false},
	{"squeeze and excite", []int{8, 8, 4}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		kernel := s.VariableWithShape("depthwise", shapes.Make(dtypes.Float32, 3, 3, 1, 4)).NodeValue(x.Graph())
		x = graph.Convolve(x, kernel).ChannelGroupCount(4).PadSame().Done()
		x = graph.Clip(x, graph.Scalar(x.Graph(), x.DType(), 0), graph.Scalar(x.Graph(), x.DType(), 6))
		y := graph.Reshape(layers.Dense(s.In("squeeze"), graph.ReduceMean(x, 1, 2), true, 2), -1, 1, 1, 2)
		y = graph.Sigmoid(layers.Dense(s.In("excite"), activation.Relu(y), true, 4))
		return graph.Mul(x, y)
	}), map[string]int{"Transpose": -1, "Clip": 1}, false},
	{"pools", []int{9, 9, 4}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		a := graph.MaxPool(x).Window(3).Strides(2).PadSame().Done()
		m := graph.MeanPool(x).Window(3).Strides(2).PadSame().Done()
		p := graph.SumPool(x).Window(3).Strides(2).PadSame().Done()
		q := graph.MeanPool(graph.Slice(x, graph.AxisRange(), graph.AxisRange(0, 8), graph.AxisRange(0, 8))).Window(2).Done()
		return graph.Add(graph.Add(a, m), graph.Add(p, graph.Pad(q, graph.ScalarZero(x.Graph(), x.DType()), compute.PadAxis{}, compute.PadAxis{End: 1}, compute.PadAxis{Start: 1})))
	}), map[string]int{"MaxPool": 1, "AveragePool": 3}, false},
	{"convolutions", []int{12, 12, 6}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Convolution(s.In("dilated"), x).Channels(8).KernelSize(3).Dilations(2).PadSame().Done()
		kernel := s.VariableWithShape("grouped", shapes.Make(dtypes.Float32, 3, 3, 2, 8)).NodeValue(x.Graph())
		x = graph.Convolve(x, kernel).ChannelGroupCount(4).Strides(2).PaddingPerDim([][2]int{{1, 0}, {0, 1}}).Done()
		x = graph.Transpose(graph.Reshape(x, -1, x.Shape().Dimensions[1], x.Shape().Dimensions[2], 2, 4), 3, 4) // a shuffle of the channels
		x = graph.Reshape(x, x.Shape().Dimensions[0], x.Shape().Dimensions[1], x.Shape().Dimensions[2], 8)
		parts := graph.Split(x, -1, 2)
		x = graph.Concatenate([]*graph.Node{layers.Convolution(s.In("a"), parts[0]).Channels(4).KernelSize(1).Done(), parts[1]}, -1)
		return layers.Dense(s.In("fc"), graph.Reshape(x, x.Shape().Dimensions[0], -1), true, 5)
	}), map[string]int{"Conv": 3, "Transpose": 2}, false},
	{"transposed convolutions", []int{5, 5, 4}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		up := func(name string, x *graph.Node, groups, out, size, stride int, pad [2]int) *graph.Node {
			d := x.Shape().Dimensions
			kernel := s.VariableWithShape(name, shapes.Make(dtypes.Float32, size, size, d[3]/groups, out)).NodeValue(x.Graph())
			return graph.Convolve(x, kernel).ChannelGroupCount(groups).InputDilationPerAxis(stride, stride).PaddingPerDim([][2]int{pad, pad}).Done()
		}
		x = activation.Relu(up("a", x, 1, 6, 3, 2, [2]int{1, 2}))
		return up("b", x, 2, 4, 2, 2, [2]int{1, 1})
	}), map[string]int{"ConvTranspose": 2}, false},
	{"one axis", []int{12, 6}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Convolution(s.In("a"), x).Channels(8).KernelSize(3).PadSame().Done()
		return norm.BatchNorm(s.In("bn"), activation.Swish(x), -1).Done()
	}), map[string]int{"Conv": 1, "BatchNormalization": 1}, false},
	{"transformer", []int{6, 8}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = graph.Add(x, attention.SelfAttention(s.In("attention"), norm.LayerNorm(s.In("a"), x, -1).Done(), 2, 4).Done())
		y := layers.Dense(s.In("up"), norm.LayerNorm(s.In("b"), x, -1).Done(), true, 16)
		x = graph.Add(x, layers.Dense(s.In("down"), activation.Gelu(y), true, 8))
		return graph.Softmax(graph.ReduceMean(x, 1), -1)
	}), map[string]int{"Erf": 1}, false},
	{"causal attention", []int{6, 8}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		return attention.SelfAttention(s.In("attention"), x, 2, 4).WithCausalMask(true).Done()
	}), nil, false},
	{"batch norm of features", []int{5}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		return norm.BatchNorm(s.In("bn"), layers.Dense(s.In("fc"), x, false, 7), -1).Done()
	}), map[string]int{"BatchNormalization": 1}, false},
	{"elementwise", []int{4, 3}, single(func(_ *model.Scope, x *graph.Node) *graph.Node {
		g := x.Graph()
		y := graph.AddScalar(graph.Abs(x), 0.5)
		all := []*graph.Node{graph.Exp(x), graph.Log(y), graph.Log1P(y), graph.Expm1(x), graph.Sqrt(y), graph.Rsqrt(y), graph.Sin(x), graph.Cos(x), graph.Tanh(x), graph.Erf(x),
			graph.Sigmoid(x), graph.Floor(graph.MulScalar(x, 5)), graph.Ceil(graph.MulScalar(x, 5)), graph.Sign(x), graph.Neg(x), graph.Round(graph.MulScalar(x, 5)), graph.Pow(y, x),
			graph.Mod(graph.MulScalar(x, 7), y), graph.Min(x, y), graph.Div(x, y), graph.Max(x, graph.Neg(x)), graph.Reciprocal(y),
			graph.Where(graph.GreaterThan(x, graph.Scalar(g, x.DType(), 0.1)), x, y),
			graph.ConvertDType(graph.LogicalAnd(graph.LessThan(x, y), graph.NotEqual(x, y)), x.DType()),
			graph.ConvertDType(graph.LogicalOr(graph.GreaterOrEqual(x, y), graph.LogicalNot(graph.LessOrEqual(x, y))), x.DType()),
			graph.ConvertDType(graph.ConvertDType(graph.MulScalar(x, 9), dtypes.Int32), x.DType()), graph.Clip(x, graph.Neg(y), y),
			graph.ConvertDType(graph.IsFinite(graph.Log(x)), x.DType())}
		return graph.Concatenate(all, -1)
	}), nil, false},
	{"reductions", []int{4, 6}, single(func(_ *model.Scope, x *graph.Node) *graph.Node {
		return graph.Concatenate([]*graph.Node{graph.ReduceSum(x, 1), graph.ReduceMax(x, 1), graph.ReduceMin(x, 1), graph.ReduceMultiply(x, 1), graph.ReduceMean(x, 1),
			graph.ConvertDType(graph.ArgMax(x, 1, dtypes.Int32), x.DType()), graph.ConvertDType(graph.ArgMin(x, -2), x.DType())}, -1)
	}), map[string]int{"ReduceMean": 1}, false},
	{"shapes", []int{4, 6}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		g := x.Graph()
		x = graph.Reverse(x, 1)                                                                                                   // [batch, 4, 6]
		x = graph.Add(x, graph.Iota(g, x.Shape(), 2))                                                                             // numbers that repeat over the batch
		x = graph.Concatenate([]*graph.Node{x, graph.BroadcastToDims(graph.Scalar(g, x.DType(), 2), x.Shape().Dimensions...)}, 1) // what has the batch's size needs all its elements
		x = graph.Slice(x, graph.AxisRange(), graph.AxisRange(1, 7).Stride(2), graph.AxisRange(2))                                // [batch, 3, 4]
		table := s.VariableWithShape("table", shapes.Make(dtypes.Float32, 5, 4)).NodeValue(g)
		at := graph.ConvertDType(graph.Abs(graph.MulScalar(graph.Slice(x, graph.AxisRange(), graph.AxisRange(), graph.AxisRange(0, 1)), 0.4)), dtypes.Int32) // [batch, 3, 1]
		return graph.Add(x, graph.Gather(table, graph.Min(at, graph.Const(g, int32(4)))))
	}), map[string]int{"Gather": 1}, false},
	{"products", []int{4, 6}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		w := s.VariableWithShape("w", shapes.Make(dtypes.Float32, 6, 2, 3)).NodeValue(x.Graph())
		y := graph.Einsum("bti,ihd->bhtd", x, w)
		z := graph.Einsum("bhtd,bhsd->bhts", y, y)
		u := graph.Einsum("bhts,bhsd->bthd", z, y)
		v := graph.Einsum("bthd,ihd->bti", u, w)
		return graph.Einsum("bti,bsi->bts", v, x)
	}), map[string]int{"MatMul": 5}, false},
	{"fixed batch", []int{4, 6}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		return graph.Add(x, graph.Iota(x.Graph(), x.Shape(), 0))
	}), nil, true},
	{"recurrent", []int{3, 4}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		cell := s.VariableWithShape("cell", shapes.Make(dtypes.Float32, 9, 5)).NodeValue(x.Graph())
		h := graph.Zeros(x.Graph(), shapes.Make(x.DType(), x.Shape().Dimensions[0], 5))
		for i := range 3 {
			step := graph.Squeeze(graph.Slice(x, graph.AxisRange(), graph.AxisElem(i)), 1)
			h = graph.Tanh(graph.Dot(graph.Concatenate([]*graph.Node{step, h}, -1), cell).Product())
		}
		return h
	}), nil, false},
	// Strides stay with their axes.
	{"strides by axis", []int{9, 9, 3}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		kernel := s.VariableWithShape("kernel", shapes.Make(dtypes.Float32, 3, 3, 3, 2)).NodeValue(x.Graph())
		return graph.Convolve(x, kernel).StridePerAxis(2, 1).Done()
	}), map[string]int{"Conv": 1}, false},
	// Dilations stay with their axes.
	{"dilations by axis", []int{9, 9, 3}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		kernel := s.VariableWithShape("kernel", shapes.Make(dtypes.Float32, 3, 3, 3, 2)).NodeValue(x.Graph())
		return graph.Convolve(x, kernel).DilationPerAxis(2, 1).Done()
	}), map[string]int{"Conv": 1}, false},
	// What a transposed convolution crops is counted from the reach of its dilated kernel.
	{"transposed convolution with dilation", []int{9, 9, 3}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		kernel := s.VariableWithShape("kernel", shapes.Make(dtypes.Float32, 3, 3, 3, 2)).NodeValue(x.Graph())
		return graph.Convolve(x, kernel).InputDilationPerAxis(2, 2).DilationPerAxis(2, 2).PaddingPerDim([][2]int{{1, 2}, {1, 1}}).Done()
	}), map[string]int{"ConvTranspose": 1}, false},
	// The largest channel is looked for along the axis where the channels lie in ONNX.
	{"largest channel", []int{9, 9, 3}, single(func(s *model.Scope, x *graph.Node) *graph.Node {
		kernel := s.VariableWithShape("kernel", shapes.Make(dtypes.Float32, 3, 3, 3, 4)).NodeValue(x.Graph())
		return graph.ConvertDType(graph.ArgMax(graph.Convolve(x, kernel).Done(), -1), dtypes.Float32)
	}), map[string]int{"Conv": 1, "ArgMax": 1}, false},
	// Half of a sum is no mean, over whole axes as over windows.
	{"half of sums", []int{9, 9, 3}, single(func(_ *model.Scope, x *graph.Node) *graph.Node {
		all := graph.MulScalar(graph.ReduceSum(x, 1, 2), 0.5)
		return graph.Add(graph.MulScalar(graph.SumPool(x).Window(3).Done(), 0.5), graph.Reshape(all, -1, 1, 1, 3))
	}), map[string]int{"ReduceSum": 1, "ReduceMean": 0}, false},
}

func TestWriteRules(t *testing.T) {
	b := open(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			runs := images(c.dims...)
			if c.batch {
				runs = runs[1:]
			}
			a := written(t, b, initialised(t, b, c.fn, runs[0]...), c.fn, Config{FixedBatch: c.batch}, runs...)
			t.Logf("%v", a.Operators)
			for op, n := range c.uses {
				if got := a.Operators[op]; got != n && (n >= 0 || got == 0) {
					t.Errorf("%d %s, expected %d", got, op, n)
				}
			}
		})
	}
}

// A bias that stands between a convolution and the batch normalisation folded into it is scaled like the weights.
func TestWriteFoldWithBias(t *testing.T) {
	fn := single(func(s *model.Scope, x *graph.Node) *graph.Node {
		kernel := s.VariableWithShape("kernel", shapes.Make(dtypes.Float32, 3, 3, 3, 2)).NodeValue(x.Graph())
		bias := s.VariableWithShape("bias", shapes.Make(dtypes.Float32, 1, 1, 1, 2)).NodeValue(x.Graph())
		y := graph.Convolve(x, kernel).Done()
		return norm.BatchNorm(s.In("bn"), graph.Add(y, graph.BroadcastToDims(bias, y.Shape().Dimensions...)), -1).Done()
	})
	b, runs := open(t), images(9, 9, 3)
	a := written(t, b, initialised(t, b, fn, runs[0]...), fn, Config{FoldBatchNorm: true}, runs...)
	if diff := cmp.Diff(map[string]int{"Transpose": 2, "Conv": 1}, a.Operators); diff != "" {
		t.Errorf("operators (-want +got)\n%s", diff)
	}
}

// A kernel that is repeated along axes is written out where a batch normalisation is folded into it, which scales each of its channels by another number.
func TestWriteFoldRepeatedKernels(t *testing.T) {
	for name, kernel := range map[string]func(s *model.Scope, g *graph.Graph) *graph.Node{
		"a point": func(s *model.Scope, g *graph.Graph) *graph.Node {
			return s.VariableWithShape("kernel", shapes.Make(dtypes.Float32, 1, 1, 3, 2)).NodeValue(g)
		},
		"a number": func(_ *model.Scope, g *graph.Graph) *graph.Node { return graph.Const(g, float32(0.1)) },
	} {
		fn := single(func(s *model.Scope, x *graph.Node) *graph.Node {
			return norm.BatchNorm(s.In("bn"), graph.Convolve(x, graph.BroadcastToDims(kernel(s, x.Graph()), 3, 3, 3, 2)).Done(), -1).Done()
		})
		b, runs := open(t), images(9, 9, 3)
		a := written(t, b, initialised(t, b, fn, runs[0]...), fn, Config{FoldBatchNorm: true}, runs...)
		if a.Operators["Conv"] != 1 || a.Operators["BatchNormalization"] != 0 {
			t.Errorf("%s: operators %v, want one convolution and no normalisation", name, a.Operators)
		}
	}
}

// Several inputs, of which one is not used and one is of integers; several outputs, of which one is an input, one a constant and one comes twice.
func TestWriteInputs(t *testing.T) {
	b := open(t)
	fn := func(s *model.Scope, in []*graph.Node) []*graph.Node {
		table := s.VariableWithShape("table", shapes.Make(dtypes.Float32, 7, 5)).NodeValue(in[0].Graph())
		words := graph.Gather(table, graph.InsertAxes(in[1], -1)) // [batch, 3] -> [batch, 3, 5]
		y := graph.Add(graph.ReduceMax(words, 1), in[0])
		return []*graph.Node{y, in[0], graph.ReduceSum(table, 0), y}
	}
	tokens := func(batch int) *tensors.Tensor {
		flat := make([]int32, 3*batch)
		for i := range flat {
			flat[i] = int32(i * 5 % 7)
		}
		return tensors.FromFlatDataAndDimensions(flat, batch, 3)
	}
	var runs [][]*tensors.Tensor
	for _, batch := range []int{1, 4} {
		runs = append(runs, []*tensors.Tensor{signal(batch, 5), tokens(batch), signal(batch, 2)})
	}
	cfg := Config{Name: "words", Inputs: []string{"shift", "tokens"}, Outputs: []string{"a", "b", "c"}} // the last of each is named by default
	path := filepath.Join(t.TempDir(), "model.onnx")
	store := initialised(t, b, fn, runs[0]...)
	if err := Write(path, b, store, fn, cfg, runs[0][0].Shape(), runs[0][1].Shape(), runs[0][2].Shape()); err != nil {
		t.Fatal(err)
	}
	var named []map[string]*tensors.Tensor
	for _, run := range runs {
		named = append(named, map[string]*tensors.Tensor{"shift": run[0], "tokens": run[1], "x2": run[2]})
	}
	a := inRuntime(t, path, named...)
	for i, run := range runs {
		for j, want := range call(t, b, store, fn, run...) {
			if d, magnitude := difference(want, a.Runs[i][j].floats(t)); d > 1e-5 || magnitude == 0 {
				t.Errorf("run %d, output %d: max |Δ| %g of %g", i, j, d, magnitude)
			}
		}
	}
	m, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m.Name, m.Inputs, m.Outputs); got != "words[shift Float32[batch, 5] tokens Int32[batch, 3] x2 Float32[batch, 2]] [a Float32[batch, 5] b Float32[batch, 5] c Float32[5] y3 Float32[batch, 5]]" {
		t.Error(got)
	}
}

func TestWriteErrors(t *testing.T) {
	b := open(t)
	for name, c := range map[string]struct {
		fn   trace.ModelFn
		kind error
		want string
	}{
		"no rule": {single(func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.CumSum(graph.Atan2(x, x), 1) }), ErrUnsupported, "Atan2"},
		"numbers over the batch": {single(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Add(x, graph.Iota(x.Graph(), x.Shape(), 0))
		}), ErrShape, "FixedBatch"},
		"a mean over the batch": {single(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.DivScalar(x, float64(x.Shape().Dimensions[0]))
		}), ErrShape, "FixedBatch"},
		"no value": {single(func(s *model.Scope, x *graph.Node) *graph.Node { return layers.Dense(s, x, true, 2) }), ErrMissing, "/dense/"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "model.onnx")
			err := Write(path, b, model.NewStore(), c.fn, Config{}, shapes.Make(dtypes.Float32, 2, 3))
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected an *onnx.Error, %v, with %q", err, c.kind, c.want)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("there is a file all the same: %v", err)
			}
		})
	}
}

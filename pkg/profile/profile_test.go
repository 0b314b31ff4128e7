package profile

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
)

// pure is GoMLX's Go backend, which fuses dense layers and leaves the unfused form in the graph as well.
func pure(t testing.TB) compute.Backend {
	t.Helper()
	b, _, err := backend.OpenWith(func(key string) string { return map[string]string{"GOMLX_BACKEND": "go"}[key] })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func best(t testing.TB) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// countsOnly leaves out what has tests of its own.
var countsOnly = cmp.Options{cmpopts.IgnoreFields(Layer{}, "CSRBytes", "Activations"), cmpopts.IgnoreFields(Profile{}, "Batch", "MACsPerWeight", "Activations")}

func float(dimensions ...int) shapes.Shape { return shapes.Make(dtypes.Float32, dimensions...) }

func variable(t testing.TB, store *model.Store, path string, value any, dimensions ...int) {
	t.Helper()
	var x *tensors.Tensor
	switch v := value.(type) {
	case []float32:
		x = tensors.FromFlatDataAndDimensions(v, dimensions...)
	case []bool:
		x = tensors.FromFlatDataAndDimensions(v, dimensions...)
	}
	if _, err := store.CreateVariable(path, x); err != nil {
		t.Fatal(err)
	}
}

// of profiles on both backends, which have to agree.
func of(t *testing.T, store *model.Store, fn func(*model.Scope, *graph.Node) *graph.Node, input shapes.Shape) Profile {
	t.Helper()
	var profiles []Profile
	for _, b := range []compute.Backend{pure(t), best(t)} {
		p, err := Of(b, store, fn, input)
		if err != nil {
			t.Fatal(err)
		}
		profiles = append(profiles, p)
	}
	if diff := cmp.Diff(profiles[0], profiles[1]); diff != "" {
		t.Errorf("the backends disagree (-pure Go +best):\n%s", diff)
	}
	return profiles[0]
}

// published are counts that others give, to the digits that they give: of parameters, of those that are trained; of multiply-accumulates, of one example in billions. Those of
// torchvision are in its documentation of each model's weights ("num_params", "GFLOPS", which are multiply-accumulates, products of activations with them:
// https://pytorch.org/vision/stable/models.html, and in torchvision/models/*.py). He et al. 2016 (arXiv:1512.03385), table 6, give 0.27 and 0.85 million parameters for ResNet-20 and -56
// with shortcuts of option A; Lin et al. 2020 (HRank, arXiv:2002.10179) 125.49 million multiply-accumulates for ResNet-56.
var published = map[string]struct {
	params int64
	gmacs  string
}{
	"VGG16":       {138_357_544, "15.47"},
	"ResNet-18":   {11_689_512, "1.81"},
	"ResNet-34":   {21_797_672, "3.66"},
	"ResNet-50":   {25_557_032, "4.09"},
	"MobileNetV2": {3_504_872, "0.30"},
	"ViT-B/16":    {86_567_656, "17.56"},
	"ResNet-56":   {853_018, "0.12549"},
}

func TestKnownNetworks(t *testing.T) {
	byHand := map[string]int64{
		"LeNet-300-100":    784*300 + 300*100 + 100*10,
		"LeNet-5":          24*24*25*20 + 8*8*25*20*50 + 800*500 + 500*10,
		"SmallConv":        32*32*27*16 + 16*16*9*16*32 + 8*8*9*32*32 + 512*64 + 64*10,
		"VGG16":            15_470_264_320,
		"ResNet-20":        32*32*9*(3*16+6*16*16) + 16*16*9*(16*32+5*32*32) + 8*8*9*(32*64+5*64*64) + 64*10,
		"ResNet-8-narrow":  32*32*9*(3*8+2*8*8) + 16*16*9*(8*16+16*16) + 8*8*9*(16*32+32*32) + 32*10,
		"ResNet-20-narrow": 32*32*9*(3*8+6*8*8) + 16*16*9*(8*16+5*16*16) + 8*8*9*(16*32+5*32*32) + 32*10,
		"ResNet-20-B":      32*32*9*(3*16+6*16*16) + 16*16*(9*(16*32+5*32*32)+16*32) + 8*8*(9*(32*64+5*64*64)+32*64) + 64*10,
	}
	for _, n := range nets.All() {
		for _, batch := range []int{1, 7} {
			p := of(t, model.NewStore(), n.Model, float(append([]int{batch}, n.Input...)...))
			want := n.MACs * int64(batch)
			if p.Trained() != int64(n.Params) || p.Bytes() != 4*p.Params() || p.MACs() != want || p.FLOPs() != 2*want || len(p.Unknown) > 0 {
				t.Errorf("%s: %d trained parameters, %d bytes, %d MACs, unknown %v; want %d, %d, %d", n.Name, p.Trained(), p.Bytes(), p.MACs(), p.Unknown, n.Params, 4*p.Params(), want)
			}
			if p.NonZero() != p.Params() || p.EffectiveMACs() != p.MACs() {
				t.Errorf("%s: without values nothing is known to be zero, got %d and %d", n.Name, p.NonZero(), p.EffectiveMACs())
			}
			// Two statistics for each pair of a scale and an offset, where there are any.
			norms := p.sum(func(l Layer) int64 {
				if strings.HasSuffix(l.Path, "/batch_normalization") {
					return l.Params
				}
				return 0
			})
			if p.Params()-p.Trained() != norms/2 {
				t.Errorf("%s: %d parameters are not trained, want %d", n.Name, p.Params()-p.Trained(), norms/2)
			}
			if sum := p.sum(func(l Layer) int64 { return l.Activations }); sum != p.Activations.Sum {
				t.Errorf("%s: the layers write %d bytes, the network %d", n.Name, sum, p.Activations.Sum)
			}
		}
		if want, found := byHand[n.Name]; found && n.MACs != want {
			t.Errorf("%s: %d MACs, want %d", n.Name, n.MACs, want)
		}
		if want, found := published[n.Name]; found {
			digits := len(want.gmacs) - strings.Index(want.gmacs, ".") - 1
			if got := fmt.Sprintf("%.*f", digits, float64(n.MACs)/1e9); got != want.gmacs || int64(n.Params) != want.params {
				t.Errorf("%s: %d parameters, %s GMACs, want the published %d, %s", n.Name, n.Params, got, want.params, want.gmacs)
			}
		}
	}
}

// Rows of the published network that are easily computed by hand.
func TestVGG16Layers(t *testing.T) {
	p := of(t, model.NewStore(), nets.VGG16, float(1, 224, 224, 3))
	if len(p.Layers) != 16 {
		t.Fatalf("%d layers, want 16", len(p.Layers))
	}
	want := map[int]Layer{
		0:  {Path: "/conv1_1", Kind: "conv", Params: 3*3*3*64 + 64, MACs: 224 * 224 * 3 * 3 * 3 * 64, OutShape: []int{224, 224, 64}},
		12: {Path: "/conv5_3", Kind: "conv", Params: 3*3*512*512 + 512, MACs: 14 * 14 * 3 * 3 * 512 * 512, OutShape: []int{14, 14, 512}},
		13: {Path: "/fc1", Kind: "dense", Params: 25088*4096 + 4096, MACs: 25088 * 4096, OutShape: []int{4096}},
		15: {Path: "/output", Kind: "dense", Params: 4096*1000 + 1000, MACs: 4096 * 1000, OutShape: []int{1000}},
	}
	for i, w := range want {
		w.NonZero, w.EffectiveMACs, w.Bytes = w.Params, w.MACs, 4*w.Params
		if diff := cmp.Diff(w, p.Layers[i], countsOnly); diff != "" {
			t.Errorf("layer %d (-want +got):\n%s", i, diff)
		}
	}
}

// Nothing is initialised: VGG16's values would take 553 MB.
func TestNothingIsInitialised(t *testing.T) {
	store := model.NewStore()
	b := pure(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Of(b, store, nets.VGG16, float(1, 224, 224, 3)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 50e6 {
		t.Errorf("%d bytes were allocated", used)
	}
	if store.NumVariables() != 0 {
		t.Errorf("%d variables were left in the store", store.NumVariables())
	}
	if _, err := Of(b, store, nets.VGG16, float(1, 224, 224, 3)); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// A weight is dead if it is zero, or by its mask.
func TestZerosAndMasks(t *testing.T) {
	dense := func(scope *model.Scope, x *graph.Node) *graph.Node { return layers.Dense(scope.At("fc"), x, true, 2) }
	weights := params.Param{Path: "/fc/dense/weights", Shape: float(2, 2)}
	want := Layer{Path: "/fc", Kind: "dense", Params: 6, MACs: 4, Bytes: 24, OutShape: []int{2}}
	for _, c := range []struct {
		name               string
		weights            []float32
		mask               []bool
		nonZero, effective int64
	}{
		{"nothing known", nil, nil, 6, 4},
		{"values", []float32{1, 0, 2, float32(math.Copysign(0, -1))}, nil, 2 + 1, 2},
		{"values and mask", []float32{1, 0, 2, 3}, []bool{true, true, false, true}, 2 + 1, 2},
		{"mask", nil, []bool{true, true, false, true}, 3 + 2, 3},
		{"NaN is not zero", []float32{float32(math.NaN()), 1e-45, 0, 0}, nil, 2 + 1, 2},
	} {
		store := model.NewStore()
		if c.weights != nil {
			variable(t, store, weights.Path, c.weights, 2, 2)
			variable(t, store, "/fc/dense/biases", []float32{0, 5}, 2)
		}
		if c.mask != nil {
			variable(t, store, mask.Path(weights), c.mask, 2, 2)
		}
		want.NonZero, want.EffectiveMACs = c.nonZero, c.effective
		p := of(t, store, dense, float(1, 2))
		if diff := cmp.Diff([]Layer{want}, p.Layers, countsOnly); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	store := model.NewStore()
	variable(t, store, mask.Path(weights), []bool{true}, 1, 1)
	var misfit *mask.ShapeError
	if _, err := Of(pure(t), store, dense, float(1, 2)); !errors.As(err, &misfit) {
		t.Errorf("a mask of another shape: %v", err)
	}
}

// Weights are found behind a mask, a change of shape or type, and what else makes weights of weights.
func TestAttribution(t *testing.T) {
	store := model.NewStore()
	variable(t, store, "/w", []float32{0, 1, 2, 3, 0, 5}, 3, 2)
	variable(t, store, "/pruning/mask/w", []bool{true, false, true, true, true, true}, 3, 2)
	get := func(g *graph.Graph, path string) *graph.Node { return store.GetVariable(path).NodeValue(g) }
	for _, c := range []struct {
		name      string
		weights   func(g *graph.Graph) *graph.Node // [2, 3]
		effective int64
	}{
		{"transposed", func(g *graph.Graph) *graph.Node { return graph.Transpose(get(g, "/w"), 0, 1) }, 3},
		{"masked", func(g *graph.Graph) *graph.Node {
			return graph.Reshape(mask.Apply(get(g, "/w"), get(g, "/pruning/mask/w")), 2, 3)
		}, 3},
		{"masked the other way round", func(g *graph.Graph) *graph.Node {
			w := get(g, "/w")
			return graph.Reshape(graph.Where(graph.LogicalNot(get(g, "/pruning/mask/w")), graph.ZerosLike(w), w), 2, 3)
		}, 3},
		{"multiplied by a mask: which weights are left is not followed", func(g *graph.Graph) *graph.Node {
			return graph.Reshape(graph.Mul(get(g, "/w"), graph.ConvertDType(get(g, "/pruning/mask/w"), dtypes.Float32)), 2, 3)
		}, 6},
		{"normalised", func(g *graph.Graph) *graph.Node {
			w := get(g, "/w")
			return graph.Reshape(graph.Div(w, graph.Sqrt(graph.ReduceAllSum(graph.Square(w)))), 2, 3)
		}, 6},
	} {
		p := of(t, store, func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.MatMul(x, c.weights(x.Graph())) // [1, 2] · [2, 3]
		}, float(1, 2))
		want := Profile{Layers: []Layer{{Path: "/", Kind: "dense", Params: 6, NonZero: 3, MACs: 6, EffectiveMACs: c.effective, Bytes: 24, OutShape: []int{3}}}}
		if diff := cmp.Diff(want, p, countsOnly); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestConvolutionWithGroupsAndStride(t *testing.T) {
	p := of(t, model.NewStore(), func(scope *model.Scope, x *graph.Node) *graph.Node {
		w := scope.VariableWithShape("weights", float(3, 3, 2, 6)).NodeValue(x.Graph())
		return graph.Convolve(x, w).ChannelGroupCount(2).Strides(2).PadSame().Done()
	}, float(1, 8, 8, 4))
	want := Layer{Path: "/", Kind: "conv", Params: 108, NonZero: 108, MACs: 4 * 4 * 6 * 3 * 3 * 4 / 2, EffectiveMACs: 1728, Bytes: 432, OutShape: []int{4, 4, 6}}
	if diff := cmp.Diff([]Layer{want}, p.Layers, countsOnly); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A layer that the output does not depend on costs nothing, weights that are used twice cost twice, and products of activations have a row of their own.
func TestLiveProducts(t *testing.T) {
	p := of(t, model.NewStore(), func(scope *model.Scope, x *graph.Node) *graph.Node {
		layers.Dense(scope.At("aside"), x, true, 100)
		w := scope.At("tied").VariableWithShape("weights", float(2, 2)).NodeValue(x.Graph())
		x = graph.MatMul(graph.MatMul(x, w), w)              // [3, 2]
		x = graph.MatMul(x, graph.Transpose(x, 0, 1))        // [3, 2] · [2, 3]
		return graph.ReduceAllSum(graph.Dot(x, x).Product()) // [3, 3] · [3, 3]
	}, float(3, 2))
	want := []Layer{
		{Path: "/tied", Kind: "dense", Params: 4, NonZero: 4, MACs: 2 * 3 * 2 * 2, EffectiveMACs: 24, Bytes: 16, OutShape: []int{2}},
		{Path: "/product 1", Kind: "product", MACs: 3 * 2 * 3, EffectiveMACs: 18, OutShape: []int{3}},
		{Path: "/product 2", Kind: "product", MACs: 27, EffectiveMACs: 27, OutShape: []int{3}},
		{Path: "/aside", Kind: "other", Params: 300, NonZero: 300, Bytes: 1200},
	}
	if diff := cmp.Diff(want, p.Layers, countsOnly); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	scalar := of(t, model.NewStore(), func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.DotProduct(x, x) }, float(5))
	if scalar.MACs() != 5 || scalar.Layers[0].OutShape != nil {
		t.Errorf("the product of two vectors: %+v", scalar)
	}
}

func TestPaths(t *testing.T) {
	p := of(t, model.NewStore(), func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(scope, x, false, 2)         // /dense
		x = layers.Dense(scope.At("a"), x, false, 2) // /a/dense
		w := scope.At("b").VariableWithShape("weights", float(2, 2)).NodeValue(x.Graph())
		x = layers.Dense(scope.At("b"), graph.MatMul(x, w), false, 2) // /b and /b/dense
		return layers.Dense(scope.At("c").At("conv"), x, false, 2)    // /c/conv/dense
	}, float(1, 2))
	var got []string
	for _, l := range p.Layers {
		got = append(got, l.Path)
	}
	if diff := cmp.Diff([]string{"/dense", "/a", "/b", "/b/dense", "/c/conv"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var rows []string
	for _, row := range p.Table().Rows {
		rows = append(rows, row[0].(string))
	}
	if diff := cmp.Diff([]string{"dense", "a", "b", "b/dense", "c/conv", "total"}, rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What has no rule is named; what is known to multiply no weights is not.
func TestUnknown(t *testing.T) {
	matrix := func(scope *model.Scope, x *graph.Node, name string, dimensions ...int) *graph.Node {
		return scope.VariableWithShape(name, float(dimensions...)).NodeValue(x.Graph())
	}
	for _, c := range []struct {
		name  string
		model func(scope *model.Scope, x *graph.Node) *graph.Node
		want  []string
	}{
		{"a product in two steps", func(scope *model.Scope, x *graph.Node) *graph.Node {
			w := graph.InsertAxes(matrix(scope, x, "w", 4, 5), 0)            // [1, 4, 5]
			return graph.ReduceSum(graph.Mul(graph.InsertAxes(x, -1), w), 1) // [2, 4, 1] · [1, 4, 5] -> [2, 5]
		}, []string{"Mul with /w"}},
		{"a convolution of a dilated input with strides", func(scope *model.Scope, x *graph.Node) *graph.Node {
			x = graph.Reshape(x, 2, 2, 2, 1)
			return graph.Convolve(x, matrix(scope, x, "w", 2, 2, 1, 3)).InputDilationPerAxis(2, 2).StridePerAxis(2, 1).Done()
		}, []string{"ConvGeneral with /w"}},
		{"biases, layer normalisation, positions, look-ups, prepared weights", func(scope *model.Scope, x *graph.Node) *graph.Node {
			x = norm.LayerNorm(scope, layers.Dense(scope, x, true, 4), -1).Done()
			x = graph.Add(x, matrix(scope, x, "positions", 2, 4))
			index := graph.ConvertDType(graph.InsertAxes(graph.ReduceMax(x, 1), -1), dtypes.Int32) // [2, 1]
			x = graph.Add(x, graph.Gather(matrix(scope, x, "embedding", 9, 4), index))
			return graph.MatMul(x, graph.Mul(matrix(scope, x, "u", 4, 4), matrix(scope, x, "v", 4, 4)))
		}, nil},
	} {
		p := of(t, model.NewStore(), c.model, float(2, 4))
		if diff := cmp.Diff(c.want, p.Unknown); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		for _, name := range c.want {
			if !strings.Contains(p.Table().Caption, name) {
				t.Errorf("%s: the table does not say that %s is not counted", c.name, name)
			}
		}
	}
}

// Each backend lacks some of these operations.
func TestUnknownOnOneBackend(t *testing.T) {
	for _, c := range []struct {
		needs compute.OpType
		model func(scope *model.Scope, x *graph.Node) *graph.Node
		want  []string
	}{
		{compute.OpTypeBatchNormForInference, func(scope *model.Scope, x *graph.Node) *graph.Node {
			return norm.BatchNorm(scope, layers.Dense(scope, x, true, 4), -1).Done()
		}, nil},
		{compute.OpTypeFFT, func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.Abs(graph.RealFFT(x)) }, []string{"FFT"}},
		{compute.OpTypeWhile, func(_ *model.Scope, x *graph.Node) *graph.Node {
			small := graph.NewClosure(x.Graph(), func(g *graph.Graph) []*graph.Node {
				return []*graph.Node{graph.LessThan(graph.ReduceAllSum(graph.Parameter(g, "s", x.Shape())), graph.Scalar(g, dtypes.Float32, 10))}
			})
			square := graph.NewClosure(x.Graph(), func(g *graph.Graph) []*graph.Node {
				s := graph.Parameter(g, "t", x.Shape())
				return []*graph.Node{graph.MatMul(s, s)}
			})
			return graph.While(small, square, x)[0]
		}, []string{"While"}},
	} {
		for _, b := range []compute.Backend{pure(t), best(t)} {
			if !b.Capabilities().Operations[c.needs] {
				continue
			}
			p, err := Of(b, model.NewStore(), c.model, float(2, 2))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, p.Unknown); diff != "" {
				t.Errorf("%s on %s (-want +got):\n%s", c.needs, b.Name(), diff)
			}
		}
	}
}

// Zeros are read in each of the widths.
func TestNonZero(t *testing.T) {
	store := model.NewStore()
	for path, x := range map[string]*tensors.Tensor{
		"/f64":  tensors.FromValue([]float64{0, math.Copysign(0, -1), 1, math.SmallestNonzeroFloat64}),
		"/f32":  tensors.FromValue([]float32{0, float32(math.Copysign(0, -1)), 1, math.SmallestNonzeroFloat32}),
		"/bf16": tensors.FromValue([]bfloat16.BFloat16{bfloat16.FromFloat32(0), bfloat16.FromFloat32(float32(math.Copysign(0, -1))), bfloat16.FromFloat32(1), bfloat16.FromFloat32(-1e-30)}),
		"/i8":   tensors.FromValue([]int8{0, 0, math.MinInt8, 1}),
		"/u16":  tensors.FromValue([]uint16{0, 0, 1 << 15, 1}),
		"/i64":  tensors.FromValue([]int64{0, 0, math.MinInt64, 1}),
	} {
		v, err := store.CreateVariable(path, x)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := nonZero(v, nil); n != 2 || err != nil {
			t.Errorf("%s: %d are not zero, want 2 (%v)", path, n, err)
		}
		if n, err := nonZero(v, []bool{true, true, false, true}); n != 1 || err != nil {
			t.Errorf("%s: %d are not zero and kept, want 1 (%v)", path, n, err)
		}
	}
}

func TestBadInput(t *testing.T) {
	b := pure(t)
	for name, of := range map[string]func() (Profile, error){
		"another shape": func() (Profile, error) { return Of(b, model.NewStore(), nets.LeNet300, float(1, 3)) },
		"no example": func() (Profile, error) {
			return Of(b, model.NewStore(), func(s *model.Scope, x *graph.Node) *graph.Node { return layers.Dense(s, x, false, 2) }, float(0, 3))
		},
		"no shape":    func() (Profile, error) { return Of(b, model.NewStore(), nets.LeNet300, shapes.Shape{}) },
		"no backend":  func() (Profile, error) { return Of(nil, model.NewStore(), nets.LeNet300, float(1, 784)) },
		"no store":    func() (Profile, error) { return Of(b, nil, nets.LeNet300, float(1, 784)) },
		"no function": func() (Profile, error) { return Of(b, model.NewStore(), nil, float(1, 784)) },
		"no output": func() (Profile, error) {
			return Of(b, model.NewStore(), func(*model.Scope, *graph.Node) *graph.Node { return nil }, float(1, 784))
		},
		"a panic with a word": func() (Profile, error) {
			return Of(b, model.NewStore(), func(*model.Scope, *graph.Node) *graph.Node { panic("word") }, float(1, 784))
		},
	} {
		var failed *BuildError
		if p, err := of(); !errors.As(err, &failed) || len(p.Layers) > 0 {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestTable(t *testing.T) {
	p := Profile{Layers: []Layer{
		{Path: "/conv1", Kind: "conv", Params: 520, NonZero: 20, MACs: 288_000, EffectiveMACs: 0, Bytes: 2080, OutShape: []int{24, 24, 20}},
		{Path: "/", Kind: "other", Params: 1, NonZero: 1, Bytes: 4},
	}, Unknown: []string{"FFT"}}
	var got strings.Builder
	if err := p.Table().Text(&got); err != nil {
		t.Fatal(err)
	}
	want := `521 parameters, 2.1 kB, 288.000 kMACs = 576.00 kFLOPs
layer  kind   output    parameters  not zero     MACs  MACs without zeros  size (MB)
-----  -----  --------  ----------  --------  -------  ------------------  ---------
conv1  conv   24×24×20         520        20  288,000                   0      0.002
/      other                     1         1        0                   0      0.000
total                          521        21  288,000                   0      0.002
MACs are multiply-accumulates for one input, without the additions of biases; FLOPs = 2 MACs. MB = 10⁶ bytes. Not counted, for want of a rule: FFT.
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A profile of several inputs says so where it says what MACs are.
func TestTableOfABatch(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	fn := func(scope *model.Scope, x *graph.Node) *graph.Node { return layers.Dense(scope, x, false, 2) }
	store := model.NewStore()
	if _, err := store.CreateVariable("/dense/weights", tensors.FromValue([][]float32{{1, 2}, {3, 4}, {5, 6}})); err != nil {
		t.Fatal(err)
	}
	for batch, want := range map[int]string{1: "for one input,", 4: "for 4 inputs together,"} {
		p, err := Of(b, store, fn, shapes.Make(dtypes.Float32, batch, 3))
		if err != nil {
			t.Fatal(err)
		}
		if p.MACs() != int64(6*batch) || !strings.Contains(p.Table().Caption, want) {
			t.Errorf("batch %d: %d MACs, %q; want %d and %q", batch, p.MACs(), p.Table().Caption, 6*batch, want)
		}
	}
}

func TestMACsPerWeight(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Of(b, model.NewStore(), nets.LeNet5, shapes.Make(dtypes.Float32, 1, 28, 28, 1))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"/conv1/conv/weights": 24 * 24, "/conv2/conv/weights": 8 * 8, "/fc1/dense/weights": 1, "/output/dense/weights": 1}
	if diff := cmp.Diff(want, p.MACsPerWeight); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

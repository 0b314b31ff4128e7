package nets

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
)

// runnable bounds the networks that the tests initialise and run, in MACs of an example; larger ones are only built, for VGG16's values take 553 MB.
const runnable = 41_000_000

// best is the backend that a user would have: GoMLX's Go backend lacks the gradient of max-pooling.
func best(t testing.TB) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// built holds a network's graph in training, which is neither compiled nor run.
type built struct {
	x, logits *graph.Node
	variables []*model.Variable // that are trained
	gradients []*graph.Node     // of the sum of the squared logits
}

func build(t *testing.T, n Network, batch int) built {
	t.Helper()
	g := graph.NewGraph(best(t), n.Name)
	t.Cleanup(g.Finalize)
	store := model.NewStore()
	model.SetStore(g, store)
	store.SetTraining(g, true) // without statistics of its own a batch normalisation has no gradient in inference
	var out built
	out.x = graph.Parameter(g, "x", shapes.Make(dtypes.Float32, append([]int{batch}, n.Input...)...))
	out.logits = n.Model(store.RootScope(), out.x)
	var values []*graph.Node
	for v := range store.IterVariables() {
		if v.Trainable {
			out.variables = append(out.variables, v)
			values = append(values, v.NodeValue(g))
		}
	}
	out.gradients = graph.Gradient(graph.ReduceAllSum(graph.Square(out.logits)), values...)
	return out
}

func reaches(from, to *graph.Node) bool {
	seen := map[*graph.Node]bool{}
	var walk func(*graph.Node) bool
	walk = func(n *graph.Node) bool {
		if n == to {
			return true
		}
		if seen[n] {
			return false
		}
		seen[n] = true
		return slices.ContainsFunc(n.Inputs(), walk)
	}
	return walk(from)
}

// example is a batch whose images differ, with values from 0 to 1.
func example(batch int, input ...int) *tensors.Tensor {
	shape := shapes.Make(dtypes.Float32, append([]int{batch}, input...)...)
	x := make([]float32, shape.Size())
	for i := range x {
		x[i] = float32(0.5 + 0.5*math.Sin(float64(i*i%1009)))
	}
	return tensors.FromFlatDataAndDimensions(x, shape.Dimensions...)
}

// run returns a network's logits with weights drawn from a seed.
func run(t *testing.T, n Network, seed int64, x *tensors.Tensor) [][]float32 {
	t.Helper()
	store := model.NewStore()
	store.RootScope().SetParam(model.ParamInitialSeed, seed)
	exec, err := model.NewExec(best(t), store, n.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call1(x)
	if err != nil {
		t.Fatal(err)
	}
	return out.Value().([][]float32)
}

// gradients returns those of the sum of the squared logits in training, by path.
func gradients(t *testing.T, n Network, x *tensors.Tensor) map[string]*tensors.Tensor {
	t.Helper()
	store := model.NewStore()
	var paths []string
	exec, err := model.NewExec(best(t), store, func(scope *model.Scope, x *graph.Node) []*graph.Node {
		store.SetTraining(x.Graph(), true)
		y := n.Model(scope, x)
		var values []*graph.Node
		for v := range store.IterVariables() {
			if v.Trainable {
				paths = append(paths, v.Path())
				values = append(values, v.NodeValue(y.Graph()))
			}
		}
		return graph.Gradient(graph.ReduceAllSum(graph.Square(y)), values...)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call(x)
	if err != nil {
		t.Fatal(err)
	}
	grads := map[string]*tensors.Tensor{}
	for i, path := range paths {
		grads[path] = out[i]
	}
	return grads
}

// Every network on the list does what its description says.
func TestConformance(t *testing.T) {
	path := regexp.MustCompile(`^(/[a-z]+[0-9_]*){1,2}/(dense/(weights|biases)|conv/(weights|biases)|batch_normalization/(scale|offset)|layer_normalization/(gain|offset)` +
		`|MultiHeadAttention/(query|key|value|output)/dense/(weights|biases))$|^/tokens/(class|positions)$`)
	for _, n := range All() {
		t.Run(n.Name, func(t *testing.T) {
			if n.Name == "" || n.Cite == "" || n.Model == nil || len(n.Input) != 3 || n.MACs <= 0 {
				t.Fatalf("not described: %+v", n)
			}
			for _, batch := range []int{1, 7} {
				b := build(t, n, batch)
				if want := shapes.Make(dtypes.Float32, batch, n.Classes); !b.logits.Shape().Equal(want) {
					t.Errorf("logits %s, want %s", b.logits.Shape(), want)
				}
				total := 0
				for i, v := range b.variables {
					total += v.Shape().Size()
					if !path.MatchString(v.Path()) {
						t.Errorf("the path %s does not have the form scope, layer of GoMLX, variable", v.Path())
					}
					// Where no gradient arrives, GoMLX makes a constant of zeros.
					if !reaches(b.gradients[i], b.x) {
						t.Errorf("no gradient reaches %s", v.Path())
					}
				}
				if total != n.Params {
					t.Errorf("%d parameters, want %d", total, n.Params)
				}
			}
			if n.MACs > runnable {
				return
			}
			seven := run(t, n, 1, example(7, n.Input...))
			for path, grad := range gradients(t, n, example(7, n.Input...)) {
				nonzero := false
				tensors.MustConstFlatData(grad, func(values []float32) {
					nonzero = slices.ContainsFunc(values, func(x float32) bool { return x != 0 })
				})
				if !nonzero {
					t.Errorf("the gradient of %s is zero", path)
				}
			}
			for i, row := range seven {
				for j, x := range row {
					if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
						t.Fatalf("logit %d of example %d is %v", j, i, x)
					}
				}
			}
			again := run(t, n, 1, example(7, n.Input...))
			if diff := cmp.Diff(seven, again); diff != "" {
				t.Errorf("the same seed gave other logits (-first +second):\n%s", diff)
			}
			other := run(t, n, 2, example(7, n.Input...))
			if cmp.Equal(seven, other) {
				t.Error("another seed gave the same logits")
			}
			near := cmp.Comparer(func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-4 })
			one := run(t, n, 1, example(1, n.Input...))
			if diff := cmp.Diff(seven[:1], one, near); diff != "" {
				t.Errorf("an example's logits depend on the others of its batch (-of seven +alone):\n%s", diff)
			}
			flat := run(t, n, 1, example(7, n.Input[0]*n.Input[1]*n.Input[2]))
			if diff := cmp.Diff(seven, flat, near); diff != "" {
				t.Errorf("flat images gave other logits (-images +flat):\n%s", diff)
			}
		})
	}
}

func TestScopes(t *testing.T) {
	want := map[string][]string{
		"LeNet-300-100": {"fc1", "fc2", "output"},
		"LeNet-5":       {"conv1", "conv2", "fc1", "output"},
		"LeNet-5-norm":  {"conv1", "conv2", "fc1", "output"},
		"VGG16": {"conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
			"conv5_1", "conv5_2", "conv5_3", "fc1", "fc2", "output"},
	}
	for _, n := range All() {
		got := map[string]bool{}
		for _, v := range build(t, n, 1).variables {
			got[strings.Split(v.Path(), "/")[1]] = true
		}
		wanted := map[string]bool{}
		for _, scope := range want[n.Name] {
			wanted[scope] = true
		}
		if diff := cmp.Diff(wanted, got); len(wanted) > 0 && diff != "" {
			t.Errorf("%s (-want +got):\n%s", n.Name, diff)
		}
	}
}

func TestWrongInput(t *testing.T) {
	b := best(t)
	for _, c := range []struct {
		name  string
		model func(*model.Scope, *graph.Node) *graph.Node
		shape shapes.Shape
		want  []string
	}{
		{"too small", LeNet300, shapes.Make(dtypes.Float32, 2, 783), []string{"nets.LeNet300", "[2, 783]", "[batch, 28, 28, 1] or [batch, 784]", "resize"}},
		{"CIFAR-10", LeNet5, shapes.Make(dtypes.Float32, 2, 32, 32, 3), []string{"nets.LeNet5", "[2, 32, 32, 3]", "[batch, 28, 28, 1]", "another network"}},
		{"channels first", VGG16, shapes.Make(dtypes.Float32, 2, 3, 224, 224), []string{"nets.VGG16", "[2, 3, 224, 224]", "[batch, 224, 224, 3]", "channels last"}},
		{"no batch", LeNet5, shapes.Make(dtypes.Float32, 28, 28, 1), []string{"[28, 28, 1]", "[batch, 28, 28, 1]"}},
		{"no axis", LeNet300, shapes.Make(dtypes.Float32), []string{"nets.LeNet300"}},
		{"raw pixels", LeNet300, shapes.Make(dtypes.Uint8, 2, 28, 28, 1), []string{"nets.LeNet300", "Uint8", "expected floats", "Decode"}},
	} {
		g := graph.NewGraph(b, c.name)
		store := model.NewStore()
		model.SetStore(g, store)
		err := exceptions.TryCatch[error](func() { c.model(store.RootScope(), graph.Parameter(g, "x", c.shape)) })
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", c.name, err, part)
			}
		}
		if store.NumVariables() != 0 {
			t.Errorf("%s: variables were made before the input was refused", c.name)
		}
		g.Finalize()
	}
}

// Every network refuses an input that is too small, before it makes variables.
func TestEveryNetworkRefuses(t *testing.T) {
	for _, n := range All() {
		g, store := graph.NewGraph(best(t), n.Name), model.NewStore()
		model.SetStore(g, store)
		err := exceptions.TryCatch[error](func() { n.Model(store.RootScope(), graph.Parameter(g, "x", shapes.Make(dtypes.Float32, 2, 5))) })
		if err == nil || !strings.Contains(err.Error(), "[2, 5]") || !strings.Contains(err.Error(), "resize") || store.NumVariables() != 0 {
			t.Errorf("%s: %v, and %d variables", n.Name, err, store.NumVariables())
		}
		g.Finalize()
	}
}

// One window of four with a single largest value, one in which all tie: each of the tied gets the whole gradient.
func TestPool(t *testing.T) {
	exec, err := graph.NewExec(best(t), func(x *graph.Node) []*graph.Node {
		y := pool2x2(x)
		return []*graph.Node{y, graph.Gradient(graph.ReduceAllSum(graph.MulScalar(y, 3)), x)[0]}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call([][][][]float32{{{{1}, {2}, {5}, {5}}, {{4}, {3}, {5}, {5}}}}) // [1, 2, 4, 1]
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][][][]float32{{{{4}, {5}}}}, out[0].Value()); diff != "" {
		t.Errorf("value (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][][][]float32{{{{0}, {0}, {3}, {3}}, {{3}, {0}, {3}, {3}}}}, out[1].Value()); diff != "" {
		t.Errorf("gradient (-want +got):\n%s", diff)
	}
}

func ExampleAll() {
	for _, n := range All() {
		fmt.Println(n.Name, n.Input, n.Classes, n.Params)
	}
	// Output:
	// LeNet-300-100 [28 28 1] 10 266610
	// LeNet-5 [28 28 1] 10 431080
	// LeNet-5-norm [28 28 1] 10 431650
	// SmallConv [32 32 3] 10 47818
	// SmallVGG [32 32 3] 10 61338
	// ResNet-8-narrow [32 32 3] 10 19218
	// ResNet-20 [32 32 3] 10 269722
	// ResNet-20-narrow [32 32 3] 10 68050
	// ResNet-20-B [32 32 3] 10 272474
	// ResNet-56 [32 32 3] 10 853018
	// ResNet-56-B [32 32 3] 10 855770
	// VGG16 [224 224 3] 1000 138357544
	// ResNet-18 [224 224 3] 1000 11689512
	// ResNet-34 [224 224 3] 1000 21797672
	// ResNet-50 [224 224 3] 1000 25557032
	// MobileNetV2 [224 224 3] 1000 3504872
	// ViT-B/16 [224 224 3] 1000 86567656
}

func TestFind(t *testing.T) {
	for name, want := range map[string]string{"ResNet-18": "ResNet-18", "resnet18": "ResNet-18", "vit-b/16": "ViT-B/16", "vit_b_16": "ViT-B/16", "lenet-300-100": "LeNet-300-100"} {
		if n, err := Find(name); err != nil || n.Name != want {
			t.Errorf("Find(%q) = %q, %v, want %q", name, n.Name, err, want)
		}
	}
	for _, name := range []string{"", "resnet", "-"} {
		var unknown *UnknownError
		if _, err := Find(name); !errors.As(err, &unknown) || !strings.Contains(err.Error(), "MobileNetV2") {
			t.Errorf("Find(%q): %v, want an *UnknownError that lists the networks", name, err)
		}
	}
}

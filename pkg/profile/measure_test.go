package profile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

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

// block has attention, normalisation, a constant, a residual connection and a product with a prepared weight.
func block(scope *model.Scope, in []*graph.Node) []*graph.Node {
	x := in[0] // [2, 3, 8]
	x = graph.Add(x, attention.SelfAttention(scope.At("attention"), norm.LayerNorm(scope.At("norm"), x, -1).Done(), 2, 4).Done())
	x = graph.Add(x, graph.Const(x.Graph(), [][][]float32{{{1, 2, 3, 4, 5, 6, 7, 8}}}))
	w := scope.At("scaled").VariableWithShape("weights", float(8, 8)).NodeValue(x.Graph())
	x = graph.MatMul(x, graph.MulScalar(w, 2))
	x = activation.Relu(norm.BatchNorm(scope.At("fc"), layers.Dense(scope.At("fc"), x, true, 5), -1).Done())
	return []*graph.Node{graph.ReduceMean(x, 1), graph.ReduceMax(x, 1)} // [2, 5] each
}

// The parts of a network, run one after the other, compute what the network does.
func TestPiecesAreTheNetwork(t *testing.T) {
	for name, c := range map[string]struct {
		fn    trace.ModelFn
		shape shapes.Shape
	}{
		"block":     {block, float(2, 3, 8)},
		"SmallConv": {trace.Single(nets.SmallConv), float(2, 32, 32, 3)},
	} {
		t.Run(name, func(t *testing.T) {
			b, store := best(t), model.NewStore()
			exec, err := model.NewExec(b, store, func(_ *model.Scope, x *graph.Node) []*graph.Node {
				return c.fn(store.RootScope(), []*graph.Node{x})
			})
			if err != nil {
				t.Fatal(err)
			}
			defer exec.Finalize()
			x := tensors.FromShape(c.shape)
			if err := x.MutableFlatData(func(flat any) {
				for i, values := 0, flat.([]float32); i < len(values); i++ {
					values[i] = float32(math.Sin(float64(i)))
				}
			}); err != nil {
				t.Fatal(err)
			}
			want, err := exec.Call(x)
			if err != nil {
				t.Fatal(err)
			}
			_, count, err := count(b, store, c.fn, []shapes.Shape{c.shape})
			if err != nil {
				t.Fatal(err)
			}
			known := map[*trace.Value]*tensors.Tensor{trace.Of(count.trace.Inputs[0])[0]: x}
			for path, v := range count.trace.Variables() {
				if known[v], err = store.GetVariable(path).Value(); err != nil {
					t.Fatal(err)
				}
			}
			left := map[string]bool{}
			for _, scope := range count.order {
				left[scope] = true
			}
			for progress := true; progress; {
				progress = false
				for _, scope := range count.order {
					p, err := count.piece(func(op *trace.Op) bool { return count.owner[op] == scope })
					if err != nil {
						t.Fatal(err)
					}
					var in []any
					for _, v := range p.in {
						if known[v] != nil {
							in = append(in, known[v])
						}
					}
					if !left[scope] || len(in) < len(p.in) {
						continue
					}
					out, err := graph.CallOnceN(b, p.build, in...)
					if err != nil {
						t.Fatalf("%s: %v", scope, err)
					}
					for i, v := range p.out {
						known[v] = out[i]
					}
					left[scope], progress = false, true
				}
			}
			for i, node := range count.trace.Outputs {
				got := known[trace.Of(node)[0]]
				if got == nil {
					t.Fatalf("output %d was not computed; parts left: %v", i, left)
				}
				near := cmp.Comparer(func(a, b float32) bool { return math.Abs(float64(a-b)) <= 1e-5*math.Max(1, math.Abs(float64(b))) })
				if diff := cmp.Diff(want[i].Value(), got.Value(), near); diff != "" {
					t.Errorf("output %d (-network +parts):\n%s", i, diff)
				}
			}
		})
	}
}

// Which layer an operation belongs to.
func TestOwners(t *testing.T) {
	_, c, err := count(best(t), model.NewStore(), block, []shapes.Shape{float(2, 3, 8)})
	if err != nil {
		t.Fatal(err)
	}
	owners := map[string][]string{} // by type
	for _, op := range c.trace.Ops {
		if c.onExamples(op) {
			owners[op.Type] = append(owners[op.Type], c.owner[op])
		}
	}
	for kind, want := range map[string]string{
		"Sqrt":                  "/norm/layer_normalization", // of the variance, before the layer's weights are used
		"Exp":                   "/product 1",                // of the softmax, between the products
		"Max":                   "/fc/batch_normalization",   // ReLU
		"BatchNormForInference": "/fc/batch_normalization",
		"ReduceMax":             "/product 1", // of the softmax, and the last
	} {
		if len(owners[kind]) == 0 || owners[kind][0] != want {
			t.Errorf("%s belongs to %v, want %s first", kind, owners[kind], want)
		}
	}
}

// clock advances by a fixed time whenever it is read.
func clock() func() time.Time {
	now := time.Time{}
	return func() time.Time {
		now = now.Add(10 * time.Millisecond)
		return now
	}
}

func TestMeasure(t *testing.T) {
	store := model.NewStore()
	variable(t, store, "/fc1/dense/weights", make([]float32, 800*500), 800, 500) // zeros, which gzip makes small
	p, err := Measure(t.Context(), best(t), store, trace.Single(nets.LeNet5), MeasureConfig{Compare: CompareConfig{Rounds: 2, Now: clock()}}, float(1, 28, 28, 1))
	if err != nil {
		t.Fatal(err)
	}
	if store.NumVariables() != 1 {
		t.Errorf("measuring left %d variables in the store, want 1", store.NumVariables())
	}
	if p.MACs() != 2_293_000 || p.Latency.Rounds != 2 || p.Dispatch.Rounds != 2 || len(p.Untimed) > 0 {
		t.Errorf("%d MACs, latency %+v, dispatch %+v, untimed %v", p.MACs(), p.Latency, p.Dispatch, p.Untimed)
	}
	for _, l := range p.Layers {
		if l.Latency.Rounds != 2 || l.Latency.Name != l.Path || l.Latency.P50 != 10*time.Millisecond {
			t.Errorf("%s: latency %+v", l.Path, l.Latency)
		}
		if gzipped := l.Path == "/fc1"; gzipped != (l.GzipBytes > 0) || l.GzipBytes > 5000 {
			t.Errorf("%s: %d bytes after gzip", l.Path, l.GzipBytes)
		}
	}
	var text strings.Builder
	if err := p.Table().Text(&text); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"CSR (MB)", "gzip (MB)", "activations (MB)", "median (ms)", "10.000", "2 rounds"} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("the table does not say %q:\n%s", part, &text)
		}
	}
	whole, err := Measure(t.Context(), best(t), store, trace.Single(nets.LeNet5), MeasureConfig{WholeOnly: true, NoGzip: true, Compare: CompareConfig{Rounds: 2, Now: clock()}}, float(1, 28, 28, 1))
	if err != nil {
		t.Fatal(err)
	}
	if whole.Latency.Rounds != 2 || whole.Layers[0].Latency.Rounds != 0 || whole.GzipBytes() != 0 {
		t.Errorf("whole only: %+v", whole)
	}
}

// Layers that compute the same are compiled and timed once.
func TestEqualLayersAreTimedOnce(t *testing.T) {
	fn := func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		x := in[0]
		for i := range 5 {
			x = layers.Dense(scope.At("fc%d", i), x, true, 4)
		}
		return []*graph.Node{x}
	}
	_, c, err := count(best(t), model.NewStore(), fn, []shapes.Shape{float(2, 4)})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, scope := range c.order {
		p, err := c.piece(func(op *trace.Op) bool { return c.owner[op] == scope })
		if err != nil {
			t.Fatal(err)
		}
		keys[p.key] = true
	}
	if len(c.order) != 5 || len(keys) != 1 {
		t.Errorf("%d layers have %d keys, want 5 and 1:\n%v", len(c.order), len(keys), keys)
	}
}

func TestMeasureErrors(t *testing.T) {
	lenet, shape := trace.Single(nets.LeNet5), float(1, 28, 28, 1)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(cancelled, best(t), model.NewStore(), lenet, MeasureConfig{}, shape); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var failed *BuildError
	if _, err := Measure(t.Context(), nil, model.NewStore(), lenet, MeasureConfig{}, shape); !errors.As(err, &failed) {
		t.Errorf("no backend: %v", err)
	}
	if _, err := Measure(t.Context(), best(t), model.NewStore(), lenet, MeasureConfig{}, float(1, 3)); !errors.As(err, &failed) {
		t.Errorf("another shape: %v", err)
	}
	b := pure(t)
	if !b.Capabilities().Operations[compute.OpTypeSort] {
		t.Fatal("the Go backend has no Sort: choose another operation that runs functions")
	}
	sorted := func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		return []*graph.Node{graph.Sort(in[0], -1, true)}
	}
	if _, err := Measure(t.Context(), b, model.NewStore(), sorted, MeasureConfig{}, float(4)); !errors.As(err, &failed) || !strings.Contains(err.Error(), "Sort") {
		t.Errorf("an operation that runs functions: %v, want a *BuildError that names it", err)
	}
}

// By hand, in bytes of float32.
func TestActivations(t *testing.T) {
	dense := func(scope *model.Scope, name string, x *graph.Node, out int) *graph.Node {
		return activation.Relu(layers.Dense(scope.At("%s", name), x, true, out))
	}
	for name, c := range map[string]struct {
		fn   func(scope *model.Scope, x *graph.Node) *graph.Node
		want Activations
	}{
		"one after the other: the input (16) and the first (32), then the first and the second (8)": {
			func(scope *model.Scope, x *graph.Node) *graph.Node {
				return dense(scope, "b", dense(scope, "a", x, 8), 2)
			}, Activations{Peak: 16 + 32, Sum: 32 + 8}},
		"a shortcut is kept: input and first (16 + 32), input, first and second (16 + 32 + 16), sum in place of the second": {
			func(scope *model.Scope, x *graph.Node) *graph.Node {
				return graph.Add(x, dense(scope, "b", dense(scope, "a", x, 8), 4))
			}, Activations{Peak: 16 + 32 + 16, Sum: 32 + 16}},
		"a change of shape is free": {
			func(scope *model.Scope, x *graph.Node) *graph.Node {
				return graph.Reshape(graph.Neg(graph.Reshape(x, 2, 2)), 4)
			}, Activations{Peak: 16, Sum: 0}},
		"what is used again is not written over": {
			func(scope *model.Scope, x *graph.Node) *graph.Node { return graph.Mul(graph.Exp(x), graph.Neg(x)) },
			Activations{Peak: 16 + 16, Sum: 16}},
		"broadcast to more": {
			func(scope *model.Scope, x *graph.Node) *graph.Node {
				return graph.Mul(graph.Reshape(x, 4, 1), graph.Reshape(x, 1, 4))
			}, Activations{Peak: 16 + 64, Sum: 64}},
	} {
		p, err := Of(best(t), model.NewStore(), c.fn, float(1, 4))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, p.Activations); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCSRBytes(t *testing.T) {
	for _, c := range []struct {
		shape shapes.Shape
		alive int64
		want  int64
	}{
		{float(3, 2), 4, 4*(4+4) + 4*3},                              // two rows
		{float(3, 3, 8, 16), 10, 10*(4+4) + 4*17},                    // sixteen
		{float(7), 1, 28},                                            // biases stay dense
		{shapes.Make(dtypes.Float16, 10, 10), 100, 100*(2+4) + 4*11}, // dense matrices grow
	} {
		if got := csrBytes(c.shape, c.alive); got != c.want {
			t.Errorf("%s with %d alive: %d bytes, want %d", c.shape, c.alive, got, c.want)
		}
	}
}

// What a mask makes zero is zero in what is compressed.
func TestGzipBytes(t *testing.T) {
	store, noise := model.NewStore(), make([]float32, 4096)
	for i := range noise {
		noise[i] = float32(math.Sin(float64(i * i)))
	}
	variable(t, store, "/w", noise, 64, 64)
	size := func(keep []bool) int64 {
		n, err := gzipBytes(store.GetVariable("/w"), keep)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	none := make([]bool, 4096)
	half := make([]bool, 4096)
	for i := range 2048 {
		half[i] = true
	}
	if all, some, no := size(nil), size(half), size(none); !(all > 8000 && some > all/3 && some < 2*all/3 && no < 200) {
		t.Errorf("%d bytes, half of it dead %d, all dead %d", all, some, no)
	}
}

func TestCompareModels(t *testing.T) {
	c, err := CompareModels(t.Context(), best(t), []Candidate{
		{"before", model.NewStore(), trace.Single(nets.LeNet5), []shapes.Shape{float(2, 28, 28, 1)}},
		{"after", model.NewStore(), trace.Single(nets.LeNet300), []shapes.Shape{float(2, 28, 28, 1)}},
	}, CompareConfig{Rounds: 3, Now: clock()})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := c.Table().Text(&got); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"before      431,080   431,080  4,586,000", "after       266,610   266,610    532,400", "1.00 to 1.00", "3 rounds"} {
		if !strings.Contains(got.String(), row) {
			t.Errorf("the table does not say %q:\n%s", row, &got)
		}
	}
	if _, err := CompareModels(t.Context(), best(t), nil, CompareConfig{}); !errors.Is(err, ErrNoContenders) {
		t.Errorf("nothing to compare: %v", err)
	}
	var failed *BuildError
	_, err = CompareModels(t.Context(), best(t), []Candidate{{Name: "broken", Store: model.NewStore(), Model: trace.Single(nets.LeNet5), Inputs: []shapes.Shape{float(3)}}}, CompareConfig{})
	if !errors.As(err, &failed) || !strings.Contains(fmt.Sprint(err), "broken") {
		t.Errorf("a network that can't be built: %v, want a *BuildError that names it", err)
	}
}

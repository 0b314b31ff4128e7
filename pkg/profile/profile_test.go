package profile

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/nets"
)

func environment(name string) func(string) string {
	return func(key string) string {
		if key == "GOMLX_BACKEND" {
			return name
		}
		return ""
	}
}

// Both backends: the Go backend fuses dense layers and leaves the unfused form in the graph as well.
func TestKnownNetworks(t *testing.T) {
	own, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	pure, _, err := backend.OpenWith(environment("go"))
	if err != nil {
		t.Fatal(err)
	}
	macs := map[string]int64{
		"LeNet-300-100": 784*300 + 300*100 + 100*10,
		"LeNet-5":       24*24*25*20 + 8*8*25*20*50 + 800*500 + 500*10,
		"VGG16":         15_470_264_320,
	}
	for _, n := range nets.All() {
		for _, b := range []compute.Backend{own, pure} {
			p, err := Of(b, model.NewStore(), n.Model, shapes.Make(dtypes.Float32, append([]int{1}, n.Input...)...))
			if err != nil {
				t.Fatal(err)
			}
			if p.Params() != int64(n.Params) || p.Bytes() != 4*int64(n.Params) || p.MACs() != macs[n.Name] || p.FLOPs() != 2*macs[n.Name] || len(p.Unknown) > 0 {
				t.Errorf("%s on %s: %d parameters, %d bytes, %d MACs, unknown %v; want %d, %d, %d", n.Name, b.Name(), p.Params(), p.Bytes(), p.MACs(), p.Unknown,
					n.Params, 4*n.Params, macs[n.Name])
			}
			if p.NonZero() != p.Params() || p.Sparse() != p.MACs() {
				t.Errorf("%s: without values nothing is known to be zero, got %d and %d", n.Name, p.NonZero(), p.Sparse())
			}
		}
	}
}

func TestZerosAreCounted(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	store := model.NewStore()
	if _, err := store.CreateVariable("/fc/dense/weights", tensors.FromFlatDataAndDimensions([]float32{1, 0, 0, float32(negativeZero())}, 2, 2)); err != nil {
		t.Fatal(err)
	}
	fn := func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(scope.At("fc"), x, false, 2)
		return graph.MatMul(x, graph.Transpose(x, 0, 1)) // [1, 2] · [2, 1]: a product of activations
	}
	p, err := Of(b, store, fn, shapes.Make(dtypes.Float32, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	want := Layer{Path: "/fc", Kind: "dense", Params: 4, NonZero: 1, MACs: 4, Sparse: 1, Bytes: 16, OutShape: []int{2}}
	if diff := cmp.Diff(want, p.Layers[0]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(p.Layers) != 2 || p.Layers[1].MACs != 2 || p.Layers[1].Params != 0 {
		t.Errorf("the product of activations: %+v", p.Layers)
	}
}

func negativeZero() float64 { zero := 0.0; return -1 * zero }

func TestWrongInputIsAnError(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Of(b, model.NewStore(), nets.LeNet300, shapes.Make(dtypes.Float32, 1, 3)); err == nil {
		t.Error("an input that does not fit gave no error")
	}
}

// The clock is made: each contender advances it by what it takes.
func TestCompare(t *testing.T) {
	now := time.Unix(0, 0)
	contender := func(name string, takes time.Duration) Contender {
		return Contender{name, func() error { now = now.Add(takes); return nil }}
	}
	timings, err := Compare(t.Context(), []Contender{contender("a", 2*time.Millisecond), contender("b", 3*time.Millisecond)},
		CompareConfig{Rounds: 5, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	b := timings[1]
	if timings[0].Ratio != 1 || b.Ratio < 1.499 || b.Ratio > 1.501 || b.Low != b.High || b.P50.Round(time.Microsecond) != 3*time.Millisecond || b.Rounds != 5 {
		t.Errorf("timings = %+v", timings)
	}
	broken := errors.New("broken")
	if _, err := Compare(t.Context(), []Contender{{"c", func() error { return broken }}}, CompareConfig{}); !errors.Is(err, broken) {
		t.Errorf("got %v, want the contender's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Compare(ctx, []Contender{contender("a", 1)}, CompareConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := Compare(t.Context(), nil, CompareConfig{}); err == nil {
		t.Error("no contenders gave no error")
	}
}

func TestModelContender(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	double := func(_ *model.Scope, x *graph.Node) *graph.Node { return graph.MulScalar(x, 2) }
	c, err := Model("double", b, model.NewStore(), double, tensors.FromFlatDataAndDimensions([]float32{1, 2}, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the input is used again and again
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
	}
}

func ExampleOf() {
	b, err := backend.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := Of(b, model.NewStore(), nets.VGG16, shapes.Make(dtypes.Float32, 1, 224, 224, 3))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d parameters, %.1f MB, %.3f GMACs = %.2f GFLOPs\n", p.Params(), float64(p.Bytes())/1e6, float64(p.MACs())/1e9, float64(p.FLOPs())/1e9)
	// Output: 138357544 parameters, 553.4 MB, 15.470 GMACs = 30.94 GFLOPs
}

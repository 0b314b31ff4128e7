package surgery

import (
	"runtime"
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// resNet50 is that of He et al. 2016, with the stride in the 3×3 convolution.
func resNet50(s *model.Scope, x *graph.Node) *graph.Node {
	x = relu(batchNorm(s.In("b0"), conv(s.In("c0"), x, 64, 7, 2)))
	x = graph.MaxPool(x).Window(3).Strides(2).PadSame().Done()
	for i, blocks := range []int{3, 4, 6, 3} {
		width := 64 << i
		for j := range blocks {
			b := s.In("s%d_%d", i, j)
			stride := 1
			if i > 0 && j == 0 {
				stride = 2
			}
			y := relu(batchNorm(b.In("b1"), conv(b.In("c1"), x, width, 1, 1)))
			y = relu(batchNorm(b.In("b2"), conv(b.In("c2"), y, width, 3, stride)))
			y = batchNorm(b.In("b3"), conv(b.In("c3"), y, 4*width, 1, 1))
			if j == 0 {
				x = batchNorm(b.In("bs"), conv(b.In("cs"), x, 4*width, 1, stride))
			}
			x = relu(graph.Add(x, y))
		}
	}
	return layers.Dense(s.In("fc"), graph.ReduceMean(x, 1, 2), true, 1000)
}

// filled makes a store with values for what a model function reads, without running it.
func filled(t testing.TB, fn trace.ModelFn, batch int, dims ...int) *model.Store {
	t.Helper()
	store := model.NewStore()
	r, err := trace.Record(open(t), store, fn, trace.Config{Training: true}, float(append([]int{batch}, dims...)...))
	if err != nil {
		t.Fatal(err)
	}
	for path, v := range r.Variables() {
		made, err := store.CreateVariable(path, tensors.FromShape(v.Shape))
		if err != nil {
			t.Fatal(err)
		}
		made.SetTrainable(v.Shape.Rank() != 1 || made.Name() == "scale" || made.Name() == "offset")
	}
	return store
}

// ResNet-50 has its published size, the groups of its blocks and residual streams, and half of it takes no more memory than it has to.
func TestResNet50(t *testing.T) {
	fn := trace.Single(resNet50)
	store := filled(t, fn, 1, 224, 224, 3)
	weights := uint64(store.ByteSize())
	var before, traced, applied runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	n, err := Trace(open(t), store, fn, float(1, 224, 224, 3))
	if err != nil {
		t.Fatal(err)
	}
	tracing := time.Since(start)
	runtime.ReadMemStats(&traced)
	if got := n.Cost().MACs; got != 4_089_184_256 {
		t.Errorf("%d MACs, want 4,089,184,256", got)
	}
	if len(n.Groups()) != 37 { // two in each of 16 blocks, and five streams
		t.Errorf("%d groups, want 37", len(n.Groups()))
	}
	p := half(n, 1)
	start = time.Now()
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	applying := time.Since(start)
	runtime.ReadMemStats(&applied)
	t.Logf("%d parameters of %d are left; tracing %v, %d MB allocated for %d MB of weights; applying %v, %d MB", small.Store.NumParameters(), store.NumParameters(),
		tracing.Round(time.Millisecond), (traced.TotalAlloc-before.TotalAlloc)>>20, weights>>20, applying.Round(time.Millisecond), (applied.TotalAlloc-traced.TotalAlloc)>>20)
	if all := applied.TotalAlloc - before.TotalAlloc; all > 4*weights {
		t.Errorf("%d MB were allocated in all, more than 4 times the %d MB of weights", all>>20, weights>>20)
	}
}

func BenchmarkTraceResNet50(b *testing.B) {
	fn := trace.Single(resNet50)
	store := filled(b, fn, 1, 224, 224, 3)
	for b.Loop() {
		if _, err := Trace(open(b), store, fn, float(1, 224, 224, 3)); err != nil {
			b.Fatal(err)
		}
	}
}

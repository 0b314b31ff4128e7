package prune

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/params"
)

// Ranking ten million scores takes no more memory than three times theirs.
func TestPruningTenMillionWeights(t *testing.T) {
	if testing.Short() {
		t.Skip("40 MB of weights")
	}
	w := make([]float32, 10_000_000)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range w {
		w[i] = float32(rng.NormFloat64())
	}
	store := model.NewStore()
	if _, err := store.CreateVariable("/fc/weights", tensors.FromFlatDataAndDimensions(w, 2500, 4000)); err != nil {
		t.Fatal(err)
	}
	p, err := New(open(t), store, params.Select(store, nil), Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prune(0.1, nil); err != nil { // compiles
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	stats, err := p.Prune(0.9, nil)
	if err != nil {
		t.Fatal(err)
	}
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	if stats[0].Kept != 1_000_000 {
		t.Errorf("%d kept, want a million", stats[0].Kept)
	}
	allocated := after.TotalAlloc - before.TotalAlloc
	t.Logf("%v, %.2f times the scores' bytes allocated", elapsed, float64(allocated)/4e7)
	if allocated > 3*4e7 {
		t.Errorf("%d MB allocated for 40 MB of scores", allocated/1e6)
	}
}

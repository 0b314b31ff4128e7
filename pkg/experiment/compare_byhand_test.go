package experiment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// quick is a comparison of one point.
func quick(t *testing.T, contenders ...Contender) Comparison {
	c := comparison(t)
	c.Fast, c.Seeds, c.Sparsities, c.Contenders = true, []int64{1}, []float64{0.5}, contenders
	c.Dense.Steps, c.Tune.Steps = 20, 10
	return c
}

// manifestsOf returns what a comparison wrote, by contender.
func manifestsOf(t *testing.T, c Comparison) map[string]Manifest {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.Dir, "manifests", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]Manifest{}
	for _, f := range files {
		m, err := ReadManifest(f)
		if err != nil {
			t.Fatal(err)
		}
		all[m.Contender] = m
	}
	return all
}

// Contenders start from the trained network of their seed: magnitude removes its smallest weights, found here by sorting.
func TestMagnitudeByHand(t *testing.T) {
	c := quick(t, Contender{})
	c.Dense.Steps, c.Tune.Steps = 60, 7
	compare(t, c)

	dense, err := c.Dense.Training()
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(t, c.Task, 1)
	set := params.Select(store, nil)
	keeper, err := prune.New(c.Task.Backend, store, set, prune.Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	dense.Seed, dense.Pruner = 1, keeper
	if _, err := Train(t.Context(), c.Task, store, dense); err != nil {
		t.Fatal(err)
	}
	type weight struct {
		of, at int
		size   float32
	}
	var all []weight
	alive := make([][]bool, len(set))
	for i, p := range set {
		for at, w := range tensors.MustCopyFlatData[float32](store.GetVariable(p.Path).MustValue()) {
			all = append(all, weight{i, at, max(w, -w)})
			alive[i] = append(alive[i], false)
		}
	}
	slices.SortStableFunc(all, func(a, b weight) int {
		if a.size > b.size {
			return -1
		}
		if a.size < b.size {
			return 1
		}
		return 0
	})
	for _, w := range all[:len(all)/2] {
		alive[w.of][w.at] = true
	}
	for i, p := range set {
		if err := mask.Set(store, p, alive[i]); err != nil {
			t.Fatal(err)
		}
	}
	var want Manifest
	if err := (&bench{store: store, set: set}).digests(&want); err != nil {
		t.Fatal(err)
	}
	m := manifestsOf(t, c)
	if got := m["magnitude"].Masks; got != want.Masks {
		t.Errorf("masks %s, by hand %s", got, want.Masks)
	}
	key, err := m["magnitude"].key()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.Open(filepath.Join(c.Dir, "masks", key[:16]+".masks"))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	again := newStore(t, c.Task, 1)
	if _, err := prune.New(c.Task.Backend, again, set, prune.Recipe{}); err != nil {
		t.Fatal(err)
	}
	if err := mask.Load(kept, again, set); err != nil {
		t.Fatal(err)
	}
	var loaded Manifest
	if err := (&bench{store: again, set: set}).digests(&loaded); err != nil || loaded.Masks != want.Masks {
		t.Errorf("the masks on disk are %s, by hand %s, %v", loaded.Masks, want.Masks, err)
	}
	if m["magnitude"].Examples != m["random"].Examples || m["magnitude"].Masks == m["random"].Masks || m["dense"].Masks != m["dense, trained on"].Masks {
		t.Errorf("one start, other masks for others, none for the dense networks: %+v", m)
	}
}

// A scratch network has the masks that magnitude leaves and first values of its own, and is trained for as long as others, or as many times as long as it has fewer multiplications than
// the 2·32 + 32·32 + 32·4 = 1216 of the whole, at most four times.
func TestScratchByHand(t *testing.T) {
	c := quick(t)
	c.Task.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = activation.Relu(layers.Dense(scope.At("fc1"), x, true, 32))
		x = activation.Relu(layers.Dense(scope.At("fc2"), x, true, 32))
		return layers.Dense(scope.At("output"), x, true, 4)
	}
	c.Dense, c.Tune, c.Dir = Spec{Steps: 30, Optimizer: "sgd", LearningRate: 1e-30}, Spec{Steps: 10}, "" // so that what it ends with is what it starts with
	b, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	b.tune.Optimizer = b.dense.Optimizer // compiled once
	if err := b.begin(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	visit := func(mode Mode, sparsity float64) (steps int, values Values) {
		steps, err := b.visit(t.Context(), run{Contender{Recipe: prune.Recipe{Unit: unit.Filter, Budget: budget.Layerwise}, Mode: mode}.complete(), sparsity, 1})
		if err != nil {
			t.Fatal(err)
		}
		if values, err = Snapshot(b.store); err != nil {
			t.Fatal(err)
		}
		return steps, values
	}
	for _, test := range []struct {
		sparsity float64
		steps    map[Mode]int
	}{
		{0.5, map[Mode]int{scratchE: 40, scratchB: 54 + 18}},     // 2·16 + 32·16 + 128 = 672 are left: 1.81 times as long
		{0.9375, map[Mode]int{scratchE: 40, scratchB: 120 + 40}}, // 2·2 + 32·2 + 128 = 196
	} {
		_, pruned := visit(OneShot, test.sparsity)
		for mode, want := range test.steps {
			steps, values := visit(mode, test.sparsity)
			if steps != want {
				t.Errorf("%s, %v removed: %d steps, want %d", mode, test.sparsity, steps, want)
			}
			for _, p := range b.set {
				alive := tensors.MustCopyFlatData[bool](values[mask.Path(p)])
				if diff := cmp.Diff(tensors.MustCopyFlatData[bool](pruned[mask.Path(p)]), alive); diff != "" {
					t.Errorf("%s, %v removed: masks of %s (-magnitude +scratch):\n%s", mode, test.sparsity, p.Path, diff)
				}
				dense := tensors.MustCopyFlatData[float32](b.start[p.Path])
				for i, w := range tensors.MustCopyFlatData[float32](values[p.Path]) {
					if alive[i] == (w == 0) || w != 0 && w == dense[i] {
						t.Fatalf("%s, %v removed: weight %d of %s starts at %v and the dense network's at %v; it is alive: %t", mode, test.sparsity, i, p.Path, w, dense[i], alive[i])
					}
				}
			}
		}
	}
}

// A criterion, a normalisation, a budget or a schedule that was written anew under its old name is not taken for the old one.
func TestCodeTellsRunsApart(t *testing.T) {
	scored := func(by float64) criterion.Criterion {
		return criterion.Criterion{Name: "mine", Score: func(in criterion.Inputs) *graph.Node { return graph.PowScalar(graph.Abs(in.Weight), by) }}
	}
	normalized := func(by float32) criterion.Normalize {
		return criterion.Normalize{Name: "mine", Apply: func(scores []float32, _ params.Param, _ *rand.Rand) {
			for i := range scores {
				scores[i] *= by
			}
		}}
	}
	divided := func(like budget.Budget) budget.Budget { return budget.Budget{Name: "mine", Divide: like.Divide} }
	rising := func(like schedule.Named) schedule.Named { return schedule.Named{Name: "mine", Make: like.Make} }
	linear := schedule.Named{Make: schedule.Linear}
	cubic := schedule.Named{Make: schedule.Cubic}
	for what, versions := range map[string][2]Contender{
		"criterion":     {{Recipe: prune.Recipe{Criterion: scored(1)}}, {Recipe: prune.Recipe{Criterion: scored(-1)}}},
		"normalisation": {{Recipe: prune.Recipe{Normalize: normalized(1)}}, {Recipe: prune.Recipe{Normalize: normalized(2)}}},
		"budget":        {{Recipe: prune.Recipe{Budget: divided(budget.Global)}}, {Recipe: prune.Recipe{Budget: divided(budget.Layerwise)}}},
		"schedule":      {{Mode: Gradual, Schedule: rising(cubic)}, {Mode: Gradual, Schedule: rising(linear)}},
	} {
		c := quick(t)
		done := func(one Contender) int {
			one.Name = "mine"
			c.Contenders = []Contender{one}
			return compare(t, c).Done
		}
		if first := done(versions[0]); first < 3 {
			t.Fatalf("%s: %d runs were made", what, first)
		}
		if again := done(versions[0]); again != 0 {
			t.Errorf("%s: unchanged, %d runs were made again", what, again)
		}
		if changed := done(versions[1]); changed == 0 {
			t.Errorf("%s: written anew under its old name, it was given the old results", what)
		}
	}
}

// A manifest of something else under the name of a run is not believed.
func TestSwappedManifestsAreNotBelieved(t *testing.T) {
	c := quick(t, Contender{})
	first := compare(t, c)
	files, err := filepath.Glob(filepath.Join(c.Dir, "manifests", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range [][]byte{other, []byte("null")} {
		if err := os.WriteFile(files[i+1], text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	again := compare(t, c)
	if again.Done != 2 {
		t.Errorf("%d runs were made again, want two", again.Done)
	}
	if diff := cmp.Diff(first.Records, again.Records); diff != "" {
		t.Errorf("the records differ (-first +again):\n%s", diff)
	}
}

// Wherever a manifest is cut off or changed it is refused, or says what it said. One of the first version, which has no digest, is read.
func TestDamagedManifests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.json")
	want := Manifest{Version: 3, Code: "k", Network: "n", Contender: "c", Mode: OneShot, Sparsity: 0.5, Masks: "m", Weights: "w", Results: map[string]float64{"accuracy": 0.98}}
	if err := want.write(path); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		at := i * len(whole) / 64
		for what, damaged := range map[string][]byte{
			"cut off": whole[:at],
			"flipped": append(append(bytes.Clone(whole[:at]), whole[at]^1<<(i%8)), whole[at+1:]...),
			"zeroed":  append(append(bytes.Clone(whole[:at]), 0), whole[at+1:]...),
		} {
			if err := os.WriteFile(path, damaged, 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := ReadManifest(path)
			var refused *ManifestError
			if err == nil && !cmp.Equal(want, got) || err != nil && !errors.As(err, &refused) {
				t.Errorf("%s at %d: %+v, %v", what, at, got, err)
			}
		}
	}
	for text, version := range map[string]int{`{"version":1,"masks":"m","results":{"accuracy":1}}`: 1, `{"version":2,"masks":"m","results":{"accuracy":1}}`: 0, `{"version":3}`: 0, `{"version":4}`: 0, `{}`: 0, "null": 0} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var refused *ManifestError
		if m, err := ReadManifest(path); m.Version != version || version == 0 && !errors.As(err, &refused) {
			t.Errorf("%s: version %d, %v", text, m.Version, err)
		}
	}
}

// Replay gives the same bits in every mode.
func TestReplayModes(t *testing.T) {
	c := quick(t, Contender{Name: "iterative", Mode: Iterative, Rounds: 3}, Contender{Name: "tracked", Recipe: prune.Recipe{Criterion: criterion.Movement}},
		Contender{Name: "filters", Recipe: prune.Recipe{Unit: unit.Filter}})
	compare(t, c)
	all := manifestsOf(t, c)
	recipes := map[string]prune.Recipe{"tracked": {Criterion: criterion.Movement}, "scratch-B, filter": {Unit: unit.Filter}}
	for _, name := range []string{"dense, trained on", "iterative", "tracked", "scratch-B, filter"} {
		m := all[name]
		one := c
		one.Contenders = []Contender{{Name: name, Recipe: recipes[name], Mode: m.Mode, Rounds: m.Rounds, Batches: m.Batches}}
		again, err := Replay(t.Context(), one, m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(m, again, cmpopts.IgnoreFields(Manifest{}, "Rounds")); diff != "" { // which mean nothing to most modes
			t.Errorf("%s (-was +again):\n%s", name, diff)
		}
	}
}

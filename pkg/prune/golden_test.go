package prune

import (
	"fmt"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/golden"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// The masks of torch.nn.utils.prune: L1Unstructured in one layer and over three, and ln_structured of two of five filters.
func TestMasksAgainstPyTorch(t *testing.T) {
	var in struct{ Weights []golden.Array }
	var want map[string]any
	if err := golden.Read("masks", &in, &want); err != nil {
		t.Fatal(err)
	}
	bools := func(a any) []bool {
		var alive []bool
		for _, x := range a.(map[string]any)["data"].([]any) {
			alive = append(alive, x.(float64) == 1)
		}
		return alive
	}
	check := func(name string, layers int, r Recipe, sparsity float64, want []any) {
		t.Helper()
		store := model.NewStore()
		for l, w := range in.Weights[:layers] {
			if _, err := store.CreateVariable(fmt.Sprintf("/%d/weights", l), tensors.FromFlatDataAndDimensions(w.Float32(), w.Shape...)); err != nil {
				t.Fatal(err)
			}
		}
		set := params.Select(store, nil)
		if r.Unit.Structured { // something has to be the output
			set = append(set, params.Param{Path: "/output", Output: true})
		}
		p, err := New(open(t), store, set, r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Prune(sparsity, nil); err != nil {
			t.Fatal(err)
		}
		for l, param := range p.Params() {
			got, err := mask.Bools(store, param)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(bools(want[l]), got); diff != "" {
				t.Errorf("%s, layer %d (-PyTorch +ours):\n%s", name, l, diff)
			}
		}
	}
	for _, amount := range []float64{0.3, 0.5, 0.7} {
		check(fmt.Sprintf("global %v", amount), 3, Recipe{}, amount, want[fmt.Sprintf("global %v", amount)].([]any))
		check(fmt.Sprintf("layer %v", amount), 1, Recipe{}, amount, []any{want[fmt.Sprintf("layer %v", amount)]})
	}
	check("filters by L1", 1, Recipe{Unit: unit.Filter}, 0.4, []any{want["filters L1"]})
	l2 := criterion.Magnitude
	l2.Name, l2.Pool = "L2", criterion.L2
	check("filters by L2", 1, Recipe{Unit: unit.Filter, Criterion: l2}, 0.4, []any{want["filters L2"]})
}

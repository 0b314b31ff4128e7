package sparsetrain

import (
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
)

// content is that of all variables.
func content(t *testing.T, store *model.Store) map[string]any {
	t.Helper()
	all := map[string]any{}
	for v := range store.IterVariables() {
		value, err := v.Value()
		if err != nil {
			t.Fatal(err)
		}
		all[v.Path()] = value.Value()
	}
	return all
}

// What an update has changed of a layer, masks, weights, signs and moments, is set back to the bit, also where a place was reset twice: as dropped and as grown anew.
func TestUndo(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	store := model.NewStore()
	for path, x := range map[string][]float32{"/a/weights": {1, -2, 3, -4, 5, -6, 7, -8}, velocityPath(params.Param{Path: "/a/weights"}): {1, 2, 3, 4, 5, 6, 7, 8}} {
		v, err := store.CreateVariable(path, tensors.FromFlatDataAndDimensions(x, 4, 2))
		if err != nil {
			t.Fatal(err)
		}
		v.SetTrainable(path == "/a/weights")
	}
	u := Update{Name: "mine", Init: RandomSign, Moments: ResetChanged}
	e, err := New(b, store, params.Select(store, nil), u, Config{Density: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := e.round(100, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := r.Layers[0]
	var dead []int32
	for i, alive := range l.Alive {
		if !alive {
			dead = append(dead, int32(i))
		}
	}
	living := l.living()
	// One dies, one is grown, and one that was dropped is grown anew.
	m := move{died: living[:1], grown: []int32{dead[0], living[1]}, fresh: []int32{dead[0], living[1]}, gone: living[:2], values: []float32{0.5, -0.25}}
	l.Positive[dead[0]] = !l.Positive[dead[0]]
	before := content(t, store)
	var changed undo
	l.dropped = living[:2]
	if err := e.writeLayer(l, &m, &changed); err != nil {
		t.Fatal(err)
	}
	after := content(t, store)
	for _, path := range []string{"/a/weights", mask.Path(l.Param), signScope + "/a/weights", velocityPath(l.Param)} {
		if cmp.Equal(before[path], after[path]) {
			t.Errorf("%s: the update has not changed it: %v", path, after[path])
		}
	}
	if err := changed.back(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, content(t, store)); diff != "" {
		t.Errorf("set back (-before +after)\n%s", diff)
	}
}

package rewrite

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// objects returns the directories of the values that present themselves, with when each was written.
func (n *notebook) objects() map[string]int64 {
	n.t.Helper()
	entries, err := os.ReadDir(n.c.State)
	if err != nil {
		n.t.Fatal(err)
	}
	times := map[string]int64{}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == manifest.ValueSuffix && e.IsDir() {
			info, err := e.Info()
			if err != nil {
				n.t.Fatal(err)
			}
			times[e.Name()] = info.ModTime().UnixNano()
		}
	}
	return times
}

func TestNetworkCrossesCells(t *testing.T) {
	t.Setenv("GOMLX_BACKEND", "go")
	n := newNotebook(t)
	n.want(`import "fmt"
import "github.com/gomlx/gomlx/ml/model"
import "github.com/gomlx/gomlx/core/tensors"
import "github.com/espalier-ml/espalier/pkg/backend"
import "github.com/espalier-ml/espalier/pkg/criterion"
import "github.com/espalier-ml/espalier/pkg/params"
import "github.com/espalier-ml/espalier/pkg/prune"
var store = model.NewStore()
var same = store
var gomlx, err = backend.Open()
var recipe = prune.Recipe{Criterion: criterion.LAMP}
func weights() any { return tensors.MustCopyFlatData[float32](store.GetVariable("/fc/weights").MustValue()) }
%%
v, problem := store.CreateVariable("/fc/weights", tensors.FromValue([][]float32{{1, -2}, {3, -4}}))
v.SetTrainable(true)
fmt.Println(problem)`, "<nil>")
	written := n.objects()
	if len(written) != 1 {
		t.Fatalf("%d values present themselves, want the store alone", len(written))
	}
	// It is read, and not written again; the cell has no backend.
	n.want("%%\nfmt.Println(weights(), store == same, recipe)", "[1 -2 3 -4] true LAMP")
	if diff := cmp.Diff(written, n.objects()); diff != "" {
		t.Errorf("an unchanged network was written (-before +after):\n%s", diff)
	}
	n.statements("p, problem := prune.New(gomlx, store, params.Select(store, nil), recipe)\nfmt.Println(problem)", "<nil>",
		"gomlx, err are evaluated again")
	n.statements("_, problem = p.Prune(0.5, nil)\nfmt.Println(problem, p.Store() == store, weights())", "<nil> true [0 0 3 -4]")
	n.statements("t := tensors.FromValue([]int32{1, 2})\nfmt.Println(weights())", "[0 0 3 -4]")
	n.want("%%\nfmt.Println(t, p.Recipe())", "[2]int32{1, 2} LAMP")
	// A cell that has to do with none of it links none of it.
	n.want("%%\nfmt.Println(1)", "1")
	info, err := os.Stat(n.binary)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 4<<20 {
		t.Errorf("the program of a trivial cell has %d bytes", info.Size())
	}
}

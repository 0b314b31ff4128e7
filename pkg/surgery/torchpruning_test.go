package surgery_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/surgery/internal/fill"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// parity is what testdata/torchpruning/parity.py writes.
type parity struct {
	Source      string
	SmallestGap float64 `json:"smallest_gap"` // relative, between the importances of the last channel that goes and the first that stays
	Params      int64   // that are left, without statistics
	Groups      []struct {
		Root    string // the path of the kernel whose outputs the channels are
		Units   int
		Removed []int
		Members [][2]string // path and what is pruned there
	}
}

// uniform returns n numbers in [0, 1) with 24 bits: SplitMix64, started at the hash of a name, as parity.py does it.
func uniform(name string, n int) []float64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	state := h.Sum64()
	values := make([]float64, n)
	for i := range values {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		values[i] = float64(z>>40) / (1 << 24)
	}
	return values
}

// parityWeights are the values of a variable in parity.py.
func parityWeights(path string, dims []int) []float32 {
	n := shapes.Make(dtypes.Float32, dims...).Size()
	values, u := make([]float32, n), uniform(path, n)
	if len(dims) == 1 {
		for i := range values {
			values[i] = float32(0.5 + u[i])
		}
		return values
	}
	out := dims[len(dims)-1]
	bound, factor := math.Sqrt(3/float64(n/out)), uniform(path+"#factor", out)
	for i := range values {
		values[i] = float32((2*u[i] - 1) * (bound * (0.5 + factor[i%out])))
	}
	return values
}

// squares sums the squares of the weights at each index of an axis.
func squares(values []float32, dims []int, axis int) []float64 {
	inner := 1
	for _, d := range dims[axis+1:] {
		inner *= d
	}
	sums := make([]float64, dims[axis])
	for i, v := range values {
		sums[i/inner%dims[axis]] += float64(v) * float64(v)
	}
	return sums
}

// On torchvision's ResNet-18 and MobileNetV2 with the same weights, surgery finds the groups that Torch-Pruning finds, and by group L2 importance it removes the same channels, but for
// groups with depthwise kernels: Torch-Pruning leaves these out of the importance, and Espalier counts them. TORCHPRUNING.md has the numbers.
func TestAgainstTorchPruning(t *testing.T) {
	table := report.Table{Columns: []report.Column{{Name: "network"}, {Name: "groups"}, {Name: "of them with depthwise kernels"}, {Name: "channels removed"}, {Name: "same"},
		{Name: "other, in groups with depthwise kernels"}, {Name: "parameters left"}}}
	source := ""
	for _, network := range []struct {
		name, file string
		model      func(*model.Scope, *graph.Node) *graph.Node
	}{{"ResNet-18", "resnet18", nets.ResNet18}, {"MobileNetV2", "mobilenetv2", nets.MobileNetV2}} {
		t.Run(network.name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", "torchpruning", network.file+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var theirs parity
			if err := json.Unmarshal(text, &theirs); err != nil {
				t.Fatal(err)
			}
			if source = theirs.Source; theirs.SmallestGap < 1e-5 {
				t.Errorf("the smallest gap between importances is %g, too little for sums in single precision", theirs.SmallestGap)
			}
			b, input := open(t), shapes.Make(dtypes.Float32, 1, 224, 224, 3)
			store, err := fill.Store(b, trace.Single(network.model), 1, input)
			if err != nil {
				t.Fatal(err)
			}
			weights := map[string][]float32{}
			for v := range store.IterVariables() {
				if name := v.Name(); name == "weights" || name == "scale" {
					weights[v.Path()] = parityWeights(v.Path(), v.Shape().Dimensions)
				}
			}
			for path, values := range weights {
				v := store.GetVariable(path)
				if err := v.SetValue(tensors.FromFlatDataAndDimensions(slices.Clone(values), v.Shape().Dimensions...)); err != nil {
					t.Fatal(err)
				}
			}
			n, err := surgery.Trace(b, store, trace.Single(network.model), input)
			if err != nil {
				t.Fatal(err)
			}
			group := criterion.Magnitude
			group.Name, group.Pool = "group L2", criterion.L2
			plan, err := n.Plan(surgery.Config{Criterion: group, Units: 0.5, Uniform: true}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(n.Groups()) != len(theirs.Groups) {
				t.Errorf("%d groups, Torch-Pruning finds %d", len(n.Groups()), len(theirs.Groups))
			}
			removed, same, depthwise := 0, 0, 0
			for _, g := range theirs.Groups {
				ours := groupOf(n, g.Root)
				if ours == nil {
					t.Errorf("no group of ours has the outputs of %s", g.Root)
					continue
				}
				if diff := cmp.Diff(places(g.Members), kernels(ours)); diff != "" {
					t.Errorf("the group of %s (-Torch-Pruning +ours)\n%s", g.Root, diff)
				}
				// Units are numbered by the first place; theirs are outputs of the root.
				var goes []int
				for _, unit := range plan.Removed[ours.Name] {
					for _, m := range ours.Members {
						if m.Path == g.Root && m.Role == surgery.Makes {
							goes = append(goes, m.Indices[unit]...)
						}
					}
				}
				slices.Sort(goes)
				removed += len(goes)
				for _, i := range goes {
					if slices.Contains(g.Removed, i) {
						same++
					}
				}
				with := strings.Contains(fmt.Sprint(g.Members), "depthwise_conv_out")
				if !with {
					if diff := cmp.Diff(g.Removed, goes); diff != "" {
						t.Errorf("channels of %s that go (-Torch-Pruning +ours)\n%s", g.Root, diff)
					}
					continue
				}
				// The difference is the depthwise kernels' part, and nothing else: without it the least important half is theirs.
				depthwise++
				importance := make([]float64, g.Units)
				for _, m := range g.Members {
					axis := map[string]int{"conv_out": 3, "conv_in": 2, "linear_in": 0, "batchnorm_out": 0}
					k, counted := axis[m[1]]
					if !counted {
						continue
					}
					for i, s := range squares(weights[m[0]], store.GetVariable(m[0]).Shape().Dimensions, k) {
						importance[i] += s
					}
				}
				order := make([]int, g.Units)
				for i := range order {
					order[i] = i
				}
				slices.SortStableFunc(order, func(i, j int) int {
					if importance[i] < importance[j] {
						return -1
					}
					return 1
				})
				if diff := cmp.Diff(g.Removed, slices.Sorted(slices.Values(order[:g.Units/2]))); diff != "" {
					t.Errorf("channels of %s that go without the depthwise kernels' part (-Torch-Pruning +ours)\n%s", g.Root, diff)
				}
			}
			cost, err := plan.Cost()
			if err != nil {
				t.Fatal(err)
			}
			var statistics int64 // which Torch-Pruning does not count
			indices, err := plan.Indices()
			if err != nil {
				t.Fatal(err)
			}
			for v := range store.IterVariables() {
				if name := v.Name(); name == "mean" || name == "variance" || name == "avg_weight" {
					statistics += int64(v.Shape().Size() - len(indices[v.Path()][0]))
				}
			}
			if left := cost.Params - statistics; left != theirs.Params {
				t.Errorf("%d parameters are left, with Torch-Pruning %d", left, theirs.Params)
			}
			table.Rows = append(table.Rows, []any{network.name, len(theirs.Groups), depthwise, removed, same, removed - same, report.Count(theirs.Params)})
		})
	}
	if t.Failed() {
		return
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "# Against Torch-Pruning\n\nWritten by a test of this package (`go test ./pkg/surgery -run TorchPruning -update`). Both cut half of the channels of each group, by the sum of squares of all weights "+
		"that belong to a channel, from the same weights. Reference: %s, by `testdata/torchpruning/parity.py`.\n\n", source)
	if err := table.Markdown(&text); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(&text, "\nThe groups are the same, with the same kernels and normalisations in each. The channels are the same but for groups with depthwise kernels: Torch-Pruning leaves these kernels out of "+
		"the importance of their channels, Espalier counts them like any other. Without their part, the same channels go; the test checks that, too.\n\n"+
		"Numbers of channels are in one group each here; Torch-Pruning counts parameters without the statistics of normalisations, `Plan.Cost` with them.\n")
	const file = "TORCHPRUNING.md"
	if rewriting() {
		if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("%s is out of date: run go test ./pkg/surgery -run TorchPruning -update (-want +got)\n%s", file, diff)
	}
}

// groupOf returns the group of a kernel's outputs.
func groupOf(n *surgery.Network, root string) *surgery.Group {
	for _, g := range n.Groups() {
		for _, m := range g.Members {
			if m.Path == root && m.Role == surgery.Makes {
				return g
			}
		}
	}
	return nil
}

// places are the kernels and gains of a group of theirs, sorted, each once.
func places(members [][2]string) []string {
	var all []string
	for _, m := range members {
		all = append(all, m[0])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// kernels are the kernels and gains of a group of ours.
func kernels(g *surgery.Group) []string {
	var all []string
	for _, m := range g.Members {
		if strings.HasSuffix(m.Path, "/weights") || strings.HasSuffix(m.Path, "/scale") {
			all = append(all, m.Path)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// rewriting tells whether -update was given, which the tests inside the package define.
func rewriting() bool { return flag.Lookup("update").Value.String() == "true" }

package budget

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/params"
)

// param is a kernel with its inputs and outputs on the last two axes.
func param(path string, dims ...int) params.Param {
	return params.Param{Path: path, Shape: shapes.Make(dtypes.Float32, dims...), In: max(len(dims)-2, 0), Out: max(len(dims)-1, 0)}
}

// four has 360 weights and 28 outputs.
var four = params.Set{param("/a", 2, 4), param("/b", 4, 8), param("/c", 8, 8), param("/d", 2, 2, 8, 8)}

func elements(ps params.Set) []int {
	units := make([]int, len(ps))
	for i, p := range ps {
		units[i] = p.Size()
	}
	return units
}

func filters(ps params.Set) []int {
	units := make([]int, len(ps))
	for i, p := range ps {
		units[i] = p.Shape.Dimensions[p.Out]
	}
	return units
}

func TestByHand(t *testing.T) {
	together := func(keep int, cost ...int64) []Group {
		return []Group{{Members: []int{0, 1, 2, 3}, Keep: keep, Cost: cost}}
	}
	for _, test := range []struct {
		reason   string
		budget   Budget
		units    []int
		sparsity float64
		want     []Group
	}{
		{"a tenth of 360 weights", Global, elements(four), 0.9, together(36)},
		{"a quarter of 28 filters", Global, filters(four), 0.75, together(7)},
		{"a tenth of 8, 32, 64 and 256", Layerwise, elements(four), 0.9, each([]int{1, 3, 6, 26})},
		{"half of 4, 8, 8 and 8 filters", Layerwise, filters(four), 0.5, each([]int{2, 4, 4, 4})},
		// Σd = 6, 12, 16, 20, 54 in all, so that 36 weights make 4, 8, 10⅔ and 13⅓.
		{"ERK", ERK, elements(four), 0.9, each([]int{4, 8, 11, 13})},
		// 108 would make 12 of the first, which has 8. The other 100 make 25, 33⅓ and 41⅔.
		{"ERK, one layer dense", ERK, elements(four), 0.7, each([]int{8, 25, 33, 42})},
		// Densities in proportion to 6/8, 12/32, 16/64 and 20/256 of 4, 8, 8 and 8 filters: 14 of them would make 4.9 of the first, which has 4. The
		// others: 5.33, 3.56 and 1.11.
		{"ERK of filters", ERK, filters(four), 0.5, each([]int{4, 5, 4, 1})},
		// (in + out)/(in·out) times the size: 6, 12, 16, 64, 98 in all, so that 36 make 2.2, 4.4, 5.9 and 23.5.
		{"Erdős–Rényi does not count the kernel's extent", ErdosRenyi, elements(four), 0.9, each([]int{2, 4, 6, 24})},
		{"half of the 2, 4, 8 and 32 weights of each output", PerOutput, elements(four), 0.5, []Group{
			{Members: []int{0}, Keep: 1, Rows: 4}, {Members: []int{1}, Keep: 2, Rows: 8}, {Members: []int{2}, Keep: 4, Rows: 8}, {Members: []int{3}, Keep: 16, Rows: 8}}},
		{"filters of 2, 4, 8 and 32 weights of 4 bytes; 0.45 of 1440", Bytes, filters(four), 0.55, together(648, 8, 16, 32, 128)},
		{"0.7 of 2408, rounded down", ByMACs(map[string]int64{"/a": 1, "/b": 1, "/c": 1, "/d": 9}), elements(four), 0.3, together(1685, 1, 1, 1, 9)},
		{"MACs of filters", ByMACs(map[string]int64{"/a": 1, "/b": 1, "/c": 1, "/d": 9}), filters(four), 0.5, together(1204, 2, 4, 8, 288)},
		// 32 + 192 of 360 are removed in all.
		{"per layer, at what the shares make together", PerLayer(map[string]float64{"/c": 0.5, "/d": 0.75}), elements(four), 224.0 / 360, each([]int{8, 32, 32, 64})},
		{"per layer, half of the way", PerLayer(map[string]float64{"/c": 0.5, "/d": 0.75}), elements(four), 112.0 / 360, each([]int{8, 32, 48, 160})},
	} {
		got, err := test.budget.Divide(four, test.units, test.sparsity)
		if err != nil {
			t.Errorf("%s: %v", test.reason, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
	}
}

// random returns up to eight dense layers and convolutions.
func random(rng *rand.Rand) params.Set {
	var ps params.Set
	for i := range 1 + rng.IntN(8) {
		dims := []int{1 + rng.IntN(40), 1 + rng.IntN(40)}
		if rng.IntN(2) == 0 {
			dims = []int{1 + rng.IntN(3), 1 + rng.IntN(3), 1 + rng.IntN(20), 1 + rng.IntN(20)}
		}
		ps = append(ps, param(fmt.Sprintf("/layer%d/weights", i), dims...))
	}
	return ps
}

func TestLaws(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	divided := map[string]int{}
	for range 60 {
		ps := random(rng)
		shares, macs := map[string]float64{}, map[string]int64{}
		for _, p := range ps {
			shares[p.Path], macs[p.Path] = 0.98*rng.Float64(), 1+rng.Int64N(1000)
		}
		for what, units := range map[string][]int{"elements": elements(ps), "filters": filters(ps)} {
			for _, b := range append(All(), PerLayer(shares), ByMACs(macs)) {
				highest := 1.0
				if strings.HasPrefix(b.Name, "per-layer") {
					highest = Overall(shares, ps, units)
				}
				var last []Group
				for percent := range 100 {
					sparsity := highest * float64(percent) / 100
					groups, err := b.Divide(ps, units, sparsity)
					if b.Name == PerOutput.Name && !slices.Equal(units, elements(ps)) {
						if bad := new(ConfigError); !errors.As(err, &bad) {
							t.Fatalf("%s of %s: got %v, want a *ConfigError", b.Name, what, err)
						}
						break
					}
					if err != nil {
						t.Fatalf("%s of %s of %v at %v: %v", b.Name, what, units, sparsity, err)
					}
					if again, _ := b.Divide(ps, units, sparsity); !reflect.DeepEqual(groups, again) {
						t.Fatalf("%s of %s at %v: two calls differ", b.Name, what, sparsity)
					}
					lawful(t, fmt.Sprintf("%s of %s of %v at %v", b.Name, what, units, sparsity), ps, units, sparsity, groups, last)
					exact(t, b, ps, units, sparsity, groups)
					last = groups
				}
				divided[strings.Fields(b.Name)[0]]++
			}
		}
	}
	if want := len(All()) + 2; len(divided) != want {
		t.Errorf("%d budgets were tried, want %d: %v", len(divided), want, divided)
	}
}

// lawful checks what holds for every budget. last are the groups at a lower sparsity.
func lawful(t *testing.T, name string, ps params.Set, units []int, sparsity float64, groups, last []Group) {
	t.Helper()
	seen := map[int]bool{}
	for i, g := range groups {
		has := 0
		for j, m := range g.Members {
			if m < 0 || m >= len(ps) || seen[m] || j > 0 && m <= g.Members[j-1] {
				t.Fatalf("%s: the members are %v", name, g.Members)
			}
			seen[m] = true
			cost := 1
			if g.Cost != nil {
				cost = int(g.Cost[j])
			}
			has += cost * units[m]
		}
		if g.Rows == 1 || g.Rows > 1 && (len(g.Members) != 1 || has%g.Rows != 0) {
			t.Fatalf("%s: %d rows of %d units of %d members", name, g.Rows, has, len(g.Members))
		}
		has /= max(1, g.Rows)
		if g.Keep < 0 || g.Keep > has || sparsity == 0 && g.Keep != has {
			t.Fatalf("%s: group %d keeps %d of %d", name, i, g.Keep, has)
		}
		if last == nil {
			continue
		}
		if len(last) != len(groups) || !slices.Equal(last[i].Members, g.Members) || !slices.Equal(last[i].Cost, g.Cost) || last[i].Rows != g.Rows {
			t.Fatalf("%s: the groups are not those at a lower sparsity", name)
		}
		if g.Keep > last[i].Keep {
			t.Fatalf("%s: group %d keeps %d, and %d at a lower sparsity", name, i, g.Keep, last[i].Keep)
		}
	}
}

// exact checks what each budget promises about how much is kept.
func exact(t *testing.T, b Budget, ps params.Set, units []int, sparsity float64, groups []Group) {
	t.Helper()
	kept, all := 0, 0
	for _, g := range groups {
		kept += g.Keep
	}
	for _, n := range units {
		all += n
	}
	switch b.Name {
	case Global.Name, ERK.Name, ErdosRenyi.Name:
		if want := all - int(math.Round(sparsity*float64(all))); kept != want {
			t.Fatalf("%s at %v of %v: %d kept, want %d", b.Name, sparsity, units, kept, want)
		}
	}
	if g := groups[0]; g.Cost != nil {
		sum := 0.0
		for i, n := range units {
			sum += float64(g.Cost[i]) * float64(n)
		}
		if over := float64(g.Keep) - (1-sparsity)*sum; over > 1e-6 || over <= -1 {
			t.Fatalf("%s at %v: %d kept, want at most %v, and less than one less", b.Name, sparsity, g.Keep, (1-sparsity)*sum)
		}
	}
	if b.Name == ERK.Name {
		densities, err := ErdosRenyiKernel(ps, units, 1-sparsity)
		if err != nil {
			t.Fatal(err)
		}
		for i, g := range groups {
			if off := math.Abs(float64(g.Keep) - densities[i]*float64(units[i])); off > 1+float64(len(ps))/2 {
				t.Fatalf("ERK at %v of %v: %d of layer %d kept, %v units from its density", sparsity, units, g.Keep, i, off)
			}
		}
	}
}

// Shares that are halves of odd numbers are rounded as if they were given alone: half of 5 is 3 removed, at the overall sparsity too.
func TestPerLayerIsWhatWasGiven(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		ps := random(rng)
		units, shares := elements(ps), map[string]float64{}
		for i, p := range ps {
			shares[p.Path] = (float64(rng.IntN(units[i])) + 0.5) / float64(units[i])
		}
		groups, err := PerLayer(shares).Divide(ps, units, Overall(shares, ps, units))
		if err != nil {
			t.Fatal(err)
		}
		for i, g := range groups {
			if want := Keep(units[i], shares[ps[i].Path]); g.Keep != want {
				t.Errorf("%d of %d kept at %v, want %d", g.Keep, units[i], shares[ps[i].Path], want)
			}
		}
	}
}

// The densities of ResNet-50's kernels, computed by the function of the authors of ERK. testdata says which.
func TestDensitiesOfResNet50(t *testing.T) {
	raw, err := os.ReadFile("testdata/resnet50.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Sparsities []float64
		Layers     []struct {
			Name    string
			Shape   []int
			ERK, ER []float64
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	var ps params.Set
	for _, l := range golden.Layers {
		ps = append(ps, param(l.Name, l.Shape...))
	}
	units := elements(ps)
	if len(ps) != 54 || total(units) != 25_502_912 {
		t.Fatalf("%d kernels of %d weights, want 54 of 25502912", len(ps), total(units))
	}
	raws, err := layerShares(ps)
	if err != nil {
		t.Fatal(err)
	}
	for j, sparsity := range golden.Sparsities {
		erk, err := ErdosRenyiKernel(ps, units, 1-sparsity)
		if err != nil {
			t.Fatal(err)
		}
		er := capped(raws, units, 1-sparsity)
		for i, l := range golden.Layers {
			if math.Abs(erk[i]/l.ERK[j]-1) > 1e-9 {
				t.Errorf("ERK at %v: %s has density %v, want %v", sparsity, l.Name, erk[i], l.ERK[j])
			}
			if math.Abs(er[i]/l.ER[j]-1) > 1e-9 {
				t.Errorf("Erdős–Rényi at %v: %s has density %v, want %v", sparsity, l.Name, er[i], l.ER[j])
			}
		}
	}
}

func TestRefused(t *testing.T) {
	units := elements(four)
	scalar, vector := params.Set{param("/scalar")}, params.Set{param("/vector", 5)}
	type call struct {
		reason   string
		budget   Budget
		ps       params.Set
		units    []int
		sparsity float64
	}
	calls := []call{
		{"filters, each output for itself", PerOutput, four, filters(four), 0.5},
		{"a scalar has no outputs", PerOutput, scalar, []int{1}, 0.5},
		{"no axis of outputs", PerOutput, params.Set{{Path: "/scalar", Shape: shapes.Make(dtypes.Float32), In: -1, Out: -1}}, []int{1}, 0.5},
		{"a vector has no inputs", ErdosRenyi, vector, []int{5}, 0.5},
		{"an axis that is not there", ErdosRenyi, params.Set{{Path: "/p", Shape: shapes.Make(dtypes.Float32, 2, 2), In: 0, Out: 2}}, []int{4}, 0.5},
		{"a share of 1", PerLayer(map[string]float64{"/a": 1}), four, units, 0.01},
		{"a negative share", PerLayer(map[string]float64{"/a": -0.1}), four, units, 0},
		{"a share of NaN", PerLayer(map[string]float64{"/a": math.NaN()}), four, units, 0},
		{"shares of nothing", PerLayer(map[string]float64{"/a": 0}), four, units, 0.1},
		{"more than a layer has", PerLayer(map[string]float64{"/a": 0.5}), four, units, 0.5},
		{"a share too small to divide by", PerLayer(map[string]float64{"/a": 5e-324}), four, units, 0.5},
		{"a layer without MACs", ByMACs(map[string]int64{"/a": 1, "/b": 1, "/c": 1}), four, units, 0.5},
	}
	for _, b := range append(All(), PerLayer(map[string]float64{"/a": 0.5}), ByMACs(map[string]int64{"/a": 1, "/b": 1, "/c": 1, "/d": 1})) {
		calls = append(calls,
			call{b.Name + " of too few numbers of units", b, four, units[:3], 0.5},
			call{b.Name + " of no units", b, four, []int{8, 32, 0, 256}, 0.5},
			call{b.Name + " at NaN", b, four, units, math.NaN()},
			call{b.Name + " below 0", b, four, units, -0.1},
			call{b.Name + " above 1", b, four, units, 1.1})
	}
	for _, c := range calls {
		var bad *ConfigError
		groups, err := c.budget.Divide(c.ps, c.units, c.sparsity)
		if !errors.As(err, &bad) || bad.Budget != c.budget.Name || bad.Problem == "" || bad.Remedy == "" || groups != nil {
			t.Errorf("%s: got %v, %v; want a *ConfigError of %q with its remedy", c.reason, groups, err, c.budget.Name)
		}
	}
	var unknown *params.UnknownPathError
	if _, err := PerLayer(map[string]float64{"/a": 0.5, "/e": 0.5}).Divide(four, units, 0.1); !errors.As(err, &unknown) || unknown.Path != "/e" {
		t.Errorf("an unknown path: got %v, want a *params.UnknownPathError of /e", err)
	}
	var bad *ConfigError
	if _, err := ErdosRenyiKernel(four, units, 1.5); !errors.As(err, &bad) {
		t.Errorf("a density of 1.5: got %v, want a *ConfigError", err)
	}
	if _, err := ErdosRenyiKernel(four, nil, 0.5); !errors.As(err, &bad) {
		t.Errorf("densities without units: got %v, want a *ConfigError", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	_, err := PerOutput.Divide(four, filters(four), 0.5)
	want := `budget "per-output": /a has 4 units for 8 weights, with the outputs on axis 1 of 2; use unit.Element, or another budget`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	err = &Error{Path: "/a", Wanted: 0, Least: 1, Remedy: "ask for a lower sparsity"}
	if want := "the budget keeps 0 units of /a, but at least 1 have to stay; ask for a lower sparsity"; err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A vector, whose Σd/Πd is 1, and a scalar, which has neither, can have a density.
func TestERKOfVectors(t *testing.T) {
	ps := params.Set{param("/scalar"), param("/vector", 4), param("/w", 4, 4)}
	got, err := ERK.Divide(ps, elements(ps), 0.5) // 21 − round(10.5) = 10 of 1 : 4 : 8, which are 0.77, 3.08 and 6.15
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(each([]int{1, 3, 6}), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Names are part of what a run is called.
func TestNames(t *testing.T) {
	var names []string
	for _, b := range All() {
		names = append(names, b.Name)
		if found, ok := ByName(b.Name); !ok || found.Name != b.Name {
			t.Errorf("%q is not found by its name", b.Name)
		}
	}
	if diff := cmp.Diff([]string{"global", "layerwise", "erk", "erdos-renyi", "per-output", "bytes"}, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, ok := ByName("none"); ok {
		t.Error("a budget was found that is none")
	}
	if got, want := PerLayer(map[string]float64{"/b": 0.5, "/a": 0.25}).Name, "per-layer /a=0.25,/b=0.5"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	one, same, other := ByMACs(map[string]int64{"/a": 1, "/b": 2}), ByMACs(map[string]int64{"/b": 2, "/a": 1}), ByMACs(map[string]int64{"/a": 2, "/b": 2})
	if one.Name != same.Name || one.Name == other.Name {
		t.Errorf("equal costs are %q and %q, others %q", one.Name, same.Name, other.Name)
	}
}

// What the caller does with its map afterwards changes nothing.
func TestArgumentsAreCopied(t *testing.T) {
	shares, macs := map[string]float64{"/a": 0.5}, map[string]int64{"/a": 1, "/b": 1, "/c": 1, "/d": 1}
	layers, cost := PerLayer(shares), ByMACs(macs)
	shares["/a"], macs["/a"] = 7, -1
	if _, err := layers.Divide(four, elements(four), 0.01); err != nil {
		t.Error(err)
	}
	if _, err := cost.Divide(four, elements(four), 0.5); err != nil {
		t.Error(err)
	}
}

func ExampleBudget() {
	// The kernels of LeNet-300-100: 784 pixels, two hidden layers, 10 classes.
	ps := params.Set{param("/fc1/weights", 784, 300), param("/fc2/weights", 300, 100), param("/output/weights", 100, 10)}
	units := []int{784 * 300, 300 * 100, 100 * 10} // single weights
	for _, b := range []Budget{Layerwise, ERK} {
		groups, err := b.Divide(ps, units, 0.95)
		if err != nil {
			fmt.Println(err)
			return
		}
		for i, g := range groups {
			fmt.Printf("%-9s keeps %5d of the %6d weights of %s\n", b.Name, g.Keep, units[i], ps[i].Path)
		}
	}
	// Output:
	// layerwise keeps 11760 of the 235200 weights of /fc1/weights
	// layerwise keeps  1500 of the  30000 weights of /fc2/weights
	// layerwise keeps    50 of the   1000 weights of /output/weights
	// erk       keeps  9051 of the 235200 weights of /fc1/weights
	// erk       keeps  3340 of the  30000 weights of /fc2/weights
	// erk       keeps   919 of the   1000 weights of /output/weights
}

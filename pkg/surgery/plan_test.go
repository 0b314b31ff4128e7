package surgery

import (
	"bytes"
	"errors"
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
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func lenet(t *testing.T, b compute.Backend) *Network {
	t.Helper()
	fn := trace.Single(nets.LeNet5)
	n, err := Trace(b, network(t, b, fn, float(1, 28, 28, 1)), fn, float(1, 28, 28, 1))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// twoLayers is x·w1·w2, with weights by which units are ranked in the head.
func twoLayers(t *testing.T, w1, w2 []float32, units int) (*model.Store, trace.ModelFn) {
	t.Helper()
	store := model.NewStore()
	for path, v := range map[string]*tensors.Tensor{
		"/w1": tensors.FromFlatDataAndDimensions(w1, len(w1)/units, units),
		"/w2": tensors.FromFlatDataAndDimensions(w2, units, len(w2)/units),
	} {
		if _, err := store.CreateVariable(path, v); err != nil {
			t.Fatal(err)
		}
	}
	return store, trace.Single(func(scope *model.Scope, x *graph.Node) *graph.Node {
		w := func(path string) *graph.Node { return scope.Store().GetVariable(path).NodeValue(x.Graph()) }
		return graph.Dot(graph.Dot(x, w("/w1")).Product(), w("/w2")).Product()
	})
}

// threeLayers is tanh(tanh(tanh(x)·a)·b)·c, with two groups of 8 units: /a/dense/weights:1 and /b/dense/weights:1.
func threeLayers(t *testing.T) *Network {
	t.Helper()
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(s.In("a"), graph.Tanh(x), false, 8)
		x = layers.Dense(s.In("b"), graph.Tanh(x), false, 8)
		return layers.Dense(s.In("c"), graph.Tanh(x), false, 2)
	})
	n, err := Trace(b, network(t, b, fn, float(4, 3)), fn, float(4, 3))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// By hand: four units with w1 [1, 2] and w2 [2, 4].
func TestImportanceByHand(t *testing.T) {
	b := open(t)
	store, fn := twoLayers(t, []float32{1, -2, 3, 0.5}, []float32{
		1, -1, // unit 0: |1| + |1| + |-1| = 3
		0, 0, // unit 1: 2
		4, 0, // unit 2: 7
		0, 3, // unit 3: 3.5
	}, 4)
	n, err := Trace(b, store, fn, float(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Groups()) != 1 {
		t.Fatalf("groups:\n%s", n)
	}
	none := criterion.Normalize{Name: "none", Apply: func([]float32, params.Param, *randSource) {}}
	for _, c := range []struct {
		name string
		cfg  Config
		want []float32
	}{
		{"L1", Config{Normalize: none}, []float32{3, 2, 7, 3.5}},
		{"L1 over the mean of 3.875", Config{}, []float32{3 / 3.875, 2 / 3.875, 7 / 3.875, 3.5 / 3.875}},
		{"squares", Config{Normalize: none, Criterion: GroupL2}, []float32{3, 4, 25, 9.25}},
	} {
		got, err := n.Importance(c.cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string][]float32{"/w1:1": c.want}, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, diff)
		}
	}
	p, err := n.Plan(Config{Units: 0.5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]int{"/w1:1": {0, 1}}, p.Removed); diff != "" {
		t.Errorf("removed (-want +got)\n%s", diff)
	}
	for name, c := range map[string]struct {
		importance map[string][]float32
		removed    []int
		want       error
	}{
		"one's own":     {map[string][]float32{"/w1:1": {4, 3, 2, 1}}, []int{2, 3}, nil},
		"too few":       {map[string][]float32{"/w1:1": {4, 3, 2}}, nil, &criterion.ScoreError{}},
		"another group": {map[string][]float32{"/w2:1": {4, 3}}, nil, &UnknownGroupError{}},
		"no number":     {map[string][]float32{"/w1:1": {4, 3, 2, float32(math.NaN())}}, nil, &criterion.ScoreError{}},
		"none at all":   {nil, nil, &BudgetError{}},
	} {
		p, err := n.Choose(Config{Units: 0.5}, c.importance)
		if typeName(err) != typeName(c.want) {
			t.Errorf("%s: %v, want a %T", name, err, c.want)
		} else if err == nil && !cmp.Equal(c.removed, p.Removed["/w1:1"]) {
			t.Errorf("%s: removes %v, want %v", name, p.Removed, c.removed)
		}
	}
	setValue(t, store.GetVariable("/w2"), tensors.FromFlatDataAndDimensions([]float32{1, 1, 1, 1, 1, 1, 1, float32(math.NaN())}, 4, 2))
	var bad *criterion.ScoreError
	if _, err := n.Plan(Config{}, nil); !errors.As(err, &bad) || bad.Path != "/w1:1" {
		t.Errorf("NaN: %v", err)
	}
}

func TestUniformHalfOfLeNet5(t *testing.T) {
	n := lenet(t, open(t))
	p, err := n.Plan(Config{Units: 0.5, Uniform: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cost, err := p.Cost()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Cost{Params: 109_295, MACs: 646_500}); cost != want {
		t.Errorf("%+v, want %+v", cost, want)
	}
	if cost := n.Cost(); cost != (Cost{Params: 431_080, MACs: 2_293_000}) {
		t.Errorf("whole: %+v", cost)
	}
}

// A budget is met by the smallest removal: with one unit less it would not be.
func TestBudgets(t *testing.T) {
	n := lenet(t, open(t))
	whole := n.Cost()
	for _, c := range []struct {
		name string
		cfg  Config
		cost func(Cost) float64
	}{
		{"MACs", Config{MACs: 0.5}, func(c Cost) float64 { return share(c.MACs, whole.MACs) - 0.5 }},
		{"default", Config{}, func(c Cost) float64 { return share(c.MACs, whole.MACs) - 0.5 }},
		{"params", Config{Params: 0.1}, func(c Cost) float64 { return share(c.Params, whole.Params) - 0.1 }},
		{"multiples of 8", Config{MACs: 0.3, RoundTo: 8}, func(c Cost) float64 { return share(c.MACs, whole.MACs) - 0.3 }},
		{"uniform", Config{MACs: 0.3, Uniform: true}, func(c Cost) float64 { return share(c.MACs, whole.MACs) - 0.3 }},
		{"least share", Config{MACs: 0.4, MinShare: 0.3}, func(c Cost) float64 { return share(c.MACs, whole.MACs) - 0.4 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := n.Plan(c.cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			cost, err := p.Cost()
			if err != nil {
				t.Fatal(err)
			}
			if over := c.cost(cost); over > 1e-9 {
				t.Errorf("%v too much stays", over)
			}
			importance, err := n.Importance(c.cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			back := n.Empty() // the last that went
			step := max(c.cfg.RoundTo, 1)
			for name, units := range p.Removed {
				back.Removed[name] = append([]int{}, units...)
				if stay := n.Group(name).Size - len(units); stay%step != 0 {
					t.Errorf("%d units of %s stay, which is no multiple of %d", stay, name, step)
				}
				if stay := n.Group(name).Size - len(units); float64(stay) < c.cfg.MinShare*float64(n.Group(name).Size) {
					t.Errorf("%d units of %s stay", stay, name)
				}
			}
			if c.cfg.Uniform || step > 1 {
				return
			}
			worst, at, index := float32(-1), "", 0
			for name, units := range back.Removed {
				for i, u := range units {
					if s := importance[name][u]; s > worst {
						worst, at, index = s, name, i
					}
				}
			}
			back.Removed[at] = append(back.Removed[at][:index], back.Removed[at][index+1:]...)
			if cost, err = back.Cost(); err != nil {
				t.Fatal(err)
			}
			if c.cost(cost) <= 0 {
				t.Errorf("one unit less would do")
			}
		})
	}
}

// Rounding keeps more units than the budget asks for, not fewer: by fours, a keeps all its 8 where 1 is to go, and b loses the 4 that are to go.
func TestRoundToKeepsMore(t *testing.T) {
	importance := map[string][]float32{"/a/dense/weights:1": {1, 20, 21, 22, 23, 24, 25, 26}, "/b/dense/weights:1": {2, 3, 4, 5, 30, 31, 32, 33}}
	p, err := threeLayers(t).Choose(Config{Units: 0.75, RoundTo: 4}, importance)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]int{"/b/dense/weights:1": {0, 1, 2, 3}}, p.Removed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// RoundTo counts channels: where a unit is two of them, two units are a multiple of 4.
func TestRoundToCountsChannels(t *testing.T) {
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = graph.Reshape(layers.Dense(s.In("a"), x, false, 8), -1, 4, 2)
		x = graph.Div(x, graph.OnePlus(graph.ReduceAndKeep(graph.Abs(x), graph.ReduceMax, -1)))
		return layers.Dense(s.In("b"), graph.Reshape(x, -1, 8), false, 2)
	})
	n, err := Trace(b, network(t, b, fn, float(4, 3)), fn, float(4, 3))
	if err != nil {
		t.Fatal(err)
	}
	p, err := n.Choose(Config{Units: 0.5, RoundTo: 4}, map[string][]float32{"/a/dense/weights:1": {4, 1, 2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]int{"/a/dense/weights:1": {1, 2}}, p.Removed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The least share that stays is rounded up: 0.3 of 8 units are 3, and the sixth that goes is one of the next group.
func TestMinShareRoundsUp(t *testing.T) {
	n, importance := threeLayers(t), map[string][]float32{"/a/dense/weights:1": {1, 2, 3, 4, 5, 6, 7, 8}, "/b/dense/weights:1": {11, 12, 13, 14, 15, 16, 17, 18}}
	for stay, want := range map[float64]map[string][]int{
		11: {"/a/dense/weights:1": {0, 1, 2, 3, 4}},
		10: {"/a/dense/weights:1": {0, 1, 2, 3, 4}, "/b/dense/weights:1": {0}},
	} {
		p, err := n.Choose(Config{Units: stay / 16, MinShare: 0.3}, importance)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, p.Removed); diff != "" {
			t.Errorf("%v units (-want +got)\n%s", stay, diff)
		}
	}
}

func TestKeepAndExclude(t *testing.T) {
	n := lenet(t, open(t))
	p, err := n.Plan(Config{Units: 0.9, Keep: map[string]int{"/conv1/conv/weights:3": 7}, Exclude: []string{"/output"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(p.Removed["/conv1/conv/weights:3"]); got != 13 {
		t.Errorf("%d units of conv1 go, want 13", got)
	}
	if got := len(p.Removed["/fc1/dense/weights:1"]); got != 0 {
		t.Errorf("%d units of fc1 go, which output reads", got)
	}
	for name, c := range map[string]struct {
		cfg  Config
		want error
	}{
		"two budgets":     {Config{MACs: 0.5, Params: 0.5}, &ConfigError{}},
		"more than all":   {Config{MACs: 1.5}, &ConfigError{}},
		"NaN":             {Config{MACs: math.NaN()}, &ConfigError{}},
		"negative":        {Config{RoundTo: -1}, &ConfigError{}},
		"unknown exclude": {Config{Exclude: []string{"/conv"}}, &ConfigError{}},
		"unknown group":   {Config{Keep: map[string]int{"x": 1}}, &UnknownGroupError{}},
		"keep none":       {Config{Keep: map[string]int{"/conv1/conv/weights:3": 0}}, &VanishError{}},
		"keep too many":   {Config{Keep: map[string]int{"/conv1/conv/weights:3": 21}}, &ConfigError{}},
		"too small":       {Config{MACs: 0.0001}, &BudgetError{}},
	} {
		_, err := n.Plan(c.cfg, nil)
		if err == nil || typeName(err) != typeName(c.want) {
			t.Errorf("%s: %v, want a %T", name, err, c.want)
		}
	}
}

func TestPlanJSON(t *testing.T) {
	b := open(t)
	n := lenet(t, b)
	p, err := n.Plan(Config{MACs: 0.5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := p.WriteJSON(&file); err != nil {
		t.Fatal(err)
	}
	again, err := n.ReadPlan(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.Removed, again.Removed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	small, err := again.Apply()
	if err != nil {
		t.Fatal(err)
	}
	// After a restart there are the plan, the weights that are left, and the model function.
	rebuilt, err := Rebuild(b, small.Store, trace.Single(nets.LeNet5), bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	x := noise(1, float(3, 28, 28, 1))
	near(t, "output of the rebuilt network", call(t, b, small.Store, small.ModelFn, false, x)[0], call(t, b, rebuilt.Store, rebuilt.ModelFn, false, x)[0])
	if _, err := Rebuild(b, n.store, trace.Single(nets.LeNet5), bytes.NewReader(file.Bytes())); typeName(err) != typeName(&ValueError{}) {
		t.Errorf("rebuild of the whole store: %v", err)
	}

	other, err := Trace(b, model.NewStore(), trace.Single(nets.LeNet300), float(1, 784))
	if err != nil {
		t.Fatal(err)
	}
	text := file.String()
	for name, c := range map[string]struct {
		n    *Network
		text string
		want error
	}{
		"another network": {other, text, &OtherNetworkError{}},
		"no JSON":         {n, "plan", &FormatError{}},
		"cut off":         {n, text[:len(text)/2], &FormatError{}},
		"another form":    {n, "{}", &FormatError{}},
		"another version": {n, strings.Replace(text, `"version": 1`, `"version": 2`, 1), &FormatError{}},
		"a new field":     {n, strings.Replace(text, `"version"`, `"colour": 1, "version"`, 1), &FormatError{}},
		"two":             {n, text + text, &FormatError{}},
		"a huge variable": {n, strings.Replace(text, `"shape": [5, 5, 1, 20]`, `"shape": [5, 5, 1, 200000000]`, 1), &FormatError{}},
		"a negative one":  {n, strings.Replace(text, `"shape": [5, 5, 1, 20]`, `"shape": [5, 5, -1, 20]`, 1), &FormatError{}},
		"unknown group":   {n, strings.Replace(text, `"name": "/conv1/conv/weights:3"`, `"name": "/conv0"`, 1), &UnknownGroupError{}},
	} {
		if _, err := c.n.ReadPlan(strings.NewReader(c.text)); err == nil || typeName(err) != typeName(c.want) {
			t.Errorf("%s: %v, want a %T", name, err, c.want)
		}
	}
	for name, c := range map[string]struct {
		units []int
		want  error
	}{
		"a unit that is not there": {[]int{20}, &UnitError{}},
		"a negative unit":          {[]int{-1}, &UnitError{}},
		"twice":                    {[]int{3, 3}, &UnitError{}},
		"all":                      {[]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, &VanishError{}},
	} {
		p := n.Empty()
		p.Removed["/conv1/conv/weights:3"] = c.units
		if _, err := p.Apply(); err == nil || typeName(err) != typeName(c.want) {
			t.Errorf("%s: %v, want a %T", name, err, c.want)
		}
	}
}

// A plan that was written and edited comes back with what it tells the reader, and with its units in order.
func TestEditedPlanJSON(t *testing.T) {
	n := threeLayers(t)
	p := n.Empty()
	p.Criterion, p.Budget = "by hand", "units=0.5"
	p.Removed["/a/dense/weights:1"] = []int{2, 5}
	var file bytes.Buffer
	if err := p.WriteJSON(&file); err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(file.String(), "[2, 5]", "[5, 2]", 1)
	if edited == file.String() {
		t.Fatalf("no [2, 5] in %s", edited)
	}
	again, err := n.ReadPlan(strings.NewReader(edited))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, again, cmpopts.IgnoreUnexported(Plan{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// Units of another group: the file does not say which shapes that group's variables had.
	b := open(t)
	edited = strings.Replace(file.String(), `"removed": []`, `"removed": [1]`, 1)
	if again, err = n.ReadPlan(strings.NewReader(edited)); err != nil {
		t.Fatal(err)
	}
	small, err := again.Apply()
	if err != nil {
		t.Fatal(err)
	}
	var bad *FormatError
	if _, err := Rebuild(b, small.Store, n.ModelFn(), strings.NewReader(edited)); !errors.As(err, &bad) || !strings.Contains(err.Error(), "write it again") {
		t.Errorf("rebuilt from an edited file: %v", err)
	}
	file.Reset()
	if err := again.WriteJSON(&file); err != nil {
		t.Fatal(err)
	}
	if _, err := Rebuild(b, small.Store, n.ModelFn(), &file); err != nil {
		t.Errorf("rebuilt from a file that was written again: %v", err)
	}
	twice := strings.Replace(edited, `"groups": [`, `"groups": [{"name": "/a/dense/weights:1", "units": 8, "removed": [], "places": []},`, 1)
	if _, err := n.ReadPlan(strings.NewReader(twice)); !errors.As(err, &bad) {
		t.Errorf("a group that is there twice, first with nothing to remove: %v", err)
	}
}

// What was not made by a network, and what is nil, is an error and no panic.
func TestNothingToPlan(t *testing.T) {
	n := threeLayers(t)
	var value *ValueError
	var config *ConfigError
	var format *FormatError
	for name, p := range map[string]*Plan{"nil": nil, "zero": {}} {
		if _, err := p.Apply(); !errors.As(err, &value) || p.String() == "" {
			t.Errorf("a plan that is %s: %v", name, err)
		}
		if _, err := p.Masked(); !errors.As(err, &value) {
			t.Errorf("masked by a plan that is %s: %v", name, err)
		}
	}
	x := noise(1, n.Inputs()[0])
	if _, err := Verify(n, nil, x); !errors.As(err, &value) {
		t.Errorf("nothing to verify: %v", err)
	}
	r := &Report{}
	if err := r.Measure(t.Context(), n, nil, profile.CompareConfig{}, x); !errors.As(err, &value) {
		t.Errorf("nothing to measure: %v", err)
	}
	if _, err := Verify(n, whole(t, n), nil); !errors.As(err, &config) {
		t.Errorf("a sample that is nil: %v", err)
	}
	if _, err := Rebuild(n.Backend(), nil, n.ModelFn(), nil); !errors.As(err, &value) {
		t.Errorf("no store: %v", err)
	}
	if _, err := Rebuild(n.Backend(), model.NewStore(), n.ModelFn(), nil); !errors.As(err, &format) {
		t.Errorf("no plan: %v", err)
	}
}

// Where a unit is so much of the network that far less stays than was asked for, the plan says so.
func TestOvershootIsNoted(t *testing.T) {
	n := lenet(t, open(t))
	importance := map[string][]float32{}
	for _, g := range n.Groups() {
		importance[g.Name] = make([]float32, g.Size)
		for u := range importance[g.Name] {
			importance[g.Name][u] = float32(u + 1)
		}
	}
	for _, c := range []struct {
		macs float64
		note bool
	}{{0.5, false}, {0.0125, true}} {
		p, err := n.Choose(Config{MACs: c.macs, Uniform: true}, importance)
		if err != nil {
			t.Fatal(err)
		}
		cost, err := p.Cost()
		if err != nil {
			t.Fatal(err)
		}
		left := share(cost.MACs, n.Cost().MACs)
		if notes := strings.Join(p.Notes(), "\n"); (left < 0.75*c.macs) != c.note || strings.Contains(notes, "were asked for") != c.note {
			t.Errorf("asked for %v, %v stay, and the notes are %q", c.macs, left, notes)
		}
	}
}

// Transposed convolutions count as in pkg/profile, before and after a cut by MACs: each of 4, 4 and 16 places with kernels of 2·2·3·6, 2·2·6·2 and 2·2·2/2·4 weights, the last in two groups.
func TestTransposedConvolutionsCount(t *testing.T) {
	b := open(t)
	up := func(s *model.Scope, name string, x *graph.Node, channels, groups, d int) *graph.Node {
		w := s.VariableWithShape(name, float(2, 2, x.Shape().Dim(-1)/groups, channels))
		return graph.Convolve(x, w.NodeValue(x.Graph())).InputDilationPerAxis(d, d).ChannelGroupCount(groups).PaddingPerDim([][2]int{{1, 1}, {1, 1}}).Done()
	}
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = relu(up(s, "a", x, 6, 1, 2))      // [1, 2, 2, 3] -> [1, 4, 4, 6]
		x = relu(conv(s.In("b"), x, 2, 1, 1)) // -> [1, 4, 4, 2]
		return up(s, "c", x, 4, 2, 2)         // -> [1, 8, 8, 4]
	})
	n, err := Trace(b, network(t, b, fn, float(1, 2, 2, 3)), fn, float(1, 2, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	const want = 4*2*2*3*6 + 16*6*2 + 16*2*2*1*4
	if got := n.Cost().MACs; got != want {
		t.Errorf("%d MACs, want %d", got, want)
	}
	plan := n.Empty()
	plan.Removed["/a:3"] = []int{1, 4}
	cost, err := plan.Cost()
	if err != nil {
		t.Fatal(err)
	}
	small, err := plan.Apply()
	if err != nil {
		t.Fatal(err)
	}
	counted, err := profile.OfModel(b, small.Store, small.ModelFn, float(1, 2, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	if left := int64(4*2*2*3*4 + 16*4*2 + 16*2*2*1*4); cost.MACs != left || counted.MACs() != left || len(counted.Unknown) > 0 {
		t.Errorf("after the cut the plan has %d MACs and the profile %d (unknown %v), want %d", cost.MACs, counted.MACs(), counted.Unknown, left)
	}
	if p, err := n.Plan(Config{MACs: 0.6}, nil); err != nil || len(p.Removed["/a:3"]) == 0 {
		t.Errorf("a budget of MACs: %v, %v", p, err)
	}
}

// Convolutions of a dilated input with strides have no MACs: a budget of MACs says so where there are others, and is refused where there are none, instead of being met by removing nothing.
func TestBudgetOfWhatIsNotCounted(t *testing.T) {
	b := open(t)
	up := func(s *model.Scope, name string, x *graph.Node, channels int) *graph.Node {
		w := s.VariableWithShape(name, float(2, 2, x.Shape().Dim(-1), channels))
		return graph.Convolve(x, w.NodeValue(x.Graph())).InputDilationPerAxis(2, 2).StridePerAxis(2, 1).PaddingPerDim([][2]int{{1, 1}, {1, 1}}).Done()
	}
	trace1 := func(fn func(*model.Scope, *graph.Node) *graph.Node) *Network {
		n, err := Trace(b, network(t, b, trace.Single(fn), float(1, 2, 2, 3)), trace.Single(fn), float(1, 2, 2, 3))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	only := trace1(func(s *model.Scope, x *graph.Node) *graph.Node { return up(s, "b", relu(up(s, "a", x, 6)), 2) })
	var wrong *ConfigError
	if p, err := only.Plan(Config{}, nil); !errors.As(err, &wrong) || wrong.Field != "MACs" {
		t.Errorf("none that is counted: %v, %v", p, err)
	}
	if p, err := only.Plan(Config{Params: 0.5}, nil); err != nil || len(p.Removed) == 0 || len(p.Notes()) != 0 {
		t.Errorf("a budget of parameters: %v, %v", p, err)
	}
	some := trace1(func(s *model.Scope, x *graph.Node) *graph.Node {
		return up(s, "b", relu(conv(s.In("a"), x, 6, 3, 1)), 2)
	})
	if p, err := some.Plan(Config{}, nil); err != nil || !strings.Contains(strings.Join(p.Notes(), "\n"), "1 convolutions, of a dilated input with strides or of groups of the batch, are not among the MACs") {
		t.Errorf("one that is not counted: %v, %v", p, err)
	}
}

func TestVerify(t *testing.T) {
	n := lenet(t, open(t))
	p, err := n.Plan(Config{MACs: 0.5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(n, small, noise(1, float(4, 28, 28, 1)))
	if err != nil {
		t.Fatal(err)
	}
	cost, err := p.Cost()
	if err != nil {
		t.Fatal(err)
	}
	if r.MaxDiff > 1e-4 || r.MaxOutput == 0 || r.After != cost || r.Before != n.Cost() || r.BytesBefore != 4*431_080 || r.BytesAfter != 4*cost.Params {
		t.Errorf("report %+v", r)
	}
	var foreign *OtherNetworkError
	other, err := Trace(open(t), model.NewStore(), trace.Single(nets.LeNet300), float(1, 784))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(other, small, noise(1, float(4, 784))); !errors.As(err, &foreign) {
		t.Errorf("another network: %v", err)
	}
	if _, err := Verify(n, &Small{Store: small.Store, ModelFn: small.ModelFn}, noise(1, float(4, 28, 28, 1))); err == nil {
		t.Error("a Small that was put together by hand is not refused")
	}
	var config *ConfigError
	for what, samples := range map[string][]*tensors.Tensor{
		"none": nil, "two": {noise(1, float(4, 28, 28, 1)), noise(1, float(4, 28, 28, 1))}, "another shape": {noise(1, float(4, 14, 14, 3))}, "another rank": {noise(1, float(4, 784))},
		"another type": {tensors.FromShape(shapes.Make(dtypes.Uint8, 4, 28, 28, 1))},
	} {
		if _, err := Verify(n, small, samples...); !errors.As(err, &config) {
			t.Errorf("samples: %s: %v, want a *ConfigError", what, err)
		}
		if err := new(Report).Measure(t.Context(), n, small, profile.CompareConfig{}, samples...); !errors.As(err, &config) {
			t.Errorf("samples to measure: %s: %v, want a *ConfigError", what, err)
		}
	}
	if err := r.Measure(t.Context(), n, small, profile.CompareConfig{Rounds: 2, Sample: time.Microsecond, WarmUp: time.Microsecond}, noise(1, float(4, 28, 28, 1))); err != nil {
		t.Fatal(err)
	}
	if len(r.Latency) != 2 || r.Latency[0].P50 <= 0 || len(r.Table().Rows) != 4 {
		t.Errorf("latency %+v", r.Latency)
	}
	// A store that is not the masked one's is found out.
	setValue(t, small.Store.GetVariable("/output/dense/biases"), tensors.FromFlatDataAndDimensions([]float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 10))
	if r, err = Verify(n, small, noise(1, float(4, 28, 28, 1))); err != nil || r.MaxDiff < 1 {
		t.Errorf("other biases: %+v, %v", r, err)
	}
}

// Times are in the unit that suits the longer one, and what is left has its interval.
func TestReportOfLatency(t *testing.T) {
	for _, c := range []struct {
		original, small time.Duration
		want            []any
	}{
		{1_234_567, 612_345, []any{"latency", "1.235 ms", "0.612 ms", 50.0}},
		{56_789_012, 12_345_678, []any{"latency", "56.79 ms", "12.35 ms", 50.0}},
		{812_345, 40_125, []any{"latency", "812.3 µs", "40.12 µs", 50.0}},
		{12_345_678_901, 1_000_000_000, []any{"latency", "12346 ms", "1000 ms", 50.0}},
	} {
		r := Report{Latency: []profile.Timing{{P50: c.original, Ratio: 1, Low: 1, High: 1, Rounds: 30}, {P50: c.small, Ratio: 0.5, Low: 0.48, High: 0.517, Rounds: 30}}}
		table := r.Table()
		if diff := cmp.Diff(c.want, table.Rows[len(table.Rows)-1]); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		const want = " Latency: medians of 30 rounds; what is left is the median of their ratios, with a 95% interval from 48.0% to 51.7%."
		if !strings.HasSuffix(table.Caption, want) {
			t.Errorf("caption %q, want it to end with %q", table.Caption, want)
		}
	}
}

func TestFromMasks(t *testing.T) {
	b := open(t)
	store, fn := twoLayers(t, []float32{1, 2, 3, 4, 5, 6}, []float32{1, 2, 3, 4, 5, 6}, 3) // w1 [2, 3], w2 [3, 2]
	n, err := Trace(b, store, fn, float(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	var none *MaskError
	if _, err := n.FromMasks(); !errors.As(err, &none) {
		t.Errorf("no masks: %v", err)
	}
	w1, w2 := params.Param{Path: "/w1", Shape: float(2, 3)}, params.Param{Path: "/w2", Shape: float(3, 2)}
	setMask := func(p params.Param, alive ...bool) {
		t.Helper()
		if err := mask.Set(store, p, alive); err != nil {
			t.Fatal(err)
		}
	}
	setMask(w1, true, false, true, true, true, true) // unit 1 has a living weight
	if _, err := n.FromMasks(); !errors.As(err, &none) {
		t.Errorf("single weights: %v", err)
	}
	setMask(w1, true, false, true, true, false, true)  // unit 1 is dead in the kernel that makes it
	setMask(w2, false, false, true, true, true, false) // unit 0 in that which reads it
	p, err := n.FromMasks()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]int{"/w1:1": {0, 1}}, p.Removed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	if got := small.Store.GetVariable("/pruning/mask/w2").MustValue().Value(); !cmp.Equal(got, [][]bool{{true, false}}) {
		t.Errorf("the mask became %v", got)
	}
	setMask(w1, make([]bool, 6)...)
	var gone *VanishError
	if _, err := n.FromMasks(); !errors.As(err, &gone) {
		t.Errorf("all dead: %v", err)
	}
}

// A bias is what a masked unit leaves: that it goes with the unit is noted, unless nothing reads it.
func TestFromMasksNotesConstants(t *testing.T) {
	b := open(t)
	fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		return layers.Dense(s.In("b"), relu(layers.Dense(s.In("a"), x, true, 3)), false, 2)
	})
	store := network(t, b, fn, float(1, 2))
	n, err := Trace(b, store, fn, float(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	makes, reads := params.Param{Path: "/a/dense/weights", Shape: float(2, 3)}, params.Param{Path: "/b/dense/weights", Shape: float(3, 2)}
	for _, c := range []struct {
		bias []float32
		read bool // the readers are alive
		want string
	}{{[]float32{1, 0.5, 1}, true, "up to 0.5 in /a/dense/biases"}, {[]float32{1, 0, 1}, true, ""}, {[]float32{1, 0.5, 1}, false, ""}} {
		setValue(t, store.GetVariable("/a/dense/biases"), tensors.FromValue(c.bias))
		if err := errors.Join(mask.Set(store, makes, []bool{true, false, true, true, false, true}), mask.Set(store, reads, []bool{true, true, c.read, c.read, true, true})); err != nil {
			t.Fatal(err)
		}
		p, err := n.FromMasks()
		if err != nil || !cmp.Equal(p.Removed, map[string][]int{"/a/dense/weights:1": {1}}) {
			t.Fatalf("%v, %v", p, err)
		}
		if notes := strings.Join(p.Notes(), "\n"); (notes == "") != (c.want == "") || !strings.Contains(notes, c.want) {
			t.Errorf("biases %v, read %v: notes %q", c.bias, c.read, notes)
		}
	}
}

// Nothing is left of a copy that fails, and the original is as it was.
func TestAllOrNothing(t *testing.T) {
	n := lenet(t, open(t))
	p := half(n, 1)
	before := n.store.NumVariables()
	boom := errors.New("boom")
	calls := 0
	failpoint = func(string) error {
		if calls++; calls == 5 {
			return boom
		}
		return nil
	}
	defer func() { failpoint = func(string) error { return nil } }()
	if small, err := p.Apply(); !errors.Is(err, boom) || small != nil {
		t.Errorf("%v, %v", small, err)
	}
	if n.store.NumVariables() != before || n.store.GetVariable("/conv1/conv/weights").Shape().Dimensions[3] != 20 {
		t.Error("the original was touched")
	}
	if small, err := p.Apply(); err != nil || small == nil {
		t.Errorf("the second time: %v", err)
	}
}

func TestExplain(t *testing.T) {
	b := open(t)
	n, err := Trace(b, model.NewStore(), trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
		x = layers.Dense(s.In("a"), x, true, 8)
		x = graph.Add(x, layers.Dense(s.In("b"), relu(x), false, 8))
		return layers.Dense(s.In("c"), x, false, 2)
	}), float(1, 3))
	if err != nil {
		t.Fatal(err)
	}
	want := "These are 8 channels: /a/dense/weights:1 and /b/dense/weights:1 make them; /b/dense/weights:0 and /c/dense/weights:0 read them; " +
		"/a/dense/biases:0 has a value for each. Those of different kernels go together one by one because of Add (1×)."
	if diff := cmp.Diff(want, n.Explain(n.Groups()[0])); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Units that the network takes apart from others can't all go, even where all of them are of one group.
func TestPartsDoNotVanish(t *testing.T) {
	b := open(t)
	store, _ := twoLayers(t, []float32{1, 2, 3, 4, 5, 6}, []float32{1, 1, 1, 1, 1, 1}, 6)
	fn := trace.Single(func(scope *model.Scope, x *graph.Node) *graph.Node {
		w := func(path string) *graph.Node { return scope.Store().GetVariable(path).NodeValue(x.Graph()) }
		h := graph.Dot(x, w("/w1")).Product() // [batch, 6]
		h = graph.Concatenate([]*graph.Node{graph.Tanh(graph.Slice(h, graph.AxisRange(), graph.AxisRange(0, 2))), relu(graph.Slice(h, graph.AxisRange(), graph.AxisRange(2, 6)))}, 1)
		return graph.Dot(h, w("/w2")).Product()
	})
	n, err := Trace(b, store, fn, float(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	p := n.Empty()
	p.Removed["/w1:1"] = []int{0, 1}
	var gone *VanishError
	if _, err := p.Apply(); !errors.As(err, &gone) {
		t.Errorf("the first part went: %v", err)
	}
	if p, err = n.Plan(Config{Units: 0.5}, nil); err != nil { // 0, 1 and 2 are the least important
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]int{"/w1:1": {0, 2, 3}}, p.Removed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	small, err := p.Apply()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(n, small, tensors.FromValue([][]float32{{0.3}})); err != nil || r.MaxDiff > 1e-6 {
		t.Errorf("%s, %v", r, err)
	}
	for want, cfg := range map[string]Config{ // one of units 0 and 1 is brought back
		"3 units stay, where Config.Keep asks for 2":       {Keep: map[string]int{"/w1:1": 2}},
		"3 units stay, which is no multiple of the 2 that": {Units: 0.5, RoundTo: 2},
	} {
		p, err := n.Plan(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if notes := strings.Join(p.Notes(), "\n"); !strings.Contains(notes, want) || len(p.Removed["/w1:1"]) != 3 {
			t.Errorf("%v are removed, notes %q, expected %q", p.Removed, notes, want)
		}
	}
}

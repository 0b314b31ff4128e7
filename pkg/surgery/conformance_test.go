package surgery_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/surgery/internal/fill"
	"github.com/espalier-ml/espalier/pkg/surgery/internal/randomnet"
	"github.com/espalier-ml/espalier/pkg/surgery/internal/zoo"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Thousands of small graphs are compiled, each to be run once: the compiler's optimisations would take most of the time.
func TestMain(m *testing.M) {
	if os.Getenv("XLA_FLAGS") == "" {
		os.Setenv("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1")
	}
	os.Exit(m.Run())
}

var openBackend = sync.OnceValues(backend.Open)

func open(t *testing.T) compute.Backend {
	t.Helper()
	b, err := openBackend()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// full tells whether everything is to be run, which takes a quarter of an hour.
func full() bool { return os.Getenv("ESPALIER_FULL") != "" }

// subject is a network under test.
type subject struct {
	model   trace.ModelFn
	inputs  func(seed uint64, batch int) []*tensors.Tensor
	groups  int // how many of two units and more it must have; -1: any number
	pinned  []string
	refused string // the operation for which Apply has to refuse; ""
	// noGradient is the operation that GoMLX has no gradient for; "".
	noGradient string
	fragile    bool // its gradients can't be compared
	twice      bool // a second surgery follows
	text       fmt.Stringer
	batches    [3]int // when it is traced, in inference, in training
	seed       uint64
}

// tally counts what came out, over all subjects.
type tally struct {
	sync.Mutex
	subjects, withGroups, groups, units, teeth, twice int
	worst, worstGradient                              float64
	refused                                           map[string]int // what kept surgery from happening
	pinned                                            map[string]int // operations that have no rule, by the number of networks
	rounded                                           []string       // gradients further apart than the tolerance, by rounding
}

func newTally() *tally { return &tally{refused: map[string]int{}, pinned: map[string]int{}} }

func (c *tally) log(t *testing.T) {
	t.Logf("%d networks, %d with groups: %d groups, %d units; in %d the masked output differs from the dense one", c.subjects, c.withGroups, c.groups, c.units, c.teeth)
	t.Logf("%d networks were cut twice", c.twice)
	t.Logf("largest relative difference between masked and shrunk: outputs %.2g, gradients %.2g", c.worst, c.worstGradient)
	for _, what := range c.rounded {
		t.Logf("gradients apart by rounding: %s", what)
	}
	for _, what := range slices.Sorted(maps.Keys(c.refused)) {
		t.Logf("refused: %s (%d)", what, c.refused[what])
	}
	for _, what := range slices.Sorted(maps.Keys(c.pinned)) {
		t.Logf("no rule: %s (in %d networks)", what, c.pinned[what])
	}
}

// tolerance is by how much of the largest value masked and shrunk networks may differ: they add up in another order.
const tolerance = 1e-4

// rounding is by how much gradients may, at most, where the masked network's own move nearly as far with the last bits of its inputs.
const rounding = 5e-3

// choose makes a plan that removes some of the groups, or of most where there are many, at a rate of its own each.
func choose(n *surgery.Network, rng *rand.Rand) *surgery.Plan {
	plan := n.Empty()
	for _, g := range n.Groups() {
		if g.Size < 2 || len(n.Groups()) > 3 && rng.Float64() < 0.1 {
			continue
		}
		count := 1 + rng.IntN(g.Size-1)
		plan.Removed[g.Name] = slices.Sorted(slices.Values(rng.Perm(g.Size)[:count]))
		var vanish *surgery.VanishError
		if errors.As(plan.Check(), &vanish) { // with other groups, which share its variables
			delete(plan.Removed, g.Name)
		}
	}
	return plan
}

// examine does surgery at random rates, once or twice, and holds what comes out against masks.
func examine(t *testing.T, s subject, c *tally) {
	t.Helper()
	b := open(t)
	defer func() {
		if t.Failed() && s.text != nil {
			t.Logf("the network:\n%s", s.text)
		}
	}()
	traced := shapesOf(s.inputs(s.seed, s.batches[0]))
	store, err := fill.Store(b, s.model, s.seed, traced...)
	if err != nil {
		t.Fatal(err)
	}
	before := values(t, store)
	n, err := surgery.Trace(b, store, s.model, traced...)
	if err != nil {
		t.Fatal(err)
	}
	groups, units := 0, 0
	for _, g := range n.Groups() {
		if g.Size > 1 {
			groups, units = groups+1, units+g.Size
		}
	}
	if s.groups >= 0 && groups != s.groups {
		t.Errorf("%d groups of two units and more, want %d:\n%s%s", groups, s.groups, n, strings.Join(n.Notes(), "\n"))
	}
	notes := strings.Join(n.Notes(), "\n")
	for _, op := range s.pinned {
		if !strings.Contains(notes, op) {
			t.Errorf("no note names %s:\n%s", op, notes)
		}
	}
	c.Lock()
	c.subjects, c.groups, c.units = c.subjects+1, c.groups+groups, c.units+units
	if groups > 0 {
		c.withGroups++
	}
	for _, note := range n.Notes() {
		if op, _, found := strings.Cut(note, " has no rule"); found {
			c.pinned[strings.Fields(op)[0]]++
		}
	}
	c.Unlock()

	rng := rand.New(rand.NewPCG(s.seed, 9))
	plan := choose(n, rng)
	small, err := plan.Apply()
	var refusal *surgery.ReplayError
	switch {
	case errors.As(err, &refusal):
		if refusal.Op != s.refused || refusal.Remedy == "" {
			t.Errorf("refused: %v", err)
		}
		c.Lock()
		c.refused[refusal.Op+": "+refusal.Problem]++
		c.Unlock()
		unchanged(t, store, before)
		return
	case err != nil:
		t.Fatal(err)
	case s.refused != "":
		t.Fatalf("it was built, in spite of its %s", s.refused)
	}
	removed, err := plan.Indices()
	if err != nil {
		t.Fatal(err)
	}
	masked := copied(t, store, removed)
	weights(t, store, small.Store, removed)
	cost(t, b, plan, small, traced)
	compareMasked(t, plan, masked)

	// Inference, in another batch size than it was traced for.
	x := s.inputs(s.seed+1, s.batches[1])
	want := run(t, b, s.model, x, store, masked)
	far := furthest(want[1], run(t, b, small.ModelFn, x, small.Store)[0])
	if !(far <= tolerance) {
		t.Errorf("masked and shrunk outputs differ by %g\n%s\nremoved %v", far, n, plan.Removed)
	}
	teeth := len(plan.Removed) > 0 && furthest(want[0], want[1]) > 10*tolerance
	if s.groups > 0 && !teeth {
		t.Errorf("removing %v changes the output by %g only: the test could not fail", plan.Removed, furthest(want[0], want[1]))
	}

	// Training: outputs, gradients of what is left, and what training sets.
	x = s.inputs(s.seed+2, s.batches[2])
	reference := s.model
	if s.noGradient != "" {
		if _, _, err := learn(t, b, s.model, x, copied(t, masked, nil), true); err == nil {
			t.Errorf("it has a gradient, and is said to have none for its %s", s.noGradient)
		}
	}
	if s.noGradient == "Pad" { // which surgery builds in a way that has one; nothing else may differ
		whole, err := n.Empty().Apply()
		if err != nil {
			t.Fatal(err)
		}
		if d := furthest(want[1], run(t, b, whole.ModelFn, s.inputs(s.seed+1, s.batches[1]), masked)[0]); d > 0 {
			t.Errorf("with an empty plan, outputs differ by %g", d)
		}
		reference = whole.ModelFn
	}
	trainable := (s.noGradient == "" || s.noGradient == "Pad") && !s.fragile
	untrained := copied(t, masked, nil) // training sets statistics
	wantOutputs, wantGradients, err := learn(t, b, reference, x, masked, trainable)
	if err != nil {
		t.Fatal(err)
	}
	gotOutputs, gotGradients, err := learn(t, b, small.ModelFn, x, small.Store, trainable)
	if err != nil {
		t.Fatal(err)
	}
	farTraining, farGradient := furthest(wantOutputs, gotOutputs), 0.0
	if !(farTraining <= tolerance) {
		t.Errorf("in training, masked and shrunk outputs differ by %g\n%s\nremoved %v", farTraining, n, plan.Removed)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(wantGradients)), slices.Sorted(maps.Keys(gotGradients))); diff != "" {
		t.Errorf("trainable variables (-masked +shrunk)\n%s", diff)
	}
	largest := 0.0 // gradients are compared with the largest: some are sums that cancel
	left := map[string][]float64{}
	for path, g := range wantGradients {
		left[path] = only(g, keeps(store.GetVariable(path).Shape().Dimensions, removed[path]))
		for _, v := range left[path] {
			largest = max(largest, math.Abs(v))
		}
	}
	apart := func(path string, want, got []float64) float64 {
		return distance(append(slices.Clone(want), largest), append(slices.Clone(got), largest))
	}
	var nudged map[string][]float64
	for path, want := range left {
		d := apart(path, want, gotGradients[path])
		if d > tolerance {
			// Is it by rounding? Then the masked network's own gradient moves as far when its inputs do by a rounding error: where attention divides by a sum of nearly nothing.
			if nudged == nil {
				if _, nudged, err = learn(t, b, reference, rounded(t, x), untrained, trainable); err != nil {
					t.Fatal(err)
				}
			}
			own := apart(path, want, only(nudged[path], keeps(store.GetVariable(path).Shape().Dimensions, removed[path])))
			t.Logf("gradients of %s differ by %g, and those of the masked network by %g when its inputs are rounded otherwise", path, d, own)
			if d <= min(10*own, rounding) {
				c.Lock()
				c.rounded = append(c.rounded, fmt.Sprintf("%s %s: %.2g, of itself %.2g", t.Name(), path, d, own))
				c.Unlock()
				continue
			}
		}
		if farGradient = max(farGradient, d); !(d <= tolerance) {
			t.Errorf("gradients of %s differ by %g\n%s\nremoved %v", path, d, n, plan.Removed)
		}
	}
	for v := range small.Store.IterVariables() { // statistics, the state of the random numbers
		value := floats(t, masked.GetVariable(v.Path()).MustValue())
		if want := only(value, keeps(store.GetVariable(v.Path()).Shape().Dimensions, removed[v.Path()])); distance(want, floats(t, v.MustValue())) > tolerance {
			t.Errorf("%s after a step of training differs by %g", v.Path(), distance(want, floats(t, v.MustValue())))
		}
	}

	c.Lock()
	c.worst, c.worstGradient = max(c.worst, far, farTraining), max(c.worstGradient, farGradient)
	if teeth {
		c.teeth++
	}
	c.Unlock()
	unchanged(t, store, before)
	if !s.twice {
		return
	}

	// A second surgery, on the first.
	second, err := surgery.Trace(b, small.Store, small.ModelFn, traced...)
	if err != nil {
		t.Fatalf("second surgery: %v", err)
	}
	again := choose(second, rng)
	smaller, err := again.Apply()
	if err != nil {
		t.Fatalf("second surgery: %v", err)
	}
	if removed, err = again.Indices(); err != nil {
		t.Fatal(err)
	}
	x = s.inputs(s.seed+3, s.batches[1])
	farSecond := furthest(run(t, b, small.ModelFn, x, copied(t, small.Store, removed))[0], run(t, b, smaller.ModelFn, x, smaller.Store)[0])
	if !(farSecond <= tolerance) {
		t.Errorf("after a second surgery, masked and shrunk outputs differ by %g\n%s\nremoved %v, then %v", farSecond, second, plan.Removed, again.Removed)
	}
	unchanged(t, store, before)
	c.Lock()
	c.twice, c.worst = c.twice+1, max(c.worst, farSecond)
	c.Unlock()
}

func unchanged(t *testing.T, store *model.Store, before map[string][]byte) {
	t.Helper()
	if diff := cmp.Diff(before, values(t, store)); diff != "" {
		t.Errorf("surgery changed the original store (-before +after)\n%s", diff)
	}
}

// weights checks that the small store has just what is left of the variables.
func weights(t *testing.T, dense, small *model.Store, removed map[string]map[int][]int) {
	t.Helper()
	for v := range dense.IterVariables() {
		cut := small.GetVariable(v.Path())
		if cut == nil {
			t.Errorf("%s is gone", v.Path())
			continue
		}
		want := only(floats(t, v.MustValue()), keeps(v.Shape().Dimensions, removed[v.Path()]))
		if diff := cmp.Diff(want, floats(t, cut.MustValue())); diff != "" {
			t.Errorf("%s (-want +got)\n%s", v.Path(), diff)
		}
		if v.Trainable != cut.Trainable {
			t.Errorf("%s is trainable: %t, was %t", v.Path(), cut.Trainable, v.Trainable)
		}
	}
}

// cost checks that the plan said what the small network costs: the variables that it reads in either phase, and its products.
func cost(t *testing.T, b compute.Backend, plan *surgery.Plan, small *surgery.Small, traced []shapes.Shape) {
	t.Helper()
	planned, err := plan.Cost()
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]int64{}
	for _, training := range []bool{false, true} {
		recorded, err := trace.Record(b, small.Store, small.ModelFn, trace.Config{Training: training}, traced...)
		if err != nil {
			t.Fatal(err)
		}
		for path, v := range recorded.Variables() {
			if v.Shape.DType.IsFloat() { // the state of the random numbers is none
				read[path] = int64(v.Shape.Size())
			}
		}
	}
	var params int64
	for _, size := range read {
		params += size
	}
	if params != planned.Params {
		t.Errorf("the small network reads %d parameters, the plan said %d", params, planned.Params)
	}
	p, err := profile.OfModel(b, small.Store, small.ModelFn, traced...)
	if err != nil {
		t.Fatal(err)
	}
	if p.MACs() != planned.MACs {
		t.Errorf("the small network does %d MACs, the plan said %d", p.MACs(), planned.MACs)
	}
}

// compareMasked checks the library's masked network against ours.
func compareMasked(t *testing.T, plan *surgery.Plan, want *model.Store) {
	t.Helper()
	masked, err := plan.Masked()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(values(t, want), values(t, masked)); diff != "" {
		t.Errorf("masked store (-want +got)\n%s", diff)
	}
}

// Surgery on every network of the zoo computes what masks compute, finds the groups that are there, and says what it leaves alone.
func TestConformanceOfTheZoo(t *testing.T) {
	c := newTally()
	t.Run("networks", func(t *testing.T) {
		names := map[string]bool{}
		for i, n := range zoo.All() {
			if names[n.Name] {
				t.Fatalf("two networks are called %s", n.Name)
			}
			names[n.Name] = true
			if n.Large && !full() {
				continue
			}
			t.Run(n.Name, func(t *testing.T) {
				t.Parallel()
				examine(t, subject{model: n.Model, inputs: n.Inputs, groups: n.Groups, pinned: n.Pinned, refused: n.Refused, noGradient: n.NoGradient, fragile: n.Fragile, batches: [3]int{2, 3, 4}, seed: uint64(i), twice: full() || i%3 == 0}, c)
			})
		}
	})
	c.log(t)
}

// rounded returns inputs that differ by the last bits of a float32.
func rounded(t *testing.T, inputs []*tensors.Tensor) []*tensors.Tensor {
	t.Helper()
	var all []*tensors.Tensor
	for _, x := range inputs {
		y, err := x.LocalClone()
		if err != nil {
			t.Fatal(err)
		}
		if err := y.MutableFlatData(func(flat any) {
			switch values := flat.(type) {
			case []float32:
				for i := range values {
					values[i] *= 1 + 1.2e-7
				}
			case []float64:
				for i := range values {
					values[i] *= 1 + 1.2e-7
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		all = append(all, y)
	}
	return all
}

// Surgery on random networks at random rates computes what masks compute: 1000 of them if ESPALIER_FULL is set.
func TestConformanceOfRandomNetworks(t *testing.T) {
	count := uint64(40)
	if full() {
		count = 1000
	}
	c := newTally()
	t.Run("networks", func(t *testing.T) {
		for seed := range count {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				t.Parallel()
				n := randomnet.New(seed)
				inputs := func(seed uint64, batch int) []*tensors.Tensor {
					return []*tensors.Tensor{fill.Normal(seed, n.Input(batch))}
				}
				examine(t, subject{model: n.Model, inputs: inputs, groups: -1, noGradient: n.NoGradient, fragile: n.Fragile, text: n, batches: [3]int{1 + int(seed)%2, 3, 4}, seed: seed, twice: full() || seed%3 == 0}, c)
			})
		}
	})
	c.log(t)
	if c.withGroups*10 < c.subjects*9 || c.teeth*10 < c.withGroups*8 {
		t.Errorf("only %d of %d networks have groups, and in %d of them a mask shows: the test hardly tests", c.withGroups, c.subjects, c.teeth)
	}
}

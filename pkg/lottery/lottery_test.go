package lottery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/criterion/criteriontest"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// mlp has 16·8 + 8·4 = 160 weights.
func mlp(scope *model.Scope, x *graph.Node) *graph.Node {
	x = graph.Reshape(x, x.Shape().Dimensions[0], -1) // [batch, 1, 16, 1] -> [batch, 16]
	x = activation.Relu(layers.Dense(scope.At("hidden"), x, true, 8))
	return layers.Dense(scope.At("output"), x, true, 4)
}

const hidden, output = "/hidden/dense/weights", "/output/dense/weights"

// tiny trains for 40 steps on four clouds of points.
func tiny(t *testing.T) Config {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	data, err := synth.Blobs(synth.BlobsConfig{Config: synth.Config{Train: 256, Validation: 64, Test: 64, Batch: 16}, Spread: 48})
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Task:     experiment.Task{Backend: b, Model: mlp, Train: data.Train, Validation: data.Validation, Test: data.Test},
		Training: experiment.Training{Steps: 40, Validate: 10, Optimizer: optimizer.Adam().LearningRate(0.01).Done()},
	}
}

func newTrial(t *testing.T, cfg Config, seed int64) *Trial {
	t.Helper()
	trial, err := New(cfg, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trial.Close)
	return trial
}

func floats(t *testing.T, values experiment.Values, path string) []float32 {
	t.Helper()
	if values[path] == nil {
		t.Fatalf("no %s", path)
	}
	return tensors.MustCopyFlatData[float32](values[path])
}

func content(values experiment.Values) map[string]any {
	all := map[string]any{}
	for path, value := range values {
		all[path] = value.Value()
	}
	return all
}

// least fails if a weight that masks remove is larger than one that they keep, in the same layer of a network.
func least(t *testing.T, what string, masks Masks, network experiment.Values) {
	t.Helper()
	for path, alive := range masks {
		kept, removed := math.Inf(1), 0.0 // the smallest and the largest
		for i, w := range floats(t, network, path) {
			if size := math.Abs(float64(w)); alive[i] {
				kept = min(kept, size)
			} else {
				removed = max(removed, size)
			}
		}
		if removed == 0 || removed > kept {
			t.Errorf("%s: of %s a weight of %v is removed and one of %v is kept", what, path, removed, kept)
		}
	}
}

// The paper's percentages of weights that are left, of LeNet-300-100.
func TestLadderIsThePapers(t *testing.T) {
	dense := func(path string, in, out int) params.Param {
		return params.Param{Path: path, Shape: shapes.Make(dtypes.Float32, in, out), In: 0, Out: 1, Output: path == "/output"}
	}
	set := params.Set{dense("/fc1", 784, 300), dense("/fc2", 300, 100), dense("/output", 100, 10)}
	for n, want := range map[int]string{0: "100.0", 1: "80.0", 3: "51.3", 7: "21.1", 9: "13.5", 11: "8.7", 12: "7.0", 13: "5.6", 15: "3.6", 16: "2.9", 18: "1.9", 20: "1.2", 25: "0.4"} {
		kept, size := 0, 0
		for _, s := range Ladder(set, 0.2, 0.1, n) {
			kept, size = kept+s.Kept, size+s.Size
		}
		if got := fmt.Sprintf("%.1f", 100*float64(kept)/float64(size)); got != want {
			t.Errorf("round %d: %s%% left, want %s", n, got, want)
		}
	}
	want := []mask.Stats{{Path: "/fc1", Kept: 49325, Size: 235200}, {Path: "/fc2", Kept: 6291, Size: 30000}, {Path: "/output", Kept: 478, Size: 1000}}
	if diff := cmp.Diff(want, Ladder(set, 0.2, 0.1, 7)); diff != "" {
		t.Errorf("round 7 (-want +got):\n%s", diff)
	}
}

// What holds for all branches: as many weights in each layer as the ticket has, dead ones zero at the start and at the end, a record, and the same bits each time.
func TestBranches(t *testing.T) {
	cfg := tiny(t)
	cfg.Save, cfg.Rewind = []int{10}, 5
	cfg.Dir = t.TempDir()
	trial, again := newTrial(t, cfg, 3), newTrial(t, cfg, 3)
	ticket, err := trial.Rung(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{hidden: 82, output: 26} // 128·0.8², 32·0.9², rounded
	dense := trial.rungs[0]
	masks, starts := map[string]Masks{}, map[string]map[string]any{}
	for _, b := range append(Branches(), Reinit.Again(2), AtStep(10), AtStep(0)) {
		run, err := trial.Branch(t.Context(), 2, b)
		if err != nil {
			t.Errorf("%s: %v", b.label(), err)
			continue
		}
		masks[b.label()], starts[b.label()] = run.Masks, content(run.Start)
		for _, p := range trial.Params() {
			alive := run.Masks[p.Path]
			if got := count(alive); got != want[p.Path] {
				t.Errorf("%s: %d weights of %s, want %d", b.label(), got, p.Path, want[p.Path])
			}
			if same := cmp.Equal(alive, ticket.Masks[p.Path]); same == (b.Masks != nil) && p.Path == hidden {
				t.Errorf("%s: the masks are those of the ticket: %t", b.label(), same)
			}
			start, end := floats(t, run.Start, p.Path), floats(t, run.End, p.Path)
			origin := map[string]experiment.Values{RateRewinding.Name: trial.rungs[1].End, FineTuning.Name: trial.rungs[1].End, Reinit.Name: nil,
				"step-10": dense.Kept[10], "step-0": trial.first}
			from, special := origin[b.Name]
			if !special {
				from = dense.Kept[5]
			}
			moved := 0
			for i, a := range alive {
				if !a && (start[i] != 0 || end[i] != 0) {
					t.Fatalf("%s: dead weight %d of %s is %v at the start and %v at the end", b.label(), i, p.Path, start[i], end[i])
				}
				if a && start[i] == 0 {
					t.Errorf("%s: living weight %d of %s starts at 0", b.label(), i, p.Path)
				}
				if a && start[i] != end[i] {
					moved++
				}
				if a && from != nil && start[i] != floats(t, from, p.Path)[i] {
					t.Fatalf("%s: weight %d of %s starts at %v, want %v", b.label(), i, p.Path, start[i], floats(t, from, p.Path)[i])
				}
				if a && from == nil && start[i] == floats(t, trial.first, p.Path)[i] {
					t.Errorf("%s: weight %d of %s starts where the dense network did", b.label(), i, p.Path)
				}
			}
			if moved == 0 {
				t.Errorf("%s: no weight of %s was trained", b.label(), p.Path)
			}
		}
		steps := map[string]int{Reinit.Name: 40, "step-0": 40, "step-10": 30}[b.Name]
		if steps == 0 {
			steps = 35
		}
		if run.Steps != steps {
			t.Errorf("%s: %d steps, want %d", b.label(), run.Steps, steps)
		}
		r := run.Record
		if r.Labels["branch"] != b.Name || r.Seed != 3 || r.Values["round"] != 2 || r.Values["kept"] != 108 || r.Values["size"] != 160 || r.Values["failed"] != 0 {
			t.Errorf("%s: record %+v", b.label(), r)
		}
		if r.Values["earlyStop"] != float64(run.Best) || run.EarlyStop() == nil {
			t.Errorf("%s: early stop at %v, want %d with its network", b.label(), r.Values["earlyStop"], run.Best)
		}
		loaded, err := again.Branch(t.Context(), 2, b)
		if err != nil {
			t.Fatal(err)
		}
		if !loaded.Loaded {
			t.Errorf("%s: it was trained again", b.label())
		}
		if diff := cmp.Diff(run.Record, loaded.Record); diff != "" {
			t.Errorf("%s: record (-trained +loaded):\n%s", b.label(), diff)
		}
		for what, pair := range map[string][2]experiment.Values{"start": {run.Start, loaded.Start}, "early stop": {run.EarlyStop(), loaded.EarlyStop()}, "end": {run.End, loaded.End}} {
			if diff := cmp.Diff(content(pair[0]), content(pair[1])); diff != "" {
				t.Errorf("%s: %s (-trained +loaded):\n%s", b.label(), what, diff)
			}
		}
	}
	// What is ranked are trained weights: those of the rung below, in one shot those of the dense network.
	least(t, "rung 1", trial.rungs[1].Masks, dense.End)
	least(t, "rung 2", ticket.Masks, trial.rungs[1].End)
	least(t, OneShot.Name, masks[OneShot.Name], dense.End)
	if cmp.Equal(starts[Reinit.Name], starts[Reinit.Again(2).label()]) {
		t.Error("two draws of reinit start alike")
	}
	// Branches see the examples in the ticket's order, so that only what they change makes a difference.
	same, err := trial.Branch(t.Context(), 2, Branch{Name: "same"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(content(ticket.End), content(same.End)); diff != "" {
		t.Errorf("a branch that changes nothing (-ticket +branch):\n%s", diff)
	}
	for i, run := range []*Run{dense, ticket} {
		if err := experiment.Restore(trial.store, run.EarlyStop()); err != nil {
			t.Fatal(err)
		}
		m, err := trial.Trainer().Evaluate(t.Context(), cfg.Task.Test)
		if err != nil || m.Accuracy != run.Record.Values["testAccuracy"] {
			t.Errorf("run %d: test accuracy %v at the early stop, want %v (%v)", i, run.Record.Values["testAccuracy"], m.Accuracy, err)
		}
	}
}

// A run that is loaded is measured anew on test data that are others, and only then; one whose validation data are others is trained anew, as it may stop elsewhere.
func TestOtherData(t *testing.T) {
	cfg := tiny(t)
	cfg.Dir = t.TempDir()
	other := cfg
	data, err := synth.Blobs(synth.BlobsConfig{Config: synth.Config{Train: 256, Validation: 64, Test: 64, Batch: 16, Seed: 9}, Spread: 48})
	if err != nil {
		t.Fatal(err)
	}
	other.Task.Test = data.Test
	dense := func(cfg Config) *Run {
		t.Helper()
		run, err := newTrial(t, cfg, 3).Rung(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	first, second := dense(cfg), dense(other)
	fresh := other
	fresh.Dir = ""
	if want := dense(fresh); !second.Loaded || second.Record.Values["testLoss"] != want.Record.Values["testLoss"] {
		t.Errorf("loaded is %t, the loss on other test data %v, want %v", second.Loaded, second.Record.Values["testLoss"], want.Record.Values["testLoss"])
	}
	if first.Record.Values["testLoss"] == second.Record.Values["testLoss"] {
		t.Error("other test data give the same loss: the test says nothing")
	}
	other = cfg
	other.Task.Validation = data.Validation
	if dense(other).Loaded {
		t.Error("a run with other validation data was loaded")
	}
}

// Whole units go, and the network's output is left out.
func TestUnits(t *testing.T) {
	cfg := tiny(t)
	cfg.Training.Steps, cfg.Share, cfg.Recipe = 10, 0.5, prune.Recipe{Unit: unit.Filter}
	trial := newTrial(t, cfg, 1)
	for n, want := range []int{8, 4, 2} {
		for _, b := range []Branch{Ticket, OneShot, RandomMask} {
			run, err := trial.Branch(t.Context(), n, b)
			if err != nil {
				t.Fatalf("round %d, %s: %v", n, b.Name, err)
			}
			units := map[int]bool{}
			for i, alive := range run.Masks[hidden] {
				if alive {
					units[i%8] = true
				}
			}
			if len(units) != want || run.Masks.Kept() != 16*want || run.Masks[output] != nil {
				t.Errorf("round %d, %s: %d units with %d weights, want %d and %d, and no mask of the output", n, b.Name, len(units), run.Masks.Kept(), want, 16*want)
			}
		}
	}
	cfg.Recipe.Unit = unit.NofM(2, 4, unit.In)
	var recipe *prune.RecipeError
	if _, err := New(cfg, 1); !errors.As(err, &recipe) {
		t.Errorf("a unit that says how much is kept: got %v, want a *prune.RecipeError", err)
	}
}

// recording notes which epochs' orders are drawn.
type recording struct {
	experiment.Resident
	epochs *[]int
}

func (r recording) Order(epoch int) []int32 {
	*r.epochs = append(*r.epochs, epoch)
	return r.Resident.Order(epoch)
}

// Trials differ in where they start and in the order of the examples, and so do rungs and copies in that order; branches of a rung see the same one.
func TestTrialsDiffer(t *testing.T) {
	var epochs []int
	cfg := tiny(t)
	cfg.Task.Train = recording{cfg.Task.Train.(experiment.Resident), &epochs}
	cfg.Training.Steps, cfg.Training.Optimizer = 10, &experiment.SGD{LearningRate: 0.1} // less than an epoch, and compiled sooner
	trial := newTrial(t, cfg, 1)
	for _, seed := range []int64{1, 2} {
		trial.seed, trial.rungs = seed, nil // a trial of its own would compile the same steps again
		if _, err := trial.Branch(t.Context(), 1, RandomMask); err != nil {
			t.Fatal(err)
		}
		if _, err := trial.Connect(t.Context(), 1, 3, cfg.Task.Validation); err != nil {
			t.Fatal(err)
		}
	}
	drawn := slices.DeleteFunc(epochs, func(e int) bool { return e == 0 }) // that is asked for its length
	// Of each trial rung 0, rung 1, its branch, and two copies of it.
	if all := slices.Compact(slices.Sorted(slices.Values(drawn))); len(drawn) != 10 || len(all) != 8 || drawn[2] != drawn[1] || drawn[7] != drawn[6] {
		t.Errorf("orders are those of epochs %v: want ten, of which the third is the second and the eighth the seventh, and no others equal", drawn)
	}
	a, b := newTrial(t, tiny(t), 1), newTrial(t, tiny(t), 2)
	if cmp.Equal(content(a.first), content(b.first)) {
		t.Error("two seeds start alike")
	}
	// Deviation √(2/(16 + 8)) of 128 weights: Glorot's, within four standard errors.
	squares := 0.0
	for _, w := range floats(t, a.first, hidden) {
		squares += float64(w) * float64(w)
	}
	if got, want := math.Sqrt(squares/128), math.Sqrt(2.0/24); math.Abs(got-want) > 4*want/16 {
		t.Errorf("weights start with deviation %v, want about %v", got, want)
	}
}

// Trials of other seeds draw other masks, unless the recipe says by which seed; the same trial draws the same again.
func TestRandomLadders(t *testing.T) {
	masks := func(trial, recipe int64) Masks {
		cfg := tiny(t)
		cfg.Training.Steps, cfg.Recipe = 5, prune.Recipe{Criterion: criterion.Random, Seed: recipe}
		run, err := newTrial(t, cfg, trial).Rung(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		return run.Masks
	}
	first := masks(1, 0)
	if diff := cmp.Diff(first, masks(1, 0)); diff != "" {
		t.Errorf("the same trial again (-first +second):\n%s", diff)
	}
	if cmp.Equal(first, masks(2, 0)) {
		t.Error("two trials have the same masks")
	}
	if diff := cmp.Diff(masks(1, 7), masks(2, 7)); diff != "" {
		t.Errorf("with a seed of the recipe (-trial 1 +trial 2):\n%s", diff)
	}
}

// All layers together, and any criterion.
func TestRecipes(t *testing.T) {
	for _, r := range []prune.Recipe{
		{Budget: budget.Global}, {Budget: budget.ERK}, {Criterion: SameSign}, {Criterion: criterion.Taylor, Budget: budget.Global}, {Criterion: criterion.Random}, {Criterion: criterion.SynFlow},
	} {
		cfg := tiny(t)
		cfg.Training.Steps, cfg.Recipe = 10, r
		trial := newTrial(t, cfg, 1)
		run, err := trial.Rung(t.Context(), 2)
		if err != nil {
			t.Errorf("%s: %v", r, err)
			continue
		}
		want := budget.Keep(160, 1-0.8*0.8)
		if trial.cfg.layerwise() {
			want = 82 + 26
		}
		if got := run.Masks.Kept(); got != want {
			t.Errorf("%s: %d weights, want %d", r, got, want)
		}
		for _, path := range trial.Params().Paths() {
			for i, alive := range run.Masks[path] {
				if alive && !trial.rungs[1].Masks[path][i] {
					t.Fatalf("%s: weight %d of %s came back", r, i, path)
				}
			}
		}
	}
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := criteriontest.Check(b, SameSign); err != nil {
		t.Error(err)
	}
	scores, err := criteriontest.Scores(b, SameSign, []int{2, 2}, []float32{1, -2, 3, -4}, map[criterion.Needs][]float32{criterion.NeedStart: {5, 5, -5, -5}})
	if diff := cmp.Diff([]float32{1, -2, -3, 4}, scores); diff != "" || err != nil {
		t.Errorf("%s (-want +got):\n%s%v", SameSign.Name, diff, err)
	}
}

func TestPermutations(t *testing.T) {
	trial := newTrial(t, tiny(t), 1)
	p := trial.Params()[0] // [16, 8]
	alive := make([]bool, 128)
	for i := range alive {
		alive[i] = i/8 < i%8 // output unit j has j inputs
	}
	got := withinOutputs(alive, p, trial.random(1, ShuffledMask))
	for j := range 8 {
		n := 0
		for i := range 16 {
			if got[8*i+j] {
				n++
			}
		}
		if n != j {
			t.Errorf("output %d has %d inputs, want %d", j, n, j)
		}
	}
	if cmp.Equal(alive, got) || count(permuted(alive, trial.random(1, RandomMask))) != count(alive) {
		t.Error("nothing is permuted, or something is lost")
	}
}

// The learning rate goes on from where tickets are taken back to.
func TestRates(t *testing.T) {
	cfg := tiny(t)
	cfg.Rewind = 10
	cfg.Training.Rate = experiment.LinearDecay
	trial := newTrial(t, cfg, 1)
	for _, test := range []struct {
		p    plan
		want []float64 // at the start, in the middle, at the last of the steps
	}{{plan{}, []float64{1, 0.5, 0.025}}, {plan{behind: 10}, []float64{0.75, 0.375, 0.01875}}, {plan{behind: 10, last: true}, []float64{1, 1, 1}}} { // of 40 steps, for which it is asked once
		rate := trial.rate(test.p)
		for i, done := range []float64{0, 0.5, 0.975} {
			if got := rate(done); math.Abs(got-test.want[i]) > 1e-12 {
				t.Errorf("%+v at %v: %v, want %v", test.p, done, got, test.want[i])
			}
		}
	}
	cfg.Training.Steps = 120 // the last time that the rate is asked is after 100
	if got, want := newTrial(t, cfg, 1).rate(plan{last: true})(0), 1-100./120; math.Abs(got-want) > 1e-12 {
		t.Errorf("the last rate of 120 steps is %v, want %v", got, want)
	}
}

// A record says of the network at the early stop, and of the last one, what each of them is worth; and fine-tuning, at the last learning rate, moves nothing where that is 0.
func TestRecords(t *testing.T) {
	cfg := tiny(t)
	cfg.Training.Steps, cfg.Training.Validate = 200, 50
	cfg.Training.Rate = func(done float64) float64 {
		switch {
		case done < 0.5:
			return 1
		case done < 0.75:
			return 300 // which spoils what had been learnt in two of four blocks
		}
		return 0
	}
	trial := newTrial(t, cfg, 1)
	run, err := trial.Rung(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	measured := func(network experiment.Values, ds train.Dataset) experiment.Metrics {
		t.Helper()
		if err := experiment.Restore(trial.store, network); err != nil {
			t.Fatal(err)
		}
		m, err := trial.Trainer().Evaluate(t.Context(), ds)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	stop, stopTest := measured(run.EarlyStop(), cfg.Task.Validation), measured(run.EarlyStop(), cfg.Task.Test)
	end, endTest := measured(run.End, cfg.Task.Validation), measured(run.End, cfg.Task.Test)
	want := map[string]float64{"round": 0, "kept": 160, "size": 160, "density": 1, "failed": 0, "earlyStop": 100, "trainLossEnd": run.Losses[3].Value,
		"validationLoss": stop.Loss, "validationAccuracy": stop.Accuracy, "validationAccuracyEnd": end.Accuracy,
		"testLoss": stopTest.Loss, "testAccuracy": stopTest.Accuracy, "testAccuracyEnd": endTest.Accuracy}
	if diff := cmp.Diff(want, run.Record.Values); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if first := run.Accuracies[0].Value; stop.Accuracy == first || stop.Accuracy == end.Accuracy || stopTest.Accuracy == endTest.Accuracy {
		t.Errorf("accuracies %v first, %+v and %+v at the early stop, %+v and %+v at the end: the test says nothing", first, stop, stopTest, end, endTest)
	}
	for _, b := range []Branch{FineTuning, RateRewinding} {
		run, err := trial.Branch(t.Context(), 1, b)
		if err != nil {
			t.Fatal(err)
		}
		if still := cmp.Equal(floats(t, run.Start, hidden), floats(t, run.End, hidden)); still != (b.Name == FineTuning.Name) {
			t.Errorf("%s: no weight was trained: %t", b.Name, still)
		}
	}
}

// A ladder that is interrupted within a rung goes on there, and ends with the same bits.
func TestInterruptedLadder(t *testing.T) {
	cfg := tiny(t)
	cfg.Training.Steps = 2000 // more than a dispatch
	want, err := newTrial(t, cfg, 1).Rung(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir = t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	told := map[string]bool{}
	cfg.Progress = func(run string, done, total int, _ string) {
		if told[run] = true; strings.HasSuffix(run, "01-ticket") && done > 0 {
			cancel()
		}
	}
	trial := newTrial(t, cfg, 1)
	_, err = trial.Rung(ctx, 1)
	var stopped *experiment.InterruptedError
	if !errors.As(err, &stopped) || stopped.Step == 2000 {
		t.Fatalf("got %v, want an *experiment.InterruptedError", err)
	}
	if diff := cmp.Diff(map[string]bool{"seed-1/00-ticket": true, "seed-1/01-ticket": true}, told); diff != "" {
		t.Errorf("runs that told their progress (-want +got):\n%s", diff)
	}
	cfg.Progress = nil
	next := newTrial(t, cfg, 1)
	got, err := next.Rung(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if !next.rungs[0].Loaded || got.Resumed != stopped.Step {
		t.Errorf("rung 0 was loaded: %t; rung 1 went on from step %d, want %d", next.rungs[0].Loaded, got.Resumed, stopped.Step)
	}
	for what, pair := range map[string][2]experiment.Values{"early stop": {want.EarlyStop(), got.EarlyStop()}, "end": {want.End, got.End}} {
		if diff := cmp.Diff(content(pair[0]), content(pair[1])); diff != "" {
			t.Errorf("%s (-whole +interrupted):\n%s", what, diff)
		}
	}
	if diff := cmp.Diff(want.Record, got.Record); diff != "" {
		t.Errorf("record (-whole +interrupted):\n%s", diff)
	}
	// The same trial can go on too.
	if after, err := trial.Rung(t.Context(), 1); err != nil || !cmp.Equal(after.Record, want.Record) {
		t.Errorf("the interrupted trial: %v", err)
	}
	if found, _ := filepath.Glob(filepath.Join(cfg.Dir, "seed-1", "01-ticket", "*", recordFile)); len(found) != 1 {
		t.Errorf("records of rung 1: %v", found)
	}
}

// What a criterion tracks while a rung trains is what the next one is ranked by.
func TestTrackedCriteria(t *testing.T) {
	cfg := tiny(t)
	cfg.Training.Steps, cfg.Recipe.Criterion = 10, criterion.Movement
	trial := newTrial(t, cfg, 1)
	for _, n := range []int{1, 2} {
		run, err := trial.Rung(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		for path, alive := range run.Masks {
			kept, removed := math.Inf(1), math.Inf(-1)
			for i, movement := range floats(t, trial.rungs[n-1].End, "/pruning/track"+path) {
				switch {
				case alive[i]:
					kept = min(kept, float64(movement))
				case trial.rungs[n-1].Masks[path][i]:
					removed = max(removed, float64(movement))
				}
			}
			if !(removed < kept) {
				t.Errorf("rung %d, %s: a weight of movement %v is removed and one of %v is kept", n, path, removed, kept)
			}
		}
	}
}

// Ladders that differ in what they remove share their dense network, and not its record.
func TestSharedRunHasItsOwnRecord(t *testing.T) {
	cfg := tiny(t)
	cfg.Training.Steps, cfg.Dir = 10, t.TempDir()
	first, err := newTrial(t, cfg, 1).Rung(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Share = 0.5
	second, err := newTrial(t, cfg, 1).Rung(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := "lottery magnitude steps=10 share=0.5"; !second.Loaded || second.Record.Recipe != want {
		t.Errorf("loaded: %t; the record is of %q, want %q", second.Loaded, second.Record.Recipe, want)
	}
	if diff := cmp.Diff(first.Record.Values, second.Record.Values); diff != "" {
		t.Errorf("values (-first +second):\n%s", diff)
	}
}

// A run that diverges counts as failed, and so does what builds on it.
func TestDivergenceIsARecord(t *testing.T) {
	cfg := tiny(t)
	cfg.Training.Optimizer = &experiment.SGD{LearningRate: 1e30}
	trial := newTrial(t, cfg, 1)
	var records []report.Record
	for i, b := range []Branch{Ticket, OneShot, Reinit, Reinit} {
		run, err := trial.Branch(t.Context(), i/3, b)
		if err != nil {
			t.Fatal(err)
		}
		var diverged *experiment.DivergedError
		if !errors.As(run.Failed, &diverged) || run.End != nil {
			t.Errorf("%s: failed: %v, want a *experiment.DivergedError", run.Name, run.Failed)
		}
		records = append(records, run.Record)
	}
	for _, r := range records {
		if _, measured := r.Values["earlyStop"]; r.Values["failed"] != 1 || measured {
			t.Errorf("record %+v, want it failed", r)
		}
	}
	line, err := trial.Connect(t.Context(), 0, 3, cfg.Task.Validation)
	if err != nil || line.Failed == nil || !math.IsNaN(line.Barrier) {
		t.Errorf("a line between networks that failed: %+v, %v", line, err)
	}
}

func TestRefusals(t *testing.T) {
	var config *experiment.ConfigError
	for what, change := range map[string]func(*Config){
		"no validation data": func(c *Config) { c.Task.Validation = nil },
		"a share of 1":       func(c *Config) { c.Share = 1 },
		"a negative share":   func(c *Config) { c.OutputShare = -0.1 },
		"a share of an output that is not marked": func(c *Config) {
			c.OutputShare = 0.1
			c.Params = func(store *model.Store) params.Set {
				set, err := params.Select(store, nil).MarkOutput()
				if err != nil {
					t.Error(err)
				}
				return set
			}
		},
		"a share of NaN":       func(c *Config) { c.Share = math.NaN() },
		"a pruner":             func(c *Config) { c.Training.Pruner = &prune.Pruner{} },
		"a seed":               func(c *Config) { c.Training.Seed = 1 },
		"a directory of a run": func(c *Config) { c.Training.Dir = "x" },
		"negative validation":  func(c *Config) { c.Training.Validate = -1 },
		"two lengths":          func(c *Config) { c.Training.Epochs = 1 },
	} {
		cfg := tiny(t)
		change(&cfg)
		if _, err := New(cfg, 1); !errors.As(err, &config) {
			t.Errorf("%s: got %v, want an *experiment.ConfigError", what, err)
		}
	}
	var rewind *RewindError
	for _, k := range []int{-1, 40, 41} {
		cfg := tiny(t)
		cfg.Rewind = k
		if _, err := New(cfg, 1); !errors.As(err, &rewind) {
			t.Errorf("rewinding to step %d of 40: got %v, want a *RewindError", k, err)
		}
	}
	cfg := tiny(t)
	cfg.Training.Steps, cfg.Share = 10, 0.9
	trial := newTrial(t, cfg, 1)
	var ladder *LadderError
	for _, n := range []int{-1, 4} { // 128·0.1⁴ is none
		if _, err := trial.Rung(t.Context(), n); !errors.As(err, &ladder) || len(trial.rungs) > 0 {
			t.Errorf("rung %d: got %v after %d runs, want a *LadderError before any", n, err, len(trial.rungs))
		}
	}
	if _, err := trial.Branch(t.Context(), 1, AtStep(5)); !errors.As(err, &rewind) || rewind.Step != 5 {
		t.Errorf("a step that was not saved: got %v, want a *RewindError", err)
	} else if want := slices.Compact(slices.Sorted(slices.Values(rewind.Saved))); !slices.Equal(rewind.Saved, want) {
		t.Errorf("the steps that were saved are given as %v, want %v", rewind.Saved, want)
	}
	for _, b := range []Branch{FineTuning, RateRewinding} {
		if _, err := trial.Branch(t.Context(), 0, b); !errors.As(err, &ladder) {
			t.Errorf("%s at rung 0: got %v, want a *LadderError", b.Name, err)
		}
	}
	for _, b := range []Branch{{}, {Name: "../up"}, {Name: Ticket.Name, Weights: fresh}, Ticket.Again(1)} {
		if _, err := trial.Branch(t.Context(), 0, b); !errors.As(err, &config) {
			t.Errorf("a branch with the name %q: got %v, want an *experiment.ConfigError", b.Name, err)
		}
	}
	for what, from := range map[string]func(ticket *Run) From{
		"no weights":          func(*Run) From { return From{} },
		"some of the weights": func(k *Run) From { return From{Weights: experiment.Values{hidden: k.Start[hidden]}} },
		"no step left":        func(k *Run) From { return From{Weights: k.Start, Behind: 10} },
		"more steps":          func(k *Run) From { return From{Weights: k.Start, Behind: -1} },
	} {
		b := Branch{Name: "own", Weights: func(_ *Trial, ticket *Run, _ *rand.Rand) (From, error) { return from(ticket), nil }}
		if _, err := trial.Branch(t.Context(), 0, b); !errors.As(err, &config) {
			t.Errorf("a start with %s: got %v, want an *experiment.ConfigError", what, err)
		}
	}
	none := Branch{Name: "own", Masks: func(*Trial, *Run, *rand.Rand) (Masks, error) { return nil, nil }}
	if _, err := trial.Branch(t.Context(), 0, none); !errors.As(err, &config) {
		t.Errorf("no masks: got %v, want an *experiment.ConfigError", err)
	}
	if _, err := trial.Connect(t.Context(), 0, 2, cfg.Task.Validation); !errors.As(err, &config) {
		t.Errorf("a line of two points: got %v", err)
	}
	if _, err := trial.Connect(t.Context(), 0, 3, nil); !errors.As(err, &config) {
		t.Errorf("a line without data: got %v", err)
	}
	if _, err := trial.Supermask(t.Context(), nil, Untrained(2), cfg.Task.Validation); !errors.As(err, &config) {
		t.Errorf("a supermask of unknown values: got %v", err)
	}
	wrong := Branch{Name: "wrong", Masks: func(*Trial, *Run, *rand.Rand) (Masks, error) { return Masks{hidden: {true}}, nil }}
	var shape *mask.ShapeError
	if _, err := trial.Branch(t.Context(), 0, wrong); !errors.As(err, &shape) {
		t.Errorf("masks of another network: got %v, want a *mask.ShapeError", err)
	}
	global := tiny(t)
	global.Training.Steps, global.Share, global.Recipe = 10, 0.99, prune.Recipe{Budget: budget.Global}
	var least *budget.Error
	if _, err := newTrial(t, global, 1).Rung(t.Context(), 2); !errors.As(err, &least) {
		t.Errorf("nothing left of all layers: got %v, want a *budget.Error", err)
	}
}

func TestSupermask(t *testing.T) {
	four := []float32{3, -1, 1, -3} // mean 0, deviation √5
	signed(four)
	root := float32(math.Sqrt(5))
	if diff := cmp.Diff([]float32{root, -root, root, -root}, four); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	cfg := tiny(t)
	trial := newTrial(t, cfg, 1)
	run, err := trial.Rung(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		masks Masks
		want  experiment.Values
	}{"all": {nil, trial.first}, "a ticket": {run.Masks, run.Start}} {
		got, err := trial.Supermask(t.Context(), test.masks, Initial, cfg.Task.Validation)
		if err != nil {
			t.Fatal(err)
		}
		if err := experiment.Restore(trial.store, test.want); err != nil {
			t.Fatal(err)
		}
		want, err := trial.Trainer().Evaluate(t.Context(), cfg.Task.Validation)
		if err != nil || got != want {
			t.Errorf("%s: %+v, want %+v (%v)", what, got, want, err)
		}
	}
	if _, err := trial.Supermask(t.Context(), run.Masks, SignedConstant, cfg.Task.Validation); err != nil {
		t.Fatal(err)
	}
	size := float32(0)
	for i, w := range tensors.MustCopyFlatData[float32](trial.store.GetVariable(hidden).MustValue()) {
		first := floats(t, trial.first, hidden)[i]
		switch {
		case !run.Masks[hidden][i]:
			if w != 0 {
				t.Errorf("dead weight %d is %v", i, w)
			}
		case size == 0:
			size = float32(math.Abs(float64(w)))
		case w*first <= 0 || float32(math.Abs(float64(w))) != size:
			t.Errorf("weight %d is %v, of first %v and size %v", i, w, first, size)
		}
	}
}

func TestConnect(t *testing.T) {
	// The ends have 0.2 and 0.1: 0.4 is 0.25 above their mean.
	if got := barrier([]float64{0.2, 0.3, 0.4, 0.1}); math.Abs(got-0.25) > 1e-12 {
		t.Errorf("barrier %v, want 0.25", got)
	}
	of := func(a, b float32, n int64) experiment.Values {
		return experiment.Values{"/w": tensors.FromValue([]float32{a, b}), "/n": tensors.FromScalar(n), mask.Scope + "/w": tensors.FromValue([]bool{a != 0, true})}
	}
	mixed, err := between(of(1, 2, 3), of(5, 0, 7), 0.25)
	if diff := cmp.Diff(content(of(2, 1.5, 3)), content(mixed)); diff != "" || err != nil {
		t.Errorf("a quarter of the way (-want +got):\n%s%v", diff, err)
	}
	cfg := tiny(t)
	trial := newTrial(t, cfg, 1)
	line, err := trial.Connect(t.Context(), 1, 5, cfg.Task.Validation)
	if err != nil {
		t.Fatal(err)
	}
	if cmp.Equal(content(line.Copies[0].End), content(line.Copies[1].End)) {
		t.Error("both copies end alike")
	}
	if !cmp.Equal(content(line.Copies[0].Start), content(line.Copies[1].Start)) {
		t.Error("the copies start otherwise")
	}
	if diff := cmp.Diff([]float64{0, 0.25, 0.5, 0.75, 1}, line.Place); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
	for i, end := range []int{0, 4} {
		if want := 1 - line.Copies[i].Record.Values["validationAccuracyEnd"]; line.Error[end] != want {
			t.Errorf("the error at end %d is %v, want %v", i, line.Error[end], want)
		}
	}
	if line.Barrier != barrier(line.Error) {
		t.Errorf("barrier %v of %v", line.Barrier, line.Error)
	}
}

func TestPaired(t *testing.T) {
	// Differences 1, 2 and 3: mean 2, standard error 1/√3, t = 3.4641, p = 0.0742 with 2 degrees of freedom.
	got := Paired([]float64{2, 4, 6}, []float64{1, 2, 3})
	if got.N != 3 || got.Mean != 2 || math.Abs(got.T-3.4641) > 1e-4 || math.Abs(got.P-0.0742) > 1e-4 || math.Abs(got.High-got.Mean-2.4841) > 1e-4 {
		t.Errorf("got %+v", got)
	}
	if got := Paired([]float64{1, 2}, []float64{2, 3}); got.P != 0 || !math.IsInf(got.T, -1) {
		t.Errorf("the same difference each time: %+v", got)
	}
	if got := Paired([]float64{1, 2}, []float64{1, 2}); got.P != 1 || got.T != 0 {
		t.Errorf("no difference: %+v", got)
	}
	if got := Paired([]float64{1}, []float64{0}); got.N != 1 || !math.IsNaN(got.P) {
		t.Errorf("one pair: %+v", got)
	}
	if got := Paired([]float64{1, 2, 3}, []float64{0, 1}); got.N != 0 || !math.IsNaN(got.Mean) || !math.IsNaN(got.P) {
		t.Errorf("samples of different lengths: %+v", got)
	}
	for p, want := range map[float64]string{1: "1.0000", 0.07417: "0.0742", 0.0001: "0.0001", 0.00009: "< 0.0001", 0: "< 0.0001"} {
		if got := (PairedTest{P: p}).Significance(); got != want {
			t.Errorf("p of %v is written %q, want %q", p, got, want)
		}
	}
	if got := (PairedTest{P: math.NaN()}).Significance(); got != "" {
		t.Errorf("no p is written %q", got)
	}
}

// Masks are written so that mask.Load reads them.
func TestMasksSave(t *testing.T) {
	cfg := tiny(t)
	cfg.Training.Steps = 10
	trial := newTrial(t, cfg, 1)
	run, err := trial.Rung(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := run.Masks.Save(&file, trial.Params()); err != nil {
		t.Fatal(err)
	}
	store := model.NewStore()
	if err := mask.Load(&file, store, trial.Params()); err != nil {
		t.Fatal(err)
	}
	got, err := masksOf(store, trial.Params())
	if diff := cmp.Diff(run.Masks, got); diff != "" || err != nil {
		t.Errorf("(-saved +loaded):\n%s%v", diff, err)
	}
}

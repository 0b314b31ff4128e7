package experiment

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/unit"
)

func names(t *testing.T, c Comparison) []string {
	t.Helper()
	all, err := c.contenders()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, one := range all {
		names = append(names, one.Name)
	}
	return names
}

// A default that is left out and one that is written out are the same place: one control, not two of one name whose records would count double.
func TestEqualPlacesShareControls(t *testing.T) {
	c := quick(t, Contender{Recipe: prune.Recipe{Criterion: criterion.Taylor}},
		Contender{Recipe: prune.Recipe{Criterion: criterion.SNIP, Budget: budget.Global, Unit: unit.Element}, Mode: OneShot})
	want := []string{"dense", "dense, trained on", "taylor", "SNIP", "magnitude", "random"}
	if diff := cmp.Diff(want, names(t, c)); diff != "" {
		t.Errorf("contenders (-want +got):\n%s", diff)
	}
}

// Magnitude with normalised scores is a contender, not the control.
func TestNormalisedMagnitudeIsNoControl(t *testing.T) {
	want := []string{"dense", "dense, trained on", "magnitude normalize=L2", "magnitude", "random"}
	if diff := cmp.Diff(want, names(t, quick(t, Contender{Recipe: prune.Recipe{Normalize: criterion.ByL2}}))); diff != "" {
		t.Errorf("contenders (-want +got):\n%s", diff)
	}
}

func TestContenderCannotTakeTheNameOfAControl(t *testing.T) {
	for _, name := range []string{"dense", "dense, trained on", "random", "magnitude"} {
		_, err := quick(t, Contender{Name: name, Recipe: prune.Recipe{Criterion: criterion.Taylor}}).contenders()
		var bad *ConfigError
		if !errors.As(err, &bad) {
			t.Errorf("%q: got %v, want a *ConfigError", name, err)
		}
	}
	if _, err := quick(t, Contender{Name: "magnitude"}).contenders(); err != nil {
		t.Errorf("the control itself may be given: %v", err)
	}
}

// recording notes which epochs' orders are drawn.
type recording struct {
	*points
	epochs *[]int
}

func (r recording) Order(epoch int) []int32 {
	*r.epochs = append(*r.epochs, epoch)
	return r.points.Order(epoch)
}

// Who trains on in parts sees the data that all others see: the second part goes on where the first ended.
func TestAllSeeTheSameData(t *testing.T) {
	var epochs []int
	c := quick(t, Contender{Name: "one-shot"}, Contender{Name: "iterative", Mode: Iterative, Rounds: 4},
		Contender{Name: "tracked", Recipe: prune.Recipe{Criterion: criterion.Movement}}, Contender{Name: "tracked, iterative", Mode: Iterative, Rounds: 2, Recipe: prune.Recipe{Criterion: criterion.Movement}})
	c.Task.Train = recording{newPoints(64, 16), &epochs} // 4 steps an epoch
	c.Dense.Steps, c.Tune.Steps, c.Dir = 4, 12, ""
	b, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.begin(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, one := range c.Contenders {
		epochs = nil
		steps, err := b.visit(t.Context(), run{one.complete(), 0.5, 1})
		if err != nil {
			t.Fatal(err)
		}
		// A part that begins within an epoch draws its order again; epoch 0 is asked for its length.
		got := slices.Compact(slices.DeleteFunc(epochs, func(e int) bool { return e == 0 }))
		if want := []int{10007, 10008, 10009}; !slices.Equal(got, want) || steps != 16 {
			t.Errorf("%s: epochs %v in %d steps, want %v in 16", one.Name, got, steps, want)
		}
	}
}

// Records say what they were measured on: on other data they are made again.
func TestOtherMeasuringDataIsAnotherRun(t *testing.T) {
	c := quick(t, Contender{})
	first := compare(t, c)
	c.Task.Validation = newPoints(37, 16)
	second := compare(t, c)
	if second.Done != len(second.Records) {
		t.Errorf("%d of %d runs were made on other data", second.Done, len(second.Records))
	}
	if a, b := first.values("dense", 0, "loss"), second.values("dense", 0, "loss"); slices.Equal(a, b) {
		t.Errorf("the loss is %v on both", a)
	}
}

// What a structured unit spares is a part of the run.
func TestOtherOutputsAreAnotherRun(t *testing.T) {
	c := quick(t, Contender{Recipe: prune.Recipe{Unit: unit.Filter}})
	first := compare(t, c)
	c.Select = func(store *model.Store) params.Set {
		set := params.Select(store, nil)
		for i := range set {
			set[i].Output = !set[i].Output
		}
		return set
	}
	second := compare(t, c)
	if want := len(second.Records) - 2; second.Done != want { // the dense networks are the same
		t.Errorf("%d runs were made, want %d", second.Done, want)
	}
	if first.Records[0].Labels["unit"] != "element" || first.Records[2].Labels["unit"] != "filter" {
		t.Errorf("units %v and %v", first.Records[0].Labels, first.Records[2].Labels)
	}
}

// What does not fit is refused before anything is trained.
func TestCompareRefusesRecipesBeforeTraining(t *testing.T) {
	for name, one := range map[string]Contender{
		"blocks that do not divide": {Recipe: prune.Recipe{Unit: unit.Block(7, 3)}},
		"heads that do not divide":  {Recipe: prune.Recipe{Unit: unit.Head(5)}},
		"an unknown layer":          {Recipe: prune.Recipe{Budget: budget.PerLayer(map[string]float64{"/no": 0.5})}},
		"negative batches":          {Recipe: prune.Recipe{Criterion: criterion.Taylor}, Batches: -1},
		"gains that are not there":  {Recipe: prune.Recipe{Criterion: criterion.Gain}},
		"the start, while training": {Recipe: prune.Recipe{Criterion: criterion.Distance}, Mode: Gradual},
		"an empty layer":            {Recipe: prune.Recipe{Budget: budget.Layerwise, MinUnits: 20}},
		"shares that are too small": {Recipe: prune.Recipe{Budget: budget.PerLayer(map[string]float64{"/fc1/dense/weights": 0.1})}},
		"2:4 little by little":      {Recipe: prune.Recipe{Unit: unit.NofM(2, 4, unit.Out)}, Mode: Gradual},
		"a seed of its own":         {Recipe: prune.Recipe{Criterion: criterion.Random, Seed: 5}},
		"a schedule that falls": {Mode: Gradual, Schedule: schedule.Named{Name: "AC/DC", Make: func(from, to int, _, final float64) schedule.Schedule {
			s, _ := schedule.ACDC(from, to, 20, final)
			return s
		}}},
		"a schedule that stops": {Mode: Gradual, Schedule: schedule.Named{Name: "half", Make: func(_, _ int, _, final float64) schedule.Schedule { return schedule.Constant(final / 2) }}},
	} {
		c := quick(t, one)
		c.Progress = func(int, int, string) { t.Errorf("%s: a run was made", name) }
		if _, err := Compare(t.Context(), c); err == nil {
			t.Errorf("%s: no error", name)
		}
		if files, _ := os.ReadDir(c.Dir); len(files) != 0 {
			t.Errorf("%s: %v was left", name, files)
		}
	}
}

// N of M has one sparsity, whatever the others are compared at.
func TestNofMHasItsOwnSparsity(t *testing.T) {
	c := quick(t, Contender{Recipe: prune.Recipe{Unit: unit.NofM(2, 4, unit.Out)}})
	c.Sparsities = []float64{0.3, 0.6}
	o := compare(t, c)
	for _, name := range []string{"magnitude unit=2:4 along out", "random unit=2:4 along out"} {
		if len(o.Of(name, 0.5)) != 1 || len(o.Of(name, 0.3)) != 0 {
			t.Errorf("%s is not at 0.5 alone", name)
		}
	}
}

// Replay refuses what no comparison made, and says when it measures on other data.
func TestReplayRefuses(t *testing.T) {
	c := quick(t, Contender{Name: "iterative", Mode: Iterative, Rounds: 3})
	compare(t, c)
	all := manifestsOf(t, c)
	for _, change := range []func(*Contender){func(o *Contender) { o.Mode = "later" }, func(o *Contender) { o.Rounds = -1 }} {
		one := c
		one.Contenders = []Contender{{Name: "iterative", Mode: Iterative, Rounds: 3}}
		change(&one.Contenders[0])
		var bad *ConfigError
		if _, err := Replay(t.Context(), one, all["iterative"]); !errors.As(err, &bad) {
			t.Errorf("got %v, want a *ConfigError", err)
		}
	}
	one := c
	one.Contenders, one.Task.Validation = []Contender{{Name: "dense", Mode: still}}, newPoints(37, 16)
	var changed *ChangedError
	if _, err := Replay(t.Context(), one, all["dense"]); !errors.As(err, &changed) {
		t.Errorf("measured on other data: got %v, want a *ChangedError", err)
	}
}

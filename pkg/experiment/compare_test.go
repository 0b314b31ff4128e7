package experiment

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/unit"
)

func comparison(t *testing.T) Comparison {
	return Comparison{
		Task: newTask(t), Dense: Spec{Steps: 60, LearningRate: 1e-2}, Tune: Spec{Steps: 20, Rate: "cosine"},
		Contenders: []Contender{{Recipe: prune.Recipe{Criterion: criterion.Taylor}, Batches: 2}},
		Sparsities: []float64{0.2, 0.4, 0.5, 0.6, 0.7}, Seeds: []int64{1, 2, 3}, Dir: t.TempDir(),
	}
}

func compare(t *testing.T, c Comparison) *Outcome {
	t.Helper()
	o, err := Compare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCompareAddsControlsAndDoesNothingTwice(t *testing.T) {
	c := comparison(t)
	o := compare(t, c)
	want := []string{"dense", "dense, trained on", "taylor", "magnitude", "random"}
	if diff := cmp.Diff(want, o.Contenders); diff != "" {
		t.Fatalf("contenders (-want +got):\n%s", diff)
	}
	if n := 3 * (2 + 3*5); len(o.Records) != n || o.Done != n {
		t.Errorf("%d records, %d of them made now, want %d", len(o.Records), o.Done, n)
	}
	for _, r := range o.Records {
		v := r.Values
		if v["sparsity"] > 0 && (math.Abs(v["removed"]-v["sparsity"]) > 0.02 || math.Abs(v["compression"]-1/(1-v["removed"])) > 1e-9 || v["speedup"] <= 1) {
			t.Errorf("%s: asked for %v, got %v", r.Recipe, v["sparsity"], v)
		}
		if wantSteps := 80; r.Recipe != "dense" && r.Step != wantSteps {
			t.Errorf("%s had %d steps of training, want %d", r.Recipe, r.Step, wantSteps)
		}
	}
	if at := o.At("dense", 0, "difference"); at.Mean != 0 || at.N != 3 {
		t.Errorf("the dense networks differ from themselves: %v", at)
	}

	again := compare(t, c)
	if again.Done != 0 {
		t.Errorf("%d runs were made again", again.Done)
	}
	if diff := cmp.Diff(o.Records, again.Records); diff != "" {
		t.Errorf("the records differ (-first +second):\n%s", diff)
	}

	// Elsewhere, with other contenders before them: the same bits.
	c.Dir = t.TempDir()
	c.Contenders = append([]Contender{{Name: "tracked", Recipe: prune.Recipe{Criterion: criterion.Movement}}}, c.Contenders...)
	other := compare(t, c)
	for _, name := range want {
		for _, s := range append([]float64{0}, c.Sparsities...) {
			if a, b := o.values(name, s, "loss"), other.values(name, s, "loss"); !slices.Equal(a, b) {
				t.Errorf("%s at %v: losses %v, and %v beside another contender", name, s, a, b)
			}
		}
	}
}

// Each mode reaches the sparsity: at once, in rounds that remove the same share of what is left, or as its schedule says in the first three quarters of the further training.
func TestCompareModes(t *testing.T) {
	c := comparison(t)
	c.Fast, c.Seeds, c.Sparsities = true, []int64{1}, []float64{0.875}
	c.Contenders = nil
	var asked []float64
	recipe := prune.Recipe{Budget: budget.Budget{Name: budget.Global.Name, Divide: func(set params.Set, units []int, sparsity float64) ([]budget.Group, error) {
		if sparsity > 0 { // as whether it fits is asked with
			asked = append(asked, sparsity)
		}
		return budget.Global.Divide(set, units, sparsity)
	}}}
	want := map[Mode][]float64{OneShot: {0.875}, Iterative: {0.5, 0.75, 0.875}, AtInit: {0.875}}
	for step := 1; step <= 15; step++ { // of 20
		want[Gradual] = append(want[Gradual], 0.875*float64(step)/15)
	}
	for _, mode := range []Mode{OneShot, Iterative, Gradual, AtInit} {
		c.Contenders = append(c.Contenders, Contender{Name: string(mode), Recipe: recipe, Mode: mode, Rounds: 3, Schedule: schedule.Named{Name: "linear", Make: schedule.Linear}})
	}
	got := map[Mode][]float64{}
	c.Progress = func(_, _ int, note string) {
		name, _, _ := strings.Cut(note, ", 87.5%")
		if mode := Mode(name); want[mode] != nil {
			got[mode] = asked[max(0, len(asked)-len(want[mode])):] // before it trains, a pruner is asked for its code, and divides too
		}
		asked = nil
	}
	o := compare(t, c)
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("sparsities (-want +got):\n%s", diff)
	}
	for _, mode := range []Mode{OneShot, Iterative, Gradual, AtInit} {
		if removed := o.At(string(mode), 0.875, "removed").Mean; math.Abs(removed-0.875) > 0.02 {
			t.Errorf("%s: %v removed", mode, removed)
		}
		if !slices.Contains(o.Contenders, "random, "+string(mode)) && mode != OneShot {
			t.Errorf("no random control for %s among %v", mode, o.Contenders)
		}
	}
	if !strings.Contains(o.Table(0.875).Caption, "fast run") {
		t.Error("the table does not say that it is of a fast run")
	}
}

func TestCompareStructuredHasScratchControls(t *testing.T) {
	c := comparison(t)
	c.Fast, c.Seeds, c.Sparsities = true, []int64{1, 2}, []float64{0.5}
	c.Contenders = []Contender{{Recipe: prune.Recipe{Unit: unit.Filter, Criterion: criterion.Taylor}}}
	o := compare(t, c)
	for _, name := range []string{"scratch-E, filter", "scratch-B, filter", "magnitude unit=filter", "random unit=filter"} {
		if len(o.values(name, 0.5, "accuracy")) != 2 {
			t.Errorf("%s is not among %v", name, o.Contenders)
		}
	}
	for _, r := range o.Records {
		// Of 2·16 + 16·4 = 96 multiplications 2·8 + 64 = 80 are left, so that B has 1.2 times as many steps.
		if want, scratch := map[string]int{"scratch-E, filter": 80, "scratch-B, filter": 72 + 24}[r.Recipe]; scratch && r.Step != want {
			t.Errorf("%s had %d steps, want %d", r.Recipe, r.Step, want)
		}
	}
	// The scratch networks have the architecture that magnitude leaves.
	if a, b := o.values("scratch-E, filter", 0.5, "speedup"), o.values("magnitude unit=filter", 0.5, "speedup"); !slices.Equal(a, b) {
		t.Errorf("MACs of scratch %v, of magnitude %v", a, b)
	}
}

func TestCompareGoesOnAfterAnInterrupt(t *testing.T) {
	whole := comparison(t)
	want := compare(t, whole)

	c := comparison(t)
	ctx, cancel := context.WithCancel(t.Context())
	c.Progress = func(done, total int, _ string) {
		if done == 20 {
			cancel()
		}
	}
	var interrupted *InterruptedError
	if _, err := Compare(ctx, c); !errors.As(err, &interrupted) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want an *InterruptedError", err)
	}
	c.Progress = nil
	got := compare(t, c)
	if got.Done == 0 || got.Done >= len(got.Records)-15 {
		t.Errorf("%d of %d runs were made after the interrupt", got.Done, len(got.Records))
	}
	if diff := cmp.Diff(want.Records, got.Records); diff != "" {
		t.Errorf("the interrupt changed the records (-want +got):\n%s", diff)
	}
}

// An interrupt while a network is measured is one like any other: what was trained is kept, and measured when the comparison goes on.
func TestCompareIsInterruptedWhileItMeasures(t *testing.T) {
	c := quick(t, Contender{})
	ctx, cancel := context.WithCancel(t.Context())
	data := &slow{of: newPoints(100, 16), pass: 3, cancel: cancel}
	c.Task.Validation = data
	_, err := Compare(ctx, c)
	var interrupted *InterruptedError
	if !errors.As(err, &interrupted) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "run it again to go on") {
		t.Fatalf("got %v, want an *InterruptedError", err)
	}
	data.pass = 0
	want := compare(t, func() Comparison { whole := quick(t, Contender{}); whole.Task.Validation = data; return whole }())
	got := compare(t, c)
	if got.Done != len(got.Records)-2 {
		t.Errorf("%d of %d runs were made after the interrupt, want all but two", got.Done, len(got.Records))
	}
	if diff := cmp.Diff(want.Records, got.Records); diff != "" {
		t.Errorf("the interrupt changed the records (-want +got):\n%s", diff)
	}
}

// Two comparisons at once in one directory would take each other's work away.
func TestOneComparesInADirectory(t *testing.T) {
	c := quick(t, Contender{})
	var inner error
	c.Progress = func(int, int, string) {
		if inner == nil {
			other := c
			other.Progress = nil
			_, inner = Compare(t.Context(), other)
		}
	}
	compare(t, c)
	var busy *BusyError
	if !errors.As(inner, &busy) || busy.Dir != c.Dir {
		t.Errorf("the second got %v, want a *BusyError", inner)
	}
}

// What is torn, foreign or touched is made again, and nothing else is.
func TestCompareTrustsNoDamage(t *testing.T) {
	c := comparison(t)
	c.Fast, c.Seeds, c.Sparsities = true, []int64{1}, []float64{0.5}
	first := compare(t, c)
	path := filepath.Join(c.Dir, "records.jsonl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(){
		"a torn line": func() { os.WriteFile(path, text[:len(text)-20], 0o644) },
		"a value that was changed by hand": func() {
			records, _ := report.ReadRecords(path)
			records[1].Values["accuracy"] = 1
			report.WriteRecords(path, records)
		},
		"a manifest that is gone": func() {
			files, _ := filepath.Glob(filepath.Join(c.Dir, "manifests", "*.json"))
			os.Remove(files[0])
		},
	} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		damage()
		o := compare(t, c)
		if o.Done != 1 {
			t.Errorf("%s: %d runs were made, want one", name, o.Done)
		}
		if diff := cmp.Diff(first.Records, o.Records); diff != "" {
			t.Errorf("%s: the records differ (-first +again):\n%s", name, diff)
		}
	}
}

func TestCompareRefuses(t *testing.T) {
	for name, change := range map[string]func(c *Comparison){
		"two seeds":           func(c *Comparison) { c.Seeds = c.Seeds[:2] },
		"four points":         func(c *Comparison) { c.Sparsities = c.Sparsities[:4] },
		"the same seed twice": func(c *Comparison) { c.Seeds = []int64{1, 2, 1} },
		"a sparsity of 0":     func(c *Comparison) { c.Sparsities[0] = 0 },
		"a sparsity of NaN":   func(c *Comparison) { c.Sparsities[0] = math.NaN() },
		"no contender":        func(c *Comparison) { c.Contenders = nil },
		"two of one name":     func(c *Comparison) { c.Contenders = append(c.Contenders, c.Contenders[0]) },
		"an unknown mode":     func(c *Comparison) { c.Contenders[0].Mode = "later" },
		"a negative round":    func(c *Comparison) { c.Contenders[0].Rounds = -1 },
		"no validation data":  func(c *Comparison) { c.Task.Validation = nil },
		"no test data":        func(c *Comparison) { c.Test = true },
		"tracking before": func(c *Comparison) {
			c.Contenders[0] = Contender{Recipe: prune.Recipe{Criterion: criterion.Movement}, Mode: AtInit}
		},
		"gates":                 func(c *Comparison) { c.Contenders[0] = Contender{Recipe: prune.Recipe{Criterion: criterion.L0}} },
		"an unknown optimizer":  func(c *Comparison) { c.Dense.Optimizer = "lion" },
		"an unknown rate":       func(c *Comparison) { c.Tune.Rate = "steps" },
		"a negative rate":       func(c *Comparison) { c.Tune.LearningRate = -1 },
		"both epochs and steps": func(c *Comparison) { c.Dense.Epochs = 1 },
	} {
		c := comparison(t)
		change(&c)
		_, err := Compare(t.Context(), c)
		var bad *ConfigError
		if !errors.As(err, &bad) || bad.Remedy == "" {
			t.Errorf("%s: got %v, want a *ConfigError with a remedy", name, err)
		}
		if files, _ := os.ReadDir(c.Dir); len(files) != 0 {
			t.Errorf("%s: %v was left", name, files)
		}
	}
}

func TestConfidenceByHand(t *testing.T) {
	// Student's t for two degrees of freedom is 4.302653 at 97.5%; the standard error of 1, 2, 3 is 1/√3.
	got := Confidence([]float64{1, 2, 3})
	if half := 4.302653 / math.Sqrt(3); got.Mean != 2 || got.N != 3 || math.Abs(got.High-2-half) > 1e-5 || math.Abs(2-got.Low-half) > 1e-5 {
		t.Errorf("got %+v", got)
	}
	if got.String() != "2.00 ± 2.48" {
		t.Errorf("got %q", got)
	}
	if one := Confidence([]float64{5}); one.String() != "5.00" || !math.IsNaN(one.Low) {
		t.Errorf("one value has no interval: %+v", one)
	}
}

// Differences are paired: seeds that differ much from each other by the same amount on both sides give a narrow interval.
func TestDifferencesArePaired(t *testing.T) {
	o := &Outcome{Contenders: []string{"dense", "a"}}
	for i, dense := range []float64{0.90, 0.95, 0.99} {
		o.Records = append(o.Records,
			report.Record{Recipe: "dense", Seed: int64(i), Values: map[string]float64{"sparsity": 0, "accuracy": dense, "difference": 0, "compression": 1, "speedup": 1}},
			report.Record{Recipe: "a", Seed: int64(i), Values: map[string]float64{"sparsity": 0.5, "accuracy": dense - 0.01, "difference": -0.01, "compression": 2, "speedup": 2}})
	}
	rows, err := o.Table(0.5).Cells()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"dense", "94.67 ± 11.20", "0.00 ± 0.00", "1.0", "1.0", "0", "3"}, {"a", "93.67 ± 11.20", "-1.00 ± 0.00", "2.0", "2.0", "0", "3"}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	curve := o.Curve("a", "compression", "accuracy")
	if !slices.Equal(curve.X, []float64{2}) || len(curve.Low) != 1 || curve.Low[0] >= curve.Y[0] {
		t.Errorf("curve %+v", curve)
	}
}

// All contenders start from the same network: magnitude keeps the largest weights of the dense one.
func TestBudgetsAreControlledApart(t *testing.T) {
	c := comparison(t)
	c.Fast, c.Seeds, c.Sparsities = true, []int64{1}, []float64{0.5}
	c.Contenders = []Contender{{Recipe: prune.Recipe{Criterion: criterion.SNIP, Budget: budget.Layerwise}, Mode: AtInit}}
	o := compare(t, c)
	want := []string{"dense", "dense, trained on", "SNIP budget=layerwise, at init", "magnitude budget=layerwise, at init", "random budget=layerwise, at init"}
	if diff := cmp.Diff(want, o.Contenders); diff != "" {
		t.Errorf("contenders (-want +got):\n%s", diff)
	}
}

// A run that diverges is a result like others: the comparison goes on, says so, and does not make it again.
func TestDivergedRunsAreResults(t *testing.T) {
	c := quick(t, Contender{Recipe: prune.Recipe{Criterion: criterion.Magnitude}})
	c.Tune = Spec{Steps: 20, Optimizer: "sgd", LearningRate: 1e30}
	o := compare(t, c)
	for _, r := range o.Records {
		_, measured := r.Values["accuracy"]
		if dense := r.Recipe == "dense"; dense != measured || dense == (r.Labels["diverged"] != "") {
			t.Errorf("%s: %v %v", r.Recipe, r.Values, r.Labels)
		}
	}
	if again := compare(t, c); again.Done != 0 {
		t.Errorf("%d runs were made again", again.Done)
	}
	for name, m := range manifestsOf(t, c) {
		if m.Results["diverged"] == 0 && name != "dense" {
			t.Errorf("manifest of %s: %v", name, m.Results)
		}
	}
	at := c
	at.Dir = t.TempDir()
	m := manifestsOf(t, c)["magnitude"]
	again, err := Replay(t.Context(), at, m)
	if err != nil || !cmp.Equal(m.Results, again.Results) {
		t.Errorf("replayed: %v, %v; want %v", again.Results, err, m.Results)
	}
	if row := o.Table(0.5).Rows[2]; row[1] != "diverged" || row[6] != 1 {
		t.Errorf("row %v, want that it diverged", row)
	}
	if curve := o.Curve("magnitude", "sparsity", "accuracy"); len(curve.X) != 0 {
		t.Errorf("curve %+v, want none", curve)
	}
	// With two seeds that did not diverge, their mean and their steps stand beside the number of those that did; and behind what is whole, whose mean is not that of luck.
	mixed := &Outcome{Contenders: []string{"a", "b"}, Records: []report.Record{
		{Recipe: "a", Step: 20, Values: map[string]float64{"sparsity": 0.55, "accuracy": 0.8, "difference": -0.1}},
		{Recipe: "a", Step: 20, Values: map[string]float64{"sparsity": 0.55, "accuracy": 0.8, "difference": -0.1}},
		{Recipe: "a", Step: 7, Values: map[string]float64{"sparsity": 0.55, "diverged": 1}},
		{Recipe: "b", Step: 20, Values: map[string]float64{"sparsity": 0.55, "accuracy": 0.7, "difference": -0.2}},
	}}
	table := mixed.Table(0.55)
	if !strings.HasPrefix(table.Title, "55% removed") {
		t.Errorf("title %q", table.Title)
	}
	if first, row := table.Rows[0], table.Rows[1]; first[0] != "b" || row[1] != "80.00 ± 0.00 (1 more diverged)" || row[5] != 20 || row[6] != 2 {
		t.Errorf("rows %v", table.Rows)
	}
}

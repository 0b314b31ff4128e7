package sparsetrain_test

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/sparsetrain"
)

// pruning is what is pruned after a step.
type pruning struct {
	Step     int
	Sparsity float64
}

func prunings(t *testing.T, d sparsetrain.DenseToSparse, steps, every int, density float64) (all []pruning) {
	t.Helper()
	s, when, err := d.Over(steps, every, density)
	if err != nil {
		t.Fatal(err)
	}
	for step := range steps + 1 {
		if when(step) {
			all = append(all, pruning{step, math.Round(1e6*s(step)) / 1e6})
		}
	}
	return all
}

// By hand: of 200 steps GMP prunes from 10 on, with 0.9·(1 − (1 − p)³) at progress p from there to 100, and last at the first pruning from 100 on; AC/DC is sparse in turn for ten steps at a time, nine times,
// and last from 170 on.
func TestDenseToSparseByHand(t *testing.T) {
	for name, c := range map[string]struct{ got, want []pruning }{
		"gmp":              {prunings(t, sparsetrain.GMP, 200, 30, 0.1), []pruning{{10, 0}, {40, 0.633333}, {70, 0.866667}, {100, 0.9}}},
		"gmp, past its to": {prunings(t, sparsetrain.GMP, 200, 100, 0.1), []pruning{{10, 0}, {110, 0.9}}},
		"ac/dc": {prunings(t, sparsetrain.ACDC, 200, 30, 0.1), []pruning{
			{10, 0.9}, {20, 0}, {30, 0.9}, {40, 0}, {50, 0.9}, {60, 0}, {70, 0.9}, {80, 0}, {90, 0.9}, {100, 0}, {110, 0.9}, {120, 0}, {130, 0.9}, {140, 0}, {150, 0.9}, {160, 0}, {170, 0.9},
		}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s: what is pruned when (-want +got)\n%s", name, diff)
		}
	}
	// The runs of bench sparse: 100 epochs of 550 steps.
	long := prunings(t, sparsetrain.GMP, 55_000, 100, 0.01)
	if first, last := long[0], long[len(long)-1]; len(long) != 249 || first != (pruning{2750, 0}) || last != (pruning{27_550, 0.99}) {
		t.Errorf("gmp prunes %d times, from %v to %v; expected 249 times, from {2750 0} to {27550 0.99}", len(long), first, last)
	}
}

// However long the training and the interval, the last pruning is to the density, and training goes on after it.
func TestDenseToSparseEndsSparse(t *testing.T) {
	for _, d := range []sparsetrain.DenseToSparse{sparsetrain.GMP, sparsetrain.ACDC} {
		for steps := 20; steps < 400; steps += 7 {
			for every := 1; every <= steps/2; every++ {
				all := prunings(t, d, steps, every, 0.25)
				if last := all[len(all)-1]; last.Sparsity != 0.75 || last.Step >= steps {
					t.Fatalf("%s: of %d steps, every %d: last %v", d.Name, steps, every, last)
				}
			}
		}
	}
}

func TestDenseToSparseRefuses(t *testing.T) {
	var update *sparsetrain.UpdateError
	var density *sparsetrain.DensityError
	for name, c := range map[string]struct {
		steps, every int
		density      float64
		want         any
	}{
		"19 steps":              {19, 1, 0.1, &update},
		"an interval of 0":      {100, 0, 0.1, &update},
		"an interval too long":  {100, 96, 0.1, &update},
		"no density":            {100, 10, 0, &density},
		"a density of 2":        {100, 10, 2, &density},
		"a density of no value": {100, 10, math.NaN(), &density},
	} {
		if _, _, err := sparsetrain.GMP.Over(c.steps, c.every, c.density); !errors.As(err, c.want) {
			t.Errorf("%s: error %v, expected a %T", name, err, c.want)
		}
	}
}

// Trained, they have as many living weights as they may: GMP in each layer, AC/DC in all of the network.
func TestDenseToSparseTrains(t *testing.T) {
	task := digits(t)
	for _, d := range []sparsetrain.DenseToSparse{sparsetrain.GMP, sparsetrain.ACDC} {
		store, err := experiment.Init(task, 1)
		if err != nil {
			t.Fatal(err)
		}
		set := params.Select(store, nil)
		training := sgd()
		if training.Pruner, err = prune.New(task.Backend, store, set, d.Recipe); err != nil {
			t.Fatal(err)
		}
		if training.Schedule, training.When, err = d.Over(training.Steps, 10, 0.1); err != nil {
			t.Fatal(err)
		}
		if _, err := experiment.Train(t.Context(), task, store, training); err != nil {
			t.Fatal(err)
		}
		stats, err := mask.Count(store, set)
		if err != nil {
			t.Fatal(err)
		}
		living := 0
		for _, l := range stats {
			if living += l.Kept; d.Name == sparsetrain.GMP.Name && l.Kept*10 != l.Size {
				t.Errorf("%s: %s has %d of %d weights, expected a tenth", d.Name, l.Path, l.Kept, l.Size)
			}
		}
		if living != 1588 { // 10% of 15 880
			t.Errorf("%s: %d weights are alive, expected 1588", d.Name, living)
		}
	}
}

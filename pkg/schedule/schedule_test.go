package schedule

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
)

func TestByHand(t *testing.T) {
	acdc, _ := ACDC(2, 8, 2, 0.9)
	for _, test := range []struct {
		name  string
		s     Schedule
		steps []int
		want  []float64
	}{
		{"constant", Constant(0.5), []int{-1, 0, 9}, []float64{0.5, 0.5, 0.5}},
		{"linear", Linear(10, 20, 0, 0.8), []int{0, 10, 15, 20, 99}, []float64{0, 0, 0.4, 0.8, 0.8}},
		{"cubic: 0.8 − 0.8·(1/2)³", Cubic(10, 20, 0, 0.8), []int{0, 10, 15, 20, 99}, []float64{0, 0, 0.7, 0.8, 0.8}},
		{"cosine: 0.8·(1 − √½)/2 after a quarter", Cosine(0, 4, 0, 0.8), []int{0, 1, 2, 4}, []float64{0, 0.8 * (1 - math.Sqrt(0.5)) / 2, 0.4, 0.8}},
		{"exponential: a hundredth is left, a tenth half-way", Exponential(0, 2, 0, 0.99), []int{0, 1, 2, 3}, []float64{0, 0.9, 0.99, 0.99}},
		{"exponential to nothing", Exponential(0, 2, 0, 1), []int{0, 1, 2}, []float64{0, 1, 1}},
		{"one-cycle: half of the way is done at progress 5/14", OneCycle(0, 14, 0, 0.9), []int{0, 5, 14}, []float64{0, 0.45 * (1 + math.Exp(-9)), 0.9}},
		{"geometric: 20% a round", Geometric(10, 0.2, 0.5), []int{0, 9, 10, 20, 30, 40}, []float64{0, 0, 0.2, 0.36, 0.488, 0.5}},
		{"AC/DC", acdc, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 20}, []float64{0, 0, 0.9, 0.9, 0, 0, 0.9, 0.9, 0.9, 0.9}},
	} {
		for i, step := range test.steps {
			if got := test.s(step); math.Abs(got-test.want[i]) > 1e-12 {
				t.Errorf("%s: after step %d %v, want %v", test.name, step, got, test.want[i])
			}
		}
	}
}

// The ladder of Frankle & Carbin 2019: shares left after rounds of 20%, in percent.
func TestLadderOfTheLotteryTickets(t *testing.T) {
	ladder := Geometric(1, 0.2, 1)
	for round, want := range map[int]float64{3: 51.2, 7: 21.0, 9: 13.4, 11: 8.6, 12: 6.9, 13: 5.5, 15: 3.5, 16: 2.8, 18: 1.8, 20: 1.15} {
		if got := 100 * (1 - ladder(round)); math.Abs(got-want) > 0.06 {
			t.Errorf("round %d: %.2f%% left, want %.2f%%", round, got, want)
		}
	}
}

func TestLaws(t *testing.T) {
	for _, named := range All() {
		for _, c := range []struct {
			from, to       int
			initial, final float64
		}{{10, 90, 0.1, 0.8}, {0, 7, 0, 0.99}, {1, 3, 0.25, 0.625}, {5, 6, 0.3, 0.3}, {-4, 4, 0, 0.5}, {5, 5, 0.1, 0.7}, {0, 1000, 0.1, 0.7}} {
			s := named.Make(c.from, c.to, c.initial, c.final)
			last := math.Inf(-1)
			for step := c.from - 5; step <= c.to+5; step++ {
				got := s(step)
				if got != s(step) {
					t.Errorf("%s%v: two calls for step %d differ", named.Name, c, step)
				}
				least := c.initial
				if named.Name == "AC/DC" {
					least = 0
				}
				if !(got >= least && got <= c.final) { // NaN too
					t.Errorf("%s%v: %v after step %d", named.Name, c, got, step)
				}
				if named.Monotone && got < last {
					t.Errorf("%s%v: falls from %v to %v at step %d", named.Name, c, last, got, step)
				}
				hasInitial := named.Name != "one-shot" && named.Name != "AC/DC"
				if hasInitial && step <= c.from && step < c.to && got != c.initial {
					t.Errorf("%s%v: %v at step %d, before it begins", named.Name, c, got, step)
				}
				if step >= c.to && got != c.final {
					t.Errorf("%s%v: %v at step %d, after its end", named.Name, c, got, step)
				}
				last = got
			}
		}
	}
}

func TestNamesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, named := range All() {
		if named.Name == "" || seen[named.Name] {
			t.Errorf("the name %q is used twice, or empty", named.Name)
		}
		seen[named.Name] = true
	}
}

// A schedule may go down too: for weights that come back.
func TestDownwards(t *testing.T) {
	for name, s := range map[string]Schedule{
		"linear": Linear(0, 2, 0.9, 0.5), "cubic": Cubic(0, 2, 0.9, 0.5), "cosine": Cosine(0, 2, 0.9, 0.5),
		"exponential": Exponential(0, 2, 0.9, 0.5), "one-cycle": OneCycle(0, 2, 0.9, 0.5),
	} {
		if s(0) != 0.9 || s(2) != 0.5 || !(s(1) < 0.9 && s(1) > 0.5) {
			t.Errorf("%s from 0.9 to 0.5: %v, %v, %v", name, s(0), s(1), s(2))
		}
	}
}

// Other implementations, at tenths of the way. testdata says which.
func TestAgainstOthers(t *testing.T) {
	raw, err := os.ReadFile("testdata/schedules.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			Name           string
			Initial, Final float64
			After          []float64
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	makes := map[string]func(from, to int, initial, final float64) Schedule{}
	for _, named := range All() {
		makes[named.Name] = named.Make
	}
	compared := map[string]int{}
	for _, c := range golden.Cases {
		s := makes[c.Name](100, 200, c.Initial, c.Final)
		for i, want := range c.After {
			if got := s(110 + 10*i); math.Abs(got-want) > 1e-12 {
				t.Errorf("%s from %v to %v: %v after step %d, want %v", c.Name, c.Initial, c.Final, got, 110+10*i, want)
			}
			compared[c.Name]++
		}
	}
	for _, name := range []string{"linear", "cubic", "cosine", "one-cycle", "exponential"} {
		if compared[name] == 0 {
			t.Errorf("%s was not compared", name)
		}
	}
}

// The epochs of the authors' CIFAR-100 runs: prune at 10, 50, … 170, restore at 30, 70, … 150 of 200.
func TestACDCLikeItsAuthors(t *testing.T) {
	s, w := ACDC(10, 170, 20, 0.9)
	var pruned, restored []int
	for epoch := range 201 {
		switch {
		case w(epoch) && s(epoch) == 0.9:
			pruned = append(pruned, epoch)
		case w(epoch) && s(epoch) == 0:
			restored = append(restored, epoch)
		}
	}
	if !slices.Equal(pruned, []int{10, 50, 90, 130, 170}) || !slices.Equal(restored, []int{30, 70, 110, 150}) {
		t.Errorf("pruned at %v, restored at %v", pruned, restored)
	}
	sparse := false // between its calls, what the When has done last is what the schedule says
	for epoch := range 201 {
		if w(epoch) {
			sparse = s(epoch) > 0
		}
		if sparse != (s(epoch) > 0) {
			t.Errorf("epoch %d: the network is sparse: %t, the schedule says %v", epoch, sparse, s(epoch))
		}
	}
}

// Pruning refuses a NaN with a sentence; nothing here panics.
func TestNonsenseGivesNaN(t *testing.T) {
	nan := math.NaN()
	nonsense := map[string]Schedule{
		"no rounds":           Geometric(0, 0.2, 0.5),
		"a rate of 1.5":       Geometric(1, 1.5, 0.5),
		"a negative rate":     Geometric(1, -0.1, 0.5),
		"a rate of NaN":       Geometric(1, nan, 0.5),
		"a ladder to NaN":     Geometric(1, 0.2, nan),
		"one shot to NaN":     Constant(nan),
		"AC/DC without phase": first(ACDC(0, 10, 0, 0.5)),
		"a negative phase":    first(ACDC(0, 10, -1, 0.5)),
	}
	for _, named := range All() {
		nonsense[named.Name+" to NaN"] = named.Make(0, 10, 0, nan)
		if named.Name == "one-shot" {
			continue // it has no other arguments
		}
		nonsense[named.Name+" that ends before it begins"] = named.Make(20, 10, 0, 0.5)
		if named.Name != "AC/DC" {
			nonsense[named.Name+" from NaN"] = named.Make(0, 10, nan, 0.5)
		}
	}
	for name, s := range nonsense {
		for _, step := range []int{-1, 0, 5, 10, 15, 20, 30} {
			if got := s(step); !math.IsNaN(got) {
				t.Errorf("%s: got %v after step %d, want NaN", name, got, step)
			}
		}
	}
}

func first(s Schedule, _ When) Schedule { return s }

func TestWhen(t *testing.T) {
	steps := func(w When) []int {
		var at []int
		for step := -3; step <= 30; step++ {
			if w(step) {
				at = append(at, step)
			}
		}
		return at
	}
	_, acdc := ACDC(4, 20, 5, 0.9)
	for _, test := range []struct {
		name string
		w    When
		want []int
	}{
		{"every 10 from 5 to 25", Every(10, 5, 25), []int{5, 15, 25}},
		{"the end is no multiple", Every(10, 5, 24), []int{5, 15}},
		{"never", Every(0, 5, 25), nil},
		{"never, a negative number", Every(-5, 5, 25), nil},
		{"never, backwards", Every(5, 25, 5), nil},
		{"every step", Every(1, 3, 5), []int{3, 4, 5}},
		{"once, for a number that is larger than what is left", Every(100, 5, 25), []int{5}},
		{"the beginning is the end", Every(3, 7, 7), []int{7}},
		{"from below zero", Every(3, -2, 4), []int{-2, 1, 4}},
		{"once", Once(7), []int{7}},
		{"once, never reached", Once(31), nil},
		{"once, without a phase: pruning is to refuse it", second(ACDC(4, 20, 0, 0.9)), []int{4}},
		{"AC/DC: at the beginning of each phase; the last sparse one goes on", acdc, []int{4, 9, 14, 19, 20}},
	} {
		if got := steps(test.w); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func second(_ Schedule, w When) When { return w }

func ExampleCubic() {
	s := Cubic(0, 1000, 0, 0.9)
	for step := 0; step <= 1000; step += 250 {
		fmt.Printf("after %4d steps: %.1f%% removed\n", step, 100*s(step))
	}
	// Output:
	// after    0 steps: 0.0% removed
	// after  250 steps: 52.0% removed
	// after  500 steps: 78.8% removed
	// after  750 steps: 88.6% removed
	// after 1000 steps: 90.0% removed
}

func ExampleACDC() {
	s, when := ACDC(10, 40, 10, 0.9)
	for step := range 100 {
		if when(step) {
			fmt.Printf("after step %d: %.0f%% removed\n", step, 100*s(step))
		}
	}
	// Output:
	// after step 10: 90% removed
	// after step 20: 0% removed
	// after step 30: 90% removed
}

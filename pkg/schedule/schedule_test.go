package schedule

import (
	"fmt"
	"math"
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
		const from, to, initial, final = 10, 90, 0.1, 0.8
		s := named.Make(from, to, initial, final)
		last := math.Inf(-1)
		for step := -5; step <= 120; step++ {
			got := s(step)
			if got != s(step) {
				t.Errorf("%s: two calls for step %d differ", named.Name, step)
			}
			if got < 0 || got > final+1e-12 {
				t.Errorf("%s: %v after step %d", named.Name, got, step)
			}
			if named.Monotone && got < last-1e-12 {
				t.Errorf("%s: falls from %v to %v at step %d", named.Name, last, got, step)
			}
			if named.Monotone && named.Name != "one-shot" && step <= from && math.Abs(got-initial) > 0.01 {
				t.Errorf("%s: %v at step %d, before it begins, want %v", named.Name, got, step, initial)
			}
			if step >= to && math.Abs(got-final) > 1e-12 {
				t.Errorf("%s: %v at step %d, after its end, want %v", named.Name, got, step, final)
			}
			last = got
		}
	}
}

// Pruning refuses a NaN with a sentence; nothing here panics.
func TestNonsenseGivesNaN(t *testing.T) {
	wrong, _ := ACDC(0, 10, 0, 0.5)
	for name, s := range map[string]Schedule{
		"ends before it begins": Cubic(20, 10, 0, 0.5),
		"a final of NaN":        Linear(0, 10, 0, math.NaN()),
		"no rounds":             Geometric(0, 0.2, 0.5),
		"no phase":              wrong,
	} {
		if got := s(5); !math.IsNaN(got) {
			t.Errorf("%s: got %v, want NaN", name, got)
		}
	}
}

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
		{"never, backwards", Every(5, 25, 5), nil},
		{"once", Once(7), []int{7}},
		{"AC/DC: at the beginning of each phase; the last sparse one goes on", acdc, []int{4, 9, 14, 19, 20}},
	} {
		if got := steps(test.w); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

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

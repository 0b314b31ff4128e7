package lottery

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/espalier-ml/espalier/pkg/experiment"
)

// PairedTest compares two samples of which the i-th values belong together, such as what two branches of the same trial reach.
type PairedTest struct {
	experiment.Interval         // of the mean difference, x − y
	T, P                float64 // Student's t, and the two-sided p of no difference; NaN for fewer than 2 pairs
}

// Significance is P as tables write it: with four decimals, "< 0.0001" below, and "" where there is none.
func (t PairedTest) Significance() string {
	switch {
	case math.IsNaN(t.P):
		return ""
	case t.P < 0.0001:
		return "< 0.0001"
	}
	return fmt.Sprintf("%.4f", t.P)
}

// Paired is Student's t test on the differences of pairs. Differences that are all the same, but not zero, have p 0. Samples of different lengths, such as where a run of one branch has failed, have no pairs, since
// which values belong together can't be told: N is 0 then, and all else NaN.
func Paired(xs, ys []float64) PairedTest {
	if len(xs) != len(ys) {
		nan := math.NaN()
		return PairedTest{Interval: experiment.Interval{Mean: nan, Low: nan, High: nan}, T: nan, P: nan}
	}
	n := len(xs)
	d := make([]float64, n)
	for i := range d {
		d[i] = xs[i] - ys[i]
	}
	test := PairedTest{Interval: experiment.Confidence(d), T: math.NaN(), P: math.NaN()}
	if n < 2 {
		return test
	}
	student := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(n - 1)}
	error := (test.High - test.Mean) / student.Quantile(0.975) // of the mean
	switch {
	case error > 0:
		test.T = test.Mean / error
		test.P = 2 * student.CDF(-math.Abs(test.T))
	case test.Mean != 0:
		test.T, test.P = math.Inf(1), 0
		if test.Mean < 0 {
			test.T = math.Inf(-1)
		}
	default:
		test.T, test.P = 0, 1
	}
	return test
}

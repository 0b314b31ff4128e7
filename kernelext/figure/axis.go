package figure

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// axis maps data to 0 … 1 and knows its tick marks.
type axis struct {
	lo, hi       float64
	log, reverse bool
	ticks        []float64
	labels       []string
}

// axisSpec is what a figure's fields say about an axis.
type axisSpec struct {
	log, reverse, percent bool
	min, max              float64 // limits; both 0: from the data
	slack                 float64 // how much of the range may be added so that the axis ends on a tick
	count                 int     // about how many steps between ticks
}

// checkLimits returns what is wrong with the limits, "" if nothing is.
func (s axisSpec) checkLimits(name string) string {
	switch {
	case s.min == 0 && s.max == 0:
		return ""
	case badValue(s.min, false) != "" || badValue(s.max, false) != "" || s.min >= s.max:
		return fmt.Sprintf("its %s axis is to reach from %v to %v; expected the smaller limit first (both 0 for limits from the data)", name, s.min, s.max)
	case s.log && s.min <= 0:
		return fmt.Sprintf("its logarithmic %s axis is to begin at %v; expected a limit above 0", name, s.min)
	}
	return ""
}

// newAxis makes an axis for data from lo to hi.
func newAxis(lo, hi float64, s axisSpec) axis {
	a := axis{lo: lo, hi: hi, log: s.log, reverse: s.reverse}
	fixed := s.min != 0 || s.max != 0
	if fixed {
		a.lo, a.hi = s.min, s.max
	}
	if a.hi-a.lo <= 1e-9*math.Max(math.Abs(a.lo), math.Abs(a.hi)) { // in effect a single value: give it room on both sides
		switch {
		case a.log:
			a.lo, a.hi = a.lo/2, a.hi*2
		case a.lo == 0:
			a.lo, a.hi = -1, 1
		default:
			d := math.Max(math.Abs(a.lo), math.Abs(a.hi)) / 10
			a.lo, a.hi = a.lo-d, a.hi+d
		}
	}
	if a.log {
		a.logTicks(fixed, s)
	} else {
		a.linearTicks(fixed, s)
	}
	return a
}

// at returns where v stands on the axis, 0 at its beginning and 1 at its end.
func (a axis) at(v float64) float64 {
	lo, hi := a.lo, a.hi
	if a.log {
		lo, hi, v = math.Log(lo), math.Log(hi), math.Log(v)
	}
	t := (v - lo) / (hi - lo)
	if a.reverse {
		return 1 - t
	}
	return t
}

func (a *axis) linearTicks(fixed bool, s axisSpec) {
	step := niceStep((a.hi - a.lo) / float64(s.count))
	if !fixed {
		room := s.slack * (a.hi - a.lo)
		if lo := math.Floor(a.lo/step+1e-9) * step; a.lo-lo <= room {
			a.lo = lo
		}
		if hi := math.Ceil(a.hi/step-1e-9) * step; hi-a.hi <= room {
			a.hi = hi
		}
	}
	first, last := math.Ceil(a.lo/step-1e-9), math.Floor(a.hi/step+1e-9)
	format := tickFormat(step, math.Max(math.Abs(a.lo), math.Abs(a.hi)), s.percent)
	for i := first; i <= last; i++ {
		a.ticks = append(a.ticks, i*step)
		a.labels = append(a.labels, format(i*step))
	}
}

// niceStep rounds up to 1, 2 or 5 times a power of ten.
func niceStep(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if x <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

func (a *axis) logTicks(fixed bool, s axisSpec) {
	decades := math.Log10(a.hi / a.lo)
	mantissas := []float64{1}
	if decades <= 2.3 {
		mantissas = []float64{1, 2, 5}
	}
	var candidates []float64
	for e := math.Floor(math.Log10(a.lo)) - 1; e <= math.Ceil(math.Log10(a.hi))+1; e++ {
		for _, m := range mantissas {
			// ParseFloat gives the nearest number to 2e-3, which 2 * Pow(10, -3) may miss.
			v, _ := strconv.ParseFloat(fmt.Sprintf("%ge%g", m, e), 64)
			candidates = append(candidates, v)
		}
	}
	if !fixed {
		lo, hi := a.lo, a.hi
		for _, v := range candidates {
			if v <= lo*(1+1e-9) {
				a.lo = v
			}
		}
		for i := len(candidates) - 1; i >= 0; i-- {
			if v := candidates[i]; v >= hi*(1-1e-9) {
				a.hi = v
			}
		}
	}
	for _, v := range candidates {
		if v >= a.lo*(1-1e-9) && v <= a.hi*(1+1e-9) {
			a.ticks = append(a.ticks, v)
		}
	}
	if len(a.ticks) < 2 { // limits within less than a decade
		a.ticks = nil
		a.linearTicks(true, s)
		return
	}
	const most = 8
	if every := (len(a.ticks) + most - 1) / most; every > 1 {
		var kept []float64
		for i := 0; i < len(a.ticks); i += every {
			kept = append(kept, a.ticks[i])
		}
		a.ticks = kept
	}
	for _, v := range a.ticks {
		a.labels = append(a.labels, tickFormat(v, v, s.percent)(v))
	}
}

// tickFormat returns how the ticks of an axis that reaches to largest are written.
func tickFormat(step, largest float64, percent bool) func(float64) string {
	scale, suffix := 1.0, ""
	switch {
	case percent:
		scale, suffix = 100, "%"
	case largest >= 1e12 || largest > 0 && largest < 1e-3:
		return func(v float64) string {
			if v == 0 {
				return "0"
			}
			return shortExponent(strconv.FormatFloat(v, 'e', max(0, int(math.Floor(math.Log10(math.Abs(v)*(1+1e-9))))-exponent(step)), 64))
		}
	case largest >= 1e9:
		scale, suffix = 1e-9, "G"
	case largest >= 1e6:
		scale, suffix = 1e-6, "M"
	}
	decimals := max(0, -exponent(step*scale))
	return func(v float64) string {
		s := thousands(strconv.FormatFloat(v*scale, 'f', decimals, 64))
		if v == 0 {
			s = "0" // not 0.0, and not -0
			if !percent {
				return s // not 0M
			}
		}
		return s + suffix
	}
}

// exponent is the power of ten of x's first digit.
func exponent(x float64) int { return int(math.Floor(math.Log10(math.Abs(x)) + 1e-9)) }

// shortExponent makes 1e-4 of 1e-04.
func shortExponent(s string) string {
	for _, sign := range []string{"e-0", "e+0"} {
		if i := strings.Index(s, sign); i >= 0 {
			return s[:i+2] + s[i+3:]
		}
	}
	return s
}

// thousands puts separators into the whole part of a number.
func thousands(s string) string {
	whole, fraction, _ := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction != "" {
		whole += "." + fraction
	}
	return sign + whole
}

// numberFormat returns how values that stand near each other are written: with as many decimals as tell them apart, the same for all.
func numberFormat(values []float64, percent bool) func(float64) string {
	all := newSpan()
	whole := true
	scale := 1.0
	if percent {
		scale = 100
	}
	for _, v := range values {
		all.add(v)
		whole = whole && math.Abs(scale*v-math.Round(scale*v)) < 1e-9
	}
	largest := scale * math.Max(math.Abs(all.lo), math.Abs(all.hi))
	decimals := 0
	switch {
	case whole && largest < 1e6:
	case percent && all.hi-all.lo < 0.01:
		decimals = 2
	case percent:
		decimals = 1
	case largest >= 1e6 || largest < 1e-3:
		return func(v float64) string { return number(v, false) }
	default:
		decimals = max(0, 2-exponent(largest))
	}
	return func(v float64) string {
		s := thousands(strconv.FormatFloat(scale*v, 'f', decimals, 64))
		if percent {
			s += "%"
		}
		return s
	}
}

// number writes a value as a label beside the data: four significant digits, in percent with at most two decimals.
func number(v float64, percent bool) string {
	if percent {
		return trimZeros(strconv.FormatFloat(100*v, 'f', 2, 64)) + "%"
	}
	if v == math.Trunc(v) && math.Abs(v) < 1e6 {
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	}
	if a := math.Abs(v); a >= 1e6 && a < 1e12 {
		scale, suffix := 1e6, "M"
		if a >= 1e9 {
			scale, suffix = 1e9, "G"
		}
		return strconv.FormatFloat(v/scale, 'g', 4, 64) + suffix
	}
	return shortExponent(strconv.FormatFloat(v, 'g', 4, 64))
}

func trimZeros(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" {
		return "0"
	}
	return s
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// span grows to hold values.
type span struct{ lo, hi float64 }

func newSpan() span { return span{math.Inf(1), math.Inf(-1)} }

func (s *span) add(values ...float64) {
	for _, v := range values {
		s.lo, s.hi = math.Min(s.lo, v), math.Max(s.hi, v)
	}
}

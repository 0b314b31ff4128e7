package report

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Summary of a sample, usually over seeds.
type Summary struct {
	N                int
	Mean, Std        float64 // Std: of the sample (n − 1); 0 for one value
	StdErr, Min, Max float64 // StdErr: Std / √n, of the mean
}

// Summarize returns the summary of a sample; all NaN for none. One NaN makes all of it NaN: a run that failed is not averaged away.
func Summarize(xs []float64) Summary {
	s := Summary{N: len(xs), Mean: math.NaN(), Std: math.NaN(), StdErr: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	if len(xs) == 0 {
		return s
	}
	s.Min, s.Max = slices.Min(xs), slices.Max(xs)
	n := float64(len(xs))
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	s.Mean = sum / n
	squares := 0.0
	for _, x := range xs {
		squares += (x - s.Mean) * (x - s.Mean)
	}
	s.Std = math.Sqrt(squares / max(1, n-1))
	s.StdErr = s.Std / math.Sqrt(n)
	return s
}

// String is the mean ± the standard deviation with two digits after the point: 98.21 ± 0.05. One value has no spread: 98.21.
func (s Summary) String() string { return fmt.Sprint(s) }

// Format implements fmt.Formatter: %v and %s are String, %.3f and its like write the mean and the standard deviation so.
func (s Summary) Format(f fmt.State, verb rune) {
	precision, given := f.Precision()
	switch verb {
	case 'v', 's':
		verb = 'f'
		if !given {
			precision, given = 2, true
		}
	case 'e', 'E', 'f', 'F', 'g', 'G':
	default:
		fmt.Fprintf(f, "%%!%c(report.Summary)", verb)
		return
	}
	format := "%" + string(verb)
	if given {
		format = fmt.Sprintf("%%.%d%c", precision, verb)
	}
	fmt.Fprintf(f, format, s.Mean)
	if s.N > 1 {
		fmt.Fprintf(f, " ± "+format, s.Std)
	}
}

// Grouped is a summary of the records that agree in a key.
type Grouped struct {
	Key []string // in the order of the names given to Group
	Summary
}

// Group summarises a value over the records that agree in all of by: "recipe", "step", "seed", the name of another value or of a label. Groups come in
// the order in which they first occur. Records without the value are left out; a record without a label has "" there.
func Group(records []Record, value string, by ...string) []Grouped {
	var order []string
	keys := map[string][]string{}
	samples := map[string][]float64{}
	for _, r := range records {
		x, ok := r.Values[value]
		if !ok {
			continue
		}
		var key []string
		for _, name := range by {
			key = append(key, r.field(name))
		}
		id := strings.Join(key, "\x00")
		if _, seen := keys[id]; !seen {
			order = append(order, id)
			keys[id] = key
		}
		samples[id] = append(samples[id], x)
	}
	groups := make([]Grouped, len(order))
	for i, id := range order {
		groups[i] = Grouped{keys[id], Summarize(samples[id])}
	}
	return groups
}

func (r Record) field(name string) string {
	switch name {
	case "recipe":
		return r.Recipe
	case "step":
		return fmt.Sprint(r.Step)
	case "seed":
		return fmt.Sprint(r.Seed)
	}
	if x, ok := r.Values[name]; ok {
		return fmt.Sprint(x)
	}
	return r.Labels[name]
}

// Merge makes one record of those that have the same labels and seed, as several draws of one seed do, where the first of them was: with the mean of each value over those that have it. Recipe and
// step are those of the first.
func Merge(records []Record) []Record {
	var merged []Record
	values := map[string]map[string][]float64{}
	key := func(r Record) string {
		labels, _ := json.Marshal(r.Labels) // strings, and in order
		return fmt.Sprint(r.Seed, string(labels))
	}
	for _, r := range records {
		of := values[key(r)]
		if of == nil {
			of, merged = map[string][]float64{}, append(merged, r)
			values[key(r)] = of
		}
		for name, x := range r.Values {
			of[name] = append(of[name], x)
		}
	}
	for i, r := range merged {
		merged[i].Values = map[string]float64{}
		for name, xs := range values[key(r)] {
			merged[i].Values[name] = Summarize(xs).Mean
		}
	}
	return merged
}

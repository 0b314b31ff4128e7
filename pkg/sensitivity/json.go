package sensitivity

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// number is a float64 in JSON, with the strings "NaN", "+Inf" and "-Inf" for what JSON has no numbers for, as in pkg/report.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(n), 'g', -1, 64)
	if !finite(float64(n)) {
		text = strconv.Quote(text)
	}
	return []byte(text), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(data []byte) error {
	if x, ok := map[string]float64{`"NaN"`: math.NaN(), `"+Inf"`: math.Inf(1), `"-Inf"`: math.Inf(-1)}[string(data)]; ok {
		*n = number(x)
		return nil
	}
	if string(data) == "null" { // which would be read as 0
		return errors.New("expected a number, came null")
	}
	return json.Unmarshal(data, (*float64)(n))
}

func numbers(xs []float64) []number {
	ns := make([]number, len(xs))
	for i, x := range xs {
		ns[i] = number(x)
	}
	return ns
}

func floats(ns []number) []float64 {
	xs := make([]float64, len(ns))
	for i, n := range ns {
		xs[i] = float64(n)
	}
	return xs
}

type jsonCurves struct {
	Recipe     string      `json:"recipe"`
	Seed       int64       `json:"seed"`
	MinUnits   int         `json:"min_units"`
	RoundTo    int         `json:"round_to"`
	Sparsities []float64   `json:"sparsities"`
	Dense      []number    `json:"dense"`
	Layers     []Layer     `json:"layers"`
	Curves     []jsonCurve `json:"curves"`
}

type jsonCurve struct {
	Group  string      `json:"group"`
	Paths  []string    `json:"paths"`
	Points []jsonPoint `json:"points"`
}

type jsonPoint struct {
	Asked          float64  `json:"asked"`
	Sparsity       float64  `json:"sparsity"`
	Kept           []int    `json:"kept"`
	UnitsRemoved   int      `json:"units_removed"`
	WeightsRemoved int      `json:"weights_removed"`
	Losses         []number `json:"losses"`
	Loss           number   `json:"loss"` // this and what follows is for readers; reading back makes it again from the losses
	Increase       number   `json:"increase"`
	Low            number   `json:"low"`
	High           number   `json:"high"`
}

// MarshalJSON implements json.Marshaler. NaN and the infinities are the strings "NaN", "+Inf" and "-Inf".
func (c Curves) MarshalJSON() ([]byte, error) {
	out := jsonCurves{c.Recipe, c.Seed, c.MinUnits, c.RoundTo, c.Sparsities, numbers(c.Dense), c.Layers, []jsonCurve{}}
	for _, curve := range c.Curves {
		j := jsonCurve{curve.Group, curve.Paths, nil}
		for _, p := range curve.Points {
			j.Points = append(j.Points, jsonPoint{p.Asked, p.Sparsity, p.Kept, p.UnitsRemoved, p.WeightsRemoved, numbers(p.Losses),
				number(p.Loss), number(p.Increase), number(p.Low), number(p.High)})
		}
		out.Curves = append(out.Curves, j)
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler for what MarshalJSON wrote. What does not fit together is a *CurvesError, and nothing is changed.
func (c *Curves) UnmarshalJSON(data []byte) error {
	var in jsonCurves
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	out := Curves{in.Recipe, in.Seed, in.Sparsities, in.MinUnits, in.RoundTo, in.Layers, floats(in.Dense), nil}
	for _, curve := range in.Curves {
		o := Curve{curve.Group, curve.Paths, nil}
		for _, p := range curve.Points {
			o.Points = append(o.Points, Point{Asked: p.Asked, Sparsity: p.Sparsity, Kept: p.Kept,
				UnitsRemoved: p.UnitsRemoved, WeightsRemoved: p.WeightsRemoved, Losses: floats(p.Losses)})
		}
		out.Curves = append(out.Curves, o)
	}
	if err := out.check(); err != nil {
		return err
	}
	out.summarize()
	*c = out
	return nil
}

// CurvesError says that curves do not fit together: they were written by hand or damaged.
type CurvesError struct{ Where, Problem string }

func (e *CurvesError) Error() string {
	return fmt.Sprintf("sensitivity: curves, %s: %s; make them with Scan", e.Where, e.Problem)
}

// check returns a *CurvesError for what would lead the solver astray.
func (c *Curves) check() error {
	fail := func(where, format string, args ...any) error {
		return &CurvesError{where, fmt.Sprintf(format, args...)}
	}
	switch {
	case len(c.Dense) == 0 || !finite(mean(c.Dense)):
		return fail(asItIs, "its losses are %v", c.Dense)
	case c.MinUnits < 1 || c.RoundTo < 1:
		return fail("the recipe", "MinUnits is %d and RoundTo is %d", c.MinUnits, c.RoundTo)
	case len(c.Curves) == 0:
		return fail("groups", "there are none")
	}
	known := map[string]bool{}
	for _, l := range c.Layers {
		if l.Units < 1 || l.UnitSize < 1 || l.WeightBytes < 1 || l.Alive < 0 || l.Alive > l.Units || known[l.Path] {
			return fail("layer "+l.Path, "%+v, or it is there twice", l)
		}
		known[l.Path] = true
	}
	names := map[string]bool{}
	for _, curve := range c.Curves {
		where := fmt.Sprintf("group %q", curve.Group)
		if len(curve.Paths) == 0 || len(curve.Points) == 0 || names[curve.Group] {
			return fail(where, "%d paths and %d points, or it is there twice", len(curve.Paths), len(curve.Points))
		}
		names[curve.Group] = true
		for _, path := range curve.Paths {
			if !known[path] {
				return fail(where, "%s is no layer, or is in two groups", path)
			}
			known[path] = false
		}
		for i, p := range curve.Points {
			switch {
			case len(p.Kept) != len(curve.Paths) || len(p.Losses) != len(c.Dense):
				return fail(where, "point %d has %d counts for %d paths, and %d losses for %d parts of the data", i, len(p.Kept), len(curve.Paths), len(p.Losses), len(c.Dense))
			case i == 0 && !slices.Equal(p.Kept, c.kept(curve.Paths, 0)):
				return fail(where, "its first point is not the group as it was")
			case i > 0 && p.Sparsity <= curve.Points[i-1].Sparsity:
				return fail(where, "the sparsities of its points do not rise")
			case math.Abs(p.Sparsity-c.sparsity(curve.Paths, p.Kept)) > 1e-9:
				return fail(where, "point %d has a sparsity of %v and keeps %v", i, p.Sparsity, p.Kept)
			}
		}
	}
	return nil
}

package sensitivity

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Cost says what a weight of a layer costs. A unit that is alive costs all its weights, and what its removal spares in other layers, as the inputs of the
// next, is not counted. The zero value is Weights.
type Cost struct {
	Name      string
	PerWeight func(l Layer) int64 // at least 1
}

// Weights counts each weight as one.
var Weights = Cost{Name: "weights", PerWeight: func(Layer) int64 { return 1 }}

// Bytes counts what weights take in memory, without what a sparse format adds.
var Bytes = Cost{Name: "bytes", PerWeight: func(l Layer) int64 { return int64(l.WeightBytes) }}

// MACs counts multiply-accumulate operations, by how many a weight of each parameter takes part in, by path: 1 in a dense layer, and as many as there are
// positions in the output of a convolution.
func MACs(perWeight map[string]int64) Cost {
	perWeight = maps.Clone(perWeight)
	return Cost{Name: "MACs", PerWeight: func(l Layer) int64 { return perWeight[l.Path] }}
}

// Target is what an allocation has to reach.
type Target struct {
	// Sparsity is the share to remove of the cost of all scanned groups, 0 ≤ s < 1. What was dead before the scan counts as removed.
	Sparsity float64
	Cost     Cost // default: Weights
	// Min and Max bound the sparsity of groups, by name. Default: from what is dead already to the highest scanned.
	Min, Max map[string]float64
	// Buckets is how finely the solver tells costs apart: see Curves.Solve. Default: 10,000
	Buckets int
}

// TargetError says that a target does not fit the curves.
type TargetError struct{ Field, Problem, Remedy string }

func (e *TargetError) Error() string {
	return fmt.Sprintf("sensitivity: Target.%s: %s; %s", e.Field, e.Problem, e.Remedy)
}

// InfeasibleError says that a target can't be reached.
type InfeasibleError struct {
	Cost          string
	Want, Largest float64 // shares of the cost to remove: asked for, and the most that can be
	Remedy        string
}

func (e *InfeasibleError) Error() string {
	return fmt.Sprintf("sensitivity: %.4g%% of the %s can't be removed, at most %.2f%%; %s", 100*e.Want, e.Cost, math.Floor(1e4*e.Largest)/100, e.Remedy)
}

// complete fills in defaults and checks the target against the curves.
func (t Target) complete(c *Curves) (Target, error) {
	fail := func(field, problem, remedy string) (Target, error) { return t, &TargetError{field, problem, remedy} }
	if math.IsNaN(t.Sparsity) || t.Sparsity < 0 || t.Sparsity >= 1 {
		return fail("Sparsity", fmt.Sprintf("%v is no share to remove", t.Sparsity), "give at least 0 and less than 1, for instance 0.9")
	}
	if t.Buckets < 0 {
		return fail("Buckets", fmt.Sprintf("it is %d", t.Buckets), "give 0 for the default, or a positive number")
	}
	if t.Buckets == 0 {
		t.Buckets = 10_000
	}
	if t.Cost.PerWeight == nil {
		if t.Cost.Name != "" && t.Cost.Name != Weights.Name {
			return fail("Cost", fmt.Sprintf("%q has no PerWeight", t.Cost.Name), "use Weights, Bytes or MACs, or set it")
		}
		t.Cost = Weights
	}
	for _, curve := range c.Curves {
		for _, path := range curve.Paths {
			if cost := t.Cost.PerWeight(c.layer(path)); cost < 1 {
				return fail("Cost", fmt.Sprintf("a weight of %s costs %d %s", path, cost, t.Cost.Name), "give each scanned parameter at least 1")
			}
		}
	}
	for _, bound := range []struct {
		field  string
		values map[string]float64
	}{{"Min", t.Min}, {"Max", t.Max}} {
		for _, name := range slices.Sorted(maps.Keys(bound.values)) {
			if s := bound.values[name]; math.IsNaN(s) || s < 0 || s > 1 {
				return fail(bound.field, fmt.Sprintf("%v of %q is no share", s, name), "give shares from 0 to 1")
			}
			if !slices.Contains(c.names(), name) {
				return fail(bound.field, fmt.Sprintf("there is no group %q", name), "name one of "+list(c.names()))
			}
		}
	}
	return t, nil
}

// total returns what all units of the scanned groups cost, and need how much of it has to go.
func (t Target) total(c *Curves) (total, need int64) {
	for _, curve := range c.Curves {
		for _, path := range curve.Paths {
			total += int64(c.layer(path).Units) * t.unit(c.layer(path))
		}
	}
	// Up, so that the target is met; but not for the last bits of the product: 0.7 of 10 is 7.
	return total, int64(math.Ceil(t.Sparsity * float64(total) * (1 - 1e-12)))
}

// unit returns what a unit of a layer costs.
func (t Target) unit(l Layer) int64 { return t.Cost.PerWeight(l) * int64(l.UnitSize) }

// saving returns what is spared where so many units of a group's parameters are kept.
func (t Target) saving(c *Curves, paths []string, kept []int) int64 {
	saving := int64(0)
	for i, path := range paths {
		l := c.layer(path)
		saving += int64(l.Units-kept[i]) * t.unit(l)
	}
	return saving
}

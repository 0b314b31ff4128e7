package surgery

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/criterion"
)

// Config says how a plan chooses. The zero value keeps half of the multiply-accumulates by magnitude.
type Config struct {
	Criterion criterion.Criterion // default: criterion.Magnitude
	// Normalize makes the scores of groups comparable. Default: criterion.ByMean, or what the criterion does by itself.
	Normalize criterion.Normalize
	// Params, MACs or Units is the share that stays, at most 1: of the network's parameters, of its multiply-accumulates in inference for the traced inputs (as Cost counts them), or of all units. One of
	// them is set at most; if none is, and Keep is empty, half of the MACs stay. Units go in the order of their importance, and no more of them than it takes to reach the share; where the last one brings much, as one of many channels does, far less
	// may stay, and Plan.Notes says so.
	Params, MACs, Units float64
	// Uniform keeps the same share of each group. By default the least important units of all groups go.
	Uniform bool
	// MinUnits and MinShare are how many units, and what share of them, always stay of each group. Defaults: 1 and 0
	MinUnits int
	MinShare float64
	// RoundTo makes the channels that stay of each group a multiple of this in each of its places, rounded up from what its importance gives it, while the budget over all groups is
	// still met: where it would not be, fewer stay. A group that is
	// whole stays as it is. Default: 1
	RoundTo int
	// Keep is how many units stay of a group by its name, whatever the budget says. More stay of it, and other numbers than RoundTo asks for, where a part that the network takes from a group
	// would vanish; Plan.Notes says so.
	Keep map[string]int
	// Exclude are groups that stay whole: by name, by the path of one of their variables, or by a scope of one.
	Exclude []string
	// Biases says that biases, and what else is added for each unit, have a part in the importance of units. By default kernels and gains have.
	Biases bool
	Seed   int64 // for criteria that draw random numbers
}

// complete returns the configuration with its defaults filled in.
func (c Config) complete() Config {
	if c.Criterion.Score == nil {
		c.Criterion = criterion.Magnitude
	}
	if c.Criterion.Pool == nil {
		c.Criterion.Pool = criterion.L1
	}
	if c.Normalize.Apply == nil && c.Criterion.Normalize.Apply == nil {
		c.Normalize = criterion.ByMean
	}
	if c.Params == 0 && c.MACs == 0 && c.Units == 0 && len(c.Keep) == 0 {
		c.MACs = 0.5
	}
	if c.MinUnits == 0 {
		c.MinUnits = 1
	}
	if c.RoundTo == 0 {
		c.RoundTo = 1
	}
	return c
}

// budget describes what is kept.
func (c Config) budget() string {
	var parts []string
	for _, b := range []struct {
		name  string
		share float64
	}{{"params", c.Params}, {"macs", c.MACs}, {"units", c.Units}} {
		if b.share != 0 {
			parts = append(parts, fmt.Sprintf("%s=%g", b.name, b.share))
		}
	}
	if c.Uniform {
		parts = append(parts, "uniform")
	}
	if c.RoundTo > 1 {
		parts = append(parts, fmt.Sprintf("roundto=%d", c.RoundTo))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Keep)) {
		parts = append(parts, fmt.Sprintf("keep %s=%d", name, c.Keep[name]))
	}
	return strings.Join(parts, " ")
}

// check returns a *ConfigError, *UnknownGroupError or *VanishError for what can't be meant.
func (c Config) check(n *Network) error {
	set := 0
	for name, share := range map[string]float64{"Params": c.Params, "MACs": c.MACs, "Units": c.Units, "MinShare": c.MinShare} {
		if math.IsNaN(share) || share < 0 || share > 1 {
			return &ConfigError{name, fmt.Sprintf("it is %v", share), "give the share that stays, more than 0 and at most 1, for instance 0.5"}
		}
		if share != 0 && name != "MinShare" {
			set++
		}
	}
	if set > 1 {
		return &ConfigError{"Params, MACs, Units", "several of them are set", "set one"}
	}
	for name, number := range map[string]int{"MinUnits": c.MinUnits, "RoundTo": c.RoundTo} {
		if number < 0 {
			return &ConfigError{name, fmt.Sprintf("it is %d", number), "give 0 for the default, or a positive number"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Keep)) {
		g := n.byName[name]
		switch keep := c.Keep[name]; {
		case g == nil:
			return n.unknown(name)
		case keep == 0:
			return &VanishError{"the group " + name}
		case keep < 0 || keep > g.Size:
			return &ConfigError{"Keep", fmt.Sprintf("%d units of %s are to stay, which has %d", keep, name, g.Size), "give a number from 1 to its size"}
		}
	}
	for _, e := range c.Exclude {
		if !slices.ContainsFunc(n.groups, func(g *Group) bool { return excluded(g, e) }) && !slices.ContainsFunc(n.analysis.order, func(path string) bool { return inside(path, e) }) {
			return &ConfigError{"Exclude", fmt.Sprintf("%q is no group, variable or scope of the network", e), "give one that Network.Groups or the store lists"}
		}
	}
	return nil
}

func inside(path, scope string) bool {
	return path == scope || strings.HasPrefix(path, strings.TrimSuffix(scope, model.ScopeSeparator)+model.ScopeSeparator)
}

func excluded(g *Group, by string) bool {
	return g.Name == by || slices.ContainsFunc(g.Members, func(m Member) bool { return inside(m.Path, by) })
}

package surgery

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// Plan says which units of a network go. It can be read, drawn, edited and saved; Apply makes the smaller network.
type Plan struct {
	// Removed are the units of each group that go, sorted; groups that are not named stay whole.
	Removed map[string][]int
	// Criterion and Budget say how the units were chosen. They are for the reader.
	Criterion, Budget string

	network *Network
	notes   []string
}

// Notes says what the choice passed over: groups that nothing scored, for instance.
func (p *Plan) Notes() []string { return slices.Clone(p.notes) }

// Network returns the network that the plan is for.
func (p *Plan) Network() *Network { return p.network }

// Empty returns a plan that removes nothing, for those who choose units by themselves.
func (n *Network) Empty() *Plan { return &Plan{Removed: map[string][]int{}, network: n} }

// Check says whether the plan can be applied. Errors: *UnknownGroupError, *UnitError, *VanishError; *ValueError for a plan that was not made by a network.
func (p *Plan) Check() error {
	if p == nil || p.network == nil {
		return &ValueError{"Plan", "has no network", "use what Network.Plan, Choose, FromMasks, Empty or ReadPlan returns"}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Removed)) {
		units := p.Removed[name]
		g := p.network.byName[name]
		if g == nil {
			return p.network.unknown(name)
		}
		seen := make([]bool, g.Size)
		for _, u := range units {
			switch {
			case u < 0 || u >= g.Size:
				return &UnitError{name, u, g.Size, "is not there"}
			case seen[u]:
				return &UnitError{name, u, g.Size, "is named twice"}
			}
			seen[u] = true
		}
		if len(units) == g.Size {
			return &VanishError{"the group " + name}
		}
	}
	gone := p.gone()
	for _, path := range p.network.analysis.order {
		for k, ax := range p.network.analysis.variables[path].axes {
			if ax.n > 0 && p.network.analysis.count(ax, gone) == 0 {
				return &VanishError{fmt.Sprintf("axis %d of %s", k, path)}
			}
		}
	}
	for _, ax := range p.network.axes {
		if p.network.analysis.count(ax, gone) == 0 {
			return &VanishError{fmt.Sprintf("%d channels, among them some of the group %s, that the network takes apart from others", ax.n, p.network.groupOf(p.network.analysis.atoms(ax.sets[0])[0]))}
		}
	}
	return nil
}

// gone returns the atoms that go.
func (p *Plan) gone() []bool {
	gone := make([]bool, len(p.network.analysis.subst))
	for name, units := range p.Removed {
		for _, u := range units {
			gone[p.network.byName[name].atoms[u]] = true
		}
	}
	return gone
}

// Indices returns the indices that go, sorted, of each axis of each variable of which any do. The error is that of Check.
func (p *Plan) Indices() (map[string]map[int][]int, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	a, gone := p.network.analysis, p.gone()
	removed := map[string]map[int][]int{}
	for _, path := range a.order {
		for k, ax := range a.variables[path].axes {
			var indices []int
			for i, s := range ax.sets {
				if a.goes(s, gone) {
					indices = append(indices, i)
				}
			}
			if indices == nil {
				continue
			}
			if removed[path] == nil {
				removed[path] = map[int][]int{}
			}
			removed[path][k] = indices
		}
	}
	return removed, nil
}

// Cost is what a network holds and does.
type Cost struct {
	Params int64 // elements of the variables that the network reads: statistics of normalisations too, with the weight of their averages, which only training reads and profile.Of leaves out; masks and the state of random numbers not
	// MACs are multiply-accumulates in inference, for the traced inputs. Of transposed convolutions each place of the input counts with the whole kernel, as in pkg/profile.
	MACs int64
}

// Cost returns what the whole network costs.
func (n *Network) Cost() Cost { return Cost{n.costs.Params(nil), n.costs.MACs(nil)} }

// Cost returns what the smaller network will cost. It is exact, and computed without building it. The error is that of Check.
func (p *Plan) Cost() (Cost, error) {
	if err := p.Check(); err != nil {
		return Cost{}, err
	}
	gone := p.gone()
	return Cost{p.network.costs.Params(gone), p.network.costs.MACs(gone)}, nil
}

// Table lists the groups, with what stays of each. The error is that of Check.
func (p *Plan) Table() (report.Table, error) {
	cost, err := p.Cost()
	if err != nil {
		return report.Table{}, err
	}
	whole := p.network.Cost()
	t := report.Table{
		Title: fmt.Sprintf("%s of %s parameters stay (%.1f%%), %s of %s MACs (%.1f%%)", report.Count(cost.Params), report.Count(whole.Params), 100*share(cost.Params, whole.Params),
			report.Count(cost.MACs), report.Count(whole.MACs), 100*share(cost.MACs, whole.MACs)),
		Columns: []report.Column{{Name: "group"}, {Name: "units"}, {Name: "stay"}, {Name: "share", Unit: "%", Format: "%.1f"}, {Name: "places"}},
		Caption: "A unit goes from all places of its group, which Network.Explain lists.",
	}
	for _, g := range p.network.groups {
		stay := g.Size - len(p.Removed[g.Name])
		t.Rows = append(t.Rows, []any{g.Name, g.Size, stay, 100 * float64(stay) / float64(g.Size), len(g.Members)})
	}
	return t, nil
}

// String is a line for each group: how many of its units stay.
func (p *Plan) String() string {
	if p == nil || p.network == nil {
		return "a plan without a network"
	}
	var b strings.Builder
	for _, g := range p.network.groups {
		fmt.Fprintf(&b, "%s: %d of %d stay\n", g.Name, g.Size-len(p.Removed[g.Name]), g.Size)
	}
	return b.String()
}

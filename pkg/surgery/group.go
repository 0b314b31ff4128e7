package surgery

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Group is a set of interchangeable units: each lives in the same axes of the same variables, with as many indices. A unit goes from all of these places or from none.
type Group struct {
	Name    string // path and axis of the first place that makes its channels
	Size    int    // units
	Members []Member

	atoms []atom
}

// Member is an axis of a variable in which a group's units live.
type Member struct {
	Path string
	Axis int
	Role Role
	// Indices of each unit, sorted; all units have as many. An index that belongs to units of several groups, as one of heads × sizes does, goes when one of them does.
	Indices [][]int
}

// Role says what the network does along an axis of a variable.
type Role int

// The roles.
const (
	Follows Role = iota // biases, statistics, and what else goes along
	Makes               // a kernel's outputs: it computes the group's channels
	Reads               // a kernel's inputs: it computes from them
	Scales              // gains: it multiplies them
)

func (r Role) String() string { return [...]string{"follows", "makes", "reads", "scales"}[r] }

// Place names an axis of a variable: "/conv1/conv/weights:3".
func (m Member) Place() string { return fmt.Sprintf("%s:%d", m.Path, m.Axis) }

// PerUnit is the number of indices that one unit has there.
func (m Member) PerUnit() int { return len(m.Indices[0]) }

func (g *Group) String() string {
	var places []string
	for _, m := range g.Members {
		text := m.Place()
		if m.PerUnit() > 1 {
			text += fmt.Sprintf(" ×%d", m.PerUnit())
		}
		places = append(places, text)
	}
	return fmt.Sprintf("%s: %d units in %s", g.Name, g.Size, strings.Join(places, ", "))
}

// width is the smallest number of indices that a unit has in any place, and so the step in which widths change.
func (g *Group) width() int {
	least := g.Members[0].PerUnit()
	for _, m := range g.Members {
		least = min(least, m.PerUnit())
	}
	return least
}

// groups finds the atoms that live in variables, and puts together those that live in the same axes.
func (a *analysis) groups() []*Group {
	type place struct{ variable, axis int }
	places := map[atom]map[place][]int{}
	var order []atom
	for v, path := range a.order {
		for k, ax := range a.variables[path].axes {
			for i, s := range ax.sets {
				for _, x := range a.atoms(s) {
					if places[x] == nil {
						places[x] = map[place][]int{}
						order = append(order, x)
					}
					places[x][place{v, k}] = append(places[x][place{v, k}], i)
				}
			}
		}
	}
	byKey := map[string]*Group{}
	var groups []*Group
	for _, x := range order {
		at := make([]place, 0, len(places[x]))
		for p := range places[x] {
			at = append(at, p)
		}
		slices.SortFunc(at, func(p, q place) int { return cmp.Or(cmp.Compare(p.variable, q.variable), cmp.Compare(p.axis, q.axis)) })
		var key strings.Builder
		for _, p := range at {
			fmt.Fprint(&key, p.variable, ":", p.axis, "x", len(places[x][p]), " ")
		}
		g := byKey[key.String()]
		if g == nil {
			g = &Group{}
			for _, p := range at {
				g.Members = append(g.Members, Member{Path: a.order[p.variable], Axis: p.axis})
			}
			byKey[key.String()] = g
			groups = append(groups, g)
		}
		for i, p := range at {
			g.Members[i].Indices = append(g.Members[i].Indices, places[x][p])
		}
		g.atoms = append(g.atoms, x)
		g.Size++
	}
	a.roles(groups)
	names := map[string]int{}
	for _, g := range groups {
		first := 0
		for i := len(g.Members) - 1; i >= 0; i-- {
			if g.Members[i].Role == Makes {
				first = i
			}
		}
		g.Name = g.Members[first].Place()
		if names[g.Name]++; names[g.Name] > 1 {
			g.Name = fmt.Sprintf("%s#%d", g.Name, names[g.Name])
		}
	}
	return groups
}

// roles finds out what the network does along each of the groups' axes.
func (a *analysis) roles(groups []*Group) {
	for _, g := range groups {
		of := a.usesOf(g)
		for i := range g.Members {
			m := &g.Members[i]
			var fits []use
			for _, u := range of {
				if u.variable == m.Path && u.kind != joins {
					fits = append(fits, u)
				}
			}
			slices.SortStableFunc(fits, func(a, b use) int { return cmp.Compare(a.kind, b.kind) })
			// A kernel that both makes and reads the group has two axes for it: the use that looks like this axis says which it is.
			for _, exact := range []bool{true, false} {
				for _, u := range fits {
					if m.Role == Follows && (!exact || a.same(u.axis, a.variables[m.Path].axes[m.Axis])) {
						m.Role = [...]Role{makes: Makes, reads: Reads, scales: Scales}[u.kind]
					}
				}
			}
		}
		// Where both axes look the same, as in a square kernel of a recurrent network, the first one reads.
		for i := range g.Members {
			for j := range i {
				p, q := &g.Members[j], &g.Members[i]
				if p.Path == q.Path && p.Role == q.Role && p.Role != Follows && a.has(of, p.Path, makes) && a.has(of, p.Path, reads) {
					p.Role, q.Role = Reads, Makes
				}
			}
		}
	}
}

func (a *analysis) has(uses []use, path string, kind useKind) bool {
	return slices.ContainsFunc(uses, func(u use) bool { return u.variable == path && u.kind == kind })
}

// usesOf returns what the network does along a group.
func (a *analysis) usesOf(g *Group) []use {
	var found []use
	for _, u := range a.uses {
		if slices.ContainsFunc(u.axis.sets, func(s set) bool { return slices.Contains(a.atoms(s), g.atoms[0]) }) {
			found = append(found, u)
		}
	}
	return found
}

// same tells whether two axes have the same labels.
func (a *analysis) same(p, q axis) bool {
	return p.n == q.n && slices.EqualFunc(p.sets, q.sets, func(s, t set) bool { return a.now(s) == a.now(t) })
}

// digest identifies what a plan depends on: the variables, their shapes, and what goes together.
func digest(a *analysis, groups []*Group) string {
	h := sha256.New()
	for _, path := range slices.Sorted(slices.Values(a.order)) {
		fmt.Fprintln(h, path, a.shapes[path])
	}
	for _, g := range groups {
		fmt.Fprintln(h, g.Name)
		for _, m := range g.Members {
			fmt.Fprintln(h, m.Path, m.Axis, m.Indices)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

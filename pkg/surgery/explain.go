package surgery

import (
	"fmt"
	"slices"
	"strings"
)

// Explain says in a sentence or two what a group's units are, and why all of their places belong together.
func (n *Network) Explain(g *Group) string {
	by := map[Role][]string{}
	for _, m := range g.Members {
		if text := m.Place(); !slices.Contains(by[m.Role], text) {
			by[m.Role] = append(by[m.Role], text)
		}
	}
	var parts []string
	add := func(role Role, verb string) {
		if len(by[role]) > 0 {
			parts = append(parts, list(by[role])+" "+verb)
		}
	}
	what := "channels"
	if g.width() > 1 {
		what = fmt.Sprintf("sets of %d channels", g.width())
	}
	plural := func(role Role, one, many string) string {
		if len(by[role]) == 1 {
			return one
		}
		return many
	}
	add(Makes, plural(Makes, "makes", "make")+" them")
	add(Scales, plural(Scales, "scales", "scale")+" each of them")
	add(Reads, plural(Reads, "reads", "read")+" them")
	if extra := by[Follows]; len(extra) > 0 {
		parts = append(parts, fmt.Sprintf("%s %s a value for each", list(extra), plural(Follows, "has", "have")))
	}
	text := fmt.Sprintf("These are %d %s: %s.", g.Size, what, strings.Join(parts, "; "))
	if joins := n.joins(g); joins != "" && len(by[Makes]) > 1 {
		text += fmt.Sprintf(" Those of different kernels go together one by one because of %s.", joins)
	}
	if shared := n.shared(g); len(shared) > 0 {
		text += fmt.Sprintf(" They lie across those of %s: an index goes when its unit in either does.", list(shared))
	}
	return text
}

// joins describes the operations that join the channels of several kernels of a group.
func (n *Network) joins(g *Group) string {
	count := map[string]int{}
	var types []string
	for _, u := range n.analysis.usesOf(g) {
		if u.kind == joins && u.phase == 0 {
			if count[u.op.Type] == 0 {
				types = append(types, u.op.Type)
			}
			count[u.op.Type]++
		}
	}
	for i, t := range types {
		types[i] = fmt.Sprintf("%s (%d×)", t, count[t])
	}
	return list(types)
}

// shared returns the names of the groups whose units have indices in common with units of this one.
func (n *Network) shared(g *Group) []string {
	var names []string
	for _, m := range g.Members {
		for _, s := range n.analysis.variables[m.Path].axes[m.Axis].sets {
			for _, x := range n.analysis.atoms(s) {
				if slices.Contains(g.atoms, x) {
					continue
				}
				// Only atoms beside one of this group in one set are across it.
				if !slices.ContainsFunc(n.analysis.atoms(s), func(y atom) bool { return slices.Contains(g.atoms, y) }) {
					continue
				}
				if name := n.groupOf(x); name != "" && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

func (n *Network) groupOf(x atom) string {
	for _, g := range n.groups {
		if slices.Contains(g.atoms, x) {
			return g.Name
		}
	}
	return ""
}

// list joins words: "a", "a and b", "a, b and c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/figure"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// picture draws the network's convolutions and dense layers, with the groups of channels that go together and how many of each go.
func (j *job) picture(n *surgery.Network, plan *surgery.Plan) (figure.Network, error) {
	t, err := trace.Record(j.backend, j.large.Store, j.large.ModelFn, trace.Config{}, j.inputs...)
	if err != nil {
		return figure.Network{}, err
	}
	f := figure.Network{Title: "What goes together, and how much of it goes"}
	makes := map[string]string{} // the group of the outputs of a kernel, by its path
	for _, g := range n.Groups() {
		f.Groups = append(f.Groups, figure.Group{Name: title(g.Name), Channels: g.Size, Removed: len(plan.Removed[g.Name]), Text: fmt.Sprintf("%d places", len(g.Members))})
		for _, m := range g.Members {
			if m.Role == surgery.Makes {
				makes[m.Path] = title(g.Name)
			}
		}
	}
	d := &drawing{f: &f, from: map[*trace.Value][]string{}, groups: map[string][]string{}, used: map[string]bool{}, makes: makes}
	for i, in := range t.Inputs {
		name := d.node(j.large.Inputs[i].Name, "input", nil)
		d.from[trace.Of(in)[0]] = []string{name}
	}
	for _, op := range t.Ops {
		d.operation(op)
	}
	for i, out := range t.Outputs {
		name := d.node(j.large.Outputs[i].Name, "output", nil)
		d.edges(d.from[trace.Of(out)[0]], name)
	}
	return f, nil
}

// title is a path without what all of an imported model's have in common.
func title(path string) string { return strings.TrimPrefix(path, "/ONNX/") }

// drawing collects nodes and edges.
type drawing struct {
	f      *figure.Network
	from   map[*trace.Value][]string // the nodes that a value comes from
	groups map[string][]string       // of nodes
	used   map[string]bool
	makes  map[string]string
}

// node adds one by a name of its own.
func (d *drawing) node(want, text string, groups []string) string {
	name := want
	for i := 2; d.used[name]; i++ {
		name = fmt.Sprintf("%s (%d)", want, i)
	}
	d.used[name] = true
	d.groups[name] = groups
	d.f.Nodes = append(d.f.Nodes, figure.Node{Name: name, Text: text, Groups: groups})
	return name
}

func (d *drawing) edges(from []string, to string) {
	for _, name := range from {
		d.f.Edges = append(d.f.Edges, figure.Edge{From: name, To: to})
	}
}

// operation adds a node for a product with weights, and for what joins several; others pass on where their operands come from.
func (d *drawing) operation(op *trace.Op) {
	var sources []string
	joins := 0 // operands that come from somewhere
	for _, in := range op.Inputs {
		if len(d.from[in]) > 0 {
			joins++
		}
		for _, name := range d.from[in] {
			if !slices.Contains(sources, name) {
				sources = append(sources, name)
			}
		}
	}
	if len(sources) == 0 {
		return
	}
	name := ""
	switch {
	case op.Type == "ConvGeneral" || op.Type == "DotGeneral":
		if path := weights(op); path != "" {
			var groups []string
			if g := d.makes[path]; g != "" {
				groups = []string{g}
			}
			shape := op.Inputs[1].Shape.Dimensions
			name = d.node(strings.TrimSuffix(title(path), ".weight"), strings.Trim(strings.ReplaceAll(fmt.Sprint(shape), " ", "×"), "[]"), groups)
		}
	case joins > 1 && len(sources) > 1 && (op.Type == "Add" || op.Type == "Mul" || op.Type == "Concatenate"):
		var groups []string
		for _, s := range sources {
			for _, g := range d.groups[s] {
				if !slices.Contains(groups, g) && (op.Type == "Concatenate" || len(groups) == 0) {
					groups = append(groups, g)
				}
			}
		}
		name = d.node(map[string]string{"Add": "+", "Mul": "×", "Concatenate": "join"}[op.Type], "", groups)
	}
	if name != "" {
		d.edges(sources, name)
		sources = []string{name}
	}
	for _, out := range op.Outputs {
		d.from[out] = sources
	}
}

// weights is the path of the variable that an operation multiplies with; "" if there is none.
func weights(op *trace.Op) string {
	for _, in := range []*trace.Value{op.Inputs[1], op.Inputs[0]} {
		for in.Variable() == "" && len(in.Op.Inputs) == 1 {
			in = in.Op.Inputs[0]
		}
		if path := in.Variable(); path != "" {
			return path
		}
	}
	return ""
}

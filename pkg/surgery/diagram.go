package surgery

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Diagram is the network as it infers, as a graph of what makes channels or joins them: products with kernels, products and other operations of two values that come from
// different places, concatenations. What lies between, such as normalisations, activations and pooling, is left out. p, which may be nil, says how many units of each group go.
func (n *Network) Diagram(p *Plan) report.Diagram {
	d := &diagram{network: n, used: map[string]int{}, from: map[*trace.Value][]string{}, names: shortNames(n.groups)}
	for _, op := range n.inference.Ops {
		d.op(op)
	}
	var last []string
	for _, out := range n.inference.Outputs {
		for _, from := range d.from[trace.Of(out)[0]] {
			if !slices.Contains(last, from) {
				last = append(last, from)
			}
		}
	}
	d.node("result", "", nil, last)
	for _, g := range n.groups {
		removed := 0
		if p != nil {
			removed = len(p.Removed[g.Name])
		}
		d.Groups = append(d.Groups, report.ChannelGroup{Name: d.names[g], Channels: g.Size, Removed: removed, Text: places(g)})
	}
	return d.Diagram
}

// shortNames names groups by the layer that makes their channels, where that makes those of one group alone.
func shortNames(groups []*Group) map[*Group]string {
	layer := func(g *Group) string { return short(strings.Split(g.Name, ":")[0]) }
	count, names := map[string]int{}, map[*Group]string{}
	for _, g := range groups {
		count[layer(g)]++
	}
	for _, g := range groups {
		if names[g] = layer(g); count[names[g]] > 1 {
			names[g] = g.Name
		}
	}
	return names
}

// places says by which layers a group's channels are made and read.
func places(g *Group) string {
	of := func(role Role) string {
		var layers []string
		for _, m := range g.Members {
			if name := short(m.Path); m.Role == role && !slices.Contains(layers, name) {
				layers = append(layers, name)
			}
		}
		const most = 4
		if more := len(layers) - most; more > 1 {
			return fmt.Sprintf("%s and %d more", strings.Join(layers[:most], ", "), more)
		}
		return strings.Join(layers, ", ")
	}
	var parts []string
	if makers := of(Makes); makers != "" {
		parts = append(parts, "made by "+makers)
	}
	if readers := of(Reads); readers != "" {
		parts = append(parts, "read by "+readers)
	}
	return strings.Join(parts, "; ")
}

// diagram is one that is being drawn.
type diagram struct {
	report.Diagram
	network *Network
	used    map[string]int
	names   map[*Group]string
	from    map[*trace.Value][]string // of each value that depends on data: the nodes that it comes from
}

// node adds one, with its edges, and returns its name.
func (d *diagram) node(name, text string, groups, from []string) string {
	if d.used[name]++; d.used[name] > 1 {
		name = fmt.Sprintf("%s %d", name, d.used[name])
	}
	d.Nodes = append(d.Nodes, report.Node{Name: name, Text: text, Groups: groups})
	for _, f := range from {
		d.Edges = append(d.Edges, report.Edge{From: f, To: name})
	}
	return name
}

func (d *diagram) op(op *trace.Op) {
	a, out := d.network.analysis, op.Outputs[0]
	var from []string
	differ, data := false, 0
	for _, in := range op.Inputs {
		if x := a.of(in); x == nil || !x.data {
			continue
		}
		data++
		differ = differ || data > 1 && !slices.Equal(from, d.from[in]) && !within(d.from[in], from) && !within(from, d.from[in])
		for _, f := range d.from[in] {
			if !slices.Contains(from, f) {
				from = append(from, f)
			}
		}
	}
	name, text := "", ""
	switch kernel := d.kernel(op); {
	case op.Type == "Parameter" && a.of(out) != nil && a.of(out).data:
		name, text = "input", dims(out.Shape.Dimensions[min(1, out.Shape.Rank()):])
	case data == 0:
		return
	case kernel != "":
		name, text = short(kernel), d.kernelText(op)
	case op.Type == "DotGeneral" || op.Type == "ConvGeneral":
		name = "product"
	case differ && op.Type == "Concatenate":
		name = "concat"
	case differ:
		name = map[string]string{"Add": "+", "Mul": "×", "Sub": "−", "Div": "÷"}[op.Type]
		if name == "" {
			name = strings.ToLower(op.Type)
		}
	}
	if name != "" {
		from = []string{d.node(name, text, d.groups(out), from)}
	}
	for _, v := range op.Outputs {
		d.from[v] = from
	}
}

// within tells whether all of one are among the others.
func within(some, all []string) bool {
	return len(some) > 0 && !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// kernel returns the path of the variable that a product multiplies data by; "" if there is none.
func (d *diagram) kernel(op *trace.Op) string {
	if op.Type != "DotGeneral" && op.Type != "ConvGeneral" {
		return ""
	}
	for _, in := range op.Inputs[:2] {
		if x := d.network.analysis.of(in); x != nil && !x.data {
			return x.variable
		}
	}
	return ""
}

func (d *diagram) kernelText(op *trace.Op) string {
	if op.Type == "DotGeneral" {
		return fmt.Sprint(op.Outputs[0].Shape.Dim(-1))
	}
	at, kernel := op.Attributes.ConvolveAxes("axes"), op.Inputs[1].Shape
	var spatial []int
	for _, k := range at.KernelSpatial {
		spatial = append(spatial, kernel.Dimensions[k])
	}
	text := fmt.Sprintf("%s, %d", dims(spatial), kernel.Dimensions[at.KernelOutputChannels])
	if g := op.Attributes.Int("channelGroupCount"); g > 1 {
		text += fmt.Sprintf(", %d groups", g)
	}
	return text
}

// groups returns the names of the groups that a value's indices belong to, in the network's order.
func (d *diagram) groups(v *trace.Value) []string {
	a := d.network.analysis
	has := map[atom]bool{}
	for _, ax := range a.of(v).axes {
		for _, s := range ax.sets {
			for _, x := range a.atoms(s) {
				has[x] = true
			}
		}
	}
	var names []string
	for _, g := range d.network.groups {
		if slices.ContainsFunc(g.atoms, func(x atom) bool { return has[x] }) {
			names = append(names, d.names[g])
		}
	}
	return names
}

// short is a variable's layer, without what GoMLX's layers and importers add to its path: "conv1" of "/conv1/conv/weights", and of "/ONNX/layer1.0.conv1.weight"
// "layer1.0.conv1". An importer writes slashes in names as bars.
func short(path string) string {
	name := path
	if imported, found := strings.CutPrefix(path, "/ONNX/"); found {
		name = strings.ReplaceAll(imported, "|", model.ScopeSeparator)
	}
	for _, end := range []string{"/weights", ".weight", "/dense", "/conv"} {
		if s := strings.TrimSuffix(name, end); s != "" {
			name = s
		}
	}
	return strings.TrimPrefix(name, model.ScopeSeparator)
}

func dims(d []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(d), " ", "×"), "[]") }

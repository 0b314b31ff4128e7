package figure

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// What a Network is made of; pkg/surgery makes a report.Diagram of them.
type (
	Node  = report.Node
	Edge  = report.Edge
	Group = report.ChannelGroup
)

// Network draws a network from left to right, and in further rows where it is long: nodes, the edges between them, and by colour and pattern which channels
// are coupled. Edges have the colour of what flows along them, so that a residual stream shows as one line.
type Network struct {
	Title, Caption string
	Nodes          []Node
	Edges          []Edge
	Groups         []Group // in the order of the legend

	Width, Height int // px; 0: 840 or less, and a height that suits
}

// MIMEBundle returns the figure as PNG, SVG and text.
func (n Network) MIMEBundle() (map[string]any, error) { return bundle(n) }

// MIMEMetadata says at which size the PNG is to be shown.
func (n Network) MIMEMetadata() map[string]any { return metadata(n) }

func (n Network) kind() string { return "network" }

func (n Network) frame() frame { return frame{n.Title, n.Caption, n.Width, n.Height} }

// maxNodes keeps a figure to what can be looked at.
const maxNodes = 600

func (n Network) check() error {
	wrong := func(part, format string, args ...any) error {
		return &InputError{Figure: n.kind(), Series: part, Problem: fmt.Sprintf(format, args...)}
	}
	if k := len(n.Nodes); k == 0 || k > maxNodes {
		return wrong("", "it has %d nodes; expected 1 to %d", k, maxNodes)
	}
	if k := len(n.Edges); k > 10*maxNodes {
		return wrong("", "it has %d edges; expected at most %d", k, 10*maxNodes)
	}
	groups := map[string]bool{}
	for i, g := range n.Groups {
		switch name := fmt.Sprintf("group %d (%q)", i, g.Name); {
		case g.Name == "":
			return wrong(name, "it has no name; expected one")
		case groups[g.Name]:
			return wrong(name, "another group has the same name; expected different ones")
		case g.Channels < 0 || g.Removed < 0 || g.Removed > g.Channels:
			return wrong(name, "it has %d channels of which %d are removed; expected 0 or more, and no more removed than there are", g.Channels, g.Removed)
		}
		groups[g.Name] = true
	}
	nodes := map[string]bool{}
	for i, node := range n.Nodes {
		name := fmt.Sprintf("node %d (%q)", i, node.Name)
		if node.Name == "" {
			return wrong(name, "it has no name; expected one, which edges refer to")
		}
		if nodes[node.Name] {
			return wrong(name, "another node has the same name; expected different ones")
		}
		nodes[node.Name] = true
		for _, g := range node.Groups {
			if !groups[g] {
				return wrong(name, "it belongs to the group %q, which Groups does not have", g)
			}
		}
	}
	for i, e := range n.Edges {
		for _, end := range []string{e.From, e.To} {
			if !nodes[end] {
				return wrong(fmt.Sprintf("edge %d", i), "it goes from %q to %q, and there is no node %q", e.From, e.To, end)
			}
		}
	}
	if _, circle := n.order(); circle != "" {
		return wrong(fmt.Sprintf("node %q", circle), "it depends on itself; expected a network without circles")
	}
	return nil
}

// order returns the nodes so that each comes after what it depends on, or the name of one that depends on itself.
func (n Network) order() (order []int, circle string) {
	index := n.index()
	waits, next := make([]int, len(n.Nodes)), make([][]int, len(n.Nodes))
	for _, e := range n.Edges {
		from, to := index[e.From], index[e.To]
		next[from] = append(next[from], to)
		waits[to]++
	}
	done := make([]bool, len(n.Nodes))
	for len(order) < len(n.Nodes) {
		before := len(order)
		for i := range n.Nodes {
			if !done[i] && waits[i] == 0 {
				done[i] = true
				order = append(order, i)
				for _, to := range next[i] {
					waits[to]--
				}
			}
		}
		if len(order) == before {
			for i := range n.Nodes {
				if !done[i] {
					return nil, n.Nodes[i].Name
				}
			}
		}
	}
	return order, ""
}

func (n Network) index() map[string]int {
	index := make(map[string]int, len(n.Nodes))
	for i, node := range n.Nodes {
		index[node.Name] = i
	}
	return index
}

// spot is what stands in one place of the layout: a node, or an edge that passes by.
type spot struct {
	node int // the node, or whose output passes by
	pass bool
	lane int
}

// networkLayout has a column for each distance from the input, the spots of each from top to bottom, and the rows that the columns are broken into.
type networkLayout struct {
	columns [][]spot
	links   [][]link // from the spots of each column to those of the next
	rows    []int    // the first column of each row
	nodeW   float64
	nodeH   float64
}

// link goes from a spot of a column to one of the next.
type link struct{ from, to int }

const (
	columnGap  = 20
	lineMargin = 22 // beside the rows, for lines that go on in another
	laneGap    = 14
	passHeight = 12 // of a lane that only edges pass along
	rowGap     = 26
	nodeText   = 11 // font size
	widestNode = 118
)

func (n Network) layout(width float64) networkLayout {
	var l networkLayout
	l.nodeH = 32
	for _, node := range n.Nodes {
		l.nodeW = math.Max(l.nodeW, math.Max(textWidth(node.Name, nodeText, true), textWidth(node.Text, nodeText-1, false))+10)
		if node.Text != "" {
			l.nodeH = 44
		}
	}
	l.nodeW = math.Ceil(math.Min(math.Max(l.nodeW, 46), math.Min(widestNode, width-2*lineMargin)))
	column := n.columnOf()
	l.place(n, column)
	perRow := max(1, int((width-2*lineMargin+columnGap)/(l.nodeW+columnGap)))
	l.breakRows(perRow)
	return l
}

// columnOf is each node's distance from the input, along the longest way. What has no input itself, as a constant, stands just before its first user.
func (n Network) columnOf() []int {
	index := n.index()
	order, _ := n.order()
	column, hasInput := make([]int, len(n.Nodes)), make([]bool, len(n.Nodes))
	inputs := make([][]int, len(n.Nodes))
	for _, e := range n.Edges {
		inputs[index[e.To]] = append(inputs[index[e.To]], index[e.From])
	}
	for _, i := range order {
		for _, from := range inputs[i] {
			hasInput[i] = true
			column[i] = max(column[i], column[from]+1)
		}
	}
	for i := range n.Nodes {
		if hasInput[i] {
			continue
		}
		first := math.MaxInt
		for _, e := range n.Edges {
			if index[e.From] == i {
				first = min(first, column[index[e.To]])
			}
		}
		if first != math.MaxInt {
			column[i] = first - 1
		}
	}
	return column
}

// place fills the columns and puts their spots in order.
func (l *networkLayout) place(n Network, column []int) {
	index := n.index()
	l.columns = make([][]spot, slices.Max(column)+1)
	at := make([]map[[2]int]int, len(l.columns)) // of {node, 1 if it passes by}
	for c := range at {
		at[c] = map[[2]int]int{}
	}
	put := func(c, node, pass int) int {
		if i, ok := at[c][[2]int{node, pass}]; ok {
			return i
		}
		l.columns[c] = append(l.columns[c], spot{node: node, pass: pass == 1})
		at[c][[2]int{node, pass}] = len(l.columns[c]) - 1
		return len(l.columns[c]) - 1
	}
	order, _ := n.order()
	for _, i := range order {
		put(column[i], i, 0)
	}
	l.links = make([][]link, len(l.columns))
	for _, e := range n.Edges {
		from, to := index[e.From], index[e.To]
		here := put(column[from], from, 0)
		for c := column[from] + 1; c <= column[to]; c++ {
			there := 0
			if c == column[to] {
				there = put(c, to, 0)
			} else {
				there = put(c, from, 1)
			}
			if step := (link{here, there}); !slices.Contains(l.links[c-1], step) {
				l.links[c-1] = append(l.links[c-1], step)
			}
			here = there
		}
	}
	// Each column's spots in the order of what they come from: the mean place of it, nodes before what passes by.
	for c := 1; c < len(l.columns); c++ {
		mean := make([]float64, len(l.columns[c]))
		count := make([]float64, len(l.columns[c]))
		for _, k := range l.links[c-1] {
			mean[k.to] += float64(k.from)
			count[k.to]++
		}
		rank := make([]int, len(mean))
		for i := range rank {
			rank[i] = i
			mean[i] /= math.Max(1, count[i])
		}
		slices.SortStableFunc(rank, func(a, b int) int {
			pass := func(i int) int {
				if l.columns[c][i].pass {
					return 1
				}
				return 0
			}
			return cmp.Or(cmp.Compare(mean[a], mean[b]), cmp.Compare(pass(a), pass(b)))
		})
		l.reorder(c, rank)
	}
	// Lanes: as high as possible, but what passes by goes straight on in the lowest that it needs. Moving it down can move others, hence again.
	lowest := map[int]int{}
	for range 4 {
		for c := range l.columns {
			lane := -1
			for i, s := range l.columns[c] {
				lane++
				if s.pass {
					lane = max(lane, lowest[s.node])
					lowest[s.node] = lane
				}
				l.columns[c][i].lane = lane
			}
		}
	}
}

// reorder puts the spots of a column in a new order: rank[i] is which comes i-th.
func (l *networkLayout) reorder(c int, rank []int) {
	spots, place := make([]spot, len(rank)), make([]int, len(rank))
	for i, old := range rank {
		spots[i], place[old] = l.columns[c][old], i
	}
	l.columns[c] = spots
	for i, k := range l.links[c-1] {
		l.links[c-1][i].to = place[k.to]
	}
	for i, k := range l.links[c] {
		l.links[c][i].from = place[k.from]
	}
}

// crossing lists the nodes whose output goes from column c to the next.
func (l *networkLayout) crossing(c int) []int {
	var nodes []int
	for _, k := range l.links[c] {
		if node := l.columns[c][k.from].node; !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// breakRows chooses where a row ends: where few lines would have to go on in the next, and so that rows are about as long.
func (l *networkLayout) breakRows(perRow int) {
	columns := len(l.columns)
	cost, from := make([]float64, columns+1), make([]int, columns+1) // of the first columns broken into rows
	for end := 1; end <= columns; end++ {
		cost[end] = math.Inf(1)
		for start := max(0, end-perRow); start < end; start++ {
			free := float64(perRow-(end-start)) / float64(perRow)
			c := cost[start] + 1.2 + 0.5*free*free
			if end < columns {
				c += math.Max(0, float64(len(l.crossing(end-1))-1))
			}
			if c < cost[end] {
				cost[end], from[end] = c, start
			}
		}
	}
	l.rows = nil
	for end := columns; end > 0; end = from[end] {
		l.rows = append(l.rows, from[end])
	}
	slices.Reverse(l.rows)
}

// row returns the columns of a row.
func (l *networkLayout) row(r int) (first, end int) {
	if r+1 < len(l.rows) {
		return l.rows[r], l.rows[r+1]
	}
	return l.rows[r], len(l.columns)
}

// lanes returns where the middle of each lane of a row is, from the row's top, and the row's height. Lanes without nodes are low, and those without
// anything take no room.
func (l *networkLayout) lanes(r int) (middles []float64, height float64) {
	first, end := l.row(r)
	var kinds []int // 0: nothing, 1: something passes, 2: a node
	for _, spots := range l.columns[first:end] {
		for _, s := range spots {
			for len(kinds) <= s.lane {
				kinds = append(kinds, 0)
			}
			kind := 2
			if s.pass {
				kind = 1
			}
			kinds[s.lane] = max(kinds[s.lane], kind)
		}
	}
	y := 0.0
	for _, kind := range kinds {
		h := []float64{0, passHeight, l.nodeH}[kind]
		middles = append(middles, y+h/2)
		if kind > 0 {
			y += h + laneGap
		}
	}
	return middles, y - laneGap
}

func (n Network) naturalWidth() float64 {
	const widest = 840 // what fits the column of a notebook
	l := n.layout(widest - 2*margin)
	longest := 0
	for r := range l.rows {
		first, end := l.row(r)
		longest = max(longest, end-first)
	}
	w := float64(longest)*(l.nodeW+columnGap) - columnGap + 2*lineMargin + 2*margin
	return math.Ceil(math.Min(widest, math.Max(w, 400)))
}

func (n Network) bodyHeight(width float64) float64 {
	l := n.layout(width)
	h := n.top(width) - rowGap
	for r := range l.rows {
		_, rowHeight := l.lanes(r)
		h += rowHeight + rowGap
	}
	return math.Max(60, h)
}

// top is the height of what stands above the rows.
func (n Network) top(width float64) float64 {
	if h := legendHeight(n.legend(&light), width); h > 0 {
		return h + gap
	}
	return 0
}

func (n Network) legend(l *look) []legendItem {
	var items []legendItem
	for i, g := range n.Groups {
		items = append(items, legendItem{name: summary(g), color: l.series(i), hatch: i % hatches})
	}
	return items
}

func summary(g Group) string {
	s := g.Name
	if g.Channels > 0 {
		s += fmt.Sprintf(": %d channels", g.Channels)
	}
	if g.Removed > 0 {
		s += fmt.Sprintf(", %d removed", g.Removed)
	}
	return s
}

// groupsOf are the places of a node's groups in Groups.
func (n Network) groupsOf(node int) []int {
	var places []int
	for _, name := range n.Nodes[node].Groups {
		places = append(places, slices.IndexFunc(n.Groups, func(g Group) bool { return g.Name == name }))
	}
	return places
}

func (n Network) drawBody(p painter, body rect) {
	p.legend(n.legend(p.look), body)
	y := body.y + n.top(body.w)
	l := n.layout(body.w)
	edge := body.x + body.w
	letters := map[[2]int]string{} // of {row, node}: what a line that goes on in that row is called
	used := 0
	for r := range l.rows {
		first, end := l.row(r)
		middles, height := l.lanes(r)
		box := func(c, i int) rect {
			s := l.columns[c][i]
			return rect{body.x + lineMargin + float64(c-first)*(l.nodeW+columnGap), y + middles[s.lane] - l.nodeH/2, l.nodeW, l.nodeH}
		}
		// Lines first, then nodes over them.
		for c := first; c < end; c++ {
			for i, s := range l.columns[c] {
				if s.pass {
					b := box(c, i)
					mid := b.y + b.h/2
					n.line(p, s.node, point{b.x, mid}, point{b.x + b.w, mid})
				}
			}
			if c+1 < end {
				for _, k := range l.links[c] {
					n.link(p, l.columns[c][k.from].node, box(c, k.from), box(c+1, k.to), !l.columns[c+1][k.to].pass)
				}
				continue
			}
			if c+1 == len(l.columns) {
				continue
			}
			// What goes on in the next row leaves here, once for each node.
			nodes := l.crossing(c)
			for _, k := range l.links[c] {
				node := l.columns[c][k.from].node
				key := [2]int{r + 1, node}
				if _, drawn := letters[key]; drawn {
					continue
				}
				letters[key] = ""
				if len(nodes) > 1 {
					letters[key] = string(rune('a' + used%26))
					used++
				}
				b := box(c, k.from)
				from, to := point{b.x + b.w, b.y + b.h/2}, point{math.Min(edge-9, b.x+b.w+lineMargin-9), b.y + b.h/2}
				n.line(p, node, from, to)
				p.arrow(n.stream(p, node), to)
				p.text(to.x-2, to.y-6, letters[key], style{size: nodeText, bold: true, align: right})
			}
		}
		if r > 0 {
			// What comes from the row before: one stub for each node, which parts where it has several targets.
			seen := map[int]point{}
			for _, k := range l.links[first-1] {
				node := l.columns[first-1][k.from].node
				b := box(first, k.to)
				target := point{b.x, b.y + b.h/2}
				start, known := seen[node]
				if !known {
					start = point{body.x + 2, target.y}
					seen[node] = start
					p.text(start.x, start.y-6, letters[[2]int{r, node}], style{size: nodeText, bold: true})
				}
				n.curve(p, node, start, target)
				if !l.columns[first][k.to].pass {
					p.arrow(n.stream(p, node), target)
				}
			}
		}
		for c := first; c < end; c++ {
			for i, s := range l.columns[c] {
				if !s.pass {
					n.drawNode(p, s.node, box(c, i))
				}
			}
		}
		y += height + rowGap
	}
}

// stream is the colour of what flows out of a node: its group's, or grey.
func (n Network) stream(p painter, node int) color.RGBA {
	if groups := n.groupsOf(node); len(groups) == 1 {
		return p.series(groups[0])
	}
	return p.middle
}

func (n Network) line(p painter, node int, points ...point) {
	width := 1.4
	if len(n.Nodes[node].Groups) == 1 {
		width = 2.4
	}
	p.stroke(n.stream(p, node), width, nil, points...)
}

// link draws a line between two spots of neighbouring columns.
func (n Network) link(p painter, node int, from, to rect, head bool) {
	a, b := point{from.x + from.w, from.y + from.h/2}, point{to.x, to.y + to.h/2}
	n.curve(p, node, a, b)
	if head {
		p.arrow(n.stream(p, node), b)
	}
}

// curve draws a line that leaves and arrives level.
func (n Network) curve(p painter, node int, a, b point) {
	const pieces = 16
	var points []point
	for i := range pieces + 1 {
		t := float64(i) / pieces
		smooth := t * t * (3 - 2*t)
		points = append(points, point{a.x + (b.x-a.x)*t, a.y + (b.y-a.y)*smooth})
	}
	if a.y == b.y {
		points = []point{a, b}
	}
	n.line(p, node, points...)
}

// arrow draws a head that points right, with its tip there.
func (p painter) arrow(c color.RGBA, tip point) {
	p.fill(c, tip, point{tip.x - 7, tip.y - 4}, point{tip.x - 7, tip.y + 4})
}

func (n Network) drawNode(p painter, node int, r rect) {
	groups := n.groupsOf(node)
	ground, edge := mix(p.card, p.middle, 0.12), p.middle
	if len(groups) == 1 {
		edge = p.series(groups[0])
		ground = mix(p.card, edge, 0.16)
	}
	p.fill(ground, r.corners()...)
	// The groups as a band at the bottom, where no text lies over the pattern.
	const band = 9
	for i, g := range groups {
		w := r.w / float64(len(groups))
		p.patch(p.series(g), g%hatches, rect{r.x + float64(i)*w, r.y + r.h - band, w, band})
	}
	p.outline(edge, r)
	at := n.Nodes[node]
	lineHeight := 14.0
	free := r.h
	if len(groups) > 0 {
		free -= band
	}
	lines := 1.0
	if at.Text != "" {
		lines = 2
	}
	y := r.y + (free-lines*lineHeight)/2 + nodeText
	p.text(r.x+r.w/2, y, shorten(at.Name, r.w-6, nodeText, true), style{size: nodeText, bold: true, align: center})
	if at.Text != "" {
		p.text(r.x+r.w/2, y+lineHeight, shorten(at.Text, r.w-6, nodeText-1, false), style{size: nodeText - 1, color: p.muted, align: center})
	}
}

func (n Network) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes, %d edges, %d groups\n", len(n.Nodes), len(n.Edges), len(n.Groups))
	inputs := map[string][]string{}
	for _, e := range n.Edges {
		inputs[e.To] = append(inputs[e.To], e.From)
	}
	t := tableOf(report.Column{Name: "node"}, report.Column{Name: ""}, report.Column{Name: "from"}, report.Column{Name: "groups"})
	order, _ := n.order()
	const most = 200
	for _, i := range order[:min(most, len(order))] {
		node := n.Nodes[i]
		t.Rows = append(t.Rows, []any{node.Name, node.Text, strings.Join(inputs[node.Name], ", "), strings.Join(node.Groups, ", ")})
	}
	b.WriteString(tableText(t, len(order)))
	if len(n.Groups) == 0 {
		return b.String()
	}
	g := tableOf(report.Column{Name: "group"}, report.Column{Name: "channels"}, report.Column{Name: "removed"}, report.Column{Name: "nodes"})
	for _, group := range n.Groups {
		var members []string
		for _, i := range order {
			if slices.Contains(n.Nodes[i].Groups, group.Name) {
				members = append(members, n.Nodes[i].Name)
			}
		}
		g.Rows = append(g.Rows, []any{group.Name, group.Channels, group.Removed, strings.Join(members, ", ")})
	}
	b.WriteString(tableText(g, len(g.Rows)))
	for _, group := range n.Groups {
		if group.Text != "" {
			fmt.Fprintf(&b, "%s: %s\n", group.Name, group.Text)
		}
	}
	return b.String()
}

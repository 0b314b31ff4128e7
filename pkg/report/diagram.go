package report

// Diagram is a network as a graph of layers, for those who draw it.
type Diagram struct {
	Nodes  []Node
	Edges  []Edge
	Groups []ChannelGroup
}

// Node is one layer or operation of a network.
type Node struct {
	Name string // what Edges call it; unique
	Text string // what it does: "3×3, 16"
	// Groups are the names of the groups that the channels of its output belong to: none for what can't be pruned, several after a concatenation.
	Groups []string
}

// Edge says that a node's output is another's input.
type Edge struct{ From, To string }

// ChannelGroup is channels that can only be removed together, wherever they are used.
type ChannelGroup struct {
	Name     string
	Channels int
	Removed  int    // how many of them a plan removes
	Text     string // why they belong together
}

// Package graphprint tells graphs apart by what they compute.
package graphprint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
)

// nodeNumber is how GoMLX writes a reference to another node.
var nodeNumber = regexp.MustCompile(`#\d+`)

// Of is a digest of what a graph computes: its operations with their attributes and small constants, how they are connected, and which
// of them are the results. The order in which they were built is no part of it, because GoMLX's depends on maps.
func Of(g *graph.Graph, results []*graph.Node) string {
	digests := map[*graph.Node]string{}
	var all []string
	for _, n := range g.Nodes() { // the inputs of a node come before it
		h := sha256.New()
		fmt.Fprintln(h, nodeNumber.ReplaceAllString(n.String(), "#"))
		for _, in := range n.Inputs() {
			fmt.Fprintln(h, digests[in])
		}
		digests[n] = hex.EncodeToString(h.Sum(nil))
		all = append(all, digests[n])
	}
	slices.Sort(all) // what no result depends on by its inputs alone: the bodies of loops
	h := sha256.New()
	fmt.Fprintln(h, all)
	for _, r := range results {
		fmt.Fprintln(h, digests[r])
	}
	return hex.EncodeToString(h.Sum(nil))
}

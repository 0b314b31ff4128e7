package magic

import (
	"context"
	"fmt"
	"slices"
)

var themes = []string{"light", "dark"}

// Theme chooses the ground of figures.
var Theme = Magic{
	Name: "theme", Usage: "light|dark", Short: "draws the figures of the cells that follow on a light or a dark ground",
	Complete: func(_ []Magic, _ string, before []string) []string { return first(before, themes) },
	Run: func(ctx context.Context, k Kernel, c Call) error {
		if len(c.Args) != 1 || !slices.Contains(themes, c.Args[0]) {
			return fmt.Errorf("%q is no theme; expected light or dark", c.Text)
		}
		return k.Gonb(ctx, "%env ESPALIER_THEME "+c.Args[0])
	},
}

// first offers a list for the first argument only.
func first(before, list []string) []string {
	if len(before) > 0 {
		return nil
	}
	return list
}

package magic

import (
	"context"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

// Reset forgets variables.
var Reset = Magic{
	Name: "reset", Usage: "[NAME…|go.mod]", Short: "forgets variables and their declarations; without names, all that the notebook has declared",
	Doc:      "`%reset go.mod` only begins GoNB's go.mod anew. To have a value made anew and keep its declaration, use %rerun.",
	Examples: []string{"%reset model history"},
	Complete: variables,
	Run: func(ctx context.Context, k Kernel, c Call) error {
		if len(c.Args) == 1 && c.Args[0] == "go.mod" {
			return k.Gonb(ctx, "%reset go.mod")
		}
		if err := keep.Reset(k.State(), c.Args...); err != nil {
			return err
		}
		if len(c.Args) == 0 {
			return k.Gonb(ctx, "%reset")
		}
		return k.Forget(ctx, c.Args)
	},
}

package magic

import (
	"context"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

// Reset forgets variables and what else was declared.
var Reset = Magic{
	Name: "reset", Usage: "[NAME…|go.mod]", Short: "forgets variables, functions, types (with their methods) and constants; without names, all that the notebook has declared",
	Doc:      "`%reset go.mod` only begins GoNB's go.mod anew. To have a value made anew and keep its declaration, use %rerun.",
	Examples: []string{"%reset model history"},
	Complete: variables,
	Run: func(ctx context.Context, k Kernel, c Call) error {
		if len(c.Args) == 1 && c.Args[0] == "go.mod" {
			return k.Gonb(ctx, "%reset go.mod")
		}
		names, err := keep.WithMethods(k.State(), c.Args)
		if err != nil && len(c.Args) > 0 {
			return err
		}
		if err := keep.Reset(k.State(), c.Args...); err != nil {
			return err
		}
		if len(c.Args) == 0 {
			return k.Gonb(ctx, "%reset")
		}
		return k.Forget(ctx, names)
	},
}

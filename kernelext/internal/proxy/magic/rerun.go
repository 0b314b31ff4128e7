package magic

import (
	"context"
	"errors"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

// Rerun evaluates variables anew.
var Rerun = Magic{
	Name: "rerun", Usage: "NAME…", Short: "evaluates the declarations of variables anew, with the code as it is now",
	Examples: []string{"%rerun features"},
	Complete: variables,
	Run: func(ctx context.Context, k Kernel, c Call) error {
		if len(c.Args) == 0 {
			return errors.New("which variables? `%who` lists them")
		}
		for _, name := range c.Args {
			if err := keep.MarkRerun(k.State(), name); err != nil {
				return err
			}
		}
		return k.Go(ctx, "func main() {}")
	},
}

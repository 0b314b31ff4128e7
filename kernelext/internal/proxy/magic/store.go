package magic

import (
	"context"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/storecmd"
)

// Store looks at the results that are kept.
var Store = Magic{
	Name: "store", Usage: "ls|show|verify|gc|export|import …", Short: "the results that store.Do keeps: look, check, make room, pass on",
	Doc:      "The same as `espalier store`; without arguments it lists them.",
	Examples: []string{"%store ls ladder", "%store gc --max 2GB"},
	Complete: func(_ []Magic, _ string, before []string) []string {
		return first(before, []string{"ls", "show", "verify", "gc", "export", "import"})
	},
	Run: func(ctx context.Context, k Kernel, c Call) error {
		args := c.Args
		if len(args) == 0 {
			args = []string{"ls"}
		}
		var out strings.Builder
		err := storecmd.Run(ctx, args, &out)
		k.Print(out.String())
		return err
	},
}

package magic

import (
	"context"
	"fmt"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

// Restore brings back the variables of the kernel before.
var Restore = Magic{
	Name: "restore", Short: "brings back the variables and declarations that this notebook's last kernel had, in place of the present ones",
	Doc: "A restarted kernel begins empty, so that running the notebook from its top proves that it works. This is for going on without that. What the notebook had meanwhile comes back with another `%restore`.",
	Run: func(ctx context.Context, k Kernel, _ Call) error {
		declarations, err := keep.Restore(k.State())
		if err != nil {
			return err
		}
		if err := k.Go(ctx, declarations); err != nil {
			return err
		}
		list, err := keep.List(k.State())
		if err != nil {
			return err
		}
		k.Print(fmt.Sprintf("%d variables are back; `%%who` lists them\n", len(list)))
		return nil
	},
}

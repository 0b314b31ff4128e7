package magic

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Time measures a cell.
var Time = Magic{
	Name: "time", Short: "says how long the cell took to compile and to run",
	Doc: "Compiling is all up to the start of the program: commands, imports, compiler and linker.",
	Around: func(_ context.Context, k Kernel, c Call, run func() error) error {
		if len(c.Args) > 0 { // IPython measures what stands there
			return errors.New("%time: it measures the whole cell: write the code on the lines below it")
		}
		start := time.Now()
		err := run()
		end := time.Now()
		if built := k.Built(); built.After(start) {
			k.Print(fmt.Sprintf("compiled in %s, ran for %s\n", round(built.Sub(start)), round(end.Sub(built))))
		} else {
			k.Print(fmt.Sprintf("took %s\n", round(end.Sub(start))))
		}
		return err
	},
}

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

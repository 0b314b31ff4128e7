package magic

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// Backend says what computes.
var Backend = Magic{
	Name: "backend", Usage: "[xla:cpu|xla:cuda|go|auto]", Short: "says which GoMLX backend cells compute on and why, or switches to another",
	Doc:      "A switch holds for the cells that follow, until the kernel ends. `auto` has the best one chosen.",
	Examples: []string{"%backend", "%backend go"},
	Complete: func(_ []Magic, _ string, before []string) []string {
		return first(before, []string{"xla:cpu", "xla:cuda", "go", "auto"})
	},
	Run: func(ctx context.Context, k Kernel, c Call) error {
		if len(c.Args) > 1 {
			return errors.New("one backend at most is expected, such as `%backend go`")
		}
		if len(c.Args) == 1 {
			name := c.Args[0]
			if !backendName.MatchString(name) {
				return fmt.Errorf("%q is no name of a backend; expected xla:cpu, xla:cuda, go or auto", name)
			}
			set := name
			if name == "auto" {
				name, set = "", `""`
			}
			// First it is opened: one that is not there should not be what the cells that follow compute on.
			if err := k.Go(ctx, backendCode(fmt.Sprintf("espalierOS.Setenv(%q, %q)", "GOMLX_BACKEND", name))); err != nil {
				return err
			}
			return k.Gonb(ctx, "%env GOMLX_BACKEND "+set)
		}
		return k.Go(ctx, backendCode(""))
	},
}

var backendName = regexp.MustCompile(`^[a-z0-9:_.,=/-]+$`)

// backendCode is a program that says what computes, after it has done something else.
func backendCode(first string) string {
	return `import (
	espalierBackend "github.com/espalier-ml/espalier/pkg/backend"
	espalierFmt "fmt"
	espalierOS "os"
)

func main() {
	` + first + `
	choice, err := espalierBackend.Describe()
	if err != nil {
		espalierFmt.Fprintln(espalierOS.Stderr, err)
		espalierOS.Exit(1)
	}
	espalierFmt.Printf("%s, on the %s: %s\n", choice.Name, choice.Device, choice.Reason)
}`
}

package testrun

import (
	"context"
	"fmt"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

// surviving are cells that are run one after the other in one kernel, each with what it has to print.
var surviving = []struct {
	source, want string
	fails        bool
}{
	{source: "import \"fmt\"\nvar counter = 0"},
	{source: "%%\ncounter++\nfmt.Println(counter)", want: "1\n"},
	{source: "%%\ncounter++\nfmt.Println(counter)", want: "2\n"},
	{source: "func slow() []float32 { fmt.Println(\"evaluated\"); return make([]float32, 1<<20) }\nvar big = slow()", want: "evaluated\n"},
	{source: "%%\nbig[7] = 3", want: ""},
	{source: "type pair struct{ left, right *int }\nvar number = 1\nvar both = pair{&number, &number}"},
	{source: "%%\n*both.left = 5\nfmt.Println(number, both.left == both.right, big[7])", want: "5 true 3\n"},
	{source: "%%\ncounter = 50\npanic(\"stop here\")", want: "stop here", fails: true},
	{source: "%%\nfmt.Println(counter)", want: "50\n"},
	{source: "%%\nundefined()", want: "undefined: undefined", fails: true},
	{source: "%%\nfmt.Println(counter, *both.right)", want: "50 5\n"},
	{source: "func slow() []float32 { return nil }"},
	{source: "%%\nfmt.Println(len(big))", want: "big is kept from cell"},
	{source: "%%\nfmt.Println(len(big))", want: "1048576\n"},
	{source: "var ch = make(chan int, 1)"},
	{source: "%%\nch <- 1\nfmt.Println(len(ch))", want: "ch is evaluated again in each cell that uses it: a channel can't be kept"},
}

// variables runs cells in the kernel, whose variables have to survive. What leaks over many cells soak finds.
func (s *suite) variables(ctx context.Context) error {
	var cells []string
	for _, c := range surviving {
		cells = append(cells, c.source)
	}
	results, err := s.p.Cells(ctx, setup.KernelName, cells)
	if err != nil {
		return err
	}
	for i, r := range results {
		c := surviving[i]
		name := fmt.Sprintf("variables, cell %d: %.60q", i+1, strings.TrimPrefix(c.source, "%%\n"))
		switch {
		case (r.Status != "ok") != c.fails:
			s.fail(name, fmt.Sprintf("%q ended with %s: %s", c.source, r.Status, r.Output))
		case c.want == "" && r.Output != "", !strings.Contains(r.Output, c.want), strings.HasSuffix(c.want, "\n") && r.Output != c.want:
			s.fail(name, fmt.Sprintf("%q printed %q, want %q", c.source, r.Output, c.want))
		default:
			s.pass(name)
		}
	}
	return nil
}

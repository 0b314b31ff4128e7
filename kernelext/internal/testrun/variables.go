package testrun

import (
	"context"
	"fmt"
	"strconv"
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

// manyCells is how many are run in one kernel in full mode.
const manyCells = 1000

// measure prints, as a cell, what must not grow: the kernel's memory in KiB, its open files, its children, the files in its directory.
const measure = `!echo measured $(awk '/VmRSS/ {print $2}' /proc/$PPID/status) $(ls /proc/$PPID/fd | wc -l) $(ps --ppid $PPID -o pid= | wc -l) $(find $GONB_TMP_DIR -type f | wc -l)`

// variables runs cells in the kernel, whose variables have to survive; in full mode so many that what leaks would show.
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
		name, c := fmt.Sprintf("cell %d", i+1), surviving[i]
		switch {
		case (r.Status != "ok") != c.fails:
			s.fail(name, fmt.Sprintf("%q ended with %s: %s", c.source, r.Status, r.Output))
		case c.want == "" && r.Output != "", !strings.Contains(r.Output, c.want), strings.HasSuffix(c.want, "\n") && r.Output != c.want:
			s.fail(name, fmt.Sprintf("%q printed %q, want %q", c.source, r.Output, c.want))
		default:
			s.pass(name)
		}
	}
	if !s.full {
		return nil
	}
	return s.many(ctx)
}

func (s *suite) many(ctx context.Context) error {
	cells := []string{"import \"fmt\"\nvar counter = 0\nvar state = make([]int, 1000)"}
	for i := range manyCells {
		switch i {
		case manyCells / 10, manyCells - 1:
			cells = append(cells, measure)
		default:
			cells = append(cells, fmt.Sprintf("%%%%\ncounter++\nstate[counter%%len(state)] = %d\nfmt.Println(counter)", i))
		}
	}
	results, err := s.p.Cells(ctx, setup.KernelName, cells)
	if err != nil {
		return err
	}
	var measured [][]int
	counter := 0
	for i, r := range results[1:] {
		if cells[i+1] == measure {
			var numbers []int
			for _, field := range strings.Fields(strings.TrimPrefix(r.Output, "measured")) {
				if n, err := strconv.Atoi(field); err == nil {
					numbers = append(numbers, n)
				}
			}
			measured = append(measured, numbers)
			continue
		}
		if counter++; r.Status != "ok" || r.Output != fmt.Sprintln(counter) {
			s.fail("many cells", fmt.Sprintf("cell %d ended with %s and printed %q, want %d", i+2, r.Status, r.Output, counter))
			return nil
		}
	}
	if len(measured) != 2 || len(measured[0]) != 4 || len(measured[1]) != 4 {
		return fmt.Errorf("the kernel could not be measured: %v", measured)
	}
	fmt.Fprintf(s.out, "after %d and %d cells: %d and %d KiB, %d and %d open files, %d and %d children, %d and %d files\n", manyCells/10, manyCells,
		measured[0][0], measured[1][0], measured[0][1], measured[1][1], measured[0][2], measured[1][2], measured[0][3], measured[1][3])
	// Memory may grow by what a garbage collector leaves, and the Go command makes a file or two once; what leaks does so with each cell.
	if measured[1][0] > measured[0][0]+32<<10 || measured[1][1] > measured[0][1] || measured[1][2] > measured[0][2] || measured[1][3] > measured[0][3]+manyCells/100 {
		s.fail("many cells", fmt.Sprintf("memory, open files, children and files grew from %v to %v", measured[0], measured[1]))
		return nil
	}
	s.pass(fmt.Sprintf("%d cells", manyCells))
	return nil
}

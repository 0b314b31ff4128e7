// Command nine makes networks nine times faster on a CPU, and proves it or says where it does not: a dense teacher is cut by surgery in several rounds, each followed by distillation, and
// the exported result is timed against the fastest dense runtime at hand. It has two phases: -train needs hours of nobody's attention and goes on where it was interrupted; -time needs a
// quiet machine for some minutes, and only reads what the first has left.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/backend/home"
)

func main() {
	bench.Main("nine", func(ctx context.Context, args []string) error { return command(ctx, args, os.Stdout) })
}

// settings are the flags.
type settings struct {
	train, time, onlyWidths, fast bool
	part                          int // of the timing, in a child: the number of threads
	families                      []family
	seeds                         []int64
	python, out, work             string
	rounds                        int
	sample                        time.Duration

	backend compute.Backend
	stdout  io.Writer
	say     func(format string, args ...any)
}

func parse(args []string) (settings, error) {
	var s settings
	f := flag.NewFlagSet("bench nine", flag.ContinueOnError)
	f.BoolVar(&s.train, "train", false, "train and export all networks, and write their accuracies")
	f.BoolVar(&s.time, "time", false, "time what -train has exported; the machine should have nothing else to do")
	f.BoolVar(&s.onlyWidths, "widths", false, "only time networks of several widths with made-up weights: where the widths come from")
	f.BoolVar(&s.fast, "fast", false, "a few steps, a small teacher and one seed, to try out")
	f.IntVar(&s.part, "part", 0, "for this program's own use")
	names := f.String("networks", "mlp,lenet", "networks, by name")
	seeds := f.String("seeds", "1,2,3", "seeds")
	f.StringVar(&s.python, "python", "", "Python interpreter that has ONNX Runtime; `espalier bench nine` gives it")
	f.StringVar(&s.out, "out", filepath.Join("notebooks", "results", "nine"), "where the results are")
	f.StringVar(&s.work, "work", "", "where trainings are saved, and the dense networks; default: bench/nine in Espalier's directory")
	f.IntVar(&s.rounds, "rounds", 40, "rounds, in each of which all are timed")
	f.DurationVar(&s.sample, "sample", 5*time.Millisecond, "length of a sample, reached by repetition")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if s.rounds < 3 || s.rounds < 30 && !s.fast {
		return s, fmt.Errorf("-rounds is %d: give at least 30, or an interval says little; with -fast at least 3", s.rounds)
	}
	if s.sample <= 0 {
		return s, fmt.Errorf("-sample is %v: give a positive time", s.sample)
	}
	var err error
	if s.seeds, err = bench.Seeds("-seeds", *seeds); err != nil {
		return s, err
	}
	if s.fast && len(s.seeds) > 1 {
		s.seeds = s.seeds[:1]
	}
	for _, name := range bench.List(*names) {
		n, err := find(name)
		if err != nil {
			return s, err
		}
		if s.fast {
			n = n.fast()
		}
		s.families = append(s.families, n)
	}
	if len(s.families) == 0 {
		return s, errors.New("-networks is empty: give at least one")
	}
	if (s.time || s.onlyWidths) && s.python == "" {
		return s, errors.New("-python is missing: run it by `espalier bench nine`, which sets it up")
	}
	return s, nil
}

func command(ctx context.Context, args []string, stdout io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	s.stdout = stdout
	start := time.Now()
	s.say = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6s  %s\n", time.Since(start).Round(time.Second), fmt.Sprintf(format, args...))
	}
	if s.work == "" {
		root, err := home.Dir()
		if err != nil {
			return err
		}
		s.work = filepath.Join(root, "bench", "nine")
	}
	if s.part > 0 {
		return timePart(ctx, s, s.part)
	}
	if s.train || s.time {
		choice, err := backend.Describe()
		if err != nil {
			return err
		}
		if choice.Name != "xla:cpu" {
			return fmt.Errorf("the backend is %s (%s): what is compared runs on XLA on the CPU; unset GOMLX_BACKEND, and run `espalier setup`", choice.Name, choice.Reason)
		}
		if s.backend, err = backend.Open(); err != nil {
			return err
		}
	}
	if s.train {
		if err := trainAll(ctx, s); err != nil {
			return err
		}
	}
	if s.onlyWidths {
		if err := timeWidths(ctx, s); err != nil {
			return err
		}
	}
	if s.time {
		s.onlyWidths = false // that was done
		if err := timeAll(ctx, s); err != nil {
			return err
		}
	}
	return showTables(s)
}

// machine describes what times depend on.
func machine() string {
	processor := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				processor = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores", processor, runtime.NumCPU())
}

func writeArray(w io.Writer, array any) error { return binary.Write(w, binary.LittleEndian, array) }

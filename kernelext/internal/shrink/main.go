// Command shrink is `espalier shrink`: an ONNX model in, a smaller one out. It is a program of its own since it uses GoMLX, which the command espalier does without.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/criterion"
)

const usage = `usage: espalier shrink MODEL.onnx -o SMALL.onnx [--macs SHARE | --params SHARE] [--criterion NAME] [--round-to N] [--exclude NAME]…
         [--data DIR [--epochs N [--distill]] [--rate R] [--batch N] [--mean R,G,B] [--std R,G,B]] [--size NAME=N]… [--fold] [--seed N]
  --macs, --params   the share that stays of multiply-accumulates, or of parameters (default: half of the multiply-accumulates)
  --criterion        what is important: l1, l2 (default), or a name such as taylor, FPGM, "batch-norm gain"
  --round-to N       channels that stay are a multiple of N; 1: any number (default: what suits this machine, by a measurement of under ten seconds
                     that is kept, or a half, a quarter … of it, where the budget can't be met otherwise)
  --exclude NAME     a variable, scope or group that stays whole
  --data DIR         images in class folders: for criteria that need data, for training, for accuracies. The folders are the model's outputs in the order
                     of their names, by letters, or by value where all names are numbers
  --epochs N         train the smaller network on them for so long; --distill: to the outputs of the large one instead of the labels
  --rate R           the learning rate at the start of that (default 0.0003); --batch N: examples in a step (default 32)
  --mean, --std      what the model's pixels, from 0 to 1, are centred and scaled by; ImageNet's are 0.485,0.456,0.406 and 0.229,0.224,0.225
  --size NAME=N      the size of an axis of the inputs that has none, besides the batch
  --fold             multiply batch normalisations into the convolutions before them
`

// usageError says what of the arguments can't be understood.
type usageError string

func (e usageError) Error() string { return string(e) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	var wrong usageError
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "espalier shrink:", err)
		os.Exit(130)
	case errors.As(err, &wrong):
		fmt.Fprintf(os.Stderr, "espalier shrink: %v\n%s", err, usage)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "espalier shrink:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	b, err := backend.Open()
	if err != nil {
		return err
	}
	return (&job{options: o, backend: b, out: out, progress: progress}).run(ctx)
}

// options are the command's arguments.
type options struct {
	model, out   string // absolute
	macs, params float64
	criterion    criterion.Criterion
	roundTo      int // 0: what suits this machine
	exclude      []string
	data         string
	epochs       int
	distill      bool
	rate         float64
	batch        int
	mean, std    []float64
	sizes        map[string]int
	fold         bool
	seed         int64
}

// named are criteria by the names that the literature on channels has for them.
var named = map[string]criterion.Criterion{
	"l1": criterion.Magnitude,
	"l2": func() criterion.Criterion { c := criterion.Magnitude; c.Name, c.Pool = "l2", criterion.L2; return c }(),
}

func findCriterion(name string) (criterion.Criterion, error) {
	known := []string{"l1", "l2"}
	if c, ok := named[strings.ToLower(name)]; ok {
		return c, nil
	}
	for _, c := range criterion.All() {
		if strings.EqualFold(c.Name, name) {
			return c, nil
		}
		known = append(known, strconv.Quote(c.Name))
	}
	return criterion.Criterion{}, usageError(fmt.Sprintf("--criterion is %q; there are %s", name, strings.Join(known, ", ")))
}

func parse(args []string) (options, error) {
	o := options{sizes: map[string]int{}}
	f := flag.NewFlagSet("shrink", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	dir := f.String("dir", "", "where relative paths begin: the user's directory; this program runs in the project's")
	f.StringVar(&o.out, "o", "", "")
	f.Float64Var(&o.macs, "macs", 0, "")
	f.Float64Var(&o.params, "params", 0, "")
	name := f.String("criterion", "l2", "")
	f.Func("round-to", "", func(s string) (err error) {
		if o.roundTo, err = strconv.Atoi(s); err == nil && o.roundTo < 1 {
			return fmt.Errorf("expected 1 or more")
		}
		return err
	})
	f.Func("exclude", "", func(s string) error { o.exclude = append(o.exclude, s); return nil })
	f.StringVar(&o.data, "data", "", "")
	f.IntVar(&o.epochs, "epochs", 0, "")
	f.BoolVar(&o.distill, "distill", false, "")
	f.Float64Var(&o.rate, "rate", 3e-4, "")
	f.IntVar(&o.batch, "batch", 32, "")
	numbers := func(to *[]float64) func(string) error {
		return func(s string) error {
			for part := range strings.SplitSeq(s, ",") {
				x, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
				if err != nil {
					return err
				}
				*to = append(*to, x)
			}
			return nil
		}
	}
	f.Func("mean", "", numbers(&o.mean))
	f.Func("std", "", numbers(&o.std))
	f.Func("size", "", func(s string) error {
		name, text, found := strings.Cut(s, "=")
		n, err := strconv.Atoi(text)
		if !found || err != nil || n < 1 {
			return fmt.Errorf("expected NAME=N")
		}
		o.sizes[name] = n
		return nil
	})
	f.BoolVar(&o.fold, "fold", false, "")
	f.Int64Var(&o.seed, "seed", 0, "")
	var models []string
	for rest := args; ; { // flags may stand before the model and behind it
		if err := f.Parse(rest); errors.Is(err, flag.ErrHelp) {
			return o, err
		} else if err != nil {
			return o, usageError(err.Error())
		}
		if rest = f.Args(); len(rest) == 0 {
			break
		}
		models, rest = append(models, rest[0]), rest[1:]
	}
	if len(models) != 1 {
		return o, usageError(fmt.Sprintf("%d models are given, expected one", len(models)))
	}
	o.model = models[0]
	var err error
	if o.criterion, err = findCriterion(*name); err != nil {
		return o, err
	}
	if o.distill && o.epochs == 0 {
		o.epochs = 1
	}
	zero := false // --macs 0 is no share, and not the default either
	f.Visit(func(f *flag.Flag) {
		zero = zero || (f.Name == "macs" && o.macs == 0) || (f.Name == "params" && o.params == 0)
	})
	switch {
	case o.out == "":
		return o, usageError("-o is missing: give the file for the smaller model")
	case o.macs != 0 && o.params != 0:
		return o, usageError("--macs and --params are given: give one of them")
	case zero || !(o.macs >= 0 && o.macs < 1 && o.params >= 0 && o.params < 1):
		return o, usageError("--macs and --params are shares that stay: give one more than 0 and less than 1, such as 0.5")
	case o.batch < 1 || o.epochs < 0 || !(o.rate > 0) || math.IsInf(o.rate, 1):
		return o, usageError("--batch, --epochs and --rate are to be positive")
	case o.epochs > 0 && o.data == "":
		return o, usageError("--epochs needs examples: give a folder of images with --data")
	case o.data == "" && o.criterion.Needs&criterion.NeedData != 0:
		return o, usageError(fmt.Sprintf("--criterion %s needs examples: give a folder of images with --data", o.criterion.Name))
	case slices.ContainsFunc(o.std, func(x float64) bool { return !(x > 0) || math.IsInf(x, 1) }):
		return o, usageError("--std is to be positive")
	case slices.ContainsFunc(o.mean, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }):
		return o, usageError("--mean is to be a number")
	}
	for _, path := range []*string{&o.model, &o.out, &o.data} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(*dir, *path)
		}
	}
	if filepath.Clean(o.out) == filepath.Clean(o.model) {
		return o, usageError("-o is the model itself: give another file")
	}
	return o, nil
}

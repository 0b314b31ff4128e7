// Command espalier sets up, runs and tests notebooks. `go run ./kernelext/cmd/espalier` lists what it does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/espalier-ml/espalier/kernelext/internal/bench/cell"
	"github.com/espalier-ml/espalier/kernelext/internal/bundle"
	"github.com/espalier-ml/espalier/kernelext/internal/doctor"
	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy"
	"github.com/espalier-ml/espalier/kernelext/internal/setup"
	"github.com/espalier-ml/espalier/kernelext/internal/storecmd"
	"github.com/espalier-ml/espalier/kernelext/internal/testrun"
)

type verb struct {
	name, usage string
	run         func(ctx context.Context, args []string) error
}

var verbs = []verb{
	{"setup", "[--user]                           install all that is needed; --user also shows the kernel to your own Jupyter", runSetup},
	{"run", "NOTEBOOK… [-o DIR] [--html] [--fast] [--state DIR] [--same]  execute notebooks in a clean kernel, and say where their outputs are not what they were; with --state, go on where one was interrupted", ready(nbrun.Run)},
	{"lab", "                                      open JupyterLab on the notebooks", runLab},
	{"test", "[--full] [--only PART,…]            run all tests", ready(testrun.Run)},
	{"doctor", "                                  check each requirement and say how to mend it", runDoctor},
	{"bench", "cell|step|live|surgery|figures|sparse|tickets|structured|nine [--json FILE]  measure: a cell next to plain GoNB, training steps next to JAX and, with -torch-python, PyTorch, a live chart, networks before and after surgery; repeat published figures of pruning, sparse training, lottery tickets; hold structured methods against controls; make networks nine times faster", runBench},
	{"profile", "NETWORK|MODEL.onnx [--batch N] …  what a network costs, layer by layer: parameters, work, memory, measured latency", runProfile},
	{"kernel", "CONNECTION_FILE                   what front ends start: the kernel", runKernel},
	{"replay", "MANIFEST…                         repeat runs of a comparison and say whether they come out the same", runReplay},
	{"shrink", "MODEL.onnx -o SMALL.onnx …        make an ONNX model physically smaller, and prove it: --macs 0.5 --criterion l2 --data DIR --distill", runShrink},
	{"store", "ls|show|verify|gc|export|import …  the results that are kept: look, check, make room, pass on", printing(storecmd.Run)},
	{"export", "NOTEBOOK [-o FILE] [--run DIR…]   make one file of a notebook and what its runs left, for another machine", printing(bundle.Export)},
	{"open", "FILE [-o DIR]                       verify and unpack such a file; nothing in it is executed", printing(bundle.Open)},
	{"uninstall", "                               remove what setup made, and nothing else", runUninstall},
}

// programError is the exit code of a program of the project, which has printed why.
type programError int

func (e programError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// errUsage is an error that the usage says all about.
var errUsage = errors.New("usage")

// usageError says what can't be understood, and of which command; "": of none.
type usageError struct{ problem, command string }

func (e *usageError) Error() string { return e.problem }

func (e *usageError) Unwrap() error { return errUsage }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second Ctrl-C ends the program at once
	}()
	os.Exit(exitCode(ctx, dispatch(ctx, os.Args[1:])))
}

// exitCode prints an error and returns the exit code that says what it was.
func exitCode(ctx context.Context, err error) int {
	var usage *nbrun.UsageError
	var program programError
	var misused *usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) || ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "espalier: interrupted; the same command goes on from what was kept: set-up, results in a store or a directory of runs, what run --state left")
		return 130
	case errors.As(err, &program):
		return int(program)
	case errors.As(err, &misused):
		fmt.Fprintln(os.Stderr, "espalier:", err)
		printUsage(os.Stderr, misused.command)
		return 2
	case errors.Is(err, errUsage):
		printUsage(os.Stderr, "")
		return 2
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "espalier:", err)
		return 2
	}
	fmt.Fprintln(os.Stderr, "espalier:", err)
	return 1
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	for _, v := range verbs {
		if v.name != args[0] {
			continue
		}
		err := v.run(ctx, args[1:])
		if err == errUsage {
			err = &usageError{fmt.Sprintf("%s can't be used with the arguments %q", v.name, args[1:]), v.name}
		}
		return err
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		printUsage(os.Stdout, "")
		return nil
	}
	return &usageError{problem: fmt.Sprintf("there is no command %q", args[0])}
}

// printUsage lists the commands, or only the one that is named.
func printUsage(out io.Writer, command string) {
	fmt.Fprintln(out, "usage: espalier COMMAND …")
	for _, v := range verbs {
		if command == "" || v.name == command {
			fmt.Fprintf(out, "  %s %s\n", v.name, v.usage)
		}
	}
}

// printing hands a command the standard output.
func printing(run func(ctx context.Context, args []string, out io.Writer) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error { return run(ctx, args, os.Stdout) }
}

// ready sets up before it runs.
func ready(run func(ctx context.Context, p setup.Paths, args []string) error) func(context.Context, []string) error {
	return after(setup.Ensure, run)
}

// after runs when a set-up is done.
func after(ensure func(context.Context, io.Writer) (setup.Paths, error), run func(ctx context.Context, p setup.Paths, args []string) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		p, err := ensure(ctx, os.Stderr)
		if err != nil {
			return err
		}
		return run(ctx, p, args)
	}
}

func runSetup(ctx context.Context, args []string) error {
	if len(args) > 1 || len(args) == 1 && args[0] != "--user" {
		return errUsage
	}
	p, err := setup.Ensure(ctx, os.Stderr)
	if err != nil {
		return err
	}
	fmt.Println("ready:", p.Home)
	if len(args) == 1 {
		path, err := setup.Register(p)
		if err != nil {
			return err
		}
		fmt.Println("your Jupyter finds the kernel in", path)
	}
	return nil
}

func runLab(ctx context.Context, args []string) error {
	return ready(func(ctx context.Context, p setup.Paths, args []string) error {
		// JupyterLab makes a token itself and prints the address with it; it opens a browser where there is one.
		cmd := exec.CommandContext(ctx, p.Python, append([]string{"-m", "jupyterlab"}, labOptions(p, args)...)...)
		cmd.Dir, cmd.Env = p.Project, p.Env()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		setup.OwnGroup(cmd)
		err := cmd.Run()
		if ctx.Err() != nil {
			return nil // Ctrl-C is how JupyterLab is left
		}
		return err
	})(ctx, args)
}

// labOptions are ours, unless the user has set the same, and the user's: JupyterLab refuses an option that is given twice.
func labOptions(p setup.Paths, args []string) []string {
	var options []string
	for _, own := range []string{"--ServerApp.ip=127.0.0.1", "--ServerApp.root_dir=" + filepath.Join(p.Project, "notebooks"),
		"--MultiKernelManager.default_kernel_name=" + setup.KernelName, "--ServerApp.allow_root=True", "--LabApp.news_url=",
		"--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"} {
		name, _, _ := strings.Cut(own, "=")
		if !slices.ContainsFunc(args, func(a string) bool { return a == name || strings.HasPrefix(a, name+"=") }) {
			options = append(options, own)
		}
	}
	return append(options, args...)
}

func runDoctor(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return errUsage
	}
	return doctor.Run(ctx, os.Stdout)
}

func runUninstall(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return errUsage
	}
	report, err := setup.Uninstall(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if len(report.Removed) == 0 {
		fmt.Println("nothing was set up")
		return nil
	}
	fmt.Println("removed:", strings.Join(report.Removed, ", "))
	if len(report.Left) > 0 {
		fmt.Println("left, because set-up did not make it:", strings.Join(report.Left, ", "))
	}
	return nil
}

// benches are the measurements that are programs of the project, each in kernelext/internal/bench, and the peers that they measure against: the option that names a peer's
// Python, and the environment that it is in.
var benches = map[string]map[string]string{
	"step": {"-jax-python": "jax"}, "nine": {"-python": "onnxruntime"}, "live": nil, "surgery": nil, "figures": nil, "sparse": nil, "tickets": nil, "structured": nil,
}

func runBench(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	name := args[0]
	if name == "cell" {
		return ready(cell.Run)(ctx, args[1:])
	}
	peers, found := benches[name]
	if !found {
		return errUsage
	}
	return ready(func(ctx context.Context, p setup.Paths, args []string) error {
		for _, option := range slices.Sorted(maps.Keys(peers)) {
			python, err := setup.EnsurePeer(ctx, os.Stderr, peers[option])
			if err != nil {
				return err
			}
			args = append([]string{option, python}, args...)
		}
		return goRun(ctx, p, "./kernelext/internal/bench/"+name, args)
	})(ctx, args[1:])
}

func runKernel(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	p, err := setup.Locate()
	if err != nil {
		return err
	}
	// Ctrl-C in the terminal of a front end reaches the kernel too, where it interrupts the cell.
	return proxy.Run(context.WithoutCancel(ctx), proxy.Config{
		ConnectionFile: args[0], Gonb: p.GonbCommand(), Home: p.Home, Notebook: os.Getenv("JPY_SESSION_NAME"), Version: version(),
	})
}

// version is that of the module, "devel" in a checkout.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func runReplay(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	manifests := make([]string, len(args))
	for i, name := range args {
		var err error
		if manifests[i], err = filepath.Abs(name); err != nil { // the program runs in the project's directory
			return err
		}
	}
	return after(setup.EnsureComputing, func(ctx context.Context, p setup.Paths, args []string) error {
		return build(ctx, p, "./kernelext/internal/replay", args)
	})(ctx, manifests)
}

func runProfile(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	return fromHere(ctx, "./kernelext/internal/profilecmd", args)
}

func runShrink(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	return fromHere(ctx, "./kernelext/internal/shrink", args)
}

// fromHere builds and runs a program with the user's directory, since it runs in the project's.
func fromHere(ctx context.Context, program string, args []string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	run := func(ctx context.Context, p setup.Paths, args []string) error { return build(ctx, p, program, args) }
	args = append([]string{"-dir", dir}, args...)
	if slices.ContainsFunc(args, func(a string) bool { return a == "-h" || a == "-help" || a == "--help" }) { // a question sets nothing up
		p, err := setup.Locate()
		if err != nil {
			return err
		}
		return run(ctx, p, args)
	}
	return after(setup.EnsureComputing, run)(ctx, args)
}

// build is goRun for a program whose exit code says something: `go run` makes all of them 1. The error is a programError then.
func build(ctx context.Context, p setup.Paths, program string, args []string) error {
	dir, err := os.MkdirTemp("", "espalier-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, p.Go, "build", "-o", path, program)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Project, p.Env(), os.Stderr, os.Stderr
	setup.OwnGroup(cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s could not be built: %v", program, err) // not %w: the exit code of the compiler says nothing here
	}
	cmd = exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Project, p.Env(), os.Stdout, os.Stderr
	setup.OwnGroup(cmd)
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return programError(exit.ExitCode())
	}
	return err
}

// goRun runs a program of the project that uses GoMLX, which this command does without.
func goRun(ctx context.Context, p setup.Paths, program string, args []string) error {
	cmd := exec.CommandContext(ctx, p.Go, append([]string{"run", program}, args...)...)
	cmd.Dir, cmd.Env = p.Project, p.Env()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	setup.OwnGroup(cmd)
	return cmd.Run()
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"golang.org/x/sys/unix"

	_ "embed"

	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/onnx"
	"github.com/espalier-ml/espalier/pkg/profile"
)

//go:embed ort.py
var ortScript string

const timesFile = "times.json"

// pluginVersion is that of XLA's plugin in the backend's description.
var pluginVersion = regexp.MustCompile(`\bv[0-9]+\.[0-9.]*[0-9]`)

// The runtimes. Where two threads may be used, ort1 uses one all the same: what is small may be faster so.
const (
	ort  = "ONNX Runtime"
	ort1 = "ONNX Runtime, one thread"
	xla  = "GoMLX-XLA"
)

var runtimes = []string{ort, ort1, xla}

// times is what -time writes: all samples, from which the table is made.
type times struct {
	Machine  string            `json:"machine"`
	Load     string            `json:"loadAverageBefore"` // what /proc/loadavg said
	Versions map[string]string `json:"versions"`
	Rounds   int               `json:"rounds"`
	Cells    []cell            `json:"cells"`
	Accuracy []judged          `json:"accuracy"` // of the files that are timed
}

// cell is one setting: all contenders of it were timed in turn, in shuffled order in each round.
type cell struct {
	Network string   `json:"network"`
	Threads int      `json:"threads"`
	Batch   int      `json:"batch"`
	Series  []series `json:"series"`
	// Spin is how long a fixed loop took before each round, on the slowest of as many threads as are timed, which waits a second at most for a quiet moment: where it is far from what it usually takes, something else was at work.
	Spin []float64 `json:"spinSeconds"`
}

// series are the times of one file in one runtime.
type series struct {
	File    string    `json:"file"` // name of its manifest; with ".int8" the quantised one
	Role    string    `json:"role"` // what the network is: of its manifest
	Seed    int64     `json:"seed"`
	Int8    bool      `json:"int8,omitempty"`
	Runtime string    `json:"runtime"`
	Seconds []float64 `json:"seconds"` // of a run, in each round
}

// judged is how many of the test images a file gets right in a runtime.
type judged struct {
	Network string `json:"network"`
	File    string `json:"file"`
	Role    string `json:"role"`
	Seed    int64  `json:"seed"`
	Int8    bool   `json:"int8,omitempty"`
	Runtime string `json:"runtime"`
	Right   int    `json:"right"`
	N       int    `json:"n"`
}

// peer is ONNX Runtime in a process of its own.
type peer struct {
	*bench.Peer
	version string
}

type answer struct {
	Error, Version, SHA256 string
	Seconds                float64
	Right, N               int
}

func startPeer(ctx context.Context, python string) (*peer, error) {
	started, err := bench.StartPeer(ctx, ort, python, "-I", "-c", ortScript)
	if err != nil {
		return nil, err
	}
	hello, err := understand(started.Hello)
	if err != nil {
		started.Stop()
		return nil, err
	}
	return &peer{started, hello.Version}, nil
}

func (p *peer) ask(request map[string]any) (answer, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return answer{}, err
	}
	line, err := p.Ask(string(text))
	if err != nil {
		return answer{}, err
	}
	return understand(line)
}

func understand(line string) (answer, error) {
	var a answer
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		return a, fmt.Errorf("%s answered %q: %w", ort, line, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", ort, a.Error)
	}
	return a, nil
}

// contender does n runs of a file and says how long they took.
type contender struct {
	series
	run func(n int) (seconds float64, err error)
}

// target is a file that is timed.
type target struct {
	name, path string
	m          manifest
	int8       bool
}

// targets are the files of a network, the dense ones first.
func targets(s settings, network string) ([]target, error) {
	var all []target
	for _, dir := range []string{filepath.Join(s.work, "dense"), filepath.Join(s.out, "networks")} {
		manifests, err := readManifests(dir)
		if err != nil {
			return nil, err
		}
		for stem, m := range manifests {
			if m.Network == network && slices.Contains(s.seeds, m.Seed) {
				all = append(all, target{name: filepath.Base(stem), path: stem + ".onnx", m: m})
			}
		}
	}
	slices.SortFunc(all, func(a, b target) int { return strings.Compare(a.name, b.name) })
	seen := map[string]int{}
	for _, t := range all {
		seen[t.m.Role]++
	}
	if seen[teacherNet] != len(s.seeds) || seen[fastNet] != len(s.seeds) {
		return nil, fmt.Errorf("of %s there are %d dense networks in %s and %d small ones in %s, expected %d of each: run -train with the same seeds before", network, seen[teacherNet],
			filepath.Join(s.work, "dense"), seen[fastNet], filepath.Join(s.out, "networks"), len(s.seeds))
	}
	return all, nil
}

func (t target) series(runtime string) series {
	return series{File: t.name, Role: t.m.Role, Seed: t.m.Seed, Int8: t.int8, Runtime: runtime}
}

// quantised is where the int8 form of a file lies.
func (t target) quantised(s settings) target {
	dir := filepath.Join(s.out, "networks")
	if t.m.Role == teacherNet {
		dir = filepath.Join(s.work, "dense")
	}
	t.path, t.int8 = filepath.Join(dir, t.name+".int8.onnx"), true
	t.name += ".int8"
	return t
}

// quantisable tells which files have an int8 form: the dense network's, to compare with, and the fast one's.
func (t target) quantisable() bool { return t.m.Role == teacherNet || t.m.Role == fastNet }

// timeAll does the second phase: accuracies and int8 first, then the times, for each number of threads in a process of its own, which may use as many cores.
func timeAll(ctx context.Context, s settings) error {
	load, _ := os.ReadFile("/proc/loadavg")
	t := times{Machine: machine(), Load: strings.TrimSpace(string(load)), Rounds: s.rounds, Versions: map[string]string{"go": runtime.Version(), "gomlx": gomlxVersion()}}
	if err := prepare(ctx, s, &t); err != nil {
		return err
	}
	for _, threads := range []int{1, 2} {
		if threads > runtime.NumCPU() {
			s.say("%d threads: left out, there are %d cores", threads, runtime.NumCPU())
			continue
		}
		part, err := inChild(ctx, s, threads)
		if err != nil {
			return err
		}
		t.Cells = append(t.Cells, part.Cells...)
		for name, version := range part.Versions {
			t.Versions[name] = version
		}
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if _, err := keep(filepath.Join(s.out, timesFile), func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err }); err != nil {
		return err
	}
	return writeTables(s)
}

// prepare quantises, and judges every file on all test images in the runtimes in which it is timed.
func prepare(ctx context.Context, s settings, t *times) error {
	data, err := mnist.Open(mnist.Config{})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nine")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	test, calibration, labels := filepath.Join(dir, "test"), filepath.Join(dir, "calibration"), filepath.Join(dir, "labels")
	images, err := floats(data.Test, data.Test.Len())
	if err != nil {
		return err
	}
	some, err := floats(data.Train.Shuffled(false), 512)
	if err != nil {
		return err
	}
	answers := make([]int32, data.Test.Len())
	for i := range answers {
		answers[i] = int32(data.Test.Label(i))
	}
	for path, array := range map[string]any{test: images, calibration: some, labels: answers} {
		if _, err := keep(path, func(w io.Writer) error { return writeArray(w, array) }); err != nil {
			return err
		}
	}
	p, err := startPeer(ctx, s.python)
	if err != nil {
		return err
	}
	defer p.Stop()
	t.Versions[ort] = p.version
	for _, f := range s.families {
		all, err := targets(s, f.name)
		if err != nil {
			return err
		}
		for _, t32 := range all {
			right, err := inXLA(s.backend, t32.path, images, answers)
			if err != nil {
				return fmt.Errorf("%s: %w", t32.name, err)
			}
			t.judge(f, t32, xla, right, len(answers))
			forms := []target{t32}
			if t32.quantisable() {
				q := t32.quantised(s)
				a, err := p.ask(map[string]any{"do": "quantise", "path": t32.path, "to": q.path, "images": calibration})
				if err != nil {
					return fmt.Errorf("%s: %w", q.name, err)
				}
				t32.m.Files[filepath.Base(q.path)] = a.SHA256
				if err := t32.m.write(strings.TrimSuffix(t32.path, ".onnx") + ".json"); err != nil {
					return err
				}
				forms = append(forms, q)
			}
			for _, form := range forms {
				a, err := p.ask(map[string]any{"do": "right", "path": form.path, "images": test, "labels": labels})
				if err != nil {
					return fmt.Errorf("%s: %w", form.name, err)
				}
				t.judge(f, form, ort, a.Right, a.N)
				s.say("%s: %d of %d test images right", form.name, a.Right, a.N)
			}
		}
	}
	return nil
}

func (t *times) judge(f family, of target, runtime string, right, n int) {
	t.Accuracy = append(t.Accuracy, judged{f.name, of.name, of.m.Role, of.m.Seed, of.int8, runtime, right, n})
}

// loadXLA is a file as GoMLX runs it.
func loadXLA(path string) (*model.Store, func(*model.Scope, *graph.Node) *graph.Node, error) {
	m, err := onnx.Read(path)
	if err != nil {
		return nil, nil, err
	}
	return m.Store, func(scope *model.Scope, x *graph.Node) *graph.Node { return m.ModelFn(scope, []*graph.Node{x})[0] }, nil
}

// inXLA counts the images that a file gets right in GoMLX.
func inXLA(b compute.Backend, path string, images []float32, labels []int32) (int, error) {
	s, fn, err := loadXLA(path)
	if err != nil {
		return 0, err
	}
	exec, err := model.NewExec(b, s, func(_ *model.Scope, x *graph.Node) *graph.Node {
		s.SetTraining(x.Graph(), false)
		return fn(s.RootScope(), x)
	})
	if err != nil {
		return 0, err
	}
	defer exec.Finalize()
	const batch = 500
	size := len(images) / len(labels)
	right := 0
	for at := 0; at < len(labels); at += batch {
		n := min(batch, len(labels)-at)
		y, err := exec.Call1(tensors.FromFlatDataAndDimensions(images[at*size:(at+n)*size], n, 28, 28, 1))
		if err != nil {
			return 0, err
		}
		logits, err := tensors.CopyFlatData[float32](y)
		if err != nil {
			return 0, err
		}
		for i := range n {
			row := logits[i*classes : (i+1)*classes]
			if slices.Index(row, slices.Max(row)) == int(labels[at+i]) {
				right++
			}
		}
	}
	return right, nil
}

// inChild runs the timing of one number of threads in a child of this process that is bound to as many cores.
func inChild(ctx context.Context, s settings, threads int) (times, error) {
	self, err := os.Executable()
	if err != nil {
		return times{}, err
	}
	var names, seeds []string
	for _, f := range s.families {
		names = append(names, f.name)
	}
	for _, seed := range s.seeds {
		seeds = append(seeds, strconv.FormatInt(seed, 10))
	}
	args := []string{"-part", strconv.Itoa(threads), "-python", s.python, "-out", s.out, "-work", s.work, "-rounds", strconv.Itoa(s.rounds), "-sample", s.sample.String(),
		"-networks", strings.Join(names, ","), "-seeds", strings.Join(seeds, ",")}
	if s.fast {
		args = append(args, "-fast")
	}
	if s.onlyWidths {
		args = append(args, "-widths")
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return times{}, err
	}
	if err := startBound(cmd, threads); err != nil {
		return times{}, err
	}
	var t times
	failed := json.NewDecoder(out).Decode(&t)
	if err := cmd.Wait(); err != nil {
		return t, fmt.Errorf("timing with %d threads: %w", threads, err)
	}
	return t, failed
}

// startBound starts a command on the first cores that this process may use. A child inherits the cores of the thread that makes it.
func startBound(cmd *exec.Cmd, cores int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, bound unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	for i := 0; bound.Count() < cores && i < 1024; i++ {
		if before.IsSet(i) {
			bound.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &bound); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// timePart is the child: it times all contenders of all settings with a number of threads and writes what it measured to standard output.
func timePart(ctx context.Context, s settings, threads int) error {
	b, err := backend.Open()
	if err != nil {
		return err
	}
	s.backend = b
	p, err := startPeer(ctx, s.python)
	if err != nil {
		return err
	}
	defer p.Stop()
	// Not all of the description: it can hold where the plugin lies, which is nobody's business.
	t := times{Versions: map[string]string{xla: strings.TrimSpace("XLA " + pluginVersion.FindString(b.Description()))}}
	for _, f := range s.families {
		var files []target
		if s.onlyWidths {
			if files, err = candidates(s, f); err != nil {
				return err
			}
		} else if files, err = targets(s, f.name); err != nil {
			return err
		}
		for _, batch := range []int{1, 64} {
			c, err := timeCell(ctx, s, p, f, files, threads, batch)
			if err != nil {
				return fmt.Errorf("%s, %d threads, batch %d: %w", f.name, threads, batch, err)
			}
			t.Cells = append(t.Cells, c)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

func timeCell(ctx context.Context, s settings, p *peer, f family, files []target, threads, batch int) (cell, error) {
	c := cell{Network: f.name, Threads: threads, Batch: batch}
	var all []contender
	addORT := func(t target) error {
		for i, runtime := range []string{ort, ort1}[:min(threads, 2)] {
			name := fmt.Sprintf("%s, %s, %d", t.name, runtime, batch)
			if _, err := p.ask(map[string]any{"do": "load", "path": t.path, "name": name, "batch": batch, "threads": []int{threads, 1}[i]}); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			all = append(all, contender{t.series(runtime), func(n int) (float64, error) {
				a, err := p.ask(map[string]any{"do": "run", "name": name, "n": n})
				return a.Seconds, err
			}})
		}
		return nil
	}
	for _, t := range files {
		if err := addORT(t); err != nil {
			return c, err
		}
		store, fn, err := loadXLA(t.path)
		if err != nil {
			return c, err
		}
		x := tensors.FromShape(input(batch))
		random := rand.New(rand.NewPCG(0, 0))
		if err := tensors.MutableFlatData(x, func(flat []float32) {
			for i := range flat {
				flat[i] = random.Float32()
			}
		}); err != nil {
			return c, err
		}
		m, err := profile.Model(t.name, s.backend, store, fn, x)
		if err != nil {
			return c, err
		}
		all = append(all, contender{t.series(xla), func(n int) (float64, error) {
			start := time.Now()
			for range n {
				if err := m.Run(); err != nil {
					return 0, err
				}
			}
			return time.Since(start).Seconds(), nil
		}})
		if t.quantisable() && !s.onlyWidths {
			if err := addORT(t.quantised(s)); err != nil {
				return c, err
			}
		}
	}
	// Warm up, and find out how many runs a sample takes.
	runs := make([]int, len(all))
	for i, x := range all {
		spent, calls := 0.0, 0
		for runs[i] = 1; ; {
			took, err := x.run(runs[i])
			if err != nil {
				return c, err
			}
			spent, calls = spent+took, calls+runs[i]
			if took < s.sample.Seconds() {
				runs[i] *= 2
			} else if calls >= 3 && spent >= 0.2 {
				break
			}
		}
		c.Series = append(c.Series, x.series)
	}
	random := rand.New(rand.NewPCG(uint64(threads), uint64(batch)))
	var still []float64
	for range 20 {
		time.Sleep(settle)
		still = append(still, spin(threads))
	}
	usual := usualSpin(still)
	for range s.rounds {
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		runtime.GC()
		c.Spin = append(c.Spin, waitQuiet(threads, usual))
		for _, i := range random.Perm(len(all)) {
			if _, err := all[i].run(1); err != nil { // warm again
				return c, err
			}
			took, err := all[i].run(runs[i])
			if err != nil {
				return c, err
			}
			c.Series[i].Seconds = append(c.Series[i].Seconds, took/float64(runs[i]))
			if threads > 1 && all[i].Runtime == ort {
				time.Sleep(rest)
			}
		}
	}
	s.say("%s, %d threads, batch %d: %d contenders, %d rounds", f.name, threads, batch, len(all), s.rounds)
	return c, nil
}

// settle is how long what the last round and the collector have left, such as buffers that XLA frees in threads of its own, may take before the machine is looked at: without it, the fixed loop
// shares the core with them where there is one, and tells of this program and not of others.
const settle = 20 * time.Millisecond

// rest is how long a pool of ONNX Runtime is left to itself: it spins for up to 30 ms after a run in case that another comes. Each file has a pool of its own, and the next contender would have to share the cores with them.
const rest = 50 * time.Millisecond

// waitQuiet waits for a moment in which the fixed loop takes what it usually does, for a second at most, and returns what it took at last.
func waitQuiet(threads int, usual float64) float64 {
	var took float64
	for range 40 {
		time.Sleep(settle)
		if took = spin(threads); isQuiet(took, usual) {
			break
		}
	}
	return took
}

// usualSpin is what the fixed loop takes on a quiet machine: the lower quartile, since all that disturbs it makes it slower, and often by the same third, so that a median could lie between both.
func usualSpin(took []float64) float64 { return profile.Quantile(took, 0.25) }

func isQuiet(took, usual float64) bool { return math.Abs(took-usual) <= 0.1*usual }

// spun keeps the compiler from leaving the loop of spin empty.
var spun atomic.Uint64

// spin is a fixed piece of work on as many threads as are timed, some milliseconds of operations that each need the one before: nothing but the machine's state changes how long it takes. It returns what the slowest took.
func spin(threads int) float64 {
	took := make([]float64, threads)
	var all sync.WaitGroup
	for i := range threads {
		all.Go(func() {
			start, x := time.Now(), 1.0
			for range 2_000_000 {
				x = x*0.999999 + 1e-6
			}
			spun.Add(math.Float64bits(x))
			took[i] = time.Since(start).Seconds()
		})
	}
	all.Wait()
	return slices.Max(took)
}

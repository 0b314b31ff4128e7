package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/schedule"
	"github.com/espalier-ml/espalier/pkg/store/checkpoint"
)

// full says that the heavy form of a test is wanted: `espalier test --full`.
func full() bool { return os.Getenv("ESPALIER_FULL") != "" }

// childRole says what TestFaultChild does, in childDir.
const childRole = "ESPALIER_TEST_ROLE"

// child is this test program as another process, in a role.
func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestFaultChild$")
	cmd.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir)
	return cmd
}

// TestFaultChild is no test of its own: others run it as another process.
func TestFaultChild(t *testing.T) {
	dir := os.Getenv(childDir)
	switch role := os.Getenv(childRole); role {
	case "":
	case "interruptible":
		// What a command does: the first signal ends the run in order, the second at once.
		ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
		go func() {
			<-ctx.Done()
			stop()
		}()
		fmt.Println("ready")
		task := newTask(t)
		store := newStore(t, task, 1)
		p := newPruner(t, task, store, prune.Recipe{Criterion: criterion.Magnitude})
		_, err := Train(ctx, task, store, interruptible(dir, p))
		if errors.Is(err, context.Canceled) {
			os.Exit(130)
		}
		if err != nil {
			t.Fatal(err)
		}
	default: // the number of processors to train on
		n, err := strconv.Atoi(role)
		if err != nil {
			t.Fatal(err)
		}
		var set unix.CPUSet
		for i := range n {
			set.Set(i)
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			t.Fatal(err)
		}
		store, _ := trained(t, newTask(t), Training{Steps: 500})
		text, err := json.Marshal(weights(t, store))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s\n", text)
	}
}

func interruptible(dir string, p *prune.Pruner) Training {
	return Training{Steps: 3000, Dir: dir, SaveEvery: time.Millisecond, Pruner: p, Rate: CosineDecay, Schedule: schedule.Cubic(0, 2000, 0, 0.8), When: schedule.Every(100, 100, 2000)}
}

// Ctrl-C, at any time, ends a run with exit code 130 and what is done saved; a second one ends it at once. Either way it goes on from there, and ends with the bits
// of a run that nobody stopped.
func TestSignals(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3)) // other places each time
	times := 4
	if full() {
		times = 40
	}
	reached := func() int {
		runs, _ := filepath.Glob(filepath.Join(dir, "*"))
		if len(runs) == 0 {
			return 0
		}
		if steps, err := (checkpoint.Dir{Path: runs[0]}).Steps(); err == nil && len(steps) > 0 {
			return steps[0]
		}
		return 0
	}
	for i := range times {
		before := reached()
		if before == 3000 {
			break
		}
		cmd := child(t, "interruptible", dir)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := stdout.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		// Every third one may still be compiling.
		if i%3 != 0 {
			for deadline := time.Now().Add(time.Minute); reached() <= before && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Duration(rng.IntN(5000)) * time.Microsecond)
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		twice := i%2 == 1
		if twice {
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
			_ = cmd.Process.Signal(os.Interrupt)
		}
		err = cmd.Wait()
		var exit *exec.ExitError
		switch {
		case err == nil: // it was done before the signal came
		case !errors.As(err, &exit):
			t.Fatal(err)
		case exit.ExitCode() == 130:
			if runs, _ := filepath.Glob(filepath.Join(dir, "*", "step-*")); len(runs) == 0 {
				t.Errorf("signal %d: nothing was saved", i)
			}
		case twice && exit.Sys().(syscall.WaitStatus).Signaled(): // the second came before it had saved
		default:
			t.Fatalf("signal %d: %v, want exit code 130", i, err)
		}
	}
	train := func(dir string) map[string][]float32 {
		task := newTask(t)
		store := newStore(t, task, 1)
		if _, err := Train(t.Context(), task, store, interruptible(dir, newPruner(t, task, store, prune.Recipe{Criterion: criterion.Magnitude}))); err != nil {
			t.Fatal(err)
		}
		return weights(t, store)
	}
	if diff := cmp.Diff(train(""), train(dir)); diff != "" {
		t.Errorf("the interrupted run differs (-whole +interrupted):\n%s", diff)
	}
}

// The same seed gives the same bits in another process; on another number of processors it gives the same up to rounding.
func TestProcessesAndProcessors(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.NumCPU() < 2 {
		t.Skip("needs two processors, and Linux to choose one")
	}
	train := func(processors int) map[string][]float32 {
		out, err := child(t, strconv.Itoa(processors), "").Output()
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		var w map[string][]float32
		if err := json.Unmarshal([]byte(line), &w); err != nil {
			t.Fatal(err)
		}
		return w
	}
	one, two := train(1), train(2)
	if diff := cmp.Diff(one, train(1)); diff != "" {
		t.Errorf("one processor, twice: -first +second\n%s", diff)
	}
	if diff := cmp.Diff(two, train(2)); diff != "" {
		t.Errorf("two processors, twice: -first +second\n%s", diff)
	}
	for path, w := range one {
		for i, x := range w {
			if d := x - two[path][i]; d > 1e-3 || d < -1e-3 {
				t.Fatalf("%s[%d]: %v on one processor, %v on two; want the same within 1e-3", path, i, x, two[path][i])
			}
		}
	}
}

// Many trials in one process leave nothing behind: neither goroutines nor open files, nor memory that grows. They share a trainer, as those of a comparison do:
// each compilation leaves some memory in XLA itself (10 MB for a hundred such trials with a trainer each).
func TestManyTrials(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	warm, measured := 5, 10
	if full() {
		warm, measured = 60, 200
	}
	task := newTask(t)
	store := newStore(t, task, 1)
	p := newPruner(t, task, store, prune.Recipe{Criterion: criterion.Magnitude})
	start, err := Snapshot(store)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := NewTrainer(task, store)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	trial := func(seed int64) {
		if err := Restore(store, start); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Train(t.Context(), Training{Steps: 500, Seed: seed, Pruner: p, Dir: t.TempDir(), Schedule: schedule.Cubic(0, 400, 0, 0.8), When: schedule.Every(100, 100, 400)}); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Evaluate(t.Context(), task.Validation); err != nil {
			t.Fatal(err)
		}
	}
	for i := range warm {
		trial(int64(i))
	}
	type use struct{ goroutines, files int }
	now := func() (use, float64) {
		runtime.GC()
		runtime.GC() // what has a finaliser goes at the second
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		pages, err := strconv.Atoi(strings.Fields(string(text))[1])
		if err != nil {
			t.Fatal(err)
		}
		return use{runtime.NumGoroutine(), len(files)}, float64(pages*os.Getpagesize()) / (1 << 20)
	}
	before, _ := now()
	var xs, ys []float64
	for i := range measured {
		trial(int64(warm + i))
		_, mb := now()
		xs, ys = append(xs, float64(i)), append(ys, mb)
	}
	after, _ := now()
	if after.goroutines > before.goroutines+2 || after.files > before.files+2 {
		t.Errorf("%+v before, %+v after %d trials", before, after, measured)
	}
	slope := 100 * slope(xs, ys)
	t.Logf("resident memory: %.1f MB after %d trials, %.2f MB more for each 100", ys[len(ys)-1], warm+measured, slope)
	if full() && slope > 1 {
		t.Errorf("memory grows by %.2f MB in 100 trials, want less than 1", slope)
	}
}

// slope is that of the line of least squares.
func slope(xs, ys []float64) float64 {
	mx, my := 0.0, 0.0
	for i := range xs {
		mx += xs[i] / float64(len(xs))
		my += ys[i] / float64(len(ys))
	}
	xy, xx := 0.0, 0.0
	for i := range xs {
		xy += (xs[i] - mx) * (ys[i] - my)
		xx += (xs[i] - mx) * (xs[i] - mx)
	}
	return xy / xx
}

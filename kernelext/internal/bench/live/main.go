// Command live measures what a live chart costs the training that it shows: the same training without a chart, with one, and with one whose accuracy is measured
// now and then, in one interleaved run.
package main

import (
	"context"
	"encoding/gob"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/janpfeifer/gonb/gonbui/protocol"

	"github.com/espalier-ml/espalier/datasets/mnist"
	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/kernelext/live"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/schedule"
)

func main() {
	bench.Main("live", run)
}

// contender is a way to train.
type contender struct {
	name     string
	chart    bool
	validate int
}

// sample is what a training took.
type sample struct{ wall, cpu time.Duration }

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench live", flag.ContinueOnError)
	rounds := flags.Int("rounds", 8, "rounds")
	steps := flags.Int("steps", 4000, "steps of a training")
	kernel := flags.String("kernel", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *kernel != "" {
		return serve(*kernel)
	}
	if *rounds < 1 || *steps < 100 {
		return fmt.Errorf("-rounds is %d and -steps %d: give at least 1 and 100", *rounds, *steps)
	}
	stop, err := startKernel(ctx)
	if err != nil {
		return err
	}
	defer stop()
	const batch = 128
	data, err := mnist.Open(mnist.Config{Batch: batch})
	if err != nil {
		return err
	}
	b, err := backend.Open()
	if err != nil {
		return err
	}
	task := experiment.Task{Backend: b, Model: nets.LeNet300, Train: data.Train, Validation: data.Validation}
	store, err := experiment.Init(task, 1)
	if err != nil {
		return err
	}
	trainer, err := experiment.NewTrainer(task, store)
	if err != nil {
		return err
	}
	pruner, err := prune.New(b, store, params.Select(store, nil), prune.Recipe{})
	if err != nil {
		return err
	}
	train := func(c contender, n int) (sample, error) {
		t := experiment.Training{Steps: n, Pruner: pruner, Schedule: schedule.Constant(0.9), When: schedule.Every(500, 500, n), Validate: c.validate}
		chart := live.New(c.name)
		if c.chart {
			t.Watch = chart.Watch
		}
		begin, used := time.Now(), cpu()
		_, err := trainer.Train(ctx, t)
		s := sample{time.Since(begin), cpu() - used}
		chart.Done()
		return s, err
	}
	contenders := []contender{{"without a chart", false, 0}, {"with a chart", true, 0},
		{"with a chart, accuracy every third epoch", true, 3 * data.Train.Len() / batch}, {"with a chart, accuracy each epoch", true, data.Train.Len() / batch}}
	samples := map[string][]sample{}
	for _, c := range contenders {
		if _, err := train(c, 200); err != nil { // compile and warm up
			return err
		}
	}
	for range *rounds {
		for _, i := range rand.Perm(len(contenders)) {
			s, err := train(contenders[i], *steps)
			if err != nil {
				return err
			}
			samples[contenders[i].name] = append(samples[contenders[i].name], s)
		}
	}
	wall := func(s sample) time.Duration { return s.wall }
	used := func(s sample) time.Duration { return s.cpu }
	base := samples[contenders[0].name]
	t := report.Table{
		Title: fmt.Sprintf("LeNet-300-100 on MNIST, batches of %d, %d trainings of %d steps each, interleaved", batch, *rounds, *steps),
		Columns: []report.Column{{Name: "training"}, {Name: "ms a step", Format: "%.3f"}, {Name: "against none", Unit: "%", Format: "%+.1f"},
			{Name: "CPU ms a step", Format: "%.3f"}, {Name: "against none", Unit: "%", Format: "%+.1f"}},
		Caption: "Medians; the percentages are medians of the rounds' ratios.",
	}
	for _, c := range contenders {
		all := samples[c.name]
		row := []any{c.name}
		for _, of := range []func(sample) time.Duration{wall, used} {
			var times, ratios []float64
			for i, s := range all {
				times = append(times, float64(of(s))/float64(time.Millisecond)/float64(*steps))
				ratios = append(ratios, 100*(float64(of(s))/float64(of(base[i]))-1))
			}
			row = append(row, median(times), median(ratios))
		}
		t.Rows = append(t.Rows, row)
	}
	return t.Text(os.Stdout)
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// startKernel starts what takes the place of the notebook: a process that reads and acknowledges the displays.
func startKernel(ctx context.Context) (stop func(), err error) {
	dir, err := os.MkdirTemp("", "espalier-bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	out, back := filepath.Join(dir, "out"), filepath.Join(dir, "back")
	if err := errors.Join(syscall.Mkfifo(out, 0o600), syscall.Mkfifo(back, 0o600)); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Setenv(protocol.GONB_PIPE_ENV, out), os.Setenv(protocol.GONB_PIPE_BACK_ENV, back)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-kernel", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill() // it would end with us in any case
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}, nil
}

// serve is that process.
func serve(dir string) error {
	gob.Register(map[string]any{})
	gob.Register([]any{})
	in, err := os.Open(filepath.Join(dir, "out"))
	if err != nil {
		return err
	}
	defer in.Close()
	back, err := os.OpenFile(filepath.Join(dir, "back"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer back.Close()
	decoder, encoder := gob.NewDecoder(in), gob.NewEncoder(back)
	for {
		var data protocol.DisplayData
		if err := decoder.Decode(&data); err != nil {
			return nil // the other end is gone
		}
		if comm, ok := data.Data[protocol.MIMECommValue].(protocol.CommValue); ok && comm.Address == protocol.GonbuiSyncAddress {
			if err := encoder.Encode(&protocol.CommValue{Address: protocol.GonbuiSyncAckAddress, Value: comm.Value}); err != nil {
				return err
			}
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/onnx"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/surgery"
)

// network takes [batch, 16, 16, 3] and returns the logits of three classes.
func network(scope *model.Scope, in []*graph.Node) []*graph.Node {
	x := in[0]
	for _, name := range []string{"a", "b"} {
		x = activation.Relu(layers.Convolution(scope.At("%s", name), x).Channels(8).KernelSize(3).Strides(2).PadSame().Done())
	}
	return []*graph.Node{layers.Dense(scope.At("output"), graph.ReduceMean(x, 1, 2), true, 3)}
}

// prepare writes a model and a folder of images of three classes, which are told apart by their colour.
func prepare(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("ESPALIER_HOME", filepath.Join(dir, "home"))
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := model.NewStore()
	s.SetRNGStateFromSeed(3)
	x := tensors.FromShape(shapes.Make(dtypes.Float32, 1, 16, 16, 3))
	if _, err := outputs(b, s, network, []*tensors.Tensor{x}); err != nil {
		t.Fatal(err)
	}
	if err := onnx.Write(filepath.Join(dir, "large.onnx"), b, s, network, onnx.Config{}, x.Shape()); err != nil {
		t.Fatal(err)
	}
	for class := range 3 {
		folder := filepath.Join(dir, "images", fmt.Sprint("class ", class))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			im := image.NewRGBA(image.Rect(0, 0, 16, 16))
			for p := range 256 {
				c := [3]uint8{uint8(p * (i + 3) % 60), uint8(p * (i + 5) % 60), uint8(p * (i + 7) % 60)}
				c[class] += 150
				im.Set(p%16, p/16, color.RGBA{c[0], c[1], c[2], 255})
			}
			var text bytes.Buffer
			if err := png.Encode(&text, im); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(i, ".png")), text.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func TestShrink(t *testing.T) {
	dir := prepare(t)
	for name, args := range map[string][]string{
		"labels":  {"--data", "images", "--epochs", "20", "--batch", "16", "--rate", "0.01", "--criterion", "taylor", "--round-to", "1"},
		"teacher": {"--data", "images", "--epochs", "2", "--batch", "16", "--distill", "--fold", "--round-to", "1"},
		"neither": {"--params", "0.6", "--round-to", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, progress bytes.Buffer
			args := append([]string{"-dir", dir, "large.onnx", "-o", name + ".onnx"}, args...)
			if err := run(t.Context(), args, &out, &progress); err != nil {
				t.Fatalf("%v\n%s", err, progress.String())
			}
			t.Log(out.String())
			small, err := onnx.Read(filepath.Join(dir, name+".onnx"))
			if err != nil {
				t.Fatal(err)
			}
			large, err := onnx.Read(filepath.Join(dir, "large.onnx"))
			if err != nil {
				t.Fatal(err)
			}
			if small.Inputs[0].String() != large.Inputs[0].String() || small.Outputs[0].String() != large.Outputs[0].String() {
				t.Errorf("%v -> %v, was %v -> %v", small.Inputs, small.Outputs, large.Inputs, large.Outputs)
			}
			if a, b := small.Store.NumParameters(), large.Store.NumParameters(); a*10 > b*7 {
				t.Errorf("%d parameters, of %d", a, b)
			}
			for _, v := range []string{"a/conv/weights", "output/dense/biases"} {
				if small.Store.GetVariable("/ONNX/"+strings.ReplaceAll(v, "/", "|")) == nil {
					t.Errorf("no constant is named %s", v)
				}
			}
			var plan struct{ Format string }
			text, err := os.ReadFile(filepath.Join(dir, name+".plan.json"))
			if err == nil {
				err = json.Unmarshal(text, &plan)
			}
			if err != nil || plan.Format == "" {
				t.Errorf("plan: %v", err)
			}
			if picture, err := os.Open(filepath.Join(dir, name+".groups.png")); err != nil {
				t.Error(err)
			} else if _, err := png.Decode(picture); err != nil {
				t.Errorf("the picture: %v", err)
			}
			for _, row := range []string{"parameters", "MACs", "bytes", "latency", "file", "masked network"} {
				if !strings.Contains(out.String(), row) {
					t.Errorf("the table says nothing of %s", row)
				}
			}
			if name == "labels" && !strings.Contains(out.String(), "100.00%") {
				t.Errorf("training did not learn to tell three colours apart:\n%s", out.String())
			}
		})
	}
}

// stopper cancels when it is told of something.
type stopper struct {
	bytes.Buffer
	at   string
	stop func()
}

func (s *stopper) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.at) {
		s.stop()
	}
	return s.Buffer.Write(p)
}

// Who stops between the training and the writing does not train again: the training stays until the smaller model is there.
func TestStoppedAfterTraining(t *testing.T) {
	dir := prepare(t)
	args := []string{"-dir", dir, "large.onnx", "-o", "small.onnx", "--data", "images", "--epochs", "3", "--batch", "16", "--round-to", "1"}
	ctx, cancel := context.WithCancel(t.Context())
	said := &stopper{at: "timing both", stop: cancel}
	if err := run(ctx, args, &bytes.Buffer{}, said); !errors.Is(err, context.Canceled) || !strings.Contains(said.String(), "training on the labels: step") {
		t.Fatalf("stopped: %v\n%s", err, said.String())
	}
	var again bytes.Buffer
	if err := run(t.Context(), args, &bytes.Buffer{}, &again); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(again.String(), "training on the labels: step") {
		t.Errorf("it trained again:\n%s", again.String())
	}
	if left, err := filepath.Glob(filepath.Join(dir, "home", "cache", "shrink", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, says := range []string{"outputs and folders: 0 class 0, 1 class 1, 2 class 2", "as whoever guesses", "for a test of yours"} {
		if !strings.Contains(said.String(), says) {
			t.Errorf("it does not say %q:\n%s", says, said.String())
		}
	}
}

// What others have worked is what all processors have, less this program's share.
func TestShare(t *testing.T) {
	got, ok := parseStat([]byte("cpu  100 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"))
	if want := 1710 * time.Millisecond; !ok || got != want {
		t.Errorf("worked %v, %t, want %v", got, ok, want)
	}
	for _, text := range []string{"", "intr 1 2 3", "cpu 1 2 3", "cpu a b c d e f g h"} {
		if _, ok := parseStat([]byte(text)); ok {
			t.Errorf("%q was understood", text)
		}
	}
	start := time.Now()
	before, after := work{start, 10 * time.Second, true}, work{start.Add(2 * time.Second), 11 * time.Second, true}
	if got := after.share(before); got != 0.5 {
		t.Errorf("others had %v of a processor, want 0.5", got)
	}
	if got := after.share(work{at: start}); got != 0 {
		t.Errorf("%v of what nobody has measured", got)
	}
}

// Without --round-to, channels are rounded to what was measured of this machine, and that is said.
func TestRoundToOfTheMachine(t *testing.T) {
	dir := prepare(t)
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	var now time.Time
	stands := profile.CompareConfig{Rounds: 2, Sample: 1, WarmUp: 1, Now: func() time.Time { now = now.Add(time.Millisecond); return now }} // all widths take as long
	w, err := profile.RoundTo(t.Context(), b, profile.WidthsConfig{Compare: stands})
	if err != nil || w.RoundTo != 1 {
		t.Fatalf("round to %d, %v", w.RoundTo, err)
	}
	var out, progress bytes.Buffer
	if err := run(t.Context(), []string{"-dir", dir, "large.onnx", "-o", "small.onnx"}, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	if !strings.Contains(progress.String(), "channels that stay: any number, which is what suits this machine") {
		t.Errorf("nothing is said of what was measured:\n%s", progress.String())
	}
}

// What suits the machine gives way to the budget, and an impossible budget stays one.
func TestPlanByMachine(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := model.NewStore()
	s.SetRNGStateFromSeed(3)
	x := tensors.FromShape(shapes.Make(dtypes.Float32, 1, 16, 16, 3))
	if _, err := outputs(b, s, network, []*tensors.Tensor{x}); err != nil {
		t.Fatal(err)
	}
	n, err := surgery.Trace(b, s, network, x.Shape())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		roundTo int
		macs    float64
		can     bool
		say     string
	}{
		{16, 0.45, true, "note: with multiples of 16 the budget can't be met, since the network is narrow: multiples of 4 stay\n"},
		{4, 0.45, true, ""},
		{16, 0.0001, false, ""},
	} {
		var said bytes.Buffer
		plan, err := (&job{progress: &said}).planByMachine(n, surgery.Config{MACs: c.macs, RoundTo: c.roundTo}, nil)
		var impossible *surgery.BudgetError
		if said.String() != c.say || c.can != (err == nil) || !c.can && !errors.As(err, &impossible) {
			t.Fatalf("round to %d, %g: %v, said %q", c.roundTo, c.macs, err, said.String())
		}
		if !c.can {
			continue
		}
		for _, g := range n.Groups() {
			if left := g.Size - len(plan.Removed[g.Name]); left%4 != 0 {
				t.Errorf("%d channels of %s are left, expected a multiple of 4", left, g.Name)
			}
		}
	}
}

func TestShrinkErrors(t *testing.T) {
	dir := prepare(t)
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	relu := func(_ *model.Scope, in []*graph.Node) []*graph.Node { return []*graph.Node{activation.Relu(in[0])} }
	if err := onnx.Write(filepath.Join(dir, "relu.onnx"), b, model.NewStore(), relu, onnx.Config{}, shapes.Make(dtypes.Float32, 1, 16, 16, 3)); err != nil {
		t.Fatal(err)
	}
	var wrong usageError
	for name, c := range map[string]struct {
		args  string
		usage bool
		want  string
	}{
		"no model":           {"-o small.onnx", true, "expected one"},
		"no output":          {"large.onnx", true, "-o is missing"},
		"itself":             {"large.onnx -o large.onnx", true, "model itself"},
		"itself, otherwise":  {"large.onnx -o " + dir + "/./large.onnx", true, "model itself"},
		"two budgets":        {"large.onnx -o small.onnx --macs 0.5 --params 0.5", true, "one of them"},
		"nothing":            {"large.onnx -o small.onnx --macs 0", true, "more than 0"},
		"no parameters":      {"large.onnx -o small.onnx --params 0", true, "more than 0"},
		"too much":           {"large.onnx -o small.onnx --macs 1.5", true, "shares"},
		"round to nothing":   {"large.onnx -o small.onnx --round-to 0", true, "1 or more"},
		"unknown criterion":  {"large.onnx -o small.onnx --criterion best", true, `"best"`},
		"no data":            {"large.onnx -o small.onnx --criterion taylor", true, "--data"},
		"not there":          {"none.onnx -o small.onnx", false, "none.onnx"},
		"no images":          {"large.onnx -o small.onnx --data none", false, "none"},
		"vanishes":           {"large.onnx -o small.onnx --macs 0.0001 --round-to 1", false, "MACs"},
		"an axis it has not": {"large.onnx -o small.onnx --size foo=3", false, `one for "foo"`},
		"a mean of NaN":      {"large.onnx -o small.onnx --data images --mean nan", true, "--mean"},
		"an infinite rate":   {"large.onnx -o small.onnx --data images --epochs 1 --rate inf", true, "--rate"},
		"two means":          {"large.onnx -o small.onnx --data images --mean 0.1,0.2", false, "as many numbers for --mean as the images have channels, 3, came 2"},
		"nothing to cut":     {"relu.onnx -o small.onnx", false, "there is nothing to make smaller"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), append([]string{"-dir", dir}, strings.Fields(c.args)...), &out, &out)
			if err == nil || errors.As(err, &wrong) != c.usage || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected %q, of usage %v", err, c.want, c.usage)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if err := run(ctx, []string{"-dir", dir, "large.onnx", "-o", "small.onnx", "--round-to", "1"}, &out, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "small*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

package main

import (
	"bytes"
	"errors"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/report"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		want options
	}{
		{"resnet-18", options{network: "resnet-18", batch: 1}},
		{"-dir /here resnet-18 --batch 8 --json a.jsonl --png /there/b.png", options{network: "resnet-18", batch: 8, json: "/here/a.jsonl", png: "/there/b.png"}},
		{"--batch=2 --counts lenet-5", options{network: "lenet-5", batch: 2, counts: true}},
		{"--widths", options{batch: 1, widths: true}},
	} {
		got, err := parse(strings.Fields(c.args))
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(options{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.args, diff)
		}
	}
	for args, want := range map[string]string{
		"":                              "0 networks",
		"a b":                           "2 networks",
		"a --widths":                    "--widths alone",
		"a --batch 0":                   "at least 1",
		"a --batch x":                   "invalid value",
		"a --no-such-flag":              "no-such-flag",
		"a --counts --png b.png":        "leave out --counts",
		"--batch 9223372036854775808 a": "range",
	} {
		var wrong usageError
		if _, err := parse(strings.Fields(args)); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want a usageError that says %q", args, err, want)
		}
	}
}

// A question for help is no mistake.
func TestHelp(t *testing.T) {
	for _, flags := range []string{"-h", "-dir /here --help", "lenet-5 -help"} {
		if _, err := parse(strings.Fields(flags)); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%q: %v", flags, err)
		}
	}
}

func TestCounts(t *testing.T) {
	dir := t.TempDir()
	var out, progress bytes.Buffer
	if err := run(t.Context(), []string{"-dir", dir, "--counts", "resnet18", "--batch", "2", "--json", "sub/r.jsonl"}, &out, &progress, backend.Open); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"ResNet-18, batch 2: 11,699,112 parameters, 46.8 MB, 3.628 GMACs", "layer1_0/conv1 ", "for 2 inputs", "Trained parameters: 11,689,512; the other 9,600 are running statistics."} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the output does not say %q:\n%s", part, &out)
		}
	}
	records, err := report.ReadRecords(filepath.Join(dir, "sub/r.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	last := records[len(records)-1]
	if last.Recipe != "ResNet-18" || last.Labels["layer"] != "total" || last.Labels["batch"] != "2" || last.Values["MACs"] != 2*1_814_073_344 {
		t.Errorf("the last record is %+v", last)
	}
}

func TestMeasured(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "p.png")
	var out, progress bytes.Buffer
	if err := run(t.Context(), []string{"lenet-300-100", "--png", picture}, &out, &progress, backend.Open); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "median (ms)") || !strings.Contains(progress.String(), "LeNet-300-100") {
		t.Errorf("output:\n%s\nprogress:\n%s", &out, &progress)
	}
	f, err := os.Open(picture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := png.Decode(f); err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("no backend here")
	closed := func() (compute.Backend, error) { return nil, broken }
	var unknown *nets.UnknownError
	if err := run(t.Context(), []string{"no-such-network"}, nil, nil, closed); !errors.As(err, &unknown) {
		t.Errorf("an unknown network: %v", err)
	}
	if err := run(t.Context(), []string{"lenet-5"}, nil, nil, closed); !errors.Is(err, broken) {
		t.Errorf("no backend: %v", err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"lenet-5", "--counts", "--json", "/dev/null/x"}, &out, nil, backend.Open); err == nil || !strings.Contains(err.Error(), "--json") {
		t.Errorf("a file that can't be written: %v", err)
	}
}

// Blocks are one part each, products of activations one; the shares of a series are 1 in all.
func TestShares(t *testing.T) {
	record := func(layer, kind string, parameters, macs, seconds float64) report.Record {
		return report.Record{Labels: map[string]string{"layer": layer, "kind": kind}, Values: map[string]float64{"parameters": parameters, "MACs": macs, "median seconds": seconds}}
	}
	b := shares("net", []report.Record{record("conv1", "conv", 1, 6, 0.5), record("block/a", "conv", 2, 1, 0.1), record("product 1", "product", 0, 2, 0.1),
		record("block/b", "other", 1, 0, 0.2), record("product 2", "product", 0, 1, 0.1), record("total", "", 4, 10, 2)})
	if diff := cmp.Diff([]string{"conv1", "block", "products"}, b.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	for i, want := range [][]float64{{0.25, 0.75, 0}, {0.6, 0.1, 0.3}, {0.5, 0.3, 0.2}} {
		near := cmp.Comparer(func(x, y float64) bool { return x-y < 1e-9 && y-x < 1e-9 })
		if diff := cmp.Diff(want, b.Series[i].Y, near); diff != "" {
			t.Errorf("%s (-want +got):\n%s", b.Series[i].Name, diff)
		}
	}
	if _, err := b.MIMEBundle(); err != nil {
		t.Error(err)
	}
}

func TestONNX(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "pkg", "onnx", "testdata", "torch")
	var out, progress bytes.Buffer
	if err := run(t.Context(), []string{"-dir", dir, "resnet18_legacy.onnx", "--counts", "--batch", "2"}, &out, &progress, backend.Open); err != nil {
		t.Fatal(err)
	}
	// Of its 11,689,512 parameters in full size ResNet-18 has 177,362 with an eighth of the channels and 10 classes, besides the 1,200 statistics.
	for _, want := range []string{"resnet18_legacy.onnx, batch 2: 178,562 parameters", "ONNX/layer1.0.conv1", "8×16×16", "177,362"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it says nothing of %q:\n%s", want, out.String())
		}
	}
	var wrong usageError
	if err := run(t.Context(), []string{"-dir", dir, "resnet18_dynamo.onnx", "--counts"}, &out, &progress, backend.Open); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "batches of 2") {
		t.Errorf("a batch that the model does not take: %v", err)
	}
}

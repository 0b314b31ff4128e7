package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/prune"
)

// manifests makes a small comparison and returns its manifests by contender.
func manifests(t *testing.T) map[string]string {
	t.Helper()
	data, err := synth.Digits(synth.Config{Batch: 32, Seed: 4})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mine := criterion.Magnitude
	mine.Name = "mine"
	_, err = experiment.Compare(t.Context(), experiment.Comparison{
		Task:  experiment.Task{Model: nets.LeNet300, Train: data.Train, Validation: data.Validation},
		Dense: experiment.Spec{Steps: 12}, Tune: experiment.Spec{Steps: 12, Optimizer: "sgd", Momentum: 0.9, Rate: "linear"},
		Contenders: []experiment.Contender{
			{Name: "snip", Mode: experiment.AtInit, Recipe: prune.Recipe{Criterion: criterion.SNIP}, Batches: 1},
			{Name: "gradual", Mode: experiment.Gradual},
			{Name: "my own", Recipe: prune.Recipe{Criterion: mine}},
		},
		Sparsities: []float64{0.9}, Seeds: []int64{7}, Fast: true, Dir: dir, Network: "LeNet-300-100", Data: experiment.DataSpec{Name: "digits", Batch: 32, Seed: 4},
	})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "manifests", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, f := range files {
		m, err := experiment.ReadManifest(f)
		if err != nil {
			t.Fatal(err)
		}
		byName[m.Contender] = f
	}
	return byName
}

func replay(t *testing.T, path string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	code = run(t.Context(), []string{path}, &b, &b)
	return code, b.String()
}

// change writes a manifest with something changed.
func change(t *testing.T, path string, f func(m *experiment.Manifest)) string {
	t.Helper()
	m, err := experiment.ReadManifest(path)
	if err != nil {
		t.Fatal(err)
	}
	m.Version = 1 // which has no digest
	f(&m)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "changed.json")
	if err := os.WriteFile(changed, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestReplay(t *testing.T) {
	files := manifests(t)
	for _, name := range []string{"dense", "snip", "gradual", "magnitude, at init"} {
		if code, out := replay(t, files[name]); code != 0 || !strings.Contains(out, "bit-equal") {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
	for reason, test := range map[string]struct {
		from   string
		change func(m *experiment.Manifest)
		code   int
		want   string
	}{
		"other bits of the weights": {"gradual", func(m *experiment.Manifest) { m.Weights = "0" }, 0, "equal within tolerance"},
		"another result":            {"gradual", func(m *experiment.Manifest) { m.Masks, m.Results["accuracy"] = "0", 2 }, 1, "different: first in the masks"},
		"another variable":          {"gradual", func(m *experiment.Manifest) { m.Weights, m.Each["/fc2/dense/weights"] = "0", "0" }, 0, "bits differ, first in /fc2/dense/weights"},
		"another mask": {"gradual", func(m *experiment.Manifest) {
			m.Masks, m.Each["mask of /fc2/dense/weights"], m.Each["/fc1/dense/biases"] = "0", "0", "0"
		}, 0, "bits differ, first in the mask of /fc2/dense/weights"},
		"other versions":           {"gradual", func(m *experiment.Manifest) { m.Versions["go"] = "go1.0" }, 0, "made with go go1.0"},
		"another start":            {"gradual", func(m *experiment.Manifest) { m.Examples = "0" }, 1, "starts from something else"},
		"other data":               {"gradual", func(m *experiment.Manifest) { m.Data.Seed = 5 }, 1, "starts from something else"},
		"another criterion":        {"gradual", func(m *experiment.Manifest) { m.Code, m.Masks, m.Results["accuracy"] = "0", "0", 2 }, 1, "parts compute otherwise"},
		"a name that steers":       {"gradual", func(m *experiment.Manifest) { m.Contender = "\x1b[2J" }, 2, `came "\x1b[2J"`},
		"a version that steers":    {"gradual", func(m *experiment.Manifest) { m.Versions["go"] = "\u009b2J" }, 2, `came "\u009b2J"`},
		"unknown data":             {"gradual", func(m *experiment.Manifest) { m.Data.Name = "letters" }, 2, `data set "letters"`},
		"unknown network":          {"gradual", func(m *experiment.Manifest) { m.Network = "x" }, 2, `network "x"`},
		"unknown budget":           {"gradual", func(m *experiment.Manifest) { m.Parts.Budget = "x" }, 2, `budget "x"`},
		"unknown unit":             {"gradual", func(m *experiment.Manifest) { m.Parts.Unit = "x" }, 2, `unit "x"`},
		"unknown schedule":         {"gradual", func(m *experiment.Manifest) { m.Schedule = "x" }, 2, `schedule "x"`},
		"unknown normalisation":    {"gradual", func(m *experiment.Manifest) { m.Parts.Normalize = "x" }, 2, `normalisation "x"`},
		"a criterion of one's own": {"my own", func(*experiment.Manifest) {}, 2, `criterion "mine"`},
		"no results":               {"gradual", func(m *experiment.Manifest) { m.Results = nil }, 2, "no results"},
		"a later format":           {"gradual", func(m *experiment.Manifest) { m.Version = 4 }, 2, "version"},
		"touched":                  {"gradual", func(m *experiment.Manifest) { m.Version = 2 }, 2, "damaged or changed"},
		"the same, measured worse": {"gradual", func(m *experiment.Manifest) { m.Results["accuracy"] = 2 }, 1, "different: masks and weights are the same"},
	} {
		if code, out := replay(t, change(t, files[test.from], test.change)); code != test.code || !strings.Contains(out, test.want) || strings.ContainsAny(out, "\x1b\u009b") {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", reason, code, test.code, test.want, out)
		}
	}
	if code, _ := replay(t, filepath.Join(t.TempDir(), "none.json")); code != 2 {
		t.Errorf("no file: exit code %d, want 2", code)
	}
	var b bytes.Buffer
	touched := change(t, files["dense"], func(m *experiment.Manifest) { m.Examples = "0" })
	if code := run(t.Context(), []string{touched, files["dense"]}, &b, &b); code != 1 || !strings.Contains(b.String(), "something else") || !strings.Contains(b.String(), "bit-equal") {
		t.Errorf("one that is changed and one that is not: exit code %d, want 1\n%s", code, b.String())
	}
	b.Reset()
	if code := run(t.Context(), nil, &b, &b); code != 2 || !strings.Contains(b.String(), "usage") {
		t.Errorf("no argument: exit code %d\n%s", code, b.String())
	}
}

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/kernelext/internal/bench/benchtest"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/report"
)

func record(method string, density float64, seed int64, test float64) report.Record {
	return report.Record{Recipe: method, Seed: seed, Labels: map[string]string{"study": "lenet300"}, Values: map[string]float64{"density": density, "validation": test, "test": test}}
}

// Means are over the seeds that ended; those that failed are counted; a goal is met by the mean, rounded as the published ones are; a goal of our own
// by the mean as it is.
func TestTables(t *testing.T) {
	failed := report.Record{Recipe: "set", Seed: 2, Labels: map[string]string{"study": "lenet300", "failed": "NaN"}, Values: map[string]float64{"density": 0.01}}
	layers := report.Record{Recipe: "set", Seed: 1, Labels: map[string]string{"study": "lenet300", "kind": "layers"}, Values: map[string]float64{"density": 0.01, "/fc1/dense/weights": 5}}
	all := tables([]report.Record{
		record("sparse-momentum", 0.01, 1, 0.9750), record("sparse-momentum", 0.01, 2, 0.9756), record("sparse-momentum", 0.02, 1, 0.9819),
		record("sparse-momentum, ERK", 0.01, 1, 0.9769), record("sparse-momentum, ERK", 0.01, 2, 0.97702), record("sparse-momentum, cosine", 0.01, 1, 0.977),
		layers, record("set", 0.01, 1, 0.97), failed, record("set", 0.02, 1, 0.9759),
	})
	if len(all) != 1 {
		t.Fatalf("%d tables, expected one", len(all))
	}
	var got [][]any
	for _, row := range all[0].Rows {
		got = append(got, []any{row[0], row[1], row[2], row[4], row[5], row[6], row[7]})
	}
	want := [][]any{
		{"sparse-momentum", 1.0, "97.53 ± 0.030", 2, 0, "≥ 97.53", "yes"},
		{"sparse-momentum", 2.0, "98.19", 1, 0, "≥ 98.20", "no"},
		{"sparse-momentum, ERK", 1.0, "97.70 ± 0.006", 2, 0, "≥ 97.70", "no: 97.696"},
		{"sparse-momentum, cosine", 1.0, "97.70", 1, 0, "≥ 97.70", "yes"},
		{"set", 1.0, "97.00", 1, 1, "95.80 ± 0.15", "no: it is better"},
		{"set", 2.0, "97.59", 1, 0, "97.74 ± 0.15", "yes"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got)\n%s", diff)
	}
}

// On CIFAR-10 a method has to be ahead of the control by more than the standard deviation of a difference.
func TestAhead(t *testing.T) {
	var records []report.Record
	for method, accuracies := range map[string][]float64{"static": {0.70, 0.71, 0.72}, "rigl": {0.72, 0.73, 0.74}, "sparse-momentum": {0.71, 0.72, 0.73}, "sparse-momentum, ERK": {0.72}, "dense": {0.8, 0.8}} {
		for i, a := range accuracies {
			r := record(method, 0.05, int64(i+1), a)
			r.Labels["study"] = "cifar10"
			if method == "dense" {
				r.Values["density"] = 1
			}
			records = append(records, r)
		}
	}
	got := map[any]any{}
	for _, row := range tables(records)[0].Rows {
		got[row[0]] = row[7]
	}
	want := map[any]any{"sparse-momentum": "no: +1.00 (spread 1.41)", "sparse-momentum, ERK": "not measured", "rigl": "yes: +2.00 (spread 1.41)", "static": nil, "dense": nil}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got)\n%s", diff)
	}
}

// The command from end to end on synthetic digits: a record of each method with exactly as many weights as it may have, masks, and nothing made twice.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "records.jsonl")
	args := []string{"-fast", "-study", "lenet300", "-dir", filepath.Join(dir, "runs"), "-json", file, "-masks", filepath.Join(dir, "masks")}
	var out, log bytes.Buffer
	if err := command(t.Context(), args, &out, &log); err != nil {
		t.Fatal(err)
	}
	records, err := report.ReadRecords(file)
	if err != nil {
		t.Fatal(err)
	}
	ended := map[string]bool{}
	for _, r := range records {
		if r.Labels["kind"] == "layers" {
			continue
		}
		ended[r.Recipe] = r.Values["test"] > 0 && r.Values["validation"] > 0
		kept := r.Values["kept /fc1/dense/weights"] + r.Values["kept /fc2/dense/weights"] + r.Values["kept /output/dense/weights"]
		if want := r.Values["density"] * 266_200; r.Values["density"] < 1 && (kept < want-0.5 || kept > want+0.5) {
			t.Errorf("%s: %v weights are alive, expected %v", r.Recipe, kept, want)
		}
	}
	for _, one := range studies[0].runs {
		if !ended[one.method.name] {
			t.Errorf("%s has no result", one.method.name)
		}
	}
	if masks, err := filepath.Glob(filepath.Join(dir, "masks", "lenet300-sparse-momentum-*.masks")); err != nil || len(masks) == 0 {
		t.Errorf("masks: %v, %v", masks, err)
	}
	log.Reset()
	if err := command(t.Context(), args, &out, &log); err != nil || log.Len() > 0 {
		t.Errorf("again: %v, and it logs %q, expected that there is nothing to do", err, log.String())
	}
}

// What a file has of studies that are not selected, of runs that are not there and of others is kept; runs that are there take the place of their old records, whatever step those ended at; and the order
// is that of a call with all studies.
func TestMerge(t *testing.T) {
	of := func(study, method, kind string, density float64, seed int64, step int, value float64) report.Record {
		r := report.Record{Recipe: method, Seed: seed, Step: step, Labels: map[string]string{"study": study}, Values: map[string]float64{"density": density, "value": value}}
		if kind != "" {
			r.Labels["kind"] = kind
		}
		return r
	}
	dir := t.TempDir()
	file, markdown := filepath.Join(dir, "records.jsonl"), filepath.Join(dir, "tables.md")
	old := []report.Record{
		of("cifar10", "rigl", "", 0.05, 1, 5000, 1), of("lenet5", "dense", "", 1, 2, 900, 1),
		of("lenet300", "gmp", "layers", 0.01, 1, 100, 1), of("lenet300", "gmp", "", 0.01, 1, 200, 1), of("lenet300", "gmp", "", 0.05, 1, 200, 1),
		of("lenet300", "forgotten", "", 0.05, 1, 200, 1), of("lenet300", "set", "", 0.01, 2, 200, 1),
	}
	if err := report.WriteRecords(file, old); err != nil {
		t.Fatal(err)
	}
	remade := []report.Record{of("lenet300", "gmp", "layers", 0.01, 1, 100, 2), of("lenet300", "gmp", "layers", 0.01, 1, 300, 2), of("lenet300", "gmp", "", 0.01, 1, 400, 2)}
	runs := program{dir: filepath.Join(dir, "runs")}
	s := studies[0]
	for _, j := range s.jobs() {
		if j.method.name == "gmp" && j.density == 0.01 && j.seed == 1 {
			if err := report.WriteRecords(runs.file(s, j), remade); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := append(remade, old[4], old[6], old[1], old[0], old[5])
	for _, call := range []string{"first", "second"} {
		var out, log bytes.Buffer
		if err := command(t.Context(), []string{"-tables", "-study", "lenet300,lenet5", "-dir", runs.dir, "-json", file, "-markdown", markdown}, &out, &log); err != nil {
			t.Fatal(err)
		}
		got, err := report.ReadRecords(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s call: records (-want +got)\n%s", call, diff)
		}
	}
	page, err := bench.Page(head, tables(want))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(markdown)
	if diff := cmp.Diff(string(page), string(got)); err != nil || diff != "" {
		t.Errorf("%v; the page of these records (-want +got)\n%s", err, diff)
	}
}

// A file with lines that are no records is left as it is: written again it would lack them.
func TestMergeRefusesTornFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records.jsonl")
	const text = "{\"recipe\": \"gm"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	err := command(t.Context(), []string{"-tables", "-dir", t.TempDir(), "-json", file}, &out, &log)
	var torn *report.TornError
	if !errors.As(err, &torn) {
		t.Errorf("error %v, expected a *report.TornError", err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != text {
		t.Errorf("%v; the file holds %q, expected %q", err, got, text)
	}
}

// The committed tables are those of the committed records, and the committed masks have as many living weights as these say.
func TestCommitted(t *testing.T) {
	records := benchtest.Page(t, "sparse-training", head, tables)
	checked := 0
	for _, s := range studies {
		store, set := network(t, s)
		for _, r := range records {
			if r.Labels["study"] != s.name || r.Labels["kind"] == "layers" || r.Labels["failed"] != "" || r.Seed != 1 || r.Values["density"] == 1 {
				continue
			}
			f, err := os.Open(filepath.Join(benchtest.Results, "masks", maskFile(s.name, r.Recipe, r.Values["density"])))
			if err != nil {
				t.Error(err)
				continue
			}
			err = errors.Join(mask.Load(f, store, set), f.Close())
			if err != nil {
				t.Fatal(err)
			}
			stats, err := mask.Count(store, set)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range stats {
				if want := r.Values["kept "+l.Path]; float64(l.Kept) != want {
					t.Errorf("%s: %s has %d living weights, the record says %v", f.Name(), l.Path, l.Kept, want)
				}
			}
			checked++
		}
	}
	if checked == 0 {
		t.Error("no masks were checked")
	}
}

// network returns the weights of a study's network, which have the same names in its variants.
func network(t *testing.T, s study) (*model.Store, params.Set) {
	t.Helper()
	n, err := nets.Find(s.network)
	if err != nil {
		t.Fatal(err)
	}
	g := graph.NewGraph(gobackend.GetBackend(), "variables")
	defer g.Finalize()
	store := model.NewStore()
	model.SetStore(g, store)
	n.Model(store.RootScope(), graph.Zeros(g, shapes.Make(dtypes.Float32, append([]int{1}, n.Input...)...)))
	return store, params.Select(store, nil)
}

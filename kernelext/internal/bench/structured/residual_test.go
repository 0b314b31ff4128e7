package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/datasets/imagefolder"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/surgery"
)

// small is a study of a residual network for CIFAR-10 as open makes it, but for its data, images of noise about a colour for each class, and its steps.
func small(t *testing.T, network nets.Network) study {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	for class := range 10 {
		folder := filepath.Join(dir, fmt.Sprint(class))
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 12 {
			m := image.NewNRGBA(image.Rect(0, 0, 32, 32))
			for k := range 32 * 32 {
				m.SetNRGBA(k%32, k/32, color.NRGBA{uint8(25*class + rng.IntN(30)), uint8(rng.IntN(256)), uint8(rng.IntN(256)), 255})
			}
			f, err := os.Create(filepath.Join(folder, fmt.Sprintf("%d.png", i)))
			if err != nil {
				t.Fatal(err)
			}
			if err := png.Encode(f, m); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	data, err := imagefolder.Open(imagefolder.Config{Path: dir, Batch: 8, Validation: 0.2, Test: 0.2, CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p := plan{3, 0.02, 5e-4}
	return study{network: network, data: "noise", train: data.Train, validation: data.Validation, test: data.Test, rate: 0.45, augment: true, dense: p, tune: p, slimming: 1e-4, throughout: 1e-5, lasso: 1e-5, sparsity: 0.05,
		prepare: 2, lots: 1, seeds: []int64{1}}
}

// ResNet-20 is pruned as published, −55.7% multiply-accumulates and −56.3% parameters (Tang et al. 2020, table 2), from end to end; a second time nothing is computed again.
func TestResNet20(t *testing.T) {
	network, err := nets.Find("ResNet-20-B")
	if err != nil {
		t.Fatal(err)
	}
	st := small(t, network)
	s := settings{dir: t.TempDir(), methods: []string{random, "SCOP"}}
	file := filepath.Join(s.dir, "records.jsonl")
	var records []report.Record
	b := open(t)
	found, err := s.compare(t.Context(), b, st, 1, "cpu", file, &records)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 3 {
		t.Fatalf("%d records, want those of dense, random and SCOP", len(found))
	}
	for _, r := range found {
		v := r.Values
		if !strings.Contains(r.Recipe, "ResNet-20-B on noise, crop and flip: ") || !strings.Contains(r.Recipe, ", rate=0.45, ") {
			t.Errorf("the recipe %q says neither the rate nor what is done to images", r.Recipe)
		}
		if !(v["accuracy"] >= 0 && v["accuracy"] <= 1) || math.IsNaN(v["loss"]) || math.IsInf(v["loss"], 0) || r.Labels["failed"] != "" {
			t.Errorf("%s: %+v", r.Labels["method"], r)
		}
		if r.Labels["method"] == "dense" {
			continue
		}
		if math.Abs(100*v["macs"]-44.2) > 0.2 || math.Abs(100*v["params"]-43.7) > 0.3 { // here with the statistics of normalisations, which the paper does not count
			t.Errorf("%s leaves %.2f%% of the multiply-accumulates and %.2f%% of the parameters, want 44.2 and 43.7", r.Labels["method"], 100*v["macs"], 100*v["params"])
		}
		if r.Step != st.tune.steps {
			t.Errorf("%s: tuned for %d steps, want %d", r.Labels["method"], r.Step, st.tune.steps)
		}
	}
	kept, err := report.ReadRecords(file)
	if err != nil || len(kept) != 3 {
		t.Fatalf("%d records were written, want 3 (%v)", len(kept), err)
	}
	st.network.Model = nil // which would panic
	if again, err := s.compare(t.Context(), b, st, 1, "cpu", file, &kept); err != nil || len(again) != 3 || len(kept) != 3 {
		t.Errorf("a second run has %d records (%v), want the same 3", len(again), err)
	}
	all := tables(found)
	if want := "ResNet-20-B, noise, crop and flip: a rate of 0.45 on both convolutions of each block, so that 44.2% of the multiply-accumulates stay"; all[0].Title != want {
		t.Errorf("the table is called %q, want %q", all[0].Title, want)
	}
	for text, want := range map[string]bool{"mean of 1 draws": false, "divide the budget": false, "projections of shortcuts stay whole": true, "shifted by up to 4 pixels": true} {
		if strings.Contains(all[0].Caption, text) != want {
			t.Errorf("that the caption has %q is %v: %s", text, !want, all[0].Caption)
		}
	}
}

// untrained is a job of a small residual network, and the network that methods choose of.
func untrained(t *testing.T) (*job, *surgery.Network) {
	t.Helper()
	j := &job{ctx: t.Context(), backend: open(t), study: small(t, nets.Network{Name: "ResNet-8-B", Input: []int{32, 32, 3}, Classes: 10, Model: nets.CIFARResNet(1, 8, true)}), seed: 1, draw: 1, dir: t.TempDir()}
	store, err := experiment.Init(j.task(j.study.network.Model), 1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := j.trace(store)
	if err != nil {
		t.Fatal(err)
	}
	return j, n
}

// Each method leaves as much of the work as the rate does, and all of the stream; those that divide it by rules of their own leave at most as much.
func TestRate(t *testing.T) {
	j, n := untrained(t)
	share := func(name string) (float64, *surgery.Plan) {
		t.Helper()
		one := contenders[slices.IndexFunc(contenders, func(c contender) bool { return c.name == name })]
		c, err := one.choose(j, n)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return 0, n.Empty()
		}
		cost, err := c.plan.Cost()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return float64(cost.MACs) / float64(n.Cost().MACs), c.plan
	}
	want, _ := share(random)
	for _, name := range []string{"L1", "FPGM", "slimming", "slimming, floor", "slimming, uniform", throughout, throughout + ", uniform", "group lasso", "growing", "PFP", "PFP, floor", "PFP, uniform", "PFP, sampled", "SCOP", "GAL", "ThiNet"} {
		got, p := share(name)
		own := slices.Contains([]string{"slimming", "slimming, floor", "slimming, uniform", throughout, throughout + ", uniform", "PFP", "PFP, floor", "PFP, uniform", "PFP, sampled", "ThiNet"}, name)
		if got > want || !own && got != want || got < 0.85*want { // whole channels of a narrow network are coarse
			t.Errorf("%s leaves %.4f of the multiply-accumulates, want %.4f", name, got, want)
		}
		for _, scope := range stream {
			for group := range p.Removed {
				if len(p.Removed[group]) > 0 && strings.HasPrefix(group, scope) {
					t.Errorf("%s removes channels of %s", name, group)
				}
			}
		}
	}
}

// What is cut computes what the masked network does, in which the branches are free; it can be tuned, and the task evaluates it as it is.
func TestFreeBranches(t *testing.T) {
	j, n := untrained(t)
	if keep := j.keep(n); len(keep) != 6 {
		t.Errorf("the rate is for %v, want two groups for each of 3 blocks", keep)
	}
	c, err := byCriterion(criterion.Magnitude)(j, n)
	if err != nil {
		t.Fatal(err)
	}
	cut, err := c.plan.Apply()
	if err != nil {
		t.Fatal(err)
	}
	rng, x := rand.New(rand.NewPCG(3, 4)), make([]float32, 5*32*32*3)
	for i := range x {
		x[i] = rng.Float32()
	}
	v, err := surgery.Verify(n, cut, tensors.FromFlatDataAndDimensions(x, 5, 32, 32, 3))
	if err != nil {
		t.Fatal(err)
	}
	if v.MaxDiff > 1e-4*v.MaxOutput || v.MaxOutput == 0 {
		t.Errorf("cut, the network computes something else: %s", v)
	}
	if _, err := experiment.Train(t.Context(), j.task(cut.Single), cut.Store, j.study.tune.training(2, 1, "")); err != nil {
		t.Fatal(err)
	}
	want, err := experiment.Evaluate(t.Context(), experiment.Task{Backend: j.backend, Model: cut.Single}, cut.Store, j.study.validation)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := experiment.Evaluate(t.Context(), j.task(cut.Single), cut.Store, j.study.validation); err != nil || got != want {
		t.Errorf("the task is evaluated to %+v, the cut network to %+v (%v)", got, want, err)
	}
}

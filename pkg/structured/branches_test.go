package structured

import (
	"context"
	"errors"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// A rate of 0.45 on both convolutions of each block, in networks whose shortcuts are projections, removes what SCOP's paper says of ResNet-20, 32 and 56 (Tang et al. 2020, table 2), and so does SCOP
// itself, shown for the smallest, when the stream is excluded.
func TestPublishedArithmetic(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		blocks       int
		macs, params float64 // % that go
	}{{3, 55.8, 56.3}, {5, 55.9, 56.2}, {9, 56.0, 56.1}} {
		fn := nets.CIFARResNet(c.blocks, 16, true)
		store, err := experiment.Init(experiment.Task{Backend: b, Model: fn, Train: images{1}}, 1)
		check(t, err)
		n, err := surgery.Trace(b, store, trace.Single(fn), shapes.Make(dtypes.Float32, 1, 32, 32, 3))
		check(t, err)
		n, err = FreeBranches(n)
		check(t, err)
		keep := map[string]int{}
		for _, g := range n.Groups() {
			made := slices.ContainsFunc(g.Members, func(m surgery.Member) bool { return m.Role == surgery.Makes })
			if made && strings.HasPrefix(g.Name, "/layer") && !strings.Contains(g.Name, "/downsample/") { // that is a shortcut
				keep[g.Name] = g.Size - int(math.Floor(0.45*float64(g.Size)))
			}
		}
		if len(keep) != 6*c.blocks {
			t.Errorf("%d groups in blocks, want two for each of %d", len(keep), 3*c.blocks)
		}
		p, err := n.Choose(surgery.Config{Keep: keep}, map[string][]float32{})
		check(t, err)
		plans := []*surgery.Plan{p}
		if c.blocks == 3 { // SCOP itself, as its authors have it
			stream := []string{"/conv1", "/layer2_0/downsample", "/layer3_0/downsample"}
			r, err := SCOP{Budget: Budget{Rate: 0.45, Exclude: stream}, Steps: 1, Fit: 2, Knockoffs: Noise}.Choose(ctx, n, images{2})
			check(t, err)
			if len(r.Scales) != 18 || len(r.Importance) != 18 {
				t.Errorf("%d kernels are mixed and %d groups scored, want 18: neither the first nor those of the shortcuts", len(r.Scales), len(r.Importance))
			}
			plans = append(plans, r.Plan)
		}
		for _, p := range plans {
			cost, err := p.Cost()
			check(t, err)
			removed, err := p.Indices()
			check(t, err)
			var kernels, left int // the paper counts kernels, without normalisations and biases
			for v := range store.IterVariables() {
				kernels, left = kernels+sizeOf(v.Shape(), nil), left+sizeOf(v.Shape(), removed[v.Path()])
			}
			macs, params := 100-100*float64(cost.MACs)/float64(n.Cost().MACs), 100-100*float64(left)/float64(kernels)
			if math.Abs(macs-c.macs) > 0.055 || math.Abs(params-c.params) > 0.055 {
				t.Errorf("%d layers, %s: −%.2f%% MACs and −%.2f%% parameters, want −%v and −%v", 6*c.blocks+2, p.Criterion, macs, params, c.macs, c.params)
			}
		}
	}
}

// images is a data set of one batch of n images of noise.
type images struct{ n int }

func (images) Name() string { return "images" }
func (d images) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		rng, x := seeded(1), make([]float32, d.n*32*32*3)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		yield(train.Batch{Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(x, d.n, 32, 32, 3)}, Labels: []*tensors.Tensor{tensors.FromScalarAndDimensions(int32(0), d.n, 1)}}, nil)
	}
}

// Of groups that the budget excludes nothing is mixed or scored, also where one kernel makes channels of two: the first six of a are those of the stem.
func TestSCOPExcludes(t *testing.T) {
	n := network(t, padded, size, side, side, 3)
	data := stripes{64, size}
	r, err := SCOP{Budget: Budget{Rate: 0.5, Exclude: []string{"/stem"}}, Steps: 3, LearningRate: 0.05, Seed: 1}.Choose(ctx, n, data)
	check(t, err)
	const kernel, group = "/a/conv/weights", "/a/conv/weights:3"
	k := r.Scales[kernel]
	if len(r.Scales) != 1 || len(k) != 10 || len(r.Importance) != 1 || len(r.Importance[group]) != 4 {
		t.Fatalf("scales %v and importances %v, want those of a alone", r.Scales, r.Importance)
	}
	if diff := cmp.Diff([]float32{1, 1, 1, 1, 1, 1}, k[:6]); diff != "" {
		t.Errorf("scales of the stem's channels (-want +got)\n%s", diff)
	}
	for i, x := range k[6:] {
		if x == 0.5 || x == 1 {
			t.Errorf("the scale of channel %d is %v, as if it had not been trained", 6+i, x)
		}
	}
	if len(r.Plan.Removed) != 1 || len(r.Plan.Removed[group]) != 2 {
		t.Errorf("removed %v, want two of a", r.Plan.Removed)
	}
	var none *NothingError
	if _, err := (SCOP{Budget: Budget{Exclude: []string{"/stem", "/a"}}}).Choose(ctx, n, data); !errors.As(err, &none) {
		t.Errorf("all excluded: %v, want a *NothingError", err)
	}
}

// sizeOf is how many elements a kernel keeps; 0 for vectors.
func sizeOf(s shapes.Shape, removed map[int][]int) int {
	if s.Rank() < 2 {
		return 0
	}
	size := 1
	for k, d := range s.Dimensions {
		size *= d - len(removed[k])
	}
	return size
}

// With its branches free, a network computes what it did, and cut ones what masks compute; the stream stays as it is where a branch loses channels.
func TestFreeBranches(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	free, err := FreeBranches(n)
	check(t, err)
	var x *tensors.Tensor
	for b := range (stripes{size, size}).Iter() {
		x = b.Inputs[0]
	}
	same, err := free.Empty().Apply()
	check(t, err)
	whole, err := n.Empty().Apply()
	check(t, err)
	out := func(s *surgery.Small) []float32 {
		exec, err := model.NewExec(n.Backend(), s.Store, func(_ *model.Scope, x *graph.Node) *graph.Node { return s.Single(s.Store.RootScope(), x) })
		check(t, err)
		defer exec.Finalize()
		y, err := exec.Call(x)
		check(t, err)
		return tensors.MustCopyFlatData[float32](y[0])
	}
	if diff := cmp.Diff(out(whole), out(same), near); diff != "" {
		t.Errorf("outputs (-want +got)\n%s", diff)
	}
	p := free.Empty()
	p.Removed["/b/conv/weights:3"] = []int{1, 4}
	small, err := p.Apply()
	check(t, err)
	r, err := surgery.Verify(free, small, x)
	check(t, err)
	if r.MaxDiff > 1e-5*r.MaxOutput {
		t.Errorf("the smaller network differs from the masked one by %g of %g", r.MaxDiff, r.MaxOutput)
	}
	if want := r.Before.MACs - size*side*side*9*8*2; r.After.MACs != want { // two of the six outputs of a convolution of 8 inputs
		t.Errorf("%d MACs, want %d", r.After.MACs, want)
	}
	var none *NothingError
	if _, err := FreeBranches(network(t, plain, size, side, side, 3)); !errors.As(err, &none) {
		t.Errorf("without branches: %v, want a *NothingError", err)
	}
}

// GAL on whole branches leaves out the block, with its kernels, its statistics and its work.
func TestGALBlocks(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	data := stripes{64, size}
	c := GAL{Blocks: true, Budget: Budget{Params: 0.6}, Mimic: 1, Steps: 8, MaskEvery: 4, Seed: 1}
	r, err := c.Choose(ctx, n, data)
	check(t, err)
	if r.All != 1 || len(r.Masks["/b/conv/weights"]) != 1 {
		t.Errorf("masks %v, want one, of the only branch", r.Masks)
	}
	small, err := r.Plan.Apply()
	check(t, err)
	cost, err := r.Plan.Cost()
	check(t, err)
	macs := int64(size * side * side * 9 * (6*8 + 8*6))
	if want := n.Cost().MACs - macs; cost.MACs != want {
		t.Errorf("%d MACs stay, want %d", cost.MACs, want)
	}
	for b := range data.Iter() {
		verified, err := surgery.Verify(r.Plan.Network(), small, b.Inputs[0])
		check(t, err)
		if verified.MaxDiff > 1e-5*verified.MaxOutput {
			t.Errorf("what is left differs by %g of %g", verified.MaxDiff, verified.MaxOutput)
		}
		break
	}
	var budget *surgery.BudgetError
	c.Budget.Params = 0.05
	if _, err := c.branches(n, map[string][]float32{"/b/conv/weights": {1}}); !errors.As(err, &budget) {
		t.Errorf("a budget that no branch meets: %v, want a *surgery.BudgetError", err)
	}
	var config *ConfigError
	if _, err := (GAL{Blocks: true, Budget: Budget{Rate: 0.5}}).Choose(ctx, n, data); !errors.As(err, &config) {
		t.Errorf("a rate of branches: %v, want a *ConfigError", err)
	}
}

// Averages of normalisations that are wrong become those of the data; weights stay.
func TestEstimateNorms(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	small, err := n.Empty().Apply()
	check(t, err)
	before := snapshot(small.Store)
	check(t, EstimateNorms(ctx, n.Backend(), small.Store, small.ModelFn, stripes{64, size}, 40))
	after := snapshot(small.Store)
	for path, was := range before {
		averages := strings.HasSuffix(path, "/mean") || strings.HasSuffix(path, "/variance") || strings.HasSuffix(path, "/avg_weight")
		if same := cmp.Equal(was, after[path]); same == averages {
			t.Errorf("%s is the same: %v, want %v", path, same, !averages)
		}
	}
	// The stem's averages after one batch are those of this batch, whatever they were.
	check(t, EstimateNorms(ctx, n.Backend(), small.Store, small.ModelFn, stripes{size, size}, 1))
	if diff := cmp.Diff([]float32{1, 1, 1, 1, 1, 1}, snapshot(small.Store)["/stem/batch_normalization/avg_weight"]); diff != "" {
		t.Errorf("how many batches the averages are of (-want +got)\n%s", diff)
	}
	var data *DataError
	if err := EstimateNorms(ctx, n.Backend(), small.Store, small.ModelFn, stripes{2, size}, 1); !errors.As(err, &data) {
		t.Errorf("without a batch: %v, want a *DataError", err)
	}
}

// changed is a data set that is another from its second batch on.
type changed struct {
	stripes
	batch func(b train.Batch) (train.Batch, error)
}

func (c changed) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		first := true
		for b, err := range c.stripes.Iter() {
			if !first && err == nil {
				b, err = c.batch(b)
			}
			first = false
			if !yield(b, err) {
				return
			}
		}
	}
}

// Averages that can't be estimated stay as they were, and no weight is made up.
func TestEstimateNormsChangesAllOrNothing(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	stopped, stop := context.WithCancel(ctx)
	broken := errors.New("broken disk")
	for name, batch := range map[string]func(b train.Batch) (train.Batch, error){
		"a batch of another shape": func(b train.Batch) (train.Batch, error) {
			b.Inputs[0] = tensors.FromScalarAndDimensions(float32(1), size, side, side, 4)
			return b, nil
		},
		"data that can't be read": func(b train.Batch) (train.Batch, error) { return b, broken },
		"interrupted":             func(b train.Batch) (train.Batch, error) { stop(); return b, nil },
	} {
		before := snapshot(n.Store())
		of := ctx
		if name == "interrupted" {
			of = stopped
		}
		if err := EstimateNorms(of, n.Backend(), n.Store(), n.ModelFn(), changed{stripes{64, size}, batch}, 4); err == nil {
			t.Errorf("%s: no error", name)
		}
		if diff := cmp.Diff(before, snapshot(n.Store())); diff != "" {
			t.Errorf("%s: the store was changed (-before +after)\n%s", name, diff)
		}
	}
	empty := model.NewStore()
	var value *surgery.ValueError
	if err := EstimateNorms(ctx, n.Backend(), empty, n.ModelFn(), stripes{64, size}, 1); !errors.As(err, &value) {
		t.Errorf("a store without weights: %v, want a *surgery.ValueError", err)
	}
	for v := range empty.IterVariables() {
		t.Errorf("the empty store was given %s", v.Path())
	}
}

package structured

import (
	"context"
	"errors"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/synth"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

const classes, side, size = 3, 6, 8

// stripes are images of horizontal, vertical and slanted stripes, in batches of a size. It is the same in every epoch.
type stripes struct{ n, batch int }

func (s stripes) Name() string { return "stripes" }

func (s stripes) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		rng := rand.New(rand.NewPCG(5, 5))
		for at := 0; at+s.batch <= s.n; at += s.batch {
			x, y := make([]float32, s.batch*side*side*3), make([]int32, s.batch)
			for i := range s.batch {
				y[i] = int32(rng.IntN(classes))
				phase := rng.Float64() * 6
				for p := range side * side {
					along := [classes]int{p / side, p % side, p/side + p%side}[y[i]]
					for c := range 3 {
						x[(i*side*side+p)*3+c] = float32(math.Sin(phase+2*float64(along)) + 0.3*rng.NormFloat64())
					}
				}
			}
			if !yield(train.Batch{Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(x, s.batch, side, side, 3)}, Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(y, s.batch, 1)}}, nil) {
				return
			}
		}
	}
}

func conv(s *model.Scope, name string, x *graph.Node, out int) *graph.Node {
	return layers.Convolution(s.At("%s", name), x).Channels(out).KernelSize(3).PadSame().UseBias(false).Done()
}

func normed(s *model.Scope, name string, x *graph.Node) *graph.Node {
	return norm.BatchNorm(s.At("%s", name), x, -1).Momentum(0.9).Done()
}

// residual is a network with normalisation: a stem, a block with an identity as its shortcut, two branches that are concatenated, and a dense layer.
func residual(s *model.Scope, x *graph.Node) *graph.Node {
	relu := activation.Relu
	x = relu(normed(s, "stem", conv(s, "stem", x, 6)))
	y := relu(normed(s, "a", conv(s, "a", x, 8)))
	x = relu(graph.Add(x, normed(s, "b", conv(s, "b", y, 6))))
	x = graph.Concatenate([]*graph.Node{relu(normed(s, "left", conv(s, "left", x, 5))), relu(normed(s, "right", conv(s, "right", x, 4)))}, -1)
	return layers.Dense(s.At("output"), graph.ReduceMean(x, 1, 2), true, classes)
}

// padded is a network whose shortcut adds channels of zeros, so that a kernel makes channels of two groups.
func padded(s *model.Scope, x *graph.Node) *graph.Node {
	x = activation.Relu(normed(s, "stem", conv(s, "stem", x, 6)))
	y := normed(s, "a", conv(s, "a", x, 10))
	d := x.Shape().Dimensions
	x = graph.Concatenate([]*graph.Node{x, graph.Zeros(x.Graph(), shapes.Make(x.DType(), d[0], d[1], d[2], 4))}, -1) // [batch, 6, 6, 6] -> [batch, 6, 6, 10]
	x = activation.Relu(graph.Add(x, y))
	return layers.Dense(s.At("output"), graph.ReduceMean(x, 1, 2), true, classes)
}

// plain is a network without normalisation.
func plain(s *model.Scope, x *graph.Node) *graph.Node {
	x = layers.Convolution(s.At("c1"), x).Channels(6).KernelSize(3).PadSame().Done()
	x = graph.MaxPool(x).Window(2).Done()
	x = activation.Relu(layers.Dense(s.At("fc"), graph.Reshape(x, x.Shape().Dim(0), -1), true, 10))
	return layers.Dense(s.At("output"), x, true, classes)
}

func open(t testing.TB) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// network traces a model function with weights drawn from a seed; gains are between 0.5 and 1.5.
func network(t testing.TB, fn func(*model.Scope, *graph.Node) *graph.Node, dims ...int) *surgery.Network {
	t.Helper()
	b := open(t)
	store := model.NewStore()
	store.RootScope().SetParam(model.ParamInitialSeed, int64(1))
	exec, err := model.NewExec(b, store, func(_ *model.Scope, x *graph.Node) *graph.Node {
		store.SetTraining(x.Graph(), true)
		return fn(store.RootScope(), x)
	})
	check(t, err)
	defer exec.Finalize()
	x := tensors.FromScalarAndDimensions(float32(0.1), dims...)
	_, err = exec.Call(x)
	check(t, err)
	rng := rand.New(rand.NewPCG(1, 1))
	for v := range store.IterVariables() {
		if v.DType() != dtypes.Float32 {
			continue
		}
		data := tensors.MustCopyFlatData[float32](v.MustValue())
		for i := range data {
			switch {
			case v.Name() == "scale" || v.Name() == "variance":
				data[i] = 0.5 + rng.Float32()
			case v.Name() == "avg_weight":
			case v.Shape().Rank() < 2:
				data[i] = 0.1 * float32(rng.NormFloat64())
			default:
				data[i] = float32(rng.NormFloat64() / math.Sqrt(float64(v.Shape().Size()/v.Shape().Dim(-1))))
			}
		}
		check(t, v.SetValue(tensors.FromFlatDataAndDimensions(data, v.Shape().Dimensions...)))
	}
	n, err := surgery.Trace(b, store, trace.Single(fn), shapes.Make(dtypes.Float32, dims...))
	check(t, err)
	return n
}

var ctx = context.Background()

// method is one of the package's, as a function of what all have in common.
type method struct {
	name  string
	gains bool // it needs a normalisation
	// choose plans by a seed, with data and a budget.
	choose func(n *surgery.Network, data train.Dataset, b Budget, seed int64) (*surgery.Plan, error)
}

func methods() []method {
	return []method{
		{"slimming", true, func(n *surgery.Network, _ train.Dataset, b Budget, _ int64) (*surgery.Plan, error) {
			return Slimming{Budget: b}.Choose(n)
		}},
		{"group lasso", false, func(n *surgery.Network, _ train.Dataset, b Budget, _ int64) (*surgery.Plan, error) {
			return GroupLasso{Budget: b}.Choose(n)
		}},
		{"growing", false, func(n *surgery.Network, _ train.Dataset, b Budget, _ int64) (*surgery.Plan, error) {
			return Growing{Budget: b}.Choose(n)
		}},
		{"PFP", false, func(n *surgery.Network, data train.Dataset, b Budget, seed int64) (*surgery.Plan, error) {
			r, err := PFP{Budget: b, Seed: seed}.Choose(ctx, n, data)
			if err != nil {
				return nil, err
			}
			return r.Plan, nil
		}},
		{"PFP, sampled", false, func(n *surgery.Network, data train.Dataset, b Budget, seed int64) (*surgery.Plan, error) {
			r, err := PFP{Budget: b, Sampled: true, Seed: seed}.Choose(ctx, n, data)
			if err != nil {
				return nil, err
			}
			return r.Plan, nil
		}},
		{"SCOP", true, func(n *surgery.Network, data train.Dataset, b Budget, seed int64) (*surgery.Plan, error) {
			r, err := SCOP{Budget: b, Seed: seed, Steps: 6, LearningRate: 0.05}.Choose(ctx, n, data)
			if err != nil {
				return nil, err
			}
			return r.Plan, nil
		}},
		// These networks are not trained, and the averages of their normalisations are wrong, so the student in training starts far from its teacher: the default Mimic would be too much at once.
		{"GAL", false, func(n *surgery.Network, data train.Dataset, b Budget, seed int64) (*surgery.Plan, error) {
			r, err := GAL{Budget: b, Seed: seed, Mimic: 1, Steps: 12, MaskEvery: 3}.Choose(ctx, n, data)
			if err != nil {
				return nil, err
			}
			return r.Plan, nil
		}},
		{"ThiNet", false, func(n *surgery.Network, data train.Dataset, b Budget, _ int64) (*surgery.Plan, error) {
			r, err := ThiNet{Budget: b, Batches: 3}.Choose(ctx, n, data)
			if err != nil {
				return nil, err
			}
			return r.Plan, nil
		}},
	}
}

// snapshot copies all variables of a store.
func snapshot(store *model.Store) map[string]any {
	all := map[string]any{}
	for v := range store.IterVariables() {
		if v.DType() == dtypes.Float32 {
			all[v.Path()] = slices.Clone(tensors.MustCopyFlatData[float32](v.MustValue()))
		} else {
			all[v.Path()] = v.Shape().String()
		}
	}
	return all
}

// Every method, on a network with normalisation and one without: its plan meets the budget, can be applied, and leaves what the masked network computes; the same seed gives the same plan, and
// nothing that it was given is changed. Without the gains that it needs, it says so.
func TestConformance(t *testing.T) {
	data := stripes{64, size}
	for _, net := range []struct {
		name string
		fn   func(*model.Scope, *graph.Node) *graph.Node
	}{{"residual", residual}, {"plain", plain}, {"padded", padded}} {
		n := network(t, net.fn, size, side, side, 3)
		for _, m := range methods() {
			if net.name == "residual" && m.name == "PFP, sampled" { // what it measures is what PFP does
				continue
			}
			if net.name == "padded" && !slices.Contains([]string{"slimming", "SCOP", "GAL"}, m.name) { // those which look at channels of a kernel
				continue
			}
			t.Run(net.name+"/"+m.name, func(t *testing.T) {
				before := snapshot(n.Store())
				b := Budget{MACs: 0.6}
				p, err := m.choose(n, data, b, 3)
				if diff := cmp.Diff(before, snapshot(n.Store())); diff != "" {
					t.Errorf("the network's store (-want +got)\n%s", diff)
				}
				var none *NoGainError
				if m.gains && net.name == "plain" {
					if !errors.As(err, &none) {
						t.Fatalf("without gains: %v, want a *NoGainError", err)
					}
					return
				}
				check(t, err)
				cost, err := p.Cost()
				check(t, err)
				if limit := int64(0.6 * float64(n.Cost().MACs)); cost.MACs > limit || cost.MACs < limit/3 {
					t.Errorf("%d of %d MACs stay, want at most %d and not far less", cost.MACs, n.Cost().MACs, limit)
				}
				if net.name == "plain" || m.gains {
					again, err := m.choose(n, data, b, 3)
					check(t, err)
					if diff := cmp.Diff(p.Removed, again.Removed); diff != "" {
						t.Errorf("a second time (-want +got)\n%s", diff)
					}
				}
				small, err := p.Apply()
				check(t, err)
				for batch := range data.Iter() {
					r, err := surgery.Verify(p.Network(), small, batch.Inputs[0])
					check(t, err)
					if r.MaxDiff > 1e-5*max(1, r.MaxOutput) {
						t.Errorf("the smaller network differs from the masked one by %g of %g", r.MaxDiff, r.MaxOutput)
					}
					break
				}
				var config *ConfigError
				if _, err := m.choose(n, data, Budget{Rate: 0.45, MACs: 0.5}, 3); !errors.As(err, &config) {
					t.Errorf("two budgets: %v, want a *ConfigError", err)
				}
				if _, err := m.choose(n, data, Budget{Rate: 1.5}, 3); !errors.As(err, &config) {
					t.Errorf("a rate of 1.5: %v, want a *ConfigError", err)
				}
				if slices.Contains([]string{"SCOP", "GAL", "PFP, sampled"}, m.name) || net.name == "residual" && !m.gains { // it would be trained or measured again, for what Budget does for all
					return
				}
				for _, least := range []float64{0, 0.8} {
					rate, err := m.choose(n, data, Budget{Rate: 0.45, MinShare: least}, 3)
					check(t, err)
					for _, g := range rate.Network().Groups() {
						want := min(int(0.45*float64(g.Size)), g.Size-int(math.Ceil(least*float64(g.Size))))
						if got := len(rate.Removed[g.Name]); got != want {
							t.Errorf("a rate of 0.45, with %g that stay, removes %d of %d units of %s, want %d", least, got, g.Size, g.Name, want)
						}
					}
				}
			})
		}
	}
}

// promised is a data set of the library that says what its batch was asked to be, also where there are fewer examples.
type promised struct {
	*synth.Dataset
	batch int
}

func (p promised) Batch() int { return p.batch }

// fewer is a data set of the library with n examples, of the size that networks here take.
func fewer(t *testing.T, n int) *synth.Dataset {
	t.Helper()
	data, err := synth.Blobs(synth.BlobsConfig{Config: synth.Config{Train: n, Batch: size, Seed: 1}, Classes: classes, Features: side * side * 3})
	check(t, err)
	return data.Train
}

// blobs is a network for the data of fewer.
func blobs(net func(*model.Scope, *graph.Node) *graph.Node) func(*model.Scope, *graph.Node) *graph.Node {
	return func(s *model.Scope, x *graph.Node) *graph.Node {
		return net(s, graph.Reshape(x, x.Shape().Dim(0), side, side, 3)) // [batch, 1, 108, 1] -> [batch, 6, 6, 3]
	}
}

// Data that give not one whole batch, or none at all, are an error that says so; also where they yield a smaller batch than they say, or what is no input of the network.
func TestUnusableData(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	onBlobs := network(t, blobs(residual), size, 1, side*side*3, 1)
	for _, m := range methods() {
		for _, c := range []struct {
			n    *surgery.Network
			data train.Dataset
			want string
		}{{n, stripes{4, 8}, "not one whole batch"}, {n, nil, "there is none"}, {onBlobs, promised{fewer(t, 4), size}, "not one whole batch"}, {n, fewer(t, size), "traced for"}} {
			_, err := m.choose(c.n, c.data, Budget{}, 1)
			var want *DataError
			if needs := !slices.Contains([]string{"slimming", "group lasso", "growing"}, m.name); needs && (!errors.As(err, &want) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s with %v: %v, want a *DataError that says %q", m.name, c.data, err, c.want)
			}
		}
	}
}

// mislabelled has a label that is none, of the third example of each batch.
type mislabelled struct {
	stripes
	label int32
}

func (m mislabelled) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for b, err := range m.stripes.Iter() {
			labels := tensors.MustCopyFlatData[int32](b.Labels[0])
			labels[2] = m.label
			b.Labels[0] = tensors.FromFlatDataAndDimensions(labels, len(labels), 1)
			if !yield(b, err) {
				return
			}
		}
	}
}

// A label without a logit teaches no scale anything, and is an error; a loss of one's own may know what it means.
func TestLabelsAreLogits(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	for _, label := range []int32{-1, classes} {
		data := mislabelled{stripes{32, size}, label}
		var wrong *DataError
		if _, err := (SCOP{Steps: 2}).Choose(ctx, n, data); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "example 2 of a batch has the label") {
			t.Errorf("label %d: %v, want a *DataError", label, err)
		}
		own := func(labels, predictions []*graph.Node) *graph.Node {
			return graph.ReduceAllMean(graph.Square(predictions[0]))
		}
		_, err := SCOP{Steps: 2, Loss: own}.Choose(ctx, n, data)
		check(t, err)
	}
}

// A network of another type than float32 is chosen from, or it is said that the method can't.
func TestOtherTypes(t *testing.T) {
	data := stripes{32, size}
	n := network(t, func(s *model.Scope, x *graph.Node) *graph.Node {
		return residual(s, graph.ConvertDType(x, dtypes.Float64))
	}, size, side, side, 3)
	for _, m := range methods() {
		p, err := m.choose(n, data, Budget{MACs: 0.6}, 3)
		var value *surgery.ValueError
		switch {
		case slices.Contains([]string{"slimming", "SCOP", "ThiNet"}, m.name):
			if !errors.As(err, &value) {
				t.Errorf("%s: %v, want a *surgery.ValueError", m.name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", m.name, err)
		default:
			_, err := p.Apply()
			check(t, err)
		}
	}
}

// Masks that are no numbers choose nothing.
func TestMasksAreNumbers(t *testing.T) {
	n := network(t, residual, size, side, side, 3)
	var diverged *DivergedError
	if _, err := (GAL{Steps: 4}).Choose(ctx, n, stripes{32, 1}); !errors.As(err, &diverged) {
		t.Errorf("%v, want a *DivergedError", err)
	}
}

// As many examples as were asked for are looked at, or it is an error. An evaluation set of 12 has one whole batch of 8.
func TestFewerExamplesThanAsked(t *testing.T) {
	n := network(t, blobs(plain), size, 1, side*side*3, 1)
	for _, c := range []struct {
		data     train.Dataset
		examples int
		enough   bool
	}{{fewer(t, 4), 0, true}, {fewer(t, 4), 4, true}, {fewer(t, 4), 8, false}, {fewer(t, 12).Shuffled(false), 8, true}, {fewer(t, 12).Shuffled(false), 12, false}} {
		_, err := PFP{Budget: Budget{Rate: 0.5}, Examples: c.examples}.Choose(ctx, n, c.data)
		var few *DataError
		if c.enough && err != nil || !c.enough && !errors.As(err, &few) {
			t.Errorf("%d examples of %v: %v, want a *DataError: %v", c.examples, c.data, err, !c.enough)
		}
	}
}

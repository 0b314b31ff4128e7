package structured

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/reconstruct"
	"github.com/espalier-ml/espalier/pkg/signal"
	"github.com/espalier-ml/espalier/pkg/surgery"
)

// ThiNet removes the channels that the next layers miss least, and refits what is left of these layers to what they computed before: Luo et al. 2017, arXiv:1707.06342. It needs no labels and no
// training; labels that the data have are not looked at.
//
// Departures from the paper: the error of removing channels is exact over all positions and outputs of the data, where the paper samples (criterion.ThiNet); each weight of the survivors is
// refitted, as in He et al. 2017, arXiv:1707.06168, where ThiNet has a factor for each channel (reconstruct.LeastSquares); and all layers are refitted to the inputs that they have in the
// whole network, not layer by layer to those that earlier removals leave, so that fine-tuning has more to do where many channels go.
type ThiNet struct {
	Budget Budget // the same share of each group stays, if it does not say otherwise
	// Batches of data that are looked at. Default: 10
	Batches int
	// Damp is the share of the mean of the diagonal that is added to the equations' matrix. 0 is 0.01, negative is none.
	Damp float64
}

// ThiNetResult is what ThiNet finds.
type ThiNetResult struct {
	// Plan is for a copy of the network with refitted kernels, Plan.Network(); the network that was given is as it was.
	Plan *surgery.Plan
	// Errors are the relative squared errors of the kernels' outputs after the refit, by path, and Unfitted what they would be if the largest weights had been kept as they are.
	Errors, Unfitted map[string]float64
}

// Choose ranks, removes and refits.
//
// Errors: *DataError; *ConfigError; *signal.LayerError for kernels whose products have no rule there, as in groups; *reconstruct.Error; *surgery.ValueError for kernels that are not in
// float32; those of surgery.Network.Plan.
func (c ThiNet) Choose(ctx context.Context, n *surgery.Network, data train.Dataset) (*ThiNetResult, error) {
	if c.Batches < 0 {
		return nil, &ConfigError{"ThiNet.Batches", fmt.Sprintf("it is %d", c.Batches), "give a positive number, or 0 for the default"}
	}
	if err := c.Budget.check(n); err != nil {
		return nil, err
	}
	if c.Batches == 0 {
		c.Batches = 10
	}
	if len(n.Inputs()) != 1 {
		return nil, &ConfigError{"ThiNet", fmt.Sprintf("the network has %d inputs", len(n.Inputs())), "give a network of one input, or choose with another method"}
	}
	if data == nil {
		return nil, &DataError{"", "there is none", "give a data set that yields batches of the network's inputs"}
	}
	store, err := workspace(n)
	if err != nil {
		return nil, err
	}
	// They are read once, not for each layer.
	kept, err := remember(ctx, n.Inputs(), data, c.Batches)
	if err != nil {
		return nil, err
	}
	source := signal.Source{Backend: n.Backend(), Store: store, Data: kept, Batches: c.Batches, Model: func(scope *model.Scope, x *graph.Node) *graph.Node {
		out := n.ModelFn()(scope, []*graph.Node{x})
		y := out[0]
		for _, other := range out[1:] { // what other heads read is looked at, too
			y = graph.Add(y, graph.MulScalar(graph.ReduceAllSum(graph.ConvertDType(other, y.DType())), 0))
		}
		return y
	}}
	cfg := surgery.Config{Criterion: criterion.ThiNet, Normalize: asIs}
	for _, p := range n.Params(cfg) {
		if _, err := values(store, p.Path); err != nil {
			return nil, err
		}
	}
	sig, err := signal.Collect(source, n.Params(cfg), cfg.Criterion.Needs)
	if err != nil {
		return nil, err
	}
	importance, err := n.Importance(cfg, sig)
	if err != nil {
		return nil, err
	}
	chosen, err := c.Budget.choose(n, "ThiNet", WithinGroup, importance)
	if err != nil {
		return nil, err
	}
	removed, err := chosen.Indices()
	if err != nil {
		return nil, err
	}
	r := &ThiNetResult{Errors: map[string]float64{}, Unfitted: map[string]float64{}}
	set := n.Params(cfg)
	refitted := map[string][]float32{}
	for _, path := range slices.Sorted(maps.Keys(removed)) {
		i := slices.IndexFunc(set, func(p params.Param) bool { return p.Path == path })
		if i < 0 || len(removed[path][set[i].In]) == 0 {
			continue // it is made smaller, but reads all that it read
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := set[i]
		gram, err := signal.Grams(source, p)
		if err != nil {
			return nil, err
		}
		w, in, out, err := reconstruct.Weights(store, p)
		if err != nil {
			return nil, err
		}
		rows, err := reconstruct.ChannelInputs(p, removed[path][p.In])
		if err != nil {
			return nil, err
		}
		fit, err := reconstruct.LeastSquares(w, in, out, (*reconstruct.Gram)(gram), rows, reconstruct.LeastSquaresConfig{Damp: c.Damp})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		refitted[path], r.Errors[path], r.Unfitted[path] = fit.Weights, fit.Error, fit.MagnitudeError
	}
	for path, w := range refitted {
		v := store.GetVariable(path)
		if err := v.SetValue(tensors.FromFlatDataAndDimensions(w, v.Shape().Dimensions...)); err != nil {
			return nil, err
		}
	}
	copied, err := surgery.Trace(n.Backend(), store, n.ModelFn(), n.Inputs()...)
	if err != nil {
		return nil, err
	}
	r.Plan = copied.Empty()
	r.Plan.Removed, r.Plan.Criterion, r.Plan.Budget = chosen.Removed, "ThiNet", chosen.Budget
	return r, r.Plan.Check()
}

// remembered is a data set of inputs on the host.
type remembered struct {
	name   string
	inputs []*tensors.Tensor
}

// remember reads the inputs of the first batches of an epoch.
func remember(ctx context.Context, of []shapes.Shape, data train.Dataset, n int) (*remembered, error) {
	r := &remembered{name: data.Name()}
	err := each(ctx, of, data, 1, n, false, func(_ int, b train.Batch) error {
		x, err := b.Inputs[0].LocalClone()
		r.inputs = append(r.inputs, x)
		return err
	})
	return r, err
}

// Name implements train.Dataset.
func (r *remembered) Name() string { return r.name }

// Iter implements train.Dataset. Labels are all 0: pkg/signal asks for some, and for what ThiNet needs it does not look at them.
func (r *remembered) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for _, input := range r.inputs {
			x, err := input.LocalClone()
			labels := tensors.FromScalarAndDimensions(int32(0), input.Shape().Dimensions[0], 1)
			if !yield(train.Batch{Inputs: []*tensors.Tensor{x}, Labels: []*tensors.Tensor{labels}}, err) {
				return
			}
		}
	}
}

// Package structured has methods that choose which channels, neurons and heads of a network go; pkg/surgery then removes them, and proves that the smaller network computes what is left.
//
//	n, err := surgery.Trace(backend, store, modelFn, inputShape)
//	result, err := structured.SCOP{Budget: structured.Budget{MACs: 0.5}}.Choose(ctx, n, data)
//	small, err := result.Plan.Apply()
//	err = structured.EstimateNorms(ctx, backend, small.Store, small.ModelFn, data, 100) // and fine-tune
//
// Every method is a function of a network, data and its configuration, and what it returns is a surgery.Plan. None of them changes the network's store: those that train do so in a
// copy. The same seed gives the same plan. They accept any model function that can be traced; what they need of it besides is said at each of them, and is an error where it is missing.
//
// Slimming, GroupLasso and Growing change how a network is trained, so they come as a model function for any training loop, which adds a penalty to the loss, and a choice afterwards.
package structured

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Budget says how much stays. The zero value keeps half of the multiply-accumulates. One of MACs, Params, Units and Rate is set at most.
type Budget struct {
	// MACs, Params and Units are the share that stays, as in surgery.Config.
	MACs, Params, Units float64
	// Rate is the share of the units of each group that goes, rounded down, as papers state it for layers.
	Rate float64
	// MinUnits and MinShare are how many units, and what share of them, always stay of each group; RoundTo is what their number is made a multiple of. Defaults: 1, 0 and 1.
	// Where units of different groups compete, a method may leave so little of one that fine-tuning can't make up for it; a share of at least half of what the others keep guards against that.
	MinUnits int
	MinShare float64
	RoundTo  int
	// Exclude are groups that stay whole: by name, by the path of one of their variables, or by a scope of one.
	Exclude []string
	// Compete says whether the units of all groups compete, or the same share of each group stays. The default is the method's own.
	Compete Competition
}

// Competition says what is ranked together.
type Competition int

// What competes.
const (
	AsPublished Competition = iota // what the method's authors do
	WithinGroup                    // units of one group: the same share of each stays
	Global                         // the units of all groups
)

// config is the budget as surgery takes it.
func (b Budget) config(method string, published Competition) surgery.Config {
	if b.Compete == AsPublished {
		b.Compete = published
	}
	return surgery.Config{Criterion: named(method), MACs: b.MACs, Params: b.Params, Units: b.Units, MinUnits: b.MinUnits, MinShare: b.MinShare, RoundTo: b.RoundTo,
		Exclude: b.Exclude, Uniform: b.Compete == WithinGroup}
}

// named is a criterion for surgery.Network.Choose, which needs its name only.
func named(method string) criterion.Criterion {
	c := criterion.Magnitude
	c.Name = method
	return c
}

// check returns an error for what can't be meant of a network, before anything is trained for it.
func (b Budget) check(n *surgery.Network) error {
	set := 0
	for _, s := range []struct {
		field string
		share float64
	}{{"MACs", b.MACs}, {"Params", b.Params}, {"Units", b.Units}} {
		if math.IsNaN(s.share) || s.share < 0 || s.share > 1 {
			return &ConfigError{"Budget." + s.field, fmt.Sprintf("the share that stays is %v", s.share), "give one between 0 and 1, for instance 0.5"}
		}
		if s.share != 0 {
			set++
		}
	}
	if b.Rate != 0 {
		set++
	}
	switch {
	case set > 1:
		return &ConfigError{"Budget", "several of MACs, Params, Units and Rate are set", "set one of them"}
	case !(b.Rate >= 0 && b.Rate < 1):
		return &ConfigError{"Budget.Rate", fmt.Sprintf("it is %v", b.Rate), "give the share of each group that goes, between 0 and 1, for instance 0.45"}
	case !(b.MinShare >= 0 && b.MinShare < 1):
		return &ConfigError{"Budget.MinShare", fmt.Sprintf("it is %v", b.MinShare), "give the share of each group that stays at least, between 0 and 1, for instance 0.1"}
	case b.MinUnits < 0 || b.RoundTo < 0:
		return &ConfigError{"Budget.MinUnits, Budget.RoundTo", fmt.Sprintf("they are %d and %d", b.MinUnits, b.RoundTo), "give positive numbers, or 0 for 1"}
	case b.Compete < AsPublished || b.Compete > Global:
		return &ConfigError{"Budget.Compete", fmt.Sprintf("it is %d", b.Compete), "give AsPublished, WithinGroup or Global"}
	}
	_, err := n.Choose(surgery.Config{Units: 1, Exclude: b.Exclude}, nil) // it knows what may be excluded
	return err
}

// choose makes a plan of importances.
func (b Budget) choose(n *surgery.Network, method string, published Competition, importance map[string][]float32) (*surgery.Plan, error) {
	if err := b.check(n); err != nil {
		return nil, err
	}
	cfg := b.config(method, published)
	if b.Rate != 0 {
		cfg.Keep = map[string]int{}
		for _, g := range n.Groups() {
			if importance[g.Name] != nil && !b.excludes(g) {
				cfg.Keep[g.Name] = b.atLeast(g.Size-int(math.Floor(b.Rate*float64(g.Size)+1e-9)), g.Size)
			}
		}
	}
	if len(importance) == 0 || b.Rate != 0 && len(cfg.Keep) == 0 { // with no number to keep of any group, surgery would take half of the MACs
		return nil, &NothingError{method}
	}
	return n.Choose(cfg, importance)
}

// atLeast keeps what the budget says has to stay.
func (b Budget) atLeast(stay, size int) int {
	stay = max(stay, b.MinUnits, int(math.Ceil(b.MinShare*float64(size)-1e-9)), 1)
	if b.RoundTo > 1 {
		stay = (stay + b.RoundTo - 1) / b.RoundTo * b.RoundTo
	}
	return min(stay, size)
}

func (b Budget) excludes(g *surgery.Group) bool {
	return slices.ContainsFunc(b.Exclude, func(e string) bool {
		return g.Name == e || slices.ContainsFunc(g.Members, func(m surgery.Member) bool { return inside(m.Path, e) })
	})
}

// inside tells whether a path is that of a variable, or below that of a scope, with or without a separator at its end.
func inside(path, by string) bool {
	return path == by || under(path, strings.TrimSuffix(by, model.ScopeSeparator))
}

// ConfigError says which field of a configuration can't be used. Nothing was changed.
type ConfigError struct{ Field, Problem, Remedy string }

func (e *ConfigError) Error() string { return fmt.Sprintf("%s: %s; %s", e.Field, e.Problem, e.Remedy) }

// DataError says that the data can't be used.
type DataError struct{ Data, Problem, Remedy string }

func (e *DataError) Error() string {
	return fmt.Sprintf("data %q: %s; %s", e.Data, e.Problem, e.Remedy)
}

// NoGainError says that a network has no gains of batch normalisation where a method needs them.
type NoGainError struct {
	Method string
	// Kernels are the products that have none.
	Kernels []string
}

func (e *NoGainError) Error() string {
	return fmt.Sprintf("%s needs a batch normalisation with a gain behind the kernels whose channels it judges, and there is none behind %s; add one, or choose with a method that needs none, such as PFP or GAL",
		e.Method, e.Kernels)
}

// NothingError says that a method scores no group of the network.
type NothingError struct{ Method string }

func (e *NothingError) Error() string {
	return fmt.Sprintf("%s finds no group of the network that it can score: print the network's Groups and Notes, and exclude fewer", e.Method)
}

// DivergedError says that training came to values that are no numbers.
type DivergedError struct {
	Method string
	Step   int
	What   string
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("%s: %s is no number after step %d: try a smaller learning rate", e.Method, e.What, e.Step)
}

// epochs yields batches, epoch after epoch, of one size: that of the first, which must not be smaller than what the data set itself says is its batch. Smaller ones at the ends of epochs are left out,
// since each size is compiled anew. 0 epochs are without end. of are the inputs of the network that the batches are for; nil: that is not known.
func epochs(ctx context.Context, of []shapes.Shape, data train.Dataset, count int, labels bool) iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		var first train.Batch
		size, whole := -1, 0
		if says, ok := data.(interface{ Batch() int }); ok {
			whole = says.Batch()
		}
		for epoch := 0; count == 0 || epoch < count; epoch++ {
			all := data.Iter
			if e, ok := data.(interface {
				Epoch(epoch int) iter.Seq2[train.Batch, error]
			}); ok {
				all = func() iter.Seq2[train.Batch, error] { return e.Epoch(epoch) }
			}
			some := false
			for b, err := range all() {
				if err == nil {
					err = ctx.Err()
				}
				if err == nil {
					err = usable(of, data, b, labels)
				}
				if err != nil {
					yield(first, err)
					return
				}
				n := b.Inputs[0].Shape().Dimensions[0]
				if size < 0 && n >= whole {
					size = n
				}
				if n != size {
					if err := b.Finalize(); err != nil {
						yield(first, err)
						return
					}
					continue
				}
				some = true
				if !yield(b, nil) {
					return
				}
			}
			if !some {
				yield(first, &DataError{data.Name(), "it has not one whole batch", "give more examples, or a smaller batch"})
				return
			}
		}
	}
}

func usable(of []shapes.Shape, data train.Dataset, b train.Batch, labels bool) error {
	switch {
	case slices.Contains(b.Inputs, nil) || slices.Contains(b.Labels, nil):
		return &DataError{data.Name(), "an input or a label of a batch is nil", "make it yield tensors"}
	case len(b.Inputs) == 0 || b.Inputs[0].Shape().Rank() == 0 || b.Inputs[0].Shape().Dimensions[0] == 0:
		return &DataError{data.Name(), "a batch has no inputs", "make it yield the inputs of the network, each [batch, …]"}
	case labels && len(b.Labels) == 0:
		return &DataError{data.Name(), "a batch has no labels", "make it yield labels, or choose with a method that needs none, such as PFP"}
	case of == nil:
		return nil
	case len(b.Inputs) != len(of):
		return &DataError{data.Name(), fmt.Sprintf("a batch has %d inputs, and the network %d", len(b.Inputs), len(of)), "make it yield those of the network, in its order"}
	}
	for i, want := range of {
		if got := b.Inputs[i].Shape(); got.DType != want.DType || got.Rank() != want.Rank() || !slices.Equal(got.Dimensions[1:], want.Dimensions[1:]) {
			return &DataError{data.Name(), fmt.Sprintf("input %d of a batch is %s, and the network was traced for %s", i, got, want), "give batches of that type and shape, of any size"}
		}
	}
	return nil
}

// take calls f for the first n batches, of as many epochs as that takes.
func take(ctx context.Context, of []shapes.Shape, data train.Dataset, n int, labels bool, f func(step int, b train.Batch) error) error {
	return each(ctx, of, data, 0, n, labels, f)
}

// errEnough is what f returns to end the reading of data.
var errEnough = errors.New("enough")

// each calls f for the first n batches of so many epochs.
func each(ctx context.Context, of []shapes.Shape, data train.Dataset, count, n int, labels bool, f func(step int, b train.Batch) error) error {
	if data == nil {
		return &DataError{"", "there is none", "give a data set that yields batches of the network's inputs"}
	}
	step := 0
	for b, err := range epochs(ctx, of, data, count, labels) {
		if err != nil {
			return err
		}
		err := f(step, b)
		if failed := b.Finalize(); failed != nil {
			return errors.Join(err, failed)
		}
		if err == errEnough {
			return nil
		}
		if err != nil {
			return err
		}
		if step++; step == n {
			return nil
		}
	}
	return nil
}

// column makes labels [batch] the [batch, 1] that GoMLX's losses ask for.
func column(labels *graph.Node) *graph.Node {
	if labels.Rank() == 1 {
		return graph.InsertAxes(labels, -1)
	}
	return labels
}

// meanLoss is the mean of a loss of labels and outputs; fn nil is sparse categorical cross-entropy.
func meanLoss(fn train.LossFn, labels, outputs []*graph.Node) *graph.Node {
	if fn == nil {
		fn = loss.SparseCategoricalCrossEntropyLogits
	}
	with := slices.Clone(labels)
	for i := range with {
		with[i] = column(with[i])
	}
	l := fn(with, outputs)
	if l.Rank() > 0 {
		l = graph.ReduceAllMean(l)
	}
	return l
}

// workspace is a copy of a network's store that a method may train in. Nothing in it can be trained until it says so.
func workspace(n *surgery.Network) (*model.Store, error) {
	plan := n.Empty()
	store, err := plan.Masked()
	if err != nil {
		return nil, err
	}
	for _, g := range n.Groups() {
		for _, m := range g.Members {
			if v := store.GetVariable(m.Path); m.Role != surgery.Follows && v == nil {
				return nil, &surgery.ValueError{Path: m.Path, Problem: "has no value", Remedy: "initialise the network, train it, or load its weights before"}
			}
		}
	}
	return store, nil
}

// runner compiles a step over a store's variables. The graph is told whether it trains.
func runner(b compute.Backend, store *model.Store, training bool, build func(scope *model.Scope, in []*graph.Node) []*graph.Node) (*model.Exec, error) {
	exec, err := model.NewExec(b, store, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		defer guard.Building()
		store.SetTraining(in[0].Graph(), training)
		return build(store.RootScope(), in)
	})
	if err != nil {
		return nil, err
	}
	exec.SetMaxCache(-1)
	return exec, nil
}

// call runs a step.
func call(what string, exec *model.Exec, args ...any) (results []*tensors.Tensor, err error) {
	err = guard.Run(what, func() error {
		var err error
		results, err = exec.Call(args...)
		return err
	})
	return results, err
}

// host reads what a step returns, and frees it.
func host(results []*tensors.Tensor) ([][]float32, error) {
	values := make([][]float32, len(results))
	for i, r := range results {
		var err error
		if values[i], err = tensors.CopyFlatData[float32](r); err != nil {
			return nil, err
		}
		if err := r.FinalizeAll(); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func anys(ts ...*tensors.Tensor) []any {
	all := make([]any, len(ts))
	for i, t := range ts {
		all[i] = t
	}
	return all
}

// EstimateNorms runs some batches forward in training, so that the averages of batch normalisation become those of the network as it is now: surgery changes what normalisations
// see. Everything that the model function updates by itself is updated; no weight is. batches 0 stands for 100. The averages of GoMLX's BatchNorm start anew; others forget their past as
// fast as their momentum says.
//
// Errors: *ConfigError; *DataError; *surgery.ValueError for a store without the network's weights; what building the network panics with; the context's. The store is as it was then.
func EstimateNorms(ctx context.Context, b compute.Backend, store *model.Store, fn trace.ModelFn, data train.Dataset, batches int) error {
	if batches < 0 {
		return &ConfigError{"batches", fmt.Sprintf("it is %d", batches), "give a positive number, or 0 for 100"}
	}
	if batches == 0 {
		batches = 100
	}
	exec, err := runner(b, store, true, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		out := fn(scope, in)[0]
		for v := range store.IterVariables() {
			if v.Trainable && v.InUseByGraph(out.Graph()) && !v.HasValue() { // GoMLX would draw it
				panic(&surgery.ValueError{Path: v.Path(), Problem: "has no value", Remedy: "give the store that the network was initialised and trained in"})
			}
		}
		train.ExecPerStepUpdateGraphFn(out.Graph())
		return []*graph.Node{graph.ReduceAllSum(out)}
	})
	if err != nil {
		return err
	}
	defer exec.Finalize()
	var undo func() error
	err = take(ctx, nil, data, batches, false, func(step int, batch train.Batch) error {
		if step == 0 { // not before there is data
			var err error
			if undo, err = rememberUpdated(store); err != nil {
				return err
			}
			if err := norm.ResetBatchNormWeights(b, store); err != nil {
				return err
			}
		}
		results, err := call("estimate normalisation", exec, anys(batch.Inputs...)...)
		if err != nil {
			return err
		}
		return results[0].FinalizeAll()
	})
	if err != nil && undo != nil {
		return errors.Join(err, undo())
	}
	return err
}

// rememberUpdated returns a function that puts back the variables of a store that are not trained, and removes those that it did not have.
func rememberUpdated(store *model.Store) (func() error, error) {
	before := map[string]*tensors.Tensor{}
	for v := range store.IterVariables() {
		before[v.Path()] = nil
		if v.Trainable || !v.HasValue() {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		if before[v.Path()], err = value.LocalClone(); err != nil {
			return nil, err
		}
	}
	return func() error {
		var made []string
		for v := range store.IterVariables() {
			value, had := before[v.Path()]
			switch {
			case !had:
				made = append(made, v.Path())
			case value != nil:
				if err := v.SetValue(value); err != nil {
					return err
				}
			}
		}
		for _, path := range made {
			if err := store.DeleteVariable(path); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// what names what the budget counts.
func (b Budget) what() string {
	switch {
	case b.Params != 0:
		return "parameters"
	case b.Units != 0:
		return "units"
	}
	return "MACs"
}

// target returns the budget's share and count, and how a plan is counted, for methods that divide it by a rule of their own.
func (b Budget) target(n *surgery.Network) (share float64, target int64, cost func(*surgery.Plan) (int64, error), err error) {
	share = max(b.MACs, b.Params, b.Units) // one of them is set at most
	if share == 0 {
		share = 0.5
	}
	cost = func(p *surgery.Plan) (int64, error) {
		c, err := p.Cost()
		switch {
		case b.Params != 0:
			return c.Params, err
		case b.Units != 0:
			units := int64(0)
			for _, g := range n.Groups() {
				units += int64(g.Size - len(p.Removed[g.Name]))
			}
			return units, err
		}
		return c.MACs, err
	}
	whole, err := cost(n.Empty())
	return share, int64(math.Floor(share * float64(whole) * (1 + 1e-9))), cost, err
}

// hash makes a name the seed of random numbers of its own.
func hash(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

package experiment

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/pkg/prune"
)

// defaultStepsPerDispatch is past the point where the cost of a dispatch shows (20 steps), and short enough to be interrupted.
const defaultStepsPerDispatch = 50

// stepper is a compiled training step for one store, data set, optimizer and pruner.
//
// With perDispatch > 1 the executable is a While loop over whole steps, gradient and optimizer included. That works for any model function
// and any optimizer because GoMLX hands the value of a variable from one part of a graph to the next by Variable.NodeValue and SetNodeValue:
// the loop's body sets each variable to the loop's state, builds the ordinary training step, and returns what the step has set. What the step
// touches is found by building it once in a graph that is thrown away. The number of steps is an input, so that one executable serves
// every remainder.
//
// GoMLX shares scalar constants within a graph, also across closures, where they can't be used; so everything outside of the body
// is made of inputs and of functions of inputs.
type stepper struct {
	store       *model.Store
	exec        *model.Exec
	perDispatch int
	batch       int
	resident    Resident // nil: batches are fed
	leaky       []string // paths of the parameters whose dead weights are counted

	// owned are the variables that the optimizer made, with their first values, to which each new run returns them.
	owned map[*model.Variable]*tensors.Tensor
}

// outcome is what a dispatch reports.
type outcome struct {
	loss  float64 // mean over its steps
	leaks []int32 // for each parameter, the number of dead weights that were not zero, summed over the steps
}

// newStepper builds the step. Variables that an earlier optimizer left in the store are removed: a run starts with a fresh optimizer.
func newStepper(task Task, store *model.Store, inner optimizer.Interface, pruner *prune.Pruner, perDispatch int) (*stepper, error) {
	st := &stepper{store: store}
	opt := inner
	if pruner != nil {
		var err error
		if opt, err = pruner.Optimizer(inner); err != nil {
			return nil, err
		}
		for _, p := range pruner.Params() {
			st.leaky = append(st.leaky, p.Path)
		}
	}
	err := guard("build the training step", func() error {
		if err := clearOptimizer(store, inner); err != nil {
			return err
		}
		before := map[string]bool{}
		for v := range store.IterVariables() {
			before[v.Path()] = true
		}

		// one builds a training step at the graph's present place and returns its loss and leaks.
		one := func(scope *model.Scope, x, labels *graph.Node) (loss, leaks *graph.Node) {
			g := x.Graph()
			store.SetTraining(g, true)
			logits := task.Model(scope, x)
			train.AddMainLoss(task.meanLoss(column(labels), logits))
			loss = train.TotalLoss(g)
			opt.UpdateGraph(scope, g, loss)
			train.ExecPerStepUpdateGraphFn(g)
			if pruner != nil {
				leaks = pruner.Leaks(g)
			}
			return graph.ConvertDType(loss, dtypes.Float32), leaks
		}
		// gathered does so for the examples of a resident data set. examples [n, …], labels [n], indices [batch].
		gathered := func(scope *model.Scope, examples, labels, indices *graph.Node) (loss, leaks *graph.Node) {
			at := graph.InsertAxes(indices, -1) // [batch] -> [batch, 1]
			return one(scope, st.resident.Decode(graph.Gather(examples, at)), graph.Gather(labels, at))
		}

		var fed train.Batch // a first batch, for its shapes, where batches are fed
		if r, ok := task.Train.(Resident); ok {
			st.resident, st.batch = r, r.Batch()
			inputs, _ := r.Arrays()
			if n := inputs.Shape().Dimensions[0]; st.batch < 1 || n < st.batch {
				return fmt.Errorf("data set %q has %d examples, fewer than one batch of %d: use a smaller batch", r.Name(), n, st.batch)
			}
		} else {
			for b, err := range task.Train.Iter() {
				if err != nil {
					return fmt.Errorf("data set %q: %w", task.Train.Name(), err)
				}
				fed = b
				break
			}
			if len(fed.Inputs) == 0 {
				return fmt.Errorf("data set %q: %w", task.Train.Name(), ErrNoData)
			}
			defer fed.Finalize()
		}

		// Find out what the step uses and changes.
		probe := graph.NewGraph(task.Backend, "find variables")
		model.SetStore(probe, store)
		root := store.RootScope
		if st.resident != nil {
			inputs, labels := st.resident.Arrays()
			gathered(root(), graph.Parameter(probe, "examples", inputs.Shape()), graph.Parameter(probe, "labels", labels.Shape()),
				graph.Parameter(probe, "indices", shapes.Make(dtypes.Int32, st.batch)))
		} else {
			one(root(), graph.Parameter(probe, "x", fed.Inputs[0].Shape()), graph.Parameter(probe, "labels", fed.Labels[0].Shape()))
		}
		var used []*model.Variable
		changed := map[*model.Variable]bool{}
		for _, v := range sorted(store) {
			if v.InUseByGraph(probe) {
				used = append(used, v)
				changed[v] = v.ChangedInGraph(probe)
			}
		}
		st.perDispatch = perDispatch
		if st.perDispatch == 0 {
			st.perDispatch = defaultStepsPerDispatch
			if hasConvolution(probe) {
				// XLA's CPU computes a convolution's gradient ten times slower inside a loop.
				st.perDispatch = 1
			}
		}
		if st.resident == nil || !task.Backend.Capabilities().Functions {
			st.perDispatch = 1
		}
		probe.Finalize()
		if err := store.InitializeVariables(task.Backend, nil); err != nil {
			return err
		}
		st.owned = map[*model.Variable]*tensors.Tensor{}
		for _, v := range used {
			if !before[v.Path()] {
				value, err := v.Value()
				if err != nil {
					return err
				}
				if st.owned[v], err = value.LocalClone(); err != nil {
					return err
				}
			}
		}

		var err error
		switch {
		case st.resident == nil:
			st.exec, err = model.NewExec(task.Backend, store, func(scope *model.Scope, x, labels *graph.Node) []*graph.Node {
				return outputs(one(root(), x, labels))
			})
		case st.perDispatch == 1:
			st.exec, err = model.NewExec(task.Backend, store, func(scope *model.Scope, examples, labels, indices *graph.Node) []*graph.Node {
				return outputs(gathered(root(), examples, labels, indices))
			})
		default:
			st.exec, err = model.NewExec(task.Backend, store,
				func(scope *model.Scope, examples, labels, indices, steps, zeroLoss, zeroLeaks *graph.Node) []*graph.Node {
					g := examples.Graph()
					const step, bound, loss, leaks, data = 0, 1, 2, 3, 4 // positions in the loop's state
					state := []*graph.Node{graph.ZerosLike(steps), steps, zeroLoss, zeroLeaks, examples, labels, indices}
					variables := len(state)
					first := make([]*graph.Node, len(used))
					for i, v := range used {
						first[i] = v.NodeValue(g)
						state = append(state, first[i])
					}
					enter := func(g *graph.Graph) []*graph.Node {
						in := make([]*graph.Node, len(state))
						for i, s := range state {
							in[i] = graph.Parameter(g, fmt.Sprintf("state%d", i), s.Shape())
						}
						return in
					}
					more := graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
						in := enter(g)
						return []*graph.Node{graph.LessThan(in[step], in[bound])}
					})
					body := graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
						in := enter(g)
						for i, v := range used {
							v.SetNodeValue(in[variables+i])
						}
						row := graph.DynamicSlice(in[data+2], []*graph.Node{in[step], graph.ZerosLike(in[step])}, []int{1, st.batch})
						l, k := gathered(root(), in[data], in[data+1], graph.Reshape(row, st.batch)) // [1, batch] -> [batch]
						out := append([]*graph.Node{}, in[:variables]...)
						out[step] = graph.Add(in[step], graph.OnesLike(in[step]))
						out[loss] = graph.Add(in[loss], l)
						if k != nil {
							out[leaks] = graph.Add(in[leaks], k)
						}
						for _, v := range used {
							out = append(out, v.NodeValue(g))
						}
						return out
					})
					final := graph.While(more, body, state...)
					for i, v := range used {
						if changed[v] {
							v.SetNodeValue(final[variables+i])
						} else {
							v.SetNodeValue(first[i])
						}
					}
					return []*graph.Node{final[loss], final[leaks]}
				})
		}
		if err != nil {
			return err
		}
		st.exec.SetMaxCache(-1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return st, nil
}

func outputs(loss, leaks *graph.Node) []*graph.Node {
	if leaks == nil {
		return []*graph.Node{loss}
	}
	return []*graph.Node{loss, leaks}
}

// run does n steps, n ≤ perDispatch, over the examples of indices [n · batch].
func (st *stepper) run(n int, indices []int32) (outcome, error) {
	if st.perDispatch == 1 {
		inputs, labels := st.resident.Arrays()
		return st.call(1, inputs, labels, tensors.FromFlatDataAndDimensions(indices, st.batch))
	}
	// The shape is always the whole dispatch's; rows past the n-th are not read.
	rows := make([]int32, st.perDispatch*st.batch)
	copy(rows, indices)
	inputs, labels := st.resident.Arrays()
	return st.call(n, inputs, labels, tensors.FromFlatDataAndDimensions(rows, st.perDispatch, st.batch), int32(n), float32(0),
		make([]int32, max(1, len(st.leaky))))
}

// feed does one step over a batch, which it consumes.
func (st *stepper) feed(batch train.Batch) (outcome, error) {
	defer batch.Finalize()
	return st.call(1, batch.Inputs[0], batch.Labels[0])
}

func (st *stepper) call(n int, args ...any) (o outcome, err error) {
	err = guard("training step", func() error {
		results, err := st.exec.Call(args...)
		if err != nil {
			return err
		}
		o.loss = float64(results[0].Value().(float32)) / float64(n)
		if len(results) > 1 && len(st.leaky) > 0 {
			if o.leaks, err = tensors.CopyFlatData[int32](results[1]); err != nil {
				return err
			}
		}
		for _, r := range results {
			if err := r.FinalizeAll(); err != nil {
				return err
			}
		}
		return nil
	})
	return o, err
}

// restart gives the optimizer's variables their first values.
func (st *stepper) restart() error {
	for v, first := range st.owned {
		value, err := first.LocalClone()
		if err != nil {
			return err
		}
		if err := v.SetValue(value); err != nil {
			return err
		}
	}
	return nil
}

// setRate sets the learning rate to its first value times a factor.
func (st *stepper) setRate(factor float64) error {
	v := st.store.GetVariable(learningRate)
	first, ok := st.owned[v]
	if v == nil || !ok {
		return &ConfigError{"Training.Rate", "the optimizer keeps no learning rate in " + learningRate, "use one of GoMLX's, or leave Rate nil"}
	}
	switch rate := first.Value().(type) {
	case float32:
		return v.SetValue(tensors.FromScalar(float32(float64(rate) * factor)))
	case float64:
		return v.SetValue(tensors.FromScalar(rate * factor))
	}
	return &ConfigError{"Training.Rate", "the learning rate has type " + v.DType().String(), "use float32 or float64"}
}

// learningRate is where GoMLX's optimizers keep it.
var learningRate = "/optimizers/" + optimizer.ParamLearningRate

// clearOptimizer removes what an optimizer keeps in a store: its own variables, the learning rate and the step counter.
func clearOptimizer(store *model.Store, opt optimizer.Interface) error {
	if err := opt.Clear(store.RootScope()); err != nil {
		return err
	}
	var stale []string
	for v := range store.IterVariables() {
		path := v.Path()
		if strings.HasPrefix(path, "/AdamOptimizer/") || strings.HasPrefix(path, "/optimizers/") || path == "/"+optimizer.GlobalStepVariableName {
			stale = append(stale, path)
		}
	}
	for _, path := range stale {
		if err := store.DeleteVariable(path); err != nil {
			return err
		}
	}
	return nil
}

func hasConvolution(g *graph.Graph) bool {
	for _, node := range g.Nodes() {
		if strings.Contains(node.Type().String(), "Conv") && !strings.Contains(node.Type().String(), "Convert") {
			return true
		}
	}
	return false
}

package experiment

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/pkg/internal/graphprint"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/internal/inplace"
	"github.com/espalier-ml/espalier/pkg/internal/lower"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/prune"
)

// RateSteps is the number of steps after which a training asks Training.Rate again.
const RateSteps = block

// block is the number of steps after which a run looks at itself: it notes the loss, checks that dead weights are zero and asks for the learning
// rate. It is also how many steps are done in one dispatch: the cost of a dispatch no longer shows from 20 steps on.
const block = 50

// patience bounds the time of a dispatch, so that slow networks can be interrupted too.
const patience = time.Second

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
	resident    Resident      // nil: batches are fed
	logits      int           // of how many the labels are numbers; 0: they are not, or it is not known
	calls       int           // dispatches so far
	perStep     time.Duration // the time of a step in the last dispatch; 0: not known yet

	pruner *prune.Pruner // nil: nothing is pruned
	leaks  *model.Exec   // counts the dead weights that are not zero, for each parameter, where the host can't

	// unsealed is set where it can't be seen in the step's graph that dead weights stay zero: then they are counted after each step.
	unsealed bool

	// identity is a digest of all that the step computes: network, loss, optimizer, masks and their constants.
	identity string

	turn    turn            // of the run that steps
	backend compute.Backend // of the step's program

	// lowered is the backend of the step where that computes convolutions as products of matrices; nil: it is the task's own. What else is computed is
	// left to the task's, and GoMLX lets two backends use a tensor in turn only if it lies on the host in between.
	lowered *lower.Backend
	// used are the step's variables, inputs and labels the examples, for the lowered backend its own.
	used           []*model.Variable
	inputs, labels *tensors.Tensor

	// owned are the variables that the optimizer made, with their first values, to which each new run returns them.
	owned map[*model.Variable]*tensors.Tensor
}

// newStepper builds the step. Variables that an earlier optimizer left in the store are removed: a run starts with a fresh optimizer.
func newStepper(task Task, store *model.Store, inner optimizer.Interface, pruner *prune.Pruner, perDispatch int, turn turn) (*stepper, error) {
	st := &stepper{store: store, pruner: pruner, turn: turn}
	opt := inner
	if pruner != nil {
		var err error
		if opt, err = pruner.Optimizer(inner); err != nil {
			return nil, err
		}
		// Counted apart from the step, after each block: within each step it would cost a fifth of the time of a small network. In between, the step's
		// graph is the proof, see Pruner.Unsealed.
		st.leaks, err = model.NewExec(task.Backend, store, func(_ *model.Scope, g *graph.Graph) *graph.Node {
			defer st.turn.take()()
			return pruner.Leaks(g)
		})
		if err != nil {
			return nil, err
		}
	}
	err := guard.Run("build the training step", func() error {
		if err := clearOptimizer(store, inner); err != nil {
			return err
		}
		before := map[string]bool{}
		for v := range store.IterVariables() {
			before[v.Path()] = true
		}

		logitsOf := 0 // the number of logits
		// one builds a training step at the graph's present place and returns its loss.
		one := func(scope *model.Scope, x, labels *graph.Node) *graph.Node {
			defer guard.Building()
			g := x.Graph()
			store.SetTraining(g, true)
			logits := task.Model(scope, x)
			if logits.Rank() == 2 {
				logitsOf = logits.Shape().Dim(-1)
			}
			train.AddMainLoss(task.meanLoss(column(labels), logits))
			loss := train.TotalLoss(g)
			opt.UpdateGraph(scope, g, loss)
			train.ExecPerStepUpdateGraphFn(g)
			return graph.ConvertDType(loss, dtypes.Float32)
		}
		// gathered does so for the examples of a resident data set. examples [n, …], labels [n], indices [batch].
		gathered := func(scope *model.Scope, examples, labels, indices *graph.Node) *graph.Node {
			at := graph.InsertAxes(indices, -1) // [batch] -> [batch, 1]
			return one(scope, st.resident.Decode(graph.Gather(examples, at)), graph.Gather(labels, at))
		}

		var fed train.Batch // a first batch, for its shapes, where batches are fed
		if r, ok := task.Train.(Resident); ok {
			if err := sized(r); err != nil {
				return err
			}
			st.resident, st.batch = r, r.Batch()
		} else {
			for b, err := range task.Train.Iter() {
				if err != nil {
					return fmt.Errorf("data set %q: %w", task.Train.Name(), err)
				}
				fed = b
				break
			}
			if err := usable(task.Train, fed); err != nil {
				return err
			}
			defer fed.Finalize()
		}

		// Find out what the step uses and changes, and whether its convolutions can be lowered.
		b := task.Backend
		lowered := lower.On(b)
		if lowered != nil {
			b = lowered
		}
		probe := graph.NewGraph(b, "find variables")
		model.SetStore(probe, store)
		root := store.RootScope
		var probed *graph.Node
		if st.resident != nil {
			inputs, labels := st.resident.Arrays()
			probed = gathered(root(), graph.Parameter(probe, "examples", inputs.Shape()), graph.Parameter(probe, "labels", labels.Shape()),
				graph.Parameter(probe, "indices", shapes.Make(dtypes.Int32, st.batch)))
		} else {
			probed = one(root(), graph.Parameter(probe, "x", fed.Inputs[0].Shape()), graph.Parameter(probe, "labels", fed.Labels[0].Shape()))
		}
		var used []*model.Variable
		changed := map[*model.Variable]bool{}
		for _, v := range sorted(store) {
			if v.InUseByGraph(probe) {
				used = append(used, v)
				changed[v] = v.ChangedInGraph(probe)
			}
		}
		st.unsealed = pruner != nil && len(pruner.Unsealed(probe)) > 0
		b = task.Backend
		if convolves := hasConvolution(probe); convolves && lowered != nil && lowered.All() {
			b, st.lowered = lowered, lowered
		} else if convolves && perDispatch == 0 {
			// XLA's CPU computes a convolution's gradient ten times slower inside a loop.
			perDispatch = 1
		}
		st.perDispatch = block
		if perDispatch != 0 {
			st.perDispatch = min(perDispatch, block)
		}
		if st.resident == nil || !canLoop(task.Backend) || st.unsealed {
			st.perDispatch = 1
		}
		results := []*graph.Node{probed}
		for _, v := range used {
			results = append(results, v.NodeValue(probe))
		}
		st.identity = graphprint.Of(probe, results)
		probe.Finalize()
		if task.Loss == nil {
			st.logits = logitsOf
		}
		if st.resident != nil && st.logits > 0 {
			_, labels := st.resident.Arrays()
			if err := labelled(st.resident, labels, st.logits); err != nil {
				return err
			}
		}
		if err := initialise(store); err != nil {
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
		if st.resident != nil {
			if st.inputs, st.labels, err = st.examples(); err != nil {
				return err
			}
		}
		st.used, st.backend = used, b
		switch {
		case st.resident == nil:
			st.exec, err = model.NewExec(b, store, func(scope *model.Scope, x, labels *graph.Node) []*graph.Node {
				defer st.turn.take()()
				return []*graph.Node{one(root(), x, labels)}
			})
		case st.perDispatch == 1:
			st.exec, err = model.NewExec(b, store, func(scope *model.Scope, examples, labels, indices *graph.Node) []*graph.Node {
				defer st.turn.take()()
				return []*graph.Node{gathered(root(), examples, labels, indices)}
			})
		default:
			st.exec, err = model.NewExec(b, store,
				func(scope *model.Scope, examples, labels, indices, steps, sum *graph.Node) []*graph.Node {
					defer st.turn.take()()
					g := examples.Graph()
					const step, bound, loss, data = 0, 1, 2, 3 // positions in the loop's state
					state := []*graph.Node{graph.ZerosLike(steps), steps, sum, examples, labels, indices}
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
						l := gathered(root(), in[data], in[data+1], graph.Reshape(row, st.batch)) // [1, batch] -> [batch]
						out := append([]*graph.Node{}, in[:variables]...)
						out[step] = graph.Add(in[step], graph.OnesLike(in[step]))
						out[loss] = graph.Add(in[loss], l)
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
					return []*graph.Node{final[loss]}
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

// order returns an epoch's examples, enough for its batches. XLA would take the nearest example for an index out of range.
func (st *stepper) order(epoch, batches int) ([]int32, error) {
	order := st.resident.Order(epoch)
	if len(order) < batches*st.batch {
		return nil, &ConfigError{"order of " + st.resident.Name(), fmt.Sprintf("epoch %d has %d examples, fewer than the first", epoch, len(order)), "make all epochs as long"}
	}
	inputs, _ := st.resident.Arrays()
	for _, i := range order {
		if n := inputs.Shape().Dimensions[0]; i < 0 || int(i) >= n {
			return nil, &ConfigError{"order of " + st.resident.Name(), fmt.Sprintf("epoch %d names example %d of %d", epoch, i, n), "number the examples from 0"}
		}
	}
	return order, nil
}

// limit returns how many of the next n steps to dispatch: few enough for the dispatch to end in time.
func (st *stepper) limit(n int) int {
	n = min(n, st.perDispatch)
	if st.perStep == 0 {
		return min(n, 1)
	}
	return max(1, min(n, int(patience/st.perStep)))
}

// run does n steps, n ≤ perDispatch, over the examples of indices [n · batch], and returns sum with their losses added: one after the other and in float32 everywhere, so that it does not
// depend on how many steps a dispatch has, which is a matter of time.
func (st *stepper) run(n int, indices []int32, sum float32) (float32, error) {
	if st.perDispatch == 1 {
		loss, err := st.call(1, st.inputs, st.labels, tensors.FromFlatDataAndDimensions(indices, st.batch))
		return sum + loss, err
	}
	// The shape is always the whole dispatch's; rows past the n-th are not read.
	rows := make([]int32, st.perDispatch*st.batch)
	copy(rows, indices)
	return st.call(n, st.inputs, st.labels, tensors.FromFlatDataAndDimensions(rows, st.perDispatch, st.batch), int32(n), sum)
}

// feed does one step over a batch of a data set, which it consumes, and returns its loss.
func (st *stepper) feed(ds train.Dataset, batch train.Batch) (loss float32, err error) {
	defer batch.Finalize()
	if err := usable(ds, batch); err != nil {
		return 0, err
	}
	if st.logits > 0 {
		if err := labelled(ds, batch.Labels[0], st.logits); err != nil {
			return 0, err
		}
	}
	if st.lowered != nil { // whatever backend a data set has
		if err := errors.Join(batch.Inputs[0].ToLocal(), batch.Labels[0].ToLocal()); err != nil {
			return 0, err
		}
	}
	return st.call(1, batch.Inputs[0], batch.Labels[0])
}

func (st *stepper) call(n int, args ...any) (loss float32, err error) {
	start := time.Now()
	err = guard.Run("training step", func() error {
		if err := st.toHost(); err != nil {
			return err
		}
		result, err := st.turn.call(st.backend, st.exec, args...)
		if err != nil {
			return err
		}
		if err := st.toHost(); err != nil {
			return err
		}
		loss = result[0].Value().(float32)
		return result[0].FinalizeAll()
	})
	if st.calls++; st.calls > 1 { // the first call compiles
		st.perStep = max(1, time.Since(start)/time.Duration(n))
	}
	return loss, err
}

// examples returns those of the resident data set, for the step's backend.
func (st *stepper) examples() (inputs, labels *tensors.Tensor, err error) {
	inputs, labels = st.resident.Arrays()
	if st.lowered == nil {
		return inputs, labels, nil
	}
	if inputs, err = inputs.LocalClone(); err != nil {
		return nil, nil, err
	}
	labels, err = labels.LocalClone()
	return inputs, labels, err
}

// toHost brings the step's variables to the host where another backend is to use them next. Once in a dispatch that is nothing to a network with convolutions.
func (st *stepper) toHost() error {
	if st.lowered == nil {
		return nil
	}
	for _, v := range st.used {
		value, err := v.Value()
		if err != nil {
			return err
		}
		if err := value.ToLocal(); err != nil {
			return err
		}
	}
	return nil
}

// check returns a *LeakError for the first parameter that has a dead weight other than zero.
func (st *stepper) check(step int) error {
	if st.pruner == nil {
		return nil
	}
	return guard.Run("check of dead weights", func() error {
		counts, err := st.leaked()
		if err != nil {
			return err
		}
		for i, count := range counts {
			if count != 0 {
				return &LeakError{Path: st.pruner.Params()[i].Path, Count: int(count), Step: step}
			}
		}
		return nil
	})
}

// leaked counts, for each parameter, the dead weights that are not zero: on the host where all weights and masks lie there, or on a device that shares its memory with the host,
// else by a program on the device. On a CPU the host has done before the program is called, which would first have to be compiled.
func (st *stepper) leaked() ([]int32, error) {
	set := st.pruner.Params()
	counts := make([]int32, len(set))
	for i, p := range set {
		alive, err := mask.Variable(st.store, p)
		if err != nil {
			return nil, err
		}
		count, near, err := leaked(alive, st.store.GetVariable(p.Path))
		if err != nil {
			return nil, err
		}
		if !near {
			return st.leakedThere()
		}
		counts[i] = count
	}
	return counts, nil
}

// leaked counts the dead weights of a parameter that are not zero, unless they are far away or of another type than float32.
func leaked(alive, weights *model.Variable) (count int32, near bool, err error) {
	a, err := alive.Value()
	if err != nil {
		return 0, false, err
	}
	w, err := weights.Value()
	if err != nil {
		return 0, false, err
	}
	if !inplace.Near(a) || !inplace.Near(w) || w.DType() != dtypes.Float32 {
		return 0, false, nil
	}
	var inner error
	err = a.ConstBytes(func(alive []byte) { // each 0 or 1
		inner = tensors.ConstFlatData(w, func(weights []float32) {
			// All bits at once, without a branch: as a rule there is none.
			alive := alive[:len(weights)]
			found := uint32(0)
			for i, x := range weights {
				found |= math.Float32bits(x) << 1 & (uint32(alive[i]) - 1) // less the sign of −0; what is alive does not count
			}
			if found == 0 {
				return
			}
			for i, x := range weights {
				if alive[i] == 0 && x != 0 {
					count++
				}
			}
		})
	})
	return count, true, errors.Join(err, inner)
}

// leakedThere counts by a program on the device.
func (st *stepper) leakedThere() ([]int32, error) {
	result, err := st.turn.call(st.backend, st.leaks)
	if err != nil {
		return nil, err
	}
	counts, err := tensors.CopyFlatData[int32](result[0])
	if err != nil {
		return nil, err
	}
	return counts, result[0].FinalizeAll()
}

// finite returns a *DivergedError for the first trainable variable that holds a NaN or an infinity.
func (st *stepper) finite(step int) error {
	for _, v := range sorted(st.store) {
		if !v.Trainable || !v.HasValue() {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return err
		}
		good := true
		if err := value.ConstFlatData(func(flat any) {
			switch data := flat.(type) {
			case []float32:
				good = finite(data)
			case []float64:
				good = finite(data)
			}
		}); err != nil {
			return err
		}
		if !good {
			return &DivergedError{Step: step, Path: v.Path()}
		}
	}
	return nil
}

// finite tells whether no value is NaN or infinite: 0·x is 0 for numbers only. Four sums, so that one need not wait for the other.
func finite[T float32 | float64](values []T) bool {
	var a, b, c, d T
	for len(values) >= 4 {
		a, b, c, d = a+0*values[0], b+0*values[1], c+0*values[2], d+0*values[3]
		values = values[4:]
	}
	for _, x := range values {
		a += 0 * x
	}
	return a+b+c+d == 0
}

func (st *stepper) finalise() {
	st.exec.Finalize()
	if st.lowered != nil && st.resident != nil {
		_ = errors.Join(st.inputs.FinalizeAll(), st.labels.FinalizeAll()) // they are ours
	}
	if st.leaks != nil {
		st.leaks.Finalize()
	}
}

// restart gives the optimizer's variables their first values.
func (st *stepper) restart() error {
	for v, first := range st.owned {
		if v.HasValue() {
			value, err := v.Value()
			if err != nil {
				return err
			}
			if value.Shape().Equal(first.Shape()) && inplace.Near(value) {
				if err := inplace.Copy(value, first); err != nil {
					return err
				}
				continue
			}
		}
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

// canLoop tells whether a backend can run a loop over steps: GoMLX's pure Go backend can't slice at a computed place. Of loops themselves go-xla's
// list of operations says nothing; it says that it has functions, which they need.
func canLoop(b compute.Backend) bool {
	c := b.Capabilities()
	return c.Functions && c.Operations[compute.OpTypeDynamicSlice]
}

func hasConvolution(g *graph.Graph) bool {
	for _, node := range g.Nodes() {
		if strings.Contains(node.Type().String(), "Conv") && !strings.Contains(node.Type().String(), "Convert") {
			return true
		}
	}
	return false
}

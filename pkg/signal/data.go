package signal

import (
	"errors"
	"fmt"
	"iter"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/internal/labels"
)

// batch is one batch of calibration data, on the host.
type batch struct {
	x, labels *tensors.Tensor // [size, …], [size, 1]
	size      int
}

// read takes the first batches of a data set: of its first epoch, where it can say which, so that it does not matter what was read of it before.
func read(ds train.Dataset, n int) ([]batch, error) {
	var batches []batch
	all := ds.Iter
	if epochs, ok := ds.(interface {
		Epoch(epoch int) iter.Seq2[train.Batch, error]
	}); ok {
		all = func() iter.Seq2[train.Batch, error] { return epochs.Epoch(0) }
	}
	for b, err := range all() {
		if err != nil {
			return nil, fmt.Errorf("calibration data %q: %w", ds.Name(), err)
		}
		if len(b.Inputs) != 1 || len(b.Labels) != 1 {
			return nil, &SourceError{"Data", fmt.Sprintf("batches of %q have %d inputs and %d labels", ds.Name(), len(b.Inputs), len(b.Labels)), "make it yield one of each"}
		}
		x, labels := b.Inputs[0], b.Labels[0] // which are ours; no backend's, as the data set may have another than the source
		if !x.Ok() || !labels.Ok() {
			return nil, &SourceError{"Data", fmt.Sprintf("batch %d of %q has inputs or labels that are nil or were finalized", len(batches), ds.Name()), "make it yield tensors that nothing else owns"}
		}
		if err := errors.Join(x.ToLocal(), labels.ToLocal()); err != nil {
			return nil, err
		}
		if x.Shape().Rank() == 0 || x.Shape().Dimensions[0] == 0 {
			continue
		}
		batches = append(batches, batch{x, labels, x.Shape().Dimensions[0]})
		if len(batches) == n {
			break
		}
	}
	if len(batches) == 0 {
		return nil, fmt.Errorf("calibration data %q: %w", ds.Name(), ErrNoData)
	}
	return batches, nil
}

// labelled are the needs for which the labels of the data are looked at.
const labelled = criterion.NeedGrad | criterion.NeedGradSquare | criterion.NeedHessianGrad | criterion.NeedInverseFisher

// paired returns a *SourceError unless each example has a label.
func (s *Signals) paired() error {
	for i, b := range s.batches {
		if dims := b.labels.Shape().Dimensions; s.Needs&labelled != 0 && (len(dims) == 0 || dims[0] != b.size) {
			return &SourceError{"Data", fmt.Sprintf("batch %d of %q has %d examples and labels %v", i, s.Data, b.size, dims), "make it yield a label for each example, [batch, 1]"}
		}
	}
	return nil
}

// numbered returns a *SourceError for a label that is the number of no logit. GoMLX's loss would take its example for one without a class, and give no gradient for it.
func (s *Signals) numbered() error {
	logits, known := s.programs.uses["logits"]
	if !known || !s.numbers || s.Needs&labelled == 0 {
		return nil
	}
	for i, b := range s.batches {
		at, label, err := labels.Outside(b.labels, logits)
		if err != nil {
			return err
		}
		if at >= 0 {
			return &SourceError{"Data", fmt.Sprintf("example %d of batch %d of %q has the label %d, and the network has %d logits", at, i, s.Data, label, logits),
				"number the classes from 0, or give the network a logit for each"}
		}
	}
	return nil
}

// logits builds the network in a graph, in inference mode.
func (s *Signals) logits(x *graph.Node) *graph.Node {
	s.source.Store.SetTraining(x.Graph(), false)
	return s.source.Model(s.source.Store.RootScope(), x)
}

// loss is the mean loss of a batch.
func (s *Signals) loss(labels, logits *graph.Node) *graph.Node {
	if labels.Rank() == 1 {
		labels = graph.InsertAxes(labels, -1) // [batch] -> [batch, 1]
	}
	if logits.Rank() > 0 {
		s.programs.uses["logits"] = logits.Shape().Dim(-1)
	}
	l := s.source.Loss([]*graph.Node{labels}, []*graph.Node{logits})
	if l.Rank() > 0 {
		l = graph.ReduceAllMean(l)
	}
	return l
}

// weights returns the parameters' values in a graph. One that the network does not use has no signal.
func (s *Signals) weights(g *graph.Graph) []*graph.Node {
	nodes := make([]*graph.Node, len(s.set))
	for i, p := range s.set {
		v := s.source.Store.GetVariable(p.Path)
		if !v.InUseByGraph(g) {
			panic(&LayerError{p.Path, "the network does not use it", "leave it out with params.Set.Without"})
		}
		nodes[i] = v.NodeValue(g)
	}
	return nodes
}

// programs are compiled once for a source, and serve again when signals are collected anew.
type programs struct {
	execs map[string]*model.Exec
	uses  map[string]int // found while a program was built, by program and parameter: how often the network uses it, or how many patches an example has; "logits": how many there are
}

// exec compiles a function of nodes, unless the program of that name is there.
func (s *Signals) exec(name string, build func(in []*graph.Node) []*graph.Node) (*model.Exec, error) {
	if e := s.programs.execs[name]; e != nil {
		return e, nil
	}
	e, err := model.NewExec(s.source.Backend, s.source.Store, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		defer guard.Building()
		return build(in)
	})
	if err != nil {
		return nil, err
	}
	e.SetMaxCache(-1)
	s.programs.execs[name] = e
	return e, nil
}

// sums adds the results of calls element by element, in double precision.
type sums [][]float64

// add adds results, times a factor.
func (a *sums) add(results []*tensors.Tensor, factor float64) error {
	if *a == nil {
		*a = make(sums, len(results))
	}
	for i, r := range results {
		if (*a)[i] == nil {
			(*a)[i] = make([]float64, r.Shape().Size())
		}
		sum := (*a)[i]
		var shape error
		err := r.ConstFlatData(func(flat any) {
			switch values := flat.(type) {
			case []float32:
				for j, x := range values {
					sum[j] += factor * float64(x)
				}
			case []float64:
				for j, x := range values {
					sum[j] += factor * x
				}
			default:
				shape = fmt.Errorf("signals of type %s are not understood: use a network in float32", r.DType())
			}
		})
		if err != nil || shape != nil {
			return errors.Join(err, shape)
		}
		if err := r.FinalizeAll(); err != nil {
			return err
		}
	}
	return nil
}

// float32s rounds sums, times a factor.
func float32s(sum []float64, factor float64) []float32 {
	values := make([]float32, len(sum))
	for i, x := range sum {
		values[i] = float32(x * factor)
	}
	return values
}

// eachExample calls f for the first examples, one by one, and returns how many there were.
func (s *Signals) eachExample(f func(b batch, i int) error) (n int, err error) {
	for _, b := range s.batches {
		for i := range b.size {
			if n == s.source.Examples {
				return n, nil
			}
			if err := f(b, i); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// row copies example i of a batch: [batch, …] -> [1, …].
func row(t *tensors.Tensor, i int) (*tensors.Tensor, error) {
	shape := t.Shape().Clone()
	shape.Dimensions[0] = 1
	one := tensors.FromShape(shape)
	var inner error
	err := t.ConstBytes(func(all []byte) {
		inner = one.MutableBytes(func(part []byte) { copy(part, all[i*len(part):]) })
	})
	return one, errors.Join(err, inner)
}

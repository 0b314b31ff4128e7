package experiment

import (
	"iter"
	"slices"

	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/signal"
)

// Source returns where signals for criteria come from: the trainer's network, loss and training data. Fields may be changed before it is given to
// signal.Collect.
func (tr *Trainer) Source() signal.Source {
	return signal.Source{Backend: tr.task.Backend, Store: tr.store, Model: tr.task.Model, Loss: tr.task.Loss, Data: tr.task.Train}
}

// Signals collects what a criterion needs of some batches of the training data; batches 0 stands for 10. It returns nil for criteria that need no
// signals. The errors are those of signal.Collect.
func (tr *Trainer) Signals(set params.Set, needs criterion.Needs, batches int) (*signal.Signals, error) {
	if needs&criterion.NeedSignals == 0 {
		return nil, nil
	}
	src := tr.Source()
	src.Batches = batches
	return signal.Collect(src, set, needs)
}

// signals collects for the schedule of a training.
func (tr *Trainer) signals(t Training) (*signal.Signals, error) {
	return tr.Signals(t.Pruner.Params(), t.Pruner.Recipe().Criterion.Needs, t.Batches)
}

// topologySignals collects for a change of the topology after a step: over the first batches of an epoch that training does not get to, another one for each step, from
// the weights as they are. It is a function of the step and the data set's own seed: runs whose data have the same see the same batches.
func (tr *Trainer) topologySignals(t Training, step int) (*signal.Signals, error) {
	needs := t.Topology.Needs() & criterion.NeedSignals
	if needs == 0 {
		return nil, nil
	}
	data := tr.task.Train
	if epochs, ok := data.(epochal); ok {
		data = oneEpoch{epochs, 1_000_000_000 + step}
	}
	batches := max(1, t.Batches)
	if tr.topology != nil && tr.topology.Needs == needs && tr.batchesOf == batches && slices.Equal(tr.topology.Paths(), t.Pruner.Params().Paths()) {
		return tr.topology, tr.topology.Renew(data)
	}
	src := tr.Source()
	src.Data, src.Batches, tr.batchesOf = data, batches, batches
	var err error
	tr.topology, err = signal.Collect(src, t.Pruner.Params(), needs)
	return tr.topology, err
}

// epochal is a data set whose batches are a function of the epoch.
type epochal interface {
	train.Dataset
	Epoch(epoch int) iter.Seq2[train.Batch, error]
}

// oneEpoch is one epoch of a data set, again and again.
type oneEpoch struct {
	epochal
	epoch int
}

func (o oneEpoch) Iter() iter.Seq2[train.Batch, error]     { return o.epochal.Epoch(o.epoch) }
func (o oneEpoch) Epoch(int) iter.Seq2[train.Batch, error] { return o.Iter() }

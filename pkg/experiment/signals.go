package experiment

import (
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
	needs := t.Pruner.Recipe().Criterion.Needs
	if needs&criterion.NeedStart != 0 {
		return nil, &ConfigError{"Training.Schedule", "its criterion compares with the weights at the start, which training does not keep",
			"prune between two trainings, with Trainer.Source and Source.Start"}
	}
	return tr.Signals(t.Pruner.Params(), needs, t.Batches)
}

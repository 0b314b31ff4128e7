// Package experiment trains, fine-tunes and evaluates networks: deterministic by seed, interruptible, resumable, with masks kept and checked.
//
// Train runs many steps in one dispatch where the network allows it (see step.go), which is what makes small networks train at the speed of
// XLA instead of at the speed of the host. The plain, one-step way is the reference that a test holds it equal to. TrainTogether trains several networks at once, which keeps all
// cores of a machine busy where one small network can't.
package experiment

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/internal/labels"
)

// ModelFn is a network: it gets a batch of examples as its data set decodes them, [batch, …] in float32, and returns logits [batch, classes].
type ModelFn = func(scope *model.Scope, x *graph.Node) *graph.Node

// Task is what is to be learnt. Model and the data sets that are used have no default.
type Task struct {
	// Backend computes. nil: backend.Open().
	Backend compute.Backend
	// Model is the network.
	Model ModelFn
	// Loss of labels[0] [batch, 1] and predictions[0] [batch, classes]; per example or a mean. nil: sparse categorical cross-entropy of logits. With a Loss, labels may also be floats, or have
	// as many columns as there are logits.
	Loss train.LossFn
	// Train is what Train learns from; Validation is for choosing, Test for reporting, once.
	Train, Validation, Test train.Dataset
	// Start draws the kernels that the model leaves to the default initialiser, for Init. nil: HeNormal.
	Start Initializer
}

// Resident is implemented by data sets whose examples all lie in memory. Train keeps them on the device and sends only the order of the
// examples; any other train.Dataset is fed batch by batch.
type Resident interface {
	train.Dataset
	// Arrays returns the raw inputs [n, …] and labels [n] (int32, or another integer type; what else Task.Loss takes). They belong to the data set: they must not be changed or finalised.
	Arrays() (inputs, labels *tensors.Tensor)
	// Order returns the indices of an epoch's examples, a pure function of the data set's seed and the epoch.
	Order(epoch int) []int32
	// Batch returns the batch size.
	Batch() int
	// Decode turns a raw batch into what the model sees, for instance uint8 into float32 between 0 and 1.
	Decode(x *graph.Node) *graph.Node
}

// Errors that callers can tell apart with errors.Is.
var (
	ErrNoModel = errors.New("the task has no model: set Task.Model")
	ErrNoData  = errors.New("no data set given, or an empty one")
)

// usable returns an error unless a batch has what a ModelFn and a loss take: one array of inputs and one of labels.
func usable(ds train.Dataset, batch train.Batch) error {
	if len(batch.Inputs) == 0 {
		return fmt.Errorf("data set %q: %w", ds.Name(), ErrNoData)
	}
	if len(batch.Inputs) != 1 || len(batch.Labels) != 1 {
		return &ConfigError{fmt.Sprintf("data set %q", ds.Name()), fmt.Sprintf("its batches have %d inputs and %d labels", len(batch.Inputs), len(batch.Labels)),
			"make it yield one of each"}
	}
	return nil
}

// complete returns the task with its defaults filled in, but for Loss, of which nil says that labels are numbers of logits.
func (t Task) complete() (Task, error) {
	if t.Model == nil {
		return t, ErrNoModel
	}
	if t.Start == nil {
		t.Start = HeNormal
	}
	if t.Backend == nil {
		b, err := backend.Open()
		if err != nil {
			return t, err
		}
		t.Backend = b
	}
	return t, nil
}

// sized returns a *ConfigError unless a data set has as many labels as examples. XLA would take the last label for those that are missing.
func sized(r Resident) error {
	inputs, labels := r.Arrays()
	if inputs.Rank() == 0 || labels.Rank() == 0 || inputs.Shape().Dimensions[0] != labels.Shape().Dimensions[0] {
		return &ConfigError{"labels of " + r.Name(), fmt.Sprintf("they are %s, and the examples %s", labels.Shape(), inputs.Shape()), "give a label for each example, along the first axis"}
	}
	return nil
}

// labelled returns a *ConfigError for the first of a data set's labels, or of those of a batch, that is the number of no logit.
func labelled(ds train.Dataset, of *tensors.Tensor, logits int) error {
	at, label, err := labels.Outside(of, logits)
	if err != nil || at < 0 {
		return err
	}
	return &ConfigError{"labels of " + ds.Name(), fmt.Sprintf("example %d has the label %d, and the network has %d logits", at, label, logits), "number the classes from 0, or give the network a logit for each"}
}

// meanLoss returns the task's loss as one number, whatever form its function gives it in. It panics with a *ConfigError for logits that have lost an axis: GoMLX would set each of them against each label.
func (t Task) meanLoss(labels, logits *graph.Node) *graph.Node {
	if logits.Rank() < 2 {
		panic(&ConfigError{"Task.Model", fmt.Sprintf("it returns %s", logits.Shape()), "return logits [batch, classes], of a single class [batch, 1]"}) // in graph building, as GoMLX does
	}
	f := t.Loss
	if f == nil {
		f = loss.SparseCategoricalCrossEntropyLogits
	}
	l := f([]*graph.Node{labels}, []*graph.Node{logits})
	if l.Rank() > 0 {
		l = graph.ReduceAllMean(l)
	}
	return l
}

// column makes [batch] labels into the [batch, 1] that GoMLX's losses ask for.
func column(labels *graph.Node) *graph.Node {
	if labels.Rank() == 1 {
		return graph.InsertAxes(labels, -1)
	}
	return labels
}

// correct counts the examples whose largest logit is at their label. labels [batch, 1], logits [batch, classes] -> int32 scalar. With a loss of its own a task may have a single logit, which is above
// 0 for the label 1, or labels [batch, classes], of which the largest counts.
func (t Task) correct(labels, logits *graph.Node) *graph.Node {
	batch := logits.Shape().Dimensions[0]
	var predicted, wanted *graph.Node // int32 [batch]
	switch own := t.Loss != nil; {
	case logits.Rank() == 2 && labels.Shape().Size() == batch:
		wanted = graph.ConvertDType(graph.Reshape(labels, -1), dtypes.Int32)
		if predicted = graph.ArgMax(logits, -1, dtypes.Int32); own && logits.Shape().Dimensions[1] == 1 {
			predicted = graph.ConvertDType(graph.GreaterThan(graph.Reshape(logits, -1), graph.ScalarZero(logits.Graph(), logits.DType())), dtypes.Int32)
		}
	case own && logits.Rank() == 2 && slices.Equal(labels.Shape().Dimensions, logits.Shape().Dimensions):
		predicted, wanted = graph.ArgMax(logits, -1, dtypes.Int32), graph.ArgMax(labels, -1, dtypes.Int32)
	default:
		panic(&ConfigError{"Task", fmt.Sprintf("labels %s and logits %s make no accuracy", labels.Shape(), logits.Shape()),
			"return logits [batch, classes], and give labels [batch], or with a Loss of your own [batch, classes]"}) // in graph building, as GoMLX does
	}
	return graph.ReduceAllSum(graph.ConvertDType(graph.Equal(predicted, wanted), dtypes.Int32))
}

// Package signal collects what data tells a criterion: gradients, curvature, activations. It collects what is asked for and nothing else, over
// calibration data that has a name, once for all criteria that share it.
package signal

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/params"
)

// ModelFn is a network: it gets a batch of examples [batch, …] and returns logits [batch, classes].
type ModelFn = func(scope *model.Scope, x *graph.Node) *graph.Node

// Source is what signals come from. Backend, Store and Model have no default; Data is needed for all signals that data tells. The network runs in
// inference mode, without dropout and with the averages of its batch normalisation.
type Source struct {
	Backend compute.Backend
	Store   *model.Store
	Model   ModelFn
	// Loss of labels[0] [batch, 1] and predictions[0] [batch, classes], as in training. nil: sparse categorical cross-entropy of logits.
	Loss train.LossFn
	// Data are the calibration data. Its first batches are read once and kept, so that what is collected again is collected over the same.
	Data train.Dataset
	// Batches is how many batches are read. Default: 10, or as many as there are.
	Batches int
	// Examples is how many examples are looked at one by one, where the gradient or the activation map of each counts. Default: 256, or as many as there are.
	Examples int
	// Temperature divides the logits for Inputs.HessianGrad. Default: 200, as in the authors' code of GraSP.
	Temperature float64
	// Block is how many consecutive weights of a parameter share a block of the Fisher matrix for Inputs.InverseFisher. Default: 50.
	Block int
	// Damp is what is added to the diagonal of the Fisher matrix before it is inverted. Default: 1e-5.
	Damp float64
	// Start are the weights at the start of training by path, as experiment.Snapshot gives them, for Inputs.Start.
	Start map[string]*tensors.Tensor
	// Seed is for the labels that are drawn for Inputs.GaussNewton.
	Seed int64
}

func (s Source) complete() Source {
	if s.Loss == nil {
		s.Loss = loss.SparseCategoricalCrossEntropyLogits
	}
	if s.Batches == 0 {
		s.Batches = 10
	}
	if s.Examples == 0 {
		s.Examples = 256
	}
	if s.Temperature == 0 {
		s.Temperature = 200
	}
	if s.Block == 0 {
		s.Block = 50
	}
	if s.Damp == 0 {
		s.Damp = 1e-5
	}
	return s
}

// Errors that callers can tell apart with errors.Is.
var (
	ErrNoData  = errors.New("no calibration data: set Source.Data to a data set that yields at least one batch")
	ErrNoModel = errors.New("no network: set Source.Backend, Source.Store and Source.Model")
)

// SourceError says which field of a source can't be used.
type SourceError struct{ Field, Problem, Remedy string }

func (e *SourceError) Error() string {
	return fmt.Sprintf("Source.%s: %s; %s", e.Field, e.Problem, e.Remedy)
}

// LayerError says that a signal can't be collected for a parameter, because of how the network uses it.
type LayerError struct{ Path, Problem, Remedy string }

func (e *LayerError) Error() string { return fmt.Sprintf("%s: %s; %s", e.Path, e.Problem, e.Remedy) }

// MissingError says that signals do not hold what is asked of them.
type MissingError struct {
	Needs criterion.Needs // what is missing
	Path  string          // of the parameter; "": of all
}

func (e *MissingError) Error() string {
	where := ""
	if e.Path != "" {
		where = " of " + e.Path
	}
	return fmt.Sprintf("the signals lack %s%s: collect them with signal.Collect, or Trainer.Signals, with the criterion's Needs", e.Needs, where)
}

// Signals hold what was collected, in float32.
type Signals struct {
	Needs    criterion.Needs // what they hold
	Data     string          // name of the calibration data; "" if none was read
	Examples int             // how many calibration examples there are

	source  Source
	numbers bool // labels are numbers of logits, as the loss that is the default has them
	set     params.Set
	batches []batch
	values  map[criterion.Needs]map[string][]float32
	room    map[criterion.Needs]map[string][]float32 // what was collected before, to be written over; nil: nothing may be

	programs *programs
}

// Collect runs the calibration data through the network and returns the signals for the parameters of a set. Needs that are met elsewhere (those not in
// criterion.NeedSignals) are passed over. The store is not changed.
//
// Errors: ErrNoData, ErrNoModel, *SourceError, *LayerError, *MissingError for start values; what graph building panics with.
func Collect(src Source, set params.Set, needs criterion.Needs) (*Signals, error) {
	needs &= criterion.NeedSignals
	if src.Backend == nil || src.Store == nil || src.Model == nil {
		return nil, ErrNoModel
	}
	for field, bad := range map[string]bool{"Batches": src.Batches < 0, "Examples": src.Examples < 0, "Block": src.Block < 0, "Damp": src.Damp < 0, "Temperature": src.Temperature < 0} {
		if bad {
			return nil, &SourceError{field, "it is negative", "give 0 for the default, or a positive number"}
		}
	}
	for _, p := range set {
		if src.Store.GetVariable(p.Path) == nil {
			return nil, &params.UnknownPathError{Path: p.Path, Known: params.Select(src.Store, nil).Paths()}
		}
	}
	s := &Signals{
		Needs: needs, source: src.complete(), numbers: src.Loss == nil, set: set,
		programs: &programs{map[string]*model.Exec{}, map[string]int{}},
	}
	if needs&criterion.NeedData != 0 {
		if src.Data == nil {
			return nil, ErrNoData
		}
		var err error
		if s.batches, err = read(src.Data, s.source.Batches); err != nil {
			return nil, err
		}
		s.Data = src.Data.Name()
		for _, b := range s.batches {
			s.Examples += b.size
		}
	}
	return s, s.collect()
}

// Refresh collects the same signals again, over the same data, from the weights as they are now. It compiles nothing again.
func (s *Signals) Refresh() (*Signals, error) {
	again := *s
	return &again, again.collect()
}

// Over collects the same signals over other data, from the weights as they are now. It compiles nothing again for batches of the same size.
func (s *Signals) Over(data train.Dataset) (*Signals, error) {
	if data == nil {
		return nil, ErrNoData
	}
	again := *s
	again.source.Data, again.Data, again.Examples = data, data.Name(), 0
	var err error
	if again.batches, err = read(data, s.source.Batches); err != nil {
		return nil, err
	}
	for _, b := range again.batches {
		again.Examples += b.size
	}
	return &again, again.collect()
}

// Renew is Over, into the memory of s: it leaves nothing of what s held, and where it fails nothing at all. It is for who looks at signals again and again while a network
// trains, to whom fresh memory would cost as much as the rest.
func (s *Signals) Renew(data train.Dataset) error {
	s.room, s.values = s.values, nil
	again, err := s.Over(data)
	if err != nil {
		s.Needs, s.room = 0, nil
		return err
	}
	*s = *again
	s.room = nil
	return nil
}

// collectors meet the needs; each fills what it can of several.
var collectors = []struct {
	needs   criterion.Needs
	collect func(s *Signals, wanted criterion.Needs) error
}{
	{criterion.NeedStart, (*Signals).collectStart},
	{criterion.NeedGrad | criterion.NeedHessianGrad, (*Signals).collectGradients},
	{criterion.NeedGradSquare | criterion.NeedInverseFisher | criterion.NeedGaussNewton, (*Signals).collectSquares},
	{criterion.NeedFlow, (*Signals).collectFlow},
	{criterion.NeedInputNorm | criterion.NeedOutputZeros | criterion.NeedOutputNorm | criterion.NeedOutputRank, (*Signals).collectActivations},
	{criterion.NeedResidual, (*Signals).collectResiduals},
	{criterion.NeedGain, (*Signals).collectGains},
}

func (s *Signals) collect() error {
	s.values = map[criterion.Needs]map[string][]float32{}
	if err := s.paired(); err != nil {
		return err
	}
	for _, c := range collectors {
		if wanted := s.Needs & c.needs; wanted != 0 {
			if err := guard.Run("collect "+wanted.String(), func() error { return c.collect(s, wanted) }); err != nil {
				return err
			}
		}
	}
	return s.numbered()
}

// Value returns one signal of one parameter: a value for each weight, in row-major order, or for each channel (criterion.Inputs says which). It belongs
// to the signals. The error is a *MissingError.
func (s *Signals) Value(need criterion.Needs, path string) ([]float32, error) {
	if s == nil {
		return nil, &MissingError{Needs: need, Path: path}
	}
	values, ok := s.values[need][path]
	if !ok {
		return nil, &MissingError{Needs: need, Path: path}
	}
	return values, nil
}

// Check returns a *MissingError unless the signals hold all of needs that signals meet. s may be nil.
func (s *Signals) Check(needs criterion.Needs) error {
	missing := needs & criterion.NeedSignals
	if s != nil {
		missing &^= s.Needs
	}
	if missing != 0 {
		return &MissingError{Needs: missing}
	}
	return nil
}

// Paths returns the parameters for which there are signals.
func (s *Signals) Paths() []string { return s.set.Paths() }

// String says what there is, in one line.
func (s *Signals) String() string {
	text := fmt.Sprintf("%s of %d parameters", s.Needs, len(s.set))
	if s.Data != "" {
		text += fmt.Sprintf(", over %d examples of %s", s.Examples, s.Data)
	}
	return text
}

func (s *Signals) put(need criterion.Needs, path string, values []float32) {
	if bits.OnesCount32(uint32(need)) != 1 {
		panic("one signal at a time")
	}
	if s.values[need] == nil {
		s.values[need] = map[string][]float32{}
	}
	s.values[need][path] = values
}

// place returns where a signal of n values goes.
func (s *Signals) place(need criterion.Needs, path string, n int) []float32 {
	if have := s.room[need][path]; len(have) == n {
		return have
	}
	return make([]float32, n)
}

func (s *Signals) collectStart(criterion.Needs) error {
	for _, p := range s.set {
		t, ok := s.source.Start[p.Path]
		if !ok {
			known := slices.Sorted(maps.Keys(s.source.Start))
			return fmt.Errorf("Source.Start has no value for %s, only for %v: set it to experiment.Snapshot(store), taken before training: %w",
				p.Path, known, &MissingError{Needs: criterion.NeedStart, Path: p.Path})
		}
		if !t.Shape().Equal(p.Shape) {
			return &SourceError{"Start", fmt.Sprintf("%s has shape %s, expected %s", p.Path, t.Shape(), p.Shape), "take the snapshot of the same network"}
		}
		values, err := tensors.CopyFlatData[float32](t)
		if err != nil {
			return err
		}
		s.put(criterion.NeedStart, p.Path, values)
	}
	return nil
}

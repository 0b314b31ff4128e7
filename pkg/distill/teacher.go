package distill

import (
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
)

// ModelFn is a network: a batch of examples [batch, …] in, logits [batch, classes] out. It is experiment.ModelFn.
type ModelFn = func(scope *model.Scope, x *graph.Node) *graph.Node

// Teacher is a trained network that a student learns from.
type Teacher struct {
	Name  string  // for errors. Default: "teacher 0" and so on, by its place
	Model ModelFn // takes the student's batches
	// Store has its values, which are copied when Teach is called. So a network can be its own teacher, as it was then: of its pruned self, for instance.
	Store *model.Store
	// Weight is its share among several teachers, in terms on logits; they are divided by their sum. Default: 1
	Weight float64
}

// lecturer is a teacher at work. Its network is built in inference mode, in graphs and with a store of its own: no training can reach it.
type lecturer struct {
	Teacher
	exec *model.Exec
}

// frozen returns a copy of a store.
func frozen(store *model.Store) (*model.Store, error) {
	copied := model.NewStore()
	for path, value := range store.IterParams() {
		copied.SetParam(path, value)
	}
	for v := range store.IterVariables() {
		if !v.HasValue() {
			return nil, fmt.Errorf("%s has no value: initialise, train or load the network before", v.Path())
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		if value, err = value.LocalClone(); err != nil {
			return nil, err
		}
		made, err := copied.CreateVariable(v.Path(), value)
		if err != nil {
			return nil, err
		}
		made.SetTrainable(false)
	}
	return copied, nil
}

// unset returns the variables of a store that have no values: in a copy by frozen, those that a model has asked for in vain.
func unset(store *model.Store) (paths []string) {
	for v := range store.IterVariables() {
		if !v.HasValue() && v.Path() != "/"+model.RNGStateVariableName { // which dropout asks for
			paths = append(paths, v.Path())
		}
	}
	slices.Sort(paths)
	return paths
}

// features builds the network in inference mode and returns its logits and what terms compare of it, before Term.lecture.
func (l *lecturer) features(x *graph.Node, terms []Term) (logits *graph.Node, features []*graph.Node) {
	l.Store.SetTraining(x.Graph(), false)
	logits = l.Model(l.Store.RootScope(), x)
	for _, t := range terms {
		if t.onLogits() || t.at.Teacher == "" {
			features = append(features, logits)
		} else {
			features = append(features, t.at.lastly(read(l.Name, l.Store, x, t.at.Teacher)))
		}
	}
	return logits, features
}

// prepare makes what answers: decode makes examples of what is asked. Nothing is compiled yet.
func (l *lecturer) prepare(b compute.Backend, decode func(*graph.Node) *graph.Node, terms []Term) error {
	if len(terms) == 0 {
		return nil
	}
	var err error
	l.exec, err = model.NewExec(b, l.Store, func(_ *model.Scope, x *graph.Node) *graph.Node {
		defer guard.Building()
		_, features := l.features(decode(x), terms)
		parts := make([]*graph.Node, len(features))
		for i, f := range features {
			if terms[i].lecture != nil {
				f = terms[i].lecture(f)
			}
			parts[i] = flatten(f)
		}
		return graph.Concatenate(parts, -1) // [batch, width]
	})
	if err == nil {
		l.exec.SetMaxCache(-1)
	}
	return err
}

// answer runs the teacher on a raw batch and returns its answers one after the other, on the host.
func (l *lecturer) answer(x *tensors.Tensor) ([]float32, error) {
	if l.exec == nil {
		return nil, nil // nobody asks it anything
	}
	var flat []float32
	err := guard.Run(l.Name, func() error {
		y, err := l.exec.Call1(x)
		if err != nil {
			return err
		}
		if y.DType() != dtypes.Float32 {
			return fmt.Errorf("it answers in %s: use a network in float32", y.DType())
		}
		if flat, err = tensors.CopyFlatData[float32](y); err != nil {
			return err
		}
		for _, a := range flat {
			if a-a != 0 { // NaN and infinities
				return &ConfigError{"Config.Teachers", fmt.Sprintf("%s answers %v to an example", l.Name, a), "look at its weights, and at the examples"}
			}
		}
		return y.FinalizeAll()
	})
	return flat, err
}

// identity adds to a digest what the teacher is: its values, and what it answers to made-up examples of a shape, which depends on its function.
func (l *lecturer) identity(b compute.Backend, h hash.Hash, shape shapes.Shape) error {
	for _, v := range slices.SortedFunc(l.Store.IterVariables(), func(a, b *model.Variable) int { return strings.Compare(a.Path(), b.Path()) }) {
		value, err := v.Value()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, v.Path(), value.Shape())
		if err := value.ConstBytes(func(data []byte) { h.Write(data) }); err != nil {
			return err
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	x := make([]float32, shape.Size())
	for i := range x {
		x[i] = random.Float32()
	}
	asked := tensors.FromFlatDataAndDimensions(x, shape.Dimensions...)
	if shape.DType != dtypes.Float32 {
		if err := guard.Run(l.Name, func() (err error) {
			asked, err = graph.CallOnce(b, func(x *graph.Node) *graph.Node {
				defer guard.Building()
				if !shape.DType.IsFloat() {
					x = graph.Round(x) // 0 and 1 are in any vocabulary
				}
				return graph.ConvertDType(x, shape.DType)
			}, asked)
			return err
		}); err != nil {
			return err
		}
	}
	answers, err := l.answer(asked)
	if err != nil {
		return err
	}
	for _, a := range answers {
		h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(a)))
	}
	return nil
}

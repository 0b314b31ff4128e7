// Package distill trains a network, the student, on what other networks, its teachers, make of the examples: on their logits (Hinton et al. 2015), on features inside of them (FitNets,
// attention transfer), and on how examples lie to each other (relational distillation).
//
// A teacher is a labeller. What the student is told for an example, its logits for instance, is computed with a frozen copy of the teacher in inference mode, and goes with the example as
// further labels: cached once for all examples of a data set that lies in memory, or with each batch for others. So the student's training step has no teacher in it. Teachers can't be
// trained, pruned or saved with the student; loops over many steps, resume and checkpoints are those of plain training; and because labels are part of a run's digest, another
// teacher is another run.
//
//	taught, err := distill.Teach(ctx, distill.Config{
//		Student: small.Single, Train: data.Train,
//		Teachers: []distill.Teacher{{Model: nets.LeNet300, Store: store}},
//		Terms:    []distill.Term{distill.Logits(4, 0.9)},
//	})
//	task.Model, task.Loss, task.Train = taught.Model, taught.Loss, taught.Train
//
// The task then trains as any other, with masks, topologies and schedules. The student may be the pruned network, a small one from surgery, or any other.
package distill

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
)

// Config says who learns what from whom. Student, Teachers and Train have no default.
type Config struct {
	// Backend computes. nil: backend.Open().
	Backend compute.Backend
	// Student is the network that is to be trained. Store has its variables, to see that it fits its teachers; nothing is changed there. nil: they are made anew for that, which not every
	// model function can, those of ONNX models for instance.
	Student ModelFn
	Store   *model.Store
	// Teachers are one, or several whose answers are weighed.
	Teachers []Teacher
	// Terms are the parts of the loss. Beside terms on logits, which say what share the labels have, the labels' loss counts once. Default: Logits(4, 0.9)
	Terms []Term
	// Hard is the loss of the labels, as experiment.Task.Loss. nil: sparse categorical cross-entropy of logits
	Hard train.LossFn
	// Train is what the student is trained on. If it lies in memory (experiment.Resident), the teachers' answers are computed once, by Teach. Their labels have to be class numbers.
	Train train.Dataset
	// Limit is the most memory, in bytes, for answers that are kept. Default: 1 GiB
	Limit int64
	// Progress is called as examples in memory are answered, with the name of the teacher; total is all examples of all teachers. nil: not
	Progress func(done, total int, note string)
}

// Taught is a student's training: give an experiment.Task its Model, Loss and Train. It must not build two graphs at once.
type Taught struct {
	// Model is the student. In all phases it computes what Config.Student does.
	Model ModelFn
	// Loss is that of the terms for the labels of Train, and Config.Hard for those of any other data set: of validation data, for instance.
	Loss train.LossFn
	// Train is Config.Train with the teachers' answers as further labels: [batch, 1 + width] in float32, where it had [batch, 1]. It lies in memory if Config.Train does. Its digest
	// tells teachers apart. To evaluate the student on the same examples, give experiment.Evaluate Config.Train.
	Train train.Dataset

	terms    []Term
	hard     train.LossFn
	numbered bool    // Config.Hard is unset, so labels are numbers of logits
	share    float64 // of the labels' loss
	teachers []*lecturer
	weights  []float64
	lectures []lecture
	width    int // numbers in all lectures
	classes  int // the student's logits

	sync.Mutex
	last     *graph.Graph  // in which the student was built last
	features []*graph.Node // of it, for each term; nil for terms on logits
	store    *model.Store  // its
}

// lecture is what one teacher says for one term: a part of the labels.
type lecture struct {
	term, teacher int
	start, end    int
	dims          []int // of an example
}

// Teach prepares a student's training. Networks are built once to see that they fit; for data in memory, teachers are run over all examples,
// until ctx is cancelled: nothing of that is kept.
//
// Errors: *ConfigError, *ClassesError, *LayerError, *ShapeError, *TooLargeError; ctx.Err(); what building and running the networks returns.
func Teach(ctx context.Context, cfg Config) (*Taught, error) {
	t, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if cfg.Backend == nil {
		if cfg.Backend, err = backend.Open(); err != nil {
			return nil, err
		}
	}
	for i, teacher := range cfg.Teachers {
		l := &lecturer{Teacher: teacher}
		if l.Name == "" {
			l.Name = fmt.Sprintf("teacher %d", i)
		}
		if l.Store, err = frozen(teacher.Store); err != nil {
			return nil, fmt.Errorf("%s: %w", l.Name, err)
		}
		t.teachers = append(t.teachers, l)
	}
	decode, raw, err := examples(cfg.Train)
	if err != nil {
		return nil, err
	}
	if err := guard.Run("distill.Teach", func() error { return t.fit(cfg, decode, raw) }); err != nil {
		return nil, unwrapped(err)
	}
	for i, l := range t.teachers {
		if err := l.prepare(cfg.Backend, decode, t.said(i)); err != nil {
			return nil, err
		}
	}
	t.Model = func(scope *model.Scope, x *graph.Node) *graph.Node { return t.build(cfg.Student, scope, x) }
	t.Loss = t.loss
	if t.Train, err = t.label(ctx, cfg, raw); err != nil {
		return nil, err
	}
	return t, nil
}

// unwrapped is an error of this package without what was being done.
func unwrapped(err error) error {
	var (
		classes *ClassesError
		layer   *LayerError
		shape   *ShapeError
		config  *ConfigError
	)
	switch {
	case errors.As(err, &config):
		return config
	case errors.As(err, &classes):
		return classes
	case errors.As(err, &layer):
		return layer
	case errors.As(err, &shape):
		return shape
	}
	return err
}

// check checks what can be without building a network.
func (cfg Config) check() (*Taught, error) {
	t := &Taught{terms: cfg.Terms, hard: cfg.Hard, numbered: cfg.Hard == nil, share: 1}
	if t.terms == nil {
		t.terms = []Term{Logits(4, 0.9)}
	}
	if t.hard == nil {
		t.hard = loss.SparseCategoricalCrossEntropyLogits
	}
	missing := func(field, what string) (*Taught, error) {
		return nil, &ConfigError{field, "it is not set", "give " + what}
	}
	switch {
	case cfg.Student == nil:
		return missing("Config.Student", "the network that is to learn")
	case len(cfg.Teachers) == 0:
		return missing("Config.Teachers", "at least one trained network")
	case cfg.Train == nil:
		return missing("Config.Train", "the data to train on")
	case cfg.Limit < 0:
		return nil, &ConfigError{"Config.Limit", fmt.Sprintf("got %d", cfg.Limit), "give a positive number of bytes, or 0 for the default"}
	}
	sum := 0.0
	for i, teacher := range cfg.Teachers {
		field := fmt.Sprintf("Config.Teachers[%d]", i)
		if teacher.Model == nil || teacher.Store == nil {
			return missing(field+".Model or Store", "the network and its trained weights")
		}
		w := teacher.Weight
		if w == 0 {
			w = 1
		}
		if !(w > 0) || math.IsInf(w, 1) {
			return nil, &ConfigError{field + ".Weight", fmt.Sprintf("got %v", w), "give a finite number above 0, or leave the teacher out"}
		}
		t.weights = append(t.weights, w)
		sum += w
	}
	for i := range t.weights {
		t.weights[i] /= sum
	}
	soft := 0.0
	for _, term := range t.terms {
		switch {
		case term.loss == nil:
			return nil, &ConfigError{"Config.Terms", "a term is empty", "make terms with Logits, LogitsMSE, Hint, Attention, RelationalDistance or RelationalAngle"}
		case term.wrong != nil:
			return nil, term.wrong
		case term.at.Of >= len(cfg.Teachers):
			return nil, &ConfigError{"Config.Terms", fmt.Sprintf("%v names teacher %d, and there are %d, from 0", term, term.at.Of, len(cfg.Teachers)), "name one that is there"}
		}
		soft += term.alpha
	}
	if soft > 1+1e-9 { // nine times 1/9 is more than 1
		return nil, &ConfigError{"Config.Terms", fmt.Sprintf("the shares alpha of the terms on logits have the sum %v", soft), "make it at most 1: what is left is the share of the labels"}
	}
	t.share = max(0, 1-soft)
	// A share of nothing is not computed.
	t.terms = slices.DeleteFunc(slices.Clone(t.terms), func(term Term) bool { return term.onLogits() && term.alpha == 0 })
	return t, nil
}

// said returns the terms that a teacher says something for.
func (t *Taught) said(teacher int) []Term {
	var terms []Term
	for _, l := range t.lectures {
		if l.teacher == teacher {
			terms = append(terms, t.terms[l.term])
		}
	}
	return terms
}

// fit builds all networks for one batch, in graphs that are thrown away, and finds out what the teachers' answers look like.
func (t *Taught) fit(cfg Config, decode func(*graph.Node) *graph.Node, raw shapes.Shape) error {
	build := func(name string, f func(x *graph.Node), store *model.Store) {
		g := graph.NewGraph(cfg.Backend, name)
		defer g.Finalize()
		model.SetStore(g, store)
		f(decode(graph.Parameter(g, "examples", raw)))
	}
	// For each term, what the student has, and what each teacher has: dimensions of an example.
	var students [][]int
	scratch := model.NewStore() // no variable is to be made in the student's
	if cfg.Store != nil {
		var err error
		if scratch, err = frozen(cfg.Store); err != nil {
			return fmt.Errorf("the student: %w", err)
		}
	}
	build("student", func(x *graph.Node) {
		scratch.SetTraining(x.Graph(), false)
		y := cfg.Student(scratch.RootScope(), x)
		if missing := unset(scratch); cfg.Store != nil && len(missing) > 0 {
			panic(foreign("Config.Store", missing))
		}
		t.classes = y.Shape().Dim(-1)
		for _, term := range t.terms {
			f := y
			if term.at.Student != "" {
				f = term.at.lastly(read("the student", scratch, x, term.at.Student))
			}
			students = append(students, perExample("the student", term.at.Student, f, x))
		}
	}, scratch)
	for i, l := range t.teachers {
		var unused []string // what its optimizer has left, for instance
		build(l.Name, func(x *graph.Node) {
			var asked []Term
			var of []int
			for k, term := range t.terms {
				if term.onLogits() || term.at.Of == i {
					asked, of = append(asked, term), append(of, k)
				}
			}
			logits, features := l.features(x, asked)
			if missing := unset(l.Store); len(missing) > 0 {
				panic(foreign(fmt.Sprintf("Config.Teachers[%d].Store", i), missing))
			}
			for j, k := range of {
				term := t.terms[k]
				if term.onLogits() && logits.Shape().Dim(-1) != t.classes {
					panic(&ClassesError{l.Name, t.classes, logits.Shape().Dim(-1)})
				}
				dims := perExample(l.Name, term.at.Teacher, features[j], x)
				if term.fit != nil {
					if problem, remedy := term.fit(students[k], dims); problem != "" {
						panic(&ShapeError{term.String(), students[k], dims, problem, remedy})
					}
				}
				if term.lecture != nil {
					dims = term.lecture(features[j]).Shape().Dimensions[1:]
				}
				size := 1
				for _, d := range dims {
					size *= d
				}
				t.lectures = append(t.lectures, lecture{term: k, teacher: i, dims: dims, start: 1 + t.width, end: 1 + t.width + size})
				t.width += size
			}
			for v := range l.Store.IterVariables() {
				if !v.InUseByGraph(x.Graph()) {
					unused = append(unused, v.Path())
				}
			}
		}, l.Store)
		for _, path := range unused {
			if err := l.Store.DeleteVariable(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// perExample returns the dimensions of what a network has for each example of a batch x. Answers are kept by example, so the batch has to come first.
func perExample(network, path string, f, x *graph.Node) []int {
	if f.Rank() == 0 || f.Shape().Dimensions[0] != x.Shape().Dimensions[0] {
		what := "its logits"
		if path != "" {
			what = "what " + path + " reads"
		}
		panic(&ConfigError{"Config.Terms", fmt.Sprintf("of %d examples, %s makes %s of the shape %s", x.Shape().Dimensions[0], network, what, f.Shape()), "compare what has the examples along its first axis"})
	}
	return f.Shape().Dimensions[1:]
}

// foreign says that a store is not that of a model.
func foreign(field string, missing []string) *ConfigError {
	some := strings.Join(missing[:min(3, len(missing))], ", ")
	if len(missing) > 3 {
		some += ", …"
	}
	return &ConfigError{field, fmt.Sprintf("it has no %s, which the model asks for", some), "give the store that this model was initialised and trained in"}
}

// build is Taught.Model.
func (t *Taught) build(student ModelFn, scope *model.Scope, x *graph.Node) *graph.Node {
	y := student(scope, x)
	features := make([]*graph.Node, len(t.terms))
	for i, term := range t.terms {
		switch {
		case term.onLogits():
		case term.at.Student == "":
			features[i] = y
		default:
			features[i] = term.at.lastly(read("the student", scope.Store(), x, term.at.Student))
		}
	}
	t.Lock()
	defer t.Unlock()
	t.last, t.features, t.store = x.Graph(), features, scope.Store()
	return y
}

// loss is Taught.Loss.
func (t *Taught) loss(labels, predictions []*graph.Node) *graph.Node {
	all, logits := labels[0], predictions[0]
	if all.Rank() != 2 || all.Shape().Dim(-1) != 1+t.width || !all.DType().IsFloat() {
		return t.hard(labels, predictions)
	}
	t.Lock()
	g, features, store := t.last, t.features, t.store
	t.Unlock()
	if onLayers := slices.ContainsFunc(t.terms, func(term Term) bool { return !term.onLogits() }); onLayers && g != logits.Graph() {
		panic(&ConfigError{"Taught.Loss", "its predictions were not made by Taught.Model", "give the task both"})
	}
	var total *graph.Node
	add := func(weight float64, l *graph.Node) {
		if l = scalar(l); weight != 1 { // a weight of 1 changes no bit
			l = graph.MulScalar(l, weight)
		}
		if total == nil {
			total = l
		} else {
			total = graph.Add(total, graph.ConvertDType(l, total.DType()))
		}
	}
	if t.share > 0 {
		class := graph.ConvertDType(graph.Slice(all, graph.AxisRange(), graph.AxisRange(0, 1)), dtypes.Int32) // [batch, 1]
		add(t.share, t.hard([]*graph.Node{class}, predictions))
	}
	for _, l := range t.lectures {
		term := t.terms[l.term]
		said := graph.Slice(all, graph.AxisRange(), graph.AxisRange(l.start, l.end))
		said = graph.ConvertDType(graph.Reshape(said, append([]int{logits.Shape().Dimensions[0]}, l.dims...)...), logits.DType()) // [batch, …]
		if term.onLogits() {
			add(term.alpha*t.weights[l.teacher], term.loss(logits, said))
			continue
		}
		add(term.weight, term.loss(term.learnt(adapt{store, l.term, l.dims}, features[l.term]), said))
	}
	return total
}

// Dismiss removes from a student's store what training with hints has left there, the adapters. The student computes the same without them.
func Dismiss(store *model.Store) error {
	var paths []string
	for v := range store.IterVariables() {
		for _, of := range []string{"", "/AdamOptimizer", "/optimizers/velocity"} {
			if strings.HasPrefix(v.Path(), of+adapters) {
				paths = append(paths, v.Path())
			}
		}
	}
	for _, path := range paths {
		if err := store.DeleteVariable(path); err != nil {
			return fmt.Errorf("distill.Dismiss: %w", err)
		}
	}
	return nil
}

// String says what the student is taught, for records.
func (t *Taught) String() string {
	var parts []string
	for _, term := range t.terms {
		parts = append(parts, term.String())
	}
	if len(parts) == 0 {
		return "labels"
	}
	return strings.Join(parts, " + ")
}

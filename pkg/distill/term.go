package distill

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// Term is one part of the loss that a student learns by: Logits, LogitsMSE, Hint, Attention, RelationalDistance or RelationalAngle.
type Term struct {
	name   string
	alpha  float64 // share of the loss, of terms on logits
	weight float64 // of terms on layers
	at     Between
	wrong  *ConfigError // nil: its numbers can be used

	// lecture is what the student is told of the teacher's features, for each example; nil: all of them. [batch, …] -> [batch, …]
	lecture func(x *graph.Node) *graph.Node
	// learnt brings the student's features to the form of lecture's result.
	learnt func(a adapt, x *graph.Node) *graph.Node
	// fit returns what keeps a student's features from being compared with a teacher's; "" if nothing. Dimensions are without the batch.
	fit  func(student, teacher []int) (problem, remedy string)
	loss func(student, teacher *graph.Node) *graph.Node
}

// String names the term with its numbers, the same for the same term.
func (t Term) String() string { return t.name }

// Between names a layer of the student and one of its teacher. A layer is named by the path of its kernel in the network's store, such as "/conv2/conv/weights", and stands for what
// it reads: the activations that go into the product with the kernel, after normalisation, activation function and pooling of the layers before. That can be said of any
// model function, also of one that surgery has made smaller, without a change to it. What dense layers read of a sequence is [batch, positions…, channels], and of a kernel that is used several times the
// first product counts. "" stands for the logits.
type Between struct {
	Student, Teacher string
	// Of is the teacher's place in Config.Teachers. Default: the first
	Of int
	// ChannelsFirst says that the features are [batch, channels, spatial…], as those of most ONNX models are. Default: [batch, spatial…, channels]
	ChannelsFirst bool
}

func (b Between) String() string {
	name := func(path string) string {
		if path == "" {
			return "logits"
		}
		return path
	}
	s := name(b.Student) + " ~ " + name(b.Teacher)
	if b.Of != 0 {
		s += fmt.Sprintf(" of teacher %d", b.Of)
	}
	if b.ChannelsFirst {
		s += " channels first"
	}
	return s
}

// Logits is knowledge distillation by Hinton et al. 2015, arXiv:1503.02531: the loss is alpha·T²·KL(teacher ‖ student) + (1 − alpha)·(the loss of the labels), with the probabilities of
// both softened by the temperature T (see KL). Temperature 4 and alpha 0.9 are common.
//
// Of several teachers it is the mean of their divergences by Teacher.Weight, which has the gradient of the divergence from the mean of their probabilities.
func Logits(temperature, alpha float64) Term {
	t := Term{name: fmt.Sprintf("logits T=%g α=%g", temperature, alpha), alpha: alpha, loss: func(student, teacher *graph.Node) *graph.Node { return KL(student, teacher, temperature) }}
	if !(temperature >= 1e-3 && temperature <= 1e3) { // beyond, float32 holds nothing of the differences
		t.wrong = &ConfigError{"Logits", fmt.Sprintf("the temperature is %v", temperature), "give a number from 0.001 to 1000: 1 leaves the probabilities as they are, 4 is common"}
	}
	return t.share("Logits")
}

// LogitsMSE is alpha·(mean squared difference of the logits) + (1 − alpha)·(the loss of the labels): distillation without a temperature, see MSE.
func LogitsMSE(alpha float64) Term {
	return Term{name: fmt.Sprintf("logits MSE α=%g", alpha), alpha: alpha, loss: MSE}.share("LogitsMSE")
}

func (t Term) share(field string) Term {
	if t.wrong == nil && !(t.alpha >= 0 && t.alpha <= 1) {
		t.wrong = &ConfigError{field, fmt.Sprintf("alpha is %v", t.alpha), "give the teacher's share of the loss, from 0, which is training by the labels alone, to 1"}
	}
	return t
}

// ofLayers completes a term on layers.
func (t Term) ofLayers(field string, weight float64, at Between) Term {
	t.weight, t.at = weight, at
	t.name = fmt.Sprintf("%s %g %v", t.name, weight, at)
	if !(weight > 0) || math.IsInf(weight, 1) {
		t.wrong = &ConfigError{field, fmt.Sprintf("the weight is %v", weight), "give a finite number above 0, or leave the term out"}
	}
	if at.Of < 0 {
		t.wrong = &ConfigError{field, fmt.Sprintf("Between.Of is %d", at.Of), "give the teacher's place in Config.Teachers, from 0"}
	}
	return t
}

// Hint adds weight times HintLoss: a learnt adapter has to make the teacher's features of the student's. Romero et al. 2015 (FitNets), arXiv:1412.6550. The adapter is linear with a
// bias; between feature maps it is a convolution without padding that makes the student's positions as many as the teacher's, of size 1 if they are so already, as in section
// 2.3 of the paper. Where the paper first trains by hints alone, here all terms are trained at once.
func Hint(weight float64, at Between) Term {
	return Term{
		name:   "hint",
		learnt: func(a adapt, x *graph.Node) *graph.Node { return a.apply(x) },
		fit: func(student, teacher []int) (problem, remedy string) {
			if len(student) != len(teacher) || len(student) == 0 {
				return "no linear map or convolution makes the one of the other", "choose two layers of the same kind: both of vectors, or both of feature maps"
			}
			for i := range len(student) - 1 {
				if student[i] < teacher[i] {
					return "the adapter is a convolution without padding, which makes maps smaller and never larger", "choose a layer of the student that has at least as many positions"
				}
			}
			return "", ""
		},
		loss: HintLoss,
	}.ofLayers("Hint", weight, at)
}

// Attention adds weight times AttentionLoss between the maps of where both networks look (AttentionMap). Zagoruyko and Komodakis 2017, arXiv:1612.03928; their code has a weight of 500 or so.
// The networks may have different numbers of channels, not of positions.
func Attention(weight float64, at Between) Term {
	return Term{
		name:    "attention",
		lecture: AttentionMap,
		learnt:  func(_ adapt, x *graph.Node) *graph.Node { return AttentionMap(x) },
		fit: func(student, teacher []int) (problem, remedy string) {
			if len(student) < 2 || len(teacher) < 2 {
				return "attention is over positions, and there are none", "choose layers that read feature maps"
			}
			if positions(student) != positions(teacher) {
				return "the maps have different numbers of positions", "choose layers whose feature maps are of one size"
			}
			return "", ""
		},
		loss: AttentionLoss,
	}.ofLayers("Attention", weight, at)
}

func positions(dims []int) int {
	n := 1
	for _, d := range dims[:len(dims)-1] {
		n *= d
	}
	return n
}

// RelationalDistance adds weight times DistanceLoss of the batch's features, flattened. Park et al. 2019 (RKD), arXiv:1904.05068, who have a weight of 25.
func RelationalDistance(weight float64, at Between) Term {
	return Term{name: "relational distance", lecture: flatten, learnt: flat, fit: anything, loss: DistanceLoss}.ofLayers("RelationalDistance", weight, at)
}

// RelationalAngle adds weight times AngleLoss of the batch's features, flattened. Park et al. 2019 (RKD), arXiv:1904.05068, who have a weight of 50.
func RelationalAngle(weight float64, at Between) Term {
	return Term{name: "relational angle", lecture: flatten, learnt: flat, fit: anything, loss: AngleLoss}.ofLayers("RelationalAngle", weight, at)
}

func flat(_ adapt, x *graph.Node) *graph.Node { return flatten(x) }

// flatten is [batch, …] -> [batch, features].
func flatten(x *graph.Node) *graph.Node {
	batch := x.Shape().Dimensions[0]
	return graph.Reshape(x, batch, x.Shape().Size()/batch)
}

func anything([]int, []int) (problem, remedy string) { return "", "" }

// onLogits tells whether a term compares logits as such, with labels beside it.
func (t Term) onLogits() bool { return t.learnt == nil }

// lastly brings features to [batch, spatial…, channels].
func (b Between) lastly(x *graph.Node) *graph.Node {
	if !b.ChannelsFirst || x.Rank() < 3 {
		return x
	}
	axes := []int{0}
	for axis := 2; axis < x.Rank(); axis++ {
		axes = append(axes, axis)
	}
	return graph.TransposeAllAxes(x, append(axes, 1)...)
}

// adapters is the scope in which they lie in the student's store.
const adapters = model.ScopeSeparator + "distill" + model.ScopeSeparator

// adapt is the adapter of one term.
type adapt struct {
	store   *model.Store
	term    int
	teacher []int // dimensions of an example
}

// apply is the adapter. [batch, spatial…, in] -> [batch, spatial…, out]
func (a adapt) apply(x *graph.Node) *graph.Node {
	g, dims := x.Graph(), x.Shape().Dimensions[1:]
	last := len(dims) - 1
	kernel := []int{}
	for i := range last {
		kernel = append(kernel, dims[i]-a.teacher[i]+1)
	}
	kernel = append(kernel, dims[last], a.teacher[last]) // [spatial…, in, out]
	w := a.variable("adapter", kernel).NodeValue(g)
	b := a.variable("bias", []int{a.teacher[last]}).NodeValue(g)
	if last == 0 {
		x = graph.Dot(x, w).Product() // [batch, in] -> [batch, out]
	} else {
		x = graph.Convolve(x, w).NoPadding().Done()
	}
	for b.Rank() < x.Rank() {
		b = graph.InsertAxes(b, 0)
	}
	return graph.Add(x, b)
}

// variable returns a variable of the adapter, which is trained with the student. Its first values are a function of the term's place alone: normal, of variance 1/in.
func (a adapt) variable(name string, dims []int) *model.Variable {
	path := fmt.Sprintf("%s%d/%s", adapters, a.term, name)
	if v := a.store.GetVariable(path); v != nil {
		if fmt.Sprint(v.Shape().Dimensions) != fmt.Sprint(dims) {
			panic(&ConfigError{path, fmt.Sprintf("it has the shape %s, expected %v: it was made for another student or teacher", v.Shape(), dims), "call distill.Dismiss on the store before"})
		}
		return v
	}
	size, in := 1, 1
	for i, d := range dims {
		size *= d
		if i < len(dims)-1 {
			in *= d
		}
	}
	values := make([]float32, size)
	if len(dims) > 1 {
		random := rand.New(rand.NewPCG(uint64(a.term), 1))
		for i := range values {
			values[i] = float32(random.NormFloat64() / math.Sqrt(float64(in)))
		}
	}
	return a.store.VariableWithValue(path, tensors.FromFlatDataAndDimensions(values, dims...))
}

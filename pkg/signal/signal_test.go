package signal

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"gonum.org/v1/gonum/mat"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/params"
)

func open(t testing.TB) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// data yields the same batches each time.
type data struct {
	name    string
	inputs  [][]float32
	dims    []int // of an example
	labels  [][]int32
	touched int
}

func (d *data) Name() string { return d.name }
func (d *data) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for i, x := range d.inputs {
			d.touched++
			n := len(d.labels[i])
			batch := train.Batch{
				Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(slices.Clone(x), append([]int{n}, d.dims...)...)},
				Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(slices.Clone(d.labels[i]), n, 1)},
			}
			if !yield(batch, nil) {
				return
			}
		}
	}
}

// one yields one batch, once.
type one struct{ batch train.Batch }

func (one) Name() string { return "one batch" }
func (d one) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) { yield(d.batch, nil) }
}

func store(t *testing.T, values map[string]*tensors.Tensor) *model.Store {
	t.Helper()
	s := model.NewStore()
	for path, value := range values {
		if _, err := s.CreateVariable(path, value); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func near(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
		return
	}
	for i := range got {
		if math.Abs(float64(got[i])-want[i]) > tolerance*max(1, math.Abs(want[i])) {
			t.Errorf("%s: got %v, want %v", what, got, want)
			return
		}
	}
}

func value(t *testing.T, s *Signals, need criterion.Needs, path string) []float32 {
	t.Helper()
	v, err := s.Value(need, path)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// linear is x·w, and half its square is the loss: the gradient of an example is y·x, the Hessian x·xᵀ.
func linear(scope *model.Scope, x *graph.Node) *graph.Node {
	w := scope.Store().GetVariable("/w/weights").NodeValue(x.Graph())
	return graph.Dot(x, w).Product()
}

func halfSquare(_, predictions []*graph.Node) *graph.Node {
	return graph.MulScalar(graph.Square(predictions[0]), 0.5)
}

func linearSource(t *testing.T) (Source, params.Set, *data) {
	s := store(t, map[string]*tensors.Tensor{"/w/weights": tensors.FromFlatDataAndDimensions([]float32{1, 2}, 2, 1)})
	// y = 1, 2 and, in the second batch, −1.
	d := &data{name: "three examples", dims: []int{2}, inputs: [][]float32{{1, 0, 0, 1}, {1, -1}}, labels: [][]int32{{0, 0}, {0}}}
	return Source{Backend: open(t), Store: s, Model: linear, Loss: halfSquare, Data: d, Temperature: 1, Block: 2, Damp: 1}, params.Select(s, nil), d
}

func TestGradientsByHand(t *testing.T) {
	src, set, d := linearSource(t)
	s, err := Collect(src, set, criterion.NeedGrad|criterion.NeedGradSquare|criterion.NeedHessianGrad|criterion.NeedInverseFisher|criterion.NeedUniform)
	if err != nil {
		t.Fatal(err)
	}
	// Gradients of the examples: (1, 0), (0, 2), (−1, 1).
	near(t, "gradient", value(t, s, criterion.NeedGrad, "/w/weights"), []float64{0, 1}, 1e-6)
	near(t, "squares", value(t, s, criterion.NeedGradSquare, "/w/weights"), []float64{2.0 / 3, 5.0 / 3}, 1e-6)
	// H = (1/3)·[[2, −1], [−1, 2]], times (0, 1).
	near(t, "Hessian times gradient", value(t, s, criterion.NeedHessianGrad, "/w/weights"), []float64{-1.0 / 3, 2.0 / 3}, 1e-6)
	// F = I + (1/3)·[[2, −1], [−1, 5]] = (1/3)·[[5, −1], [−1, 8]], whose inverse has (3/39)·(8, 5) on its diagonal.
	near(t, "inverse Fisher", value(t, s, criterion.NeedInverseFisher, "/w/weights"), []float64{24.0 / 39, 15.0 / 39}, 1e-6)
	if s.Examples != 3 || s.Data != "three examples" || d.touched != 2 {
		t.Errorf("%d examples of %q, %d batches were drawn: each batch is drawn once", s.Examples, s.Data, d.touched)
	}
	if _, err := s.Value(criterion.NeedStart, "/w/weights"); err == nil {
		t.Error("a signal that nobody asked for is there")
	}
	if want := "over 3 examples of three examples"; !strings.Contains(s.String(), want) {
		t.Errorf("got %q, want %q in it", s, want)
	}

	// Other weights, the same data.
	if err := src.Store.GetVariable("/w/weights").SetValue(tensors.FromFlatDataAndDimensions([]float32{2, 4}, 2, 1)); err != nil {
		t.Fatal(err)
	}
	again, err := s.Refresh()
	if err != nil {
		t.Fatal(err)
	}
	near(t, "gradient again", value(t, again, criterion.NeedGrad, "/w/weights"), []float64{0, 2}, 1e-6)
	near(t, "the first stays", value(t, s, criterion.NeedGrad, "/w/weights"), []float64{0, 1}, 1e-6)
	if d.touched != 2 {
		t.Errorf("%d batches were drawn: Refresh draws none", d.touched)
	}
}

// Renew is Over into the memory that is there; where it fails, nothing is left that could be taken for signals.
func TestRenew(t *testing.T) {
	src, set, _ := linearSource(t)
	s, err := Collect(src, set, criterion.NeedGrad)
	if err != nil {
		t.Fatal(err)
	}
	one := &data{name: "one example", dims: []int{2}, inputs: [][]float32{{0, 3}}, labels: [][]int32{{0}}} // y = 6: the gradient is y·x
	if err := s.Renew(one); err != nil {
		t.Fatal(err)
	}
	first := value(t, s, criterion.NeedGrad, "/w/weights")
	near(t, "gradient", first, []float64{0, 18}, 1e-5)
	one.inputs = [][]float32{{1, 1}} // y = 3
	if err := s.Renew(one); err != nil {
		t.Fatal(err)
	}
	second := value(t, s, criterion.NeedGrad, "/w/weights")
	near(t, "gradient", second, []float64{3, 3}, 1e-5)
	if &first[0] != &second[0] {
		t.Error("the same signal lies elsewhere")
	}
	if s.Data != "one example" || s.Examples != 1 {
		t.Errorf("%d examples of %q", s.Examples, s.Data)
	}
	if err := s.Renew(&data{name: "nothing"}); !errors.Is(err, ErrNoData) {
		t.Errorf("no data: error %v", err)
	}
	var missing *MissingError
	if err := s.Check(criterion.NeedGrad); !errors.As(err, &missing) {
		t.Errorf("after a failure: error %v, expected a *MissingError", err)
	}
	if _, err := s.Value(criterion.NeedGrad, "/w/weights"); !errors.As(err, &missing) {
		t.Errorf("after a failure: error %v, expected a *MissingError", err)
	}
}

// The mean square of the gradients of drawn labels is that of the softmax: x²·p(1 − p) for each class, on average.
func TestGaussNewtonIsThatOfTheSoftmax(t *testing.T) {
	logits := []float64{0.5, -0.3, 1}
	s := store(t, map[string]*tensors.Tensor{"/w/weights": tensors.FromFlatDataAndDimensions([]float32{0.5, -0.3, 1}, 1, 3)})
	const n = 4000
	d := &data{name: "ones", dims: []int{1}, inputs: [][]float32{slices.Repeat([]float32{1}, n)}, labels: [][]int32{make([]int32, n)}}
	sig, err := Collect(Source{Backend: open(t), Store: s, Model: linear, Data: d, Examples: n}, params.Select(s, nil), criterion.NeedGaussNewton)
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, l := range logits {
		total += math.Exp(l)
	}
	var want []float64
	for _, l := range logits {
		p := math.Exp(l) / total
		want = append(want, p*(1-p))
	}
	near(t, "Gauss-Newton", value(t, sig, criterion.NeedGaussNewton, "/w/weights"), want, 0.02) // four standard errors
}

// A network of 1×1 convolutions is one of dense layers: the difference must give what the second derivative gives.
func TestHessianByDifferencesIsThatOfTheDerivative(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	numbers := func(n int) []float32 {
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(random.NormFloat64())
		}
		return values
	}
	w1, w2, x := numbers(6*5), numbers(5*4), numbers(8*6)
	dense := func(scope *model.Scope, x *graph.Node) *graph.Node {
		g, s := x.Graph(), scope.Store()
		x = activation.Relu(graph.Dot(x, s.GetVariable("/1/weights").NodeValue(g)).Product())
		return graph.Dot(x, s.GetVariable("/2/weights").NodeValue(g)).Product()
	}
	conv := func(scope *model.Scope, x *graph.Node) *graph.Node {
		g, s := x.Graph(), scope.Store()
		x = graph.Reshape(x, 8, 1, 1, 6)
		x = activation.Relu(graph.Convolve(x, s.GetVariable("/1/weights").NodeValue(g)).NoPadding().Done())
		return graph.Reshape(graph.Convolve(x, s.GetVariable("/2/weights").NodeValue(g)).NoPadding().Done(), 8, 4)
	}
	products := map[string][]float32{}
	for name, net := range map[string]ModelFn{"dense": dense, "conv": conv} {
		var one []int
		if name == "conv" {
			one = []int{1, 1}
		}
		s := store(t, map[string]*tensors.Tensor{
			"/1/weights": tensors.FromFlatDataAndDimensions(slices.Clone(w1), append(slices.Clone(one), 6, 5)...),
			"/2/weights": tensors.FromFlatDataAndDimensions(slices.Clone(w2), append(slices.Clone(one), 5, 4)...),
		})
		d := &data{name: "x", dims: []int{6}, inputs: [][]float32{x}, labels: [][]int32{{0, 1, 2, 3, 0, 1, 2, 3}}}
		sig, err := Collect(Source{Backend: open(t), Store: s, Model: net, Data: d}, params.Select(s, nil), criterion.NeedHessianGrad)
		if err != nil {
			t.Fatal(err)
		}
		products[name] = append(slices.Clone(value(t, sig, criterion.NeedHessianGrad, "/1/weights")), value(t, sig, criterion.NeedHessianGrad, "/2/weights")...)
		if got := s.GetVariable("/1/weights").MustValue().Shape().Size(); got != 30 {
			t.Errorf("the store changed: %d", got)
		}
		after, err := tensors.CopyFlatData[float32](s.GetVariable("/1/weights").MustValue())
		if err != nil || !slices.Equal(after, w1) {
			t.Errorf("%s: collecting changed the weights", name)
		}
	}
	norm, difference := 0.0, 0.0
	for i := range products["dense"] {
		norm += math.Pow(float64(products["dense"][i]), 2)
		difference += math.Pow(float64(products["dense"][i]-products["conv"][i]), 2)
	}
	if relative := math.Sqrt(difference / norm); relative > 0.02 || norm == 0 {
		t.Errorf("the difference is %.2g away from the derivative", relative)
	}
}

func TestInverseFisherAgainstInverting(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 3))
	const size, block, n, damp = 10, 4, 20, 0.01
	inverse := NewInverseFisher(size, block, n, damp)
	fisher := make([]float64, size*size)
	for i := range size {
		fisher[i*size+i] = damp
	}
	for range n {
		g := make([]float32, size)
		for i := range g {
			g[i] = float32(random.NormFloat64())
		}
		inverse.Add(g)
		for i := range size {
			for j := range size {
				fisher[i*size+j] += float64(g[i]) * float64(g[j]) / n
			}
		}
	}
	var want []float64
	for start := 0; start < size; start += block {
		b := min(block, size-start)
		m := mat.NewDense(b, b, nil)
		for i := range b {
			for j := range b {
				m.Set(i, j, fisher[(start+i)*size+start+j])
			}
		}
		var inv mat.Dense
		if err := inv.Inverse(m); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			want = append(want, inv.At(i, i))
		}
	}
	near(t, "diagonal", inverse.Diagonal(), want, 1e-6)
}

func TestFlowByHand(t *testing.T) {
	// |W1| = [[1, 2], [3, 4]], |b1| = (1, 0), |W2| = [[1], [2]]: R = (4 + 1)·1 + 6·2.
	net := func(scope *model.Scope, x *graph.Node) *graph.Node {
		return layers.Dense(scope.At("2"), activation.Relu(layers.Dense(scope.At("1"), x, true, 2)), false, 1)
	}
	s := store(t, map[string]*tensors.Tensor{
		"/1/dense/weights": tensors.FromFlatDataAndDimensions([]float32{1, -2, -3, 4}, 2, 2),
		"/1/dense/biases":  tensors.FromFlatDataAndDimensions([]float32{-1, 0}, 2),
		"/2/dense/weights": tensors.FromFlatDataAndDimensions([]float32{-1, 2}, 2, 1),
	})
	d := &data{name: "shape", dims: []int{2}, inputs: [][]float32{{9, 9}}, labels: [][]int32{{0}}}
	sig, err := Collect(Source{Backend: open(t), Store: s, Model: net, Data: d}, params.Select(s, nil), criterion.NeedFlow)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "first layer", value(t, sig, criterion.NeedFlow, "/1/dense/weights"), []float64{1, 2, 1, 2}, 1e-6)
	near(t, "second layer", value(t, sig, criterion.NeedFlow, "/2/dense/weights"), []float64{5, 6}, 1e-6)
	if sig.Data != "" || sig.Examples != 0 {
		t.Errorf("%d examples of %q were read: the flow needs none", sig.Examples, sig.Data)
	}
}

// A hundred layers of 64 neurons multiply the flow by more than 50 each: float32 ends at 10³⁸. The products w·∂R/∂w must be those of float64, up to one factor.
func TestFlowOfDeepNetworks(t *testing.T) {
	const depth, width = 100, 8
	random := rand.New(rand.NewPCG(4, 5))
	values := map[string]*tensors.Tensor{}
	matrices := make([][]float64, depth)
	for l := range matrices {
		w := make([]float32, width*width)
		matrices[l] = make([]float64, width*width)
		for i := range w {
			w[i] = float32(5 * random.NormFloat64())
			matrices[l][i] = math.Abs(float64(w[i]))
		}
		values[fmt.Sprintf("/%03d/weights", l)] = tensors.FromFlatDataAndDimensions(w, width, width)
	}
	s := store(t, values)
	net := func(scope *model.Scope, x *graph.Node) *graph.Node {
		for l := range depth {
			x = activation.Relu(graph.Dot(x, scope.Store().GetVariable(fmt.Sprintf("/%03d/weights", l)).NodeValue(x.Graph())).Product())
		}
		return x
	}
	d := &data{name: "shape", dims: []int{width}, inputs: [][]float32{make([]float32, width)}, labels: [][]int32{{0}}}
	set := params.Select(s, nil)
	sig, err := Collect(Source{Backend: open(t), Store: s, Model: net, Data: d}, set, criterion.NeedFlow)
	if err != nil {
		t.Fatal(err)
	}
	// forward[l] enters layer l, backward[l] is ∂R/∂ of what leaves it. Both are scaled to a sum of 1 by layer: the logarithms of the factors add up.
	forward, backward, logs := make([][]float64, depth), make([][]float64, depth), make([]float64, depth)
	x, y := slices.Repeat([]float64{1}, width), slices.Repeat([]float64{1}, width)
	logOf := 0.0
	for l := range depth {
		forward[l], logs[l] = slices.Clone(x), logOf
		next := make([]float64, width)
		for i := range width {
			for o := range width {
				next[o] += x[i] * matrices[l][i*width+o]
			}
		}
		x = next
		logOf += normalise(x)
	}
	logOf = 0
	for l := depth - 1; l >= 0; l-- {
		backward[l] = slices.Clone(y)
		logs[l] += logOf
		next := make([]float64, width)
		for i := range width {
			for o := range width {
				next[i] += matrices[l][i*width+o] * y[o]
			}
		}
		y = next
		logOf += normalise(y)
	}
	var offset float64
	for l, p := range set {
		flow := value(t, sig, criterion.NeedFlow, p.Path)
		for i := range width {
			for o := range width {
				w := matrices[l][i*width+o]
				got := math.Log(w * float64(flow[i*width+o]))
				want := math.Log(forward[l][i]*w*backward[l][o]) + logs[l]
				if l == 0 && i == 0 && o == 0 {
					offset = got - want
				}
				if math.Abs(got-want-offset) > 1e-3 {
					t.Fatalf("layer %d, weight %d, %d: the score is e^%.4f times what it should be, the first one e^%.4f", l, i, o, got-want, offset)
				}
			}
		}
	}
}

func normalise(x []float64) (log float64) {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	for i := range x {
		x[i] /= sum
	}
	return math.Log(sum)
}

func TestActivationsByHand(t *testing.T) {
	net := func(scope *model.Scope, x *graph.Node) *graph.Node {
		return layers.Dense(scope.At("2"), activation.Relu(layers.Dense(scope.At("1"), x, true, 2)), false, 1)
	}
	s := store(t, map[string]*tensors.Tensor{
		"/1/dense/weights": tensors.FromFlatDataAndDimensions([]float32{1, 0, 0, 1}, 2, 2),
		"/1/dense/biases":  tensors.FromFlatDataAndDimensions([]float32{1, -1}, 2),
		"/2/dense/weights": tensors.FromFlatDataAndDimensions([]float32{1, 1}, 2, 1),
	})
	// Activations: (2, 0), (4, 3), and in the second batch (0, 1).
	d := &data{name: "x", dims: []int{2}, inputs: [][]float32{{1, 1, 3, 4}, {-2, 2}}, labels: [][]int32{{0, 0}, {0}}}
	sig, err := Collect(Source{Backend: open(t), Store: s, Model: net, Data: d}, params.Select(s, nil),
		criterion.NeedInputNorm|criterion.NeedOutputZeros|criterion.NeedOutputNorm|criterion.NeedOutputRank)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "norms of the inputs", value(t, sig, criterion.NeedInputNorm, "/1/dense/weights"), []float64{math.Sqrt(14), math.Sqrt(21)}, 1e-6)
	near(t, "norms of the inputs of the second", value(t, sig, criterion.NeedInputNorm, "/2/dense/weights"), []float64{math.Sqrt(20), math.Sqrt(10)}, 1e-6)
	near(t, "zeros", value(t, sig, criterion.NeedOutputZeros, "/1/dense/weights"), []float64{1.0 / 3, 1.0 / 3}, 1e-6)
	near(t, "norms of the outputs", value(t, sig, criterion.NeedOutputNorm, "/1/dense/weights"), []float64{2, 4.0 / 3}, 1e-6)
	near(t, "ranks", value(t, sig, criterion.NeedOutputRank, "/1/dense/weights"), []float64{2.0 / 3, 2.0 / 3}, 1e-6)
}

// Weights that a network uses twice have the mean of what both layers' activations are like; the squares of both layers' inputs add up.
func TestActivationsOfSharedWeights(t *testing.T) {
	b, err := gobackend.New("")
	if err != nil {
		t.Fatal(err)
	}
	s := store(t, map[string]*tensors.Tensor{"/w/weights": tensors.FromFlatDataAndDimensions([]float32{1, -1, 2, 1}, 2, 2)})
	net := func(scope *model.Scope, x *graph.Node) *graph.Node {
		return activation.Relu(linear(scope, activation.Relu(linear(scope, x))))
	}
	// Inputs (1, 1) and (0, 1) have activations (3, 0) and (2, 1), and these (3, 0) and (4, 0).
	d := &data{name: "x", dims: []int{2}, inputs: [][]float32{{1, 1, 0, 1}}, labels: [][]int32{{0, 0}}}
	sig, err := Collect(Source{Backend: b, Store: s, Model: net, Data: d}, params.Select(s, nil), criterion.NeedInputNorm|criterion.NeedOutputZeros|criterion.NeedOutputNorm)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "norms of the inputs", value(t, sig, criterion.NeedInputNorm, "/w/weights"), []float64{math.Sqrt(1 + 0 + 9 + 4), math.Sqrt(1 + 1 + 0 + 1)}, 1e-6)
	near(t, "zeros", value(t, sig, criterion.NeedOutputZeros, "/w/weights"), []float64{0, 3.0 / 4}, 1e-6)
	near(t, "norms of the outputs", value(t, sig, criterion.NeedOutputNorm, "/w/weights"), []float64{12.0 / 4, 1.0 / 4}, 1e-6)
}

// Singular values below the precision of float32, times the longer side, count for nothing; those above it do.
func TestRank(t *testing.T) {
	for want, m := range [][]float32{{0, 0, 0, 0}, {1, 2, 2, 4}, {1, 2, 3, 4}} {
		if got, err := rank(m, 2, 2); err != nil || got != want {
			t.Errorf("rank of %v: %d, %v; want %d", m, got, err, want)
		}
	}
	for _, c := range []struct { // 2·2⁻²³ is 2.4e-7, 4·2⁻²³ is 4.8e-7
		m       []float32
		columns int
		want    int
	}{
		{[]float32{1, 1, 1, 1, 1, 1 + 1e-7}, 3, 1}, {[]float32{1, 0, 0, 1e-5}, 2, 2}, {[]float32{1, 0, 0, 4e-7}, 2, 2}, {[]float32{1, 0, 0, 2e-7}, 2, 1},
		{[]float32{1, 0, 0, 0, 0, 4e-7, 0, 0}, 4, 1}, {[]float32{1, 0, 0, 0, 0, 6e-7, 0, 0}, 4, 2}, {[]float32{1, 0, 0, 4e-7, 0, 0, 0, 0}, 2, 1},
	} {
		if got, err := rank(c.m, len(c.m)/c.columns, c.columns); err != nil || got != c.want {
			t.Errorf("rank of %v, %d in a row: %d, %v; want %d", c.m, c.columns, got, err, c.want)
		}
	}
}

// small has a convolution with stride, padding and batch normalisation.
func small(scope *model.Scope, x *graph.Node) *graph.Node {
	x = layers.Convolution(scope.At("conv"), x).Channels(3).KernelSize(3).Strides(2).PadSame().Done()
	x = activation.Relu(norm.BatchNorm(scope.At("conv"), x, -1).Done())
	x = graph.Reshape(x, x.Shape().Dimensions[0], -1)
	return layers.Dense(scope.At("output"), x, true, 4)
}

func smallSource(t *testing.T) Source {
	s := model.NewStore()
	b := open(t)
	x := make([]float32, 2*5*5*2)
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	if _, err := model.MustNewExec(b, s, small).Call(tensors.FromFlatDataAndDimensions(slices.Clone(x), 2, 5, 5, 2)); err != nil {
		t.Fatal(err)
	}
	return Source{Backend: b, Store: s, Model: small, Data: &data{name: "x", dims: []int{5, 5, 2}, inputs: [][]float32{x}, labels: [][]int32{{1, 2}}}}
}

func TestGainIsFoundBehindTheLayer(t *testing.T) {
	src := smallSource(t)
	scale := src.Store.GetVariable("/conv/batch_normalization/scale")
	if err := scale.SetValue(tensors.FromFlatDataAndDimensions([]float32{3, -1, 2}, 3)); err != nil {
		t.Fatal(err)
	}
	set, err := params.Select(src.Store, nil).Only("/conv/conv/weights")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := Collect(src, set, criterion.NeedGain)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "gains", value(t, sig, criterion.NeedGain, "/conv/conv/weights"), []float64{3, -1, 2}, 0)

	var layer *LayerError
	if _, err := Collect(src, params.Select(src.Store, nil), criterion.NeedGain); !errors.As(err, &layer) || layer.Path != "/output/dense/weights" {
		t.Errorf("no batch normalisation follows the output, and the error is %v", err)
	}
}

// The reference walks over the image by hand.
func TestGramOfPatches(t *testing.T) {
	src := smallSource(t)
	p := params.Select(src.Store, nil)[0]
	gram, err := Grams(src, p)
	if err != nil {
		t.Fatal(err)
	}
	x := src.Data.(*data).inputs[0]
	want, n := make([]float64, 18*18), 0
	for image := range 2 {
		for row := 0; row < 5; row += 2 {
			for column := 0; column < 5; column += 2 {
				var patch []float64
				for dy := -1; dy <= 1; dy++ { // PadSame of size 3 and stride 2 on 5: one on each side
					for dx := -1; dx <= 1; dx++ {
						for c := range 2 {
							y, x0 := row+dy, column+dx
							if y < 0 || y > 4 || x0 < 0 || x0 > 4 {
								patch = append(patch, 0)
								continue
							}
							patch = append(patch, float64(x[((image*5+y)*5+x0)*2+c]))
						}
					}
				}
				for i, a := range patch {
					for j, b := range patch {
						want[i*18+j] += a * b
					}
				}
				n++
			}
		}
	}
	if gram.Dim != 18 || gram.N != n {
		t.Fatalf("Gram matrix of %d over %d patches, want 18 over %d", gram.Dim, gram.N, n)
	}
	got := make([]float32, len(gram.Sum))
	for i, v := range gram.Sum {
		got[i] = float32(v)
	}
	near(t, "Gram", got, want, 1e-6)
}

func TestGreedyByHand(t *testing.T) {
	// Removing channel 1 alone costs 1; then 0 costs 4 − 2·1.9, because the two nearly cancel; 2 is last.
	g := []float64{
		4, -1.9, 0,
		-1.9, 1, 0,
		0, 0, 3,
	}
	if got, want := greedy(g), []float32{2, 1, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := greedy(make([]float64, 9)), []float32{3, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("of equal channels: got %v, want %v", got, want)
	}
}

// The error of removing one channel, measured on the layer itself, is its element of G.
func TestContributionsAreTheErrorOfRemoving(t *testing.T) {
	src := smallSource(t)
	p := params.Select(src.Store, nil)[0]
	gram, err := Grams(src, p)
	if err != nil {
		t.Fatal(err)
	}
	w, err := tensors.CopyFlatData[float32](src.Store.GetVariable(p.Path).MustValue())
	if err != nil {
		t.Fatal(err)
	}
	g := contributions(gram, w, p.Shape, 2)
	layer := func(w []float32) []float32 {
		out := graph.MustExecOnce(src.Backend, func(x, w *graph.Node) *graph.Node {
			return graph.Convolve(x, w).PadSame().Strides(2).Done()
		}, tensors.FromFlatDataAndDimensions(slices.Clone(src.Data.(*data).inputs[0]), 2, 5, 5, 2), tensors.FromFlatDataAndDimensions(w, p.Shape.Dimensions...))
		values, err := tensors.CopyFlatData[float32](out)
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	whole := layer(slices.Clone(w))
	for channel := range 2 {
		without := slices.Clone(w)
		for i := range without {
			if i/3%2 == channel {
				without[i] = 0
			}
		}
		sum := 0.0
		for i, y := range layer(without) {
			sum += math.Pow(float64(y-whole[i]), 2)
		}
		if got := g[channel*2+channel]; math.Abs(got-sum) > 1e-4*sum {
			t.Errorf("channel %d: G says %v, removing it changes the output by %v", channel, got, sum)
		}
	}
}

// What GoMLX prints of its nodes is read; another form must not pass unseen.
func TestConvolutionsAreUnderstood(t *testing.T) {
	b := open(t)
	g := graph.NewGraph(b, "convolution")
	x := graph.IotaFull(g, shapes.Make(dtypes.Float32, 2, 5, 6, 3))
	node := graph.Convolve(x, graph.IotaFull(g, shapes.Make(dtypes.Float32, 3, 2, 3, 4))).StridePerAxis(2, 1).PaddingPerDim([][2]int{{1, 0}, {0, 2}}).Done()
	c, err := parseConvolution(node.String())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.strides, []int{2, 1}) || !slices.Equal(c.paddings, [][2]int{{1, 0}, {0, 2}}) || c.axes.InputChannels != 3 || c.axes.KernelOutputChannels != 3 ||
		!slices.Equal(c.axes.OutputSpatial, []int{1, 2}) {
		t.Errorf("%s is read as %+v", node, c)
	}
	grouped := graph.Convolve(x, graph.IotaFull(g, shapes.Make(dtypes.Float32, 3, 2, 1, 3))).ChannelGroupCount(3).NoPadding().Done()
	if _, err := parseConvolution(grouped.String()); err == nil {
		t.Error("a grouped convolution is taken for a plain one")
	}
}

func TestAllSignalsOfTheReferenceNetworks(t *testing.T) {
	for _, n := range nets.All()[:2] {
		s := model.NewStore()
		b := open(t)
		x := make([]float32, 4*28*28)
		for i := range x {
			x[i] = float32(i%11) / 11
		}
		if _, err := model.MustNewExec(b, s, n.Model).Call(tensors.FromFlatDataAndDimensions(slices.Clone(x), 4, 28, 28, 1)); err != nil {
			t.Fatal(err)
		}
		set := params.Select(s, nil)
		src := Source{Backend: b, Store: s, Model: n.Model, Examples: 2, Data: &data{name: "x", dims: []int{28, 28, 1}, inputs: [][]float32{x}, labels: [][]int32{{0, 1, 2, 3}}}}
		needs := (criterion.NeedData | criterion.NeedFlow)
		sig, err := Collect(src, set, needs)
		if err != nil {
			t.Fatalf("%s: %v", n.Name, err)
		}
		for _, need := range needs.Each() {
			for _, p := range set {
				values := value(t, sig, need, p.Path)
				size := 1
				for _, d := range need.Dims(p) {
					size *= d
				}
				if len(values) != size || slices.ContainsFunc(values, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }) {
					t.Errorf("%s: %s of %s: %d values, want %d finite ones", n.Name, need, p.Path, len(values), size)
				}
			}
		}
	}
}

func TestBadSources(t *testing.T) {
	good, set, _ := linearSource(t)
	empty := &data{name: "nothing"}
	for name, test := range map[string]struct {
		change func(*Source)
		needs  criterion.Needs
		want   any
	}{
		"no data":          {func(s *Source) { s.Data = nil }, criterion.NeedGrad, ErrNoData},
		"empty data":       {func(s *Source) { s.Data = empty }, criterion.NeedGrad, ErrNoData},
		"no shape":         {func(s *Source) { s.Data = nil }, criterion.NeedFlow, ErrNoData},
		"no model":         {func(s *Source) { s.Model = nil }, criterion.NeedGrad, ErrNoModel},
		"negative batches": {func(s *Source) { s.Batches = -1 }, criterion.NeedGrad, new(*SourceError)},
		"no start":         {func(*Source) {}, criterion.NeedStart, new(*MissingError)},
		"a start of another shape": {func(s *Source) {
			s.Start = map[string]*tensors.Tensor{"/w/weights": tensors.FromScalarAndDimensions(float32(1), 3, 1)}
		}, criterion.NeedStart, new(*SourceError)},
		"a model that panics": {func(s *Source) { s.Model = func(*model.Scope, *graph.Node) *graph.Node { panic("no such layer") } }, criterion.NeedGrad, "no such layer"},
		"a model that leaves the parameter out": {func(s *Source) { s.Model = func(_ *model.Scope, x *graph.Node) *graph.Node { return x } }, criterion.NeedInputNorm,
			new(*LayerError)},
		"drawn labels for a regression": {func(s *Source) {
			s.Model = func(scope *model.Scope, x *graph.Node) *graph.Node { return graph.Reshape(linear(scope, x), -1) }
		}, criterion.NeedGaussNewton, new(*SourceError)},
	} {
		src := good
		test.change(&src)
		_, err := Collect(src, set, test.needs)
		switch want := test.want.(type) {
		case error:
			if !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", name, err, want)
			}
		case string:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q in it", name, err, want)
			}
		default:
			if !errors.As(err, want) {
				t.Errorf("%s: got %v, want a %T", name, err, want)
			}
		}
	}
	for name, batch := range map[string]train.Batch{
		"fewer labels":         {Inputs: []*tensors.Tensor{tensors.FromValue([][]float32{{1, 0}, {0, 1}})}, Labels: []*tensors.Tensor{tensors.FromValue([][]int32{{0}})}},
		"a class more":         {Inputs: []*tensors.Tensor{tensors.FromValue([][]float32{{1, 0}, {0, 1}})}, Labels: []*tensors.Tensor{tensors.FromValue([][]int32{{0}, {1}})}},
		"an input that is nil": {Inputs: []*tensors.Tensor{nil}, Labels: []*tensors.Tensor{tensors.FromValue([][]int32{{0}})}},
	} {
		src := good
		src.Loss, src.Data = nil, one{batch}
		var wrong *SourceError
		if _, err := Collect(src, set, criterion.NeedGrad); !errors.As(err, &wrong) || wrong.Field != "Data" {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Collect(src, set, criterion.NeedInputNorm); (err == nil) != (name != "an input that is nil") {
			t.Errorf("%s, for a signal that looks at no labels: %v", name, err)
		}
	}
	if _, err := Collect(good, params.Set{{Path: "/no"}}, criterion.NeedGrad); err == nil || !strings.Contains(err.Error(), "/w/weights") {
		t.Errorf("unknown parameter: %v", err)
	}
	var none *Signals
	var missing *MissingError
	if err := none.Check(criterion.NeedGrad | criterion.NeedUniform); !errors.As(err, &missing) || missing.Needs != criterion.NeedGrad {
		t.Errorf("signals that are nil lack %v", err)
	}
	if err := none.Check(criterion.NeedUniform | criterion.NeedTrack); err != nil {
		t.Errorf("these needs are met elsewhere: %v", err)
	}
}

// Optimizers make variables and remove them; programs that were compiled before must not miss them.
func TestFlowAfterOptimizersCameAndWent(t *testing.T) {
	src := smallSource(t)
	if _, err := src.Store.CreateVariable("/moment", tensors.FromScalar(float32(1))); err != nil {
		t.Fatal(err)
	}
	sig, err := Collect(src, params.Select(src.Store, nil), criterion.NeedFlow)
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Store.DeleteVariable("/moment"); err != nil {
		t.Fatal(err)
	}
	if _, err := sig.Refresh(); err != nil {
		t.Error(err)
	}
}

// The gradients through batch normalisation in inference are those of the same formula, written out.
func TestBatchNormHasAGradient(t *testing.T) {
	b := open(t)
	args := []any{
		[][]float32{{1, 2, 3}, {-1, 0.5, 4}}, []float32{0.5, -2, 1}, []float32{0.1, 0.2, 0.3}, []float32{0.4, 1, -1}, []float32{0.5, 2, 3},
	}
	gradients := func(norm func(in []*graph.Node) *graph.Node) [][]float32 {
		exec := graph.MustNewExec(b, func(in []*graph.Node) []*graph.Node {
			y := norm(in)
			return graph.Gradient(graph.ReduceAllSum(graph.Mul(graph.Square(y), graph.IotaFull(in[0].Graph(), y.Shape()))), in...)
		})
		var all [][]float32
		for _, r := range exec.MustCall(args...) {
			all = append(all, tensors.MustCopyFlatData[float32](r))
		}
		return all
	}
	got := gradients(func(in []*graph.Node) *graph.Node {
		return graph.InternalBatchNormForInference(in[0], in[1], in[2], in[3], in[4], 0.001, 1)
	})
	want := gradients(func(in []*graph.Node) *graph.Node {
		row := func(v *graph.Node) *graph.Node { return graph.InsertAxes(v, 0) }
		return graph.Add(graph.Mul(graph.Div(graph.Sub(in[0], row(in[3])), graph.Sqrt(graph.AddScalar(row(in[4]), 0.001))), row(in[1])), row(in[2]))
	})
	for i := range want {
		wide := make([]float64, len(want[i]))
		for j, x := range want[i] {
			wide[j] = float64(x)
		}
		near(t, fmt.Sprintf("input %d", i), got[i], wide, 1e-5)
	}
}

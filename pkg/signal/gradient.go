package signal

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/params"
)

// collectGradients collects means over the calibration data: of the gradient of the loss, and of the Hessian times that gradient, of the loss at a
// temperature.
func (s *Signals) collectGradients(wanted criterion.Needs) error {
	if wanted&criterion.NeedGrad != 0 {
		mean, err := s.gradient()
		if err != nil {
			return err
		}
		for i, p := range s.set {
			s.put(criterion.NeedGrad, p.Path, mean[i])
		}
	}
	if wanted&criterion.NeedHessianGrad == 0 {
		return nil
	}
	mean, err := s.meanGradient(s.source.Temperature)
	if err != nil {
		return err
	}
	product, err := s.hessianTimes(mean)
	if err != nil {
		return err
	}
	for i, p := range s.set {
		s.put(criterion.NeedHessianGrad, p.Path, float32s(product[i], 1))
	}
	return nil
}

// hessianTimes returns H·v of the mean loss at the source's temperature. It is the gradient of ⟨∂L/∂w, v⟩ for a v that does not change; but GoMLX can't take the
// gradient of the gradient of a convolution, so for networks with convolutions it is the central difference of gradients along v.
func (s *Signals) hessianTimes(v sums) (sums, error) {
	lossOf := func(in []*graph.Node) *graph.Node {
		return s.loss(in[1], graph.DivScalar(s.logits(in[0]), s.source.Temperature))
	}
	build := func(in []*graph.Node) []*graph.Node { // x, labels, v…
		l := lossOf(in)
		w := s.weights(l.Graph())
		var product *graph.Node
		for i, grad := range graph.Gradient(l, w...) {
			term := graph.ReduceAllSum(graph.Mul(grad, in[2+i]))
			if product == nil {
				product = term
			} else {
				product = graph.Add(product, term)
			}
		}
		return graph.Gradient(product, w...)
	}
	step := 0.0
	if s.convolves() {
		var err error
		if step, err = s.step(v); err != nil || step == 0 {
			return v, err // v is zero, and so is the product
		}
		build = func(in []*graph.Node) []*graph.Node { // x, labels, v…
			g := in[0].Graph()
			at := func(sign float64) []*graph.Node {
				original := make([]*graph.Node, len(s.set))
				for i, p := range s.set {
					w := s.source.Store.GetVariable(p.Path)
					original[i] = w.NodeValue(g)
					w.SetNodeValue(graph.Add(original[i], graph.MulScalar(in[2+i], sign*step)))
				}
				l := lossOf(in)
				grads := graph.Gradient(l, s.weights(g)...)
				for i, p := range s.set {
					s.source.Store.GetVariable(p.Path).SetNodeValue(original[i])
				}
				return grads
			}
			up, down := at(1), at(-1)
			for i := range up {
				up[i] = graph.DivScalar(graph.Sub(up[i], down[i]), 2*step)
			}
			return up
		}
	}
	exec, err := s.exec(fmt.Sprintf("Hessian %v", step), build)
	if err != nil {
		return nil, err
	}
	args := []any{nil, nil}
	for i, p := range s.set {
		args = append(args, tensors.FromFlatDataAndDimensions(float32s(v[i], 1), p.Shape.Dimensions...))
	}
	var sum sums
	for _, b := range s.batches {
		args[0], args[1] = b.x, b.labels
		results, err := exec.Call(args...)
		if err != nil {
			return nil, err
		}
		if err := sum.add(results, float64(b.size)/float64(s.Examples)); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

// step returns how far to go along v for a difference: a hundredth of the length of the weights, where rounding and curvature of higher order are about as large.
func (s *Signals) step(v sums) (float64, error) {
	ww, vv := 0.0, 0.0
	for i, p := range s.set {
		value, err := s.source.Store.GetVariable(p.Path).Value()
		if err != nil {
			return 0, err
		}
		w, err := tensors.CopyFlatData[float32](value)
		if err != nil {
			return 0, err
		}
		for j := range w {
			ww += float64(w[j]) * float64(w[j])
			vv += v[i][j] * v[i][j]
		}
	}
	if vv == 0 {
		return 0, nil
	}
	return 0.01 * math.Sqrt(ww/vv), nil
}

// convolves tells whether the network has convolutions.
func (s *Signals) convolves() (yes bool) {
	s.probe(s.batches[0].x.Shape(), func(g *graph.Graph) {
		yes = slices.ContainsFunc(g.Nodes(), func(n *graph.Node) bool { return n.Type() == graph.NodeTypeConvGeneral })
	})
	return yes
}

// probe builds the network in a graph that is thrown away, to look at it.
func (s *Signals) probe(input shapes.Shape, look func(g *graph.Graph)) {
	g := graph.NewGraph(s.source.Backend, "look at the network")
	defer g.Finalize()
	model.SetStore(g, s.source.Store)
	s.logits(graph.Parameter(g, "x", input))
	look(g)
}

// gradient returns the gradient of the mean loss for each parameter. That of a single batch, as sparse training asks for again and again, is not summed.
func (s *Signals) gradient() ([][]float32, error) {
	exec, err := s.gradientAt(1)
	if err != nil {
		return nil, err
	}
	mean := make([][]float32, len(s.set))
	single := !slices.ContainsFunc(s.set, func(p params.Param) bool { return p.Shape.DType != dtypes.Float32 })
	if single && len(s.batches) == 1 {
		results, err := exec.Call(s.batches[0].x, s.batches[0].labels)
		if err != nil {
			return nil, err
		}
		for i, r := range results {
			mean[i] = s.place(criterion.NeedGrad, s.set[i].Path, r.Shape().Size())
			if err := tensors.ConstFlatData(r, func(values []float32) {
				into := mean[i][:len(values)]
				for j, x := range values {
					into[j] = x + 0 // a sum has no −0
				}
			}); err != nil {
				return nil, err
			}
			if err := r.FinalizeAll(); err != nil {
				return nil, err
			}
		}
		return mean, nil
	}
	sum, err := s.meanGradient(1)
	for i := range sum {
		mean[i] = float32s(sum[i], 1)
	}
	return mean, err
}

// gradientAt is the program that computes the gradient of the mean loss of a batch, with the logits divided by a temperature.
func (s *Signals) gradientAt(temperature float64) (*model.Exec, error) {
	return s.exec(fmt.Sprintf("gradient at %v", temperature), func(in []*graph.Node) []*graph.Node {
		l := s.logits(in[0])
		if temperature != 1 {
			l = graph.DivScalar(l, temperature)
		}
		l = s.loss(in[1], l)
		return graph.Gradient(l, s.weights(l.Graph())...)
	})
}

// meanGradient returns the gradient of the mean loss, with the logits divided by a temperature, for each parameter.
func (s *Signals) meanGradient(temperature float64) (sums, error) {
	exec, err := s.gradientAt(temperature)
	if err != nil {
		return nil, err
	}
	var sum sums
	for _, b := range s.batches {
		results, err := exec.Call(b.x, b.labels)
		if err != nil {
			return nil, err
		}
		if err := sum.add(results, float64(b.size)/float64(s.Examples)); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

// collectSquares collects what needs the gradient of each example: means of its square, for the true labels and for drawn ones, and the inverse of the Fisher
// matrix.
func (s *Signals) collectSquares(wanted criterion.Needs) error {
	single, err := s.exec("gradient of one", func(in []*graph.Node) []*graph.Node { // x [1, …], labels [1, 1] -> gradients
		l := s.loss(in[1], s.logits(in[0]))
		return graph.Gradient(l, s.weights(l.Graph())...)
	})
	if err != nil {
		return err
	}
	visit := func(labels func(b batch) (*tensors.Tensor, error), see func(i int, grad []float32)) (int, error) {
		of := map[*tensors.Tensor]*tensors.Tensor{}
		return s.eachExample(func(b batch, i int) error {
			if of[b.x] == nil {
				var err error
				if of[b.x], err = labels(b); err != nil {
					return err
				}
			}
			x, err := row(b.x, i)
			if err != nil {
				return err
			}
			label, err := row(of[b.x], i)
			if err != nil {
				return err
			}
			results, err := single.Call(x, label)
			if err != nil {
				return err
			}
			for j, r := range results {
				if err := r.ConstFlatData(func(flat any) { see(j, flat.([]float32)) }); err != nil {
					return err
				}
				if err := r.FinalizeAll(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	squares := func(need criterion.Needs, labels func(b batch) (*tensors.Tensor, error), also func(i int, grad []float32)) error {
		sum := make(sums, len(s.set))
		for i, p := range s.set {
			sum[i] = make([]float64, p.Size())
		}
		n, err := visit(labels, func(i int, grad []float32) {
			for j, g := range grad {
				sum[i][j] += float64(g) * float64(g)
			}
			also(i, grad)
		})
		if err != nil {
			return err
		}
		for i, p := range s.set {
			s.put(need, p.Path, float32s(sum[i], 1/float64(n)))
		}
		return nil
	}
	if wanted&(criterion.NeedGradSquare|criterion.NeedInverseFisher) != 0 {
		inverse := make([]*InverseFisher, len(s.set))
		also := func(int, []float32) {}
		if wanted&criterion.NeedInverseFisher != 0 {
			n := min(s.Examples, s.source.Examples)
			for i, p := range s.set {
				inverse[i] = NewInverseFisher(p.Size(), s.source.Block, n, s.source.Damp)
			}
			also = func(i int, grad []float32) { inverse[i].Add(grad) }
		}
		if err := squares(criterion.NeedGradSquare, func(b batch) (*tensors.Tensor, error) { return b.labels, nil }, also); err != nil {
			return err
		}
		if wanted&criterion.NeedInverseFisher != 0 {
			for i, p := range s.set {
				s.put(criterion.NeedInverseFisher, p.Path, inverse[i].Diagonal())
			}
		}
		if wanted&criterion.NeedGradSquare == 0 {
			delete(s.values, criterion.NeedGradSquare)
		}
	}
	if wanted&criterion.NeedGaussNewton != 0 {
		predict, err := s.exec("probabilities", func(in []*graph.Node) []*graph.Node { return []*graph.Node{graph.Softmax(s.logits(in[0]), -1)} })
		if err != nil {
			return err
		}
		random := rand.New(rand.NewPCG(uint64(s.source.Seed), 0x6761757373)) // any stream of its own
		return squares(criterion.NeedGaussNewton, func(b batch) (*tensors.Tensor, error) {
			results, err := predict.Call(b.x)
			if err != nil {
				return nil, err
			}
			return draw(results[0], b, random)
		}, func(int, []float32) {})
	}
	return nil
}

// draw draws a label for each example from the probabilities that the network gives. [batch, classes] -> int32 [batch, 1]
func draw(probabilities *tensors.Tensor, b batch, random *rand.Rand) (*tensors.Tensor, error) {
	if !b.labels.DType().IsInt() || probabilities.Shape().Rank() != 2 {
		return nil, &SourceError{"Data", "labels are drawn from what the network predicts, which needs classes as labels and logits [batch, classes]",
			"use another criterion, such as criterion.Fisher"}
	}
	p, err := tensors.CopyFlatData[float32](probabilities)
	if err != nil {
		return nil, err
	}
	classes := probabilities.Shape().Dimensions[1]
	labels := make([]int32, b.size)
	for i := range labels {
		left := random.Float64()
		best := float32(math.Inf(-1))
		for c, x := range p[i*classes : (i+1)*classes] {
			if left -= float64(x); left < 0 {
				labels[i] = int32(c)
				break
			}
			if x > best { // where rounding leaves something over
				best, labels[i] = x, int32(c)
			}
		}
	}
	return tensors.FromFlatDataAndDimensions(labels, b.size, 1), probabilities.FinalizeAll()
}

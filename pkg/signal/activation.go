package signal

import (
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"gonum.org/v1/gonum/mat"

	"github.com/espalier-ml/espalier/pkg/criterion"
)

// others returns all axes of a node but those given.
func others(x *graph.Node, axes ...int) []int {
	var rest []int
	for axis := range x.Rank() {
		if !slices.Contains(axes, axis) {
			rest = append(rest, axis)
		}
	}
	return rest
}

// sumOver is graph.ReduceSum, but with no axes it sums nothing instead of everything.
func sumOver(x *graph.Node, axes []int) *graph.Node {
	if len(axes) == 0 {
		return x
	}
	return graph.ReduceSum(x, axes...)
}

// collectActivations collects norms of inputs and what the activations of each channel are like. A parameter that several layers share gets the
// mean over them; the squares of the norms of its inputs add up.
func (s *Signals) collectActivations(wanted criterion.Needs) error {
	exec, err := s.exec("activations", func(in []*graph.Node) []*graph.Node {
		logits := s.logits(in[0])
		layers := s.layers(logits)
		var results []*graph.Node
		for _, p := range s.set {
			s.programs.uses["activations "+p.Path] = len(layers[p.Path])
			var norm, zeros, outputs *graph.Node
			plus := func(sum, x *graph.Node) *graph.Node {
				if sum == nil {
					return x
				}
				return graph.Add(sum, x)
			}
			for _, l := range layers[p.Path] {
				// Sums over the examples of the batch.
				norm = plus(norm, sumOver(graph.Square(l.input), others(l.input, l.inAxis))) // [in]
				zero := graph.ConvertDType(graph.Equal(l.output, graph.ZerosLike(l.output)), dtypes.Float32)
				perExample := sumOver(graph.Square(l.output), others(l.output, 0, l.outAxis)) // [batch, out]
				outputs = plus(outputs, graph.ReduceSum(graph.Sqrt(perExample), 0))           // [out]
				positions := float64(l.output.Shape().Size() / l.output.Shape().Dimensions[0] / l.output.Shape().Dimensions[l.outAxis])
				zeros = plus(zeros, graph.DivScalar(sumOver(zero, others(l.output, l.outAxis)), positions)) // [out]
			}
			results = append(results, norm, zeros, outputs)
		}
		return results
	})
	if err != nil {
		return err
	}
	if wanted&^criterion.NeedOutputRank != 0 {
		var sum sums
		for _, b := range s.batches {
			results, err := exec.Call(b.x)
			if err != nil {
				return err
			}
			if err := sum.add(results, 1); err != nil {
				return err
			}
		}
		for i, p := range s.set {
			norm := make([]float32, len(sum[3*i]))
			for j, square := range sum[3*i] {
				norm[j] = float32(math.Sqrt(square))
			}
			mean := 1 / float64(s.Examples*s.programs.uses["activations "+p.Path])
			for need, values := range map[criterion.Needs][]float32{
				criterion.NeedInputNorm: norm, criterion.NeedOutputZeros: float32s(sum[3*i+1], mean), criterion.NeedOutputNorm: float32s(sum[3*i+2], mean),
			} {
				if wanted&need != 0 {
					s.put(need, p.Path, values)
				}
			}
		}
	}
	if wanted&criterion.NeedOutputRank != 0 {
		return s.collectRanks()
	}
	return nil
}

// collectRanks collects the mean rank of each channel's activation maps, over the first examples.
func (s *Signals) collectRanks() error {
	exec, err := s.exec("maps", func(in []*graph.Node) []*graph.Node {
		layers := s.layers(s.logits(in[0]))
		results := make([]*graph.Node, len(s.set))
		for i, p := range s.set {
			l := layers[p.Path][0]
			order := append([]int{0, l.outAxis}, others(l.output, 0, l.outAxis)...)
			results[i] = graph.TransposeAllAxes(l.output, order...) // -> [batch, out, …]
		}
		return results
	})
	if err != nil {
		return err
	}
	sum := make(sums, len(s.set))
	left := s.source.Examples
	for _, b := range s.batches {
		if left <= 0 {
			break
		}
		results, err := exec.Call(b.x)
		if err != nil {
			return err
		}
		for i, r := range results {
			values, err := tensors.CopyFlatData[float32](r)
			if err != nil {
				return err
			}
			dims := r.Shape().Dimensions
			rows, columns := 1, 1
			if len(dims) > 2 {
				rows = dims[2]
			}
			for _, d := range dims[min(3, len(dims)):] {
				columns *= d
			}
			if sum[i] == nil {
				sum[i] = make([]float64, dims[1])
			}
			for example := range min(left, b.size) {
				for channel := range dims[1] {
					at := (example*dims[1] + channel) * rows * columns
					r, err := rank(values[at:at+rows*columns], rows, columns)
					if err != nil {
						return fmt.Errorf("%s, channel %d: %w", s.set[i].Path, channel, err)
					}
					sum[i][channel] += float64(r)
				}
			}
			if err := r.FinalizeAll(); err != nil {
				return err
			}
		}
		left -= b.size
	}
	n := min(s.Examples, s.source.Examples)
	for i, p := range s.set {
		s.put(criterion.NeedOutputRank, p.Path, float32s(sum[i], 1/float64(n)))
	}
	return nil
}

// rank is the number of singular values above max(rows, columns)·ε of the largest, with the ε of float32, as NumPy and PyTorch have it.
func rank(m []float32, rows, columns int) (int, error) {
	zero := true
	wide := make([]float64, len(m))
	for i, x := range m {
		wide[i] = float64(x)
		zero = zero && x == 0
	}
	if zero {
		return 0, nil
	}
	if rows*columns == 1 {
		return 1, nil
	}
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(rows, columns, wide), mat.SVDNone) {
		return 0, fmt.Errorf("the singular values of an activation map do not converge: look for NaNs in the network")
	}
	values := svd.Values(nil)
	n := 0
	for _, v := range values {
		if v > values[0]*float64(max(rows, columns))*0x1p-23 {
			n++
		}
	}
	return n, nil
}

// collectGains copies the scales of batch normalisations.
func (s *Signals) collectGains(criterion.Needs) error {
	example, err := s.example()
	if err != nil {
		return err
	}
	g := graph.NewGraph(s.source.Backend, "find batch normalisation")
	defer g.Finalize()
	model.SetStore(g, s.source.Store)
	layers := s.layers(s.logits(graph.Parameter(g, "x", example.Shape())))
	for _, p := range s.set {
		path := layers[p.Path][0].gain
		if path == "" {
			return &LayerError{p.Path, "no batch normalisation follows it", "leave it out with params.Set.Without, or use another criterion"}
		}
		value, err := s.source.Store.GetVariable(path).Value()
		if err != nil {
			return err
		}
		values, err := tensors.CopyFlatData[float32](value)
		if err != nil {
			return err
		}
		s.put(criterion.NeedGain, p.Path, values)
	}
	return nil
}

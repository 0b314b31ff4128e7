package signal

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/params"
)

// Gram is Σ x·xᵀ over the inputs x of a layer: of a dense layer, its input; of a convolution, the patch that a position of its output sees, in the
// order of the weights [spatial…, in].
type Gram struct {
	Dim int       // the length of x
	N   int       // how many x
	Sum []float64 // [Dim, Dim]
}

// Grams collects the Gram matrix of the inputs of one parameter, [spatial… · in] squared: pkg/reconstruct works on it.
//
// Errors: those of Collect.
func Grams(src Source, p params.Param) (*Gram, error) {
	s, err := Collect(src, params.Set{p}, 0)
	if err != nil {
		return nil, err
	}
	if src.Data == nil {
		return nil, ErrNoData
	}
	if s.batches, err = read(src.Data, s.source.Batches); err != nil {
		return nil, err
	}
	var gram *Gram
	err = guard.Run("collect the inputs of "+p.Path, func() error {
		gram, err = s.gram(p)
		return err
	})
	return gram, err
}

// gram computes the Gram matrix of a parameter's inputs in the graph.
func (s *Signals) gram(p params.Param) (*Gram, error) {
	one := *s
	one.set = params.Set{p}
	name := "Gram " + p.Path
	exec, err := s.exec(name, func(in []*graph.Node) []*graph.Node {
		var sum *graph.Node
		perExample := 0
		for _, l := range one.layers(s.logits(in[0]))[p.Path] {
			x := patches(l, p) // [rows, spatial… · in]
			perExample += x.Shape().Dimensions[0] / in[0].Shape().Dimensions[0]
			product := graph.DotGeneral(x, []int{0}, nil, x, []int{0}, nil)
			if sum == nil {
				sum = product
			} else {
				sum = graph.Add(sum, product)
			}
		}
		s.programs.uses[name] = perExample
		return []*graph.Node{sum}
	})
	if err != nil {
		return nil, err
	}
	g := &Gram{Dim: p.Size() / p.Shape.Dimensions[p.Out]}
	var sum sums
	for _, b := range s.batches {
		results, err := exec.Call(b.x)
		if err != nil {
			return nil, err
		}
		if err := sum.add(results, 1); err != nil {
			return nil, err
		}
		g.N += b.size * s.programs.uses[name]
	}
	g.Sum = sum[0]
	return g, nil
}

// patches returns what each position of a layer's output sees of its input. [batch, …] -> [rows, spatial… · in]
func patches(l layer, p params.Param) *graph.Node {
	in := p.Shape.Dimensions[p.In]
	if !l.conv {
		order := append(others(l.input, l.inAxis), l.inAxis)
		return graph.Reshape(graph.TransposeAllAxes(l.input, order...), -1, in)
	}
	// A convolution with one output channel for each place of the patch, and the identity as its kernel.
	size := p.Size() / p.Shape.Dimensions[p.Out]
	c, err := parseConvolution(l.product.String())
	if err != nil {
		panic(&LayerError{p.Path, err.Error(), "use a criterion that needs no inputs"})
	}
	if p.In != p.Shape.Rank()-2 || p.Out != p.Shape.Rank()-1 {
		panic(&LayerError{p.Path, "its kernel is not [spatial…, in, out]", "use a criterion that needs no inputs"})
	}
	dims := append(append([]int{}, p.Shape.Dimensions[:p.Out]...), size)
	kernel := graph.ConvertDType(graph.Reshape(graph.Diagonal(l.input.Graph(), size), dims...), l.input.DType()) // [spatial…, in, size]
	x := graph.ConvGeneral(l.input, kernel, c.axes, c.strides, c.paddings, nil, c.dilations, 1, 1)
	order := append(others(x, l.outAxis), l.outAxis)
	return graph.Reshape(graph.TransposeAllAxes(x, order...), -1, size)
}

// convolution holds the attributes of a ConvGeneral node.
type convolution struct {
	axes      compute.ConvolveAxesConfig
	strides   []int
	paddings  [][2]int
	dilations []int
}

var (
	axesField  = regexp.MustCompile(`(\w+):(\[[\d ]*\]|\d+)`)
	numberList = regexp.MustCompile(`\d+`)
	listField  = func(name string) *regexp.Regexp { return regexp.MustCompile(name + `=\[([\d \[\]]*)\], \w`) }
	strideList = listField("strides")
	padList    = listField("paddings")
	inputList  = listField("inputDilations")
	kernelList = listField("kernelDilations")
)

// parseConvolution reads the attributes from what a node prints, which is the only place where GoMLX shows them.
func parseConvolution(text string) (convolution, error) {
	var c convolution
	numbers := func(s string) []int {
		var list []int
		for _, m := range numberList.FindAllString(s, -1) {
			n, _ := strconv.Atoi(m) // the pattern has digits only
			list = append(list, n)
		}
		return list
	}
	start, end := strings.Index(text, "axes={"), strings.Index(text, "}")
	if start < 0 || end < start {
		return c, fmt.Errorf("its convolution is not understood: %s", text)
	}
	fields := map[string][]int{}
	for _, m := range axesField.FindAllStringSubmatch(text[start:end], -1) {
		fields[m[1]] = numbers(m[2])
	}
	one := func(name string) int {
		if len(fields[name]) != 1 {
			return -1
		}
		return fields[name][0]
	}
	c.axes = compute.ConvolveAxesConfig{
		InputBatch: one("InputBatch"), InputChannels: one("InputChannels"), InputSpatial: fields["InputSpatial"],
		KernelInputChannels: one("KernelInputChannels"), KernelOutputChannels: one("KernelOutputChannels"), KernelSpatial: fields["KernelSpatial"],
		OutputBatch: one("OutputBatch"), OutputChannels: one("OutputChannels"), OutputSpatial: fields["OutputSpatial"],
	}
	list := func(pattern *regexp.Regexp) ([]int, bool) {
		m := pattern.FindStringSubmatch(text)
		if m == nil {
			return nil, false
		}
		return numbers(m[1]), true
	}
	var ok [4]bool
	var pads, input []int
	c.strides, ok[0] = list(strideList)
	pads, ok[1] = list(padList)
	input, ok[2] = list(inputList)
	c.dilations, ok[3] = list(kernelList)
	for _, d := range input {
		ok[2] = ok[2] && d == 1
	}
	if ok != [4]bool{true, true, true, true} || len(pads)%2 != 0 || !oneGroup.MatchString(text) {
		return c, fmt.Errorf("its convolution has a form that has no rule here: %s", text)
	}
	for i := 0; i < len(pads); i += 2 {
		c.paddings = append(c.paddings, [2]int{pads[i], pads[i+1]})
	}
	if len(c.dilations) == 0 {
		c.dilations = nil
	}
	return c, nil
}

// collectResiduals orders the input channels of each layer by ThiNet's greedy rule.
//
// The contribution of channel j to an output is x̂_j = Σ_p w_{p,j,o}·x_{p,j}, and the error of removing the channels T is Σ (Σ_{j∈T} x̂_j)² = Σ_{j,k∈T} G_jk.
// G follows from the Gram matrices of the inputs and of the weights, so that the error is exact over all positions and outputs, where the
// paper samples.
func (s *Signals) collectResiduals(criterion.Needs) error {
	for _, p := range s.set {
		gram, err := s.gram(p)
		if err != nil {
			return err
		}
		value, err := s.source.Store.GetVariable(p.Path).Value()
		if err != nil {
			return err
		}
		w, err := tensors.CopyFlatData[float32](value)
		if err != nil {
			return err
		}
		s.put(criterion.NeedResidual, p.Path, greedy(contributions(gram, w, p.Shape, p.Shape.Dimensions[p.In])))
	}
	return nil
}

// contributions returns G [in, in] from the inputs' Gram matrix and the weights [spatial…, in, out].
func contributions(gram *Gram, w []float32, shape shapes.Shape, in int) []float64 {
	out := shape.Dimensions[shape.Rank()-1]
	g := make([]float64, in*in)
	for a := range gram.Dim {
		for b := range gram.Dim {
			x := gram.Sum[a*gram.Dim+b]
			if x == 0 {
				continue
			}
			dot := 0.0
			for o := range out {
				dot += float64(w[a*out+o]) * float64(w[b*out+o])
			}
			g[a%in*in+b%in] += x * dot
		}
	}
	return g
}

// greedy removes one channel after the other, each time the one that makes the error of all that are removed least, and returns the place of each in
// that order, from 1. Of equal channels the later goes first, so that ties are kept as everywhere.
func greedy(g []float64) []float32 {
	n := 0
	for n*n < len(g) {
		n++
	}
	place := make([]float32, n)
	cross := make([]float64, n) // Σ_{k removed} G_jk
	for step := 1; step <= n; step++ {
		best, least := -1, 0.0
		for j := n - 1; j >= 0; j-- {
			if place[j] != 0 {
				continue
			}
			if grows := g[j*n+j] + 2*cross[j]; best < 0 || grows < least {
				best, least = j, grows
			}
		}
		place[best] = float32(step)
		for j := range cross {
			cross[j] += g[j*n+best]
		}
	}
	return place
}

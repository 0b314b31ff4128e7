package signal

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/espalier-ml/espalier/pkg/params"
)

// layer is one use of a parameter in a network: a product of the layer's input with its weights, and what follows.
type layer struct {
	product *graph.Node
	input   *graph.Node // [batch, …] with the input channels along inAxis
	inAxis  int
	output  *graph.Node // the activations: after bias, normalisation and the function that directly follow
	outAxis int
	gain    string // path of the scale of the batch normalisation that follows; "": none
	conv    bool
}

// attributes of a node are only in what it prints; tests hold this against GoMLX's form.
var (
	lhsContracting = regexp.MustCompile(`lhsContractingAxes=\[(\d+)\]`)
	rhsContracting = regexp.MustCompile(`rhsContractingAxes=\[(\d+)\]`)
	noBatchAxes    = regexp.MustCompile(`lhsBatchAxes=\[\]`)
	inputChannels  = regexp.MustCompile(`InputChannels:(\d+) `)
	outputChannels = regexp.MustCompile(` OutputChannels:(\d+) `)
	oneGroup       = regexp.MustCompile(`channelGroupCount=1, batchGroupCount=1\)`)
)

func attribute(pattern *regexp.Regexp, node *graph.Node) (int, bool) {
	m := pattern.FindStringSubmatch(node.String())
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil
}

// elementwise operations keep each value in its channel.
var elementwise = []graph.NodeType{
	graph.NodeTypeAdd, graph.NodeTypeSub, graph.NodeTypeMul, graph.NodeTypeDiv, graph.NodeTypeMax, graph.NodeTypeMin, graph.NodeTypeWhere, graph.NodeTypeTanh,
	graph.NodeTypeLogistic, graph.NodeTypeExp, graph.NodeTypeIdentity, graph.NodeTypeConvertDType, graph.NodeTypeClamp, graph.NodeTypeBatchNormForInference,
	graph.NodeTypeBatchNormForTraining, graph.NodeTypeAbs, graph.NodeTypeNeg, graph.NodeTypeErf, graph.NodeTypeSqrt, graph.NodeTypeRsqrt,
}

// layers finds where a network, built with the result logits, uses the parameters of the set. Each must be used by at least one product that is
// understood, or there is an error that says what it is used by.
func (s *Signals) layers(logits *graph.Node) map[string][]layer {
	live := map[*graph.Node]bool{}
	for todo := []*graph.Node{logits}; len(todo) > 0; {
		node := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !live[node] {
			live[node] = true
			todo = append(todo, node.Inputs()...)
		}
	}
	consumers := map[*graph.Node][]*graph.Node{}
	for _, node := range logits.Graph().Nodes() {
		if live[node] {
			for _, in := range node.Inputs() {
				if !slices.Contains(consumers[in], node) {
					consumers[in] = append(consumers[in], node)
				}
			}
		}
	}
	found := map[string][]layer{}
	for _, p := range s.set {
		var others []string
		// What is made of the variable by masks and conversions is the variable still.
		for todo := []*graph.Node{s.source.Store.GetVariable(p.Path).NodeValue(logits.Graph())}; len(todo) > 0; {
			w := todo[0]
			todo = todo[1:]
			for _, c := range consumers[w] {
				switch c.Type() {
				case graph.NodeTypeWhere, graph.NodeTypeConvertDType, graph.NodeTypeIdentity:
					todo = append(todo, c)
					continue
				}
				l, ok := s.use(c, w, p)
				if !ok {
					others = append(others, c.Type().String())
					continue
				}
				s.follow(&l, consumers)
				found[p.Path] = append(found[p.Path], l)
			}
		}
		if len(found[p.Path]) == 0 {
			problem := "the network does not use it"
			if len(others) > 0 {
				problem = fmt.Sprintf("it is used by %s, which is no product of inputs and weights that has a rule here", strings.Join(others, ", "))
			}
			panic(&LayerError{p.Path, problem, "leave it out with params.Set.Without, or use a criterion that needs no activations"})
		}
	}
	return found
}

// use describes a node that multiplies by the weights w.
func (s *Signals) use(node, w *graph.Node, p params.Param) (layer, bool) {
	in := node.Inputs()
	if len(in) < 2 || in[1] != w {
		return layer{}, false
	}
	l := layer{product: node, input: in[0], outAxis: node.Rank() - 1}
	switch node.Type() {
	case graph.NodeTypeDotGeneral:
		lhs, ok1 := attribute(lhsContracting, node)
		rhs, ok2 := attribute(rhsContracting, node)
		l.inAxis = lhs
		return l, ok1 && ok2 && rhs == p.In && noBatchAxes.MatchString(node.String()) && p.Shape.Rank() == 2
	case graph.NodeTypeFusedDense:
		l.inAxis = in[0].Rank() - 1
		return l, p.Shape.Rank() == 2 && in[0].Shape().Dim(-1) == p.Shape.Dimensions[p.In]
	case graph.NodeTypeConvGeneral:
		var ok1, ok2 bool
		l.inAxis, ok1 = attribute(inputChannels, node)
		l.outAxis, ok2 = attribute(outputChannels, node)
		l.conv = true
		return l, ok1 && ok2 && oneGroup.MatchString(node.String())
	}
	return layer{}, false
}

// follow finds the activations of a layer and its batch normalisation: it goes from the product through elementwise operations as long as each value is
// used by one only.
func (s *Signals) follow(l *layer, consumers map[*graph.Node][]*graph.Node) {
	l.output = l.product
	for {
		next := consumers[l.output]
		if len(next) != 1 || !slices.Contains(elementwise, next[0].Type()) || !next[0].Shape().Equal(l.output.Shape()) {
			return
		}
		for _, operand := range next[0].Inputs() {
			if operand != l.output && l.gain == "" {
				l.gain = s.gain(operand, l.output.Shape().Dimensions[l.outAxis])
			}
		}
		l.output = next[0]
	}
}

// gain returns the path of the variable named "scale" that an operand is made of; "" for others.
func (s *Signals) gain(operand *graph.Node, channels int) string {
	for range 8 { // reshapes and broadcasts
		switch operand.Type() {
		case graph.NodeTypeParameter:
			v := s.source.Store.GetVariable(operand.GetParameterName())
			if v != nil && v.Name() == "scale" && v.Shape().Size() == channels {
				return v.Path()
			}
			return ""
		case graph.NodeTypeReshape, graph.NodeTypeBroadcastInDim, graph.NodeTypeConvertDType, graph.NodeTypeTranspose:
			operand = operand.Inputs()[0]
		default:
			return ""
		}
	}
	return ""
}

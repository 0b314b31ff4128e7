package surgery

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// labelled labels a function of variables and returns the labels of its result: a line for each axis, an entry for each index. a0.2 is what index 2 of axis 0 of the variable a
// carries, or the first that carries the same; − stays; * is carried by no variable.
func labelled(t *testing.T, fn func(variable func(name string, dims ...int) *Node) *Node) string {
	t.Helper()
	store := model.NewStore()
	r, err := trace.Record(open(t), store, func(s *model.Scope, in []*Node) []*Node {
		return []*Node{fn(func(name string, dims ...int) *Node {
			if name == "x" { // data
				return BroadcastToDims(Reshape(in[0], 1), dims...)
			}
			return s.VariableWithShape(name, float(dims...)).NodeValue(in[0])
		})}
	}, trace.Config{}, float(1))
	if err != nil {
		t.Fatal(err)
	}
	a := newAnalysis()
	for _, op := range r.Ops {
		a.op(op)
	}
	names := map[atom]string{}
	paths := append([]string{}, a.order...)
	sort.Strings(paths)
	for _, path := range paths {
		for k, ax := range a.variables[path].axes {
			for i, s := range ax.sets {
				for _, x := range a.atoms(s) {
					if names[x] == "" {
						names[x] = fmt.Sprintf("%s%d.%d", path[1:], k, i)
					}
				}
			}
		}
	}
	var lines []string
	for _, ax := range a.of(trace.Of(r.Outputs[0])[0]).axes {
		var entries []string
		for i := range ax.n {
			entry := "-"
			if ax.sets != nil && len(a.atoms(ax.sets[i])) > 0 {
				var parts []string
				for _, x := range a.atoms(ax.sets[i]) {
					name := names[x]
					if name == "" {
						name = "*"
					}
					parts = append(parts, name)
				}
				sort.Strings(parts)
				entry = strings.Join(parts, "+")
			}
			entries = append(entries, entry)
		}
		lines = append(lines, strings.Join(entries, " "))
	}
	return strings.Join(lines, "\n")
}

// The rules by hand.
func TestRulesByHand(t *testing.T) {
	type variables = func(name string, dims ...int) *Node
	for _, c := range []struct {
		name string
		fn   func(v variables) *Node
		want string
	}{
		{"variable", func(v variables) *Node { return v("a", 2, 3) }, "a0.0 a0.1\na1.0 a1.1 a1.2"},
		{"one index", func(v variables) *Node { return v("a", 2, 1) }, "a0.0 a0.1\n-"},
		{"elementwise", func(v variables) *Node { return Add(v("a", 2), v("b", 2)) }, "a0.0 a0.1"},
		{"one for all", func(v variables) *Node { return Add(v("a", 2, 3), v("b", 1, 3)) }, "a0.0 a0.1\na1.0 a1.1 a1.2"},
		{"choice", func(v variables) *Node { return Where(GreaterThan(v("a", 2), v("b", 2)), v("c", 2), v("a", 2)) }, "a0.0 a0.1"},
		{"broadcast", func(v variables) *Node { return BroadcastToDims(Reshape(v("a", 2), 1, 2), 3, 2) }, "* * *\na0.0 a0.1"},
		{"transpose", func(v variables) *Node { return Transpose(v("a", 2, 3), 0, 1) }, "a1.0 a1.1 a1.2\na0.0 a0.1"},
		{"reverse", func(v variables) *Node { return Reverse(v("a", 3), 0) }, "a0.2 a0.1 a0.0"},
		{"slice", func(v variables) *Node { return Slice(v("a", 5), AxisRange(1, 4)) }, "a0.1 a0.2 a0.3"},
		{"slice with a stride", func(v variables) *Node { return Slice(v("a", 5), AxisRange().Stride(2)) }, "- - -"},
		{"slice of one", func(v variables) *Node { return Concatenate([]*Node{Slice(v("a", 3), AxisElem(1)), v("a", 3)}, 0) }, "- a0.0 - a0.2"},
		{"pad", func(v variables) *Node {
			a := v("a", 2)
			return Pad(a, ScalarZero(a.Graph(), a.DType()), PadAxis{Start: 1, End: 1})
		}, "* a0.0 a0.1 *"},
		{"pad between", func(v variables) *Node {
			a := v("a", 2)
			return Pad(a, ScalarZero(a.Graph(), a.DType()), PadAxis{Interior: 1})
		}, "- - -"},
		{"concatenate", func(v variables) *Node { return Concatenate([]*Node{v("a", 2, 2), v("b", 1, 2)}, 0) }, "a0.0 a0.1 -\na1.0 a1.1"},
		{"product", func(v variables) *Node { return Dot(v("a", 2, 3), v("b", 3, 4)).Product() }, "a0.0 a0.1\nb1.0 b1.1 b1.2 b1.3"},
		{"product in batches", func(v variables) *Node { return Einsum("hsd,htd->hst", v("a", 2, 3, 4), v("b", 2, 5, 4)) },
			"a0.0 a0.1\na1.0 a1.1 a1.2\nb1.0 b1.1 b1.2 b1.3 b1.4"},
		{"contracted", func(v variables) *Node {
			Dot(v("a", 2), v("b", 2)).Product()
			return Add(Dot(v("a", 2), v("b", 2)).Product(), v("b", 2))
		}, "a0.0 a0.1"},
		{"a sum of what is not zero", func(v variables) *Node {
			a, b := Exp(v("a", 2)), Exp(v("b", 2))
			return Add(Dot(a, b).Product(), v("a", 2))
		}, "- -"},
		{"a sum of what may be no number", func(v variables) *Node { // 0/0 · 0
			a := v("a", 2)
			return Add(Dot(Div(a, Abs(a)), v("b", 2)).Product(), a)
		}, "- -"},
		{"a quotient by what is not zero", func(v variables) *Node {
			a := v("a", 2)
			return Add(Dot(Div(a, AddScalar(Abs(a), 1)), v("b", 2)).Product(), a)
		}, "a0.0 a0.1"},
		{"a power of what is zero", func(v variables) *Node { // the square of zero is zero
			a := v("a", 2)
			return Add(Dot(Pow(a, Scalar(a.Graph(), a.DType(), 2)), Exp(v("b", 2))).Product(), a)
		}, "a0.0 a0.1"},
		{"a root of its inverse", func(v variables) *Node { // 0⁻¹ · 0
			a := v("a", 2)
			return Add(Dot(Pow(Abs(a), Scalar(a.Graph(), a.DType(), -0.5)), v("b", 2)).Product(), a)
		}, "- -"},
		{"an exponent of zero", func(v variables) *Node { // 2⁰ · 0
			a := v("a", 2)
			return Add(Dot(Pow(AddScalar(Abs(a), 2), a), v("b", 2)).Product(), a)
		}, "a0.0 a0.1"},
		{"merge", func(v variables) *Node { return Reshape(v("a", 2, 2), 4) }, "a0.0+a1.0 a0.0+a1.1 a0.1+a1.0 a0.1+a1.1"},
		{"split", func(v variables) *Node { return Reshape(v("a", 4), 2, 2) }, "a0.0 a0.2\na0.0 a0.1"},
		{"merge and split again", func(v variables) *Node { return Reshape(Reshape(v("a", 2, 3), 6), 2, 3) }, "a0.0 a0.1\na1.0 a1.1 a1.2"},
		{"merge and split otherwise", func(v variables) *Node { return Reshape(Reshape(v("a", 2, 3), 6), 3, 2) }, "- - -\n- -"},
		{"axes of one", func(v variables) *Node { return Reshape(v("a", 3), 1, 3, 1) }, "-\na0.0 a0.1 a0.2\n-"},
		{"flatten", func(v variables) *Node { return Reshape(Mul(v("x", 2, 2), Reshape(v("a", 2), 1, 2)), 4) }, "*+a0.0 *+a0.1 *+a0.0 *+a0.1"},
		{"shuffle", func(v variables) *Node { return Reshape(Transpose(Reshape(v("a", 4), 2, 2), 0, 1), 4) },
			"a0.0+a0.0 a0.0+a0.2 a0.0+a0.1 a0.1+a0.2"},
		{"sum of what is zero", func(v variables) *Node {
			return Add(Reshape(ReduceSum(v("a", 2, 3), 1), 2), ReduceSum(Transpose(v("a", 2, 3), 0, 1), 0))
		}, "a0.0 a0.1"},
		{"largest", func(v variables) *Node {
			return Add(v("a", 3), BroadcastToDims(Reshape(ReduceMax(v("a", 3), 0), 1), 3))
		}, "- - -"},
		{"look up", func(v variables) *Node { return Gather(v("a", 5, 3), Const(v("a", 5, 3).Graph(), [][]int32{{1}, {4}})) }, "* *\na1.0 a1.1 a1.2"},
		{"position", func(v variables) *Node { return ConvertDType(ArgMax(v("a", 3, 2), 0), v("a", 3, 2).DType()) }, "a1.0 a1.1"},
		{"range", func(v variables) *Node { return Add(v("a", 3), Iota(v("a", 3).Graph(), float(3), 0)) }, "a0.0 a0.1 a0.2"},
		{"constant", func(v variables) *Node { return Add(v("a", 3), Const(v("a", 3).Graph(), []float32{1, 2, 3})) }, "a0.0 a0.1 a0.2"},
		{"convolution", func(v variables) *Node { return Convolve(v("a", 1, 4, 4, 2), v("k", 3, 3, 2, 3)).PadSame().Done() },
			"-\n- - - -\n- - - -\nk3.0 k3.1 k3.2"},
		{"depthwise", func(v variables) *Node {
			return Convolve(v("a", 1, 2, 2, 3), v("k", 1, 1, 1, 3)).ChannelGroupCount(3).Done()
		},
			"-\n- -\n- -\na3.0 a3.1 a3.2"},
		{"two groups", func(v variables) *Node {
			return Convolve(v("a", 1, 1, 1, 4), v("k", 1, 1, 2, 4)).ChannelGroupCount(2).Done()
		},
			"-\n-\n-\na3.0+k3.0 a3.0+k3.1 a3.2+k3.0 a3.2+k3.1"},
		{"window", func(v variables) *Node { return MaxPool(v("a", 1, 4, 4, 2)).Window(2).Done() }, "-\n- -\n- -\na3.0 a3.1"},
		{"batch normalisation", func(v variables) *Node {
			return InternalBatchNormForInference(v("a", 2, 3), v("s", 3), v("o", 3), v("m", 3), v("v", 3), 1e-3, 1)
		}, "a0.0 a0.1\na1.0 a1.1 a1.2"},
		{"overlapping parts", func(v variables) *Node {
			a := v("a", 3)
			return Add(Slice(a, AxisRange(0, 2)), Slice(a, AxisRange(1, 3)))
		}, "a0.0 a0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, labelled(t, c.fn)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

package surgery

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/attention"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// drawn is a diagram as text: a line for each node, with its groups and where it comes from, then one for each group.
func drawn(d report.Diagram) string {
	var b strings.Builder
	for _, n := range d.Nodes {
		var from []string
		for _, e := range d.Edges {
			if e.To == n.Name {
				from = append(from, e.From)
			}
		}
		fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprintf("%s (%s) %q <- %s", n.Name, n.Text, n.Groups, strings.Join(from, ", "))))
	}
	for _, g := range d.Groups {
		fmt.Fprintf(&b, "%s: %d of %d go; %s\n", g.Name, g.Removed, g.Channels, g.Text)
	}
	return b.String()
}

func TestDiagram(t *testing.T) {
	for _, c := range []struct {
		name string
		fn   func(*model.Scope, *graph.Node) *graph.Node
		dims []int
		want string
	}{
		{"residual", func(s *model.Scope, x *graph.Node) *graph.Node {
			x = relu(batchNorm(s.In("b0"), conv(s.In("c0"), x, 8, 3, 1)))
			y := relu(batchNorm(s.In("b1"), conv(s.In("c1"), x, 6, 3, 1)))
			x = relu(graph.Add(x, batchNorm(s.In("b2"), conv(s.In("c2"), y, 8, 1, 1))))
			return layers.Dense(s.In("fc"), graph.ReduceMean(x, 1, 2), true, 3)
		}, []int{1, 4, 4, 3}, `input (4×4×3) [] <-
c0 (3×3, 8) ["c0"] <- input
c1 (3×3, 6) ["c1"] <- c0
c2 (1×1, 8) ["c0"] <- c1
+ () ["c0"] <- c0, c2
fc (3) [] <- +
result () [] <- fc
c0: 4 of 8 go; made by c0, c2; read by c1, fc
c1: 3 of 6 go; made by c1; read by c2
`},
		{"attention", func(s *model.Scope, x *graph.Node) *graph.Node {
			x = layers.Dense(s.In("embed"), x, true, 8)
			x = graph.Add(x, attention.SelfAttention(s.In("attend"), x, 2, 3).Done())
			return layers.Dense(s.In("fc"), x, true, 3)
		}, []int{2, 5, 4}, strings.ReplaceAll(`input (5×4) [] <-
embed (8) ["embed"] <- input
@/key (6) ["/@/key/dense/weights:1" "/@/key/dense/weights:1#2"] <- embed
@/query (6) ["/@/key/dense/weights:1" "/@/key/dense/weights:1#2"] <- embed
@/value (6) ["/@/key/dense/weights:1" "@/value"] <- embed
product () ["/@/key/dense/weights:1"] <- @/query, @/key
product 2 () ["/@/key/dense/weights:1" "@/value"] <- product, @/value
@/output (8) ["embed"] <- product 2
+ () ["embed"] <- embed, @/output
fc (3) [] <- +
result () [] <- fc
embed: 4 of 8 go; made by embed, @/output; read by @/key, @/query, @/value, fc
/@/key/dense/weights:1: 1 of 2 go; made by @/key, @/query, @/value; read by @/output
/@/key/dense/weights:1#2: 1 of 3 go; made by @/key, @/query
@/value: 1 of 3 go; made by @/value; read by @/output
`, "@", "attend/MultiHeadAttention")},
		{"variables of ONNX", func(s *model.Scope, x *graph.Node) *graph.Node {
			s = s.In("ONNX")
			w := func(name string, dims ...int) *graph.Node {
				return s.VariableWithShape(name, float(dims...)).NodeValue(x.Graph())
			}
			for _, name := range []string{"layer1.0.conv1.weight", "encoder|up|weights"} { // PyTorch's names; those of GoMLX, whose slashes are bars
				x = relu(graph.Dot(x, graph.Transpose(w(name, 6, x.Shape().Dim(1)), 0, 1)).Product())
			}
			return graph.Dot(x, w("onnx::MatMul_12", 6, 2)).Product()
		}, []int{2, 4}, `input (4) [] <-
layer1.0.conv1 (6) ["layer1.0.conv1"] <- input
encoder/up (6) ["encoder/up"] <- layer1.0.conv1
onnx::MatMul_12 (2) [] <- encoder/up
result () [] <- onnx::MatMul_12
layer1.0.conv1: 3 of 6 go; made by layer1.0.conv1; read by encoder/up
encoder/up: 3 of 6 go; made by encoder/up; read by onnx::MatMul_12
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := Trace(open(t), model.NewStore(), trace.Single(c.fn), float(c.dims...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, drawn(n.Diagram(half(n, 1)))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, g := range n.Diagram(nil).Groups {
				if g.Removed != 0 {
					t.Errorf("without a plan, %d channels of %s go", g.Removed, g.Name)
				}
			}
		})
	}
}
